//! What reading much costs in memory: one page, however much there is.
//!
//! In a file of its own, because the peak is that of the whole process.

use bytes::Bytes;
use futures::StreamExt;
use storage::{Expect, Revision, WatchItem, sqlite};

const OBJECT: usize = 1_400_000;
const COUNT: usize = 180;
/// The caches of SQLite's connections and some pages of values.
const BOUND: u64 = 160 * 1024 * 1024;

/// The largest resident set since the last [`reset`].
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap() * 1024
}

fn reset() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[tokio::test]
async fn reading_everything_costs_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    for round in 0..2 {
        for n in 0..COUNT {
            let key = format!("/k/{n:03}");
            let expect = match store.get(&key).await.unwrap().0 {
                Some(entry) => Expect::At(entry.modified),
                None => Expect::Absent,
            };
            let value = Bytes::from(vec![round; OBJECT]);
            store.put(&key, value, expect).await.unwrap();
        }
    }
    let newest = store.revision().await.unwrap();
    store.close().await;
    let store = sqlite::open(directory.path()).await.unwrap();
    reset();

    let (mut count, mut after, mut at) = (0, None::<String>, None);
    loop {
        let page = store.range("/", after.as_deref(), None, at).await.unwrap();
        count += page.entries.len();
        at = Some(page.revision);
        match page.entries.last() {
            Some(last) if page.more => after = Some(last.key.clone()),
            _ => break,
        }
    }
    assert_eq!(count, COUNT);
    let ranges = peak();

    reset();
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    let mut seen = Revision(1);
    while seen < newest {
        if let WatchItem::Change(change) = watch.next().await.unwrap().unwrap() {
            seen = change.revision();
        }
    }
    let replay = peak();
    println!("ranges: {} MiB, replay: {} MiB", ranges >> 20, replay >> 20);
    assert!(ranges < BOUND, "ranges took {ranges} bytes");
    assert!(replay < BOUND, "a replay took {replay} bytes");
    store.close().await;
}
