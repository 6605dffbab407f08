//! When history is forgotten.
//!
//! A change is kept while it is young (so that a watch can resume and a paged
//! list can finish) and while it is among the newest (so that a quiet store
//! keeps something). Under a storm of writes a maximum, of revisions and of bytes, keeps
//! the database from growing without bound, and then even a young change may go.

use std::collections::VecDeque;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{Revision, Store};

/// What of the history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Changes younger than this are kept.
    pub keep_for: Duration,
    /// This many of the newest revisions are kept, whatever their age.
    pub keep_revisions: u64,
    /// No more than this many revisions are kept, whatever their age.
    pub max_revisions: u64,
    /// Changes are kept until about so many bytes were written after them, whatever their
    /// age and number: a large object that is changed all the time.
    pub max_bytes: u64,
    /// How often the policy is applied.
    pub period: Duration,
}

impl Default for Policy {
    /// Ten minutes, the newest thousand, at most half a million and 384 MiB. With the
    /// standing objects that is less than the volume of the chart.
    fn default() -> Self {
        Policy {
            keep_for: Duration::from_secs(600),
            keep_revisions: 1_000,
            max_revisions: 500_000,
            max_bytes: 384 * 1024 * 1024,
            period: Duration::from_secs(30),
        }
    }
}

/// The revision below which history may go, or `None` if nothing may.
///
/// `samples` are the newest revision at each application of the policy so far,
/// oldest first, the present one last.
pub fn floor(policy: &Policy, samples: &[Revision]) -> Option<Revision> {
    let newest = *samples.last()?;
    let ticks = ticks(policy);
    // Everything up to this was already there `keep_for` ago.
    let by_age = match (samples.len() - 1).checked_sub(ticks) {
        Some(index) => samples[index].0,
        None => 0,
    };
    let by_count = newest.0.saturating_sub(policy.keep_revisions);
    let at_least = newest.0.saturating_sub(policy.max_revisions);
    let floor = by_age.min(by_count).max(at_least);
    (floor > 0).then_some(Revision(floor))
}

/// How many bytes were written when the log stood at which revision, oldest first.
#[derive(Debug, Default)]
struct Written(VecDeque<(u64, Revision)>);

impl Written {
    /// Takes note of where the log stands. The revision below which history may go.
    fn floor(&mut self, policy: &Policy, (bytes, at): (u64, Revision)) -> Option<Revision> {
        if self.0.back().is_none_or(|(last, _)| *last < bytes) {
            self.0.push_back((bytes, at));
        }
        let old = |(then, _): &(u64, Revision)| bytes - then >= policy.max_bytes;
        while self.0.get(1).is_some_and(old) {
            self.0.pop_front();
        }
        let oldest = self.0.front().filter(|oldest| old(oldest));
        oldest.map(|(_, revision)| *revision)
    }
}

/// Between looks at what was written meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// Comes back once an eighth of the bytes were written that may be kept.
async fn much_written(store: &Store, policy: &Policy) {
    let (before, _) = store.written();
    let step = (policy.max_bytes / 8).max(1);
    while store.written().0 - before < step {
        tokio::time::sleep(LOOK).await;
    }
}

/// Applies `policy` to `store` until `stop`. Failures are logged and tried
/// again: compaction late is harmless.
///
/// Age is counted in periods since the start, not read from a clock: after a
/// restart history is kept for another `keep_for`.
pub async fn run(store: Store, policy: Policy, stop: CancellationToken) {
    let mut samples = VecDeque::new();
    let mut written = Written::default();
    let mut timer = tokio::time::interval(policy.period.max(Duration::from_millis(1)));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let aged = tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => true,
            () = much_written(&store, &policy) => false,
        };
        let newest = match store.revision().await {
            Ok(newest) => newest,
            Err(crate::Error::Closed) => return,
            Err(error) => {
                warn!(%error, "compaction postponed");
                continue;
            }
        };
        match samples.back_mut() {
            // Age is counted in periods.
            Some(last) if !aged => *last = newest,
            _ => samples.push_back(newest),
        }
        while samples.len() > ticks(&policy) + 1 {
            samples.pop_front();
        }
        let by_bytes = written.floor(&policy, store.written());
        let Some(floor) = floor(&policy, samples.make_contiguous()).max(by_bytes) else {
            continue;
        };
        if floor <= store.compacted() {
            continue;
        }
        match store.compact(floor).await {
            Ok(()) => debug!(%floor, "compacted"),
            Err(crate::Error::Closed) => return,
            Err(error) => warn!(%error, "compaction postponed"),
        }
    }
}

/// How many periods make up the age that is kept.
fn ticks(policy: &Policy) -> usize {
    let period = policy.period.max(Duration::from_millis(1));
    let ticks = policy.keep_for.as_millis().div_ceil(period.as_millis());
    usize::try_from(ticks).unwrap_or(usize::MAX - 1)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the test owns the task that it starts"
)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        keep_for: Duration::from_secs(60),
        keep_revisions: 10,
        max_revisions: 1_000,
        max_bytes: 1_000_000,
        period: Duration::from_secs(30),
    };

    fn of(samples: &[u64]) -> Option<u64> {
        let samples: Vec<Revision> = samples.iter().copied().map(Revision).collect();
        floor(&POLICY, &samples).map(|revision| revision.0)
    }

    #[test]
    fn young_changes_stay() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[100]), None);
        assert_eq!(of(&[100, 200]), None);
        assert_eq!(of(&[100, 200, 300]), Some(100));
        assert_eq!(of(&[100, 200, 300, 400]), Some(200));
    }

    #[test]
    fn the_newest_stay_however_old() {
        assert_eq!(of(&[100, 100, 100]), Some(90));
        assert_eq!(of(&[5, 5, 5]), None);
    }

    #[test]
    fn a_storm_is_bounded() {
        assert_eq!(of(&[100, 5_000]), Some(4_000));
    }

    #[test]
    fn bytes_are_bounded_whatever_their_age() {
        let mut written = Written::default();
        let mut floor = |bytes, revision| {
            let floor = written.floor(&POLICY, (bytes, Revision(revision)));
            floor.map(|revision| revision.0)
        };
        assert_eq!(floor(0, 10), None);
        assert_eq!(floor(400_000, 20), None);
        assert_eq!(floor(900_000, 30), None);
        assert_eq!(floor(1_300_000, 40), Some(10));
        assert_eq!(floor(1_450_000, 50), Some(20));
        // One change that is larger than all that is kept.
        assert_eq!(floor(9_000_000, 51), Some(50));
        assert_eq!(floor(9_000_001, 52), Some(50));
    }

    /// A large object that is changed all the time. Nothing of it is old.
    #[tokio::test]
    async fn a_large_object_does_not_fill_the_volume() {
        let store = crate::memory::open();
        let policy = Policy {
            max_bytes: 1_000_000,
            ..Policy::default()
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(store.clone(), policy, stop.clone()));
        let mut expect = crate::Expect::Absent;
        for _ in 0..200 {
            let value = vec![b'x'; 50_000].into();
            let entry = store.put("/k/large", value, expect).await.unwrap();
            expect = crate::Expect::At(entry.modified);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let newest = store.revision().await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            // How many exactly hangs on when it looks; without a bound it would be all.
            while newest.0 - store.compacted().0 > 120 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap();
        // A list that began a moment ago goes on.
        assert!(newest.0 - store.compacted().0 >= 19);
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn the_task_compacts_what_is_old() {
        let store = crate::memory::open();
        let mut last = Revision(0);
        for n in 0..50 {
            let key = format!("/k/{n}");
            let entry = store.put(&key, "v".into(), crate::Expect::Absent).await;
            last = entry.unwrap().modified;
        }
        let policy = Policy {
            keep_for: Duration::from_millis(40),
            period: Duration::from_millis(20),
            ..POLICY
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(store.clone(), policy, stop.clone()));
        let expected = Revision(last.0 - policy.keep_revisions);
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while store.compacted() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }
}
