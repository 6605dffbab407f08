//! What the API itself puts into objects that leave it out, and what others may
//! put into the parts that are ours.

use serde_json::{Value, json};

/// A field below a parent of this name that was left out is given this value.
/// Parents are the last names of the path; elements of lists count for nothing.
type Default = (&'static [&'static str], &'static str, fn() -> Value);

/// From `pkg/apis/apps/v1/defaults.go` and `pkg/apis/core/v1/defaults.go` of
/// Kubernetes 1.24 to 1.36.
const DEFAULTS: &[Default] = &[
    // Deployments.
    (&["spec"], "progressDeadlineSeconds", || json!(600)),
    (&["spec"], "revisionHistoryLimit", || json!(10)),
    (&["spec"], "replicas", || json!(1)),
    (&["strategy"], "type", || json!("RollingUpdate")),
    (&["rollingUpdate"], "maxSurge", || json!("25%")),
    (&["rollingUpdate"], "maxUnavailable", || json!("25%")),
    // Pods.
    (&["template", "spec"], "dnsPolicy", || json!("ClusterFirst")),
    (&["template", "spec"], "enableServiceLinks", || json!(true)),
    (&["template", "spec"], "restartPolicy", || json!("Always")),
    (&["template", "spec"], "schedulerName", || {
        json!("default-scheduler")
    }),
    (
        &["template", "spec"],
        "terminationGracePeriodSeconds",
        || json!(30),
    ),
    // Containers.
    (&["containers"], "terminationMessagePath", message_path),
    (&["containers"], "terminationMessagePolicy", || {
        json!("File")
    }),
    (&["initContainers"], "terminationMessagePath", message_path),
    (&["initContainers"], "terminationMessagePolicy", || {
        json!("File")
    }),
    (&["securityContext"], "procMount", || json!("Default")),
    (&["ports"], "protocol", || json!("TCP")),
    (&["fieldRef"], "apiVersion", || json!("v1")),
    (&["resourceFieldRef"], "divisor", || json!("0")),
    // Probes and hooks.
    (&["livenessProbe"], "timeoutSeconds", || json!(1)),
    (&["livenessProbe"], "periodSeconds", || json!(10)),
    (&["livenessProbe"], "successThreshold", || json!(1)),
    (&["livenessProbe"], "failureThreshold", || json!(3)),
    (&["readinessProbe"], "timeoutSeconds", || json!(1)),
    (&["readinessProbe"], "periodSeconds", || json!(10)),
    (&["readinessProbe"], "successThreshold", || json!(1)),
    (&["readinessProbe"], "failureThreshold", || json!(3)),
    (&["startupProbe"], "timeoutSeconds", || json!(1)),
    (&["startupProbe"], "periodSeconds", || json!(10)),
    (&["startupProbe"], "successThreshold", || json!(1)),
    (&["startupProbe"], "failureThreshold", || json!(3)),
    (&["httpGet"], "path", || json!("/")),
    (&["httpGet"], "scheme", || json!("HTTP")),
    // Volumes.
    (&["secret"], "defaultMode", || json!(0o644)),
    (&["configMap"], "defaultMode", || json!(0o644)),
    (&["downwardAPI"], "defaultMode", || json!(0o644)),
    (&["projected"], "defaultMode", || json!(0o644)),
    (&["serviceAccountToken"], "expirationSeconds", || {
        json!(3600)
    }),
    (&["volumeClaimTemplate", "spec"], "volumeMode", || {
        json!("Filesystem")
    }),
    (&["iscsi"], "iscsiInterface", || json!("default")),
    (&["rbd"], "pool", || json!("rbd")),
    (&["rbd"], "user", || json!("admin")),
    (&["rbd"], "keyring", || json!("/etc/ceph/keyring")),
    (&["scaleIO"], "storageMode", || json!("ThinProvisioned")),
    (&["scaleIO"], "fsType", || json!("xfs")),
    (&["azureDisk"], "cachingMode", || json!("ReadWrite")),
    (&["azureDisk"], "kind", || json!("Shared")),
    (&["azureDisk"], "fsType", || json!("ext4")),
    (&["azureDisk"], "readOnly", || json!(false)),
];

fn message_path() -> Value {
    json!("/dev/termination-log")
}

/// Fields that others may have in the parts that are ours, whatever they say.
const KEPT: &[(&[&str], &str)] = &[
    // `kubectl rollout restart`.
    (
        &["template", "metadata", "annotations"],
        "kubectl.kubernetes.io/restartedAt",
    ),
    // The old name of serviceAccountName, which the API keeps equal to it.
    (&["template", "spec"], "serviceAccount"),
    // What is not given is what the image's tag leads to.
    (&["containers"], "imagePullPolicy"),
    (&["initContainers"], "imagePullPolicy"),
    // The same of a volume that is an image.
    (&["image"], "pullPolicy"),
    // Given by the API where a Service needs one.
    (&["ports"], "nodePort"),
    // What is not given is the port itself.
    (&["ports"], "targetPort"),
];

/// Whether the API gives this value to a field that is left out.
pub fn is_default(parents: &[String], name: &str, value: &Value) -> bool {
    DEFAULTS
        .iter()
        .any(|(of, field, default)| *field == name && ends(parents, of) && default() == *value)
}

/// Whether a field stays that others have set.
pub fn is_kept(parents: &[String], name: &str) -> bool {
    KEPT.iter()
        .any(|(of, field)| *field == name && ends(parents, of))
}

/// Whether the path of the parents ends so.
fn ends(parents: &[String], names: &[&str]) -> bool {
    let mut parents = parents.iter().rev().filter(|part| !part.starts_with('['));
    names
        .iter()
        .rev()
        .all(|name| parents.next().is_some_and(|parent| parent == name))
}

#[cfg(test)]
mod tests {
    use crate::cluster::kinds::ObjectKind;
    use crate::tenant::drift::{added, first};
    use serde_json::json;

    /// A Deployment as it is written, and as the API gives it back.
    #[test]
    fn what_the_api_fills_in_is_nobodys_addition() {
        let wanted = json!({"spec": {"selector": {}, "template": {"metadata": {}, "spec": {
            "serviceAccountName": "default",
            "initContainers": [{"name": "i", "image": "i:latest"}],
            "containers": [{
                "name": "c", "image": "c",
                "ports": [{"containerPort": 1}],
                "env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"port": 1}},
                "readinessProbe": {"tcpSocket": {"port": 1}},
                "startupProbe": {"exec": {"command": ["a"]}},
                "lifecycle": {"preStop": {"httpGet": {"port": 1}}},
            }],
            "volumes": [
                {"name": "s", "secret": {"secretName": "s"}},
                {"name": "c", "configMap": {"name": "c"}},
                {"name": "h", "hostPath": {"path": "/"}},
                {"name": "e"},
                {"name": "m", "image": {"reference": "i"}},
                {"name": "p", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                ]}},
            ],
        }}}});
        let probe = json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
        let with = |more: serde_json::Value| {
            let mut probe = probe.clone();
            let more = more.as_object().unwrap().clone();
            probe.as_object_mut().unwrap().extend(more);
            probe
        };
        let volumes = json!([
                    {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
                    {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
                    {"name": "h", "hostPath": {"path": "/", "type": ""}},
                    {"name": "e", "emptyDir": {}},
                    {"name": "m", "image": {"reference": "i", "pullPolicy": "Always"}},
                    {"name": "p", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                        {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}]}},
                    ]}},
        ]);
        let live = json!({"spec": {
            "progressDeadlineSeconds": 600,
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "selector": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"creationTimestamp": null}, "spec": {
                "serviceAccountName": "default",
                "serviceAccount": "default",
                "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": true,
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30,
                "initContainers": [{
                    "name": "i", "image": "i:latest", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "containers": [{
                    "name": "c", "image": "c", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 1, "protocol": "TCP"}],
                    "env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
                    "livenessProbe": with(json!({"httpGet": {"port": 1, "path": "/", "scheme": "HTTP"}})),
                    "readinessProbe": with(json!({"tcpSocket": {"port": 1}})),
                    "startupProbe": with(json!({"exec": {"command": ["a"]}})),
                    "lifecycle": {"preStop": {"httpGet": {"port": 1, "path": "/", "scheme": "HTTP"}}},
                }],
                "volumes": volumes,
            }},
        }});
        assert_eq!(added(ObjectKind::Deployment, &wanted, &live), None);
        assert_eq!(first(&wanted, &live), None);
    }

    /// A default below another parent is somebody's wish.
    #[test]
    fn defaults_belong_to_their_place() {
        let of = |spec: serde_json::Value| json!({"spec": {"template": {"spec": spec}}});
        let wanted = of(json!({"initContainers": [{"name": "i", "image": "i"}]}));
        let live =
            of(json!({"initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always"}]}));
        assert!(added(ObjectKind::Deployment, &wanted, &live).is_some());
    }
}
