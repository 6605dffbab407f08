//! From the bytes of a body to an object (contract 4.4, 6.1): JSON or YAML,
//! duplicate and unknown fields, whole numbers, typed metadata, pruning and defaults. Pure.

mod parsed;
pub mod strict;

use apiservice::Resource;
use apiservice::field::{self, Path};
use apiservice::{number, told};
use http::{HeaderMap, header};
use serde_json::Value;

use crate::object::{depth, metadata, weight};
use crate::options::FieldValidation;
use crate::protobuf;
use crate::status::Failure;
use crate::warnings::Warnings;
pub use parsed::{Parsed, Unreadable};

/// The largest body that is read, in bytes.
pub const BODY: usize = 3 * 1024 * 1024;
/// The media types in a 415 for an object's body (R4.4).
const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
/// As many strict errors as the JSON decoder of Kubernetes reports (R6.4).
pub(crate) const MAX_STRICT: usize = told::MAX_PATHS;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    /// An applied configuration: JSON if it can be read as such, and YAML if not.
    Either,
    /// Of DeleteOptions and Scale; other objects have no such form.
    Protobuf,
}

impl Media {
    /// The bytes that a body may have.
    pub fn longest(self) -> usize {
        match self {
            Self::Json | Self::Yaml | Self::Either => BODY,
            Self::Protobuf => protobuf::MOST,
        }
    }
}

/// The media type of applied configurations.
pub const APPLY: &str = "application/apply-patch+yaml";

/// The media type of a request without parameters; empty if there is none.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = value.split(';').next().unwrap_or("");
    media.trim().to_ascii_lowercase()
}

/// JSON or YAML by the Content-Type; without one it is JSON (R8.27).
///
/// # Errors
/// 415, also for protobuf: objects of our kinds have no such form (R4.4).
pub fn media(headers: &HeaderMap) -> Result<Media, Failure> {
    match any_media(headers)? {
        Media::Protobuf => Err(Failure::UnsupportedMediaType(ACCEPTED.to_owned())),
        media => Ok(media),
    }
}

/// The same for DeleteOptions and Scale, which may be in protobuf as well.
pub fn any_media(headers: &HeaderMap) -> Result<Media, Failure> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Failure::UnsupportedMediaType(ACCEPTED.to_owned()));
    }
    match content_type(headers).as_str() {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        protobuf::MEDIA => Ok(Media::Protobuf),
        _ => Err(Failure::UnsupportedMediaType(ACCEPTED.to_owned())),
    }
}

/// As what a body is weighed: what is not YAML is read as JSON, patches as well, or not at
/// all.
pub fn weighed_as(headers: &HeaderMap) -> Media {
    match content_type(headers).as_str() {
        APPLY => Media::Either,
        _ => any_media(headers).unwrap_or(Media::Json),
    }
}

/// What the tree of a body will take; it is not made. It is not less than what [`parse`]
/// makes of the same bytes, whichever reader that takes.
///
/// # Errors
/// When that is more than `most`.
pub fn weigh(media: Media, body: &[u8], most: usize) -> Result<usize, weight::TooHeavy> {
    match media {
        Media::Json => strict::weigh_json(body, most).map(|(tree, _)| tree),
        Media::Yaml => strict::weigh_yaml(body, most),
        Media::Protobuf => match body.len().saturating_mul(protobuf::WEIGHT) {
            tree if tree > most => Err(weight::TooHeavy),
            tree => Ok(tree),
        },
        Media::Either => {
            let (tree, is_json) = strict::weigh_json(body, most)?;
            match is_json {
                true => Ok(tree),
                // The first part may be heavier as JSON than all of it is as YAML.
                false => Ok(tree.max(strict::weigh_yaml(body, most)?)),
            }
        }
    }
}

/// Parses the bytes.
///
/// # Errors
/// See [`Unreadable`].
pub fn parse(media: Media, body: &[u8]) -> Result<Parsed, Unreadable> {
    match media {
        Media::Json => strict::json(body),
        Media::Yaml => strict::yaml(body),
        Media::Protobuf => match protobuf::decode(body) {
            Ok(value) => Ok(Parsed {
                value,
                duplicates: Vec::new(),
            }),
            Err(message) => Err(Unreadable::Message(message)),
        },
        Media::Either => match strict::json(body) {
            Ok(mut parsed) => {
                // Of keys that are given twice the reader of YAML tells, as by Kubernetes.
                if !parsed.duplicates.is_empty() {
                    parsed.duplicates = strict::yaml_duplicates(body);
                }
                Ok(parsed)
            }
            Err(Unreadable::TooMany) => Err(Unreadable::TooMany),
            Err(_) => strict::yaml(body),
        },
    }
}

/// Why a document is not an object of the resource.
#[derive(Debug)]
pub enum Reject {
    /// The decoder's text; the caller says of what.
    Decode(String),
    /// An answer of its own.
    Failure(Failure),
}

/// The object in the body of a create or update: parsed, its group, version and
/// kind checked, normalized, pruned and defaulted.
pub fn object(
    resource: &'static Resource,
    media: Media,
    body: &[u8],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, Failure> {
    let parsed = parse(media, body).map_err(|error| error.unrecognized(resource.kind, body))?;
    let mut value = parsed.value;
    complete(
        resource,
        &mut value,
        parsed.duplicates,
        validation,
        warnings,
    )
    .map_err(|reject| match reject {
        Reject::Failure(failure) => failure,
        Reject::Decode(error) => unhandled(resource.kind, &error),
    })?;
    Ok(value)
}

/// A body that has the right kind and is none of it.
pub fn unhandled(kind: &str, error: &str) -> Failure {
    Failure::BadRequest(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {error}",
        version = apiservice::VERSION,
    ))
}

/// Turns a parsed document into an object of the resource (R6.1), in place.
/// Strict errors become warnings, an error, or nothing.
pub fn complete(
    resource: &'static Resource,
    value: &mut Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), Reject> {
    if depth::exceeds(value, depth::MAX_DEPTH) {
        return Err(Reject::Failure(Failure::BadRequest(depth::message())));
    }
    must_be_object(value).map_err(Reject::Decode)?;
    number::settle(value);
    type_meta(resource, value)?;
    resource.normalize(value);
    let mut unknown = metadata::complete(value).map_err(Reject::Decode)?;
    unknown.extend(resource.schema().prune(value));
    resource.default(value);
    judge(duplicates, unknown, validation, warnings).map_err(Reject::Decode)
}

/// The decoder's text for a document that is no object.
pub fn must_be_object(value: &Value) -> Result<(), String> {
    if value.is_object() {
        return Ok(());
    }
    Err(format!(
        "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
        metadata::type_name(value)
    ))
}

/// What becomes of fields that are given twice (complete texts) and of unknown
/// ones (paths): warnings, an error, or nothing (R6.4).
pub fn judge(
    duplicates: Vec<String>,
    mut unknown: Vec<String>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), String> {
    unknown.sort();
    unknown.dedup();
    let strict: Vec<String> = duplicates
        .into_iter()
        .chain(unknown.iter().map(|path| format!("unknown field {path:?}")))
        .take(MAX_STRICT)
        .collect();
    if strict.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            warn(&strict, warnings);
            Ok(())
        }
        FieldValidation::Strict => Err(strict_error(&strict)),
    }
}

/// Warns of what a strict reader would refuse; of what the reader of YAML says, line by
/// line (R6.4).
pub fn warn(texts: &[String], warnings: &Warnings) {
    for text in texts {
        match text.split_once("yaml: unmarshal errors:\n") {
            Some((_, lines)) => {
                let lines = lines.lines().map(str::trim);
                lines.for_each(|line| warnings.add(line.to_owned()));
            }
            None => warnings.add(text.clone()),
        }
    }
}

/// `strict decoding error: a, b`.
pub fn strict_error(errors: &[String]) -> String {
    format!("strict decoding error: {}", errors.join(", "))
}

/// Fills in group, version and kind, or says that they are another's (R3.4).
fn type_meta(resource: &'static Resource, value: &mut Value) -> Result<(), Reject> {
    let expected = resource.api_version();
    for key in ["apiVersion", "kind"] {
        if let Some(other) = value
            .get(key)
            .filter(|value| !value.is_string() && !value.is_null())
        {
            let name = metadata::type_name(other);
            return Err(Reject::Decode(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {name} into Go struct field .{key} of type string"
            )));
        }
    }
    let text = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !version.is_empty() && version != expected {
        return Err(Reject::Failure(Failure::BadRequest(format!(
            "the API version in the data ({}) does not match the expected API version ({expected})",
            told::cut(version, told::MAX_TEXT)
        ))));
    }
    if !kind.is_empty() && kind != resource.kind {
        let name = value["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let error = field::Error::invalid(
            &Path::new("kind"),
            kind,
            format!("must be {}", resource.kind),
        );
        return Err(Reject::Failure(Failure::invalid(
            resource,
            &name,
            error.into(),
        )));
    }
    value["apiVersion"] = Value::from(expected);
    value["kind"] = Value::from(resource.kind);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDATIONS: [FieldValidation; 3] = [
        FieldValidation::Ignore,
        FieldValidation::Warn,
        FieldValidation::Strict,
    ];

    /// A key of a megabyte above many fields that are told of: each text repeated it.
    #[test]
    fn what_is_told_of_fields_is_few_and_short() {
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        let key = "k".repeat(1 << 20);
        let unknown: Vec<String> = (0..1_000).map(|n| format!(r#""a{n}":0"#)).collect();
        let unknown = unknown.join(",");
        let twice = (0..100).map(|n| format!(r#""a{n}":0,"a{n}":0"#));
        let twice = twice.collect::<Vec<_>>().join(",");
        let bodies = [
            format!(
                r#"{{"spec":{{"controlPlane":{{"deployment":{{"nodeSelector":{{"{key}":{{{unknown}}}}}}}}}}}}}"#
            ),
            format!(r#"{{"spec":{{"{key}":{{{twice}}}}}}}"#),
            format!(r#"{{"metadata":{{"{key}":1,{unknown}}}}}"#),
            format!(r#"{{"metadata":{{"ownerReferences":[{{"{key}":1,{unknown}}}]}}}}"#),
        ];
        for body in &bodies {
            for validation in VALIDATIONS {
                let warnings = Warnings::default();
                let told = object(
                    resource,
                    Media::Json,
                    body.as_bytes(),
                    validation,
                    &warnings,
                );
                let mut texts = warnings.texts();
                match (validation, told) {
                    (FieldValidation::Strict, told) => texts.push(told.unwrap_err().to_string()),
                    (FieldValidation::Warn, told) => assert!(told.is_ok() && !texts.is_empty()),
                    (FieldValidation::Ignore, told) => assert!(told.is_ok() && texts.is_empty()),
                }
                assert!(texts.len() <= MAX_STRICT);
                let total: usize = texts.iter().map(String::len).sum();
                assert!(total < 64 * 1024, "{total}");
            }
            let parsed = parse(Media::Json, body.as_bytes()).unwrap();
            let total: usize = parsed.duplicates.iter().map(String::len).sum();
            assert!(total < 64 * 1024, "{total}");
            let mut value = parsed.value;
            let mut unknown = metadata::complete(&mut value).unwrap();
            unknown.extend(resource.schema().prune(&mut value));
            let total: usize = unknown.iter().map(String::len).sum();
            assert!(total < 64 * 1024, "{total}");
        }
        let patch = format!(r#"[{{"op":"remove","path":"/a","{key}":1}}]"#);
        let (_, strict) = crate::merge::json(patch.as_bytes()).unwrap();
        assert!(strict[0].len() < 1024);
        // The decoder's own text of a body that it cannot read.
        let yaml = format!("{key}: *{key}");
        let told = object(
            resource,
            Media::Yaml,
            yaml.as_bytes(),
            FieldValidation::Warn,
            &Warnings::default(),
        );
        assert!(told.unwrap_err().to_string().len() < 4096);
    }
}
