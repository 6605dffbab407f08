//! The pods of a tenant: containers, resources, security settings (features
//! 2.8).

use apiservice::names::{self, container};
use apiservice::v1alpha1::Component;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::tenant::backing::backed::Backing;
use crate::tenant::backing::beside::Beside;
use crate::tenant::backing::wired::Wiring;
use crate::tenant::backing::wiring;
use crate::tenant::network::exposure::Exposure;
use crate::tenant::network::service;
use crate::tenant::workload::containers::{container_security, image, resources};
use crate::tenant::workload::{flags, konnectivity, kubelet_probes, volumes};
use crate::tenant::world::World;

/// An unprivileged user; all that our containers read belongs to its group.
const NOBODY: i64 = 65532;

/// The specification of the pods.
pub fn spec(world: &World, exposure: &Exposure, place: &Backing) -> PodSpec {
    let deployment = &world.tenant.spec.control_plane.deployment;
    let wiring = wiring::of(world, place);
    let ours = [
        Component::ApiServer,
        Component::Scheduler,
        Component::ControllerManager,
    ]
    .map(|component| container(world, component, exposure, place, &wiring));
    let mut containers = deployment.additional_containers.clone();
    containers.extend(ours);
    let mut before = deployment.additional_init_containers.clone();
    before.extend(wiring.sidecars.iter().cloned());
    let tunnel = world.tenant.spec.konnectivity();
    containers.extend(tunnel.map(|tunnel| konnectivity::container(world, tunnel)));
    let mut mountable = deployment.additional_volumes.clone();
    mountable.extend(volumes::all(world, &wiring));
    let mut spread = deployment.topology_spread_constraints.clone();
    for constraint in &mut spread {
        constraint
            .label_selector
            .get_or_insert_with(|| LabelSelector {
                match_labels: Some(service::selector(world)),
                match_expressions: None,
            });
    }
    PodSpec {
        containers,
        init_containers: filled(&before),
        volumes: Some(mountable),
        node_selector: Some(deployment.node_selector.clone()).filter(|labels| !labels.is_empty()),
        runtime_class_name: deployment.runtime_class_name.clone(),
        tolerations: filled(&deployment.tolerations),
        affinity: deployment.affinity.clone(),
        topology_spread_constraints: Some(spread).filter(|list| !list.is_empty()),
        service_account_name: Some(deployment.service_account_name.clone()),
        // A tenant's pods have no business with the management cluster's API.
        automount_service_account_token: Some(
            deployment.automount_service_account_token.unwrap_or(false),
        ),
        enable_service_links: Some(false),
        security_context: Some(
            deployment
                .pod_security_context
                .clone()
                .unwrap_or_else(pod_security),
        ),
        ..PodSpec::default()
    }
}

fn filled<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NOBODY),
        run_as_group: Some(NOBODY),
        fs_group: Some(NOBODY),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn container(
    world: &World,
    component: Component,
    exposure: &Exposure,
    place: &Backing,
    wiring: &Wiring,
) -> Container {
    let deployment = &world.tenant.spec.control_plane.deployment;
    let (name, port) = match component {
        Component::ApiServer => (container::API_SERVER, exposure.local.port),
        Component::ControllerManager => (container::CONTROLLER_MANAGER, 10257),
        Component::Scheduler => (container::SCHEDULER, 10259),
        Component::Kine => (container::KINE, 0),
    };
    let mut probes = kubelet_probes::of(component, port, deployment.probes.as_ref());
    if let (Component::ApiServer, Some(readiness)) = (component, &mut probes.readiness) {
        let all = place.overrides.iter().enumerate();
        let of_events = all.filter(|(_, it)| it.beside.as_ref().is_some_and(Beside::is_of_events));
        kubelet_probes::bear(readiness, of_events.map(|(at, _)| at));
    }
    Container {
        name: name.to_owned(),
        image: Some(image(world, component)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec![name.to_owned()]),
        args: Some(flags::arguments(world, component, exposure, place)),
        ports: (component == Component::ApiServer).then(|| {
            vec![ContainerPort {
                name: Some(names::PORT_API_SERVER.to_owned()),
                container_port: port,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]
        }),
        liveness_probe: Some(probes.liveness),
        readiness_probe: probes.readiness,
        startup_probe: probes.startup,
        resources: Some(resources(world, component)),
        security_context: Some(security(world, component)),
        volume_mounts: Some(volumes::mounts(world, component, wiring)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn security(world: &World, component: Component) -> SecurityContext {
    let given = world
        .tenant
        .spec
        .control_plane
        .deployment
        .container_security_contexts
        .as_ref();
    let given = given.and_then(|given| match component {
        Component::ApiServer => given.api_server.clone(),
        Component::ControllerManager => given.controller_manager.clone(),
        Component::Scheduler => given.scheduler.clone(),
        Component::Kine => None,
    });
    given.unwrap_or_else(|| match component {
        // The official image gives its binary this capability; without it
        // in the bounding set, the kernel refuses to start the binary.
        Component::ApiServer => container_security(&["NET_BIND_SERVICE"]),
        _ => container_security(&[]),
    })
}
