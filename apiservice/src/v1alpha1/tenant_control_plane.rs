//! TenantControlPlane: the control plane of one tenant cluster.

mod access;
mod checks;
mod readiness;
mod row;
mod rules;
mod sizes;
pub mod status;
mod unsupported;
mod warnings;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{
    Addons, ControlPlane, Driver, Konnectivity, Kubernetes, NetworkProfile, TaintEffect,
    TenantControlPlaneStatus,
};
use crate::bulk;
use crate::endpoint::Endpoint;
pub use row::RESOURCE;
pub use sizes::too_large;
pub use unsupported::unsupported;

/// What a tenant's control plane shall be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "steward.butlerlabs.dev",
    version = "v1alpha1",
    kind = "TenantControlPlane",
    plural = "tenantcontrolplanes",
    singular = "tenantcontrolplane",
    shortname = "tcp",
    namespaced,
    status = "TenantControlPlaneStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default, remote = "Self")]
#[schemars(extend("required" = ["controlPlane", "kubernetes"]))]
pub struct TenantControlPlaneSpec {
    /// It was heavier than a spec may be ([`bulk::MOST`]), as an older release took it, and
    /// what is here is not all of it: nothing may be done by it.
    #[serde(skip)]
    pub is_cut: bool,
    /// Name of the DataStore that keeps the tenant's data. Without it, one is
    /// assigned; the one in use is in status.storage.dataStoreName. It can be changed,
    /// which is not acted upon yet, and cannot be removed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store: Option<String>,
    /// Which DataStores may be assigned to a tenant that names none; any that takes
    /// tenants, if nothing is said. It means nothing once one is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store_assignment: Option<DataStoreAssignment>,
    /// Name of the database, bucket or key prefix in the DataStore. Without it,
    /// it is made from namespace and name; the one in use is in
    /// status.storage.setup.schema. It cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub data_store_schema: Option<String>,
    /// How the name of the tenant's user in the DataStore begins; the tenant's uid
    /// follows, and together they have 63 characters at most. Without it, it begins with
    /// namespace and name; the one in use is in status.storage.setup.user. It cannot be
    /// changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub data_store_username: Option<String>,
    /// API resources that are kept in other DataStores, eight of those at most. Of a tenant that
    /// has been Ready, only those of /events can be changed: objects of others would be lost
    /// from sight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub data_store_overrides: Vec<DataStoreOverride>,
    /// Makes the tenant cluster read-only, verb by verb, for all but nodes, its own
    /// controllers, and the namespaces kube-system and kube-node-lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_permissions: Option<WritePermissions>,
    /// How the control plane runs in the management cluster and how it is reached.
    pub control_plane: ControlPlane,
    /// Version and settings of Kubernetes in the tenant.
    pub kubernetes: Kubernetes,
    /// Addresses and names of the tenant cluster.
    pub network_profile: NetworkProfile,
    /// Parts that are installed into the tenant cluster, one a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addons: Option<Addons>,
}

/// However heavy it is, no more than [`bulk::MOST`] is made of it.
impl<'de> Deserialize<'de> for TenantControlPlaneSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(from)?;
        let is_cut = bulk::cut(&mut value);
        // The one of all fields, which is not of the trait.
        let read = Self::deserialize(value).map_err(D::Error::custom)?;
        Ok(Self { is_cut, ..read })
    }
}

impl Serialize for TenantControlPlaneSpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, to)
    }
}

/// An object whose fields are decoded where they are, so that an error names the one that
/// cannot be. It is light enough.
#[derive(Deserialize)]
struct AsSent {
    #[serde(rename = "metadata", default)]
    _metadata: ObjectMeta,
    #[serde(rename = "spec")]
    _spec: WholeSpec,
    #[serde(rename = "status")]
    _status: Option<TenantControlPlaneStatus>,
}

struct WholeSpec;

impl<'de> Deserialize<'de> for WholeSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        TenantControlPlaneSpec::deserialize(from).map(|_| WholeSpec)
    }
}

impl TenantControlPlaneSpec {
    /// The tunnel to nodes that the API server cannot reach, if it is wanted.
    pub fn konnectivity(&self) -> Option<&Konnectivity> {
        self.addons.as_ref()?.konnectivity.as_ref()
    }

    /// The networks of nodes whose requests for serving certificates are approved; empty:
    /// any. `None`: nobody asked for approval.
    pub fn approved_subnets(&self) -> Option<&[String]> {
        // What is left of the networks would be taken for all.
        if self.is_cut {
            return None;
        }
        if let Some(wanted) = &self.kubernetes.kubelet.serving_certificates {
            return Some(&wanted.allowed_subnets);
        }
        let bootstrap = self.addons.as_ref()?.worker_bootstrap.as_ref()?;
        let wanted = bootstrap.csr_approval.auto_approve;
        wanted.then_some(bootstrap.allowed_subnets.as_slice())
    }

    /// Where the tenant's nodes find its API server: where everybody does, unless the
    /// tenant names an address for them. Names that a proxy routes by win over that: what
    /// passes the proxy by may lead nowhere.
    pub fn for_nodes(&self, published: &Endpoint) -> Endpoint {
        let network = &self.network_profile;
        let by_name = self.control_plane.by_name();
        let routed = by_name.is_some_and(|way| way.host().is_some());
        match network.announced_address().filter(|_| !routed) {
            Some(address) => Endpoint::new(address.to_string(), network.port),
            None => published.clone(),
        }
    }
}

/// One API resource in a DataStore of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataStoreOverride {
    /// The resource as kube-apiserver's --etcd-servers-overrides writes it: a group, a slash
    /// and a resource that is built into kube-apiserver, for example /events or apps/replicasets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Name of the DataStore: another one than the tenant's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_store: Option<String>,
}

impl DataStoreOverride {
    /// Events of the core group.
    pub const EVENTS: &str = "/events";

    /// The resource that is meant: kube-apiserver keeps events of both groups as those of core.
    pub fn kept_as(&self) -> &str {
        match self.resource.as_deref().unwrap_or_default() {
            "events.k8s.io/events" => Self::EVENTS,
            resource => resource,
        }
    }

    /// Whether it is of events, which nobody misses.
    pub fn is_of_events(&self) -> bool {
        self.kept_as() == Self::EVENTS
    }
}

/// Which DataStores may be assigned to a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataStoreAssignment {
    /// Those whose labels it selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Those of one of these drivers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub drivers: Vec<Driver>,
    /// Taints that do not keep the tenant out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<DataStoreToleration>,
}

/// A taint of a DataStore that does not keep a tenant out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataStoreToleration {
    /// Of the taint; any, if it is empty and the operator is Exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316))]
    pub key: Option<String>,
    /// Equal, or Exists for any value.
    pub operator: TolerationOperator,
    /// Of the taint, with operator Equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Of the taint; any, if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Key and value.
    #[default]
    Equal,
    /// The key.
    Exists,
}

/// Which writes the tenant cluster refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WritePermissions {
    /// Refuse to create objects.
    pub block_creation: bool,
    /// Refuse to update objects.
    pub block_update: bool,
    /// Refuse to delete objects.
    pub block_deletion: bool,
}

impl WritePermissions {
    /// Whether any write is refused.
    pub fn any(&self) -> bool {
        self.block_creation || self.block_update || self.block_deletion
    }
}
