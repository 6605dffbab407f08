//! `spec.kubernetes`: version and settings of Kubernetes in the tenant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admission_plugins;

/// Version and settings of Kubernetes in the tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["version"]))]
pub struct Kubernetes {
    /// The version, for example v1.36.3; with or without the v.
    pub version: String,
    /// Settings of the tenant's kubelets.
    pub kubelet: Kubelet,
    /// Admission plug-ins to enable. NodeRestriction is always on; a plug-in
    /// that the version does not have is left out. A string of names with
    /// commas is taken as well, and stored as a list.
    #[schemars(length(max = 64), extend(
        "x-kubernetes-list-type" = "atomic",
        "items" = {"type": "string", "enum": admission_plugins::all_names()}
    ))]
    pub admission_controllers: Vec<String>,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            version: String::new(),
            kubelet: Kubelet::default(),
            admission_controllers: admission_plugins::DEFAULT
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
        }
    }
}

/// Settings of the tenant's kubelets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Kubelet {
    /// By which of a node's addresses the API server reaches its kubelet, the
    /// most wanted first.
    #[schemars(length(min = 1), extend("x-kubernetes-list-type" = "set"))]
    pub preferred_address_types: Vec<AddressType>,
    /// Driver for control groups. Deprecated: use configurationJSONPatches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroupfs: Option<CgroupDriver>,
    /// JSON patches for the kubelets' configuration.
    #[serde(
        rename = "configurationJSONPatches",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub configuration_json_patches: Vec<JsonPatch>,
    /// Kubelets ask the tenant's authority for their serving certificates, and Steward
    /// approves what each asks for itself. Without it kubelets sign their own, which
    /// nobody can verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving_certificates: Option<ServingCertificates>,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            preferred_address_types: vec![
                AddressType::InternalIP,
                AddressType::ExternalIP,
                AddressType::Hostname,
            ],
            cgroupfs: None,
            configuration_json_patches: Vec::new(),
            serving_certificates: None,
        }
    }
}

/// Serving certificates of kubelets. A request is approved if a node asks for its own
/// name and for addresses that are its own, and no other node's or the control plane's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServingCertificates {
    /// Networks of the nodes: a request for an address outside them is not approved.
    /// Empty: any network. A node says itself which addresses it has, so this is what
    /// keeps one from asking for an address that no other node has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_subnets: Vec<String>,
}

/// A kind of node address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AddressType {
    /// The host name.
    Hostname,
    /// The address inside the cluster's network.
    InternalIP,
    /// The address outside it.
    ExternalIP,
    /// The DNS name inside the cluster's network.
    InternalDNS,
    /// The DNS name outside it.
    ExternalDNS,
    /// A value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

impl AddressType {
    /// As kube-apiserver writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "Hostname",
            Self::InternalIP => "InternalIP",
            Self::ExternalIP => "ExternalIP",
            Self::InternalDNS => "InternalDNS",
            Self::ExternalDNS => "ExternalDNS",
            Self::Unrecognized => "Unrecognized",
        }
    }
}

/// A driver for control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// Through systemd.
    Systemd,
    /// Through the file system.
    Cgroupfs,
    /// A value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

impl CgroupDriver {
    /// As a kubelet's configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Cgroupfs => "cgroupfs",
            Self::Unrecognized => "Unrecognized",
        }
    }
}

/// One operation of a JSON patch (RFC 6902).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["op", "path"]))]
pub struct JsonPatch {
    /// The operation: add, remove, replace, move, copy or test.
    pub op: JsonPatchOperation,
    /// Where, as a JSON pointer.
    pub path: String,
    /// From where, for move and copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value, for add, replace and test; null is one.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "null_is_a_value"
    )]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true, "nullable" = true))]
    pub value: Option<Value>,
}

/// Tells a null from a field that is not there.
fn null_is_a_value<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// The operation of a JSON patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JsonPatchOperation {
    /// Put a value in.
    Add,
    /// Take a value out.
    Remove,
    /// Put a value in place of another.
    Replace,
    /// Move a value.
    Move,
    /// Copy a value.
    Copy,
    /// Compare a value; the patch fails when it differs.
    Test,
    /// A value that this version does not know.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}
