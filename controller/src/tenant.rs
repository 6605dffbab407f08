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
pub mod running;
pub mod signer_role;
mod taken;
pub mod turns;
pub mod workload;
pub mod world;

#[cfg(test)]
pub(crate) mod tests;

use pki::expiry::Expiry;
pub use plan::{Outcome, Plan, Step};
#[cfg(test)]
pub(crate) use tests::{removals, testing};
pub use world::World;

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
    if world.is_left_alone() {
        return plan;
    }
    if world.is_paused() {
        if !world.is_leaving() {
            Expiry::of(world).tell(world, &mut plan, true);
        }
        return plan;
    }
    if world.is_leaving() {
        deletion::plan(world, &mut plan);
        return plan.sorted();
    }
    if !world.has_finalizer() {
        plan.push(Step::AddFinalizer);
    }
    network::service::plan(world, &mut plan);
    network::routes::plan(world, &mut plan);
    let expiry = Expiry::of(world);
    let mut store = backing::store::plan(world, entropy, &expiry, &mut plan);
    backing::overrides::plan(world, entropy, &mut store, &mut plan);
    let keys = pki::certificates::plan(world, entropy, &expiry, &mut plan);
    kubeadm::plan(world, keys.exposure.as_ref(), &store, &mut plan);
    signer_role::plan(world, &mut plan);
    workload::konnectivity::plan(world, &mut plan);
    workload::plan(world, &keys, &store, &mut plan);
    expiry.tell(world, &mut plan, false);
    taken::name_all(world, &mut plan);
    plan.sorted()
}
