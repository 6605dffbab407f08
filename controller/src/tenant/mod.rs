//! One tenant control plane: what the world looks like, and the plan that
//! brings it closer to the manifest. Everything in here is synchronous and
//! free of I/O, clocks and randomness other than those passed in.

pub mod access;
pub mod addons;
pub mod address;
pub mod authorities;
pub mod certificates;
pub mod deletion;
pub mod describe;
pub mod drift;
pub mod flags;
pub mod kubeadm;
pub mod kubeconfig;
pub mod objects;
pub mod plan;
pub mod pods;
pub mod probes;
pub mod service;
pub mod store;
pub mod volumes;
pub mod workload;
pub mod world;

#[cfg(test)]
mod renewals;
#[cfg(test)]
mod repairs;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
pub(crate) mod testing;

pub use plan::{Outcome, Plan, Step};
pub use world::World;

use apiservice::names;
use apiservice::pki::Entropy;

/// Plans one pass for one tenant.
///
/// # Flow
/// Paused: nothing. Being deleted: [`deletion::plan`]. Else the finalizer, the
/// Service, authorities, and the place in the datastore, none of which waits
/// for another; then, as soon as there is an address, the leaves and
/// kubeconfigs; then, as soon as all Secrets and the grant are planned or
/// there, the Deployment; then the bindings inside the tenant.
///
/// # Guarantees
/// The same world gives the same steps. A world in which everything is as
/// wanted gives a plan without writes.
pub fn plan(world: &World, entropy: &Entropy) -> Plan {
    let mut plan = Plan::default();
    if is_paused(world) {
        return plan;
    }
    if world.tenant.metadata.deletion_timestamp.is_some() {
        deletion::plan(world, &mut plan);
        return plan.sorted();
    }
    if !has_finalizer(world) {
        plan.push(Step::AddFinalizer);
    }
    service::plan(world, &mut plan);
    let store = store::plan(world, entropy, &mut plan);
    let keys = certificates::plan(world, entropy, &mut plan);
    kubeadm::plan(world, keys.address.as_ref(), &store, &mut plan);
    access::plan(world, &mut plan);
    workload::plan(world, &keys, &store, &mut plan);
    addons::plan(world, &mut plan);
    plan.sorted()
}

/// The pause annotation stops everything, deletion included (features 2.13).
pub fn is_paused(world: &World) -> bool {
    world
        .tenant
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(names::ANNOTATION_PAUSED))
}

/// Whether our finalizer is on the tenant.
pub fn has_finalizer(world: &World) -> bool {
    let mut finalizers = world.tenant.metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == names::FINALIZER)
}

/// Zero replicas, as asked.
pub fn is_asleep(world: &World) -> bool {
    world.tenant.spec.control_plane.deployment.replicas == 0
}
