//! Judging a value by its schema, in the words of kube-apiserver's validator
//! for custom resources (R6.11).

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::format::Format;
use super::node::{Kind, ListType, Node};
use crate::field::{Error, Errors, Path};
use crate::told;

pub(super) fn validate(node: &Node, value: &Value, old: Option<&Value>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut duplicates = Errors::new();
    walk(node, value, old, path, &mut errors, &mut duplicates);
    errors.append(duplicates);
    errors
}

/// `duplicates` are kept apart because Kubernetes looks for them in a second
/// pass, after all other errors.
fn walk(
    node: &Node,
    value: &Value,
    old: Option<&Value>,
    path: &Path,
    errors: &mut Errors,
    duplicates: &mut Errors,
) {
    if old == Some(value) || errors.is_full() || duplicates.is_full() {
        return;
    }
    if value.is_null() && node.nullable {
        return;
    }
    if value.is_null() || !node.kind.takes(value) {
        if value.is_null() && node.kind.name().is_empty() {
            return;
        }
        let (given, wanted) = match (node.format, value) {
            (Some(format @ (Format::Int32 | Format::Int64)), Value::Number(_)) => {
                ("float64", format.name())
            }
            _ => (type_name(value), node.kind.name()),
        };
        let mut wanted = vec![wanted];
        if node.alternatives {
            // The validator also tells of the alternatives, and of the first.
            let detail = format!("\"{path}\" must validate at least one schema (anyOf)");
            errors.push(Error::invalid(&Path::root(), "", detail));
            wanted.push(Kind::Integer.name());
        }
        for wanted in wanted {
            let detail = format!("{path} in body must be of type {wanted}: \"{given}\"");
            errors.push(Error::type_invalid(path, given, detail));
        }
        return;
    }
    match value {
        Value::String(text) => string(node, text, path, errors),
        Value::Number(_) => number(node, value, path, errors),
        Value::Array(list) => array(node, list, old, path, errors, duplicates),
        Value::Object(fields) => object(node, fields, old, path, errors, duplicates),
        Value::Null | Value::Bool(_) => {}
    }
    if !node.allowed.is_empty() && !node.allowed.contains(value) {
        let allowed: Vec<String> = node
            .allowed
            .iter()
            .map(|one| match one {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        errors.push(Error::not_supported(path, value.clone(), &allowed));
    }
}

fn string(node: &Node, text: &str, path: &Path, errors: &mut Errors) {
    // Lengths are counted in characters, though the message says bytes. Only
    // the first of these faults is told.
    let length = text.chars().count() as u64;
    if let Some(max) = node.max_length.filter(|&max| length > max) {
        errors.push(Error::too_long(path, max));
    } else if let Some(min) = node.min_length.filter(|&min| length < min) {
        let detail = format!("{path} in body should be at least {min} chars long");
        errors.push(Error::invalid(path, text, detail));
    } else if let Some(pattern) = &node.pattern
        && !pattern.regex.is_match(text)
    {
        let detail = format!("{path} in body should match '{}'", pattern.text);
        errors.push(Error::invalid(path, text, detail));
    }
    if let Some(format) = node.format.filter(|format| !format.takes(text)) {
        let shown = told::short(text, told::MAX_TEXT);
        let detail = format!(
            "{path} in body must be of type {}: {shown:?}",
            format.name()
        );
        errors.push(Error::type_invalid(path, text, detail));
    }
}

fn number(node: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    let Some(number) = value.as_f64() else {
        return;
    };
    if node.format == Some(Format::Int32)
        && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number)
    {
        // The validator has no field for this one; the text names it.
        let detail = format!("Checked value must be of type integer with format int32 in {path}");
        errors.push(Error::invalid(&Path::root(), "", detail));
    }
    if let Some(max) = node.maximum.filter(|&max| number > max as f64) {
        let detail = format!("{path} in body should be less than or equal to {max}");
        errors.push(Error::invalid(path, value.clone(), detail));
    }
    if let Some(min) = node.minimum.filter(|&min| number < min as f64) {
        let detail = format!("{path} in body should be greater than or equal to {min}");
        errors.push(Error::invalid(path, value.clone(), detail));
    }
}

fn array(
    node: &Node,
    list: &[Value],
    old: Option<&Value>,
    path: &Path,
    errors: &mut Errors,
    duplicates: &mut Errors,
) {
    let old = old.and_then(Value::as_array);
    if let Some(items) = &node.items {
        let before = old.map(|old| counterparts(&node.list_type, old));
        for (position, item) in list.iter().enumerate() {
            let old = before.as_ref().and_then(|before| before.of(item));
            walk(items, item, old, &path.index(position), errors, duplicates);
        }
    }
    let size = list.len();
    if let Some(min) = node.min_items.filter(|&min| (size as u64) < min) {
        let detail = format!("{path} in body should have at least {min} items");
        errors.push(Error::invalid(path, size, detail));
    }
    // One that an older release took may become shorter.
    let before = old.map_or(0, Vec::len);
    let too_many = |max: &u64| size as u64 > *max && (size > before);
    if let Some(max) = node.max_items.filter(too_many) {
        errors.push(Error::too_many(path, size, max));
    }
    repeated(&node.list_type, list, path, duplicates);
}

/// The elements of an old list, to be found by what identifies them. Looked up and not
/// searched: lists are as long as a client makes them.
struct Counterparts<'a> {
    keys: &'a [String],
    by: HashMap<String, &'a Value>,
}

fn counterparts<'a>(list_type: &'a ListType, old: &'a [Value]) -> Counterparts<'a> {
    let keys = match list_type {
        ListType::Map(keys) => keys.as_slice(),
        ListType::Atomic | ListType::Set => &[],
    };
    let mut by = HashMap::new();
    for item in old.iter().filter(|_| !keys.is_empty()) {
        by.entry(identity(keys, item).to_string()).or_insert(item);
    }
    Counterparts { keys, by }
}

impl<'a> Counterparts<'a> {
    /// The old element that an element is about, where one can tell.
    fn of(&self, item: &Value) -> Option<&'a Value> {
        if self.by.is_empty() {
            return None;
        }
        let identity = identity(self.keys, item).to_string();
        self.by.get(&identity).copied()
    }
}

fn repeated(list_type: &ListType, list: &[Value], path: &Path, duplicates: &mut Errors) {
    let identities: Vec<Value> = match list_type {
        ListType::Atomic => return,
        ListType::Set => list.to_vec(),
        ListType::Map(keys) => list.iter().map(|item| identity(keys, item)).collect(),
    };
    let mut seen = HashSet::with_capacity(identities.len());
    for (position, identity) in identities.into_iter().enumerate() {
        if duplicates.is_full() {
            break;
        }
        if !seen.insert(identity.to_string()) {
            duplicates.push(Error::duplicate(&path.index(position), identity));
        }
    }
}

/// The keys of an element of a list map, as an object.
fn identity(keys: &[String], item: &Value) -> Value {
    keys.iter()
        .filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
        .collect::<Map<_, _>>()
        .into()
}

fn object(
    node: &Node,
    fields: &Map<String, Value>,
    old: Option<&Value>,
    path: &Path,
    errors: &mut Errors,
    duplicates: &mut Errors,
) {
    for (name, value) in fields {
        if let Some(field) = node.field(name) {
            let old = old.and_then(|old| old.get(name));
            walk(field, value, old, &path.child(name), errors, duplicates);
        }
    }
    for name in &node.required {
        if !fields.contains_key(name) {
            errors.push(Error::required(&path.child(name), ""));
        }
    }
}

/// The name that validation uses for the type of a value.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        // What is no int64 Kubernetes reads as a float64.
        Value::Number(number) if !number.is_i64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
