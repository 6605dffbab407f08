//! What a watcher has heard, and what must be true of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use crate::churn::Acknowledged;

/// What is compared of an object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// `namespace/name`.
    pub key: String,
    pub uid: String,
    pub resource_version: String,
    /// The annotation that each write sets anew.
    pub step: String,
}

impl State {
    pub fn of(object: &Value) -> Self {
        let meta = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            key: format!("{}/{}", text(&meta["namespace"]), text(&meta["name"])),
            uid: text(&meta["uid"]),
            resource_version: text(&meta["resourceVersion"]),
            step: text(&meta["annotations"]["step"]),
        }
    }

    pub fn revision(&self) -> u64 {
        self.resource_version.parse().unwrap()
    }
}

/// One notification.
#[derive(Clone, Debug)]
pub enum Event {
    /// A change that the watch delivered.
    Put(State),
    Delete(State),
    /// A new list begins; what it does not name is gone.
    Relist,
    /// A part of a list.
    Listed(State),
    /// The list is whole.
    ListEnd,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    store: BTreeMap<String, State>,
    /// Of a list that is not whole yet.
    listed: BTreeMap<String, State>,
    /// Lists after the first.
    relists: usize,
}

/// Everything that one watcher has heard, in order.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Log>>);

impl Heard {
    pub fn push(&self, event: Event) {
        let mut log = self.0.lock();
        match &event {
            Event::Put(state) => {
                log.store.insert(state.key.clone(), state.clone());
            }
            Event::Delete(state) => {
                log.store.remove(&state.key);
            }
            Event::Relist => {
                log.relists += usize::from(!log.events.is_empty());
                log.listed.clear();
            }
            Event::Listed(state) => {
                log.listed.insert(state.key.clone(), state.clone());
            }
            Event::ListEnd => log.store = std::mem::take(&mut log.listed),
        }
        log.events.push(event);
    }

    pub fn store(&self) -> BTreeMap<String, State> {
        self.0.lock().store.clone()
    }

    /// Waits until the first list is whole.
    pub async fn wait_for_list(&self) {
        while !matches!(self.0.lock().events.last(), Some(Event::ListEnd)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn relists(&self) -> usize {
        self.0.lock().relists
    }

    /// Each acknowledged write was delivered, exactly once.
    #[track_caller]
    pub fn is_complete(&self, name: &str, acknowledged: &[Acknowledged]) {
        let log = self.0.lock();
        let (mut puts, mut deletes) = (HashMap::new(), HashMap::new());
        for event in &log.events {
            match event {
                Event::Put(state) => {
                    let id = (&state.uid, state.revision(), &state.step);
                    *puts.entry(id).or_insert(0) += 1;
                }
                Event::Delete(state) => *deletes.entry(&state.uid).or_insert(0) += 1,
                _ => {}
            }
        }
        for write in acknowledged {
            let seen = match write {
                Acknowledged::Put(state) => puts.get(&(&state.uid, state.revision(), &state.step)),
                Acknowledged::Delete { uid } => deletes.get(uid),
            };
            assert_eq!(seen, Some(&1), "the {name} and {write:?}");
        }
    }

    /// No change came before one that happened earlier, and none of an object
    /// that was deleted.
    #[track_caller]
    pub fn is_ordered(&self, name: &str) {
        let log = self.0.lock();
        let mut present: HashMap<&str, &State> = HashMap::new();
        let mut ended: HashMap<&str, u64> = HashMap::new();
        for event in &log.events {
            match event {
                Event::Put(state) => {
                    let newest = present.get(state.key.as_str()).map(|before| {
                        assert_eq!(before.uid, state.uid, "{name}: not deleted in between");
                        before.revision()
                    });
                    let end = ended.get(state.key.as_str()).copied();
                    let before = newest.max(end).unwrap_or(0);
                    assert!(
                        state.revision() > before,
                        "{name}: {state:?} after {before}"
                    );
                    present.insert(&state.key, state);
                }
                Event::Delete(state) => {
                    let before = present.remove(state.key.as_str());
                    let before = before.unwrap_or_else(|| panic!("{name}: never saw {state:?}"));
                    assert_eq!(before.uid, state.uid, "{name}");
                    assert!(state.revision() >= before.revision(), "{name}: {state:?}");
                    ended.insert(&state.key, state.revision());
                }
                // What a list says is compared as a whole.
                Event::Relist => present.clear(),
                Event::Listed(state) => {
                    present.insert(&state.key, state);
                }
                Event::ListEnd => {}
            }
        }
    }
}
