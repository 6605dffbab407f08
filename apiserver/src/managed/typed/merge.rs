//! An applied configuration on top of a live object (R5.7).

use serde_json::{Map, Value};

use super::items;
use crate::managed::path::Element;
use crate::managed::schema::{Fields, Form, List, ListKind, TypeId, Types};

/// A live and an applied value, of which one at least is there.
type Pair<'a> = (Option<&'a Value>, Option<&'a Value>);

impl Types {
    /// The live object with what the configuration says: its leaves win, maps are united,
    /// and items of lists are matched. Both must be of the type, and the configuration
    /// without an item that it has twice.
    pub fn merge(&self, live: &Value, config: &Value) -> Value {
        let merged = self.merged(self.root(), (Some(live), Some(config)));
        merged.unwrap_or(Value::Null)
    }

    fn merged(&self, id: TypeId, pair: Pair<'_>) -> Option<Value> {
        let (live, config) = match pair {
            (Some(live), Some(config)) => (live, config),
            (Some(only), None) | (None, Some(only)) => return Some(only.clone()),
            (None, None) => return None,
        };
        let kind = self.get(id);
        // Where the two have different forms, that of the configuration counts.
        match (kind.form(config), &kind.map, &kind.list) {
            (Form::Map, Some(map), _) if !map.atomic => {
                let fields =
                    |value: &'_ Value| value.as_object().is_some_and(|map| !map.is_empty());
                match fields(live) || fields(config) {
                    true => self.merged_maps(map, live, config),
                    false => Some(config.clone()),
                }
            }
            (Form::List, _, Some(list)) if list.kind != ListKind::Atomic => {
                let items =
                    |value: &'_ Value| value.as_array().is_some_and(|list| !list.is_empty());
                match items(live) || items(config) {
                    true => self.merged_lists(list, live, config),
                    false => Some(config.clone()),
                }
            }
            _ => Some(config.clone()),
        }
    }

    fn merged_maps(&self, map: &Fields, live: &Value, config: &Value) -> Option<Value> {
        let empty = Map::new();
        let live = live.as_object().unwrap_or(&empty);
        let config = config.as_object().unwrap_or(&empty);
        let mut merged = Map::new();
        for (name, value) in live {
            let both = match (config.get(name), map.field(name)) {
                (Some(config), Some(id)) => self.merged(id, (Some(value), Some(config))),
                _ => Some(value.clone()),
            };
            if let Some(both) = both {
                merged.insert(name.clone(), both);
            }
        }
        for (name, value) in config.iter().filter(|(name, _)| !live.contains_key(*name)) {
            merged.insert(name.clone(), value.clone());
        }
        (!merged.is_empty()).then_some(Value::Object(merged))
    }

    /// The items of the configuration keep their order; those that only the live list has
    /// stay where they are as far as that allows.
    fn merged_lists(&self, list: &List, live: &Value, config: &Value) -> Option<Value> {
        let live = Items::of(list, live);
        let config = Items::of(list, config);
        let order = order(&live, &config);
        let merged = order.into_iter().filter_map(|next| {
            let pair = match next {
                Next::Live(position) => (Some(live.all[position].1), None),
                Next::Config(position) => {
                    let (element, item) = &config.all[position];
                    (live.matching(element), Some(*item))
                }
            };
            self.merged(list.items, pair)
        });
        let merged: Vec<Value> = merged.collect();
        (!merged.is_empty()).then_some(Value::Array(merged))
    }
}

/// What an item is merged with that is there several times: none of them.
static SEVERAL: Value = Value::Null;

/// The items of one list, in order and by their elements.
struct Items<'a> {
    all: Vec<(Element, &'a Value)>,
    /// The positions of the elements, sorted by them.
    sorted: Vec<usize>,
}

impl<'a> Items<'a> {
    fn of(list: &List, value: &'a Value) -> Self {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        let all: Vec<(Element, &Value)> = items::elements(&list.kind, items).collect();
        let mut sorted: Vec<usize> = (0..all.len()).collect();
        sorted.sort_by(|a, b| all[*a].0.cmp(&all[*b].0));
        Self { all, sorted }
    }

    /// The positions of an element in the list.
    fn positions(&self, element: &Element) -> &[usize] {
        let at = |bound: &dyn Fn(&Element) -> bool| {
            self.sorted
                .partition_point(|position| bound(&self.all[*position].0))
        };
        &self.sorted[at(&|other| other < element)..at(&|other| other <= element)]
    }

    fn position(&self, element: &Element) -> Option<usize> {
        self.positions(element).first().copied()
    }

    fn matching(&self, element: &Element) -> Option<&'a Value> {
        match self.positions(element) {
            [] => None,
            [only] => Some(self.all[*only].1),
            _ => Some(&SEVERAL),
        }
    }
}

/// The next item of a merged list.
#[derive(Debug, PartialEq)]
enum Next {
    /// One that only the live list has, by its position there.
    Live(usize),
    /// One of the configuration, merged with that of the live list if it has it.
    Config(usize),
}

/// In which order the items of two lists are merged.
fn order(live: &Items<'_>, config: &Items<'_>) -> Vec<Next> {
    let in_config: Vec<Option<usize>> = live
        .all
        .iter()
        .map(|(element, _)| config.position(element))
        .collect();
    // What both have, in the order of the configuration.
    let shared = (0..config.all.len()).filter(|at| live.position(&config.all[*at].0).is_some());
    let mut shared = shared.peekable();
    let mut done = vec![false; config.all.len()];
    let mut order = Vec::with_capacity(live.all.len() + config.all.len());
    let (mut l, mut c) = (0, 0);
    while l < in_config.len() || c < done.len() {
        let here = in_config.get(l).copied();
        if let (Some(Some(same)), true) = (here, c < done.len()) {
            if same == c {
                done[c] = true;
                order.push(Next::Config(c));
                (l, c) = (l + 1, c + 1);
                shared.next();
                continue;
            }
            if shared.peek().is_some_and(|next| *next != same) {
                // Shared, and not the one whose turn it is.
                l += 1;
                continue;
            }
        }
        match here {
            Some(None) => {
                order.push(Next::Live(l));
                l += 1;
                continue;
            }
            Some(Some(same)) if done[same] => l += 1,
            _ => {}
        }
        if c < done.len() {
            done[c] = true;
            order.push(Next::Config(c));
            if shared.peek() == Some(&c) {
                shared.next();
            }
            c += 1;
        }
    }
    order
}
