//! Which kinds there are, in both forms: `meta/v1` and `apidiscovery.k8s.io/v2` (R2.7 to
//! R2.9, R2.15). Written only.

use prost::Message;
use serde::Deserialize;

use super::meta::{ListMeta, ObjectMeta};

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct ApiGroupList {
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<ApiGroup>,
}

/// See `meta/v1`. Its field 4 is for clients within the cluster, and nobody fills it.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiGroup {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub versions: Vec<GroupVersion>,
    #[prost(message, required, tag = "3")]
    pub preferred_version: GroupVersion,
}

/// `GroupVersionForDiscovery` of `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupVersion {
    #[prost(string, required, tag = "1")]
    pub group_version: String,
    #[prost(string, required, tag = "2")]
    pub version: String,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiResourceList {
    #[prost(string, required, tag = "1")]
    pub group_version: String,
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<ApiResource>,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiResource {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(bool, required, tag = "2")]
    pub namespaced: bool,
    #[prost(string, required, tag = "3")]
    pub kind: String,
    #[prost(message, optional, tag = "4")]
    pub verbs: Option<Verbs>,
    #[prost(string, repeated, tag = "5")]
    pub short_names: Vec<String>,
    #[prost(string, required, tag = "6")]
    pub singular_name: String,
    #[prost(string, repeated, tag = "7")]
    pub categories: Vec<String>,
    #[prost(string, required, tag = "8")]
    pub group: String,
    #[prost(string, required, tag = "9")]
    pub version: String,
    #[prost(string, required, tag = "10")]
    pub storage_version_hash: String,
}

/// See `meta/v1`: a list, as JSON has it.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(transparent)]
pub struct Verbs {
    #[prost(string, repeated, tag = "1")]
    pub items: Vec<String>,
}

/// See `apidiscovery.k8s.io/v2`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct ApiGroupDiscoveryList {
    #[prost(message, required, tag = "1")]
    pub metadata: ListMeta,
    #[prost(message, repeated, tag = "2")]
    pub items: Vec<ApiGroupDiscovery>,
}

/// See `apidiscovery.k8s.io/v2`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct ApiGroupDiscovery {
    #[prost(message, required, tag = "1")]
    pub metadata: ObjectMeta,
    #[prost(message, repeated, tag = "2")]
    pub versions: Vec<ApiVersionDiscovery>,
}

/// See `apidiscovery.k8s.io/v2`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct ApiVersionDiscovery {
    #[prost(string, required, tag = "1")]
    pub version: String,
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<ApiResourceDiscovery>,
    #[prost(string, required, tag = "3")]
    pub freshness: String,
}

/// See `apidiscovery.k8s.io/v2`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiResourceDiscovery {
    #[prost(string, required, tag = "1")]
    pub resource: String,
    #[prost(message, optional, tag = "2")]
    pub response_kind: Option<GroupVersionKind>,
    #[prost(string, required, tag = "3")]
    pub scope: String,
    #[prost(string, required, tag = "4")]
    pub singular_resource: String,
    #[prost(string, repeated, tag = "5")]
    pub verbs: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    pub short_names: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub categories: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub subresources: Vec<ApiSubresourceDiscovery>,
}

/// See `apidiscovery.k8s.io/v2`. Its field 3 is for what a subresource takes beside its own
/// kind: nothing.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiSubresourceDiscovery {
    #[prost(string, required, tag = "1")]
    pub subresource: String,
    #[prost(message, optional, tag = "2")]
    pub response_kind: Option<GroupVersionKind>,
    #[prost(string, repeated, tag = "4")]
    pub verbs: Vec<String>,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct GroupVersionKind {
    #[prost(string, required, tag = "1")]
    pub group: String,
    #[prost(string, required, tag = "2")]
    pub version: String,
    #[prost(string, required, tag = "3")]
    pub kind: String,
}
