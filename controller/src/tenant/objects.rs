//! Objects of ours in the management cluster: their metadata, their checksums,
//! and the decision whether one has to be written at all.

use std::collections::BTreeMap;

use apiservice::condition::{reason, tenant as condition};
use apiservice::names;
use apiservice::v1alpha1::AdditionalMetadata;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use md5::{Digest, Md5};
use serde::Serialize;
use serde_json::Value;
use sha2::Sha256;

use super::drift;
use super::plan::{Object, ObjectKey, Plan, Step, Waiting};
use super::world::{Ownership, World};

/// The values of a Secret by key.
pub type Data = BTreeMap<String, Vec<u8>>;

/// What there is under a name of ours.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a, T> {
    /// Nothing, as far as the cache knows.
    Absent,
    /// Controlled by this tenant's uid.
    Ours(&'a T),
    /// Not controlled by this tenant's uid (rule 20).
    Taken(&'a ObjectMeta),
}

/// Metadata of an object of ours: labels, and the tenant as its controller, so
/// that the garbage collector takes it when the tenant is gone.
pub fn meta(world: &World, name: &str, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(world.namespace().to_owned()),
        labels: Some(names::labels(world.name(), component)),
        owner_references: Some(vec![owner(world)]),
        ..ObjectMeta::default()
    }
}

fn owner(world: &World) -> OwnerReference {
    OwnerReference {
        api_version: apiservice::api_version(),
        kind: "TenantControlPlane".to_owned(),
        name: world.name().to_owned(),
        uid: world.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// Adds the user's labels and annotations; ours win where both name a key.
pub fn add_metadata(meta: &mut ObjectMeta, additional: Option<&AdditionalMetadata>) {
    let Some(additional) = additional else { return };
    merge(meta.labels.get_or_insert_default(), &additional.labels);
    if !additional.annotations.is_empty() {
        merge(
            meta.annotations.get_or_insert_default(),
            &additional.annotations,
        );
    }
}

fn merge(ours: &mut BTreeMap<String, String>, theirs: &BTreeMap<String, String>) {
    for (key, value) in theirs {
        ours.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// The checksum that pods and annotations carry: MD5 over the values in key
/// order (features 1.7). It detects change, it does not protect.
pub fn checksum<V: AsRef<[u8]>>(data: &BTreeMap<String, V>) -> String {
    let mut digest = Md5::new();
    for value in data.values() {
        digest.update(value.as_ref());
    }
    hex::encode(digest.finalize())
}

/// A Secret of ours with its checksum.
pub fn secret(world: &World, name: &str, component: &str, data: Data) -> Secret {
    let mut metadata = meta(world, name, component);
    let annotations = BTreeMap::from([(names::ANNOTATION_CHECKSUM.to_owned(), checksum(&data))]);
    metadata.annotations = Some(annotations);
    Secret {
        metadata,
        type_: Some("Opaque".to_owned()),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key, ByteString(value)))
                .collect(),
        ),
        ..Secret::default()
    }
}

/// The values of a Secret.
pub fn data(secret: &Secret) -> Data {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

/// One value of a Secret as text.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    String::from_utf8(bytes.clone()).ok()
}

/// What there is under the name of a Secret of ours.
pub fn standing<'a>(world: &'a World, name: &str) -> Standing<'a, Secret> {
    match world.owned.secrets.get(name) {
        None => Standing::Absent,
        Some(found) if world.ours(&found.metadata) => Standing::Ours(found),
        Some(found) => Standing::Taken(&found.metadata),
    }
}

/// Plans the one write that brings the live object to `wanted`, or none.
///
/// Absent objects are created, never applied, so that nothing which a late
/// cache hides is overwritten. Objects of others are left alone, and a field
/// that somebody keeps changing back is left for a while (rule 20).
pub fn keep<T: Serialize>(
    world: &World,
    plan: &mut Plan,
    mut wanted: Object,
    live: Option<(&ObjectMeta, &T)>,
) {
    let key = wanted.key();
    let Ok(hash) = stamp(&mut wanted) else {
        // Typed objects of string-keyed maps always encode; if one does not,
        // writing it would fail the same way and say so.
        return plan.push(Step::Create(Box::new(wanted)));
    };
    let Some((meta, live)) = live else {
        return plan.push(Step::Create(Box::new(wanted)));
    };
    if world.ownership(meta) == Ownership::Foreign {
        return plan.push(Step::Wait(taken(world, &key, meta)));
    }
    if annotation(meta, names::ANNOTATION_APPLIED) == Some(hash.as_str())
        && drifted(&wanted, live).is_none()
    {
        return;
    }
    if let Some(at) = world.contested.get(&key).filter(|at| **at > world.now) {
        plan.revisit_at(*at);
        return plan.push(Step::Wait(contested(&key, drifted(&wanted, live))));
    }
    plan.push(Step::Apply(Box::new(wanted)));
}

/// Writes the hash of the object into its annotation and returns it.
fn stamp(object: &mut Object) -> Result<String, serde_json::Error> {
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(&wish(object)?)?);
    let hash = hex::encode(&digest.finalize()[..16]);
    let annotations = object.meta_mut().annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_APPLIED.to_owned(), hash.clone());
    Ok(hash)
}

/// What is wanted, without the precondition under which it is written.
fn wish(object: &Object) -> Result<Value, serde_json::Error> {
    let mut value = object.value()?;
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
    }
    Ok(value)
}

fn drifted<T: Serialize>(wanted: &Object, live: &T) -> Option<String> {
    match (wish(wanted), serde_json::to_value(live)) {
        (Ok(wanted), Ok(live)) => drift::first(&wanted, &live),
        _ => Some("the whole object".to_owned()),
    }
}

/// An annotation of an object.
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The condition of rule 20 for an object that is not ours.
pub fn taken(world: &World, key: &ObjectKey, meta: &ObjectMeta) -> Waiting {
    let owner = meta
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let message = match owner {
        // No two tenants of one name live at a time.
        Some(owner) if owner.kind == "TenantControlPlane" && owner.name == world.name() => {
            format!(
                "{key} is left from a tenant of this name that was deleted ({}). The garbage \
                 collector takes it away; if it stays, delete it.",
                owner.uid
            )
        }
        Some(owner) => format!(
            "{key} exists and belongs to {} {}, so it is left alone. Delete or rename it, or \
             give the tenant another name.",
            owner.kind, owner.name
        ),
        None => format!(
            "{key} exists and has no controller, so it is left alone. Delete or rename it, or \
             give the tenant another name."
        ),
    };
    Waiting {
        condition: condition::OBJECTS_OWNED,
        reason: reason::NAME_TAKEN,
        message,
        problem: true,
    }
}

fn contested(key: &ObjectKey, field: Option<String>) -> Waiting {
    let field = field.unwrap_or_else(|| "a field".to_owned());
    Waiting {
        condition: condition::OBJECTS_OWNED,
        reason: reason::CONTESTED,
        message: format!(
            "{key}: {field} keeps being changed back. Stop whatever else manages it; the next \
             attempt is in a minute."
        ),
        problem: true,
    }
}
