//! What the status says after a pass: from the world, the plan and what became
//! of its steps. Pure; writing it is `apply`'s task, and only if it differs.
//!
//! Nothing is rewritten that has not changed: times of last update move with
//! the content, transition times with a condition's status.

pub mod conditions;
pub mod diagnose;
pub mod judgement;
pub mod limits;
pub mod objects;
pub mod parts;
pub mod progress;
pub mod ready;
pub mod routes;
#[cfg(test)]
mod tests;

use apiservice::condition::{self, tenant as condition_type};
use apiservice::v1alpha1::{
    KubernetesResourcesStatus, Phase, TenantControlPlaneStatus, VersionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::tenant::World;
use crate::tenant::backing::moving;
use crate::tenant::network::exposure;
use crate::tenant::plan::{EventStep, Outcome, Plan};
use crate::tenant::ran;
use crate::tenant::workload::versions;
use crate::tenant::world::ForNodes;

/// The status after a pass. `outcomes` has one entry for each step.
pub fn status(world: &World, plan: &Plan, outcomes: &[Outcome]) -> TenantControlPlaneStatus {
    let before = world.tenant.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = world.tenant.metadata.generation;
    let conditions = conditions::all(world, plan, outcomes, &before.conditions);
    let ready = condition::is_true(&conditions, condition_type::READY);
    status.conditions = conditions;
    status.migration = world.migration.clone().or(status.migration);
    let deleting = world.is_leaving();
    if !deleting && !world.is_paused() && !world.is_left_alone() {
        objects::fill(world, plan, outcomes, &mut status);
    }
    let version = version(world, &before, ready);
    if world.is_left_alone() {
        let resources = before.kubernetes_resources.unwrap_or_default();
        status.kubernetes_resources = Some(KubernetesResourcesStatus {
            version: Some(version),
            ..resources
        });
        return status;
    }
    status.kubernetes_resources = Some(KubernetesResourcesStatus {
        version: Some(version),
        ..objects::resources(world, &before)
    });
    if let Ok(exposure) = exposure::of(world) {
        status.control_plane_endpoint = Some(exposure.published.to_string());
    }
    status.dns_service_ips =
        crate::tenant::network::dns::addresses(&world.tenant.spec.network_profile);
    status
}

/// Version and one-word state (features 2.9), with Ready as the probe earned
/// it instead of as the Deployment counts it.
///
/// The version is the one that last ran, for the next upgrade has to fit to what
/// is stored. Before the first Ready there is none: nobody has stored anything.
fn version(world: &World, before: &TenantControlPlaneStatus, ready: bool) -> VersionStatus {
    let installed = ran::version(world);
    if world.is_asleep() {
        return VersionStatus {
            version: installed,
            status: Phase::Sleeping,
        };
    }
    let wanted = &world.tenant.spec.kubernetes.version;
    let version = match (ready, installed) {
        (false, None) => None,
        (true, None) => versions::ran(world).or_else(|| versions::only(world)),
        (_, installed) => versions::ran(world).or(installed),
    };
    let upgrading = version.is_some()
        && (version.as_ref() != Some(wanted) || versions::only(world).as_ref() != Some(wanted));
    let status = match (ready, &version) {
        (_, Some(_)) if moves(world) => Phase::Migrating,
        (true, _) if upgrading => Phase::Upgrading,
        (true, _) if refuses_writes(world, before) => Phase::WriteLimited,
        (true, _) => Phase::Ready,
        (false, None) => Phase::Provisioning,
        (false, Some(_)) => Phase::NotReady,
    };
    VersionStatus { version, status }
}

/// Whether the tenant refuses writes to its users: what does it is there, whatever the
/// spec asks for by now. Until it is known, what was said stays.
fn refuses_writes(world: &World, before: &TenantControlPlaneStatus) -> bool {
    let said = || {
        let resources = before.kubernetes_resources.as_ref();
        let version = resources.and_then(|it| it.version.as_ref());
        version.is_some_and(|it| it.status == Phase::WriteLimited)
    };
    let blocked = world.inside.blocked;
    blocked.map_or_else(said, |blocked| blocked.any())
}

/// Whether the data is on its way to another DataStore.
fn moves(world: &World) -> bool {
    let migration = world.migration.as_ref();
    migration.is_some_and(|it| moving::is_moving(it.phase))
}

/// What the tenant's nodes are to be told; `None` without an address, and where another
/// process may have told them of a way that clients still need. They are sent to a new
/// place when it answers, as that is when the former way goes; at once where nothing inside
/// leads to a former one.
pub fn for_nodes(world: &World) -> Option<ForNodes> {
    let exposure = exposure::of(world).ok()?;
    let (endpoint, agents) = match &world.told {
        _ if exposure::is_proven(world) => (exposure.clients, exposure.agents),
        None => return None,
        Some(told) if world.inside.generation.is_some() && told.endpoint != exposure.clients => {
            let agents = exposure
                .agents
                .map(|new| told.agents.clone().unwrap_or(new));
            (told.endpoint.clone(), agents)
        }
        _ => (exposure.clients, exposure.agents),
    };
    Some(ForNodes {
        endpoint,
        agents,
        version: versions::ran(world),
    })
}

/// One event for each condition that became trouble, and one when the tenant
/// becomes Ready.
pub fn events(
    old: Option<&TenantControlPlaneStatus>,
    new: &TenantControlPlaneStatus,
) -> Vec<EventStep> {
    let empty = Vec::new();
    let old = old.map_or(&empty, |old| &old.conditions);
    let mut events: Vec<EventStep> = Vec::new();
    for condition in &new.conditions {
        let before = condition::get(old, &condition.type_);
        let same = before.is_some_and(|before| {
            before.status == condition.status && before.reason == condition.reason
        });
        let Some(reason) = judgement::known_reason(&condition.reason).filter(|_| !same) else {
            continue;
        };
        // The summary repeats the reason of what it sums up.
        if events.iter().any(|event| event.reason == reason) {
            continue;
        }
        let ready = condition.type_ == condition_type::READY && condition.status == "True";
        if ready || conditions::is_trouble(condition) {
            events.push(EventStep {
                warning: !ready,
                reason,
                message: told(condition),
            });
        }
    }
    events
}

fn told(condition: &Condition) -> String {
    if condition.message.is_empty() {
        format!("{} is {}", condition.type_, condition.status)
    } else {
        condition.message.clone()
    }
}
