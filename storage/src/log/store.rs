//! The log as its users see it.
//!
//! # Flow
//! A write names what it replaces; the backend asks [`decide`] with the state
//! that stands at the moment of the write, puts the change on disk, hands it to
//! the feed of watchers, and answers.
//!
//! # Assumptions
//! Dropping the future of a write does not undo the write: one that has not begun is not
//! done any more, and of any other nobody says whether it was.

use std::sync::Arc;

use bytes::Bytes;

use crate::log::{Bounds, Log, Range, Turn, Write, watch};
use crate::seal::Sealing;
use crate::{Change, Entry, Error, Expect, Held, Identity, Page, Revision, Watch};

/// An ordered, watchable, compactable log of bytes. Clones share it.
#[derive(Clone)]
pub struct Store {
    log: Arc<dyn Log>,
    turn: Turn,
}

impl Store {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Store {
            log,
            turn: Turn::Shared,
        }
    }

    /// What is below it.
    pub(crate) fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// The same store, for one who keeps up a cache of it: to look through history it waits
    /// for nobody else who does, and only one such read is under way at a time.
    pub fn feeder(&self) -> Self {
        Store {
            log: Arc::clone(&self.log),
            turn: Turn::Feeder,
        }
    }

    /// A key in the newest state, and the revision of that state.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database cannot answer; never "absent".
    pub async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        check(key)?;
        self.log.get(key).await
    }

    /// The entries whose keys begin with `prefix` and come after `after`, in
    /// the order of keys, from the newest state or from that of `at`. A page is
    /// bounded in bytes, with or without a limit: [`Page::more`] says whether to ask on.
    ///
    /// # Errors
    /// [`Error::Compacted`] or [`Error::Future`] if the state of `at` is not
    /// known any more or not yet.
    pub async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        let range = Range {
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
            at,
            turn: self.turn,
        };
        self.log.range(range).await
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the key is not as expected.
    pub async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<Entry, Error> {
        self.put_held(key, value, expect, Held::default()).await
    }

    /// As [`Store::put`]; `held` is let go of when the value waits no more for its turn.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_held(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        held: Held,
    ) -> Result<Entry, Error> {
        check(key)?;
        let write = Write {
            key: key.to_owned(),
            expect,
            value: Some(value),
            held,
        };
        match self.log.write(write).await? {
            Change::Put { entry, .. } => Ok(entry),
            Change::Delete { .. } => Err(Error::Corrupt("a put became a delete".to_owned())),
        }
    }

    /// Deletes a key and returns the revision of the deletion.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the key is not at `expect`, or does not exist.
    pub async fn delete(&self, key: &str, expect: Revision) -> Result<Revision, Error> {
        self.delete_held(key, expect, Held::default()).await
    }

    /// The same; what is `held` stays held until the store is through with it, whoever
    /// waits for it.
    ///
    /// # Errors
    /// As for [`Store::delete`].
    pub async fn delete_held(
        &self,
        key: &str,
        expect: Revision,
        held: Held,
    ) -> Result<Revision, Error> {
        check(key)?;
        let write = Write {
            key: key.to_owned(),
            expect: Expect::At(expect),
            value: None,
            held,
        };
        Ok(self.log.write(write).await?.revision())
    }

    /// The changes after `after` of keys that begin with `prefix`: first from
    /// history, then as they happen.
    ///
    /// # Errors
    /// [`Error::Compacted`] if changes after `after` are forgotten,
    /// [`Error::Future`] if `after` was not reached yet. The stream may end
    /// with [`Error::Compacted`] and [`Error::Slow`] too.
    pub async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        watch::start(Arc::clone(&self.log), prefix, after, self.turn).await
    }

    /// Bytes of the values that were written since this store was opened, and the
    /// revision of the last change of them.
    pub fn written(&self) -> (u64, Revision) {
        self.log.feed().written()
    }

    /// The newest revision, from the database itself.
    pub async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.bounds().await?.revision)
    }

    /// Forgets the states before `below`. Less than what is already forgotten
    /// is a no-op. The newest version of every key stays.
    ///
    /// # Errors
    /// [`Error::Future`] if `below` was not reached yet.
    pub async fn compact(&self, below: Revision) -> Result<(), Error> {
        self.log.compact(below).await
    }

    /// The oldest revision whose state is known, without asking the database.
    pub fn compacted(&self) -> Revision {
        self.log.compacted()
    }

    /// Which store this is.
    pub fn identity(&self) -> Identity {
        self.log.identity()
    }

    /// Makes sure that every later revision is greater than `to`, and forgets
    /// all history, so that watchers and readers of older revisions start anew.
    ///
    /// For a store that was restored from a copy: its clients have seen
    /// revisions that it does not know (rule 4). Returns the newest revision.
    pub async fn advance(&self, to: Revision) -> Result<Revision, Error> {
        self.log.advance(to).await
    }

    /// Bytes that the database takes up on disk or in memory.
    pub async fn size(&self) -> Result<u64, Error> {
        self.log.size().await
    }

    /// Keeps values in this way from now on. Those that are kept already stay as they are
    /// until [`Store::reseal`].
    ///
    /// # Errors
    /// [`Error::Sealed`] if one of them could not be read with it: then nothing changes.
    pub async fn seal(&self, sealing: Sealing) -> Result<(), Error> {
        self.log.seal(Arc::new(sealing)).await
    }

    /// Brings all values to the form in which they would be written now, a few at a time
    /// and beside all else; of how many. It changes no revision, and nobody who reads or
    /// watches notices it.
    ///
    /// # Errors
    /// [`Error::Sealed`] if one cannot be read; the others are done.
    pub async fn reseal(&self) -> Result<u64, Error> {
        self.log.reseal().await
    }

    /// Number of watches that are open.
    pub fn watchers(&self) -> usize {
        self.log.feed().watchers()
    }

    /// Finishes the writes that were accepted, ends all watches, and lets go of
    /// the database. Everything after it fails with [`Error::Closed`].
    pub async fn close(&self) {
        self.log.feed().close();
        self.log.close().await;
    }

    pub(crate) async fn bounds(&self) -> Result<Bounds, Error> {
        self.log.bounds().await
    }
}

/// Compare-and-set, the only place of it: may this write replace `current`?
pub(crate) fn decide(expect: Expect, current: Option<&Entry>) -> Result<(), Error> {
    let agreed = match (expect, current) {
        (Expect::Absent, None) => true,
        (Expect::At(revision), Some(entry)) => entry.modified == revision,
        (Expect::Absent, Some(_)) | (Expect::At(_), None) => false,
    };
    if agreed {
        Ok(())
    } else {
        Err(Error::Conflict {
            current: current.cloned(),
        })
    }
}

/// The change that a write makes of `current` at `revision`, or why it may not.
pub(crate) fn change(
    write: Write,
    current: Option<Entry>,
    revision: Revision,
) -> Result<Change, Error> {
    decide(write.expect, current.as_ref())?;
    match (write.value, current) {
        (Some(value), previous) => Ok(Change::Put {
            entry: Entry {
                created: previous.as_ref().map_or(revision, |entry| entry.created),
                modified: revision,
                key: write.key,
                value,
            },
            previous,
        }),
        (None, Some(previous)) => Ok(Change::Delete { previous, revision }),
        (None, None) => Err(Error::Conflict { current: None }),
    }
}

fn check(key: &str) -> Result<(), Error> {
    if key.starts_with('/') && !key.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Error::InvalidKey(key.to_owned()))
    }
}
