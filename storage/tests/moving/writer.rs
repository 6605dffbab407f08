//! Writers that keep a book of what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use rand::RngExt;
use tokio::task::JoinHandle;

use crate::tenant::is_old_revision;

/// What a key may have: exactly one value, unless the last write was not answered. `None`: it
/// may be absent.
pub type Book = BTreeMap<String, BTreeSet<Option<Vec<u8>>>>;

const WRITERS: usize = 4;
const KEYS: usize = 60;
/// Long enough that none ends within a test.
const TTL: i64 = 600;

/// Several writers, each with keys of its own.
pub struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Book>>,
}

impl Writers {
    pub fn start(client: &Client, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let tasks = (0..WRITERS).map(|number| {
            let (stop, written) = (stop.clone(), written.clone());
            let writer = Writer {
                client: client.clone(),
                prefix: prefix.to_owned(),
                number,
                book: Book::new(),
                revisions: BTreeMap::new(),
            };
            tokio::spawn(async move { writer.run(&stop, &written).await })
        });
        let tasks = tasks.collect();
        Writers {
            stop,
            written,
            tasks,
        }
    }

    /// Writes that were acknowledged up to now.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub async fn wait_for(&self, writes: u64) {
        while self.written() < writes {
            assert!(
                self.tasks.iter().any(|task| !task.is_finished()),
                "no writer is left"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Whether all of them ended because a write was refused.
    pub fn are_refused(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }

    pub async fn end(self) -> Book {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Book::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

struct Writer {
    client: Client,
    prefix: String,
    number: usize,
    book: Book,
    revisions: BTreeMap<String, i64>,
}

impl Writer {
    /// Until it is stopped or a write fails.
    async fn run(mut self, stop: &AtomicBool, written: &AtomicU64) -> Book {
        let mut count = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            let key = {
                let mut random = rand::rng();
                format!("/pods/w{}/k{}", self.number, random.random_range(0..KEYS))
            };
            if self.write(&key, count).await.is_err() {
                break;
            }
            written.fetch_add(1, Ordering::Relaxed);
        }
        self.book
    }

    /// Creates, updates or deletes a key, some with a lease, as an API server does.
    async fn write(&mut self, key: &str, count: u64) -> Result<(), etcd_client::Error> {
        let full = format!("{}{key}", self.prefix);
        let revision = self.revisions.get(key).copied().unwrap_or(0);
        let deletes = revision > 0 && count.is_multiple_of(5);
        let size = 20 + usize::try_from(count % 7).unwrap() * 300;
        let mut value = format!("{key} {count} ").into_bytes();
        value.resize(value.len() + size, b'x');
        let next = (!deletes).then(|| value.clone());
        // Until the answer comes it may have happened.
        let allowed = self
            .book
            .entry(key.to_owned())
            .or_insert_with(|| [None].into());
        allowed.insert(next.clone());
        let options = match count % 11 {
            0 => {
                let lease = loop {
                    match self.client.lease_grant(TTL, None).await {
                        Err(error) if is_old_revision(&error) => {}
                        done => break done?.id(),
                    }
                };
                Some(PutOptions::new().with_lease(lease))
            }
            _ => None,
        };
        let unchanged = Compare::mod_revision(full.clone(), CompareOp::Equal, revision);
        let change = match deletes {
            true => TxnOp::delete(full.clone(), None),
            false => TxnOp::put(full.clone(), value, options),
        };
        let mut txn = Txn::new().when([unchanged]).and_then([change]);
        if revision > 0 {
            txn = txn.or_else([TxnOp::get(full, None)]);
        }
        let done = loop {
            match self.client.txn(txn.clone()).await {
                Err(error) if is_old_revision(&error) => {}
                done => break done?,
            }
        };
        if !done.succeeded() {
            // kine says so when its database refuses a write, for nobody else writes the key.
            return Err(etcd_client::Error::Internal(format!("{key} is refused")));
        }
        let at = done.header().unwrap().revision();
        match deletes {
            true => self.revisions.remove(key),
            false => self.revisions.insert(key.to_owned(), at),
        };
        self.book.insert(key.to_owned(), [next].into());
        Ok(())
    }
}

/// Writes that were lost, or that nobody made.
pub fn differences(book: &Book, found: &BTreeMap<String, (Vec<u8>, i64)>) -> Vec<String> {
    let mut wrong = Vec::new();
    let keys: BTreeSet<&String> = book.keys().chain(found.keys()).collect();
    for key in keys {
        let value = found.get(key).map(|(value, _)| value.clone());
        let allowed = book.get(key);
        if !allowed.is_some_and(|allowed| allowed.contains(&value)) {
            let text = |value: &Option<Vec<u8>>| {
                value
                    .as_ref()
                    .map(|it| String::from_utf8_lossy(&it[..it.len().min(40)]).into_owned())
            };
            let allowed: Vec<_> = allowed.into_iter().flatten().map(text).collect();
            wrong.push(format!("{key}: {:?} instead of {allowed:?}", text(&value)));
        }
    }
    wrong
}
