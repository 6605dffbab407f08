//! The way into the API server, against a real kube-apiserver: registration, who may
//! ask, documents, the gate in front of the store, the end.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::served::{API_SERVICE, GROUP_VERSION, NAME, NAMESPACE, Served, contains, eventually};

/// How long kube-apiserver and our server may take to hear of each other.
const SOON: Duration = Duration::from_secs(40);

const DATA_STORE: &str = r#"
apiVersion: steward.butlerlabs.dev/v1alpha1
kind: DataStore
metadata: {name: one}
spec:
  driver: etcd
  endpoints: ["etcd.example.com:2379"]
  tlsConfig:
    certificateAuthority:
      certificate: {secretReference: {name: s, namespace: default, keyPath: ca.crt}}
      privateKey: {secretReference: {name: s, namespace: default, keyPath: ca.key}}
    clientCertificate:
      certificate: {secretReference: {name: s, namespace: default, keyPath: tls.crt}}
      privateKey: {secretReference: {name: s, namespace: default, keyPath: tls.key}}
"#;

/// Waits until kube-apiserver says that our API is available; whether it can
/// be answered from the store is another matter.
async fn available(served: &Served) {
    let passed = || served.condition() == "True/Passed";
    eventually("the APIService is available", SOON, passed).await;
}

/// R1.2, R1.12, R2.14, R2.20, R2.21, R2.22, R2.23, R2.24.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_registers_itself_and_is_found_by_kubectl() {
    let mut served = Served::here().await;

    let resources = served.kubectl(&["get", "--raw", GROUP_VERSION]);
    contains(&resources, r#""kind":"APIResourceList""#);
    let table = served.kubectl(&["api-resources", "--api-group=steward.butlerlabs.dev"]);
    contains(&table, "tcp");
    contains(&table, "datastores");
    // kube-apiserver takes over the schema in its own time.
    let explain = ["explain", "tcp.spec.controlPlane"];
    eventually("the schema is merged", SOON, || {
        served.try_kubectl(&explain).code == 0
    })
    .await;
    let explained = served.kubectl(&explain);
    contains(&explained, "FIELDS:");
    contains(&explained, "deployment");
    contains(
        &served.try_kubectl(&["get", "tcp", "-A"]).text(),
        "No resources found",
    );

    // The merged documents of kube-apiserver: aggregated discovery is taken over.
    let groups = served.kubectl(&["get", "--raw", "/apis"]);
    contains(&groups, "steward.butlerlabs.dev");
    let index = served.kubectl(&["get", "--raw", "/openapi/v3"]);
    contains(&index, "apis/steward.butlerlabs.dev/v1alpha1");

    // For clients of old it merges v2, where it looks once a minute: all of ours is there as
    // we wrote it, and nothing has a second name or a second type of a kind.
    let ours = apiservice::openapi::v2();
    let mut merged = Value::Null;
    eventually("v2 is merged", Duration::from_secs(90), || {
        let text = served.kubectl(&["get", "--raw", "/openapi/v2"]);
        merged = serde_json::from_str(&text).unwrap();
        let path = format!("{GROUP_VERSION}/datastores");
        merged["paths"].get(path).is_some()
    })
    .await;
    for part in ["paths", "definitions"] {
        for (name, value) in ours[part].as_object().unwrap() {
            assert_eq!(merged[part][name], *value, "{name}");
        }
    }
    let mut kinds = std::collections::HashSet::new();
    for (name, definition) in merged["definitions"].as_object().unwrap() {
        assert!(!name.contains("_v"), "{name}");
        let of = definition["x-kubernetes-group-version-kind"].as_array();
        for kind in of.into_iter().flatten() {
            assert!(kinds.insert(kind.to_string()), "{name}: {kind} twice");
        }
    }

    // What is known of the requester reaches our authorization.
    let jane = [
        "get",
        "datastores",
        "--as=jane",
        "--as-group=system:authenticated",
    ];
    let refused = served.try_kubectl(&jane).text();
    contains(&refused, r#"User "jane" cannot list resource "datastores""#);
    let unknown = format!("{GROUP_VERSION}/nothing");
    let unknown = served.try_kubectl(&["get", "--raw", &unknown]).text();
    contains(&unknown, "the server could not find the requested resource");
    served.stop().await;
}

/// R1.21, R1.22, R1.27, R2.33, R8.39, R9.15, R9.18.
#[tokio::test(flavor = "multi_thread")]
async fn direct_callers_are_recognised_and_impersonation_is_not_ignored() {
    let mut served = Served::here().await;
    let url = |path: &str| {
        format!(
            "https://127.0.0.1:{}{path}",
            served.running().address.port()
        )
    };
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["-sk", "-m", "10", "-w", " %{http_code}"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(&[&url("/readyz")]), "ok 200");
    contains(&curl(&["--http1.1", &url("/livez")]), "ok 200");
    contains(
        &curl(&[&url(GROUP_VERSION)]),
        r#"User \"system:anonymous\" cannot get path"#,
    );
    // An old client is refused, not served badly.
    let old = curl(&[
        "--tls-max",
        "1.1",
        "--ciphers",
        "DEFAULT@SECLEVEL=0",
        &url("/readyz"),
    ]);
    assert_eq!(old.trim(), "000");
    let long = |bytes: usize| format!("X-Long: {}", "x".repeat(bytes));
    for version in ["--http1.1", "--http2"] {
        assert_eq!(
            curl(&[version, "-H", &long(40_000), &url("/livez")]),
            "ok 200"
        );
    }
    let refused = |version: &str| curl(&[version, "-H", &long(100_000), &url("/livez")]);
    assert_eq!(refused("--http1.1").trim(), "431");
    // Here the stream is refused as well, which is all that curl tells.
    assert!(!refused("--http2").contains("200"));
    let forged = [
        "-H",
        "X-Remote-User: root",
        "-H",
        "X-Remote-Group: system:masters",
    ];
    contains(
        &curl(&[&forged[..], &[&url(GROUP_VERSION)]].concat()),
        "system:anonymous",
    );
    contains(
        &curl(&["-H", "Authorization: Bearer no", &url(GROUP_VERSION)]),
        "401",
    );

    let token = ["-n", NAMESPACE, "create", "token", NAME];
    let bearer = format!("Authorization: Bearer {}", served.kubectl(&token).trim());
    contains(
        &curl(&["-H", &bearer, &url(GROUP_VERSION)]),
        "APIResourceList",
    );
    // A client that tries a WebSocket first gets a plain answer, not an error.
    let upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    let key = [
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let asked = [
        &["--http1.1", "-H", &bearer],
        &upgrade[..],
        &key[..],
        &[&url(GROUP_VERSION)],
    ];
    let answer = curl(&asked.concat());
    contains(&answer, "APIResourceList");
    assert!(answer.ends_with(" 200"), "{answer}");
    let impersonated = curl(&[
        "-H",
        &bearer,
        "-H",
        "Impersonate-User: root",
        &url(GROUP_VERSION),
    ]);
    contains(&impersonated, "cannot impersonate here");
    contains(&impersonated, " 403");

    // A user's certificate, and one that proves nothing.
    let pki = served.lab.directory().pki();
    let file = |name: &str| pki.join(name).display().to_string();
    let with = |cert: &str| {
        let (cert, key) = (file(&format!("{cert}.crt")), file(&format!("{cert}.key")));
        curl(&["--cert", &cert, "--key", &key, &url(GROUP_VERSION)])
    };
    contains(&with("apiserver-kubelet-client"), "200");
    contains(&with("apiserver-etcd-client"), "401");
    served.stop().await;
}

/// R3.17, R8.10.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_store_is_not_served_until_it_is_confirmed() {
    let mut served = Served::cluster().await;
    served.start_here().await;
    served.wait_until_served().await;
    served.lab.apply(DATA_STORE).unwrap();
    served.stop().await;

    std::fs::remove_dir_all(served.data()).unwrap();
    served.start_here().await;
    available(&served).await;
    let list = format!("{GROUP_VERSION}/datastores");
    let refused = || served.try_kubectl(&["get", "--raw", &list]).text();
    eventually("the gate says why", SOON, || {
        refused().contains("is not the one on record")
    })
    .await;
    let text = refused();
    let command = text
        .split_once("kubectl ")
        .map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>())
        .unwrap();
    let end = command
        .iter()
        .position(|word| word.contains("accept-store="))
        .unwrap();
    // Discovery and readiness are not touched.
    contains(
        &served.kubectl(&["get", "--raw", GROUP_VERSION]),
        "APIResourceList",
    );

    served.kubectl(&command[..=end]);
    eventually("the confirmed store is served", SOON, || {
        served.try_kubectl(&["get", "--raw", &list]).code == 0
    })
    .await;
    // Revisions go on above those that clients have seen.
    let list: Value = serde_json::from_str(&served.kubectl(&["get", "--raw", &list])).unwrap();
    assert_eq!(list["items"], json!([]));
    let revision: u64 = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(revision >= 2, "{revision}");
    served.stop().await;
}

/// R8.10.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_without_a_record_of_their_store_close_the_gate() {
    let mut served = Served::cluster().await;
    served
        .lab
        .apply(
            r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: tenant
  namespace: default
  labels: {steward.butlerlabs.dev/project: steward}
  ownerReferences:
  - {apiVersion: steward.butlerlabs.dev/v1alpha1, kind: TenantControlPlane, name: tenant, uid: 11111111-1111-1111-1111-111111111111}
spec:
  replicas: 0
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: a, image: a}]}
"#,
        )
        .unwrap();
    served.start_here().await;
    available(&served).await;
    let list = format!("{GROUP_VERSION}/tenantcontrolplanes");
    eventually("the gate says why", SOON, || {
        served
            .try_kubectl(&["get", "--raw", &list])
            .text()
            .contains("Deployment default/tenant")
    })
    .await;
    // The garbage collector gets no 404 to act upon.
    tokio::time::sleep(Duration::from_secs(5)).await;
    served.kubectl(&["get", "deployment", "tenant"]);
    served.stop().await;
}

/// R3.29, R9.7.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_clean_for_watches_and_records_the_floor() {
    let mut served = Served::here().await;
    served.lab.apply(DATA_STORE).unwrap();
    let watch = format!("{GROUP_VERSION}/datastores?watch=1&resourceVersion=1");
    let mut watching = Command::new(served.lab.program("kubectl"))
        .arg("--kubeconfig")
        .arg(served.lab.kubeconfig())
        .args(["get", "--raw", &watch])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    served.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10));
    let output = tokio::task::spawn_blocking(move || {
        watching
            .wait()
            .map(|status| (status, watching.stdout.take()))
    });
    let (status, stdout) = output.await.unwrap().unwrap();
    assert!(status.success(), "the stream ended in the middle");
    let text = std::io::read_to_string(stdout.unwrap()).unwrap();
    contains(&text, r#""type":"ADDED""#);

    let floor = ["-n", NAMESPACE, "get", "secret", "steward-apiserver-store"];
    let floor = [
        &floor[..],
        &["-o=go-template={{.data.revision|base64decode}}"],
    ]
    .concat();
    assert_eq!(served.kubectl(&floor), "2");
}

/// R1.4, R9.17.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_not_taken_over_and_what_is_ours_is_repaired() {
    let mut served = Served::cluster().await;
    served
        .lab
        .apply(
            r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: datastores.steward.butlerlabs.dev}
spec:
  group: steward.butlerlabs.dev
  scope: Cluster
  names: {plural: datastores, singular: datastore, kind: DataStore, listKind: DataStoreList}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"#,
        )
        .unwrap();
    eventually("kube-apiserver serves the CRD", SOON, || {
        served.try_kubectl(&["get", "datastores"]).code == 0
    })
    .await;
    served.start_here().await;
    let refused = || {
        let metrics = served.running().context.metrics.encode().unwrap();
        metrics.contains("steward_registration_refused 1")
    };
    eventually("the server says that it is refused", SOON, refused).await;
    let service = [
        "get",
        "apiservice",
        API_SERVICE,
        "-o=jsonpath={.spec.service}",
    ];
    assert_eq!(served.kubectl(&service), "");

    served.kubectl(&["delete", "crd", "datastores.steward.butlerlabs.dev"]);
    let ours = || served.try_kubectl(&service).stdout.contains(NAME);
    eventually("the APIService leads to us", SOON, ours).await;
    available(&served).await;
    let path = "/spec/groupPriorityMinimum";
    let patch = format!(r#"[{{"op":"replace","path":"{path}","value":3}}]"#);
    served.kubectl(&[
        "patch",
        "apiservice",
        API_SERVICE,
        "--type=json",
        "-p",
        &patch,
    ]);
    let priority = "-o=jsonpath={.spec.groupPriorityMinimum}";
    eventually("the APIService is repaired", SOON, || {
        served.kubectl(&["get", "apiservice", API_SERVICE, priority]) != "3"
    })
    .await;
    served.stop().await;
}

/// Rule 2: a database that is gone costs its resources, and nothing else.
/// R1.8, R3.87, R8.3.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_a_server_is_ready_and_answers_503() {
    let mut served = Served::cluster().await;
    std::fs::write(served.data(), "not a directory").unwrap();
    served.start_here().await;
    available(&served).await;
    contains(
        &served.kubectl(&["get", "--raw", GROUP_VERSION]),
        "APIResourceList",
    );
    let list = format!("{GROUP_VERSION}/datastores");
    let listed = served.try_kubectl(&["get", "--raw", &list]);
    assert_ne!(listed.code, 0);
    contains(&listed.text(), "the object store is not available");
    contains(&listed.text(), "ServiceUnavailable");
    served.stop().await;
}

/// Without a right to read them, it is not known whom to ask: nothing is written, and the
/// rest goes on.
/// R7.3.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_until_the_configurations_of_admission_are_known() {
    let mut served = Served::cluster().await;
    let role = |served: &Served, patch: &Value| {
        let patch = format!("-p={patch}");
        served.kubectl(&["patch", "clusterrole", NAME, "--type=json", &patch]);
    };
    let (resource, kind) = ("/rules/3/resources/1", "validatingwebhookconfigurations");
    let taken = json!([
        {"op": "test", "path": resource, "value": kind},
        {"op": "remove", "path": resource},
    ]);
    role(&served, &taken);
    served.start_here().await;
    served.wait_until_served().await;
    let file = served.files().join("one.yaml").display().to_string();
    std::fs::write(&file, DATA_STORE).unwrap();
    let create = || served.try_kubectl(&["create", "-f", &file, "--validate=false"]);
    let asked = Instant::now();
    let refused = create();
    let (waited, text) = (asked.elapsed(), refused.text());
    assert_eq!(refused.code, 1, "{text}");
    contains(
        &text,
        r#"datastores.steward.butlerlabs.dev "one" is forbidden: not yet ready to handle request"#,
    );
    assert!(waited >= Duration::from_secs(9), "{waited:?}");
    assert!(waited < Duration::from_secs(25), "{waited:?}");
    let listed = served.try_kubectl(&["get", "datastores"]);
    contains(&listed.text(), "No resources found");
    role(
        &served,
        &json!([{"op": "add", "path": resource, "value": kind}]),
    );
    eventually("they are known", Duration::from_secs(90), || {
        create().code == 0
    })
    .await;
    served.stop().await;
}
