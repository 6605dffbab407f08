//! JSON and YAML readers that keep the last of two equal keys and say so.

use std::fmt;

use apiservice::told::{self, Paths, Place};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Parsed, Unreadable};

/// Maps and lists that a body of so many bytes may have. The smallest map takes 632
/// bytes once it is read, and six in the body: what the body is counted for holds only
/// if there are not many of them ([`crate::limits`]). Objects of ours have one for
/// every hundred bytes.
pub(crate) fn most_containers(bytes: usize) -> usize {
    2_000 + bytes / 24
}

/// Parses JSON; the paths of keys given twice are reported (R6.4).
pub fn json(body: &[u8]) -> Result<Parsed, Unreadable> {
    if body.iter().all(u8::is_ascii_whitespace) {
        let text = "unexpected end of JSON input";
        return Err(Unreadable::Syntax(text.to_owned()));
    }
    let mut duplicates = Paths::default();
    let mut left = Some(most_containers(body.len()));
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Seed {
        path: &Place::Root,
        duplicates: &mut duplicates,
        left: &mut left,
    }
    .deserialize(&mut reader)
    .and_then(|value| reader.end().map(|()| value))
    .map_err(|error| match left {
        Some(_) => Unreadable::Syntax(error.to_string()),
        None => Unreadable::TooMany,
    })?;
    Ok(Parsed {
        value,
        duplicates: duplicates.into_vec().iter().map(duplicate_field).collect(),
    })
}

/// Parses the first document of a YAML stream, with YAML 1.1 booleans (R4.4).
pub fn yaml(body: &[u8]) -> Result<Parsed, Unreadable> {
    let parsed = yaml_document(body).map_err(Unreadable::Syntax)?;
    match containers(&parsed.value) > most_containers(body.len()) {
        true => Err(Unreadable::TooMany),
        false => Ok(parsed),
    }
}

/// Maps and lists of a value that is not deep.
pub(crate) fn containers(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(containers).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(containers).sum::<usize>(),
        _ => 0,
    }
}

fn yaml_document(body: &[u8]) -> Result<Parsed, String> {
    use serde_saphyr::DuplicateKeyPolicy::{Error, LastWins};
    match first_document(body, Error) {
        Ok(value) => Ok(Parsed {
            value,
            duplicates: Vec::new(),
        }),
        // Whatever was wrong: if it goes away with the last key winning, it
        // was a key given twice.
        Err(strict) => {
            let value = first_document(body, LastWins).map_err(|error| error.to_string())?;
            Ok(Parsed {
                value,
                duplicates: vec![duplicate_key(&strict)],
            })
        }
    }
}

fn duplicate_key(error: &serde_saphyr::Error) -> String {
    let line = error.location().map_or(0, |location| location.line());
    let key = match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => key.as_str(),
        _ => "",
    };
    let key = told::short(key, told::MAX_PATH);
    format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map")
}

/// What a small YAML document may take in any case.
const SLACK: usize = 4096;

fn first_document(
    body: &[u8],
    duplicate_keys: serde_saphyr::DuplicateKeyPolicy,
) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        with_snippet: false,
        // Aliases repeat what they stand for: what is read must not be much more than
        // what was sent. Texts may be somewhat longer, by escapes and written tags.
        budget: serde_saphyr::budget! {
            max_total_scalar_bytes: 2 * body.len() + SLACK,
            max_recorded_anchor_bytes: 2 * body.len() + SLACK,
            max_recorded_anchor_events: body.len() / 4 + SLACK,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: most_containers(body.len()),
        },
    };
    let documents: Vec<Value> = serde_saphyr::from_slice_multiple_with_options(body, options)?;
    Ok(documents.into_iter().next().unwrap_or(Value::Null))
}

fn duplicate_field(path: &String) -> String {
    format!("duplicate field {path:?}")
}

struct Seed<'a> {
    path: &'a Place<'a>,
    duplicates: &'a mut Paths,
    /// Maps and lists that there may still be; `None` when there were too many.
    left: &'a mut Option<usize>,
}

impl Seed<'_> {
    fn container<E: serde::de::Error>(&mut self) -> Result<(), E> {
        *self.left = self.left.and_then(|left| left.checked_sub(1));
        match self.left {
            Some(_) => Ok(()),
            None => Err(E::custom("too many maps and lists")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.container()?;
        let mut list = Vec::new();
        loop {
            let seed = Seed {
                path: &Place::Index(self.path, list.len()),
                duplicates: &mut *self.duplicates,
                left: &mut *self.left,
            };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        self.container()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let place = Place::Field(self.path, &key);
            if map.contains_key(&key) {
                self.duplicates.add(&place);
            }
            let seed = Seed {
                path: &place,
                duplicates: &mut *self.duplicates,
                left: &mut *self.left,
            };
            let value = entries.next_value_seed(seed)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::MAX_STRICT;
    use serde_json::json;

    #[test]
    fn duplicates_are_found_and_the_last_wins() {
        let parsed =
            json(br#"{"spec":{"a":1,"a":2,"l":[{"x":1,"x":3}]},"n":18446744073709551615}"#)
                .unwrap();
        assert_eq!(parsed.value["spec"]["a"], 2);
        assert_eq!(parsed.value["spec"]["l"][0]["x"], 3);
        assert_eq!(
            parsed.duplicates,
            [
                "duplicate field \"spec.a\"",
                "duplicate field \"spec.l[0].x\""
            ]
        );
        assert!(json(b"").is_err());
        assert!(json(b"{} {}").is_err());
    }

    /// One body of a megabyte that has a duplicate at every element: before the cap
    /// and the set, this took minutes and hundreds of megabytes.
    #[test]
    fn duplicates_are_reported_up_to_the_cap() {
        let body = format!(
            "{{\"k\":[{}]}}",
            vec![r#"{"a":"one","a":2,"b":"three"}"#; 70_000].join(",")
        );
        let parsed = json(body.as_bytes()).unwrap();
        assert_eq!(parsed.duplicates.len(), MAX_STRICT);
        assert_eq!(parsed.duplicates[99], "duplicate field \"k[99].a\"");
        assert_eq!(parsed.value["k"][69_999]["a"], 2);
    }

    /// Six bytes that take a hundred times as much.
    #[test]
    fn a_body_has_no_more_maps_than_it_is_counted_for() {
        let chain = format!("{}0{}", r#"{"":"#.repeat(60), "}".repeat(60));
        let list = |count: usize| format!("[{}]", vec![chain.as_str(); count].join(","));
        assert!(json(list(30).as_bytes()).is_ok());
        let many = list(8_000);
        assert!(matches!(json(many.as_bytes()), Err(Unreadable::TooMany)));
        let yaml_many = format!("[{}]", vec!["{a: {}}"; 20_000].join(", "));
        assert!(matches!(
            yaml(yaml_many.as_bytes()),
            Err(Unreadable::TooMany)
        ));
        let failure = Unreadable::TooMany.or(|_| unreachable!());
        assert_eq!(failure.code().as_u16(), 413);
        assert!(
            failure
                .to_string()
                .starts_with("Request entity too large: ")
        );
        assert!(matches!(json(b"{"), Err(Unreadable::Syntax(_))));
    }

    /// A text that is sent once and stands for a thousand.
    #[test]
    fn aliases_do_not_multiply_a_body() {
        let large = "x".repeat(64 * 1024);
        let mut body = format!("annotations:\n  k: &a {large}\n");
        (0..100).for_each(|n| body += &format!("  d{n}: &d{n} x\n"));
        assert!(yaml(body.as_bytes()).is_ok());
        (0..1_000).for_each(|n| body += &format!("  k{n}: *a\n"));
        assert!(matches!(yaml(body.as_bytes()), Err(Unreadable::Syntax(_))));
        let list = vec!["{a: 0}"; 900].join(", ");
        let mut body = format!("a: &a [{list}]\n");
        assert!(yaml(body.as_bytes()).is_ok());
        (0..20).for_each(|n| body += &format!("k{n}: *a\n"));
        assert!(matches!(yaml(body.as_bytes()), Err(Unreadable::Syntax(_))));
        // A few of them are what people write.
        let parsed = yaml(b"a: &a {x: 1, y: [2]}\nb: *a\nc:\n  <<: *a\n  x: 3\n").unwrap();
        assert_eq!(
            parsed.value,
            json!({"a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2]}, "c": {"x": 3, "y": [2]}})
        );
    }

    #[test]
    fn yaml_documents() {
        let parsed = yaml(b"a: yes\nb: 1\nc: 'no'\n---\nd: 1\n").unwrap();
        assert_eq!(parsed.value, json!({"a": true, "b": 1, "c": "no"}));
        assert!(parsed.duplicates.is_empty());
        let parsed = yaml(b"spec:\n  a: 1\n  a: 2\n").unwrap();
        assert_eq!(parsed.value, json!({"spec": {"a": 2}}));
        assert_eq!(
            parsed.duplicates,
            ["yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"]
        );
        assert!(yaml(b"a: [").is_err());
        // Deeper than any stack: an error and not the end of the process.
        for deep in ["[".repeat(500_000), "- ".repeat(500_000)] {
            assert!(yaml(deep.as_bytes()).is_err());
            assert!(json(deep.as_bytes()).is_err());
        }
    }
}
