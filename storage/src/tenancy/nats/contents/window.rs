//! Prints in the order of their keys, of a stream that is in another one: all of it is read, and
//! the first keys after one are kept. Of a tenant with more of them it is read again.

use std::collections::BTreeMap;

use crate::tenancy::contents::{Op, Print, Prints};

/// Prints that are kept, and bytes of their keys.
const MOST: usize = 50_000;
const MOST_BYTES: usize = 16 << 20;

/// The first keys after one.
#[derive(Default)]
pub struct Window {
    /// At which revision, once it was read.
    at: Option<u64>,
    after: Option<String>,
    prints: BTreeMap<String, Print>,
    bytes: usize,
    /// Keys from this one on are not kept.
    bound: Option<String>,
}

impl Window {
    /// To be filled with keys after this one.
    pub fn new(at: u64, after: Option<&str>) -> Self {
        Window {
            at: Some(at),
            after: after.map(str::to_owned),
            ..Window::default()
        }
    }

    /// Whether it can give what comes after a key.
    pub fn has(&self, at: u64, after: Option<&str>) -> bool {
        let begins = match (&self.after, after) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(begin), Some(after)) => begin.as_str() <= after,
        };
        let last = self.prints.keys().next_back();
        let goes_on = match (after, last) {
            (Some(after), Some(last)) => after < last.as_str(),
            (None, _) => true,
            (Some(_), None) => false,
        };
        self.at == Some(at) && begins && (goes_on || self.bound.is_none())
    }

    /// Takes in what a key has.
    pub fn take(&mut self, op: Op) {
        let key = op.key();
        let early = self.after.as_deref().is_some_and(|after| key <= after);
        let late = self.bound.as_deref().is_some_and(|bound| key >= bound);
        if early || late {
            return;
        }
        if self.prints.remove(key).is_some() {
            self.bytes -= key.len();
        }
        let Op::Put(entry) = op else {
            return;
        };
        self.bytes += entry.key.len();
        self.prints.insert(entry.key.clone(), Print::of(&entry));
        while self.prints.len() > MOST || self.bytes > MOST_BYTES {
            let Some((key, _)) = self.prints.pop_last() else {
                break;
            };
            self.bytes -= key.len();
            self.bound = Some(key);
        }
    }

    /// So many of the prints after a key.
    pub fn give(&self, after: Option<&str>, most: usize) -> Prints {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.prints.range::<str, _>((from, Unbounded));
        let prints: Vec<Print> = rest.by_ref().take(most).map(|it| it.1.clone()).collect();
        let whole = rest.next().is_none() && self.bound.is_none();
        let last = prints.last().map(|print| print.key.clone());
        Prints {
            next: last.filter(|_| !whole),
            prints,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tenancy::contents::Entry;

    fn put(number: usize) -> Op {
        Op::Put(Entry {
            key: format!("/{number:06}"),
            value: Bytes::from(number.to_string()),
            ttl: None,
        })
    }

    /// All of a stream with more keys than are kept, in another order than that of the keys.
    fn read(keys: usize, page: usize) -> (Vec<String>, usize) {
        let mut window = Window::default();
        let (mut found, mut after, mut readings) = (Vec::new(), None::<String>, 0);
        loop {
            if !window.has(7, after.as_deref()) {
                readings += 1;
                window = Window::new(7, after.as_deref());
                for number in (0..keys).rev().chain(0..keys / 2) {
                    window.take(put(number));
                }
                window.take(Op::Delete("/000003".to_owned()));
            }
            let prints = window.give(after.as_deref(), page);
            found.extend(prints.prints.into_iter().map(|print| print.key));
            match prints.next {
                Some(next) => after = Some(next),
                None => return (found, readings),
            }
        }
    }

    #[test]
    fn every_key_once_in_their_order() {
        for (keys, page, expected) in [
            (0, 10, 1),
            (10, 3, 1),
            (MOST, MOST, 1),
            (MOST + 1, 4000, 1),
            (2 * MOST + 3, 4000, 3),
        ] {
            let (found, readings) = read(keys, page);
            let all = (0..keys)
                .filter(|it| *it != 3)
                .map(|it| format!("/{it:06}"));
            assert!(found.iter().cloned().eq(all), "{keys}: {}", found.len());
            assert!(readings.abs_diff(expected) <= 1, "{keys}: {readings}");
        }
    }

    #[test]
    fn another_revision_is_another_window() {
        let mut window = Window::default();
        assert!(!window.has(1, None));
        window = Window::new(1, None);
        window.take(put(1));
        assert!(window.has(1, None) && window.has(1, Some("/000001")));
        assert!(!window.has(2, None));
        window = Window::new(1, Some("/000001"));
        assert!(!window.has(1, None));
    }

    #[test]
    fn long_keys_are_fewer() {
        let mut window = Window::new(1, None);
        for number in 0..10_000 {
            window.take(Op::Put(Entry {
                key: format!("/{number:05}{}", "x".repeat(1994)),
                value: Bytes::new(),
                ttl: None,
            }));
        }
        assert!(window.prints.len() < 9_000 && window.bytes <= MOST_BYTES);
        assert!(window.bound.is_some());
    }
}
