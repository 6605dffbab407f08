//! A disk that fails at the moments that no real one can be made to fail at: around a
//! commit, and when the database is opened anew after that. What SQLite makes of a volume
//! that is full or damaged is tried on real ones (`tests/disk.rs`).

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::Error;

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing of the transaction is on disk.
    BeforeCommit,
    /// All of it is, and the writer is told that it is not: the sync failed after the last
    /// page was written, for instance.
    AfterCommit,
    /// The database cannot be opened anew.
    Opening,
}

/// What fails next, in this order.
#[derive(Debug, Default)]
pub struct Faults(Mutex<VecDeque<Fault>>);

impl Faults {
    pub fn plan(&self, faults: &[Fault]) {
        self.0.lock().extend(faults);
    }

    /// Nothing fails any more.
    pub fn end(&self) {
        self.0.lock().clear();
    }

    /// Whether all that was planned has happened.
    pub fn are_over(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// # Errors
    /// If this is what fails next.
    pub fn strike(&self, at: Fault) -> Result<(), Error> {
        let mut planned = self.0.lock();
        match planned.front() == Some(&at) {
            true => {
                planned.pop_front();
                Err(Error::Unavailable(format!("disk I/O error ({at:?})")))
            }
            false => Ok(()),
        }
    }
}
