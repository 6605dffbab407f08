//! Admission plug-ins of kube-apiserver by version (rule 22).

use crate::version::{KubernetesVersion, Minor};

/// The plug-in that is on whatever the spec says: without it, a node's
/// credentials may change other nodes.
pub const NODE_RESTRICTION: &str = "NodeRestriction";

/// The plug-ins of a tenant whose spec names none. NodeRestriction joins them.
pub const DEFAULT: &[&str] = &[
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "LimitRanger",
    "MutatingAdmissionWebhook",
    "NamespaceLifecycle",
    "PersistentVolumeClaimResize",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingAdmissionWebhook",
];

/// One plug-in: from which minor version on kube-apiserver has it, and from
/// which on it no longer has.
struct Plugin {
    name: &'static str,
    since: u64,
    until: Option<u64>,
}

const fn always(name: &'static str) -> Plugin {
    since(name, 0)
}

const fn since(name: &'static str, since: u64) -> Plugin {
    Plugin {
        name,
        since,
        until: None,
    }
}

const fn until(name: &'static str, until: u64) -> Plugin {
    Plugin {
        name,
        since: 0,
        until: Some(until),
    }
}

/// Every plug-in that a version from 1.20 on has had, by name. Those of 1.34,
/// 1.35 and 1.36 are checked against kube-apiserver's own list.
const PLUGINS: &[Plugin] = &[
    always("AlwaysAdmit"),
    always("AlwaysDeny"),
    always("AlwaysPullImages"),
    always("CertificateApproval"),
    always("CertificateSigning"),
    always("CertificateSubjectRestriction"),
    since("ClusterTrustBundleAttest", 27),
    always("DefaultIngressClass"),
    always("DefaultStorageClass"),
    always("DefaultTolerationSeconds"),
    until("DenyEscalatingExec", 21),
    until("DenyExecOnPrivileged", 21),
    since("DenyServiceExternalIPs", 21),
    always("EventRateLimit"),
    always("ExtendedResourceToleration"),
    always("ImagePolicyWebhook"),
    since("JobValidation", 36),
    always("LimitPodHardAntiAffinityTopology"),
    always("LimitRanger"),
    since("MutatingAdmissionPolicy", 32),
    always("MutatingAdmissionWebhook"),
    always("NamespaceAutoProvision"),
    always("NamespaceExists"),
    always("NamespaceLifecycle"),
    since("NodeDeclaredFeatureValidator", 35),
    always(NODE_RESTRICTION),
    always("OwnerReferencesPermissionEnforcement"),
    always("PersistentVolumeClaimResize"),
    until("PersistentVolumeLabel", 31),
    since("PodGroupProtection", 36),
    since("PodGroupWorkloadExists", 36),
    always("PodNodeSelector"),
    since("PodResizeValidator", 36),
    since("PodSecurity", 22),
    until("PodSecurityPolicy", 25),
    always("PodTolerationRestriction"),
    since("PodTopologyLabels", 33),
    always("Priority"),
    always("ResourceQuota"),
    always("RuntimeClass"),
    until("SecurityContextDeny", 30),
    always("ServiceAccount"),
    always("StorageObjectInUseProtection"),
    always("TaintNodesByCondition"),
    since("ValidatingAdmissionPolicy", 26),
    always("ValidatingAdmissionWebhook"),
];

/// Every name that the schema takes, sorted.
pub fn all_names() -> Vec<&'static str> {
    PLUGINS.iter().map(|plugin| plugin.name).collect()
}

/// Whether kube-apiserver of this version accepts the name.
pub fn exists(version: Minor, name: &str) -> bool {
    PLUGINS.iter().any(|plugin| {
        plugin.name == name
            && Minor(1, plugin.since) <= version
            && plugin.until.is_none_or(|until| version < Minor(1, until))
    })
}

/// What becomes of a request for plug-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// For `--enable-admission-plugins`, sorted, each once, NodeRestriction
    /// among them.
    pub effective: Vec<String>,
    /// Requested names that this version does not have, in the order of the
    /// request.
    pub dropped: Vec<String>,
}

/// The plug-ins to enable in a version of Kubernetes.
pub fn admission_plugins(version: &KubernetesVersion, requested: &[String]) -> Selection {
    let (mut effective, dropped): (Vec<String>, Vec<String>) = requested
        .iter()
        .cloned()
        .partition(|name| exists(version.minor(), name));
    effective.push(NODE_RESTRICTION.to_owned());
    effective.sort();
    effective.dedup();
    Selection { effective, dropped }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_a_version_lacks_is_dropped_and_node_restriction_is_on() {
        let version: KubernetesVersion = "v1.36.3".parse().unwrap();
        let requested = names(&["PodSecurityPolicy", "LimitRanger", "LimitRanger"]);
        let selection = admission_plugins(&version, &requested);
        assert_eq!(
            selection.effective,
            names(&["LimitRanger", "NodeRestriction"])
        );
        assert_eq!(selection.dropped, names(&["PodSecurityPolicy"]));

        let old: KubernetesVersion = "v1.24.0".parse().unwrap();
        assert!(admission_plugins(&old, &requested).dropped.is_empty());
        let selection = admission_plugins(&old, &names(&["PodTopologyLabels"]));
        assert_eq!(selection.dropped, names(&["PodTopologyLabels"]));
    }

    #[test]
    fn the_default_exists_in_every_version() {
        for minor in 20..=36 {
            for name in DEFAULT {
                assert!(exists(Minor(1, minor), name), "{name} in 1.{minor}");
            }
        }
    }

    #[test]
    fn names_are_sorted_and_unique() {
        let all = all_names();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
    }
}
