//! What clients and controllers could not decode is not stored, and read as something that
//! they can where an older release has stored it: with one such object they list none.

use apiservice::v1alpha1::DataStore;
use http::header;
use serde_json::{Value, json};

use super::harness::{Answer, Call, World, tenant};

const BAD_TIME: &str = "-000001-01-01T00:00:00Z";

fn manager(time: &str) -> Value {
    json!({
        "manager": "x", "operation": "Update", "time": time, "fieldsType": "FieldsV1",
        "apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:zz": {}}}},
    })
}

/// A DataStore whose references need rights.
fn store() -> Value {
    let secret = json!({"secretReference": {"name": "c", "namespace": "n", "keyPath": "k"}});
    json!({
        "metadata": {"name": "pg"},
        "spec": {
            "driver": "PostgreSQL", "endpoints": ["db.n.svc:5432"],
            "basicAuth": {"username": secret, "password": secret},
            "tlsConfig": {"certificateAuthority": {"certificate": secret}},
        },
    })
}

async fn put(world: &World, key: &str, object: &Value) {
    let bytes = object.to_string().into();
    let put = world
        .registry
        .store
        .put(key, bytes, storage::Expect::Absent);
    put.await.unwrap();
}

/// R5.11, R6.1: an editor of one namespace would end the lists of everybody.
#[tokio::test]
async fn times_that_go_does_not_read_are_refused() {
    let world = World::memory().await;
    let refused = |answer: &Answer, code| {
        let why = format!(
            "parsing time {BAD_TIME:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {BAD_TIME:?} as \"2006\""
        );
        assert_eq!(answer.code, code, "{}", answer.body);
        assert!(answer.message().ends_with(&why), "{}", answer.body);
    };
    let mut object = tenant("a");
    object["metadata"]["managedFields"] = json!([manager(BAD_TIME)]);
    refused(&world.create(Call::tenants("").body(object)).await, 400);

    let mut object = world.tenant("a").await.body;
    object["metadata"]["managedFields"] = json!([manager(BAD_TIME)]);
    let metadata = json!({"metadata": object["metadata"]});
    let call = || Call::tenants("a");
    refused(&world.update(call().body(object)).await, 400);
    refused(&world.patch(call().body(metadata.clone())).await, 422);
    let scale = json!({"metadata": metadata["metadata"], "spec": {"replicas": 1}});
    refused(&world.update(call().part("scale").body(scale)).await, 400);
    let kept = world.get(call()).await.body;
    assert!(!kept.to_string().contains(BAD_TIME), "{kept}");
}

/// R5.11, R6.1.
#[tokio::test]
async fn stored_times_that_go_does_not_read_are_left_out() {
    for world in World::each().await {
        let mut object = tenant("a");
        object["metadata"]["namespace"] = "n".into();
        object["metadata"]["uid"] = "u".into();
        object["metadata"]["managedFields"] = json!([manager(BAD_TIME)]);
        let condition = json!({"type": "Ready", "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": BAD_TIME});
        object["status"] = json!({"conditions": [condition],
            "storage": {"setup": {"lastUpdate": "20260101T000000Z"}}});
        put(&world, "/tenantcontrolplanes/n/a", &object).await;
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let lists = [
            Call::tenants(""),
            Call::tenants("").query("resourceVersion=0"),
            Call::tenants("").header(header::ACCEPT, partial),
        ];
        for call in lists {
            // What was written past the server comes to its cache a moment later.
            let read = async || loop {
                let list = world.list(call.clone()).await.body;
                if list["items"][0].is_object() {
                    return list;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            };
            let patience = std::time::Duration::from_secs(10);
            let list = tokio::time::timeout(patience, read()).await.unwrap();
            let read = &list["items"][0];
            let managers = &read["metadata"]["managedFields"];
            assert_eq!(managers[0]["manager"], "x", "{list}");
            assert!(managers[0].get("time").is_none(), "{list}");
            assert!(!list.to_string().contains(BAD_TIME), "{list}");
        }
        let from = Call::tenants("").query("watch=1&resourceVersion=0");
        let event = world.watch(from).await.next().await.unwrap();
        let status = &event["object"]["status"];
        // It has to be there.
        let epoch = &status["conditions"][0]["lastTransitionTime"];
        assert_eq!(epoch, "1970-01-01T00:00:00Z");
        assert_eq!(status["storage"]["setup"], json!({}));
        // The next write mends what is stored.
        let labels = json!({"metadata": {"labels": {"b": "c"}}});
        let patched = world.patch(Call::tenants("a").body(labels)).await;
        assert_eq!(patched.code, 200, "{}", patched.body);
        let (stored, _) = world
            .registry
            .store
            .get("/tenantcontrolplanes/n/a")
            .await
            .unwrap();
        let stored: Value = serde_json::from_slice(&stored.unwrap().value).unwrap();
        assert_eq!(
            patched.body["metadata"]["managedFields"],
            stored["metadata"]["managedFields"]
        );
        assert!(!stored.to_string().contains(BAD_TIME), "{stored}");
    }
}

/// R6.11, rule 8: a number with an exponent changes nothing of what is asked.
#[tokio::test]
async fn whole_numbers_are_stored_as_integers() {
    let world = World::limited(|asked| asked != "get secrets c");
    let mut object = store();
    object["spec"]["capacity"] = json!({"bytes": 1e12, "tenants": 50.0});
    let refused = world.create(Call::stores("").body(object.clone())).await;
    assert_eq!(refused.code, 403, "{}", refused.body);

    let world = World::memory().await;
    let created = world.create(Call::stores("").body(object)).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let integers = json!({"bytes": 1_000_000_000_000_i64, "tenants": 50}).to_string();
    assert_eq!(created.body["spec"]["capacity"].to_string(), integers);
    let status = json!({"status": {"observedGeneration": 1.0, "tenants": 2e0}});
    let call = || Call::stores("pg");
    let patched = world.patch(call().part("status").body(status)).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let generation = &patched.body["status"]["observedGeneration"];
    assert_eq!(generation.to_string(), "1");
    let wide = json!({"spec": {"capacity": {"tenants": 6e1}}});
    let apply = header::CONTENT_TYPE;
    let mut config = store();
    config["apiVersion"] = "steward.butlerlabs.dev/v1alpha1".into();
    config["kind"] = "DataStore".into();
    config["spec"]["capacity"] = json!({"tenants": 7e1});
    let config = call()
        .header(apply, "application/apply-patch+yaml")
        .query("fieldManager=m&force=true")
        .body(config);
    for (call, tenants) in [(call().body(wide), "60"), (config, "70")] {
        let patched = world.patch(call).await;
        assert_eq!(patched.code, 200, "{}", patched.body);
        assert_eq!(
            patched.body["spec"]["capacity"]["tenants"].to_string(),
            tenants
        );
    }
    let read = world.get(call()).await.body;
    serde_json::from_value::<DataStore>(read).unwrap();
}

/// R6.11: nor is anything stored that is no `int64`, whoever writes it.
#[tokio::test]
async fn what_is_no_integer_is_refused() {
    let world = World::memory().await;
    assert_eq!(world.create(Call::stores("").body(store())).await.code, 201);
    let call = || Call::stores("pg");
    for number in [
        "9223372036854775808",
        "-9223372036854775809",
        "1e300",
        "9007199254740993.0",
    ] {
        let spec = format!(r#"{{"spec":{{"capacity":{{"bytes":{number}}}}}}}"#);
        let status = format!(r#"{{"status":{{"size":{number}}}}}"#);
        for call in [call().text(&spec), call().part("status").text(&status)] {
            let refused = world.patch(call).await;
            assert_eq!(refused.code, 422, "{}", refused.body);
            let why = r#"in body must be of type int64: "float64""#;
            assert!(refused.message().contains(why), "{}", refused.body);
        }
    }
}

/// R6.1, R6.14: what an older release stored is read as what comes nearest, and can be
/// written elsewhere and deleted.
#[tokio::test]
async fn stored_numbers_that_are_no_integers_are_mended() {
    for world in World::each().await {
        let mut object = store();
        object["metadata"]["uid"] = "u".into();
        object["metadata"]["finalizers"] = json!(["a.b/c"]);
        let text = object.to_string().replacen(
            r#""driver":"#,
            r#""capacity":{"bytes":9223372036854775808,"tenants":50.0},"driver":"#,
            1,
        );
        let status = r#"{"status":{"observedGeneration":1.0,"size":-1e300},"#;
        let text = text.replacen('{', status, 1);
        let put = world
            .registry
            .store
            .put("/datastores/pg", text.into(), storage::Expect::Absent);
        put.await.unwrap();
        let list = world.list(Call::stores("")).await.body;
        let read: DataStore = serde_json::from_value(list["items"][0].clone()).unwrap();
        let capacity = read.spec.capacity.unwrap();
        assert_eq!(
            (capacity.bytes, capacity.tenants),
            (Some(i64::MAX), Some(50))
        );
        let status = read.status.unwrap();
        let numbers = (status.observed_generation, status.size);
        assert_eq!(numbers, (Some(1), Some(i64::MIN)));
        assert_eq!(world.delete(Call::stores("pg")).await.code, 200);
        let release = json!({"metadata": {"finalizers": null}});
        let gone = world.patch(Call::stores("pg").body(release)).await;
        assert_eq!(gone.code, 200, "{}", gone.body);
        assert_eq!(world.get(Call::stores("pg")).await.code, 404);
    }
}
