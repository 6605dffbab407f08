//! Named formats, as Kubernetes' library has them: `format.dns1123Label().validate('a')` says
//! what is wrong with a text, if anything is.

use apiservice::forms::{self, NameRule};

use super::value::{Unusable, Val};
use super::{Evaluated, Run, url};

/// What a text is looked at for.
#[derive(Debug)]
pub struct Format {
    /// As it is called.
    pub name: &'static str,
    /// Characters of the regular expression that it is counted as.
    size: u64,
    wrong: fn(&str) -> Vec<String>,
}

/// All that there are.
pub static ALL: [Format; 13] = [
    format("dns1123Label", 30, label),
    format("dns1123Subdomain", 60, subdomain),
    format("dns1035Label", 30, service_label),
    format("qualifiedName", 60, forms::qualified_name_complaints),
    format("dns1123LabelPrefix", 30, |text| label(&masked(text))),
    format("dns1123SubdomainPrefix", 60, |text| {
        subdomain(&masked(text))
    }),
    format("dns1035LabelPrefix", 30, |text| {
        service_label(&masked(text))
    }),
    format("labelValue", 40, forms::label_value_complaints),
    format("uri", 1103, |text| url::wrong(text).into_iter().collect()),
    format("uuid", 70, |text| {
        said(is_uuid(text), "does not match the UUID format")
    }),
    format("byte", 84, |text| said(is_base64(text), "invalid base64")),
    format("date", 71, |text| said(is_date(text), "invalid date")),
    format("datetime", 71, |text| {
        said(is_datetime(text), "invalid datetime")
    }),
];

const fn format(name: &'static str, size: u64, wrong: fn(&str) -> Vec<String>) -> Format {
    Format { name, size, wrong }
}

/// The one with this name.
pub fn named(name: &str) -> Option<&'static Format> {
    ALL.iter().find(|format| format.name == name)
}

fn said(holds: bool, why: &str) -> Vec<String> {
    (!holds).then(|| why.to_owned()).into_iter().collect()
}

fn label(text: &str) -> Vec<String> {
    in_characters(forms::label_complaints(text))
}

fn subdomain(text: &str) -> Vec<String> {
    in_characters(forms::subdomain_complaints(text))
}

fn service_label(text: &str) -> Vec<String> {
    in_characters(NameRule::ServiceLabel.complaints(text, false))
}

/// Of these formats Kubernetes says lengths in characters, of keys and values of labels in
/// bytes.
fn in_characters(complaints: Vec<String>) -> Vec<String> {
    let complaints = complaints.into_iter();
    let said = complaints.map(|one| match one.strip_suffix(" bytes") {
        Some(rest) => format!("{rest} characters"),
        None => one,
    });
    said.collect()
}

/// What the beginning of a name is judged by: more follows a dash at its end.
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let last = rest.char_indices().next_back();
            format!("{}a", &rest[..last.map_or(0, |(at, _)| at)])
        }
        _ => text.to_owned(),
    }
}

/// Hexadecimal digits, with dashes or without.
fn is_uuid(text: &str) -> bool {
    let mut rest = text.as_bytes();
    for (at, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
        let Some((part, more)) = rest.split_at_checked(length) else {
            return false;
        };
        if !part.iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
        rest = more;
    }
    rest.is_empty()
}

fn is_base64(text: &str) -> bool {
    let plain = text.strip_suffix("==").or_else(|| text.strip_suffix('='));
    let is = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    !text.is_empty() && text.len().is_multiple_of(4) && plain.unwrap_or(text).bytes().all(is)
}

fn is_date(text: &str) -> bool {
    let digits = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<i16>().ok()).flatten()
    };
    let day = || {
        let (month, day) = (digits(5, 7)?, digits(8, 10)?);
        let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
        jiff::civil::Date::new(digits(0, 4)?, month, day).ok()
    };
    let dashes = [4, 7].map(|at| text.as_bytes().get(at) == Some(&b'-'));
    text.len() == 10 && dashes == [true, true] && day().is_some()
}

fn is_datetime(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else {
        return false;
    };
    is_date(date) && is_time(time)
}

/// `12:30:00`, maybe with a fraction, and a zone.
fn is_time(text: &str) -> bool {
    // Each number, and the largest that it may be.
    fn numbers<'t>(text: &'t str, most: &[&str]) -> Option<&'t str> {
        let mut rest = text;
        for (at, most) in most.iter().enumerate() {
            if at > 0 {
                rest = rest.strip_prefix(':')?;
            }
            let (digits, more) = rest.split_at_checked(2)?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            rest = (plain && digits <= *most).then_some(more)?;
        }
        Some(rest)
    }
    fn is_zone(text: &str) -> bool {
        let offset = text.strip_prefix(['+', '-']);
        let offset = offset.and_then(|offset| numbers(offset, &["99", "99"]));
        text == "z" || offset == Some("")
    }
    let Some(rest) = numbers(text, &["23", "59", "59"]) else {
        return false;
    };
    // Any character may stand before the fraction.
    let mut fraction = rest.chars();
    let before = fraction.next();
    let digits = fraction.as_str();
    let after = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    let has_fraction = before.is_some_and(|c| c != '\n') && after.len() < digits.len();
    is_zone(rest) || has_fraction && is_zone(after)
}

/// The functions of this library; nothing for others.
pub fn call<'a>(run: &Run<'_, 'a>, name: &str, args: &[Val<'a>]) -> Option<Evaluated<'a>> {
    match (name, args) {
        ("format.named", [Val::Text(name)]) => Some(match named(name) {
            Some(format) => Val::some(Val::Format(format)),
            None => Ok(Val::Optional(None)),
        }),
        ("validate", [Val::Format(format), Val::Text(text)]) => Some(validate(run, format, text)),
        (name, []) => {
            let format = name.strip_prefix("format.").and_then(named);
            format.map(|format| Ok(Val::Format(format)))
        }
        _ => None,
    }
}

fn validate<'a>(run: &Run<'_, 'a>, format: &Format, text: &str) -> Evaluated<'a> {
    let length = text.len() as u64;
    let steps = (length + 1).div_ceil(10) * format.size.div_ceil(4);
    run.budget.take(steps)?;
    // Its parts, and what is made of it to look at it.
    run.budget.copy(text.len().saturating_mul(8))?;
    let wrong = (format.wrong)(text);
    if wrong.is_empty() {
        return Ok(Val::Optional(None));
    }
    run.budget.items(wrong.len())?;
    let wrong = wrong.iter().map(|why| run.text(why));
    Val::some(Val::list(wrong.collect::<Result<_, Unusable>>()?)?)
}
