//! The end of a tenant (rule 18). What is in the database has to be taken away
//! first, or to be recorded as still to be taken away. What is in the management
//! cluster would go with its owner; it is removed all the same, because the
//! garbage collector takes its time: half a minute if it does not know our API
//! yet.

use apiservice::condition::reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::has_finalizer;
use super::plan::{EventStep, ObjectKey, Plan, Step};
use super::store;
use super::world::{AccessFact, MaterialFact, World};

/// Plans the deletion: stop the pods, revoke the user, drop the data, release
/// the claim, release the finalizer. If the database cannot be reached, the
/// work is recorded on the DataStore and the tenant does not wait for it.
pub fn plan(world: &World, plan: &mut Plan) {
    if !has_finalizer(world) {
        return;
    }
    if !is_orphaning(world) {
        stop(world, plan);
        remove(world, plan);
    }
    match place(world) {
        Place::Nothing => {}
        Place::Here => {
            let claim = store::claim(&world.tenant);
            plan.push(Step::RevokeAccess(claim.clone()));
            plan.push(Step::DropData(claim.clone()));
            plan.push(Step::ReleaseClaim(claim));
        }
        Place::Recorded => {}
        Place::OutOfReach { data_store, why } => {
            plan.push(Step::DeferDeletion {
                claim: store::claim(&world.tenant),
                data_store,
                why,
            });
        }
        Place::Gone { data_store } => plan.push(Step::Event(EventStep {
            warning: true,
            reason: reason::CLEANUP_DEFERRED,
            message: left_behind(world, &data_store),
        })),
        Place::NotYetKnown => return,
    }
    plan.push(Step::ReleaseFinalizer);
}

/// What there is to clean up in the database, and whether it can be done.
enum Place {
    /// Nothing was ever made there, or it is somebody else's.
    Nothing,
    Here,
    /// Already on the DataStore's list.
    Recorded,
    OutOfReach {
        data_store: String,
        why: String,
    },
    /// The DataStore is gone, so nobody knows how to reach the database.
    Gone {
        data_store: String,
    },
    /// Caches are being filled.
    NotYetKnown,
}

fn place(world: &World) -> Place {
    if world.deferred {
        return Place::Recorded;
    }
    if matches!(
        world.store.access,
        Some(AccessFact::Taken { .. } | AccessFact::Refused(_))
    ) && !store::settled(&world.tenant)
    {
        return Place::Nothing;
    }
    let Some(data_store) = store::choose(&world.tenant, &world.settings) else {
        return Place::Nothing;
    };
    if world.data_store.is_none() {
        return match (world.data_stores_known, store::settled(&world.tenant)) {
            (false, _) => Place::NotYetKnown,
            (true, true) => Place::Gone { data_store },
            (true, false) => Place::Nothing,
        };
    }
    match (&world.store.material, &world.store.health) {
        (MaterialFact::Unknown, _) => Place::NotYetKnown,
        (MaterialFact::Missing { what, .. }, _) => Place::OutOfReach {
            data_store,
            why: what.clone(),
        },
        (MaterialFact::Known(_), Some(Err(problem))) => Place::OutOfReach {
            data_store,
            why: problem.message.clone(),
        },
        (MaterialFact::Known(_), _) => Place::Here,
    }
}

/// Pods that still run would write into what is being deleted.
fn stop(world: &World, plan: &mut Plan) {
    let live = world.owned.deployment.as_deref();
    if let Some((key, uid)) = live.and_then(|live| ours(world, "Deployment", &live.metadata)) {
        plan.push(Step::Delete { key, uid });
    }
}

/// Everything else that is this tenant's.
fn remove(world: &World, plan: &mut Plan) {
    let owned = &world.owned;
    let secrets = owned.secrets.values().map(|it| ("Secret", &it.metadata));
    let maps = owned.config_maps.values();
    let all = secrets
        .chain(maps.map(|it| ("ConfigMap", &it.metadata)))
        .chain(owned.service.iter().map(|it| ("Service", &it.metadata)))
        .chain(
            owned
                .role_binding
                .iter()
                .map(|it| ("RoleBinding", &it.metadata)),
        )
        .chain(owned.role.iter().map(|it| ("Role", &it.metadata)));
    for (key, uid) in all.filter_map(|(kind, meta)| ours(world, kind, meta)) {
        plan.push(Step::Remove { key, uid });
    }
}

/// Deleted with `--cascade=orphan`: the garbage collector takes our name off
/// everything, and it stays.
fn is_orphaning(world: &World) -> bool {
    let mut finalizers = world.tenant.metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == "orphan")
}

/// An object to be deleted: this tenant's, and not going already.
fn ours(world: &World, kind: &'static str, meta: &ObjectMeta) -> Option<(ObjectKey, String)> {
    if !world.ours(meta) || meta.deletion_timestamp.is_some() {
        return None;
    }
    let key = ObjectKey {
        kind,
        namespace: world.namespace().to_owned(),
        name: meta.name.clone()?,
    };
    Some((key, meta.uid.clone()?))
}

fn left_behind(world: &World, data_store: &str) -> String {
    let claim = store::claim(&world.tenant);
    format!(
        "DataStore {data_store} is gone, so schema {} and user {} could not be removed from its \
         database. Remove them there if it still exists.",
        claim.schema, claim.user
    )
}
