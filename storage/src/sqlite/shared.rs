//! What the writer and everybody else share.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

#[cfg(test)]
use super::faults;
use super::files::LOG;
use super::turns::Turns;
use crate::log::watch::Feed;
use crate::seal::Seals;
use crate::{Identity, Revision};

/// Which values were found to be readable.
pub(super) struct Looked {
    pub(super) upto: Revision,
    /// How often values had been brought to another form before.
    pub(super) rewritten: u64,
}

/// What the writer and everybody else share.
pub(super) struct Shared {
    pub(super) feed: Feed,
    pub(super) turns: Turns,
    pub(super) seals: Seals,
    pub(super) identity: Identity,
    /// A copy of what the database says, for those who cannot wait.
    pub(super) compacted: AtomicU64,
    /// How often values were brought to another form where they stand.
    pub(super) rewritten: AtomicU64,
    pub(super) directory: PathBuf,
    /// Held until the writer is done too; taken out by `close`.
    pub(super) lock: Mutex<Option<File>>,
    /// What the disk is to do next.
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

impl Shared {
    /// Bytes of the write-ahead log; none if that cannot be said.
    pub(super) fn log_size(&self) -> u64 {
        let log = std::fs::metadata(self.directory.join(LOG));
        log.map_or(0, |metadata| metadata.len())
    }
}
