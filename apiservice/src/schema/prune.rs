//! Removing what the schema does not know.

use serde_json::{Map, Value};

use super::node::Node;
use crate::told::{Paths, Place};

/// The fields of every object, which the schema leaves to others.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

pub(super) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut unknown = Paths::default();
    if let Value::Object(object) = object {
        fields(root, object, &Place::Root, &META, &mut unknown);
    }
    let mut unknown = unknown.into_vec();
    unknown.sort();
    unknown
}

fn fields(
    node: &Node,
    object: &mut Map<String, Value>,
    around: &Place<'_>,
    keep: &[&str],
    unknown: &mut Paths,
) {
    object.retain(|name, value| {
        if keep.contains(&name.as_str()) {
            return true;
        }
        let place = Place::Field(around, name);
        match node.field(name) {
            Some(node) => {
                walk(node, value, &place, unknown);
                true
            }
            None if node.preserve => true,
            None => {
                unknown.add(&place);
                false
            }
        }
    });
}

fn walk(node: &Node, value: &mut Value, place: &Place<'_>, unknown: &mut Paths) {
    match value {
        Value::Object(object) => fields(node, object, place, &[], unknown),
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for (position, item) in list.iter_mut().enumerate() {
                    walk(items, item, &Place::Index(place, position), unknown);
                }
            }
        }
        _ => {}
    }
}
