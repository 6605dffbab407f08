//! What belongs into the tenant's own API before anybody can use it: the
//! bindings of rule 16, and the namespace in which the probe of rule 15 writes.

use apiservice::names;
use serde_json::{Value, json};

use super::is_asleep;
use super::plan::{Bindings, Object, Plan, Step};
use super::world::World;

/// Asks for the bindings until the probe has seen them. The step is planned
/// together with the Deployment, so that whoever carries it out is already
/// waiting when the tenant's API comes up.
pub fn plan(world: &World, plan: &mut Plan) {
    let deployed = world
        .owned
        .deployment
        .as_deref()
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

/// The role as an API server writes it itself, a second after it serves. Bound
/// before that, it would give nothing.
fn cluster_admin() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": "cluster-admin",
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "rules": [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ],
    })
}

/// Binds a group to a ClusterRole under the group's own name.
fn binding(group: &str, role: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": group, "labels": {names::LABEL_PROJECT: names::PROJECT}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    })
}
