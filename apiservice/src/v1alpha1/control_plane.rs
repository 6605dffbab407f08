//! `spec.controlPlane`: pods, Service and exposure in the management cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, Container, PodSecurityContext, ResourceRequirements, SecurityContext, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{AdditionalMetadata, ByName, Gateway, Ingress, Service};

/// How a control plane runs in the management cluster and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["service"]))]
pub struct ControlPlane {
    /// The pods of the control plane.
    pub deployment: Deployment,
    /// The Service in front of them.
    pub service: Service,
    /// Reach the API server through an Ingress. Not together with gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// Reach the API server through the Gateway API. Not together with ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
}

impl ControlPlane {
    /// How a proxy leads clients to it by name, if one does. Both is refused at the write;
    /// an Ingress wins.
    pub fn by_name(&self) -> Option<ByName<'_>> {
        let ingress = self.ingress.as_ref().map(ByName::Ingress);
        ingress.or_else(|| self.gateway.as_ref().map(ByName::Gateway))
    }
}

/// The pods of a control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Deployment {
    /// Where the images of the components come from.
    pub registry_settings: RegistrySettings,
    /// How many pods. Zero puts the control plane to sleep; its data, addresses
    /// and certificates stay.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Labels that a node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Name of the RuntimeClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// How pods are replaced. By default all new ones come up before an old one
    /// goes, so that clients do not meet two versions in turn for long.
    #[schemars(schema_with = "strategy")]
    pub strategy: DeploymentStrategy,
    /// Taints that the pods tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Which nodes and neighbours the pods want.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the pods spread. A constraint without labelSelector counts the pods
    /// of this control plane.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Resources of the containers. Given flat (limits, requests, claims), they
    /// hold for each component without an entry of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ComponentsResources>,
    /// Further arguments of the components, each as --flag=value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_args: Option<ComponentsExtraArgs>,
    /// Labels and annotations for the Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_metadata: Option<AdditionalMetadata>,
    /// Labels and annotations for the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_additional_metadata: Option<AdditionalMetadata>,
    /// Init containers to run before ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub additional_init_containers: Vec<Container>,
    /// Containers to run beside ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub additional_containers: Vec<Container>,
    /// Volumes for the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub additional_volumes: Vec<Volume>,
    /// Volume mounts for our containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_volume_mounts: Option<ComponentsVolumeMounts>,
    /// ServiceAccount of the pods.
    pub service_account_name: String,
    /// Whether the pods get a token of their ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
    /// Security settings of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,
    /// Security settings of our containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_security_contexts: Option<ComponentsSecurityContexts>,
    /// Timing of the probes: for all components, then for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
}

/// The strategy of a Deployment, with the types that one takes: the schema of
/// Kubernetes only tells of them in the description.
fn strategy(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = DeploymentStrategy::json_schema(generator);
    if let Some(kind) = schema.pointer_mut("/properties/type") {
        kind["enum"] = serde_json::json!(["Recreate", "RollingUpdate"]);
    }
    schema
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            registry_settings: RegistrySettings::default(),
            replicas: 2,
            node_selector: BTreeMap::new(),
            runtime_class_name: None,
            strategy: DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::String("100%".to_owned())),
                }),
            },
            tolerations: Vec::new(),
            affinity: None,
            topology_spread_constraints: Vec::new(),
            resources: None,
            extra_args: None,
            additional_metadata: None,
            pod_additional_metadata: None,
            additional_init_containers: Vec::new(),
            additional_containers: Vec::new(),
            additional_volumes: Vec::new(),
            additional_volume_mounts: None,
            service_account_name: "default".to_owned(),
            automount_service_account_token: None,
            pod_security_context: None,
            container_security_contexts: None,
            probes: None,
        }
    }
}

/// Where the images of the components come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistrySettings {
    /// The registry.
    pub registry: String,
    /// Appended to the version in the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_suffix: Option<String>,
    /// Image name of the API server.
    pub api_server_image: String,
    /// Image name of the controller manager.
    pub controller_manager_image: String,
    /// Image name of the scheduler.
    pub scheduler_image: String,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            registry: "registry.k8s.io".to_owned(),
            tag_suffix: None,
            api_server_image: "kube-apiserver".to_owned(),
            controller_manager_image: "kube-controller-manager".to_owned(),
            scheduler_image: "kube-scheduler".to_owned(),
        }
    }
}

/// A component of a control plane that settings can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The etcd shim over SQL and NATS.
    Kine,
}

/// Resources of the containers: per component, or flat for all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentsResources {
    /// Resources of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ResourceRequirements>,
    /// Resources of the controller manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<ResourceRequirements>,
    /// Resources of the scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<ResourceRequirements>,
    /// Resources of kine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kine: Option<ResourceRequirements>,
    /// What each component without an entry of its own gets.
    #[serde(flatten)]
    pub shared: ResourceRequirements,
}

impl ComponentsResources {
    /// The resources of one component: its own entry, else the flat ones.
    pub fn of(&self, component: Component) -> &ResourceRequirements {
        match component {
            Component::ApiServer => &self.api_server,
            Component::ControllerManager => &self.controller_manager,
            Component::Scheduler => &self.scheduler,
            Component::Kine => &self.kine,
        }
        .as_ref()
        .unwrap_or(&self.shared)
    }
}

/// Further arguments of the components.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentsExtraArgs {
    /// Arguments of the API server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub api_server: Vec<String>,
    /// Arguments of the controller manager.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub controller_manager: Vec<String>,
    /// Arguments of the scheduler.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub scheduler: Vec<String>,
    /// Arguments of kine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub kine: Vec<String>,
}

impl ComponentsExtraArgs {
    /// The arguments of one component.
    pub fn of(&self, component: Component) -> &[String] {
        match component {
            Component::ApiServer => &self.api_server,
            Component::ControllerManager => &self.controller_manager,
            Component::Scheduler => &self.scheduler,
            Component::Kine => &self.kine,
        }
    }
}

/// The name of the flag that an argument sets, as the components of Kubernetes
/// read it: to them, `--etcd_prefix` is `--etcd-prefix`.
pub fn flag_name(argument: &str) -> String {
    let name = argument.trim_start_matches('-');
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    name.replace('_', "-")
}

/// The flags of a component that Steward sets and nobody else can: addresses,
/// certificates and storage hang on them.
pub fn managed_flags(component: Component) -> &'static [&'static str] {
    match component {
        Component::ApiServer => &[
            "advertise-address",
            "client-ca-file",
            "enable-admission-plugins",
            "etcd-cafile",
            "etcd-certfile",
            "etcd-compaction-interval",
            "etcd-keyfile",
            "etcd-prefix",
            "etcd-servers",
            "etcd-servers-overrides",
            "kubelet-client-certificate",
            "kubelet-client-key",
            "kubelet-preferred-address-types",
            "proxy-client-cert-file",
            "proxy-client-key-file",
            "requestheader-allowed-names",
            "requestheader-client-ca-file",
            "secure-port",
            "service-account-key-file",
            "service-account-signing-key-file",
            "service-cluster-ip-range",
            "tls-cert-file",
            "tls-private-key-file",
        ],
        Component::ControllerManager => &[
            "authentication-kubeconfig",
            "authorization-kubeconfig",
            "client-ca-file",
            "cluster-cidr",
            "cluster-signing-cert-file",
            "cluster-signing-key-file",
            "kubeconfig",
            "requestheader-client-ca-file",
            "root-ca-file",
            "service-account-private-key-file",
            "service-cluster-ip-range",
        ],
        Component::Scheduler => &[
            "authentication-kubeconfig",
            "authorization-kubeconfig",
            "kubeconfig",
        ],
        Component::Kine => &[
            "ca-file",
            "cert-file",
            "endpoint",
            "key-file",
            "listen-address",
        ],
    }
}

/// Volume mounts for the containers of the components.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentsVolumeMounts {
    /// Mounts of the API server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub api_server: Vec<VolumeMount>,
    /// Mounts of the controller manager.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub controller_manager: Vec<VolumeMount>,
    /// Mounts of the scheduler.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub scheduler: Vec<VolumeMount>,
}

/// Security settings of the containers of the components.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentsSecurityContexts {
    /// Settings of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<SecurityContext>,
    /// Settings of the controller manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<SecurityContext>,
    /// Settings of the scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SecurityContext>,
}

/// Timing of the probes, for all components and for each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Probes {
    /// Liveness, for all components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeSpec>,
    /// Readiness, for all components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ProbeSpec>,
    /// Startup, for all components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<ProbeSpec>,
    /// Probes of the API server, over those for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ComponentProbes>,
    /// Probes of the controller manager, over those for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<ComponentProbes>,
    /// Probes of the scheduler, over those for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<ComponentProbes>,
}

/// Timing of the probes of one component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentProbes {
    /// Liveness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeSpec>,
    /// Readiness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ProbeSpec>,
    /// Startup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<ProbeSpec>,
}

/// Timing of one probe. What is left out keeps its own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeSpec {
    /// Seconds from the start of the container to the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: Option<i32>,
    /// Seconds after which a probe has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<i32>,
    /// Seconds from one probe to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub period_seconds: Option<i32>,
    /// Successes in a row that count as success.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub success_threshold: Option<i32>,
    /// Failures in a row that count as failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failure_threshold: Option<i32>,
}
