//! The routes of the Gateway API that lead clients to a tenant by its name (features 2.11):
//! one for the API server, and one for the tunnel's agents, each to a listener of its own.

use apiservice::condition::get;
use apiservice::endpoint::Endpoint;
use apiservice::names;
use apiservice::v1alpha1::{AccessPoint, ByName, Gateway as Wanted, ParentReference};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use crate::cluster::kinds::ObjectKind;
use crate::cluster::routes::{
    BackendRef, Gateway, Listener, RouteParent, TlsRoute, TlsRouteRule, TlsRouteSpec,
    TlsRouteStatus, TlsRouteV1Alpha2,
};
use crate::tenant::objects;
use crate::tenant::plan::Object;
use crate::tenant::world::World;

/// One route: who takes it, and where it leads.
pub struct Route<'a> {
    /// Name of the object.
    pub name: String,
    /// The part of the tenant that it is.
    component: &'static str,
    /// The listener of each Gateway.
    section: &'static str,
    /// The name that clients ask for.
    pub host: String,
    /// The port of the Service, and of listeners that nobody has seen.
    port: i32,
    wanted: &'a Wanted,
}

impl<'a> Route<'a> {
    /// To the API server; `None` without a usable name.
    pub fn of_clients(world: &World, wanted: &'a Wanted) -> Option<Self> {
        Some(Route {
            name: names::workload(world.name()),
            component: names::component::GATEWAY_ROUTES,
            section: Wanted::LISTENER,
            host: wanted.host()?.to_owned(),
            port: world.tenant.spec.network_profile.port,
            wanted,
        })
    }

    /// To the tunnel's servers; `None` without a tunnel too.
    pub fn of_agents(world: &World, wanted: &'a Wanted) -> Option<Self> {
        let tunnel = world.tenant.spec.konnectivity()?;
        Some(Route {
            name: names::konnectivity_route(world.name()),
            component: names::component::KONNECTIVITY_GATEWAY_ROUTES,
            section: Wanted::TUNNEL_LISTENER,
            host: ByName::Gateway(wanted).tunnel_host()?,
            port: tunnel.server.port,
            wanted,
        })
    }

    /// The port that is dialled: of the first listener that is known or was, else the one of
    /// the Service, which listeners then have to have. A Gateway that is away for a moment
    /// moves nobody.
    pub fn dialled(&self, world: &World) -> i32 {
        let mut parents = self.wanted.parent_refs.iter();
        let found = parents.find_map(|it| self.known_port(world, it));
        let found = found.or_else(|| self.learned(world, |_| true));
        let found = found.or_else(|| self.told(world));
        found.unwrap_or(self.port)
    }

    /// The port of the listener of a Gateway, as it is or was.
    fn known_port(&self, world: &World, of: &ParentReference) -> Option<i32> {
        let listener = gateway(world, of).and_then(|it| self.listener(it));
        let same = |it: &RouteParent| {
            let namespace =
                |of: &Option<String>| of.clone().unwrap_or(world.namespace().to_owned());
            it.name == of.name && namespace(&it.namespace) == namespace(&of.namespace)
        };
        let seen = listener.map(|it| it.port);
        seen.or_else(|| self.learned(world, same))
    }

    /// A port in the route as it stands that is of a listener. The one of the Service, to
    /// which the route leads, is there while nobody has seen a listener.
    fn learned(&self, world: &World, of: impl Fn(&RouteParent) -> bool) -> Option<i32> {
        let (meta, spec, _) = live(world, &self.name)?;
        let mut backends = spec.rules.iter().flat_map(|it| &it.backend_refs);
        let guess = backends.find_map(|it| it.port);
        let mut parents = spec.parent_refs.iter().filter(|it| {
            it.section_name.as_deref() == Some(self.section) && of(it) && world.ours(meta)
        });
        parents.find_map(|it| it.port.filter(|port| Some(*port) != guess))
    }

    /// The port at which clients were sent to this name before, unless it is the one of the
    /// Service: the kinds of the Gateway API may have gone, and the routes with them.
    fn told(&self, world: &World) -> Option<i32> {
        let told = world.told.as_ref();
        let status = world.tenant.status.as_ref();
        let published = status.and_then(|it| it.control_plane_endpoint.as_ref()?.parse().ok());
        let places = match self.section {
            Wanted::LISTENER => [told.map(|it| it.endpoint.clone()), published],
            _ => [told.and_then(|it| it.agents.clone()), None],
        };
        let service = world.service().and_then(|it| it.spec.as_ref());
        let ports = service.iter().flat_map(|it| it.ports.iter().flatten());
        let ports: Vec<i32> = ports.map(|it| it.port).collect();
        let mut places = places.into_iter().flatten();
        let found = places.find(|it: &Endpoint| it.host == self.host);
        found.map(|it| it.port).filter(|port| !ports.contains(port))
    }

    /// The listener that it attaches to.
    pub fn section(&self) -> &'static str {
        self.section
    }

    /// What of a Gateway is missing, as far as it can be told: the Gateway, or its listener.
    pub fn missing_listener(&self, world: &World) -> Option<String> {
        let mut parents = self.wanted.parent_refs.iter();
        parents.find_map(|it| {
            let namespace = it.namespace.as_deref().unwrap_or(world.namespace());
            let name = format!("Gateway {namespace}/{}", it.name);
            match gateway(world, it) {
                None => Some(format!("{name} is not there, or cannot be seen")),
                Some(found) if self.listener(found).is_none() => {
                    Some(format!("{name} has no listener {} for TLS", self.section))
                }
                Some(_) => None,
            }
        })
    }

    fn listener<'g>(&self, gateway: &'g Gateway) -> Option<&'g Listener> {
        gateway.listener(self.section)
    }

    fn parent(&self, world: &World, of: &ParentReference) -> RouteParent {
        let port = self.known_port(world, of);
        RouteParent {
            group: Some(of.group.clone()),
            kind: Some(of.kind.clone()),
            namespace: of.namespace.clone(),
            name: of.name.clone(),
            section_name: Some(self.section.to_owned()),
            port: Some(port.unwrap_or_else(|| self.dialled(world))),
        }
    }

    /// The object, in a version that the management cluster serves.
    pub fn object(&self, world: &World, kind: ObjectKind) -> Object {
        let mut metadata = objects::meta(world, &self.name, self.component);
        objects::add_metadata(&mut metadata, self.wanted.additional_metadata.as_ref());
        let parents = self.wanted.parent_refs.iter();
        let spec = TlsRouteSpec {
            parent_refs: parents.map(|it| self.parent(world, it)).collect(),
            hostnames: vec![self.host.clone()],
            rules: vec![TlsRouteRule {
                backend_refs: vec![BackendRef {
                    name: names::workload(world.name()),
                    port: Some(self.port),
                }],
            }],
        };
        let status = None;
        match kind {
            ObjectKind::TlsRouteV1Alpha2 => Object::TlsRouteV1Alpha2(TlsRouteV1Alpha2 {
                metadata,
                spec,
                status,
            }),
            _ => Object::TlsRoute(TlsRoute {
                metadata,
                spec,
                status,
            }),
        }
    }

    /// Since when a Gateway has taken the route as it is; `None` if none has.
    pub fn taken_since(&self, world: &World) -> Option<Timestamp> {
        let (meta, spec, status) = live(world, &self.name)?;
        let mut parents = status?.parents.iter();
        parents.find_map(|parent| {
            let accepted = get(&parent.conditions, "Accepted")?;
            let is_taken = world.ours(meta)
                && is_asked(meta, spec, &parent.parent_ref)
                && is_current(meta, accepted)
                && accepted.status == "True";
            is_taken.then_some(accepted.last_transition_time.0)
        })
    }

    /// Where the Gateways that work take connections for this route.
    pub fn access_points(&self, world: &World) -> Vec<AccessPoint> {
        let parents = self.wanted.parent_refs.iter();
        let gateways = parents.filter_map(|it| gateway(world, it));
        let listeners = gateways
            .filter(|it| it.is_programmed())
            .filter_map(|it| self.listener(it));
        let mut found: Vec<AccessPoint> = Vec::new();
        for listener in listeners {
            let point = AccessPoint {
                type_: Some("Hostname".to_owned()),
                value: Some(self.host.clone()),
                port: Some(listener.port),
                urls: vec![format!("https://{}:{}", self.host, listener.port)],
            };
            if !found.contains(&point) {
                found.push(point);
            }
        }
        found
    }
}

/// What has the name of a route, with what is said of it: ours or not, in the version that
/// is served.
pub fn live<'a>(
    world: &'a World,
    name: &str,
) -> Option<(&'a ObjectMeta, &'a TlsRouteSpec, Option<&'a TlsRouteStatus>)> {
    if let Some(found) = world.owned.get::<TlsRoute>(name) {
        return Some((&found.metadata, &found.spec, found.status.as_ref()));
    }
    let found = world.owned.get::<TlsRouteV1Alpha2>(name)?;
    Some((&found.metadata, &found.spec, found.status.as_ref()))
}

/// Whether the route asks this parent: what is said of others is of before.
pub fn is_asked(meta: &ObjectMeta, spec: &TlsRouteSpec, parent: &RouteParent) -> bool {
    // Controllers may leave out what is the default.
    let group = |it: &RouteParent| it.group.clone().unwrap_or_else(|| GROUP.to_owned());
    let namespace = |it: &RouteParent| it.namespace.clone().or_else(|| meta.namespace.clone());
    let kind = |it: &RouteParent| it.kind.clone().unwrap_or_else(|| KIND.to_owned());
    let same = |it: &RouteParent| {
        let port = parent.port.is_none() || it.port == parent.port;
        group(it) == group(parent)
            && kind(it) == kind(parent)
            && namespace(it) == namespace(parent)
            && it.name == parent.name
            && it.section_name == parent.section_name
            && port
    };
    spec.parent_refs.iter().any(same)
}

/// Whether what is said of a route is about the route as it is, as far as it says.
pub fn is_current(meta: &ObjectMeta, said: &Condition) -> bool {
    let seen = said.observed_generation;
    seen.is_none() || seen >= meta.generation
}

const GROUP: &str = <Gateway as k8s_openapi::Resource>::GROUP;
const KIND: &str = <Gateway as k8s_openapi::Resource>::KIND;

/// The Gateway that a route refers to, if it is known.
fn gateway<'a>(world: &'a World, of: &ParentReference) -> Option<&'a Gateway> {
    let namespace = of.namespace.as_deref().unwrap_or(world.namespace());
    let is_kind = of.kind == KIND && of.group == GROUP;
    let mut all = world.gateways.iter();
    let found = all.find(|it| {
        let meta = &it.metadata;
        is_kind
            && meta.name.as_deref() == Some(&of.name)
            && meta.namespace.as_deref() == Some(namespace)
    });
    found.map(AsRef::as_ref)
}
