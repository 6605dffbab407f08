//! Kubernetes' protobuf of what kube-apiserver itself answers in it for custom resources
//! (R4.1, R4.6): metadata, Status, Scale, discovery; and of what it takes: DeleteOptions and
//! Scale.
//!
//! # Shape
//! An object is `k8s\0` and a [`Unknown`]: its apiVersion and kind, and the message of its
//! type. Messages are declared with their field numbers as Rust types ([`meta`], [`status`],
//! [`scale`], [`discovery`]), which are read from and written as JSON too, so that each type
//! stands in one place. Their bytes are those that Kubernetes' own encoder makes: fields in
//! order, and all that are no pointers written, also when they are empty.
//!
//! # Guarantees
//! Reading answers, whatever the bytes are: wire types are checked, unknown fields are
//! skipped, and lengths are compared with what is there before anything is taken for them.
//! What a client sends is [`MOST`] bytes at most.

pub mod discovery;
pub mod list;
pub mod meta;
pub mod scale;
pub mod status;
pub mod told;
pub mod watch;

use bytes::{Bytes, BytesMut};
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::meta::{DeleteOptions, PartialObjectMetadata};
use self::scale::Scale;
use self::status::Status;
use crate::object::metadata;

/// The media type of objects.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// Bytes of a body that is read. DeleteOptions and a Scale have hundreds; two bytes of an
/// owner become a map of values.
pub const MOST: usize = 8 * 1024;
/// What the values may take of which a body consists, for each of its bytes: an empty owner,
/// in two bytes, is a struct, which lists hold thrice while they grow, and a map with four
/// entries.
pub const WEIGHT: usize = 1024;
const _: () = assert!(MOST * WEIGHT < crate::object::weight::BODY_TREE);

/// What every object begins with.
const MAGIC: &[u8] = b"k8s\0";

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
    fn of(api_version: &str, kind: &str) -> Self {
        Unknown {
            type_meta: TypeMeta {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            },
            ..Unknown::default()
        }
    }

    /// With what it begins.
    fn read(bytes: &[u8]) -> Result<Self, String> {
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

/// An object of one of the types that have such a form; nothing for others.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let text = |key: &str| object[key].as_str().unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    match kind {
        "PartialObjectMetadata" => written::<PartialObjectMetadata>(version, kind, object),
        "Status" => written::<Status>(version, kind, object),
        "Scale" => written::<Scale>(version, kind, object),
        "APIGroup" => written::<discovery::ApiGroup>(version, kind, object),
        "APIGroupList" => written::<discovery::ApiGroupList>(version, kind, object),
        "APIResourceList" => written::<discovery::ApiResourceList>(version, kind, object),
        "APIGroupDiscoveryList" => {
            written::<discovery::ApiGroupDiscoveryList>(version, kind, object)
        }
        _ => None,
    }
}

fn written<M>(version: &str, kind: &str, object: &Value) -> Option<Vec<u8>>
where
    M: Message + for<'a> Deserialize<'a>,
{
    let message = M::deserialize(object).ok()?;
    Some(enveloped(version, kind, &message))
}

/// Why a body is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The kind that it says that it has, and the version without the group; both may be
    /// empty.
    pub kind: String,
    pub version: String,
    /// The decoder's text.
    pub text: String,
}

/// An object that a client sent, as JSON has it.
///
/// # Errors
/// For what is no such message, and for objects of other kinds than DeleteOptions and Scale.
pub fn decode(bytes: &[u8]) -> Result<Value, Unreadable> {
    let unreadable = |kind: &str, version: &str, text: String| Unreadable {
        kind: kind.to_owned(),
        version: version.to_owned(),
        text,
    };
    let unknown = Unknown::read(bytes).map_err(|text| unreadable("", "", text))?;
    let TypeMeta { api_version, kind } = &unknown.type_meta;
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let object = match kind.as_str() {
        "DeleteOptions" => object::<DeleteOptions>(&unknown),
        "Scale" => object::<Scale>(&unknown),
        _ => Err(format!(
            "no kind {kind:?} is registered for version {api_version:?}"
        )),
    };
    object.map_err(|text| unreadable(kind, version, text))
}

/// An answer of this server, as JSON has it.
#[cfg(test)]
pub fn answer(bytes: &[u8]) -> Option<Value> {
    let text = told::json(bytes, usize::MAX).ok()?;
    serde_json::from_str(&text).ok()
}

fn object<M>(unknown: &Unknown) -> Result<Value, String>
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
fn field(tag: u32, length: usize, bytes: &mut BytesMut) {
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, bytes);
    prost::encoding::encode_varint(length as u64, bytes);
}

/// The length of such a field, with its key.
fn field_len(tag: u32, length: usize) -> usize {
    prost::encoding::key_len(tag) + prost::encoding::encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests;
