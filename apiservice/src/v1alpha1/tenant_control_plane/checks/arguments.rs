//! Arguments of programs.

use super::changed::changed;
use crate::field::{Error, Errors, Path};
use crate::v1alpha1::TenantControlPlaneSpec;

pub(super) fn of_components(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    if !changed(new, old, |spec| {
        spec.control_plane.deployment.extra_args.clone()
    }) {
        return;
    }
    let Some(arguments) = &new.control_plane.deployment.extra_args else {
        return;
    };
    let path = Path::new("spec.controlPlane.deployment.extraArgs");
    for (component, list) in [
        ("apiServer", &arguments.api_server),
        ("controllerManager", &arguments.controller_manager),
        ("scheduler", &arguments.scheduler),
        ("kine", &arguments.kine),
    ] {
        of_flags(&path.child(component), list, errors);
    }
}

pub(super) fn of_tunnel(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    let path = Path::new("spec.addons.konnectivity");
    let part = |spec: &TenantControlPlaneSpec| spec.konnectivity().cloned();
    let Some(tunnel) = new.konnectivity().filter(|_| changed(new, old, part)) else {
        return;
    };
    for (end, list) in [
        ("server", &tunnel.server.extra_args),
        ("agent", &tunnel.agent.extra_args),
    ] {
        of_flags(&path.child(end).child("extraArgs"), list, errors);
    }
}

fn of_flags(path: &Path, list: &[String], errors: &mut Errors) {
    for (position, argument) in list.iter().enumerate() {
        if !argument.starts_with('-') {
            let detail = "must be one argument with its flag, as --flag=value";
            errors.push(Error::invalid(
                &path.index(position),
                argument.as_str(),
                detail,
            ));
        }
    }
}
