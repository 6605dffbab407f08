//! JSON patch (RFC 6902, as Kubernetes applies it) and JSON merge patch
//! (RFC 7386), with limits (contract R3.56 to R3.58). Pure.

use apiservice::told::{self, Place};
use serde_json::{Map, Value};

use crate::decode::{MAX_STRICT, depth, strict, weight};
use crate::status::Failure;

/// More operations than this are a 413.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that all `copy` operations of a patch may add.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// Values that the operations of a patch may look at and push aside in lists, together.
/// Ten thousand operations on one large list would else be hours of work in a body.
const MAX_STEPS: usize = 50_000_000;

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
        let mut seen = 0;
        let deep = left.is_none_or(|left| depth::walk(value, left, &mut seen));
        self.step(seen)?;
        match deep {
            true => Err(Inapplicable::TooDeep),
            false => Ok(()),
        }
    }
}

/// The length of a value as JSON, without making it.
pub(crate) fn length(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        // A Value always has a JSON form.
        Err(_) => usize::MAX,
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
    Test(Value),
}

/// What is wrong with an operation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inapplicable {
    /// It does not fit the document; the client is not told how (R3.56).
    #[error("{0}")]
    Operation(String),
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
            crate::decode::metadata::type_name(&other)
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
        ("test", value, _) => Action::Test(value.unwrap_or(Value::Null)),
        ("remove", _, _) => Action::Remove,
        ("move", _, Some(from)) => Action::Move(from),
        ("copy", _, Some(from)) => Action::Copy(from),
        _ => return Err(Failure::Unprocessable),
    };
    Ok(Operation { action, path })
}

/// Parses a merge patch; also returns what a strict reader objects to.
pub fn merge(body: &[u8]) -> Result<(Patch, Vec<String>), Failure> {
    let parsed = strict::json(body).map_err(|error| error.or(undecoded))?;
    if !parsed.value.is_object() {
        return Err(Failure::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            crate::decode::metadata::type_name(&parsed.value)
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
                operations
                    .iter()
                    .try_for_each(|operation| operation.apply(document, &mut work))
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
        let path = &self.path;
        match &self.action {
            Action::Add(value) => add(document, path, value.clone(), work),
            Action::Remove => remove(document, path, work).map(drop),
            Action::Replace(value) => {
                work.fits(path, value)?;
                *find(document, path)? = value.clone();
                Ok(())
            }
            Action::Move(from) => {
                let value = remove(document, from, work)?;
                add(document, path, value, work)
            }
            Action::Copy(from) => {
                let value = &*find(document, from)?;
                work.copy(value)?;
                let value = value.clone();
                add(document, path, value, work)
            }
            Action::Test(wanted) => {
                let found = find(document, path).map(|value| &*value);
                match found {
                    Ok(value) if value == wanted => Ok(()),
                    Err(_) if wanted.is_null() => Ok(()),
                    _ => Err(Inapplicable::Operation(format!(
                        "testing value {path} failed"
                    ))),
                }
            }
        }
    }
}

fn segments(path: &str) -> Result<Vec<String>, Inapplicable> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let rest = path.strip_prefix('/');
    let rest =
        rest.ok_or_else(|| Inapplicable::Operation(format!("path {path} does not start with /")))?;
    let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
    Ok(rest.split('/').map(unescape).collect())
}

fn missing(path: &str) -> Inapplicable {
    Inapplicable::Operation(format!("missing path {path}"))
}

fn find<'a>(document: &'a mut Value, path: &str) -> Result<&'a mut Value, Inapplicable> {
    segments(path)?
        .iter()
        .try_fold(document, |value, segment| child(value, segment))
        .ok_or_else(|| missing(path))
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

fn parent<'a>(
    document: &'a mut Value,
    path: &str,
) -> Result<(&'a mut Value, String), Inapplicable> {
    let mut segments = segments(path)?;
    let last = segments.pop().ok_or_else(|| missing(path))?;
    let parent = segments
        .iter()
        .try_fold(document, |value, segment| child(value, segment))
        .ok_or_else(|| missing(path))?;
    Ok((parent, last))
}

fn add(
    document: &mut Value,
    path: &str,
    value: Value,
    work: &mut Work,
) -> Result<(), Inapplicable> {
    work.fits(path, &value)?;
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    match parent(document, path)? {
        (Value::Object(map), last) => {
            map.insert(last, value);
            Ok(())
        }
        (Value::Array(list), last) => {
            let at = match last.as_str() {
                "-" => Some(list.len()),
                // Counted in the list as it will be: -1 appends.
                segment if segment.starts_with('-') => position(segment, list.len() + 1),
                segment => position(segment, list.len()),
            };
            let at = at
                .filter(|at| *at <= list.len())
                .ok_or_else(|| missing(path))?;
            work.step(list.len() - at)?;
            list.insert(at, value);
            Ok(())
        }
        _ => Err(missing(path)),
    }
}

fn remove(document: &mut Value, path: &str, work: &mut Work) -> Result<Value, Inapplicable> {
    let removed = match parent(document, path)? {
        (Value::Object(map), last) => map.remove(&last),
        (Value::Array(list), last) => {
            let at = position(&last, list.len()).filter(|at| *at < list.len());
            let at = at.ok_or_else(|| missing(path))?;
            work.step(list.len() - at)?;
            Some(list.remove(at))
        }
        _ => None,
    };
    removed.ok_or_else(|| missing(path))
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
        run(document.clone(), json!(vec![&copy; 50])).unwrap();
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
            (json!([{"op": "replace", "path": "/q", "value": 5}]), None),
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
