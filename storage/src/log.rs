//! The words of the log, and what a backend owes.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::seal::Sealing;
use watch::Feed;

pub mod compact;
#[cfg(test)]
pub(crate) mod conformance;
mod error;
pub mod failing;
pub mod memory;
#[cfg(test)]
mod model;
pub(crate) mod store;
pub(crate) mod watch;

pub use error::Error;
pub use store::Store;
pub use watch::{RING_BYTES, Watch, WatchItem};

/// The number of a change, and of the state that it led to.
///
/// A store without any change is at revision 1, so that 0 never names a state
/// (in Kubernetes "0" means "whatever you have").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a store to which nothing has happened.
    pub const FIRST: Revision = Revision(1);

    pub(crate) fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a writer says it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last changed at this revision.
    At(Revision),
}

/// A key with its value, as of some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, as it was put.
    pub value: Bytes,
    /// The change that brought the key into being (anew, after a delete).
    pub created: Revision,
    /// The change that gave it this value.
    pub modified: Revision,
}

/// A part of a range, all of it from one state. It ends after the wanted number of
/// entries, or earlier, when its values are [`PAGE_BYTES`]: ask for `more`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of keys, byte by byte.
    pub entries: Vec<Entry>,
    /// The state that was read. The next page asks for it again.
    pub revision: Revision,
    /// Whether entries remain after the last one given.
    pub more: bool,
    /// How many entries remain.
    pub remaining: u64,
}

/// How many bytes of values one answer of the log holds, whatever was asked for. One
/// value alone may be larger.
pub const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// One change. Each has a revision of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key received a value.
    Put {
        /// The new version.
        entry: Entry,
        /// The version before it; `None` if the key did not exist.
        previous: Option<Entry>,
    },
    /// A key was deleted.
    Delete {
        /// The last version.
        previous: Entry,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Change::Put { entry, .. } => &entry.key,
            Change::Delete { previous, .. } => &previous.key,
        }
    }

    /// The bytes of the values that this change carries.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Put { entry, previous } => {
                entry.value.len() + previous.as_ref().map_or(0, |previous| previous.value.len())
            }
            Change::Delete { previous, .. } => previous.value.len(),
        }
    }

    /// The number of this change.
    pub fn revision(&self) -> Revision {
        match self {
            Change::Put { entry, .. } => entry.modified,
            Change::Delete { revision, .. } => *revision,
        }
    }
}

/// A part of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Oldest first.
    pub changes: Vec<Change>,
    /// Whether there may be others after the last one given.
    pub more: bool,
}

/// As [`PAGE_BYTES`], for changes: a watch of history holds as much until it was read.
pub const REPLAY_BYTES: usize = 512 * 1024;

/// How many values of these sizes, in order, one answer of so many bytes holds: at least
/// one.
pub(crate) fn fitting(sizes: impl IntoIterator<Item = usize>, bytes: usize) -> usize {
    let mut total = 0usize;
    let mut count = 0;
    for size in sizes {
        total = total.saturating_add(size);
        if count > 0 && total > bytes {
            break;
        }
        count += 1;
    }
    count
}

/// Which store this is. Made with the store and kept for its life; a restored
/// copy keeps it, a fresh store has another (rule 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A random UUID.
    pub id: String,
}

/// What a writer holds for a write, whatever it is: let go of when the write waits no
/// more, also if the writer has left long before. Clones share it.
#[derive(Clone, Default)]
pub struct Held(Option<Arc<dyn Any + Send + Sync>>);

impl Held {
    /// Holds this.
    pub fn new(what: impl Any + Send + Sync) -> Self {
        Held(Some(Arc::new(what)))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.is_some()).finish()
    }
}

/// One conditional write.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: String,
    pub expect: Expect,
    /// `None` deletes.
    pub value: Option<Bytes>,
    pub held: Held,
}

/// Whose turn it is that a read of history waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Turn {
    /// One of those that all share.
    #[default]
    Shared,
    /// One for a cache that everybody reads from, and that must not wait for them.
    Feeder,
}

/// One range to read.
#[derive(Debug, Clone)]
pub struct Range {
    pub prefix: String,
    /// Only keys after this one.
    pub after: Option<String>,
    pub limit: Option<usize>,
    /// `None`: the newest state.
    pub at: Option<Revision>,
    pub turn: Turn,
}

/// Between which revisions a log can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The newest state.
    pub revision: Revision,
    /// The oldest state. Changes after it are known one by one.
    pub compacted: Revision,
}

impl Bounds {
    /// Whether the state of `at` can be read.
    pub fn admit(self, at: Revision) -> Result<(), Error> {
        if at < self.compacted {
            return Err(Error::Compacted {
                oldest: self.compacted,
            });
        }
        if at > self.revision {
            return Err(Error::Future {
                latest: self.revision,
            });
        }
        Ok(())
    }
}

/// What a backend owes. [`Store`] is the only caller.
///
/// Each method sees one state of the log, never a mixture of two. A write is
/// first on disk, then in the [`Feed`], then answered.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Applies one write if [`store::decide`] agrees.
    async fn write(&self, write: Write) -> Result<Change, Error>;
    /// A key in the newest state, and which state that is.
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error>;
    /// A range in one state.
    async fn range(&self, range: Range) -> Result<Page, Error>;
    /// The changes of keys with this prefix in (after, upto], oldest first, at
    /// most `limit` and about [`REPLAY_BYTES`]. Fails with [`Error::Compacted`] if one
    /// may be missing.
    async fn changes(
        &self,
        prefix: &str,
        after: Revision,
        upto: Revision,
        limit: usize,
        turn: Turn,
    ) -> Result<Changes, Error>;
    /// What can be read now, from the database itself.
    async fn bounds(&self) -> Result<Bounds, Error>;
    /// Forgets what only states below `below` need.
    async fn compact(&self, below: Revision) -> Result<(), Error>;
    /// Skips revisions up to `to` and forgets all history.
    async fn advance(&self, to: Revision) -> Result<Revision, Error>;
    /// The newest known lower bound, without asking the database.
    fn compacted(&self) -> Revision;
    fn feed(&self) -> &Feed;
    fn identity(&self) -> Identity;
    /// Bytes that the database takes up, if it knows.
    async fn size(&self) -> Result<u64, Error>;
    /// Keeps values in this way from now on, if all that are kept can be read with it.
    async fn seal(&self, sealing: Arc<Sealing>) -> Result<(), Error>;
    /// Brings values to the form in which they would be written now: of how many.
    async fn reseal(&self) -> Result<u64, Error>;
    /// Finishes accepted writes and lets go of the database.
    async fn close(&self);
}

/// The smallest string greater than every key that begins with `prefix`.
///
/// Keys begin with `/`, so that `0` ends the range of all of them.
pub(crate) fn range_end(prefix: &str) -> String {
    let mut end: Vec<char> = prefix.chars().collect();
    while let Some(last) = end.pop() {
        let next = match last {
            // The code points between are surrogates, which no string holds.
            '\u{D7FF}' => Some('\u{E000}'),
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return end.into_iter().collect();
        }
    }
    "0".to_owned()
}

#[cfg(test)]
mod tests {
    use super::range_end;

    #[test]
    fn range_ends_after_every_key_with_the_prefix() {
        assert_eq!(range_end("/a/"), "/a0");
        assert_eq!(range_end("/a"), "/b");
        assert_eq!(range_end("/\u{D7FF}"), "/\u{E000}");
        assert_eq!(range_end("/a\u{10FFFF}"), "/b");
        assert_eq!(range_end(""), "0");
        assert!(*"/tenantcontrolplanes/\u{10FFFF}" < *range_end("/tenantcontrolplanes/"));
    }
}
