//! What can go wrong with the log.

use super::{Entry, Revision};

/// Why the log did not do what it was asked.
///
/// None of these means "the key does not exist": absence is an `Ok` (rule 3).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key is not in the state that the writer expected. `current` is what
    /// was there, `None` if the key did not exist.
    #[error("the key is at {}, which is not what the writer expected", at(current))]
    Conflict {
        /// The version that stands, if any.
        current: Option<Entry>,
    },
    /// The revision lies below the oldest whose state is still known.
    #[error("the revision has been compacted; the oldest known is {oldest}")]
    Compacted {
        /// The smallest revision that can still be asked for.
        oldest: Revision,
    },
    /// The revision has not been reached yet.
    #[error("the revision lies in the future; the latest is {latest}")]
    Future {
        /// The newest revision.
        latest: Revision,
    },
    /// The reader of a watch fell so far behind that the watch was ended.
    #[error("the watch was ended because its reader is {behind} changes behind")]
    Slow {
        /// How many changes the reader had not taken.
        behind: u64,
    },
    /// The key is not one that the log accepts. Keys begin with `/` and hold no
    /// control characters. A defect of the caller.
    #[error("the key {0:?} is not valid: it must begin with '/' and hold no control characters")]
    InvalidKey(String),
    /// Another process has the data directory open.
    #[error("the data directory is in use: {0}")]
    InUse(String),
    /// The database did not do it now, and may later. A write that failed in
    /// this way was not acknowledged: it may or may not have happened.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// What the database holds contradicts itself, or was written by a version
    /// of this program that is newer than this one. Retrying does not help.
    #[error("the database cannot be used: {0}")]
    Corrupt(String),
    /// Values are encrypted with a key that is not known, or are not and should be.
    /// Another configuration helps.
    #[error("values cannot be read: {0}")]
    Sealed(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

fn at(current: &Option<Entry>) -> String {
    match current {
        Some(entry) => format!("revision {}", entry.modified),
        None => "no revision (it does not exist)".to_owned(),
    }
}
