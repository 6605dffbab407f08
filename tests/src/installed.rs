//! Steward as a user has it: a cluster with a node, the chart installed by
//! helm with its own etcd, a DataStore that is Ready.
//!
//! # Guarantees
//! * The rights of our programs are those of the chart: what runs here is judged
//!   by the same RBAC as an installation.
//! * A cluster of the lab ends with the test, however that ends.
//! * In somebody's cluster nothing is touched that the tests did not make, and
//!   Steward is removed at the end (after `kill -9`: by the next run).
//!
//! # Settings (environment)
//! * `STEWARD_IMAGES`: a directory with `steward-apiserver.tar` and
//!   `steward-controller.tar`, tag `dev`, which are used as they are.
//! * `STEWARD_RUN`: the name of a run of the lab that is up and has Steward in it;
//!   it is used and left standing. For work on tests.
//! * `TEST_KUBECONFIG`: a kubeconfig with all rights in a cluster that somebody
//!   has (kind, k3s, a cloud). No lab is started; what needs its hands on nodes is
//!   ignored, and says so. With it, as in the demo:
//!   `IMAGE_APISERVER`, `IMAGE_CONTROLLER`: `repository:tag` of our images, which
//!   the nodes have or can pull; `IMAGE_ETCD`: etcd for tenants (that of etcd's own
//!   registry); `SERVICE_TYPE`: how tenants are reached from this machine
//!   (LoadBalancer, NodePort). kubectl and helm are those of the lab's cache if it
//!   has them, else of `PATH`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture of tests: what fails ends the test, with its text"
)]

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::chart::{self, Access, Images};
pub use crate::chart::{SYSTEM, TENANTS};
use crate::forward::Forward;
use crate::lab::programs::{ETCD, GoProgram, HELM, KUBERNETES};
use crate::lab::{self, Directories, Lab, Level};
use crate::served::{GROUP_VERSION, Said, run};

/// The Secret with the certificates of etcd's root user.
pub const ETCD_SECRET: &str = "steward-etcd-certs";
/// A name that etcd's certificate has.
const ETCD_HOST: &str = "steward-etcd-0.steward-etcd.steward-system.svc.cluster.local";

/// A cluster with Steward in it.
pub struct Installed {
    access: Access,
    client: kube::Client,
    /// None in somebody's cluster.
    lab: Option<Lab>,
    /// Nothing is left to remove.
    removed: bool,
    /// To the pod of etcd with this uid.
    to_etcd: tokio::sync::Mutex<Option<(Value, Forward)>>,
    files: tempfile::TempDir,
}

impl Installed {
    /// Starts a cluster and installs Steward, or takes the one of `STEWARD_RUN`,
    /// or installs it in the cluster of `TEST_KUBECONFIG`.
    pub async fn start() -> Self {
        if let Some(kubeconfig) = setting("TEST_KUBECONFIG") {
            return Self::in_cluster(Path::new(&kubeconfig)).await;
        }
        if let Some(name) = setting("STEWARD_RUN") {
            return Self::on(done(Lab::attach(&name).await));
        }
        let images = images();
        let installed = Self::on(done(Lab::start(Level::Pods).await));
        let lab = installed.lab.as_ref().unwrap();
        done(chart::install_in_lab(lab, &images, &mut say).await);
        installed
    }

    fn on(lab: Lab) -> Self {
        Self {
            access: Access::of(&lab),
            client: lab.client(),
            lab: Some(lab),
            removed: true,
            to_etcd: Default::default(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    async fn in_cluster(kubeconfig: &Path) -> Self {
        let image = |name: &str| {
            let text = || format!("TEST_KUBECONFIG wants {name}=repository:tag");
            setting(name).ok_or_else(text)
        };
        let etcd = format!("quay.io/coreos/etcd:{}", ETCD.version());
        let images = Images {
            api_server: done(image("IMAGE_APISERVER")),
            controller: done(image("IMAGE_CONTROLLER")),
            etcd: setting("IMAGE_ETCD").unwrap_or(etcd),
        };
        let access = Access {
            kubectl: program(&KUBERNETES, "kubectl"),
            helm: program(&HELM, "helm"),
            kubeconfig: std::path::absolute(kubeconfig).unwrap(),
        };
        let client = done(lab::client(&access.kubeconfig).await);
        done(chart::claim(&access));
        let installed = Self {
            access,
            client,
            lab: None,
            removed: false,
            to_etcd: Default::default(),
            files: tempfile::tempdir().unwrap(),
        };
        done(chart::install(&installed.access, &images, &mut say).await);
        installed
    }

    /// Removes Steward from somebody's cluster. (One of the lab goes as a whole,
    /// with this value.)
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&mut self) -> chart::Result<()> {
        if self.removed {
            return Ok(());
        }
        self.removed = true;
        say("removing Steward from the cluster");
        chart::remove(&self.access)
    }

    /// Upgrades Steward with other values, written as `key=JSON`; a failure ends the
    /// test.
    pub fn upgrade(&self, values: &str) {
        done(chart::upgrade(&self.access, values));
    }

    /// The lab, if the cluster is one of it.
    pub fn lab(&self) -> Option<&Lab> {
        self.lab.as_ref()
    }

    /// A client with all rights.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// A directory for files of the test.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    // --- kubectl ---------------------------------------------------------------

    /// kubectl's output; a failure ends the test.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        done(self.access.kubectl(arguments))
    }

    /// `kubectl apply` of a manifest; a failure ends the test.
    pub fn apply(&self, manifest: &str) {
        done(self.access.apply(manifest));
    }

    /// kubectl's output, whether or not it succeeds.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Said {
        run(self.access.command().args(arguments))
    }

    /// kubectl with another kubeconfig.
    pub fn kubectl_with(&self, kubeconfig: &Path, arguments: &[&str]) -> Said {
        run(Command::new(&self.access.kubectl)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(arguments))
    }

    /// kubectl with another kubeconfig, to be run.
    pub fn command_with(&self, kubeconfig: &Path) -> Command {
        let mut command = Command::new(&self.access.kubectl);
        command.arg("--kubeconfig").arg(kubeconfig);
        command
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
        self.client.request(request).await
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
        let address = self.way_to_etcd().await;
        self.etcd_at(&address, ETCD_HOST, secret, keys).await
    }

    /// An etcd at an address, which proves to be `host`.
    pub async fn etcd_at(
        &self,
        address: &str,
        host: &str,
        secret: &Value,
        keys: [&str; 3],
    ) -> Client {
        let [ca, cert, key] = keys.map(|key| decoded(&secret["data"][key]));
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(cert, key))
            .domain_name(host);
        let options = ConnectOptions::new()
            .with_tls(tls)
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(5));
        let endpoint = format!("https://{address}");
        Client::connect([endpoint], Some(options)).await.unwrap()
    }

    /// The certificate that etcd serves, verified; `None` while it cannot be had.
    pub async fn served_by_etcd(&self) -> Option<CertificateDer<'static>> {
        let secret = self.get(&object_path(SYSTEM, "secrets", ETCD_SECRET)).await;
        let authority = decoded(&secret.ok()?["data"]["ca.crt"]);
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&authority).ok()?)
            .ok()?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.way_to_etcd().await).await.ok()?;
        let name = ServerName::try_from(ETCD_HOST).ok()?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
        // A client without a certificate is refused after this.
        let stream = stream.await.ok()?;
        let chain = stream.get_ref().1.peer_certificates()?;
        Some(chain.first()?.clone().into_owned())
    }

    async fn way_to_etcd(&self) -> String {
        let mut kept = self.to_etcd.lock().await;
        let pod = object_path(SYSTEM, "pods", "steward-etcd-0");
        let uid = self.get(&pod).await.unwrap_or_default()["metadata"]["uid"].take();
        if let Some((of, forward)) = &mut *kept
            && *of == uid
            && forward.runs()
        {
            return forward.address().to_owned();
        }
        let (address, forward) = self.way_to("steward-etcd-client", 2379).await;
        *kept = forward.map(|forward| (uid, forward));
        address
    }

    /// Host and port at which this machine reaches a Service of the
    /// installation, as long as what comes with it is kept.
    pub async fn way_to(&self, service: &str, port: u16) -> (String, Option<Forward>) {
        if self.lab.is_none() {
            let forward = Forward::start(&self.access, SYSTEM, service, port).await;
            let forward = done(forward);
            return (forward.address().to_owned(), Some(forward));
        }
        let path = object_path(SYSTEM, "services", service);
        let service = self.get(&path).await.unwrap();
        let address = service["spec"]["clusterIP"].as_str().unwrap();
        (format!("{address}:{port}"), None)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("Steward is not removed: {error}");
        }
    }
}

/// The value; an error ends the test with its text.
#[track_caller]
fn done<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn say(line: &str) {
    eprintln!("{line}");
}

/// A program of the lab's cache if it is there, else of `PATH`.
fn program(built: &GoProgram, name: &str) -> PathBuf {
    match Directories::from_environment() {
        Ok(directories) if built.is_built(&directories) => built.path(&directories, name),
        _ => name.into(),
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
    let lab = me.ancestors().nth(2).unwrap().join("lab");
    // As the tests are compiled: what is optimized takes ten minutes more from cold.
    let profile = setting("PROFILE").unwrap_or_else(|| "dev".to_owned());
    say("building the images (a minute when nothing is built yet)");
    done(chart::build_images(target, &lab, &profile))
}

/// A number for a text, always the same (FNV-1a).
fn number(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// A tenant of the version whose images the lab's node has, reached by a load
/// balancer unless `SERVICE_TYPE` says otherwise.
pub fn tenant(name: &str, replicas: i32) -> Value {
    let service_type = setting("SERVICE_TYPE").unwrap_or_else(|| "LoadBalancer".into());
    // A node port belongs to one Service of the cluster.
    let port = match &*service_type {
        "NodePort" => 30_000 + number(name) % 2_768,
        _ => 6443,
    };
    json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "kind": "TenantControlPlane",
        "metadata": {"name": name, "namespace": TENANTS},
        "spec": {
            "dataStore": "default",
            "kubernetes": {"version": KUBERNETES.version(), "kubelet": {}},
            "networkProfile": {"port": port},
            "controlPlane": {
                "deployment": {"replicas": replicas},
                "service": {"serviceType": service_type},
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
        "ingresses" => "/apis/networking.k8s.io/v1",
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

/// The answer to a request to etcd. Users and roles of other tenants change meanwhile:
/// etcd then refuses a request that it has not looked at, and clients repeat it.
pub async fn of_etcd<T>(
    mut ask: impl AsyncFnMut() -> Result<T, etcd_client::Error>,
) -> Result<T, etcd_client::Error> {
    for _ in 0..10 {
        match ask().await {
            Err(error) if error.to_string().contains("revision of auth store is old") => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answer => return answer,
        }
    }
    ask().await
}
