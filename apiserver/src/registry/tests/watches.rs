use std::time::Duration;

use http::header;
use http_body_util::BodyExt;
use serde_json::json;

use super::harness::{Call, World, padding, tenant};

pub(super) const WATCH_LIST: &str =
    "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

/// R3.13, R3.22, R3.23, R3.25, R3.28.
#[tokio::test]
async fn initial_events_marker_then_changes() {
    for world in World::each().await {
        let mut empty = world.watch(Call::tenants("").query(WATCH_LIST)).await;
        let marker = empty.next().await.unwrap();
        assert_eq!(marker["type"], "BOOKMARK");
        assert_eq!(marker["object"]["kind"], "TenantControlPlane");
        assert_eq!(
            marker["object"]["metadata"]["annotations"],
            json!({"k8s.io/initial-events-end": "true"})
        );

        let a = world.tenant("a").await;
        let b = world.tenant("b").await;
        let mut events = world.watch(Call::tenants("").query(WATCH_LIST)).await;
        assert_eq!(events.line().await, format!("ADDED a@{}", a.version()));
        assert_eq!(events.line().await, format!("ADDED b@{}", b.version()));
        assert_eq!(events.line().await, format!("BOOKMARK @{}", b.version()));
        let patched = world
            .patch(Call::tenants("a").body(json!({"metadata": {"labels": {"x": "y"}}})))
            .await;
        world
            .patch(Call::tenants("a").body(json!({"metadata": {"labels": {"x": "y"}}})))
            .await;
        world.delete(Call::tenants("a")).await;
        assert_eq!(
            events.line().await,
            format!("MODIFIED a@{}", patched.version())
        );
        assert_eq!(
            events.line().await,
            format!("DELETED a@{}", patched.version() + 1)
        );
        events.quiet().await;
        // Somebody who watched from the start saw the same.
        assert_eq!(empty.line().await, format!("ADDED a@{}", a.version()));
    }
}

/// R3.16.
#[tokio::test]
async fn a_watch_goes_on_from_a_version() {
    for world in World::each().await {
        let a = world.tenant("a").await;
        let b = world.tenant("b").await;
        let from =
            |version: u64| Call::tenants("").query(&format!("watch=1&resourceVersion={version}"));
        let mut events = world.watch(from(a.version())).await;
        assert_eq!(events.line().await, format!("ADDED b@{}", b.version()));
        let mut later = world.watch(from(b.version() + 1)).await;
        later.quiet().await;
        world.tenant("c").await;
        let d = world.tenant("d").await;
        assert_eq!(later.line().await, format!("ADDED d@{}", d.version()));
        let mut from_now = world
            .watch(
                Call::tenants("")
                    .query("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"),
            )
            .await;
        from_now.quiet().await;
    }
}

/// R3.26, R9.3.
#[tokio::test]
async fn a_cache_that_started_later_reads_history() {
    let world = World::sqlite().await;
    let a = world.tenant("a").await;
    world.delete(Call::tenants("a")).await;
    world.tenant("b").await;
    // A cache of a second server over the same store knows nothing of before.
    let cache = crate::cache::Cache::new(world.registry.store.clone(), Default::default());
    tokio::spawn(cache.clone().run(world.registry.shutdown.clone()));
    assert!(cache.reached(1, Duration::from_secs(5)).await);
    let registry = crate::registry::Registry {
        cache,
        shutdown: world.registry.shutdown.child_token(),
        ..world.registry.clone()
    };
    let second = World::of(registry);
    // While others read history there is no place; then there is.
    let others: Vec<_> = (0..4)
        .map(|n| second.registry.replays.enter(&format!("u{n}")).unwrap())
        .collect();
    let mut events = second
        .watch(Call::tenants("").query("watch=1&resourceVersion=1"))
        .await;
    events.quiet().await;
    // The cluster's own controllers need none.
    for user in [
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:kube-controller-manager",
    ] {
        let since = Call::tenants("").query("watch=1&resourceVersion=1");
        let mut events = second.watch(since.by(user)).await;
        let line = tokio::time::timeout(Duration::from_secs(5), events.line());
        let line = line.await.expect("it waits for a place");
        assert_eq!(line, format!("ADDED a@{}", a.version()));
    }
    drop(others);
    assert_eq!(events.line().await, format!("ADDED a@{}", a.version()));
    assert_eq!(
        events.line().await,
        format!("DELETED a@{}", a.version() + 1)
    );
    assert_eq!(events.line().await, format!("ADDED b@{}", a.version() + 2));
    let c = world.tenant("c").await;
    assert_eq!(events.line().await, format!("ADDED c@{}", c.version()));
    let d = world.tenant("d").await;
    assert_eq!(events.line().await, format!("ADDED d@{}", d.version()));
    // Caught up: the place is another's.
    assert!(second.registry.replays.is_unused());
}

/// R3.15, R3.23.
#[tokio::test]
async fn too_old_is_an_event() {
    for world in World::each().await {
        let a = world.tenant("a").await;
        world.tenant("b").await;
        let last = world.tenant("c").await;
        world
            .registry
            .store
            .compact(storage::Revision(last.version()))
            .await
            .unwrap();
        let cache = crate::cache::Cache::new(world.registry.store.clone(), Default::default());
        tokio::spawn(cache.clone().run(world.registry.shutdown.clone()));
        assert!(cache.reached(last.version(), Duration::from_secs(5)).await);
        let registry = crate::registry::Registry {
            cache,
            shutdown: world.registry.shutdown.child_token(),
            ..world.registry.clone()
        };
        let world = World::of(registry);
        let call = Call::tenants("").query(&format!("watch=1&resourceVersion={}", a.version()));
        let mut events = world.watch(call).await;
        let error = events.next().await.unwrap();
        assert_eq!(error["type"], "ERROR");
        assert_eq!(error["object"]["code"], 410);
        assert_eq!(error["object"]["reason"], "Expired");
        let message = format!(
            "too old resource version: {} ({})",
            a.version(),
            last.version()
        );
        assert_eq!(error["object"]["message"], message);
        assert!(events.next().await.is_none());
    }
}

/// R3.24.
#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    for world in World::each().await {
        let call = Call::tenants("").query("watch=1&labelSelector=on=yes");
        let mut events = world.watch(call).await;
        world.tenant("a").await;
        let label = |value: &str| json!({"metadata": {"labels": {"on": value}}});
        let on = world.patch(Call::tenants("a").body(label("yes"))).await;
        assert_eq!(events.line().await, format!("ADDED a@{}", on.version()));
        let more = world
            .patch(Call::tenants("a").body(json!({"metadata": {"annotations": {"x": "y"}}})))
            .await;
        assert_eq!(
            events.line().await,
            format!("MODIFIED a@{}", more.version())
        );
        let off = world.patch(Call::tenants("a").body(label("no"))).await;
        let event = events.next().await.unwrap();
        assert_eq!(event["type"], "DELETED");
        assert_eq!(event["object"]["metadata"]["labels"]["on"], "yes");
        assert_eq!(
            event["object"]["metadata"]["resourceVersion"],
            off.version().to_string()
        );
        world.delete(Call::tenants("a")).await;
        events.quiet().await;

        let mut named = world
            .watch(Call::tenants("").query("watch=1&fieldSelector=metadata.name=q"))
            .await;
        let mut elsewhere = world
            .watch(Call::new("tenantcontrolplanes", Some("m"), "").query("watch=1"))
            .await;
        let mut everywhere = world
            .watch(Call::tenants("").everywhere().query("watch=1"))
            .await;
        world.tenant("p").await;
        let q = world.tenant("q").await;
        assert_eq!(named.line().await, format!("ADDED q@{}", q.version()));
        elsewhere.quiet().await;
        assert_eq!(
            everywhere.line().await,
            format!("ADDED p@{}", q.version() - 1)
        );
    }
}

/// R3.27, R4.8, R4.9.
#[tokio::test]
async fn shapes_of_streams() {
    let world = World::memory().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let call = Call::tenants("")
        .query(WATCH_LIST)
        .header(header::ACCEPT, table);
    world.tenant("a").await;
    let mut events = world.watch(call).await;
    let first = events.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert!(
        !first["object"]["columnDefinitions"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let marker = events.next().await.unwrap();
    assert_eq!(marker["type"], "BOOKMARK");
    let row = &marker["object"]["rows"][0]["object"];
    assert_eq!(
        row["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(marker["object"]["columnDefinitions"], json!([]));

    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    let call = Call::tenants("")
        .query(WATCH_LIST)
        .header(header::ACCEPT, partial);
    let mut events = world.watch(call).await;
    let first = events.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(first["object"]["apiVersion"], "meta.k8s.io/v1");
    assert!(first["object"].get("spec").is_none());
    assert_eq!(
        events.next().await.unwrap()["object"]["kind"],
        "PartialObjectMetadata"
    );
    world.delete(Call::tenants("a")).await;
    let deleted = events.next().await.unwrap();
    assert_eq!(
        (&deleted["type"], &deleted["object"]["kind"]),
        (&json!("DELETED"), &json!("PartialObjectMetadata"))
    );
}

/// R1.17, R3.12, R3.27, R3.29.
#[tokio::test]
async fn bookmarks_follow_the_whole_store() {
    let world = World::memory().await;
    let call = Call::stores("")
        .query("watch=1&allowWatchBookmarks=true&timeoutSeconds=3&resourceVersion=1");
    let mut events = world.watch(call).await;
    let b = world.tenant("b").await;
    // The one of each minute is too far away; this is the one before the end.
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "DataStore");
    assert_eq!(
        bookmark["object"]["metadata"]["resourceVersion"],
        b.version().to_string()
    );
    assert!(events.next().await.is_none());
}

/// The end of such a watch was beyond the clock's range: a panic.
#[tokio::test]
async fn a_timeout_beyond_all_bounds_is_a_long_watch() {
    let world = World::memory().await;
    let call = Call::tenants("").query("watch=1&timeoutSeconds=9223372036854775807");
    let mut events = world.watch(call).await;
    world.tenant("a").await;
    assert_eq!(events.next().await.unwrap()["type"], "ADDED");
}

/// R3.16.
#[tokio::test]
async fn a_future_version_with_initial_events_is_an_event() {
    let world = World::memory().await;
    let call = Call::tenants("").query(&format!("{WATCH_LIST}&resourceVersion=1000"));
    let mut events = world.watch(call).await;
    let error = events.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&json!("ERROR"), &json!(504))
    );
    assert_eq!(
        error["object"]["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

/// R3.13, R3.26.
#[tokio::test]
async fn watchers_stay_in_step_through_churn() {
    for world in World::each().await {
        let watch = || async { world.watch(Call::tenants("").query(WATCH_LIST)).await };
        let mut early = watch().await;
        early.next().await.unwrap();
        for n in 0..50 {
            let name = format!("t{}", n % 7);
            let created = world.create(Call::tenants("").body(tenant(&name))).await;
            if created.code == 409 {
                world.delete(Call::tenants(&name)).await;
            }
        }
        let list = world.list(Call::tenants("")).await;
        let mut state = std::collections::BTreeSet::new();
        let mut last = 0;
        while last < list.version() {
            let event = early.next().await.unwrap();
            let meta = &event["object"]["metadata"];
            let name = meta["name"].as_str().unwrap().to_owned();
            let version: u64 = meta["resourceVersion"].as_str().unwrap().parse().unwrap();
            assert!(version > last, "{event}");
            last = version;
            match event["type"].as_str().unwrap() {
                "DELETED" => assert!(state.remove(&name)),
                _ => assert!(state.insert(name)),
            }
        }
        let expected: std::collections::BTreeSet<String> = list.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(state, expected);
    }
}

/// R3.29, R9.7.
#[tokio::test]
async fn shutdown_ends_watches() {
    let world = World::memory().await;
    let mut events = world.watch(Call::tenants("").query("watch=1")).await;
    events.quiet().await;
    world.registry.shutdown.cancel();
    assert!(events.next().await.is_none());
}

/// A store that was confirmed while it is served skips revisions (rule 4): nothing of
/// before is answered from memory.
/// R3.17.
#[tokio::test]
async fn revisions_of_before_a_confirmation_are_gone_while_serving() {
    for world in World::each().await {
        let a = world.tenant("a").await;
        let b = world.tenant("b").await;
        let watch =
            |version: u64| Call::tenants("").query(&format!("watch=1&resourceVersion={version}"));
        let mut open = world.watch(watch(b.version())).await;
        let to = world.registry.store.advance(storage::Revision(1_000)).await;
        let to = to.unwrap().0;
        assert!(
            world
                .registry
                .cache
                .reached(to, Duration::from_secs(5))
                .await
        );
        for version in [a.version(), b.version(), to - 1] {
            let mut events = world.watch(watch(version)).await;
            assert_eq!(events.next().await.unwrap()["object"]["code"], 410);
            let query = format!("resourceVersion={version}&resourceVersionMatch=Exact");
            let list = world.list(Call::tenants("").query(&query)).await;
            assert_eq!(list.code, 410, "{version}");
        }
        assert_eq!(open.next().await.unwrap()["object"]["code"], 410);
        // What comes after is followed, by those that listed anew.
        let list = world.list(Call::tenants("")).await;
        assert_eq!(list.body["items"].as_array().unwrap().len(), 2);
        let mut events = world.watch(watch(list.version())).await;
        let c = world.tenant("c").await;
        assert_eq!(c.version(), to + 1);
        let event = events.next().await.unwrap();
        assert_eq!(event["object"]["metadata"]["name"], "c");
    }
}

/// However many watch in one form, a frame is made once, but for the first with columns.
/// R8.46.
#[tokio::test]
async fn watchers_in_other_forms_share_their_frames() {
    let world = World::memory().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let selected = "watch=1&labelSelector=on=yes";
    for (accept, query, shared) in [
        (table, "watch=1", [false, true, true]),
        (partial, "watch=1", [true, true, true]),
        ("application/json", selected, [false, false, true]),
    ] {
        let watch = || {
            let call = Call::tenants("").query(query);
            world.watch(call.header(http::header::ACCEPT, accept))
        };
        let mut watchers = [watch().await, watch().await];
        let mut seen = Vec::new();
        let values = ["yes", "yes", "no"];
        for (value, shared) in values.into_iter().zip(shared) {
            let made = world.registry.cache.frames.bytes();
            if seen.is_empty() {
                let mut object = tenant("a");
                object["metadata"]["labels"] = json!({"on": value});
                world.create(Call::tenants("").body(object)).await;
            } else {
                let change = json!({"metadata": {
                    "labels": {"on": value}, "annotations": {"n": seen.len().to_string()},
                }});
                world.patch(Call::tenants("a").body(change)).await;
            }
            let events = [
                watchers[0].next().await.unwrap(),
                watchers[1].next().await.unwrap(),
            ];
            assert_eq!(events[0], events[1]);
            let made = world.registry.cache.frames.bytes() - made;
            let length = events[0].to_string().len() + 1;
            let expected = if shared { length } else { 0 };
            assert_eq!(made, expected, "{accept} {events:?}");
            seen.push(events);
        }
        world.delete(Call::tenants("a")).await;
        for watcher in &mut watchers {
            let more = watcher.next();
            if query == "watch=1" {
                assert_eq!(more.await.unwrap()["type"], "DELETED");
            }
        }
    }
}

/// Changes that are none of a watcher's fill a batch; the one that is comes right after.
#[tokio::test]
async fn a_watch_does_not_sleep_over_what_comes_after_a_batch() {
    let world = World::memory().await;
    let selected = "watch=1&fieldSelector=metadata.name=b";
    let mut events = world.watch(Call::tenants("").query(selected)).await;
    for name in ["a0", "a1", "a2"] {
        let mut large = tenant(name);
        large["metadata"]["annotations"] = json!({"pad": "x".repeat(200_000)});
        large["spec"]["dataStoreOverrides"] = padding(&"x".repeat(900_000));
        assert_eq!(world.create(Call::tenants("").body(large)).await.code, 201);
    }
    let b = world.create(Call::tenants("").body(tenant("b"))).await;
    let second = std::time::Duration::from_secs(1);
    let reached = world.registry.cache.reached(b.version(), 5 * second);
    assert!(reached.await);
    let event = tokio::time::timeout(second, events.next()).await;
    let event = event.expect("it is told at once").unwrap();
    assert_eq!(event["object"]["metadata"]["name"], "b");
}

/// What a watch keeps alive counts as its own, until it was sent.
#[tokio::test]
async fn a_watch_says_what_it_keeps() {
    let world = World::memory().await;
    let mut large = tenant("a");
    large["spec"]["dataStoreOverrides"] = padding(&"x".repeat(500_000));
    world.create(Call::tenants("").body(large)).await;
    let b = world.tenant("b").await;
    let second = Duration::from_secs(1);
    assert!(world.registry.cache.reached(b.version(), 5 * second).await);
    let response = world.open_watch(Call::tenants("").query(WATCH_LIST)).await;
    let kept = response
        .extensions()
        .get::<crate::live_bytes::Kept>()
        .cloned();
    let kept = kept.unwrap();
    // The cache holds it as well, until there is a newer one.
    assert!(kept.bytes() < 100, "{}", kept.bytes());
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let newer = world.patch(Call::tenants("a").body(label)).await;
    let cache = &world.registry.cache;
    assert!(cache.reached(newer.version(), 5 * second).await);
    cache.forget_events();
    assert!(kept.bytes() > 500_000, "{}", kept.bytes());
    let mut body = response.into_body();
    let mut left = Vec::new();
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
        left.push(kept.bytes());
    }
    assert!(left[0] < 5_000 && left[1] == 0, "{left:?}");
}

/// The same of frames that no event of the ring holds: in another form, and of objects that
/// a selector sees no more or sees anew.
#[tokio::test]
async fn a_watch_says_what_it_keeps_that_was_made_for_it() {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let world = World::memory().await;
    let cache = world.registry.cache.clone();
    let second = Duration::from_secs(1);
    let change = |on: &str, size: usize| {
        let padding = padding(&"x".repeat(size));
        let note = "y".repeat(size.min(200_000));
        Call::tenants("a").body(json!({
            "metadata": {"labels": {"on": on}, "annotations": {"n": note}},
            "spec": {"dataStoreOverrides": padding},
        }))
    };
    world.tenant("a").await;
    let larger = world.patch(change("yes", 500_000)).await;
    for (accept, query, least) in [
        (TABLE, "watch=1&includeObject=Object", 400_000),
        (PARTIAL, "watch=1", 150_000),
        ("application/json", "watch=1&labelSelector=on=yes", 400_000),
        ("application/json", "watch=1&labelSelector=on=no", 400_000),
    ] {
        let call = Call::tenants("").query(query);
        let since = format!("resourceVersion={}", larger.version());
        let call = call.query(&since).header(header::ACCEPT, accept);
        let response = world.open_watch(call).await;
        let kept = response
            .extensions()
            .get::<crate::live_bytes::Kept>()
            .cloned();
        let kept = kept.unwrap();
        for on in ["no", "yes"] {
            let newer = world.patch(change(on, 500_001)).await;
            assert_eq!(newer.code, 200, "{}", newer.body);
            assert!(cache.reached(newer.version(), 5 * second).await);
        }
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap();
        // One waits to be sent, and one is on its way.
        assert!(
            kept.bytes() > 2 * least,
            "{accept} {query}: {}",
            kept.bytes()
        );
        drop(first);
        assert!(kept.bytes() > least, "{accept} {query}: {}", kept.bytes());
        drop(body.frame().await.unwrap().unwrap());
        assert!(kept.bytes() < 5_000, "{accept} {query}: {}", kept.bytes());
    }
    // What the ring holds is none of them, but for what was joined for this watch.
    let version = world.patch(change("yes", 1_000)).await.version();
    let since = format!("watch=1&resourceVersion={version}");
    let response = world.open_watch(Call::tenants("").query(&since)).await;
    let kept = response
        .extensions()
        .get::<crate::live_bytes::Kept>()
        .cloned();
    let kept = kept.unwrap();
    for size in [1_001, 1_002, 500_000] {
        let newer = world.patch(change("yes", size)).await;
        assert!(cache.reached(newer.version(), 5 * second).await);
    }
    let mut body = response.into_body();
    let joined = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(kept.bytes(), joined.len());
    drop(joined);
    let plain = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(plain.len() > 500_000);
    assert_eq!(kept.bytes(), 0);
    cache.forget_events();
    assert_eq!(kept.bytes(), plain.len());
}
