//! Steward as a user has it: a cluster with a node, the chart installed by
//! helm with its own etcd, a DataStore that is Ready.
//!
//! # Guarantees
//! * The rights of our programs are those of the chart: what runs here is judged
//!   by the same RBAC as an installation.
//! * The cluster ends with the test, however that ends.
//!
//! # Settings (environment)
//! * `STEWARD_IMAGES`: a directory with `steward-apiserver.tar` and
//!   `steward-controller.tar`, tag `dev`, which are used as they are.
//! * `STEWARD_RUN`: the name of a run of the lab that is up and has Steward in it;
//!   it is used and left standing. For work on tests.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture of tests: what fails ends the test, with its text"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use serde_json::{Value, json};

use crate::lab::programs::{ETCD, HELM, KUBERNETES};
use crate::lab::{Lab, Level};
use crate::served::{API_SERVICE, GROUP_VERSION, Said, run};

/// Namespace of the installation.
pub const SYSTEM: &str = "steward-system";
/// Namespace of the tenants.
pub const TENANTS: &str = "tenants";
/// The Secret with the certificates of etcd's root user.
pub const ETCD_SECRET: &str = "steward-etcd-certs";
/// A name that etcd's certificate has.
const ETCD_HOST: &str = "steward-etcd-0.steward-etcd.steward-system.svc.cluster.local";
/// Tag of the images.
const TAG: &str = "dev";

/// A cluster with Steward in it.
pub struct Installed {
    pub lab: Lab,
    files: tempfile::TempDir,
}

impl Installed {
    /// Starts a cluster and installs Steward, or takes the one of `STEWARD_RUN`.
    pub async fn start() -> Self {
        if let Some(name) = setting("STEWARD_RUN") {
            let lab = Lab::attach(&name).await.unwrap();
            return Self::on(lab);
        }
        let images = images();
        let installed = Self::on(Lab::start(Level::Pods).await.unwrap());
        installed.install(&images).await;
        installed
    }

    fn on(lab: Lab) -> Self {
        let files = tempfile::tempdir().unwrap();
        Self { lab, files }
    }

    async fn install(&self, images: &Path) {
        let lab = &self.lab;
        {
            let mut say = |line: &str| eprintln!("{line}");
            let _lock = lab.directories().lock_cache(&mut say).unwrap();
            HELM.build(lab.directories(), &mut say).unwrap();
        }
        for program in ["apiserver", "controller"] {
            let archive = images.join(format!("steward-{program}.tar"));
            lab.load_image(&archive).unwrap();
        }
        let etcd = ETCD.version().trim_start_matches('v');
        let values = [
            "image.apiserver.repository=localhost/steward-apiserver".to_owned(),
            format!("image.apiserver.tag={TAG}"),
            "image.controller.repository=localhost/steward-controller".to_owned(),
            format!("image.controller.tag={TAG}"),
            "etcd.enabled=true".to_owned(),
            "etcd.image.repository=registry.k8s.io/etcd".to_owned(),
            format!("etcd.image.tag={etcd}-0"),
        ];
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/steward");
        let said = run(Command::new(HELM.path(lab.directories(), "helm"))
            .args(["install", "steward", chart, "--namespace", SYSTEM])
            .args(["--create-namespace", "--wait", "--timeout", "5m"])
            .args(["--set", &values.join(",")])
            .arg("--kubeconfig")
            .arg(lab.kubeconfig()));
        if said.code != 0 {
            let pods = self.try_kubectl(&["get", "pods", "-A"]).text();
            panic!("helm install: {}\n{pods}", said.text());
        }
        let api = format!("apiservice/{API_SERVICE}");
        self.kubectl(&["wait", "--for=condition=Available", &api, "--timeout=120s"]);
        self.until(
            "the set-up posts the DataStore",
            Duration::from_secs(180),
            async || self.get(&data_store_path("default")).await.ok(),
        )
        .await;
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "datastore/default",
            "--timeout=120s",
        ]);
        let job = "job/steward-etcd-setup-1";
        self.kubectl(&[
            "-n",
            SYSTEM,
            "wait",
            "--for=condition=Complete",
            job,
            "--timeout=120s",
        ]);
        self.kubectl(&["create", "namespace", TENANTS]);
    }

    /// A directory for files of the test.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    // --- kubectl ---------------------------------------------------------------

    /// kubectl's output; a failure ends the test.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.lab.kubectl(arguments).unwrap()
    }

    /// kubectl's output, whether or not it succeeds.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Said {
        self.kubectl_with(&self.lab.kubeconfig(), arguments)
    }

    /// kubectl with another kubeconfig.
    pub fn kubectl_with(&self, kubeconfig: &Path, arguments: &[&str]) -> Said {
        run(Command::new(self.lab.program("kubectl"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(arguments))
    }

    /// A tenant's kubeconfig by the subresource, in a file.
    pub fn kubeconfig(&self, tenant: &str) -> PathBuf {
        let arguments = [
            "-n",
            TENANTS,
            "get",
            "tcp",
            tenant,
            "--subresource=kubeconfig",
            "-o",
        ];
        let text = self.kubectl(&[&arguments[..], &["yaml"]].concat());
        let path = self.files().join(format!("{tenant}.kubeconfig"));
        std::fs::write(&path, text).unwrap();
        path
    }

    // --- requests as administrator ----------------------------------------------

    /// GET.
    ///
    /// # Errors
    /// The client's; for an answer that is no 2xx, the Status in it.
    pub async fn get(&self, path: &str) -> kube::Result<Value> {
        self.call("GET", path, "application/json", None).await
    }

    /// POST. Errors as for [`get`](Self::get).
    pub async fn post(&self, path: &str, body: &Value) -> kube::Result<Value> {
        self.call("POST", path, "application/json", Some(body))
            .await
    }

    /// A merge patch. Errors as for [`get`](Self::get).
    pub async fn patch(&self, path: &str, patch: &Value) -> kube::Result<Value> {
        self.call("PATCH", path, "application/merge-patch+json", Some(patch))
            .await
    }

    /// DELETE. Errors as for [`get`](Self::get).
    pub async fn delete(&self, path: &str) -> kube::Result<Value> {
        self.call("DELETE", path, "application/json", None).await
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> kube::Result<Value> {
        let body = body.map(|body| body.to_string().into_bytes());
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(body.unwrap_or_default())
            .unwrap();
        self.lab.client().request(request).await
    }

    /// Asks ten times a second until there is an answer; how long it took comes
    /// with it. Fails with `what` when patience ends.
    pub async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut ask: impl AsyncFnMut() -> Option<T>,
    ) -> (T, Duration) {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return (answer, started.elapsed());
            }
            assert!(started.elapsed() < patience, "within {patience:?}: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    // --- the tenants' etcd ------------------------------------------------------

    /// The tenants' etcd as its root user.
    pub async fn etcd(&self) -> Client {
        let secret = self
            .get(&object_path(SYSTEM, "secrets", ETCD_SECRET))
            .await
            .unwrap();
        self.etcd_as(&secret, ["ca.crt", "tls.crt", "tls.key"])
            .await
    }

    /// The tenants' etcd with authority, certificate and key out of a Secret.
    pub async fn etcd_as(&self, secret: &Value, keys: [&str; 3]) -> Client {
        let [ca, cert, key] = keys.map(|key| decoded(&secret["data"][key]));
        let service = object_path(SYSTEM, "services", "steward-etcd-client");
        let service = self.get(&service).await.unwrap();
        let address = service["spec"]["clusterIP"].as_str().unwrap();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(cert, key))
            .domain_name(ETCD_HOST);
        let options = ConnectOptions::new()
            .with_tls(tls)
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(5));
        let endpoint = format!("https://{address}:2379");
        Client::connect([endpoint], Some(options)).await.unwrap()
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The archives of both images, built if they are not given.
fn images() -> PathBuf {
    if let Some(given) = setting("STEWARD_IMAGES") {
        return given.into();
    }
    // This program is `TARGET/PROFILE/deps/NAME`.
    let me = std::env::current_exe().unwrap();
    let target = me.ancestors().nth(3).unwrap();
    let images = target.join("images");
    eprintln!("building the images (up to 10 min when nothing is built yet)");
    let status = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/images.sh"))
        .arg(TAG)
        .arg(&images)
        .env("CARGO_TARGET_DIR", target)
        .env("LAB", me.ancestors().nth(2).unwrap().join("lab"))
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .unwrap();
    assert!(status.success(), "tests/demo/images.sh: {status}");
    images
}

/// A tenant of the version whose images the node has, reached by a load
/// balancer.
pub fn tenant(name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "kind": "TenantControlPlane",
        "metadata": {"name": name, "namespace": TENANTS},
        "spec": {
            "dataStore": "default",
            "kubernetes": {"version": KUBERNETES.version(), "kubelet": {}},
            "networkProfile": {"port": 6443},
            "controlPlane": {
                "deployment": {"replicas": replicas},
                "service": {"serviceType": "LoadBalancer"},
            },
        },
    })
}

/// All tenants of [`TENANTS`].
pub fn tenants_path() -> String {
    format!("{GROUP_VERSION}/namespaces/{TENANTS}/tenantcontrolplanes")
}

/// One tenant.
pub fn tenant_path(name: &str) -> String {
    format!("{}/{name}", tenants_path())
}

/// One DataStore.
pub fn data_store_path(name: &str) -> String {
    format!("{GROUP_VERSION}/datastores/{name}")
}

/// An object of the management cluster, by namespace, resource and name; with
/// an empty name the collection.
pub fn object_path(namespace: &str, resource: &str, name: &str) -> String {
    let root = match resource {
        "deployments" | "statefulsets" | "replicasets" => "/apis/apps/v1",
        "roles" | "rolebindings" => "/apis/rbac.authorization.k8s.io/v1",
        _ => "/api/v1",
    };
    let path = format!("{root}/namespaces/{namespace}/{resource}/{name}");
    path.trim_end_matches('/').to_owned()
}

/// A value of a Secret's data.
pub fn decoded(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("the Secret has this key");
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

/// The condition of a type: status, reason, message.
pub fn condition(object: &Value, kind: &str) -> Option<[String; 3]> {
    let all = object["status"]["conditions"].as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    Some(["status", "reason", "message"].map(|key| found[key].as_str().unwrap_or_default().into()))
}
