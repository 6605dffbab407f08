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
//! # Caveats
//! The ring is short. Who falls out of it, or starts from before it, is served
//! from the store's history until caught up (`registry/watch.rs`).

mod item;
mod ledger;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use apiservice::Resource;
use futures::StreamExt;
use parking_lot::RwLock;
use storage::{Change, Revision, Store, WatchItem};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::item::resource_of;
pub use self::item::{Event, Item, Kind};
pub use self::ledger::{Ledger, Writing};
use crate::status::Failure;

/// Most events in the ring, and most bytes of objects they hold.
const MAX_EVENTS: usize = 4096;
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Pause before the store is asked again after a failure.
const RETRY: Duration = Duration::from_millis(200);

#[derive(Default)]
struct State {
    live: bool,
    loaded: bool,
    /// Everything up to here is in `items`.
    revision: u64,
    items: BTreeMap<String, Arc<Item>>,
    /// The last change of a resource, by plural.
    changed: HashMap<&'static str, u64>,
    /// Every change after `floor`, in order.
    events: VecDeque<Arc<Event>>,
    floor: u64,
    bytes: usize,
}

impl State {
    fn take(&mut self, key: &str, event: Event) {
        match event.kind {
            Kind::Deleted => self.items.remove(key),
            _ => self.items.insert(key.to_owned(), event.object.clone()),
        };
        self.changed.insert(event.resource.plural, event.revision);
        self.bytes += event.object.encoded.len();
        self.events.push_back(Arc::new(event));
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.object.encoded.len();
            self.floor = oldest.revision;
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
    store: Store,
    state: RwLock<State>,
    progress: watch::Sender<u64>,
    /// The writes of this process.
    pub ledger: Ledger,
}

impl Cache {
    /// An empty cache that does not follow yet.
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Self {
            store,
            state: RwLock::new(State::default()),
            progress: watch::Sender::new(0),
            ledger: Ledger::default(),
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
                Ok(WatchItem::Change(change)) => self.apply(&change)?,
                Ok(WatchItem::Progress(revision)) => {
                    let mut state = self.state.write();
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
        let page = self.store.range("/", None, None, None).await;
        let page = page.map_err(Failure::store_unavailable)?;
        let mut items = BTreeMap::new();
        let mut changed = HashMap::new();
        for (count, entry) in page.entries.iter().enumerate() {
            if let Some(resource) = resource_of(&entry.key) {
                items.insert(entry.key.clone(), Arc::new(Item::read(resource, entry)?));
            }
            if count % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        for resource in apiservice::RESOURCES.iter() {
            // Deletions before the load are not known: assume the latest.
            changed.insert(resource.plural, page.revision.0);
        }
        *self.state.write() = State {
            live: false,
            loaded: true,
            revision: page.revision.0,
            items,
            changed,
            events: VecDeque::new(),
            floor: page.revision.0,
            bytes: 0,
        };
        Ok(page.revision.0)
    }

    fn apply(&self, change: &Change) -> Result<(), Failure> {
        let previous = self.state.read().items.get(change.key()).cloned();
        // Only the feeder writes, so nothing moves between the two locks.
        let event = Event::read(change, previous)?;
        {
            let mut state = self.state.write();
            state.revision = change.revision().0;
            if let Some(event) = event {
                state.take(change.key(), event);
            }
        }
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let revision = self.state.read().revision;
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

    /// Number of objects held.
    pub fn len(&self) -> usize {
        self.state.read().items.len()
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
            items: items.map(|(_, item)| item.clone()).collect(),
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

    /// One object and the revision at which that is so.
    pub fn get(&self, key: &str) -> Option<(Option<Arc<Item>>, u64)> {
        let state = self.state.read();
        state
            .live
            .then(|| (state.items.get(key).cloned(), state.revision))
    }

    /// Up to `limit` events of a resource after `position`.
    pub fn events(&self, resource: &Resource, position: u64, limit: usize) -> Batch {
        let state = self.state.read();
        if !state.loaded || position < state.floor {
            return Batch::Behind;
        }
        let start = state
            .events
            .partition_point(|event| event.revision <= position);
        let mut events = Vec::new();
        for event in state.events.range(start..) {
            if events.len() == limit {
                return Batch::Events(events, event.revision - 1);
            }
            if std::ptr::eq(event.resource, resource) {
                events.push(event.clone());
            }
        }
        Batch::Events(events, state.revision.max(position))
    }
}
