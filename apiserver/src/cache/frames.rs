//! Frames of watch events, made once for all watchers who want them in the same form.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::accept::{Encoding, Shape};

/// Bytes of frames that are kept.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// And how many, however small.
const MAX_FRAMES: usize = 4096;

/// Which frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The revision of the change.
    pub revision: u64,
    /// What it is for the watcher: `ADDED`, `MODIFIED`, `DELETED`.
    pub kind: &'static str,
    /// Of the state before the change.
    pub before: bool,
    /// The form of the object in it.
    pub shape: Shape,
    /// How it is written.
    pub encoding: Encoding,
    /// When it was made, in seconds, if ages stand in it; 0 if not.
    pub second: i64,
}

/// The latest of them.
#[derive(Debug, Default)]
pub struct Frames(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Frames {
    /// The frame, made if nobody has made it yet.
    pub fn get(&self, key: Key, make: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(frame) = self.0.lock().by.get(&key) {
            return frame.clone();
        }
        // Others are not held up by it; two may make the same.
        let frame = make();
        let mut kept = self.0.lock();
        if frame.len() <= MAX_BYTES && !kept.by.contains_key(&key) {
            kept.by.insert(key, frame.clone());
            kept.order.push_back(key);
            kept.bytes += frame.len();
            while kept.bytes > MAX_BYTES || kept.order.len() > MAX_FRAMES {
                let oldest = kept.order.pop_front();
                let oldest = oldest.and_then(|key| kept.by.remove(&key));
                kept.bytes -= oldest.map_or(0, |frame| frame.len());
            }
        }
        frame
    }

    /// How many bytes of frames are kept.
    pub fn bytes(&self) -> usize {
        self.0.lock().bytes
    }
}

/// One frame of a watch: the event and a newline (R3.22).
pub fn json(kind: &str, object: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(object.len() + 32);
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(kind.as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    frame.extend_from_slice(object);
    frame.extend_from_slice(b"}\n");
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_made_once_and_the_latest_are_kept() {
        let frames = Frames::default();
        let key = |revision| Key {
            revision,
            kind: "ADDED",
            before: false,
            shape: Shape::Object,
            encoding: Encoding::Json,
            second: 0,
        };
        let mut made = 0;
        let mut ask = |revision, size| {
            frames.get(key(revision), || {
                made += 1;
                Bytes::from(vec![0; size])
            });
            made
        };
        assert_eq!((ask(1, 10), ask(1, 10), ask(2, 10)), (1, 1, 2));
        assert_eq!(ask(3, MAX_BYTES + 1), 3);
        assert_eq!(ask(4, MAX_BYTES), 4);
        assert_eq!((ask(4, 0), ask(1, 10)), (4, 5));
        assert_eq!(frames.bytes(), 10);
    }
}
