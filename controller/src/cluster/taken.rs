//! How much of a cache the objects of each namespace take, and who gives way when there is
//! no room.

use std::collections::{HashMap, HashSet};

/// What is held, by namespace.
#[derive(Debug, Default)]
pub struct Taken {
    bytes: usize,
    namespaces: HashMap<String, Share>,
    /// Namespaces of which something was left out.
    in_part: HashSet<String>,
}

#[derive(Debug, Default)]
struct Share {
    objects: usize,
    bytes: usize,
}

/// How much is held at most.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Of one namespace.
    pub objects: usize,
    /// Of all together; of one namespace half of it.
    pub bytes: usize,
}

/// Whether there is room for an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Free,
    /// Once one of this namespace has gone.
    Of(String),
    /// There is none: its own namespace has most, or its share.
    None,
}

impl Taken {
    /// Whether an object of these bytes can be held of this namespace.
    pub fn room(&self, namespace: &str, bytes: usize, most: Most) -> Room {
        let own = self.namespaces.get(namespace);
        let (objects, own) = own.map_or((0, 0), |own| (own.objects, own.bytes));
        let own = own.saturating_add(bytes);
        if objects >= most.objects || own > most.bytes / 2 {
            return Room::None;
        }
        if self.bytes.saturating_add(bytes) <= most.bytes {
            return Room::Free;
        }
        let largest = self.namespaces.iter().max_by_key(|(_, share)| share.bytes);
        match largest {
            Some((of, share)) if share.bytes > own => Room::Of(of.clone()),
            _ => Room::None,
        }
    }

    /// An object is held.
    pub fn add(&mut self, namespace: &str, bytes: usize) {
        let share = self.namespaces.entry(namespace.to_owned()).or_default();
        share.objects += 1;
        share.bytes += bytes;
        self.bytes += bytes;
    }

    /// An object is held no longer.
    pub fn remove(&mut self, namespace: &str, bytes: usize) {
        let Some(share) = self.namespaces.get_mut(namespace) else {
            return;
        };
        share.objects -= 1;
        share.bytes -= bytes;
        self.bytes -= bytes;
        if share.objects == 0 {
            self.namespaces.remove(namespace);
        }
    }

    /// An object of this namespace is not held for want of room.
    pub fn left_out(&mut self, namespace: &str) {
        self.in_part.insert(namespace.to_owned());
    }

    /// A list of these namespaces begins to be held.
    pub fn is_listed(&mut self, namespaces: impl Fn(&str) -> bool) {
        self.in_part.retain(|namespace| !namespaces(namespace));
    }

    /// Whether nothing of a namespace was left out.
    pub fn is_whole(&self, namespace: &str) -> bool {
        !self.in_part.contains(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most {
        objects: 100,
        bytes: 100,
    };

    #[test]
    fn the_namespace_that_has_most_gives_way() {
        let mut taken = Taken::default();
        for _ in 0..5 {
            assert_eq!(taken.room("large", 10, MOST), Room::Free);
            taken.add("large", 10);
        }
        assert_eq!(taken.room("large", 10, MOST), Room::None, "half for one");
        for namespace in ["a", "b"] {
            taken.add(namespace, 20);
        }
        assert_eq!(taken.room("c", 10, MOST), Room::Free);
        taken.add("c", 10);
        assert_eq!(taken.room("c", 10, MOST), Room::Of("large".to_owned()));
        assert_eq!(taken.room("c", 50, MOST), Room::None, "it would have most");
        taken.remove("large", 10);
        assert_eq!(taken.room("c", 10, MOST), Room::Free);
    }

    #[test]
    fn what_was_left_out_is_known_until_the_next_list() {
        let mut taken = Taken::default();
        taken.left_out("a");
        taken.left_out("b");
        taken.is_listed(|namespace| namespace == "a");
        assert!(taken.is_whole("a") && !taken.is_whole("b") && taken.is_whole("c"));
    }
}
