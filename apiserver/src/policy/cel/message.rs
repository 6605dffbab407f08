//! Messages of protobuf that an expression may make: `google.protobuf.Int32Value{value: 1}`.
//! Nothing but their values is left of them, as by the evaluator of Kubernetes.

use std::sync::Arc;

use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::value::{EMPTY, Unusable, Val};
use super::{Budget, Evaluated, error, time};

/// Names of messages, and of their fields.
const KNOWN: [(&str, &[&str]); 16] = [
    ("google.protobuf.BoolValue", &["value"]),
    ("google.protobuf.BytesValue", &["value"]),
    ("google.protobuf.DoubleValue", &["value"]),
    ("google.protobuf.FloatValue", &["value"]),
    ("google.protobuf.Int32Value", &["value"]),
    ("google.protobuf.Int64Value", &["value"]),
    ("google.protobuf.StringValue", &["value"]),
    ("google.protobuf.UInt32Value", &["value"]),
    ("google.protobuf.UInt64Value", &["value"]),
    ("google.protobuf.Duration", &["seconds", "nanos"]),
    ("google.protobuf.Timestamp", &["seconds", "nanos"]),
    ("google.protobuf.Struct", &["fields"]),
    ("google.protobuf.ListValue", &["values"]),
    (
        "google.protobuf.Value",
        &[
            "null_value",
            "number_value",
            "string_value",
            "bool_value",
            "struct_value",
            "list_value",
        ],
    ),
    ("google.protobuf.Any", &["type_url", "value"]),
    (EMPTY, &[]),
];

/// A constant of an enumeration, and its number.
pub const NULL_VALUE: (&str, i64) = ("google.protobuf.NullValue.NULL_VALUE", 0);
/// Whole numbers that are larger are texts in JSON.
const SAFE: u64 = (1 << 53) - 1;

/// The fields of a message; nothing for one that is not known.
pub fn fields(name: &str) -> Option<&'static [&'static str]> {
    let found = KNOWN.iter().find(|(known, _)| *known == name);
    found.map(|(_, fields)| *fields)
}

/// What a message with these fields is.
///
/// # Errors
/// For fields that are of other types, or out of range.
pub fn make<'a>(name: &str, fields: Vec<(Arc<str>, Val<'a>)>, budget: &Budget) -> Evaluated<'a> {
    let wrong = |field: &str, why: &str| {
        error(format!(
            "field type conversion error for {name}.{field} value type: {why}"
        ))
    };
    let unsupported = |field: &str, value: &Val<'a>| {
        let of = value.type_name();
        wrong(field, &format!("unsupported type conversion from '{of}'"))
    };
    let number = |field: &str| {
        let found = fields.iter().find(|(known, _)| &**known == field);
        match found.map(|(_, value)| value) {
            None => Ok(0),
            Some(Val::Int(number)) => Ok(*number),
            Some(other) => unsupported(field, other).map(|_| 0),
        }
    };
    let short = |field: &str| {
        i32::try_from(number(field)?).or_else(|_| wrong(field, "integer overflow").map(|_| 0))
    };
    match name {
        "google.protobuf.Duration" => {
            let (seconds, nanos) = (number("seconds")?, short("nanos")?);
            let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            // As Go keeps it.
            let nanos = nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
            return Ok(Val::Duration(SignedDuration::from_nanos(nanos)));
        }
        "google.protobuf.Timestamp" => {
            let (seconds, nanos) = (number("seconds")?, short("nanos")?);
            return time::timed(Timestamp::new(seconds, 0).ok().and_then(|time| {
                let more = SignedDuration::from_nanos(nanos.into());
                time.checked_add(more).ok()
            }));
        }
        "google.protobuf.Any" => {
            return error("unsupported conversion to ref.Val: google.protobuf.Any");
        }
        EMPTY => return Val::object(EMPTY.into(), Vec::new()),
        _ => {}
    }
    // Of a message with one field, and of fields of which the last one counts.
    let Some((field, value)) = fields.into_iter().next_back() else {
        return match name.strip_prefix("google.protobuf.").unwrap_or(name) {
            "BoolValue" => Ok(Val::Bool(false)),
            "BytesValue" => Ok(Val::Bytes(Arc::default())),
            "DoubleValue" | "FloatValue" => Ok(Val::Double(0.0)),
            "Int32Value" | "Int64Value" => Ok(Val::Int(0)),
            "StringValue" => Ok(Val::text("")),
            "UInt32Value" | "UInt64Value" => Ok(Val::Uint(0)),
            "Struct" => Val::map(Vec::new(), budget),
            "ListValue" => Val::list(Vec::new()),
            _ => Ok(Val::Null),
        };
    };
    match (
        name.strip_prefix("google.protobuf.").unwrap_or(name),
        &*field,
        value,
    ) {
        ("Int32Value", _, Val::Int(number)) if i32::try_from(number).is_err() => {
            wrong(&field, "integer overflow")
        }
        ("UInt32Value", _, Val::Uint(number)) if u32::try_from(number).is_err() => {
            wrong(&field, "unsigned integer overflow")
        }
        ("FloatValue", _, Val::Double(number)) => Ok(Val::Double(f64::from(number as f32))),
        ("Int32Value" | "Int64Value", _, value @ Val::Int(_))
        | ("UInt32Value" | "UInt64Value", _, value @ Val::Uint(_))
        | ("BoolValue", _, value @ Val::Bool(_))
        | ("BytesValue", _, value @ Val::Bytes(_))
        | ("DoubleValue", _, value @ Val::Double(_))
        | ("StringValue", _, value @ Val::Text(_))
        | ("Value", "number_value", value @ Val::Double(_))
        | ("Value", "string_value", value @ Val::Text(_))
        | ("Value", "bool_value", value @ Val::Bool(_)) => Ok(value),
        ("Value", "null_value", Val::Int(0) | Val::Null) => Ok(Val::Null),
        ("ListValue", _, list) | ("Value", "list_value", list) if list.is_list() => {
            plain(&list, budget)
        }
        ("Struct", _, map) | ("Value", "struct_value", map) if map.is_map() => plain(&map, budget),
        (_, _, value) => unsupported(&field, &value),
    }
}

/// A value as JSON has it: numbers are floating, and keys are texts. It is no deeper than
/// values and objects are.
fn plain<'a>(value: &Val<'a>, budget: &Budget) -> Evaluated<'a> {
    budget.take(1)?;
    let whole = |number: f64, size: u64, shown: String| match size > SAFE {
        true => Val::text(shown),
        false => Val::Double(number),
    };
    Ok(match value {
        Val::Null | Val::Bool(_) | Val::Double(_) | Val::Text(_) => value.clone(),
        Val::Int(number) => whole(*number as f64, number.unsigned_abs(), number.to_string()),
        Val::Uint(number) => whole(*number as f64, *number, number.to_string()),
        Val::Bytes(bytes) => {
            budget.copy(bytes.len().saturating_mul(2))?;
            Val::text(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        Val::Time(time) => Val::text(time.to_string()),
        Val::Duration(duration) => Val::text(time::shown(*duration)),
        list if list.is_list() => {
            budget.items(list.length().unwrap_or(0))?;
            let items = list.listed().map(|item| plain(&item, budget));
            Val::list(items.collect::<Result<_, Unusable>>()?)?
        }
        map @ (Val::Map(_) | Val::Json(Value::Object(_))) => {
            budget.items(map.length().unwrap_or(0).saturating_mul(2))?;
            let entries = map.pairs().into_iter().flatten().map(|(key, value)| {
                let key = match key {
                    key @ Val::Text(_) => key,
                    other => Val::text(other.shown()),
                };
                Ok((key, plain(&value, budget)?))
            });
            Val::map(entries.collect::<Result<_, Unusable>>()?, budget)?
        }
        other => {
            return error(format!(
                "unsupported type conversion from '{}' to google.protobuf.Value",
                other.type_name()
            ));
        }
    })
}
