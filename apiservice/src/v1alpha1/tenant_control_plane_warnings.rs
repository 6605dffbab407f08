//! What a requester should know of a TenantControlPlane that goes through.

use ipnet::IpNet;
use serde_json::Value;

use super::{
    ByName, Component, EGRESS_SELECTOR_FLAG, IngressController, KONNECTIVITY_SERVER_FLAGS,
    NetworkProfile, ServiceType, TenantControlPlaneSpec, annotations, flag_name, managed_flags,
};
use crate::admission_plugins::admission_plugins;
use crate::names;
use crate::rule::at;
use crate::version::KubernetesVersion;

/// Fields that are accepted and not acted upon yet (rule 9), as paths below
/// `spec`. The change that builds a field removes its row; the Warning and the
/// condition go with it.
const NOT_ACTED_UPON: &[&[&str]] = &[
    &["dataStoreOverrides"],
    &["addons", "tcpProxy"],
    &["addons", "workerBootstrap", "talos"],
];

/// The fields that are set and not acted upon yet, as paths from the root of
/// the object; the condition about them and the Warning are the same list.
pub fn unsupported(spec: &TenantControlPlaneSpec) -> Vec<String> {
    // Plain data always serializes.
    not_acted_upon(&serde_json::to_value(spec).unwrap_or_default())
}

fn not_acted_upon(spec: &Value) -> Vec<String> {
    NOT_ACTED_UPON
        .iter()
        .filter(|path| at(spec, path).is_some_and(asks_for_something))
        .map(|path| format!("spec.{}", path.join(".")))
        .collect()
}

/// Switches that are all off, and empty lists, ask for nothing; an empty object
/// does, for its presence counts.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) if !fields.is_empty() => {
            fields.values().any(|value| *value != Value::Bool(false))
        }
        _ => true,
    }
}

/// Warnings about a write.
pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings: Vec<String> = not_acted_upon(&new["spec"])
        .into_iter()
        .map(|path| format!("{path}: accepted but not acted upon yet"))
        .collect();
    // Where the data is says the status, not what the spec was before: that may
    // have named none, one to which the data was never moved, or one that is not there.
    let storage = old.and_then(|old| at(old, &["status", "storage"]));
    let is_name = |value: &&Value| value.as_str().is_some_and(|name| !name.is_empty());
    let has_data = storage.and_then(|storage| at(storage, &["setup", "schema"]));
    let settled = storage.and_then(|storage| at(storage, &["dataStoreName"]));
    if let Some(settled) = settled.filter(is_name).and_then(Value::as_str)
        && has_data.filter(is_name).is_some()
        && let Some(wanted) = at(new, &["spec", "dataStore"]).filter(is_name)
        && let Some(wanted) = wanted.as_str().filter(|wanted| *wanted != settled)
    {
        warnings.push(format!(
            "spec.dataStore: the tenant's data is moved from DataStore {settled} to {wanted}, if there is such a one that takes it; at the end writes are refused for some seconds and the pods are replaced"
        ));
    }
    let Ok(spec) = TenantControlPlaneSpec::deserialize(&new["spec"]) else {
        // It is refused.
        return warnings;
    };
    if spec.data_store_assignment.is_some()
        && spec.data_store.as_ref().is_some_and(|it| !it.is_empty())
    {
        warnings.push(
            "spec.dataStoreAssignment: means nothing beside spec.dataStore, which names one"
                .to_owned(),
        );
    }
    if let Ok(version) = spec.kubernetes.version.parse::<KubernetesVersion>() {
        let dropped = admission_plugins(&version, &spec.kubernetes.admission_controllers).dropped;
        if !dropped.is_empty() {
            warnings.push(format!(
                "spec.kubernetes.admissionControllers: Kubernetes {version} has no {}; left out",
                dropped.join(", ")
            ));
        }
    }
    networks(&spec.network_profile, &mut warnings);
    without_effect(&spec, &mut warnings);
    by_name(&spec, &mut warnings);
    arguments(&spec, &mut warnings);
    metadata(&spec, &mut warnings);
    warnings.extend(annotations::unknown(new, old, &annotations::OF_TENANTS));
    warnings.extend(annotations::lost_keys(new, old));
    warnings
}

/// The node ports of a cluster that was given no others.
const USUAL_NODE_PORTS: std::ops::RangeInclusive<i32> = 30000..=32767;

/// Settings that do less than they seem to.
fn without_effect(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
    let network = &spec.network_profile;
    if network.allow_address_as_external_ip {
        let why = if network.fixed_address().is_none() {
            Some("spec.networkProfile.address is not set")
        } else if spec.control_plane.service.service_type == ServiceType::LoadBalancer {
            Some("the load balancer gives the address of a Service of type LoadBalancer")
        } else {
            None
        };
        warnings.extend(why.map(|why| {
            format!("spec.networkProfile.allowAddressAsExternalIP: has no effect, for {why}")
        }));
    }
    if spec.control_plane.service.service_type == ServiceType::NodePort {
        let tunnel = spec.konnectivity().map(|tunnel| tunnel.server.port);
        let ports = [
            ("spec.networkProfile.port", Some(network.port)),
            ("spec.addons.konnectivity.server.port", tunnel),
        ];
        let ports = ports
            .iter()
            .filter_map(|(path, port)| Some((path, (*port)?)));
        let unusual = ports.filter(|(_, port)| !USUAL_NODE_PORTS.contains(port));
        warnings.extend(unusual.map(|(path, port)| {
            format!(
                "{path}: with serviceType NodePort it is a node port too; {port} is outside of their usual range (30000-32767), and the management cluster may refuse the Service"
            )
        }));
    }
    let addons = spec.addons.as_ref();
    let has_dns = addons.is_some_and(|addons| addons.core_dns.is_some());
    if !has_dns && !network.dns_service_ips.is_empty() {
        warnings.push(
            "spec.networkProfile.dnsServiceIPs: kubelets are told to ask these addresses; without spec.addons.coreDNS you have to install the DNS Service there"
                .to_owned(),
        );
    }
    if !has_dns && network.cluster_domain != NetworkProfile::default().cluster_domain {
        warnings.push(format!(
            "spec.networkProfile.clusterDomain: kubelets, certificates and tokens have {}; without spec.addons.coreDNS your DNS Service has to serve it as well",
            network.cluster_domain
        ));
    }
    if network.pod_ranges().is_empty() {
        warnings.push(
            "spec.networkProfile.podCidr: without a range, nodes get none from the control plane; the network plug-in has to give pods their addresses"
                .to_owned(),
        );
    }
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

/// What a proxy that routes by name needs beside what was said.
fn by_name(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
    let plane = &spec.control_plane;
    let Some(way) = plane.by_name() else { return };
    if way.host().is_none() {
        let field = match way {
            ByName::Ingress(_) => "ingress",
            ByName::Gateway(_) => "gateway",
        };
        return warnings.push(format!(
            "spec.controlPlane.{field}: has no effect without a hostname, the name that clients dial"
        ));
    }
    let field = match way {
        ByName::Ingress(ingress) => {
            let given = ingress.additional_metadata.as_ref();
            let annotated = given.is_some_and(|given| !given.annotations.is_empty());
            let known = !matches!(
                ingress.controller_type,
                None | Some(IngressController::Generic | IngressController::Unrecognized)
            );
            if !annotated && !known {
                warnings.push(
                    "spec.controlPlane.ingress: nothing asks the Ingress controller to pass TLS through; set controllerType, or your controller's annotation in additionalMetadata.annotations"
                        .to_owned(),
                );
            }
            "ingress"
        }
        ByName::Gateway(gateway) => {
            if gateway.parent_refs.is_empty() {
                warnings.push(
                    "spec.controlPlane.gateway.parentRefs: names no Gateway, so that nothing leads to the hostname"
                        .to_owned(),
                );
            }
            "gateway"
        }
    };
    let network = &spec.network_profile;
    let declared = network.announced_address().is_some() || network.fixed_address().is_some();
    if plane.service.service_type == ServiceType::ClusterIP && !declared {
        warnings.push(format!(
            "spec.controlPlane.{field}: pods in the tenant that use its Service kubernetes are led to the address of a Service of type ClusterIP, which nodes outside of the management cluster do not reach; for them, use serviceType LoadBalancer or NodePort beside the {field}"
        ));
    }
}

/// Arguments that are left out because Steward sets their flags.
fn arguments(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
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
fn metadata(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
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

/// Ranges that are taken otherwise than they look.
fn networks(profile: &NetworkProfile, warnings: &mut Vec<String>) {
    let default = NetworkProfile::default();
    for (one, value, default, many, list) in [
        (
            "serviceCidr",
            &profile.service_cidr,
            &default.service_cidr,
            "serviceCidrs",
            &profile.service_cidrs,
        ),
        (
            "podCidr",
            &profile.pod_cidr,
            &default.pod_cidr,
            "podCidrs",
            &profile.pod_cidrs,
        ),
    ] {
        // The default stands there whether or not somebody wrote it.
        let is_written = !value.is_empty() && value != default;
        if let Some(first) = list.first().filter(|_| is_written && !list.contains(value)) {
            warnings.push(format!(
                "spec.networkProfile.{one}: {value} is not used, for spec.networkProfile.{many} wins with {first}; set only one of the two"
            ));
        }
    }
    let first = |ranges: Vec<&str>| ranges.first().and_then(|range| range.parse::<IpNet>().ok());
    if let Some(services) = first(profile.service_ranges())
        && let Some(pods) = first(profile.pod_ranges())
        && services.addr().is_ipv4() != pods.addr().is_ipv4()
    {
        warnings.push(format!(
            "spec.networkProfile: the first range of Service addresses, {services}, and the first of pod addresses, {pods}, are of different IP families; most Services will reach no pod"
        ));
    }
}
