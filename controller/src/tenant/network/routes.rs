//! What leads clients to a tenant by its name: an Ingress, or routes of the Gateway API.
//! At most one of the two is wanted; what was wanted before stays until the place where
//! the tenant is reached now answers.

use apiservice::endpoint::Endpoint;
use apiservice::v1alpha1::ByName;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;

use crate::cluster::kinds::{Found, ObjectKind};
use crate::cluster::routes::{IngressRouteTcp, TlsRoute, TlsRouteV1Alpha2};
use crate::tenant::network::gateway::Route;
use crate::tenant::network::{exposure, ingress};
use crate::tenant::objects;
use crate::tenant::plan::{Object, ObjectKey, Plan, Step};
use crate::tenant::world::World;

/// The kinds that lead to a tenant by its name.
pub const KINDS: [ObjectKind; 4] = [
    ObjectKind::Ingress,
    ObjectKind::TlsRoute,
    ObjectKind::TlsRouteV1Alpha2,
    ObjectKind::IngressRouteTcp,
];

/// Where a tenant is dialled by its name.
pub struct Dialled {
    /// Clients.
    pub clients: Endpoint,
    /// The tunnel's agents, if there is a tunnel.
    pub agents: Option<Endpoint>,
}

/// Where the tenant is dialled by its name, if it is to be.
pub fn dialled(world: &World) -> Option<Dialled> {
    let tunnel = world.tenant.spec.konnectivity();
    match world.tenant.spec.control_plane.by_name()? {
        ByName::Ingress(ingress) => {
            let clients = ingress.endpoint()?;
            let host = tunnel.and_then(|_| ByName::Ingress(ingress).tunnel_host());
            let agents = host.map(|host| Endpoint::new(host, clients.port));
            Some(Dialled { clients, agents })
        }
        ByName::Gateway(gateway) => {
            let at = |route: Route<'_>| Endpoint::new(&route.host, route.dialled(world));
            Some(Dialled {
                clients: Route::of_clients(world, gateway).map(at)?,
                agents: Route::of_agents(world, gateway).map(at),
            })
        }
    }
}

/// The objects that lead to the tenant, as far as the management cluster has their kinds.
pub fn wanted(world: &World) -> Vec<Object> {
    match world.tenant.spec.control_plane.by_name() {
        None => Vec::new(),
        Some(ByName::Ingress(wanted)) => {
            let object = ingress::wanted(world, wanted);
            let is_served = |it: &Object| world.optional.can_have(it.kind()) == Some(true);
            object.into_iter().filter(is_served).collect()
        }
        Some(ByName::Gateway(wanted)) => {
            let kind = world.optional.tls_route().flatten();
            let Some(kind) = kind.filter(|_| !wanted.parent_refs.is_empty()) else {
                return Vec::new();
            };
            let clients = Route::of_clients(world, wanted);
            let routes = clients.into_iter().chain(Route::of_agents(world, wanted));
            routes.map(|route| route.object(world, kind)).collect()
        }
    }
}

/// How far what leads to the tenant by its name is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is reached otherwise.
    NotWanted,
    /// The management cluster does not have what it is made of, as far as is known.
    NotServed,
    /// It is not made, or no Gateway has taken it.
    Missing,
    /// A probe that began then or later, and got through, came on it.
    Proven(Timestamp),
}

/// How far what leads to the tenant at this endpoint is there.
///
/// Where a former way leads by the same name, nobody can tell on which of the two a probe
/// came. A Gateway must have taken the route then, and clients have the time that they have
/// where nothing can be probed: the name has to lead to another proxy.
pub fn way(world: &World, published: &Endpoint) -> Way {
    let by_name = world.tenant.spec.control_plane.by_name();
    let Some(by_name) = by_name.filter(|_| dialled(world).is_some()) else {
        return Way::NotWanted;
    };
    let keys: Vec<ObjectKey> = wanted(world).iter().map(Object::key).collect();
    if keys.is_empty() {
        return Way::NotServed;
    }
    let mut since = Timestamp::UNIX_EPOCH;
    for key in &keys {
        let live = world.owned.meta(key.kind, &key.name);
        let Some(live) = live.filter(|meta| world.ours(meta)) else {
            return Way::Missing;
        };
        let made = live.creation_timestamp.as_ref();
        since = made.map_or(since, |made| since.max(made.0));
    }
    if !is_shared(world, &keys, &published.host) {
        return Way::Proven(since);
    }
    if let ByName::Gateway(wanted) = by_name {
        let route = Route::of_clients(world, wanted);
        match route.and_then(|route| route.taken_since(world)) {
            Some(taken) => since = since.max(taken),
            None => return Way::Missing,
        }
    }
    let from = since.checked_add(exposure::UNPROBED_FOR);
    from.map_or(Way::Missing, Way::Proven)
}

/// Whether something else than the wanted objects leads clients by this name.
fn is_shared(world: &World, wanted: &[ObjectKey], host: &str) -> bool {
    let network = &world.tenant.spec.network_profile;
    let is_other = |held: &&Found| key(world, held).is_none_or(|key| !wanted.contains(&key));
    let mut others = ours(world).filter(is_other);
    network.fixed_address() == Some(host)
        || others.any(|held| hosts(held).iter().any(|it| it == host))
}

/// Keeps what leads to the tenant, and removes what did when nobody needs it any more.
pub fn plan(world: &World, plan: &mut Plan) {
    if let Some(at) = exposure::proven_by(world) {
        plan.revisit_at(at);
    }
    let wanted = wanted(world);
    let keys: Vec<ObjectKey> = wanted.iter().map(Object::key).collect();
    for mut object in wanted {
        with_former(world, &mut object);
        keep(world, plan, object);
    }
    let before: Vec<(ObjectKey, String)> = ours(world)
        .filter(|held| held.meta().deletion_timestamp.is_none())
        .filter_map(|held| Some((key(world, held)?, held.meta().uid.clone()?)))
        .filter(|(key, _)| !keys.contains(key))
        .collect();
    if before.is_empty() {
        return;
    }
    match exposure::former(world) {
        exposure::Former::Goes => {
            plan.steps.extend(
                before
                    .into_iter()
                    .map(|(key, uid)| Step::DeleteFormer { key, uid }),
            );
        }
        exposure::Former::Stays(until) => {
            if let Some(until) = until {
                plan.revisit_at(until);
            }
        }
    }
}

fn keep(world: &World, plan: &mut Plan, object: Object) {
    let name = object.key().name;
    macro_rules! keep {
        ($kind:ty) => {{
            let live = world.owned.get::<$kind>(&name).map(AsRef::as_ref);
            let live = live.map(|live: &$kind| (&live.metadata, live));
            objects::keep(world, plan, object, live)
        }};
    }
    match object.kind() {
        ObjectKind::Ingress => keep!(Ingress),
        ObjectKind::TlsRoute => keep!(TlsRoute),
        ObjectKind::TlsRouteV1Alpha2 => keep!(TlsRouteV1Alpha2),
        ObjectKind::IngressRouteTcp => keep!(IngressRouteTcp),
        _ => {}
    }
}

fn ours(world: &World) -> impl Iterator<Item = &Found> {
    let all = world.owned.iter();
    all.filter(|held| KINDS.contains(&held.kind()) && world.ours(held.meta()))
}

fn key(world: &World, held: &Found) -> Option<ObjectKey> {
    Some(ObjectKey {
        kind: held.kind(),
        namespace: world.namespace().to_owned(),
        name: held.meta().name.clone()?,
    })
}

/// As many names of before are kept at most.
const MOST_FORMER: usize = 8;

/// The names by which clients are still led to the tenant, although others are wanted.
pub fn former_hosts(world: &World) -> Vec<String> {
    if ours(world).next().is_none() || exposure::former(world) == exposure::Former::Goes {
        return Vec::new();
    }
    let mut hosts: Vec<String> = ours(world).flat_map(hosts).collect();
    hosts.retain(|host| !host.starts_with('*'));
    hosts.truncate(MOST_FORMER);
    hosts
}

fn hosts(held: &Found) -> Vec<String> {
    match held {
        Found::Ingress(ingress) => {
            let rules = ingress.spec.iter().flat_map(|it| it.rules.iter().flatten());
            rules.filter_map(|rule| rule.host.clone()).collect()
        }
        Found::TlsRoute(route) => route.spec.hostnames.clone(),
        Found::TlsRouteV1Alpha2(route) => route.spec.hostnames.clone(),
        Found::IngressRouteTcp(route) => {
            let routes = route.spec.routes.iter();
            routes
                .filter_map(|it| ingress::host_of(&it.matches))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Of an object that is kept under another name than it had: what led by that stays in it
/// until the new one answers.
fn with_former(world: &World, object: &mut Object) {
    let former = former_hosts(world);
    if former.is_empty() {
        return;
    }
    let name = object.key().name;
    let is_former = |host: &String| former.contains(host);
    match object {
        Object::Ingress(wanted) => {
            let live = world.owned.get::<Ingress>(&name);
            let live = live.and_then(|it| it.spec.as_ref());
            let Some((wanted, live)) = wanted.spec.as_mut().zip(live) else {
                return;
            };
            let rules = wanted.rules.get_or_insert_default();
            let known: Vec<_> = rules.iter().map(|it| it.host.clone()).collect();
            let all = live.rules.iter().flatten();
            let others = all.filter(|it| it.host.as_ref().is_some_and(is_former));
            let others: Vec<_> = others.filter(|it| !known.contains(&it.host)).collect();
            rules.extend(others.iter().map(|it| (*it).clone()));
            let tls = wanted.tls.iter_mut().flatten().next();
            let hosts = tls.map(|tls| tls.hosts.get_or_insert_default());
            if let Some(hosts) = hosts {
                hosts.extend(others.into_iter().filter_map(|it| it.host.clone()));
            }
        }
        Object::TlsRoute(wanted) => {
            let live = world.owned.get::<TlsRoute>(&name);
            let live = live.map(|it| &it.spec.hostnames);
            add_former(&mut wanted.spec.hostnames, live, is_former);
        }
        Object::TlsRouteV1Alpha2(wanted) => {
            let live = world.owned.get::<TlsRouteV1Alpha2>(&name);
            let live = live.map(|it| &it.spec.hostnames);
            add_former(&mut wanted.spec.hostnames, live, is_former);
        }
        Object::IngressRouteTcp(wanted) => {
            let live = world.owned.get::<IngressRouteTcp>(&name);
            let routes = live.iter().flat_map(|it| &it.spec.routes);
            for route in routes {
                let host = ingress::host_of(&route.matches);
                let known = wanted
                    .spec
                    .routes
                    .iter()
                    .any(|it| it.matches == route.matches);
                if !known && host.as_ref().is_some_and(is_former) {
                    wanted.spec.routes.push(route.clone());
                }
            }
        }
        _ => {}
    }
}

fn add_former(
    hostnames: &mut Vec<String>,
    live: Option<&Vec<String>>,
    is_former: impl Fn(&String) -> bool,
) {
    for host in live.into_iter().flatten() {
        if is_former(host) && !hostnames.contains(host) {
            hostnames.push(host.clone());
        }
    }
}
