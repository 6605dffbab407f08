//! What is held of an object in a tenant while it is looked at.
//!
//! Whoever administers a tenant may add to our objects there what they like, and a tree of
//! it can have a hundred times its bytes. So each is cut to what is compared before the
//! next one is read.

use apiservice::names;
use serde_json::{Map, Value};

use crate::inside::objects::{added_to_spec, is_wholly_ours};
use crate::tenant::drift;

/// Maps of which an added key is drift as well.
const ATOMIC_MAPS: [&str; 3] = ["selector", "matchLabels", "nodeSelector"];
/// Bytes of a text that are held, or what tells it from the one that is wanted.
const TEXT: usize = 1024;
/// What is read of the metadata and the status of whatever is kept.
const METADATA: [&str; 4] = ["uid", "generation", "resourceVersion", "deletionTimestamp"];
const STATUS: [&str; 6] = [
    "observedGeneration",
    "updatedReplicas",
    "availableReplicas",
    "desiredNumberScheduled",
    "updatedNumberScheduled",
    "numberAvailable",
];

/// The object without what nobody reads: it differs from `wanted` in the same field as
/// before.
pub fn held(wanted: &Value, live: &Value) -> Value {
    let mut kept = cut(wanted, live, "");
    if is_wholly_ours(wanted)
        && let Some(field) = added_to_spec(wanted, live)
    {
        kept["spec"][beginning(field, TEXT)] = Value::Null;
    }
    let fields = |from: &Value, names: &[&str]| -> Map<String, Value> {
        let found = names.iter().filter_map(|name| {
            let value = from
                .get(name)
                .filter(|it| !it.is_object() && !it.is_array())?;
            Some(((*name).to_owned(), scalar(value, TEXT)))
        });
        found.collect()
    };
    let status = fields(&live["status"], &STATUS);
    if !status.is_empty() {
        kept["status"] = Value::Object(status);
    }
    for (name, value) in fields(&live["metadata"], &METADATA) {
        kept["metadata"][name] = value;
    }
    for (map, key) in [
        ("labels", names::LABEL_PROJECT),
        ("annotations", names::ANNOTATION_CHECKSUM),
    ] {
        if let Some(value) = live["metadata"][map].get(key).filter(|it| it.is_string()) {
            kept["metadata"][map][key] = scalar(value, TEXT);
        }
    }
    kept
}

fn cut(wanted: &Value, live: &Value, name: &str) -> Value {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            let common = wanted.iter().filter_map(|(key, value)| {
                let found = live.get(key)?;
                Some((key.clone(), cut(value, found, key)))
            });
            let mut kept: Map<String, Value> = common.collect();
            let added = live.keys().find(|key| !wanted.contains_key(*key));
            if ATOMIC_MAPS.contains(&name)
                && let Some(added) = added
            {
                // No key of ours is as long.
                kept.insert(beginning(added, TEXT).to_owned(), Value::Null);
            }
            Value::Object(kept)
        }
        (Value::Array(wanted), Value::Array(live)) => match drift::merge_key(wanted, name) {
            Some(key) => {
                let live = drift::by_key(live, key);
                let found = wanted.iter().filter_map(|element| {
                    let found = live.get(element.get(key)?)?;
                    Some(cut(element, found, ""))
                });
                Value::Array(found.collect())
            }
            None => {
                let pairs = wanted.iter().zip(live);
                let mut kept: Vec<Value> = pairs.map(|(one, other)| cut(one, other, "")).collect();
                if live.len() > wanted.len() {
                    // There are more, which is all that counts.
                    kept.push(Value::Null);
                }
                Value::Array(kept)
            }
        },
        (_, Value::Object(_) | Value::Array(_)) => Value::Null,
        // One that is longer than what is wanted stays longer.
        (wanted, live) => scalar(live, wanted.as_str().map_or(0, str::len) + TEXT),
    }
}

/// Texts are as long as an answer may be, and there are tens of objects.
fn scalar(value: &Value, most: usize) -> Value {
    match value {
        Value::String(text) => Value::String(beginning(text, most).to_owned()),
        other => other.clone(),
    }
}

fn beginning(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_added_is_not_held_and_what_differs_is() {
        let wanted = json!({
            "metadata": {"name": "a", "labels": {"k8s-app": "x"}},
            "spec": {
                "selector": {"app": "x"},
                "template": {"spec": {"containers": [
                    {"name": "c", "image": "i:1", "args": ["a", "b"]},
                ]}},
            },
            "subjects": [{"name": "g"}],
        });
        let mut live = wanted.clone();
        live["metadata"]["uid"] = json!("u");
        live["metadata"]["resourceVersion"] = json!("7");
        live["metadata"]["labels"][names::LABEL_PROJECT] = json!(names::PROJECT);
        live["status"] = json!({"availableReplicas": 2, "conditions": ["x"]});
        let lean = live.clone();
        let annotations: Map<String, Value> =
            (0..9_000).map(|it| (format!("a{it}"), json!(""))).collect();
        live["metadata"]["annotations"] = Value::Object(annotations);
        live["imagePullSecrets"] = json!(vec![json!({"name": "a"}); 9_000]);
        let container = &mut live["spec"]["template"]["spec"]["containers"][0];
        container["env"] = json!(vec![json!({"name": "a", "value": "b"}); 9_000]);
        live["spec"]["template"]["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "another"}));
        live["metadata"]["managedFields"] = json!(vec![json!({"f:a": {}}); 9_000]);
        let mut expected = lean;
        expected["status"]
            .as_object_mut()
            .unwrap()
            .remove("conditions");
        assert_eq!(held(&wanted, &live), expected);
        assert_eq!(drift::first(&wanted, &held(&wanted, &live)), None);

        type Change = fn(&mut Value);
        let changes: [(&str, Change); 7] = [
            ("metadata.labels.k8s-app", |it| {
                it["metadata"]["labels"] = json!({})
            }),
            ("spec.selector", |it| {
                it["spec"]["selector"]["b"] = json!("y")
            }),
            ("subjects", |it| {
                it["subjects"] = json!([{"name": "g"}, {"name": "h"}])
            }),
            ("subjects", |it| it["subjects"] = json!([])),
            ("subjects.[0].name", |it| {
                it["subjects"] = json!([{"name": {"a": 1}}])
            }),
            ("spec.template.spec.containers.[name=\"c\"].image", |it| {
                it["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
            }),
            ("spec.template.spec.containers.[name=\"c\"].args", |it| {
                it["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["a"]);
            }),
        ];
        for (field, change) in changes {
            let mut changed = live.clone();
            change(&mut changed);
            let before = drift::first(&wanted, &changed);
            assert_eq!(before.as_deref(), Some(field));
            assert_eq!(drift::first(&wanted, &held(&wanted, &changed)), before);
        }
    }

    /// Texts and names of 250 KiB in each of fifty objects are MiB, of each of 128 visits.
    #[test]
    fn of_long_texts_the_beginning_is_held() {
        let long = || "ä".repeat(125_000);
        let wanted = json!({
            "kind": "ConfigMap",
            "metadata": {"name": "a", "labels": {"a": "b"}},
            "data": {"Corefile": "x".repeat(TEXT), "b": ""},
            "spec": {"selector": {"a": "b"}},
        });
        let live = json!({
            "kind": long(),
            "metadata": {
                "name": "a", "uid": long(), "generation": long(), "resourceVersion": long(),
                "deletionTimestamp": long(),
                "labels": {"a": long(), names::LABEL_PROJECT: long()},
                "annotations": {names::ANNOTATION_CHECKSUM: long()},
            },
            "data": {"Corefile": "x".repeat(250_000), "b": long()},
            "spec": {"selector": {"a": "b", long(): long()}, long(): long()},
            "status": {"numberAvailable": long()},
        });
        let held = held(&wanted, &live);
        let bytes = held.to_string().len();
        assert!(bytes < 16 * 1024, "{bytes}");
        for field in ["kind", "metadata", "data", "spec"] {
            let whole = drift::first(&wanted[field], &live[field]);
            assert_eq!(drift::first(&wanted[field], &held[field]), whole, "{field}");
            assert!(whole.is_some(), "{field}");
        }
    }
}
