//! Turns: what has one key is done one after the other.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Whose turn it is, by key, and what is remembered with it.
#[derive(Debug)]
pub struct Turns<K, T = ()>(Mutex<HashMap<K, Arc<tokio::sync::Mutex<T>>>>);

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Turns(Mutex::default())
    }
}

impl<K: Eq + Hash, T: Default> Turns<K, T> {
    /// The turn of a key. From `most` keys on, those that nobody has or waits for are
    /// forgotten.
    pub fn of(&self, key: K, most: usize) -> Arc<tokio::sync::Mutex<T>> {
        let mut turns = self.0.lock();
        if turns.len() >= most {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry(key).or_default().clone()
    }

    /// Keys that are remembered.
    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.0.lock().len()
    }
}
