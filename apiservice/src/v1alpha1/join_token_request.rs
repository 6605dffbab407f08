//! JoinTokenRequest: what `.../jointoken` takes and returns.

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
            "spec": of_type::<JoinTokenRequestSpec>(),
            "status": of_type::<JoinTokenRequestStatus>(),
        },
    }))
    // The schema is the same in every run; a test compiles it.
    .unwrap_or_else(|error| panic!("schema of JoinTokenRequest: {error}"))
});

/// A request for a token with which nodes join a tenant, and the list of those that it
/// has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinTokenRequest {
    /// steward.butlerlabs.dev/v1alpha1.
    pub api_version: String,
    /// JoinTokenRequest.
    pub kind: String,
    /// Name and namespace of the TenantControlPlane.
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: JoinTokenRequestSpec,
    /// What is granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<JoinTokenRequestStatus>,
}

impl JoinTokenRequest {
    /// The fields that a request may have, and their types.
    pub fn schema() -> &'static Schema {
        &SCHEMA
    }
}

/// What token is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinTokenRequestSpec {
    /// How long the token shall be valid, in seconds; the server may grant less. Without
    /// it, as long as the server grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60))]
    pub ttl_seconds: Option<i64>,
    /// What the token is for: signing (joining nodes find out by it that they speak to
    /// this tenant) and authentication (it lets them in). Both, unless given; joining
    /// takes both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usages: Option<Vec<JoinTokenUsage>>,
    /// Groups in the tenant of whoever comes with the token, beside system:bootstrappers;
    /// each begins with system:bootstrappers:. Unless given, the group that may join
    /// nodes: system:bootstrappers:kubeadm:default-node-token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// What the token is for, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What a token can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JoinTokenUsage {
    /// It lets in whoever comes with it.
    Authentication,
    /// The tenant signs with it where the cluster is and who signs for it.
    Signing,
}

impl JoinTokenUsage {
    /// Every usage.
    pub const ALL: [Self; 2] = [Self::Authentication, Self::Signing];

    /// As it stands in the request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Signing => "signing",
        }
    }
}

/// The token that is granted, or the tokens that there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinTokenRequestStatus {
    /// The token, as ID.SECRET. It is shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_timestamp: Option<Time>,
    /// Where nodes reach the tenant, as HOST:PORT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// SHA-256 hashes of the public keys of the tenant's authority, as sha256:HEX.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_cert_hashes: Vec<String>,
    /// The command that joins a node, where the token is for all that joining takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A kubeconfig for kubeadm join --discovery-file, as YAML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery_kubeconfig: Option<String>,
    /// The tokens of the tenant, without their secrets: the answer to GET.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<JoinToken>>,
}

/// A token of the tenant, without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinToken {
    /// The part of the token that is no secret. DELETE takes it.
    pub id: String,
    /// When it ends, as the tenant says it; without it, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_timestamp: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub usages: Vec<String>,
    /// The groups of whoever comes with it, beside system:bootstrappers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What it is for, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The user of the management cluster that asked for it, if it was made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
}
