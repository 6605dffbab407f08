//! Filling in the static defaults.

use serde_json::Value;

use super::node::Node;

/// Removes null fields that may not be null and have no default (R6.1).
pub(super) fn drop_nulls(node: &Node, value: &mut Value) {
    match value {
        Value::Object(object) => object.retain(|name, value| match node.field(name) {
            Some(node) if value.is_null() && !node.nullable => node.default.is_some(),
            Some(node) => {
                drop_nulls(node, value);
                true
            }
            None => true,
        }),
        Value::Array(list) => {
            if let Some(items) = &node.items {
                list.iter_mut().for_each(|item| drop_nulls(items, item));
            }
        }
        _ => {}
    }
}

/// Fills in what is missing, in whatever is there (R6.8).
pub(super) fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, property) in &node.properties {
                if let Some(default) = &property.default {
                    let missing = match object.get(name) {
                        None => true,
                        Some(value) => value.is_null() && !property.nullable,
                    };
                    if missing {
                        object.insert(name.clone(), default.clone());
                    }
                }
                if let Some(value) = object.get_mut(name) {
                    fill(property, value);
                }
            }
            if let Some(additional) = &node.additional {
                object
                    .values_mut()
                    .for_each(|value| element(additional, value));
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                list.iter_mut().for_each(|item| element(items, item));
            }
        }
        _ => {}
    }
}

/// Elements of lists and maps take their default only in place of null.
fn element(node: &Node, value: &mut Value) {
    if let Some(default) = node.default.as_ref().filter(|_| value.is_null())
        && !node.nullable
    {
        *value = default.clone();
    }
    fill(node, value);
}
