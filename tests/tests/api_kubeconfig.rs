//! `kubectl get tcp NAME --subresource=kubeconfig` and its POST (rules 11 to 14).
#![allow(clippy::disallowed_methods, reason = "tests")]

mod world;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::{GROUP_VERSION, World, contains};

const READERS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [steward.butlerlabs.dev], resources: ["*"], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: reader}, {kind: User, apiGroup: rbac.authorization.k8s.io, name: viewer}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: viewer}
rules: [{apiGroups: [steward.butlerlabs.dev], resources: ["tenantcontrolplanes/kubeconfig"], verbs: [view]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewer}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: viewer}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: t-signer, namespace: default}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get], resourceNames: [t-client-ca]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: t-signer, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: t-signer}
subjects: [{kind: ServiceAccount, name: steward-apiserver, namespace: steward-system}]
---
apiVersion: steward.butlerlabs.dev/v1alpha1
kind: TenantControlPlane
metadata: {name: t, namespace: default}
spec:
  kubernetes: {version: v1.36.3, kubelet: {}}
  controlPlane: {service: {serviceType: ClusterIP}}
"#;

/// The management cluster stands in for the tenant: its API server judges the
/// certificates, because its client authority signs them.
#[tokio::test(flavor = "multi_thread")]
async fn kubeconfigs_are_for_those_who_may_have_them_and_work() {
    let world = World::start().await;
    let running = world.serve("data").await;
    world.wait_until_available().await;
    world.lab.apply(READERS).unwrap();
    let get = |user: &str| {
        let arguments = ["get", "tcp", "t", "--subresource=kubeconfig", "-o", "yaml"];
        let user = format!("--as={user}");
        world.try_kubectl(&[&arguments[..], &["--request-timeout=30s", &user]].concat())
    };
    let raw = format!("{GROUP_VERSION}/namespaces/default/tenantcontrolplanes/t/kubeconfig");
    let (_, early) = world.try_kubectl(&["get", "--raw", &raw, "--request-timeout=5s"]);
    contains(&early, "the tenant is not ready to be used");

    let pki = world.lab.directory().pki();
    let from = |key: &str, file: &str| format!("--from-file={key}={}/{file}", pki.display());
    let secret = ["create", "secret", "generic", "t-client-ca"].map(str::to_owned);
    let files = [
        from("ca.crt", "ca.crt"),
        from("ca.key", "ca.key"),
        from("server-ca.crt", "ca.crt"),
    ];
    let secret: Vec<&str> = secret.iter().chain(&files).map(String::as_str).collect();
    world.kubectl(&secret);
    let shown = world.kubectl(&[
        "config",
        "view",
        "--minify",
        "-o=jsonpath={.clusters[0].cluster.server}",
    ]);
    let ready = json!({"status": {
        "controlPlaneEndpoint": shown.trim_start_matches("https://"),
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }});
    let patch = [
        "patch",
        "tcp",
        "t",
        "--subresource=status",
        "--type=merge",
        "-p",
    ];
    world.kubectl(&[&patch[..], &[&ready.to_string()]].concat());

    let whoami = |kubeconfig: &str| {
        let file = world.files.path().join("minted");
        std::fs::write(&file, kubeconfig).unwrap();
        let file = format!("--kubeconfig={}", file.display());
        let groups = "-o=jsonpath={.status.userInfo.username} {.status.userInfo.groups}";
        world.try_kubectl(&[&file, "auth", "whoami", groups]).1
    };
    let (_, admin) =
        world.try_kubectl(&["get", "tcp", "t", "--subresource=kubeconfig", "-o", "yaml"]);
    contains(
        &whoami(&admin),
        r#"["steward:admin","system:authenticated"]"#,
    );
    let (_, viewer) = get("viewer");
    assert_eq!(
        whoami(&viewer),
        r#"steward:viewer ["steward:view","system:authenticated"]"#
    );
    let (_, reader) = get("reader");
    contains(&reader, "this kubeconfig has no user");
    contains(&reader, "users: []");
    assert!(!reader.contains("client-key-data"), "{reader}");
    let (allowed, nobody) = get("nobody");
    assert!(!allowed);
    contains(
        &nobody,
        r#"cannot get resource "tenantcontrolplanes/kubeconfig""#,
    );
    let table = world.kubectl(&["get", "tcp", "t", "--subresource=kubeconfig"]);
    contains(&table, "admin");

    // A right that is taken away is gone at once, whatever was remembered.
    world.kubectl(&["delete", "clusterrolebinding", "viewer"]);
    let taken = Instant::now();
    while !get("viewer").1.contains("users: []") {
        assert!(
            taken.elapsed() < Duration::from_secs(4),
            "an old answer is used"
        );
    }

    let file = world.files.path().join("request.json");
    let request = json!({"spec": {"role": "view", "expirationSeconds": 600}});
    std::fs::write(&file, request.to_string()).unwrap();
    let file = file.display().to_string();
    let answer = world.kubectl(&["create", "--raw", &raw, "-f", &file]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    contains(
        &whoami(answer["status"]["kubeconfig"].as_str().unwrap()),
        "steward:view",
    );
    let until = |value: &Value| -> jiff::Timestamp { value.as_str().unwrap().parse().unwrap() };
    let life = until(&answer["status"]["expirationTimestamp"])
        - until(&answer["metadata"]["creationTimestamp"]);
    assert_eq!(life.total(jiff::Unit::Second).unwrap(), 600.0);
    let dry = world.kubectl(&["create", "--raw", &format!("{raw}?dryRun=All"), "-f", &file]);
    assert!(!dry.contains("status"), "{dry}");
    running.stop().await;
}
