//! What our API server may read for one tenant: the one Secret with which it
//! signs users' certificates (rule 13).

use apiservice::names;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use crate::tenant::objects;
use crate::tenant::plan::{Object, Plan};
use crate::tenant::world::World;

const COMPONENT: &str = "kubeconfig-signer";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Keeps Role and RoleBinding.
pub fn plan(world: &World, plan: &mut Plan) {
    let name = names::kubeconfig_signer(world.name());
    let live = world.owned.get::<Role>(&name).map(AsRef::as_ref);
    objects::keep(
        world,
        plan,
        Object::Role(role(world)),
        live.map(|live: &Role| (&live.metadata, live)),
    );
    let live = world.owned.get::<RoleBinding>(&name).map(AsRef::as_ref);
    let wanted = Object::RoleBinding(binding(world));
    let live = live.map(|live: &RoleBinding| (&live.metadata, live));
    objects::keep(world, plan, wanted, live);
}

fn role(world: &World) -> Role {
    let name = names::kubeconfig_signer(world.name());
    Role {
        metadata: objects::meta(world, &name, COMPONENT),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["secrets".to_owned()]),
            resource_names: Some(vec![names::client_ca(world.name())]),
            verbs: vec!["get".to_owned()],
            ..PolicyRule::default()
        }]),
    }
}

fn binding(world: &World) -> RoleBinding {
    let name = names::kubeconfig_signer(world.name());
    RoleBinding {
        metadata: objects::meta(world, &name, COMPONENT),
        role_ref: RoleRef {
            api_group: Some(RBAC.to_owned()),
            kind: "Role".to_owned(),
            name,
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: world.settings.api_server_service_account.clone(),
            namespace: Some(world.settings.operator_namespace.clone()),
            api_group: None,
        }]),
    }
}
