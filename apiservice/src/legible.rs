//! Objects of others, as far as they can be read. Pure.
//!
//! Whoever may write an object writes texts into it that Go takes and our types do not: a time
//! of the last two days of 9999 in `managedFields` is enough. Such a part costs itself, or at
//! most its object, and never the list that it is in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ManagedFieldsEntry, ObjectMeta, OwnerReference, Time,
};
use serde::de::{Deserialize, DeserializeOwned, Error as _};
use serde_json::{Map, Value};

/// When something goes of which that cannot be read: the last time that our types have.
const SOMETIME: &str = "9999-12-30T22:00:00Z";

/// An object as its type. If it is not like that, then without what cannot be read of its
/// metadata, and at last without its status: both are taken out of the tree.
///
/// # Errors
/// It is not like that either, or has no name.
pub fn decode<K: DeserializeOwned>(tree: &mut Value) -> Result<K, serde_json::Error> {
    if let Ok(whole) = K::deserialize(&*tree) {
        return Ok(whole);
    }
    mend(tree);
    named(tree)?;
    K::deserialize(&*tree).or_else(|error| {
        let status = tree.as_object_mut().and_then(|it| it.remove("status"));
        status.map_or(Err(error), |_| K::deserialize(&*tree))
    })
}

/// The same of its metadata alone.
///
/// # Errors
/// There is no such object without the rest, or it has no name.
pub fn bare<K: DeserializeOwned>(tree: &Value) -> Result<K, serde_json::Error> {
    let metadata = ("metadata".to_owned(), tree["metadata"].clone());
    let mut bare = Value::Object(Map::from_iter([metadata]));
    mend(&mut bare);
    named(&bare)?;
    K::deserialize(&bare)
}

/// The metadata of an object, with what can be read of them.
///
/// # Errors
/// They are none.
pub fn metadata(tree: &Value) -> Result<ObjectMeta, serde_json::Error> {
    let metadata = &tree["metadata"];
    ObjectMeta::deserialize(metadata).or_else(|error| match metadata.as_object() {
        Some(fields) => ObjectMeta::deserialize(Value::Object(legible(fields.clone()))),
        None => Err(error),
    })
}

/// Takes out of the metadata of an object what cannot be read.
fn mend(tree: &mut Value) {
    if let Some(fields) = tree.get_mut("metadata").and_then(Value::as_object_mut) {
        *fields = legible(std::mem::take(fields));
    }
}

fn named(tree: &Value) -> Result<(), serde_json::Error> {
    match tree["metadata"]["name"].as_str() {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err(serde_json::Error::custom("it has no name")),
    }
}

/// The fields of metadata that can be read, each by itself.
fn legible(fields: Map<String, Value>) -> Map<String, Value> {
    let mut read = Map::new();
    for (key, mut value) in fields {
        match (key.as_str(), &mut value) {
            ("managedFields", Value::Array(entries)) => entries.retain_mut(|entry| {
                let is_read = |entry: &Value| ManagedFieldsEntry::deserialize(entry).is_ok();
                if !is_read(entry)
                    && let Some(entry) = entry.as_object_mut()
                {
                    entry.remove("time");
                }
                is_read(entry)
            }),
            ("ownerReferences", Value::Array(owners)) => {
                owners.retain(|owner| OwnerReference::deserialize(owner).is_ok());
            }
            ("labels" | "annotations", Value::Object(texts)) => {
                texts.retain(|_, text| text.is_string());
            }
            ("deletionTimestamp", at) if Option::<Time>::deserialize(&*at).is_err() => {
                *at = SOMETIME.into();
            }
            _ => {}
        }
        let field = Value::Object(Map::from_iter([(key, value)]));
        if ObjectMeta::deserialize(&field).is_ok()
            && let Value::Object(field) = field
        {
            read.extend(field);
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Pod, Secret};
    use serde_json::json;

    use super::*;

    /// Go takes it, and `jiff` has not got it.
    const LATE: &str = "9999-12-31T23:59:59Z";

    #[test]
    fn a_time_that_is_not_ours_costs_itself_alone() {
        let text = json!({
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": LATE, "deletionTimestamp": LATE, "generation": "many",
                "labels": {"a": "b", "c": 1},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "K", "name": "o", "uid": "p"},
                    {"apiVersion": 1},
                ],
                "managedFields": [
                    {"manager": "m", "operation": "Update", "time": LATE},
                    {"manager": "n", "time": "2026-01-01T00:00:00Z"},
                    {"manager": 7},
                ],
            },
            "data": {"k": "YQ=="},
        });
        assert!(Secret::deserialize(&text).is_err());
        let read: Secret = decode(&mut text.clone()).unwrap();
        assert_eq!(read.data.unwrap()["k"].0, b"a");
        assert_eq!(read.metadata, metadata(&text).unwrap());
        let read = serde_json::to_value(&read.metadata).unwrap();
        let expected = json!({
            "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "deletionTimestamp": SOMETIME,
            "labels": {"a": "b"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "p"}],
            "managedFields": [
                {"manager": "m", "operation": "Update"},
                {"manager": "n", "time": "2026-01-01T00:00:00Z"},
            ],
        });
        assert_eq!(read, expected);
        assert!(Time::deserialize(json!(SOMETIME)).is_ok());
    }

    #[test]
    fn a_status_that_cannot_be_read_costs_itself_alone() {
        let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": LATE});
        let mut pod = json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"conditions": [condition]},
        });
        let read: Pod = decode(&mut pod).unwrap();
        assert!(read.status.is_none() && read.spec.is_some());
        let template = json!({"metadata": {"creationTimestamp": LATE}});
        let mut made = json!({"metadata": {"name": "a"}, "spec": {"template": template}});
        assert!(decode::<Deployment>(&mut made).is_err());
        let read: Deployment = bare(&made).unwrap();
        assert_eq!(
            (read.metadata.name.as_deref(), read.spec),
            (Some("a"), None)
        );
    }

    #[test]
    fn what_has_no_name_is_nothing() {
        for metadata in [
            json!({"name": 7}),
            json!({"name": ""}),
            json!([]),
            json!(null),
        ] {
            let mut object = json!({"metadata": metadata, "spec": 7});
            assert!(decode::<Pod>(&mut object).is_err(), "{object}");
            assert!(bare::<Pod>(&object).is_err(), "{object}");
        }
        assert!(metadata(&json!({})).is_err());
    }
}
