//! `status` of a TenantControlPlane.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::{AddonsStatus, KubernetesResourcesStatus, MigrationStatus, SecretStatus};

/// What is known of a tenant's control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TenantControlPlaneStatus {
    /// The generation of the spec that the rest of the status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where clients reach the API server, as host:port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<String>,
    /// The datastore in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// The last move of the data to another DataStore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationStatus>,
    /// The Secrets with certificates and keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesStatus>,
    /// The Secrets with kubeconfigs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<KubeconfigsStatus>,
    /// The kubeadm configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeadmconfig: Option<KubeadmConfigStatus>,
    /// What is done by kubeadm's phases in the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeadm_phase: Option<KubeadmPhaseStatus>,
    /// The objects in the management cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_resources: Option<KubernetesResourcesStatus>,
    /// The addons in the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addons: Option<AddonsStatus>,
    /// Addresses of the DNS Service: the ones asked for, or those computed.
    #[serde(rename = "dnsServiceIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub dns_service_ips: Vec<String>,
    /// The parts of the state, each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

impl TenantControlPlaneStatus {
    /// The version that last ran; none before the tenant is Ready for the first time.
    pub fn installed_version(&self) -> Option<&str> {
        self.kubernetes_resources
            .as_ref()?
            .version
            .as_ref()?
            .version
            .as_deref()
            .filter(|version| !version.is_empty())
    }
}

/// The datastore in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageStatus {
    /// The kind of database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Name of the DataStore; differs from the spec while data is moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store_name: Option<String>,
    /// Why the tenant is there, if it named no DataStore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment: Option<String>,
    /// The Secret with the credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<SecretStatus>,
    /// What was made in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<StorageSetupStatus>,
    /// The Secret with the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretStatus>,
    /// How much the tenant has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<StorageUsageStatus>,
    /// Its places in the DataStores of spec.dataStoreOverrides; one that is not wanted any more
    /// stays until its end is seen to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub overrides: Vec<StorageOverrideStatus>,
}

/// A tenant's place in the DataStore of an override.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageOverrideStatus {
    /// Name of the DataStore.
    pub data_store_name: String,
    /// The kind of database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The resources that are kept there, as the spec has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub resources: Vec<String>,
    /// The Secret with the credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<SecretStatus>,
    /// What was made in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<StorageSetupStatus>,
    /// The Secret with the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretStatus>,
}

/// How much a tenant has in its DataStore. It follows when it has changed by a twentieth, or
/// a limit of the DataStore is met or left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageUsageStatus {
    /// Bytes of the tenant's keys and values as they are now, without their history.
    pub bytes: i64,
    /// The tenant's objects, which are its keys.
    pub objects: i64,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// What was made in the database for this tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageSetupStatus {
    /// The database, bucket or key prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Checksum of the credentials that were put there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// The Secrets with certificates and keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificatesStatus {
    /// The cluster authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretStatus>,
    /// The authority of minted user certificates.
    #[serde(rename = "clientCA", skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<SecretStatus>,
    /// The API server's serving certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<SecretStatus>,
    /// The API server's client certificate towards kubelets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server_kubelet_client: Option<SecretStatus>,
    /// The front-proxy authority.
    #[serde(rename = "frontProxyCA", skip_serializing_if = "Option::is_none")]
    pub front_proxy_ca: Option<SecretStatus>,
    /// The front-proxy client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_proxy_client: Option<SecretStatus>,
    /// The service-account keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sa: Option<SecretStatus>,
    /// Certificates of an etcd of the tenant's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdCertificatesStatus>,
}

/// Certificates of an etcd of the tenant's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdCertificatesStatus {
    /// The API server's client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<SecretStatus>,
    /// The authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretStatus>,
}

/// The Secrets with kubeconfigs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeconfigsStatus {
    /// The administrator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SecretStatus>,
    /// The controller manager's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<SecretStatus>,
    /// The scheduler's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SecretStatus>,
}

/// The kubeadm configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeadmConfigStatus {
    /// Name of the ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configmap_name: Option<String>,
    /// Checksum of its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// What is done by kubeadm's phases in the tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeadmPhaseStatus {
    /// Tokens that nodes join with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_token: Option<PhaseStatus>,
}

/// One phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PhaseStatus {
    /// Checksum of what was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// When it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}
