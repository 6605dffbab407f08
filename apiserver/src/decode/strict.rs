//! JSON and YAML readers that keep the last of two equal keys and say so.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Parsed;

/// Parses JSON; the paths of keys given twice are reported (R6.4).
pub fn json(body: &[u8]) -> Result<Parsed, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err("unexpected end of JSON input".to_owned());
    }
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Seed {
        path: String::new(),
        duplicates: &mut duplicates,
    }
    .deserialize(&mut reader)
    .and_then(|value| reader.end().map(|()| value))
    .map_err(|error| error.to_string())?;
    Ok(Parsed { value, duplicates })
}

/// Parses the first document of a YAML stream, with YAML 1.1 booleans (R4.4).
pub fn yaml(body: &[u8]) -> Result<Parsed, String> {
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
    format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map")
}

fn first_document(
    body: &[u8],
    duplicate_keys: serde_saphyr::DuplicateKeyPolicy,
) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        with_snippet: false,
    };
    let documents: Vec<Value> = serde_saphyr::from_slice_multiple_with_options(body, options)?;
    Ok(documents.into_iter().next().unwrap_or(Value::Null))
}

struct Seed<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let seed = Seed {
                path: format!("{}[{}]", self.path, list.len()),
                duplicates: &mut *self.duplicates,
            };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = match self.path.is_empty() {
                true => key.clone(),
                false => format!("{}.{key}", self.path),
            };
            if map.contains_key(&key) {
                let text = format!("duplicate field {path:?}");
                if !self.duplicates.contains(&text) {
                    self.duplicates.push(text);
                }
            }
            let seed = Seed {
                path,
                duplicates: &mut *self.duplicates,
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
    }
}
