//! Checks of how a proxy leads clients to a control plane by its name. What is left out is
//! told in a Warning and a condition: guides for others of this kind have blocks with
//! switches in their place, of which an empty one is left.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::endpoint::ends_in_number;
use crate::field::{Error, Errors, Path};
use crate::forms::{label_complaints, subdomain_complaints};
use crate::v1alpha1::{ByName, Gateway, Ingress, TenantControlPlaneSpec};

pub(super) fn check(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    let path = Path::new("spec.controlPlane");
    let before = old.map(|old| &old.control_plane);
    if let Some(wanted) = &new.control_plane.ingress
        && before.and_then(|it| it.ingress.as_ref()) != Some(wanted)
    {
        ingress(&path.child("ingress"), wanted, errors);
    }
    if let Some(wanted) = &new.control_plane.gateway
        && before.and_then(|it| it.gateway.as_ref()) != Some(wanted)
    {
        gateway(&path.child("gateway"), wanted, errors);
    }
    tunnel(new, old, errors);
}

fn ingress(path: &Path, wanted: &Ingress, errors: &mut Errors) {
    if let Some(class) = &wanted.ingress_class_name {
        for complaint in subdomain_complaints(class) {
            let path = path.child("ingressClassName");
            errors.push(Error::invalid(&path, class.as_str(), complaint));
        }
    }
    let path = path.child("hostname");
    let Some(text) = wanted.hostname.as_deref().filter(|text| !text.is_empty()) else {
        return;
    };
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => (host, Some(port)),
    };
    hostname(&path, text, host, errors);
    let port = port.map(|port| port.parse::<u16>());
    if port.is_some_and(|port| port.is_err() || port == Ok(0)) {
        let detail = "the port must be between 1 and 65535, inclusive";
        errors.push(Error::invalid(&path, text, detail));
    }
}

fn gateway(path: &Path, wanted: &Gateway, errors: &mut Errors) {
    let name = path.child("hostname");
    if let Some(host) = wanted.hostname.as_deref().filter(|text| !text.is_empty()) {
        hostname(&name, host, host, errors);
    }
    let path = path.child("parentRefs");
    let mut seen = BTreeSet::new();
    for (position, parent) in wanted.parent_refs.iter().enumerate() {
        // The route attaches to one listener of each, and the Gateway API takes a listener once.
        let place = (&parent.group, &parent.kind, &parent.namespace, &parent.name);
        if !seen.insert(place) {
            errors.push(Error::duplicate(
                &path.index(position),
                parent.name.as_str(),
            ));
        }
    }
}

/// What is wrong with a name that clients dial.
fn hostname(path: &Path, value: &str, host: &str, errors: &mut Errors) {
    if host.starts_with('*') {
        let detail = "must be a name that clients can dial, not a wildcard";
        return errors.push(Error::invalid(path, value, detail));
    }
    if host.parse::<IpAddr>().is_ok() || value.parse::<IpAddr>().is_ok() || ends_in_number(host) {
        let detail = "must be a DNS name, not an IP address";
        return errors.push(Error::invalid(path, value, detail));
    }
    errors.extend(host_complaints(host).map(|it| Error::invalid(path, value, it)));
}

fn host_complaints(host: &str) -> impl Iterator<Item = String> {
    let whole = subdomain_complaints(host);
    let form = whole.is_empty();
    let labels = host.split('.').filter(move |_| form);
    let labels: Vec<String> = labels.flat_map(label_complaints).collect();
    whole.into_iter().chain(labels)
}

/// The name for the tunnel's agents is made of the one for clients, and may be too long.
fn tunnel(new: &TenantControlPlaneSpec, old: Option<&TenantControlPlaneSpec>, errors: &mut Errors) {
    let name = |spec: &TenantControlPlaneSpec| -> Option<(&str, String, String)> {
        spec.konnectivity()?;
        let way = spec.control_plane.by_name()?;
        let field = match way {
            ByName::Ingress(_) => "ingress",
            ByName::Gateway(_) => "gateway",
        };
        Some((field, way.host()?, way.any_tunnel_host()?))
    };
    let wanted = name(new);
    if wanted == old.and_then(name) {
        return;
    }
    let Some((field, host, tunnel)) = wanted else {
        return;
    };
    // What is wrong with the name itself has been said.
    if host_complaints(&host).next().is_some() {
        return;
    }
    for complaint in host_complaints(&tunnel) {
        let path = Path::new("spec.controlPlane")
            .child(field)
            .child("hostname");
        let detail = format!("konnectivity's agents would use {tunnel}: {complaint}");
        errors.push(Error::invalid(&path, host.as_str(), detail));
    }
}
