//! Tracing, with kube-apiserver as the judge: it and our server tell one collector of the same
//! requests, and of requests to a CustomResourceDefinition it tells what we tell of ours.
#![allow(clippy::disallowed_methods, reason = "tests")]

mod collector;

use std::time::{Duration, Instant};

use collector::{Collector, Span};
use http::Request;
use kube::client::Body;
use serde_json::json;
use tests::lab::{Lab, Level};
use tests::served::{GROUP_VERSION, Served, contains, eventually};

/// Batches wait for five seconds on either side.
const SOON: Duration = Duration::from_secs(30);
const OURS: &str = "steward-apiserver";
const THEIRS: &str = "apiserver";
/// The parent that a request claims to have: sampled.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CLAIMED: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLAIMED_SPAN: &str = "00f067aa0ba902b7";

fn configuration(endpoint: &str, rate: u32) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n\
         endpoint: {endpoint}\nsamplingRatePerMillion: {rate}\n"
    )
}

/// A cluster whose kube-apiserver and our server, which is not started, tell this collector.
async fn traced(collector: &Collector, rate: u32) -> Served {
    let theirs = configuration(&format!("unix://{}", collector.socket.display()), 1_000_000);
    let lab = Lab::start_traced(Level::Api, &theirs).await.unwrap();
    let mut served = Served::on(lab).await;
    let endpoint = format!("{}:{}", served.lab.host_ip(), collector.port);
    let file = served.files().join("tracing.yaml");
    std::fs::write(&file, configuration(&endpoint, rate)).unwrap();
    served.add_flags([
        format!("--tracing-config-file={}", file.display()),
        "--identity=one".to_owned(),
    ]);
    served
}

fn tenant(group: &str, name: &str) -> String {
    json!({
        "apiVersion": format!("{group}/v1alpha1"), "kind": "TenantControlPlane",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"dataStore": "default", "kubernetes": {"version": "v1.36.3", "kubelet": {"preferredAddressTypes": ["InternalIP"]}},
            "controlPlane": {"deployment": {"replicas": 2}, "service": {"serviceType": "ClusterIP"}}},
    })
    .to_string()
}

/// The spans of a request for this URL, once its own is there: those of one trace.
async fn trace(collector: &Collector, service: &str, method: &str, part: &str) -> Vec<Span> {
    let mut found = Vec::new();
    eventually(&format!("{service}: {method} {part}"), SOON, || {
        let all = collector.spans();
        let of = |span: &&Span| {
            span.service == service
                && span.kind == "SPAN_KIND_SERVER"
                && span.says("http.request.method") == method
                && span.says("http.target").contains(part)
        };
        let Some(root) = all.iter().find(of) else {
            return false;
        };
        let whole = all.iter().filter(|span| span.trace == root.trace);
        found = whole.cloned().collect();
        // The outermost one of kube-apiserver's is exported last.
        let outermost = ["", CLAIMED_SPAN];
        found
            .iter()
            .any(|span| outermost.contains(&span.parent.as_str()))
    })
    .await;
    found
}

#[track_caller]
fn one<'a>(spans: &'a [Span], service: &str, name: &str) -> &'a Span {
    let of = spans.iter().filter(|span| span.service == service);
    let told: Vec<&str> = of.clone().map(|span| span.name.as_str()).collect();
    let is = |span: &&Span| match name.ends_with('/') {
        true => span.name.starts_with(name),
        false => span.name == name,
    };
    let mut of = of.filter(is);
    of.next()
        .unwrap_or_else(|| panic!("no {name} of {service} in {told:?}"))
}

/// Whether `span` is below `above`, at any depth.
fn is_below(spans: &[Span], span: &Span, above: &Span) -> bool {
    let mut at = span;
    while let Some(parent) = spans.iter().find(|it| it.span == at.parent) {
        if parent.span == above.span {
            return true;
        }
        at = parent;
    }
    false
}

/// R9.13: one request is one trace, through kube-apiserver into the store, with one audit-id;
/// names and attributes are those that kube-apiserver has for a CRD.
#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_one_trace_with_kube_apiservers_names() {
    let files = tempfile::tempdir().unwrap();
    let collector = Collector::start(files.path());
    let mut served = traced(&collector, 0).await;
    served.start_process().await;
    served.wait_until_served().await;
    let other = "crd.example.com";
    let crd = apiservice::crd::crd(apiservice::find("tenantcontrolplanes").unwrap()).unwrap();
    let crd = serde_json::to_string(&crd).unwrap();
    let file = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let crd = file("crd.json", crd.replace(apiservice::GROUP, other));
    served.kubectl(&["create", "-f", &crd]);
    let kind = |group: &str| format!("tenantcontrolplanes.{group}");
    let theirs = kind(other);
    eventually("the CRD is served", SOON, || {
        served.try_kubectl(&["get", &theirs]).code == 0
    })
    .await;
    let mut told = Vec::new();
    for group in [apiservice::GROUP, other] {
        let one = file("one.json", tenant(group, "one"));
        served.kubectl(&["create", "-f", &one]);
        served.kubectl(&["get", &kind(group), "one"]);
        let all = format!("/apis/{group}/v1alpha1/namespaces/default/tenantcontrolplanes");
        let by = match group == other {
            true => THEIRS,
            false => OURS,
        };
        let created = trace(&collector, by, "POST", &all).await;
        let read = trace(&collector, by, "GET", &format!("{all}/one")).await;
        told.push((created, read));
    }
    let [(created, read), (their_creation, their_read)] = told.as_slice() else {
        panic!("two groups");
    };
    for (spans, verb, store) in [
        (created, "Create", "Create sqlite"),
        (read, "Get", "Get sqlite"),
    ] {
        let request = one(
            spans,
            OURS,
            if verb == "Get" {
                "GET /apis/"
            } else {
                "POST /apis/"
            },
        );
        let passed_on = spans.iter().find(|it| it.span == request.parent).unwrap();
        assert_eq!(
            (passed_on.service.as_str(), passed_on.kind.as_str()),
            (THEIRS, "SPAN_KIND_CLIENT")
        );
        let outer = spans
            .iter()
            .find(|it| it.service == THEIRS && it.kind == "SPAN_KIND_SERVER");
        assert_eq!(outer.unwrap().says("audit-id"), request.says("audit-id"));
        assert!(!request.says("audit-id").is_empty());
        assert_eq!(
            (request.instance.as_str(), request.status.as_str()),
            ("one", "STATUS_CODE_UNSET")
        );
        contains(request.says("user_agent.original"), "kubectl/v1.36.3");
        let handler = one(spans, OURS, verb);
        let work = one(spans, OURS, store);
        assert!(is_below(spans, handler, request) && is_below(spans, work, handler));
        assert!(work.start >= handler.start && work.end <= handler.end);
        let written = one(spans, OURS, "SerializeObject");
        assert!(is_below(spans, written, request));
        // Nothing of ours hangs in the air.
        for span in spans.iter().filter(|it| it.service == OURS) {
            assert!(
                span.span == request.span || is_below(spans, span, request),
                "{span:?}"
            );
        }
    }
    let put = one(created, OURS, "Create sqlite");
    for step in ["queue", "transaction", "commit"] {
        assert_eq!(one(created, OURS, step).parent, put.span, "{step}");
    }
    contains(put.says("key"), "/tenantcontrolplanes/default/one");
    compare(
        created,
        their_creation,
        &["POST /apis/", "Create", "SerializeObject"],
    );
    compare(read, their_read, &["GET /apis/", "Get", "SerializeObject"]);
    served.stop().await;
}

/// Names and attributes are those of kube-apiserver, but for what is known to differ.
fn compare(ours: &[Span], theirs: &[Span], names: &[&str]) {
    // Of a connection ours are not told the port; bodies are counted before they are read.
    let unknown = [
        "network.peer.port",
        "server.port",
        "http.request.body.size",
        "http.response.body.size",
    ];
    for name in names {
        let (ours, theirs) = (one(ours, OURS, name), one(theirs, THEIRS, name));
        let known = |span: &Span| {
            let keys = span.keys().into_iter().filter(|key| !unknown.contains(key));
            keys.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(known(ours), known(theirs), "{name}: ours, theirs");
        let renamed = theirs.name.replace("crd.example.com", apiservice::GROUP);
        assert_eq!(ours.name, renamed);
        assert_eq!(ours.kind, theirs.kind);
        assert!(ours.links.is_none() && theirs.links.is_none());
        for same in [
            "verb",
            "scope",
            "resource",
            "namespace",
            "name",
            "api-version",
            "mediaType",
            "http.response.status_code",
        ] {
            assert_eq!(ours.says(same), theirs.says(same), "{name}: {same}");
        }
    }
}

/// R9.13: with a rate of 0 there are spans only of a caller's own trace, and only if the caller
/// is one whom Kubernetes trusts with that; others have none, sampled parent or not. Without a
/// collector requests go on.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_choose_is_sampled_and_nobody_waits_for_the_collector() {
    let files = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(files.path());
    let mut served = traced(&collector, 0).await;
    served.start_process().await;
    served.wait_until_served().await;
    let ask = async |who: Option<&str>, part: &str| {
        let url = format!("{GROUP_VERSION}/tenantcontrolplanes?{part}");
        let mut request = Request::get(url).header("traceparent", PARENT);
        if let Some(who) = who {
            request = request.header("impersonate-user", who);
        }
        let request = request.body(Body::empty()).unwrap();
        served.lab.client().send(request).await.unwrap().status()
    };
    // Nobody, straight to our server.
    let node = served.lab.addresses().node();
    let stranger = format!("https://{node}:8443{GROUP_VERSION}/datastores?fieldManager=stranger");
    let refused = std::process::Command::new("curl")
        .args([
            "-sk",
            "-m",
            "10",
            "-H",
            &format!("traceparent: {PARENT}"),
            &stranger,
        ])
        .output()
        .unwrap();
    contains(&String::from_utf8_lossy(&refused.stdout), "Forbidden");
    // Who may read, but not choose.
    let role = "--clusterrole=cluster-admin";
    served.kubectl(&["create", "clusterrolebinding", "jane", role, "--user=jane"]);
    let started = Instant::now();
    while ask(Some("jane"), "fieldManager=jane").await != 200 {
        assert!(started.elapsed() < SOON, "jane may not read");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(ask(None, "fieldManager=masters").await, 200);
    let spans = trace(&collector, OURS, "GET", "fieldManager=masters").await;
    assert!(spans.iter().all(|span| span.trace == CLAIMED), "{spans:?}");
    // What came before it would have been exported with it. kube-apiserver itself is of
    // system:masters, so that there are traces of its own.
    let all = collector.spans();
    let ours = all.iter().filter(|span| span.service == OURS);
    for span in ours {
        let target = span.says("http.target");
        for other in ["=jane", "=stranger"] {
            assert!(!target.contains(other), "{span:?}");
        }
    }
    let jane = |span: &&Span| span.service == THEIRS && span.says("http.target").contains("=jane");
    assert!(
        all.iter().any(|span| jane(&span)),
        "kube-apiserver samples all of it"
    );

    collector.stop();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(None, "fieldManager=lost").await, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    let rights = "--verb=get --non-resource-url=/metrics";
    let role = ["create", "clusterrole", "scraper"].into_iter();
    served.kubectl(&role.chain(rights.split(' ')).collect::<Vec<_>>());
    let account = "--serviceaccount=steward-system:steward-apiserver";
    served.kubectl(&[
        "create",
        "clusterrolebinding",
        "scraper",
        "--clusterrole=scraper",
        account,
    ]);
    let lost = || {
        let url = format!("https://{node}:8443/metrics");
        let token = served.kubectl(&[
            "-n",
            "steward-system",
            "create",
            "token",
            "steward-apiserver",
        ]);
        let bearer = format!("authorization: Bearer {}", token.trim());
        let said = std::process::Command::new("curl")
            .args(["-sk", "-m", "10", "-H", &bearer, &url])
            .output();
        String::from_utf8(said.unwrap().stdout).unwrap()
    };
    eventually("what is lost is counted", SOON, || {
        let metrics = lost();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("steward_trace_spans_total{result=\"failed\"}"));
        line.is_some_and(|line| !line.ends_with(" 0"))
    })
    .await;
    let began = Instant::now();
    served.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}
