//! A fixed number of places for what many tenants want to do at a time.
//!
//! Nobody waits here: who gets no place asks again. To those of other namespaces that ask,
//! the tenants of one namespace leave half of the places.

use std::collections::BTreeMap;
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
