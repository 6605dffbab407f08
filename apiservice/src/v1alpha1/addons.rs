//! `spec.addons`: what is installed into the tenant cluster.

use k8s_openapi::api::core::v1::{ResourceRequirements, SecurityContext, Toleration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parts that are installed into the tenant cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Addons {
    /// Cluster DNS.
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<AddonImage>,
    /// Service addresses on the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<AddonImage>,
    /// A tunnel from the API server to nodes that it cannot reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub konnectivity: Option<Konnectivity>,
    /// A proxy in the tenant for the kubernetes Service, where the API server
    /// is reached by host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_proxy: Option<TcpProxy>,
    /// Help for nodes whose operating system asks the control plane for
    /// certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_bootstrap: Option<WorkerBootstrap>,
}

/// The image of an addon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AddonImage {
    /// Repository of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_repository: Option<String>,
    /// Tag of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
}

/// The konnectivity tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Konnectivity {
    /// The end beside the API server.
    pub server: KonnectivityServer,
    /// The end in the tenant cluster.
    pub agent: KonnectivityAgent,
}

/// The konnectivity server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct KonnectivityServer {
    /// Port of the server, also of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Version of the image; without it, the one that fits Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The image.
    pub image: String,
    /// Resources of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Further arguments, each as --flag=value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub extra_args: Vec<String>,
    /// Security settings of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}

impl Default for KonnectivityServer {
    fn default() -> Self {
        Self {
            port: 8132,
            version: None,
            image: "registry.k8s.io/kas-network-proxy/proxy-server".to_owned(),
            resources: None,
            extra_args: Vec::new(),
            security_context: None,
        }
    }
}

/// The flag of an API server with the file that sends its connections into the tunnel.
/// It is Steward's where there is a tunnel, and the user's elsewhere.
pub const EGRESS_SELECTOR_FLAG: &str = "egress-selector-config-file";

/// The flags of a konnectivity server that Steward sets and nobody else can.
pub const KONNECTIVITY_SERVER_FLAGS: &[&str] = &[
    "admin-port",
    "agent-namespace",
    "agent-port",
    "agent-service-account",
    "authentication-audience",
    "cluster-cert",
    "cluster-key",
    "enable-lease-controller",
    "health-port",
    "kubeconfig",
    "lease-namespace",
    "mode",
    "server-id",
    "server-port",
    "uds-name",
];

/// Ports on which the containers of a tenant's pods listen for the kubelet and for
/// themselves: controller manager, scheduler, and the konnectivity server's metrics and
/// health.
pub const PORTS_OF_PODS: [i32; 5] = [10257, 10259, 8133, 8134, 2381];

/// The first of the ports on which what leads to the DataStores of overrides listens for the
/// API server beside it: one for each.
pub const PORT_OF_OVERRIDES: i32 = 2390;

/// The first of the ports at which the kubelet finds what leads there.
pub const METRICS_OF_OVERRIDES: i32 = 2400;

/// DataStores that the overrides of one tenant may name: each is a container in its pods.
pub const MOST_OVERRIDING: usize = 8;

/// Whether the containers of a tenant's pods listen on a port.
pub fn is_port_of_pods(port: i32) -> bool {
    let of_overrides = [PORT_OF_OVERRIDES, METRICS_OF_OVERRIDES];
    let of_overrides = of_overrides.map(|first| (first..).take(MOST_OVERRIDING));
    PORTS_OF_PODS.contains(&port) || of_overrides.into_iter().flatten().any(|it| it == port)
}

/// The konnectivity agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KonnectivityAgent {
    /// Version of the image; without it, the one that fits Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The image.
    pub image: String,
    /// Taints that the agents tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Further arguments, each as --flag=value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub extra_args: Vec<String>,
    /// Run the agents in the nodes' network.
    pub host_network: bool,
    /// As a DaemonSet or as a Deployment.
    pub mode: KonnectivityAgentMode,
    /// How many agents. Only with mode Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
}

impl Default for KonnectivityAgent {
    fn default() -> Self {
        Self {
            version: None,
            image: "registry.k8s.io/kas-network-proxy/proxy-agent".to_owned(),
            tolerations: vec![Toleration {
                key: Some("CriticalAddonsOnly".to_owned()),
                operator: Some("Exists".to_owned()),
                ..Toleration::default()
            }],
            extra_args: Vec::new(),
            host_network: false,
            mode: KonnectivityAgentMode::DaemonSet,
            replicas: None,
        }
    }
}

/// How konnectivity agents run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum KonnectivityAgentMode {
    /// One on each node.
    DaemonSet,
    /// As many as replicas says.
    Deployment,
    /// A value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

/// The proxy in the tenant for the kubernetes Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpProxy {
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Resources of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Entries for the hosts file of the proxy, where DNS does not help.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub host_aliases: Vec<HostAlias>,
    /// Address of the API server for the proxy, instead of the published one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_endpoint: Option<String>,
}

/// Names for one address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["ip", "hostnames"]))]
pub struct HostAlias {
    /// The address.
    pub ip: String,
    /// Its names.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub hostnames: Vec<String>,
}

/// Help for nodes whose operating system asks the control plane for certificates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["provider"]))]
pub struct WorkerBootstrap {
    /// The operating system: talos.
    pub provider: WorkerBootstrapProvider,
    /// Settings for Talos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub talos: Option<Talos>,
    /// Approval of the nodes' certificate requests.
    pub csr_approval: CsrApproval,
    /// Networks of the nodes: only addresses from here are approved in their
    /// certificate requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_subnets: Vec<String>,
}

/// An operating system with a protocol of its own for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerBootstrapProvider {
    /// Talos Linux.
    #[default]
    Talos,
    /// A value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

/// Settings for Talos.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Talos {
    /// Image of the server.
    pub image: String,
    /// Tag of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// Port of the server.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Resources of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Further names and addresses in the server's certificate.
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub cert_sans: Vec<String>,
}

impl Default for Talos {
    fn default() -> Self {
        Self {
            image: "ghcr.io/butlerdotdev/steward-trustd".to_owned(),
            image_tag: None,
            port: 50001,
            resources: None,
            cert_sans: Vec::new(),
        }
    }
}

/// Approval of the nodes' certificate requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["autoApprove"]))]
pub struct CsrApproval {
    /// Approve serving certificates of nodes.
    pub auto_approve: bool,
}

impl Default for CsrApproval {
    fn default() -> Self {
        Self { auto_approve: true }
    }
}
