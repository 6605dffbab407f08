//! `status.kubernetesResources`: the objects in the management cluster.

use k8s_openapi::api::apps::v1::DeploymentStatus;
use k8s_openapi::api::core::v1::ServiceStatus;
use k8s_openapi::api::networking::v1::IngressStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ParentReference;

/// The objects in the management cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KubernetesResourcesStatus {
    /// Version and state of the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// The Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentResourceStatus>,
    /// The Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceResourceStatus>,
    /// The Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressResourceStatus>,
    /// The route of the Gateway API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayResourceStatus>,
}

/// Version and state of the control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionStatus {
    /// The version that last ran. None before the tenant is Ready for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The state in one word.
    pub status: Phase,
}

impl Default for VersionStatus {
    fn default() -> Self {
        Self {
            version: None,
            status: Phase::Provisioning,
        }
    }
}

/// The state of a control plane in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Being set up for the first time.
    Provisioning,
    /// Its authority is being replaced.
    CertificateAuthorityRotating,
    /// Another version is being rolled out.
    Upgrading,
    /// Its data is being moved to another DataStore.
    Migrating,
    /// It answers.
    Ready,
    /// It does not answer.
    NotReady,
    /// Zero replicas, as asked.
    Sleeping,
    /// It refuses writes, as asked.
    WriteLimited,
    /// None of these, or a value that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// As it stands in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "Provisioning",
            Self::CertificateAuthorityRotating => "CertificateAuthorityRotating",
            Self::Upgrading => "Upgrading",
            Self::Migrating => "Migrating",
            Self::Ready => "Ready",
            Self::NotReady => "NotReady",
            Self::Sleeping => "Sleeping",
            Self::WriteLimited => "WriteLimited",
            Self::Unknown => "Unknown",
        }
    }
}

/// The Deployment and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentResourceStatus {
    /// The state of the Deployment, as it stands in it.
    #[serde(flatten)]
    pub deployment: DeploymentStatus,
    /// The label selector of the pods, in its string form.
    pub selector: String,
    /// Name of the Deployment.
    pub name: String,
    /// Namespace of the Deployment.
    pub namespace: String,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Time>,
}

/// The Service and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceResourceStatus {
    /// The state of the Service, as it stands in it.
    #[serde(flatten)]
    pub service: ServiceStatus,
    /// Name of the Service.
    pub name: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Port of the API server.
    pub port: i32,
}

/// The Ingress and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressResourceStatus {
    /// The state of the Ingress, as it stands in it.
    #[serde(flatten)]
    pub ingress: IngressStatus,
    /// Name of the Ingress.
    pub name: String,
    /// Namespace of the Ingress.
    pub namespace: String,
}

/// A route of the Gateway API and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayResourceStatus {
    /// What each Gateway says about the route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub parents: Vec<RouteParentStatus>,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_ref: Option<LocalReference>,
    /// Where the route can be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub access_points: Vec<AccessPoint>,
}

/// What one Gateway says about a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["parentRef", "controllerName"]))]
pub struct RouteParentStatus {
    /// The Gateway.
    pub parent_ref: ParentReference,
    /// The controller that speaks.
    pub controller_name: String,
    /// What it says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

/// An object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalReference {
    /// Its name.
    pub name: String,
}

/// A place where a route can be reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessPoint {
    /// The kind of address, as in the Gateway's status.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// The same as URLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub urls: Vec<String>,
}
