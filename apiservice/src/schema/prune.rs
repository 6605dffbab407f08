//! Removing what the schema does not know.

use serde_json::{Map, Value};

use super::node::Node;

/// The fields of every object, which the schema leaves to others.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

pub(super) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Value::Object(object) = object {
        fields(root, object, "", &META, &mut unknown);
    }
    unknown.sort();
    unknown
}

fn fields(
    node: &Node,
    object: &mut Map<String, Value>,
    path: &str,
    keep: &[&str],
    unknown: &mut Vec<String>,
) {
    object.retain(|name, value| {
        if keep.contains(&name.as_str()) {
            return true;
        }
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match node.field(name) {
            Some(node) => {
                walk(node, value, &path, unknown);
                true
            }
            None if node.preserve => true,
            None => {
                unknown.push(path);
                false
            }
        }
    });
}

fn walk(node: &Node, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(object) => fields(node, object, path, &[], unknown),
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for (position, item) in list.iter_mut().enumerate() {
                    walk(items, item, &format!("{path}[{position}]"), unknown);
                }
            }
        }
        _ => {}
    }
}
