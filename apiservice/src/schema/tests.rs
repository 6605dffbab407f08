use super::*;
use crate::field::{Error, Path};
use serde_json::json;

fn schema() -> Schema {
    Schema::new(json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^[a-z]*$"},
                    "replicas": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 9, "default": 2},
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}, "maxItems": 3},
                    "map": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {
                            "name": {"type": "string"},
                            "level": {"type": "integer", "minimum": 1},
                        }},
                    },
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "port": {"x-kubernetes-int-or-string": true},
                    "any": {"x-kubernetes-preserve-unknown-fields": true},
                    "deep": {"type": "object", "default": {}, "properties": {
                        "on": {"type": "boolean", "default": true},
                    }},
                    "content": {"type": "string", "format": "byte"},
                    "maybe": {"type": "string", "nullable": true},
                },
            },
        },
    }))
    .unwrap()
}

fn errors(object: Value) -> Vec<String> {
    schema()
        .validate(&object, &field::Path::root())
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// R6.7.
#[test]
fn unknown_fields_are_removed_and_named() {
    let mut object = json!({
        "apiVersion": "v1", "kind": "X", "metadata": {"whatever": 1}, "extra": 1,
        "spec": {
            "foo": 1, "labels": {"x": "y"}, "any": {"deep": {"er": 1}},
            "map": [{"name": "a"}, {"name": "b", "bar": {}}],
        },
    });
    let unknown = schema().prune(&mut object);
    assert_eq!(unknown, ["extra", "spec.foo", "spec.map[1].bar"]);
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "X", "metadata": {"whatever": 1},
            "spec": {
                "labels": {"x": "y"}, "any": {"deep": {"er": 1}},
                "map": [{"name": "a"}, {"name": "b"}],
            },
        })
    );
}

/// R6.8.
#[test]
fn defaults_fill_what_is_missing_and_null() {
    let mut object = json!({"spec": {"replicas": null, "name": null, "maybe": null}});
    schema().default(&mut object);
    assert_eq!(
        object,
        json!({"spec": {"replicas": 2, "maybe": null, "deep": {"on": true}}})
    );
    let mut object = json!({});
    schema().default(&mut object);
    assert_eq!(object, json!({}), "a missing parent is not made up");
}

/// R6.9, R6.10, R6.11, R6.12.
#[test]
fn errors_are_in_kubernetes_words() {
    let cases = [
        (json!({}), "spec: Required value"),
        (json!({"spec": {}}), "spec.name: Required value"),
        (
            json!({"spec": {"name": ""}}),
            r#"spec.name: Invalid value: "": spec.name in body should be at least 1 chars long"#,
        ),
        (
            json!({"spec": {"name": "abcd"}}),
            "spec.name: Too long: may not be more than 3 bytes",
        ),
        (
            json!({"spec": {"name": "A"}}),
            r#"spec.name: Invalid value: "A": spec.name in body should match '^[a-z]*$'"#,
        ),
        (
            json!({"spec": {"name": "a", "replicas": "two"}}),
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
        ),
        (
            json!({"spec": {"name": "a", "replicas": 1.5}}),
            r#"spec.replicas: Invalid value: "float64": spec.replicas in body must be of type int32: "float64""#,
        ),
        (
            json!({"spec": {"name": "a", "replicas": -1}}),
            "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
        ),
        (
            json!({"spec": {"name": "a", "kind": "x"}}),
            r#"spec.kind: Unsupported value: "x": supported values: "a", "b""#,
        ),
        (
            json!({"spec": {"name": "a", "set": ["x", "y", "x"]}}),
            r#"spec.set[2]: Duplicate value: "x""#,
        ),
        (
            json!({"spec": {"name": "a", "set": ["1", "2", "3", "4"]}}),
            "spec.set: Too many: 4: must have at most 3 items",
        ),
        (
            json!({"spec": {"name": "a", "map": [{"name": "x"}, {"name": "x"}]}}),
            r#"spec.map[1]: Duplicate value: {"name":"x"}"#,
        ),
        (
            json!({"spec": {"name": "a", "labels": {"k": 1}}}),
            r#"spec.labels.k: Invalid value: "integer": spec.labels.k in body must be of type string: "integer""#,
        ),
        (
            json!({"spec": {"name": "a", "port": true}}),
            r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"spec": {"name": "a", "content": "%"}}),
            r#"spec.content: Invalid value: "%": spec.content in body must be of type byte: "%""#,
        ),
        (
            json!({"spec": {"name": "a", "set": [null]}}),
            r#"spec.set[0]: Invalid value: "null": spec.set[0] in body must be of type string: "null""#,
        ),
    ];
    for (object, text) in cases {
        assert_eq!(errors(object), [text]);
    }
    let too_big = errors(json!({"spec": {"name": "a", "replicas": 4_000_000_000_u64}}));
    assert_eq!(
        too_big[0],
        "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.replicas"
    );
    assert!(errors(json!({"spec": {"name": "a", "port": 1, "any": 1, "maybe": null}})).is_empty());
    assert!(errors(json!({"spec": {"name": "a", "replicas": 2.0}})).is_empty());
    let no_integer =
        errors(json!({"spec": {"name": "a", "map": [{"level": 9_223_372_036_854_775_808_u64}]}}));
    assert_eq!(
        no_integer[0],
        r#"spec.map[0].level: Invalid value: "number": spec.map[0].level in body must be of type integer: "number""#
    );
}

/// R6.10: a time is kept as it is written, so that Go and our own types have to read it.
#[test]
fn times_are_those_that_everybody_reads() {
    let time = json!({"type": "string", "format": "date-time"});
    let schema = Schema::new(json!({"type": "object", "properties": {"t": time}})).unwrap();
    for (text, taken) in [
        ("2026-01-02T03:04:05Z", true),
        ("2026-01-02T03:04:05.123456789+01:00", true),
        ("0000-01-01T00:00:00Z", true),
        ("-000001-01-01T00:00:00Z", false),
        ("+002026-01-02T03:04:05Z", false),
        ("20260102T030405Z", false),
        ("2026-01-02 03:04:05Z", false),
        ("2026-01-02T03:04:60Z", false),
        ("2026-01-02T03:04:05+01:00[Europe/Berlin]", false),
        // Go reads them, and jiff does not.
        ("2026-01-02T3:04:05Z", false),
        ("2026-01-02T03:04:05.1234567891Z", false),
        ("2026-01-02T03:04:05+14:60", false),
    ] {
        let errors = schema.validate(&json!({"t": text}), &Path::root());
        assert_eq!(errors.is_empty(), taken, "{text}: {errors:?}");
    }
}

/// R6.1.
#[test]
fn what_is_stored_becomes_what_can_be_read() {
    let time = json!({"type": "string", "format": "date-time"});
    let schema = Schema::new(
        json!({"type": "object", "required": ["since"], "properties": {
            "since": time, "until": time,
            "large": {"type": "integer", "format": "int64"},
            "small": {"type": "array", "items": {"type": "integer", "format": "int32"}},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
        }}),
    );
    let bad = "-000001-01-01T00:00:00Z";
    let mut object = json!({
        "since": bad, "until": bad, "large": -1e300, "any": {"until": bad},
        "small": [1.0, 1e300, 3_000_000_000_u32, "x"],
    });
    schema.unwrap().repair(&mut object);
    assert_eq!(
        object,
        json!({
            "since": "1970-01-01T00:00:00Z", "large": i64::MIN, "any": {"until": bad},
            "small": [1, i32::MAX, i32::MAX, "x"],
        })
    );
}

/// R6.14.
#[test]
fn an_update_is_not_blamed_for_what_it_leaves_alone() {
    let old = json!({"spec": {"name": "ABC", "map": [{"name": "x", "level": 0}], "set": ["a"]}});
    let mut new = old.clone();
    new["spec"]["set"] = json!(["a", "b"]);
    new["spec"]["map"] = json!([{"name": "y", "level": 0}, {"name": "x", "level": 0}]);
    let root = field::Path::root();
    let errors = schema().validate_update(&new, &old, &root);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].field, "spec.map[0].level");
    assert_eq!(schema().validate(&new, &root).len(), 3);
}

/// Elements of sets and of lists with keys are looked up: a megabyte of them would take
/// minutes otherwise.
#[test]
fn long_sets_and_maps_are_looked_up() {
    let schema = Schema::new(json!({"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    }}))
    .unwrap();
    let names = || (0..60_000).map(|n| format!("n{n}"));
    let map: Vec<Value> = names().map(|name| json!({"name": name})).collect();
    let object = json!({"set": names().collect::<Vec<_>>(), "map": map});
    let mut old = object.clone();
    old["map"][0]["name"] = json!("other");
    old["set"][0] = json!("other");
    let began = std::time::Instant::now();
    assert!(schema.validate(&object, &field::Path::root()).is_empty());
    let errors = schema.validate_update(&object, &old, &field::Path::root());
    assert!(errors.is_empty());
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
}

/// Errors repeat the path and the value: a key or a value of a megabyte, or very many
/// elements that are wrong, must not be as many megabytes.
#[test]
fn errors_are_bounded_in_number_and_length() {
    let texts = json!({"type": "array", "items": {"type": "string", "maxLength": 3}});
    let schema = Schema::new(json!({"type": "object", "properties": {
        "map": {"type": "object", "additionalProperties": texts},
        "time": {"type": "string", "format": "date-time"},
        "one": {"type": "string", "enum": ["a"]},
        "set": {"type": "array", "x-kubernetes-list-type": "set",
            "items": {"type": "string"}},
    }}));
    let schema = schema.unwrap();
    let long = "k".repeat(1 << 20);
    let object = json!({
        "map": {long.clone(): vec![0; 20_000]}, "time": long, "one": long,
        "set": vec![long.as_str(); 5],
    });
    let errors = schema.validate(&object, &Path::root());
    assert!(errors.len() <= 1_100, "{}", errors.len());
    let length = |error: &Error| {
        let value = error.bad_value.as_ref().map_or(0, |v| v.to_string().len());
        error.field.len() + error.detail.len() + value
    };
    let longest = errors.iter().map(length).max();
    assert!(longest.unwrap() < 8 * 1024, "{longest:?}");
    let errors = schema.validate(&json!({"set": vec!["a"; 20_000]}), &Path::root());
    assert!(errors.len() <= 1_000);
}
