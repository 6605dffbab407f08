//! Who may do what in a tenant's API before anybody can use it: the bindings of
//! rule 16, and the namespace in which the probe of rule 15 writes.

use apiservice::names;
use serde_json::{Value, json};

use crate::inside::objects::metadata;

const RBAC: &str = "rbac.authorization.k8s.io";
const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";

/// The same for every tenant.
pub fn bindings() -> Vec<Value> {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": metadata(None, names::PROBE_NAMESPACE),
    });
    vec![
        cluster_admin(),
        binding(names::GROUP_KUBEADM_CLUSTER_ADMINS, "cluster-admin"),
        binding(names::GROUP_ADMIN, "cluster-admin"),
        binding(names::GROUP_VIEW, "view"),
        namespace,
    ]
}

/// The default roles that a first start needs before the tenant has written its own:
/// everybody may ask for the health of the API server, those who are known who they are,
/// what they may and what there is, and [`view`] gives what it will.
/// From then on they are the tenant's.
pub fn default_roles() -> Vec<Value> {
    let health = "system:public-info-viewer";
    let ask_for_health = json!([{
        "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"],
        "verbs": ["get"],
    }]);
    let known = [group("system:authenticated")];
    let everybody = [
        group("system:authenticated"),
        group("system:unauthenticated"),
    ];
    let basic = "system:basic-user";
    let asked = |group: &str, resources: &[&str]| rule(group, resources, &["create"]);
    let ask = json!([
        asked(
            "authorization.k8s.io",
            &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        ),
        asked("authentication.k8s.io", &["selfsubjectreviews"]),
    ]);
    let discovery = "system:discovery";
    let what_there_is = json!([{
        "nonResourceURLs": [
            "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
            "/openapi/*", "/readyz", "/version", "/version/",
        ],
        "verbs": ["get"],
    }]);
    vec![
        default_role(health, ask_for_health),
        default_binding(health, &everybody),
        default_role(basic, ask),
        default_binding(basic, &known),
        default_role(discovery, what_there_is),
        default_binding(discovery, &known),
        aggregated("system:aggregate-to-view", "view"),
        view(),
    ]
}

/// Whom a default role is given to.
fn default_binding(name: &str, subjects: &[Value]) -> Value {
    json!({
        "apiVersion": RBAC_V1,
        "kind": "ClusterRoleBinding",
        "metadata": default_metadata(name),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": subjects,
    })
}

/// The role `view` as the tenant's controller manager puts it together some ten
/// seconds later; until then it would give nothing.
fn view() -> Value {
    let mut role = aggregated("view", "edit");
    role["aggregationRule"] = json!({"clusterRoleSelectors": [
        {"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
    ]});
    role
}

/// A default role that may read, and is a part of another. That of which `view` is put
/// together is written as well: a controller manager that comes before it would take all
/// rules from `view`.
fn aggregated(name: &str, to: &str) -> Value {
    let read = |group: &str, resources: &[&str]| rule(group, resources, &["get", "list", "watch"]);
    let core = [
        "bindings",
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "namespaces/status",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "replicationcontrollers/status",
        "resourcequotas",
        "resourcequotas/status",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    let apps = [
        "controllerrevisions",
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
        "statefulsets",
        "statefulsets/scale",
        "statefulsets/status",
    ];
    let rules = json!([
        read("", &core),
        read("apps", &apps),
        read(
            "autoscaling",
            &[
                "horizontalpodautoscalers",
                "horizontalpodautoscalers/status"
            ]
        ),
        read(
            "batch",
            &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]
        ),
        read("discovery.k8s.io", &["endpointslices"]),
        read("events.k8s.io", &["events"]),
        read(
            "networking.k8s.io",
            &["ingresses", "ingresses/status", "networkpolicies"]
        ),
        read(
            "policy",
            &["poddisruptionbudgets", "poddisruptionbudgets/status"]
        ),
    ]);
    let mut role = default_role(name, rules);
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{to}");
    role["metadata"]["labels"][label] = json!("true");
    role
}

/// Bound before the API server has written it, a second after it serves, it
/// would give nothing.
fn cluster_admin() -> Value {
    let rules = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    default_role("cluster-admin", rules)
}

/// A role as an API server writes it itself.
fn default_role(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": RBAC_V1,
        "kind": "ClusterRole",
        "metadata": default_metadata(name),
        "rules": rules,
    })
}

/// With it, an API server keeps what is ours as its own default.
fn default_metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

/// Binds a group to a ClusterRole under the group's own name.
fn binding(name: &str, role: &str) -> Value {
    cluster_role_binding(name, role, json!([group(name)]))
}

/// A ClusterRole of ours.
pub fn cluster_role(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": RBAC_V1,
        "kind": "ClusterRole",
        "metadata": metadata(None, name),
        "rules": rules,
    })
}

/// A ClusterRoleBinding of ours.
pub fn cluster_role_binding(name: &str, role: &str, subjects: Value) -> Value {
    json!({
        "apiVersion": RBAC_V1,
        "kind": "ClusterRoleBinding",
        "metadata": metadata(None, name),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

/// A Role of ours.
pub fn role(namespace: &str, name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": RBAC_V1,
        "kind": "Role",
        "metadata": metadata(Some(namespace), name),
        "rules": rules,
    })
}

/// A RoleBinding of ours to the Role of its name.
pub fn role_binding(namespace: &str, name: &str, subjects: Value) -> Value {
    json!({
        "apiVersion": RBAC_V1,
        "kind": "RoleBinding",
        "metadata": metadata(Some(namespace), name),
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": subjects,
    })
}

/// What may be done with resources of a group.
pub fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// Subjects of bindings.
pub fn group(name: &str) -> Value {
    json!({"apiGroup": RBAC, "kind": "Group", "name": name})
}

/// A user of this name.
pub fn user(name: &str) -> Value {
    json!({"apiGroup": RBAC, "kind": "User", "name": name})
}

/// A ServiceAccount.
pub fn service_account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller manager puts `view` together of what its selector finds, as soon as it
    /// runs: there is all of it, though the API server has not written its own roles yet.
    #[test]
    fn view_stays_what_it_is_when_it_is_put_together() {
        let roles = default_roles();
        let view = roles.iter().find(|role| role["metadata"]["name"] == "view");
        let view = view.unwrap();
        let selector = &view["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"];
        let selected = |role: &&Value| {
            let wanted = selector.as_object().unwrap();
            let mut wanted = wanted.iter();
            wanted.all(|(label, value)| role["metadata"]["labels"][label] == *value)
        };
        let rules: Vec<&Value> = roles
            .iter()
            .filter(selected)
            .flat_map(|role| role["rules"].as_array().unwrap())
            .collect();
        let has: Vec<&Value> = view["rules"].as_array().unwrap().iter().collect();
        assert_eq!(rules, has);
        assert!(!has.is_empty());
    }
}
