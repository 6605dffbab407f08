//! The controller of Steward: keeps every tenant control plane as its
//! manifest says, as a client of Steward's API like any other.
//!
//! The way of a tenant is `reconcile.rs`: observe (no I/O), plan (pure),
//! apply (the only writer), report (pure), write the status. What changes
//! slowly or may hang comes from observers that `supervisor.rs` owns.

pub mod apply;
mod apply_objects;
mod apply_store;
mod apply_tenant;
pub mod args;
pub mod caches;
pub mod clock;
pub mod cluster;
pub mod contest;
pub mod context;
pub mod data_store;
pub mod events;
pub mod facts;
pub mod fleet;
pub mod health;
pub mod lease;
pub mod material;
pub mod metrics;
pub mod observe;
pub mod observers;
pub mod queue;
pub mod reconcile;
pub mod report;
pub mod requeue;
pub mod run;
pub mod setup;
pub mod shares;
pub mod stores;
pub mod supervisor;
pub mod tenant;
pub mod tenant_client;
pub mod trouble;
pub mod watches;
pub mod writes;
