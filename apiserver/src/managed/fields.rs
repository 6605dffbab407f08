//! FieldsV1 (R5.2): a set of paths as nested JSON objects.

use serde_json::{Map, Value};

use super::path::Element;
use super::set::{Node, Set};

/// The key that says that an element with children is a member itself.
const SELF: &str = ".";

/// Reads FieldsV1. A stranger's may be as deep as the object that it came in; that is
/// bounded where it is read ([`crate::object::depth`]).
///
/// # Errors
/// The text says which key or value is wrong.
pub fn decode(fields: &Value) -> Result<Set, String> {
    let fields = match fields {
        Value::Null => return Ok(Set::default()),
        Value::Object(fields) => fields,
        other => {
            let name = super::value::type_name(other);
            return Err(format!("expected a map of fields, got {name}"));
        }
    };
    let mut nodes = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        if key == SELF {
            continue;
        }
        let Some(element) = Element::parse(key)? else {
            continue;
        };
        let children = decode(value)?;
        let member = children.is_empty() || value.get(SELF).is_some();
        nodes.push(Node {
            element,
            member,
            children,
        });
    }
    Ok(Set::of(nodes))
}

/// The canonical form of a set.
pub fn encode(set: &Set) -> Value {
    let mut fields = Map::new();
    for node in set.nodes() {
        let mut value = encode(&node.children);
        if let (true, false, Value::Object(fields)) =
            (node.member, node.children.is_empty(), &mut value)
        {
            fields.insert(SELF.to_owned(), Value::Object(Map::new()));
        }
        fields.insert(node.element.serialize(), value);
    }
    Value::Object(fields)
}

/// Whether any path of one set, in its encoded form, is at or above a path of another.
/// Takes as long as the smaller one is large.
pub fn touches(changes: &Value, fields: &Value) -> bool {
    let (Value::Object(changes), Value::Object(fields)) = (changes, fields) else {
        return false;
    };
    let (few, many) = match changes.len() <= fields.len() {
        true => (changes, fields),
        false => (fields, changes),
    };
    few.keys().any(|key| {
        if key == SELF || !many.contains_key(key) {
            return false;
        }
        let (Some(change), Some(field)) = (changes.get(key), fields.get(key)) else {
            return false;
        };
        let ends = |value: &Value| {
            let map = value.as_object();
            map.is_none_or(|map| map.is_empty() || map.contains_key(SELF))
        };
        ends(change) || touches(change, field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// R5.2.
    #[test]
    fn sets_are_read_and_written() {
        let written = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {}}},
            "f:spec": {
                "f:addons": {"k:{\"name\":\"coredns\"}": {".": {}, "f:image": {}}},
                "f:features": {"v:\"a\"": {}},
            },
        });
        let set = decode(&written).unwrap();
        assert_eq!(encode(&set), written);
        assert_eq!(set.len(), 5);
        // What is not known is left out, and what was written otherwise is put right.
        let odd = json!({
            ".": {}, "x:1": {"f:a": {}},
            "f:a": null, "f:b": {".": {}}, "f:c": {"x:1": {}},
            "k:{\"b\":1,\"a\":2.0}": {}, "v:1.0": {}, "v:1": {"f:d": {}},
        });
        let canonical = json!({
            "f:a": {}, "f:b": {}, "f:c": {}, "k:{\"a\":2,\"b\":1}": {},
            "v:1": {".": {}, "f:d": {}},
        });
        assert_eq!(encode(&decode(&odd).unwrap()), canonical);
        for wrong in [
            json!([]),
            json!({"f:a": 1}),
            json!({"fa": {}}),
            json!({"k:1": {}}),
        ] {
            assert!(decode(&wrong).is_err());
        }
    }

    #[test]
    fn what_a_change_touches() {
        let fields = json!({"f:spec": {"f:a": {}, "f:l": {".": {}, "v:1": {}}}});
        for (changes, expected) in [
            (json!({"f:spec": {"f:a": {}}}), true),
            (json!({"f:spec": {"f:l": {}}}), true),
            (json!({"f:spec": {"f:l": {"v:2": {}}}}), false),
            (json!({"f:spec": {"f:b": {}}}), false),
            (json!({"f:spec": {"f:a": {"f:b": {}}}}), false),
            (json!({"f:status": {}}), false),
            (json!({"f:spec": {}}), true),
        ] {
            assert_eq!(touches(&changes, &fields), expected, "{changes}");
        }
    }
}
