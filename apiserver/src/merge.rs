//! JSON patch (RFC 6902, as Kubernetes applies it) and JSON merge patch
//! (RFC 7386), with limits (contract R3.56 to R3.58). Pure.

mod inapplicable;
mod operation;
mod pointer;
mod work;

use apiservice::told::{self, Place};
use serde_json::{Map, Value};

use crate::decode::{MAX_STRICT, strict};
use crate::object::depth;
use crate::object::metadata::type_name;
use crate::status::Failure;
pub use inapplicable::Inapplicable;
pub use operation::Operation;
use work::Work;

/// More operations than this are a 413.
const MAX_OPERATIONS: usize = 10_000;
/// As many operations take no longer on a document than reading it does.
const FEW: usize = 8;

/// A parsed patch.
#[derive(Debug)]
pub enum Patch {
    /// In order; one that does not apply fails all.
    Json(Vec<Operation>),
    /// An object whose nulls delete.
    Merge(Value),
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
        operations.push(operation::read(fields)?);
    }
    let strict = strict.into_iter().map(|text| format!("json patch {text}"));
    Ok((Patch::Json(operations), strict.collect()))
}

/// Parses a merge patch; also returns what a strict reader objects to.
pub fn merge(body: &[u8]) -> Result<(Patch, Vec<String>), Failure> {
    let parsed = strict::json(body).map_err(|error| error.or(undecoded))?;
    if !parsed.value.is_object() {
        return Err(Failure::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            type_name(&parsed.value)
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

    /// How often it may go through a document, at most about: how long it takes is told by
    /// neither length alone. With copies nothing tells it.
    pub fn passes(&self) -> usize {
        match self {
            Self::Merge(_) => 1,
            Self::Json(operations) if operations.iter().any(Operation::copies) => usize::MAX,
            Self::Json(operations) => operations.len().div_ceil(FEW).max(1),
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

#[cfg(test)]
mod tests;
