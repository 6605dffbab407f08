//! What the status says after a pass: from the world, the plan and what became
//! of its steps. Pure; writing it is `apply`'s task, and only if it differs.
//!
//! Nothing is rewritten that has not changed: times of last update move with
//! the content, transition times with a condition's status.

pub mod conditions;
pub mod objects;
pub mod parts;
pub mod ready;
#[cfg(test)]
mod tests;

use apiservice::condition::{self, tenant as condition_type};
use apiservice::v1alpha1::{
    KubernetesResourcesStatus, Phase, TenantControlPlaneStatus, VersionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::tenant::address;
use crate::tenant::plan::{EventStep, Outcome, Plan};
use crate::tenant::{World, is_asleep, is_paused};

/// The status after a pass. `outcomes` has one entry for each step.
pub fn status(world: &World, plan: &Plan, outcomes: &[Outcome]) -> TenantControlPlaneStatus {
    let before = world.tenant.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = world.tenant.metadata.generation;
    let conditions = conditions::all(world, plan, outcomes, &before.conditions);
    let ready = condition::is_true(&conditions, condition_type::READY);
    status.conditions = conditions;
    if world.tenant.metadata.deletion_timestamp.is_none() && !is_paused(world) {
        objects::fill(world, plan, outcomes, &mut status);
    }
    let version = version(world, &before, ready);
    status.kubernetes_resources = Some(KubernetesResourcesStatus {
        version: Some(version),
        ..objects::resources(world, &before)
    });
    if let Ok(address) = address::of(world) {
        status.control_plane_endpoint = Some(address.endpoint());
    }
    status.dns_service_ips = objects::dns_addresses(world);
    status
}

/// The instant of this pass as conditions carry it, in whole seconds.
pub fn now(world: &World) -> Time {
    let second = jiff::Timestamp::from_second(world.now.as_second());
    Time(second.unwrap_or(world.now))
}

/// Version and one-word state (features 2.9), with Ready as the probe earned
/// it instead of as the Deployment counts it.
fn version(world: &World, before: &TenantControlPlaneStatus, ready: bool) -> VersionStatus {
    let installed = before.installed_version().map(str::to_owned);
    let wanted = world.tenant.spec.kubernetes.version.clone();
    let other = installed
        .as_ref()
        .is_some_and(|installed| *installed != wanted);
    let rolled = ready::rolled_out(world);
    if is_asleep(world) {
        return VersionStatus {
            version: Some(wanted),
            status: Phase::Sleeping,
        };
    }
    match (ready, &installed) {
        (true, None) => VersionStatus {
            version: Some(wanted),
            status: Phase::Ready,
        },
        (true, Some(_)) if other && !rolled => VersionStatus {
            version: installed,
            status: Phase::Upgrading,
        },
        (true, Some(_)) => VersionStatus {
            version: Some(wanted),
            status: Phase::Ready,
        },
        (false, None) => VersionStatus {
            version: None,
            status: Phase::Provisioning,
        },
        (false, Some(_)) => VersionStatus {
            version: installed,
            status: Phase::NotReady,
        },
    }
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
        let Some(reason) = conditions::known_reason(&condition.reason).filter(|_| !same) else {
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
