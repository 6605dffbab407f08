//! The elements of the path to a field (R5.2): a name in a map, an item of a list by its
//! keys or its value, or its position.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

use super::plain;
use super::value::{self, Shown};

/// One step from an object to a field in it.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of a map.
    Field(String),
    /// An item of a list of maps, by its key fields, sorted by their names.
    Key(Vec<(String, Value)>),
    /// An item of a set.
    Value(Value),
    /// An item of a list by its position.
    Index(i64),
}

impl Element {
    /// Reads the key that stands for an element in FieldsV1; nothing for one of a type that
    /// is not known, which is ignored.
    ///
    /// # Errors
    /// The text says what cannot be read.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = text.split_at_checked(2) else {
            return Err("key must be 2 characters long:".to_owned());
        };
        if !kind.ends_with(':') {
            return Err(format!("missing colon: {text}"));
        }
        Ok(Some(match kind {
            "f:" => Self::Field(rest.to_owned()),
            "v:" => Self::Value(plain::value(rest)?),
            "k:" => Self::Key(plain::fields(rest)?),
            "i:" => Self::Index(
                rest.parse()
                    .map_err(|_| format!("strconv.Atoi: parsing {rest:?}: invalid syntax"))?,
            ),
            _ => return Ok(None),
        }))
    }

    /// The key that stands for the element in FieldsV1.
    pub fn serialize(&self) -> String {
        let mut out = String::new();
        match self {
            Self::Field(name) => {
                out.push_str("f:");
                out.push_str(name);
            }
            Self::Key(fields) => {
                out.push_str("k:{");
                for (position, (name, value)) in fields.iter().enumerate() {
                    value::separate(&mut out, position);
                    value::write_text(&mut out, name);
                    out.push(':');
                    value::write_json(&mut out, value);
                }
                out.push('}');
            }
            Self::Value(value) => {
                out.push_str("v:");
                value::write_json(&mut out, value);
            }
            Self::Index(position) => out.push_str(&format!("i:{position}")),
        }
        out
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let mut parts = a
                    .iter()
                    .zip(b)
                    .map(|((k, v), (l, w))| k.cmp(l).then_with(|| value::compare(v, w)));
                let first = parts.find(|part| part.is_ne());
                first.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Value(a), Self::Value(b)) => value::compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

/// As messages show it: `.field`, `[name="x",port=80]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(out, ".{name}"),
            Self::Key(fields) => {
                out.write_str("[")?;
                for (position, (name, value)) in fields.iter().enumerate() {
                    if position > 0 {
                        out.write_str(",")?;
                    }
                    write!(out, "{name}={}", Shown(value))?;
                }
                out.write_str("]")
            }
            Self::Value(value) => write!(out, "[={}]", Shown(value)),
            Self::Index(position) => write!(out, "[{position}]"),
        }
    }
}

/// A path while a document is walked: a link to what is around it, so that it is spelled
/// out only where it is told.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// The object itself.
    Root,
    /// An element of what is at a place.
    In(&'a Place<'a>, &'a Element),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::In(around, element) => write!(out, "{around}{element}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// R5.2.
    #[test]
    fn keys_of_fieldsv1_are_read_and_written() {
        for (text, shown) in [
            ("f:metadata", ".metadata"),
            ("f:a.b/c:d", ".a.b/c:d"),
            (r#"k:{"name":"x","port":80}"#, r#"[name="x",port=80]"#),
            (r#"v:"a""#, r#"[="a"]"#),
            ("v:null", "[=null]"),
            ("i:3", "[3]"),
        ] {
            let element = Element::parse(text).unwrap().unwrap();
            assert_eq!(element.serialize(), text);
            assert_eq!(element.to_string(), shown);
        }
        assert_eq!(Element::parse("x:1"), Ok(None));
        for wrong in ["", "f", "fo", "k:[]", "k:{", "v:", "v:1 2", "v:[1]", "i:x"] {
            assert!(Element::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// R5.2.
    #[test]
    fn elements_have_one_order() {
        let key = |value| Element::Key(vec![("port".to_owned(), value)]);
        let sorted = [
            Element::Field("a".to_owned()),
            Element::Field("b".to_owned()),
            key(json!(9)),
            key(json!(10)),
            key(json!("1")),
            Element::Value(json!(2)),
            Element::Value(json!("a")),
            Element::Index(0),
        ];
        assert!(sorted.is_sorted());
    }
}
