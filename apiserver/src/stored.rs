//! The form in which objects are stored: how large and heavy one may be, and the way there
//! and back. It has no resourceVersion: the revision of the entry is it.

use apiservice::Resource;
use bytes::Bytes;
use serde_json::Value;
use storage::Entry;

use crate::managed::managers;
use crate::object::{depth, length, set_meta, set_version, weight};
use crate::status::Failure;

/// Largest stored object (R3.88).
pub const MAX_STORED: usize = 3 * 512 * 1024;
/// What status, replicas and the mark of a deletion may add to that: an object that is as
/// large as it may be still has a status, and can be deleted.
pub const STATUS_ROOM: usize = 64 * 1024;

/// Bytes that managers of fields take as a tree without being counted.
const FEW_MANAGERS: usize = 1024 * 1024;

/// Refuses what [`encode`] will refuse, before anything takes time over it, and what takes
/// more memory than it may once it is read. What the server sets and leaves out makes a
/// little difference, which is left to `encode`.
pub fn fits(object: &Value) -> Result<(), Failure> {
    bounded(object)?;
    light(object, weight::TREE)
}

/// The same for an object in place of a stored one, without status and managers, which its
/// author does not change. What is no larger than what is stored goes on.
pub fn fits_instead(new: &Value, old: &Value) -> Result<(), Failure> {
    bounded_instead(new, old)?;
    let most = weight::TREE;
    match weight_of_main(new, most) {
        Ok(_) => Ok(()),
        Err(weight::TooHeavy) => {
            // It was stored with fields of the server's, or by a release that weighed otherwise.
            let before = weight_of_main(old, usize::MAX).unwrap_or(most);
            let weighed = weight_of_main(new, before);
            weighed.map_err(|weight::TooHeavy| Failure::too_heavy("object", most))?;
            Ok(())
        }
    }
}

/// The same for a new status. What else is in the object is there already, and its status
/// goes on.
pub fn fits_with_status(new: &Value, old: &Value) -> Result<(), Failure> {
    bounded_instead(new, old)?;
    light(&new["status"], weight::STATUS_TREE)
}

/// What the fields take of which the status and the managers say nothing.
fn weight_of_main(object: &Value, most: usize) -> Result<usize, weight::TooHeavy> {
    let fields = object.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, _)| *name != "status" && *name != "metadata");
    let metadata = object["metadata"].as_object().into_iter().flatten();
    let metadata = metadata.filter(|(name, _)| *name != "managedFields");
    let mut sum = 0;
    for (_, value) in fields.chain(metadata) {
        sum += weight::of(value, most - sum)?;
    }
    Ok(sum)
}

/// The same with the managers of its fields, which are recorded after it was looked at.
pub fn fits_with_managers(object: &Value) -> Result<(), Failure> {
    let managers = &object["metadata"]["managedFields"];
    match weight::of(managers, FEW_MANAGERS) {
        Ok(_) => Ok(()),
        Err(weight::TooHeavy) => light(object, weight::TREE + weight::STATUS_TREE),
    }
}

fn bounded(object: &Value) -> Result<(), Failure> {
    if length(object) > MAX_STORED + STATUS_ROOM {
        return Err(Failure::TooLarge(format!("limit is {MAX_STORED}")));
    }
    Ok(())
}

/// The same in place of a stored one: with its resourceVersion, which is not stored.
fn bounded_instead(new: &Value, old: &Value) -> Result<(), Failure> {
    let bounded = bounded(new);
    match bounded.is_err() && length(new) <= length(old) {
        true => Ok(()),
        false => bounded,
    }
}

fn light(value: &Value, most: usize) -> Result<(), Failure> {
    let weighed = weight::of(value, most);
    weighed.map_err(|weight::TooHeavy| Failure::too_heavy("object", most))?;
    Ok(())
}

/// The stored bytes of an object.
pub fn encode(object: &Value) -> Result<Bytes, Failure> {
    // The last fence: no path, whatever it builds, stores what cannot be read.
    if depth::exceeds(object, depth::MAX_DEPTH) {
        return Err(Failure::BadRequest(depth::message()));
    }
    let mut stored = object.clone();
    set_meta(&mut stored, "resourceVersion", None);
    let bytes = stored.to_string();
    if bytes.len() > MAX_STORED + STATUS_ROOM {
        return Err(Failure::TooLarge(format!("limit is {MAX_STORED}")));
    }
    // Without the room that a text has to grow: the store holds it for a while.
    Ok(Bytes::from(bytes.into_bytes().into_boxed_slice()))
}

/// The object of an entry, with its resourceVersion.
pub fn decode(resource: &'static Resource, entry: &Entry) -> Result<Value, Failure> {
    decode_at(resource, entry, entry.modified.0)
}

/// As [`decode`], with the revision of the change that removed the object.
///
/// Reads prune and default again, so that what a newer schema says shows
/// without a write (R6.1). What an older release took and clients cannot decode is mended:
/// one such object breaks every list that it is in.
pub fn decode_at(
    resource: &'static Resource,
    entry: &Entry,
    revision: u64,
) -> Result<Value, Failure> {
    let mut object: Value = serde_json::from_slice(&entry.value).map_err(|error| {
        Failure::Internal(format!(
            "unable to decode stored object {}: {error}; lists and watches leave it out; restore the database from a backup or delete the object by its name",
            entry.key
        ))
    })?;
    if !object["metadata"].is_object() {
        return Err(Failure::Internal(format!(
            "unable to decode stored object {}: it has no metadata",
            entry.key
        )));
    }
    object["apiVersion"] = Value::from(resource.api_version());
    object["kind"] = Value::from(resource.kind);
    resource.schema().prune(&mut object);
    resource.schema().repair(&mut object);
    managers::repair(&mut object);
    resource.default(&mut object);
    if object["metadata"]["generation"].as_i64().unwrap_or(0) == 0 {
        set_meta(&mut object, "generation", Some(Value::from(1)));
    }
    set_version(&mut object, revision);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// R6.1: numbers and times that an older release took.
    #[test]
    fn what_cannot_be_decoded_is_mended() {
        let stores = apiservice::find("datastores").unwrap();
        let stored = br#"{"metadata": {"name": "a", "managedFields": [{"manager": "m", "time": "+002026-01-02T03:04:05Z"}]},
            "spec": {"capacity": {"bytes": 1e12}}, "status": {"size": 1e300}}"#;
        let entry = Entry {
            key: "/datastores/a".to_owned(),
            value: Bytes::from_static(stored),
            created: storage::Revision(1),
            modified: storage::Revision(2),
        };
        let read = decode(stores, &entry).unwrap();
        assert_eq!(read["metadata"]["managedFields"], json!([{"manager": "m"}]));
        assert_eq!(read["spec"]["capacity"]["bytes"], 1_000_000_000_000_i64);
        assert_eq!(read["status"]["size"], i64::MAX);
    }
}
