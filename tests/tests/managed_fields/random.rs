//! Random objects of a schema, small enough that what several managers write meets.

use std::borrow::Cow;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

const NAMES: [&str; 4] = ["a", "b", "c", "d<&>/é"];

pub struct Random<'a> {
    pub rng: &'a mut StdRng,
    schemas: &'a Map<String, Value>,
}

impl<'a> Random<'a> {
    pub fn new(rng: &'a mut StdRng, schemas: &'a Map<String, Value>) -> Self {
        Self { rng, schemas }
    }

    pub fn one_in(&mut self, count: u32) -> bool {
        self.rng.random_range(0..count) == 0
    }

    fn name(&mut self) -> String {
        NAMES[self.rng.random_range(0..NAMES.len())].to_owned()
    }

    /// An object of a schema.
    pub fn object(&mut self, schema: &str) -> Value {
        let schema = &self.schemas[schema];
        let mut object = self.value(schema, 0);
        if !object.is_object() {
            object = json!({});
        }
        self.metadata(&mut object);
        object
    }

    fn metadata(&mut self, object: &mut Value) {
        let mut metadata = json!({});
        if self.one_in(2) {
            metadata["labels"] = json!({self.name(): self.name()});
        }
        if self.one_in(3) {
            metadata["annotations"] = json!({self.name(): self.name()});
            if self.one_in(4) {
                let last = "kubectl.kubernetes.io/last-applied-configuration";
                let mut config = object.clone();
                config["metadata"] = json!({"name": "one", "namespace": "default"});
                metadata["annotations"][last] = Value::from(config.to_string());
            }
        }
        if self.one_in(4) {
            metadata["finalizers"] = json!([self.name(), self.name()]);
            if metadata["finalizers"][0] == metadata["finalizers"][1] {
                metadata["finalizers"] = json!(["x"]);
            }
        }
        if self.one_in(4) {
            metadata["ownerReferences"] =
                json!([{"uid": self.name(), "name": self.name(), "kind": "K", "apiVersion": "v1"}]);
        }
        object["metadata"] = metadata;
    }

    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if depth > 1 && self.one_in(40) {
            return Value::Null;
        }
        let schemas = self.schemas;
        let schema = &resolved(schemas, schema);
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values[self.rng.random_range(0..values.len())].clone();
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => self.map(schema, depth),
            Some("array") => self.list(schema, depth),
            Some("integer") => Value::from(self.rng.random_range(-1..4)),
            Some("number") => match self.one_in(2) {
                true => Value::from(self.rng.random_range(0..3)),
                false => Value::from(f64::from(self.rng.random_range(0..6)) / 2.0),
            },
            Some("boolean") => Value::from(self.one_in(2)),
            Some(_) => Value::from(self.name()),
            None => self.anything(depth),
        }
    }

    fn anything(&mut self, depth: usize) -> Value {
        match self.rng.random_range(0..if depth < 8 { 6 } else { 4 }) {
            0 => Value::from(self.rng.random_range(0..3)),
            1 => Value::from(self.name()),
            2 => Value::from(self.one_in(2)),
            3 => json!(0.5),
            4 => {
                let count = self.rng.random_range(0..3);
                (0..count).map(|_| self.anything(depth + 1)).collect()
            }
            _ => {
                let count = self.rng.random_range(0..3);
                let fields = (0..count).map(|_| (self.name(), self.anything(depth + 1)));
                Value::Object(fields.collect())
            }
        }
    }

    fn map(&mut self, schema: &Value, depth: usize) -> Value {
        let mut map = Map::new();
        if self.one_in(12) {
            return Value::Object(map);
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let skip = ["apiVersion", "kind", "metadata"];
        for (name, property) in properties.into_iter().flatten() {
            let wanted = match depth {
                0 => !skip.contains(&name.as_str()) && !self.one_in(5),
                1 | 2 => self.one_in(2),
                _ => self.one_in(3),
            };
            if wanted {
                map.insert(name.clone(), self.value(property, depth + 1));
            }
        }
        let others = schema
            .get("additionalProperties")
            .filter(|all| all.is_object());
        if let Some(others) = others {
            for _ in 0..self.rng.random_range(0..3) {
                map.insert(self.name(), self.value(others, depth + 1));
            }
        } else if properties.is_none() || schema["x-kubernetes-preserve-unknown-fields"] == true {
            for _ in 0..self.rng.random_range(0..3) {
                let name = format!("x{}", self.name());
                map.insert(name, self.anything(depth + 1));
            }
        }
        Value::Object(map)
    }

    fn list(&mut self, schema: &Value, depth: usize) -> Value {
        let count = self.rng.random_range(0..4);
        let mut kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let mut keys = keys.cloned().unwrap_or_default();
        if let Some(key) = schema.get("x-kubernetes-patch-merge-key") {
            kind = Some("map");
            keys = vec![key.clone()];
        }
        let schemas = self.schemas;
        let items = &resolved(schemas, &schema["items"]);
        let mut list: Vec<Value> = Vec::new();
        for _ in 0..count {
            let mut item = self.value(items, depth + 1);
            if kind == Some("set") && item.is_null() {
                continue;
            }
            if kind == Some("map") {
                if !item.is_object() {
                    item = json!({});
                }
                for key in &keys {
                    let key = key.as_str().unwrap();
                    let property = &items["properties"][key];
                    if property.get("default").is_none() || self.one_in(2) {
                        let value = self.value(property, 0);
                        item[key] = value;
                    } else {
                        item.as_object_mut().unwrap().remove(key);
                    }
                }
            }
            let same = |other: &Value| match kind {
                Some("map") => keys.iter().all(|key| {
                    let key = key.as_str().unwrap();
                    let default = items["properties"][key].get("default");
                    let of = |value: &Value| value.get(key).or(default).cloned();
                    of(&item) == of(other)
                }),
                _ => item == *other || item.as_f64().is_some() && item.as_f64() == other.as_f64(),
            };
            let twice = kind.is_some_and(|kind| kind != "atomic") && list.iter().any(same);
            if !twice || self.one_in(60) {
                list.push(item);
            }
        }
        Value::Array(list)
    }

    /// An object in which a few things are otherwise.
    pub fn changed(&mut self, schema: &str, object: &Value) -> Value {
        let mut changed = object.clone();
        let other = self.object(schema);
        let steps = self.rng.random_range(0..3);
        for _ in 0..=steps {
            self.mix(&mut changed, &other);
        }
        changed
    }

    /// Takes some parts from another object of the schema, and leaves some out.
    fn mix(&mut self, value: &mut Value, other: &Value) {
        match (value, other) {
            (Value::Object(map), Value::Object(others)) => {
                let names: Vec<String> = map.keys().chain(others.keys()).cloned().collect();
                for name in names {
                    if matches!(name.as_str(), "apiVersion" | "kind" | "managedFields") {
                        continue;
                    }
                    match (map.get_mut(&name), others.get(&name)) {
                        (Some(_), _) if self.one_in(10) => {
                            map.remove(&name);
                        }
                        (Some(value), Some(other)) if self.one_in(2) => self.mix(value, other),
                        (None, Some(other)) if self.one_in(6) => {
                            map.insert(name, other.clone());
                        }
                        _ => {}
                    }
                }
            }
            (Value::Array(list), Value::Array(others)) => {
                if !list.is_empty() && self.one_in(3) {
                    let position = self.rng.random_range(0..list.len());
                    list.remove(position);
                }
                if list.len() > 1 && self.one_in(4) {
                    let last = list.len() - 1;
                    list.swap(0, last);
                }
                if self.one_in(3) {
                    *list = others.clone();
                }
            }
            (value, other) => *value = other.clone(),
        }
    }

    /// What clients do with the managers of an object that they send.
    pub fn managers(&mut self, object: &mut Value, version: &str) {
        let Some(metadata) = object["metadata"].as_object_mut() else {
            return;
        };
        match self.rng.random_range(0..30) {
            0 => {
                metadata.insert("managedFields".to_owned(), json!([]));
            }
            1 => {
                metadata.insert("managedFields".to_owned(), json!([{}]));
            }
            2 => {
                metadata.remove("managedFields");
            }
            3 => {
                let managers = json!([{"manager": "x", "operation": "Other"}]);
                metadata.insert("managedFields".to_owned(), managers);
            }
            4 => {
                let managers = json!([
                    {"manager": "mine", "operation": "Apply", "apiVersion": version,
                     "fieldsType": "FieldsV1", "time": "2019-01-01T00:00:00Z",
                     "fieldsV1": {"f:spec": {"f:z": {}, "f:a": {".": {}}, "v:1.0": {}}}},
                    {"manager": "old", "operation": "Update", "apiVersion": "example.com/v0",
                     "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}},
                ]);
                metadata.insert("managedFields".to_owned(), managers);
            }
            _ => {}
        }
    }

    /// Makes one mistake.
    pub fn spoil(&mut self, config: &mut Value) {
        match self.rng.random_range(0..6) {
            0 => config["kind"] = json!("Other"),
            1 => config["apiVersion"] = json!("v1"),
            2 => config["metadata"]["managedFields"] = json!([]),
            3 => config["spec"] = json!({"notThere": 1}),
            4 => config["spec"] = json!(["x", 1.5, null, {"a": true}]),
            _ => config["metadata"]["labels"] = json!({"a": [{"b": "x"}, 2]}),
        }
    }
}

/// A schema that may be a reference to another one.
fn resolved<'a>(schemas: &'a Map<String, Value>, schema: &'a Value) -> Cow<'a, Value> {
    let reference = schema.get("$ref").or_else(|| {
        let all = schema.get("allOf")?.as_array()?;
        all.first()?.get("$ref")
    });
    let Some(name) = reference.and_then(Value::as_str) else {
        return Cow::Borrowed(schema);
    };
    let resolved = &schemas[name.rsplit('/').next().unwrap()];
    match schema.get("x-kubernetes-map-type") {
        None => Cow::Borrowed(resolved),
        Some(kind) => {
            let mut resolved = resolved.clone();
            resolved["x-kubernetes-map-type"] = kind.clone();
            Cow::Owned(resolved)
        }
    }
}
