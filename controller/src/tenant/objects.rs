//! Objects of ours in the management cluster: their metadata, their checksums,
//! and the decision whether one has to be written at all.

use std::collections::BTreeMap;

use apiservice::condition::{reason, tenant as condition};
use apiservice::names;
use apiservice::v1alpha1::{AdditionalMetadata, TenantControlPlane};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use md5::{Digest, Md5};
use serde::Serialize;
use serde_json::Value;
use sha2::Sha256;

use crate::cluster::kept;
use crate::tenant::drift;
use crate::tenant::plan::{Finding, Object, ObjectKey, ObjectKind, Plan, Said, Step, Waiting};
use crate::tenant::world::{Ownership, World};

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

/// Adds the user's labels and annotations, without those whose keys are Steward's: later
/// passes believe what these say, also where Steward has nothing to say there now.
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
    for (key, value) in theirs.iter().filter(|(key, _)| !names::is_ours(key)) {
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
        type_: Some(names::secret_type(component).to_owned()),
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
    match world.owned.get::<Secret>(name) {
        None => Standing::Absent,
        Some(found) if world.ours(&found.metadata) => Standing::Ours(found),
        Some(found) => Standing::Taken(&found.metadata),
    }
}

/// Keeps a ConfigMap of the tenant, with the checksum of what is in it.
pub fn keep_config_map(
    world: &World,
    plan: &mut Plan,
    name: &str,
    component: &str,
    data: BTreeMap<String, String>,
) {
    let mut metadata = meta(world, name, component);
    metadata
        .annotations
        .get_or_insert_default()
        .insert(names::ANNOTATION_CHECKSUM.to_owned(), checksum(&data));
    let wanted = ConfigMap {
        metadata,
        data: Some(data),
        ..ConfigMap::default()
    };
    let live = world.owned.get::<ConfigMap>(name).map(AsRef::as_ref);
    let live = live.map(|live: &ConfigMap| (&live.metadata, live));
    keep(world, plan, Object::ConfigMap(wanted), live);
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
    if key.kind == ObjectKind::Secret && is_paused(meta) {
        return;
    }
    if annotation(meta, names::ANNOTATION_APPLIED) == Some(hash.as_str())
        && drifted(&wanted, meta, live).is_none()
    {
        return;
    }
    // Another wish than the one that is fought over does not wait.
    let same_wish = annotation(meta, names::ANNOTATION_APPLIED) == Some(hash.as_str());
    let held = world.contested.get(&key).filter(|at| **at > world.now);
    if let Some(at) = held.filter(|_| same_wish) {
        plan.revisit_at(*at);
        return plan.push(Step::Wait(contested(
            &key,
            drifted(&wanted, meta, live),
            *at,
        )));
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

/// The path of the first field that is not as we want it, or that is somebody
/// else's where the object is ours as a whole.
fn drifted<T: Serialize>(wanted: &Object, meta: &ObjectMeta, live: &T) -> Option<String> {
    let (Ok(mut wish), Ok(live)) = (wish(wanted), serde_json::to_value(live)) else {
        return Some("the whole object".to_owned());
    };
    let held = kept::spec_of(&wish, meta);
    kept::leave_comparable(&mut wish, meta);
    let first = drift::first(&wish, &live);
    first.or_else(|| match held {
        kept::Spec::Whole => drift::added(wanted.kind(), &wish, &live),
        kept::Spec::Beyond => None,
        kept::Spec::Enlarged => Some("spec".to_owned()),
    })
}

/// The same of an object as it came over the wire. Fields that this version
/// does not know are nobody's.
pub fn drifted_in(wanted: &Object, live: &Value) -> Option<String> {
    let (wish, live) = (wish(wanted).ok()?, wanted.kind().known(live)?);
    drift::first(&wish, &live).or_else(|| drift::added(wanted.kind(), &wish, &live))
}

/// Whether an apply would not bring the object to what is wanted, because others
/// own fields in parts that are ours: they added some, or changed what was
/// applied to the same wish.
pub fn needs_taking_out(wanted: &Object, live: &Value) -> bool {
    let (Ok(wish), Some(known)) = (wish(wanted), wanted.kind().known(live)) else {
        return false;
    };
    let applied =
        |value: &Value| value["metadata"]["annotations"][names::ANNOTATION_APPLIED].clone();
    drift::added(wanted.kind(), &wish, &known).is_some()
        || applied(&wish) == applied(&known) && drift::first(&wish, &known).is_some()
}

/// Whether somebody has asked that this object be left as it is.
pub fn is_paused(meta: &ObjectMeta) -> bool {
    annotation(meta, names::ANNOTATION_PAUSED).is_some()
}

/// Whether no pod of a tenant is to run, as asked: zero replicas.
pub fn is_asleep(tenant: &TenantControlPlane) -> bool {
    tenant.spec.control_plane.deployment.replicas == 0
}

/// The checksum of a Secret of ours that is to be left as it is.
pub fn paused_checksum(world: &World, name: &str) -> Option<String> {
    let live = world.secret(name)?;
    is_paused(&live.metadata).then(|| checksum(&data(live)))
}

/// Whether an object is controlled by the tenant with this uid.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    let mut owners = meta.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// An annotation of an object.
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// What to do about an object that has a name of ours.
pub const FREE_THE_NAME: &str = "Delete or rename it, or give the tenant another name.";

/// The same where a tenant that is gone left it.
pub const LEFT_BEHIND: &str = "The garbage collector takes it away; if it stays, delete it.";

/// The condition of rule 20 for an object that is not ours.
pub fn taken(world: &World, key: &ObjectKey, meta: &ObjectMeta) -> Waiting {
    let owner = meta
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let (said, remedy) = match owner {
        // No two tenants of one name live at a time.
        Some(owner) if owner.kind == "TenantControlPlane" && owner.name == world.name() => {
            let uid = &owner.uid;
            let said = format!("is left from a tenant of this name that was deleted ({uid}).");
            (said, LEFT_BEHIND)
        }
        Some(owner) => {
            let owner = format!("{} {}", owner.kind, owner.name);
            let said = format!("exists and belongs to {owner}, so it is left alone.");
            (said, FREE_THE_NAME)
        }
        None => {
            let said = "exists and has no controller, so it is left alone.".to_owned();
            (said, FREE_THE_NAME)
        }
    };
    found(
        reason::NAME_TAKEN,
        Finding {
            object: key.clone(),
            said: Said::Does(said),
            remedy: Some(remedy),
        },
    )
}

/// Trouble with an object of ours, or with its name.
fn found(reason: &'static str, finding: Finding) -> Waiting {
    Waiting {
        condition: condition::OBJECTS_OWNED,
        reason,
        message: finding.to_string(),
        problem: true,
        finding: Some(Box::new(finding)),
    }
}

fn contested(key: &ObjectKey, field: Option<String>, next: jiff::Timestamp) -> Waiting {
    let next = jiff::Timestamp::from_second(next.as_second()).unwrap_or(next);
    let field = field.unwrap_or_else(|| "a field".to_owned());
    let said = format!(
        "{field} keeps being changed back. Stop whatever else manages it, or the admission \
         webhook or policy that changes it at the write; the next attempt is at {next}."
    );
    found(
        reason::CONTESTED,
        Finding {
            object: key.clone(),
            said: Said::Sentence(said),
            remedy: None,
        },
    )
}
