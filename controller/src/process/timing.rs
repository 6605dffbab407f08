//! When a key is due again, and the deadlines of calls.

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;

/// Deadline of one call to the management cluster.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// Deadline of a look at one object within a watch.
pub const LOOK_DEADLINE: Duration = Duration::from_secs(3);
/// Until what a new tenant may have already is looked for again, when that failed.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Between looks at which optional kinds the management cluster serves.
pub const OPTIONAL_EVERY: Duration = Duration::from_secs(10);
/// Deadline of a step in a datastore that writes claims, users and rights. A datastore that is
/// silent ends it sooner, by [`STORE_REQUEST`]; one that is slow gets to the end, and is not
/// asked for all of it again.
pub const STORE_WRITE: Duration = Duration::from_secs(20);
/// Deadline of one look at a datastore.
pub const STORE_DEADLINE: Duration = Duration::from_secs(4);
/// How long a look at a tenant's rights may take that gives them anew: a look, the writes, and
/// another look.
pub const ACCESS_DEADLINE: Duration = Duration::from_secs(4 + 20 + 4);
/// An answer that took as long may have been held up here.
pub const STORE_LATE: Duration = Duration::from_millis(2_500);
/// Deadline of the question that is asked once more then.
pub const STORE_AGAIN: Duration = Duration::from_secs(2);
/// How long one endpoint of an etcd may take to let a relay in.
pub const RELAY_CONNECT: Duration = Duration::from_secs(3);
/// Deadline of one request to a datastore, within any of these.
pub const STORE_REQUEST: Duration = Duration::from_secs(3);
/// Deadline of a step that deletes a tenant's data.
pub const DROP_DEADLINE: Duration = Duration::from_secs(60);

/// Between probes of a tenant that is Ready.
pub const PROBE_READY: Duration = Duration::from_secs(4);
/// Between probes of a tenant that is coming up, at first.
pub const PROBE_COMING: Duration = Duration::from_millis(150);
/// Later, the part of the time it has taken so far that is waited between probes.
pub const PROBE_PART: u32 = 20;
/// Between probes of a tenant that has been down for a while, and the first wait
/// for one that never answered.
pub const PROBE_DOWN: Duration = Duration::from_secs(2);
/// How long a tenant counts as coming up.
pub const COMING_FOR: Duration = Duration::from_secs(120);
/// Between looks at the age of what probes found.
pub const AGES_EVERY: Duration = Duration::from_secs(10);
/// Between attempts of an observer that panics, at first and at most.
pub const OBSERVER_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Deadline of one probe along one path.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(3);
/// Between attempts of the set-up command.
pub const SETUP_EVERY: Duration = Duration::from_secs(1);
/// Connections to one tenant that are under way at a time.
pub const CONNECTIONS: usize = 2;
/// Beside a connection that takes longer, another is tried, and another in place of
/// that one. With every second replica hanging, six that hang are met in 2 of 100
/// cases, and a probe looks twice.
pub const CONNECT_AGAIN: Duration = Duration::from_millis(250);
/// The longest time between attempts along a path that never led to the tenant.
pub const NEVER_REACHED: Duration = Duration::from_secs(60);
/// Deadline of the connection for a probe, handshake included.
pub const CONNECT_DEADLINE: Duration = Duration::from_millis(1500);
/// Between looks at what is kept in a tenant.
pub const INSIDE_EVERY: Duration = Duration::from_secs(30);
/// Deadline of one look at what is kept in a tenant, with the writes that it leads to.
pub const VISIT_DEADLINE: Duration = Duration::from_secs(20);
/// Deadline of one write in it: a webhook of the tenant's may hang.
pub const STEP_DEADLINE: Duration = Duration::from_secs(3);
/// Between looks at whether a tenant asks for the approval of its nodes' certificates.
pub const APPROVAL_ASKED_EVERY: Duration = Duration::from_secs(5);
/// How long one connection for that is used: its certificate is good for five minutes.
pub const APPROVAL_SESSION: Duration = Duration::from_secs(240);
/// Deadline of one turn through the requests.
pub const APPROVAL_TURN: Duration = Duration::from_secs(20);
/// Between turns for a tenant whose requests keep coming.
pub const APPROVAL_PAUSE: Duration = Duration::from_millis(500);
/// Until a request is looked at again that may be in order in a moment, the first time and
/// in the end.
pub const APPROVAL_AGAIN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(120));
/// How long a few Events about requests that are not in order have to do.
pub const APPROVAL_EVENTS: Duration = Duration::from_secs(600);
/// How long a tenant keeps its place while pods of its add-ons are replaced and do not
/// come up.
pub const ROLL_HELD_FOR: Duration = Duration::from_secs(10 * 60);
/// How long a tenant that works is not called Ready because its readers may not read.
pub const READERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a probe that met no bindings waits for them.
pub const REPAIRED_WITHIN: Duration = Duration::from_secs(2);

/// Between looks at a tenant's rights in its datastore.
pub const ACCESS_EVERY: Duration = Duration::from_secs(5);
/// Between looks at whether a tenant's size is to be measured, or its limits were changed.
pub const SIZE_LOOK: Duration = Duration::from_secs(5);
/// Between measurements of a tenant without limits, of one with limits, and of one that is
/// near one or beyond: somebody may be deleting.
pub const SIZE_UNLIMITED: Duration = Duration::from_secs(30 * 60);
/// See [`SIZE_UNLIMITED`].
pub const SIZE_LIMITED: Duration = Duration::from_secs(60);
/// See [`SIZE_UNLIMITED`].
pub const SIZE_NEAR: Duration = Duration::from_secs(15);
/// A measurement is followed by a pause that is as many times as long.
pub const SIZE_PAUSE: u32 = 20;
/// The same without a limit.
pub const SIZE_PAUSE_UNLIMITED: u32 = 100;
/// Deadline of one.
pub const SIZE_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// What was measured is believed for so long, if it cannot be measured again.
pub const SIZE_STALE: Duration = Duration::from_secs(45 * 60);
/// Between looks at a datastore that is well.
pub const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// Between looks at a datastore whose state is not known or just turned bad.
pub const HEALTH_UNKNOWN: Duration = Duration::from_millis(500);
/// The longest time between looks at a datastore that is not well.
pub const HEALTH_SLOWEST: Duration = Duration::from_secs(8);
/// How long a claim that was refused is not tried again.
pub const CLAIM_AGAIN: Duration = Duration::from_secs(20);
/// Between looks at whether a tenant's data is to be moved.
pub const MIGRATION_LOOK: Duration = Duration::from_secs(10);
/// The same while something is in the way of it.
pub const MIGRATION_WAITS: Duration = Duration::from_secs(2);
/// Between looks at a move that is being ended, or may be called off.
pub const MIGRATION_STEP: Duration = Duration::from_millis(250);
/// How long pods that were given the former place may take to end.
pub const MIGRATION_PODS_END: Duration = Duration::from_secs(90);
/// How long a move may take whose tenant says nothing of it: others wait for its place.
pub const MIGRATION_WHOLE: Duration = Duration::from_secs(12 * 60 * 60);
/// The same, whatever a tenant says of it.
pub const MIGRATION_LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Between reports of how much is copied.
pub const MIGRATION_TOLD: Duration = Duration::from_secs(1);
/// Between attempts at a move that failed, at first and at most.
pub const MIGRATION_AGAIN: (Duration, Duration) =
    (Duration::from_secs(20), Duration::from_secs(10 * 60));
/// Who got no place among those that may do something at a time asks again within this.
pub const ASKS_AGAIN: Duration = Duration::from_secs(45);
/// Between looks at tenants that are to leave a DataStore.
pub const DRAIN_LOOK: Duration = Duration::from_secs(5);
/// The same while one of them can be asked. What is read of it may be late: it is not asked
/// at every turn of the queue.
pub const DRAIN_NEXT: Duration = Duration::from_secs(1);
/// Between requests to move a tenant away that are refused, at first and at most.
pub const DRAIN_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// How long a tenant stays that came back to a DataStore that is being emptied, at first and
/// at most.
pub const DRAIN_BACK: (Duration, Duration) = (
    Duration::from_secs(10 * 60),
    Duration::from_secs(6 * 60 * 60),
);
/// Between compactions that we do because nobody else does (rule 21).
pub const COMPACT_EVERY: Duration = Duration::from_secs(5 * 60);
/// Between attempts at deletions that were put off.
pub const CLEANUP_EVERY: Duration = Duration::from_secs(15);
/// No further one is begun after this long in one round.
pub const CLEANUP_ROUND: Duration = Duration::from_secs(10);
/// How many run at a time in one datastore.
pub const CLEANUPS_AT_A_TIME: usize = 4;

/// What the API found invalid is not sent again for so long.
pub const REJECTED_FOR: jiff::SignedDuration = jiff::SignedDuration::from_secs(20);
/// What failed for a reason that repetition rarely helps is tried again then.
pub const HOPELESS_EVERY: Duration = Duration::from_secs(30);
/// A name that someone else holds is looked at again this often: objects
/// that are not ours are not watched.
pub const NAME_TAKEN_EVERY: Duration = Duration::from_secs(20);
/// A quiet tenant is looked at again after this long, plus up to as much.
pub const RESYNC: Duration = Duration::from_secs(10 * 60);
/// Between attempts at what failed, at first and at most.
pub const FIRST: Duration = Duration::from_millis(100);
/// See [`FIRST`].
pub const SLOWEST: Duration = Duration::from_secs(30);

/// When a key is due again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next(pub Duration);

/// How often each key failed in a row.
#[derive(Debug)]
pub struct Failures<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Hash + Eq + Clone> Failures<K> {
    /// Counts one more failure and returns all of them, this one included.
    pub fn more(&self, key: &K) -> u32 {
        let mut all = self.0.lock();
        let count = all.entry(key.clone()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }

    /// It went well.
    pub fn none(&self, key: &K) {
        self.0.lock().remove(key);
    }
}

/// Doubles from a tenth of a second to half a minute. `spread`, from 0 to 1,
/// takes away up to a fifth, so that many keys do not come back together.
pub fn backoff(failures: u32, spread: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32 << failures.saturating_sub(1).min(12));
    doubled
        .min(SLOWEST)
        .mul_f64(1.0 - 0.2 * spread.clamp(0.0, 1.0))
}

/// When to look again at what is quiet.
pub fn resync(spread: f64) -> Next {
    Next(RESYNC + RESYNC.mul_f64(spread.clamp(0.0, 1.0)))
}

/// Between attempts of an observer that failed so often in a row: from
/// `first` on, doubling, never above `slowest`.
pub fn observer_backoff(first: Duration, slowest: Duration, failures: u32) -> Duration {
    first
        .saturating_mul(1_u32 << failures.saturating_sub(1).min(10))
        .min(slowest)
}

/// How long a list may say nothing: a little longer than an API server gives itself for one.
pub const LIST_PATIENCE: Duration = Duration::from_secs(65);

/// The same of a watch, which is asked to last for 290 seconds.
pub const WATCH_PATIENCE: Duration = Duration::from_secs(295);

/// A watch that ends sooner, and has said nothing, is one that failed.
pub const WATCH_SOON: Duration = Duration::from_secs(1);

/// Between attempts of a watch, by how many failed in a row. Short, because our own API
/// server's restart takes seconds.
pub fn watch_backoff(failures: u32) -> Duration {
    observer_backoff(Duration::from_millis(200), Duration::from_secs(5), failures)
}
