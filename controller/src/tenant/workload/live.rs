//! What the Deployment that is there says of the pods.

use crate::tenant::workload::arguments;
use crate::tenant::world::World;

/// Whether all pods listen on the port that is wanted.
pub fn listens_at_port(world: &World) -> bool {
    let Some(live) = world.deployment().filter(|live| world.ours(&live.metadata)) else {
        return true;
    };
    let wanted = world.tenant.spec.network_profile.port.to_string();
    arguments::api_server_argument(live, "secure-port") == Some(wanted.as_str())
        && is_rolled_out(world)
}

/// Whether all pods are of the Deployment as it is now.
pub fn is_rolled_out(world: &World) -> bool {
    let Some(live) = world.deployment().filter(|live| world.ours(&live.metadata)) else {
        return true;
    };
    let status = live.status.clone().unwrap_or_default();
    status.observed_generation >= live.metadata.generation
        && status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0)
}
