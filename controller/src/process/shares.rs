//! How many workers one datastore may hold up. A pass waits for its tenant's
//! datastore, for seconds at times; without a limit, the deletions on one that is
//! slow would take all workers from the tenants of the others.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
};

use parking_lot::Mutex;

/// The shares of all groups, of one size.
#[derive(Debug)]
pub struct Shares<G, K> {
    each: usize,
    groups: Mutex<HashMap<G, Group<K>>>,
}

#[derive(Debug)]
struct Group<K> {
    /// Passes that run.
    running: usize,
    /// Keys that came meanwhile, in the order of their coming, each once.
    parked: VecDeque<K>,
    known: HashSet<K>,
}

/// A pass that runs. Dropping it lets the next one of its group come.
pub struct Pass<G: Eq + Hash, K: Eq + Hash, F: Fn(K)> {
    shares: Arc<Shares<G, K>>,
    group: G,
    /// Calls a key that was parked.
    call: F,
}

impl<G: Eq + Hash + Clone, K: Eq + Hash + Clone> Shares<G, K> {
    /// A quarter of the workers, and one at least.
    pub fn of(workers: usize) -> Self {
        Self {
            each: (workers / 4).max(1),
            groups: Mutex::default(),
        }
    }

    /// Begins a pass. `None`: its group has its share; the key is kept, and `call`ed
    /// when it is its turn.
    pub fn begin<F: Fn(K)>(self: &Arc<Self>, group: G, key: &K, call: F) -> Option<Pass<G, K, F>> {
        let mut groups = self.groups.lock();
        let entry = groups.entry(group.clone()).or_insert_with(|| Group {
            running: 0,
            parked: VecDeque::new(),
            known: HashSet::new(),
        });
        if entry.running >= self.each {
            if entry.known.insert(key.clone()) {
                entry.parked.push_back(key.clone());
            }
            return None;
        }
        entry.running += 1;
        drop(groups);
        let shares = Arc::clone(self);
        Some(Pass {
            shares,
            group,
            call,
        })
    }

    /// Keys that wait for a share.
    pub fn parked(&self) -> usize {
        let groups = self.groups.lock();
        groups.values().map(|group| group.parked.len()).sum()
    }
}

impl<G: Eq + Hash, K: Eq + Hash, F: Fn(K)> Drop for Pass<G, K, F> {
    fn drop(&mut self) {
        let mut groups = self.shares.groups.lock();
        let Some(group) = groups.get_mut(&self.group) else {
            return;
        };
        group.running -= 1;
        // Who is called may be of another group by now, and would call nobody here:
        // the last one calls everybody.
        let called = match group.running {
            0 => group.parked.len(),
            _ => 1.min(group.parked.len()),
        };
        let called: Vec<K> = group.parked.drain(..called).collect();
        for key in &called {
            group.known.remove(key);
        }
        if group.running == 0 {
            groups.remove(&self.group);
        }
        drop(groups);
        for key in called {
            (self.call)(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_its_share_and_leaves_the_rest_to_others() {
        let shares: Arc<Shares<&str, u32>> = Arc::new(Shares::of(8));
        let called = Mutex::new(Vec::new());
        let call = |key| called.lock().push(key);
        let first = shares.begin("slow", &1, call).unwrap();
        let second = shares.begin("slow", &2, call).unwrap();
        for key in [3, 4, 3] {
            assert!(shares.begin("slow", &key, call).is_none());
        }
        assert_eq!(shares.parked(), 2, "each once");
        let other = shares.begin("well", &9, call);
        assert!(other.is_some());

        drop(first);
        assert_eq!(*called.lock(), [3]);
        // Whoever is called asks again, as everybody does.
        let third = shares.begin("slow", &3, call).unwrap();
        drop(second);
        drop(third);
        assert_eq!(*called.lock(), [3, 4]);
        drop(other);
        assert_eq!(shares.parked(), 0);
        assert!(
            shares.groups.lock().is_empty(),
            "what is idle costs nothing"
        );
    }

    #[test]
    fn nobody_waits_for_a_group_in_which_nothing_runs() {
        let shares: Arc<Shares<&str, u32>> = Arc::new(Shares::of(4));
        let called = Mutex::new(Vec::new());
        let call = |key| called.lock().push(key);
        let pass = shares.begin("slow", &1, call).unwrap();
        for key in [2, 3] {
            assert!(shares.begin("slow", &key, call).is_none());
        }
        drop(pass);
        assert_eq!(*called.lock(), [2, 3]);
    }

    #[test]
    fn one_worker_is_a_share_too() {
        let shares: Arc<Shares<&str, u32>> = Arc::new(Shares::of(1));
        assert!(shares.begin("a", &1, |_| {}).is_some());
    }
}
