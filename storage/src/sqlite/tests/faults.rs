//! Commits that fail, and commits of which nobody can say whether they have.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::super::faults::Fault;
use super::*;
use crate::seal::Sealing;
use crate::{Watch, WatchItem};

struct Failing {
    log: Arc<Sqlite>,
    store: Store,
    _directory: TempDir,
}

async fn failing() -> Failing {
    let directory = TempDir::new().unwrap();
    let log = Sqlite::open(directory.path(), Sealing::default()).await;
    let log = Arc::new(log.unwrap());
    Failing {
        store: Store::new(log.clone()),
        log,
        _directory: directory,
    }
}

impl Failing {
    fn plan(&self, faults: &[Fault]) {
        self.log.shared.faults.plan(faults);
    }

    async fn put(&self, key: &str) -> Result<Revision, Error> {
        let put = self.store.put(key, key.to_owned().into(), Expect::Absent);
        put.await.map(|entry| entry.modified)
    }
}

/// Counts the lines that the writer says, errors and warnings and what is for information.
#[derive(Clone, Default)]
struct Lines(Arc<[AtomicUsize; 3]>);

impl Lines {
    fn counted(&self) -> [usize; 3] {
        [0, 1, 2].map(|at| self.0[at].load(Ordering::Acquire))
    }
}

impl Subscriber for Lines {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.is_event() && of.target().ends_with("sqlite::writer")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let at = match *event.metadata().level() {
            Level::ERROR => 0,
            Level::WARN => 1,
            _ => 2,
        };
        self.0[at].fetch_add(1, Ordering::AcqRel);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The keys and revisions of the changes that a watch gives, up to a revision.
async fn seen(watch: &mut Watch, upto: Revision) -> Vec<(String, u64)> {
    let mut seen = Vec::new();
    loop {
        let item = tokio::time::timeout(Duration::from_secs(20), watch.next());
        let item = item.await.expect("a change within 20 s");
        if let WatchItem::Change(change) = item.unwrap().unwrap() {
            seen.push((change.key().to_owned(), change.revision().0));
            if change.revision() >= upto {
                return seen;
            }
        }
    }
}

/// The write is there although its writer was told that it was not confirmed; watchers hear
/// of it once, before what comes after it, and nothing is numbered twice.
#[tokio::test]
async fn a_commit_that_happened_although_it_failed_is_caught_up_with() {
    let failing = failing().await;
    let first = failing.put("/a").await.unwrap();
    let mut watch = failing.store.watch("/", first).await.unwrap();
    failing.plan(&[Fault::AfterCommit]);
    let unsure = failing.put("/b").await.unwrap_err();
    assert!(matches!(unsure, Error::Unavailable(_)), "{unsure:?}");
    assert!(failing.log.shared.faults.are_over());
    let (standing, _) = failing.store.get("/b").await.unwrap();
    assert_eq!(standing.unwrap().modified.0, first.0 + 1);
    // Who looks and repeats finds that it is there.
    let again = failing.put("/b").await.unwrap_err();
    assert!(matches!(again, Error::Conflict { current: Some(_) }));
    let next = failing.put("/c").await.unwrap();
    let expected = [
        ("/b".to_owned(), first.0 + 1),
        ("/c".to_owned(), first.0 + 2),
    ];
    assert_eq!(seen(&mut watch, next).await, expected);
}

/// Nobody writes anything more, and nobody has to: who reads the database is told of a
/// revision for which the feed must not be waited for in vain.
#[tokio::test]
async fn a_commit_that_happened_is_told_without_another_write() {
    let failing = failing().await;
    let first = failing.put("/a").await.unwrap();
    let mut watch = failing.store.watch("/", first).await.unwrap();
    failing.plan(&[Fault::AfterCommit, Fault::Opening]);
    failing.put("/b").await.unwrap_err();
    let upto = failing.store.revision().await.unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(5), seen(&mut watch, upto));
    assert_eq!(seen.await.unwrap(), [("/b".to_owned(), first.0 + 1)]);
}

/// An advance leaves no changes to catch up with: it is followed all the same, whether it
/// happened or not.
#[tokio::test]
async fn an_advance_that_failed_stops_nothing() {
    for (fault, happened) in [(Fault::AfterCommit, true), (Fault::BeforeCommit, false)] {
        let failing = failing().await;
        let first = failing.put("/a").await.unwrap();
        let mut watch = failing.store.watch("/", first).await.unwrap();
        failing.plan(&[fault]);
        let to = Revision(first.0 + 100);
        let unsure = failing.store.advance(to).await.unwrap_err();
        assert!(matches!(unsure, Error::Unavailable(_)), "{unsure:?}");
        let next = failing.put("/b").await.unwrap();
        let expected = if happened { to.next() } else { first.next() };
        assert_eq!(next, expected);
        assert_eq!(seen(&mut watch, next).await, [("/b".to_owned(), next.0)]);
        let late = failing.store.watch("/", first).await.err();
        let compacted = matches!(late, Some(Error::Compacted { .. }));
        assert_eq!(compacted, happened, "{late:?}");
        failing.store.close().await;
    }
}

/// Whoever keeps what was there since the last compaction hears of one that was told to fail.
#[tokio::test]
async fn a_compaction_that_failed_and_happened_is_known() {
    let failing = failing().await;
    let first = failing.put("/a").await.unwrap();
    let second = failing.put("/b").await.unwrap();
    failing.plan(&[Fault::AfterCommit]);
    failing.store.compact(second).await.unwrap_err();
    failing.put("/c").await.unwrap();
    assert_eq!(failing.store.compacted(), second);
    let late = failing.store.watch("/", first).await.err();
    assert!(matches!(late, Some(Error::Compacted { .. })), "{late:?}");
    failing.store.close().await;
}

/// The number of what was not written is used again, and watchers see no gap.
#[tokio::test]
async fn a_commit_that_did_not_happen_leaves_nothing() {
    let failing = failing().await;
    let first = failing.put("/a").await.unwrap();
    let mut watch = failing.store.watch("/", first).await.unwrap();
    failing.plan(&[Fault::BeforeCommit]);
    let refused = failing.put("/b").await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    assert_eq!(failing.store.get("/b").await.unwrap().0, None);
    let next = failing.put("/b").await.unwrap();
    let expected = [("/b".to_owned(), first.0 + 1)];
    assert_eq!(seen(&mut watch, next).await, expected);
}

/// Until the database can be opened again nothing is written, and then what was left open
/// is settled first: by a deletion and a compaction as by a write.
#[tokio::test]
async fn an_error_that_passes_is_survived_by_what_comes_next() {
    let failing = failing().await;
    let first = failing.put("/a").await.unwrap();
    let mut watch = failing.store.watch("/", first).await.unwrap();
    let mut opening = vec![Fault::Opening; 10_000];
    opening[0] = Fault::AfterCommit;
    failing.plan(&opening);
    failing.put("/b").await.unwrap_err();
    let refused = failing.put("/c").await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    let refused = failing.store.compact(first).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    // Reads have their own connections.
    assert!(failing.store.get("/a").await.unwrap().0.is_some());
    failing.log.shared.faults.end();
    failing.store.compact(first).await.unwrap();
    // Before anything else was written.
    let expected = [("/b".to_owned(), first.0 + 1)];
    assert_eq!(seen(&mut watch, Revision(first.0 + 1)).await, expected);
    failing.plan(&[Fault::AfterCommit]);
    let gone = failing.store.delete("/b", Revision(first.0 + 1)).await;
    assert!(matches!(gone, Err(Error::Unavailable(_))), "{gone:?}");
    assert_eq!(failing.store.get("/b").await.unwrap().0, None);
    let next = failing.put("/b").await.unwrap();
    assert_eq!(next.0, first.0 + 3);
    let expected = [
        ("/b".to_owned(), first.0 + 2),
        ("/b".to_owned(), first.0 + 3),
    ];
    assert_eq!(seen(&mut watch, next).await, expected);
    failing.store.close().await;
}

/// One line for the transaction, one that it cannot be opened, and one that it can again:
/// whether writes ask for it or nobody does.
#[tokio::test]
async fn a_database_that_stays_away_is_a_line_and_not_one_for_each_attempt() {
    let lines = Lines::default();
    // With one subscriber alone, what another thread says first is wanted by nobody for ever.
    let _two = tracing::Dispatch::new(lines.clone());
    // The writer is on this thread, too.
    let _guard = tracing::subscriber::set_default(lines.clone());
    let failing = failing().await;
    failing.plan(&[Fault::BeforeCommit]);
    failing.plan(&[Fault::Opening; 50]);
    failing.put("/a").await.unwrap_err();
    for _ in 0..46 {
        failing.put("/b").await.unwrap_err();
    }
    let began = std::time::Instant::now();
    while !failing.log.shared.faults.are_over() {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    failing.put("/c").await.unwrap();
    assert_eq!(lines.counted(), [1, 1, 1]);
}

/// All writes of one commit are told the same.
#[tokio::test]
async fn nobody_in_a_commit_that_failed_is_acknowledged() {
    let failing = failing().await;
    failing.plan(&[Fault::BeforeCommit]);
    let keys: Vec<String> = (0..8).map(|n| format!("/{n}")).collect();
    let writes = keys.iter().map(|key| failing.put(key));
    let answers = futures::future::join_all(writes).await;
    for (key, answer) in keys.iter().zip(&answers) {
        let (standing, _) = failing.store.get(key).await.unwrap();
        let standing = standing.map(|entry| entry.modified);
        assert_eq!(answer.as_ref().ok(), standing.as_ref(), "{key}");
    }
    assert!(answers.iter().any(Result::is_err));
}
