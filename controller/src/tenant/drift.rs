//! Whether a live object still says what we want, without asking the API.
//!
//! A live object holds more than was applied: defaults, status, fields of
//! other owners. So the first question is whether each field that we want is
//! there with our value ([`first`]). Where an object is ours as a whole, as the
//! pods of a Deployment are, the second is whether anything is there that we do
//! not want ([`added`]); [`defaults`] has what the API puts there itself.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

mod added;
mod defaults;
#[cfg(test)]
mod searched;

pub use added::{added, reduced};

/// The path of the first wanted field that the live object lacks or has
/// otherwise, or `None` if everything wanted is there.
pub fn first(wanted: &Value, live: &Value) -> Option<String> {
    walk(wanted, Some(live), &mut Vec::new())
}

/// The lists whose elements are told apart by a field, as Kubernetes merges
/// them; all others are compared whole, so that an added element is drift.
const ASSOCIATIVE: [(&str, &str); 9] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "name"),
    ("ports", "containerPort"),
    ("ownerReferences", "uid"),
];

/// Maps that Kubernetes replaces as a whole, so that an added key is drift.
const ATOMIC_MAPS: [&str; 3] = ["selector", "matchLabels", "nodeSelector"];

fn walk(wanted: &Value, live: Option<&Value>, path: &mut Vec<String>) -> Option<String> {
    let Some(live) = live else {
        // A zero value that the API does not store is the same as none.
        return (!is_zero(wanted)).then(|| path.join("."));
    };
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            let whole = path
                .last()
                .is_some_and(|name| ATOMIC_MAPS.contains(&name.as_str()));
            if whole && live.keys().any(|key| !wanted.contains_key(key)) {
                return Some(path.join("."));
            }
            wanted
                .iter()
                .find_map(|(key, value)| within(path, key, |path| walk(value, live.get(key), path)))
        }
        (Value::Array(wanted), Value::Array(live)) => list(wanted, live, path),
        _ => (!same_scalar(wanted, live, path)).then(|| path.join(".")),
    }
}

fn list(wanted: &[Value], live: &[Value], path: &mut Vec<String>) -> Option<String> {
    if let Some(key) = merge_key(wanted, path.last().map_or("", String::as_str)) {
        let live = by_key(live, key);
        return wanted.iter().find_map(|element| {
            let id = element.get(key)?;
            let found = live.get(id).copied();
            within(path, &format!("[{key}={id}]"), |path| {
                walk(element, found, path)
            })
        });
    }
    if wanted.len() != live.len() {
        return Some(path.join("."));
    }
    wanted
        .iter()
        .zip(live)
        .enumerate()
        .find_map(|(index, (element, live))| {
            within(path, &format!("[{index}]"), |path| {
                walk(element, Some(live), path)
            })
        })
}

/// The field that tells the elements of this list apart, if every element has
/// it, each with another value.
pub fn merge_key(elements: &[Value], list: &str) -> Option<&'static str> {
    let keys = ASSOCIATIVE.iter().filter(|(name, _)| *name == list);
    keys.map(|(_, key)| *key).find(|key| {
        let mut seen: HashSet<&Value> = HashSet::with_capacity(elements.len());
        let mut values = elements.iter().map(|element| element.get(key));
        !elements.is_empty() && values.all(|value| value.is_some_and(|it| seen.insert(it)))
    })
}

/// The elements of a list by what tells them apart, of several with one value the first.
/// Looked up and not searched: users make lists as long as they like.
pub fn by_key<'a>(elements: &'a [Value], key: &str) -> HashMap<&'a Value, &'a Value> {
    let mut found = HashMap::with_capacity(elements.len());
    for element in elements {
        if let Some(value) = element.get(key) {
            found.entry(value).or_insert(element);
        }
    }
    found
}

fn within<T>(path: &mut Vec<String>, key: &str, inner: impl FnOnce(&mut Vec<String>) -> T) -> T {
    path.push(key.to_owned());
    let result = inner(path);
    path.pop();
    result
}

fn same_scalar(wanted: &Value, live: &Value, path: &[String]) -> bool {
    if wanted == live {
        return true;
    }
    let resource = path
        .iter()
        .any(|part| part == "requests" || part == "limits" || part == "sizeLimit");
    resource
        && match (quantity(wanted), quantity(live)) {
            (Some(wanted), Some(live)) => (wanted - live).abs() <= f64::EPSILON * wanted.abs(),
            _ => false,
        }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => empty(fields),
    }
}

/// `{}` is a value to the API (`emptyDir: {}`), but the API also drops empty
/// maps of labels; only maps whose fields are all zero count, and none at all
/// is told apart by the caller's parent.
fn empty(fields: &Map<String, Value>) -> bool {
    fields.values().all(is_zero)
}

/// The number that a quantity stands for (`500m`, `0.5`, `1Gi`): the API
/// rewrites quantities into its own spelling.
fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::String(text) => text.trim(),
        Value::Number(number) => return number.as_f64(),
        _ => return None,
    };
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024f64,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent if exponent.starts_with(['e', 'E']) => return text.parse().ok(),
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::first;
    use serde_json::json;

    #[test]
    fn what_counts_as_drift() {
        let table = [
            (
                "defaults may be added",
                json!({"a": 1}),
                json!({"a": 1, "b": 2}),
                None,
            ),
            (
                "a changed value",
                json!({"a": {"b": 1}}),
                json!({"a": {"b": 2}}),
                Some("a.b"),
            ),
            (
                "a removed value",
                json!({"a": {"b": 1}}),
                json!({"a": {}}),
                Some("a.b"),
            ),
            (
                "empty values are not stored",
                json!({"a": [], "b": "", "c": {}, "d": false}),
                json!({}),
                None,
            ),
            (
                "quantities are respelled",
                json!({"requests": {"cpu": "0.5"}}),
                json!({"requests": {"cpu": "500m"}}),
                None,
            ),
            (
                "other quantities",
                json!({"requests": {"cpu": "0.5"}}),
                json!({"requests": {"cpu": "250m"}}),
                Some("requests.cpu"),
            ),
            (
                "only resources are quantities",
                json!({"image": "0.5"}),
                json!({"image": "500m"}),
                Some("image"),
            ),
            (
                "elements are found by their key",
                json!({"ports": [{"name": "x", "port": 1}]}),
                json!({"ports": [{"name": "foreign"}, {"name": "x", "port": 1, "protocol": "TCP"}]}),
                None,
            ),
            (
                "a missing element",
                json!({"ports": [{"name": "x"}]}),
                json!({"ports": [{"name": "y"}]}),
                Some("ports.[name=\"x\"]"),
            ),
            (
                "atomic lists are equal or not",
                json!({"args": ["a"]}),
                json!({"args": ["a", "b"]}),
                Some("args"),
            ),
            (
                "order matters in them",
                json!({"args": ["a", "b"]}),
                json!({"args": ["b", "a"]}),
                Some("args.[0]"),
            ),
            (
                "mounts of one volume differ by path",
                json!({"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]}),
                json!({"volumeMounts": [{"name": "v", "mountPath": "/b"}, {"name": "v", "mountPath": "/a"}]}),
                None,
            ),
            (
                "a label that somebody adds to a selector is drift",
                json!({"selector": {"a": "b"}}),
                json!({"selector": {"a": "b", "c": "d"}}),
                Some("selector"),
            ),
            (
                "a subject that somebody adds is drift",
                json!({"subjects": [{"name": "a"}]}),
                json!({"subjects": [{"name": "a"}, {"name": "b"}]}),
                Some("subjects"),
            ),
        ];
        for (case, wanted, live, expected) in table {
            assert_eq!(first(&wanted, &live).as_deref(), expected, "{case}");
        }
    }
}
