//! One tenant control plane: what the world looks like, and the plan that
//! brings it closer to the manifest. Everything in here is synchronous and
//! free of I/O, clocks and randomness other than those passed in.

pub mod backing;
pub mod deletion;
pub mod describe;
pub mod drift;
pub mod kubeadm;
pub mod network;
pub mod objects;
pub mod pki;
pub mod plan;
pub mod ran;
pub mod rolls;
pub mod signer_role;
pub mod workload;
pub mod world;

#[cfg(test)]
pub(crate) mod tests;

use pki::expiry::Expiry;
pub use plan::{Outcome, Plan, Step};
#[cfg(test)]
pub(crate) use tests::{removals, testing};
pub use world::World;

use apiservice::names;
use apiservice::pki::Entropy;

/// Plans one pass for one tenant.
///
/// # Flow
/// Out of reach, or too heavy: nothing but a deletion. Paused: nothing but what ends meanwhile. Being deleted: [`deletion::plan`]. Else the finalizer, the
/// Service, authorities, and the place in the datastore, none of which waits
/// for another; then, as soon as there is an address, the leaves and
/// kubeconfigs; then, as soon as all Secrets and the grant are planned or
/// there, the Deployment. What is kept inside the tenant has a plan of its own.
///
/// # Guarantees
/// The same world gives the same steps. A world in which everything is as
/// wanted gives a plan without writes.
pub fn plan(world: &World, entropy: &Entropy) -> Plan {
    let mut plan = Plan::default();
    if is_left_alone(world) {
        return plan;
    }
    if is_paused(world) {
        if world.tenant.metadata.deletion_timestamp.is_none() {
            Expiry::of(world).tell(world, &mut plan, true);
        }
        return plan;
    }
    if world.tenant.metadata.deletion_timestamp.is_some() {
        deletion::plan(world, &mut plan);
        return plan.sorted();
    }
    if !has_finalizer(world) {
        plan.push(Step::AddFinalizer);
    }
    network::service::plan(world, &mut plan);
    network::routes::plan(world, &mut plan);
    let expiry = Expiry::of(world);
    let store = backing::store::plan(world, entropy, &expiry, &mut plan);
    let keys = pki::certificates::plan(world, entropy, &expiry, &mut plan);
    kubeadm::plan(world, keys.exposure.as_ref(), &store, &mut plan);
    signer_role::plan(world, &mut plan);
    workload::konnectivity::plan(world, &mut plan);
    workload::plan(world, &keys, &store, &mut plan);
    expiry.tell(world, &mut plan, false);
    objects::name_the_taken(world, &mut plan);
    plan.sorted()
}

/// The pause annotation stops everything, deletion included (features 2.13).
pub fn is_paused(world: &World) -> bool {
    objects::is_paused(&world.tenant.metadata)
}

/// Whether nothing is done for the tenant, nor anything said of its parts, because they
/// cannot be seen, or because not all of its spec is held. Its deletion needs nothing but its
/// place in the datastore.
pub fn is_left_alone(world: &World) -> bool {
    (world.unreached.is_some() || world.tenant.spec.is_cut)
        && world.tenant.metadata.deletion_timestamp.is_none()
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
