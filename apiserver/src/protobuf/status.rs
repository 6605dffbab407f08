//! `meta/v1` Status (R4.6).

use prost::Message;
use serde::{Deserialize, Serialize};

use super::meta::ListMeta;

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default)]
pub struct Status {
    #[prost(message, required, tag = "1")]
    pub metadata: ListMeta,
    #[prost(string, required, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[prost(string, required, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[prost(string, required, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    #[prost(int32, required, tag = "6")]
    #[serde(skip_serializing_if = "super::scale::is_zero")]
    pub code: i32,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusDetails {
    #[prost(string, required, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[prost(string, required, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[prost(string, required, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[prost(message, repeated, tag = "4")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    #[prost(int32, required, tag = "5")]
    #[serde(skip_serializing_if = "super::scale::is_zero")]
    pub retry_after_seconds: i32,
    #[prost(string, required, tag = "6")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default)]
pub struct StatusCause {
    #[prost(string, required, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[prost(string, required, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[prost(string, required, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}
