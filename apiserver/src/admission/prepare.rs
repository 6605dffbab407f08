//! What only the server sets in an object (R3.34, R3.49).

use std::collections::HashSet;

use apiservice::{Resource, field};
use serde_json::Value;

use super::{Author, When};
use crate::managed::written;
use crate::object::{self, meta, set_meta};
use crate::status::Failure;
use crate::stored;
use crate::warnings::Warnings;

/// Metadata that only the server sets.
const SERVER_OWNED: [&str; 5] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
];

/// Removes what a client may not set on a new object; status too, if it has a
/// subresource of its own (R3.40).
pub fn prepare_create(
    resource: &Resource,
    object: &mut Value,
    warnings: &Warnings,
) -> Result<(), Failure> {
    if !meta(object, "resourceVersion").is_empty() {
        // A kube-apiserver says the same with a 500 (R3.35); the fault is the client's.
        return Err(Failure::BadRequest(
            "resourceVersion should not be set on objects to be created".to_owned(),
        ));
    }
    take_server_owned(resource, object);
    stored::fits(object)?;
    dedupe_owners(object, When::Sent, warnings);
    Ok(())
}

/// The same once admission has changed the object: what a webhook may not set is taken out,
/// and nobody is told.
///
/// # Errors
/// 413 for what is never stored.
pub fn prepare_create_again(
    resource: &Resource,
    object: &mut Value,
    warnings: &Warnings,
) -> Result<(), Failure> {
    set_meta(object, "resourceVersion", None);
    take_server_owned(resource, object);
    stored::fits(object)?;
    dedupe_owners(object, When::Admitted, warnings);
    Ok(())
}

fn take_server_owned(resource: &Resource, object: &mut Value) {
    for field in SERVER_OWNED {
        set_meta(object, field, None);
    }
    if let Some(fields) = object.as_object_mut().filter(|_| resource.has_status()) {
        fields.remove("status");
    }
}

/// R3.49: what an update cannot change is taken from the stored object.
///
/// # Errors
/// 413 for what is never stored, before anything looks at all of it. What is no larger than
/// what is stored goes on, so that a deletion ends.
pub fn prepare_update(
    resource: &Resource,
    new: &mut Value,
    old: &Value,
    when: When,
    warnings: &Warnings,
) -> Result<(), Failure> {
    let stored = &old["metadata"];
    for field in ["creationTimestamp", "generation"] {
        set_meta(new, field, stored.get(field).cloned());
    }
    if meta(new, "uid").is_empty() {
        set_meta(new, "uid", stored.get("uid").cloned());
    }
    if let Some(time) = stored.get("deletionTimestamp") {
        set_meta(new, "deletionTimestamp", Some(time.clone()));
    }
    if new["metadata"].get("deletionGracePeriodSeconds").is_none() {
        let seconds = stored.get("deletionGracePeriodSeconds").cloned();
        set_meta(new, "deletionGracePeriodSeconds", seconds);
    }
    if resource.has_status() {
        set_status(new, old.get("status").cloned());
    }
    stored::fits_instead(new, old)?;
    dedupe_owners(new, when, warnings);
    Ok(())
}

/// The generation counts changes of anything but metadata and status (R3.50).
pub fn count_generation(resource: &Resource, new: &mut Value, old: &Value) {
    if object::spec_changed(resource, new, old) {
        bump_generation(new);
    }
}

/// R3.72: nothing but the status is taken; with it the managers of a configuration that was
/// applied, which say who wrote it. What a client says of managers is not looked at (R5.8).
///
/// # Errors
/// 413 for what is never stored.
pub fn prepare_status(new: &mut Value, old: &Value, author: &Author) -> Result<(), Failure> {
    let status = new.get_mut("status").map(Value::take);
    let managers = written::take_managers(new);
    *new = old.clone();
    set_status(new, status);
    if matches!(author, Author::Applier) {
        set_meta(new, "managedFields", managers);
    }
    stored::fits_with_status(new, old)
}

/// The object on its way out: the first mark counts as a generation (R3.63).
pub fn prepare_delete(mut new: Value, finalizers: Vec<String>, now: jiff::Timestamp) -> Value {
    object::set_finalizers(&mut new, finalizers);
    if !object::deleting(&new) {
        set_meta(
            &mut new,
            "deletionTimestamp",
            Some(Value::from(object::time(now))),
        );
        bump_generation(&mut new);
    }
    set_meta(&mut new, "deletionGracePeriodSeconds", Some(Value::from(0)));
    new
}

/// Adds one to the generation.
fn bump_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    set_meta(object, "generation", Some(Value::from(generation + 1)));
}

/// Sets or removes the status.
fn set_status(object: &mut Value, status: Option<Value>) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    match status {
        Some(status) => fields.insert("status".to_owned(), status),
        None => fields.remove("status"),
    };
}

/// Equal owner references are kept once (R3.84).
fn dedupe_owners(object: &mut Value, when: When, warnings: &Warnings) {
    let Some(owners) = object["metadata"]
        .get_mut("ownerReferences")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    let mut seen = HashSet::with_capacity(owners.len());
    let mut told = HashSet::new();
    let mut duplicates: Vec<String> = Vec::new();
    owners.retain(|owner| {
        let first = seen.insert(owner.to_string());
        if !first {
            let uid = owner["uid"].as_str().unwrap_or("");
            if duplicates.len() < field::MAX_ERRORS && told.insert(uid.to_owned()) {
                duplicates.push(uid.to_owned());
            }
        }
        first
    });
    if !duplicates.is_empty() {
        let when = match when {
            When::Sent => "",
            When::Admitted => " after mutating admission happens",
        };
        warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            duplicates.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tenants() -> &'static Resource {
        apiservice::find("tenantcontrolplanes").unwrap()
    }

    /// R3.49.
    #[test]
    fn updates_keep_what_the_server_owns() {
        let old = json!({
            "metadata": {"name": "a", "uid": "u", "generation": 3, "creationTimestamp": "t", "deletionTimestamp": "d"},
            "spec": {"x": 1}, "status": {"s": 1},
        });
        let warnings = Warnings::default();
        let cases = [
            (
                json!({"metadata": {"name": "a", "generation": 9}, "spec": {"x": 1}}),
                3,
            ),
            (
                json!({"metadata": {"name": "a"}, "spec": {"x": 2}, "status": {"s": 2}}),
                4,
            ),
        ];
        for (mut new, generation) in cases {
            prepare_update(tenants(), &mut new, &old, When::Sent, &warnings).unwrap();
            count_generation(tenants(), &mut new, &old);
            assert_eq!(new["metadata"]["generation"], generation);
            assert_eq!(new["metadata"]["uid"], "u");
            assert_eq!(new["metadata"]["deletionTimestamp"], "d");
            assert_eq!(new["status"], json!({"s": 1}));
        }
    }

    /// R3.63, R3.69.
    #[test]
    fn marks_once() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let old = json!({"metadata": {"generation": 1}});
        let marked = prepare_delete(old, vec!["a/b".into()], now);
        assert_eq!(marked["metadata"]["generation"], 2);
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        let later = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(
            prepare_delete(marked.clone(), vec!["a/b".into()], later),
            marked
        );
    }

    /// R3.84.
    #[test]
    fn owners_are_kept_once() {
        let warnings = Warnings::default();
        let mut object =
            json!({"metadata": {"ownerReferences": [{"uid": "1"}, {"uid": "2"}, {"uid": "1"}]}});
        dedupe_owners(&mut object, When::Sent, &warnings);
        assert_eq!(
            object["metadata"]["ownerReferences"],
            json!([{"uid": "1"}, {"uid": "2"}])
        );
        assert!(warnings.texts()[0].ends_with("duplicate UID(s) observed: 1"));
    }

    /// A megabyte of owners: comparing each with each would take minutes.
    #[test]
    fn many_owners_are_compared_once() {
        let warnings = Warnings::default();
        let owners: Vec<Value> = (0..40_000).map(|n| json!({"uid": n.to_string()})).collect();
        let twice: Vec<Value> = owners.iter().chain(&owners).cloned().collect();
        let mut object = json!({"metadata": {"ownerReferences": twice}});
        dedupe_owners(&mut object, When::Sent, &warnings);
        assert_eq!(object["metadata"]["ownerReferences"], Value::from(owners));
        assert!(warnings.texts()[0].ends_with(", 98, 99"));
    }

    #[test]
    fn what_is_never_stored_is_not_looked_at() {
        let warnings = Warnings::default();
        let large = "x".repeat(stored::MAX_STORED + stored::STATUS_ROOM + 5_000);
        let object = json!({"metadata": {"name": "a"}, "spec": {"x": large}});
        let expected = "Request entity too large: limit is 1572864";
        let created = prepare_create(tenants(), &mut object.clone(), &warnings);
        assert_eq!(created.unwrap_err().to_string(), expected);
        let old = json!({"metadata": {"name": "a"}});
        let updated = prepare_update(tenants(), &mut object.clone(), &old, When::Sent, &warnings);
        assert_eq!(updated.unwrap_err().to_string(), expected);
        // What is dropped does not count.
        let mut object = json!({"metadata": {"name": "a"}, "status": object["spec"]});
        prepare_create(tenants(), &mut object, &warnings).unwrap();
    }
}
