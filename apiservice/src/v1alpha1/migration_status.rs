//! `status.migration`: a tenant's data on its way to another DataStore.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last move of a tenant's data to another DataStore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationStatus {
    /// How far it is.
    pub phase: MigrationPhase,
    /// Name of the DataStore that the data comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Name of the DataStore that it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended, well or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Objects that there are to copy, as they were counted at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_keys: Option<i64>,
    /// Objects copied so far; those that changed meanwhile count again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_keys: Option<i64>,
    /// Bytes copied so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_bytes: Option<i64>,
    /// Milliseconds in which the tenant's data could not be written: until the copy was
    /// complete. Until pods serve the new place, a few seconds more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_milliseconds: Option<i64>,
    /// SHA-256 of all keys and values, the same in both DataStores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Attempts that failed, one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,
    /// Until when the source keeps its copy, which nobody uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_kept_until: Option<Time>,
    /// What happens, or why it failed and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far the move of a tenant's data is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MigrationPhase {
    /// It waits: for its turn, or for what the message says.
    #[default]
    Pending,
    /// The place in the target is made.
    Preparing,
    /// The data is copied while the tenant writes.
    Copying,
    /// What was written meanwhile is copied.
    Following,
    /// Writes are refused; the last ones are copied.
    Freezing,
    /// Both copies are compared.
    Verifying,
    /// The target is in service; pods are given the new place.
    Switching,
    /// The tenant is served from the target.
    Completed,
    /// It failed; the tenant is served from the source. It is tried again.
    Failed,
    /// It was called off; the tenant is served from the source.
    Aborted,
    /// A value that this version does not know.
    #[serde(other)]
    Unknown,
}

impl MigrationPhase {
    /// As it stands in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Preparing => "Preparing",
            Self::Copying => "Copying",
            Self::Following => "Following",
            Self::Freezing => "Freezing",
            Self::Verifying => "Verifying",
            Self::Switching => "Switching",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether nothing more is done for it by itself.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Aborted)
    }
}
