//! The management cluster, as the controller works with it.

pub mod caches;
pub mod events;
mod kept;
pub mod kinds;
pub mod managers;
pub mod routes;
pub mod served;
pub mod watches;
