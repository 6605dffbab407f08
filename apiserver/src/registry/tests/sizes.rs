//! Bounds on what is stored and on what one answer holds.

use http::header;
use serde_json::{Value, json};

use super::harness::{ANSWERS, Call, World, padding, tenant};
use crate::quota::Bounds;

const BOUNDS: Bounds = Bounds {
    objects: 6,
    objects_per_namespace: 4,
    object_bytes: 20_000,
    bytes: 50_000,
    bytes_per_namespace: 30_000,
};

fn padded(name: &str, bytes: usize) -> Value {
    let mut object = tenant(name);
    object["spec"]["dataStoreOverrides"] = padding(&"x".repeat(bytes));
    object
}

async fn create(world: &World, namespace: &str, object: Value) -> (u16, String) {
    let call = Call::new(super::harness::TENANTS, Some(namespace), "").body(object);
    let answer = world.create(call).await;
    (answer.code, answer.message().to_owned())
}

#[tokio::test]
async fn objects_are_limited_by_namespace_and_in_all() {
    for world in World::each().await {
        let world = world.bounded(BOUNDS);
        // Side by side: what is under way counts.
        let all = (0..12).map(|n| create(&world, "n", tenant(&format!("a{n}"))));
        let answers = futures::future::join_all(all).await;
        assert_eq!(answers.iter().filter(|answer| answer.0 == 201).count(), 4);
        let (_, message) = answers.iter().find(|answer| answer.0 == 403).unwrap();
        assert!(
            message.ends_with(
                "is forbidden: exceeded quota: steward-apiserver-namespace, requested: \
                 count/tenantcontrolplanes.steward.butlerlabs.dev=1, used: \
                 count/tenantcontrolplanes.steward.butlerlabs.dev=4, limited: \
                 count/tenantcontrolplanes.steward.butlerlabs.dev=4"
            ),
            "{message}"
        );
        // Others are not concerned until there are too many in all.
        assert_eq!(create(&world, "m", tenant("a")).await.0, 201);
        assert_eq!(create(&world, "m", tenant("b")).await.0, 201);
        let (code, message) = create(&world, "m", tenant("c")).await;
        assert_eq!(code, 403);
        assert!(
            message.contains("exceeded quota: steward-apiserver, "),
            "{message}"
        );
        // A refused creation takes no room, a deletion gives it back.
        assert_eq!(
            world
                .delete(Call::new(super::harness::TENANTS, Some("m"), "a"))
                .await
                .code,
            200
        );
        assert_eq!(create(&world, "m", tenant("c")).await.0, 201);
    }
}

#[tokio::test]
async fn bytes_are_limited_and_what_grows_nothing_goes_on() {
    let world = World::memory().await.bounded(BOUNDS);
    let (code, message) = create(&world, "n", padded("huge", 20_000)).await;
    assert_eq!(
        (code, message.as_str()),
        (413, "Request entity too large: limit is 20000")
    );
    assert_eq!(create(&world, "n", padded("a", 12_000)).await.0, 201);
    assert_eq!(create(&world, "n", padded("b", 11_000)).await.0, 201);
    let (code, message) = create(&world, "n", padded("c", 12_000)).await;
    assert_eq!(code, 403);
    assert!(message.contains("requested: bytes=1"), "{message}");
    assert!(message.contains("limited: bytes=30000"), "{message}");
    // An update that makes an object larger is a creation of so many bytes.
    let grown = json!({"metadata": {"annotations": {"more": "x".repeat(3_000)}}});
    let answer = world.patch(Call::tenants("a").body(grown)).await;
    assert_eq!(answer.code, 403, "{}", answer.body);
    let label = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"dataStoreOverrides": null},
    });
    assert_eq!(world.patch(Call::tenants("a").body(label)).await.code, 200);
    // Status is not refused, so that a controller can finish what it began.
    let status =
        json!({"status": {"kubernetesResources": {"version": {"version": "v".repeat(90_000)}}}});
    let call = Call::tenants("b").part("status").body(status.clone());
    assert_eq!(world.patch(call).await.code, 413);
    let status =
        json!({"status": {"kubernetesResources": {"version": {"version": "v".repeat(6_000)}}}});
    let call = Call::tenants("b").part("status").body(status);
    assert_eq!(world.patch(call).await.code, 200);
}

/// `--max-bytes`: no namespace is at its limit, and together they are.
#[tokio::test]
async fn bytes_are_limited_in_all() {
    for world in World::each().await {
        let world = world.bounded(BOUNDS);
        for (namespace, name) in [("n", "a"), ("n", "b"), ("m", "a")] {
            let created = create(&world, namespace, padded(name, 12_000)).await;
            assert_eq!(created.0, 201, "{}", created.1);
        }
        let (code, message) = create(&world, "m", padded("b", 12_000)).await;
        assert_eq!(code, 403);
        let all = "exceeded quota: steward-apiserver, requested: bytes=1";
        assert!(message.contains(all), "{message}");
        assert!(message.contains("limited: bytes=50000"), "{message}");
        // What is taken away is room for others.
        assert_eq!(world.delete(Call::tenants("a")).await.code, 200);
        let created = create(&world, "m", padded("b", 12_000)).await;
        assert_eq!(created.0, 201, "{}", created.1);
    }
}

/// An administrator lowers the limit, or an object is as large as it may be: it can be
/// made smaller, has a status and replicas, and can be deleted.
/// R3.70.
#[tokio::test]
async fn what_is_larger_than_it_may_be_can_still_end() {
    let mut world = World::memory().await;
    let mut large = padded("a", 14_000);
    large["metadata"]["finalizers"] = json!(["example.com/a"]);
    assert_eq!(create(&world, "n", large).await.0, 201);
    world = world.bounded(crate::quota::Bounds {
        object_bytes: 10_000,
        ..crate::quota::Bounds::default()
    });
    let a = || Call::tenants("a");
    let status = json!({"status": {"kubernetesResources": {"version": {"version": "v1.36.3"}}}});
    let patches = [
        a().part("status").body(status),
        a().part("scale").body(json!({"spec": {"replicas": 0}})),
        a().body(json!({"spec": {"controlPlane": {"deployment": {"replicas": null}}}})),
    ];
    for patch in patches {
        let answer = world.patch(patch).await;
        assert_eq!(answer.code, 200, "{}", answer.body);
    }
    let more = json!({"metadata": {"annotations": {"more": "x"}}});
    assert_eq!(world.patch(a().body(more)).await.code, 413);
    assert_eq!(world.delete(a()).await.code, 200);
    let freed = json!({"metadata": {"finalizers": null}});
    let answer = world.patch(a().body(freed)).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(world.get(a()).await.code, 404);
}

#[tokio::test]
async fn the_largest_object_can_be_deleted() {
    let world = World::memory().await;
    let mut largest = padded("a", crate::stored::MAX_STORED - 5_000);
    largest["metadata"]["finalizers"] = json!(["example.com/a"]);
    assert_eq!(create(&world, "n", largest).await.0, 201);
    let stored = world.registry.store.get("/tenantcontrolplanes/n/a").await;
    let stored = stored.unwrap().0.unwrap().value.len();
    let rest = "x".repeat(crate::stored::MAX_STORED - stored - 20);
    let rest = json!({"metadata": {"annotations": {"x": rest}}});
    let answer = world.patch(Call::tenants("a").body(rest.clone())).await;
    let answer = match answer.code {
        200 => answer,
        _ => {
            let mut less = rest;
            let text = less["metadata"]["annotations"]["x"].as_str().unwrap();
            let text = text[..text.len() - 60].to_owned();
            less["metadata"]["annotations"]["x"] = text.into();
            world.patch(Call::tenants("a").body(less)).await
        }
    };
    assert_eq!(answer.code, 200, "{}", answer.body["message"]);
    assert_eq!(world.delete(Call::tenants("a")).await.code, 200);
}

/// What was stored as heavy as it may be can have fewer finalizers, a status and an end:
/// what the server added, managers among it, does not count.
#[tokio::test]
async fn the_heaviest_object_can_be_deleted() {
    use crate::object::weight::{self, TREE};
    let world = World::memory().await;
    let heavy = |count: usize| {
        let mut object = tenant("a");
        object["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
        let tolerations = vec![json!({"key": "a", "operator": "Exists"}); count];
        object["spec"]["controlPlane"]["deployment"]["tolerations"] = tolerations.into();
        object
    };
    let one = weight::of(&heavy(5_001), TREE).unwrap() - weight::of(&heavy(5_000), TREE).unwrap();
    let mut count = 5_000;
    let left = |count| weight::of(&heavy(count), TREE).map(|weight| TREE - weight);
    while let Ok(left) = left(count)
        && left > 2 * one
    {
        count += left.div_ceil(2 * one).min(count / 8);
    }
    // By a release that did not bound what a spec takes as types.
    let mut heaviest = heavy(count);
    heaviest["metadata"]["namespace"] = json!("n");
    heaviest["metadata"]["uid"] = json!("u");
    let value = heaviest.to_string().into();
    let store = &world.registry.store;
    let key = "/tenantcontrolplanes/n/a";
    store
        .put(key, value, storage::Expect::Absent)
        .await
        .unwrap();
    let a = || Call::tenants("a");
    let status = json!({"status": {"kubernetesResources": {"version": {"version": "v1.36.3"}}}});
    let patches = [
        a().part("status").body(status),
        a().body(json!({"metadata": {"finalizers": ["example.com/a"]}})),
    ];
    for call in patches {
        let answer = world.patch(call).await;
        assert_eq!(answer.code, 200, "{}", answer.body["message"]);
    }
    assert_eq!(world.delete(a()).await.code, 200);
    let freed = json!({"metadata": {"finalizers": null}});
    let answer = world.patch(a().body(freed)).await;
    assert_eq!(answer.code, 200, "{}", answer.body["message"]);
    assert_eq!(world.get(a()).await.code, 404);
}

/// Lists of older states come from the store: they share a budget, a page of them is
/// bounded, and what was sent is given back.
#[tokio::test]
async fn lists_from_the_store_are_bounded() {
    let world = World::sqlite().await;
    let mut versions = Vec::new();
    for n in 0..5 {
        let call = Call::tenants("").body(padded(&format!("a{n}"), 1_000_000));
        versions.push(world.create(call).await.version());
    }
    world.tenant("z").await;
    const { assert!(ANSWERS / 2 > 3_100_000 && ANSWERS / 2 < 5_000_000) };
    let older = |count: usize| {
        let version = versions[count - 1];
        Call::tenants("").query(&format!(
            "resourceVersion={version}&resourceVersionMatch=Exact"
        ))
    };
    for _ in 0..3 {
        let answer = world.list(older(3)).await;
        assert_eq!(answer.body["items"].as_array().unwrap().len(), 3);
    }
    let refused = world.list(older(5)).await;
    assert_eq!(refused.code, 413, "{}", refused.body);
    assert!(refused.message().contains("limit parameter"));
    // Two at a time are too many; the first is there while its body is.
    let held = world.open_list(older(3)).await;
    let second = world.list(older(3)).await;
    assert_eq!(
        (second.code, &second.headers[header::RETRY_AFTER]),
        (429, &"1".parse().unwrap())
    );
    // Another's share is there all the same.
    let other = world.list(older(3).by("another")).await;
    assert_eq!(other.code, 200, "{}", other.body);
    drop(held);
    assert_eq!(world.list(older(3)).await.code, 200);
}

/// What a selector leaves out is read and looked at all the same.
#[tokio::test]
async fn what_a_list_looks_at_counts_and_holds_up_nobody() {
    use futures::FutureExt;
    let world = World::memory().await;
    let mut version = 0;
    for n in 0..3 {
        let call = Call::tenants("").body(padded(&format!("a{n}"), 1_100_000));
        version = world.create(call).await.version();
    }
    // It is not the present state, and the cache knows.
    let newest = world.tenant("z").await.version();
    let within = std::time::Duration::from_secs(5);
    assert!(world.registry.cache.reached(newest, within).await);
    let older = || {
        Call::tenants("").query(&format!(
            "resourceVersion={version}&resourceVersionMatch=Exact&labelSelector=no=such"
        ))
    };
    let mut first = std::pin::pin!(world.list(older()));
    let mut pauses = 0;
    let answer = loop {
        match first.as_mut().now_or_never() {
            Some(answer) => break answer,
            None => pauses += 1,
        }
        // The page that it looks through is in the memory.
        assert_eq!(world.list(older()).await.code, 429);
        tokio::task::yield_now().await;
    };
    assert!(pauses >= 3, "{pauses}");
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(answer.body["items"], json!([]));
    assert_eq!(world.list(older()).await.code, 200);
    assert!(world.registry.answers.is_unused());
}

/// A watcher queues about a megabyte, however many large events there are.
#[tokio::test]
async fn a_batch_of_events_is_bounded_in_bytes() {
    let world = World::memory().await;
    let first = world.tenant("first").await.version();
    let mut last = 0;
    for n in 0..8 {
        let call = Call::tenants("").body(padded(&format!("a{n}"), 600_000));
        last = world.create(call).await.version();
    }
    let cache = &world.registry.cache;
    assert!(cache.reached(last, std::time::Duration::from_secs(5)).await);
    let resource = apiservice::find(super::harness::TENANTS).unwrap();
    let crate::cache::Batch::Events(events, upto) = cache.events(resource, first, 256) else {
        panic!("the ring has them");
    };
    assert_eq!(events.len(), 2);
    assert_eq!(upto, events[1].revision);
    let (all, inside, _) = cache.usage("n").unwrap();
    assert_eq!(all, inside);
    assert_eq!(all.objects, 9);
}

/// A client that leaves in the middle of its write: what it reserved counts until the
/// store is through with the value, which is not stored if that had not begun.
#[tokio::test]
async fn a_write_whose_client_left_keeps_its_room() {
    let world = World::sqlite().await;
    let registry = &world.registry;
    assert!(
        registry
            .cache
            .reached(1, std::time::Duration::from_secs(5))
            .await
    );
    {
        let create = world.create(Call::tenants("").body(tenant("a")));
        assert!(futures::FutureExt::now_or_never(create).is_none());
    }
    assert_eq!(registry.quota.under_way(), 1);
    while registry.quota.under_way() > 0 {
        tokio::task::yield_now().await;
    }
    let stored = registry.store.get("/tenantcontrolplanes/n/a").await;
    assert!(stored.unwrap().0.is_none());
}

/// A list that nobody reads keeps the states of its time, and each that was replaced
/// since counts.
#[tokio::test]
async fn what_answers_keep_alive_is_counted() {
    let world = World::memory().await;
    let cache = world.registry.cache.clone();
    assert_eq!(create(&world, "n", padded("a", 14_000)).await.0, 201);
    let mut lists = Vec::new();
    for n in 0..300 {
        let note = json!({"metadata": {"annotations": {"n": format!("{n}")}}});
        let answer = world.patch(Call::tenants("a").body(note)).await;
        assert_eq!(answer.code, 200, "{}", answer.body);
        assert!(
            cache
                .reached(answer.version(), std::time::Duration::from_secs(5))
                .await
        );
        if n < 100 {
            lists.push(world.open_list(Call::tenants("")).await);
        }
    }
    // The ring has forgotten none, and counts as held.
    assert!(cache.live.used() > 300 * 14_000, "{}", cache.live.used());
    assert_eq!(cache.live.excess(), 0);
    cache.live.held(0);
    let before = cache.live.used();
    cache.forget_events();
    let kept = cache.live.used();
    assert!(
        (100 * 14_000..110 * 17_000).contains(&kept),
        "{kept} of {before}"
    );
    drop(lists);
    assert!(cache.live.used() < 20_000, "{}", cache.live.used());
}

/// What the present state and the ring hold is there whether or not a list is read; its
/// end would free nothing.
#[tokio::test]
async fn a_list_keeps_what_the_cache_does_not_hold() {
    let world = World::memory().await;
    let cache = world.registry.cache.clone();
    let within = std::time::Duration::from_secs(5);
    let mut version = 0;
    for name in ["a", "b"] {
        let call = Call::tenants("").body(padded(name, 14_000));
        version = world.create(call).await.version();
    }
    assert!(cache.reached(version, within).await);
    let list = world.open_list(Call::tenants("")).await;
    let watch = world
        .open_watch(Call::tenants("").query(super::watches::WATCH_LIST))
        .await;
    let kept = |response: &http::Response<axum::body::Body>| {
        let kept = response.extensions().get::<crate::live_bytes::Kept>();
        kept.unwrap().bytes()
    };
    // Two pointers.
    assert_eq!((kept(&list), kept(&watch)), (16, 16));
    let note = json!({"metadata": {"annotations": {"n": "1"}}});
    let version = world.patch(Call::tenants("a").body(note)).await.version();
    assert!(cache.reached(version, within).await);
    assert_eq!((kept(&list), kept(&watch)), (16, 16));
    // What comes from the store has a share of its own.
    let older = format!("resourceVersion={}&resourceVersionMatch=Exact", version - 1);
    let older = world.open_list(Call::tenants("").query(&older)).await;
    assert!(!world.registry.answers.is_unused());
    assert_eq!(kept(&older), 16);
    cache.forget_events();
    for response in [&list, &watch] {
        let kept = kept(response);
        assert!((14_000..20_000).contains(&kept), "{kept}");
    }
    let extension = list.extensions().get::<crate::live_bytes::Kept>().cloned();
    drop(list);
    assert_eq!(extension.unwrap().bytes(), 0);
}

/// A piece of a list that waits in the compressor, and the last one, after which nothing is
/// left of the list.
#[tokio::test]
async fn a_list_keeps_the_pieces_that_were_made_for_it() {
    let world = World::memory().await;
    let mut noise = String::new();
    let mut state = 1_u64;
    while noise.len() < 500_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        noise += &format!("{:08x}", state >> 32);
    }
    let mut large = super::harness::tenant("a");
    large["metadata"]["labels"] = json!({});
    large["spec"]["dataStoreOverrides"] = padding(&noise);
    let created = world.create(Call::tenants("").body(large)).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let within = std::time::Duration::from_secs(5);
    assert!(
        world
            .registry
            .cache
            .reached(created.version(), within)
            .await
    );
    let mut accepted = http::HeaderMap::new();
    accepted.insert(
        http::header::ACCEPT_ENCODING,
        http::HeaderValue::from_static("gzip"),
    );
    for headers in [http::HeaderMap::new(), accepted] {
        let list = world.open_list(Call::tenants("")).await;
        let kept = list.extensions().get::<crate::live_bytes::Kept>().cloned();
        let kept = kept.unwrap();
        let list = crate::respond::compress(&headers, list).await;
        let mut body = list.into_body();
        let first = http_body_util::BodyExt::frame(&mut body).await;
        let first = first.unwrap().unwrap();
        assert!(kept.bytes() > 500_000, "{}", kept.bytes());
        drop((first, body));
        assert_eq!(kept.bytes(), 0);
    }
}

/// A stored object is larger as a tree of values than the patch that changes it.
#[tokio::test]
async fn what_is_stored_counts_as_work_of_whoever_changes_it() {
    let world = World::memory().await;
    assert_eq!(create(&world, "n", padded("a", 14_000)).await.0, 201);
    let note = || Call::tenants("a").body(json!({"metadata": {"annotations": {"n": "1"}}}));
    let identity = note()
        .permit::<crate::authz::verb::Patch>()
        .identity()
        .clone();
    // All that one holder gets.
    let heavy = format!("[{}]", vec![r#"{"":0}"#; 60_000].join(","));
    let held = world.registry.limits.decode(&identity, heavy.as_bytes());
    let held = held.await.unwrap();
    let scale = || Call::tenants("a").part("scale");
    assert_eq!(world.get(scale()).await.code, 429);
    assert_eq!(world.patch(note()).await.code, 429);
    let mut whole = padded("a", 14_000);
    whole["metadata"]["annotations"] = json!({"n": "1"});
    assert_eq!(world.update(Call::tenants("a").body(whole)).await.code, 429);
    assert_eq!(world.delete(Call::tenants("a")).await.code, 429);
    assert_eq!(world.delete_collection(Call::tenants("")).await.code, 429);
    drop(held);
    assert_eq!(world.get(scale()).await.code, 200);
    assert_eq!(world.patch(note()).await.code, 200);
    assert_eq!(world.delete(Call::tenants("a")).await.code, 200);
}

/// What is made of a stored object is there beside it: it is counted before anything is
/// waited for with both at hand.
#[tokio::test]
async fn what_a_change_makes_counts_beside_what_is_stored() {
    use crate::decode::{self, Media};
    use crate::object::weight;
    let world = World::memory().await;
    assert_eq!(create(&world, "n", padded("a", 900_000)).await.0, 201);
    let noted = |n: &str| json!({"metadata": {"annotations": {"n": n}}});
    let note = |n| Call::tenants("a").body(noted(n));
    let permit = note("1").permit::<crate::authz::verb::Patch>();
    let stored = world.registry.store.get("/tenantcontrolplanes/n/a").await;
    let stored = stored.unwrap().0.unwrap().value;
    let tree = decode::weigh(Media::Json, &stored, weight::TREE).unwrap();
    let takes = 2 * stored.len() + tree;
    for (more, code) in [(takes / 2, 429), (takes + 100_000, 200)] {
        // Room for what is stored is left, and so much more.
        let rest = 32 * 1024 * 1024 - takes - more;
        let text = format!("{:?}", "x".repeat(rest * 4 / 13));
        let held = world
            .registry
            .limits
            .decode(permit.identity(), text.as_bytes());
        let held = held.await.unwrap();
        assert_eq!(world.patch(note("1")).await.code, code);
        let mut whole = world.get(Call::tenants("a")).await.body;
        whole["metadata"]["annotations"] = json!({"n": "2"});
        let put = Call::tenants("a").body(whole);
        assert_eq!(world.update(put).await.code, code);
        drop(held);
    }
}

/// What a configuration makes of a stored object takes more than reading it.
#[tokio::test]
async fn what_is_made_of_a_configuration_counts_as_work() {
    use crate::decode::{self, Media};
    use crate::object::weight;
    let world = World::memory().await;
    assert_eq!(create(&world, "n", padded("a", 14_000)).await.0, 201);
    let applied = |name: &str| {
        let mut config = padded(name, 60_000);
        config["apiVersion"] = json!("steward.butlerlabs.dev/v1alpha1");
        config["kind"] = json!("TenantControlPlane");
        let call = Call::tenants(name).query("fieldManager=m&force=true");
        call.header(header::CONTENT_TYPE, decode::APPLY)
            .body(config)
    };
    let permit = applied("a").permit::<crate::authz::verb::Patch>();
    let stored = world.registry.store.get("/tenantcontrolplanes/n/a").await;
    let stored = stored.unwrap().0.unwrap().value;
    // Room for one look at it is left, and little more.
    let tree = decode::weigh(Media::Json, &stored, weight::TREE).unwrap();
    let rest = 32 * 1024 * 1024 - (2 * stored.len() + tree) - 1_000;
    let text = format!("{:?}", "x".repeat(rest * 4 / 13));
    let held = world
        .registry
        .limits
        .decode(permit.identity(), text.as_bytes());
    let held = held.await.unwrap();
    let scale = Call::tenants("a").part("scale");
    assert_eq!(world.get(scale).await.code, 200);
    for name in ["a", "b"] {
        assert_eq!(world.patch(applied(name)).await.code, 429, "{name}");
    }
    drop(held);
    assert_eq!(world.patch(applied("a")).await.code, 200);
    assert_eq!(world.patch(applied("b")).await.code, 201);
}

/// More than fits at a time goes in turn.
#[tokio::test]
async fn a_collection_of_large_objects_is_deleted() {
    let world = World::memory().await;
    for n in 0..8 {
        let name = format!("a{n}");
        assert_eq!(create(&world, "n", padded(&name, 900_000)).await.0, 201);
    }
    assert_eq!(world.delete_collection(Call::tenants("")).await.code, 200);
}

/// Lists of older states are read from the store, one after the other: who asks for many
/// of them is refused, and others are not.
#[tokio::test]
async fn lists_of_the_past_are_shared() {
    let world = World::sqlite().await;
    let older = world.tenant("a").await.version();
    let newest = world.tenant("b").await.version();
    let list = |version: u64, user: &'static str| {
        let query = format!("resourceVersion={version}&resourceVersionMatch=Exact");
        world.list(Call::tenants("").query(&query).by(user))
    };
    let within = std::time::Duration::from_secs(5);
    assert!(world.registry.cache.reached(newest, within).await);
    let count = |answers: &[super::harness::Answer], code: u16| {
        answers.iter().filter(|answer| answer.code == code).count()
    };
    let many = futures::future::join_all((0..50).map(|_| list(older, "a")));
    let others = async {
        // They come when all of the first have come.
        tokio::task::yield_now().await;
        futures::future::join_all(["b", "c"].map(|user| list(older, user))).await
    };
    let controller = list(older, "system:kube-controller-manager");
    let (many, others, controller) = tokio::join!(many, others, controller);
    assert_eq!((count(&many, 200), count(&many, 429)), (4, 46));
    let refused = many.iter().find(|answer| answer.code == 429).unwrap();
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(count(&others, 200), 2);
    assert_eq!(controller.code, 200);
    // What is here already needs no place, nor does what was given back.
    let many = futures::future::join_all((0..50).map(|_| list(newest, "a"))).await;
    assert_eq!(count(&many, 200), 50);
    assert_eq!(list(older, "a").await.code, 200);
}

/// However many read the past of the store, it becomes the cache's present in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_is_loaded_whoever_reads_the_past() {
    use storage::Expect;
    let world = World::sqlite().await;
    let store = world.registry.store.clone();
    // Six pages, of what the cache need not look into.
    for n in 0..48 {
        let value = bytes::Bytes::from(vec![1; 1_000_000]);
        let key = format!("/pad/{n}");
        store.put(&key, value, Expect::Absent).await.unwrap();
    }
    let older = store.revision().await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    // Later pages of what is loaded are of the past while there are writes.
    let writer = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            let mut expect = Expect::Absent;
            while !stop.is_cancelled() {
                let put = store.put("/a", "1".into(), expect).await.unwrap();
                expect = Expect::At(put.modified);
            }
        }
    });
    let read = |_| {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                drop(store.range("/", None, None, Some(older)).await);
            }
        })
    };
    let readers: Vec<_> = (0..300).map(read).collect();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let cache = crate::cache::Cache::new(store.clone(), Default::default());
    let shutdown = world.registry.shutdown.clone();
    let fed = tokio::spawn(cache.clone().run(shutdown));
    // Before the last of those that read the past when it began.
    tokio::select! {
        biased;
        last = store.range("/", None, None, Some(older)) => panic!("{:?}", last.err()),
        reached = cache.reached(older.0, std::time::Duration::from_secs(60)) => assert!(reached),
    }
    assert!(cache.revision() > older.0);
    stop.cancel();
    writer.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    world.registry.shutdown.cancel();
    fed.await.unwrap();
}
