//! Addresses and names under which a control plane is reached.

use std::collections::HashSet;
use std::net::IpAddr;

use super::changed::changed;
use super::ranges::{MAPPED, is_mapped};
use crate::endpoint::ends_in_number;
use crate::field::{Error, Errors, Path};
use crate::forms::subdomain_complaints;
use crate::v1alpha1::TenantControlPlaneSpec;

/// Addresses that no node reaches an API server at, in the words of
/// Kubernetes about the addresses of endpoints.
pub(super) fn addresses(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    type Field = fn(&TenantControlPlaneSpec) -> Option<String>;
    let fields: [(&str, Field); 2] = [
        ("address", |spec| spec.network_profile.address.clone()),
        ("advertiseAddress", |spec| {
            spec.network_profile.advertise_address.clone()
        }),
    ];
    for (name, field) in fields {
        let Some(text) = field(new).filter(|_| changed(new, old, field)) else {
            continue;
        };
        let complaint = text.parse().ok().and_then(special_address);
        if let Some(detail) = complaint {
            let path = Path::new("spec.networkProfile").child(name);
            errors.push(Error::invalid(&path, text, detail));
        }
    }
}

fn special_address(address: IpAddr) -> Option<&'static str> {
    let (link_local, link_local_multicast, broadcast) = match address {
        IpAddr::V4(address) => (
            address.is_link_local(),
            address.octets().starts_with(&[224, 0, 0]),
            address.is_broadcast(),
        ),
        IpAddr::V6(address) => (
            address.segments()[0] & 0xffc0 == 0xfe80,
            address.segments()[0] & 0xff0f == 0xff02,
            false,
        ),
    };
    if is_mapped(address) {
        Some(MAPPED)
    } else if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else if address.is_multicast() {
        Some("may not be in the multicast range (224.0.0.0/4, ff00::/8)")
    } else if broadcast {
        Some("may not be the broadcast address (255.255.255.255)")
    } else {
        None
    }
}

pub(super) fn cluster_domain(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    // A change is the published rule's business.
    if old.is_some() {
        return;
    }
    let domain = new.network_profile.cluster_domain.as_str();
    for complaint in subdomain_complaints(domain) {
        let path = Path::new("spec.networkProfile.clusterDomain");
        errors.push(Error::invalid(&path, domain, complaint));
    }
}

pub(super) fn certificate_names(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    let talos = |spec: &TenantControlPlaneSpec| {
        let worker = spec.addons.as_ref()?.worker_bootstrap.as_ref()?;
        Some(worker.talos.as_ref()?.cert_sans.clone())
    };
    let lists = [
        (
            Path::new("spec.networkProfile.certSANs"),
            changed(new, old, |spec| spec.network_profile.cert_sans.clone())
                .then(|| new.network_profile.cert_sans.clone()),
            old.map(|old| old.network_profile.cert_sans.clone()),
        ),
        (
            Path::new("spec.addons.workerBootstrap.talos.certSANs"),
            talos(new).filter(|_| changed(new, old, talos)),
            old.and_then(talos),
        ),
    ];
    for (path, list, before) in lists {
        let before: HashSet<String> = before.into_iter().flatten().collect();
        for (position, name) in list.into_iter().flatten().enumerate() {
            let host = name.strip_prefix("*.").unwrap_or(&name);
            let is_name = subdomain_complaints(host).is_empty() && !ends_in_number(host);
            if name.parse::<IpAddr>().is_err() && !is_name && !before.contains(&name) {
                let detail = "must be an IP address, a DNS name in lower case, or a DNS name with *. before it";
                errors.push(Error::invalid(&path.index(position), name, detail));
            }
        }
    }
}
