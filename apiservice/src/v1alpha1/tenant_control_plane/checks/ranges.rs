//! What is wrong with one range of addresses, in the words of kubeadm and Kubernetes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::v1alpha1::{TenantControlPlaneSpec, flag_name};
use crate::version::{KubernetesVersion, Minor};

/// The least that kubeadm takes as a range of Service addresses; it puts the
/// DNS Service at the tenth.
pub(super) const MIN_SERVICE_ADDRESSES: u32 = 10;

/// The least that kubeadm takes as a range of pod addresses.
const MIN_POD_ADDRESSES: u32 = 14;

pub(super) const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";

pub(super) fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// How a range is written: as Kubernetes wants a network in a new field.
fn form_complaint(text: &str, range: &IpNet) -> Option<String> {
    if is_mapped(range.addr()) {
        return Some(MAPPED.to_owned());
    }
    let prefix = text.rsplit_once('/').map_or("", |(_, prefix)| prefix);
    if prefix.len() > 1 && prefix.starts_with('0') {
        return Some("must not have leading 0s in prefix length".to_owned());
    }
    (range.addr() != range.network()).then(|| {
        let whole = range.trunc();
        format!("must not have bits set beyond the prefix length; the network is {whole}")
    })
}

fn host_bits(range: &IpNet) -> u8 {
    range.max_prefix_len() - range.prefix_len()
}

pub(super) fn too_small(range: &IpNet, least: u32) -> Option<String> {
    // A range that does not fit is no small one.
    let count = 1_u32.checked_shl(host_bits(range).into())?;
    (count < least)
        .then(|| format!("subnet with {count} address(es) is too small, the minimum is {least}"))
}

pub(super) fn of_services(
    text: &str,
    range: &IpNet,
    spec: &TenantControlPlaneSpec,
) -> Option<String> {
    /// Before Kubernetes had ServiceCIDR objects, a bitmap held the addresses.
    const BITMAP_BITS: u8 = 20;
    const SERVICE_CIDR_OBJECTS: Minor = Minor(1, 33);
    let version = spec.kubernetes.version.parse::<KubernetesVersion>();
    let bitmap = version.is_ok_and(|version| version.minor() < SERVICE_CIDR_OBJECTS);
    form_complaint(text, range)
        .or_else(|| too_small(range, MIN_SERVICE_ADDRESSES))
        .or_else(|| {
            (bitmap && host_bits(range) > BITMAP_BITS).then(|| {
                let bits = range.max_prefix_len();
                format!(
                    "specified service subnet is too large; for {bits}-bit addresses, the mask must be >= {}",
                    bits - BITMAP_BITS
                )
            })
        })
}

pub(super) fn of_pods(text: &str, range: &IpNet, spec: &TenantControlPlaneSpec) -> Option<String> {
    form_complaint(text, range)
        .or_else(|| too_small(range, MIN_POD_ADDRESSES))
        .or_else(|| {
            // Who says how nodes get their ranges knows what fits.
            let arguments = spec.control_plane.deployment.extra_args.as_ref();
            let arguments = arguments.map(|all| all.controller_manager.as_slice());
            let own = arguments.unwrap_or_default().iter().any(|argument| {
                let name = flag_name(argument);
                name.starts_with("node-cidr-mask-size") || name == "allocate-node-cidrs"
            });
            let (mask, node) = (range.prefix_len(), if range.addr().is_ipv4() { 24 } else { 64 });
            if own {
                None
            } else if mask > node {
                Some(format!(
                    "pod subnet mask ({mask}) must not be larger than the node subnet mask ({node}): no node would get a range"
                ))
            } else if node - mask > 16 {
                Some(format!(
                    "pod subnet mask ({mask}) and node-mask ({node}) difference is greater than 16"
                ))
            } else {
                None
            }
        })
}
