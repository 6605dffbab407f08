//! Version `v1alpha1`: the kinds as Rust types.
//!
//! The types are the one source of the schema: their doc comments are what
//! `kubectl explain` prints, their `Default` values are the defaults, and what
//! the schema cannot say stands in each kind's rules.
//!
//! Decoding is lenient (everything may be missing, an unknown enumeration value
//! decodes as such), so that one odd object does not stop a controller's list.
//! What is stored has passed the strict schema.

pub mod addons;
pub mod addons_status;
mod annotations;
pub mod control_plane;
pub mod data_store;
pub mod exposure;
pub mod join_token_request;
pub mod kubeconfig_request;
pub mod kubernetes;
pub mod migration_request;
pub mod migration_status;
pub mod network_profile;
pub mod object_status;
pub mod resources_status;
pub mod tenant_control_plane;

pub use addons::*;
pub use addons_status::*;
pub use control_plane::*;
pub use data_store::{
    BasicAuth, CertificateAuthority, ClientCertificate, ContentRef, DataStore, DataStoreCapacity,
    DataStoreSpec, DataStoreStatus, DataStoreTaint, DataStoreTenantLimits, Driver, PendingCleanup,
    SecretReference, TaintEffect, TlsConfig,
};
pub use exposure::*;
pub use join_token_request::*;
pub use kubeconfig_request::*;
pub use kubernetes::*;
pub use migration_request::*;
pub use migration_status::*;
pub use network_profile::*;
pub use object_status::*;
pub use resources_status::*;
pub use tenant_control_plane::status::*;
pub use tenant_control_plane::{
    DataStoreAssignment, DataStoreOverride, DataStoreToleration, TenantControlPlane,
    TenantControlPlaneSpec, TolerationOperator, WritePermissions, too_large, unsupported,
};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Labels and annotations to put on an object beside ours. Those with a prefix of
/// Steward's own are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdditionalMetadata {
    /// Labels to add.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to add.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
