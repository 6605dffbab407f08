//! A PartialObjectMetadataList that is written piece by piece: before its items stands how
//! long they are together, so that their lengths have to be known beforehand.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::envelope::{MAGIC, Unknown, field, field_len};
use super::meta::{ListMeta, PartialObjectMetadata};

pub(super) const KIND: &str = "PartialObjectMetadataList";
const TYPE_META: u32 = 1;
const RAW: u32 = 2;
pub(super) const METADATA: u32 = 1;
pub(super) const ITEMS: u32 = 2;
/// The fields of [`Unknown`] after the message, both empty.
const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// What stands before the items, which have so many bytes together, and after them.
pub fn around(api_version: &str, metadata: &ListMeta, items: usize) -> (Bytes, Bytes) {
    let of = Unknown::of(api_version, KIND).type_meta.encode_to_vec();
    let metadata = metadata.encode_to_vec();
    let mut head = BytesMut::from(MAGIC);
    field(TYPE_META, of.len(), &mut head);
    head.extend_from_slice(&of);
    field(RAW, field_len(METADATA, metadata.len()) + items, &mut head);
    field(METADATA, metadata.len(), &mut head);
    head.extend_from_slice(&metadata);
    (head.freeze(), Bytes::from_static(TAIL))
}

/// One item, as it stands in the list.
pub fn entry(item: &PartialObjectMetadata) -> Bytes {
    let length = item.encoded_len();
    let mut entry = BytesMut::with_capacity(entry_len(length));
    field(ITEMS, length, &mut entry);
    // A buffer grows.
    let _ = item.encode(&mut entry);
    entry.freeze()
}

/// How long an item is there whose message has this length.
pub fn entry_len(message: usize) -> usize {
    field_len(ITEMS, message)
}
