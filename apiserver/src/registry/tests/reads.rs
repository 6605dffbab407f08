use std::time::Duration;

use http::header;
use serde_json::{Value, json};

use super::harness::{Call, World, tenant};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// R3.14, R3.43, R3.45.
#[tokio::test]
async fn get_answers() {
    let world = World::memory().await;
    let created = world.tenant("a").await;
    // "0" is whatever the cache has.
    let cache = &world.registry.cache;
    assert!(
        cache
            .reached(created.version(), Duration::from_secs(5))
            .await
    );
    for version in ["", "0", "1"] {
        let read = world
            .get(Call::tenants("a").query(&format!("resourceVersion={version}")))
            .await;
        assert_eq!(read.code, 200, "{}", read.body);
        assert_eq!(read.body, created.body);
    }
    let missing = world.get(Call::tenants("b")).await;
    assert_eq!(
        (missing.code, missing.message()),
        (
            404,
            "tenantcontrolplanes.steward.butlerlabs.dev \"b\" not found"
        )
    );
    assert_eq!(
        world
            .get(Call::tenants("a").query("resourceVersion=x"))
            .await
            .code,
        400
    );
    assert_eq!(world.get(Call::tenants("a%")).await.code, 400);
    assert_eq!(
        world.get(Call::tenants("a").query("export=1")).await.code,
        400
    );
    let yaml = world
        .get(Call::tenants("a").header(header::ACCEPT, "application/yaml"))
        .await;
    assert_eq!(yaml.headers[header::CONTENT_TYPE], "application/yaml");
    assert!(
        yaml.body
            .as_str()
            .unwrap()
            .contains("kind: TenantControlPlane\n")
    );
    let table = world
        .get(Call::tenants("a").header(header::ACCEPT, TABLE))
        .await;
    assert_eq!(table.body["kind"], "Table");
    assert_eq!(table.body["rows"][0]["cells"][0], "a");
    assert_eq!(table.body["columnDefinitions"][0]["format"], "name");
}

/// R3.16, R3.86.
#[tokio::test]
async fn a_version_that_is_not_there_yet() {
    let world = World::memory().await;
    world.tenant("a").await;
    for answer in [
        world
            .get(Call::tenants("a").query("resourceVersion=1000"))
            .await,
        world
            .list(Call::tenants("").query("resourceVersion=1000"))
            .await,
        world
            .list(Call::tenants("").query("resourceVersion=1000&resourceVersionMatch=Exact"))
            .await,
    ] {
        assert_eq!(answer.code, 504, "{}", answer.body);
        assert_eq!(
            answer.message(),
            "Timeout: Too large resource version: 1000, current: 2"
        );
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    }
}

/// R3.8, R3.9, R3.18, R3.44, R3.46.
#[tokio::test]
async fn lists_are_of_one_collection_and_in_order() {
    for world in World::each().await {
        for name in ["b", "a", "c"] {
            world.tenant(name).await;
        }
        let elsewhere = Call::new("tenantcontrolplanes", Some("m"), "").body(tenant("x"));
        world.create(elsewhere).await;
        let list = world.list(Call::tenants("")).await;
        assert_eq!(list.body["kind"], "TenantControlPlaneList");
        assert_eq!(list.body["apiVersion"], "steward.butlerlabs.dev/v1alpha1");
        assert_eq!(names(&list.body), ["a", "b", "c"]);
        assert_eq!(list.body["items"][0]["kind"], "TenantControlPlane");
        assert_eq!(
            list.version(),
            world.registry.store.revision().await.unwrap().0
        );
        let all = world.list(Call::tenants("").everywhere()).await;
        assert_eq!(names(&all.body), ["x", "a", "b", "c"]);
        let none = world.list(Call::stores("")).await;
        assert_eq!(none.body["items"], json!([]));
        let some = world
            .list(Call::tenants("").query("labelSelector=app!=b"))
            .await;
        assert_eq!(names(&some.body), ["a", "c"]);
        let one = world
            .list(
                Call::tenants("")
                    .everywhere()
                    .query("fieldSelector=metadata.namespace=m"),
            )
            .await;
        assert_eq!(names(&one.body), ["x"]);
        let bad = world
            .list(Call::tenants("").query("fieldSelector=spec.x=1"))
            .await;
        assert_eq!(
            (bad.code, bad.message()),
            (400, "field label not supported: spec.x")
        );
    }
}

/// R3.19.
#[tokio::test]
async fn pages_are_of_one_state() {
    for world in World::each().await {
        for name in ["a", "b", "c", "d", "e"] {
            world.tenant(name).await;
        }
        let first = world.list(Call::tenants("").query("limit=2")).await;
        assert_eq!(names(&first.body), ["a", "b"]);
        assert_eq!(first.body["metadata"]["remainingItemCount"], 3);
        // Changes after the first page do not show in the later ones.
        world.delete(Call::tenants("c")).await;
        world.tenant("aa").await;
        let token = first.body["metadata"]["continue"].as_str().unwrap();
        let second = world
            .list(Call::tenants("").query(&format!("limit=2&continue={token}")))
            .await;
        assert_eq!(names(&second.body), ["c", "d"], "{}", second.body);
        assert_eq!(second.version(), first.version());
        let token = second.body["metadata"]["continue"].as_str().unwrap();
        let third = world
            .list(Call::tenants("").query(&format!("limit=2&continue={token}")))
            .await;
        assert_eq!(names(&third.body), ["e"]);
        assert!(third.body["metadata"].get("continue").is_none());
        let exact = format!(
            "resourceVersion={}&resourceVersionMatch=Exact",
            first.version()
        );
        let exact = world.list(Call::tenants("").query(&exact)).await;
        assert_eq!(names(&exact.body), ["a", "b", "c", "d", "e"]);

        // Compaction ends the consistent list and offers to go on without it.
        let now = world.registry.store.revision().await.unwrap();
        world.registry.store.compact(now).await.unwrap();
        // A cache that is still at that state could serve it.
        assert!(
            world
                .registry
                .cache
                .reached(now.0, Duration::from_secs(5))
                .await
        );
        let token = first.body["metadata"]["continue"].as_str().unwrap();
        let gone = world
            .list(Call::tenants("").query(&format!("limit=2&continue={token}")))
            .await;
        assert_eq!((gone.code, &gone.body["reason"]), (410, &json!("Expired")));
        let token = gone.body["metadata"]["continue"].as_str().unwrap();
        let rest = world
            .list(Call::tenants("").query(&format!("limit=9&continue={token}")))
            .await;
        assert_eq!(names(&rest.body), ["d", "e"], "{}", rest.body);
        let old = format!(
            "resourceVersion={}&resourceVersionMatch=Exact",
            first.version()
        );
        let old = world.list(Call::tenants("").query(&old)).await;
        assert_eq!(
            (old.code, old.message()),
            (410, "The resourceVersion for the provided list is too old.")
        );
    }
}

/// R3.19.
#[tokio::test]
async fn selected_pages_have_no_count() {
    for world in World::each().await {
        for name in ["a", "b", "c", "d"] {
            world.tenant(name).await;
        }
        let page = world
            .list(Call::tenants("").query("limit=1&labelSelector=app notin (a)"))
            .await;
        assert_eq!(names(&page.body), ["b"]);
        assert!(page.body["metadata"].get("remainingItemCount").is_none());
        assert!(page.body["metadata"]["continue"].is_string());
    }
}

/// R4.8, R4.9.
#[tokio::test]
async fn tables_and_metadata() {
    let world = World::memory().await;
    world.tenant("a").await;
    world
        .seconds
        .fetch_add(330, std::sync::atomic::Ordering::SeqCst);
    let table = world
        .list(Call::tenants("").header(header::ACCEPT, TABLE))
        .await;
    assert_eq!(table.body["kind"], "Table");
    let definitions = table.body["columnDefinitions"].as_array().unwrap();
    let age = definitions
        .iter()
        .position(|column| column["name"] == "Age")
        .unwrap();
    assert_eq!(table.body["rows"][0]["cells"][age], "5m30s");
    assert_eq!(
        table.body["rows"][0]["object"]["kind"],
        "PartialObjectMetadata"
    );
    let whole = Call::tenants("")
        .query("includeObject=Object")
        .header(header::ACCEPT, TABLE);
    assert_eq!(
        world.list(whole).await.body["rows"][0]["object"]["kind"],
        "TenantControlPlane"
    );
    let partial = world
        .list(Call::tenants("").header(header::ACCEPT, PARTIAL))
        .await;
    assert_eq!(partial.body["kind"], "PartialObjectMetadataList");
    assert_eq!(partial.body["items"][0]["kind"], "PartialObjectMetadata");
    assert!(partial.body["items"][0].get("spec").is_none());
    assert_eq!(names(&partial.body), ["a"]);
}

/// R3.20.
#[tokio::test]
async fn a_long_list_is_one_document() {
    let world = World::memory().await;
    for n in 0..300 {
        world.tenant(&format!("t{n:04}")).await;
    }
    let list = world.list(Call::tenants("")).await;
    assert_eq!(names(&list.body).len(), 300);
    let length: usize = list.headers[header::CONTENT_LENGTH]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(length > 64 * 1024);
    // Without the cache the answer is the same.
    world.registry.shutdown.cancel();
    let token = crate::options::Continue {
        revision: Some(list.version() - 1),
        after: "t0297".into(),
    };
    let page = world
        .list(Call::tenants("").query(&format!("continue={}", token.encode())))
        .await;
    assert_eq!(names(&page.body), ["t0298"]);
}

/// R3.87.
#[tokio::test]
async fn a_closed_store_is_never_an_absence() {
    for world in World::each().await {
        world.tenant("a").await;
        world.registry.store.close().await;
        for answer in [
            world.get(Call::tenants("a")).await,
            world.get(Call::tenants("b")).await,
            world.list(Call::tenants("")).await,
            world.delete(Call::tenants("b")).await,
            world.create(Call::tenants("").body(tenant("c"))).await,
            world.delete_collection(Call::tenants("")).await,
        ] {
            assert_eq!(answer.code, 503, "{}", answer.body);
            assert!(answer.headers.contains_key(header::RETRY_AFTER));
        }
    }
}
