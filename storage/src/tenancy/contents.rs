//! One tenant's keys and values in a datastore, whatever that is: etcd, the table of kine in a
//! SQL database, or kine's bucket in NATS.
//!
//! Keys are relative to the tenant's prefix and begin with a slash. What is kine's own is no
//! content: `compact_rev_key`, `gap-*` and `compact_rev_key_apiserver` are outside of every
//! prefix, and [`HEALTH`] is left out.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use super::TenancyError;

pub(super) mod kine;

/// The key that kine makes for the API server's health check, wherever it runs.
pub const HEALTH: &str = "/registry/health";

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Without the prefix; begins with a slash.
    pub key: String,
    /// As the API server wrote it.
    pub value: Bytes,
    /// Seconds that are left, if the key has a lease. Behind kine with a SQL database, which
    /// does not note when a key was written, all of the lease's.
    pub ttl: Option<u64>,
}

impl Entry {
    /// What it takes, about.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// Entries in the order of their keys, or, in NATS, of their revisions.
#[derive(Debug, Default)]
pub struct Page {
    /// No key twice, in this page or another.
    pub entries: Vec<Entry>,
    /// After which key the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// It has this value now.
    Put(Entry),
    /// It is gone.
    Delete(String),
}

impl Op {
    /// Which key.
    pub fn key(&self) -> &str {
        match self {
            Op::Put(entry) => &entry.key,
            Op::Delete(key) => key,
        }
    }

    /// What it takes, about.
    pub fn bytes(&self) -> usize {
        match self {
            Op::Put(entry) => entry.bytes(),
            Op::Delete(key) => key.len(),
        }
    }
}

/// Changes after a revision.
#[derive(Debug, Default)]
pub struct Changes {
    /// In their order; of each key the last one alone.
    pub ops: Vec<Op>,
    /// Up to which revision these are all.
    pub upto: u64,
    /// Whether there are more for now.
    pub more: bool,
}

/// What a comparison needs of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    /// As in [`Entry`].
    pub key: String,
    /// SHA-256 of the value.
    pub value: [u8; 32],
    /// Bytes of the value.
    pub length: u64,
    /// Whether it has a lease.
    pub leased: bool,
}

impl Print {
    /// Of an entry.
    pub fn of(entry: &Entry) -> Self {
        Print {
            key: entry.key.clone(),
            value: sha256(&entry.value),
            length: entry.value.len() as u64,
            leased: entry.ttl.is_some(),
        }
    }
}

/// How much there is of a tenant's contents, as they are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of keys, with their prefix, and values.
    pub bytes: u64,
    /// Keys.
    pub objects: u64,
}

/// The hash of a value.
pub fn sha256(value: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, value).as_ref());
    hash
}

/// Prints in the order of their keys.
#[derive(Debug, Default)]
pub struct Prints {
    /// No key twice.
    pub prints: Vec<Print>,
    /// After which key the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// Why contents were not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// The datastore has forgotten the history that was asked for.
    #[error("the datastore has compacted the revisions that were to be read")]
    Compacted,
    /// Everything else.
    #[error(transparent)]
    Failed(#[from] TenancyError),
}

/// The contents of one tenant, as one reader or writer has them.
#[async_trait]
pub trait Contents: Send {
    /// The newest revision of the datastore; of kine's table in a SQL database.
    async fn newest(&mut self) -> Result<u64, ContentsError>;

    /// How many keys there are.
    async fn count(&mut self) -> Result<u64, ContentsError>;

    /// How much there is of keys and values, without history and whatever else the datastore
    /// needs for them: so it is less after deletions, in each of them. In pages, for a table
    /// may be large; etcd and NATS send all values: ask rarely. It is added up in `so_far`,
    /// which has a part of it for whoever stops, or if it fails.
    async fn usage(&mut self, so_far: &mut Usage) -> Result<(), ContentsError>;

    /// The next entries after a key, as they are now: at least one, and not many more bytes
    /// than these. A key is one with which a page of this reader ended, and the last of those.
    async fn page(&mut self, after: Option<&str>, bytes: usize) -> Result<Page, ContentsError>;

    /// The next prints after a key, at a revision that is not compacted.
    async fn prints(&mut self, at: u64, after: Option<&str>) -> Result<Prints, ContentsError>;

    /// These entries as they are now; those that are not there are left out. At most
    /// [`MOST_KEYS`], and not many more bytes than these: whoever misses some asks again.
    async fn get(&mut self, keys: &[String], bytes: usize) -> Result<Vec<Entry>, ContentsError>;

    /// After which revision changes have to be followed by who begins to read pages now. Not
    /// always the newest: what is being written may have an older one.
    async fn begin(&mut self) -> Result<u64, ContentsError>;

    /// The next changes after a revision, of not many more bytes than these. `settled`: nobody
    /// writes any more, so that revisions that are missing will not come.
    async fn changes(
        &mut self,
        after: u64,
        bytes: usize,
        settled: bool,
    ) -> Result<Changes, ContentsError>;

    /// Whether changes since [`Contents::begin`] can be read however long ago that was, and
    /// pages are of that time: those are not to be followed before the last page.
    fn is_followed_late(&self) -> bool {
        false
    }

    /// Carries out changes, each as if it were the first of its key. No key twice.
    async fn apply(&mut self, ops: &[Op]) -> Result<(), ContentsError>;

    /// Deletes everything.
    async fn wipe(&mut self) -> Result<(), ContentsError>;

    /// Makes the newest revision at least this one and gives what it is then. All that is
    /// written afterwards has a greater one.
    async fn raise(&mut self, to: u64) -> Result<u64, ContentsError>;

    /// Lets nobody read history up to this revision, which is another datastore's: a list
    /// that goes on or a watch from there has to begin anew.
    async fn seal(&mut self, revision: u64) -> Result<(), ContentsError>;

    /// Takes leave of the datastore.
    async fn close(self: Box<Self>) {}
}

/// Keys that are asked for at a time.
pub const MOST_KEYS: usize = 500;

/// The last change of each key, in the order of those.
pub(crate) fn last_of_each(ops: Vec<Op>) -> Vec<Op> {
    let mut last: HashMap<String, usize> = HashMap::new();
    for (index, op) in ops.iter().enumerate() {
        last.insert(op.key().to_owned(), index);
    }
    let keep = |(index, op): (usize, Op)| (last.get(op.key()) == Some(&index)).then_some(op);
    ops.into_iter().enumerate().filter_map(keep).collect()
}

/// The part of a key after the prefix, if the key is content.
pub(crate) fn relative<'a>(prefix: &str, key: &'a str) -> Option<&'a str> {
    let rest = key
        .strip_prefix(prefix)
        .filter(|rest| rest.starts_with('/'))?;
    (key != HEALTH).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_content() {
        assert_eq!(relative("/registry", "/registry/pods/x"), Some("/pods/x"));
        for other in [
            HEALTH,
            "/registry",
            "/registryx/y",
            "/other/x",
            "compact_rev_key",
            "gap-7",
        ] {
            assert_eq!(relative("/registry", other), None, "{other}");
        }
        assert_eq!(relative("/s", "/s/health"), Some("/health"));
    }

    #[test]
    fn of_each_key_the_last_change() {
        let put = |key: &str, value: &'static str| {
            Op::Put(Entry {
                key: key.to_owned(),
                value: Bytes::from_static(value.as_bytes()),
                ttl: None,
            })
        };
        let delete = |key: &str| Op::Delete(key.to_owned());
        let ops = vec![
            put("/a", "1"),
            put("/b", "1"),
            delete("/a"),
            put("/b", "2"),
            put("/c", "1"),
        ];
        assert_eq!(
            last_of_each(ops),
            [delete("/a"), put("/b", "2"), put("/c", "1")]
        );
    }
}
