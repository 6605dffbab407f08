//! A store that does not answer, or does not confirm: what each verb makes of it.

use http::header;
use serde_json::{Value, json};
use storage::Error;
use storage::failing::{self, Faults};

use super::harness::{Answer, Call, World, tenant};
use crate::authz::verb;
use crate::registry;

fn failing_world() -> (World, Faults) {
    let (store, faults) = failing::over(&storage::memory::open());
    (World::with(store), faults)
}

fn errors() -> [(Error, &'static str); 2] {
    [
        (
            Error::Unavailable("disk I/O error".to_owned()),
            "the database is unavailable: disk I/O error",
        ),
        (
            Error::Corrupt("database disk image is malformed".to_owned()),
            "the database cannot be used: database disk image is malformed",
        ),
    ]
}

/// Every request that writes; the tenant `a` is there.
async fn writes(world: &World) -> Vec<(&'static str, Answer)> {
    let call = || Call::tenants("a");
    let mut labelled = world.get(call()).await.body;
    labelled["metadata"]["labels"] = json!({"new": "yes"});
    let status = json!({"status": {"kubernetesResources": {"version": {"version": "v1.36.3"}}}});
    let applied = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"labels": {"applied": "yes"}},
    });
    let apply = call()
        .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
        .query("fieldManager=me")
        .body(applied);
    let scale = json!({"spec": {"replicas": 3}});
    let label = json!({"metadata": {"labels": {"patched": "yes"}}});
    vec![
        (
            "create",
            world.create(Call::tenants("").body(tenant("b"))).await,
        ),
        ("update", world.update(call().body(labelled)).await),
        ("patch", world.patch(call().body(label)).await),
        ("apply", world.patch(apply).await),
        (
            "status",
            world.patch(call().part("status").body(status)).await,
        ),
        ("scale", world.patch(call().part("scale").body(scale)).await),
        ("delete", world.delete(call()).await),
        (
            "deletecollection",
            world.delete_collection(Call::tenants("")).await,
        ),
    ]
}

/// R3.86: what may have happened is not to be repeated without a look, so that a client of
/// Kubernetes must not be told to come again.
#[tokio::test]
async fn a_write_that_is_not_confirmed_has_no_retry_after() {
    for (error, text) in errors() {
        let (world, faults) = failing_world();
        world.tenant("a").await;
        faults.writes(error);
        for (verb, answer) in writes(&world).await {
            let expected = format!("the object store did not confirm the write: {text}");
            assert_eq!((answer.code, answer.message()), (503, &*expected), "{verb}");
            assert_eq!(answer.body["reason"], "ServiceUnavailable", "{verb}");
            assert_eq!(answer.headers.get(header::RETRY_AFTER), None, "{verb}");
            assert_eq!(
                answer.body["details"]["retryAfterSeconds"],
                Value::Null,
                "{verb}"
            );
        }
        // Nothing of it has happened, and once the store is well all of it does.
        faults.end();
        let lists = world.list(Call::tenants("")).await;
        assert_eq!(lists.body["items"].as_array().map(Vec::len), Some(1));
        for (verb, answer) in writes(&world).await {
            assert!(answer.code < 300, "{verb}: {}", answer.body);
        }
    }
}

/// What happened although nobody said so is seen by who looks, and is not done twice.
#[tokio::test]
async fn what_happened_without_an_answer_is_there_for_who_looks() {
    let (world, faults) = failing_world();
    let first = world.tenant("a").await.version();
    let mut events = world
        .watch(Call::tenants("").query(&format!("watch=true&resourceVersion={first}")))
        .await;
    let [(error, _), _] = errors();
    faults.acknowledgements(error);
    let unsure = world.create(Call::tenants("").body(tenant("b"))).await;
    assert_eq!(
        (unsure.code, unsure.headers.get(header::RETRY_AFTER)),
        (503, None)
    );
    assert_eq!(events.line().await, format!("ADDED b@{}", first + 1));
    let list = world.list(Call::tenants("")).await;
    assert_eq!(list.body["items"].as_array().map(Vec::len), Some(2));
    let gone = world.delete(Call::tenants("b")).await;
    assert_eq!(
        (gone.code, gone.headers.get(header::RETRY_AFTER)),
        (503, None)
    );
    assert_eq!(world.get(Call::tenants("b")).await.code, 404);
    faults.end();
    let again = world.create(Call::tenants("").body(tenant("b"))).await;
    assert_eq!(again.code, 201, "{}", again.body);
}

/// R3.86: nothing has happened, so that clients may come again by themselves. Rule 3: it is
/// never a 404 or an empty list.
#[tokio::test]
async fn a_read_that_fails_is_503_and_may_be_repeated() {
    for (error, text) in errors() {
        let (world, faults) = failing_world();
        world.tenant("a").await;
        faults.reads(error);
        let watch = Call::tenants("").query("watch=true");
        let request = watch.request();
        let watch = registry::watch::run(&world.registry, watch.permit::<verb::Watch>(), &request);
        let watched = World::finish(watch.await, request).await;
        let label = json!({"metadata": {"labels": {"patched": "yes"}}});
        let answers = [
            ("get", world.get(Call::tenants("a")).await),
            ("get of nothing", world.get(Call::tenants("none")).await),
            ("status", world.get(Call::tenants("a").part("status")).await),
            ("list", world.list(Call::tenants("")).await),
            (
                "list everywhere",
                world.list(Call::tenants("").everywhere()).await,
            ),
            ("watch", watched),
            ("patch", world.patch(Call::tenants("a").body(label)).await),
            ("delete", world.delete(Call::tenants("a")).await),
            (
                "deletecollection",
                world.delete_collection(Call::tenants("")).await,
            ),
        ];
        for (verb, answer) in answers {
            let expected = format!("the object store is not available: {text}");
            assert_eq!((answer.code, answer.message()), (503, &*expected), "{verb}");
            assert_eq!(answer.body["reason"], "ServiceUnavailable", "{verb}");
            let after = answer.headers.get(header::RETRY_AFTER);
            assert_eq!(
                after.map(|after| after.as_bytes()),
                Some(&b"1"[..]),
                "{verb}"
            );
            assert_eq!(answer.body["details"]["retryAfterSeconds"], 1, "{verb}");
        }
    }
}
