//! The Service in front of a tenant's API server (features 2.4).

use std::collections::BTreeMap;

use apiservice::names;
use apiservice::v1alpha1::{AdditionalPort, ServiceType};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::tenant::network::exposure;
use crate::tenant::objects;
use crate::tenant::plan::{Object, Plan};
use crate::tenant::workload::live;
use crate::tenant::world::World;

/// Keeps the Service.
pub fn plan(world: &World, plan: &mut Plan) {
    let live = world.service();
    if (former(world).is_some() || moved_from(world).is_some())
        && let exposure::Former::Stays(Some(until)) = exposure::former(world)
    {
        plan.revisit_at(until);
    }
    let wanted = wanted(world);
    objects::keep(
        world,
        plan,
        Object::Service(wanted),
        live.map(|live| (&live.metadata, live)),
    );
}

/// The whole Service as wanted. Fields that are absent here and were applied
/// before are removed by the apply, so that emptied source ranges and dropped
/// ports do not linger.
pub fn wanted(world: &World) -> Service {
    let spec = &world.tenant.spec;
    let (network, service) = (&spec.network_profile, &spec.control_plane.service);
    let mut metadata = objects::meta(
        world,
        &names::workload(world.name()),
        names::component::SERVICE,
    );
    objects::add_metadata(&mut metadata, service.additional_metadata.as_ref());

    let former = former(world);
    let kind = former.map_or(service.service_type, |(kind, _)| kind);
    let balanced = service.service_type == ServiceType::LoadBalancer;
    // A load balancer of before keeps what it was made with.
    let balancer = former
        .and_then(|(kind, live)| (kind == ServiceType::LoadBalancer && !balanced).then_some(live));
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(kind.as_str().to_owned()),
            selector: Some(selector(world)),
            ports: Some(ports(world, former.map(|(_, live)| live))),
            load_balancer_class: match balancer {
                Some(live) => live.load_balancer_class.clone(),
                None => network.load_balancer_class.clone().filter(|_| balanced),
            },
            load_balancer_source_ranges: match balancer {
                Some(live) => live.load_balancer_source_ranges.clone(),
                None => Some(network.load_balancer_source_ranges.clone())
                    .filter(|ranges| balanced && !ranges.is_empty()),
            },
            allocate_load_balancer_node_ports: match balancer {
                Some(live) => live.allocate_load_balancer_node_ports,
                None => service
                    .allocate_load_balancer_node_ports
                    .filter(|_| balanced),
            },
            external_ips: external_ips(world),
            publish_not_ready_addresses: leads_to_starting(world).then_some(true),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The ports; `former` is what the Service is as long as clients need it so.
fn ports(world: &World, former: Option<&ServiceSpec>) -> Vec<ServicePort> {
    let spec = &world.tenant.spec;
    let (network, service) = (&spec.network_profile, &spec.control_plane.service);
    let moved = moved_from(world);
    // While pods listen on one port and others on another, each is found by the name that
    // the port has in all of them.
    let target = match moved {
        Some(_) if !live::listens_at_port(world) => {
            IntOrString::String(names::PORT_API_SERVER.to_owned())
        }
        _ => IntOrString::Int(network.port),
    };
    let on_nodes = service.service_type == ServiceType::NodePort;
    let live = world.service().and_then(|live| live.spec.as_ref());
    let live = live
        .and_then(|live| live.ports.as_deref())
        .unwrap_or_default();
    // What clients dial on nodes is the number itself; what they still dial there stays.
    let node_port = |port: i32, is_moved: bool| match on_nodes && !is_moved {
        true => Some(port),
        false => live
            .iter()
            .find(|it| it.port == port && (former.is_some() || is_moved))
            .and_then(|it| it.node_port),
    };
    let tcp = |name: &str, port: i32, target: IntOrString, is_moved: bool| ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(target),
        protocol: Some("TCP".to_owned()),
        node_port: node_port(port, is_moved),
        ..ServicePort::default()
    };
    let api = tcp(names::PORT_API_SERVER, network.port, target.clone(), false);
    let tunnel = spec.konnectivity().map(|tunnel| {
        let port = tunnel.server.port;
        tcp(
            names::PORT_KONNECTIVITY,
            port,
            IntOrString::Int(port),
            false,
        )
    });
    let more = service.additional_ports.iter().map(additional);
    let before = moved.map(|port| tcp(names::PORT_API_SERVER_FORMER, port, target, true));
    let all = std::iter::once(api).chain(tunnel).chain(more);
    all.chain(before).collect()
}

/// The type that the Service keeps beside the one that is wanted, until the place where the
/// tenant is reached now answers, and what it is made with: each type has what the lesser
/// ones have. `None`: clients need nothing of what was before.
fn former(world: &World) -> Option<(ServiceType, &ServiceSpec)> {
    let rank = |kind: ServiceType| match kind {
        ServiceType::LoadBalancer => 2,
        ServiceType::NodePort => 1,
        ServiceType::ClusterIP | ServiceType::Unrecognized => 0,
    };
    let live = world.service().filter(|live| world.ours(&live.metadata))?;
    let live = live.spec.as_ref()?;
    let was = match live.type_.as_deref()? {
        "LoadBalancer" => ServiceType::LoadBalancer,
        "NodePort" => ServiceType::NodePort,
        _ => return None,
    };
    let wanted = world.tenant.spec.control_plane.service.service_type;
    if was == wanted || exposure::former(world) == exposure::Former::Goes {
        return None;
    }
    Some((
        if rank(was) > rank(wanted) {
            was
        } else {
            wanted
        },
        live,
    ))
}

/// The port at which clients still come, although another is wanted: until all pods listen
/// on the new one, and it answers.
fn moved_from(world: &World) -> Option<i32> {
    let live = world.service().filter(|live| world.ours(&live.metadata))?;
    let spec = &world.tenant.spec;
    let wanted = spec.network_profile.port;
    let ports = || live.spec.iter().flat_map(|it| it.ports.iter().flatten());
    let named = |name: &str| ports().find(|it| it.name.as_deref() == Some(name));
    let known = named(names::PORT_API_SERVER).filter(|it| it.port != wanted);
    let known = known.or_else(|| named(names::PORT_API_SERVER_FORMER));
    let port = known?.port;
    let stays = !live::listens_at_port(world) && world.serving() > 0
        || exposure::former(world) != exposure::Former::Goes;
    let more = &spec.control_plane.service.additional_ports;
    let tunnel = spec.konnectivity().map(|it| it.server.port);
    let is_taken = port == wanted || tunnel == Some(port) || more.iter().any(|it| it.port == port);
    (stays && !is_taken).then_some(port)
}

/// Whether the Service leads to a pod that the kubelet has not found ready yet.
///
/// Only while a tenant with one replica comes up for the first time: nobody uses
/// it yet, and the kubelet looks once a second and takes another third of one
/// to tell. Ready is earned by the probe, which needs more than the kubelet does
/// (rule 15). It lasts until the kubelet has found the pod ready, or until there is
/// another pod: the new one of a change made at once may never serve. Pods of a
/// deleted tenant of this name, which may take some seconds to end, must not be led to.
fn leads_to_starting(world: &World) -> bool {
    let one = world.tenant.spec.control_plane.deployment.replicas == 1;
    let ending = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let alone = world.pods.len() <= 1 && !world.pods.iter().any(|pod| ending(pod));
    let so_far = match world.service() {
        None => !world.was_ready(),
        Some(live) => {
            let spec = live.spec.as_ref();
            spec.is_some_and(|live| live.publish_not_ready_addresses == Some(true))
        }
    };
    one && alone && so_far && world.serving() == 0
}

/// The label by which Service and Deployment know the tenant's pods.
pub fn selector(world: &World) -> BTreeMap<String, String> {
    BTreeMap::from([(names::LABEL_NAME.to_owned(), world.name().to_owned())])
}

/// Whether the live Service selects other pods than ours.
pub fn selector_changed(world: &World) -> bool {
    let live = world.service().filter(|live| world.ours(&live.metadata));
    let live = live.and_then(|live| live.spec.as_ref());
    live.is_some_and(|live| live.selector.as_ref() != Some(&selector(world)))
}

fn additional(port: &AdditionalPort) -> ServicePort {
    ServicePort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.as_str().to_owned()),
        app_protocol: port.app_protocol.clone(),
        port: port.port,
        target_port: Some(port.target_port.clone()),
        ..ServicePort::default()
    }
}

/// The declared address as external address of the Service, on request.
fn external_ips(world: &World) -> Option<Vec<String>> {
    let network = &world.tenant.spec.network_profile;
    let kind = world.tenant.spec.control_plane.service.service_type;
    let address = network.fixed_address()?;
    let wanted = network.allow_address_as_external_ip && kind != ServiceType::LoadBalancer;
    wanted.then(|| vec![address.to_owned()])
}
