//! What became of the objects that lead clients to a tenant by its name.

use apiservice::condition::reason;
use apiservice::v1alpha1::{
    ByName, GatewayResourceStatus, IngressResourceStatus, LocalReference, ParentReference,
    RouteParentStatus,
};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::cluster::kinds::ObjectKind;
use crate::cluster::routes::RouteParent;
use crate::report::diagnose::quote;
use crate::report::judgement::{Judgement, known_reason};
use crate::report::ready;
use crate::tenant::World;
use crate::tenant::network::gateway::{self, Route, is_asked, is_current};
use crate::tenant::network::{ingress, routes};
use crate::tenant::plan::{Outcome, Plan, Step};

/// Whether clients are led to the tenant by its name, as far as those say who lead them.
/// `None`: nobody asks for it.
pub fn exposed(world: &World, plan: &Plan, outcomes: &[Outcome]) -> Option<Judgement> {
    let Some(way) = world.tenant.spec.control_plane.by_name() else {
        return not_deleted(plan, outcomes);
    };
    let verdict = not_possible(world, way).or_else(|| not_written(plan, outcomes));
    let verdict = verdict.or_else(|| not_deleted(plan, outcomes));
    Some(verdict.unwrap_or_else(|| match way {
        ByName::Ingress(_) => of_ingress(world),
        ByName::Gateway(wanted) => of_gateways(world, wanted),
    }))
}

fn not_possible(world: &World, way: ByName<'_>) -> Option<Judgement> {
    let (field, needs, install) = match way {
        ByName::Ingress(_) => (
            "ingress",
            "IngressRouteTCP of traefik.io/v1alpha1",
            "Traefik with its CRDs",
        ),
        ByName::Gateway(_) => (
            "gateway",
            "TLSRoute of gateway.networking.k8s.io (v1 or v1alpha2)",
            "the CRDs of the Gateway API and a controller of it",
        ),
    };
    if way.host().is_none() {
        return Some(Judgement::no(
            reason::ROUTE_INCOMPLETE,
            format!("spec.controlPlane.{field}.hostname is not a name that clients can dial"),
        ));
    }
    if let ByName::Gateway(wanted) = way
        && wanted.parent_refs.is_empty()
    {
        return Some(Judgement::no(
            reason::ROUTE_INCOMPLETE,
            "spec.controlPlane.gateway.parentRefs names no Gateway",
        ));
    }
    let known = match way {
        ByName::Ingress(wanted) => {
            let kind = ingress::wanted(world, wanted)?.kind();
            world.optional.can_have(kind)
        }
        ByName::Gateway(_) => world.optional.tls_route().map(|kind| kind.is_some()),
    };
    match known {
        Some(true) => None,
        Some(false) => Some(Judgement::no(
            reason::KIND_NOT_SERVED,
            format!(
                "The management cluster has no {needs}. Install {install}; the route is made as \
                 soon as it is there."
            ),
        )),
        None => Some(Judgement::unknown(
            reason::ROUTE_PENDING,
            format!("Whether the management cluster has {needs} is being found out"),
        )),
    }
}

fn not_written(plan: &Plan, outcomes: &[Outcome]) -> Option<Judgement> {
    plan.steps.iter().zip(outcomes).find_map(|it| match it {
        (
            Step::Create(object) | Step::Apply(object),
            Outcome::Failed {
                reason, message, ..
            },
        ) if routes::KINDS.contains(&object.kind())
            && ![reason::NAME_TAKEN, reason::CONTESTED].contains(&reason.as_str()) =>
        {
            let known = known_reason(reason).unwrap_or(reason::ROUTE_REFUSED);
            let message = format!("{}: {}", object.key(), quote(message));
            Some(Judgement::no(known, message))
        }
        _ => None,
    })
}

/// What led clients before cannot be removed.
fn not_deleted(plan: &Plan, outcomes: &[Outcome]) -> Option<Judgement> {
    plan.steps.iter().zip(outcomes).find_map(|it| match it {
        (Step::DeleteFormer { key, .. }, Outcome::Failed { message, .. }) => {
            let message = format!(
                "{key}, which led clients before, cannot be deleted: {}",
                quote(message)
            );
            Some(Judgement::unknown(reason::ROUTE_REFUSED, message))
        }
        _ => None,
    })
}

fn of_ingress(world: &World) -> Judgement {
    let name = world.name();
    let traefik = world.owned.meta(ObjectKind::IngressRouteTcp, name);
    let live = ours_ingress(world);
    if live.is_none() && traefik.is_none_or(|meta| !world.ours(meta)) {
        return Judgement::no(reason::ROUTE_PENDING, "The route is being created");
    }
    let status = live.and_then(|live| live.status.as_ref());
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let entries = balancer
        .into_iter()
        .flat_map(|it| it.ingress.iter().flatten());
    let addresses = entries.filter_map(|it| it.ip.clone().or_else(|| it.hostname.clone()));
    let addresses: Vec<String> = addresses.take(8).collect();
    let is_reached = ready::probed(world).is_some_and(|fact| fact.result.is_ok());
    match addresses.is_empty() {
        true if is_reached => Judgement::yes(reason::AS_EXPECTED, ""),
        // Nobody has said that it took the route.
        true => Judgement::unknown(
            reason::ROUTE_PENDING,
            "The route is made; no controller has given it an address yet, and no probe has \
             come through",
        ),
        false => Judgement::yes(
            reason::AS_EXPECTED,
            format!("The Ingress controller listens at {}", addresses.join(", ")),
        ),
    }
}

fn ours_ingress(world: &World) -> Option<&Ingress> {
    let live = world.owned.get::<Ingress>(world.name())?;
    world.ours(&live.metadata).then_some(live.as_ref())
}

fn of_gateways(world: &World, wanted: &apiservice::v1alpha1::Gateway) -> Judgement {
    let clients = Route::of_clients(world, wanted);
    if !world.gateways_known {
        let port = clients.map_or(0, |route| route.dialled(world));
        return Judgement::unknown(
            reason::ROUTE_PENDING,
            format!("The Gateways cannot be read: clients are sent to port {port}"),
        );
    }
    let all = clients.into_iter().chain(Route::of_agents(world, wanted));
    let verdicts: Vec<Judgement> = all.map(|route| of_route(world, &route)).collect();
    let accepted = Judgement::yes(reason::AS_EXPECTED, "");
    let is_bad = |it: &&Judgement| it.reason == reason::ROUTE_NOT_ACCEPTED;
    let is_late = |it: &&Judgement| it.reason == reason::ROUTE_PENDING;
    let found = verdicts.iter().find(is_bad);
    let found = found.or_else(|| verdicts.iter().find(is_late));
    found.or(verdicts.first()).cloned().unwrap_or(accepted)
}

/// One route: refused by any Gateway, taken by one, or neither.
fn of_route(world: &World, route: &Route<'_>) -> Judgement {
    let name = format!("TLSRoute {}/{}", world.namespace(), route.name);
    let missing = route.missing_listener(world);
    let live = gateway::live(world, &route.name).filter(|(meta, ..)| world.ours(meta));
    let Some((meta, spec, status)) = live else {
        let message = missing.unwrap_or_else(|| format!("{name} is being created"));
        return Judgement::no(reason::ROUTE_PENDING, message);
    };
    let said = status.map(|it| it.parents.as_slice()).unwrap_or_default();
    let said = said
        .iter()
        .filter(|it| is_asked(meta, spec, &it.parent_ref));
    let said: Vec<_> = said.collect();
    for parent in &said {
        let mut conditions = parent.conditions.iter();
        let refused = conditions.find(|it| {
            ["Accepted", "ResolvedRefs"].contains(&it.type_.as_str())
                && it.status == "False"
                && is_current(meta, it)
        });
        if let Some(it) = refused {
            let message = format!(
                "{name}: Gateway {} says {}: {}. It needs a listener {} for TLS, in mode \
                 Passthrough, that allows routes of this namespace and name.",
                place(world, &parent.parent_ref),
                quote(&it.reason),
                quote(&it.message),
                route.section(),
            );
            return Judgement::no(reason::ROUTE_NOT_ACCEPTED, message);
        }
    }
    let missing = missing.map(|missing| {
        let port = route.dialled(world);
        format!("{missing}: clients are sent to port {port}")
    });
    if route.taken_since(world).is_some() {
        return Judgement::yes(reason::AS_EXPECTED, missing.unwrap_or_default());
    }
    let message = missing.unwrap_or_else(|| format!("No Gateway has taken {name} yet"));
    Judgement::no(reason::ROUTE_PENDING, message)
}

fn place(world: &World, parent: &RouteParent) -> String {
    let namespace = parent.namespace.as_deref().unwrap_or(world.namespace());
    format!("{namespace}/{}", parent.name)
}

/// The Ingress as it stands; `None` without one.
pub fn ingress_status(world: &World) -> Option<IngressResourceStatus> {
    let live = ours_ingress(world)?;
    Some(IngressResourceStatus {
        ingress: live.status.clone().unwrap_or_default(),
        name: world.name().to_owned(),
        namespace: world.namespace().to_owned(),
    })
}

/// The route to the API server as it stands; `None` without one.
pub fn gateway_status(world: &World) -> Option<GatewayResourceStatus> {
    let wanted = world.tenant.spec.control_plane.gateway.as_ref()?;
    route_status(world, &Route::of_clients(world, wanted)?)
}

/// The route to the tunnel's servers as it stands; `None` without one.
pub fn tunnel_status(world: &World) -> Option<GatewayResourceStatus> {
    let wanted = world.tenant.spec.control_plane.gateway.as_ref()?;
    route_status(world, &Route::of_agents(world, wanted)?)
}

/// Conditions of a parent, and characters of their messages, that are told on.
const CONDITIONS: usize = 8;
const MESSAGE: usize = 256;

fn route_status(world: &World, route: &Route<'_>) -> Option<GatewayResourceStatus> {
    let live = gateway::live(world, &route.name).filter(|(meta, ..)| world.ours(meta));
    let (meta, spec, status) = live?;
    let parents = status.map(|it| it.parents.as_slice()).unwrap_or_default();
    let parents = parents
        .iter()
        .filter(|it| is_asked(meta, spec, &it.parent_ref));
    let told = |it: &crate::cluster::routes::RouteParentStatus| RouteParentStatus {
        parent_ref: reference(&it.parent_ref),
        controller_name: it.controller_name.clone(),
        conditions: conditions(&it.conditions),
    };
    Some(GatewayResourceStatus {
        parents: parents.map(told).collect(),
        route_ref: Some(LocalReference {
            name: route.name.clone(),
        }),
        access_points: route.access_points(world),
    })
}

/// Each type once: the status is a map by type.
fn conditions(all: &[Condition]) -> Vec<Condition> {
    let mut told: Vec<Condition> = Vec::new();
    for condition in all {
        if told.iter().all(|it| it.type_ != condition.type_) && told.len() < CONDITIONS {
            let mut condition = condition.clone();
            let end = condition.message.floor_char_boundary(MESSAGE);
            condition.message.truncate(end);
            told.push(condition);
        }
    }
    told
}

fn reference(of: &RouteParent) -> ParentReference {
    let default = ParentReference::default();
    ParentReference {
        group: of.group.clone().unwrap_or(default.group),
        kind: of.kind.clone().unwrap_or(default.kind),
        namespace: of.namespace.clone(),
        name: of.name.clone(),
        section_name: of.section_name.clone(),
        port: of.port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn what_gateways_say_is_told_in_few_words() {
        let said = |number: usize| Condition {
            type_: format!("T{}", number / 2),
            status: "True".to_owned(),
            reason: "R".to_owned(),
            message: "\u{e4}".repeat(1000),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        };
        let all: Vec<Condition> = (0..100).map(said).collect();
        let told = conditions(&all);
        assert_eq!(told.len(), CONDITIONS);
        let types: Vec<&str> = told.iter().map(|it| it.type_.as_str()).collect();
        assert_eq!(types[..2], ["T0", "T1"], "each type once");
        assert_eq!(told[0].message.len(), MESSAGE);
    }
}
