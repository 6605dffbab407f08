//! Mending what was stored by a release that took more than it should have: numbers that
//! are no integers of our types, and times that Go does not read.

use serde_json::Value;

use super::format::Format;
use super::node::{Kind, Node};
use crate::number;

/// In place of a required time that cannot be read: the object says that there is one.
const LONG_AGO: &str = "1970-01-01T00:00:00Z";

/// Numbers at integers become such, the nearest that there is; a time that cannot be read
/// is left out.
pub(super) fn repair(node: &Node, value: &mut Value) {
    match value {
        Value::Number(_) => nearest(node, value),
        Value::Array(list) => {
            if let Some(items) = &node.items {
                list.iter_mut().for_each(|item| repair(items, item));
            }
        }
        Value::Object(fields) => fields.retain(|name, value| {
            let Some(field) = node.field(name) else {
                return true;
            };
            repair(field, value);
            if !is_unreadable(field, value) {
                return true;
            }
            *value = LONG_AGO.into();
            node.required.contains(name)
        }),
        _ => {}
    }
}

fn nearest(node: &Node, value: &mut Value) {
    number::settle(value);
    let float = value.as_f64().unwrap_or_default();
    if node.kind == Kind::Integer && !value.is_i64() {
        // This conversion stops at the ends.
        *value = Value::from(float as i64);
    }
    if let Some(integer) = value
        .as_i64()
        .filter(|_| node.format == Some(Format::Int32))
    {
        *value = Value::from(integer.clamp(i32::MIN.into(), i32::MAX.into()));
    }
}

fn is_unreadable(node: &Node, value: &Value) -> bool {
    let time = value
        .as_str()
        .filter(|_| node.format == Some(Format::DateTime));
    time.is_some_and(|time| !Format::DateTime.takes(time))
}
