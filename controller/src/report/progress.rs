//! Whether what serves is what the spec asks for. Ready alone does not tell: while
//! a change rolls out, the pods of before serve, and well.

use std::sync::Arc;

use apiservice::condition::{Status, get, is_true, reason, tenant as kind};
use apiservice::v1alpha1::Component;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use crate::report::diagnose;
use crate::report::judgement::Judgement;
use crate::tenant::World;
use crate::tenant::backing::moving;
use crate::tenant::plan::{Object, Outcome, Plan, Step, Waiting};
use crate::tenant::turns::Roll;
use crate::tenant::workload::containers;
use crate::tenant::world::{PathFact, ProbeFacts, ready_condition};

/// True until what serves is the current generation, False from then on: a replica
/// that goes missing later is no progress. `summary` is Ready of this pass, if it
/// says something new.
pub fn progressing(
    world: &World,
    plan: &Plan,
    outcomes: &[Outcome],
    summary: Option<&Judgement>,
    before: &[Condition],
) -> Judgement {
    let generation = world.tenant.metadata.generation;
    let reached = || Judgement::no(reason::AS_EXPECTED, "");
    let said = get(before, kind::PROGRESSING);
    if let Some(waiting) = turn(plan) {
        return Judgement::yes(waiting.reason, waiting.message.clone());
    }
    if let Some((reason, message)) = moving::awaited(world) {
        return Judgement::yes(reason, message);
    }
    // A roll that the spec did not ask for is one as well, also where its status was
    // never written: what was said before it began is not about it.
    let rolled = world.deployment().and_then(Roll::of);
    let carried = |it: &Condition| {
        let since = rolled.as_ref().is_none_or(|roll| is_said_since(it, roll));
        it.status == "False" && it.observed_generation == generation && since
    };
    if said.is_some_and(carried) && plan.roll.is_none() && !plan.rolls {
        return reached();
    }
    // The release before did not say so, and wrote Ready for what it had carried out.
    let carried_out =
        |ready: &Condition| ready.status == "True" && ready.observed_generation == generation;
    if said.is_none() && get(before, kind::READY).is_some_and(carried_out) {
        return reached();
    }
    if world.is_paused() {
        let message = "What the spec asks for since is not acted upon while the tenant is paused";
        return Judgement::yes(reason::PAUSED, message);
    }
    let ready = match summary {
        Some(summary) => summary.status == Status::True,
        None => is_true(before, kind::READY),
    };
    let well = world.is_asleep() || ready && is_probed(world);
    let waits = if !is_applied(plan, outcomes) {
        "The objects of the management cluster are not as the spec asks yet".to_owned()
    } else if !is_rolled_out(world) {
        // What holds the new pods up shows only here while those of before serve.
        let why = diagnose::of_pods(world).map(|trouble| format!(": {}", trouble.message));
        format!(
            "The pods are not all as the spec asks yet{}",
            why.unwrap_or_default()
        )
    } else if !well {
        "The pods are as the spec asks; the probe has not found them well yet".to_owned()
    } else {
        return reached();
    };
    let reason = if world.was_ready() {
        reason::ROLLING_OUT
    } else {
        reason::PROVISIONING
    };
    Judgement::yes(reason, waits)
}

/// What a roll that the spec did not ask for waits for.
fn turn(plan: &Plan) -> Option<&Waiting> {
    plan.steps.iter().find_map(|step| match step {
        Step::Wait(waiting) if waiting.condition == kind::PROGRESSING => Some(waiting),
        _ => None,
    })
}

/// The generation that Ready is about: while a change rolls out, an older one
/// serves. Once this one did, it does: what rolls then is not the spec's change.
pub fn ready_generation(
    world: &World,
    progressing: &Judgement,
    before: Option<&Condition>,
) -> Option<i64> {
    let generation = world.tenant.metadata.generation;
    if progressing.status != Status::True {
        return generation;
    }
    let older = generation.map(|generation| generation - 1);
    let said = before.filter(|before| before.status == "True");
    if said.is_some_and(|said| said.observed_generation == generation) {
        return generation;
    }
    said.and_then(|before| before.observed_generation)
        .min(older)
        .or(older)
}

/// Nothing is left to be written to the management cluster.
fn is_applied(plan: &Plan, outcomes: &[Outcome]) -> bool {
    let mut steps = plan.steps.iter().zip(outcomes);
    plan.compared
        && steps.all(|(step, outcome)| {
            let left = matches!(outcome, Outcome::Failed { .. } | Outcome::NotReached);
            let rolls = match step {
                Step::Create(object) | Step::Apply(object) => {
                    matches!(object.as_ref(), Object::Deployment(_))
                }
                Step::Wait(waiting) => waiting.condition == kind::OBJECTS_OWNED,
                _ => false,
            };
            !left && !rolls
        })
}

/// A first start does not wait for the kubelet to find ready what the probe has
/// found well: there are no pods of before.
fn is_rolled_out(world: &World) -> bool {
    rolled_out(world) || !world.was_ready() && only_new_pods(world)
}

/// The Deployment runs what the manifest says, and nothing older.
pub fn rolled_out(world: &World) -> bool {
    rolled(world).is_some_and(|(wanted, status)| {
        status.replicas.unwrap_or(0) == wanted && status.available_replicas.unwrap_or(0) == wanted
    })
}

/// All pods are of the Deployment as the manifest says, ready or not.
fn only_new_pods(world: &World) -> bool {
    rolled(world).is_some_and(|(wanted, status)| status.replicas.unwrap_or(0) == wanted)
}

/// How many pods are wanted, and the Deployment's status, if all of them have been
/// made as the manifest says.
fn rolled(world: &World) -> Option<(i32, &DeploymentStatus)> {
    let live = world.deployment();
    let live = live.filter(|live| world.ours(&live.metadata))?;
    let (spec, status) = (live.spec.as_ref()?, live.status.as_ref()?);
    let image = containers::image(world, Component::ApiServer);
    let pod = spec.template.spec.as_ref()?;
    let mut containers = pod.containers.iter();
    let current = containers.any(|it| it.image.as_deref() == Some(image.as_str()));
    let wanted = spec.replicas.unwrap_or(1);
    let made = current
        && status.observed_generation >= live.metadata.generation
        && status.updated_replicas.unwrap_or(0) == wanted;
    made.then_some((wanted, status))
}

/// Whether all pods that are wanted use the DataStore where the data is, and were found well.
pub fn has_switched(world: &World) -> bool {
    if world.is_asleep() {
        return true;
    }
    let place = moving::given(world).zip(world.store.held.as_ref());
    let given = place.is_some_and(|(given, held)| given == held.data_store);
    given && rolled_out(world) && is_probed(world)
}

/// The last probe that went well began after the last pod was ready.
fn is_probed(world: &World) -> bool {
    let Some(live) = world.deployment() else {
        return false;
    };
    let pods = || made_by(live, &world.replica_sets, world.pods.clone());
    !world.was_ready() || last_well(&world.probe) >= last_ready(&pods())
}

/// The second in which the last probe began that went well.
fn last_well(probe: &ProbeFacts) -> Option<i64> {
    let well = |path: &Option<PathFact>| {
        let path = path.as_ref().filter(|path| path.result.is_ok());
        path.map(|path| path.started.as_second())
    };
    well(&probe.endpoint).max(well(&probe.service))
}

/// The pods that the ReplicaSets of a Deployment have made: anybody can make one with its
/// labels.
pub fn made_by(
    live: &Deployment,
    sets: &[Arc<ReplicaSet>],
    mut pods: Vec<Arc<Pod>>,
) -> Vec<Arc<Pod>> {
    let controls = |meta: &ObjectMeta, uid: Option<&String>| {
        let mut owners = meta.owner_references.iter().flatten();
        owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == uid)
    };
    let sets = sets.iter().map(|set| &set.metadata);
    let sets: Vec<&ObjectMeta> = sets
        .filter(|set| controls(set, live.metadata.uid.as_ref()))
        .collect();
    pods.retain(|pod| {
        let mut sets = sets.iter();
        sets.any(|set| controls(&pod.metadata, set.uid.as_ref()))
    });
    pods
}

/// The second in which the last of these pods became ready, of those that are.
fn last_ready(pods: &[Arc<Pod>]) -> Option<i64> {
    let ready = pods.iter().filter_map(|pod| ready_condition(pod));
    ready
        .filter(|ready| ready.status == "True")
        .filter_map(|ready| ready.last_transition_time.as_ref())
        .map(|at| at.0.as_second())
        .max()
}

/// Whether a condition turned to what it is after this roll began. Both are in whole
/// seconds.
fn is_said_since(said: &Condition, roll: &Roll) -> bool {
    said.last_transition_time.0.as_second() > roll.at.as_second()
}

/// Whether pods were found well after they were rolled. A status may be from before the
/// roll: writing it failed, or the controller ended between the two writes. So it is the
/// probe that counts, if it began after the roll and after the last pod was ready. Where
/// nobody has probed yet, as after a start of the controller, the status counts that
/// turned after the roll: a probe was behind that.
pub fn is_found_well(
    roll: &Roll,
    probe: &ProbeFacts,
    pods: &[Arc<Pod>],
    conditions: &[Condition],
) -> bool {
    if probe.endpoint.is_none() && probe.service.is_none() {
        let said = get(conditions, kind::PROGRESSING);
        return said.is_some_and(|said| said.status == "False" && is_said_since(said, roll));
    }
    let probed = last_well(probe);
    probed > Some(roll.at.as_second()) && probed >= last_ready(pods)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn meta(uid: &str, owner: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.to_owned()),
            owner_references: Some(vec![OwnerReference {
                uid: owner.to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        }
    }

    /// A pod that flips its readiness would keep a tenant from ever being done.
    #[test]
    fn pods_that_only_carry_the_labels_tell_nothing() {
        let live = Deployment {
            metadata: meta("d", "t"),
            ..Deployment::default()
        };
        let set = |uid: &str, owner: &str| {
            Arc::new(ReplicaSet {
                metadata: meta(uid, owner),
                ..ReplicaSet::default()
            })
        };
        let pod = |uid: &str, owner: &str| {
            Arc::new(Pod {
                metadata: meta(uid, owner),
                ..Pod::default()
            })
        };
        let sets = [set("s", "d"), set("other", "x")];
        let pods = vec![pod("a", "s"), pod("b", "other"), pod("c", "d")];
        let made = made_by(&live, &sets, pods);
        let made: Vec<_> = made
            .iter()
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        assert_eq!(made, ["a"]);
    }
}
