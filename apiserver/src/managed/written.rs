//! The managers of an object as they stand in it, apart from everything else there.

use serde_json::{Map, Value};

use crate::object::set_meta;

/// The managers of an object, as they are written.
pub fn list(object: &Value) -> &[Value] {
    let list = object["metadata"]["managedFields"].as_array();
    list.map_or(&[], Vec::as_slice)
}

/// Bytes of the managers of an object, as they are written.
pub fn length(object: &Value) -> usize {
    match object["metadata"].get("managedFields") {
        Some(managers) => r#""managedFields":,"#.len() + crate::object::length(managers),
        None => 0,
    }
}

/// Takes the managers out of an object.
pub fn take_managers(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.remove("managedFields")
}

/// A copy of the managers in an object.
pub(super) fn copied(object: &Value) -> Option<Value> {
    object["metadata"].get("managedFields").cloned()
}

/// A copy of the object without its managers.
pub(super) fn without_managers(object: &Value) -> Value {
    let copied = |(name, value): (&String, &Value)| (name.clone(), value.clone());
    let mut copy: Map<String, Value> = others(object, "metadata").map(copied).collect();
    if object["metadata"].is_object() {
        let metadata = others(&object["metadata"], "managedFields").map(copied);
        copy.insert("metadata".to_owned(), Value::Object(metadata.collect()));
    }
    Value::Object(copy)
}

/// If the managers of two objects differ in times only, and the objects in nothing else,
/// the new one takes those of the old one: what changes nothing is not written (R5.26).
pub fn keep_times(old: &Value, new: &mut Value) {
    let (before, after) = (list(old), list(new));
    if before.len() != after.len() || before == after {
        return;
    }
    let same = |(a, b): (&Value, &Value)| same_but(a, b, &["time"]);
    if !before.iter().zip(after).all(same) || !same_but(old, new, &["metadata", "managedFields"]) {
        return;
    }
    let before = Value::from(before.to_vec());
    set_meta(new, "managedFields", Some(before));
}

/// Whether two maps are equal but for what is at a path.
fn same_but(left: &Value, right: &Value, path: &[&str]) -> bool {
    let Some((name, rest)) = path.split_first() else {
        return true;
    };
    if !left.is_object() || !right.is_object() {
        return left == right;
    }
    if !others(left, name).eq(others(right, name)) {
        return false;
    }
    match (left.get(*name), right.get(*name)) {
        (Some(left), Some(right)) => same_but(left, right, rest),
        (left, right) => rest.is_empty() || left == right,
    }
}

/// The fields of a map but one.
fn others<'a>(value: &'a Value, without: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter(move |(name, _)| *name != without)
}

/// How many values an object has without its managers; nothing for more than `most`.
pub(super) fn values(object: &Value, most: usize) -> Option<usize> {
    let metadata = others(&object["metadata"], "managedFields");
    let all = others(object, "metadata").chain(metadata);
    count(all.map(|(_, value)| value), most)
}

/// How many values there are, and in them; nothing for more than `most`.
pub(super) fn count<'a>(values: impl IntoIterator<Item = &'a Value>, most: usize) -> Option<usize> {
    fn has_room(value: &Value, left: &mut usize) -> bool {
        let Some(fewer) = left.checked_sub(1) else {
            return false;
        };
        *left = fewer;
        match value {
            Value::Array(list) => list.iter().all(|value| has_room(value, left)),
            Value::Object(map) => map.values().all(|value| has_room(value, left)),
            _ => true,
        }
    }
    let mut left = most;
    let mut values = values.into_iter();
    let fits = values.all(|value| has_room(value, &mut left));
    fits.then(|| most - left)
}
