//! Names beside ours in a pod or a Service.

use std::collections::BTreeSet;

use crate::field::{Error, Errors, Path};
use crate::forms::label_complaints;

/// A name in a pod: a label, not ours, and nobody else's.
pub(super) fn unique_name<'a>(
    path: &Path,
    name: &'a str,
    ours: &[&str],
    seen: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    let path = path.child("name");
    for complaint in label_complaints(name) {
        errors.push(Error::invalid(&path, name, complaint));
    }
    if ours.contains(&name) {
        let detail = "the name is used by the control plane itself; choose another one";
        errors.push(Error::invalid(&path, name, detail));
    }
    if !seen.insert(name) {
        errors.push(Error::duplicate(&path, name));
    }
}
