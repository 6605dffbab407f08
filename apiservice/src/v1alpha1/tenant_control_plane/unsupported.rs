//! Fields that are accepted and not acted upon yet (rule 9).

use serde_json::Value;

use crate::rule::at;
use crate::v1alpha1::TenantControlPlaneSpec;

/// Fields that are accepted and not acted upon yet (rule 9), as paths below
/// `spec`. The change that builds a field removes its row; the Warning and the
/// condition go with it.
const NOT_ACTED_UPON: &[&[&str]] = &[
    &["addons", "tcpProxy"],
    &["addons", "workerBootstrap", "talos"],
];

/// The fields that are set and not acted upon yet, as paths from the root of
/// the object; the condition about them and the Warning are the same list.
pub fn unsupported(spec: &TenantControlPlaneSpec) -> Vec<String> {
    // Plain data always serializes.
    of(&serde_json::to_value(spec).unwrap_or_default())
}

/// The same of a spec as a client sends it.
pub(super) fn of(spec: &Value) -> Vec<String> {
    NOT_ACTED_UPON
        .iter()
        .filter(|path| at(spec, path).is_some_and(asks_for_something))
        .map(|path| format!("spec.{}", path.join(".")))
        .collect()
}

/// Switches that are all off, and empty lists, ask for nothing; an empty object
/// does, for its presence counts.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) if !fields.is_empty() => {
            fields.values().any(|value| *value != Value::Bool(false))
        }
        _ => true,
    }
}
