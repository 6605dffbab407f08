//! One operation of a JSON patch (RFC 6902), as Kubernetes applies it.

use serde_json::{Map, Value};

use super::inapplicable::{Inapplicable, missing};
use super::pointer::{Holder, Pointed, place, position};
use super::work::Work;
use crate::object::metadata::type_name;
use crate::status::Failure;

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

/// One as a client sends it.
///
/// # Errors
/// 400 or 422 for what is none.
pub(super) fn read(mut fields: Map<String, Value>) -> Result<Operation, Failure> {
    let mut text = |name: &str| match fields.get_mut(name).map(Value::take) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Failure::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go struct field jsonPatchOp.{name} of type string",
            type_name(&other)
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

impl Operation {
    /// Whether it makes the document larger than it and the patch are.
    pub(super) fn copies(&self) -> bool {
        matches!(self.action, Action::Copy(_))
    }

    /// Applies it in place.
    ///
    /// # Errors
    /// It does not apply; the document may be half changed.
    pub(super) fn apply(&self, document: &mut Value, work: &mut Work) -> Result<(), Inapplicable> {
        let path = self.path.as_str();
        match &self.action {
            Action::Add(value) => add(document, path, value, work),
            Action::Remove => remove(document, path, work),
            Action::Replace(value) => replace(document, path, value, work),
            Action::Move(from) => relocate(document, from, path, work),
            Action::Copy(from) => copy(document, from, path, work),
            Action::Test { wanted, or_missing } => {
                let found = match path.is_empty() {
                    true => Some(&*document),
                    false => tested(document, path)?,
                };
                let same = found.map_or(*or_missing, |found| found == wanted);
                same.then_some(())
                    .ok_or_else(|| Inapplicable::Untrue(path.to_owned()))
            }
        }
    }
}

/// Where a path leads, or what is told when it leads nowhere.
fn found<'a>(
    document: &'a mut Value,
    path: &str,
    lacks: impl FnOnce() -> String,
) -> Result<Pointed<'a>, Inapplicable> {
    place(document, path).ok_or_else(|| missing(lacks()))
}

fn add(
    document: &mut Value,
    path: &str,
    value: &Value,
    work: &mut Work,
) -> Result<(), Inapplicable> {
    work.fits(path, value)?;
    let place = found(document, path, || {
        format!("add operation does not apply: doc is missing path: {path:?}")
    })?;
    let added = place.add(value.clone(), work);
    added.map_err(|why| why.told(|why| format!("error in add for path: '{path}': {why}")))
}

fn remove(document: &mut Value, path: &str, work: &mut Work) -> Result<(), Inapplicable> {
    let place = found(document, path, || {
        format!("remove operation does not apply: doc is missing path: {path:?}")
    })?;
    let removed = place.remove(work).map(drop);
    removed.map_err(|why| why.told(|why| format!("error in remove for path: '{path}': {why}")))
}

/// A `move`, which is a word of Rust.
fn relocate(
    document: &mut Value,
    from: &str,
    path: &str,
    work: &mut Work,
) -> Result<(), Inapplicable> {
    let place = found(document, from, || {
        format!("move operation does not apply: doc is missing from path: {from}")
    })?;
    let key = place.key.clone();
    let value = place.remove(work);
    let value =
        value.map_err(|why| why.told(|why| format!("error in move for path: '{key}': {why}")))?;
    work.fits(path, &value)?;
    let place = found(document, path, || {
        format!("move operation does not apply: doc is missing destination path: {path}")
    })?;
    let added = place.add(value, work);
    added.map_err(|why| why.told(|why| format!("error in move for path: '{path}': {why}")))
}

fn copy(document: &mut Value, from: &str, path: &str, work: &mut Work) -> Result<(), Inapplicable> {
    let place = found(document, from, || {
        format!("copy operation does not apply: doc is missing from path: {from}")
    })?;
    let value = place
        .get()
        .map_err(|why| why.told(|why| format!("error in copy for from: '{from}': {why}")))?;
    // As by Kubernetes: what a map does not have is null.
    let value = value.unwrap_or(&Value::Null);
    work.copy(value)?;
    let value = value.clone();
    work.fits(path, &value)?;
    let place = found(document, path, || {
        format!("copy operation does not apply: doc is missing destination path: {path}")
    })?;
    let added = place.add(value, work);
    added.map_err(|why| why.told(|why| format!("error while adding value during copy: {why}")))
}

/// What a test looks at; nothing for what is not there, or is null.
fn tested<'a>(document: &'a mut Value, path: &str) -> Result<Option<&'a Value>, Inapplicable> {
    let place = found(document, path, || {
        format!("test operation does not apply: is missing path: {path}")
    })?;
    let value = place
        .get()
        .map_err(|why| why.told(|why| format!("error in test for path: '{path}': {why}")))?;
    Ok(value.filter(|value| !value.is_null()))
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
    let place = found(document, path, || {
        format!("replace operation does not apply: doc is missing path: {path}")
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
