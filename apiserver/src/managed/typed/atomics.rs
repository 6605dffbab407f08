//! Where a configuration has values that are owned as a whole: what it does not say of them
//! would go.

use apiservice::told;
use serde_json::Value;

use crate::managed::path::{Element, Place};
use crate::managed::schema::{Form, ListKind, TypeId, Types};

/// As many are told.
const MOST: usize = 100;

impl Types {
    /// The places of all lists and maps of a configuration that are owned as a whole, up to
    /// a bound.
    pub fn atomics(&self, config: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.find_atomics(self.root(), config, &Place::Root, &mut found);
        found
    }

    fn find_atomics(&self, id: TypeId, value: &Value, place: &Place<'_>, found: &mut Vec<String>) {
        let add = |found: &mut Vec<String>| {
            if found.len() < MOST {
                found.push(told::short(place, told::MAX_PATH));
            }
        };
        let kind = self.get(id);
        match (kind.form(value), value, &kind.map, &kind.list) {
            (Form::Map, Value::Object(fields), Some(map), _) => {
                if map.atomic {
                    add(found);
                }
                for (name, value) in fields {
                    // Of the entries of a map nothing is said.
                    if let Some(id) = map.declared.get(name) {
                        let element = Element::Field(name.clone());
                        self.find_atomics(*id, value, &Place::In(place, &element), found);
                    }
                }
            }
            (Form::List, Value::Array(items), _, Some(list)) => {
                if list.kind == ListKind::Atomic {
                    add(found);
                }
                for (position, item) in items.iter().enumerate() {
                    let element = Element::Index(position as i64);
                    self.find_atomics(list.items, item, &Place::In(place, &element), found);
                }
            }
            _ => {}
        }
    }
}
