//! Scalars in the keys of FieldsV1. What tells items apart is a scalar; lists and maps are
//! refused before they are made, for a key may be as long as a body.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Number, Value};

/// As many fields may tell an item from others.
const MOST: usize = 32;

/// Reads one scalar.
///
/// # Errors
/// The decoder's text.
pub fn value(text: &str) -> Result<Value, String> {
    let plain: Result<Plain, _> = serde_json::from_str(text);
    Ok(plain.map_err(|error| error.to_string())?.0)
}

/// Reads a map of scalars, which is then sorted by its keys.
///
/// # Errors
/// The decoder's text.
pub fn fields(text: &str) -> Result<Vec<(String, Value)>, String> {
    let fields: Result<Fields, _> = serde_json::from_str(text);
    let fields = fields.map_err(|error| error.to_string())?.0;
    Ok(fields.into_iter().collect())
}

struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

impl Visitor<'_> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a scalar")
    }

    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Plain(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
        Ok(Plain(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Plain, E> {
        Ok(Plain(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Plain, E> {
        Ok(Plain(Value::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Plain, E> {
        Ok(Plain(
            Number::from_f64(value).map_or(Value::Null, Value::Number),
        ))
    }

    fn visit_str<E>(self, value: &str) -> Result<Plain, E> {
        Ok(Plain(Value::from(value)))
    }
}

struct Fields(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map of scalars")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, Plain(value))) = entries.next_entry()? {
            if fields.len() == MOST {
                return Err(A::Error::custom("too many fields in a key"));
            }
            fields.insert(name, value);
        }
        Ok(Fields(fields))
    }
}
