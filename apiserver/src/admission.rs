//! What decides whether an object may be stored, once it is decoded:
//! NamespaceLifecycle (contract 7.1), server-owned metadata (R3.34, R3.49),
//! validation, and borrowed rights (rule 8).

use std::borrow::Cow;
use std::collections::HashSet;

use apiservice::field::{self, Path};
use apiservice::meta::{label_value_complaints, qualified_name_complaints, validate_metadata};
use apiservice::{BorrowedRight, Resource, Scope};
use serde_json::Value;

use crate::authn::Identity;
use crate::authz::{self, Attributes, Authorizer, Decision};
use crate::managed::tracker;
use crate::namespaces::{Namespaces, State};
use crate::object::{self, meta, set_meta};
use crate::status::{Cause, Failure, Subject};
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

/// R7.4: nothing is created in a namespace that is missing or going away, nor in one
/// in which this installation has no rights.
pub async fn namespace_lifecycle(
    namespaces: &Namespaces,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), Failure> {
    let subject = Subject::of(resource, name);
    if !namespaces.serves(namespace) {
        let why = format!(
            "namespace {namespace} is not one of those in which this installation of Steward \
             may have tenants; its administrator adds it to tenantNamespaces in the values of \
             the chart"
        );
        return Err(authz::refused(subject, &why));
    }
    match namespaces.state(namespace).await {
        State::Active => Ok(()),
        State::Missing => Err(Failure::NotFound(Subject::new("", "namespaces", namespace))),
        State::Terminating => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut failure = authz::refused(subject, &why);
            if let Failure::Forbidden { causes, .. } = &mut failure {
                causes.push(Cause {
                    reason: "NamespaceTerminating".to_owned(),
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".to_owned(),
                });
            }
            Err(failure)
        }
        State::Unknown => Err(authz::refused(subject, "not yet ready to handle request")),
    }
}

/// The namespace of the URL wins; another one in the body is an error (R3.3).
pub fn match_namespace(
    resource: &Resource,
    object: &mut Value,
    namespace: Option<&str>,
) -> Result<(), Failure> {
    let namespace = namespace.filter(|_| resource.scope == Scope::Namespaced);
    match (namespace, meta(object, "namespace")) {
        (None, _) => {
            // R3.78: a cluster-scoped object has none.
            set_meta(object, "namespace", None);
            Ok(())
        }
        (Some(namespace), "") => {
            set_meta(object, "namespace", Some(Value::from(namespace)));
            Ok(())
        }
        (Some(namespace), present) if present == namespace => Ok(()),
        _ => Err(Failure::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned(),
        )),
    }
}

/// The name of the URL and of the body are one (R3.3).
pub fn match_name(object: &Value, name: &str) -> Result<(), Failure> {
    match meta(object, "name") {
        "" => Err(Failure::BadRequest(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        present if present == name => Ok(()),
        present => Err(Failure::BadRequest(format!(
            "the name of the object ({present}) does not match the name on the URL ({name})"
        ))),
    }
}

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

/// When something is found in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As a client sent it.
    Sent,
    /// After webhooks have changed it.
    Admitted,
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
    let managers = tracker::take_managers(new);
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

/// The part of an object that a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The replicas, through a Scale.
    Replicas,
    /// Where its data is to be, through a MigrationRequest.
    Place,
    /// The status and nothing else.
    Status,
}

impl Part {
    /// Whether the status stays as it is.
    pub fn is_spec(self) -> bool {
        self != Part::Status
    }
}

/// How somebody writes.
#[derive(Clone, Debug)]
pub enum Author {
    /// The whole object or a patch of it: what changes is theirs.
    Updater(String),
    /// A configuration, whose fields are theirs already.
    Applier,
}

/// All field rules of a new or changed object; 422 if any is broken.
pub fn validate(
    resource: &'static Resource,
    new: &Value,
    old: Option<&Value>,
    part: Part,
    warnings: &Warnings,
) -> Result<(), Failure> {
    let before = old.map(|old| &old["metadata"]);
    let mut errors = validate_metadata(&bounded(&new["metadata"]), before, resource);
    errors.extend(match (part, old) {
        (Part::Status, Some(old)) => resource.validate_status(new, old),
        _ => resource.validate(new, old),
    });
    if !errors.is_empty() {
        return Err(Failure::invalid(resource, meta(new, "name"), errors));
    }
    // Who scales did not write the rest of the spec, and a change of labels
    // repeats nothing that the spec was told before.
    if part == Part::Main {
        if old.is_none_or(|old| object::spec_changed(resource, new, old)) {
            let texts = resource.warnings(new, old);
            texts.into_iter().for_each(|text| warnings.add(text));
        }
        finalizer_warnings(new, old, warnings);
    }
    Ok(())
}

/// The metadata, or if more than enough is wrong with it, what is wrong first: errors
/// are larger than what they are about, and a megabyte of it would be half a gigabyte.
fn bounded(metadata: &Value) -> Cow<'_, Value> {
    let mut left = field::MAX_ERRORS;
    // How many entries of each are needed; those after the last error are left out.
    let mut take = |wrong: bool| {
        left = left.saturating_sub(usize::from(wrong));
        left > 0
    };
    let map = |name: &str| metadata.get(name).and_then(Value::as_object);
    let list = |name: &str| metadata.get(name).and_then(Value::as_array);
    let is = |one: &Value, name: &str| one[name].as_str().is_none_or(str::is_empty);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();

    let labels = map("labels")
        .into_iter()
        .flatten()
        .take_while(|(key, value)| {
            take(
                !qualified_name_complaints(key).is_empty()
                    || !label_value_complaints(&text(value)).is_empty(),
            )
        });
    let labels = labels.count();
    let annotations = map("annotations").into_iter().flatten();
    let annotations = annotations
        .take_while(|(key, _)| take(!qualified_name_complaints(&key.to_lowercase()).is_empty()))
        .count();
    let finalizers = list("finalizers").into_iter().flatten();
    let finalizers = finalizers
        .take_while(|name| take(!qualified_name_complaints(&text(name)).is_empty()))
        .count();
    // The complaint about a second controller shows the whole list.
    let mut controllers = 0;
    let owners = list("ownerReferences").into_iter().flatten();
    let owners = owners
        .take_while(|owner| {
            controllers += usize::from(owner["controller"] == true);
            let event = owner["apiVersion"] == "v1" && owner["kind"] == "Event";
            let version = text(&owner["apiVersion"]);
            let broken = version.is_empty() || version.ends_with('/') || event;
            let fields = ["kind", "name", "uid"];
            let broken = broken || fields.iter().any(|name| is(owner, name));
            take(broken) && controllers < 3
        })
        .count();
    if left > 0 && controllers < 3 {
        return Cow::Borrowed(metadata);
    }
    let mut metadata = metadata.clone();
    for (name, count) in [("labels", labels), ("annotations", annotations)] {
        if let Some(map) = metadata.get_mut(name).and_then(Value::as_object_mut) {
            *map = std::mem::take(map).into_iter().take(count + 1).collect();
        }
    }
    for (name, count) in [("finalizers", finalizers), ("ownerReferences", owners)] {
        if let Some(list) = metadata.get_mut(name).and_then(Value::as_array_mut) {
            list.truncate(count + 1);
        }
    }
    Cow::Owned(metadata)
}

/// R3.79: finalizers without a domain or path collide; said for new ones.
fn finalizer_warnings(new: &Value, old: Option<&Value>, warnings: &Warnings) {
    const KNOWN: [&str; 2] = ["orphan", "foregroundDeletion"];
    let before = old.map(object::finalizers).unwrap_or_default();
    let before: HashSet<String> = before.into_iter().collect();
    for finalizer in object::finalizers(new) {
        if KNOWN.contains(&finalizer.as_str())
            || finalizer.contains('/')
            || before.contains(&finalizer)
        {
            continue;
        }
        let path = match finalizer.contains('.') {
            true => "including a path (/) ",
            false => "",
        };
        warnings.add(format!(
            "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name {path}to avoid accidental conflicts with other finalizer writers"
        ));
    }
}

/// What the object makes us do with our rights, as far as its fields are changed.
///
/// # Errors
/// 422 for an object that borrows more than [`apiservice::resource::MAX_BORROWED`]
/// rights, before any of them is asked for.
pub fn borrows(
    resource: &'static Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<Vec<BorrowedRight>, Failure> {
    match resource.borrows_too_much(new, old) {
        Some(error) => {
            let name = meta(new, "name");
            Err(Failure::invalid(resource, name, vec![error]))
        }
        None => Ok(resource.borrowed(new, old)),
    }
}

/// Rule 8: what the object borrows ([`borrows`]), the requester must be allowed to do as
/// well.
///
/// # Errors
/// 403 for a right that the requester lacks.
pub async fn borrowed(
    authorizer: &Authorizer,
    identity: &Identity,
    resource: &'static Resource,
    new: &Value,
    rights: &[BorrowedRight],
) -> Result<(), Failure> {
    for right in rights {
        let asked = attributes(right);
        if let Decision::Deny { reason } = authorizer.allowed(identity, &asked).await? {
            if let Some(other) = &right.or {
                let other = Attributes {
                    verb: other.verb.to_owned(),
                    resource: other.resource.to_owned(),
                    subresource: other.subresource.to_owned(),
                    ..asked.clone()
                };
                let allowed = authorizer.allowed(identity, &other).await?;
                if allowed.is_allowed() {
                    continue;
                }
            }
            let refusal = authz::forbidden(identity, &asked, &reason);
            let subject = Subject::of(resource, meta(new, "name"));
            let why = format!(
                "{} needs a right that the requester does not have: {refusal}",
                right.field
            );
            return Err(authz::refused(subject, &why));
        }
    }
    Ok(())
}

fn attributes(right: &BorrowedRight) -> Attributes {
    Attributes {
        verb: right.verb.to_string(),
        group: right.group.to_string(),
        version: String::new(),
        resource: right.resource.to_string(),
        subresource: right.subresource.to_string(),
        namespace: right.namespace.clone().unwrap_or_default(),
        name: right.name.clone().unwrap_or_default(),
        ..Attributes::default()
    }
}

/// The resourceVersion of an update as a revision: it must be there (R3.47).
pub fn required_version(resource: &Resource, object: &Value) -> Result<u64, Failure> {
    let text = meta(object, "resourceVersion");
    let path = Path::new("metadata.resourceVersion");
    let error = match text.parse::<u64>() {
        Ok(version) if version > 0 => return Ok(version),
        _ if text.is_empty() || text == "0" => {
            field::Error::invalid(&path, 0, "must be specified for an update")
        }
        _ => field::Error::invalid(
            &path,
            text,
            format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
        ),
    };
    Err(Failure::Invalid {
        kind: resource.plural.to_owned(),
        group: apiservice::GROUP.to_owned(),
        name: meta(object, "name").to_owned(),
        errors: vec![error],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tenants() -> &'static Resource {
        apiservice::find("tenantcontrolplanes").unwrap()
    }

    /// R3.3, R3.78.
    #[test]
    fn names_and_namespaces_of_the_url_win() {
        let stores = apiservice::find("datastores").unwrap();
        let mut store = json!({"metadata": {"name": "a", "namespace": "n"}});
        match_namespace(stores, &mut store, None).unwrap();
        assert!(store["metadata"].get("namespace").is_none(), "{store}");
        let mut object = json!({"metadata": {"name": "a"}});
        match_namespace(tenants(), &mut object, Some("n")).unwrap();
        assert_eq!(meta(&object, "namespace"), "n");
        assert!(match_namespace(tenants(), &mut object, Some("m")).is_err());
        assert!(match_name(&object, "a").is_ok());
        assert_eq!(
            match_name(&object, "b").unwrap_err().to_string(),
            "the name of the object (a) does not match the name on the URL (b)"
        );
        assert_eq!(
            match_name(&json!({"metadata": {}}), "b")
                .unwrap_err()
                .to_string(),
            "the name of the object (b based on URL) was undeterminable: name must be provided"
        );
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

    #[test]
    fn metadata_is_judged_until_enough_is_wrong_with_it() {
        let wrong = |n: usize| format!("-{n}");
        let names: Vec<String> = (0..100_000).map(wrong).collect();
        let map: serde_json::Map<String, Value> = names
            .iter()
            .map(|name| (name.clone(), Value::from("v")))
            .collect();
        let owner =
            json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": true});
        let base = json!({"name": "a", "namespace": "n"});
        for (field, value) in [
            ("labels", Value::from(map.clone())),
            ("annotations", Value::from(map)),
            ("finalizers", Value::from(names)),
            ("ownerReferences", Value::from(vec![json!({}); 20_000])),
            ("ownerReferences", Value::from(vec![owner.clone(); 20_000])),
        ] {
            let mut metadata = base.clone();
            metadata[field] = value;
            let errors = validate_metadata(&bounded(&metadata), None, tenants());
            assert!(
                (1..=500).contains(&errors.len()),
                "{field} {}",
                errors.len()
            );
        }
        let mut metadata = base;
        metadata["finalizers"] = json!(vec!["-"; 99]);
        metadata["ownerReferences"] = json!([owner, owner]);
        assert!(matches!(bounded(&metadata), Cow::Borrowed(_)));
    }

    /// R3.47.
    #[test]
    fn an_update_needs_a_version() {
        let object = json!({"metadata": {"name": "a"}});
        assert_eq!(
            required_version(tenants(), &object)
                .unwrap_err()
                .to_string(),
            "tenantcontrolplanes.steward.butlerlabs.dev \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        );
    }
}
