//! The objects and recent events, held as encoded bytes.
//!
//! # Flow
//! [`Cache::run`] loads the store and follows its watch. Lists are
//! concatenations of the held bytes; a watch event is encoded once for all
//! watchers, who pull from a ring at their own pace.
//!
//! # Guarantees
//! A cache that is not following the store says so ([`Cache::live`]) and
//! answers nothing; readers then ask the store itself (rule 3).
//!
//! An entry that cannot be read is [quarantined](Cache::quarantined): the rest goes on.
//!
//! # Caveats
//! The ring is short. Who falls out of it, or starts from before it, is served
//! from the store's history until caught up (`registry/watch.rs`).

pub(crate) mod frames;
mod item;
mod labels;
mod own_writes;
mod pace;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use apiservice::Resource;
use futures::StreamExt;
use parking_lot::RwLock;
use storage::{Change, Revision, WatchItem};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::frames::{Frames, Key};
use self::item::resource_of;
pub use self::item::{Cached, Event, Item, Kind, Rest};
pub use self::own_writes::{OwnWrites, Writing};
pub use self::pace::Pace;
use crate::live_bytes::Live;
use crate::reader::Reader;
use crate::status::Failure;

/// Most events in the ring, and most bytes that they keep from being freed.
const MAX_EVENTS: usize = 4096;
pub(crate) const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of objects that a watcher takes from the ring at a time, or one event.
const BATCH_BYTES: usize = 1024 * 1024;
/// Pause before the store is asked again after a failure.
const RETRY: Duration = Duration::from_millis(200);

#[derive(Default)]
struct State {
    live: bool,
    loaded: bool,
    /// Everything up to here is in `items`.
    revision: u64,
    items: BTreeMap<String, Cached>,
    /// What `items` are together, and by namespace.
    usage: Usage,
    usage_of: HashMap<String, Usage>,
    /// The last change of a resource, by plural.
    changed: HashMap<&'static str, u64>,
    /// Keys of entries that cannot be read; they are in no list and no watch.
    quarantined: BTreeSet<String>,
    /// Every change after `floor`, in order.
    events: VecDeque<Arc<Event>>,
    floor: u64,
    bytes: usize,
}

/// What is stored, for the limits on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of objects.
    pub objects: u64,
    /// Bytes of them as they go over the wire.
    pub bytes: u64,
}

impl Usage {
    fn add(&mut self, item: &Item) {
        self.objects += 1;
        self.bytes += item.encoded.len() as u64;
    }

    fn take(&mut self, item: &Item) {
        self.objects -= 1;
        self.bytes -= item.encoded.len() as u64;
    }
}

impl State {
    fn put(&mut self, key: &str, item: Arc<Item>) {
        self.remove(key);
        self.usage.add(&item);
        let namespace = self.usage_of.entry(item.namespace.clone());
        namespace.or_default().add(&item);
        self.items.insert(key.to_owned(), Cached::new(item));
    }

    fn remove(&mut self, key: &str) {
        let Some(item) = self.items.remove(key) else {
            return;
        };
        self.usage.take(&item);
        if let Some(usage) = self.usage_of.get_mut(&item.namespace) {
            usage.take(&item);
            if usage.objects == 0 {
                self.usage_of.remove(&item.namespace);
            }
        }
    }

    fn take(&mut self, key: &str, event: Event) {
        match event.kind {
            Kind::Deleted => self.remove(key),
            _ => self.put(key, Arc::clone(&event.object)),
        }
        self.change(event.resource, event.revision);
        self.bytes += event.bytes();
        self.events.push_back(Arc::new(event));
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
            self.floor = self.floor.max(oldest.revision);
        }
    }

    /// Never backwards: what was skipped may be known before the change that it follows.
    fn change(&mut self, resource: &Resource, revision: u64) {
        let last = self.changed.entry(resource.plural).or_default();
        *last = revision.max(*last);
    }

    /// Forgets the past if the store has skipped revisions (rule 4): what is before
    /// `compacted` is known to nobody, and must not be answered from here. A compaction
    /// of what was followed already is none of that.
    fn skipped(&mut self, compacted: u64) {
        if compacted <= self.revision.max(self.floor) {
            return;
        }
        self.events.clear();
        self.bytes = 0;
        self.floor = compacted;
        for resource in apiservice::RESOURCES.iter() {
            self.changed.insert(resource.plural, compacted);
        }
    }
}

/// Objects of one collection at one revision.
pub struct Snapshot {
    /// In the order of keys.
    pub items: Vec<Arc<Item>>,
    /// The state they are of.
    pub revision: u64,
}

/// What a watcher finds after its position.
pub enum Batch {
    /// The position lies before the ring, or the cache does not follow.
    Behind,
    /// Events in order, and the revision up to which that is all there is.
    Events(Vec<Arc<Event>>, u64),
}

/// See the module.
pub struct Cache {
    store: Reader,
    state: RwLock<State>,
    progress: watch::Sender<u64>,
    /// The writes of this process.
    pub ledger: OwnWrites,
    /// Counts the bytes of objects and of frames.
    pub live: Live,
    /// Frames that several watchers may want.
    pub frames: Frames,
}

impl Cache {
    /// An empty cache that does not follow yet.
    pub fn new(store: impl Into<Reader>, live: Live) -> Arc<Self> {
        Arc::new(Self {
            // Who reads from here must not wait for those who read the past of the store.
            store: store.into().feeder(),
            state: RwLock::new(State::default()),
            progress: watch::Sender::new(0),
            ledger: OwnWrites::default(),
            live,
            frames: Frames::default(),
        })
    }

    /// Follows the store until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.follow() => ended,
            };
            if let Err(error) = ended {
                let was = std::mem::replace(&mut self.state.write().live, false);
                if was {
                    tracing::warn!(%error, "the cache lost the store; reads go to the store itself");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn follow(&self) -> Result<(), Failure> {
        let (loaded, revision) = {
            let state = self.state.read();
            (state.loaded, state.revision)
        };
        let revision = match loaded {
            true => revision,
            false => self.load().await?,
        };
        let mut changes = match self.store.watch("/", Revision(revision)).await {
            Ok(changes) => changes,
            Err(error) => return Err(self.lost(error)),
        };
        self.state.write().live = true;
        self.tell();
        while let Some(item) = changes.next().await {
            match item {
                Ok(WatchItem::Change(change)) => self.apply(&change),
                Ok(WatchItem::Progress(revision)) => {
                    let compacted = self.store.compacted().0;
                    let mut state = self.state.write();
                    state.skipped(compacted);
                    state.revision = state.revision.max(revision.0);
                    drop(state);
                    self.tell();
                }
                Err(error) => return Err(self.lost(error)),
            }
        }
        Err(Failure::store_unavailable("the watch ended"))
    }

    /// After a gap the objects are loaded anew; watchers start over.
    fn lost(&self, error: storage::Error) -> Failure {
        use storage::Error::{Compacted, Future};
        if matches!(error, Compacted { .. } | Future { .. }) {
            self.state.write().loaded = false;
        }
        Failure::store_unavailable(error)
    }

    async fn load(&self) -> Result<u64, Failure> {
        // What is held is of no use any more, and there may be no room for it twice.
        *self.state.write() = State::default();
        let mut state = State::default();
        let mut after: Option<String> = None;
        let mut at = None;
        let mut pace = Pace::default();
        // One page after the other, all of one state, so that what is being read never
        // adds more than a page to what is held.
        let revision = loop {
            let page = self.store.range("/", after.as_deref(), None, at).await;
            let page = page.map_err(Failure::store_unavailable)?;
            for entry in &page.entries {
                pace.step(entry.value.len()).await;
                if let Some(resource) = resource_of(&entry.key) {
                    match Item::read(resource, entry, &self.live) {
                        Ok(item) => state.put(&entry.key, Arc::new(item)),
                        Err(error) => {
                            tracing::error!(key = entry.key, %error, "a stored object cannot be read; it is in no list and no watch");
                            state.quarantined.insert(entry.key.clone());
                        }
                    }
                }
            }
            at = Some(page.revision);
            self.live.held(state.usage.bytes as usize);
            match page.entries.last() {
                Some(last) if page.more => after = Some(last.key.clone()),
                _ => break page.revision.0,
            }
            tokio::task::yield_now().await;
        };
        for resource in apiservice::RESOURCES.iter() {
            // Deletions before the load are not known: assume the latest.
            state.changed.insert(resource.plural, revision);
        }
        state.loaded = true;
        state.revision = revision;
        state.floor = revision;
        *self.state.write() = state;
        Ok(revision)
    }

    fn apply(&self, change: &Change) {
        let previous = self
            .state
            .read()
            .items
            .get(change.key())
            .map(|item| Arc::clone(item));
        // Only the feeder writes, so nothing moves between the two locks.
        let event = Event::read(change, previous, &self.live);
        {
            let compacted = self.store.compacted().0;
            let mut state = self.state.write();
            state.skipped(compacted);
            state.revision = change.revision().0;
            match event {
                Ok(event) => {
                    state.quarantined.remove(change.key());
                    if let Some(event) = event {
                        state.take(change.key(), event);
                    }
                }
                Err(error) => {
                    tracing::error!(key = change.key(), %error, "a stored object cannot be read; it is in no list and no watch");
                    state.remove(change.key());
                    state.quarantined.insert(change.key().to_owned());
                    if let Some(resource) = resource_of(change.key()) {
                        state.change(resource, change.revision().0);
                    }
                }
            }
        }
        self.tell();
    }

    fn tell(&self) {
        let (revision, held) = {
            let state = self.state.read();
            (state.revision, state.usage.bytes as usize + state.bytes)
        };
        self.live.held(held + self.frames.bytes());
        self.progress.send_replace(revision);
    }

    /// Whether the cache follows the store.
    pub fn live(&self) -> bool {
        self.state.read().live
    }

    /// Up to which revision everything is here.
    pub fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// Whether every change after this is in the ring.
    pub fn has_events_after(&self, position: u64) -> bool {
        let state = self.state.read();
        state.loaded && state.floor <= position
    }

    /// As if so many other changes had come that the ring is of those.
    #[cfg(test)]
    pub fn forget_events(&self) {
        let mut state = self.state.write();
        state.events.clear();
        (state.bytes, state.floor) = (0, state.revision);
    }

    /// Number of objects held.
    pub fn len(&self) -> usize {
        self.state.read().items.len()
    }

    /// Keys below a prefix of entries that cannot be read.
    pub fn quarantined_below(&self, prefix: &str) -> Vec<String> {
        let state = self.state.read();
        let range = state.quarantined.range(prefix.to_owned()..);
        let keys = range.take_while(|key| key.starts_with(prefix));
        keys.cloned().collect()
    }

    /// Number of entries that cannot be read. They can only be deleted, by name or with
    /// the whole collection.
    pub fn quarantined(&self) -> usize {
        self.state.read().quarantined.len()
    }

    /// What is stored in all and in one namespace, and the revision at which that is so.
    /// `None` until the objects were loaded.
    pub fn usage(&self, namespace: &str) -> Option<(Usage, Usage, u64)> {
        let state = self.state.read();
        let inside = state.usage_of.get(namespace).copied().unwrap_or_default();
        state
            .loaded
            .then_some((state.usage, inside, state.revision))
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Told of every new revision.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Waits until the cache follows and has reached `revision`.
    pub async fn reached(&self, revision: u64, within: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        let reached = async {
            loop {
                {
                    let state = self.state.read();
                    if state.live && state.revision >= revision {
                        return;
                    }
                }
                if progress.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::time::timeout(within, reached).await.is_ok()
    }

    /// The objects below a prefix, in order; `None` if the cache does not follow.
    pub fn snapshot(&self, prefix: &str) -> Option<Snapshot> {
        let state = self.state.read();
        if !state.live {
            return None;
        }
        let range = state.items.range(prefix.to_owned()..);
        let items = range.take_while(|(key, _)| key.starts_with(prefix));
        Some(Snapshot {
            items: items.map(|(_, item)| Arc::clone(item)).collect(),
            revision: state.revision,
        })
    }

    /// As [`Cache::snapshot`], if the collection is now what it was at `revision`.
    pub fn snapshot_at(
        &self,
        resource: &Resource,
        prefix: &str,
        revision: u64,
    ) -> Option<Snapshot> {
        {
            let state = self.state.read();
            let changed = state.changed.get(resource.plural).copied()?;
            if changed > revision || state.revision < revision {
                return None;
            }
        }
        let snapshot = self.snapshot(prefix)?;
        // A change between the two looks shows as an item newer than asked for,
        // or, for a deletion, as a later last change.
        let changed = self.state.read().changed.get(resource.plural).copied()?;
        (changed <= revision).then_some(Snapshot {
            revision,
            ..snapshot
        })
    }

    /// The revision at which nothing is below a prefix. `None` if something is, if it
    /// cannot be read, or if the cache does not follow.
    pub fn empty_at(&self, prefix: &str) -> Option<u64> {
        let state = self.state.read();
        let below = |key: Option<&String>| key.is_some_and(|key| key.starts_with(prefix));
        let start = || prefix.to_owned()..;
        let held = below(state.items.range(start()).next().map(|(key, _)| key));
        let held = held || below(state.quarantined.range(start()).next());
        (state.live && !held).then_some(state.revision)
    }

    /// One object and the revision at which that is so. `None` if it cannot be read, or
    /// if the cache does not follow: the store is to be asked.
    pub fn get(&self, key: &str) -> Option<(Option<Arc<Item>>, u64)> {
        let state = self.state.read();
        (state.live && !state.quarantined.contains(key)).then(|| {
            (
                state.items.get(key).map(|item| Arc::clone(item)),
                state.revision,
            )
        })
    }

    /// Up to `limit` events of a resource after `position`, and no more bytes of them
    /// than a watcher should have queued.
    pub fn events(&self, resource: &Resource, position: u64, limit: usize) -> Batch {
        let state = self.state.read();
        if !state.loaded || position < state.floor {
            return Batch::Behind;
        }
        let start = state
            .events
            .partition_point(|event| event.revision <= position);
        let mut events = Vec::new();
        let mut bytes = 0;
        for event in state.events.range(start..) {
            if events.len() == limit || bytes > BATCH_BYTES {
                return Batch::Events(events, event.revision - 1);
            }
            if std::ptr::eq(event.resource, resource) {
                bytes += event.object.encoded.len();
                events.push(event.clone());
            }
        }
        Batch::Events(events, state.revision.max(position))
    }
}

#[cfg(test)]
mod tests;
