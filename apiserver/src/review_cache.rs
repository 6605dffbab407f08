//! Answers remembered for a while, and asked for once at a time.
//!
//! Flow: the first caller of a key asks; callers that arrive meanwhile wait for that
//! one answer; a failure is shared with those who waited for it and is not kept. A
//! caller that goes away hands the question to the next one who waits.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A bounded cache with one lifetime for every answer.
pub struct ReviewCache<K, V, E> {
    slots: Mutex<HashMap<K, Arc<Slot<V, E>>>>,
    lifetime: Duration,
    capacity: usize,
    /// When what is old was forgotten last.
    swept: Mutex<Instant>,
}

struct Slot<V, E> {
    answer: Mutex<Option<(Result<V, E>, Instant)>>,
    /// Held by who asks.
    asking: tokio::sync::Mutex<()>,
    /// When the slot may be forgotten: a lifetime after it was last asked.
    asked: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone, V: Clone, E: Clone> ReviewCache<K, V, E> {
    /// A memo of at most `capacity` answers, each used for `lifetime`.
    pub fn new(lifetime: Duration, capacity: usize) -> Self {
        ReviewCache {
            slots: Mutex::new(HashMap::new()),
            lifetime,
            capacity,
            swept: Mutex::new(Instant::now()),
        }
    }

    /// The remembered answer to `key`, or that of `ask`. Whoever calls this waits, and has to
    /// see to it that not too many do.
    pub async fn get<F>(&self, key: &K, ask: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        let came = Instant::now();
        let slot = self.slot(key, came);
        let _asking = slot.asking.lock().await;
        match &*slot.answer.lock() {
            Some((Ok(value), at)) if at.elapsed() < self.lifetime => return Ok(value.clone()),
            // The question was asked while we waited, and nobody could answer it.
            Some((Err(error), at)) if *at >= came => return Err(error.clone()),
            _ => {}
        }
        *slot.asked.lock() = Instant::now();
        let result = ask().await;
        *slot.answer.lock() = Some((result.clone(), Instant::now()));
        result
    }

    /// The remembered answer to `key`, if there is one.
    pub fn known(&self, key: &K) -> Option<V> {
        let slot = self.slots.lock().get(key).cloned()?;
        match &*slot.answer.lock() {
            Some((Ok(value), at)) if at.elapsed() < self.lifetime => Some(value.clone()),
            _ => None,
        }
    }

    /// Forgets all answers, as if their time were over.
    #[cfg(test)]
    pub fn forget(&self) {
        self.slots.lock().clear();
    }

    fn slot(&self, key: &K, now: Instant) -> Arc<Slot<V, E>> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(key) {
            return slot.clone();
        }
        let mut swept = self.swept.lock();
        let lifetime = self.lifetime;
        if slots.len() >= self.capacity || now.saturating_duration_since(*swept) >= lifetime {
            *swept = now;
            slots.retain(|_, slot| now.saturating_duration_since(*slot.asked.lock()) < lifetime);
            if slots.len() >= self.capacity {
                // All young: let a quarter go, whichever, so that this stays rare.
                let gone: Vec<K> = slots.keys().take(self.capacity / 4 + 1).cloned().collect();
                for key in gone {
                    slots.remove(&key);
                }
            }
        }
        let slot = Arc::new(Slot {
            answer: Mutex::new(None),
            asking: tokio::sync::Mutex::new(()),
            asked: Mutex::new(now),
        });
        slots.insert(key.clone(), slot.clone());
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn memo() -> ReviewCache<u32, u32, String> {
        ReviewCache::new(Duration::from_millis(300), 4)
    }

    #[tokio::test]
    async fn an_answer_is_used_for_its_lifetime_and_no_longer() {
        let (memo, asked) = (memo(), AtomicUsize::new(0));
        let ask = || async { Ok(asked.fetch_add(1, Ordering::SeqCst) as u32) };
        assert_eq!(memo.get(&1, ask).await, Ok(0));
        assert_eq!(memo.get(&1, ask).await, Ok(0));
        tokio::time::sleep(Duration::from_millis(310)).await;
        assert_eq!(memo.get(&1, ask).await, Ok(1));
    }

    #[tokio::test]
    async fn callers_at_the_same_time_ask_once() {
        let (memo, asked) = (memo(), AtomicUsize::new(0));
        let ask = || async {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(7)
        };
        let answers = futures::future::join_all((0..50).map(|_| memo.get(&1, ask))).await;
        assert!(answers.iter().all(|answer| *answer == Ok(7)));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_waited_and_not_kept() {
        let (memo, asked) = (memo(), AtomicUsize::new(0));
        let ask = || async {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err("down".to_owned())
        };
        let answers = futures::future::join_all((0..5).map(|_| memo.get(&1, ask))).await;
        assert!(answers.iter().all(|a| *a == Err("down".to_owned())));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(memo.get(&1, || async { Ok(3) }).await, Ok(3));
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_take_the_question_along() {
        let memo = memo();
        let never = memo.get(&1, std::future::pending::<Result<u32, String>>);
        let left = tokio::time::timeout(Duration::from_millis(20), never).await;
        assert!(left.is_err());
        assert_eq!(memo.get(&1, || async { Ok(3) }).await, Ok(3));
    }

    /// What nobody asks for any more is not held until there is no room.
    #[tokio::test]
    async fn old_answers_go_when_another_comes() {
        let memo: ReviewCache<u32, u32, String> =
            ReviewCache::new(Duration::from_millis(300), 8192);
        for key in 0..8000 {
            assert_eq!(memo.get(&key, || async { Ok(key) }).await, Ok(key));
        }
        tokio::time::sleep(Duration::from_millis(310)).await;
        assert_eq!(memo.get(&8000, || async { Ok(1) }).await, Ok(1));
        assert_eq!(memo.slots.lock().len(), 1);
    }

    #[tokio::test]
    async fn the_number_of_answers_is_bounded() {
        let memo = memo();
        for key in 0..100 {
            assert_eq!(memo.get(&key, || async { Ok(key) }).await, Ok(key));
        }
        assert!(memo.slots.lock().len() <= 4);
    }
}
