//! Whether a value is of its type. The texts are those of Kubernetes.

use std::collections::BTreeSet;
use std::fmt;

use apiservice::told;
use serde_json::Value;

use super::items;
use crate::managed::path::{Element, Place};
use crate::managed::schema::{Fields, Form, List, ListKind, Scalar, TypeId, Types};
use crate::managed::value::{Printed, type_name};

/// As many errors of one value are kept.
const MOST: usize = 100;

/// Whether two items of a list may be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    Allowed,
    Refused,
}

/// What is wrong with a value: few and short texts, however large it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Invalid(Vec<String>);

impl Invalid {
    fn add(&mut self, place: &Place<'_>, why: &str) {
        if self.0.len() < MOST {
            let place = told::short(place, told::MAX_PATH);
            self.0.push(match place.is_empty() {
                true => why.to_owned(),
                false => format!("{place}: {why}"),
            });
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => out.write_str(only),
            all => {
                out.write_str("errors:")?;
                all.iter().try_for_each(|one| write!(out, "\n  {one}"))
            }
        }
    }
}

impl Types {
    /// Whether an object is of the type.
    ///
    /// # Errors
    /// All that is wrong with it, up to a bound.
    pub fn validate(&self, object: &Value, duplicates: Duplicates) -> Result<(), Invalid> {
        let mut walk = Walk {
            types: self,
            duplicates,
            invalid: Invalid::default(),
        };
        walk.value(self.root(), object, &Place::Root);
        match walk.invalid.0.is_empty() {
            true => Ok(()),
            false => Err(walk.invalid),
        }
    }
}

struct Walk<'a> {
    types: &'a Types,
    duplicates: Duplicates,
    invalid: Invalid,
}

impl Walk<'_> {
    fn value(&mut self, id: TypeId, value: &Value, place: &Place<'_>) {
        let types = self.types;
        let kind = types.get(id);
        match (kind.form(value), &kind.map, &kind.list, kind.scalar) {
            (Form::Map, Some(map), ..) => self.map(map, value, place),
            (Form::List, _, Some(list), _) => self.list(list, value, place),
            (_, _, _, Some(scalar)) => {
                if let Some(why) = wrong_scalar(scalar, value) {
                    self.invalid.add(place, &why);
                }
            }
            _ => self
                .invalid
                .add(place, "schema error: invalid atom: inlined"),
        }
    }

    fn map(&mut self, map: &Fields, value: &Value, place: &Place<'_>) {
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => return,
            other => return self.unexpected("map", other, place),
        };
        for (name, value) in fields {
            let element = Element::Field(name.clone());
            let place = Place::In(place, &element);
            match map.field(name) {
                Some(id) => self.value(id, value, &place),
                // The first of a map is told, as by Kubernetes.
                None => return self.invalid.add(&place, "field not declared in schema"),
            }
        }
    }

    fn list(&mut self, list: &List, value: &Value, place: &Place<'_>) {
        let items = match value {
            Value::Array(items) => items,
            Value::Null => return,
            other => return self.unexpected("list", other, place),
        };
        let mut seen = BTreeSet::new();
        for (position, item) in items.iter().enumerate() {
            let element = match list.kind {
                ListKind::Atomic => Ok(Element::Index(position as i64)),
                _ => items::element(&list.kind, item),
            };
            let element = match element {
                Ok(element) => element,
                Err(why) => {
                    let why = format!("element {position}: {why}");
                    return self.invalid.add(place, &why);
                }
            };
            if self.duplicates == Duplicates::Refused && seen.contains(&element) {
                let which = told::short(&element, told::MAX_PATH);
                let why = format!("duplicate entries for key {which}");
                self.invalid.add(place, &why);
            }
            self.value(list.items, item, &Place::In(place, &element));
            if self.duplicates == Duplicates::Refused && list.kind != ListKind::Atomic {
                seen.insert(element);
            }
        }
    }

    fn unexpected(&mut self, wanted: &str, value: &Value, place: &Place<'_>) {
        let value = told::short(Printed::plain(value), told::MAX_TEXT);
        let why = format!("expected {wanted}, got &{{{value}}}");
        self.invalid.add(place, &why);
    }
}

fn wrong_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    let plain = || told::short(Printed::plain(value), told::MAX_TEXT);
    match (scalar, value) {
        (_, Value::Null)
        | (Scalar::Numeric, Value::Number(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Untyped, Value::Bool(_) | Value::Number(_) | Value::String(_)) => None,
        (Scalar::Numeric, _) => Some(format!(
            "expected numeric (int or float), got {}",
            type_name(value)
        )),
        (Scalar::String, _) => {
            let value = told::short(Printed::typed(value), told::MAX_TEXT);
            Some(format!(
                "expected string, got &value.valueUnstructured{{Value:{value}}}"
            ))
        }
        (Scalar::Boolean, _) => Some(format!("expected boolean, got &{{{}}}", plain())),
        (Scalar::Untyped, _) => Some(format!("expected any scalar, got &{{{}}}", plain())),
    }
}
