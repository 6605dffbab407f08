#![allow(clippy::disallowed_methods, reason = "tests")]

use std::convert::Infallible;
use std::sync::Arc;

use apiservice::v1alpha1::TenantControlPlane;
use futures::StreamExt;
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Config;
use kube::runtime::watcher;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::cluster::cache::Cached;
use crate::cluster::caches::Caches;
use crate::cluster::follow::{Event, follow};
use crate::cluster::managers::FIELD_MANAGER;
use crate::context::testing::{alone, measure, memory};
use crate::tenant::plan::Object;
use crate::tenant::testing::Lab;

/// A body that comes in pieces of so many bytes.
fn source(text: &str, size: usize) -> Source<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
    let chunks: Vec<_> = text.as_bytes().chunks(size).collect();
    let frames: Vec<_> = chunks
        .into_iter()
        .map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk))))
        .collect();
    Source::new(StreamBody::new(futures::stream::iter(frames)))
}

pub(crate) async fn read(text: &str, bounds: Bounds) -> Value {
    let read = source(text, 1 << 20).object(bounds).await.unwrap();
    let small = if text.len() < 10_000 {
        [1, 7]
    } else {
        [997, 16_384]
    };
    for size in small {
        assert_eq!(read, source(text, size).object(bounds).await.unwrap());
    }
    read.value().unwrap()
}

/// And no field of them is near what would be left out.
#[tokio::test]
async fn what_is_ours_is_read_as_it_is() {
    let lab = Lab::ready();
    let seen = lab.seen();
    let mut all: Vec<Value> = lab
        .world
        .owned
        .iter()
        .map(|found| Object::from(found.clone()).value().unwrap())
        .collect();
    assert!(all.len() > 15);
    all.push(serde_json::to_value(&*seen.pods[0]).unwrap());
    all.push(serde_json::to_value(&*seen.replica_sets[0]).unwrap());
    let tight = Bounds {
        field: FIELD / 4,
        weight: WEIGHT / 8,
        entries: ENTRIES / 8,
        map: MAP / 4,
        may_be_strange: false,
        managers: true,
    };
    for object in all {
        assert_eq!(read(&object.to_string(), tight).await, object);
    }
}

#[tokio::test]
async fn what_is_too_large_is_left_out() {
    let text = r#" {"kind" : "x\"}{[", "a": 1, "b":[true,null ,-1.5e3,[],{}],"metadata": null,
        "c":{"d":"\\"}, "e":"" } "#;
    let plain: Value = serde_json::from_str(text).unwrap();
    assert_eq!(read(text, Bounds::STRANGERS).await, plain);

    let of = |fields: usize, key: usize| -> serde_json::Map<String, Value> {
        let entries = (0..fields).map(|number| (format!("{number:0key$}"), json!("x")));
        entries.collect()
    };
    let mut data = of(100_000, 8);
    data.insert("0large".into(), json!("x".repeat(MAP)));
    data.insert("ca.crt".into(), json!("ours"));
    data.insert("z".repeat(KEY), json!("a long key"));
    let mut labels = of(1_000, 8);
    labels.insert(names::LABEL_NAME.into(), json!("a"));
    let annotations = json!({
        "a": "x".repeat(MAP - 10), "b": "y".repeat(100), names::ANNOTATION_APPLIED: "h",
    });
    let object = json!({
        "apiVersion": "v1",
        "data": data,
        "metadata": {
            "name": "n", "uid": "u", "labels": labels, "annotations": annotations,
            "managedFields": vec![json!({"f:a": {}}); 5_000],
        },
        "spec": vec![json!({}); WEIGHT / 512],
        "status": "x".repeat(FIELD),
        "type": "Opaque",
    });
    let read = read(&object.to_string(), Bounds::STRANGERS).await;
    let kept = |map: &Value| map.as_object().unwrap().len();
    assert_eq!(kept(&read["data"]), ENTRIES + 1);
    assert_eq!(read["data"]["ca.crt"], "ours");
    let meta = &read["metadata"];
    assert_eq!((&meta["name"], &meta["uid"]), (&json!("n"), &json!("u")));
    assert_eq!(kept(&meta["labels"]), ENTRIES + 1);
    assert_eq!(meta["labels"][names::LABEL_NAME], "a");
    assert_eq!(kept(&meta["annotations"]), 2);
    assert_eq!(meta["annotations"][names::ANNOTATION_APPLIED], "h");
    assert_eq!(meta["managedFields"], json!([]));
    for field in [&read["spec"], &read["status"]] {
        assert_eq!(field, &Value::Null);
    }
    assert_eq!(read["type"], "Opaque");

    // One that is too long by itself takes nothing from the others.
    let object = json!({"data": {"a": "x".repeat(MAP), "b": "c"}});
    let read = self::read(&object.to_string(), Bounds::STRANGERS).await;
    assert_eq!(read, json!({"data": {"a": "", "b": "c"}}));
    // All fields together.
    let fields = (0..10).map(|number| (format!("f{number}"), json!("x".repeat(FIELD - 2))));
    let object = Value::Object(fields.collect());
    let read = self::read(&object.to_string(), Bounds::STRANGERS).await;
    let there = read
        .as_object()
        .unwrap()
        .values()
        .filter(|it| !it.is_null());
    assert_eq!((there.count(), kept(&read)), (2, 10));
    assert_eq!(self::read(&object.to_string(), Bounds::OWN).await, object);
}

#[tokio::test]
async fn what_is_no_object_is_refused() {
    for text in [
        "",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":\"x",
        "{\"a\":[{}",
        "[]",
        "x",
        "{1:2}",
    ] {
        assert!(
            source(text, 3).object(Bounds::STRANGERS).await.is_err(),
            "{text}"
        );
    }
}

/// Somebody who manages fields names as many levels as they like, and is read without.
#[tokio::test]
async fn what_is_too_deep_is_left_out() {
    let deep = |levels: usize| format!("{}0{}", r#"{"f:a":"#.repeat(levels), "}".repeat(levels));
    for (levels, is_read) in [(LEVELS - 2, true), (LEVELS, false), (5_000, false)] {
        let managers = true;
        let fields = deep(levels);
        let text = format!(
            r#"{{"metadata":{{"name":"a","managedFields":[{{"fieldsV1":{fields}}}]}},"spec":{{}}}}"#
        );
        let bounds = Bounds {
            managers,
            ..Bounds::STRANGERS
        };
        let piece = source(&text, 1_000).object(bounds).await.unwrap();
        let read: Deployment = piece.decode(bounds).unwrap();
        assert_eq!(read.metadata.name.as_deref(), Some("a"), "{levels}");
        assert_eq!(read.metadata.managed_fields.is_some(), is_read, "{levels}");
        assert!(read.spec.is_some(), "{levels}");
    }
}

/// Whoever may write a Secret sets a time there that is none of ours. Who made it is known.
#[tokio::test]
async fn managers_are_read_without_their_times() {
    let late = "9999-12-31T23:59:59Z";
    let mut entries = vec![json!({"manager": "m", "operation": "Update", "time": late}); 50];
    entries.push(
        json!({"fieldsV1": {"f:a": [{"}": "]"}]}, "time": late, "operation": "Update",
        "manager": FIELD_MANAGER}),
    );
    for part in ["status", "x".repeat(2 * KEY).as_str()] {
        entries.push(json!({"manager": FIELD_MANAGER, "operation": "Update", "subresource": part}));
    }
    let mut object = json!({
        "metadata": {"name": "a", "uid": "u", "managedFields": entries},
        "data": {"k": "YQ=="},
    });
    let text = object.to_string();
    assert!(serde_json::from_str::<Secret>(&text).is_err());
    for size in [1, 7, 10_000] {
        let piece = source(&text, size).object(Bounds::STRANGERS).await.unwrap();
        let read: Secret = piece.decode(Bounds::STRANGERS).unwrap();
        assert_eq!(read.data.unwrap()["k"].0, b"a");
        let managers = read.metadata.managed_fields.unwrap();
        assert_eq!(managers.len(), 1);
        assert!(is_creation(&managers[0]) && managers[0].time.is_none());
    }
    // Ours as well, whose reader takes nothing that is strange.
    object["spec"] = json!({"kubernetes": {"version": "v1.36.3"}});
    let piece = source(&object.to_string(), 7).object(Bounds::OWN).await;
    let read = piece.unwrap().decode::<TenantControlPlane>(Bounds::OWN);
    assert_eq!(read.unwrap().metadata.uid.as_deref(), Some("u"));
    // What is put back is as it was.
    let whole = Bounds {
        managers: true,
        ..Bounds::STRANGERS
    };
    object["metadata"]["managedFields"] = json!([{"manager": "m", "time": late}]);
    assert_eq!(read_with(&object, whole).await, object);
    for entries in ["7", "null", "{}"] {
        let text = format!(r#"{{"metadata":{{"managedFields":{entries},"name":"a"}}}}"#);
        let none = json!({"metadata": {"managedFields": null, "name": "a"}});
        assert_eq!(self::read(&text, Bounds::STRANGERS).await, none);
    }
}

async fn read_with(object: &Value, bounds: Bounds) -> Value {
    read(&object.to_string(), bounds).await
}

/// Custom resources come with their keys in the order of the alphabet.
#[tokio::test]
async fn what_is_large_takes_nothing_from_the_name() {
    let owner = json!({"apiVersion": "v1", "kind": "K", "name": "o", "uid": "p"});
    let metadata = json!({
        "a": "x".repeat(FIELD - 2), "b": "x".repeat(FIELD - 2), "c": "y",
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": vec!["x".repeat(250); 2_000],
        "name": "n", "namespace": "s", "ownerReferences": [owner],
        "resourceVersion": "7", "selfLink": "z", "uid": "u",
    });
    let read = read_with(&json!({"metadata": metadata}), Bounds::STRANGERS).await;
    for field in IDENTITY {
        assert_eq!(read["metadata"][field], metadata[field], "{field}");
    }
    assert_eq!(read["metadata"]["finalizers"], Value::Null);
    assert_eq!(read["metadata"]["c"], Value::Null);
}

/// What cannot be decoded costs nobody but itself.
#[test]
fn what_is_strange_is_read_as_a_name() {
    let piece = |text: &str| Piece(text.as_bytes().to_vec());
    let strange = piece(r#"{"metadata":{"name":"a"},"spec":{"replicas":"many"}}"#);
    let read: Deployment = strange.decode(Bounds::STRANGERS).unwrap();
    assert_eq!(
        (read.metadata.name.as_deref(), read.spec),
        (Some("a"), None)
    );
    let none = piece(r#"{"metadata":{"name":7},"spec":{}}"#);
    assert!(none.decode::<Deployment>(Bounds::STRANGERS).is_err());
    // What is in a Secret is not nothing, unless it is gone.
    let secret =
        r#"{"metadata":{"name":"a","namespace":"n","resourceVersion":"7"},"data":{"k":7}}"#;
    let unread = piece(secret)
        .decode::<Secret>(Bounds::STRANGERS)
        .unwrap_err();
    assert_eq!(unread.name.to_string(), "n/a");
    assert_eq!(unread.version.as_deref(), Some("7"));
    let gone = piece(secret).decode_gone::<Secret>(Bounds::STRANGERS);
    assert_eq!(gone.unwrap().metadata.name.as_deref(), Some("a"));
    // One of ours, of a later version, is not one that asks for nothing.
    let tenant = piece(r#"{"metadata":{"name":"a"},"spec":{"kubernetes":7}}"#);
    assert!(tenant.decode::<TenantControlPlane>(Bounds::OWN).is_err());
    assert_eq!(
        Bounds::at("/apis/steward.butlerlabs.dev/v1alpha1/datastores").field,
        usize::MAX
    );
    assert_eq!(
        Bounds::at("/api/v1/namespaces/steward.butlerlabs.dev/pods").field,
        FIELD
    );
}

/// Answers as a test says, in text.
async fn serve(answers: impl Fn(&str) -> (u16, Bytes) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answers = answers.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (code, text) = answers(&request.uri().to_string());
                let response = Response::builder().status(code);
                let response = response.header("content-type", "application/json");
                let response = response.body(Full::new(text)).unwrap();
                async move { Ok::<_, Infallible>(response) }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn client(address: &str) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = Config::new(address.parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn a_list_is_followed_by_what_changes() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let all = asked.clone();
    let address = serve(move |path: &str| {
        let turn = {
            let mut asked = all.lock();
            asked.push(path.to_owned());
            asked.len()
        };
        let map = |name: &str, version: &str| json!({"metadata": {"name": name, "resourceVersion": version}});
        let list = |items: Value, next: &str| {
            json!({"items": items, "metadata": {"resourceVersion": "9", "continue": next}})
        };
        let event = |kind: &str, object: Value| format!("{}\n", json!({"type": kind, "object": object}));
        match turn {
            1 => (500, Bytes::from("no list\n")),
            2 => {
                let mut strange = map("s", "4");
                strange["data"] = json!({"k": 7});
                let all = json!([map("a", "1"), strange, map("b", "2")]);
                (200, list(all, "more").to_string().into())
            }
            3 => (200, list(json!([map("c", "3")]), "").to_string().into()),
            4 => {
                // The server stops in the middle of the last one.
                let mut text = event("ADDED", map("d", "10"));
                text += &event("BOOKMARK", map("", "11"));
                text += &event("MODIFIED", json!({"metadata": {"name": 7}}));
                text += &event("DELETED", map("a", "12"));
                text += &event("ADDED", json!({"metadata": {"name": "no version"}}));
                let mut strange = map("s", "14");
                strange["data"] = json!({"k": 7});
                text += &event("MODIFIED", strange);
                text += &event("ADDED", map("lost", "13"))[..40];
                (200, text.into())
            }
            5 => {
                let gone = json!({"kind": "Status", "code": 410, "reason": "Expired"});
                (200, event("ERROR", gone).into())
            }
            6 => (200, list(Value::Null, "").to_string().into()),
            _ => (410, json!({"kind": "Status", "code": 410}).to_string().into()),
        }
    })
    .await;
    let config = watcher::Config::default().labels("l=v").page_size(2);
    let mut stream = follow::<ConfigMap>(client(&address), "n", &config, Bounds::STRANGERS);
    let mut said = vec![];
    while said.len() < 16 {
        let name = |map: ConfigMap| map.metadata.name.unwrap();
        said.push(match stream.next().await.unwrap() {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitApply(map)) => format!("lists {}", name(map)),
            Ok(Event::InitUnread(name)) => format!("passes over {name}"),
            Ok(Event::InitDone) => "listed".to_owned(),
            Ok(Event::Apply(map)) => format!("there {}", name(map)),
            Ok(Event::Delete(map)) => format!("gone {}", name(map)),
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) => {
                format!("no list: {} {}", status.code, status.message)
            }
            Err(watcher::Error::WatchError(status)) => format!("ended {}", status.code),
            Err(watcher::Error::WatchStartFailed(_)) => "no watch".to_owned(),
            Err(error) => panic!("{error}"),
        });
    }
    let expected = [
        "init",
        "no list: 500 no list",
        "init",
        "lists a",
        "passes over s",
        "lists b",
        "lists c",
        "listed",
        "there d",
        "gone a",
        "ended 410",
        "init",
        "listed",
        "no watch",
        "init",
    ];
    assert_eq!(said[..15], expected);
    let asked = asked.lock();
    assert!(
        asked[0].starts_with("/api/v1/namespaces/n/configmaps?"),
        "{}",
        asked[0]
    );
    assert!(asked[0].contains("limit=2") && asked[0].contains("labelSelector=l%3Dv"));
    assert!(asked[2].contains("continue=more"));
    assert!(asked[3].contains("watch=true") && asked[3].contains("resourceVersion=9"));
    assert!(
        asked[3].contains("timeoutSeconds=290") && asked[3].contains("allowWatchBookmarks=true")
    );
    assert!(asked[4].contains("resourceVersion=14"), "{}", asked[4]);
}

/// As of a proxy that cannot hold a connection.
#[tokio::test]
async fn a_watch_that_ends_at_once_is_not_asked_for_at_once() {
    let asked: Arc<Mutex<usize>> = Arc::default();
    let all = asked.clone();
    let address = serve(move |path: &str| {
        if path.contains("watch=true") {
            *all.lock() += 1;
            return (200, Bytes::new());
        }
        let list = json!({"items": [], "metadata": {"resourceVersion": "9"}});
        (200, list.to_string().into())
    })
    .await;
    let config = watcher::Config::default();
    let mut stream = follow::<ConfigMap>(client(&address), "n", &config, Bounds::STRANGERS);
    let read = async { while stream.next().await.is_some() {} };
    let seconds = std::time::Duration::from_secs(2);
    assert!(tokio::time::timeout(seconds, read).await.is_err());
    let asked = *asked.lock();
    assert!((1..=5).contains(&asked), "{asked} times in {seconds:?}");
}

const ADDRESS: &str = "STEWARD_TEST_ADDRESS";
const MIB: usize = 1024 * 1024;

/// What five objects of an editor look like in a list, in a watch, and alone.
fn hostile(path: &str) -> String {
    let meta = |number: usize| {
        format!(
            r#"{{"name":"a-{number}","namespace":"n","resourceVersion":"{number}","labels":{{"{}":"{}","{}":"a"}}}}"#,
            names::LABEL_PROJECT,
            names::PROJECT,
            names::LABEL_NAME
        )
    };
    let (variables, keys) = match path.contains("/few/") {
        true => (2, 2),
        false => (220_000, 150_000),
    };
    let variables = || format!("[{}]", vec![r#"{"name":"A"}"#; variables].join(","));
    let pod = || format!(r#"{{"containers":[{{"name":"c","env":{}}}]}}"#, variables());
    let keys = || {
        let keys: Vec<_> = (0..keys).map(|key| format!(r#""{key}":"""#)).collect();
        keys.join(",")
    };
    let rest = match path {
        _ if path.contains("/pods") => format!(r#""spec":{}"#, pod()),
        _ if path.contains("/deployments") || path.contains("/replicasets") => {
            format!(r#""spec":{{"template":{{"spec":{}}}}}"#, pod())
        }
        _ => format!(r#""data":{{{}}}"#, keys()),
    };
    let object = |number: usize| format!(r#"{{"metadata":{},{rest}}}"#, meta(number));
    let many: Vec<_> = (1..=5).map(object).collect();
    if path.contains("watch=true") {
        let events = many
            .iter()
            .map(|it| format!("{{\"type\":\"ADDED\",\"object\":{it}}}\n"));
        return events.collect();
    }
    match path.contains('?') {
        true => format!(
            r#"{{"metadata":{{"resourceVersion":"9"}},"items":[{}]}}"#,
            many.join(",")
        ),
        false => object(1),
    }
}

/// Reads a list and a watch of a kind, and what that took at most.
async fn took<K>(client: &Client) -> usize
where
    K: Cached + DeserializeOwned,
{
    // The pages of the program.
    reads::<K>(client, "few").await;
    let before = measure();
    reads::<K>(client, "many").await;
    memory("VmHWM:").saturating_sub(before)
}

async fn reads<K>(client: &Client, place: &str)
where
    K: Cached + DeserializeOwned,
{
    let caches = Caches::default();
    let config = watcher::Config::default().page_size(20);
    let mut stream = follow::<K>(client.clone(), place, &config, Bounds::STRANGERS);
    let mut seen = 0;
    while seen < 10 {
        if let Event::InitApply(object) | Event::Apply(object) =
            stream.next().await.unwrap().unwrap()
        {
            assert!(caches.kept(object).is_none());
            seen += 1;
        }
    }
    let path = format!("{}/a", K::url_path(&(), Some(place)));
    get::<K>(client, path.clone()).await.unwrap();
    let request = Request::get(path).body(vec![]).unwrap();
    answer(client, request, Bounds::STRANGERS).await.unwrap();
}

/// In a process of its own, beside the server.
#[tokio::test]
#[allow(
    clippy::disallowed_methods,
    reason = "how a test tells itself its case"
)]
async fn child() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let client = client(&address);
    eprintln!("took deployments {}", took::<Deployment>(&client).await);
    eprintln!("took pods {}", took::<Pod>(&client).await);
    eprintln!("took sets {}", took::<ReplicaSet>(&client).await);
    eprintln!("took secrets {}", took::<Secret>(&client).await);
    eprintln!("took maps {}", took::<ConfigMap>(&client).await);
}

/// Five objects of an editor of any namespace took 700 MiB when they were listed.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_editor_makes_is_listed_in_little_memory() {
    let address = serve(|path: &str| (200, Bytes::from(hostile(path)))).await;
    let child = || alone("cluster::pieces::tests::child", ADDRESS, &address);
    let said = tokio::task::block_in_place(child);
    let mut kinds = 0;
    for line in said.lines().filter_map(|line| line.strip_prefix("took ")) {
        let (kind, took) = line.split_once(' ').unwrap();
        let took: usize = took.parse().unwrap();
        eprintln!("{kind}: {} KiB", took / 1024);
        assert!(took < 8 * MIB, "{kind}: {} MiB", took / MIB);
        kinds += 1;
    }
    assert_eq!(kinds, 5, "{said}");
}
