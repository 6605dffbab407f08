//! Keys and values as kine v0.16.4 keeps them in a bucket (`pkg/drivers/nats`).
//!
//! A key is a subject below the bucket's own: each part between slashes in Base58, and parts
//! with dots between them. A key without a leading slash, such as kine's own, is below `meta`. A
//! value is JSON with key, value and lease, compressed as an S2 stream. A key ends with two
//! messages: one that says so in its JSON, and a marker of NATS without a value, by its header.
//!
//! The bucket is the tenant's: whatever is read here may be anybody's nonsense.

use std::borrow::Cow;
use std::io::Write as _;

use async_nats::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use snap::write::FrameEncoder;

use crate::tenancy::TenancyError;

mod s2;

/// Bytes of a key, and of a value as JSON, beyond which nothing is read: no API server writes
/// such.
const LONGEST_KEY: usize = 2000;
const LONGEST_VALUE: usize = 12 << 20;
/// Bytes of a key as a subject: a server ends connections whose lines are longer than 4096.
const LONGEST_SUBJECT: usize = 3500;
/// Below it are keys without a leading slash.
const META: &str = "meta";
/// In which kine notes what it has compacted, and takes from it what not to answer for.
pub const COMPACTED: &str = "compact_rev_key_apiserver";
/// The header of markers, and what they say.
const OPERATION: &str = "KV-Operation";
const ENDED: [&str; 2] = ["DEL", "PURGE"];
/// Bytes of a marker that [`marker`] makes: the line of the version, the header's, and one that
/// is empty.
pub const MARKER: usize = 31;

/// Subjects of a tenant's keys, and back.
pub struct Keys {
    /// With a dot at the end.
    below: String,
    /// The same for a writer.
    written: String,
    prefix: String,
}

impl Keys {
    /// Of a bucket, for keys that begin with this and a slash. `place`: the subjects, without
    /// a dot at the end, at which a writer puts what is below the bucket's.
    pub fn new(bucket: &str, prefix: &str, place: Option<&str>) -> Self {
        let own = subject_of(prefix);
        let kept = format!("$KV.{bucket}");
        Keys {
            below: format!("{kept}.{own}."),
            written: format!("{}.{own}.", place.unwrap_or(&kept)),
            prefix: prefix.to_owned(),
        }
    }

    /// The key at a subject, relative to the prefix; `None` if it is none of the tenant's, or
    /// one that kine cannot find, since it looks for it elsewhere.
    ///
    /// # Errors
    /// [`TenancyError::Refused`] for one that is too long or no text.
    pub fn read(&self, subject: &str) -> Result<Option<String>, TenancyError> {
        let Some(rest) = subject.strip_prefix(&self.below) else {
            return Ok(None);
        };
        let begins: String = rest.chars().take(100).collect();
        if rest.len() > LONGEST_SUBJECT {
            return Err(refused(&begins, "more bytes than a key has"));
        }
        let mut key = Vec::new();
        for part in rest.split('.') {
            if part == META {
                // kine passes it over, and has the key without it.
                return Ok(None);
            }
            let Ok(part) = bs58::decode(part).into_vec() else {
                return Ok(None);
            };
            key.push(b'/');
            if part != b"/" {
                key.extend(part);
            }
        }
        if key.len() > LONGEST_KEY {
            return Err(refused(&begins, "more bytes than a key has"));
        }
        let key = String::from_utf8(key).map_err(|_| refused(&begins, "a key that is no text"))?;
        Ok((subject_of(&key) == rest).then_some(key))
    }

    /// Where a relative key stands.
    pub fn stands(&self, key: &str) -> String {
        format!("{}{}", self.below, subject_of(key))
    }

    /// Where a relative key is written.
    ///
    /// # Errors
    /// [`TenancyError::Refused`] for one that does not fit into a subject.
    pub fn write(&self, key: &str) -> Result<String, TenancyError> {
        let subject = format!("{}{}", self.written, subject_of(key));
        match subject.len() > LONGEST_SUBJECT || key.len() > LONGEST_KEY {
            false => Ok(subject),
            true => Err(TenancyError::Refused(format!(
                "the key {:?} does not fit into a subject of NATS, which has {LONGEST_SUBJECT} \
                 bytes at most",
                self.whole(key)
            ))),
        }
    }

    /// As kine's clients name it.
    pub fn whole(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

fn refused(subject: &str, what: &str) -> TenancyError {
    TenancyError::Refused(format!(
        "the tenant's bucket has at {subject:?} {what}, which no API server writes: delete it"
    ))
}

/// The part of a subject that is a key.
fn subject_of(key: &str) -> String {
    let (meta, rest) = match key.strip_prefix('/') {
        Some(rest) => (None, rest),
        None => (Some(META.to_owned()), key),
    };
    let parts = rest.split('/').map(|part| match part {
        "" => bs58::encode("/").into_string(),
        part => bs58::encode(part).into_string(),
    });
    meta.into_iter().chain(parts).collect::<Vec<_>>().join(".")
}

/// Below which subjects a key of kine's own is, or of ours.
pub fn apart(place: &str, key: &str) -> String {
    format!("{place}.{}", subject_of(key))
}

/// The headers of a message that ends a key.
pub fn marker() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(OPERATION, ENDED[0]);
    headers
}

/// The headers of a message that takes the place of all before it with its subject. `ends`: its
/// key is gone.
pub fn replacing(ends: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    if ends {
        headers.insert(OPERATION, ENDED[1]);
    }
    headers
}

/// Whether a message is a marker.
pub fn ends(headers: Option<&HeaderMap>) -> bool {
    let said = headers.and_then(|headers| headers.get(OPERATION));
    said.is_some_and(|said| ENDED.contains(&said.as_str()))
}

/// The same of headers as a server writes them.
pub fn is_marker(headers: &str) -> bool {
    let said = headers.lines().filter_map(|line| line.split_once(':'));
    let mut said = said.filter(|(name, _)| *name == OPERATION);
    said.any(|(_, what)| ENDED.contains(&what.trim()))
}

/// A value as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Value {
    /// As the API server wrote it.
    pub value: Bytes,
    /// Seconds for which it was to be kept, if not for ever.
    pub lease: Option<u64>,
}

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(rename = "KV", borrow)]
    kv: Pair<'a>,
    #[serde(rename = "Delete", default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct Pair<'a> {
    #[serde(rename = "Value", borrow, default)]
    value: Option<Cow<'a, str>>,
    #[serde(rename = "Lease", default)]
    lease: i64,
}

/// What the message says that is the last of its key; `None`: that it is gone.
///
/// # Errors
/// A sentence's end about one that kine has not written.
pub fn read(payload: &[u8]) -> Result<Option<Value>, String> {
    let json = s2::read(payload, LONGEST_VALUE)?;
    let stored: Stored = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    if stored.deleted {
        return Ok(None);
    }
    let value = stored.kv.value.unwrap_or_default();
    let value = STANDARD.decode(value.as_bytes());
    Ok(Some(Value {
        value: value.map_err(|error| error.to_string())?.into(),
        lease: u64::try_from(stored.kv.lease).ok().filter(|it| *it > 0),
    }))
}

/// The message with which a key begins.
///
/// # Errors
/// [`TenancyError::Other`] if memory cannot be written.
pub fn write(key: &str, value: &[u8], lease: u64) -> Result<Vec<u8>, TenancyError> {
    let stored = json!({
        "KV": {
            "Key": key,
            "Value": STANDARD.encode(value),
            "Version": 0,
            "CreateRevision": 0,
            "ModRevision": 0,
            "Lease": i64::try_from(lease).unwrap_or(i64::MAX),
        },
        "PrevRevision": 0,
        "Create": true,
        "Delete": false,
    });
    // Snappy, which whoever reads S2 reads.
    let mut encoder = FrameEncoder::new(Vec::new());
    let failed = |error: String| TenancyError::Other(format!("compress a value: {error}"));
    let all = encoder.write_all(stored.to_string().as_bytes());
    all.map_err(|error| failed(error.to_string()))?;
    let written = encoder.into_inner();
    written.map_err(|error| failed(error.to_string()))
}

/// What [`COMPACTED`] has as its value.
pub fn compacted(revision: u64) -> String {
    format!("1|{revision}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Subjects that kine's own tests have.
    #[test]
    fn keys_are_subjects_and_back() {
        let keys = Keys::new("b", "/registry", Some("_in"));
        for key in ["/a", "/pods/default/x", "/a//b", "/a/", "/ü/.."] {
            let subject = keys.stands(key);
            assert!(subject.starts_with("$KV.b."), "{subject}");
            assert_eq!(keys.read(&subject).unwrap().as_deref(), Some(key));
            let written = keys.write(key).unwrap();
            assert_eq!(written.replacen("_in", "$KV.b", 1), subject);
        }
        assert_eq!(subject_of("/a.b/c"), "ZeF3.2i");
        assert_eq!(subject_of("/a/*/a/"), "2g.j.2g.p");
        assert_eq!(
            subject_of("compact_rev_key_apiserver").split('.').count(),
            2
        );
        assert!(subject_of("compact_rev_key_apiserver").starts_with("meta."));
    }

    #[test]
    fn subjects_that_are_no_keys() {
        let keys = Keys::new("b", "/registry", None);
        let own = keys.stands("/a");
        let below = own.rsplit_once('.').unwrap().0.to_owned();
        for other in [
            "$KV.b.meta.2d".to_owned(),
            below.clone(),
            format!("{below}.0OIl"),
            format!("{below}."),
            format!("{below}.meta.2g"),
            // A slash within a part.
            format!("{below}.{}", bs58::encode("a/b").into_string()),
        ] {
            assert_eq!(keys.read(&other), Ok(None), "{other}");
        }
        for bad in [
            format!("{below}.{}", bs58::encode([0xff, 0xfe]).into_string()),
            format!("{below}.{}", "2".repeat(4000)),
            keys.stands(&format!("/{}", "x".repeat(2100))),
        ] {
            let read = keys.read(&bad);
            assert!(matches!(read, Err(TenancyError::Refused(_))), "{read:?}");
        }
        assert!(keys.write(&format!("/{}", "x".repeat(2600))).is_err());
    }

    #[test]
    fn values_are_written_and_read() {
        for (value, lease) in [(&b"k8s\0..."[..], 0), (&[7; 300_000], 600), (b"", 1)] {
            let written = write("/registry/a", value, lease).unwrap();
            let read = read(&written).unwrap().unwrap();
            assert_eq!(read.value, value);
            assert_eq!(read.lease, (lease > 0).then_some(lease));
        }
    }

    /// What kine itself writes is read in `tests/moving`.
    #[test]
    fn values_that_say_little_and_too_little() {
        let stored = |json: &str| {
            let mut encoder = FrameEncoder::new(Vec::new());
            encoder.write_all(json.as_bytes()).unwrap();
            read(&encoder.into_inner().unwrap())
        };
        assert_eq!(stored(r#"{"KV":{"Key":"/a"},"Delete":true}"#), Ok(None));
        let empty = stored(r#"{"KV":{"Key":"/a","Value":null,"Lease":-1}}"#);
        let none = Value {
            value: Bytes::new(),
            lease: None,
        };
        assert_eq!(empty, Ok(Some(none)));
        for bad in [
            "",
            "{}",
            r#"{"KV":null}"#,
            r#"{"KV":{"Value":"?"}}"#,
            r#"{"KV":{"Value":7}}"#,
            "[",
        ] {
            assert!(stored(bad).is_err(), "{bad}");
        }
        assert!(read(b"").is_err() && read(b"x").is_err());
    }

    #[test]
    fn a_marker_is_as_long_as_it_says() {
        let line = format!("NATS/1.0\r\n{OPERATION}: {}\r\n\r\n", ENDED[0]);
        assert_eq!(line.len(), MARKER);
        assert!(ends(Some(&marker())) && ends(Some(&replacing(true))));
        assert!(!ends(Some(&replacing(false))) && !ends(None));
        assert!(is_marker(&line) && !is_marker("NATS/1.0\r\nX: DEL\r\n\r\n") && !is_marker(""));
    }
}
