//! The work queue: each key is handled by one worker at a time, repeated
//! requests for a waiting key are one, and a key can be asked for later.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// A queue of keys. All methods but [`Queue::next`] return at once.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    /// Waiting for a worker, in order of arrival.
    ready: VecDeque<K>,
    /// The same keys, to keep each once.
    waiting: HashSet<K>,
    /// Held by a worker; true when it was asked for again meanwhile.
    held: HashMap<K, bool>,
    /// The earliest time at which a key is due. `timers` may hold stale
    /// entries for it; this map decides.
    due: HashMap<K, Instant>,
    timers: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Clone + Eq + Hash + Ord> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashSet::new(),
                held: HashMap::new(),
                due: HashMap::new(),
                timers: BinaryHeap::new(),
            }),
            changed: Notify::new(),
        }
    }

    /// Asks for a key now. While a worker holds it, it comes again after.
    pub fn add(&self, key: K) {
        let mut state = self.state.lock();
        state.due.remove(&key);
        state.make_ready(key);
        drop(state);
        self.changed.notify_one();
    }

    /// Asks for a key in a while; an earlier request stands.
    pub fn add_after(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        if state.waiting.contains(&key) || state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.timers.push(Reverse((at, key)));
        drop(state);
        self.changed.notify_one();
    }

    /// Takes the next key. It must be given back with [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let sleep = {
                let mut state = self.state.lock();
                state.fire(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    state.held.insert(key.clone(), false);
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more {
                        // A permit is stored once only: pass the word on.
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.timers.peek().map(|Reverse((at, _))| *at)
            };
            match sleep {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Gives a key back; it is ready again at once if asked for meanwhile.
    pub fn done(&self, key: K) {
        let mut state = self.state.lock();
        if state.held.remove(&key) == Some(true) {
            state.make_ready(key);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The keys that wait for a worker, in the order of their turns.
    pub fn waiting(&self) -> Vec<K> {
        self.state.lock().ready.iter().cloned().collect()
    }

    /// How many keys wait for a worker.
    pub fn depth(&self) -> usize {
        self.state.lock().ready.len()
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn make_ready(&mut self, key: K) {
        if let Some(again) = self.held.get_mut(&key) {
            *again = true;
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn fire(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                return;
            }
            if let Some(Reverse((at, key))) = self.timers.pop()
                && self.due.get(&key) == Some(&at)
            {
                self.due.remove(&key);
                self.make_ready(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_held_by_one_worker_and_comes_again_when_asked_for_meanwhile() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        let none = tokio::time::timeout(Duration::from_secs(5), queue.next()).await;
        assert!(none.is_err(), "a is held, nothing else is ready");
        queue.done("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a");
        queue.done("b");
        let none = tokio::time::timeout(Duration::from_secs(5), queue.next()).await;
        assert!(none.is_err(), "each request was answered once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_request_stands() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(30));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done("a");
        let later = tokio::time::timeout(Duration::from_secs(120), queue.next()).await;
        assert!(later.is_err(), "superseded requests do not fire");
    }

    #[tokio::test(start_paused = true)]
    async fn now_supersedes_later() {
        let queue = Queue::new();
        queue.add_after("a", Duration::from_secs(1));
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a");
        let later = tokio::time::timeout(Duration::from_secs(9), queue.next()).await;
        assert!(later.is_err());
    }

    #[tokio::test]
    async fn many_workers_see_each_key_once() {
        use std::sync::Arc;
        let queue = Arc::new(Queue::new());
        for n in 0..200 {
            queue.add(n);
        }
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let queue = queue.clone();
                async move {
                    let mut seen = vec![];
                    while let Ok(n) =
                        tokio::time::timeout(Duration::from_millis(200), queue.next()).await
                    {
                        seen.push(n);
                        tokio::task::yield_now().await;
                        queue.done(n);
                    }
                    seen
                }
            })
            .collect();
        let mut all: Vec<i32> = futures::future::join_all(workers).await.concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
    }
}
