//! ObjectMeta of a request as Kubernetes decodes it: typed, unknown fields
//! reported and dropped, empty values left out (R6.1).

use std::fmt;

use apiservice::time;
use apiservice::told::{self, Paths, Place};
use serde_json::{Map, Value};

#[derive(Clone, Copy)]
enum Type {
    Text,
    Integer,
    Boolean,
    Time,
    TextMap,
    TextList,
    Owners,
    Managers,
    /// Anything; what it says is read by who needs it.
    Any,
    /// Not kept: `selfLink`.
    Dropped,
}

const OBJECT_META: &[(&str, Type)] = &[
    ("name", Type::Text),
    ("generateName", Type::Text),
    ("namespace", Type::Text),
    ("uid", Type::Text),
    ("resourceVersion", Type::Text),
    ("generation", Type::Integer),
    ("creationTimestamp", Type::Time),
    ("deletionTimestamp", Type::Time),
    ("deletionGracePeriodSeconds", Type::Integer),
    ("labels", Type::TextMap),
    ("annotations", Type::TextMap),
    ("ownerReferences", Type::Owners),
    ("finalizers", Type::TextList),
    ("selfLink", Type::Dropped),
    ("managedFields", Type::Managers),
];

const MANAGER: &[(&str, Type)] = &[
    ("manager", Type::Text),
    ("operation", Type::Text),
    ("apiVersion", Type::Text),
    ("time", Type::Time),
    ("fieldsType", Type::Text),
    ("fieldsV1", Type::Any),
    ("subresource", Type::Text),
];

const OWNER_REFERENCE: &[(&str, Type)] = &[
    ("apiVersion", Type::Text),
    ("kind", Type::Text),
    ("name", Type::Text),
    ("uid", Type::Text),
    ("controller", Type::Boolean),
    ("blockOwnerDeletion", Type::Boolean),
];

/// Go's name for the type of a JSON value.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// As Kubernetes says it, which decodes the metadata by itself: the path begins there, has
/// no positions, and belongs to the innermost type.
fn mismatch(value: &Value, field: impl fmt::Display, wanted: &str) -> String {
    let field = told::short(field, told::MAX_PATH);
    let field = field.strip_prefix("metadata.").unwrap_or(&field);
    let names: Vec<&str> = field
        .split('.')
        .map(|name| name.split('[').next().unwrap_or(name))
        .collect();
    let owner = match names.as_slice() {
        ["ownerReferences", _, ..] => "OwnerReference",
        ["managedFields", _, ..] => "ManagedFieldsEntry",
        _ => "ObjectMeta",
    };
    let wanted = match names.last() {
        Some(&"uid") => "types.UID",
        Some(&"operation") => "v1.ManagedFieldsOperationType",
        _ => wanted,
    };
    let given = match value {
        // One that is no integer is shown.
        Value::Number(number) if wanted == "int64" => format!("number {number}"),
        other => type_name(other).to_owned(),
    };
    format!(
        "json: cannot unmarshal {given} into Go struct field {owner}.{} of type {wanted}",
        names.join(".")
    )
}

/// Checks and tidies `metadata` in place; returns the paths of unknown fields,
/// or the decoder's text if a value has the wrong type.
pub fn complete(object: &mut Value) -> Result<Vec<String>, String> {
    let mut unknown = Paths::default();
    let metadata = object["metadata"].take();
    let metadata = match metadata {
        Value::Null => Map::new(),
        Value::Object(metadata) => metadata,
        other => return Err(mismatch(&other, "metadata", "v1.ObjectMeta")),
    };
    let metadata = typed(
        metadata,
        OBJECT_META,
        &Place::Field(&Place::Root, "metadata"),
        &mut unknown,
    )?;
    object["metadata"] = Value::Object(metadata);
    Ok(unknown.into_vec())
}

fn typed(
    fields: Map<String, Value>,
    types: &[(&str, Type)],
    around: &Place<'_>,
    unknown: &mut Paths,
) -> Result<Map<String, Value>, String> {
    let mut kept = Map::new();
    for (key, value) in fields {
        let place = Place::Field(around, &key);
        let Some((_, kind)) = types.iter().find(|(name, _)| *name == key) else {
            unknown.add(&place);
            continue;
        };
        if let Some(value) = typed_value(value, *kind, &place, unknown)? {
            kept.insert(key, value);
        }
    }
    Ok(kept)
}

/// `None` = empty, as Go leaves it out.
fn typed_value(
    value: Value,
    kind: Type,
    place: &Place<'_>,
    unknown: &mut Paths,
) -> Result<Option<Value>, String> {
    let mismatch = |value: &Value, wanted: &str| mismatch(value, place, wanted);
    match (kind, value) {
        (Type::Dropped, _) | (_, Value::Null) => Ok(None),
        (Type::Any, value) => Ok(Some(value)),
        (Type::Text, Value::String(text)) => Ok((!text.is_empty()).then_some(Value::String(text))),
        (Type::Text, other) => Err(mismatch(&other, "string")),
        (Type::Integer, Value::Number(number)) if number.is_i64() => Ok((number.as_i64()
            != Some(0)
            || matches!(place, Place::Field(_, "deletionGracePeriodSeconds")))
        .then_some(Value::Number(number))),
        (Type::Integer, other) => Err(mismatch(&other, "int64")),
        (Type::Boolean, value @ Value::Bool(_)) => Ok(Some(value)),
        (Type::Boolean, other) => Err(mismatch(&other, "bool")),
        (Type::Time, Value::String(text)) => match time::read(&text) {
            Ok(time) => Ok(Some(Value::from(super::time(time)))),
            Err(wrong) => Err(wrong.to_string()),
        },
        (Type::Time, other) => Err(mismatch(&other, "v1.Time")),
        (Type::TextMap, Value::Object(map)) => {
            let mut texts = Map::new();
            for (key, value) in map {
                match value {
                    Value::Null => texts.insert(key, Value::from("")),
                    Value::String(_) => texts.insert(key, value),
                    other => return Err(mismatch(&other, "string")),
                };
            }
            Ok((!texts.is_empty()).then_some(Value::Object(texts)))
        }
        (Type::TextMap, other) => Err(mismatch(&other, "map[string]string")),
        (Type::TextList, Value::Array(items)) => {
            let mut texts = Vec::new();
            for item in items {
                match item {
                    Value::Null => texts.push(Value::from("")),
                    Value::String(_) => texts.push(item),
                    other => return Err(mismatch(&other, "string")),
                }
            }
            Ok((!texts.is_empty()).then_some(Value::Array(texts)))
        }
        (Type::TextList, other) => Err(mismatch(&other, "[]string")),
        (Type::Owners, Value::Array(items)) => {
            let owners = elements(items, OWNER_REFERENCE, "v1.OwnerReference", place, unknown);
            let mut owners = owners?;
            for owner in owners.iter_mut().filter_map(Value::as_object_mut) {
                // These four are always written, also when empty.
                for key in ["apiVersion", "kind", "name", "uid"] {
                    owner.entry(key).or_insert_with(|| Value::from(""));
                }
            }
            Ok((!owners.is_empty()).then_some(Value::Array(owners)))
        }
        // An empty list says something (R5.8).
        (Type::Managers, Value::Array(items)) => {
            let managers = elements(items, MANAGER, "v1.ManagedFieldsEntry", place, unknown);
            Ok(Some(Value::Array(managers?)))
        }
        (Type::Managers, other) => Err(mismatch(&other, "[]v1.ManagedFieldsEntry")),
        (Type::Owners, other) => Err(mismatch(&other, "[]v1.OwnerReference")),
    }
}

fn elements(
    items: Vec<Value>,
    types: &[(&str, Type)],
    kind: &str,
    place: &Place<'_>,
    unknown: &mut Paths,
) -> Result<Vec<Value>, String> {
    let mut elements = Vec::with_capacity(items.len());
    for (position, item) in items.into_iter().enumerate() {
        let place = Place::Index(place, position);
        let fields = match item {
            Value::Null => Map::new(),
            Value::Object(fields) => fields,
            other => return Err(mismatch(&other, place, kind)),
        };
        elements.push(Value::Object(typed(fields, types, &place, unknown)?));
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// R6.1.
    #[test]
    fn tidies() {
        let mut object = json!({"metadata": {
            "name": "a", "namespace": "", "labels": {}, "annotations": {"x": null},
            "creationTimestamp": null, "deletionTimestamp": "2026-01-02T03:04:05.6+01:00",
            "generation": 0, "selfLink": "/x", "other": 1,
            "ownerReferences": [{"uid": "u", "what": 1}],
            "managedFields": [{"manager": "m", "time": "2026-01-02T03:04:05+01:00",
                "fieldsV1": {"f:a": {}}, "subresource": "", "odd": 1}],
        }});
        let unknown = complete(&mut object).unwrap();
        assert_eq!(
            unknown,
            [
                "metadata.managedFields[0].odd",
                "metadata.other",
                "metadata.ownerReferences[0].what"
            ]
        );
        assert_eq!(
            object["metadata"],
            json!({
                "name": "a", "annotations": {"x": ""}, "deletionTimestamp": "2026-01-02T02:04:05Z",
                "ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "uid": "u"}],
                "managedFields": [{"manager": "m", "time": "2026-01-02T02:04:05Z",
                    "fieldsV1": {"f:a": {}}}],
            })
        );
        let mut object = json!({"metadata": {"managedFields": []}});
        complete(&mut object).unwrap();
        assert_eq!(object["metadata"]["managedFields"], json!([]));
    }

    /// R6.1.
    #[test]
    fn wrong_types() {
        let cases = [
            (
                json!({"labels": {"a": 1}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
            ),
            (
                json!({"ownerReferences": [{"uid": 1}]}),
                "json: cannot unmarshal number into Go struct field OwnerReference.ownerReferences.uid of type types.UID",
            ),
            (
                json!({"generation": 1.5}),
                "json: cannot unmarshal number 1.5 into Go struct field ObjectMeta.generation of type int64",
            ),
            (
                json!({"name": 1}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.name of type string",
            ),
            (
                json!("x"),
                "json: cannot unmarshal string into Go struct field ObjectMeta.metadata of type v1.ObjectMeta",
            ),
            (
                json!({"finalizers": "x"}),
                "json: cannot unmarshal string into Go struct field ObjectMeta.finalizers of type []string",
            ),
        ];
        for (metadata, expected) in cases {
            let mut object = json!({"metadata": metadata});
            assert_eq!(complete(&mut object).unwrap_err(), expected);
        }
    }

    /// R5.11, R6.1: with a time that Go does not read no client of its could decode a list.
    #[test]
    fn times_are_those_that_go_reads() {
        let managers = |time: &str| json!([{"manager": "x", "time": time}]);
        let bad = "-000001-01-01T00:00:00Z";
        for metadata in [
            json!({"creationTimestamp": bad}),
            json!({"managedFields": managers(bad)}),
        ] {
            let mut object = json!({"metadata": metadata});
            let told = format!(
                r#"parsing time "{bad}" as "2006-01-02T15:04:05Z07:00": cannot parse "{bad}" as "2006""#
            );
            assert_eq!(complete(&mut object).unwrap_err(), told);
        }
        let year = json!({"managedFields": managers("0000-01-01T00:00:00+01:00")});
        assert!(complete(&mut json!({"metadata": year})).is_err());
    }
}
