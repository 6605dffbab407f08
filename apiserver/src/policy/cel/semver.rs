//! Semantic versions, as Kubernetes' library reads and compares them.

use std::cmp::Ordering;
use std::rc::Rc;

use super::value::Val;
use super::{Evaluated, Run, error};

/// One that was read. What was built when is not compared, and so it is not kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    /// The part behind `-`; empty if there is none.
    before: String,
}

impl Semver {
    /// Bytes of its text.
    pub fn bytes(&self) -> usize {
        self.before.len()
    }

    /// Which is the newer one.
    pub fn order(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        numbers.then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let own = self.before.split('.').map(Identifier::new);
                own.cmp(other.before.split('.').map(Identifier::new))
            }
        })
    }
}

/// A part of what stands behind `-`: numbers come before texts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'t> {
    Number(u64),
    Text(&'t str),
}

impl<'t> Identifier<'t> {
    fn new(text: &'t str) -> Self {
        text.parse().map_or(Self::Text(text), Self::Number)
    }
}

fn short(text: &str) -> String {
    apiservice::told::short(text, apiservice::told::MAX_PATH)
}

fn number(text: &str, what: &str, wrong: &str) -> Result<u64, String> {
    let shown = || short(text);
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "Invalid character(s) found in {wrong} {:?}",
            shown()
        ));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!(
            "{what} must not contain leading zeroes {:?}",
            shown()
        ));
    }
    let why = match text {
        "" => "invalid syntax",
        _ => "value out of range",
    };
    let wrong = |_| format!("strconv.ParseUint: parsing {:?}: {why}", shown());
    text.parse().map_err(wrong)
}

fn is_word(text: &str) -> bool {
    let is = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.bytes().all(is)
}

fn parse(text: &str) -> Result<Semver, String> {
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let mut parts = text.splitn(3, '.');
    let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let major = number(major, "Major number", "major number")?;
    let minor = number(minor, "Minor number", "minor number")?;
    let (rest, build) = match rest.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (rest, None),
    };
    let (patch, before) = match rest.split_once('-') {
        Some((patch, before)) => (patch, Some(before)),
        None => (rest, None),
    };
    let patch = number(patch, "Patch number", "patch number")?;
    for part in before.into_iter().flat_map(|before| before.split('.')) {
        if part.is_empty() {
            return Err("Prerelease is empty".to_owned());
        }
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            number(part, "Numeric PreRelease version", "prerelease")?;
        } else if !is_word(part) {
            let part = short(part);
            return Err(format!("Invalid character(s) found in prerelease {part:?}"));
        }
    }
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".to_owned());
        }
        if !is_word(part) {
            let part = short(part);
            return Err(format!(
                "Invalid character(s) found in build meta data {part:?}"
            ));
        }
    }
    Ok(Semver {
        numbers: [major, minor, patch],
        before: before.unwrap_or_default().to_owned(),
    })
}

/// The same of what is written less strictly: with a `v`, without all numbers, or with zeros
/// before them.
fn normalized(text: &str) -> Result<Semver, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
    for part in parts.iter_mut().filter(|part| part.len() > 1) {
        let rest = part.trim_start_matches('0');
        *part = match rest.starts_with(|c: char| c.is_ascii_digit()) {
            true => rest.to_owned(),
            false => format!("0{rest}"),
        };
    }
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".to_owned());
        }
        parts.resize(3, "0".to_owned());
    }
    parse(&parts.join("."))
}

/// The functions of this library; nothing for others.
pub fn call<'a>(run: &Run<'_, 'a>, name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    if let ("semver" | "isSemver", [Val::Text(text), rest @ ..]) = (name, args) {
        let normal = match rest {
            [] => false,
            [Val::Bool(normal)] => *normal,
            _ => return None,
        };
        // Its parts, these in one text again, and what is kept.
        if let Err(why) = run.budget.copy(text.len().saturating_mul(3)) {
            return Some(Err(why));
        }
        let read = match normal {
            true => normalized(text),
            false => parse(text),
        };
        return Some(match (name, read) {
            ("isSemver", read) => Ok(Val::Bool(read.is_ok())),
            (_, Ok(version)) => Ok(Val::Semver(Rc::new(version))),
            (_, Err(why)) => error(why),
        });
    }
    // As Go makes one of it.
    let int = |number: u64| Ok(Val::Int(number as i64));
    Some(match (name, args) {
        ("major", [Val::Semver(version)]) => int(version.numbers[0]),
        ("minor", [Val::Semver(version)]) => int(version.numbers[1]),
        ("patch", [Val::Semver(version)]) => int(version.numbers[2]),
        ("isLessThan" | "isGreaterThan" | "compareTo", [Val::Semver(one), Val::Semver(other)]) => {
            if let Err(why) = run.budget.look(one.bytes().min(other.bytes())) {
                return Some(Err(why));
            }
            let order = one.order(other);
            Ok(match name {
                "isLessThan" => Val::Bool(order.is_lt()),
                "isGreaterThan" => Val::Bool(order.is_gt()),
                _ => Val::Int(order as i64),
            })
        }
        _ => return None,
    })
}
