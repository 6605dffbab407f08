//! The OpenAPI v2 document, made of the v3 one (contract 2.4): kube-apiserver merges it into
//! its own for clients that read no v3.
//!
//! Types of Kubernetes have names of ours here, and are of no kind: kube-apiserver has them
//! already, of its own version, and would give ours a second name of the same kind, on which
//! clients stumble that look types up by kind.

use serde_json::{Map, Value, json};

use crate::VERSION;

/// Types of Kubernetes, as the v3 document names them, and what stands for that here.
const KUBERNETES: [&str; 2] = ["io.k8s.apimachinery.pkg.apis.", "io.k8s.api."];
const OWN: &str = "dev.butlerlabs.steward.";
const KIND: &str = "x-kubernetes-group-version-kind";

/// The document; the same in every process.
pub(super) fn document(v3: &Value) -> Value {
    let mut definitions = Map::new();
    for (name, definition) in members(&v3["components"]["schemas"]) {
        let own = own_name(name);
        let mut definition = schema(definition);
        if own != *name
            && let Some(fields) = definition.as_object_mut()
        {
            fields.remove(KIND);
        }
        definitions.insert(own, definition);
    }
    let mut paths = Map::new();
    for (url, path) in members(&v3["paths"]) {
        let of = |(method, value): (&String, &Value)| {
            let value = match method.as_str() {
                "parameters" => items(value).map(parameter).collect(),
                _ => operation(value),
            };
            (method.clone(), value)
        };
        let path: Map<String, Value> = members(path).map(of).collect();
        paths.insert(url.clone(), path.into());
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Steward", "version": VERSION},
        "paths": paths,
        "definitions": definitions,
    })
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn own_name(name: &str) -> String {
    let rest = KUBERNETES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix));
    rest.map_or_else(|| name.to_owned(), |rest| format!("{OWN}{rest}"))
}

/// A parameter says its type itself.
fn parameter(v3: &Value) -> Value {
    let mut parameter = v3.clone();
    let Some(fields) = parameter.as_object_mut() else {
        return parameter;
    };
    if let Some(Value::Object(schema)) = fields.remove("schema") {
        fields.extend(schema);
    }
    parameter
}

/// The body is a parameter, and media types are those of the whole operation.
fn operation(v3: &Value) -> Value {
    let mut operation = v3.clone();
    let media = |content: &Value| -> Value { members(content).map(|it| it.0.as_str()).collect() };
    let of_content = |content: &Value| {
        let first = members(content).next();
        first.map(|(_, content)| schema(&content["schema"]))
    };
    let mut parameters: Vec<Value> = items(&v3["parameters"]).map(parameter).collect();
    let body = &v3["requestBody"];
    if let Some(schema) = of_content(&body["content"]) {
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if body["required"] == true {
            parameter["required"] = true.into();
        }
        parameters.insert(0, parameter);
        operation["consumes"] = media(&body["content"]);
    }
    operation["schemes"] = json!(["https"]);
    let mut responses = Map::new();
    for (code, response) in members(&v3["responses"]) {
        let mut own = json!({"description": response["description"]});
        if let Some(schema) = of_content(&response["content"]) {
            own["schema"] = schema;
            operation["produces"] = media(&response["content"]);
        }
        responses.insert(code.clone(), own);
    }
    operation["responses"] = responses.into();
    if let Some(fields) = operation.as_object_mut() {
        fields.remove("requestBody");
        fields.remove("parameters");
        if !parameters.is_empty() {
            fields.insert("parameters".to_owned(), parameters.into());
        }
    }
    operation
}

/// A schema without what v2 has no words for, and without what kubectl cannot read: as
/// Kubernetes publishes the schemas of custom resources.
fn schema(v3: &Value) -> Value {
    let mut schema = Map::new();
    for (key, value) in members(v3) {
        let value = match key.as_str() {
            "nullable" | "anyOf" | "oneOf" | "not" => continue,
            "allOf" => match items(value)
                .next()
                .filter(|first| first["$ref"].is_string())
            {
                Some(first) => {
                    schema.insert("$ref".to_owned(), reference(&first["$ref"]));
                    continue;
                }
                None => continue,
            },
            "$ref" => reference(value),
            "items" => self::schema(value),
            "additionalProperties" if value.is_object() => self::schema(value),
            "properties" => members(value)
                .map(|(name, property)| (name.clone(), self::schema(property)))
                .collect::<Map<_, _>>()
                .into(),
            "required" => items(value)
                .filter(|name| {
                    let name = name.as_str().unwrap_or_default();
                    v3["properties"][name]["nullable"] != true
                })
                .cloned()
                .collect(),
            _ => value.clone(),
        };
        schema.insert(key.clone(), value);
    }
    let untyped = v3["nullable"] == true;
    let open = v3["x-kubernetes-preserve-unknown-fields"] == true;
    if untyped || open {
        schema.remove("items");
        schema.remove("properties");
    }
    let bare = schema.get("type").is_some_and(|kind| {
        *kind == "array" && !schema.contains_key("items") || *kind == "object" && open
    });
    if untyped || bare {
        schema.remove("type");
    }
    if schema.get("required").is_some_and(|it| *it == json!([])) {
        schema.remove("required");
    }
    schema.into()
}

fn reference(v3: &Value) -> Value {
    let name = v3.as_str().unwrap_or_default();
    let name = name.strip_prefix("#/components/schemas/").unwrap_or(name);
    format!("#/definitions/{}", own_name(name)).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn whole() -> Value {
        crate::openapi::v2()
    }

    fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str, &'a Value)) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    visit(key, value);
                    walk(value, visit);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, visit)),
            _ => {}
        }
    }

    /// R2.23.
    #[test]
    fn every_reference_leads_to_a_definition() {
        let document = whole();
        assert_eq!(document["swagger"], "2.0");
        assert_eq!(document["info"]["title"], "Steward");
        let mut count = 0;
        walk(&document, &mut |key, value| {
            if key != "$ref" {
                return;
            }
            let name = value.as_str().unwrap().strip_prefix("#/definitions/");
            let name = name.unwrap_or_else(|| panic!("{value}"));
            assert!(document["definitions"].get(name).is_some(), "{name}");
            assert!(!name.contains('/'));
            count += 1;
        });
        assert!(count > 50, "{count}");
    }

    /// R2.22: kube-apiserver renames nothing, and no kind has two types.
    #[test]
    fn no_name_and_no_kind_is_one_of_kubernetes() {
        let document = whole();
        let mut kinds = HashSet::new();
        for (name, definition) in members(&document["definitions"]) {
            assert!(name.starts_with("dev.butlerlabs."), "{name}");
            for kind in items(&definition[KIND]) {
                assert_eq!(kind["group"], crate::GROUP, "{name}");
                assert!(kinds.insert(kind.to_string()), "{kind} twice");
            }
        }
        for kind in ["TenantControlPlane", "DataStoreList", "MigrationRequest"] {
            let quoted = format!("\"kind\":{kind:?}");
            assert!(kinds.iter().any(|it| it.contains(&quoted)), "{kind}");
        }
        for (url, _) in members(&document["paths"]) {
            // What lies elsewhere is left out.
            assert!(url.starts_with("/apis/steward.butlerlabs.dev/v1alpha1/"));
        }
    }

    /// What v2 has no words for, and what kubectl cannot read.
    #[test]
    fn schemas_are_those_of_v2() {
        let converted = schema(&json!({
            "type": "object",
            "required": ["a", "b"],
            "properties": {
                "a": {"type": "array", "items": {"type": "string"}, "nullable": true},
                "b": {"anyOf": [{"type": "integer"}], "x-kubernetes-int-or-string": true},
                "anyOf": {"type": "string"},
                "meta": {
                    "allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.X"}],
                    "description": "d",
                },
                "open": {
                    "type": "object", "properties": {"x": {"type": "string"}},
                    "x-kubernetes-preserve-unknown-fields": true,
                },
                "map": {"type": "object", "additionalProperties": {"type": "array"}},
            },
        }));
        assert_eq!(
            converted,
            json!({
                "type": "object",
                "required": ["b"],
                "properties": {
                    "a": {},
                    "b": {"x-kubernetes-int-or-string": true},
                    "anyOf": {"type": "string"},
                    "meta": {
                        "$ref": "#/definitions/dev.butlerlabs.steward.core.v1.X",
                        "description": "d",
                    },
                    "open": {"x-kubernetes-preserve-unknown-fields": true},
                    "map": {"type": "object", "additionalProperties": {}},
                },
            })
        );
    }

    /// kubectl apply takes a strategic merge patch wherever it is offered (R2.28).
    #[test]
    fn operations_are_those_of_v2() {
        let document = whole();
        let one = "/apis/steward.butlerlabs.dev/v1alpha1/datastores/{name}";
        let patch = &document["paths"][one]["patch"];
        assert_eq!(
            patch["consumes"],
            json!([
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
            ])
        );
        let body = &patch["parameters"][0];
        assert_eq!(
            (&body["in"], &body["required"]),
            (&json!("body"), &json!(true))
        );
        let parameters = || items(&patch["parameters"]);
        let validation = parameters().find(|it| it["name"] == "fieldValidation");
        assert_eq!(validation.unwrap()["type"], "string");
        assert_eq!(
            patch["responses"]["200"]["schema"]["$ref"],
            "#/definitions/dev.butlerlabs.steward.v1alpha1.DataStore"
        );
        assert_eq!(patch[KIND]["kind"], "DataStore");
        walk(&document["paths"], &mut |key, _| {
            assert!(!["requestBody", "content"].contains(&key), "{key}");
        });
    }
}
