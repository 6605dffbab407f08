//! Random operations on memory and SQLite side by side: every answer has to be
//! the same, errors included.

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;

use crate::{Entry, Error, Expect, Revision, Store, WatchItem, memory, sqlite};

/// Few keys, so that they meet; prefixes of each other, so that they could mix.
const KEYS: [&str; 7] = ["/a", "/a/", "/a/b", "/ab", "/a/c", "/b/a", "/a-b/c"];
const PREFIXES: [&str; 6] = ["", "/", "/a", "/a/", "/ab", "/c"];

#[derive(Debug, Clone)]
enum Step {
    Put(usize, Vec<u8>, Against),
    Delete(usize, Against),
    Get(usize),
    Range(usize, Option<usize>, Option<usize>, Option<u64>),
    Watch(usize, u64),
    Compact(u64),
    Advance(u64),
    Reopen,
}

/// Which version a write names. Offsets count back from the newest revision.
#[derive(Debug, Clone, Copy)]
enum Against {
    Absent,
    Standing,
    Past(u64),
}

fn against() -> impl Strategy<Value = Against> {
    prop_oneof![
        2 => Just(Against::Absent),
        6 => Just(Against::Standing),
        1 => (0..9u64).prop_map(Against::Past),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let prefix = || 0..PREFIXES.len();
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let after = prop::option::of(key());
    let limit = prop::option::of(0..5usize);
    let back = prop::option::of(0..12u64);
    prop_oneof![
        10 => (key(), value, against()).prop_map(|(k, v, a)| Step::Put(k, v, a)),
        4 => (key(), against()).prop_map(|(k, a)| Step::Delete(k, a)),
        2 => key().prop_map(Step::Get),
        6 => (prefix(), after, limit, back).prop_map(|(p, a, l, b)| Step::Range(p, a, l, b)),
        3 => (prefix(), 0..20u64).prop_map(|(p, b)| Step::Watch(p, b)),
        2 => (0..10u64).prop_map(Step::Compact),
        1 => (0..10u64).prop_map(Step::Advance),
        1 => Just(Step::Reopen),
    ]
}

/// The answer of a store, whatever was asked.
#[derive(Debug, PartialEq)]
enum Answer {
    Entry(Result<Entry, Error>),
    Deleted(Result<Revision, Error>),
    Got(Result<(Option<Entry>, Revision), Error>),
    Page(Result<crate::Page, Error>),
    Watched(Result<Vec<WatchItem>, Error>),
    Compacted(Result<(), Error>, Revision),
    Advanced(Result<Revision, Error>, Revision),
}

async fn run(store: &Store, step: &Step) -> Answer {
    let newest = store.revision().await.unwrap();
    // One beyond the newest can be named too.
    let back = |offset: u64| Revision((newest.0 + 1).saturating_sub(offset));
    let standing = async |key: &str| store.get(key).await.unwrap().0;
    match step.clone() {
        Step::Put(key, value, against) => {
            let key = KEYS[key];
            let expect = match against {
                Against::Absent => Expect::Absent,
                Against::Standing => match standing(key).await {
                    Some(entry) => Expect::At(entry.modified),
                    None => Expect::Absent,
                },
                Against::Past(offset) => Expect::At(back(offset)),
            };
            Answer::Entry(store.put(key, Bytes::from(value), expect).await)
        }
        Step::Delete(key, against) => {
            let key = KEYS[key];
            let expect = match against {
                Against::Absent => Revision(0),
                Against::Standing => standing(key).await.map_or(newest, |entry| entry.modified),
                Against::Past(offset) => back(offset),
            };
            Answer::Deleted(store.delete(key, expect).await)
        }
        Step::Get(key) => Answer::Got(store.get(KEYS[key]).await),
        Step::Range(prefix, after, limit, offset) => {
            let after = after.map(|after| KEYS[after]);
            let page = store.range(PREFIXES[prefix], after, limit, offset.map(back));
            Answer::Page(page.await)
        }
        Step::Watch(prefix, offset) => {
            Answer::Watched(replay(store, PREFIXES[prefix], back(offset)).await)
        }
        Step::Compact(offset) => {
            let done = store.compact(back(offset)).await;
            Answer::Compacted(done, store.compacted())
        }
        Step::Advance(by) => {
            let done = store.advance(Revision(newest.0 + by)).await;
            Answer::Advanced(done, store.compacted())
        }
        Step::Reopen => Answer::Compacted(Ok(()), store.compacted()),
    }
}

async fn replay(store: &Store, prefix: &str, after: Revision) -> Result<Vec<WatchItem>, Error> {
    let mut watch = store.watch(prefix, after).await?;
    let mut items = Vec::new();
    loop {
        let item = watch.next().await.unwrap()?;
        let done = matches!(item, WatchItem::Progress(_));
        items.push(item);
        if done {
            return Ok(items);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_answers_as_memory_does(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let outcome: Result<(), TestCaseError> = runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let model = memory::open();
            let mut real = sqlite::open(directory.path()).await.unwrap();
            for step in &steps {
                if let Step::Reopen = step {
                    real.close().await;
                    real = sqlite::open(directory.path()).await.unwrap();
                }
                let expected = run(&model, step).await;
                prop_assert_eq!(run(&real, step).await, expected, "{:?}", step);
            }
            Ok(())
        });
        outcome?;
    }
}
