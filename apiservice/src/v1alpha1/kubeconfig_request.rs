//! KubeconfigRequest: what `POST .../kubeconfig` takes and returns (rule 11).

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::schema::{Schema, of_type};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": of_type::<KubeconfigRequestSpec>(),
            "status": of_type::<KubeconfigRequestStatus>(),
        },
    }))
    // The schema is the same in every run; a test compiles it.
    .unwrap_or_else(|error| panic!("schema of KubeconfigRequest: {error}"))
});

/// A request for a kubeconfig with a short-lived certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeconfigRequest {
    /// steward.butlerlabs.dev/v1alpha1.
    pub api_version: String,
    /// KubeconfigRequest.
    pub kind: String,
    /// Name and namespace of the TenantControlPlane.
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: KubeconfigRequestSpec,
    /// What is granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<KubeconfigRequestStatus>,
}

impl KubeconfigRequest {
    /// The fields that a request may have, and their types.
    pub fn schema() -> &'static Schema {
        &SCHEMA
    }
}

/// What kubeconfig is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeconfigRequestSpec {
    /// The rights in the tenant: admin or view.
    pub role: KubeconfigRole,
    /// How long the certificate shall be valid, in seconds; the server may
    /// grant less. Without it, as long as the server grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 600))]
    pub expiration_seconds: Option<i64>,
}

/// What rights a minted kubeconfig has in the tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KubeconfigRole {
    /// All rights.
    #[default]
    Admin,
    /// Reading.
    View,
}

impl KubeconfigRole {
    /// The one group in the certificate (rule 12).
    pub fn group(self) -> &'static str {
        match self {
            Self::Admin => crate::names::GROUP_ADMIN,
            Self::View => crate::names::GROUP_VIEW,
        }
    }

    /// As it stands in the request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::View => "view",
        }
    }
}

/// The kubeconfig that is granted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeconfigRequestStatus {
    /// The kubeconfig, as YAML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<String>,
    /// When its certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_timestamp: Option<Time>,
}
