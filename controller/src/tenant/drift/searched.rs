//! The comparison of [`super`] as it would be written without a thought for long lists, each
//! element searched for from the beginning: what is found by looking up is the same.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{ASSOCIATIVE, ATOMIC_MAPS, added, defaults, first, is_zero, reduced, same_scalar};
use crate::cluster::kinds::ObjectKind;

type Found = Option<String>;

fn merge_key(elements: &[Value], list: &str) -> Option<&'static str> {
    let keys = ASSOCIATIVE.iter().filter(|(name, _)| *name == list);
    keys.map(|(_, key)| *key).find(|key| {
        let alone = |it: &Value| {
            let value = it.get(key);
            value.is_some() && elements.iter().filter(|it| it.get(key) == value).count() == 1
        };
        !elements.is_empty() && elements.iter().all(alone)
    })
}

fn joined(path: &[String], name: &str) -> Vec<String> {
    let mut path = path.to_vec();
    path.push(name.to_owned());
    path
}

fn last(path: &[String]) -> &str {
    path.last().map_or("", String::as_str)
}

fn first_by_search(wanted: &Value, live: Option<&Value>, path: &[String]) -> Found {
    let Some(live) = live else {
        return (!is_zero(wanted)).then(|| path.join("."));
    };
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            let whole = ATOMIC_MAPS.contains(&last(path));
            if whole && live.keys().any(|key| !wanted.contains_key(key)) {
                return Some(path.join("."));
            }
            let mut fields = wanted.iter();
            fields
                .find_map(|(key, value)| first_by_search(value, live.get(key), &joined(path, key)))
        }
        (Value::Array(wanted), Value::Array(live)) => {
            if let Some(key) = merge_key(wanted, last(path)) {
                return wanted.iter().find_map(|element| {
                    let id = element.get(key)?;
                    let found = live.iter().find(|it| it.get(key) == Some(id));
                    first_by_search(element, found, &joined(path, &format!("[{key}={id}]")))
                });
            }
            if wanted.len() != live.len() {
                return Some(path.join("."));
            }
            let mut pairs = wanted.iter().zip(live).enumerate();
            pairs.find_map(|(index, (element, live))| {
                first_by_search(element, Some(live), &joined(path, &format!("[{index}]")))
            })
        }
        _ => (!same_scalar(wanted, live, path)).then(|| path.join(".")),
    }
}

/// Of containers and what is in them, where nothing is a default.
fn added_by_search(wanted: Option<&Value>, live: &Value, path: &[String]) -> Found {
    match (wanted, live) {
        (Some(Value::Object(wanted)), Value::Object(live)) => live
            .iter()
            .find_map(|(name, live)| added_by_search(wanted.get(name), live, &joined(path, name))),
        (Some(Value::Array(wanted)), Value::Array(live)) => {
            if let Some(key) = merge_key(wanted, last(path)) {
                return live.iter().enumerate().find_map(|(index, element)| {
                    let id = element.get(key).unwrap_or(&Value::Null);
                    let is_it = |candidate: &&Value| candidate.get(key) == Some(id);
                    let again = live[..index].iter().any(|before| is_it(&before));
                    let found = wanted.iter().find(is_it).filter(|_| !again);
                    let path = joined(path, &format!("[{key}={id}]"));
                    match found {
                        Some(wanted) => added_by_search(Some(wanted), element, &path),
                        None => Some(path.join(".")),
                    }
                });
            }
            let pairs = wanted.iter().zip(live).enumerate();
            let mut pairs = pairs.filter(|_| wanted.len() == live.len());
            pairs.find_map(|(index, (wanted, live))| {
                added_by_search(Some(wanted), live, &joined(path, &format!("[{index}]")))
            })
        }
        (Some(_), _) => None,
        (None, live) => {
            let (name, parents) = path.split_last()?;
            let nobodys =
                defaults::is_kept(parents, name) || defaults::is_default(parents, name, live);
            let nothing = match live {
                Value::Null => true,
                Value::Array(list) => list.is_empty(),
                Value::String(text) => text.is_empty(),
                _ => false,
            };
            (!nobodys && !nothing).then(|| path.join("."))
        }
    }
}

fn kept_by_search(after: &mut Value, before: &Value, path: &[String]) {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            for (name, value) in before {
                match after.get_mut(name) {
                    Some(after) => kept_by_search(after, value, &joined(path, name)),
                    None if defaults::is_kept(path, name) => {
                        after.insert(name.clone(), value.clone());
                    }
                    None => {}
                }
            }
        }
        (Value::Array(after), Value::Array(before)) => {
            let Some(key) = merge_key(after, last(path)) else {
                return;
            };
            for element in after {
                let same = before.iter().find(|it| it.get(key) == element.get(key));
                if let Some(before) = same {
                    kept_by_search(element, before, &joined(path, "[]"));
                }
            }
        }
        _ => {}
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn element(&mut self, depth: u64) -> Value {
        let mut element = Map::new();
        for key in ["name", "mountPath", "containerPort"] {
            let value = match self.below(12) {
                0 => continue,
                1 => Value::Null,
                2 => json!(self.below(2)),
                _ => json!(format!("n{}", self.below(6))),
            };
            element.insert(key.to_owned(), value);
        }
        if self.below(3) == 0 {
            element.insert("value".to_owned(), json!(self.below(2)));
        }
        if self.below(4) == 0 {
            element.insert("nodePort".to_owned(), json!(self.below(3)));
        }
        if depth > 0 {
            for list in ["env", "ports", "volumeMounts", "args"] {
                if self.below(3) > 0 {
                    element.insert(list.to_owned(), self.list(depth - 1));
                }
            }
        }
        Value::Object(element)
    }

    fn list(&mut self, depth: u64) -> Value {
        let many = self.below(5);
        (0..many).map(|_| self.element(depth)).collect()
    }

    /// The same with a few changes.
    fn changed(&mut self, value: &Value) -> Value {
        match value {
            Value::Array(list) => {
                let mut list: Vec<Value> = list.iter().map(|it| self.changed(it)).collect();
                match self.below(8) {
                    0 => list.reverse(),
                    1 => list.extend(list.first().cloned()),
                    2 => list.push(self.element(0)),
                    3 => drop(list.pop()),
                    _ => {}
                }
                list.into()
            }
            Value::Object(fields) => {
                let fields = fields.iter();
                fields
                    .map(|(name, value)| (name.clone(), self.changed(value)))
                    .collect()
            }
            value if self.below(30) == 0 => json!(format!("{value}?")),
            value => value.clone(),
        }
    }
}

fn deployment(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn what_is_looked_up_is_what_a_search_finds() {
    let mut dice = Dice(0x5eed);
    let (mut same, mut other) = (0, 0);
    for round in 0..20_000 {
        let wanted = deployment(dice.list(2));
        let live = dice.changed(&wanted);
        let found = first(&wanted, &live);
        assert_eq!(found, first_by_search(&wanted, Some(&live), &[]), "{round}");
        let more = added(ObjectKind::Deployment, &wanted, &live);
        assert_eq!(
            more,
            added_by_search(Some(&wanted), &live, &[]),
            "{round}: {wanted} {live}"
        );
        let mut kept = wanted.clone();
        kept_by_search(&mut kept, &live, &[]);
        assert_eq!(
            reduced(ObjectKind::Deployment, &wanted, &live),
            kept,
            "{round}"
        );
        match found.or(more) {
            None => same += 1,
            Some(_) => other += 1,
        }
    }
    assert!(same > 1_000 && other > 1_000, "{same} {other}");
}

#[test]
fn long_lists_are_compared_in_little_time() {
    let env = |from: usize| {
        let all = (0..100_000).map(|it| json!({"name": format!("n{}", from + it)}));
        json!([{"name": "c", "env": all.collect::<Vec<_>>()}])
    };
    let (wanted, live) = (deployment(env(0)), deployment(env(1)));
    let started = Instant::now();
    let kind = ObjectKind::Deployment;
    assert_eq!(first(&wanted, &wanted), None);
    assert_eq!(added(kind, &wanted, &wanted), None);
    assert!(first(&wanted, &live).is_some_and(|it| it.ends_with("[name=\"n0\"]")));
    assert!(added(kind, &wanted, &live).is_some_and(|it| it.ends_with("[name=\"n100000\"]")));
    assert_eq!(reduced(kind, &wanted, &live), wanted);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}
