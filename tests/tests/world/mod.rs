//! A cluster with our API server in it: the server in this process, its rights as in
//! the chart, the cluster led to it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use apiserver::args::Args;
use apiserver::registry::Clock;
use apiserver::server::{self, Running};
use clap::Parser;
use serde_json::{Value, json};
use tests::lab::{Lab, Level};

pub const NAMESPACE: &str = "steward-system";
pub const NAME: &str = "steward-apiserver";
pub const API_SERVICE: &str = "v1alpha1.steward.butlerlabs.dev";
pub const GROUP_VERSION: &str = "/apis/steward.butlerlabs.dev/v1alpha1";

/// The rights of the API server, all of them.
pub const RIGHTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: steward-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: steward-apiserver, namespace: steward-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: steward-apiserver-delegator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: steward-apiserver, namespace: steward-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: steward-apiserver, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: steward-apiserver, namespace: steward-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: steward-apiserver}
rules:
- {apiGroups: [""], resources: [namespaces], verbs: [get, list, watch]}
- {apiGroups: [apiregistration.k8s.io], resources: [apiservices], verbs: [create]}
- {apiGroups: [apiregistration.k8s.io], resources: [apiservices], verbs: [get, update, delete], resourceNames: [v1alpha1.steward.butlerlabs.dev]}
- {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get], resourceNames: [tenantcontrolplanes.steward.butlerlabs.dev, datastores.steward.butlerlabs.dev]}
- {apiGroups: [apps], resources: [deployments], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: steward-apiserver}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: steward-apiserver}
subjects: [{kind: ServiceAccount, name: steward-apiserver, namespace: steward-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: steward-apiserver, namespace: steward-system}
rules:
- {apiGroups: [""], resources: [secrets], verbs: [create]}
- {apiGroups: [""], resources: [secrets], verbs: [get, update], resourceNames: [steward-apiserver-serving, steward-apiserver-store]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: steward-apiserver, namespace: steward-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: steward-apiserver}
subjects: [{kind: ServiceAccount, name: steward-apiserver, namespace: steward-system}]
"#;

/// A cluster with the API server's rights in it, and a place for its files.
pub struct World {
    pub lab: Lab,
    pub files: tempfile::TempDir,
}

impl World {
    pub async fn start() -> World {
        let lab = Lab::start(Level::Api).await.unwrap();
        lab.apply(RIGHTS).unwrap();
        let files = tempfile::tempdir().unwrap();
        let world = World { lab, files };
        let token = ["-n", NAMESPACE, "create", "token", NAME, "--duration=2h"];
        let token = world.kubectl(&token).trim().to_owned();
        let shown = ["config", "view", "--raw", "--minify", "-o", "json"];
        let mut config: Value = serde_json::from_str(&world.kubectl(&shown)).unwrap();
        config["users"][0]["user"] = json!({"token": token});
        std::fs::write(world.kubeconfig(), config.to_string()).unwrap();
        world
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.files.path().join("kubeconfig")
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.lab.kubectl(arguments).unwrap()
    }

    /// kubectl's output whether or not it succeeds.
    pub fn try_kubectl(&self, arguments: &[&str]) -> (bool, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(self.lab.program("kubectl"))
            .arg("--kubeconfig")
            .arg(self.lab.kubeconfig())
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
        (status.success(), text.into_owned())
    }

    /// Starts the server and leads the cluster to it.
    pub async fn serve(&self, data: &str) -> Running {
        let args = Args::parse_from([
            "steward-apiserver",
            "--namespace=steward-system",
            "--secure-port=0",
            &format!("--kubeconfig={}", self.kubeconfig().display()),
            &format!("--data-dir={}", self.data(data).display()),
        ]);
        let client = args.connect().await.unwrap();
        let clock = Clock::new(jiff::Timestamp::now);
        let running = server::start(&args, client, clock).await.unwrap();
        let port = running.address.port();
        self.lab
            .register_local_service(NAMESPACE, NAME, port)
            .await
            .unwrap();
        running
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub fn condition(&self) -> String {
        let path = "-o=jsonpath={.status.conditions[0].status}/{.status.conditions[0].reason}";
        self.try_kubectl(&["get", "apiservice", API_SERVICE, path])
            .1
    }

    pub async fn wait_until_available(&self) {
        eventually("the APIService is available", || {
            self.condition() == "True/Passed"
        })
        .await;
    }
}

pub async fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let started = Instant::now();
    while !test() {
        assert!(started.elapsed() < Duration::from_secs(40), "{what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

pub fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in: {text}");
}

impl World {
    pub async fn wait_until_available_again(&self) {
        let service = [
            "get",
            "apiservice",
            API_SERVICE,
            "-o=jsonpath={.spec.service.name}",
        ];
        eventually("the APIService leads to us", || {
            self.try_kubectl(&service).1 == NAME
        })
        .await;
        self.wait_until_available().await;
    }
}
