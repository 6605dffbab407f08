//! The body of a POST to a subresource that mints something: the strictness, types and
//! texts of any create (R6.4, R6.11).

use apiservice::field::{self, ErrorKind, Path};
use apiservice::number;
use apiservice::schema::Schema;
use serde_json::Value;

use crate::authz::Permit;
use crate::decode;
use crate::object::metadata;
use crate::options::FieldValidation;
use crate::registry::Request;
use crate::status::Failure;

/// The body as an object of the kind, with the right types; nothing for an empty one.
pub(super) fn read<V>(
    kind: &str,
    schema: &Schema,
    request: &Request,
    permit: &Permit<V>,
) -> Result<Option<Value>, Failure> {
    let media = decode::media(&request.headers)?;
    if request.body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let parsed = decode::parse(media, &request.body)
        .map_err(|error| error.unrecognized(kind, &request.body))?;
    let mut body = parsed.value;
    let unhandled = |error: String| decode::unhandled(kind, &error);
    decode::must_be_object(&body).map_err(unhandled)?;
    number::settle(&mut body);
    if let Some(spec) = body["spec"].as_object_mut() {
        spec.values_mut().for_each(bounded);
    }
    same(
        &body["apiVersion"],
        &permit.resource().api_version(),
        "the API version in the data",
    )?;
    same(&body["kind"], kind, "the kind of the object")?;
    let mut unknown = metadata::complete(&mut body).map_err(unhandled)?;
    unknown.extend(schema.prune(&mut body));
    // Of the status only unknown fields are told, as a create drops it.
    body["status"] = Value::Null;
    schema.default(&mut body);
    // Whatever fieldValidation says: a field that was meant to narrow what is
    // minted must not be overlooked (`rolle: view` would be an admin).
    let strict = FieldValidation::Strict;
    decode::judge(parsed.duplicates, unknown, strict, &request.warnings).map_err(unhandled)?;
    let name = permit.name().unwrap_or_default();
    same(&body["metadata"]["name"], name, "the name of the object")?;
    same(
        &body["metadata"]["namespace"],
        permit.namespace().unwrap_or_default(),
        "the namespace of the object",
    )?;
    // The limits of the fields have texts of their own.
    let errors = schema.validate(&body, &Path::root());
    let of_type = |error: &field::Error| error.kind == ErrorKind::TypeInvalid;
    let errors: field::Errors = errors.into_iter().filter(of_type).collect();
    match errors.is_empty() {
        true => Ok(Some(body)),
        false => Err(invalid(kind, name, errors)),
    }
}

/// A whole number that no integer of ours holds is the greatest or the least one, and the
/// bounds of its field are what is said of it: who asks for too long gets what there is,
/// however much more it is.
fn bounded(value: &mut Value) {
    if let Value::Number(number) = value
        && !number.is_i64()
        && let Some(float) = number.as_f64()
        && float.fract() == 0.0
    {
        // Such a cast stops at the ends.
        *value = Value::from(float as i64);
    }
}

/// 422.
pub(super) fn invalid(kind: &str, name: &str, errors: field::Errors) -> Failure {
    Failure::Invalid {
        kind: kind.to_owned(),
        group: apiservice::GROUP.to_owned(),
        name: name.to_owned(),
        errors,
    }
}

/// A whole number, which may be written as 600.0 and beyond all bounds.
pub(super) fn seconds(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|number| number as i64))
}

/// Says that less is granted, in the words of a TokenRequest.
pub(super) fn shortened(request: &Request, wanted: &Value, granted: u32) {
    if let Some(wanted) = seconds(wanted)
        && wanted > i64::from(granted)
    {
        request.warnings.add(format!(
            "requested expiration of {wanted} seconds shortened to {granted} seconds"
        ));
    }
}

fn same(value: &Value, expected: &str, what: &str) -> Result<(), Failure> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) if text.is_empty() || text == expected => Ok(()),
        other => Err(Failure::BadRequest(format!(
            "{what} ({}) does not match the one of the request ({expected})",
            other.as_str().map_or(other.to_string(), str::to_owned)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_all_bounds_are_the_last_one() {
        for (text, is) in [
            ("600", "600"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("1e300", "9223372036854775807"),
            ("-1e300", "-9223372036854775808"),
            ("600.5", "600.5"),
            ("\"600\"", "\"600\""),
        ] {
            let mut value: Value = serde_json::from_str(text).unwrap();
            bounded(&mut value);
            assert_eq!(value.to_string(), is, "{text}");
        }
    }
}
