//! The management cluster, as the controller works with it.

pub mod cache;
pub mod caches;
pub mod chosen;
pub mod concerned;
pub mod events;
mod follow;
pub mod kept;
pub mod key;
pub mod kinds;
mod looks;
pub mod made;
pub mod managers;
pub mod name;
pub mod overrides;
pub mod pieces;
pub mod routes;
pub mod served;
mod taken;
pub mod watches;
