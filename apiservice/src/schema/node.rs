//! A schema in the form that the walkers read.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::format::Format;
use crate::field::Path;
use crate::number;

/// What values a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// Any value (`x-kubernetes-preserve-unknown-fields` without a type).
    Any,
}

impl Kind {
    /// As messages name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
            Self::Any => "",
        }
    }

    /// Whether a value, which is not null, is of this kind.
    pub(super) fn takes(self, value: &Value) -> bool {
        match self {
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::String => value.is_string(),
            Self::Integer => is_integer(value),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::IntOrString => value.is_string() || is_integer(value),
            Self::Any => true,
        }
    }
}

/// JSON has one type of numbers: 2.0 is an integer as well.
fn is_integer(value: &Value) -> bool {
    matches!(value, Value::Number(number) if number::integer(number).is_some())
}

/// How the elements of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// A compiled pattern, with the text that messages show.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) text: String,
    pub(super) regex: Regex,
}

/// One node of a schema.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) nullable: bool,
    pub(super) properties: BTreeMap<String, Node>,
    pub(super) additional: Option<Box<Node>>,
    pub(super) items: Option<Box<Node>>,
    pub(super) required: Vec<String>,
    /// An int-or-string that says so in `anyOf` as well.
    pub(super) alternatives: bool,
    /// Unknown fields stay.
    pub(super) preserve: bool,
    pub(super) default: Option<Value>,
    pub(super) allowed: Vec<Value>,
    pub(super) minimum: Option<i64>,
    pub(super) maximum: Option<i64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) pattern: Option<Pattern>,
    pub(super) format: Option<Format>,
    pub(super) list_type: ListType,
}

impl Node {
    pub(super) fn compile(schema: &Value, path: &Path) -> Result<Self, String> {
        let Value::Object(schema) = schema else {
            return Err(format!("{path}: is not a schema"));
        };
        let flag = |keyword: &str| schema.get(keyword) == Some(&Value::Bool(true));
        let preserve = flag("x-kubernetes-preserve-unknown-fields");
        let count = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let bound = |keyword: &str| {
            let value = schema.get(keyword)?;
            // Bounds of ours are whole numbers, though they may be written 1.0.
            value.as_i64().or_else(|| value.as_f64().map(|n| n as i64))
        };
        Ok(Self {
            kind: kind(schema, preserve).ok_or_else(|| format!("{path}: has no type"))?,
            nullable: flag("nullable"),
            properties: match schema.get("properties") {
                Some(Value::Object(properties)) => properties
                    .iter()
                    .map(|(name, schema)| {
                        Ok((name.clone(), Self::compile(schema, &path.child(name))?))
                    })
                    .collect::<Result<_, String>>()?,
                _ => BTreeMap::new(),
            },
            additional: child(schema, "additionalProperties", path)?,
            items: child(schema, "items", path)?,
            required: strings(schema.get("required")),
            alternatives: schema.contains_key("anyOf"),
            preserve,
            default: schema.get("default").cloned(),
            allowed: match schema.get("enum") {
                Some(Value::Array(values)) => values.clone(),
                _ => Vec::new(),
            },
            minimum: bound("minimum"),
            maximum: bound("maximum"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            pattern: match schema.get("pattern").and_then(Value::as_str) {
                Some(text) => Some(Pattern {
                    text: text.to_owned(),
                    regex: Regex::new(text).map_err(|error| format!("{path}: {error}"))?,
                }),
                None => None,
            },
            format: schema
                .get("format")
                .and_then(Value::as_str)
                .and_then(Format::parse),
            list_type: match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(strings(schema.get("x-kubernetes-list-map-keys"))),
                _ => ListType::Atomic,
            },
        })
    }

    /// The node of a field of an object, by property or as a map's value.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

fn kind(schema: &Map<String, Value>, preserve: bool) -> Option<Kind> {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return Some(Kind::IntOrString);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => Some(Kind::Object),
        Some("array") => Some(Kind::Array),
        Some("string") => Some(Kind::String),
        Some("integer") => Some(Kind::Integer),
        Some("number") => Some(Kind::Number),
        Some("boolean") => Some(Kind::Boolean),
        None if preserve => Some(Kind::Any),
        _ => None,
    }
}

fn child(
    schema: &Map<String, Value>,
    keyword: &str,
    path: &Path,
) -> Result<Option<Box<Node>>, String> {
    schema
        .get(keyword)
        .map(|schema| Ok(Box::new(Node::compile(schema, &path.key("*"))?)))
        .transpose()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .map(|all| {
            all.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default()
}
