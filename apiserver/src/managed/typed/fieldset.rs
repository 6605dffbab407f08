//! Which fields an object has: what its applier owns (R5.5).

use std::collections::BTreeMap;

use serde_json::Value;

use super::items;
use crate::managed::path::Element;
use crate::managed::schema::{Fields, Form, List, ListKind, TypeId, Types};
use crate::managed::set::{Node, Set};

/// What an applied value owns: itself, and what is in it.
struct Owned {
    itself: bool,
    children: Set,
}

const ITSELF: Owned = Owned {
    itself: true,
    children: Set::EMPTY,
};

impl Types {
    /// The fields of an object.
    pub fn field_set(&self, object: &Value) -> Set {
        self.fields_of(self.root(), object).children
    }

    fn fields_of(&self, id: TypeId, value: &Value) -> Owned {
        let kind = self.get(id);
        let children = match (kind.form(value), &kind.map, &kind.list) {
            (Form::Map, Some(map), _) if !map.atomic => self.fields_of_map(map, value),
            (Form::List, _, Some(list)) if list.kind != ListKind::Atomic => {
                self.fields_of_list(list, value)
            }
            _ => return ITSELF,
        };
        Owned {
            itself: false,
            children,
        }
    }

    fn fields_of_map(&self, map: &Fields, value: &Value) -> Set {
        let fields = value.as_object().into_iter().flatten();
        let nodes = fields.filter_map(|(name, value)| {
            let owned = self.fields_of(map.field(name)?, value);
            let empty = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
            Some(Node {
                element: Element::Field(name.clone()),
                member: owned.itself || empty || !map.declared.contains_key(name),
                children: owned.children,
            })
        });
        Set::of(nodes.collect())
    }

    /// Each item is owned, and what is in it unless there are several of them: those are
    /// owned together.
    fn fields_of_list(&self, list: &List, value: &Value) -> Set {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        let mut all: BTreeMap<Element, Option<&Value>> = BTreeMap::new();
        for (element, item) in items::elements(&list.kind, items) {
            all.entry(element)
                .and_modify(|seen| *seen = None)
                .or_insert(Some(item));
        }
        let nodes = all.into_iter().map(|(element, item)| Node {
            element,
            member: true,
            children: item.map_or(Set::EMPTY, |item| self.fields_of(list.items, item).children),
        });
        Set::of(nodes.collect())
    }
}
