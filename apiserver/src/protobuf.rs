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
pub mod envelope;
pub mod list;
pub mod meta;
pub mod scale;
pub mod status;
pub mod told;
pub mod watch;

use prost::Message;
use serde::Deserialize;
use serde_json::Value;

use self::envelope::object;
pub use self::envelope::{MOST, TypeMeta, Unknown, enveloped};
use self::meta::{DeleteOptions, PartialObjectMetadata};
use self::scale::Scale;
use self::status::Status;

/// The media type of objects.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// What the values may take of which a body consists, for each of its bytes: an empty owner,
/// in two bytes, is a struct, which lists hold thrice while they grow, and a map with four
/// entries.
pub const WEIGHT: usize = 1024;
const _: () = assert!(MOST * WEIGHT < crate::object::weight::BODY_TREE);

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

#[cfg(test)]
mod tests;
