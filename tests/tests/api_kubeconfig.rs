//! `kubectl get tcp NAME --subresource=kubeconfig` and its POST (rules 11 to 14).
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::served::{GROUP_VERSION, Served, contains};

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
/// R1.29, R3.75, R8.24, R8.25, R8.26, R8.27.
#[tokio::test(flavor = "multi_thread")]
async fn kubeconfigs_are_for_those_who_may_have_them_and_work() {
    let mut served = Served::here().await;
    served.lab.apply(READERS).unwrap();
    let get = |user: &str| {
        let arguments = ["get", "tcp", "t", "--subresource=kubeconfig", "-o", "yaml"];
        let user = format!("--as={user}");
        served.try_kubectl(&[&arguments[..], &["--request-timeout=30s", &user]].concat())
    };
    let raw = format!("{GROUP_VERSION}/namespaces/default/tenantcontrolplanes/t/kubeconfig");
    let early = served.try_kubectl(&["get", "--raw", &raw, "--request-timeout=5s"]);
    contains(&early.text(), "the tenant is not ready to be used");

    let pki = served.lab.directory().pki();
    let from = |key: &str, file: &str| format!("--from-file={key}={}/{file}", pki.display());
    let secret = ["create", "secret", "generic", "t-client-ca"].map(str::to_owned);
    let files = [
        from("ca.crt", "ca.crt"),
        from("ca.key", "ca.key"),
        from("server-ca.crt", "ca.crt"),
    ];
    let secret: Vec<&str> = secret.iter().chain(&files).map(String::as_str).collect();
    served.kubectl(&secret);
    let shown = served.kubectl(&[
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
    served.kubectl(&[&patch[..], &[&ready.to_string()]].concat());

    let whoami = |kubeconfig: &str| {
        let file = served.files().join("minted");
        std::fs::write(&file, kubeconfig).unwrap();
        let file = format!("--kubeconfig={}", file.display());
        let groups = "-o=jsonpath={.status.userInfo.username} {.status.userInfo.groups}";
        served
            .try_kubectl(&[&file, "auth", "whoami", groups])
            .text()
    };
    let admin = served.kubectl(&["get", "tcp", "t", "--subresource=kubeconfig", "-o", "yaml"]);
    contains(
        &whoami(&admin),
        r#"["steward:admin","system:authenticated"]"#,
    );
    let viewer = get("viewer").text();
    assert_eq!(
        whoami(&viewer),
        r#"steward:viewer ["steward:view","system:authenticated"]"#
    );
    let reader = get("reader").text();
    contains(&reader, "this kubeconfig has no user");
    contains(&reader, "users: []");
    assert!(!reader.contains("client-key-data"), "{reader}");
    let nobody = get("nobody");
    assert_ne!(nobody.code, 0);
    contains(
        &nobody.text(),
        r#"cannot get resource "tenantcontrolplanes/kubeconfig""#,
    );
    let table = served.kubectl(&["get", "tcp", "t", "--subresource=kubeconfig"]);
    contains(&table, "admin");

    // A right that is taken away is gone at once, whatever was remembered.
    served.kubectl(&["delete", "clusterrolebinding", "viewer"]);
    let taken = Instant::now();
    while !get("viewer").text().contains("users: []") {
        assert!(
            taken.elapsed() < Duration::from_secs(4),
            "an old answer is used"
        );
    }

    let file = served.files().join("request.json");
    let request = json!({"spec": {"role": "view", "expirationSeconds": 600}});
    std::fs::write(&file, request.to_string()).unwrap();
    let file = file.display().to_string();
    let answer = served.kubectl(&["create", "--raw", &raw, "-f", &file]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    contains(
        &whoami(answer["status"]["kubeconfig"].as_str().unwrap()),
        "steward:view",
    );
    let until = |value: &Value| -> jiff::Timestamp { value.as_str().unwrap().parse().unwrap() };
    let life = until(&answer["status"]["expirationTimestamp"])
        - until(&answer["metadata"]["creationTimestamp"]);
    assert_eq!(life.total(jiff::Unit::Second).unwrap(), 600.0);
    let dry = served.kubectl(&["create", "--raw", &format!("{raw}?dryRun=All"), "-f", &file]);
    assert!(!dry.contains("status"), "{dry}");
    the_plugin_asks_for_them(&served, &whoami);
    served.stop().await;
}

/// R8.28: `kubectl tcp kubeconfig`, for kubectl of any age.
fn the_plugin_asks_for_them(served: &Served, whoami: &dyn Fn(&str) -> String) {
    let get = served.plugin(&["kubeconfig", "t"]);
    contains(&whoami(&get.stdout), "steward:admin");
    let viewed = served.plugin(&[
        "kubeconfig",
        "t",
        "-n=default",
        "--role",
        "view",
        "--ttl=20m",
    ]);
    assert_eq!((viewed.code, viewed.stderr.as_str()), (0, ""));
    contains(&whoami(&viewed.stdout), "steward:view");
    // The user's own flags and rights count, and what is wrong is said before anybody is asked.
    for (arguments, said) in [
        (
            &["kubeconfig", "t", "--as=nobody"][..],
            r#"User "nobody" cannot get resource"#,
        ),
        (
            &["kubeconfig", "t", "--as=viewer", "--role=view"],
            r#"User "viewer" cannot create resource"#,
        ),
        (&["kubeconfig", "none"], r#""none" not found"#),
        (&["kubeconfig", "../x"], r#"error: invalid name: "../x""#),
        (
            &["kubeconfig", "t", "--role=x\",\"y"],
            "error: invalid role",
        ),
        (
            &["kubeconfig", "t", "--ttl=1x"],
            "time: invalid duration \"1x\"",
        ),
        (
            &["kubeconfig", "t", "--rolle=view"],
            "error: unknown flag: --rolle",
        ),
        (&["kubeconfig"], "Usage:"),
    ] {
        let refused = served.plugin(arguments);
        assert_ne!(refused.code, 0, "{arguments:?}");
        assert_eq!(refused.stdout, "", "{arguments:?}");
        contains(&refused.stderr, said);
    }
    // Added to one's own, whose current context stays.
    let own = served.files().join("own");
    std::fs::copy(served.lab.kubeconfig(), &own).unwrap();
    let own = format!("--kubeconfig={}", own.display());
    let before = served.try_kubectl(&[&own, "config", "current-context"]);
    let merged = served.plugin(&["kubeconfig", "t", "--merge", &own]);
    assert_eq!(merged.code, 0, "{}", merged.text());
    let context = "--context=tcp/default/t";
    let me = served.try_kubectl(&[&own, context, "auth", "whoami"]);
    contains(&me.text(), "steward:admin");
    assert_eq!(
        served.try_kubectl(&[&own, "config", "current-context"]),
        before
    );
}
