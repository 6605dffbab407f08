//! The controller of Steward: keeps every tenant control plane as its
//! manifest says, as a client of Steward's API like any other.
//!
//! The way of a tenant is `reconcile.rs`: observe (no I/O), plan (pure),
//! apply (the only writer), report (pure), write the status. What changes
//! slowly or may hang comes from observers that `supervisor.rs` owns.

pub mod apply;
pub mod args;
pub mod assignments;
pub mod cluster;
pub mod context;
pub mod datastores;
pub mod facts;
pub mod fleet;
pub mod import;
pub mod inside;
pub mod migrations;
pub mod observe;
pub mod observers;
pub mod process;
pub mod reconcile;
pub mod report;
pub mod run;
pub mod scrape;
pub mod sizes;
pub mod supervisor;
pub mod tenant;
pub mod write_history;
