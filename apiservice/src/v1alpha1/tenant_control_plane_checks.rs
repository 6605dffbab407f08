//! Checks of a TenantControlPlane that CEL cannot say.
//!
//! Each looks only at what has changed, so that a stored object that an older
//! version accepted can still be edited elsewhere.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::tenant_control_plane_assignment as assignment;
use super::tenant_control_plane_routes as routes;
use super::{PORTS_OF_PODS, TenantControlPlane, TenantControlPlaneSpec, flag_name};
use crate::field::{Error, Path};
use crate::meta::{label_complaints, subdomain_complaints};
use crate::names;
use crate::version::{KubernetesVersion, Minor, newest};

pub(super) fn check(new: &Value, old: Option<&Value>) -> Vec<Error> {
    if old.is_some_and(|old| old["spec"] == new["spec"]) {
        return Vec::new();
    }
    let new = match serde_json::from_value::<TenantControlPlane>(new.clone()) {
        Ok(new) => new.spec,
        Err(error) => {
            return vec![Error::invalid_whole(&Path::new("spec"), error.to_string())];
        }
    };
    // What was stored by another version may not decode; then all is new.
    let old = old.and_then(|old| serde_json::from_value::<TenantControlPlane>(old.clone()).ok());
    let before = old.as_ref().map(|old| &old.spec);
    let installed = old
        .as_ref()
        .filter(|old| old.was_ready())
        .and_then(|old| old.status.as_ref())
        .and_then(|status| status.installed_version());

    let mut errors = Vec::new();
    version(&new, before, installed, &mut errors);
    names_in_store(&new, old.as_ref(), &mut errors);
    networks(&new, before, installed.is_some(), &mut errors);
    addresses(&new, before, &mut errors);
    cluster_domain(&new, before, &mut errors);
    certificate_names(&new, before, &mut errors);
    pods(&new, before, &mut errors);
    arguments(&new, before, &mut errors);
    ports(&new, before, &mut errors);
    tunnel(&new, before, &mut errors);
    routes::check(&new, before, &mut errors);
    assignment::check(&new, before, &mut errors);
    overrides(&new, before, &mut errors);
    worker_bootstrap(&new, before, &mut errors);
    serving_certificates(&new, before, &mut errors);
    errors
}

/// Whether a part of the spec is not what it was.
fn changed<T: PartialEq>(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    part: impl Fn(&TenantControlPlaneSpec) -> T,
) -> bool {
    old.is_none_or(|old| part(old) != part(new))
}

/// Upgrades go from minor to minor, never down to an older minor version; a patch
/// release can be taken back. What counts is the version that last ran: before
/// the first one runs, while an upgrade does not come up, and while the tenant
/// sleeps, the version can be put right.
fn version(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    installed: Option<&str>,
    errors: &mut Vec<Error>,
) {
    if !changed(new, old, |spec| spec.kubernetes.version.clone()) {
        return;
    }
    let path = Path::new("spec.kubernetes.version");
    let text = new.kubernetes.version.as_str();
    let wanted = match text.parse::<KubernetesVersion>() {
        Ok(wanted) => wanted,
        Err(error) => {
            errors.push(Error::invalid(&path, text, error.to_string()));
            return;
        }
    };
    let newest = newest();
    if wanted.minor() > newest {
        let detail =
            format!("the newest supported version is {newest}; choose one of v{newest}.x or older");
        errors.push(Error::invalid(&path, text, detail));
        return;
    }
    let installed = installed.and_then(|text| text.parse::<KubernetesVersion>().ok());
    let Some(installed) = installed else {
        return;
    };
    let Minor(major, minor) = installed.minor();
    let patch_release = wanted.minor() == installed.minor() && wanted.is_release();
    if wanted < installed && !patch_release {
        let detail = format!(
            "must not be older than the installed version {installed}, except for a patch release of the same minor version: Kubernetes does not read its data back after a downgrade"
        );
        errors.push(Error::invalid(&path, text, detail));
    } else if wanted.minor() > Minor(major, minor + 1) {
        let next = Minor(major, minor + 1);
        let detail = format!("must not skip a minor version: from {installed} go to v{next} first");
        errors.push(Error::invalid(&path, text, detail));
    }
}

/// The names in the database are given once: by the spec, or by the controller.
fn names_in_store(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlane>,
    errors: &mut Vec<Error>,
) {
    let before = old.map(|old| &old.spec);
    let setup = old.and_then(|old| old.status.as_ref()?.storage.as_ref()?.setup.as_ref());
    let rows = [
        (
            "dataStoreSchema",
            &new.data_store_schema,
            before.and_then(|old| old.data_store_schema.as_ref()),
            setup.and_then(|setup| setup.schema.as_ref()),
        ),
        (
            "dataStoreUsername",
            &new.data_store_username,
            before.and_then(|old| old.data_store_username.as_ref()),
            setup.and_then(|setup| setup.user.as_ref()),
        ),
    ];
    for (field, wanted, before, in_use) in rows {
        let Some(wanted) = wanted.as_ref().filter(|&wanted| Some(wanted) != before) else {
            continue;
        };
        let path = Path::new("spec").child(field);
        // A change of a field that was set is the published rule's business.
        if let Some(in_use) = in_use.filter(|&in_use| in_use != wanted && before.is_none()) {
            let detail =
                format!("the tenant already uses {in_use}; leave the field out or set it to that");
            errors.push(Error::invalid(&path, wanted.as_str(), detail));
        }
        if wanted == "root" {
            let detail = "root is the administrator of the DataStore; choose another name";
            errors.push(Error::invalid(&path, wanted.as_str(), detail));
        }
    }
}

fn networks(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    is_installed: bool,
    errors: &mut Vec<Error>,
) {
    let path = Path::new("spec.networkProfile");
    let profile = &new.network_profile;
    let ranges = |spec: &TenantControlPlaneSpec| {
        let profile = &spec.network_profile;
        let owned = |ranges: Vec<&str>| ranges.into_iter().map(str::to_owned).collect::<Vec<_>>();
        (owned(profile.service_ranges()), owned(profile.pod_ranges()))
    };
    let parse = |ranges: Vec<&str>| {
        ranges
            .into_iter()
            .enumerate()
            .filter_map(|(position, range)| Some((position, range.parse().ok()?)))
            .collect::<Vec<(usize, IpNet)>>()
    };
    let services = parse(profile.service_ranges());
    let pods = parse(profile.pod_ranges());
    let field = |list: &[String], many: &str, one: &str| {
        path.child(if list.is_empty() { one } else { many })
    };
    let at = |path: &Path, list: &[String], position: usize| {
        if list.is_empty() {
            path.clone()
        } else {
            path.index(position)
        }
    };
    let service_path = field(&profile.service_cidrs, "serviceCidrs", "serviceCidr");
    let pod_path = field(&profile.pod_cidrs, "podCidrs", "podCidr");

    if changed(new, old, ranges) {
        let before = old.map(ranges).unwrap_or_default();
        let texts = (profile.service_ranges(), profile.pod_ranges());
        for (position, range) in &services {
            let text = texts.0[*position];
            if !before.0.iter().any(|before| before == text)
                && let Some(detail) = service_range_complaint(text, range, new)
            {
                let path = at(&service_path, &profile.service_cidrs, *position);
                errors.push(Error::invalid(&path, text, detail));
            }
        }
        for (position, range) in &pods {
            let text = texts.1[*position];
            if !before.1.iter().any(|before| before == text)
                && let Some(detail) = pod_range_complaint(text, range, new)
            {
                let path = at(&pod_path, &profile.pod_cidrs, *position);
                errors.push(Error::invalid(&path, text, detail));
            }
        }
        for (path, ranges) in [(&service_path, &services), (&pod_path, &pods)] {
            if let [(_, one), (_, other)] = ranges.as_slice()
                && one.addr().is_ipv4() == other.addr().is_ipv4()
            {
                let detail = "two ranges must be of different IP families: one IPv4, one IPv6";
                errors.push(Error::invalid_whole(path, detail));
            }
        }
        for (position, pod) in &pods {
            let overlaps = |service: &IpNet| pod.contains(service) || service.contains(pod);
            if let Some((_, service)) = services.iter().find(|(_, service)| overlaps(service)) {
                let detail = format!(
                    "overlaps with the range of Service addresses {service}; choose ranges apart from each other"
                );
                let path = at(&pod_path, &profile.pod_cidrs, *position);
                errors.push(Error::invalid(&path, pod.to_string(), detail));
            }
        }
        if let Some(old) = old.filter(|_| is_installed) {
            let (old_services, old_pods) = ranges(old);
            let (new_services, new_pods) = ranges(new);
            for (path, old, new) in [
                (&service_path, old_services, new_services),
                (&pod_path, old_pods, new_pods),
            ] {
                if old.first() != new.first() {
                    let first = old.first().map(String::as_str).unwrap_or_default();
                    let detail = format!(
                        "the first range cannot be changed once the tenant runs: addresses of {first} are in use"
                    );
                    errors.push(Error::forbidden(path, detail));
                }
            }
        }
    }

    let dns = |spec: &TenantControlPlaneSpec| {
        (spec.network_profile.dns_service_ips.clone(), ranges(spec).0)
    };
    if changed(new, old, dns) {
        let mut seen = BTreeSet::new();
        for (position, text) in profile.dns_service_ips.iter().enumerate() {
            let path = path.child("dnsServiceIPs").index(position);
            let Ok(address) = text.parse::<IpAddr>() else {
                let detail = "must be an IP address";
                errors.push(Error::invalid(&path, text.as_str(), detail));
                continue;
            };
            let is_kept = old.is_some_and(|old| {
                old.network_profile.dns_service_ips.contains(text)
                    && old.network_profile.service_ranges() == profile.service_ranges()
            });
            if !is_kept && let Some(detail) = dns_complaint(address, &services) {
                errors.push(Error::invalid(&path, text.as_str(), detail));
            }
            if !seen.insert(address) {
                errors.push(Error::duplicate(&path, text.as_str()));
            }
        }
        if profile.dns_service_ips.is_empty() {
            for (position, range) in &services {
                let wide_enough = too_small(range, MIN_SERVICE_ADDRESSES).is_none();
                if wide_enough && !range.contains(&computed_dns_address(range)) {
                    let path = at(&service_path, &profile.service_cidrs, *position);
                    let detail = format!(
                        "has no room for the address of the DNS Service, {}; choose a larger range, or set dnsServiceIPs",
                        computed_dns_address(range)
                    );
                    errors.push(Error::invalid(&path, range.to_string(), detail));
                }
            }
        }
    }
}

/// The least that kubeadm takes as a range of Service addresses; it puts the
/// DNS Service at the tenth.
const MIN_SERVICE_ADDRESSES: u32 = 10;

/// The least that kubeadm takes as a range of pod addresses.
const MIN_POD_ADDRESSES: u32 = 14;

const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";

fn is_mapped(address: IpAddr) -> bool {
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

fn too_small(range: &IpNet, least: u32) -> Option<String> {
    // A range that does not fit is no small one.
    let count = 1_u32.checked_shl(host_bits(range).into())?;
    (count < least)
        .then(|| format!("subnet with {count} address(es) is too small, the minimum is {least}"))
}

fn service_range_complaint(
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

fn pod_range_complaint(text: &str, range: &IpNet, spec: &TenantControlPlaneSpec) -> Option<String> {
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

/// Where the DNS Service is put when nobody says: the tenth address (IPv4) or
/// the sixteenth (IPv6).
fn computed_dns_address(range: &IpNet) -> IpAddr {
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

fn dns_complaint(address: IpAddr, services: &[(usize, IpNet)]) -> Option<String> {
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

/// Addresses that no node reaches an API server at, in the words of
/// Kubernetes about the addresses of endpoints.
fn addresses(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
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

fn cluster_domain(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
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

/// Whether a name ends as an IPv4 address does, and so cannot be a DNS name.
pub(super) fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

fn certificate_names(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
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

fn pods(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
) {
    let path = Path::new("spec.controlPlane.deployment");
    let deployment = &new.control_plane.deployment;
    let containers = |spec: &TenantControlPlaneSpec| {
        let deployment = &spec.control_plane.deployment;
        (
            deployment.additional_containers.clone(),
            deployment.additional_init_containers.clone(),
        )
    };
    if changed(new, old, containers) {
        let mut seen = BTreeSet::new();
        for (field, list) in [
            ("additionalContainers", &deployment.additional_containers),
            (
                "additionalInitContainers",
                &deployment.additional_init_containers,
            ),
        ] {
            for (position, container) in list.iter().enumerate() {
                let path = path.child(field).index(position);
                unique_name(
                    &path,
                    &container.name,
                    names::container::ALL,
                    &mut seen,
                    errors,
                );
                if container.image.as_deref().is_none_or(str::is_empty) {
                    errors.push(Error::required(&path.child("image"), ""));
                }
            }
        }
    }
    if changed(new, old, |spec| {
        spec.control_plane.deployment.additional_volumes.clone()
    }) {
        let mut seen = BTreeSet::new();
        for (position, volume) in deployment.additional_volumes.iter().enumerate() {
            let path = path.child("additionalVolumes").index(position);
            unique_name(&path, &volume.name, names::volume::ALL, &mut seen, errors);
            // Plain data always serializes.
            modes(
                &path,
                &serde_json::to_value(volume).unwrap_or_default(),
                errors,
            );
        }
    }
    if changed(new, old, |spec| {
        spec.control_plane
            .deployment
            .additional_volume_mounts
            .clone()
    }) && let Some(mounts) = &deployment.additional_volume_mounts
    {
        for (component, list) in [
            ("apiServer", &mounts.api_server),
            ("controllerManager", &mounts.controller_manager),
            ("scheduler", &mounts.scheduler),
        ] {
            let mut seen = BTreeSet::new();
            for (position, mount) in list.iter().enumerate() {
                if !seen.insert(mount.mount_path.as_str()) {
                    let path = path.child("additionalVolumeMounts").child(component);
                    let path = path.index(position).child("mountPath");
                    let detail = "must be unique";
                    errors.push(Error::invalid(&path, mount.mount_path.as_str(), detail));
                }
            }
        }
    }
}

/// Modes of files, wherever they are in a volume: the management cluster would
/// refuse the pods for one, which shows only when there are pods.
fn modes(path: &Path, value: &Value, errors: &mut Vec<Error>) {
    const MAX: i64 = 0o777;
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = path.child(name);
                let mode = value
                    .as_i64()
                    .filter(|_| name == "mode" || name == "defaultMode");
                match mode {
                    Some(mode) if !(0..=MAX).contains(&mode) => {
                        let detail = "must be a number between 0 and 0777 (octal), both inclusive; JSON has no octal numbers: 0640 is 416";
                        errors.push(Error::invalid(&path, mode, detail));
                    }
                    _ => modes(&path, value, errors),
                }
            }
        }
        Value::Array(list) => {
            for (position, value) in list.iter().enumerate() {
                modes(&path.index(position), value, errors);
            }
        }
        _ => {}
    }
}

/// A name in a pod: a label, not ours, and nobody else's.
fn unique_name<'a>(
    path: &Path,
    name: &'a str,
    ours: &[&str],
    seen: &mut BTreeSet<&'a str>,
    errors: &mut Vec<Error>,
) {
    let path = path.child("name");
    for complaint in label_complaints(name) {
        errors.push(Error::invalid(&path, name, complaint));
    }
    if ours.contains(&name) {
        let detail = "the name is used by the control plane itself; choose another one";
        errors.push(Error::invalid(&path, name, detail));
    }
    if !seen.insert(name) {
        errors.push(Error::duplicate(&path, name));
    }
}

fn arguments(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
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

fn tunnel(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
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

fn of_flags(path: &Path, list: &[String], errors: &mut Vec<Error>) {
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

fn ports(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
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
        } else if PORTS_OF_PODS.contains(&port) || !seen_ports.insert(("TCP", port)) {
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

fn overrides(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
) {
    if !changed(new, old, |spec| spec.data_store_overrides.clone()) {
        return;
    }
    let path = Path::new("spec.dataStoreOverrides");
    let mut seen = BTreeSet::new();
    for (position, one) in new.data_store_overrides.iter().enumerate() {
        let path = path.index(position);
        for (field, value) in [("resource", &one.resource), ("dataStore", &one.data_store)] {
            if value.as_deref().is_none_or(str::is_empty) {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        if let Some(resource) = &one.resource
            && !seen.insert(resource)
        {
            errors.push(Error::duplicate(&path.child("resource"), resource.as_str()));
        }
    }
}

/// Checks of what stands for itself, whatever else is wrong with the object.
pub(super) fn check_parts(new: &Value, old: Option<&Value>) -> Vec<Error> {
    let mut errors = Vec::new();
    patches(new, old, &mut errors);
    errors
}

fn patches(new: &Value, old: Option<&Value>, errors: &mut Vec<Error>) {
    use super::{JsonPatch, JsonPatchOperation as Operation};
    const PATCHES: &str = "/spec/kubernetes/kubelet/configurationJSONPatches";
    let Some(list) = new.pointer(PATCHES).and_then(Value::as_array) else {
        return;
    };
    let before = old.and_then(|old| old.pointer(PATCHES)?.as_array());
    if before == Some(list) {
        return;
    }
    let path = Path::new("spec.kubernetes.kubelet.configurationJSONPatches");
    for (position, patch) in list.iter().enumerate() {
        // What does not decode is the schema's business.
        let Ok(patch) = serde_json::from_value::<JsonPatch>(patch.clone()) else {
            continue;
        };
        let path = path.index(position);
        if !patch.path.is_empty() && !patch.path.starts_with('/') {
            let detail = "must be a JSON pointer, which begins with /";
            errors.push(Error::invalid(
                &path.child("path"),
                patch.path.as_str(),
                detail,
            ));
        }
        let needs_from = matches!(patch.op, Operation::Move | Operation::Copy);
        if needs_from && patch.from.is_none() {
            errors.push(Error::required(
                &path.child("from"),
                "needed with op move and copy",
            ));
        }
        let needs_value = matches!(
            patch.op,
            Operation::Add | Operation::Replace | Operation::Test
        );
        if needs_value && patch.value.is_none() {
            errors.push(Error::required(
                &path.child("value"),
                "needed with op add, replace and test",
            ));
        }
    }
}

fn worker_bootstrap(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
) {
    let part = |spec: &TenantControlPlaneSpec| spec.addons.as_ref()?.worker_bootstrap.clone();
    let Some(worker) = part(new).filter(|_| changed(new, old, part)) else {
        return;
    };
    let path = Path::new("spec.addons.workerBootstrap");
    if worker.talos.is_none() {
        errors.push(Error::required(
            &path.child("talos"),
            "needed with provider talos; it may be {}",
        ));
    }
    allowed_subnets(&path, &worker.allowed_subnets, errors);
}

fn serving_certificates(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
) {
    let part = |spec: &TenantControlPlaneSpec| spec.kubernetes.kubelet.serving_certificates.clone();
    let Some(wanted) = part(new).filter(|_| changed(new, old, part)) else {
        return;
    };
    let path = Path::new("spec.kubernetes.kubelet.servingCertificates");
    allowed_subnets(&path, &wanted.allowed_subnets, errors);
}

/// `allowedSubnets` are networks.
fn allowed_subnets(parent: &Path, ranges: &[String], errors: &mut Vec<Error>) {
    for (position, range) in ranges.iter().enumerate() {
        if range.parse::<IpNet>().is_err() {
            let path = parent.child("allowedSubnets").index(position);
            let detail = "must be a network such as 192.0.2.0/24";
            errors.push(Error::invalid(&path, range.as_str(), detail));
        }
    }
}
