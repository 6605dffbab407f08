//! What the cache takes in memory is what it counts, whatever the objects consist of.
//!
//! In a file of its own, because the resident set is that of the whole process.

use std::time::Duration;

use apiserver::cache::Cache;
use apiserver::live_bytes::Live;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use storage::{Expect, sqlite};
use tokio_util::sync::CancellationToken;

/// What the limit of a namespace allows.
const OBJECTS: u64 = 21;
const LABELS: u32 = 160_000;

/// The resident set.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap() * 1024
}

#[tokio::test]
#[allow(
    clippy::disallowed_methods,
    reason = "the test owns the task that it starts"
)]
async fn labels_take_no_more_memory_than_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    for n in 0..OBJECTS {
        let labels = (0..LABELS).map(|n| (format!("{n:x}"), json!("")));
        let labels: Map<String, Value> = labels.collect();
        let object = json!({
            "metadata": {"name": format!("a{n}"), "namespace": "n", "labels": labels},
            "spec": {},
        });
        let key = format!("/tenantcontrolplanes/n/a{n}");
        let value = Bytes::from(object.to_string());
        store.put(&key, value, Expect::Absent).await.unwrap();
    }
    store.close().await;

    let store = sqlite::open(directory.path()).await.unwrap();
    let before = resident();
    let cache = Cache::new(store.clone(), Live::default());
    let stop = CancellationToken::new();
    let task = tokio::spawn(cache.clone().run(stop.clone()));
    let newest = store.revision().await.unwrap();
    assert!(cache.reached(newest.0, Duration::from_secs(120)).await);
    let (_, usage, _) = cache.usage("n").unwrap();
    assert_eq!(usage.objects, OBJECTS);
    assert!(usage.bytes > 32 << 20, "{}", usage.bytes);
    let taken = resident().saturating_sub(before);
    // One object as a tree of values, pages of the database and their caches.
    let bound = 2 * usage.bytes + (64 << 20);
    assert!(taken < bound, "{taken} for {} bytes", usage.bytes);
    stop.cancel();
    task.await.unwrap();
    store.close().await;
}
