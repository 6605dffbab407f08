//! What a requester should know of a TenantControlPlane that goes through.

mod exposure;
mod left_out;
mod networks;

use serde_json::Value;

use super::unsupported;
use crate::admission_plugins::admission_plugins;
use crate::rule::at;
use crate::v1alpha1::{TenantControlPlaneSpec, annotations};
use crate::version::KubernetesVersion;

/// Warnings about a write.
pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings: Vec<String> = unsupported::of(&new["spec"])
        .into_iter()
        .map(|path| format!("{path}: accepted but not acted upon yet"))
        .collect();
    warnings.extend(moves(new, old));
    let Ok(spec) = TenantControlPlaneSpec::deserialize(&new["spec"]) else {
        // It is refused.
        return warnings;
    };
    if spec.data_store_assignment.is_some()
        && spec.data_store.as_ref().is_some_and(|it| !it.is_empty())
    {
        warnings.push(
            "spec.dataStoreAssignment: means nothing beside spec.dataStore, which names one"
                .to_owned(),
        );
    }
    if let Ok(version) = spec.kubernetes.version.parse::<KubernetesVersion>() {
        let dropped = admission_plugins(&version, &spec.kubernetes.admission_controllers).dropped;
        if !dropped.is_empty() {
            warnings.push(format!(
                "spec.kubernetes.admissionControllers: Kubernetes {version} has no {}; left out",
                dropped.join(", ")
            ));
        }
    }
    networks::ranges(&spec.network_profile, &mut warnings);
    exposure::service(&spec, &mut warnings);
    networks::expectations(&spec, &mut warnings);
    left_out::claims(&spec, &mut warnings);
    exposure::by_name(&spec, &mut warnings);
    left_out::arguments(&spec, &mut warnings);
    left_out::metadata(&spec, &mut warnings);
    warnings.extend(annotations::unknown(new, old, &annotations::OF_TENANTS));
    warnings.extend(annotations::lost_keys(new, old));
    warnings
}

/// That the tenant's data is moved.
fn moves(new: &Value, old: Option<&Value>) -> Option<String> {
    // Where the data is says the status, not what the spec was before: that may
    // have named none, one to which the data was never moved, or one that is not there.
    let storage = at(old?, &["status", "storage"])?;
    let name = |object: &Value, path: &[&str]| {
        let name = at(object, path)?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    name(storage, &["setup", "schema"])?;
    let settled = name(storage, &["dataStoreName"])?;
    let wanted = name(new, &["spec", "dataStore"]).filter(|wanted| *wanted != settled)?;
    Some(format!(
        "spec.dataStore: the tenant's data is moved from DataStore {settled} to {wanted}, if there is such a one that takes it; at the end writes are refused for some seconds and the pods are replaced"
    ))
}
