//! What admission has to say of a request (R7.14), within bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Annotations of one line that this server makes itself, and as many of others; bytes of one
/// and of all of each.
const ANNOTATIONS: usize = 64;
const ANNOTATION: usize = 10 * 1024;
const ALL_ANNOTATIONS: usize = 32 * 1024;
/// What one webhook or policy may have of those of others: its share.
const SHARE: Share = Share {
    count: 16,
    bytes: 12 * 1024,
};

/// What admission has to say of a request (R7.14); clones share it. Those that are too many
/// are left out: nobody takes the place of what this server says itself.
#[derive(Clone, Debug, Default)]
pub struct Annotations(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    own: BTreeMap<String, String>,
    others: BTreeMap<String, String>,
    shares: BTreeMap<String, Share>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    count: usize,
    bytes: usize,
}

impl Share {
    fn of(all: &BTreeMap<String, String>) -> Self {
        Self {
            count: all.len(),
            bytes: all.iter().map(|(key, value)| key.len() + value.len()).sum(),
        }
    }

    fn and(self, bytes: usize) -> Self {
        Self {
            count: self.count + 1,
            bytes: self.bytes + bytes,
        }
    }

    fn within(self, most: Self) -> bool {
        self.count <= most.count && self.bytes <= most.bytes
    }
}

impl Annotations {
    const ALL: Share = Share {
        count: ANNOTATIONS,
        bytes: ALL_ANNOTATIONS,
    };

    /// Adds one of this server; the first of a key stays.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = cut(key.into(), value.into());
        let own = &mut self.0.lock().own;
        let with = Share::of(own).and(key.len() + value.len());
        if with.within(Self::ALL) {
            own.entry(key).or_insert(value);
        }
    }

    /// Adds one, as `WHO/KEY`, of a webhook or a policy.
    pub fn add_of(&self, who: &str, key: &str, value: impl Into<String>) {
        let (key, value) = cut(format!("{who}/{key}"), value.into());
        let bytes = key.len() + value.len();
        let kept = &mut *self.0.lock();
        if kept.others.contains_key(&key) || !Share::of(&kept.others).and(bytes).within(Self::ALL) {
            return;
        }
        let share = kept.shares.get(who).copied().unwrap_or_default();
        if share.and(bytes).within(SHARE) {
            kept.shares.insert(who.to_owned(), share.and(bytes));
            kept.others.insert(key, value);
        }
    }

    /// All of them, by key.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.by_rank().into_iter().collect()
    }

    /// Each key once, what this server says itself first: who has no room for all of them
    /// leaves out those of others.
    pub fn by_rank(&self) -> Vec<(String, String)> {
        let kept = self.0.lock();
        // What others say in the name of this server does not count.
        let others = kept.others.iter();
        let others = others.filter(|(key, _)| !kept.own.contains_key(*key));
        let all = kept.own.iter().chain(others);
        all.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// All of them, as JSON; nothing if there are none.
    pub fn to_json(&self) -> Option<String> {
        let all = self.all();
        (!all.is_empty()).then(|| serde_json::json!(all).to_string())
    }
}

fn cut(key: String, value: String) -> (String, String) {
    use apiservice::told::{self, MAX_TEXT};
    (told::cut(key, MAX_TEXT), told::cut(value, ANNOTATION))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No webhook takes the place of others, nor of what is said of it.
    #[test]
    fn each_has_its_share_of_annotations() {
        let annotations = Annotations::default();
        for n in 0..1000 {
            let text = "x".repeat(if n == 0 { ANNOTATION } else { 100 });
            annotations.add_of("loud.example.com", &n.to_string(), text);
        }
        annotations.add_of("quiet.example.com", "a", "b");
        annotations.add_of("failed-open.example.com", "round_0", "a lie");
        annotations.add("failed-open.example.com/round_0", "loud.example.com");
        let all: BTreeMap<String, String> =
            serde_json::from_str(&annotations.to_json().unwrap()).unwrap();
        assert_eq!(all["quiet.example.com/a"], "b");
        assert_eq!(all["failed-open.example.com/round_0"], "loud.example.com");
        let loud = all.keys().filter(|key| key.starts_with("loud"));
        assert_eq!(loud.count(), SHARE.count);
        for n in 0..1000 {
            annotations.add_of(&n.to_string(), "a", "x".repeat(ANNOTATION));
            annotations.add(n.to_string(), "x".repeat(ANNOTATION));
        }
        assert!(annotations.to_json().unwrap().len() < 3 * ALL_ANNOTATIONS);
    }
}
