//! What every backend owes, one function each, stamped for every backend by
//! [`suite`].

#![allow(
    clippy::disallowed_methods,
    reason = "tests start writers and readers side by side"
)]

use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::log::Turn;
use crate::log::watch::MAX_BEHIND;
use crate::{Change, Entry, Error, Expect, PAGE_BYTES, Revision, Store, Watch, WatchItem};

/// Makes one test of each behaviour for one backend. `$open` is an async
/// expression that gives a value with a field `store`.
macro_rules! suite {
    ($open:expr) => {
        $crate::log::conformance::suite!($open;
            an_empty_store_is_at_revision_one
            what_was_put_is_read
            values_of_any_bytes_and_size
            creating_what_exists_conflicts
            updating_needs_the_right_revision
            deleting_needs_the_right_revision
            revisions_rise_by_one_and_are_not_reused
            keys_are_checked
            ranges_are_ordered_and_end_at_the_prefix
            pages_come_from_one_state
            pages_and_replays_are_bounded_in_bytes
            older_states_can_be_read
            one_of_many_creators_wins
            no_update_is_lost
            a_watch_replays_then_follows
            a_watch_sees_only_its_prefix
            a_watch_tells_progress
            a_watch_has_no_gap_under_load
            a_watch_from_nowhere_is_refused
            a_lagging_reader_catches_up_from_history
            a_slow_reader_is_cut
            compaction_keeps_what_is_owed
            compaction_is_bounded
            compaction_under_load_harms_nobody
            advance_skips_revisions
            a_closed_store_says_so
        );
    };
    ($open:expr; $($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let opened = $open.await;
            $crate::log::conformance::$name(opened.store.clone()).await;
        })*
    };
}
pub(crate) use suite;

async fn create(store: &Store, key: &str, value: &str) -> Entry {
    let value = Bytes::copy_from_slice(value.as_bytes());
    store.put(key, value, Expect::Absent).await.unwrap()
}

async fn update(store: &Store, entry: &Entry, value: &str) -> Entry {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let expect = Expect::At(entry.modified);
    store.put(&entry.key, value, expect).await.unwrap()
}

/// The next item, which has to come soon.
async fn item(watch: &mut Watch) -> Result<WatchItem, Error> {
    tokio::time::timeout(Duration::from_secs(30), watch.next())
        .await
        .expect("the watch stays silent")
        .expect("the watch ended")
}

async fn change(watch: &mut Watch) -> Change {
    loop {
        if let WatchItem::Change(change) = item(watch).await.unwrap() {
            return change;
        }
    }
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

pub async fn an_empty_store_is_at_revision_one(store: Store) {
    assert_eq!(store.revision().await.unwrap(), Revision(1));
    assert_eq!(store.get("/a").await.unwrap(), (None, Revision(1)));
    let page = store.range("/", None, None, None).await.unwrap();
    assert!(page.entries.is_empty() && !page.more);
    assert_eq!(page.revision, Revision(1));
    assert_eq!(store.compacted(), Revision(0));
    assert_eq!(store.identity().id.len(), 36);
}

pub async fn what_was_put_is_read(store: Store) {
    let first = create(&store, "/k/a", "1").await;
    assert_eq!(first.created, Revision(2));
    assert_eq!(first.modified, Revision(2));
    let second = update(&store, &first, "2").await;
    assert_eq!(second.created, Revision(2));
    assert_eq!(second.modified, Revision(3));
    let (read, revision) = store.get("/k/a").await.unwrap();
    assert_eq!((read, revision), (Some(second), Revision(3)));
    assert_eq!(store.get("/k/b").await.unwrap().0, None);
}

pub async fn values_of_any_bytes_and_size(store: Store) {
    let large = Bytes::from(vec![0xA5; 3 << 20]);
    for (key, value) in [
        ("/empty", Bytes::new()),
        ("/binary", Bytes::from_static(&[0, 255, 0, 128])),
        ("/large", large),
    ] {
        let put = store.put(key, value.clone(), Expect::Absent).await.unwrap();
        assert_eq!(store.get(key).await.unwrap().0, Some(put));
    }
    let empty = store.get("/empty").await.unwrap().0.unwrap();
    let deleted = store.delete("/empty", empty.modified).await.unwrap();
    let mut watch = store.watch("/empty", Revision(1)).await.unwrap();
    let put = change(&mut watch).await;
    assert!(matches!(put, Change::Put { entry, previous: None } if entry == empty));
    let gone = change(&mut watch).await;
    assert_eq!(
        gone,
        Change::Delete {
            previous: empty,
            revision: deleted
        }
    );
}

pub async fn creating_what_exists_conflicts(store: Store) {
    let entry = create(&store, "/a", "1").await;
    let again = store.put("/a", "2".into(), Expect::Absent).await;
    let current = Some(entry);
    assert_eq!(again, Err(Error::Conflict { current }));
    assert_eq!(store.revision().await.unwrap(), Revision(2));
}

pub async fn updating_needs_the_right_revision(store: Store) {
    let none = store.put("/a", "1".into(), Expect::At(Revision(1))).await;
    assert_eq!(none, Err(Error::Conflict { current: None }));
    let first = create(&store, "/a", "1").await;
    let second = update(&store, &first, "2").await;
    for wrong in [first.modified, second.modified.next(), Revision(0)] {
        let stale = store.put("/a", "3".into(), Expect::At(wrong)).await;
        let current = Some(second.clone());
        assert_eq!(stale, Err(Error::Conflict { current }));
    }
}

pub async fn deleting_needs_the_right_revision(store: Store) {
    let absent = Err(Error::Conflict { current: None });
    assert_eq!(store.delete("/a", Revision(2)).await, absent);
    let first = create(&store, "/a", "1").await;
    let second = update(&store, &first, "2").await;
    let current = Some(second.clone());
    let stale = store.delete("/a", first.modified).await;
    assert_eq!(stale, Err(Error::Conflict { current }));
    assert_eq!(store.delete("/a", second.modified).await, Ok(Revision(4)));
    assert_eq!(store.get("/a").await.unwrap(), (None, Revision(4)));
    assert_eq!(store.delete("/a", second.modified).await, absent);
    let anew = create(&store, "/a", "3").await;
    assert_eq!(anew.created, Revision(5));
}

/// R3.13.
pub async fn revisions_rise_by_one_and_are_not_reused(store: Store) {
    let mut expected = 2;
    for _ in 0..5 {
        let entry = create(&store, "/a", "1").await;
        assert_eq!(entry.modified, Revision(expected));
        let deleted = store.delete("/a", entry.modified).await.unwrap();
        assert_eq!(deleted, Revision(expected + 1));
        expected += 2;
        store.compact(deleted).await.unwrap();
        assert_eq!(store.revision().await.unwrap(), deleted);
    }
}

pub async fn keys_are_checked(store: Store) {
    for key in ["", "a", "/a\n", "/a\0b", "/\u{1}"] {
        let refused = Err(Error::InvalidKey(key.to_owned()));
        assert_eq!(store.put(key, "1".into(), Expect::Absent).await, refused);
        let refused = Err(Error::InvalidKey(key.to_owned()));
        assert_eq!(store.get(key).await, refused);
        assert!(store.delete(key, Revision(1)).await.is_err());
    }
}

pub async fn ranges_are_ordered_and_end_at_the_prefix(store: Store) {
    for key in [
        "/t/b/x", "/t/a/y", "/t/a-b/z", "/t/ab/w", "/t/a/x", "/ta", "/u", "/t/a/é",
    ] {
        create(&store, key, key).await;
    }
    let read = async |prefix: &str| {
        let page = store.range(prefix, None, None, None).await.unwrap();
        page.entries
    };
    assert_eq!(keys(&read("/t/a/").await), ["/t/a/x", "/t/a/y", "/t/a/é"]);
    let a = ["/t/a-b/z", "/t/a/x", "/t/a/y", "/t/a/é", "/t/ab/w"];
    assert_eq!(keys(&read("/t/a").await), a);
    assert_eq!(keys(&read("/t/").await).len(), 6);
    assert_eq!(keys(&read("").await).len(), 8);
    assert_eq!(keys(&read("/").await).len(), 8);
    assert!(read("/v").await.is_empty());
    assert_eq!(read("/u").await[0].value, "/u");
}

pub async fn pages_come_from_one_state(store: Store) {
    let mut entries = Vec::new();
    for n in 0..10 {
        entries.push(create(&store, &format!("/k/{n}"), "old").await);
    }
    let first = store.range("/k/", None, Some(4), None).await.unwrap();
    assert_eq!(first.entries, entries[..4]);
    assert_eq!((first.more, first.remaining), (true, 6));

    // The world moves on: an update, a delete and a create further behind.
    update(&store, &entries[5], "new").await;
    store.delete("/k/6", entries[6].modified).await.unwrap();
    create(&store, "/k/55", "new").await;

    let after = first.entries.last().map(|entry| entry.key.as_str());
    let at = Some(first.revision);
    let second = store.range("/k/", after, Some(4), at).await.unwrap();
    assert_eq!(second.entries, entries[4..8]);
    assert_eq!(second.revision, first.revision);
    assert_eq!((second.more, second.remaining), (true, 2));
    let third = store.range("/k/", Some("/k/7"), Some(2), at).await.unwrap();
    assert_eq!(third.entries, entries[8..]);
    assert_eq!((third.more, third.remaining), (false, 0));

    let now = store.range("/k/", Some("/k/4"), Some(2), None).await;
    let now = now.unwrap();
    assert_eq!(keys(&now.entries), ["/k/5", "/k/55"]);
    assert_eq!(now.remaining, 3);
    let none = store.range("/k/", None, Some(0), None).await.unwrap();
    assert_eq!((none.entries.len(), none.remaining), (0, 10));
    let outside = store.range("/k/", Some("/a"), None, None).await.unwrap();
    assert_eq!(outside.entries.len(), 10);
    let beyond = store.range("/k/", Some("/z"), None, None).await.unwrap();
    assert!(beyond.entries.is_empty());
}

pub async fn pages_and_replays_are_bounded_in_bytes(store: Store) {
    // On disk it may be a little larger.
    let value = Bytes::from(vec![0x5A; PAGE_BYTES / 4 - 256]);
    let mut last = Revision(1);
    for n in 0..6 {
        let key = format!("/k/{n}");
        let put = store.put(&key, value.clone(), Expect::Absent).await;
        last = put.unwrap().modified;
    }
    for limit in [None, Some(5), Some(100)] {
        let page = store.range("/k/", None, limit, None).await.unwrap();
        assert_eq!(keys(&page.entries), ["/k/0", "/k/1", "/k/2", "/k/3"]);
        assert_eq!((page.more, page.remaining), (true, 2));
        let (after, at) = (Some("/k/3"), Some(page.revision));
        let rest = store.range("/k/", after, limit, at).await.unwrap();
        assert_eq!(keys(&rest.entries), ["/k/4", "/k/5"]);
        assert_eq!((rest.more, rest.remaining), (false, 0));
    }
    // One value that is larger than a page is a page.
    let whole = Bytes::from(vec![0x5A; PAGE_BYTES + 1]);
    store
        .put("/l/a", whole.clone(), Expect::Absent)
        .await
        .unwrap();
    let large = store.put("/l/b", whole, Expect::Absent).await.unwrap();
    let page = store.range("/l/", None, None, None).await.unwrap();
    assert_eq!((keys(&page.entries), page.remaining), (vec!["/l/a"], 1));
    // Of history less is read at a time: one change if it is that large.
    let replayed = store
        .log()
        .changes("/", Revision(1), last, 100, Turn::Shared)
        .await;
    let replayed = replayed.unwrap();
    assert_eq!((replayed.changes.len(), replayed.more), (1, true));
    // A watch that starts before all this is given all of it.
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    let mut seen = Revision(1);
    while seen < large.modified {
        seen = change(&mut watch).await.revision();
    }
    assert!(seen > last);
}

/// R3.20.
pub async fn older_states_can_be_read(store: Store) {
    let a = create(&store, "/a", "1").await;
    let b = create(&store, "/b", "1").await;
    let b2 = update(&store, &b, "2").await;
    let gone = store.delete("/a", a.modified).await.unwrap();
    let read = async |at: Revision| {
        let page = store.range("/", None, None, Some(at)).await.unwrap();
        assert_eq!(page.revision, at);
        page.entries
    };
    assert_eq!(read(Revision(1)).await, []);
    assert_eq!(read(a.modified).await, std::slice::from_ref(&a));
    assert_eq!(read(b.modified).await, [a.clone(), b]);
    assert_eq!(read(b2.modified).await, [a, b2.clone()]);
    assert_eq!(read(gone).await, [b2]);
    let future = store.range("/", None, None, Some(gone.next())).await;
    assert_eq!(future, Err(Error::Future { latest: gone }));
}

pub async fn one_of_many_creators_wins(store: Store) {
    for round in 0..10 {
        let key = format!("/k/{round}");
        let creators = (0..16).map(|n| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move {
                let value = Bytes::from(n.to_string());
                store.put(&key, value, Expect::Absent).await
            })
        });
        let outcomes = futures::future::join_all(creators).await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes
            .into_iter()
            .map(Result::unwrap)
            .partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        let current = Some(won[0].clone().unwrap());
        for loser in lost {
            let current = current.clone();
            assert_eq!(loser, Err(Error::Conflict { current }));
        }
    }
}

pub async fn no_update_is_lost(store: Store) {
    create(&store, "/n", "0").await;
    let tasks = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                loop {
                    let entry = store.get("/n").await.unwrap().0.unwrap();
                    let n: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                    let value = Bytes::from((n + 1).to_string());
                    let expect = Expect::At(entry.modified);
                    match store.put("/n", value, expect).await {
                        Ok(_) => break,
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    futures::future::join_all(tasks).await;
    let (entry, revision) = store.get("/n").await.unwrap();
    assert_eq!(entry.unwrap().value, "160");
    assert_eq!(revision, Revision(162));
}

pub async fn a_watch_replays_then_follows(store: Store) {
    let a = create(&store, "/a", "1").await;
    let a2 = update(&store, &a, "2").await;
    let gone = store.delete("/a", a2.modified).await.unwrap();
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    let expected = [
        Change::Put {
            entry: a.clone(),
            previous: None,
        },
        Change::Put {
            entry: a2.clone(),
            previous: Some(a.clone()),
        },
        Change::Delete {
            previous: a2,
            revision: gone,
        },
    ];
    for change in expected {
        assert_eq!(item(&mut watch).await, Ok(WatchItem::Change(change)));
    }
    assert_eq!(item(&mut watch).await, Ok(WatchItem::Progress(gone)));
    let b = create(&store, "/b", "1").await;
    let b2 = update(&store, &b, "2").await;
    let put = |entry, previous| Ok(WatchItem::Change(Change::Put { entry, previous }));
    assert_eq!(item(&mut watch).await, put(b.clone(), None));
    assert_eq!(item(&mut watch).await, put(b2.clone(), Some(b)));
    let gone = store.delete("/b", b2.modified).await.unwrap();
    assert_eq!(change(&mut watch).await.revision(), gone);

    let mut later = store.watch("/", a.modified).await.unwrap();
    assert_eq!(change(&mut later).await.revision(), Revision(3));
    let mut newest = store.watch("/", gone).await.unwrap();
    assert_eq!(item(&mut newest).await, Ok(WatchItem::Progress(gone)));
}

pub async fn a_watch_sees_only_its_prefix(store: Store) {
    create(&store, "/a/1", "").await;
    create(&store, "/ab/1", "").await;
    let mut watch = store.watch("/a/", Revision(1)).await.unwrap();
    create(&store, "/a-b/1", "").await;
    create(&store, "/a/2", "").await;
    create(&store, "/ab/2", "").await;
    create(&store, "/a/3", "").await;
    for key in ["/a/1", "/a/2", "/a/3"] {
        assert_eq!(change(&mut watch).await.key(), key);
    }
}

pub async fn a_watch_tells_progress(store: Store) {
    let mut watch = store.watch("/a/", Revision(1)).await.unwrap();
    assert_eq!(item(&mut watch).await, Ok(WatchItem::Progress(Revision(1))));
    let other = create(&store, "/b/1", "").await;
    let told = item(&mut watch).await;
    assert_eq!(told, Ok(WatchItem::Progress(other.modified)));
    let mine = create(&store, "/a/1", "").await;
    let given = item(&mut watch).await;
    assert!(matches!(given, Ok(WatchItem::Change(_))));
    let silent = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
    assert!(silent.is_err(), "{silent:?}");

    let mut replayed = store.watch("/b/", Revision(1)).await.unwrap();
    assert_eq!(change(&mut replayed).await.revision(), other.modified);
    let told = item(&mut replayed).await;
    assert_eq!(told, Ok(WatchItem::Progress(mine.modified)));
}

/// R3.26.
pub async fn a_watch_has_no_gap_under_load(store: Store) {
    const WRITERS: usize = 8;
    const EACH: usize = 60;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut last = Revision(0);
                for n in 0..EACH {
                    let entry = create(&store, &format!("/k/{writer}/{n}"), "1").await;
                    last = entry.modified;
                    if n % 3 == 0 {
                        last = update(&store, &entry, "2").await.modified;
                    }
                    if n % 7 == 0 {
                        last = store.delete(&entry.key, last).await.unwrap();
                    }
                }
                last
            })
        })
        .collect();
    // Watches that begin at every stage of the load, at whatever is newest.
    let mut watches = Vec::new();
    for _ in 0..20 {
        let (_, from) = store.get("/none").await.unwrap();
        let mut watch = store.watch("/", from).await.unwrap();
        watches.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                match item(&mut watch).await.unwrap() {
                    WatchItem::Change(change) if change.key() == "/end" => break,
                    WatchItem::Change(change) => seen.push(change.revision()),
                    WatchItem::Progress(at) => assert!(seen.last().is_none_or(|last| *last <= at)),
                }
            }
            (from, seen)
        }));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let end = create(&store, "/end", "").await.modified;
    for watch in watches {
        let (from, seen) = watch.await.unwrap();
        let expected: Vec<_> = (from.0 + 1..end.0).map(Revision).collect();
        assert_eq!(seen, expected);
    }
}

pub async fn a_watch_from_nowhere_is_refused(store: Store) {
    for n in 0..10 {
        create(&store, &format!("/k/{n}"), "").await;
    }
    store.compact(Revision(5)).await.unwrap();
    let compacted = store.watch("/", Revision(4)).await.err();
    let oldest = Revision(5);
    assert_eq!(compacted, Some(Error::Compacted { oldest }));
    let mut watch = store.watch("/", Revision(5)).await.unwrap();
    assert_eq!(change(&mut watch).await.revision(), Revision(6));
    let future = store.watch("/", Revision(12)).await.err();
    let latest = Revision(11);
    assert_eq!(future, Some(Error::Future { latest }));
}

/// Many small writes, quickly.
async fn flood(store: &Store, from: u64, count: u64) {
    let mut writes = futures::stream::iter(from..from + count)
        .map(|n| {
            let store = store.clone();
            async move { create(&store, &format!("/flood/{n:07}"), "").await }
        })
        .buffer_unordered(256);
    while writes.next().await.is_some() {}
}

pub async fn a_lagging_reader_catches_up_from_history(store: Store) {
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    assert_eq!(item(&mut watch).await, Ok(WatchItem::Progress(Revision(1))));
    let count = MAX_BEHIND / 2;
    flood(&store, 0, count).await;
    for revision in 2..2 + count {
        assert_eq!(change(&mut watch).await.revision(), Revision(revision));
    }
}

pub async fn a_slow_reader_is_cut(store: Store) {
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    assert_eq!(item(&mut watch).await, Ok(WatchItem::Progress(Revision(1))));
    flood(&store, 0, MAX_BEHIND + 1).await;
    let behind = MAX_BEHIND + 1;
    assert_eq!(item(&mut watch).await, Err(Error::Slow { behind }));
    assert!(watch.next().await.is_none());
}

pub async fn compaction_keeps_what_is_owed(store: Store) {
    let a = create(&store, "/a", "1").await;
    let b = create(&store, "/b", "1").await;
    let a2 = update(&store, &a, "2").await;
    let gone = store.delete("/b", b.modified).await.unwrap();
    let a3 = update(&store, &a2, "3").await;
    let c = create(&store, "/c", "1").await;

    store.compact(a2.modified).await.unwrap();
    assert_eq!(store.compacted(), a2.modified);
    let oldest = a2.modified;
    let below = store.range("/", None, None, Some(b.modified)).await;
    assert_eq!(below, Err(Error::Compacted { oldest }));
    let at = store.range("/", None, None, Some(oldest)).await.unwrap();
    assert_eq!(at.entries, [a2.clone(), b.clone()]);
    // The changes after it still know what they replaced.
    let mut watch = store.watch("/", oldest).await.unwrap();
    let expected = Change::Delete {
        previous: b,
        revision: gone,
    };
    assert_eq!(change(&mut watch).await, expected);
    let expected = Change::Put {
        entry: a3.clone(),
        previous: Some(a2),
    };
    assert_eq!(change(&mut watch).await, expected);

    store.compact(c.modified).await.unwrap();
    let now = store.range("/", None, None, None).await.unwrap();
    assert_eq!(now.entries, [a3, c]);
}

pub async fn compaction_is_bounded(store: Store) {
    let a = create(&store, "/a", "1").await;
    let latest = a.modified;
    let future = store.compact(latest.next()).await;
    assert_eq!(future, Err(Error::Future { latest }));
    store.compact(latest).await.unwrap();
    store.compact(Revision(1)).await.unwrap();
    assert_eq!(store.compacted(), latest);
    assert_eq!(store.get("/a").await.unwrap().0, Some(a));
}

pub async fn compaction_under_load_harms_nobody(store: Store) {
    let stop = tokio_util::sync::CancellationToken::new();
    let compactor = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            while !stop.is_cancelled() {
                let newest = store.revision().await.unwrap();
                store.compact(newest).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    let reader = tokio::spawn(async move {
        for revision in 2..402 {
            assert_eq!(change(&mut watch).await.revision(), Revision(revision));
        }
    });
    let mut expected = BTreeMap::new();
    let mut entry = create(&store, "/n", "0").await;
    for n in 0..199 {
        entry = update(&store, &entry, &n.to_string()).await;
        let key = format!("/k/{n:03}");
        expected.insert(key.clone(), create(&store, &key, "1").await);
    }
    let gone = store.delete("/n", entry.modified).await.unwrap();
    assert_eq!(gone, Revision(401));
    reader.await.unwrap();
    stop.cancel();
    compactor.await.unwrap();
    let page = store.range("/", None, None, None).await.unwrap();
    assert_eq!(page.entries, expected.into_values().collect::<Vec<_>>());
}

/// R3.17.
pub async fn advance_skips_revisions(store: Store) {
    let a = create(&store, "/a", "1").await;
    let mut live = store.watch("/", a.modified).await.unwrap();
    item(&mut live).await.unwrap();
    let to = Revision(1_000);
    assert_eq!(store.advance(to).await, Ok(to));
    assert_eq!(store.advance(Revision(5)).await, Ok(to));
    assert_eq!(store.revision().await, Ok(to));
    assert_eq!(item(&mut live).await, Ok(WatchItem::Progress(to)));
    let old = store.watch("/", a.modified).await.err();
    assert_eq!(old, Some(Error::Compacted { oldest: to }));
    assert_eq!(store.get("/a").await.unwrap(), (Some(a.clone()), to));
    assert_eq!(update(&store, &a, "2").await.modified, to.next());
    assert_eq!(change(&mut live).await.revision(), to.next());
}

pub async fn a_closed_store_says_so(store: Store) {
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    item(&mut watch).await.unwrap();
    create(&store, "/a", "1").await;
    store.close().await;
    let mut last = item(&mut watch).await;
    while last.is_ok() {
        last = item(&mut watch).await;
    }
    assert_eq!(last, Err(Error::Closed));
    assert_eq!(store.get("/a").await, Err(Error::Closed));
    let put = store.put("/b", "1".into(), Expect::Absent).await;
    assert_eq!(put, Err(Error::Closed));
    assert_eq!(store.range("/", None, None, None).await, Err(Error::Closed));
    assert_eq!(
        store.watch("/", Revision(1)).await.err(),
        Some(Error::Closed)
    );
    assert_eq!(store.compact(Revision(1)).await, Err(Error::Closed));
    store.close().await;
}
