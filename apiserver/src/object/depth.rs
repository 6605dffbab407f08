//! How deep documents are nested. Everything that walks a document recurses,
//! and the reader of stored objects gives up at 128 levels: the bound keeps
//! what was accepted readable, inside lists and watch events as well.

use serde_json::Value;

/// Levels of lists and maps that an object may have, itself included.
pub const MAX_DEPTH: usize = 64;

/// Whether a value has more than `levels` levels of lists and maps. Looks no
/// deeper than that, so it is safe on any value.
pub fn exceeds(value: &Value, levels: usize) -> bool {
    walk(value, levels, &mut |_| ())
}

/// As [`exceeds`], and shows each value that it looks at.
pub fn walk(value: &Value, levels: usize, seen: &mut impl FnMut(&Value)) -> bool {
    seen(value);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|v| walk(v, levels - 1, seen)),
        Value::Object(fields) => levels == 0 || fields.values().any(|v| walk(v, levels - 1, seen)),
        _ => false,
    }
}

/// What a client is told.
pub fn message() -> String {
    format!("the object is nested deeper than {MAX_DEPTH} levels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels_are_counted() {
        assert!(!exceeds(&json!(1), 0));
        assert!(exceeds(&json!({}), 0));
        assert!(!exceeds(&json!({"a": [1, "x"]}), 2));
        assert!(exceeds(&json!({"a": [1, {"x": []}]}), 3));
    }
}
