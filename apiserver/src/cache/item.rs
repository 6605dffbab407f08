//! Objects and their changes as they go over the wire.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use apiservice::Resource;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use storage::{Change, Entry};

use crate::accept::MetaVersion;
use crate::live_bytes::{Keeps, Live, Share};
use crate::object;
use crate::protobuf;
use crate::protobuf::meta::{ObjectMeta, PartialObjectMetadata};
use crate::selector::Selector;
use crate::status::Failure;
use crate::stored;

use super::frames;
use super::labels::{Labels, write};

/// An object at one revision, as it goes over the wire, with what selectors ask.
#[derive(Debug)]
pub struct Item {
    /// Empty for a cluster-scoped object.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where those are that label selectors look at.
    labels: Labels,
    /// Its resourceVersion.
    pub revision: u64,
    /// JSON with its resourceVersion, without a newline; counted as alive.
    pub encoded: Bytes,
    /// How often it is held by whom its bytes are counted: by the cache, as what is and in
    /// events.
    cached: AtomicUsize,
    /// Length of its metadata as a message, once it was asked for; no such message is empty.
    message: AtomicU32,
}

/// An item that the cache holds.
#[derive(Debug)]
pub struct Cached(Arc<Item>);

impl Cached {
    /// This one.
    pub fn new(item: Arc<Item>) -> Self {
        item.cached.fetch_add(1, Ordering::Relaxed);
        Cached(item)
    }
}

impl Deref for Cached {
    type Target = Arc<Item>;

    fn deref(&self) -> &Arc<Item> {
        &self.0
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        self.0.cached.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is left of the items that an answer consists of.
#[derive(Debug, Default)]
pub struct Rest(Mutex<Option<(std::vec::IntoIter<Arc<Item>>, Share)>>);

impl Rest {
    /// All of them; the list itself is counted as alive as well.
    pub fn new(mut items: Vec<Arc<Item>>, live: &Live) -> Self {
        items.shrink_to_fit();
        let share = live.hold(size_of::<Arc<Item>>() * items.len());
        Rest(Mutex::new(Some((items.into_iter(), share))))
    }

    /// The next one.
    pub fn next(&self) -> Option<Arc<Item>> {
        let mut rest = self.0.lock();
        let next = rest.as_mut().and_then(|(items, _)| items.next());
        if next.is_none() {
            *rest = None;
        }
        next
    }
}

impl Keeps for Rest {
    fn bytes(&self) -> usize {
        let rest = self.0.lock();
        let Some((items, share)) = &*rest else {
            return 0;
        };
        let alone = |item: &&Arc<Item>| item.cached.load(Ordering::Relaxed) == 0;
        let items = items.as_slice().iter().filter(alone);
        share.bytes() + items.map(|item| item.encoded.len()).sum::<usize>()
    }
}

impl Item {
    /// From an object that carries its resourceVersion.
    pub fn new(object: &Value, live: &Live) -> Self {
        let (text, labels) = encode(object);
        Self {
            namespace: object::meta(object, "namespace").to_owned(),
            name: object::meta(object, "name").to_owned(),
            labels,
            revision: object::meta(object, "resourceVersion").parse().unwrap_or(0),
            // Without the room that a text has to grow, which would be held as well.
            encoded: live.count(text.into_bytes().into_boxed_slice()),
            cached: AtomicUsize::new(0),
            message: AtomicU32::new(0),
        }
    }

    /// The same, for an answer that counts its bytes by other means.
    pub fn counted(self) -> Self {
        self.cached.fetch_add(1, Ordering::Relaxed);
        self
    }

    /// Whether a selector selects it.
    pub fn is_selected(&self, selector: &Selector) -> bool {
        let label = |key: &str| self.labels.get(&self.encoded, key);
        selector.matches(&self.namespace, &self.name, label)
    }

    /// From what is stored.
    pub fn read(resource: &'static Resource, entry: &Entry, live: &Live) -> Result<Self, Failure> {
        Ok(Self::new(&stored::decode(resource, entry)?, live))
    }

    /// The object.
    pub fn value(&self) -> Value {
        // We wrote these bytes ourselves, from a Value.
        serde_json::from_slice(&self.encoded).unwrap_or_default()
    }

    /// PartialObjectMetadata, without parsing more than necessary.
    pub fn partial(&self, version: MetaVersion) -> Bytes {
        #[derive(Deserialize)]
        struct Meta<'a> {
            #[serde(borrow)]
            metadata: &'a RawValue,
        }
        match serde_json::from_slice::<Meta<'_>>(&self.encoded) {
            Ok(meta) => partial_bytes(meta.metadata.get(), version),
            Err(_) => partial_bytes("{}", version),
        }
    }

    /// PartialObjectMetadata as a message, without parsing more than necessary.
    pub fn message(&self) -> PartialObjectMetadata {
        serde_json::from_slice(&self.encoded).unwrap_or_else(|error| {
            // We wrote these bytes ourselves, from what was checked.
            tracing::error!(%error, name = self.name, "cannot write metadata in protobuf");
            PartialObjectMetadata {
                metadata: ObjectMeta {
                    name: self.name.clone(),
                    namespace: self.namespace.clone(),
                    resource_version: self.revision.to_string(),
                    ..ObjectMeta::default()
                },
            }
        })
    }

    /// The length of that, counted once: a list says it before the message.
    pub fn message_len(&self) -> usize {
        match self.message.load(Ordering::Relaxed) {
            0 => {
                let length = self.message().encoded_len();
                // An object has at most some MiB.
                self.message.store(length as u32, Ordering::Relaxed);
                length
            }
            length => length as usize,
        }
    }

    /// Whether that was counted already.
    pub fn has_message_len(&self) -> bool {
        self.message.load(Ordering::Relaxed) != 0
    }

    /// PartialObjectMetadata in protobuf, with its envelope.
    pub fn partial_protobuf(&self, version: MetaVersion) -> Vec<u8> {
        let message = self.message();
        protobuf::enveloped(version.api_version(), "PartialObjectMetadata", &message)
    }

    /// The same object at another revision: what a watcher sees that is left
    /// by it (R3.24).
    pub fn at(&self, revision: u64, live: &Live) -> Self {
        let mut object = self.value();
        object::set_version(&mut object, revision);
        Self::new(&object, live)
    }
}

/// An object as JSON, and where its labels stand in that.
fn encode(object: &Value) -> (String, Labels) {
    let mut text = String::new();
    let mut labels = Labels::default();
    map(object, &mut text, |field, value, text| {
        if field != "metadata" {
            return write(value, text);
        }
        map(value, text, |field, value, text| match value {
            Value::Object(value) if field == "labels" => labels = Labels::write(value, text),
            _ => write(value, text),
        });
    });
    (text, labels)
}

/// Writes a map whose values are written by `each`; anything else as it is.
fn map(value: &Value, text: &mut String, mut each: impl FnMut(&str, &Value, &mut String)) {
    let Value::Object(fields) = value else {
        return write(value, text);
    };
    let mut open = '{';
    for (field, value) in fields {
        text.push(open);
        open = ',';
        write(&Value::from(field.as_str()), text);
        text.push(':');
        each(field, value, text);
    }
    text.push_str(if fields.is_empty() { "{}" } else { "}" });
}

/// What happened to an object, before selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

impl Kind {
    /// As a watch event says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// Of which resource.
    pub resource: &'static Resource,
    /// The number of the change.
    pub revision: u64,
    /// What happened.
    pub kind: Kind,
    /// For a deletion the last state, at the revision of the deletion.
    pub object: Cached,
    /// The state before, unless it was added.
    pub previous: Option<Cached>,
    frame: OnceLock<Bytes>,
}

impl Event {
    /// The frame for a watcher without selectors, encoded once.
    pub fn frame(&self, live: &Live) -> Bytes {
        let make = || live.count(frames::json(self.kind.as_str(), &self.object.encoded));
        self.frame.get_or_init(make).clone()
    }

    /// Bytes that this event holds: both states, and a frame of the newer one.
    pub fn bytes(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |item| item.encoded.len());
        previous + 2 * self.object.encoded.len()
    }

    /// From a change of the store; `None` for keys of no resource and for the deletion
    /// of what could not be read. `previous` is what is known of the state before,
    /// read from the change if it is not; one that cannot be read was never
    /// shown to anybody, so what follows it is an addition.
    ///
    /// # Errors
    /// The new state cannot be read: the change is left out of the watch.
    pub fn read(
        change: &Change,
        previous: Option<Arc<Item>>,
        live: &Live,
    ) -> Result<Option<Self>, Failure> {
        let Some(resource) = resource_of(change.key()) else {
            return Ok(None);
        };
        let known = |entry: &Entry| match &previous {
            Some(item) if item.revision == entry.modified.0 => Ok(item.clone()),
            _ => Item::read(resource, entry, live).map(Arc::new),
        };
        let (kind, object, previous) = match change {
            Change::Put {
                entry,
                previous: None,
            } => (Kind::Added, Item::read(resource, entry, live)?, None),
            Change::Put {
                entry,
                previous: Some(before),
            } => {
                let item = Item::read(resource, entry, live)?;
                match known(before) {
                    Ok(before) => (Kind::Modified, item, Some(before)),
                    Err(_) => (Kind::Added, item, None),
                }
            }
            Change::Delete {
                previous: before,
                revision,
            } => {
                let Ok(before) = known(before) else {
                    return Ok(None);
                };
                (Kind::Deleted, before.at(revision.0, live), Some(before))
            }
        };
        Ok(Some(Self {
            resource,
            revision: change.revision().0,
            kind,
            object: Cached::new(Arc::new(object)),
            previous: previous.map(Cached::new),
            frame: OnceLock::new(),
        }))
    }
}

/// The resource that a key belongs to.
pub(super) fn resource_of(key: &str) -> Option<&'static Resource> {
    let plural = key.strip_prefix('/')?.split('/').next()?;
    apiservice::find(plural)
}

/// The bytes of PartialObjectMetadata around prepared metadata.
fn partial_bytes(metadata: &str, version: MetaVersion) -> Bytes {
    Bytes::from(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{}\",\"metadata\":{metadata}}}",
        version.api_version()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_written_as_it_always_is() {
        for object in [
            json!({}),
            json!({"metadata": null, "spec": "\"\n"}),
            json!({"metadata": {}, "a\"b": [1, {"c": null}]}),
            json!({"kind": "K", "metadata": {"labels": null, "name": "a"}}),
            json!({"metadata": {"annotations": {"b": "\u{1}"}, "labels": {}}, "status": {}}),
            json!({"metadata": {"labels": {"a": "1", "b\\": "2"}, "uid": "x"}, "spec": {}}),
            json!({"metadata": {"labels": {"a": "1", "b": 2}}, "spec": {"labels": {"a": ""}}}),
        ] {
            assert_eq!(encode(&object).0, object.to_string());
        }
    }
}
