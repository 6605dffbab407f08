//! A tenant's data on its way to another DataStore, as a plan sees it. The move itself is
//! made by `migrations`; here is what it means for everything else.

use apiservice::condition::reason;
use apiservice::names;
use apiservice::v1alpha1::{MigrationPhase as Phase, MigrationStatus, TenantControlPlane};
use k8s_openapi::api::apps::v1::Deployment;

use crate::tenant::backing::claim;
use crate::tenant::{World, objects};

/// The DataStore to which the tenant's data is to be moved from where it is (`from`).
/// None while the tenant is paused or being deleted, or not all of its spec is held: then
/// nothing is begun, and what was begun is called off.
pub fn target(tenant: &TenantControlPlane, from: &str) -> Option<String> {
    let named = tenant.spec.data_store.clone();
    let named = named.filter(|name| !name.is_empty() && name != from)?;
    let stays =
        tenant.metadata.deletion_timestamp.is_some() || objects::is_paused(&tenant.metadata);
    let stays = stays || tenant.spec.is_cut;
    (!stays).then_some(named)
}

/// Whether somebody is at work on a move, or has left one half done.
pub fn is_under_way(migration: Option<&MigrationStatus>) -> bool {
    migration.is_some_and(|it| !it.phase.has_ended())
}

/// Whether nobody may write the data now, so that the copy can be completed. Rights and
/// pods are left as they are meanwhile.
pub fn is_frozen(world: &World) -> bool {
    phase(world).is_some_and(stops_writes)
}

/// Whether nobody may write the data at this phase of a move.
pub fn stops_writes(phase: Phase) -> bool {
    matches!(phase, Phase::Freezing | Phase::Verifying)
}

/// Whether the data is in its new place, and pods are still to be given that.
pub fn is_switching(world: &World) -> bool {
    phase(world) == Some(Phase::Switching)
}

/// The DataStore that new pods of the tenant are given, as its Deployment says.
pub fn given(world: &World) -> Option<&str> {
    given_by(world.deployment()?)
}

/// The DataStore that new pods of a Deployment are given.
pub fn given_by(of: &Deployment) -> Option<&str> {
    let label = || {
        let template = of.spec.as_ref()?.template.metadata.as_ref()?;
        let labels = template.labels.as_ref()?;
        labels.get(names::LABEL_POD_DATASTORE).map(String::as_str)
    };
    let noted = || objects::annotation(&of.metadata, names::ANNOTATION_DATA_STORE_NAME);
    label().or_else(noted)
}

/// Whether a label holds the name of a DataStore, which has up to 253 characters. A longer one
/// is noted on the Deployment itself: what is written into the template rolls its pods.
pub fn fits_a_label(data_store: &str) -> bool {
    data_store.len() <= 63
}

/// Whether the tenant works as before, or nearly so, with its data being moved.
pub fn is_moving(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Preparing
            | Phase::Copying
            | Phase::Following
            | Phase::Freezing
            | Phase::Verifying
            | Phase::Switching
    )
}

fn phase(world: &World) -> Option<Phase> {
    world.migration.as_ref().map(|it| it.phase)
}

/// Why the spec is not what serves yet: its DataStore is another than the one in use. A
/// reason and a sentence.
pub fn awaited(world: &World) -> Option<(&'static str, String)> {
    let from = &claim::held(world)?.data_store;
    if let Some(migration) = world.migration.as_ref().filter(|it| is_moving(it.phase)) {
        return Some((reason::MIGRATING, told(migration)));
    }
    let target = target(&world.tenant, from)?;
    let known = world.migration.as_ref();
    let known = known.filter(|it| it.target.as_ref() == Some(&target) && !it.phase.has_ended());
    Some(match known {
        Some(it) if it.phase == Phase::Failed => (reason::MIGRATION_FAILED, told(it)),
        Some(it) => (reason::MIGRATING, told(it)),
        None => (
            reason::MIGRATING,
            format!("The data is to be moved from DataStore {from} to {target}"),
        ),
    })
}

/// A sentence about a move.
pub fn told(migration: &MigrationStatus) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let (source, target) = (name(&migration.source), name(&migration.target));
    let way = format!("from DataStore {source} to {target}");
    let more = migration.message.as_ref();
    let more = more.map_or_else(String::new, |more| format!(": {more}"));
    let copied = migration.copied_keys.unwrap_or(0);
    let total = migration.total_keys;
    let of = total.map_or_else(String::new, |total| format!(" of {total}"));
    match migration.phase {
        Phase::Pending | Phase::Unknown => format!("The data is to be moved {way}{more}"),
        Phase::Preparing => format!("A place is made for the data, which is moved {way}"),
        Phase::Copying => format!("The data is copied {way}: {copied}{of} objects"),
        Phase::Following => {
            format!("What was written meanwhile is copied {way}: {copied} objects so far")
        }
        Phase::Freezing | Phase::Switching if migration.message.is_some() => {
            migration.message.clone().unwrap_or_default()
        }
        Phase::Freezing => {
            format!("Writes are refused while the last objects are copied {way}; reads go on")
        }
        Phase::Verifying => {
            format!("Writes are refused while both copies are compared, {way}; reads go on")
        }
        Phase::Switching => format!(
            "All data is in DataStore {target}; pods that use it are started. Those of before \
             can only read."
        ),
        Phase::Completed => format!("The data was moved {way}{more}"),
        Phase::Failed => {
            format!("Moving the data {way} failed, and the tenant is served from {source}{more}")
        }
        Phase::Aborted => format!(
            "Moving the data {way} was called off, and the tenant is served from {source}{more}"
        ),
    }
}
