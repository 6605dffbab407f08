//! `autoscaling/v1` Scale (R3.74, R4.6).

use prost::Message;
use serde::{Deserialize, Serialize};

use super::meta::ObjectMeta;

/// See `autoscaling/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default)]
pub struct Scale {
    #[prost(message, required, tag = "1")]
    pub metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub spec: ScaleSpec,
    #[prost(message, required, tag = "3")]
    pub status: ScaleStatus,
}

/// See `autoscaling/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default)]
pub struct ScaleSpec {
    #[prost(int32, required, tag = "1")]
    #[serde(skip_serializing_if = "is_zero")]
    pub replicas: i32,
}

/// See `autoscaling/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default)]
pub struct ScaleStatus {
    #[prost(int32, required, tag = "1")]
    pub replicas: i32,
    #[prost(string, required, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
}

/// Whether JSON leaves a number out.
pub(super) fn is_zero(number: &i32) -> bool {
    *number == 0
}
