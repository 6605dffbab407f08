//! Audit, with kube-apiserver as the judge: the same policy in its hands and in ours.
//!
//! Of what it forwards, its own event and ours are about the same request. Of what is asked
//! of a CustomResourceDefinition of the same schema, its event says the same as ours.
#![allow(clippy::disallowed_methods, reason = "tests")]

mod differences;
mod sink;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use sink::Sink;
use tests::lab::{Lab, Level};
use tests::served::{GROUP_VERSION, Served, contains, eventually};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: ['system:apiserver', 'system:kube-controller-manager', 'system:kube-aggregator']
- level: None
  userGroups: ['system:serviceaccounts', 'system:nodes']
- level: None
  nonResourceURLs: ['/healthz*', '/livez*', '/readyz*']
- level: Metadata
  resources: [{group: steward.butlerlabs.dev, resources: [tenantcontrolplanes], resourceNames: [plain]}]
- level: Request
  verbs: [deletecollection, list]
  resources: [{group: steward.butlerlabs.dev}]
  omitStages: [RequestReceived]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: steward.butlerlabs.dev}]
- level: Metadata
  omitStages: [RequestReceived]
";
const RESOURCE: &str = "--resource=tenantcontrolplanes.steward.butlerlabs.dev";
const SOON: Duration = Duration::from_secs(20);
const COLLECTION: &str =
    "/apis/steward.butlerlabs.dev/v1alpha1/namespaces/default/tenantcontrolplanes";

/// One server and its log.
struct Side {
    client: kube::Client,
    log: PathBuf,
}

/// Method, what follows the collection, Content-Type, body.
type Call<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Side {
    /// Asks, and returns the code and the id of the request.
    async fn ask(&self, (method, path, media, body): Call<'_>) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{COLLECTION}{path}"))
            .header("user-agent", "tester/1.0 (x)")
            .header("content-type", media)
            .body(Body::from(body.as_bytes().to_vec()));
        let answer = self.client.send(request.unwrap()).await.unwrap();
        let (code, id) = (answer.status().as_u16(), &answer.headers()["audit-id"]);
        let id = id.to_str().unwrap().to_owned();
        // To its end, so that a watch is complete.
        answer.into_body().collect_bytes().await.unwrap();
        (code, id)
    }

    /// The events of a request, once it is complete.
    async fn events(&self, id: &str) -> Vec<Value> {
        let mut found = Vec::new();
        eventually(&format!("the events of {id}"), SOON, || {
            found = events(&self.log, id);
            let last = found.last().map(|event| event["stage"].clone());
            last == Some(json!("ResponseComplete"))
        })
        .await;
        found
    }
}

fn events(log: &Path, id: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains(id));
    let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["auditID"] == id).collect()
}

/// A cluster with our server, which writes a log and posts to a webhook.
async fn ours(sink: &Sink, more: &[&str]) -> (Served, Side) {
    let lab = Lab::start_audited(Level::Api, POLICY).await.unwrap();
    let mut served = Served::on(lab).await;
    let file = |name: &str| served.files().join(name);
    let (policy, log, webhook) = (file("policy.yaml"), file("audit.log"), file("webhook"));
    std::fs::write(&policy, POLICY).unwrap();
    sink.write_kubeconfig(&webhook);
    served.add_flags([
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
        format!("--audit-webhook-config-file={}", webhook.display()),
        "--audit-webhook-initial-backoff=100ms".to_owned(),
    ]);
    served.add_flags(more.iter().map(|flag| (*flag).to_owned()));
    served.start_here().await;
    served.wait_until_served().await;
    let client = served.lab.client();
    (served, Side { client, log })
}

async fn theirs() -> (Lab, Side) {
    let lab = Lab::start_audited(Level::Api, POLICY).await.unwrap();
    let crd = apiservice::crd::crd(apiservice::find("tenantcontrolplanes").unwrap()).unwrap();
    let path = lab.directory().path().join("crd.json");
    std::fs::write(&path, crd_text(&crd)).unwrap();
    lab.kubectl(&["create", "-f", &path.display().to_string()])
        .unwrap();
    let client = lab.client();
    let log = lab.directory().audit_log();
    eventually("the CRD is served", SOON, || {
        lab.kubectl(&["get", "tenantcontrolplanes"]).is_ok()
    })
    .await;
    (lab, Side { client, log })
}

fn crd_text(crd: &impl serde::Serialize) -> String {
    serde_json::to_string(crd).unwrap()
}

fn tenant(name: &str) -> String {
    let tenant = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": name},
        "spec": {"dataStore": "default", "kubernetes": {"version": "v1.36.3", "kubelet": {"preferredAddressTypes": ["InternalIP"]}},
            "controlPlane": {"deployment": {"replicas": 2}, "service": {"serviceType": "ClusterIP"}}},
    });
    // On several lines: an event is one.
    serde_json::to_string_pretty(&tenant).unwrap()
}

/// R9.10, R9.11: what is said of a request is what kube-apiserver says of one to a CRD.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_those_of_kube_apiserver() {
    let sink = Sink::start().await;
    let ((_lab, theirs), (mut served, ours)) = tokio::join!(theirs(), ours(&sink, &[]));
    let (json, merge) = ("application/json", "application/merge-patch+json");
    let (patch, apply) = (
        "application/json-patch+json",
        "application/apply-patch+yaml",
    );
    let (one, plain, broken) = (tenant("one"), tenant("plain"), "{\"kind\": ");
    // As JSON: of YAML kube-apiserver loses the last event, since it takes it for JSON.
    let applied = r#"{"apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "kind": "TenantControlPlane", "metadata": {"name": "one", "labels": {"a": "b"}}}"#;
    let labelled = r#"{"metadata": {"labels": {"x": "y"}}}"#;
    let calls: &[Call<'_>] = &[
        ("POST", "", json, &one),
        ("POST", "?dryRun=All", json, &one),
        ("POST", "", json, broken),
        ("POST", "", json, &plain),
        ("GET", "/one", json, ""),
        ("GET", "/absent", json, ""),
        ("PATCH", "/one", merge, labelled),
        (
            "PATCH",
            "/one",
            patch,
            r#"[{"op": "remove", "path": "/metadata/labels/x"}]"#,
        ),
        ("PATCH", "/one?fieldManager=me&force=true", apply, applied),
        ("PATCH", "/one", "text/plain", labelled),
        ("PATCH", "/one/status", merge, r#"{"status": {}}"#),
        ("GET", "/one/scale", json, ""),
        ("PATCH", "/one/scale", merge, r#"{"spec": {"replicas": 2}}"#),
        ("GET", "", json, ""),
        ("GET", "?fieldSelector=metadata.name%3Done", json, ""),
        ("GET", "?watch=1&timeoutSeconds=1", json, ""),
        ("GET", "?watch=1&labelSelector=%3D%3D", json, ""),
        ("DELETE", "/plain?gracePeriodSeconds=0", json, ""),
        (
            "DELETE",
            "/one",
            json,
            r#"{"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}"#,
        ),
        ("DELETE", "", json, ""),
    ];
    let mut wrong = String::new();
    for call in calls {
        let (a, b) = tokio::join!(theirs.ask(*call), ours.ask(*call));
        assert_eq!(a.0, b.0, "{} {}", call.0, call.1);
        let (a, b) = (theirs.events(&a.1).await, ours.events(&b.1).await);
        wrong += &differences::of(call, &a, &b);
    }
    assert!(wrong.is_empty(), "{wrong}");
    let yaml = "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\nspec: {}\n";
    let (_, id) = ours
        .ask(("PATCH", "/one?fieldManager=me", apply, yaml))
        .await;
    let expected = json!({"apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane", "spec": {}});
    assert_eq!(ours.events(&id).await[1]["requestObject"], expected);
    forwarded(&served, &ours).await;
    secrets(&served, &ours).await;
    delivered(&mut served, &ours, &sink).await;
}

/// R9.11: of what is forwarded, both have an event, and it is of the same request.
async fn forwarded(served: &Served, ours: &Side) {
    let there = Side {
        client: served.lab.client(),
        log: served.lab.directory().audit_log(),
    };
    for call in [
        ("GET", "", "application/json", ""),
        ("GET", "/absent", "application/json", ""),
    ] {
        let (_, id) = ours.ask(call).await;
        let (a, b) = (there.events(&id).await, ours.events(&id).await);
        let last = |events: &[Value]| events.last().unwrap().clone();
        let (a, b) = (last(&a), last(&b));
        for same in [
            "auditID",
            "user",
            "objectRef",
            "verb",
            "requestURI",
            "userAgent",
            "level",
        ] {
            assert_eq!(a[same], b[same], "{same}");
        }
        assert_eq!(a["responseStatus"]["code"], b["responseStatus"]["code"]);
        // The way is one longer.
        let chain = |event: &Value| event["sourceIPs"].as_array().unwrap().clone();
        assert!(chain(&b).starts_with(&chain(&a)), "{a} {b}");
    }
    // Who is impersonated is who asks us; who impersonates, kube-apiserver says.
    served.kubectl(&["create", "clusterrole", "reader", "--verb=get", RESOURCE]);
    served.kubectl(&[
        "create",
        "clusterrolebinding",
        "reader",
        "--clusterrole=reader",
        "--user=jane",
    ]);
    let url = format!("{COLLECTION}/of-jane");
    eventually("jane may look", SOON, || {
        let said = served.try_kubectl(&["get", "--raw", &url, "--as=jane"]);
        said.text().contains("not found")
    })
    .await;
    let of_jane = |log: &Path| {
        let text = std::fs::read_to_string(log).unwrap();
        let events = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut events = events.filter(|event| {
            event["stage"] == "ResponseComplete"
                && event["responseStatus"]["code"] == 404
                && event["objectRef"]["name"] == "of-jane"
        });
        events.next().unwrap()
    };
    let (theirs, ours) = (of_jane(&there.log), of_jane(&ours.log));
    assert_eq!(ours["auditID"], theirs["auditID"]);
    assert_eq!(theirs["impersonatedUser"]["username"], "jane");
    assert_eq!(ours["user"]["username"], "jane");
    assert_eq!(ours["user"]["groups"], theirs["impersonatedUser"]["groups"]);
    assert_eq!(ours["annotations"], theirs["annotations"]);
    contains(
        &ours["annotations"].to_string(),
        "RBAC: allowed by ClusterRoleBinding",
    );
}

/// R8.31, R9.11: with a policy that wants all bodies.
async fn secrets(served: &Served, ours: &Side) {
    let url = format!("{GROUP_VERSION}/datastores");
    let inline = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "DataStore",
        "metadata": {"name": "inline"},
        "spec": {"driver": "PostgreSQL", "endpoints": ["db.example.com:5432"],
            "basicAuth": {"username": {"content": "YWRtaW4="}, "password": {"content": "aHVudGVyMg=="}}},
    });
    let file = served.files().join("inline.json");
    std::fs::write(&file, inline.to_string()).unwrap();
    served.kubectl(&["create", "-f", &file.display().to_string()]);
    served.kubectl(&["get", "datastores", "-o=yaml"]);
    served.kubectl(&[
        "patch",
        "datastore",
        "inline",
        "--type=merge",
        "-p",
        r#"{"spec":{"basicAuth":{"password":{"content":"aHVudGVyMg=="}}}}"#,
    ]);
    let refused = r#"{"spec":{"basicAuth":{"password":{"content":["aHVudGVyMg=="]}}}}"#;
    served.try_kubectl(&[
        "patch",
        "datastore",
        "inline",
        "--type=merge",
        "-p",
        refused,
    ]);
    let text = std::fs::read_to_string(&ours.log).unwrap();
    let events: Vec<&str> = text.lines().filter(|line| line.contains(&url)).collect();
    let done = events
        .iter()
        .filter(|line| line.contains(r#""stage":"ResponseComplete""#));
    assert!(done.count() >= 4, "{events:#?}");
    assert!(
        events
            .iter()
            .all(|line| line.contains(r#""level":"Metadata""#))
    );
    assert!(
        !text.contains("aHVudGVyMg"),
        "a password is in the audit log"
    );
}

/// R9.12, R9.7: a webhook gets all of it, also what is left at the end.
async fn delivered(served: &mut Served, ours: &Side, sink: &Sink) {
    *sink.posted().refuses.lock() = 3;
    let (_, id) = ours.ask(("GET", "", "application/json", "")).await;
    let has = || sink.events().iter().any(|event| event["auditID"] == *id);
    assert!(!has(), "it is sent in batches");
    let metrics = served.running().context.clone();
    served.stop().await;
    // What was refused once was sent again.
    assert!(has(), "{:#?}", sink.events());
    for (url, token, list) in sink.posted().all.lock().iter() {
        assert_eq!(url, "POST /audit/events?of=ours");
        assert_eq!(token, "Bearer opens-it");
        assert_eq!(list["kind"], "EventList");
        assert_eq!(list["apiVersion"], "audit.k8s.io/v1");
    }
    let text = std::fs::read_to_string(&ours.log).unwrap();
    let line = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let event = event.as_object_mut().unwrap();
        assert_eq!(event.remove("kind"), Some(json!("Event")));
        assert_eq!(event.remove("apiVersion"), Some(json!("audit.k8s.io/v1")));
        Value::Object(event.clone())
    };
    let written: Vec<Value> = text.lines().map(line).collect();
    let mut sent = sink.events();
    // Batches go side by side.
    for event in &written {
        let position = sent.iter().position(|other| other == event);
        sent.swap_remove(position.unwrap_or_else(|| panic!("not sent: {event}")));
    }
    assert_eq!(sent, Vec::<Value>::new());
    let metrics = metrics.metrics.encode().unwrap();
    contains(
        &metrics,
        &format!("apiserver_audit_event_total {}", written.len()),
    );
    contains(
        &metrics,
        r#"apiserver_audit_level_total{level="RequestResponse"}"#,
    );
    assert!(
        !metrics.contains("apiserver_audit_error_total{"),
        "{metrics}"
    );
}

/// R9.10, R9.12: what cannot be used ends the start, and a log that cannot be written to
/// refuses requests where that is wanted.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_full_refuses_requests_if_it_is_strict() {
    let mut served = Served::cluster().await;
    let policy = served.files().join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    served.add_flags([
        format!("--audit-policy-file={}", policy.display()),
        "--audit-log-path=/dev/full".to_owned(),
        "--audit-log-mode=blocking-strict".to_owned(),
    ]);
    served.start_here().await;
    let one = format!("{COLLECTION}/absent");
    let mut said = String::new();
    eventually("requests are refused", Duration::from_secs(60), || {
        said = served.try_kubectl(&["get", "--raw", &one]).text();
        said.contains("failed to store audit event")
    })
    .await;
    let metrics = served.running().context.metrics.encode().unwrap();
    contains(&metrics, "apiserver_audit_error_total{plugin=\"log\"}");
    assert!(
        !metrics.contains("apiserver_audit_requests_rejected_total 0"),
        "{metrics}"
    );
    served.stop().await;

    std::fs::write(&policy, POLICY.replace("level: Request\n", "level: Most\n")).unwrap();
    let server = std::panic::AssertUnwindSafe(served.start_here());
    let refused = futures::FutureExt::catch_unwind(server).await.unwrap_err();
    let text = refused.downcast_ref::<String>().unwrap();
    contains(text, r#"Unsupported value: \"Most\""#);
}
