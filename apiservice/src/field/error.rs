//! One thing that is wrong with one field.

use std::fmt;

use serde_json::Value;

use super::path::Path;
use crate::told::{self, MAX_TEXT};

/// Bytes of a text that is refused and shown: a patch that leads to something refused is
/// shown as the whole object. Each is of another part of what was sent.
const MAX_VALUE: usize = 32 * 1024;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A field that must be there is not.
    Required,
    /// A malformed value.
    Invalid,
    /// A value outside an enumeration.
    NotSupported,
    /// A value that must be unique and is not.
    Duplicate,
    /// A value that the rest of the object rules out.
    Forbidden,
    /// A string that is too long.
    TooLong,
    /// A list or map with too many entries.
    TooMany,
    /// A value of another type than the schema's.
    TypeInvalid,
    /// A reference to something that is not there.
    NotFound,
    /// A failure that is not the requester's.
    InternalError,
}

impl ErrorKind {
    /// The type of a `Status` cause (R3.82).
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
            Self::InternalError => "InternalError",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::InternalError => "Internal error",
        }
    }

    /// Whether the message shows the value at all.
    fn shows_value(self) -> bool {
        !matches!(
            self,
            Self::Required | Self::Forbidden | Self::TooLong | Self::InternalError
        )
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What kind of fault it is.
    pub kind: ErrorKind,
    /// The printed path; `<nil>` for the root.
    pub field: String,
    /// What the value must be, or what to do. May be empty.
    pub detail: String,
    /// The value to show; `None` leaves it out of the message.
    pub bad_value: Option<Value>,
}

impl Error {
    /// A field that must be there.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Required, path, None, detail)
    }

    /// A malformed value, shown in the message.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Invalid, path, Some(value.into()), detail)
    }

    /// A malformed object or list, whose value the message leaves out (R6.19).
    pub fn invalid_whole(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Invalid, path, None, detail)
    }

    /// A value outside `supported`.
    pub fn not_supported<S: AsRef<str>>(
        path: &Path,
        value: impl Into<Value>,
        supported: &[S],
    ) -> Self {
        let quoted: Vec<String> = supported
            .iter()
            .map(|value| quote(value.as_ref()))
            .collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::with(ErrorKind::NotSupported, path, Some(value.into()), detail)
    }

    /// A value that occurs twice where it may occur once.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::with(ErrorKind::Duplicate, path, Some(value.into()), "")
    }

    /// A value that the rest of the object, or its past, rules out.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Forbidden, path, None, detail)
    }

    /// A string of more than `max` bytes.
    pub fn too_long(path: &Path, max: u64) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::with(ErrorKind::TooLong, path, None, detail)
    }

    /// A list or map of `count` entries where `max` are allowed.
    pub fn too_many(path: &Path, count: usize, max: u64) -> Self {
        let detail = format!("must have at most {max} items");
        Self::with(ErrorKind::TooMany, path, Some(count.into()), detail)
    }

    /// A reference to what is not there.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::with(ErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// A value of the type named `given` where the schema wants another.
    pub fn type_invalid(path: &Path, given: &str, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::TypeInvalid, path, Some(given.into()), detail)
    }

    fn with(
        kind: ErrorKind,
        path: &Path,
        bad_value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        let bad_value = bad_value.map(|value| match value {
            Value::String(text) => Value::String(told::cut(text, MAX_VALUE)),
            Value::Array(_) | Value::Object(_) => {
                let text = told::short(&value, MAX_TEXT);
                match text.len() > MAX_TEXT {
                    true => Value::String(text),
                    false => value,
                }
            }
            other => other,
        });
        Self {
            kind,
            field: path.to_string(),
            detail: told::cut(detail.into(), 4 * MAX_TEXT),
            bad_value,
        }
    }

    /// The message of a `Status` cause: all but the field.
    pub fn message(&self) -> String {
        let mut text = self.kind.title().to_owned();
        if let Some(value) = self.bad_value.as_ref().filter(|_| self.kind.shows_value()) {
            text.push_str(": ");
            match value {
                Value::String(value) => text.push_str(&quote(value)),
                value => text.push_str(&value.to_string()),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// The type of a `Status` cause.
    pub fn reason(&self) -> &'static str {
        self.kind.reason()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

impl std::error::Error for Error {}

/// A string in double quotes as Go's `%q` writes it.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                quoted.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// R3.82.
    #[test]
    fn each_kind_has_its_text() {
        let path = Path::new("spec.a");
        let cases = [
            (Error::required(&path, ""), "spec.a: Required value"),
            (
                Error::invalid(&path, "x\"", "must be y"),
                r#"spec.a: Invalid value: "x\"": must be y"#,
            ),
            (
                Error::invalid(&path, 7, "must be 8"),
                "spec.a: Invalid value: 7: must be 8",
            ),
            (
                Error::invalid_whole(&path, "is wrong"),
                "spec.a: Invalid value: is wrong",
            ),
            (
                Error::not_supported(&path, "x", &["a", "b"]),
                r#"spec.a: Unsupported value: "x": supported values: "a", "b""#,
            ),
            (
                Error::duplicate(&path, json!({"name": "x"})),
                r#"spec.a: Duplicate value: {"name":"x"}"#,
            ),
            (Error::forbidden(&path, "no"), "spec.a: Forbidden: no"),
            (
                Error::too_long(&path, 63),
                "spec.a: Too long: may not be more than 63 bytes",
            ),
            (
                Error::too_many(&path, 5, 3),
                "spec.a: Too many: 5: must have at most 3 items",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
