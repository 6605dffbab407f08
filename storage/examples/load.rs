//! How fast the log is: `cargo run --release -p storage --example load [DIRECTORY]`.
//!
//! Every acknowledged create is synced to disk. Run it on the disk in question.

#![allow(
    clippy::disallowed_methods,
    reason = "a measuring program, not a server"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use storage::{Expect, Revision, Store, WatchItem, sqlite};

/// About what a tenant control plane with its status takes.
const VALUE: usize = 4096;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| std::env::temp_dir().join("steward-load"));
    let _ = std::fs::remove_dir_all(&directory);
    let store = sqlite::open(&directory).await?;
    for (writers, count) in [(1, 500), (8, 4_000), (32, 10_000), (256, 10_000)] {
        creates(&store, writers, count).await?;
    }
    ranges(&store).await?;
    replay(&store).await?;
    println!("size on disk: {} KiB", store.size().await? / 1024);
    store.close().await;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

async fn creates(store: &Store, writers: usize, count: usize) -> Result<(), storage::Error> {
    let value = Bytes::from(vec![b'x'; VALUE]);
    let begin = Instant::now();
    let mut times: Vec<Duration> = stream::iter(0..count)
        .map(|n| {
            let (store, value) = (store.clone(), value.clone());
            async move {
                let begin = Instant::now();
                let key = format!("/load/{writers}/{n:06}");
                store.put(&key, value, Expect::Absent).await?;
                Ok(begin.elapsed())
            }
        })
        .buffer_unordered(writers)
        .collect::<Vec<Result<Duration, storage::Error>>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    let total = begin.elapsed();
    times.sort();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e3;
    println!(
        "{writers:4} writers: {:8.0} creates/s, p50 {:.2} ms, p99 {:.2} ms",
        count as f64 / total.as_secs_f64(),
        at(50),
        at(99),
    );
    Ok(())
}

async fn ranges(store: &Store) -> Result<(), storage::Error> {
    let older = Revision(store.revision().await?.0 - 1);
    for (what, limit, at) in [
        ("10,000 of the newest state", None, None),
        ("10,000 of an older state", None, Some(older)),
        ("a page of 500", Some(500), None),
    ] {
        let mut best = Duration::MAX;
        let mut entries = 0;
        for _ in 0..10 {
            let begin = Instant::now();
            entries = 0;
            let (mut after, mut at) = (None, at);
            loop {
                let page = store
                    .range("/load/32/", after.as_deref(), limit, at)
                    .await?;
                entries += page.entries.len();
                if limit.is_some() || !page.more {
                    break;
                }
                after = page.entries.last().map(|last| last.key.clone());
                at = Some(page.revision);
            }
            best = best.min(begin.elapsed());
        }
        println!("range, {what}: {entries} entries in {best:.2?}");
    }
    let begin = Instant::now();
    for n in 0..1_000 {
        store.get(&format!("/load/32/{n:06}")).await?;
    }
    println!("get: {:.1?}", begin.elapsed() / 1_000);
    Ok(())
}

async fn replay(store: &Store) -> Result<(), storage::Error> {
    let begin = Instant::now();
    let mut watch = store.watch("/", Revision(1)).await?;
    let mut count = 0;
    while let Some(WatchItem::Change(_)) = watch.next().await.transpose()? {
        count += 1;
    }
    println!(
        "watch from history: {count} changes in {:.2?}",
        begin.elapsed()
    );
    Ok(())
}
