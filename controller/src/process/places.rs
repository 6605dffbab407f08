//! A number of places for what many tenants want to do at a time. To those of other
//! namespaces that ask, the tenants of one namespace leave half of them.
//!
//! [`Places`] are fixed in number, for what costs memory or connections, and are given back by
//! themselves. Nobody waits there: who gets none asks again. With a [`Split`] it is decided
//! who is next, where others than this process say who has a place and for how long: a
//! namespace that never gives its own back does not keep the others from theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The places.
#[derive(Debug)]
pub struct Places {
    most: usize,
    /// How long one who got no place counts as waiting.
    asks_again: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many each namespace has.
    taken: BTreeMap<String, usize>,
    /// When somebody of a namespace got none for the last time.
    refused: BTreeMap<String, Instant>,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    places: &'a Places,
    namespace: String,
}

impl Places {
    /// `most` places. Who gets none is expected to ask again within `asks_again`.
    pub const fn new(most: usize, asks_again: Duration) -> Self {
        Self {
            most,
            asks_again,
            state: Mutex::new(State {
                taken: BTreeMap::new(),
                refused: BTreeMap::new(),
            }),
        }
    }

    /// A place for a tenant of the namespace, if there is one.
    pub fn take(&self, namespace: &str) -> Option<Place<'_>> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state
            .refused
            .retain(|_, since| now.duration_since(*since) < self.asks_again);
        let all: usize = state.taken.values().sum();
        let own = state.taken.get(namespace).copied().unwrap_or(0);
        let others_ask = state.refused.keys().any(|other| other != namespace);
        let share = (self.most / 2).max(1);
        if all >= self.most || others_ask && own >= share {
            state.refused.insert(namespace.to_owned(), now);
            return None;
        }
        state.refused.remove(namespace);
        *state.taken.entry(namespace.to_owned()).or_default() += 1;
        Some(Place {
            places: self,
            namespace: namespace.to_owned(),
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let taken = &mut self.places.state.lock().taken;
        if let Some(count) = taken.get_mut(&self.namespace) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.namespace);
            }
        }
    }
}

/// Places of one kind: who has some, and who would have some.
#[derive(Debug, Default)]
pub struct Split<'a> {
    /// How many are taken by tenants of each namespace.
    taken: BTreeMap<&'a str, usize>,
    /// The namespaces of those who wait.
    asking: BTreeSet<&'a str>,
}

impl<'a> Split<'a> {
    /// A tenant of this namespace has one.
    pub fn take(&mut self, namespace: &'a str) {
        *self.taken.entry(namespace).or_default() += 1;
    }

    /// A tenant of this namespace would have one.
    pub fn ask(&mut self, namespace: &'a str) {
        self.asking.insert(namespace);
    }

    /// Whether one of so many places is free for a tenant of this namespace.
    ///
    /// Of the places that another namespace has, half of all count at most (one at least):
    /// whoever may write there makes as many as they like. That half is also all that is
    /// given to a namespace while others wait; one alone may have all of them.
    pub fn has_one_of(&self, places: usize, namespace: &str) -> bool {
        let half = places.div_ceil(2);
        let own = self.taken.get(namespace).copied().unwrap_or_default();
        let others = self.taken.iter().filter(|(of, _)| **of != namespace);
        let of_others: usize = others.map(|(_, taken)| half.min(*taken)).sum();
        let alone = self.asking.iter().all(|of| *of == namespace);
        own + of_others < places && (alone || own < half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn one_namespace_leaves_half_to_others_that_ask() {
        let places = Places::new(2, AGAIN);
        let one = places.take("a").unwrap();
        let two = places.take("a").unwrap();
        assert!(places.take("a").is_none() && places.take("b").is_none());
        drop(two);
        assert!(places.take("a").is_none(), "b asks");
        let other = places.take("b").unwrap();
        assert!(places.take("b").is_none() && places.take("a").is_none());
        drop(one);
        drop(other);
        assert!(places.state.lock().taken.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_ask_again_keeps_nobody_out() {
        let places = Places::new(2, AGAIN);
        let [_one, two] = [places.take("a").unwrap(), places.take("a").unwrap()];
        assert!(places.take("b").is_none());
        drop(two);
        assert!(places.take("a").is_none());
        tokio::time::advance(AGAIN).await;
        let _two = places.take("a").expect("b has given up");
        assert_eq!(places.state.lock().refused.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_place_goes_round() {
        let places = Places::new(1, AGAIN);
        let one = places.take("a").unwrap();
        assert!(places.take("b").is_none());
        drop(one);
        assert!(places.take("b").is_some());
    }
}
