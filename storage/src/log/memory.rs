//! The log in memory: the reference model, to be read as the specification.
//!
//! Every version of every key has a life: from the revision that made it until
//! the revision that replaced or deleted it. The state of a revision is the
//! versions alive at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::log::watch::Feed;
use crate::log::{
    Bounds, Changes, Log, PAGE_BYTES, REPLAY_BYTES, Range, Turn, Write, fitting, range_end, store,
};
use crate::seal::Sealing;
use crate::{Change, Entry, Error, Identity, Page, Revision, Store};

/// A store that forgets everything with the process.
pub fn open() -> Store {
    Store::new(Arc::new(Memory {
        feed: Feed::new(Revision::FIRST),
        identity: Identity {
            id: uuid::Uuid::new_v4().to_string(),
        },
        state: Mutex::new(State {
            revision: Revision::FIRST,
            compacted: Revision(0),
            changes: BTreeMap::new(),
            versions: BTreeMap::new(),
            closed: false,
        }),
    }))
}

struct Memory {
    feed: Feed,
    identity: Identity,
    state: Mutex<State>,
}

struct State {
    revision: Revision,
    compacted: Revision,
    /// Changes after `compacted`, by revision.
    changes: BTreeMap<Revision, Change>,
    /// The versions of each key, oldest first.
    versions: BTreeMap<String, Vec<Version>>,
    closed: bool,
}

struct Version {
    entry: Entry,
    /// The revision that replaced or deleted it.
    ended: Option<Revision>,
}

impl Version {
    fn alive_at(&self, revision: Revision) -> bool {
        self.entry.modified <= revision && self.ended.is_none_or(|ended| revision < ended)
    }
}

impl State {
    fn open(&self) -> Result<(), Error> {
        if self.closed {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            revision: self.revision,
            compacted: self.compacted,
        }
    }

    fn current(&self, key: &str) -> Option<Entry> {
        let version = self.versions.get(key)?.last()?;
        version.ended.is_none().then(|| version.entry.clone())
    }

    fn forget(&mut self, below: Revision) {
        self.compacted = below;
        self.changes = self.changes.split_off(&below.next());
        self.versions.retain(|_, versions| {
            versions.retain(|version| version.ended.is_none_or(|ended| ended > below));
            !versions.is_empty()
        });
    }
}

#[async_trait]
impl Log for Memory {
    async fn write(&self, write: Write) -> Result<Change, Error> {
        let mut state = self.state.lock();
        state.open()?;
        let current = state.current(&write.key);
        let revision = state.revision.next();
        let change = store::change(write, current, revision)?;
        state.revision = revision;
        let versions = state.versions.entry(change.key().to_owned()).or_default();
        if let Some(last) = versions.last_mut()
            && last.ended.is_none()
        {
            last.ended = Some(revision);
        }
        if let Change::Put { entry, .. } = &change {
            versions.push(Version {
                entry: entry.clone(),
                ended: None,
            });
        }
        state.changes.insert(revision, change.clone());
        self.feed.publish(change.clone());
        Ok(change)
    }

    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        let state = self.state.lock();
        state.open()?;
        Ok((state.current(key), state.revision))
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        let state = self.state.lock();
        state.open()?;
        let at = range.at.unwrap_or(state.revision);
        state.bounds().admit(at)?;
        let end = range_end(&range.prefix);
        let limit = range.limit.unwrap_or(usize::MAX);
        let mut page = Page {
            entries: Vec::new(),
            revision: at,
            more: false,
            remaining: 0,
        };
        if range.prefix >= end {
            return Ok(page);
        }
        let mut bytes = 0;
        for (key, versions) in state.versions.range(range.prefix..end) {
            if range.after.as_ref().is_some_and(|after| key <= after) {
                continue;
            }
            let Some(version) = versions.iter().find(|version| version.alive_at(at)) else {
                continue;
            };
            let size = version.entry.value.len();
            let room = page.entries.is_empty() || bytes + size <= PAGE_BYTES;
            if !page.more && page.entries.len() < limit && room {
                bytes += size;
                page.entries.push(version.entry.clone());
            } else {
                page.more = true;
                page.remaining += 1;
            }
        }
        Ok(page)
    }

    async fn changes(
        &self,
        prefix: &str,
        after: Revision,
        upto: Revision,
        limit: usize,
        _turn: Turn,
    ) -> Result<Changes, Error> {
        let state = self.state.lock();
        state.open()?;
        state.bounds().admit(after)?;
        let asked = || {
            state
                .changes
                .range(after.next()..=upto.max(after.next()))
                .map(|(_, change)| change)
                .filter(|change| change.revision() <= upto && change.key().starts_with(prefix))
        };
        let count = fitting(asked().take(limit).map(Change::bytes), REPLAY_BYTES);
        Ok(Changes {
            changes: asked().take(count).cloned().collect(),
            more: asked().nth(count).is_some(),
        })
    }

    async fn bounds(&self) -> Result<Bounds, Error> {
        let state = self.state.lock();
        state.open()?;
        Ok(state.bounds())
    }

    async fn compact(&self, below: Revision) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.open()?;
        if below <= state.compacted {
            return Ok(());
        }
        state.bounds().admit(below)?;
        state.forget(below);
        Ok(())
    }

    async fn advance(&self, to: Revision) -> Result<Revision, Error> {
        let mut state = self.state.lock();
        state.open()?;
        if to > state.revision {
            state.revision = to;
            state.forget(to);
            self.feed.skip(to);
        }
        Ok(state.revision)
    }

    fn compacted(&self) -> Revision {
        self.state.lock().compacted
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    async fn size(&self) -> Result<u64, Error> {
        let state = self.state.lock();
        let versions = state.versions.values().flatten();
        Ok(versions
            .map(|version| (version.entry.key.len() + version.entry.value.len()) as u64)
            .sum())
    }

    /// Nothing is on disk.
    async fn seal(&self, _: Arc<Sealing>) -> Result<(), Error> {
        self.state.lock().open()
    }

    async fn reseal(&self) -> Result<u64, Error> {
        self.state.lock().open()?;
        Ok(0)
    }

    async fn close(&self) {
        self.state.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    struct Opened {
        store: crate::Store,
    }

    async fn open() -> Opened {
        Opened {
            store: super::open(),
        }
    }

    crate::log::conformance::suite!(open());
}
