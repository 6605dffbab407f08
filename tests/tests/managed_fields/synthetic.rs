//! A kind that has every merge type.

use serde_json::{Map, Value, json};

/// The schemas of it and of metadata.
pub fn schemas() -> Map<String, Value> {
    let document = apiservice::openapi::v3_group_version();
    let ours = document["components"]["schemas"].as_object().unwrap();
    let meta = ours
        .iter()
        .filter(|(name, _)| name.starts_with("io.k8s.apimachinery.pkg.apis.meta.v1."));
    let mut all: Map<String, Value> = meta
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.insert("example.Pair".to_owned(), pair());
    all.insert("example.Widget".to_owned(), widget());
    all
}

fn pair() -> Value {
    json!({
        "type": "object",
        "properties": {"left": {"type": "string"}, "right": {"type": "integer"}},
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn widget() -> Value {
    let text = json!({"type": "string"});
    let keyed = json!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port", "name"],
        "items": {
            "type": "object",
            "properties": {
                "name": text,
                "port": {"type": "integer", "default": 1},
                "value": text,
                "args": {"type": "array", "items": text, "x-kubernetes-list-type": "atomic"},
                "tags": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
                "nested": {
                    "type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["id"],
                    "items": {
                        "type": "object",
                        "properties": {"id": text, "on": {"type": "boolean"}},
                    },
                },
            },
        },
    });
    let atomic_item = json!({
        "type": "object", "x-kubernetes-map-type": "atomic",
        "properties": {"name": text, "size": {"type": "integer"}},
    });
    let body = json!({
        "type": "object",
        "properties": {
            "count": {"type": "integer"},
            "ratio": {"type": "number"},
            "on": {"type": "boolean"},
            "text": text,
            "time": {"type": "string", "format": "date-time"},
            "quantity": {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": true,
            },
            "pair": {"allOf": [reference("example.Pair")], "description": "x"},
            "whole": {"allOf": [reference("example.Pair")], "x-kubernetes-map-type": "atomic"},
            "granular": {
                "type": "object", "x-kubernetes-map-type": "granular",
                "additionalProperties": {"type": "string"},
            },
            "atomic": {
                "type": "object", "x-kubernetes-map-type": "atomic",
                "additionalProperties": {"type": "string"},
            },
            "structs": {"type": "object", "additionalProperties": reference("example.Pair")},
            "lists": {"type": "object", "additionalProperties": keyed},
            "keyed": keyed,
            "single": {
                "type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"], "items": atomic_item,
            },
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
            "numbers": {
                "type": "array", "x-kubernetes-list-type": "set", "items": {"type": "number"},
            },
            "plain": {"type": "array", "items": {"type": "object", "properties": {"a": text}}},
            "old": {
                "type": "array", "items": reference("example.Pair"),
                "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "left",
            },
            "free": {"type": "object"},
            "kept": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": reference("example.Pair"), "inner": {
                    "type": "object", "properties": {"a": text},
                }},
            },
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "controlPlane": {
                "type": "object",
                "properties": {"deployment": {
                    "type": "object",
                    "properties": {"replicas": {"type": "integer"}, "paused": {"type": "boolean"}},
                }},
            },
        },
    });
    json!({
        "type": "object",
        "x-kubernetes-group-version-kind":
            [{"group": "example.com", "version": "v1", "kind": "Widget"}],
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": {"allOf": [reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")]},
            "spec": body,
            "status": body,
        },
    })
}
