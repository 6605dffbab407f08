//! What the pods do not get of what is written.

use crate::names;
use crate::v1alpha1::{
    Component, EGRESS_SELECTOR_FLAG, KONNECTIVITY_SERVER_FLAGS, TenantControlPlaneSpec, flag_name,
    managed_flags,
};

/// Claims of resources that the pods do not have.
pub(super) fn claims(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
    let resources = spec.control_plane.deployment.resources.as_ref();
    for (field, given) in resources.into_iter().flat_map(|all| {
        [
            ("", Some(&all.shared)),
            ("apiServer.", all.api_server.as_ref()),
            ("controllerManager.", all.controller_manager.as_ref()),
            ("scheduler.", all.scheduler.as_ref()),
        ]
    }) {
        if given.is_some_and(|given| given.claims.as_ref().is_some_and(|list| !list.is_empty())) {
            warnings.push(format!(
                "spec.controlPlane.deployment.resources.{field}claims: the pods have no resource claims that could be named; the management cluster will refuse them"
            ));
        }
    }
}

/// Arguments that are left out because Steward sets their flags.
pub(super) fn arguments(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
    let konnectivity = spec.konnectivity();
    let server = konnectivity.map_or(&[][..], |it| &it.server.extra_args);
    for (position, argument) in server.iter().enumerate() {
        let name = flag_name(argument);
        if KONNECTIVITY_SERVER_FLAGS.contains(&name.as_str()) {
            warnings.push(format!(
                "spec.addons.konnectivity.server.extraArgs[{position}]: --{name} is set by Steward; left out"
            ));
        }
    }
    let Some(extra) = &spec.control_plane.deployment.extra_args else {
        return;
    };
    for (field, component) in [
        ("apiServer", Component::ApiServer),
        ("controllerManager", Component::ControllerManager),
        ("scheduler", Component::Scheduler),
        ("kine", Component::Kine),
    ] {
        for (position, argument) in extra.of(component).iter().enumerate() {
            let name = flag_name(argument);
            let of_tunnel = component == Component::ApiServer
                && konnectivity.is_some()
                && name == EGRESS_SELECTOR_FLAG;
            if of_tunnel || managed_flags(component).contains(&name.as_str()) {
                warnings.push(format!(
                    "spec.controlPlane.deployment.extraArgs.{field}[{position}]: --{name} is set by Steward; left out"
                ));
            }
        }
    }
}

/// Labels and annotations with our own prefix, which are left out.
pub(super) fn metadata(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
    let plane = &spec.control_plane;
    let none = None;
    let ingress = plane.ingress.as_ref();
    let ingress = ingress.map_or(&none, |it| &it.additional_metadata);
    let gateway = plane.gateway.as_ref();
    let gateway = gateway.map_or(&none, |it| &it.additional_metadata);
    for (path, given) in [
        (
            "deployment.additionalMetadata",
            &plane.deployment.additional_metadata,
        ),
        (
            "deployment.podAdditionalMetadata",
            &plane.deployment.pod_additional_metadata,
        ),
        (
            "service.additionalMetadata",
            &plane.service.additional_metadata,
        ),
        ("ingress.additionalMetadata", ingress),
        ("gateway.additionalMetadata", gateway),
    ] {
        let Some(given) = given else { continue };
        for (field, map) in [
            ("labels", &given.labels),
            ("annotations", &given.annotations),
        ] {
            for key in map.keys().filter(|key| names::is_ours(key)) {
                warnings.push(format!(
                    "spec.controlPlane.{path}.{field}[{key}]: keys of this prefix are Steward's own; left out"
                ));
            }
        }
    }
}
