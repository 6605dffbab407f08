//! Query parameters and the options types of `meta.k8s.io` (contract 3.2).
//! Pure: parsing and validation with Kubernetes' texts.

mod collection;
mod delete;

use std::time::Duration;

use apiservice::field::{self, Path};
use apiservice::meta::MAX_MANAGER;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

pub use self::collection::{Continue, List, Match, Watch, parse_version};
pub use self::delete::{Delete, Propagation};
use crate::status::Failure;

/// The decoded pairs of a query string, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a>(&'a [(String, String)]);

impl<'a> Query<'a> {
    /// Over the pairs of a request.
    pub fn new(pairs: &'a [(String, String)]) -> Self {
        Self(pairs)
    }

    /// The first value of a parameter; later ones do not count for scalars.
    pub fn first(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Anything but `0` and `false` is true, also an empty value.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        let value = self.first(name)?;
        Some(value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, Failure> {
        match self.first(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value
                .parse()
                .map(Some)
                .map_err(|_| Failure::BadRequest(syntax("ParseInt", value))),
        }
    }

    fn text(&self, name: &str) -> &'a str {
        self.first(name).unwrap_or("")
    }
}

fn syntax(function: &str, value: &str) -> String {
    format!("strconv.{function}: parsing {value:?}: invalid syntax")
}

fn invalid_options(kind: &str, errors: field::Errors) -> Result<(), Failure> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::Invalid {
        kind: kind.to_owned(),
        group: "meta.k8s.io".to_owned(),
        name: String::new(),
        errors,
    })
}

/// What to do about unknown and duplicate fields (R6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Say nothing.
    Ignore,
    /// What a server does that is not told.
    #[default]
    Warn,
    /// Refuse the write.
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Do everything but store.
    pub dry_run: bool,
    /// About unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// What is applied takes fields that others own.
    pub force: bool,
}

/// Which options type a 422 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    Create,
    Update,
    Patch,
    /// A configuration that is applied.
    Apply,
}

impl Write {
    /// Parses and validates; 422 in the name of the options type.
    pub fn parse(query: Query<'_>, kind: WriteKind) -> Result<Self, Failure> {
        let mut errors = field::Errors::new();
        let manager = query.text("fieldManager");
        if kind == WriteKind::Apply && manager.is_empty() {
            let path = Path::new("fieldManager");
            let why = "is required for apply patch";
            errors.push(field::Error::required(&path, why));
        }
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        validate_dry_run(&dry_run, &mut errors);
        validate_manager(manager, &mut errors);
        let text = query.text("fieldValidation");
        let field_validation = match text {
            "" => FieldValidation::default(),
            "Ignore" => FieldValidation::Ignore,
            "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(field::Error::not_supported(
                    &Path::new("fieldValidation"),
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::default()
            }
        };
        if kind == WriteKind::Patch && query.first("force").is_some() {
            // Server-side apply is the only patch that may be forced.
            errors.push(field::Error::forbidden(
                &Path::new("force"),
                "may not be specified for non-apply patch",
            ));
        }
        let name = match kind {
            WriteKind::Create => "CreateOptions",
            WriteKind::Update => "UpdateOptions",
            WriteKind::Patch | WriteKind::Apply => "PatchOptions",
        };
        invalid_options(name, errors)?;
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            field_validation,
            force: query.boolean("force").unwrap_or(false),
        })
    }
}

/// Who writes, as managers of fields are named: who the client says, or else what it is by
/// its User-Agent (R5.13).
pub fn manager(query: Query<'_>, headers: &HeaderMap) -> String {
    let named = query.text("fieldManager");
    if !named.is_empty() {
        return named.to_owned();
    }
    let agent = headers.get(header::USER_AGENT);
    let agent = String::from_utf8_lossy(agent.map_or(&[], HeaderValue::as_bytes));
    let product = agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for character in product.chars().filter(|character| is_printable(*character)) {
        if name.len() + character.len_utf8() > MAX_MANAGER {
            break;
        }
        name.push(character);
    }
    name
}

/// Letters, marks, numbers, punctuation, symbols and the space.
pub fn is_printable(character: char) -> bool {
    let hidden = matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}');
    character == ' ' || !(character.is_control() || character.is_whitespace() || hidden)
}

fn validate_dry_run(values: &[&str], errors: &mut field::Errors) {
    if values.iter().any(|value| *value != "All") {
        errors.push(field::Error::not_supported(
            &Path::new("dryRun"),
            json!(values),
            &["All"],
        ));
    }
}

fn validate_manager(manager: &str, errors: &mut field::Errors) {
    let path = Path::new("fieldManager");
    if manager.len() > MAX_MANAGER {
        errors.push(field::Error::too_long(&path, MAX_MANAGER as u64));
    }
    let bad = manager.char_indices().find(|(_, c)| !is_printable(*c));
    if let Some((position, bad)) = bad {
        let detail = format!(
            "invalid character U+{:04X} (at position {position})",
            u32::from(bad)
        );
        errors.push(field::Error::invalid(&path, manager, detail));
    }
}

/// Refuses names that cannot be path segments (R3.45).
pub fn check_name(name: &str) -> Result<(), Failure> {
    let why = match name {
        "." => "may not be '.'",
        ".." => "may not be '..'",
        name if name.contains('/') => "may not contain '/'",
        name if name.contains('%') => "may not contain '%'",
        _ => return Ok(()),
    };
    Err(Failure::BadRequest(format!(
        "Name parameter invalid: {name:?}: {why}"
    )))
}

/// `timeout`, a Go duration such as `1m30s`, which shortens the deadline.
pub fn timeout(pairs: &[(String, String)]) -> Result<Option<Duration>, Failure> {
    let Some(text) = Query::new(pairs)
        .first("timeout")
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    match go_duration(text) {
        Some(duration) => Ok(Some(duration).filter(|duration| !duration.is_zero())),
        None => Err(Failure::BadRequest(format!(
            "invalid timeout specified in the request URL - time: invalid duration {text:?}"
        ))),
    }
}

/// A duration as Go writes it, not below zero; `None` for what is none.
pub fn go_duration(text: &str) -> Option<Duration> {
    let duration = apiservice::duration::parse(text)?;
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (key.to_owned(), value.to_owned())
            })
            .collect()
    }

    /// R3.5, R6.3.
    #[test]
    fn write_options() {
        let ok = [
            ("", false, FieldValidation::Warn),
            (
                "dryRun=All&fieldValidation=Strict",
                true,
                FieldValidation::Strict,
            ),
            (
                "fieldManager=kubectl&fieldValidation=Ignore",
                false,
                FieldValidation::Ignore,
            ),
        ];
        for (text, dry_run, field_validation) in ok {
            let expected = Write {
                dry_run,
                field_validation,
                force: false,
            };
            let pairs = pairs(text);
            assert_eq!(
                Write::parse(Query::new(&pairs), WriteKind::Create).unwrap(),
                expected
            );
        }
        let bad = [
            (
                "dryRun=x",
                "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"x\"]: supported values: \"All\"",
            ),
            (
                "fieldValidation=x",
                "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
        ];
        for (text, expected) in bad {
            let pairs = pairs(text);
            let failure = Write::parse(Query::new(&pairs), WriteKind::Create).unwrap_err();
            assert_eq!(failure.to_string(), expected);
        }
        let pairs = pairs("force=true");
        let failure = Write::parse(Query::new(&pairs), WriteKind::Patch).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
        );
    }

    /// R3.45.
    #[test]
    fn names_and_durations() {
        assert!(check_name("a.b").is_ok());
        assert_eq!(
            check_name("a%").unwrap_err().to_string(),
            "Name parameter invalid: \"a%\": may not contain '%'"
        );
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(go_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(go_duration("5"), None);
        assert_eq!(go_duration("0"), Some(Duration::ZERO));
        assert_eq!(go_duration("-1s"), None);
        assert!(timeout(&pairs("timeout=x")).is_err());
    }
}
