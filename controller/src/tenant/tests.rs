//! Tenants, pass by pass, in a world that is in memory.

mod exposures;
mod large;
mod memory;
mod moves;
mod overrides;
pub(crate) mod removals;
mod renewals;
mod repairs;
mod rollouts;
mod scenarios;
pub(crate) mod testing;
mod tunnel;
