//! What every pass works with. Made once in `run.rs`, shared by all tasks.

#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use apiservice::pki::Entropy;
use jiff::Timestamp;
use kube::Client;

use crate::assignments::Assignments;
use crate::cluster::caches::Caches;
use crate::cluster::events::Events;
use crate::cluster::key::{Group, Key};
use crate::datastores::credentials::Connections;
use crate::datastores::drain::Drains;
use crate::facts::{Facts, Seen};
use crate::fleet::Fleet;
use crate::process::clock::Clock;
use crate::process::lease::Leadership;
use crate::process::metrics::Metrics;
use crate::process::queue::Queue;
use crate::process::shares::Shares;
use crate::process::timing::Failures;
use crate::tenant::world::Settings;
use crate::write_history::Writes;

/// Everything shared.
pub struct Context {
    /// Reaches the management cluster.
    pub client: Client,
    pub caches: Arc<Caches>,
    pub queue: Arc<Queue<Key>>,
    /// How many passes wait for the same datastore at most.
    pub shares: Arc<Shares<Group, Key>>,
    /// What observers found out.
    pub facts: Arc<Facts>,
    /// Whose pods are rolled next.
    pub fleet: Fleet,
    /// Which DataStores tenants are given that name none.
    pub assignments: Assignments,
    /// Which tenants were asked to leave a DataStore that is being emptied.
    pub drains: Drains,
    /// Connections to tenants' datastores.
    pub connections: Connections,
    pub settings: Arc<Settings>,
    pub leadership: Leadership,
    pub clock: Clock,
    /// The source of keys and serial numbers.
    pub entropy: Entropy,
    /// What became of our writes.
    pub writes: Writes,
    pub failures: Failures<Key>,
    pub events: Events,
    pub metrics: Arc<Metrics>,
}

impl Context {
    /// What a pass over a key may have to wait for.
    pub fn group(&self, key: &Key) -> Group {
        let name = match key {
            Key::DataStore(_) => return Group::Stores,
            Key::Tenant(name) => name,
        };
        let tenant = self.caches.tenants.get(name);
        let store = tenant.and_then(|tenant| self.facts.data_store_of(&tenant));
        store.map_or(Group::Nowhere, Group::Store)
    }

    /// What is seen now.
    pub fn seen(&self) -> Seen<'_> {
        Seen {
            caches: &self.caches,
            facts: &self.facts,
            settings: &self.settings,
            now: self.now(),
        }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
