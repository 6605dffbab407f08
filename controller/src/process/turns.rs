//! Turns at what takes time, some at a time: who asks waits, and one group (the tenants of a
//! datastore, those of a namespace) has a share of them at most, so that others find some
//! when all of its answers are slow.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// The turns.
#[derive(Debug)]
pub struct Turns {
    all: Semaphore,
    each: usize,
    groups: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// A turn, given back when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    // Given back before the member looks whether anybody else is of its group.
    _own: OwnedSemaphorePermit,
    _member: Member<'a>,
}

/// One who has a turn, or waits for it.
#[derive(Debug)]
struct Member<'a> {
    turns: &'a Turns,
    group: String,
    share: Arc<Semaphore>,
}

impl Turns {
    /// So many in all, and so many of each group.
    pub const fn new(all: usize, each: usize) -> Self {
        Self {
            all: Semaphore::const_new(all),
            each,
            groups: Mutex::new(BTreeMap::new()),
        }
    }

    /// A turn for one of a group, as soon as it has one: first among its own, then among
    /// all, each in the order of their coming. `None` never happens: nobody closes them.
    pub async fn take(&self, group: &str) -> Option<Turn<'_>> {
        let member = self.member(group);
        let own = member.share.clone().acquire_owned().await.ok()?;
        let all = self.all.acquire().await.ok()?;
        Some(Turn {
            _all: all,
            _own: own,
            _member: member,
        })
    }

    fn member(&self, group: &str) -> Member<'_> {
        let mut groups = self.groups.lock();
        let share = groups
            .entry(group.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Member {
            turns: self,
            group: group.to_owned(),
            share: share.clone(),
        }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let mut groups = self.turns.groups.lock();
        // Theirs and ours: what is idle costs nothing.
        if Arc::strong_count(&self.share) <= 2 {
            groups.remove(&self.group);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests")]

    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::process::observers::{ANSWERS, CHECKS, LOOKS, LOOKUPS, PROBES, SIZES, VISITS};

    /// A thousand of one group that are answered late, and one of another.
    async fn waits(turns: &'static Turns, late: Duration) -> Duration {
        let mut slow = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            slow.spawn(async move {
                let _turn = turns.take("slow").await;
                sleep(late).await;
            });
        }
        sleep(Duration::from_millis(1)).await;
        let asked = Instant::now();
        drop(turns.take("well").await.unwrap());
        let waited = asked.elapsed();
        slow.shutdown().await;
        assert!(turns.groups.lock().is_empty(), "what is idle costs nothing");
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_is_slow_leaves_turns_to_others() {
        for turns in [
            &ANSWERS, &CHECKS, &LOOKS, &LOOKUPS, &PROBES, &SIZES, &VISITS,
        ] {
            assert_eq!(waits(turns, Duration::from_secs(4)).await, Duration::ZERO);
        }
        // As it would be without shares.
        static UNSHARED: Turns = Turns::new(16, 16);
        assert!(waits(&UNSHARED, Duration::from_secs(4)).await > Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_has_its_share_and_no_more() {
        let turns = Turns::new(16, 4);
        let mut own = Vec::new();
        for _ in 0..4 {
            own.push(turns.take("a").await);
        }
        let more = tokio::time::timeout(Duration::from_secs(9), turns.take("a"));
        assert!(more.await.is_err());
        own.pop();
        assert!(turns.take("a").await.is_some());
    }
}
