//! `status.addons`: the addons in the tenant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GatewayResourceStatus, ObjectStatus, SecretStatus, ServiceResourceStatus};

/// The addons in the tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AddonsStatus {
    /// Cluster DNS.
    #[serde(rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<AddonStatus>,
    /// Service addresses on the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<AddonStatus>,
    /// The konnectivity tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub konnectivity: Option<KonnectivityStatus>,
    /// The proxy for the kubernetes Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_proxy: Option<TcpProxyStatus>,
    /// Help for nodes whose operating system asks for certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_bootstrap: Option<WorkerBootstrapStatus>,
}

/// An addon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AddonStatus {
    /// Whether it is installed.
    pub enabled: bool,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// The konnectivity tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KonnectivityStatus {
    /// Whether it is installed.
    pub enabled: bool,
    /// The ConfigMap that sends the API server's connections into the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapStatus>,
    /// The Secret with the server's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretStatus>,
    /// The Secret with the server's kubeconfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<SecretStatus>,
    /// The agents' ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sa: Option<ObjectStatus>,
    /// The server's ClusterRoleBinding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusterrolebinding: Option<ObjectStatus>,
    /// The agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<KonnectivityAgentStatus>,
    /// The Service port of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceResourceStatus>,
    /// The route of the Gateway API to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayResourceStatus>,
}

/// A ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapStatus {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Checksum of its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// The konnectivity agents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KonnectivityAgentStatus {
    /// Name of the DaemonSet or Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
    /// DaemonSet or Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// The proxy for the kubernetes Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpProxyStatus {
    /// Whether it is installed.
    pub enabled: bool,
    /// The Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<ObjectStatus>,
    /// The Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ObjectStatus>,
    /// The ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ObjectStatus>,
    /// The ClusterRole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_role: Option<ObjectStatus>,
    /// The ClusterRoleBinding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_role_binding: Option<ObjectStatus>,
}

/// Help for nodes whose operating system asks for certificates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerBootstrapStatus {
    /// Whether it is installed.
    pub enabled: bool,
    /// The operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Where the nodes ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The Secret with the credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SecretStatus>,
    /// The Service port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceResourceStatus>,
}
