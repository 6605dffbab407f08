//! Messages of `k8s.io.apimachinery.pkg.apis.meta.v1` (R4.6). `required` is what Go has as no
//! pointer: written in any case, and empty where it is absent.

use bytes::Bytes;
use prost::Message;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    #[prost(string, required, tag = "1")]
    pub name: String,
    #[prost(string, required, tag = "2")]
    pub generate_name: String,
    #[prost(string, required, tag = "3")]
    pub namespace: String,
    #[prost(string, required, tag = "4")]
    pub self_link: String,
    #[prost(string, required, tag = "5")]
    pub uid: String,
    #[prost(string, required, tag = "6")]
    pub resource_version: String,
    #[prost(int64, required, tag = "7")]
    pub generation: i64,
    #[prost(message, required, tag = "8")]
    pub creation_timestamp: Time,
    #[prost(message, optional, tag = "9")]
    pub deletion_timestamp: Option<Time>,
    #[prost(int64, optional, tag = "10")]
    pub deletion_grace_period_seconds: Option<i64>,
    #[prost(message, repeated, tag = "11")]
    #[serde(with = "texts")]
    pub labels: Vec<Text>,
    #[prost(message, repeated, tag = "12")]
    #[serde(with = "texts")]
    pub annotations: Vec<Text>,
    #[prost(message, repeated, tag = "13")]
    pub owner_references: Vec<OwnerReference>,
    #[prost(string, repeated, tag = "14")]
    pub finalizers: Vec<String>,
    #[prost(message, repeated, tag = "17")]
    pub managed_fields: Vec<ManagedFieldsEntry>,
}

/// One entry of a `map<string, string>`.
#[derive(Clone, PartialEq, Message)]
pub struct Text {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// Whole seconds; without any the zero of Go, which JSON has as null.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Time {
    #[prost(int64, optional, tag = "1")]
    pub seconds: Option<i64>,
    /// Always 0 where there are seconds.
    #[prost(int32, optional, tag = "2")]
    pub nanos: Option<i32>,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    #[prost(string, required, tag = "1")]
    pub kind: String,
    #[prost(string, required, tag = "3")]
    pub name: String,
    #[prost(string, required, tag = "4")]
    pub uid: String,
    #[prost(string, required, tag = "5")]
    pub api_version: String,
    #[prost(bool, optional, tag = "6")]
    pub controller: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub block_owner_deletion: Option<bool>,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ManagedFieldsEntry {
    #[prost(string, required, tag = "1")]
    pub manager: String,
    #[prost(string, required, tag = "2")]
    pub operation: String,
    #[prost(string, required, tag = "3")]
    pub api_version: String,
    #[prost(message, optional, tag = "4")]
    pub time: Option<Time>,
    #[prost(string, required, tag = "6")]
    pub fields_type: String,
    #[prost(message, optional, tag = "7")]
    pub fields_v1: Option<FieldsV1>,
    #[prost(string, required, tag = "8")]
    pub subresource: String,
}

/// A set of fields, as JSON.
#[derive(Clone, PartialEq, Message)]
pub struct FieldsV1 {
    #[prost(bytes = "bytes", required, tag = "1")]
    pub raw: Bytes,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default)]
pub struct PartialObjectMetadata {
    #[prost(message, required, tag = "1")]
    pub metadata: ObjectMeta,
}

/// See `meta/v1`. Written piece by piece, by [`super::list`].
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default)]
pub struct PartialObjectMetadataList {
    #[prost(message, required, tag = "1")]
    pub metadata: ListMeta,
    #[prost(message, repeated, tag = "2")]
    pub items: Vec<PartialObjectMetadata>,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListMeta {
    #[prost(string, required, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub self_link: String,
    #[prost(string, required, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[prost(string, required, tag = "3")]
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    #[prost(int64, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<i64>,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeleteOptions {
    #[prost(int64, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
    #[prost(bool, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphan_dependents: Option<bool>,
    #[prost(string, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<String>,
    #[prost(string, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
}

/// See `meta/v1`.
#[derive(Clone, PartialEq, Message, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Preconditions {
    #[prost(string, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[prost(string, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(from)?;
        let Some(text) = text else {
            return Ok(Time::default());
        };
        let time = apiservice::time::read(&text).map_err(serde::de::Error::custom)?;
        Ok(Time {
            seconds: Some(time.as_second()),
            nanos: Some(0),
        })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let time = self.seconds.map(jiff::Timestamp::from_second);
        match time.and_then(Result::ok) {
            Some(time) => to.serialize_some(&crate::object::time(time)),
            None => to.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for FieldsV1 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        let raw: Box<str> = raw.into();
        Ok(FieldsV1 {
            raw: String::from(raw).into(),
        })
    }
}

impl Serialize for FieldsV1 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let value: Option<serde_json::Value> = serde_json::from_slice(&self.raw).ok();
        value.serialize(to)
    }
}

/// A `map<string, string>`, in the order in which JSON has it.
mod texts {
    use super::*;

    struct Texts;

    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<Text>;

        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("a map of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Text>, A::Error> {
            let mut texts = Vec::new();
            while let Some((key, value)) = map.next_entry()? {
                texts.push(Text { key, value });
            }
            Ok(texts)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Text>, D::Error> {
        from.deserialize_map(Texts)
    }

    pub fn serialize<S: Serializer>(texts: &[Text], to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(texts.len()))?;
        for Text { key, value } in texts {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
