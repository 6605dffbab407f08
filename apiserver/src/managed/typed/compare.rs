//! What is different between two objects (R5.6).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::items;
use crate::managed::path::Element;
use crate::managed::schema::{Fields, Form, List, ListKind, TypeId, Types};
use crate::managed::set::{Node, Set};
use crate::managed::value;

/// The fields in which two objects differ.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Only the first has them.
    pub removed: Set,
    /// Both have them, with other values.
    pub modified: Set,
    /// Only the second has them.
    pub added: Set,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Without those in a set or below it.
    pub fn without(self, ignored: &Set) -> Self {
        Self {
            removed: self.removed.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            added: self.added.recursive_difference(ignored),
        }
    }
}

/// The changes at a place and below it, while they are gathered.
#[derive(Default)]
struct Here {
    removed: Side,
    modified: Side,
    added: Side,
}

#[derive(Default)]
struct Side {
    itself: bool,
    nodes: Vec<Node>,
}

impl Side {
    fn take(&mut self, element: &Element, below: Side) {
        if below.itself || !below.nodes.is_empty() {
            self.nodes.push(Node {
                element: element.clone(),
                member: below.itself,
                children: Set::of(below.nodes),
            });
        }
    }
}

impl Here {
    fn take(&mut self, element: &Element, below: Here) {
        self.removed.take(element, below.removed);
        self.modified.take(element, below.modified);
        self.added.take(element, below.added);
    }
}

/// Two values of which one at least is there.
type Pair<'a> = (Option<&'a Value>, Option<&'a Value>);

impl Types {
    /// The changes from one object to another.
    pub fn compare(&self, before: &Value, after: &Value) -> Changes {
        let mut here = Here::default();
        self.compared(self.root(), (Some(before), Some(after)), &mut here);
        Changes {
            removed: Set::of(here.removed.nodes),
            modified: Set::of(here.modified.nodes),
            added: Set::of(here.added.nodes),
        }
    }

    fn compared(&self, id: TypeId, pair: Pair<'_>, here: &mut Here) {
        let kind = self.get(id);
        let form = |value: &Value| kind.form_of(value);
        let first = || kind.first_form();
        let is_leaf = match pair {
            (Some(before), Some(after)) if form(before) != form(after) => {
                let before = self.compared_as(id, form(before).unwrap_or_else(first), pair, here);
                let after = self.compared_as(id, form(after).unwrap_or_else(first), pair, here);
                before || after
            }
            (Some(value), None) | (_, Some(value)) => {
                self.compared_as(id, kind.form(value), pair, here)
            }
            (None, None) => return,
        };
        if !is_leaf {
            here.added.itself |= pair.0.is_none();
            here.removed.itself |= pair.1.is_none();
        }
    }

    /// Says whether it was compared in one piece.
    fn compared_as(&self, id: TypeId, form: Form, pair: Pair<'_>, here: &mut Here) -> bool {
        let kind = self.get(id);
        match (form, &kind.map, &kind.list) {
            (Form::Map, Some(map), _) => {
                let of = |value: Option<&'_ Value>| {
                    value
                        .and_then(Value::as_object)
                        .is_some_and(|map| !map.is_empty())
                };
                if map.atomic || !(of(pair.0) || of(pair.1)) {
                    return leaf(pair, here);
                }
                self.compared_maps(map, pair, here);
            }
            (Form::List, _, Some(list)) => {
                let of = |value: Option<&'_ Value>| {
                    value
                        .and_then(Value::as_array)
                        .is_some_and(|list| !list.is_empty())
                };
                if list.kind == ListKind::Atomic || !(of(pair.0) || of(pair.1)) {
                    return leaf(pair, here);
                }
                self.compared_lists(list, pair, here);
            }
            _ => return leaf(pair, here),
        }
        false
    }

    fn compared_maps(&self, map: &Fields, (before, after): Pair<'_>, here: &mut Here) {
        let empty = Map::new();
        let before = before.and_then(Value::as_object).unwrap_or(&empty);
        let after = after.and_then(Value::as_object).unwrap_or(&empty);
        let mut one = |name: &String, pair: Pair<'_>| {
            let Some(id) = map.field(name) else { return };
            if let (Some(Value::String(a)), Some(Value::String(b))) = pair
                && a == b
            {
                return;
            }
            let mut below = Here::default();
            self.compared(id, pair, &mut below);
            if !below.is_nothing() {
                here.take(&Element::Field(name.clone()), below);
            }
        };
        for (name, value) in before {
            one(name, (Some(value), after.get(name)));
        }
        for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            one(name, (None, Some(value)));
        }
    }

    fn compared_lists(&self, list: &List, (before, after): Pair<'_>, here: &mut Here) {
        let mut all: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (element, item) in items::elements(&list.kind, slice(before)) {
            all.entry(element).or_default().0.push(item);
        }
        for (element, item) in items::elements(&list.kind, slice(after)) {
            all.entry(element).or_default().1.push(item);
        }
        for (element, (before, after)) in &all {
            let mut below = Here::default();
            match (before.as_slice(), after.as_slice()) {
                ([] | [_], [] | [_]) => {
                    let pair = (before.first().copied(), after.first().copied());
                    self.compared(list.items, pair, &mut below);
                }
                // What there are several of is compared in one piece.
                ([_, _, ..], [_, _, ..]) => {
                    let same = before.len() == after.len()
                        && before.iter().zip(after).all(|(a, b)| value::equal(a, b));
                    below.modified.itself = !same;
                }
                ([_, _, ..], _) => {
                    if let Some(after) = after.first() {
                        self.compared(list.items, (None, Some(after)), &mut below);
                    }
                    below.removed.itself = true;
                }
                (_, _) => {
                    if let Some(before) = before.first() {
                        self.compared(list.items, (Some(before), None), &mut below);
                    }
                    below.added.itself = true;
                }
            }
            here.take(element, below);
        }
    }
}

impl Here {
    fn is_nothing(&self) -> bool {
        let nothing = |side: &Side| !side.itself && side.nodes.is_empty();
        nothing(&self.removed) && nothing(&self.modified) && nothing(&self.added)
    }
}

fn slice(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Compared in one piece.
fn leaf(pair: Pair<'_>, here: &mut Here) -> bool {
    match pair {
        (None, _) => here.added.itself = true,
        (_, None) => here.removed.itself = true,
        (Some(before), Some(after)) => {
            here.modified.itself |= !value::equal(before, after);
        }
    }
    true
}
