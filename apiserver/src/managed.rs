//! Field ownership and server-side apply (contract 5): who owns which field of an object,
//! and what an applied configuration makes of it.
//!
//! # Layers
//! ```text
//! value      values: order, equality, texts
//! path, set  paths to fields, and sets of them
//! fields     FieldsV1, the JSON form of a set
//! schema     which types are merged how, from OpenAPI
//! typed      judge, compare, merge, prune values of these types
//! managers   metadata.managedFields
//! written    the managers of an object, as they stand in it
//! last_applied  what kubectl leaves there without server-side apply
//! updater    how ownership moves
//! tracker    the same for one endpoint of a kind, with names, times and annotations
//! scale      the managers of replicas, seen through a Scale
//! ```
//!
//! # Guarantees
//! All of it is pure: neither I/O nor a clock. It takes time in proportion to what it is
//! given, but for sorting. What it makes of an object and of its managers is what Kubernetes
//! makes of them; `tests/tests/managed_fields` compares both.

pub mod conflict;
pub mod fields;
pub mod last_applied;
pub mod managers;
pub mod path;
mod plain;
pub mod scale;
pub mod schema;
pub mod set;
pub mod tracker;
pub mod typed;
pub mod updater;
pub mod value;
pub mod written;

pub use self::conflict::Conflicts;
pub use self::tracker::{Inapplicable, Tracker};
