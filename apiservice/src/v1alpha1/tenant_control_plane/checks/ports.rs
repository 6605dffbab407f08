//! Ports of the Service.

use std::collections::BTreeSet;

use super::changed::changed;
use super::unique_name::unique_name;
use crate::field::{Error, Errors, Path};
use crate::names;
use crate::v1alpha1::{TenantControlPlaneSpec, is_port_of_pods};

pub(super) fn check(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    let part = |spec: &TenantControlPlaneSpec| {
        (
            spec.control_plane.service.additional_ports.clone(),
            spec.network_profile.port,
            spec.konnectivity().map(|it| it.server.port),
        )
    };
    if !changed(new, old, part) {
        return;
    }
    let path = Path::new("spec.controlPlane.service.additionalPorts");
    let ours = [
        names::PORT_API_SERVER,
        names::PORT_API_SERVER_FORMER,
        names::PORT_KONNECTIVITY,
        names::container::TRUSTD,
    ];
    let mut seen_names = BTreeSet::new();
    let mut seen_ports = BTreeSet::from([("TCP", new.network_profile.port)]);
    if let Some(tunnel) = new.konnectivity() {
        let port = tunnel.server.port;
        let path = Path::new("spec.addons.konnectivity.server.port");
        if !(1024..=49151).contains(&port) {
            let detail = "must be between 1024 and 49151, inclusive: the server takes no other";
            errors.push(Error::invalid(&path, port, detail));
        } else if is_port_of_pods(port) || !seen_ports.insert(("TCP", port)) {
            let detail = "the control plane's pods listen on this port for something else";
            errors.push(Error::invalid(&path, port, detail));
        }
    }
    for (position, port) in new
        .control_plane
        .service
        .additional_ports
        .iter()
        .enumerate()
    {
        let path = path.index(position);
        unique_name(&path, &port.name, &ours, &mut seen_names, errors);
        if !(1..=65535).contains(&port.port) {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(Error::invalid(&path.child("port"), port.port, detail));
        }
        if !seen_ports.insert((port.protocol.as_str(), port.port)) {
            let detail = "the Service already has this port; the one of the API server is networkProfile.port, that of the tunnel addons.konnectivity.server.port";
            errors.push(Error::invalid(&path.child("port"), port.port, detail));
        }
    }
}
