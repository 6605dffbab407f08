//! The pods of a tenant: containers, resources, security settings (features
//! 2.8).

use std::collections::BTreeMap;

use apiservice::names::{self, container};
use apiservice::v1alpha1::{Component, RegistrySettings};
use apiservice::version::KubernetesVersion;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, Pod, PodSecurityContext, PodSpec, ResourceRequirements,
    SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::tenant::backing::store::Backing;
use crate::tenant::backing::wiring::{self, Wiring};
use crate::tenant::network::exposure::Exposure;
use crate::tenant::network::service;
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
    before.extend(wiring.sidecar.clone());
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
    let probes = kubelet_probes::of(component, port, deployment.probes.as_ref());
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

/// The image of a pod's API server.
pub fn api_server_image(pod: &Pod) -> Option<&str> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut found = containers
        .iter()
        .filter(|it| it.name == container::API_SERVER);
    found.next()?.image.as_deref()
}

/// `registry/name:tag`.
pub fn image(world: &World, component: Component) -> String {
    let registry = &world.tenant.spec.control_plane.deployment.registry_settings;
    let name = match component {
        Component::ApiServer => &registry.api_server_image,
        Component::ControllerManager => &registry.controller_manager_image,
        Component::Scheduler => &registry.scheduler_image,
        // It is no part of Kubernetes.
        Component::Kine => return world.settings.kine_image.clone(),
    };
    let version = &world.tenant.spec.kubernetes.version;
    let tag = version
        .parse::<KubernetesVersion>()
        .map_or_else(|_| version.clone(), |it| it.tag());
    let suffix = registry.tag_suffix.as_deref().unwrap_or_default();
    format!("{}/{name}:{tag}{suffix}", self::registry(world))
}

/// Where the images come from.
pub(super) fn registry(world: &World) -> &str {
    let deployment = &world.tenant.spec.control_plane.deployment;
    let named = &deployment.registry_settings.registry;
    // The schema fills in the default, so a tenant that names it has no wish.
    let from = if *named == RegistrySettings::default().registry {
        &world.settings.registry
    } else {
        named
    };
    from.trim_end_matches('/')
}

/// Where the images come from, in an installation that has a registry of its own, if a
/// reader of the spec could believe otherwise.
pub fn told_of_registry(world: &World) -> Option<String> {
    let usual = RegistrySettings::default().registry;
    let deployment = &world.tenant.spec.control_plane.deployment;
    let named = &deployment.registry_settings.registry;
    let (own, from) = (
        world.settings.registry.trim_end_matches('/'),
        registry(world),
    );
    if own == usual {
        None
    } else if *named == usual {
        Some(format!(
            "Images come from {own}, the registry of this installation, for which {usual} stands \
             in registrySettings.registry; {usual}/, with a slash, is that registry itself."
        ))
    } else if from != own {
        Some(format!(
            "Images come from {from}, as registrySettings.registry says, and not from {own}, the \
             registry of this installation."
        ))
    } else {
        None
    }
}

/// The user's resources, else requests that let the API server go first where
/// processors are short: requests are weights.
pub fn resources(world: &World, component: Component) -> ResourceRequirements {
    let given = world
        .tenant
        .spec
        .control_plane
        .deployment
        .resources
        .as_ref();
    if let Some(given) = given
        .map(|given| given.of(component))
        .filter(|given| **given != ResourceRequirements::default())
    {
        return given.clone();
    }
    let (cpu, memory) = match component {
        Component::ApiServer => ("200m", "200Mi"),
        Component::ControllerManager => ("20m", "40Mi"),
        Component::Scheduler => ("10m", "20Mi"),
        Component::Kine => ("50m", "40Mi"),
    };
    let quantity = |name: &str, value: &str| (name.to_owned(), Quantity(value.to_owned()));
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            quantity("cpu", cpu),
            quantity("memory", memory),
        ])),
        ..ResourceRequirements::default()
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

/// What a container of ours may do, with these capabilities.
pub fn container_security(capabilities: &[&str]) -> SecurityContext {
    let add = capabilities.iter().map(|&name| name.to_owned()).collect();
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: Some(add).filter(|add: &Vec<String>| !add.is_empty()),
        }),
        ..SecurityContext::default()
    }
}
