//! Who is asked to change an object once more (reinvocationPolicy). Pure.

use std::collections::HashSet;
use std::hash::Hash;

/// Everybody may be asked twice, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    First,
    Again,
}

/// Those of one kind, each by what tells it from the others.
#[derive(Debug)]
pub struct Reinvoked<K> {
    /// Were asked, and want to be asked again if others change the object.
    asked: HashSet<K>,
    /// Others did that.
    again: HashSet<K>,
}

impl<K> Default for Reinvoked<K> {
    fn default() -> Self {
        Self {
            asked: HashSet::new(),
            again: HashSet::new(),
        }
    }
}

impl<K: Hash + Eq> Reinvoked<K> {
    /// Whether it is to be asked. Nobody is asked in the second round for the first time.
    pub fn is_due(&self, round: Round, key: &K) -> bool {
        round == Round::First || self.again.contains(key)
    }

    /// Was asked, and wants to be asked again if others change the object.
    pub fn wants_to_know(&mut self, key: K) {
        self.asked.insert(key);
    }

    /// Whoever was asked before has not seen what the object is now.
    pub fn others_changed_it(&mut self) {
        self.again.extend(self.asked.drain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_seen_it_is_asked_again() {
        let mut all = Reinvoked::default();
        assert!(all.is_due(Round::First, &1));
        all.wants_to_know(1);
        assert!(!all.is_due(Round::Again, &1));
        all.others_changed_it();
        all.wants_to_know(2);
        assert!(all.is_due(Round::Again, &1));
        assert!(!all.is_due(Round::Again, &2));
    }
}
