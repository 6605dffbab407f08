//! From what schemars says of a Rust type to Kubernetes' structural form.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";

/// What a quantity may look like, as CRDs of Go types publish it.
const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// The structural schema of a Rust type, without references.
pub fn of_type<T: JsonSchema>() -> Value {
    let root = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    let definitions = match root.get("$defs") {
        Some(Value::Object(definitions)) => definitions.clone(),
        _ => Map::new(),
    };
    rewrite(&root, &definitions)
}

/// Puts a keyword into the part of a schema at a path of properties (`[]`
/// steps into a list or map). Returns whether the path exists.
pub fn extend(schema: &mut Value, path: &[&str], keyword: &str, value: Value) -> bool {
    let part = path.iter().try_fold(schema, |schema, &segment| {
        if segment == "[]" {
            let step = if schema.get("items").is_some() {
                "items"
            } else {
                "additionalProperties"
            };
            schema.get_mut(step)
        } else {
            schema.get_mut("properties")?.get_mut(segment)
        }
    });
    match part {
        Some(Value::Object(part)) => {
            part.insert(keyword.to_owned(), value);
            true
        }
        _ => false,
    }
}

fn rewrite(schema: &Value, definitions: &Map<String, Value>) -> Value {
    let Value::Object(schema) = schema else {
        // `true`: any value.
        return json!({"x-kubernetes-preserve-unknown-fields": true});
    };
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return resolve(reference, schema, definitions);
    }
    if let Some(only) = without_null(schema) {
        let mut merged = rewrite(&only, definitions);
        overlay(&mut merged, schema);
        return merged;
    }

    let mut out = Map::new();
    for (keyword, value) in schema {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "required" | "properties" | "oneOf" | "anyOf" => {}
            "additionalProperties" => match value {
                // "No further fields" is what pruning does anyway.
                Value::Bool(_) => {}
                value => {
                    out.insert(keyword.clone(), rewrite(value, definitions));
                }
            },
            "items" => {
                out.insert(keyword.clone(), rewrite(value, definitions));
            }
            "type" => {
                out.insert(keyword.clone(), single_type(value));
            }
            "const" => {
                out.insert("enum".to_owned(), json!([value]));
            }
            "enum" => {
                out.insert(keyword.clone(), without_null_values(value));
            }
            "default" if is_no_default(value) => {}
            "description" => {
                out.insert(keyword.clone(), unwrapped(value));
            }
            _ => {
                out.insert(keyword.clone(), value.clone());
            }
        }
    }
    if let Some(values) = documented_enum(schema) {
        out.insert("type".to_owned(), "string".into());
        out.insert("enum".to_owned(), values);
    }
    if let Some(Value::Object(properties)) = schema.get("properties") {
        let required = schema.get("required").and_then(Value::as_array);
        let required = required.map(Vec::as_slice).unwrap_or_default();
        let properties = properties.iter().map(|(name, property)| {
            let mut property = rewrite(property, definitions);
            let is_required = required.iter().any(|one| one == name);
            if let Value::Object(property) = &mut property
                && is_required
            {
                property.remove("default");
            }
            (name.clone(), property)
        });
        out.insert("properties".to_owned(), properties.collect());
        if !required.is_empty() {
            out.insert("required".to_owned(), required.into());
        }
    }
    Value::Object(out)
}

/// The definition that is referred to, with the keywords beside the reference
/// on top.
fn resolve(
    reference: &str,
    siblings: &Map<String, Value>,
    definitions: &Map<String, Value>,
) -> Value {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    let mut resolved = match name {
        QUANTITY => json!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": true,
        }),
        INT_OR_STRING => json!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": true,
        }),
        TIME => json!({"type": "string", "format": "date-time"}),
        name => rewrite(
            definitions.get(name).unwrap_or(&Value::Bool(true)),
            definitions,
        ),
    };
    overlay(&mut resolved, siblings);
    resolved
}

/// Lays what stands around a wrapped schema over it.
fn overlay(schema: &mut Value, around: &Map<String, Value>) {
    let Value::Object(schema) = schema else {
        return;
    };
    for (keyword, value) in around {
        match keyword.as_str() {
            "$ref" | "anyOf" | "oneOf" | "type" | "title" | "$schema" | "$defs" => {}
            "default" if is_no_default(value) => {}
            "description" => {
                schema.insert(keyword.clone(), unwrapped(value));
            }
            _ => {
                schema.insert(keyword.clone(), value.clone());
            }
        }
    }
}

/// The one alternative beside null, for a schema that is `X or null`.
fn without_null(schema: &Map<String, Value>) -> Option<Value> {
    let alternatives = schema.get("anyOf")?.as_array()?;
    let mut rest = alternatives.iter().filter(|one| {
        one.get("type").and_then(Value::as_str) != Some("null")
            && one.get("const") != Some(&Value::Null)
    });
    match (rest.next(), rest.next()) {
        (Some(only), None) => Some(only.clone()),
        _ => None,
    }
}

/// The values of an enumeration whose variants have comments: schemars writes
/// it as alternatives of one value each.
fn documented_enum(schema: &Map<String, Value>) -> Option<Value> {
    let mut values = Vec::new();
    for alternative in schema.get("oneOf")?.as_array()? {
        match (alternative.get("const"), alternative.get("enum")) {
            (Some(value), _) => values.push(value.clone()),
            (None, Some(Value::Array(some))) => values.extend(some.iter().cloned()),
            _ => return None,
        }
    }
    Some(values.into())
}

fn single_type(value: &Value) -> Value {
    match value {
        Value::Array(types) => types
            .iter()
            .find(|one| *one != "null")
            .cloned()
            .unwrap_or_default(),
        one => one.clone(),
    }
}

fn without_null_values(values: &Value) -> Value {
    match values {
        Value::Array(values) => values.iter().filter(|v| !v.is_null()).cloned().collect(),
        other => other.clone(),
    }
}

/// A comment's lines are broken for the source; only its paragraphs are meant.
fn unwrapped(text: &Value) -> Value {
    match text {
        Value::String(text) => text
            .split("\n\n")
            .map(|paragraph| paragraph.replace('\n', " "))
            .collect::<Vec<_>>()
            .join("\n\n")
            .into(),
        other => other.clone(),
    }
}

/// Empty strings, zeros and nulls are what a Rust type has in place of no
/// value; they are not defaults of ours.
fn is_no_default(value: &Value) -> bool {
    value.is_null() || value == "" || value.as_i64() == Some(0)
}
