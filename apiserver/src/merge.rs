//! JSON patch (RFC 6902, as Kubernetes applies it) and JSON merge patch
//! (RFC 7386), with limits (contract R3.56 to R3.58). Pure.

use apiservice::told::{self, Place};
use serde_json::{Map, Value};

use crate::decode::{MAX_STRICT, strict};
use crate::object::{depth, length, weight};
use crate::status::Failure;

/// More operations than this are a 413.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that all `copy` operations of a patch may add.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// Values that the operations of a patch may look at and push aside in lists, together.
/// Ten thousand operations on one large list would else be hours of work in a body. These
/// take a tenth of a second.
const MAX_STEPS: usize = 20_000_000;
/// As how many values a map counts: each stands somewhere else in memory.
const MAP: usize = 32;

/// What the operations of one patch took so far.
#[derive(Debug, Default)]
struct Work {
    copied: usize,
    /// What it takes in memory, which may be far more than its length says.
    weight: usize,
    steps: usize,
}

impl Work {
    fn copy(&mut self, value: &Value) -> Result<(), Inapplicable> {
        self.copied = self.copied.saturating_add(length(value));
        let weight = weight::of(value, weight::TREE - self.weight);
        self.weight += weight.map_err(|weight::TooHeavy| {
            let why = "the copies would take too much memory";
            Inapplicable::Operation(why.to_owned())
        })?;
        if self.copied > MAX_COPIED {
            return Err(Inapplicable::Operation(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_COPIED}",
                self.copied
            )));
        }
        Ok(())
    }

    fn step(&mut self, count: usize) -> Result<(), Inapplicable> {
        self.steps = self.steps.saturating_add(count);
        if self.steps > MAX_STEPS {
            return Err(Inapplicable::Operation(
                "the operations move too much in large lists or values".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether the document stays within its depth with the value at the path. Asked
    /// at every operation: copies that double the depth would else exhaust the stack
    /// before anybody looks at the result.
    fn fits(&mut self, path: &str, value: &Value) -> Result<(), Inapplicable> {
        let above = path.matches('/').count();
        let left = depth::MAX_DEPTH.checked_sub(above);
        let mut steps = 0;
        let mut count = |value: &Value| steps += if value.is_object() { 1 + MAP } else { 1 };
        let deep = left.is_none_or(|left| depth::walk(value, left, &mut count));
        self.step(steps)?;
        match deep {
            true => Err(Inapplicable::TooDeep),
            false => Ok(()),
        }
    }
}

/// A parsed patch.
#[derive(Debug)]
pub enum Patch {
    /// In order; one that does not apply fails all.
    Json(Vec<Operation>),
    /// An object whose nulls delete.
    Merge(Value),
}

/// One operation of a JSON patch.
#[derive(Debug)]
pub struct Operation {
    action: Action,
    path: String,
}

#[derive(Debug)]
enum Action {
    Add(Value),
    Remove,
    Replace(Value),
    Move(String),
    Copy(String),
    Test {
        wanted: Value,
        /// Whether what is not there, or is null, is as wanted.
        or_missing: bool,
    },
}

/// What is wrong with an operation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inapplicable {
    /// It does not fit the document; the client is not told how (R3.56).
    #[error("{0}")]
    Operation(String),
    /// The document is not what it was tested to be.
    #[error("testing value {0} failed: test failed")]
    Untrue(String),
    /// The document would be nested deeper than [`depth::MAX_DEPTH`].
    #[error("{}", depth::message())]
    TooDeep,
}

fn undecoded(error: &str) -> Failure {
    Failure::BadRequest(format!("error decoding patch: {error}"))
}

/// Parses a JSON patch; also returns what a strict reader objects to.
pub fn json(body: &[u8]) -> Result<(Patch, Vec<String>), Failure> {
    let parsed = strict::json(body).map_err(|error| error.or(undecoded))?;
    let Value::Array(items) = parsed.value else {
        return Err(Failure::BadRequest(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp".to_owned(),
        ));
    };
    if items.len() > MAX_OPERATIONS {
        return Err(Failure::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            items.len()
        )));
    }
    let mut strict: Vec<String> = parsed.duplicates;
    let mut operations = Vec::with_capacity(items.len());
    for (position, item) in items.into_iter().enumerate() {
        let Value::Object(fields) = item else {
            return Err(Failure::BadRequest("invalid JSON patch".to_owned()));
        };
        let known = ["op", "path", "from", "value"];
        let unknown = fields.keys().filter(|key| !known.contains(&key.as_str()));
        let unknown = unknown.take(MAX_STRICT.saturating_sub(strict.len()));
        strict.extend(unknown.map(|key| {
            let place = Place::Index(&Place::Root, position);
            let path = told::short(Place::Field(&place, key), told::MAX_PATH);
            format!("unknown field {path:?}")
        }));
        operations.push(operation(fields)?);
    }
    let strict = strict.into_iter().map(|text| format!("json patch {text}"));
    Ok((Patch::Json(operations), strict.collect()))
}

fn operation(mut fields: Map<String, Value>) -> Result<Operation, Failure> {
    let mut text = |name: &str| match fields.get_mut(name).map(Value::take) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Failure::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go struct field jsonPatchOp.{name} of type string",
            crate::object::metadata::type_name(&other)
        ))),
    };
    let op = text("op")?.unwrap_or_default();
    let path = text("path")?;
    let from = text("from")?;
    let value = fields.remove("value");
    let path = path.ok_or(Failure::Unprocessable)?;
    let action = match (op.as_str(), value, from) {
        ("add", Some(value), _) => Action::Add(value),
        ("replace", Some(value), _) => Action::Replace(value),
        ("test", value, _) => {
            let wanted = value.unwrap_or(Value::Null);
            let or_missing = wanted.is_null();
            Action::Test { wanted, or_missing }
        }
        ("remove", _, _) => Action::Remove,
        ("move", _, Some(from)) => Action::Move(from),
        ("copy", _, Some(from)) => Action::Copy(from),
        _ => return Err(Failure::Unprocessable),
    };
    Ok(Operation { action, path })
}

impl Operation {
    /// One that an expression makes; a value that it does not give is null. As by Kubernetes
    /// a test of what there is not passes without a value, and with null it does not.
    ///
    /// # Errors
    /// For one that there is not, or that lacks its source.
    pub fn new(
        op: &str,
        path: String,
        from: Option<String>,
        value: Option<Value>,
    ) -> Result<Self, String> {
        let or_missing = value.is_none();
        let value = value.unwrap_or(Value::Null);
        let from = || {
            from.ok_or_else(|| {
                format!("{op} operation failed to decode from: operation, missing from field: missing value")
            })
        };
        let action = match op {
            "add" => Action::Add(value),
            "replace" => Action::Replace(value),
            "test" => Action::Test {
                wanted: value,
                or_missing,
            },
            "remove" => Action::Remove,
            "move" => Action::Move(from()?),
            "copy" => Action::Copy(from()?),
            other => return Err(format!("Unexpected kind: {other}")),
        };
        Ok(Self { action, path })
    }
}

/// Parses a merge patch; also returns what a strict reader objects to.
pub fn merge(body: &[u8]) -> Result<(Patch, Vec<String>), Failure> {
    let parsed = strict::json(body).map_err(|error| error.or(undecoded))?;
    if !parsed.value.is_object() {
        return Err(Failure::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            crate::object::metadata::type_name(&parsed.value)
        )));
    }
    Ok((Patch::Merge(parsed.value), parsed.duplicates))
}

impl Patch {
    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Json(operations) => operations.is_empty(),
            Self::Merge(patch) => patch.as_object().is_some_and(Map::is_empty),
        }
    }

    /// Applies the patch in place; on an error the document is unusable.
    pub fn apply(&self, document: &mut Value) -> Result<(), Inapplicable> {
        match self {
            Self::Merge(patch) => {
                if depth::exceeds(patch, depth::MAX_DEPTH) {
                    return Err(Inapplicable::TooDeep);
                }
                merge_into(document, patch);
                Ok(())
            }
            Self::Json(operations) => {
                let mut work = Work::default();
                let applied = operations
                    .iter()
                    .try_for_each(|operation| operation.apply(document, &mut work));
                // What they name may be as long as a body.
                applied.map_err(Inapplicable::shortened)
            }
        }
    }
}

fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_into(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

impl Operation {
    fn apply(&self, document: &mut Value, work: &mut Work) -> Result<(), Inapplicable> {
        let path = self.path.as_str();
        match &self.action {
            Action::Add(value) => {
                work.fits(path, value)?;
                let place = place(document, path).ok_or_else(|| {
                    missing(format!(
                        "add operation does not apply: doc is missing path: {path:?}"
                    ))
                })?;
                let added = place.add(value.clone(), work);
                added.map_err(|why| {
                    why.told(|why| format!("error in add for path: '{path}': {why}"))
                })
            }
            Action::Remove => {
                let place = place(document, path).ok_or_else(|| {
                    missing(format!(
                        "remove operation does not apply: doc is missing path: {path:?}"
                    ))
                })?;
                let removed = place.remove(work).map(drop);
                removed.map_err(|why| {
                    why.told(|why| format!("error in remove for path: '{path}': {why}"))
                })
            }
            Action::Replace(value) => replace(document, path, value, work),
            Action::Move(from) => {
                let place_from = place(document, from).ok_or_else(|| {
                    missing(format!(
                        "move operation does not apply: doc is missing from path: {from}"
                    ))
                })?;
                let key = place_from.key.clone();
                let value = place_from.remove(work);
                let value = value.map_err(|why| {
                    why.told(|why| format!("error in move for path: '{key}': {why}"))
                })?;
                work.fits(path, &value)?;
                let place = place(document, path).ok_or_else(|| {
                    missing(format!(
                        "move operation does not apply: doc is missing destination path: {path}"
                    ))
                })?;
                let added = place.add(value, work);
                added.map_err(|why| {
                    why.told(|why| format!("error in move for path: '{path}': {why}"))
                })
            }
            Action::Copy(from) => {
                let place_from = place(document, from).ok_or_else(|| {
                    missing(format!(
                        "copy operation does not apply: doc is missing from path: {from}"
                    ))
                })?;
                let value = place_from.get();
                // As by Kubernetes: what a map does not have is null.
                let value = value
                    .map_err(|why| {
                        why.told(|why| format!("error in copy for from: '{from}': {why}"))
                    })?
                    .unwrap_or(&Value::Null);
                work.copy(value)?;
                let value = value.clone();
                work.fits(path, &value)?;
                let place = place(document, path).ok_or_else(|| {
                    missing(format!(
                        "copy operation does not apply: doc is missing destination path: {path}"
                    ))
                })?;
                let added = place.add(value, work);
                added.map_err(|why| {
                    why.told(|why| format!("error while adding value during copy: {why}"))
                })
            }
            Action::Test { wanted, or_missing } => {
                let untrue = || Inapplicable::Untrue(path.to_owned());
                if path.is_empty() {
                    return (document == wanted).then_some(()).ok_or_else(untrue);
                }
                let place = place(document, path).ok_or_else(|| {
                    missing(format!(
                        "test operation does not apply: is missing path: {path}"
                    ))
                })?;
                let found = place.get();
                let found = found.map_err(|why| {
                    why.told(|why| format!("error in test for path: '{path}': {why}"))
                })?;
                let found = found.filter(|found| !found.is_null());
                let same = found.map_or(*or_missing, |found| found == wanted);
                same.then_some(()).ok_or_else(untrue)
            }
        }
    }
}

fn replace(
    document: &mut Value,
    path: &str,
    value: &Value,
    work: &mut Work,
) -> Result<(), Inapplicable> {
    work.fits(path, value)?;
    if path.is_empty() {
        return match value {
            Value::Object(_) | Value::Array(_) => {
                *document = value.clone();
                Ok(())
            }
            _ => Err(Inapplicable::Operation(
                "replace operation value must be object or array: %!w(<nil>)".to_owned(),
            )),
        };
    }
    let place = place(document, path).ok_or_else(|| {
        missing(format!(
            "replace operation does not apply: doc is missing path: {path}"
        ))
    })?;
    match place.holder {
        // As by Kubernetes: also what it does not have.
        Holder::Map(map) => {
            map.insert(place.key, value.clone());
            Ok(())
        }
        Holder::List(list) => {
            let at = position(&place.key, list.len());
            let item = at.and_then(|at| list.get_mut(at)).ok_or_else(|| {
                missing(format!(
                    "replace operation does not apply: doc is missing key: {path}"
                ))
            })?;
            *item = value.clone();
            Ok(())
        }
    }
}

impl Inapplicable {
    /// With a text that can be told.
    fn shortened(self) -> Self {
        match self {
            Self::Operation(why) => Self::Operation(told::cut(why, told::MAX_TEXT)),
            Self::Untrue(path) => Self::Untrue(told::cut(path, told::MAX_PATH)),
            Self::TooDeep => Self::TooDeep,
        }
    }

    /// With what it is about.
    fn told(self, tell: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Operation(why) => Self::Operation(tell(why)),
            other => other,
        }
    }
}

fn missing(what: String) -> Inapplicable {
    Inapplicable::Operation(format!("{what}: missing value"))
}

/// Where a path leads: to a key of a map, or to a place in a list.
struct Pointed<'a> {
    holder: Holder<'a>,
    key: String,
}

enum Holder<'a> {
    Map(&'a mut Map<String, Value>),
    List(&'a mut Vec<Value>),
}

/// Nothing if there is nothing that could hold it.
fn place<'a>(document: &'a mut Value, path: &str) -> Option<Pointed<'a>> {
    let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
    let (parents, key) = path.rsplit_once('/')?;
    let key = unescape(key);
    // What stands before the first slash is not looked at, as by Kubernetes. The rest is read
    // no further than it leads.
    let mut segments = parents.split('/').skip(1).map(unescape);
    let holder = segments.try_fold(document, |value, segment| child(value, &segment))?;
    let holder = match holder {
        Value::Object(map) => Holder::Map(map),
        Value::Array(list) => Holder::List(list),
        _ => return None,
    };
    Some(Pointed { holder, key })
}

fn child<'a>(value: &'a mut Value, segment: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(segment),
        Value::Array(list) => {
            let position = position(segment, list.len())?;
            list.get_mut(position)
        }
        _ => None,
    }
}

/// An index into a list of this length; `-1` is the last element (R3.57).
fn position(segment: &str, length: usize) -> Option<usize> {
    match segment.strip_prefix('-') {
        Some(back) => length.checked_sub(digits(back)?).filter(|_| back != "0"),
        None => digits(segment),
    }
}

fn digits(text: &str) -> Option<usize> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

impl<'a> Pointed<'a> {
    /// What is there; nothing for a key that a map does not have.
    fn get(self) -> Result<Option<&'a Value>, Inapplicable> {
        match self.holder {
            Holder::Map(map) => Ok(map.get(&self.key)),
            Holder::List(list) => {
                let at = position(&self.key, list.len());
                let item = at.and_then(|at| list.get(at));
                item.map(Some).ok_or_else(|| no_index(&self.key))
            }
        }
    }

    fn add(self, value: Value, work: &mut Work) -> Result<(), Inapplicable> {
        match self.holder {
            Holder::Map(map) => {
                map.insert(self.key, value);
                Ok(())
            }
            Holder::List(list) => {
                let at = match self.key.as_str() {
                    "-" => Some(list.len()),
                    // Counted in the list as it will be: -1 appends.
                    segment if segment.starts_with('-') => position(segment, list.len() + 1),
                    segment => position(segment, list.len()),
                };
                let at = at.filter(|at| *at <= list.len());
                let at = at.ok_or_else(|| match self.key.parse::<i64>() {
                    Ok(_) => no_index(&self.key),
                    Err(_) => Inapplicable::Operation(format!(
                        "value was not a proper array index: '{key}': {}",
                        no_number(&self.key),
                        key = self.key,
                    )),
                })?;
                work.step(list.len() - at)?;
                list.insert(at, value);
                Ok(())
            }
        }
    }

    fn remove(self, work: &mut Work) -> Result<Value, Inapplicable> {
        match self.holder {
            Holder::Map(map) => map
                .remove(&self.key)
                .ok_or_else(|| missing(format!("Unable to remove nonexistent key: {}", self.key))),
            Holder::List(list) => {
                let at = position(&self.key, list.len()).filter(|at| *at < list.len());
                let at = at.ok_or_else(|| no_index(&self.key))?;
                work.step(list.len() - at)?;
                Ok(list.remove(at))
            }
        }
    }
}

fn no_index(key: &str) -> Inapplicable {
    Inapplicable::Operation(match key.parse::<i64>() {
        Ok(index) => format!("Unable to access invalid index: {index}: invalid index referenced"),
        Err(_) => no_number(key),
    })
}

fn no_number(key: &str) -> String {
    format!("strconv.Atoi: parsing {key:?}: invalid syntax")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(document: Value, operations: Value) -> Result<Value, String> {
        let (patch, _) = super::json(operations.to_string().as_bytes())
            .map_err(|failure| failure.to_string())?;
        let mut document = document;
        patch
            .apply(&mut document)
            .map_err(|error| error.to_string())?;
        Ok(document)
    }

    /// What is short to say and long to do: many operations on a list or a value that
    /// is large.
    #[test]
    fn the_work_of_a_patch_is_bounded() {
        let document = json!({"l": vec![0; 100_000], "a": {"x": vec![0; 100_000]}});
        let insert = json!({"op": "add", "path": "/l/0", "value": 1});
        let remove = json!({"op": "remove", "path": "/l/0"});
        let maps = json!({"m": vec![json!({}); 4_000]});
        let from = json!({"op": "move", "from": "/m", "path": "/n"});
        let to = json!({"op": "move", "from": "/n", "path": "/m"});
        let moves: Vec<&Value> = [&from, &to].into_iter().cycle().take(200).collect();
        let refused = run(maps, json!(moves)).unwrap_err();
        assert!(refused.contains("move too much"), "{refused}");
        let there = json!({"op": "move", "from": "/a", "path": "/b"});
        let back = json!({"op": "move", "from": "/b", "path": "/a"});
        for pair in [[&insert, &insert], [&insert, &remove], [&there, &back]] {
            let few: Vec<&Value> = pair.into_iter().cycle().take(100).collect();
            run(document.clone(), json!(few)).unwrap();
            let many: Vec<&Value> = pair.into_iter().cycle().take(10_000).collect();
            let refused = run(document.clone(), json!(many)).unwrap_err();
            assert!(refused.contains("move too much"), "{refused}");
        }
    }

    /// Short maps, copied: each takes a hundred times what its text does.
    #[test]
    fn copies_take_no_more_memory_than_they_may() {
        let document = json!({"few": vec![json!({"": 0}); 500], "x": []});
        let copy = json!({"op": "copy", "from": "/few", "path": "/x/-"});
        run(document.clone(), json!(vec![&copy; 15])).unwrap();
        let refused = run(document, json!(vec![&copy; 200])).unwrap_err();
        assert!(refused.contains("too much memory"), "{refused}");
    }

    /// R3.57.
    #[test]
    fn json_patches() {
        let document = json!({"a": {"b": 1}, "l": [1, 2, 3], "x/y": 0});
        let cases = [
            (
                json!([{"op": "add", "path": "/a/c", "value": null}]),
                Some(json!({"a": {"b": 1, "c": null}, "l": [1, 2, 3], "x/y": 0})),
            ),
            (
                json!([{"op": "add", "path": "/l/-", "value": 4}]),
                Some(json!({"a": {"b": 1}, "l": [1, 2, 3, 4], "x/y": 0})),
            ),
            (
                json!([{"op": "add", "path": "/l/0", "value": 0}]),
                Some(json!({"a": {"b": 1}, "l": [0, 1, 2, 3], "x/y": 0})),
            ),
            (json!([{"op": "add", "path": "/l/9", "value": 0}]), None),
            (json!([{"op": "add", "path": "/q/c", "value": 0}]), None),
            (
                json!([{"op": "remove", "path": "/l/-1"}]),
                Some(json!({"a": {"b": 1}, "l": [1, 2], "x/y": 0})),
            ),
            (json!([{"op": "remove", "path": "/q"}]), None),
            (
                json!([{"op": "replace", "path": "/x~1y", "value": 5}]),
                Some(json!({"a": {"b": 1}, "l": [1, 2, 3], "x/y": 5})),
            ),
            // As the library of Kubernetes does: what a map does not have is added.
            (
                json!([{"op": "replace", "path": "/q", "value": 5}]),
                Some(json!({"a": {"b": 1}, "l": [1, 2, 3], "x/y": 0, "q": 5})),
            ),
            (json!([{"op": "replace", "path": "/l/3", "value": 5}]), None),
            (
                json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
                Some(json!({"a": {}, "c": 1, "l": [1, 2, 3], "x/y": 0})),
            ),
            (
                json!([{"op": "copy", "from": "/a", "path": "/c"}]),
                Some(json!({"a": {"b": 1}, "c": {"b": 1}, "l": [1, 2, 3], "x/y": 0})),
            ),
            (
                json!([{"op": "test", "path": "/a/b", "value": 1}]),
                Some(document.clone()),
            ),
            (json!([{"op": "test", "path": "/a/b", "value": 2}]), None),
            (
                json!([{"op": "test", "path": "/q", "value": null}]),
                Some(document.clone()),
            ),
            (json!([{"op": "what", "path": "/q"}]), None),
            (json!([{"op": "add", "path": "/q"}]), None),
        ];
        for (operations, expected) in cases {
            assert_eq!(
                run(document.clone(), operations.clone()).ok(),
                expected,
                "{operations}"
            );
        }
    }

    /// R3.57: of what is not there, a client that gives null and one that gives nothing are
    /// the same; an expression that gives null asks for something else, as in Kubernetes.
    #[test]
    fn tests_of_what_is_not_there() {
        let document = || json!({"a": null, "b": 1});
        for path in ["/a", "/q"] {
            for operation in [
                json!([{"op": "test", "path": path, "value": null}]),
                json!([{"op": "test", "path": path}]),
            ] {
                assert!(run(document(), operation.clone()).is_ok(), "{operation}");
            }
            let made = |value: Option<Value>| {
                let made = Operation::new("test", path.to_owned(), None, value).unwrap();
                Patch::Json(vec![made]).apply(&mut document())
            };
            assert_eq!(made(None), Ok(()));
            let untrue = Err(Inapplicable::Untrue(path.to_owned()));
            assert_eq!(made(Some(Value::Null)), untrue);
            assert_eq!(made(Some(json!(1))), untrue);
        }
        let operation = json!([{"op": "test", "path": "/b", "value": null}]);
        assert!(run(document(), operation).is_err());
    }

    /// However long a path is, it is read no further than it leads, and told in part.
    #[test]
    fn long_paths_lead_nowhere() {
        let long = "/".repeat(3_000_000);
        for op in ["remove", "test", "add", "replace", "copy", "move"] {
            let operation = json!([{"op": op, "path": long, "from": long, "value": 1}]);
            let refused = run(json!({"a": {"": 1}}), operation).unwrap_err();
            assert!(refused.len() < 2 * told::MAX_TEXT, "{}", refused.len());
        }
        let deep = "/a".repeat(70);
        let found = place(&mut json!({"a": {}}), &deep).map(|found| found.key);
        assert_eq!(found, None);
        let found = place(&mut json!({"a": {"b~/": {}}}), "/a/b~0~1/c").map(|found| found.key);
        assert_eq!(found.as_deref(), Some("c"));
    }

    /// A list in a list, this many of them.
    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!([]), |inner, _| json!([inner]))
    }

    #[test]
    fn depth_is_bounded_at_every_operation() {
        // At depth 2 of the document: 62 levels fit, 63 do not.
        for op in ["add", "replace"] {
            let operation = |levels| json!([{"op": op, "path": "/a/b", "value": nested(levels)}]);
            assert!(run(json!({"a": {"b": 1}}), operation(62)).is_ok());
            let error = run(json!({"a": {"b": 1}}), operation(63)).unwrap_err();
            assert_eq!(error, "the object is nested deeper than 64 levels");
        }
        // Each copy doubles the depth; a few of them would exhaust any stack.
        let (mut document, mut doubling) = (json!({"a": {"b": {}}}), Vec::new());
        let mut end = "/a/b".to_owned();
        for _ in 0..18 {
            doubling.push(json!({"op": "copy", "from": "/a", "path": format!("{end}/c")}));
            let below = end["/a".len()..].to_owned();
            end = format!("{end}/c{below}");
            if end.len() > 4000 {
                break;
            }
        }
        let (patch, _) = super::json(json!(doubling).to_string().as_bytes()).unwrap();
        assert_eq!(patch.apply(&mut document), Err(Inapplicable::TooDeep));
        assert!(!depth::exceeds(&document, depth::MAX_DEPTH));
        let (patch, _) = merge(json!({"a": nested(64)}).to_string().as_bytes()).unwrap();
        assert_eq!(patch.apply(&mut json!({})), Err(Inapplicable::TooDeep));
    }

    /// R3.58.
    #[test]
    fn merge_patches() {
        // The table of RFC 7386, appendix A, as far as the patch is an object.
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ];
        for (mut document, patch, expected) in cases {
            let (patch, _) = merge(patch.to_string().as_bytes()).unwrap();
            patch.apply(&mut document).unwrap();
            assert_eq!(document, expected);
        }
        assert!(merge(b"[]").is_err());
    }

    /// R3.56, R6.4.
    #[test]
    fn strict_reports_and_limits() {
        let (_, strict) =
            super::json(br#"[{"op":"remove","op":"remove","path":"/a","x":1}]"#).unwrap();
        assert_eq!(
            strict,
            [
                "json patch duplicate field \"[0].op\"",
                "json patch unknown field \"[0].x\""
            ]
        );
        let many: Vec<Value> = (0..10_001)
            .map(|_| json!({"op": "remove", "path": "/a"}))
            .collect();
        let failure = super::json(json!(many).to_string().as_bytes()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
    }
}
