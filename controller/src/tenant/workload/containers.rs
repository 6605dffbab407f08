//! Containers of ours: their images, resources, and what they may do.

use std::collections::BTreeMap;

use apiservice::names::container;
use apiservice::v1alpha1::{Component, RegistrySettings};
use apiservice::version::KubernetesVersion;
use k8s_openapi::api::core::v1::{Capabilities, Pod, ResourceRequirements, SecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::tenant::world::World;

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
