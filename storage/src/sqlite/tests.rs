//! The conformance suite, and what only a database on disk can do.

#![allow(
    clippy::disallowed_methods,
    reason = "tests start writers and readers side by side"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use super::files::{LOG, options};
use super::turns::HISTORIANS;
use super::{FILE, LOCK, Sqlite};
use crate::log::Turn;
use crate::{Error, Expect, Revision, Store, sqlite};

struct Opened {
    store: Store,
    _directory: TempDir,
}

async fn fresh() -> Opened {
    let directory = TempDir::new().unwrap();
    Opened {
        store: sqlite::open(directory.path()).await.unwrap(),
        _directory: directory,
    }
}

crate::log::conformance::suite!(fresh());

mod faults;
mod seals;

/// The same with values that are encrypted.
mod sealed {
    use super::*;

    async fn fresh() -> Opened {
        let directory = TempDir::new().unwrap();
        let opened = sqlite::open_sealed(directory.path(), seals::with(&[Some(1)])).await;
        Opened {
            store: opened.unwrap(),
            _directory: directory,
        }
    }

    crate::log::conformance::suite!(fresh());
}

/// A store whose history is long: so many versions of a few keys `/k/N`, with values of so
/// many bytes. Written past the store, which would take minutes for it.
async fn long_lived(directory: &TempDir, versions: u64, keys: u64, bytes: u64) -> Store {
    sqlite::open(directory.path()).await.unwrap().close().await;
    let last = versions + 1;
    let versions = format!(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) \
         INSERT INTO version SELECT i, '/k/' || ((i - 2) % {keys}), 2 + (i - 2) % {keys}, \
         iif(i - {keys} >= 2, i - {keys}, NULL), iif(i + {keys} <= {last}, i + {keys}, NULL), \
         zeroblob({bytes}) FROM n"
    );
    let revision = format!("UPDATE store SET revision = {last}");
    let mut connection = options(directory.path()).connect().await.unwrap();
    for statement in [versions, revision] {
        let statement = sqlx::AssertSqlSafe(statement);
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.unwrap();
    }
    connection.close().await.unwrap();
    sqlite::open(directory.path()).await.unwrap()
}

/// The index of versions, as files of before have it. How it was made.
async fn index_of_before(directory: &TempDir) -> &'static str {
    const MADE: &str = "CREATE INDEX history ON version (key, revision)";
    sql(directory, "DROP INDEX history").await;
    sql(directory, MADE).await;
    MADE
}

/// How the index of versions was made.
async fn index(connection: &mut sqlx::SqliteConnection) -> String {
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'history'";
    let sql = sqlx::query_scalar(sql).fetch_one(connection).await;
    sql.unwrap()
}

async fn sql(directory: &TempDir, statement: &'static str) {
    let mut connection = options(directory.path()).connect().await.unwrap();
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    let identity = store.identity();
    let a = store.put("/a", "1".into(), Expect::Absent).await.unwrap();
    let b = store.put("/b", "1".into(), Expect::Absent).await.unwrap();
    let gone = store.delete("/b", b.modified).await.unwrap();
    store.compact(Revision(2)).await.unwrap();
    store.close().await;

    let store = sqlite::open(directory.path()).await.unwrap();
    assert_eq!(store.identity(), identity);
    assert_eq!(store.get("/a").await.unwrap(), (Some(a), gone));
    assert_eq!(store.compacted(), Revision(2));
    // The newest change was a deletion, whose row compaction takes away.
    store.compact(gone).await.unwrap();
    store.close().await;
    let store = sqlite::open(directory.path()).await.unwrap();
    let c = store.put("/c", "1".into(), Expect::Absent).await.unwrap();
    assert_eq!(c.modified, Revision(gone.0 + 1));
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    let second = sqlite::open(directory.path()).await.err();
    assert!(matches!(second, Some(Error::InUse(_))), "{second:?}");
    store.close().await;
    sqlite::open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn the_lock_outlives_a_store_that_is_dropped_with_writes_under_way() {
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.put("/a", "1".into(), Expect::Absent).await }
    });
    tokio::task::yield_now().await;
    drop(store);
    write.await.unwrap().unwrap();
    let given_back = async {
        loop {
            match sqlite::open(directory.path()).await {
                Err(Error::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => break opened.unwrap(),
            }
        }
    };
    // The connections end on threads of their own.
    let opened = tokio::time::timeout(Duration::from_secs(30), given_back).await;
    let store = opened.expect("the lock was not given back");
    assert!(store.get("/a").await.unwrap().0.is_some());
}

#[tokio::test]
async fn damaged_and_foreign_files_are_refused() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join(FILE), vec![7; 100_000]).unwrap();
    let error = sqlite::open(directory.path()).await.err();
    assert!(matches!(error, Some(Error::Corrupt(_))), "{error:?}");

    let directory = TempDir::new().unwrap();
    sql(&directory, "PRAGMA application_id = 17").await;
    let error = sqlite::open(directory.path()).await.err();
    assert!(matches!(error, Some(Error::Corrupt(_))), "{error:?}");
}

/// A bit that flips anywhere in the structure of the file is found when it is opened.
#[tokio::test]
async fn a_flipped_bit_is_found_at_the_start() {
    const PAGE: usize = 8192;
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    for n in 0..60 {
        let value = Bytes::from(vec![n; 1_000 * usize::from(n)]);
        store
            .put(&format!("/k/{n:02}"), value, Expect::Absent)
            .await
            .unwrap();
    }
    store.close().await;
    let file = directory.path().join(FILE);
    let whole = std::fs::read(&file).unwrap();
    let pages = whole.len() / PAGE;
    assert!(pages > 50, "{pages}");
    for page in (1..pages).step_by(7) {
        let mut damaged = whole.clone();
        damaged[page * PAGE] ^= 0x40;
        std::fs::write(&file, damaged).unwrap();
        let error = sqlite::open(directory.path()).await.err();
        assert!(
            matches!(error, Some(Error::Corrupt(_))),
            "page {page}: {error:?}"
        );
    }
    std::fs::write(&file, whole).unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), Revision(61));
}

#[tokio::test]
async fn a_newer_format_and_a_counter_set_back_are_refused() {
    for damage in [
        "PRAGMA user_version = 99",
        "UPDATE store SET revision = 1",
        "UPDATE store SET compacted = 99",
    ] {
        let directory = TempDir::new().unwrap();
        let store = sqlite::open(directory.path()).await.unwrap();
        store.put("/a", "1".into(), Expect::Absent).await.unwrap();
        store.close().await;
        sql(&directory, damage).await;
        let error = sqlite::open(directory.path()).await.err();
        assert!(matches!(error, Some(Error::Corrupt(_))), "{error:?}");
        // A refusal lets go of the directory.
        sql(&directory, "PRAGMA user_version = 1").await;
    }
}

#[tokio::test]
async fn compaction_makes_room() {
    let opened = fresh().await;
    let store = &opened.store;
    let value = Bytes::from(vec![1; 20_000]);
    let mut entry = store
        .put("/a", value.clone(), Expect::Absent)
        .await
        .unwrap();
    let mut sizes = Vec::new();
    for round in 0..600 {
        let expect = Expect::At(entry.modified);
        entry = store.put("/a", value.clone(), expect).await.unwrap();
        if round % 100 == 99 {
            store.compact(entry.modified).await.unwrap();
            let file = opened._directory.path().join(FILE);
            sizes.push(std::fs::metadata(file).unwrap().len());
        }
    }
    let (second, last) = (sizes[1], sizes[5]);
    assert!(last <= second * 2, "the file grows without end: {sizes:?}");
}

#[tokio::test]
async fn what_the_database_refuses_is_not_acknowledged_and_later_writes_go_on() {
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    let a = store.put("/a", "1".into(), Expect::Absent).await.unwrap();
    sql(
        &directory,
        "CREATE TRIGGER full BEFORE INSERT ON version WHEN new.key LIKE '/full%' \
         BEGIN SELECT raise(ABORT, 'no space'); END",
    )
    .await;
    let mut watch = store.watch("/", a.modified).await.unwrap();
    let (refused, beside) = tokio::join!(
        store.put("/full", "1".into(), Expect::Absent),
        store.put("/b", "1".into(), Expect::Absent),
    );
    assert!(refused.is_err());
    assert_eq!(store.get("/full").await.unwrap().0, None);
    // They shared a commit or not; what was answered is what stands.
    let standing = store.get("/b").await.unwrap().0;
    assert_eq!(beside.ok(), standing);
    let c = store.put("/c", "1".into(), Expect::Absent).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&c.modified) {
        let item = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
        if let crate::WatchItem::Change(change) = item {
            seen.push(change.revision());
        }
    }
    let expected: Vec<_> = (a.modified.0 + 1..=c.modified.0).map(Revision).collect();
    assert_eq!(seen, expected);
    assert!(directory.path().join(LOCK).exists());
}

/// Who asked has left; what it held for the write is held until the queue is through, and
/// what has not begun is not done.
#[tokio::test]
async fn what_is_held_for_a_write_outlives_its_asker() {
    let opened = fresh().await;
    let room = std::sync::Arc::new(());
    let weak = std::sync::Arc::downgrade(&room);
    let held = crate::Held::new(room);
    {
        let put = opened
            .store
            .put_held("/a", "1".into(), Expect::Absent, held);
        // Asked once, and dropped.
        assert!(futures::FutureExt::now_or_never(put).is_none());
    }
    // The writer had no turn on this thread yet.
    assert!(weak.upgrade().is_some());
    while weak.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(opened.store.get("/a").await.unwrap().0.is_none());

    // A deletion is a write.
    let put = opened.store.put("/a", "1".into(), Expect::Absent).await;
    let room = std::sync::Arc::new(());
    let weak = std::sync::Arc::downgrade(&room);
    {
        let held = crate::Held::new(room);
        let at = put.unwrap().modified;
        let gone = opened.store.delete_held("/a", at, held);
        assert!(futures::FutureExt::now_or_never(gone).is_none());
    }
    assert!(weak.upgrade().is_some());
    while weak.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(opened.store.get("/a").await.unwrap().0.is_some());
}

/// R9.4, R9.6: while the database is held, one write waits in a transaction and others for
/// it. Those whose askers leave are not done when it is let go of; the others are.
#[tokio::test]
async fn a_write_whose_asker_left_is_not_done_later() {
    let opened = fresh().await;
    let mut other = options(opened._directory.path()).connect().await.unwrap();
    let begin = sqlx::query("BEGIN IMMEDIATE");
    begin.execute(&mut other).await.unwrap();
    let put = |key: &'static str| opened.store.put(key, "1".into(), Expect::Absent);
    let leaves = Duration::from_millis(300);
    let (first, later) = tokio::join!(
        tokio::time::timeout(leaves, put("/first")),
        tokio::time::timeout(leaves, put("/later")),
    );
    assert!(first.is_err() && later.is_err());
    let stays = put("/stays");
    let free = async {
        tokio::time::sleep(leaves).await;
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    };
    let (stays, ()) = tokio::join!(stays, free);
    let stays = stays.unwrap();
    for (key, there) in [("/first", false), ("/later", false), ("/stays", true)] {
        let (found, revision) = opened.store.get(key).await.unwrap();
        assert_eq!(found.is_some(), there, "{key}");
        assert_eq!(revision, stays.modified);
    }
}

/// As many readers of an older state as there are; who asks for the present one does not
/// wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_the_past_leave_connections_to_the_present() {
    let opened = fresh().await;
    let store = &opened.store;
    let value = Bytes::from(vec![1; 1 << 20]);
    for n in 0..64 {
        let key = format!("/k/{n}");
        store
            .put(&key, value.clone(), Expect::Absent)
            .await
            .unwrap();
    }
    let older = store.revision().await.unwrap();
    store.put("/a", "1".into(), Expect::Absent).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let read = || {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let page = store.range("/k/", None, None, Some(older)).await;
                page.unwrap();
            }
        })
    };
    let readers: Vec<_> = (0..50).map(|_| read()).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut took = Vec::new();
    for _ in 0..50 {
        let began = std::time::Instant::now();
        assert!(store.get("/a").await.unwrap().0.is_some());
        took.push(began.elapsed());
    }
    stop.cancel();
    for reader in readers {
        reader.await.unwrap();
    }
    // Some may have to wait for the machine.
    took.sort_unstable();
    assert!(took[40] < Duration::from_millis(200), "{took:?}");
}

/// The same of readers who leave before their answer: the database goes on with what was
/// asked until it is through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_the_past_who_leave_keep_their_turns() {
    let directory = TempDir::new().unwrap();
    long_lived(&directory, 300_000, 1, 8).await.close().await;
    let sqlite = Arc::new(
        Sqlite::open(directory.path(), Default::default())
            .await
            .unwrap(),
    );
    let store = Store::new(sqlite.clone());
    let published = store.revision().await.unwrap();
    let older = Revision(published.0 - 1);
    let stop = tokio_util::sync::CancellationToken::new();
    let read = |n: usize| {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let read = async {
                    match n % 2 {
                        0 => drop(store.range("/k/", None, Some(1), Some(older)).await),
                        _ => {
                            let changes = store.log().changes(
                                "/none/",
                                Revision(1),
                                published,
                                1,
                                Turn::Shared,
                            );
                            drop(changes.await);
                        }
                    }
                };
                let _ = tokio::time::timeout(Duration::from_millis(10), read).await;
            }
        })
    };
    let readers: Vec<_> = (0..50).map(read).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (mut took, mut all_taken) = (Vec::new(), 0);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let taken = sqlite.readers.size() as usize - sqlite.readers.num_idle();
        // One that is through may be on its way back.
        all_taken += usize::from(taken > HISTORIANS + 1);
        let began = std::time::Instant::now();
        assert!(store.get("/k/0").await.unwrap().0.is_some());
        took.push(began.elapsed());
    }
    stop.cancel();
    for reader in readers {
        reader.await.unwrap();
    }
    took.sort_unstable();
    assert!(took[40] < Duration::from_millis(200), "{took:?}");
    assert!(all_taken < 5, "{all_taken} of 50, {took:?}");
    store.close().await;
}

/// While all turns to look through history are taken, a cache is loaded and fed, and no
/// more than that.
#[tokio::test]
async fn who_feeds_a_cache_waits_for_no_readers_of_the_past() {
    let directory = TempDir::new().unwrap();
    long_lived(&directory, 100, 10, 8).await.close().await;
    let sqlite = Arc::new(
        Sqlite::open(directory.path(), Default::default())
            .await
            .unwrap(),
    );
    let store = Store::new(sqlite.clone());
    let turns = sqlite.shared.turns.shared.acquire_many(HISTORIANS as u32);
    let turns = turns.await.unwrap();
    let older = Revision(90);
    let second = Duration::from_secs(1);
    let read = async |store: &Store| {
        let page = store.range("/k/", None, None, Some(older)).await.unwrap();
        let mut watch = store.watch("/", older).await.unwrap();
        let change = futures::StreamExt::next(&mut watch).await.unwrap();
        assert!(matches!(change.unwrap(), crate::WatchItem::Change(_)));
        page.entries.len()
    };
    let fed = tokio::time::timeout(second, read(&store.feeder())).await;
    assert_eq!(fed.unwrap(), 10);
    let waits = tokio::time::timeout(second / 10, read(&store)).await;
    waits.unwrap_err();
    drop(turns);
    assert_eq!(read(&store).await, 10);
    store.close().await;
}

/// However many read older states, one turn is left for the watches.
#[tokio::test]
async fn lists_of_the_past_do_not_hold_up_watches() {
    let directory = TempDir::new().unwrap();
    long_lived(&directory, 100, 10, 8).await.close().await;
    let sqlite = Arc::new(
        Sqlite::open(directory.path(), Default::default())
            .await
            .unwrap(),
    );
    let store = Store::new(sqlite.clone());
    // Fifty wait for a turn, and whoever has it does not come to an end.
    let lists = || sqlite.shared.turns.list(Turn::Shared);
    let _first = tokio::time::timeout(Duration::from_secs(1), lists()).await;
    let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(lists())).collect();
    for list in &mut waiting {
        assert!(futures::FutureExt::now_or_never(list).is_none());
    }
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    let replayed = async {
        for _ in 0..100 {
            futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
        }
    };
    let replayed = tokio::time::timeout(Duration::from_secs(2), replayed).await;
    replayed.unwrap();
    store.close().await;
}

/// Readers of the past who take their time, of whom one begins before the other ends: the
/// log is emptied in spite of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_bounded_while_the_past_is_read() {
    const MIB: u64 = 1024 * 1024;
    // An attempt to empty it that waits for 2 s never meets a moment without a reader.
    const LONG: Duration = Duration::from_millis(1_900);
    let directory = TempDir::new().unwrap();
    let sqlite = Arc::new(
        Sqlite::open(directory.path(), Default::default())
            .await
            .unwrap(),
    );
    let store = Store::new(sqlite.clone());
    let stop = tokio_util::sync::CancellationToken::new();
    let read = |first: Duration| {
        let (sqlite, stop) = (sqlite.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::time::sleep(first).await;
            let mut reads = 0;
            while !stop.is_cancelled() {
                let turns = sqlite.shared.turns.changes(Turn::Shared).await.unwrap();
                let read = sqlite.look_back(turns, |mut reader| async move {
                    let mut transaction = reader.begin().await.unwrap();
                    super::read::bounds(&mut transaction).await?;
                    tokio::time::sleep(LONG).await;
                    transaction.commit().await.map_err(super::convert::database)
                });
                read.await.unwrap();
                reads += 1;
            }
            reads
        })
    };
    let readers: Vec<_> = (0..4).map(|n| read(LONG / 4 * n)).collect();
    let value = Bytes::from(vec![1; MIB as usize]);
    let mut expect = Expect::Absent;
    let (mut sizes, mut slowest) = (Vec::new(), Duration::ZERO);
    for _ in 0..90 {
        let began = std::time::Instant::now();
        let entry = store.put("/large", value.clone(), expect).await.unwrap();
        expect = Expect::At(entry.modified);
        slowest = slowest.max(began.elapsed());
        let log = std::fs::metadata(directory.path().join(super::LOG));
        sizes.push(log.unwrap().len() / MIB);
    }
    stop.cancel();
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    // It would have been larger, and was emptied more than once.
    let emptied = sizes.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(emptied >= 2, "{sizes:?} {slowest:?}");
    assert!(sizes.iter().all(|size| *size < 96), "{sizes:?} {slowest:?}");
    assert!(reads >= 4, "{reads}");
    store.close().await;
}

/// A read of an older state looks up the versions of that state alone, however many there
/// are of others, also in a file of before.
#[tokio::test]
async fn an_older_state_is_found_in_the_index() {
    const VERSIONS: u64 = 100_000;
    let directory = TempDir::new().unwrap();
    let store = long_lived(&directory, VERSIONS, 20, 2_000).await;
    store.put("/x", "1".into(), Expect::Absent).await.unwrap();
    let read = async |store: Store| {
        let mut took = Duration::MAX;
        for _ in 0..3 {
            let began = std::time::Instant::now();
            let at = Some(Revision(VERSIONS));
            let page = store.range("/k/", None, Some(20), at).await.unwrap();
            assert_eq!(page.entries.len(), 20);
            took = took.min(began.elapsed());
        }
        took
    };
    let took = read(store.clone()).await;
    store.close().await;
    index_of_before(&directory).await;
    let store = sqlite::open(directory.path()).await.unwrap();
    let again = read(store.clone()).await;
    store.close().await;
    let mut connection = options(directory.path()).connect().await.unwrap();
    let now = index(&mut connection).await;
    assert!(now.ends_with("(key, revision, ended)"), "{now}");
    connection.close().await.unwrap();
    assert!(
        took.max(again) < Duration::from_millis(300),
        "{took:?} {again:?}"
    );
}

/// Where there is no room for another index, the file is served as it is.
#[tokio::test]
async fn an_index_for_which_there_is_no_room_stays_as_it_was() {
    let directory = TempDir::new().unwrap();
    long_lived(&directory, 20_000, 20, 8).await.close().await;
    let before = index_of_before(&directory).await;
    sql(&directory, "VACUUM").await;
    let mut connection = options(directory.path()).connect().await.unwrap();
    let pages = super::schema::pragma(&mut connection, "PRAGMA page_count").await;
    let limit = format!("PRAGMA max_page_count = {}", pages.unwrap());
    let limit = sqlx::query(sqlx::AssertSqlSafe(limit));
    limit.execute(&mut connection).await.unwrap();
    let opened = super::schema::prepare(&mut connection).await.unwrap();
    assert_eq!(opened.bounds.revision, Revision(20_001));
    assert_eq!(index(&mut connection).await, before);
    let write = connection.begin_with("BEGIN IMMEDIATE").await;
    write.unwrap().commit().await.unwrap();
    connection.close().await.unwrap();
}
