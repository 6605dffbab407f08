//! The addresses of the DNS Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ranges::{MAPPED, MIN_SERVICE_ADDRESSES, is_mapped, too_small};
use crate::field::{Error, Errors, Path};
use crate::v1alpha1::NetworkProfile;

/// Those that are written are inside of the ranges of Services, each once, and no address that
/// something else has. `kept` are those that were there before, with the same ranges.
pub(super) fn check(
    path: &Path,
    profile: &NetworkProfile,
    kept: &[String],
    services: &[(usize, IpNet)],
    errors: &mut Errors,
) {
    let mut seen = BTreeSet::new();
    for (position, text) in profile.dns_service_ips.iter().enumerate() {
        let path = path.child("dnsServiceIPs").index(position);
        let Ok(address) = text.parse::<IpAddr>() else {
            let detail = "must be an IP address";
            errors.push(Error::invalid(&path, text.as_str(), detail));
            continue;
        };
        if !kept.contains(text)
            && let Some(detail) = complaint(address, services)
        {
            errors.push(Error::invalid(&path, text.as_str(), detail));
        }
        if !seen.insert(address) {
            errors.push(Error::duplicate(&path, text.as_str()));
        }
    }
}

/// Why the address that is used when nobody says one is not in the range.
pub(super) fn no_room(range: &IpNet) -> Option<String> {
    let wide_enough = too_small(range, MIN_SERVICE_ADDRESSES).is_none();
    let address = computed(range);
    (wide_enough && !range.contains(&address)).then(|| {
        format!(
            "has no room for the address of the DNS Service, {address}; choose a larger range, or set dnsServiceIPs"
        )
    })
}

/// Where the DNS Service is put when nobody says: the tenth address (IPv4) or
/// the sixteenth (IPv6).
fn computed(range: &IpNet) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).saturating_add(10).into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).saturating_add(16).into()),
    }
}

/// The address of the Service `kubernetes`.
fn api_address(range: &IpNet) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).saturating_add(1).into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).saturating_add(1).into()),
    }
}

fn complaint(address: IpAddr, services: &[(usize, IpNet)]) -> Option<String> {
    if is_mapped(address) {
        return Some(MAPPED.to_owned());
    }
    let range = services.iter().find(|(_, range)| range.contains(&address));
    let Some((_, range)) = range else {
        let all: Vec<String> = services
            .iter()
            .map(|(_, range)| range.to_string())
            .collect();
        let all = all.join(", ");
        return Some(format!(
            "must be inside the range of Service addresses {all}"
        ));
    };
    let taken = if address == range.network() {
        "the network address"
    } else if address.is_ipv4() && address == range.broadcast() {
        "the broadcast address"
    } else if address == api_address(range) {
        "the address of the Service kubernetes"
    } else {
        return None;
    };
    Some(format!(
        "must not be {taken} in the range of Service addresses {range}"
    ))
}
