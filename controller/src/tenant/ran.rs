//! Whether a tenant has ever run, and with which version: the memory on which it depends
//! whether keys may be made anew (rule 19), whether an empty database will do (rule 17), and
//! from which version it may be upgraded.
//!
//! It is kept where the tenant's keys are, as an annotation of each of their Secrets: who can
//! change these has the tenant anyway. The status repeats it for everybody to read and is
//! put right from it, also while the tenant sleeps. Where the annotations differ, none of them
//! outvotes the others ([`agreed`]). Of a tenant of an earlier release, whose
//! Secrets have no such annotation yet, the status is believed once.

use std::collections::BTreeMap;

use apiservice::names;
use apiservice::v1alpha1::TenantControlPlane;
use apiservice::version::KubernetesVersion;
use k8s_openapi::api::core::v1::Secret;

use crate::cluster::caches::Caches;
use crate::cluster::kinds::Inventory;
use crate::cluster::name::NamespacedName;
use crate::tenant::objects::{self, is_controlled_by, is_paused};
use crate::tenant::world::World;

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing: there are no keys, or they are of an earlier release.
    Unknown,
    /// It never ran.
    Never,
    /// The version that ran last.
    Version(String),
}

/// The memory of a tenant, out of the objects that have its names.
pub fn recorded(tenant: &TenantControlPlane, owned: &Inventory) -> Record {
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    let keys = [
        names::ca(name),
        names::service_account(name),
        names::front_proxy_ca(name),
        names::client_ca(name),
    ];
    let secrets = keys.iter().filter_map(|name| owned.get::<Secret>(name));
    let secrets = secrets.filter(|secret| is_controlled_by(&secret.metadata, uid));
    let notes = secrets.filter_map(|secret| {
        let text = objects::annotation(&secret.metadata, names::ANNOTATION_RAN)?;
        let version = match text {
            "" => None,
            text => Some(text.parse::<KubernetesVersion>().ok()?),
        };
        Some((is_paused(&secret.metadata), version.map(|it| (it, text))))
    });
    // A paused one is not written: it has the note of the day on which it was paused.
    let (paused, kept): (Vec<_>, Vec<_>) = notes.partition(|(paused, _)| *paused);
    let notes = if kept.is_empty() { paused } else { kept };
    agreed(notes.into_iter().map(|(_, version)| version))
}

/// What several notes say together (`None`: that it never ran). They say the same, but where
/// one was made anew or changed by somebody, or not all of them are written yet. One that
/// knows that it ran is believed, for nothing could be worse than new keys for it. Of
/// different versions the one counts that most of them have, and of as many the newest.
fn agreed<'a>(notes: impl Iterator<Item = Option<(KubernetesVersion, &'a str)>>) -> Record {
    let mut votes: BTreeMap<KubernetesVersion, (usize, &str)> = BTreeMap::new();
    let mut record = Record::Unknown;
    for note in notes {
        record = Record::Never;
        if let Some((version, text)) = note {
            votes.entry(version).or_insert((0, text)).0 += 1;
        }
    }
    let most = votes.into_iter().max_by_key(|(_, (count, _))| *count);
    most.map_or(record, |(_, (_, text))| Record::Version(text.to_owned()))
}

/// Whether a control plane of this uid has served before.
pub fn was_ready(tenant: &TenantControlPlane, owned: &Inventory) -> bool {
    match recorded(tenant, owned) {
        Record::Unknown => tenant.was_ready(),
        Record::Never => false,
        Record::Version(_) => true,
    }
}

/// The same by what the caches hold of the tenant's Secrets.
pub fn has_run(caches: &Caches, tenant: &TenantControlPlane) -> bool {
    let owned = Inventory::gather(caches, &NamespacedName::of(&tenant.metadata));
    was_ready(tenant, &owned)
}

/// Whether a tenant may have run: its Secrets say so, or its status does, which comes first
/// when it is Ready for the first time. Who is not sure that it never ran must not treat it
/// so.
pub fn may_have_run(caches: &Caches, tenant: &TenantControlPlane) -> bool {
    tenant.was_ready() || has_run(caches, tenant)
}

/// The version that ran last, if any did.
pub fn version(world: &World) -> Option<String> {
    let said = || world.tenant.status.as_ref()?.installed_version();
    match recorded(&world.tenant, &world.owned) {
        Record::Unknown => said()
            .filter(|_| world.tenant.was_ready())
            .map(str::to_owned),
        Record::Never => None,
        Record::Version(version) => Some(version),
    }
}
