//! Frames of watches in protobuf (R3.22, R4.6): four bytes of length, the highest first, and
//! a `WatchEvent`, without an envelope of its own, around an object with one.

use bytes::{BufMut, Bytes, BytesMut};

use super::envelope::{field, field_len};

/// The media type of the stream.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf;stream=watch";

const TYPE: u32 = 1;
const OBJECT: u32 = 2;
/// Of `RawExtension`.
const RAW: u32 = 1;

/// One event; `object` is in its envelope.
pub fn frame(kind: &str, object: &[u8]) -> Bytes {
    let extension = field_len(RAW, object.len());
    let length = field_len(TYPE, kind.len()) + field_len(OBJECT, extension);
    let mut frame = BytesMut::with_capacity(4 + length);
    // An object has at most some MiB.
    frame.put_u32(length as u32);
    field(TYPE, kind.len(), &mut frame);
    frame.extend_from_slice(kind.as_bytes());
    field(OBJECT, extension, &mut frame);
    field(RAW, object.len(), &mut frame);
    frame.extend_from_slice(object);
    frame.freeze()
}
