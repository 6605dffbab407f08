//! What belongs into the tenant's own API before anybody can use it: the
//! bindings of rule 16, and the namespace in which the probe of rule 15 writes.

use apiservice::names;
use apiservice::v1alpha1::TenantControlPlane;
use serde_json::{Value, json};

use crate::tenant::is_asleep;
use crate::tenant::plan::{Bindings, Object, Plan, Step};
use crate::tenant::world::World;

const RBAC: &str = "rbac.authorization.k8s.io";
const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";

/// Asks for the bindings until the probe has seen them. The step is planned
/// together with the Deployment, so that whoever carries it out is already
/// waiting when the tenant's API comes up.
pub fn plan(world: &World, plan: &mut Plan) {
    let deployed = world
        .deployment()
        .is_some_and(|live| world.ours(&live.metadata));
    if is_asleep(world) || world.probe.bindings == Some(true) || !(deployed || planned(plan)) {
        return;
    }
    plan.push(Step::Bootstrap(bindings()));
}

fn planned(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| match step {
        Step::Create(object) => matches!(object.as_ref(), Object::Deployment(_)),
        _ => false,
    })
}

/// As whom the bindings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Beyond RBAC: nobody is bound to anything yet.
    First,
    /// As a member of one of the bound groups.
    Member,
}

/// Who writes the bindings of this tenant: beyond RBAC only until a control plane
/// of this uid was Ready for the first time (rule 16).
pub fn writer(tenant: &TenantControlPlane) -> Writer {
    if tenant.was_ready() {
        Writer::Member
    } else {
        Writer::First
    }
}

/// The same for every tenant.
pub fn bindings() -> Bindings {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": names::PROBE_NAMESPACE, "labels": {names::LABEL_PROJECT: names::PROJECT}},
    });
    Bindings {
        objects: vec![
            cluster_admin(),
            binding(names::GROUP_KUBEADM_CLUSTER_ADMINS, "cluster-admin"),
            binding(names::GROUP_ADMIN, "cluster-admin"),
            binding(names::GROUP_VIEW, "view"),
            namespace,
        ],
        namespace: names::PROBE_NAMESPACE.to_owned(),
    }
}

/// With the default roles that a first start needs before the tenant has written
/// its own: everybody may ask for the health of the API server, and [`view`]
/// gives what it will. Not part of [`bindings`]: later they are the tenant's.
pub fn with_default_roles(mut bindings: Bindings) -> Bindings {
    let name = "system:public-info-viewer";
    let rules = json!([{
        "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"],
        "verbs": ["get"],
    }]);
    let group = |name: &str| json!({"apiGroup": RBAC, "kind": "Group", "name": name});
    let binding = json!({
        "apiVersion": RBAC_V1,
        "kind": "ClusterRoleBinding",
        "metadata": default_metadata(name),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [group("system:authenticated"), group("system:unauthenticated")],
    });
    bindings
        .objects
        .splice(0..0, [default_role(name, rules), binding, view()]);
    bindings
}

/// The role `view` as the tenant's controller manager puts it together some ten
/// seconds later; until then it would give nothing. Discovery is in it because
/// the default role for that comes a second later as well.
fn view() -> Value {
    let read = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["get", "list", "watch"]});
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
        {
            "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"],
            "verbs": ["get"],
        },
        read("", &core),
        read("apps", &apps),
        read("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
        read("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
        read("discovery.k8s.io", &["endpointslices"]),
        read("events.k8s.io", &["events"]),
        read("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
        read("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    ]);
    let mut role = default_role("view", rules);
    role["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] = json!("true");
    role["aggregationRule"] = json!({"clusterRoleSelectors": [
        {"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
    ]});
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
fn binding(group: &str, role: &str) -> Value {
    json!({
        "apiVersion": RBAC_V1,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": group, "labels": {names::LABEL_PROJECT: names::PROJECT}},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group}],
    })
}
