//! What stands around the message of a type.

use bytes::{Bytes, BytesMut};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::object::metadata;

/// Bytes of a body that is read. DeleteOptions and a Scale have hundreds; two bytes of an
/// owner become a map of values.
pub const MOST: usize = 8 * 1024;
/// What every object begins with.
pub(super) const MAGIC: &[u8] = b"k8s\0";

const NO_MESSAGE: &str =
    "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";

/// `runtime.TypeMeta`.
#[derive(Clone, PartialEq, Message)]
pub struct TypeMeta {
    #[prost(string, required, tag = "1")]
    pub api_version: String,
    #[prost(string, required, tag = "2")]
    pub kind: String,
}

/// `runtime.Unknown`: what stands around the message of a type.
#[derive(Clone, PartialEq, Message)]
pub struct Unknown {
    #[prost(message, required, tag = "1")]
    pub type_meta: TypeMeta,
    #[prost(bytes = "bytes", required, tag = "2")]
    pub raw: Bytes,
    #[prost(string, required, tag = "3")]
    pub content_encoding: String,
    #[prost(string, required, tag = "4")]
    pub content_type: String,
}

impl Unknown {
    /// Around no message yet.
    pub(super) fn of(api_version: &str, kind: &str) -> Self {
        Unknown {
            type_meta: TypeMeta {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            },
            ..Unknown::default()
        }
    }

    /// With what it begins.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(NO_MESSAGE.to_owned());
        };
        if rest.is_empty() {
            return Err("empty body".to_owned());
        }
        Unknown::decode(rest).map_err(|error| error.to_string())
    }
}

/// A message with what stands around an object.
pub fn enveloped(api_version: &str, kind: &str, message: &impl Message) -> Vec<u8> {
    let mut unknown = Unknown::of(api_version, kind);
    unknown.raw = message.encode_to_vec().into();
    let mut bytes = Vec::with_capacity(MAGIC.len() + unknown.encoded_len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&unknown.encode_to_vec());
    bytes
}

/// The message as JSON has it.
///
/// # Errors
/// It is none of the type.
pub(super) fn object<M>(unknown: &Unknown) -> Result<Value, String>
where
    M: Message + Default + Serialize + DeserializeOwned,
{
    let message = M::decode(unknown.raw.clone()).map_err(|error| error.to_string())?;
    let mut object = serde_json::to_value(&message).map_err(|error| error.to_string())?;
    if matches!(
        unknown.type_meta.kind.as_str(),
        "PartialObjectMetadata" | "Scale"
    ) {
        // Leaves out what is empty, as JSON does. A Status has metadata of another type.
        metadata::complete(&mut object)?;
    }
    object["kind"] = json!(unknown.type_meta.kind);
    object["apiVersion"] = json!(unknown.type_meta.api_version);
    Ok(object)
}

/// The key and the length of a field that has a length.
pub(super) fn field(tag: u32, length: usize, bytes: &mut BytesMut) {
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, bytes);
    prost::encoding::encode_varint(length as u64, bytes);
}

/// The length of such a field, with its key.
pub(super) fn field_len(tag: u32, length: usize) -> usize {
    prost::encoding::key_len(tag) + prost::encoding::encoded_len_varint(length as u64) + length
}
