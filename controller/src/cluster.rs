//! The management cluster, as the controller works with it.

pub mod cache;
pub mod caches;
pub mod chosen;
pub mod concerned;
pub mod events;
pub mod kept;
pub mod key;
pub mod kinds;
mod looks;
pub mod made;
pub mod managers;
pub mod name;
pub mod routes;
pub mod served;
mod taken;
pub mod watches;
