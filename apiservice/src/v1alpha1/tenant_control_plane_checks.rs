//! Checks of a TenantControlPlane that CEL cannot say.
//!
//! Each looks only at what has changed, so that a stored object that an older
//! version accepted can still be edited elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{TenantControlPlane, TenantControlPlaneSpec};
use crate::field::{Error, Path};
use crate::meta::{label_complaints, subdomain_complaints};
use crate::names;
use crate::version::{KubernetesVersion, MAX, Minor};

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
        .and_then(|old| old.status.as_ref())
        .and_then(|status| status.installed_version());

    let mut errors = Vec::new();
    version(&new, before, installed, &mut errors);
    names_in_store(&new, old.as_ref(), &mut errors);
    networks(&new, before, installed.is_some(), &mut errors);
    certificate_names(&new, before, &mut errors);
    pods(&new, before, &mut errors);
    arguments(&new, before, &mut errors);
    ports(&new, before, &mut errors);
    overrides(&new, before, &mut errors);
    patches(&new, before, &mut errors);
    worker_bootstrap(&new, before, &mut errors);
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

/// Upgrades go from minor to minor, never down. What counts is the version that
/// runs: before the first one runs, and while an upgrade does not come up, the
/// version can be put right.
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
    if wanted.minor() > MAX {
        let detail =
            format!("the newest supported version is {MAX}; choose one of v{MAX} or older");
        errors.push(Error::invalid(&path, text, detail));
        return;
    }
    let installed = installed.and_then(|text| text.parse::<KubernetesVersion>().ok());
    let Some(installed) = installed else {
        return;
    };
    let Minor(major, minor) = installed.minor();
    if wanted < installed {
        let detail = format!(
            "must not be older than the installed version {installed}: Kubernetes does not read its data back after a downgrade"
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
            .filter_map(|range| range.parse().ok())
            .collect::<Vec<IpNet>>()
    };
    let services = parse(profile.service_ranges());
    let pods = parse(profile.pod_ranges());
    let field = |list: &[String], many: &str, one: &str| {
        path.child(if list.is_empty() { one } else { many })
    };
    let service_path = field(&profile.service_cidrs, "serviceCidrs", "serviceCidr");
    let pod_path = field(&profile.pod_cidrs, "podCidrs", "podCidr");

    if changed(new, old, ranges) {
        for (path, ranges) in [(&service_path, &services), (&pod_path, &pods)] {
            if let [one, other] = ranges.as_slice()
                && one.addr().is_ipv4() == other.addr().is_ipv4()
            {
                let detail = "two ranges must be of different IP families: one IPv4, one IPv6";
                errors.push(Error::invalid_whole(path, detail));
            }
        }
        let overlap = services.iter().find_map(|service| {
            let pod = pods
                .iter()
                .find(|pod| pod.contains(service) || service.contains(*pod))?;
            Some((service, pod))
        });
        if let Some((service, pod)) = overlap {
            let detail = format!(
                "overlaps with the range of Service addresses {service}; choose ranges apart from each other"
            );
            errors.push(Error::invalid(&pod_path, pod.to_string(), detail));
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
        for (position, text) in profile.dns_service_ips.iter().enumerate() {
            let path = path.child("dnsServiceIPs").index(position);
            match text.parse::<IpAddr>() {
                Err(_) => errors.push(Error::invalid(
                    &path,
                    text.as_str(),
                    "must be an IP address",
                )),
                Ok(address) if !services.iter().any(|range| range.contains(&address)) => {
                    let all: Vec<String> = services.iter().map(ToString::to_string).collect();
                    let detail = format!(
                        "must be inside the range of Service addresses {}",
                        all.join(", ")
                    );
                    errors.push(Error::invalid(&path, text.as_str(), detail));
                }
                Ok(_) => {}
            }
        }
    }
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
        ),
        (
            Path::new("spec.addons.workerBootstrap.talos.certSANs"),
            talos(new).filter(|_| changed(new, old, talos)),
        ),
    ];
    for (path, list) in lists {
        for (position, name) in list.into_iter().flatten().enumerate() {
            let host = name.strip_prefix("*.").unwrap_or(&name);
            if name.parse::<IpAddr>().is_err() && !subdomain_complaints(host).is_empty() {
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
        for (position, argument) in list.iter().enumerate() {
            if !argument.starts_with('-') {
                let path = path.child(component).index(position);
                let detail = "must be one argument with its flag, as --flag=value";
                errors.push(Error::invalid(&path, argument.as_str(), detail));
            }
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
        )
    };
    if !changed(new, old, part) {
        return;
    }
    let path = Path::new("spec.controlPlane.service.additionalPorts");
    let ours = [
        names::PORT_API_SERVER,
        names::PORT_KONNECTIVITY,
        names::container::TRUSTD,
    ];
    let mut seen_names = BTreeSet::new();
    let mut seen_ports = BTreeSet::from([("TCP", new.network_profile.port)]);
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
            let detail = "the Service already has this port; the one of the API server is networkProfile.port";
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

fn patches(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Vec<Error>,
) {
    use super::JsonPatchOperation as Operation;
    let part =
        |spec: &TenantControlPlaneSpec| spec.kubernetes.kubelet.configuration_json_patches.clone();
    if !changed(new, old, part) {
        return;
    }
    let path = Path::new("spec.kubernetes.kubelet.configurationJSONPatches");
    for (position, patch) in part(new).iter().enumerate() {
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
    for (position, range) in worker.allowed_subnets.iter().enumerate() {
        if range.parse::<IpNet>().is_err() {
            let path = path.child("allowedSubnets").index(position);
            let detail = "must be a network such as 192.0.2.0/24";
            errors.push(Error::invalid(&path, range.as_str(), detail));
        }
    }
}
