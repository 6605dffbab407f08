//! What decides whether an object may be stored, once it is decoded:
//! NamespaceLifecycle (contract 7.1), server-owned metadata (R3.34, R3.49),
//! validation, and borrowed rights (rule 8).

use apiservice::field::{self, Path};
use apiservice::meta::validate_metadata;
use apiservice::{BorrowedRight, Resource, Scope};
use serde_json::Value;

use crate::authn::Identity;
use crate::authz::{self, Attributes, Decision};
use crate::namespaces::State;
use crate::object::{self, meta, set_meta};
use crate::registry::Registry;
use crate::respond::Warnings;
use crate::status::{Cause, Failure, Subject};

/// Metadata that only the server sets.
const SERVER_OWNED: [&str; 5] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
];

/// R7.4: nothing is created in a namespace that is missing or going away.
pub async fn namespace_lifecycle(
    registry: &Registry,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<(), Failure> {
    let subject = Subject::of(resource, name);
    match registry.namespaces.state(namespace).await {
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
        return Err(Failure::Bare(
            "resourceVersion should not be set on objects to be created".to_owned(),
        ));
    }
    for field in SERVER_OWNED {
        set_meta(object, field, None);
    }
    if let Some(fields) = object.as_object_mut().filter(|_| has_status(resource)) {
        fields.remove("status");
    }
    dedupe_owners(object, warnings);
    Ok(())
}

/// Whether the resource has a status subresource.
pub fn has_status(resource: &Resource) -> bool {
    resource
        .subresources
        .iter()
        .any(|subresource| subresource.name == "status")
}

/// R3.49: what an update cannot change is taken from the stored object, and
/// the generation counts changes of anything but metadata and status (R3.50).
pub fn prepare_update(resource: &Resource, new: &mut Value, old: &Value, warnings: &Warnings) {
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
    if has_status(resource) {
        set_status(new, old.get("status").cloned());
    }
    dedupe_owners(new, warnings);
    if object::spec_changed(resource, new, old) {
        bump_generation(new);
    }
}

/// Adds one to the generation.
pub fn bump_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    set_meta(object, "generation", Some(Value::from(generation + 1)));
}

/// Sets or removes the status.
pub fn set_status(object: &mut Value, status: Option<Value>) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    match status {
        Some(status) => fields.insert("status".to_owned(), status),
        None => fields.remove("status"),
    };
}

/// Equal owner references are kept once (R3.84).
fn dedupe_owners(object: &mut Value, warnings: &Warnings) {
    let Some(owners) = object["metadata"]
        .get_mut("ownerReferences")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut duplicates: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            let uid = owner["uid"].as_str().unwrap_or("").to_owned();
            if !duplicates.contains(&uid) {
                duplicates.push(uid);
            }
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    if !duplicates.is_empty() {
        warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
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
    /// The status and nothing else.
    Status,
}

impl Part {
    /// Whether the status stays as it is.
    pub fn is_spec(self) -> bool {
        self != Part::Status
    }
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
    let mut errors = validate_metadata(&new["metadata"], before, resource);
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

/// R3.79: finalizers without a domain or path collide; said for new ones.
fn finalizer_warnings(new: &Value, old: Option<&Value>, warnings: &Warnings) {
    const KNOWN: [&str; 2] = ["orphan", "foregroundDeletion"];
    let before = old.map(object::finalizers).unwrap_or_default();
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

/// Rule 8: what the object makes us do with our rights, the requester must be
/// allowed to do as well. Asked for changed fields only.
pub async fn borrowed(
    registry: &Registry,
    identity: &Identity,
    resource: &'static Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Failure> {
    for right in resource.borrowed(new, old) {
        let attributes = attributes(&right);
        if let Decision::Deny { reason } =
            registry.authorizer.allowed(identity, &attributes).await?
        {
            let refusal = authz::forbidden(identity, &attributes, &reason);
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

    #[test]
    fn names_and_namespaces_of_the_url_win() {
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
            prepare_update(tenants(), &mut new, &old, &warnings);
            assert_eq!(new["metadata"]["generation"], generation);
            assert_eq!(new["metadata"]["uid"], "u");
            assert_eq!(new["metadata"]["deletionTimestamp"], "d");
            assert_eq!(new["status"], json!({"s": 1}));
        }
    }

    #[test]
    fn owners_are_kept_once() {
        let warnings = Warnings::default();
        let mut object =
            json!({"metadata": {"ownerReferences": [{"uid": "1"}, {"uid": "2"}, {"uid": "1"}]}});
        dedupe_owners(&mut object, &warnings);
        assert_eq!(
            object["metadata"]["ownerReferences"],
            json!([{"uid": "1"}, {"uid": "2"}])
        );
        assert!(warnings.texts()[0].ends_with("duplicate UID(s) observed: 1"));
    }

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
