//! Where a tenant is reached, in one value (features 2.5): made of the spec and of what
//! was observed, and of nothing else. Service, certificates, kubeconfigs, kubeadm's
//! objects, flags, status and probe all say what it says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use apiservice::condition::{get, reason, tenant as condition};
use apiservice::endpoint::Endpoint;
use apiservice::names;
use apiservice::v1alpha1::ServiceType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;

use crate::tenant::network::names::AlternativeNames;
use crate::tenant::network::ranges::first_address;
use crate::tenant::network::routes::{self, Way};
use crate::tenant::plan::Waiting;
use crate::tenant::workload::arguments;
use crate::tenant::workload::live;
use crate::tenant::world::{PathFact, World};

/// Where a tenant is reached, by whom, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Where everybody is sent: `status.controlPlaneEndpoint`, which the probe asks.
    pub published: Endpoint,
    /// Where kubeconfigs, nodes and pods of the tenant are sent: the same, unless the
    /// tenant names an address for them.
    pub clients: Endpoint,
    /// Where the tunnel's agents connect to its servers; `None` without a tunnel.
    pub agents: Option<Endpoint>,
    /// Its Service, for whoever is in the management cluster.
    pub service: Endpoint,
    /// For processes of the same pod.
    pub local: Endpoint,
    /// What the API server announces inside the tenant.
    pub advertise: IpAddr,
    /// What the serving certificate carries: these names and no others.
    pub names: AlternativeNames,
    /// Those of them without which nobody gets to the tenant.
    pub needed: AlternativeNames,
}

/// The exposure, or what it is waiting for.
pub fn of(world: &World) -> Result<Exposure, Waiting> {
    let place = place(world)?;
    let spec = &world.tenant.spec;
    let port = spec.network_profile.port;
    let clients = spec.for_nodes(&place.published);
    let tunnel = spec.konnectivity();
    let agents = tunnel.map(|it| Endpoint::new(&clients.host, it.server.port));
    let agents = place.agents.clone().or(agents);
    let mut needed = AlternativeNames::default();
    needed.add(&place.published.host);
    needed.extend(agents.iter().map(|it| it.host.as_str()));
    needed.add(&place.advertise.to_string());
    needed.add(&place.cluster_ip.to_string());
    Ok(Exposure {
        names: alternative_names(world, &needed, &place),
        service: Endpoint::new(names::service_host(world.name(), world.namespace()), port),
        local: Endpoint::new("127.0.0.1", port),
        published: place.published,
        clients,
        agents,
        advertise: place.advertise,
        needed,
    })
}

/// Addresses, before it is known who gets which.
struct Place {
    published: Endpoint,
    /// The host of the Service, past whatever routes by name.
    direct: String,
    /// Where a proxy takes connections of the tunnel's agents.
    agents: Option<Endpoint>,
    advertise: IpAddr,
    cluster_ip: IpAddr,
}

fn place(world: &World) -> Result<Place, Waiting> {
    let spec = &world.tenant.spec;
    let network = &spec.network_profile;
    let service = world
        .service()
        .filter(|service| world.ours(&service.metadata));
    // Its address is in the certificate whatever clients use, so that pods are
    // not replaced a moment after their start.
    let Some(cluster_ip) = service.and_then(cluster_ip) else {
        return Err(pending("The Service has no address in the cluster yet"));
    };
    let direct = match (
        network.fixed_address(),
        spec.control_plane.service.service_type,
    ) {
        (Some(declared), _) => declared.to_owned(),
        (None, ServiceType::LoadBalancer) => load_balancer(world, service)?,
        (None, _) => cluster_ip.to_string(),
    };
    let advertise = network
        .announced_address()
        .or_else(|| direct.parse().ok())
        .unwrap_or(cluster_ip);
    let (published, agents) = match routes::dialled(world) {
        Some(dialled) => (dialled.clients, dialled.agents),
        None => (Endpoint::new(&direct, network.port), None),
    };
    Ok(Place {
        published,
        direct,
        agents,
        advertise,
        cluster_ip,
    })
}

/// What becomes of the ways on which clients came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Former {
    /// Nobody needs them.
    Goes,
    /// Clients need them, until that instant if it is known.
    Stays(Option<Timestamp>),
}

/// How long the former ways stay when the status says that the new one answers.
const TOLD_FOR: SignedDuration = SignedDuration::from_secs(10);

/// Since when the status has said that this endpoint answers: people go by that.
fn told_since(world: &World, published: &str) -> Option<Timestamp> {
    let status = world.tenant.status.as_ref()?;
    let said = get(&status.conditions, condition::ENDPOINT_REACHABLE)?;
    let here = status.control_plane_endpoint.as_deref() == Some(published);
    (here && said.status == "True").then_some(said.last_transition_time.0)
}

/// How long clients are kept on a way of before, where the tenant works and the controller
/// cannot tell whether the new way does.
pub const UNPROBED_FOR: SignedDuration = SignedDuration::from_secs(5 * 60);

/// When to look again for a probe that has not begun yet.
const NEXT_PROBE: SignedDuration = SignedDuration::from_secs(10);

/// Whether ways that are not wanted any more may go: what leads by the name is there, the
/// place where the tenant is reached now answers, which the status says and all pods are
/// made for, or nothing answers on any way.
pub fn former(world: &World) -> Former {
    let Ok(place) = place(world) else {
        return Former::Stays(None);
    };
    let way = routes::way(world, &place.published);
    if way == Way::NotServed {
        return Former::Stays(None);
    }
    if world.serving() == 0 || !world.was_ready() {
        return Former::Goes;
    }
    let published = place.published.to_string();
    let Some(fact) = probed(world, &published) else {
        return Former::Stays(None);
    };
    let broken = |it: &PathFact| it.result.is_err();
    if world.probe.service.as_ref().is_some_and(broken) {
        return Former::Goes;
    }
    answered(world, &published, way, fact)
}

/// Whether the place where the tenant is reached now answers, so that what is inside can be
/// sent there, or nobody has been sent anywhere yet.
pub fn is_proven(world: &World) -> bool {
    proof(world) == Former::Goes
}

/// When it may be proven that the place where the tenant is reached now answers, where what
/// is inside leads to another one or nobody knows where.
pub fn proven_by(world: &World) -> Option<Timestamp> {
    let clients = of(world).ok()?.clients;
    let told = world.told.as_ref();
    match proof(world) {
        Former::Stays(until) if told.is_none_or(|told| told.endpoint != clients) => until,
        _ => None,
    }
}

fn proof(world: &World) -> Former {
    if !world.was_ready() {
        return Former::Goes;
    }
    let Ok(place) = place(world) else {
        return Former::Stays(None);
    };
    let published = place.published.to_string();
    let way = routes::way(world, &place.published);
    let Some(fact) = probed(world, &published) else {
        return Former::Stays(None);
    };
    answered(world, &published, way, fact)
}

/// What the probe found last at this place.
fn probed<'a>(world: &'a World, published: &str) -> Option<&'a PathFact> {
    let fact = world.probe.endpoint.as_ref();
    fact.filter(|fact| fact.address == published)
}

/// What becomes of former ways by what the probe found at the new place.
fn answered(world: &World, published: &str, way: Way, fact: &PathFact) -> Former {
    match way {
        Way::NotServed | Way::Missing => return Former::Stays(None),
        // What a probe met before may have been the former way.
        Way::Proven(from) if fact.started < from => {
            let soon = world.now.checked_add(NEXT_PROBE).ok();
            return Former::Stays(soon.map(|soon| soon.max(from)));
        }
        Way::Proven(_) | Way::NotWanted => {}
    }
    if fact.result.is_ok() {
        let told = told_since(world, published).filter(|_| live::is_rolled_out(world));
        return match told.and_then(|it| it.checked_add(TOLD_FOR).ok()) {
            Some(until) if world.now >= until => Former::Goes,
            until => Former::Stays(until),
        };
    }
    match world
        .probe
        .inside_since
        .and_then(|it| it.checked_add(UNPROBED_FOR).ok())
    {
        Some(until) if world.now >= until => Former::Goes,
        until => Former::Stays(until),
    }
}

/// The names of features 2.3, with the tenant's own domain instead of a fixed
/// one, and the first address of each Service range, which pods of the tenant
/// use.
fn alternative_names(world: &World, needed: &AlternativeNames, place: &Place) -> AlternativeNames {
    let (name, namespace) = (world.name(), world.namespace());
    let network = &world.tenant.spec.network_profile;
    let service = names::service_host(name, namespace);
    let mut found = AlternativeNames::default();
    found.extend(["localhost", "127.0.0.1", name]);
    found.add(&format!("{name}.{namespace}"));
    found.add(&service);
    found.add(&format!("{service}.{}", world.settings.management_domain));
    found.extend(["kubernetes", "kubernetes.default", "kubernetes.default.svc"]);
    found.add(&format!(
        "kubernetes.default.svc.{}",
        network.cluster_domain
    ));
    found.extend(needed.dns().iter().map(String::as_str));
    needed.ip().iter().for_each(|ip| found.add(&ip.to_string()));
    found.add(&place.direct);
    // Of ways on which clients still come, too.
    found.extend(routes::former_hosts(world).iter().map(String::as_str));
    let service = world.service().filter(|live| world.ours(&live.metadata));
    let addresses = service.into_iter().flat_map(addresses);
    found.extend(addresses.take(MOST_ADDRESSES));
    for range in network.service_ranges() {
        if let Some(first) = first_address(range) {
            found.add(&first.to_string());
        }
    }
    found.extend(network.certificate_names());
    found
}

/// The address of the Service inside the management cluster.
fn cluster_ip(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

/// What a Service is reached at by itself: its addresses in the cluster, and those and the
/// names of its load balancer, in an order that does not change.
fn addresses(service: &Service) -> impl Iterator<Item = &str> {
    let spec = service.spec.iter();
    let inside = spec.flat_map(|it| it.cluster_ips.iter().flatten().map(String::as_str));
    let status = service.status.iter();
    let balancer = status.filter_map(|it| it.load_balancer.as_ref());
    let entries = balancer.flat_map(|it| it.ingress.iter().flatten());
    let outside = entries.flat_map(|it| [it.ip.as_deref(), it.hostname.as_deref()]);
    let outside: BTreeSet<&str> = outside.flatten().collect();
    inside.chain(outside).filter(|it| *it != "None")
}

/// As many addresses of a Service are put into a certificate at most.
const MOST_ADDRESSES: usize = 16;

/// The address of a load balancer: the one in use for as long as it is reported, for the
/// order is not always the same, else the first. A name is as good as an address: it goes
/// into the certificate, and whoever runs the load balancer keeps it.
fn load_balancer(world: &World, service: Option<&Service>) -> Result<String, Waiting> {
    let Some(service) = service else {
        return Err(pending("The Service is being created"));
    };
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let entries = status
        .into_iter()
        .flat_map(|status| status.ingress.iter().flatten());
    let reported = entries.flat_map(|entry| [entry.ip.as_deref(), entry.hostname.as_deref()]);
    let reported: Vec<&str> = reported.flatten().filter(|it| !it.is_empty()).collect();
    let used = in_use(world);
    let mut used = used.iter().filter_map(|used| {
        let mut reported = reported.iter();
        reported.find(|reported| is_same_host(used, reported))
    });
    if let Some(found) = used.next().or(reported.first()) {
        return Ok((*found).to_owned());
    }
    let late = silent_since(service)
        .is_some_and(|since| world.now.duration_since(since) >= world.settings.address_patience);
    let message = if late {
        let class = world
            .tenant
            .spec
            .network_profile
            .load_balancer_class
            .as_deref();
        let class = class.map_or_else(String::new, |class| format!(" of class {class}"));
        format!(
            "No load balancer{class} has given Service {}/{} an address. Install or check one, or \
             set spec.networkProfile.address, or use serviceType ClusterIP or NodePort.",
            world.namespace(),
            world.name()
        )
    } else {
        "The load balancer has not assigned an address yet".to_owned()
    };
    Err(Waiting {
        condition: condition::ADDRESS_ASSIGNED,
        reason: if late {
            reason::NO_ADDRESS
        } else {
            reason::ADDRESS_PENDING
        },
        message,
        problem: late,
        finding: None,
    })
}

/// Hosts at which the tenant may be reached by now, the likeliest first: what clients were
/// told, and what its pods announce where the spec does not say that.
fn in_use(world: &World) -> Vec<String> {
    let status = world.tenant.status.as_ref();
    let told = status.and_then(|it| it.control_plane_endpoint.as_deref());
    let told = told.and_then(|it| it.parse::<Endpoint>().ok());
    let announced = world.tenant.spec.network_profile.announced_address();
    let live = world.deployment().filter(|live| world.ours(&live.metadata));
    let live = live.filter(|_| announced.is_none());
    let live = live.and_then(|live| arguments::api_server_argument(live, "advertise-address"));
    let told = told.map(|it| it.host);
    told.into_iter().chain(live.map(str::to_owned)).collect()
}

fn is_same_host(one: &str, other: &str) -> bool {
    let address = |host: &str| host.parse::<IpAddr>().ok();
    one == other || address(one).is_some() && address(one) == address(other)
}

/// Since when a load balancer could have answered.
pub fn silent_since(service: &Service) -> Option<Timestamp> {
    service
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0)
}

fn pending(message: &str) -> Waiting {
    Waiting {
        condition: condition::ADDRESS_ASSIGNED,
        reason: reason::ADDRESS_PENDING,
        message: message.to_owned(),
        problem: false,
        finding: None,
    }
}
