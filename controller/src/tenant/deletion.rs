//! The end of a tenant (rule 18). What is in the management cluster goes with its
//! owner; what is in the database has to be taken away first, or to be
//! recorded as still to be taken away.

use apiservice::condition::reason;

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
    stop(world, plan);
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
            why: format!("{what} is missing"),
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
    let live = world
        .owned
        .deployment
        .as_deref()
        .filter(|live| world.ours(&live.metadata));
    let Some(live) = live.filter(|live| live.metadata.deletion_timestamp.is_none()) else {
        return;
    };
    if let (Some(name), Some(uid)) = (&live.metadata.name, &live.metadata.uid) {
        plan.push(Step::Delete {
            key: ObjectKey {
                kind: "Deployment",
                namespace: world.namespace().to_owned(),
                name: name.clone(),
            },
            uid: uid.clone(),
        });
    }
}

fn left_behind(world: &World, data_store: &str) -> String {
    let claim = store::claim(&world.tenant);
    format!(
        "DataStore {data_store} is gone, so schema {} and user {} could not be removed from its \
         database. Remove them there if it still exists.",
        claim.schema, claim.user
    )
}
