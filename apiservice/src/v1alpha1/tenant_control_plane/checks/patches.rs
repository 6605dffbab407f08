//! JSON patches of kubelets' configuration.

use serde_json::Value;

use crate::field::{Error, Errors, Path};
use crate::v1alpha1::{JsonPatch, JsonPatchOperation as Operation};

pub(super) fn check(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    const PATCHES: &str = "/spec/kubernetes/kubelet/configurationJSONPatches";
    let Some(list) = new.pointer(PATCHES).and_then(Value::as_array) else {
        return;
    };
    let before = old.and_then(|old| old.pointer(PATCHES)?.as_array());
    if before == Some(list) {
        return;
    }
    let path = Path::new("spec.kubernetes.kubelet.configurationJSONPatches");
    for (position, patch) in list.iter().enumerate() {
        // What does not decode is the schema's business.
        let Ok(patch) = serde_json::from_value::<JsonPatch>(patch.clone()) else {
            continue;
        };
        let path = path.index(position);
        if !patch.path.is_empty() && !patch.path.starts_with('/') {
            let detail = "must be a JSON pointer, which begins with /";
            errors.push(Error::invalid(
                &path.child("path"),
                patch.path.as_str(),
                detail,
            ));
        }
        let needs_from = matches!(patch.op, Operation::Move | Operation::Copy);
        if needs_from && patch.from.is_none() {
            errors.push(Error::required(
                &path.child("from"),
                "needed with op move and copy",
            ));
        }
        let needs_value = matches!(
            patch.op,
            Operation::Add | Operation::Replace | Operation::Test
        );
        if needs_value && patch.value.is_none() {
            errors.push(Error::required(
                &path.child("value"),
                "needed with op add, replace and test",
            ));
        }
    }
}
