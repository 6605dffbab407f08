//! What decides whether an object may be stored, once it is decoded:
//! NamespaceLifecycle (contract 7.1), server-owned metadata (R3.34, R3.49),
//! validation, and borrowed rights (rule 8).

mod address;
mod borrowed;
mod imported;
mod namespace;
mod prepare;
mod validate;

pub use address::{match_name, match_namespace, required_version};
pub use borrowed::{borrowed, borrows};
pub use imported::Imported;
pub use namespace::namespace_lifecycle;
pub use prepare::{
    count_generation, prepare_create, prepare_create_again, prepare_delete, prepare_status,
    prepare_update,
};
pub use validate::validate;

/// The part of an object that a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The replicas, through a Scale.
    Replicas,
    /// Where its data is to be, through a MigrationRequest.
    Place,
    /// The status and nothing else.
    Status,
}

impl Part {
    /// Whether the status stays as it is.
    pub fn is_spec(self) -> bool {
        self != Part::Status
    }
}

/// How somebody writes.
#[derive(Clone, Debug)]
pub enum Author {
    /// The whole object or a patch of it: what changes is theirs.
    Updater(String),
    /// A configuration, whose fields are theirs already.
    Applier,
}

/// When something is found in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As a client sent it.
    Sent,
    /// After webhooks have changed it.
    Admitted,
}
