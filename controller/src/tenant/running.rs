//! What the pods of a tenant run with, as their Deployment and older ReplicaSets say.

use apiservice::names::{self, component};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::tenant::objects;
use crate::tenant::world::World;

/// The Deployment that is there, if it is ours.
pub fn live(world: &World) -> Option<&Deployment> {
    let live = world.deployment();
    live.filter(|live| world.ours(&live.metadata))
}

/// The checksum of a leaf that pods are made with.
pub fn carried<'a>(of: &'a Deployment, part: &str) -> Option<&'a str> {
    carried_by(&of.spec.as_ref()?.template, part)
}

fn carried_by<'a>(template: &'a PodTemplateSpec, part: &str) -> Option<&'a str> {
    let meta = template.metadata.as_ref()?;
    if part == component::DATASTORE_CERTIFICATE {
        return objects::annotation(meta, names::ANNOTATION_STORAGE_CERTIFICATE);
    }
    let labels = meta.labels.as_ref()?;
    labels.get(&names::pod_hash_label(part)).map(String::as_str)
}

/// When the first of the certificates ends that pods run with which were made before
/// `secret` was given what it holds of this part now. `None`: all have that, or nobody
/// has noted it.
///
/// The pods of before are those of older ReplicaSets, which have the annotations that the
/// Deployment had then.
pub fn held_until(world: &World, part: &str, secret: &Secret) -> Option<Timestamp> {
    let live = live(world)?;
    let now = objects::annotation(&secret.metadata, names::ANNOTATION_CHECKSUM);
    let is_behind = |template: &PodTemplateSpec| {
        carried_by(template, part).is_some_and(|held| {
            // Of a paused Secret, whatever is in it.
            now != Some(held) && held != objects::checksum(&objects::data(secret))
        })
    };
    let end = |meta: &ObjectMeta| {
        let end = objects::annotation(meta, names::ANNOTATION_CERTIFICATES_END)?;
        end.parse().ok()
    };
    let spec = live.spec.as_ref()?;
    let wanted = spec.replicas != Some(0) && is_behind(&spec.template);
    let wanted = wanted.then(|| end(&live.metadata)).flatten();
    let sets = world.replica_sets.iter().filter(|set| {
        let mut owners = set.metadata.owner_references.iter().flatten();
        let ours = owners.any(|owner| Some(&owner.uid) == live.metadata.uid.as_ref());
        let runs = set
            .status
            .as_ref()
            .is_some_and(|status| status.replicas > 0);
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        ours && runs && template.is_some_and(is_behind)
    });
    sets.filter_map(|set| end(&set.metadata))
        .chain(wanted)
        .min()
}

/// Whether the pods of this tenant mount a leaf.
pub fn is_mounted(world: &World, part: &str) -> bool {
    live(world).is_some_and(|live| carried(live, part).is_some())
}
