#![allow(clippy::disallowed_methods, reason = "tests start tasks themselves")]

use std::time::Duration;

use storage::Expect;

use super::*;
use crate::registry::tests::harness::World;

/// What is older is read from the database by who wants it.
#[tokio::test]
async fn events_are_held_within_bounds() {
    const KEY: &str = "/tenantcontrolplanes/n/a";
    let world = World::memory().await;
    world.tenant("a").await;
    let (cache, store) = (&world.registry.cache, &world.registry.store);
    let entry = store.get(KEY).await.unwrap().0.unwrap();
    let mut object: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    let mut at = entry.modified;
    let mut changes = async |value: bytes::Bytes, times: usize| {
        for _ in 0..times {
            let put = store.put(KEY, value.clone(), Expect::At(at)).await;
            at = put.unwrap().modified;
            // As fast as the feed is followed, or it would be loaded anew.
            if at.0 % 1_000 == 0 {
                assert!(cache.reached(at.0, Duration::from_secs(60)).await);
            }
        }
        assert!(cache.reached(at.0, Duration::from_secs(60)).await);
    };
    changes(entry.value.clone(), MAX_EVENTS + 100).await;
    assert_eq!(cache.state.read().events.len(), MAX_EVENTS);
    object["metadata"]["annotations"] = serde_json::json!({"x": "x".repeat(1 << 20)});
    changes(object.to_string().into(), 80).await;
    let state = cache.state.read();
    assert!(
        state.bytes <= MAX_BYTES && state.bytes > MAX_BYTES / 2,
        "{}",
        state.bytes
    );
    assert!(state.events.len() < 80, "{}", state.events.len());
    let counted: usize = state.events.iter().map(|event| event.bytes()).sum();
    assert_eq!(counted, state.bytes);
}
