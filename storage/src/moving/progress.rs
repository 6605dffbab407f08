//! How long a move may take, how far it is, and what was done.

use std::time::Duration;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The target is claimed, emptied and raised.
    Preparing,
    /// All keys are copied.
    Copying,
    /// What was written meanwhile is.
    Following,
    /// Writes end; what had been written is copied.
    Freezing,
    /// Both sides are compared.
    Verifying,
    /// The target is put in service.
    Switching,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Keys of the source when they were counted, if they were.
    pub total_keys: Option<u64>,
    /// Keys that were written to the target, some of them more than once.
    pub copied_keys: u64,
    /// Bytes of them.
    pub copied_bytes: u64,
    /// How long the tenant has not been able to write.
    pub frozen_for: Option<Duration>,
}

/// How long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long the tenant may not be able to write.
    pub freeze: Duration,
    /// How long all of it may take.
    pub whole: Option<Duration>,
    /// How many revisions the target is ahead at the beginning. `None`: a few
    /// thousand, and more when the source overtakes them. A SQL database is raised for
    /// nothing, etcd by a write for each.
    pub margin: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            freeze: Duration::from_secs(30),
            whole: None,
            margin: None,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// It had been done before: the target serves, and nothing else is known.
    pub done_before: bool,
    /// Keys on both sides.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// SHA-256 over all keys in their order, each with the SHA-256 of its value and whether
    /// it has a lease, in hexadecimal digits.
    pub digest: String,
    /// From the beginning to the freeze.
    pub copying: Duration,
    /// How long the tenant could not write, up to where the target served.
    pub frozen: Duration,
    /// The newest of the source when it was frozen.
    pub source_revision: u64,
    /// What the target was raised to: all its keys have greater ones.
    pub target_revision: u64,
    /// Keys that were found different in the comparison, and mended.
    pub mended: u64,
    /// How often the copy was begun anew.
    pub begun_anew: u32,
}
