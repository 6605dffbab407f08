//! Objects in a tenant's API, as JSON: some are of kinds that only the tenant knows.

use apiservice::names;
use serde_json::{Value, json};

/// The path of an object; `None` for kinds that are not kept in tenants.
pub fn path_of(object: &Value) -> Option<String> {
    let (collection, name) = place(object)?;
    Some(format!("{collection}/{name}"))
}

/// The path of the collection that an object is created in, and its name.
pub fn place(object: &Value) -> Option<(String, &str)> {
    let version = object["apiVersion"].as_str()?;
    let name = object["metadata"]["name"].as_str()?;
    let plural = match object["kind"].as_str()? {
        "Namespace" => "namespaces",
        "ClusterRole" => "clusterroles",
        "ClusterRoleBinding" => "clusterrolebindings",
        "Role" => "roles",
        "RoleBinding" => "rolebindings",
        "ConfigMap" => "configmaps",
        "ServiceAccount" => "serviceaccounts",
        "Service" => "services",
        "Deployment" => "deployments",
        "DaemonSet" => "daemonsets",
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding" => "validatingadmissionpolicybindings",
        _ => return None,
    };
    let root = if version.contains('/') { "apis" } else { "api" };
    let collection = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}"),
        None => format!("/{root}/{version}/{plural}"),
    };
    Some((collection, name))
}

/// Where a cluster keeps what it consists of itself.
pub const SYSTEM: &str = "kube-system";

/// A ConfigMap of ours with these texts.
pub fn config_map(namespace: &str, name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(Some(namespace), name),
        "data": data,
    })
}

/// Metadata of an object of ours.
pub fn metadata(namespace: Option<&str>, name: &str) -> Value {
    let mut metadata = json!({"name": name, "labels": {names::LABEL_PROJECT: names::PROJECT}});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// Whether an object in a tenant is one of ours.
pub fn is_ours(live: &Value) -> bool {
    live["metadata"]["labels"][names::LABEL_PROJECT] == names::PROJECT
}

/// Whether what somebody adds to the specification, a field or an element of a list, is drift
/// as well: it could take the effect from what we say. Nothing in it could be lost, so it is
/// written whole.
pub fn is_wholly_ours(object: &Value) -> bool {
    let kinds = [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    object["kind"]
        .as_str()
        .is_some_and(|kind| kinds.contains(&kind))
}

/// A field of the live specification that the wanted one does not have.
pub fn added_to_spec<'a>(wanted: &Value, live: &'a Value) -> Option<&'a String> {
    let ours = wanted["spec"].as_object()?;
    let theirs = live["spec"].as_object()?;
    theirs.keys().find(|field| !ours.contains_key(*field))
}

/// A document, as people write it.
pub fn yaml(document: &Value) -> String {
    // JSON is YAML as well.
    serde_saphyr::to_string(document).unwrap_or_else(|_| document.to_string())
}

/// Kind and name, as messages have it.
pub fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&object["metadata"]["name"]);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{} {namespace}/{name}", text(&object["kind"])),
        None => format!("{} {name}", text(&object["kind"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_what_is_kept() {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "steward:admin"},
        });
        assert_eq!(
            path_of(&binding).unwrap(),
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/steward:admin"
        );
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
        assert_eq!(path_of(&namespace).unwrap(), "/api/v1/namespaces/a");
        assert_eq!(title(&namespace), "Namespace a");
    }
}
