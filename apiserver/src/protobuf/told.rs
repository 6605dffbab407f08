//! Answers of this server as JSON, for events of audit.
//!
//! # Guarantees
//! No tree of values is made that is heavier than [`weight::BODY_TREE`], however long the answer
//! is: a list is written item by item, and what is too large for that is not read.

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Value, json};

use super::envelope::{MOST, TypeMeta, Unknown, object};
use super::list;
use super::meta::{ListMeta, PartialObjectMetadata};
use super::scale::Scale;
use super::status::Status;
use crate::object::{metadata, weight};

/// What the values may take of which an answer consists, for each of its bytes. That is less
/// than [`super::WEIGHT`], for clients send what they like: of an owner our encoder writes all
/// that is no pointer, ten bytes at least, and what takes two, a finalizer, becomes no map.
const WEIGHT: usize = 288;
const ITEM: &str = "PartialObjectMetadata";

/// Why an answer is not written as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// It is none of this server.
    Unreadable,
    /// Its values would take too much memory, or it is longer than it may be.
    TooMuch,
}

/// An answer as JSON on one line, of not many more than `most` bytes.
///
/// # Errors
/// See [`Untold`].
pub fn json(bytes: &[u8], most: usize) -> Result<String, Untold> {
    let unknown = Unknown::read(bytes).map_err(|_| Untold::Unreadable)?;
    let kind = unknown.type_meta.kind.as_str();
    if kind == list::KIND {
        return items(&unknown, most);
    }
    weigh(unknown.raw.len())?;
    let object = match kind {
        ITEM => object::<PartialObjectMetadata>(&unknown),
        "Status" => object::<Status>(&unknown),
        "Scale" => object::<Scale>(&unknown),
        _ => return Err(Untold::Unreadable),
    };
    let object = object.map_err(|_| Untold::Unreadable)?;
    Ok(object.to_string())
}

/// Whether the values of a message of so many bytes may be made. What a client may send in
/// any case may come back.
fn weigh(bytes: usize) -> Result<(), Untold> {
    match bytes <= MOST || bytes.saturating_mul(WEIGHT) <= weight::BODY_TREE {
        true => Ok(()),
        false => Err(Untold::TooMuch),
    }
}

/// A list, item by item.
fn items(unknown: &Unknown, most: usize) -> Result<String, Untold> {
    let TypeMeta { api_version, kind } = &unknown.type_meta;
    let mut meta = ListMeta::default();
    let mut text = format!("{{\"apiVersion\":{},\"items\":[", json!(api_version));
    let (mut rest, mut first) = (unknown.raw.clone(), true);
    while let Some((tag, message)) = next(&mut rest)? {
        weigh(message.len())?;
        match tag {
            list::METADATA => meta = decoded(message)?,
            list::ITEMS => {
                if !first {
                    text.push(',');
                }
                first = false;
                text.push_str(&item(message, api_version)?);
            }
            _ => {}
        }
        if text.len() > most {
            return Err(Untold::TooMuch);
        }
    }
    let meta = serde_json::to_string(&meta).map_err(|_| Untold::Unreadable)?;
    text.push_str(&format!("],\"kind\":{},\"metadata\":{meta}}}", json!(kind)));
    Ok(text)
}

/// The next field that has a length, with its number.
fn next(rest: &mut Bytes) -> Result<Option<(u32, Bytes)>, Untold> {
    let unreadable = |_| Untold::Unreadable;
    while rest.has_remaining() {
        let (tag, wire) = decode_key(rest).map_err(unreadable)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, tag, rest, DecodeContext::default()).map_err(unreadable)?;
            continue;
        }
        let length = decode_varint(rest).map_err(unreadable)?;
        return match usize::try_from(length) {
            Ok(length) if length <= rest.len() => Ok(Some((tag, rest.split_to(length)))),
            _ => Err(Untold::Unreadable),
        };
    }
    Ok(None)
}

fn decoded<M: Message + Default>(message: Bytes) -> Result<M, Untold> {
    M::decode(message).map_err(|_| Untold::Unreadable)
}

/// One item as JSON.
fn item(message: Bytes, api_version: &str) -> Result<String, Untold> {
    let message: PartialObjectMetadata = decoded(message)?;
    let mut item = serde_json::to_value(&message).map_err(|_| Untold::Unreadable)?;
    drop(message);
    item["kind"] = Value::from(ITEM);
    item["apiVersion"] = Value::from(api_version);
    // Leaves out what is empty, as JSON does.
    metadata::complete(&mut item).map_err(|_| Untold::Unreadable)?;
    Ok(item.to_string())
}
