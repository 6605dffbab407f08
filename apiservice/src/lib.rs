//! The API `steward.butlerlabs.dev/v1alpha1` as promised to its clients.
//!
//! This crate is the contract between the API server and everybody else: which
//! kinds there are, their shape, defaults, rules and documents, the names of
//! the objects that a tenant consists of, and the bytes of its certificates. It
//! does no I/O, starts no task and never asks the system for the time: a [`clock::Clock`] is
//! made by whoever runs.
//!
//! The list of kinds is [`RESOURCES`]; discovery, OpenAPI, validation and the
//! routes of the API server are made from its rows.

pub mod admission_plugins;
pub mod assignment;
pub mod bulk;
pub mod clock;
pub mod condition;
pub mod crd;
pub mod discovery;
pub mod duration;
pub mod endpoint;
pub mod field;
pub mod forms;
pub mod legible;
pub mod meta;
pub mod names;
pub mod number;
pub mod openapi;
pub mod pki;
pub mod registration;
pub mod resource;
pub mod rule;
pub mod schema;
pub mod time;
pub mod told;
pub mod v1alpha1;
pub mod version;

pub use resource::{BorrowedRight, Column, OtherRight, Resource, ScalePaths, Scope, Subresource};

/// The API group.
pub const GROUP: &str = "steward.butlerlabs.dev";
/// The one version, served and stored.
pub const VERSION: &str = "v1alpha1";

/// Every kind, and the only list of them.
pub static RESOURCES: [&Resource; 2] = [
    &v1alpha1::tenant_control_plane::RESOURCE,
    &v1alpha1::data_store::RESOURCE,
];

/// The kind of a plural name.
pub fn find(plural: &str) -> Option<&'static Resource> {
    RESOURCES.into_iter().find(|one| one.plural == plural)
}

/// Group and version as objects write them in `apiVersion`.
pub fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}
