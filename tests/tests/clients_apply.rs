//! Requests of server-side apply that kubectl cannot make, to our server and to a
//! CustomResourceDefinition of the same schema in a kube-apiserver of its own: codes,
//! bodies and warnings are the same (contract 5; `clients_kubectl` has the rest).
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::time::{Duration, Instant};

use http::Request;
use kube::client::Body;
use regex::Regex;
use serde_json::Value;
use tests::lab::{Lab, Level};
use tests::served::Served;

const COLLECTION: &str =
    "/apis/steward.butlerlabs.dev/v1alpha1/namespaces/default/tenantcontrolplanes";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// Method, what follows the path of the collection, Content-Type, body.
type Call = (&'static str, &'static str, &'static str, &'static str);

const WHOLE: &str = r#"{"apiVersion":"steward.butlerlabs.dev/v1alpha1","kind":"TenantControlPlane",
"metadata":{"name":"h"},"spec":{"dataStore":"default","kubernetes":{"version":"v1.36.3",
"kubelet":{"preferredAddressTypes":["InternalIP"]}},"controlPlane":{"deployment":{"replicas":2},
"service":{"serviceType":"ClusterIP"}}}}"#;
const TWICE: &str = "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\nmetadata:\n  name: h\n  labels:\n    a: b\n    a: c\n";
const SCALE: &str =
    "apiVersion: autoscaling/v1\nkind: Scale\nmetadata:\n  name: h\nspec:\n  replicas: 3\n";

const CALLS: &[Call] = &[
    ("PATCH", "/h?fieldManager=flux", APPLY, WHOLE),
    ("PATCH", "/h?fieldManager=flux", APPLY, WHOLE),
    ("PATCH", "/h?fieldManager=hand", APPLY, TWICE),
    (
        "PATCH",
        "/h?fieldManager=hand&fieldValidation=Strict",
        APPLY,
        TWICE,
    ),
    (
        "PATCH",
        "/h?fieldManager=hand&fieldValidation=Ignore",
        APPLY,
        TWICE,
    ),
    (
        "PATCH",
        "/h?fieldManager=hand&dryRun=All&force=true",
        APPLY,
        WHOLE,
    ),
    ("GET", "/h", "", ""),
    // The scale; who forces a configuration of it is told of an internal error by a CRD.
    ("PATCH", "/h/scale?fieldManager=hand", APPLY, SCALE),
    ("PATCH", "/h/scale?fieldManager=hand", APPLY, WHOLE),
    (
        "PATCH",
        "/h/scale?fieldManager=hand",
        APPLY,
        "spec: {replicas: x}\napiVersion: autoscaling/v1\nkind: Scale\nmetadata: {name: h}\n",
    ),
    (
        "PATCH",
        "/h/scale?fieldManager=hand",
        APPLY,
        "spec: {other: 1}\napiVersion: autoscaling/v1\nkind: Scale\nmetadata: {name: h}\n",
    ),
    ("PATCH", "/none/scale?fieldManager=hand", APPLY, SCALE),
    (
        "PATCH",
        "/h/scale?fieldManager=hpa",
        MERGE,
        r#"{"spec":{"replicas":5}}"#,
    ),
    ("GET", "/h", "", ""),
    ("PATCH", "/h?fieldManager=flux", APPLY, WHOLE),
    ("PATCH", "/h/scale?fieldManager=hand", APPLY, SCALE),
    (
        "PATCH",
        "/h/scale?fieldManager=hpa",
        MERGE,
        r#"{"spec":{"replicas":6}}"#,
    ),
    ("GET", "/h", "", ""),
    // What is no configuration.
    ("PATCH", "/h", APPLY, WHOLE),
    ("PATCH", "/h?fieldManager=x", APPLY, ""),
    ("PATCH", "/h?fieldManager=x", APPLY, "{}"),
    ("PATCH", "/h?fieldManager=x", APPLY, "[1]"),
    (
        "PATCH",
        "/h?fieldManager=x",
        APPLY,
        "apiVersion: v1\nkind: Pod\n",
    ),
    (
        "PATCH",
        "/h?fieldManager=x",
        "application/apply-patch+cbor",
        "x",
    ),
    ("PATCH", "/h?fieldManager=x&force=true", MERGE, "{}"),
    (
        "PATCH",
        "/h?fieldManager=x&force=1",
        APPLY,
        "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\nmetadata: {name: other}\n",
    ),
    (
        "PATCH",
        "/h?fieldManager=x",
        APPLY,
        "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\nmetadata: {name: h, namespace: other}\n",
    ),
    (
        "PATCH",
        "/h?fieldManager=x",
        APPLY,
        "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\n",
    ),
    (
        "PATCH",
        "/new?fieldManager=x",
        APPLY,
        "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\n",
    ),
    (
        "PATCH",
        "/new?fieldManager=x",
        APPLY,
        "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\nmetadata: {name: new, generateName: g-}\nspec: {}\n",
    ),
    (
        "PATCH",
        "/h/status?fieldManager=x",
        APPLY,
        "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\nmetadata: {name: h}\nstatus: {conditions: [{status: 'True'}]}\n",
    ),
    (
        "POST",
        "",
        "application/json",
        r#"{"apiVersion":"steward.butlerlabs.dev/v1alpha1","kind":"TenantControlPlane","metadata":{"name":"h2","labels":{"a":1}}}"#,
    ),
    (
        "POST",
        "",
        "application/json",
        r#"{"apiVersion":"steward.butlerlabs.dev/v1alpha1","kind":"TenantControlPlane","metadata":{"name":"h2","managedFields":{}}}"#,
    ),
    (
        "PATCH",
        "/h",
        MERGE,
        r#"{"metadata":{"ownerReferences":[{"uid":1}]}}"#,
    ),
    // Who updates, by the User-Agent.
    ("PATCH", "/h", MERGE, r#"{"metadata":{"labels":{"x":"y"}}}"#),
    ("PATCH", "/h", MERGE, r#"{"metadata":{"labels":null}}"#),
    ("DELETE", "/h", "", ""),
];

struct Side {
    client: kube::Client,
    normal: Vec<(Regex, &'static str)>,
}

impl Side {
    fn new(client: kube::Client) -> Self {
        let rules = [
            (
                r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                "UID",
            ),
            (r#"(resourceVersion[\\":]+)\d+"#, "${1}REVISION"),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
            (r#",\\*"time\\*":\\*"TIME\\*""#, ""),
        ];
        Self {
            client,
            normal: rules
                .map(|(rule, with)| (Regex::new(rule).unwrap(), with))
                .into(),
        }
    }

    /// Code, warnings and body, without what no two servers have in common.
    async fn answer(&self, (method, path, media, body): Call) -> String {
        let request = Request::builder()
            .method(method)
            .uri(format!("{COLLECTION}{path}"))
            .header("user-agent", "tester/1.0 (x)")
            .header("content-type", media)
            .body(Body::from(body.as_bytes().to_vec()));
        let response = self.client.send(request.unwrap()).await.unwrap();
        let code = response.status();
        let warnings = response.headers().get_all("warning").iter();
        let warnings: Vec<String> = warnings.map(|text| format!("{text:?}")).collect();
        let body = response.into_body().collect_bytes().await.unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
        // Since when somebody scales is forgotten by a CRD, and so it sorts otherwise.
        if let Some(managers) = body["metadata"]["managedFields"].as_array_mut() {
            for manager in managers.iter_mut() {
                manager.as_object_mut().unwrap().remove("time");
            }
            managers.sort_by_key(Value::to_string);
        }
        let mut text = format!("{code} {warnings:?} {body}");
        for (rule, with) in &self.normal {
            text = rule.replace_all(&text, *with).into_owned();
        }
        text
    }
}

/// R5.16, R5.20, R5.23, R5.25.
#[tokio::test(flavor = "multi_thread")]
async fn configurations_are_answered_as_by_a_crd() {
    let other = Lab::start(Level::Api).await.unwrap();
    let crd = apiservice::crd::crd(apiservice::find("tenantcontrolplanes").unwrap()).unwrap();
    let path = other.directory().path().join("crd.json");
    std::fs::write(&path, serde_json::to_string(&crd).unwrap()).unwrap();
    other
        .kubectl(&["create", "-f", &path.display().to_string()])
        .unwrap();
    let served = Served::here().await;
    let (theirs, ours) = (Side::new(other.client()), Side::new(served.lab.client()));
    let started = Instant::now();
    for side in [&theirs, &ours] {
        while !side.answer(("GET", "", "", "")).await.starts_with("200") {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the kind is not served"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let mut wrong = String::new();
    for call in CALLS {
        let (theirs, ours) = (theirs.answer(*call).await, ours.answer(*call).await);
        if theirs != ours {
            wrong += &format!("{call:?}\n  CRD  | {theirs}\n  ours | {ours}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
