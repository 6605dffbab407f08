//! Objects of the tests, and what other writers do to them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::served::Served;

/// How long caches and controllers may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A tenant that is written as the API keeps it; `more` are lines of its spec.
pub fn tenant(namespace: &str, name: &str, replicas: u32, more: &str) -> String {
    format!(
        "
---
apiVersion: steward.butlerlabs.dev/v1alpha1
kind: TenantControlPlane
metadata:
  name: {name}
  namespace: {namespace}
spec:
  dataStore: {namespace}
  kubernetes:
    version: v1.36.3
    kubelet:
      preferredAddressTypes: [InternalIP]
  controlPlane:
    deployment:
      replicas: {replicas}
    service:
      serviceType: ClusterIP
{more}"
    )
}

/// A DataStore.
pub fn data_store(name: &str) -> String {
    tests::served::DATA_STORE.replace("name: default", &format!("name: {name}"))
}

/// A namespace of its own for each tool.
pub fn namespace(served: &Served, name: &str) {
    served.kubectl(&["create", "namespace", name]);
}

/// A tenant as it is now; null is none.
pub fn get(served: &Served, namespace: &str, name: &str) -> Value {
    let arguments = ["get", "tcp", name, "-o=json", "--show-managed-fields"];
    let said = served.try_kubectl(&[&["-n", namespace], &arguments[..]].concat());
    if said.code != 0 {
        assert!(said.stderr.contains("(NotFound)"), "{}", said.text());
        return Value::Null;
    }
    serde_json::from_str(&said.stdout).unwrap()
}

/// What somebody does by hand.
pub fn edit(served: &Served, namespace: &str, name: &str, patch: &str) {
    let arguments = ["patch", "tcp", name, "--type=merge", "-p", patch];
    let who = ["-n", namespace, "--field-manager=kubectl-edit"];
    served.kubectl(&[&who, &arguments[..]].concat());
}

/// What Steward's controller does: conditions with status and reason, about this generation
/// or (`behind`) the one before.
pub fn report(
    served: &Served,
    (namespace, name): (&str, &str),
    conditions: &[(&str, &str, &str)],
    behind: i64,
) {
    let object = get(served, namespace, name);
    let generation = object["metadata"]["generation"].as_i64().unwrap() - behind;
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason)| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": "",
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        })
        .collect();
    let status = json!({"status": {"observedGeneration": generation, "conditions": conditions}});
    let patch = status.to_string();
    let arguments = ["patch", "tcp", name, "--type=merge", "-p", &patch];
    let who = [
        "-n",
        namespace,
        "--subresource=status",
        "--field-manager=steward-controller",
    ];
    served.kubectl(&[&who, &arguments[..]].concat());
}

/// The finalizer that Steward's controller keeps, or none.
pub fn finalizer(served: &Served, namespace: &str, name: &str, held: bool) {
    let list = if held {
        r#"["steward.butlerlabs.dev/finalizer"]"#
    } else {
        "null"
    };
    let patch = format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
    let arguments = ["patch", "tcp", name, "--type=merge", "-p", &patch];
    let who = ["-n", namespace, "--field-manager=steward-controller"];
    served.kubectl(&[&who, &arguments[..]].concat());
}

/// `manager/operation/subresource` of each manager of fields.
pub fn managers(object: &Value) -> Vec<String> {
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    managers
        .iter()
        .map(|it| {
            let parts = ["manager", "operation", "subresource"].map(|part| text(&it[part]));
            parts.join("/")
        })
        .collect()
}

/// Asks ten times a second until there is no difference.
#[track_caller]
pub fn until(what: &str, mut wanted: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    while let Err(is) = wanted() {
        assert!(
            began.elapsed() < PATIENCE,
            "within {PATIENCE:?}: {what}: {is}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
