//! What a requester should know of a TenantControlPlane that goes through.

use serde_json::Value;

use super::TenantControlPlaneSpec;
use crate::admission_plugins::admission_plugins;
use crate::rule::at;
use crate::version::KubernetesVersion;

/// Fields that are accepted and not acted upon yet (rule 9), as paths below
/// `spec`. The change that builds a field removes its row; the Warning and the
/// condition go with it.
const NOT_ACTED_UPON: &[&[&str]] = &[
    &["dataStoreOverrides"],
    &["writePermissions"],
    &["controlPlane", "ingress"],
    &["controlPlane", "gateway"],
    &["controlPlane", "deployment", "resources", "kine"],
    &["controlPlane", "deployment", "extraArgs", "kine"],
    &["kubernetes", "kubelet", "cgroupfs"],
    &["kubernetes", "kubelet", "configurationJSONPatches"],
    &["addons", "coreDNS"],
    &["addons", "kubeProxy"],
    &["addons", "konnectivity"],
    &["addons", "tcpProxy"],
    &["addons", "workerBootstrap"],
];

/// The fields that are set and not acted upon yet, as paths from the root of
/// the object; the condition about them and the Warning are the same list.
pub fn unsupported(spec: &TenantControlPlaneSpec) -> Vec<String> {
    // Plain data always serializes.
    not_acted_upon(&serde_json::to_value(spec).unwrap_or_default())
}

fn not_acted_upon(spec: &Value) -> Vec<String> {
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

/// Warnings about a write.
pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings: Vec<String> = not_acted_upon(&new["spec"])
        .into_iter()
        .map(|path| format!("{path}: accepted but not acted upon yet"))
        .collect();
    // Where the data is says the status, not what the spec was before: that may
    // have named none, or one to which the data was never moved.
    let settled = old.and_then(|old| at(old, &["status", "storage", "dataStoreName"]));
    let is_name = |value: &&Value| value.as_str().is_some_and(|name| !name.is_empty());
    if let Some(settled) = settled.filter(is_name)
        && let Some(wanted) = at(new, &["spec", "dataStore"]).filter(is_name)
        && wanted != settled
    {
        warnings.push(
            "spec.dataStore: moving data to another DataStore is accepted but not acted upon yet; the tenant stays where it is"
                .to_owned(),
        );
    }
    let spec: TenantControlPlaneSpec =
        serde_json::from_value(new["spec"].clone()).unwrap_or_default();
    if let Ok(version) = spec.kubernetes.version.parse::<KubernetesVersion>() {
        let dropped = admission_plugins(&version, &spec.kubernetes.admission_controllers).dropped;
        if !dropped.is_empty() {
            warnings.push(format!(
                "spec.kubernetes.admissionControllers: Kubernetes {version} has no {}; left out",
                dropped.join(", ")
            ));
        }
    }
    warnings
}
