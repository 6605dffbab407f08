//! How large the parts of a tenant may be of which objects in the management cluster are
//! made. The controller holds 128 KiB of a part of such an object; one that is larger it
//! could not compare with what is wanted.

use serde_json::Value;

use crate::bulk::{self, OTHERS};
use crate::field::{Error, Path};
use crate::rule::at;

/// A part of the spec of which one part of an object is made.
struct Made {
    /// Where it is said, below the object.
    path: &'static str,
    /// As the management cluster may keep it.
    most: usize,
    /// How much it is.
    measure: fn(&Value) -> usize,
}

const KIB: usize = 1024;
/// What pods are made of; what is ours in them comes to it.
pub(super) const PODS: usize = 88 * KIB;

const ALL: [Made; 7] = [
    Made {
        path: "spec.controlPlane.deployment",
        most: PODS,
        measure: pods,
    },
    Made {
        path: "spec.controlPlane.service",
        most: OTHERS,
        measure: |spec| kept(spec, &["controlPlane", "service"]),
    },
    Made {
        path: "spec.controlPlane.ingress",
        most: OTHERS,
        measure: |spec| kept(spec, &["controlPlane", "ingress"]),
    },
    Made {
        path: "spec.controlPlane.gateway",
        most: OTHERS,
        measure: |spec| kept(spec, &["controlPlane", "gateway"]),
    },
    // Trees of values, and what kubelets are told.
    Made {
        path: "spec.kubernetes.kubelet.configurationJSONPatches",
        most: OTHERS,
        measure: |spec| kept(spec, &["kubernetes", "kubelet", "configurationJSONPatches"]),
    },
    // A certificate of them is a third larger.
    Made {
        path: "spec.networkProfile.certSANs",
        most: OTHERS,
        measure: |spec| kept(spec, &["networkProfile", "certSANs"]),
    },
    Made {
        path: "spec.addons.workerBootstrap.talos.certSANs",
        most: OTHERS,
        measure: |spec| kept(spec, &["addons", "workerBootstrap", "talos", "certSANs"]),
    },
];

fn kept(spec: &Value, path: &[&str]) -> usize {
    at(spec, path).map_or(0, bulk::as_kept)
}

/// What the pods are made of. The registry and resources of all are in each of our four
/// containers, and a spread constraint is given a selector where it has none.
fn pods(spec: &Value) -> usize {
    let deployment = at(spec, &["controlPlane", "deployment"]).and_then(Value::as_object);
    let fields = deployment.into_iter().flatten();
    // Scaling makes nothing larger.
    let fields = fields.filter(|(name, _)| *name != "replicas");
    let own = fields.map(|(name, value)| {
        let times = match name.as_str() {
            "registrySettings" | "resources" => 4,
            _ => 1,
        };
        let list = Value::Object([(name.clone(), value.clone())].into_iter().collect());
        let selectors = match (name.as_str(), value) {
            ("topologySpreadConstraints", Value::Array(list)) => 256 * list.len(),
            _ => 0,
        };
        selectors + times * bulk::as_kept(&list)
    });
    own.sum::<usize>()
        + kept(spec, &["addons", "konnectivity", "server"])
        + kept(spec, &["kubernetes", "admissionControllers"])
}

/// What is larger than it may be, and larger than it was.
pub(super) fn check(new: &Value, old: Option<&Value>) -> Vec<Error> {
    let new = &new["spec"];
    let old = old.map(|old| &old["spec"]);
    let too_large = ALL.iter().filter(|part| {
        let bytes = (part.measure)(new);
        bytes > part.most && old.is_none_or(|old| bytes > (part.measure)(old))
    });
    too_large
        .map(|part| {
            let mut error = Error::too_long(&Path::new(part.path), part.most as u64);
            error.detail.push_str(
                " as the management cluster keeps it: as JSON, with what pods need beside it, \
                 and with 32 bytes more for each map, 160 for a container or a probe",
            );
            error
        })
        .collect()
}

/// The parts of a stored spec that are larger than they may be, as paths: an older release
/// took them.
pub fn too_large(spec: &super::TenantControlPlaneSpec) -> Vec<&'static str> {
    // Plain data always serializes.
    let spec = serde_json::to_value(spec).unwrap_or_default();
    let all = ALL.iter().filter(|part| (part.measure)(&spec) > part.most);
    all.map(|part| part.path).collect()
}
