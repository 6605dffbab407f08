//! What this process knows of its own writes.
//!
//! While the database does not answer, there is one thing that memory can say
//! for certain: that a collection is empty. It holds if this process is the
//! only writer (rule 23), the cache has every acknowledged write, and no write
//! is under way or ended without an answer. A namespace without tenants can
//! then be deleted although the database is gone.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counts writes; see the module.
#[derive(Debug, Default)]
pub struct OwnWrites {
    under_way: AtomicU64,
    /// The newest revision that a write was acknowledged with.
    acknowledged: AtomicU64,
    /// Writes whose outcome is unknown.
    doubts: AtomicU64,
    /// How many of them a later look at the database has settled.
    settled: AtomicU64,
}

/// A write under way. Dropped without [`Writing::known`] it is a doubt.
#[derive(Debug)]
pub struct Writing<'a> {
    ledger: &'a OwnWrites,
    known: bool,
}

impl OwnWrites {
    /// Notes that a write begins.
    pub fn begin(&self) -> Writing<'_> {
        self.under_way.fetch_add(1, SeqCst);
        Writing {
            ledger: self,
            known: false,
        }
    }

    /// The doubts there are, to be given to [`OwnWrites::settle`].
    pub fn doubts(&self) -> u64 {
        self.doubts.load(SeqCst)
    }

    /// The cache has reached what the database said after `doubts` was read.
    pub fn settle(&self, doubts: u64) {
        self.settled.fetch_max(doubts, SeqCst);
    }

    /// The revision from which on the cache has every write of this process;
    /// `None` while that cannot be said.
    pub fn certain_from(&self) -> Option<u64> {
        let quiet = self.under_way.load(SeqCst) == 0;
        let certain = self.doubts.load(SeqCst) == self.settled.load(SeqCst);
        (quiet && certain).then(|| self.acknowledged.load(SeqCst))
    }
}

impl Writing<'_> {
    /// The outcome is known: the write was acknowledged with this revision, or
    /// it certainly did not happen.
    pub fn known(mut self, revision: Option<u64>) {
        if let Some(revision) = revision {
            self.ledger.acknowledged.fetch_max(revision, SeqCst);
        }
        self.known = true;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.known {
            self.ledger.doubts.fetch_add(1, SeqCst);
        }
        self.ledger.under_way.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_outcomes_are_doubts_until_the_database_answers() {
        let ledger = OwnWrites::default();
        assert_eq!(ledger.certain_from(), Some(0));
        let writing = ledger.begin();
        assert_eq!(ledger.certain_from(), None);
        writing.known(Some(7));
        ledger.begin().known(None);
        assert_eq!(ledger.certain_from(), Some(7));
        let before = ledger.doubts();
        drop(ledger.begin());
        assert_eq!(ledger.certain_from(), None);
        ledger.settle(before);
        assert_eq!(ledger.certain_from(), None);
        ledger.settle(ledger.doubts());
        assert_eq!(ledger.certain_from(), Some(7));
    }
}
