use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;

use super::*;

const MIB: usize = 1024 * 1024;

fn config_maps() -> ParamKind {
    ParamKind {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
    }
}

fn named(name: &str) -> api::ParamRef {
    api::ParamRef {
        name: Some(name.to_owned()),
        ..api::ParamRef::default()
    }
}

fn labelled() -> api::ParamRef {
    api::ParamRef {
        selector: Some(serde_json::from_value(json!({"matchLabels": {"a": "b"}})).unwrap()),
        ..api::ParamRef::default()
    }
}

/// A cluster that serves ConfigMaps: the one named `large` never ends, a list is `listed`.
/// The number of bytes that were taken of those that never end.
fn cluster(listed: Value) -> (Params, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let path = request.uri().path().to_owned();
        let is = |name: &str| path.ends_with(name);
        let kinds = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
            "resources": [{"name": "configmaps", "singularName": "", "namespaced": true,
                "kind": "ConfigMap", "verbs": ["get", "list"]}]});
        let counted = counted.clone();
        let endless = stream::repeat_with(move || {
            counted.fetch_add(MIB, Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; MIB])))
        });
        let (code, body) = match () {
            () if is("/api/v1") => (200, kinds.to_string()),
            () if is("/configmaps") => (200, listed.to_string()),
            () if is("/heavy") => (200, format!("[{}{{}}]", "{},".repeat(200_000))),
            () if is("/large") => (200, String::new()),
            () if is("/refused") => {
                let said = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": 403, "reason": "Forbidden", "message": "not for you"});
                (403, said.to_string())
            }
            () if is("/small") => {
                let map = json!({"kind": "ConfigMap", "apiVersion": "v1",
                    "metadata": {"name": "small"}, "data": {"most": "3"}});
                (200, map.to_string())
            }
            () => {
                let said = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": 404, "reason": "NotFound", "message": "not found"});
                (404, said.to_string())
            }
        };
        let body = match is("/large") {
            true => StreamBody::new(endless.left_stream()),
            false => {
                let whole = Ok(Frame::data(Bytes::from(body)));
                StreamBody::new(stream::iter([whole]).right_stream())
            }
        };
        let answer = http::Response::builder().status(code).body(body);
        async move { Ok::<_, Infallible>(answer.unwrap()) }
    });
    let client = kube::Client::new(service, "default");
    (Params::new(Some(client)), sent)
}

async fn collect<'a>(params: &'a Params, by: &api::ParamRef) -> Result<Held<'a>, String> {
    collect_for(params, by, "somebody").await
}

async fn collect_for<'a>(
    params: &'a Params,
    by: &api::ParamRef,
    caller: &str,
) -> Result<Held<'a>, String> {
    let kind = config_maps();
    let collected = params.collect(Some(&kind), Some(by), Some("tenants"), caller);
    collected.await
}

#[tokio::test]
async fn parameters_are_an_object_or_those_of_a_list() {
    let listed = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {},
        "items": [{"metadata": {"name": "one"}}, {"metadata": {"name": "two"}}]});
    let (params, _) = cluster(listed);
    let small = collect(&params, &named("small")).await.unwrap();
    assert_eq!(small.all()[0]["data"]["most"], "3");
    drop(small);
    let both = collect(&params, &labelled()).await.unwrap();
    let two = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "two"}});
    assert_eq!(both.all().len(), 2);
    assert_eq!(both.all()[1], two);
    drop(both);
    assert!(
        collect(&params, &named("none"))
            .await
            .unwrap()
            .all()
            .is_empty()
    );
    let refused = collect(&params, &named("refused")).await.unwrap_err();
    assert_eq!(refused, "not for you (403)");
}

/// One that never ends and one whose tree would be large are refused before they are there.
#[tokio::test]
async fn parameters_have_a_bound() {
    let page = json!({"kind": "ConfigMapList", "apiVersion": "v1",
        "metadata": {"continue": "more"}, "items": []});
    let (params, sent) = cluster(page);
    let large = collect(&params, &named("large")).await.unwrap_err();
    assert_eq!(large, too_much());
    assert!(sent.load(Ordering::Relaxed) <= ANSWER + 2 * MIB);
    let heavy = collect(&params, &named("heavy")).await.unwrap_err();
    assert_eq!(heavy, too_much());
    let more = collect(&params, &labelled()).await.unwrap_err();
    assert_eq!(more, "the binding selects more than 50 parameters");
    for said in [json!([]), json!("x"), json!(1)] {
        let (params, _) = cluster(said);
        let none = collect(&params, &labelled()).await.unwrap_err();
        assert_eq!(none, "the answer is no object");
    }
}

/// So many are held at a time; the next one comes when one of them is gone.
#[tokio::test]
async fn so_many_are_held_at_a_time() {
    let (params, _) = cluster(json!({}));
    let (params, small) = (&params, named("small"));
    let mut held = Vec::new();
    for number in 0..PLACES {
        held.push(
            collect_for(params, &small, &number.to_string())
                .await
                .unwrap(),
        );
    }
    let next = collect_for(params, &small, "next");
    let mut next = std::pin::pin!(next);
    let waits = timeout(Duration::from_millis(200), &mut next).await;
    assert!(waits.is_err(), "{waits:?}");
    held.clear();
    let next = timeout(Duration::from_secs(5), next).await.unwrap();
    assert_eq!(next.unwrap().all().len(), 1);
}

/// However many requests of one caller wait, somebody else comes next.
#[tokio::test]
async fn a_caller_has_one_place_at_a_time() {
    let (params, _) = cluster(json!({}));
    let (params, small) = (&params, named("small"));
    let first = collect_for(params, &small, "greedy").await.unwrap();
    let others = (0..20).map(|_| collect_for(params, &small, "greedy"));
    let others = futures::future::select_all(others.map(Box::pin));
    let mut others = std::pin::pin!(others);
    let waits = timeout(Duration::from_millis(200), &mut others).await;
    assert!(waits.is_err(), "it has more than one");
    let other = collect_for(params, &small, "other");
    let other = timeout(Duration::from_secs(5), other).await.unwrap();
    assert_eq!(other.unwrap().all().len(), 1);
    drop(first);
    let next = timeout(Duration::from_secs(5), others).await.unwrap().0;
    assert_eq!(next.unwrap().all().len(), 1);
    assert!(params.turns.remembered() <= 2);
}
