//! All that an object is judged by, whoever sends it.

use std::collections::HashSet;

use apiservice::Resource;
use apiservice::meta::validate_metadata;
use serde_json::Value;

use super::Part;
use crate::object::{self, meta};
use crate::status::Failure;
use crate::warnings::Warnings;

/// All field rules of a new or changed object; 422 if any is broken.
pub fn validate(
    resource: &'static Resource,
    new: &Value,
    old: Option<&Value>,
    part: Part,
    warnings: &Warnings,
) -> Result<(), Failure> {
    let before = old.map(|old| &old["metadata"]);
    let mut errors = validate_metadata(&new["metadata"], before, resource);
    errors.append(match (part, old) {
        (Part::Status, Some(old)) => resource.validate_status(new, old),
        _ => resource.validate(new, old),
    });
    if !errors.is_empty() {
        return Err(Failure::invalid(resource, meta(new, "name"), errors));
    }
    // Who scales did not write the rest of the spec, and a change of labels
    // repeats nothing that the spec was told before.
    if part == Part::Main {
        if old.is_none_or(|old| object::spec_changed(resource, new, old)) {
            let texts = resource.warnings(new, old);
            texts.into_iter().for_each(|text| warnings.add(text));
        }
        finalizer_warnings(new, old, warnings);
    }
    Ok(())
}

/// R3.79: finalizers without a domain or path collide; said for new ones.
fn finalizer_warnings(new: &Value, old: Option<&Value>, warnings: &Warnings) {
    const KNOWN: [&str; 2] = ["orphan", "foregroundDeletion"];
    let before = old.map(object::finalizers).unwrap_or_default();
    let before: HashSet<String> = before.into_iter().collect();
    for finalizer in object::finalizers(new) {
        if KNOWN.contains(&finalizer.as_str())
            || finalizer.contains('/')
            || before.contains(&finalizer)
        {
            continue;
        }
        let path = match finalizer.contains('.') {
            true => "including a path (/) ",
            false => "",
        };
        warnings.add(format!(
            "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name {path}to avoid accidental conflicts with other finalizer writers"
        ));
    }
}
