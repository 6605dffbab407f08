//! Bodies as events have them: JSON on one line, few enough to be held.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::decode::{self, Media};
use crate::protobuf;
use crate::protobuf::told::{self, Untold};

/// Bytes of one body; of a larger one nothing is kept. The largest request has as many.
pub const MOST: usize = decode::BODY;
/// Bytes of all bodies that are kept for events which are not made yet.
pub(crate) const ALL: usize = 16 * 1024 * 1024;
/// Levels of a body: those that the decoder reads.
const LEVELS: usize = 127;

/// Room for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    bytes: Arc<Semaphore>,
    /// Held while values are made of a message that is not short: they take many times its
    /// length, which is bounded for one and must not be for as many as there are threads. It
    /// is held for no longer than the work takes, and nothing is awaited meanwhile.
    heavy: Arc<Mutex<()>>,
}

/// A body and its room.
#[derive(Clone, Debug)]
pub struct Recorded(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    json: Box<RawValue>,
    _room: OwnedSemaphorePermit,
}

/// Why a body is not in the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It cannot be read, as it could not be by Kubernetes.
    Unreadable,
    /// There is no room: it is too large, or there are too many.
    TooMuch,
}

impl Default for Room {
    fn default() -> Self {
        Room {
            bytes: Arc::new(Semaphore::new(ALL)),
            heavy: Arc::default(),
        }
    }
}

impl Room {
    /// Room for so many bytes, if there is.
    pub fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok().filter(|_| bytes <= MOST)?;
        self.bytes.clone().try_acquire_many_owned(bytes).ok()
    }

    /// A body to be put into an event.
    ///
    /// # Errors
    /// See [`Left`].
    pub fn record(&self, media: Media, body: &[u8], managed: bool) -> Result<Recorded, Left> {
        let json = {
            let heavy = media == Media::Protobuf && body.len() > protobuf::MOST;
            let _alone = heavy.then(|| self.heavy.lock());
            json(media, body)?
        };
        let json = match managed {
            true => json,
            false => without_managed_fields(&json).unwrap_or(json),
        };
        let room = self.take(json.len()).ok_or(Left::TooMuch)?;
        let json = RawValue::from_string(json).map_err(|_| Left::Unreadable)?;
        Ok(Recorded(Arc::new(Kept { json, _room: room })))
    }
}

impl Serialize for Recorded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.json.serialize(serializer)
    }
}

/// What a body says of the object that it is.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What the body of a creation or an update says of itself; nothing if it cannot be read.
pub fn meta(media: Media, body: &[u8]) -> Meta {
    let meta = match media {
        Media::Json => meta_of_json(body),
        Media::Yaml | Media::Either | Media::Protobuf => {
            decode::parse(media, body).ok().and_then(|mut parsed| {
                let metadata = parsed.value.get_mut("metadata")?.take();
                serde_json::from_value(metadata).ok()
            })
        }
    };
    meta.unwrap_or_default()
}

/// No tree is made of the rest. A field that is given twice is what it is given as last, as
/// for the decoder.
fn meta_of_json(body: &[u8]) -> Option<Meta> {
    let object = std::str::from_utf8(body).ok()?;
    let [metadata] = last(object, ["metadata"])?;
    let names = ["name", "namespace", "uid", "resourceVersion"];
    let fields = last(metadata?.get(), names)?.map(|field| match field {
        Some(field) => serde_json::from_str::<Option<String>>(field.get()),
        None => Ok(None),
    });
    let [name, namespace, uid, resource_version] = fields;
    Some(Meta {
        name: name.ok()?,
        namespace: namespace.ok()?,
        uid: uid.ok()?,
        resource_version: resource_version.ok()?,
    })
}

/// Fields of an object, each as it is given last; nothing if it is no object.
fn last<'j, const N: usize>(json: &'j str, names: [&str; N]) -> Option<[Option<&'j RawValue>; N]> {
    struct Fields<'n, const N: usize>([&'n str; N]);
    impl<'j, const N: usize> Visitor<'j> for Fields<'_, N> {
        type Value = [Option<&'j RawValue>; N];

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an object")
        }

        fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = [None; N];
            while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                if let Some(place) = self.0.iter().position(|known| *known == name) {
                    fields[place] = Some(value);
                }
            }
            Ok(fields)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let fields = reader.deserialize_map(Fields(names)).ok()?;
    reader.end().ok().map(|()| fields)
}

/// The document on one line.
fn json(media: Media, body: &[u8]) -> Result<String, Left> {
    let plain = || {
        let raw: &RawValue = serde_json::from_slice(body).ok()?;
        compact(raw.get())
    };
    match media {
        Media::Json => plain().ok_or(Left::Unreadable),
        Media::Yaml => parsed(Media::Yaml, body),
        // What was answered, or what was sent.
        Media::Protobuf => match told::json(body, MOST) {
            Ok(json) => Ok(json),
            Err(Untold::TooMuch) => Err(Left::TooMuch),
            Err(Untold::Unreadable) if body.len() > protobuf::MOST => Err(Left::Unreadable),
            Err(Untold::Unreadable) => parsed(Media::Protobuf, body),
        },
        Media::Either => plain().map_or_else(|| parsed(Media::Yaml, body), Ok),
    }
}

/// What the decoder reads, which makes no tree that is too heavy.
fn parsed(media: Media, body: &[u8]) -> Result<String, Left> {
    match decode::parse(media, body) {
        Ok(parsed) => Ok(parsed.value.to_string()),
        Err(decode::Unreadable::TooMany) => Err(Left::TooMuch),
        Err(_) => Err(Left::Unreadable),
    }
}

/// JSON without space between its parts, if it is not nested too deep.
fn compact(json: &str) -> Option<String> {
    let mut out = String::with_capacity(json.len());
    let (mut text, mut escaped, mut level) = (false, false, 0_usize);
    for c in json.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if text => escaped = true,
            '"' => text = !text,
            _ if text => {}
            ' ' | '\t' | '\n' | '\r' => continue,
            '{' | '[' => level += 1,
            '}' | ']' => level = level.saturating_sub(1),
            _ => {}
        }
        if level > LEVELS {
            return None;
        }
        out.push(c);
    }
    Some(out)
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// An object, a list or a Table without `managedFields`; nothing if there are none. Of a list
/// its items are looked at, and nothing below them: as by Kubernetes, and so that what is
/// nested deeply is not taken apart at each level.
fn without_managed_fields(json: &str) -> Option<String> {
    let mut fields: Fields<'_> = serde_json::from_str(json).ok()?;
    let kind: String = fields
        .get("kind")
        .and_then(|kind| serde_json::from_str(kind.get()).ok())
        .unwrap_or_default();
    let mut changed: Vec<(&str, Box<RawValue>)> = Vec::new();
    changed.extend(metadata(&fields));
    if kind.ends_with("List") {
        changed.extend(entries(&fields, "items", of_object));
    } else if kind == "Table" {
        changed.extend(entries(&fields, "rows", of_row));
    }
    for (key, value) in &changed {
        fields.insert((*key).to_owned(), value);
    }
    (!changed.is_empty()).then(|| serde_json::to_string(&fields).ok())?
}

/// One object, whatever it is.
fn of_object(json: &str) -> Option<String> {
    let mut fields: Fields<'_> = serde_json::from_str(json).ok()?;
    let (key, stripped) = metadata(&fields)?;
    fields.insert(key.to_owned(), &stripped);
    serde_json::to_string(&fields).ok()
}

/// The object of a row of a Table.
fn of_row(json: &str) -> Option<String> {
    let mut row: Fields<'_> = serde_json::from_str(json).ok()?;
    let object = RawValue::from_string(of_object(row.get("object")?.get())?).ok()?;
    row.insert("object".to_owned(), &object);
    serde_json::to_string(&row).ok()
}

/// The metadata of an object without `managedFields`, if it has them.
fn metadata(fields: &Fields<'_>) -> Option<(&'static str, Box<RawValue>)> {
    let key = "metadata";
    let mut metadata: Fields<'_> = serde_json::from_str(fields.get(key)?.get()).ok()?;
    metadata.remove("managedFields")?;
    Some((key, raw(&metadata)?))
}

/// A list with each of its entries made anew, where that can be.
fn entries<'a>(
    fields: &Fields<'_>,
    key: &'a str,
    anew: impl Fn(&str) -> Option<String>,
) -> Option<(&'a str, Box<RawValue>)> {
    let all: Vec<&RawValue> = serde_json::from_str(fields.get(key)?.get()).ok()?;
    let all = all.into_iter().map(|entry| {
        let made = anew(entry.get()).and_then(|made| RawValue::from_string(made).ok());
        made.unwrap_or_else(|| entry.to_owned())
    });
    Some((key, raw(&all.collect::<Vec<_>>())?))
}

fn raw(value: &impl Serialize) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn recorded(media: Media, body: &str, managed: bool) -> Result<String, Left> {
        let recorded = Room::default().record(media, body.as_bytes(), managed)?;
        Ok(serde_json::to_string(&recorded).unwrap())
    }

    /// A line of the log is one line, whatever was sent.
    #[test]
    fn bodies_are_json_on_one_line() {
        let sent = "{\n \"a b\" : [ 1,\t2 ],\r\n \"c\": \"x \\\" \\\\ y\\n\" }";
        let expected = r#"{"a b":[1,2],"c":"x \" \\ y\n"}"#;
        assert_eq!(recorded(Media::Json, sent, true).unwrap(), expected);
        assert_eq!(
            recorded(Media::Yaml, "a: [1, x]\n", true).unwrap(),
            r#"{"a":[1,"x"]}"#
        );
        assert_eq!(
            recorded(Media::Either, "a: 1\n", true).unwrap(),
            r#"{"a":1}"#
        );
        for broken in ["", "{", "{} {}", "\u{1}", "[1,]", "{\"a\":\"\n\"}"] {
            let left = recorded(Media::Json, broken, true);
            assert_eq!(left, Err(Left::Unreadable), "{broken}");
        }
        let deep = |levels| "[".repeat(levels) + &"]".repeat(levels);
        assert!(recorded(Media::Json, &deep(LEVELS), true).is_ok());
        assert_eq!(
            recorded(Media::Json, &deep(LEVELS + 1), true),
            Err(Left::Unreadable)
        );
    }

    /// R9.10: omitManagedFields.
    #[test]
    fn managed_fields_are_left_out_of_objects_lists_and_tables() {
        let object = json!({"kind": "A", "metadata": {"name": "a", "managedFields": [1]}, "spec": {
            "metadata": {"managedFields": [2]},
        }});
        let list =
            json!({"kind": "AList", "metadata": {"resourceVersion": "1"}, "items": [object, 3]});
        let table =
            json!({"kind": "Table", "rows": [{"cells": [], "object": object}, {"cells": [1]}]});
        let mut stripped = object.clone();
        stripped["metadata"] = json!({"name": "a"});
        for (sent, path) in [
            (&object, ""),
            (&list, "/items/0"),
            (&table, "/rows/0/object"),
        ] {
            let mut expected = sent.clone();
            *expected.pointer_mut(path).unwrap() = stripped.clone();
            let text = sent.to_string();
            let read = |managed| -> Value {
                serde_json::from_str(&recorded(Media::Json, &text, managed).unwrap()).unwrap()
            };
            assert_eq!(read(false), expected, "{path}");
            assert_eq!(read(true), *sent, "{path}");
        }
        assert_eq!(recorded(Media::Json, "[1]", false).unwrap(), "[1]");
    }

    /// R9.10: one level, or each of them would be taken apart again by all that are around it.
    #[test]
    fn lists_in_lists_stay_as_they_were_sent() {
        let list = |item: &str| format!(r#"{{"kind":"List","items":[{item}]}}"#);
        let object = r#"{"z":1,"metadata":{"managedFields":[1]},"a":2}"#;
        let inner = list(&list(object));
        let sent = list(&inner);
        let kept: Value =
            serde_json::from_str(&recorded(Media::Json, &sent, false).unwrap()).unwrap();
        assert_eq!(
            kept["items"][0],
            serde_json::from_str::<Value>(&inner).unwrap()
        );
        let kept = recorded(Media::Json, &sent, false).unwrap();
        assert!(kept.contains(&inner), "{kept}");
        // What is an item itself loses them, also if it is a list.
        let own = r#"{"kind":"List","metadata":{"managedFields":[1]},"items":[]}"#;
        let kept = recorded(Media::Json, &list(own), false).unwrap();
        assert!(!kept.contains("managedFields"), "{kept}");
    }

    #[test]
    fn a_body_says_what_it_is() {
        let expected = Meta {
            name: Some("a".to_owned()),
            uid: Some("u".to_owned()),
            resource_version: Some("7".to_owned()),
            namespace: None,
        };
        let body = br#"{"metadata":{"name":"a","uid":"u","resourceVersion":"7","labels":{}}}"#;
        assert_eq!(meta(Media::Json, body), expected);
        let body = b"metadata: {name: a, uid: u, resourceVersion: '7'}";
        assert_eq!(meta(Media::Yaml, body), expected);
        // Of what is given twice the last, as for the decoder.
        for body in [
            r#"{"metadata":{"name":"x","name":"a","uid":1,"uid":"u","resourceVersion":"7"}}"#,
            r#"{"metadata":{"name":"x","namespace":"n"},"metadata":{"name":"a","uid":"u","resourceVersion":"7"}}"#,
            r#"{"metadata":1,"m\u0065tadata":{"n\u0061me":"a","uid":"u","resourceVersion":"7"}}"#,
        ] {
            assert_eq!(meta(Media::Json, body.as_bytes()), expected, "{body}");
            let read = decode::parse(Media::Json, body.as_bytes()).unwrap().value;
            assert_eq!(read["metadata"]["name"], "a", "{body}");
            assert_eq!(read["metadata"].get("namespace"), None, "{body}");
        }
        for none in [
            "",
            "[]",
            r#"{"metadata":null}"#,
            r#"{"metadata":{"name":1}}"#,
            r#"{"metadata":{"name":"a"}} {}"#,
            r#"{"metadata":{"name":"a"}, "spec": }"#,
            r#"{"metadata":{"name":"a"},"metadata":null}"#,
        ] {
            assert_eq!(
                meta(Media::Json, none.as_bytes()),
                Meta::default(),
                "{none}"
            );
        }
    }

    #[test]
    fn bodies_are_bounded_one_by_one_and_together() {
        let room = Room::default();
        let body = |bytes| format!("{:?}", "x".repeat(bytes - 2));
        let record = |bytes| room.record(Media::Json, body(bytes).as_bytes(), true);
        assert_eq!(record(MOST + 1).map(drop), Err(Left::TooMuch));
        let kept: Vec<_> = std::iter::from_fn(|| record(MOST).ok()).collect();
        assert_eq!(kept.len(), ALL / MOST);
        assert_eq!(record(MOST).map(drop), Err(Left::TooMuch));
        drop(kept);
        assert!(record(MOST).is_ok());
    }
}
