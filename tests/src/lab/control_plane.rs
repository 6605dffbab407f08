//! The management cluster's control plane: etcd, kube-apiserver,
//! kube-controller-manager and kube-scheduler.

use std::time::{Duration, Instant};

use super::directories::{self, Directories, RunDirectory};
use super::error::Result;
use super::network::Addresses;
use super::process::{Process, Program};
use super::programs::{ETCD, KUBERNETES};

/// The port of kube-apiserver on the node's address.
pub const API_PORT: u16 = 6443;
/// The port of etcd on the node's address.
pub const ETCD_PORT: u16 = 2379;

/// Everything, at Metadata level; what the machinery itself asks all day long
/// is left out.
pub(crate) const AUDIT_POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users:
  - system:apiserver
  - system:kube-controller-manager
  - system:kube-scheduler
  - system:kube-proxy
  - system:coredns
- level: None
  userGroups: [system:nodes]
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]
- level: Metadata
"#;

/// etcd, with TLS, data on disk and synced.
pub fn etcd(directories: &Directories, directory: &RunDirectory, addresses: Addresses) -> Program {
    let pki = directory.pki().join("etcd");
    let node = addresses.node();
    Program::new("etcd", ETCD.path(directories, "etcd")).args([
        "--name=lab".to_owned(),
        format!("--data-dir={}", directory.etcd().display()),
        format!("--listen-client-urls=https://127.0.0.1:{ETCD_PORT},https://{node}:{ETCD_PORT}"),
        format!("--advertise-client-urls=https://{node}:{ETCD_PORT}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-cluster=lab=http://127.0.0.1:2380".to_owned(),
        format!("--cert-file={}", pki.join("server.crt").display()),
        format!("--key-file={}", pki.join("server.key").display()),
        format!("--trusted-ca-file={}", pki.join("ca.crt").display()),
        "--client-cert-auth=true".to_owned(),
        "--log-level=warn".to_owned(),
    ])
}

/// kube-apiserver with the aggregation layer and an audit log.
pub fn api_server(
    directories: &Directories,
    directory: &RunDirectory,
    addresses: Addresses,
) -> Result<Program> {
    told_api_server(directories, directory, addresses, Told::default())
}

/// What kube-apiserver tells of requests.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    /// The policy of its audit log.
    pub audit_policy: &'a str,
    /// A TracingConfiguration, if it makes spans.
    pub tracing: Option<&'a str>,
}

impl Default for Told<'_> {
    fn default() -> Self {
        Self {
            audit_policy: AUDIT_POLICY,
            tracing: None,
        }
    }
}

/// The same, which tells this of requests.
pub(crate) fn told_api_server(
    directories: &Directories,
    directory: &RunDirectory,
    addresses: Addresses,
    told: Told<'_>,
) -> Result<Program> {
    let policy = directory.configuration().join("audit-policy.yaml");
    directories::write(&policy, told.audit_policy)?;
    let mut tracing = Vec::new();
    if let Some(configuration) = told.tracing {
        let file = directory.configuration().join("tracing.yaml");
        directories::write(&file, configuration)?;
        tracing.push(flag(("tracing-config-file", file.display().to_string())));
    }
    let pki = |name: &str| directory.pki().join(name).display().to_string();
    let node = addresses.node();
    let flags = [
        ("advertise-address", node.to_string()),
        ("secure-port", API_PORT.to_string()),
        ("service-cluster-ip-range", addresses.services()),
        ("etcd-servers", format!("https://127.0.0.1:{ETCD_PORT}")),
        ("etcd-cafile", pki("etcd/ca.crt")),
        ("etcd-certfile", pki("apiserver-etcd-client.crt")),
        ("etcd-keyfile", pki("apiserver-etcd-client.key")),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
        ("client-ca-file", pki("ca.crt")),
        ("authorization-mode", "Node,RBAC".into()),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("enable-bootstrap-token-auth", "true".into()),
        ("allow-privileged", "true".into()),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc.cluster.local".into(),
        ),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        (
            "kubelet-client-certificate",
            pki("apiserver-kubelet-client.crt"),
        ),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        // Names would ask a DNS server that is not there.
        ("kubelet-preferred-address-types", "InternalIP".into()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("requestheader-allowed-names", "front-proxy-client".into()),
        (
            "requestheader-extra-headers-prefix",
            "X-Remote-Extra-".into(),
        ),
        ("requestheader-group-headers", "X-Remote-Group".into()),
        ("requestheader-username-headers", "X-Remote-User".into()),
        ("proxy-client-cert-file", pki("front-proxy-client.crt")),
        ("proxy-client-key-file", pki("front-proxy-client.key")),
        // A server under test may stand outside, where no Service address
        // leads: the aggregator asks for the endpoints itself.
        ("enable-aggregator-routing", "true".into()),
        ("audit-policy-file", policy.display().to_string()),
        (
            "audit-log-path",
            directory.audit_log().display().to_string(),
        ),
        ("audit-log-maxsize", "500".into()),
    ];
    Ok(kubernetes(directories, "kube-apiserver")
        .args(flags.map(flag))
        .args(tracing))
}

/// kube-controller-manager with all controllers that need no cloud.
pub fn controller_manager(
    directories: &Directories,
    directory: &RunDirectory,
    addresses: Addresses,
) -> Program {
    let pki = |name: &str| directory.pki().join(name).display().to_string();
    let kubeconfig = kubeconfig(directory, "controller-manager.conf");
    let flags = [
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".into()),
        ("controllers", "*,bootstrapsigner,tokencleaner".into()),
        ("use-service-account-credentials", "true".into()),
        ("service-account-private-key-file", pki("sa.key")),
        ("root-ca-file", pki("ca.crt")),
        ("cluster-signing-cert-file", pki("ca.crt")),
        ("cluster-signing-key-file", pki("ca.key")),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("service-cluster-ip-range", addresses.services()),
        // At 20 requests a second its start would take five seconds longer.
        ("kube-api-qps", "500".into()),
        ("kube-api-burst", "1000".into()),
        // There is one of it; a lease would cost its start two seconds.
        ("leader-elect", "false".into()),
    ];
    kubernetes(directories, "kube-controller-manager").args(flags.map(flag))
}

/// kube-scheduler.
pub fn scheduler(directories: &Directories, directory: &RunDirectory) -> Program {
    let kubeconfig = kubeconfig(directory, "scheduler.conf");
    let flags = [
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".into()),
        ("leader-elect", "false".into()),
    ];
    kubernetes(directories, "kube-scheduler").args(flags.map(flag))
}

/// Waits until something listens on an address of the run.
pub async fn wait_for_port(
    process: &Process,
    address: std::net::SocketAddr,
    patience: Duration,
) -> Result<()> {
    let started = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        process.check()?;
        if started.elapsed() > patience {
            return Err(process.failure(format!("does not listen on {address}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until kube-apiserver says that it is ready.
pub async fn wait_for_ready(
    process: &Process,
    client: &kube::Client,
    patience: Duration,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let request = http::Request::get("/readyz").body(Vec::new());
        let last = match request {
            Ok(request) => match client.request_text(request).await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        process.check()?;
        if started.elapsed() > patience {
            return Err(process.failure(format!("is not ready: {last}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn kubernetes(directories: &Directories, name: &str) -> Program {
    Program::new(name, KUBERNETES.path(directories, name))
}

fn flag((name, value): (&str, String)) -> String {
    format!("--{name}={value}")
}

fn kubeconfig(directory: &RunDirectory, name: &str) -> String {
    directory.kubeconfigs().join(name).display().to_string()
}
