//! The end of a tenant (rule 18). What is in the database has to be taken away
//! first, or to be recorded as still to be taken away. What is in the management
//! cluster would go with its owner; it is removed all the same, because the
//! garbage collector takes its time: half a minute if it does not know our API
//! yet.

use std::sync::Arc;

use apiservice::condition::{reason, tenant as condition};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::chosen;
use crate::cluster::kinds::ObjectKind;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::CredentialsFact;
use crate::tenant::backing::{moving, overrides, store};
use crate::tenant::plan::{EventStep, ObjectKey, Plan, Step, Waiting};
use crate::tenant::world::World;

/// How long names stay claimed for pods that do not end: twice as long as
/// Kubernetes gives them. Those of a node that is gone never end; their user is
/// revoked by then.
pub const PODS_END: SignedDuration = SignedDuration::from_secs(60);

/// The same where the pods cannot be seen: the garbage collector has to find them first.
pub const UNSEEN_END: SignedDuration = SignedDuration::from_secs(120);

/// Plans the deletion, in each of the tenant's places: stop the pods, revoke the user, and once no pod is left
/// drop the data, release the claim, release the finalizer. If the database cannot be
/// reached, or knows nothing of a tenant that has data, the work is recorded on the
/// DataStore and the tenant does not wait for it.
pub fn plan(world: &World, plan: &mut Plan) {
    if !world.has_finalizer() {
        return;
    }
    if !is_orphaning(world) {
        stop(world, plan);
        remove(world, plan);
    }
    if let Some(waiting) = called_off(world) {
        plan.push(Step::Wait(waiting));
        return;
    }
    let beside = overrides::worlds(world);
    let places: Vec<&World> = [world].into_iter().chain(&beside).collect();
    if places.iter().any(|it| is_unknown(it)) {
        return;
    }
    for world in &places {
        put_off(world, plan);
    }
    let asked = places.iter().map(|it| (*it, asked(it)));
    let asked: Vec<_> = asked.filter(|(_, stores)| !stores.is_empty()).collect();
    for (place, _) in &asked {
        plan.push(Step::RevokeAccess(claim::claim(place)));
    }
    if !asked.is_empty() {
        if world.unreached.is_some() {
            for (place, stores) in asked {
                for name in stores {
                    let own = claim::data_store(place).as_ref() == Some(&name);
                    let known = own && store::has_data(place);
                    defer(place, plan, &name, known, UNSEEN);
                }
            }
            plan.push(Step::ReleaseFinalizer);
            return;
        }
        if let Some(waiting) = pods_end(world, plan) {
            plan.push(Step::Wait(waiting));
            return;
        }
    }
    for (place, _) in asked {
        let claim = claim::claim(place);
        plan.push(Step::DropData(claim.clone()));
        if store::has_data(place) {
            plan.push(Step::NoteEmpty(claim.clone()));
        }
        plan.push(Step::ReleaseClaim(claim));
    }
    plan.push(Step::ReleaseFinalizer);
}

/// Whether what there is to clean up in one of its places is not known yet.
fn is_unknown(world: &World) -> bool {
    let unknown = world.elsewhere.iter().any(|it| it.reach.is_none());
    unknown || matches!(place(world), Leftover::NotYetKnown)
}

/// Has recorded what cannot be done now in one of its places.
fn put_off(world: &World, plan: &mut Plan) {
    for other in &world.elsewhere {
        if let Some(Err(why)) = &other.reach {
            defer(world, plan, &other.data_store, false, why);
        }
    }
    match place(world) {
        Leftover::OutOfReach { data_store, why } => {
            defer(world, plan, &data_store, store::has_data(world), &why);
        }
        Leftover::Gone { data_store } => plan.push(Step::Event(EventStep {
            warning: true,
            reason: reason::CLEANUP_DEFERRED,
            message: left_behind(world, &data_store),
        })),
        Leftover::Nothing | Leftover::Here | Leftover::Recorded | Leftover::NotYetKnown => {}
    }
}

fn defer(world: &World, plan: &mut Plan, data_store: &str, known: bool, why: &str) {
    plan.push(Step::DeferDeletion {
        claim: claim::claim(world),
        data_store: data_store.to_owned(),
        known,
        why: why.to_owned(),
    });
}

/// A move of the data is ended first, by whoever makes it: it holds a claim elsewhere.
fn called_off(world: &World) -> Option<Waiting> {
    let migration = world.migration.as_ref();
    let migration = migration.filter(|it| moving::is_under_way(Some(it)))?;
    let target = migration.target.as_deref().unwrap_or_default();
    Some(Waiting {
        condition: condition::DELETION_BLOCKED,
        reason: reason::DELETING,
        message: format!("The move of the data to DataStore {target} is being ended"),
        problem: false,
        finding: None,
    })
}

/// Names of the DataStores in which a deletion looks for what the tenant has:
/// its own, and all that can be asked while nobody knows which has the claim.
pub fn asked(world: &World) -> Vec<String> {
    let own = match place(world) {
        Leftover::Here => claim::data_store(world),
        _ => None,
    };
    let others = world.elsewhere.iter();
    let others = others.filter(|other| other.reach == Some(Ok(())));
    own.into_iter()
        .chain(others.map(|other| other.data_store.clone()))
        .collect()
}

/// Why names stay claimed of a tenant whose pods nobody sees: the garbage collector
/// stops them, once the tenant is gone.
pub const UNSEEN: &str = "its pods have to end, and cannot be seen";

/// What is said of a database without the claim that it has to have.
pub const UNCLAIMED: &str = "it knows nothing of this tenant, which has data in it: it leads to \
                             another database, or to an older state of the right one";

/// Whether it means that something is wrong if no datastore that was asked has a claim:
/// the one where the tenant has its data was asked, and the claim was not released.
pub fn misses_claim(world: &World) -> bool {
    matches!(place(world), Leftover::Here) && store::has_data(world)
}

/// What there is to clean up in the database, and whether it can be done.
enum Leftover {
    /// Nothing was ever made there.
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

/// The DataStore that a deletion would take for gone, with all that is in it, because it is not
/// seen.
pub fn taken_for_gone(world: &World) -> Option<String> {
    world.tenant.metadata.deletion_timestamp.as_ref()?;
    match place(world) {
        Leftover::Gone { data_store } => Some(data_store),
        _ => None,
    }
}

fn place(world: &World) -> Leftover {
    if world.deferred {
        return Leftover::Recorded;
    }
    // Also for a tenant that was refused: a try that ended half-way may have left its claim,
    // and what stands under it. Where there is none, the search costs a few reads.
    let Some(data_store) = claim::data_store(world) else {
        return Leftover::Nothing;
    };
    if world.data_store.is_none() {
        let unseen = world.data_store_unseen.clone();
        return match (world.data_stores_known, has_been_granted(world)) {
            (false, _) => Leftover::NotYetKnown,
            (true, true) => match unseen {
                Some(why) => Leftover::OutOfReach { data_store, why },
                None => Leftover::Gone { data_store },
            },
            (true, false) => Leftover::Nothing,
        };
    }
    match (&world.store.credentials, world.store.cleanup_problem()) {
        (CredentialsFact::Unknown, _) => Leftover::NotYetKnown,
        (CredentialsFact::Missing { what, .. }, _) => Leftover::OutOfReach {
            data_store,
            why: what.clone(),
        },
        (CredentialsFact::Known(_), Some(problem)) => Leftover::OutOfReach {
            data_store,
            why: problem.message.clone(),
        },
        (CredentialsFact::Known(_), _) if world.store.unclaimed && store::has_data(world) => {
            Leftover::OutOfReach {
                data_store,
                why: UNCLAIMED.to_owned(),
            }
        }
        (CredentialsFact::Known(_), _) => Leftover::Here,
    }
}

/// Status is a hint here and no more: what is taken away and released is what
/// the database has claimed for this uid.
fn has_been_granted(world: &World) -> bool {
    claim::held(world).is_some() || chosen::settled(&world.tenant)
}

/// Pods that still run would write into what is being deleted.
fn stop(world: &World, plan: &mut Plan) {
    let live = world.deployment();
    if let Some((key, uid)) =
        live.and_then(|live| ours(world, ObjectKind::Deployment, &live.metadata))
    {
        plan.push(Step::Delete { key, uid });
    }
}

/// Why the names cannot be given back yet: whoever has them next must not meet
/// pods of this tenant, which hold its certificates.
fn pods_end(world: &World, plan: &mut Plan) -> Option<Waiting> {
    if is_orphaning(world) {
        return None;
    }
    let until = world.deleting_since.unwrap_or(world.now);
    let until = until.checked_add(PODS_END).unwrap_or(until);
    if world.now >= until {
        return None;
    }
    // Left to whoever orphaned it, and so are its pods; their user is revoked.
    let deployment = world.deployment();
    if deployment.is_some_and(|live| !world.ours(&live.metadata)) {
        return None;
    }
    // Its pods may not have been made yet.
    let makes = world.deployment().is_some_and(|live| {
        let replicas = live.spec.as_ref().and_then(|spec| spec.replicas);
        world.ours(&live.metadata) && replicas != Some(0)
    });
    let running = running(&world.pods, &world.replica_sets);
    if world.pods_known && !makes && running == 0 {
        return None;
    }
    plan.revisit_at(until);
    let message = match running {
        0 => "The pods of the tenant have to end".to_owned(),
        some => format!("The pods of the tenant have to end: {some} left"),
    };
    Some(Waiting {
        condition: condition::DELETION_BLOCKED,
        reason: reason::DELETING,
        message,
        problem: false,
        finding: None,
    })
}

/// How many pods have not ended, or may still be made by ReplicaSets.
pub fn running(pods: &[Arc<Pod>], sets: &[Arc<ReplicaSet>]) -> usize {
    let ended = |pod: &Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let running = pods.iter().filter(|pod| !ended(pod)).count();
    let made = |set: &ReplicaSet| {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
        usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
    };
    running.max(sets.iter().map(|set| made(set)).sum())
}

/// Everything else that is this tenant's.
fn remove(world: &World, plan: &mut Plan) {
    let all = world.owned.iter();
    let all = all.filter(|held| held.kind() != ObjectKind::Deployment);
    for (key, uid) in all.filter_map(|held| ours(world, held.kind(), held.meta())) {
        plan.push(Step::DeleteBestEffort { key, uid });
    }
}

/// Deleted with `--cascade=orphan`: the garbage collector takes our name off
/// everything, and it stays.
fn is_orphaning(world: &World) -> bool {
    let mut finalizers = world.tenant.metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == "orphan")
}

/// An object to be deleted: this tenant's, and not going already.
fn ours(world: &World, kind: ObjectKind, meta: &ObjectMeta) -> Option<(ObjectKey, String)> {
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
    let claim = claim::claim(world);
    format!(
        "DataStore {data_store} is gone, so schema {} and user {} could not be removed from its \
         database. Remove them there if it still exists.",
        claim.schema, claim.user
    )
}
