//! MigrationRequest: what `.../migrate` takes and returns.

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::MigrationStatus;
use crate::schema::{Schema, of_type};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": of_type::<MigrationRequestSpec>(),
            "status": of_type::<MigrationStatus>(),
        },
    }))
    // The schema is the same in every run; a test compiles it.
    .unwrap_or_else(|error| panic!("schema of MigrationRequest: {error}"))
});

/// A request to move a tenant's data to another DataStore, and how far the last one is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationRequest {
    /// steward.butlerlabs.dev/v1alpha1.
    pub api_version: String,
    /// MigrationRequest.
    pub kind: String,
    /// Name and namespace of the TenantControlPlane. In a request, its uid and
    /// resourceVersion are preconditions.
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: MigrationRequestSpec,
    /// How far it is; without it, the tenant's data was never moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<MigrationStatus>,
}

impl MigrationRequest {
    /// The fields that a request may have, and their types.
    pub fn schema() -> &'static Schema {
        &SCHEMA
    }
}

/// Where the data of a tenant is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationRequestSpec {
    /// Name of the DataStore to move the data to. Without it, the server chooses one that
    /// is not in use by the tenant, by the tenant's spec.dataStoreAssignment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How long the DataStore that is left keeps its copy, as a Go duration such as 24h or
    /// 0s; at most 8760h. Without it, what the tenant's annotation
    /// steward.butlerlabs.dev/migration-source-retention says stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_retention: Option<String>,
}
