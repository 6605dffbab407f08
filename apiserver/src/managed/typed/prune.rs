//! An object without some of its fields (R5.18).

use serde_json::{Map, Value};

use super::items;
use crate::managed::path::Element;
use crate::managed::schema::{Fields, Form, List, ListKind, TypeId, Types};
use crate::managed::set::{Node, Set};

impl Types {
    /// The object without the fields of a set. A map or list of which nothing is left is
    /// null; so is one that is owned as a whole, if something in it is removed.
    pub fn without(&self, object: &Value, remove: &Set) -> Value {
        self.rest(self.root(), object, remove)
    }

    fn rest(&self, id: TypeId, value: &Value, remove: &Set) -> Value {
        let kind = self.get(id);
        match (kind.form(value), &kind.map, &kind.list) {
            (Form::Map, Some(map), _) => match value {
                Value::Object(fields) if !map.atomic => self.rest_of_map(map, fields, remove),
                _ => Value::Null,
            },
            (Form::List, _, Some(list)) => match value {
                Value::Array(items) if list.kind != ListKind::Atomic => {
                    self.rest_of_list(list, items, remove)
                }
                _ => Value::Null,
            },
            _ => value.clone(),
        }
    }

    fn rest_of_map(&self, map: &Fields, fields: &Map<String, Value>, remove: &Set) -> Value {
        let mut rest = Map::new();
        for (name, value) in fields {
            let kept = match remove.node(&Element::Field(name.clone())) {
                None => value.clone(),
                Some(node) if node.member => continue,
                Some(node) => match map.field(name) {
                    Some(id) => self.rest(id, value, &node.children),
                    None => value.clone(),
                },
            };
            rest.insert(name.clone(), kept);
        }
        match rest.is_empty() {
            true => Value::Null,
            false => Value::Object(rest),
        }
    }

    fn rest_of_list(&self, list: &List, items: &[Value], remove: &Set) -> Value {
        let mut rest = Vec::with_capacity(items.len());
        for (element, item) in items::elements(&list.kind, items) {
            match remove.node(&element) {
                None => rest.push(item.clone()),
                Some(node) if node.member => {}
                Some(node) => rest.push(self.rest(list.items, item, &node.children)),
            }
        }
        match rest.is_empty() {
            true => Value::Null,
            false => Value::Array(rest),
        }
    }

    /// The set, with every declared field in it that has something below it: so that a
    /// struct goes with its last field.
    pub fn with_named_fields(&self, set: &Set) -> Set {
        self.named_in(Some(self.root()), set)
    }

    fn named_in(&self, id: Option<TypeId>, set: &Set) -> Set {
        let kind = id.map(|id| self.get(id));
        let map = kind.and_then(|kind| kind.map.as_ref());
        let nodes = set.nodes().iter().map(|node| {
            let (below, declared) = match (&node.element, map) {
                (Element::Field(name), Some(map)) => {
                    (map.field(name), map.declared.contains_key(name))
                }
                (Element::Key(_), _) => {
                    let list = kind.and_then(|kind| kind.list.as_ref());
                    (list.map(|list| list.items), false)
                }
                _ => (None, false),
            };
            Node {
                element: node.element.clone(),
                member: node.member || (declared && !node.children.is_empty()),
                children: self.named_in(below, &node.children),
            }
        });
        Set::of(nodes.collect())
    }
}
