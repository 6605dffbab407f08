//! Steward without pods: a cluster whose API server serves ours, an etcd for
//! tenants beside it, and the controller in this process. Tenants that sleep have
//! all their objects there; a pod never comes, for nobody runs it.
//!
//! # Guarantees
//! * The controller has the rights that the chart gives it, no others.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture of tests: what fails ends the test, with its text"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use controller::args::{Args, Command, RunArgs};
use controller::datastores::setup;
use controller::process::clock;
use controller::run;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lab::process::Program;
use crate::lab::programs::ETCD;
use crate::served::{GROUP_VERSION, NAMESPACE, Served};

const ACCOUNT: &str = "steward-controller";
const PROGRAM: &str = "tenants-etcd";
const CLIENTS: u16 = 12379;
const PEERS: u16 = 12380;
/// What the controller of a busy machine may need for its first look.
const SOON: Duration = Duration::from_secs(60);

/// The controller at work; it ends with this value's `stop`.
pub struct Managed {
    pub served: Served,
    stop: CancellationToken,
    controller: JoinHandle<Result<(), run::Error>>,
}

impl Managed {
    /// Adds what is missing to an API server, up to a DataStore `default` that is
    /// Ready.
    pub async fn on(served: Served) -> Self {
        etcd(&served).await;
        let args = controller_args(&served);
        let client = run::client(&args.common).await.unwrap();
        let stop = CancellationToken::new();
        let controller = tokio::spawn(run::run(args, client, stop.clone()));
        let managed = Self {
            served,
            stop,
            controller,
        };
        managed.wait_until_ready().await;
        managed
    }

    async fn wait_until_ready(&self) {
        let path = format!("{GROUP_VERSION}/datastores/default");
        let began = std::time::Instant::now();
        loop {
            let store = self.served.get(&path).await.unwrap_or_default();
            if store["status"]["ready"] == true {
                return;
            }
            assert!(
                began.elapsed() < SOON,
                "the DataStore is not ready: {store}"
            );
            assert!(!self.controller.is_finished(), "the controller has ended");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends the controller, then the API server.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.controller.await.unwrap().unwrap();
        self.served.stop().await;
    }
}

/// A kubeconfig of the controller's ServiceAccount, and its other flags.
fn controller_args(served: &Served) -> RunArgs {
    let account = ["-n", NAMESPACE, "create", "serviceaccount", ACCOUNT];
    served.kubectl(&account);
    let token = ["-n", NAMESPACE, "create", "token", ACCOUNT, "--duration=2h"];
    let token = served.kubectl(&token);
    let view = ["config", "view", "--raw", "--minify", "-o", "json"];
    let mut config: Value = serde_json::from_str(&served.kubectl(&view)).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let path = served.files().join("controller.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    let args = Args::parse_from([
        "controller",
        "--identity=lab",
        "--listen=127.0.0.1:0",
        &format!("--namespace={NAMESPACE}"),
        &format!("--kubeconfig={}", path.display()),
    ]);
    args.run
}

/// Starts an etcd for tenants and makes it ready for them, as the chart's Job does.
async fn etcd(served: &Served) {
    let client = served.lab.client();
    let endpoint = format!("{}:{CLIENTS}", served.lab.addresses().node());
    let args = Args::parse_from([
        "controller",
        "setup-etcd",
        &format!("--namespace={NAMESPACE}"),
        &format!("--endpoints={endpoint}"),
        "--timeout=60",
    ]);
    let Some(Command::SetupEtcd(args)) = args.command else {
        panic!("setup-etcd was asked for");
    };
    let server_secret = args.server_secret.clone();
    let start = async {
        let secrets: kube::Api<Secret> = kube::Api::namespaced(client.clone(), NAMESPACE);
        let secret = loop {
            match secrets.get_opt(&server_secret).await.unwrap() {
                Some(secret) => break secret,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let files = served.files().join("etcd");
        std::fs::create_dir(&files).unwrap();
        for (key, value) in secret.data.unwrap_or_default() {
            std::fs::write(files.join(key), value.0).unwrap();
        }
        served
            .lab
            .spawn(program(served, &files, &endpoint))
            .unwrap();
    };
    let ready = setup::etcd(*args, client.clone(), clock::system());
    let ((), ready) = tokio::join!(start, ready);
    ready.unwrap();
}

fn program(served: &Served, files: &Path, endpoint: &str) -> Program {
    let file = |name: &str| -> PathBuf { files.join(name) };
    let peers = format!("http://127.0.0.1:{PEERS}");
    Program::new(PROGRAM, ETCD.path(served.lab.directories(), "etcd")).args([
        "--name=tenants".to_owned(),
        format!("--data-dir={}", file("data").display()),
        format!("--listen-client-urls=https://{endpoint}"),
        format!("--advertise-client-urls=https://{endpoint}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=tenants={peers}"),
        "--client-cert-auth=true".to_owned(),
        format!("--trusted-ca-file={}", file("ca.crt").display()),
        format!("--cert-file={}", file("tls.crt").display()),
        format!("--key-file={}", file("tls.key").display()),
        // Nothing of it outlives the test.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ])
}
