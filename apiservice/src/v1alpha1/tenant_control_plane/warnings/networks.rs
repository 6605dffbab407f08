//! Ranges and names of a tenant's network.

use ipnet::IpNet;

use crate::v1alpha1::{NetworkProfile, TenantControlPlaneSpec};

/// Ranges that are taken otherwise than they look.
pub(super) fn ranges(profile: &NetworkProfile, warnings: &mut Vec<String>) {
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

/// What nodes and pods are told, that something else has to provide.
pub(super) fn expectations(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
    let network = &spec.network_profile;
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
}
