//! DataStore: a database for tenants.

mod driver;
mod row;
mod rules;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use driver::Driver;
pub use row::RESOURCE;

/// A database for tenants, and how to reach it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "steward.butlerlabs.dev",
    version = "v1alpha1",
    kind = "DataStore",
    plural = "datastores",
    singular = "datastore",
    status = "DataStoreStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["driver", "endpoints"]))]
pub struct DataStoreSpec {
    /// The kind of database: etcd, MySQL, PostgreSQL or NATS. It cannot be
    /// changed.
    pub driver: Driver,
    /// Where the database listens, each as host:port without a scheme.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<String>,
    /// User name and password with all rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Authority and client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,
    /// How much may be assigned here. Tenants that name this DataStore come nevertheless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<DataStoreCapacity>,
    /// How much each tenant may keep here. One that has more cannot create objects until it
    /// has less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_limits: Option<DataStoreTenantLimits>,
    /// What keeps tenants from being assigned here that do not tolerate it, or sends away
    /// those that are here. Tenants that name this DataStore come nevertheless.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub taints: Vec<DataStoreTaint>,
}

/// How much may be assigned to a DataStore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataStoreCapacity {
    /// Tenants, those included that name the DataStore.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub tenants: Option<u32>,
    /// Bytes of the database: no tenant is assigned once it has as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes: Option<i64>,
}

/// How much each tenant may keep in a DataStore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataStoreTenantLimits {
    /// Bytes of a tenant's keys and values as they are now, without their history and
    /// whatever else the database needs for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bytes: Option<i64>,
    /// Objects of a tenant, which are its keys. A cluster has several hundred from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub objects: Option<i64>,
    /// Percentage of a limit from which on the tenant's condition StorageWithinLimits
    /// warns; 80 if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub warn_at_percent: Option<u8>,
}

impl DataStoreTenantLimits {
    /// Percentage of a limit from which on a tenant is warned.
    pub fn warn_at_percent(&self) -> u8 {
        self.warn_at_percent.unwrap_or(80)
    }
}

/// A mark on a DataStore that keeps tenants out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["key"]))]
pub struct DataStoreTaint {
    /// What tolerations name.
    #[schemars(length(min = 1, max = 316))]
    pub key: String,
    /// What tolerations may be limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// What it does to tenants that do not tolerate it: NoSchedule, which is meant if it is
    /// left out, or NoExecute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

impl DataStoreTaint {
    /// What it does.
    pub fn effect(&self) -> TaintEffect {
        self.effect.unwrap_or_default()
    }

    /// Whether it sends tenants away that are there.
    pub fn executes(&self) -> bool {
        self.effect() == TaintEffect::NoExecute
    }
}

/// What a taint does to tenants that do not tolerate it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// They are not assigned here.
    #[default]
    NoSchedule,
    /// Neither are they assigned here, nor do they stay: their data is moved to a DataStore
    /// that can take them.
    NoExecute,
    /// A value that this version does not know: less is done rather than more.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

/// User name and password.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["username", "password"]))]
pub struct BasicAuth {
    /// The user name.
    pub username: ContentRef,
    /// The password.
    pub password: ContentRef,
}

/// Authority and client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["certificateAuthority"]))]
pub struct TlsConfig {
    /// The authority of the database's certificates. With etcd its key is
    /// needed as well: it signs a client certificate for each tenant.
    pub certificate_authority: CertificateAuthority,
    /// Our own client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

/// An authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["certificate"]))]
pub struct CertificateAuthority {
    /// The certificate, or several, in PEM.
    pub certificate: ContentRef,
    /// The private key in PEM. Needed with etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<ContentRef>,
}

/// A client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["certificate", "privateKey"]))]
pub struct ClientCertificate {
    /// The certificate in PEM.
    pub certificate: ContentRef,
    /// The private key in PEM.
    pub private_key: ContentRef,
}

/// A value that stands here or in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ContentRef {
    /// The value itself, in base64; it wins over secretReference. Everyone who
    /// may read the DataStore may read it: prefer secretReference.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "byte"))]
    pub content: Option<ByteString>,
    /// The Secret that has the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_reference: Option<SecretReference>,
}

impl ContentRef {
    /// The value that stands here, unless it is empty.
    pub fn inline(&self) -> Option<&[u8]> {
        self.content
            .as_ref()
            .map(|content| content.0.as_slice())
            .filter(|content| !content.is_empty())
    }
}

/// One key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["keyPath"]))]
pub struct SecretReference {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Key in the Secret.
    #[schemars(length(min = 1))]
    pub key_path: String,
}

/// What is known of a DataStore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataStoreStatus {
    /// The tenants whose data is here, each as namespace/name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub used_by: Vec<String>,
    /// The generation of the spec that the rest of the status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether tenants can be placed here; the same as the condition Ready.
    pub ready: bool,
    /// Version of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How many tenants are in usedBy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenants: Option<i64>,
    /// Bytes of the whole database, those of other users included. It follows when they
    /// have changed by a tenth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Deleted tenants whose users and data are still to be removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["uid"]
    ))]
    pub pending_cleanups: Vec<PendingCleanup>,
    /// The parts of the state, each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

/// What a deleted tenant has left behind in the database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["uid"]))]
pub struct PendingCleanup {
    /// The tenant's uid.
    pub uid: String,
    /// The tenant's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The tenant's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its database, bucket or key prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Not before then: until it, the data of a tenant that was moved elsewhere is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Why it could not be removed at the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
