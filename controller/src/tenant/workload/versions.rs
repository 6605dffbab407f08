//! Which versions of Kubernetes the tenant's pods run.

use apiservice::v1alpha1::Component;
use apiservice::version::KubernetesVersion;
use k8s_openapi::api::core::v1::Pod;

use crate::tenant::World;
use crate::tenant::ran;
use crate::tenant::workload::containers;
use crate::tenant::world::{PathFact, is_ready};

/// The newest version of which a pod has served. An older one beside it, as in an
/// upgrade that goes on, does not count: the newer one has written as well.
pub fn ran(world: &World) -> Option<String> {
    let serving = world.pods.iter().filter(|pod| is_ready(pod));
    let newest = serving.filter_map(|pod| of(world, pod)).max()?;
    Some(as_wanted(world, &newest))
}

/// The version of all pods, if it is one; without pods the one that is wanted.
pub fn only(world: &World) -> Option<String> {
    let wanted = &world.tenant.spec.kubernetes.version;
    let mut versions = world.pods.iter().filter_map(|pod| of(world, pod));
    let Some(first) = versions.next() else {
        return Some(wanted.clone());
    };
    versions
        .all(|other| other == first)
        .then(|| as_wanted(world, &first))
}

/// What is to be remembered from now on, as it stands in the annotation: a version once a
/// pod serves and a probe gets through. Where only the way inside leads there, it is for the
/// report to say when that is enough to be Ready; without a pod that serves it says so for
/// nothing.
pub fn to_note(world: &World) -> String {
    let works = |path: &Option<PathFact>| path.as_ref().is_some_and(|path| path.result.is_ok());
    let probe = &world.probe;
    let answers = works(&probe.endpoint) || works(&probe.service) && world.tenant.was_ready();
    let before = ran::version(world);
    let ran = self::ran(world).filter(|_| answers || before.is_some());
    // What earns Ready is remembered, whatever image a pod says that it has.
    let wanted = || only(world).filter(|_| answers);
    ran.or(before).or_else(wanted).unwrap_or_default()
}

/// In the words of the manifest, which may leave out the "v".
fn as_wanted(world: &World, version: &KubernetesVersion) -> String {
    let wanted = &world.tenant.spec.kubernetes.version;
    if wanted.parse().as_ref() == Ok(version) {
        wanted.clone()
    } else {
        version.to_string()
    }
}

/// The version of a pod that is not about to end, by the tag of its API server's
/// image.
fn of(world: &World, pod: &Pod) -> Option<KubernetesVersion> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let image = containers::api_server_image(pod)?;
    if image == containers::image(world, Component::ApiServer) {
        return world.tenant.spec.kubernetes.version.parse().ok();
    }
    let registry = &world.tenant.spec.control_plane.deployment.registry_settings;
    let suffix = registry.tag_suffix.as_deref().unwrap_or_default();
    // A policy may have pinned it to a digest.
    let image = image.split('@').next().unwrap_or(image);
    let (_, tag) = image.rsplit_once(':')?;
    let tag = tag.strip_suffix(suffix).unwrap_or(tag);
    tag.replace('_', "+").parse().ok()
}
