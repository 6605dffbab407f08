//! Names of ours that are somebody else's.

use crate::tenant::network::routes;
use crate::tenant::objects;
use crate::tenant::plan::{ObjectKey, ObjectKind, Plan, Step};
use crate::tenant::workload::konnectivity;
use crate::tenant::world::{Ownership, World};

/// The order in which they are told of.
const TOLD: [ObjectKind; ObjectKind::ALL.len()] = [
    ObjectKind::Service,
    ObjectKind::Deployment,
    ObjectKind::Secret,
    ObjectKind::ConfigMap,
    ObjectKind::Role,
    ObjectKind::RoleBinding,
    ObjectKind::Ingress,
    ObjectKind::TlsRoute,
    ObjectKind::TlsRouteV1Alpha2,
    ObjectKind::IngressRouteTcp,
];

/// Names every object that has a name of ours and is not ours. What depends on
/// one that is taken is not planned at all, and would be told of only when
/// that one is free.
pub fn name_all(world: &World, plan: &mut Plan) {
    let all = TOLD.into_iter();
    let named = |kind: ObjectKind| {
        kind.names(world.name())
            .into_iter()
            .map(move |name| (kind, name))
    };
    let tunnel = konnectivity::objects_of(world.name());
    let routes: Vec<_> = routes::wanted(world)
        .iter()
        .map(|object| (object.kind(), object.key().name))
        .collect();
    let is_wanted = |object: &(ObjectKind, String)| match routes::KINDS.contains(&object.0) {
        true => routes.contains(object),
        false => world.tenant.spec.konnectivity().is_some() || !tunnel.contains(object),
    };
    for (kind, name) in all.flat_map(named).filter(is_wanted) {
        let Some(meta) = world.owned.meta(kind, &name) else {
            continue;
        };
        let key = ObjectKey {
            kind,
            namespace: world.namespace().to_owned(),
            name,
        };
        if world.ownership(meta) == Ownership::Foreign {
            let waiting = objects::taken(world, &key, meta);
            let told = |step: &Step| matches!(step, Step::Wait(known) if *known == waiting);
            if !plan.steps.iter().any(told) {
                plan.push(Step::Wait(waiting));
            }
        }
    }
}
