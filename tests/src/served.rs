//! A cluster with our API server behind its aggregation layer: in this process,
//! or as one of its own that can be killed and started again on its data.
//!
//! # Guarantees
//! * The server has the rights that the chart gives it, no others: they are
//!   read from the chart's golden file.
//! * It ends with the cluster, and the cluster with the test, however that ends.
//!
//! # Assumptions
//! The program `served` lies beside the test, where cargo puts it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture of tests: what fails ends the test, with its text"
)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use apiserver::args::Args;
use apiserver::server::{self, Running};
use apiservice::clock::Clock;
use clap::Parser;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::lab::process::{Process, Program};
use crate::lab::{Lab, Level};

/// Namespace of the server.
pub const NAMESPACE: &str = "steward-system";
/// Its Service and ServiceAccount.
pub const NAME: &str = "steward-apiserver";
/// Its registration.
pub const API_SERVICE: &str = "v1alpha1.steward.butlerlabs.dev";
/// The root of its URLs.
pub const GROUP_VERSION: &str = "/apis/steward.butlerlabs.dev/v1alpha1";
/// Both kinds as users write them: a DataStore, and a TenantControlPlane in the
/// namespace `tenants`.
pub const DATA_STORE: &str = include_str!("../examples/datastore-etcd.yaml");
/// See [`DATA_STORE`].
pub const TENANT: &str = include_str!("../examples/tenantcontrolplane.yaml");

const RIGHTS: &str = include_str!("../demo/golden/rights-default.yaml");
const IDENTITY: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: steward-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: steward-apiserver, namespace: steward-system}
---
";
/// Nothing else listens in the network of a run that a test started.
const PORT: u16 = 8443;
const PROGRAM: &str = "served";

/// Where the server runs.
enum Server {
    Nowhere,
    Here(Box<Running>),
    Process(Process),
}

/// A cluster and our server.
pub struct Served {
    pub lab: Lab,
    server: Server,
    /// Of the server in this process, once it had one.
    port: u16,
    /// Those that the test adds.
    flags: Vec<String>,
    /// After the lab: its programs are gone before their files are.
    files: tempfile::TempDir,
}

/// What a command has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Exit code; -1 for a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Both outputs.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Served {
    /// A cluster, and the server's rights in it.
    pub async fn cluster() -> Self {
        Self::on(Lab::start(Level::Api).await.unwrap()).await
    }

    /// With a cluster that is up already.
    pub async fn on(lab: Lab) -> Self {
        lab.apply(&format!("{IDENTITY}{RIGHTS}")).unwrap();
        let files = tempfile::tempdir().unwrap();
        let token = ["-n", NAMESPACE, "create", "token", NAME, "--duration=2h"];
        let token = lab.kubectl(&token).unwrap();
        let view = ["config", "view", "--raw", "--minify", "-o", "json"];
        let mut config: Value = serde_json::from_str(&lab.kubectl(&view).unwrap()).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        std::fs::write(files.path().join("kubeconfig"), config.to_string()).unwrap();
        Self {
            lab,
            server: Server::Nowhere,
            port: 0,
            flags: Vec::new(),
            files,
        }
    }

    /// A cluster whose kube-apiserver serves our API, from this process.
    pub async fn here() -> Self {
        let mut served = Self::cluster().await;
        served.start_here().await;
        served.wait_until_served().await;
        served
    }

    /// The same, from a process that can be killed.
    pub async fn process() -> Self {
        let mut served = Self::cluster().await;
        served.start_process().await;
        served.wait_until_served().await;
        served
    }

    /// Starts the server in this process.
    pub async fn start_here(&mut self) {
        assert!(matches!(self.server, Server::Nowhere), "it runs already");
        let args = Args::parse_from(
            [PROGRAM.to_owned()]
                .into_iter()
                .chain(self.flags(self.port)),
        );
        let client = args.connect().await.unwrap();
        let clock = Clock::new(jiff::Timestamp::now);
        let running = server::start(&args, client, clock).await.unwrap();
        self.port = running.address.port();
        self.lab
            .register_local_service(NAMESPACE, NAME, self.port)
            .await
            .unwrap();
        self.server = Server::Here(Box::new(running));
    }

    /// Starts the server as a process in the cluster's network.
    pub async fn start_process(&mut self) {
        assert!(!self.runs(), "it runs already");
        let program = Program::new(PROGRAM, program()).args(self.flags(PORT));
        self.server = Server::Process(self.lab.spawn(program).unwrap());
        self.lab
            .register_local_service(NAMESPACE, NAME, PORT)
            .await
            .unwrap();
        self.wait_until_ready().await;
        let slices: kube::Api<EndpointSlice> = kube::Api::namespaced(self.lab.client(), NAMESPACE);
        // A pod that is ready is a change of the endpoints: the aggregator looks
        // at once instead of after its back-off.
        let started = uuid::Uuid::new_v4().to_string();
        let patch = json!({
            "metadata": {"annotations": {"started": started}},
            "endpoints": [{
                "addresses": [self.lab.addresses().node()], "conditions": {"ready": true},
            }],
        });
        slices
            .patch(
                &format!("{NAME}-lab"),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .unwrap();
    }

    /// What a readiness probe does.
    async fn wait_until_ready(&self) {
        let server = format!("https://{}:{PORT}", self.lab.addresses().node());
        let probe = || {
            let kubectl = self.lab.program("kubectl");
            run(Command::new(kubectl).args([
                "--kubeconfig=/dev/null",
                // It would ask for them; they are nobody's.
                "--username=probe",
                "--password=probe",
                "--insecure-skip-tls-verify",
                "--server",
                &server,
                "get",
                "--raw=/readyz",
            ]))
        };
        eventually("the server is ready", Duration::from_secs(60), || {
            assert!(
                self.runs(),
                "the server has ended: {}",
                self.lab.directory().logs().display()
            );
            probe().code == 0
        })
        .await;
    }

    /// More flags of a server that is started later.
    pub fn add_flags(&mut self, flags: impl IntoIterator<Item = String>) {
        self.flags.extend(flags);
    }

    fn flags(&self, port: u16) -> Vec<String> {
        let flags = [
            format!("--namespace={NAMESPACE}"),
            format!("--secure-port={port}"),
            format!(
                "--kubeconfig={}",
                self.files.path().join("kubeconfig").display()
            ),
            format!("--data-dir={}", self.data().display()),
        ];
        flags.into_iter().chain(self.flags.clone()).collect()
    }

    /// The server's data directory.
    pub fn data(&self) -> PathBuf {
        self.files.path().join("data")
    }

    /// A directory for files of the test.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The server in this process.
    pub fn running(&self) -> &Running {
        match &self.server {
            Server::Here(running) => running,
            _ => panic!("the server is not in this process"),
        }
    }

    /// Whether the process lives, or the server in this process does.
    pub fn runs(&self) -> bool {
        match &self.server {
            Server::Nowhere => false,
            Server::Here(_) => true,
            Server::Process(process) => process.id.alive(),
        }
    }

    /// Kills the process (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        match std::mem::replace(&mut self.server, Server::Nowhere) {
            Server::Process(process) => process.id.kill(),
            _ => panic!("no process to kill"),
        }
    }

    /// Ends the server as SIGTERM does, and waits until it has ended.
    pub async fn stop(&mut self) {
        match std::mem::replace(&mut self.server, Server::Nowhere) {
            Server::Nowhere => {}
            Server::Here(running) => running.stop().await,
            Server::Process(process) => {
                process.id.signal("TERM");
                eventually("the server ends", Duration::from_secs(90), || {
                    !process.id.alive()
                })
                .await;
            }
        }
    }

    /// Waits until a request through kube-apiserver is answered from the store,
    /// by the server that runs now.
    pub async fn wait_until_served(&self) {
        let url = format!("{GROUP_VERSION}/tenantcontrolplanes?limit=1");
        let started = Instant::now();
        loop {
            match self.get(&url).await {
                Ok(_) => return,
                Err(error) if started.elapsed() > Duration::from_secs(60) => {
                    let condition = self.condition();
                    panic!("not served: {error}; Available is {condition}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// GET of a path as administrator.
    ///
    /// # Errors
    /// The client's; for an answer that is no 2xx, the Status in it.
    pub async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        self.lab.client().request(request).await
    }

    /// `True/Passed`, or what else the APIService's Available says.
    pub fn condition(&self) -> String {
        let path = "-o=jsonpath={.status.conditions[0].status}/{.status.conditions[0].reason}";
        self.try_kubectl(&["get", "apiservice", API_SERVICE, path])
            .text()
    }

    /// kubectl's output; a failure ends the test.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.lab.kubectl(arguments).unwrap()
    }

    /// kubectl's output, whether or not it succeeds.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Said {
        run(self.kubectl_command().args(arguments))
    }

    /// `kubectl tcp` as administrator, unless another kubeconfig is among the arguments: the
    /// plug-in of this repository, found as users have it.
    pub fn plugin(&self, arguments: &[&str]) -> Said {
        let kubectl = self.lab.program("kubectl");
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts");
        let path = std::env::var("PATH").unwrap_or_default();
        let directory = kubectl.parent().unwrap().display();
        let path = format!("{directory}:{}:{path}", charts.display());
        let mut command = Command::new(&kubectl);
        command.env("PATH", path).arg("tcp").args(arguments);
        command.env("KUBECACHEDIR", self.lab.kubectl_cache());
        if !arguments.iter().any(|it| it.starts_with("--kubeconfig=")) {
            command.arg(format!("--kubeconfig={}", self.lab.kubeconfig().display()));
        }
        run(&mut command)
    }

    /// kubectl as administrator, without arguments.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.lab.program("kubectl"));
        command.arg("--kubeconfig").arg(self.lab.kubeconfig());
        command.env("KUBECACHEDIR", self.lab.kubectl_cache());
        command
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Server::Process(process) = &self.server {
            process.id.kill();
        }
    }
}

/// Runs a command to its end, without input.
pub fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Asks ten times a second until `test` holds; fails with `what` otherwise.
pub async fn eventually(what: &str, patience: Duration, mut test: impl FnMut() -> bool) {
    let started = Instant::now();
    while !test() {
        assert!(started.elapsed() < patience, "within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Fails with both texts if `part` is not in `text`.
#[track_caller]
pub fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in: {text}");
}

/// The program that cargo built beside this test.
fn program() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(PROGRAM))
        .find(|path| path.is_file() && path.file_name() == Some(OsStr::new(PROGRAM)))
        .expect("cargo builds the program `served` beside this test")
}
