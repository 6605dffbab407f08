//! The addresses of a tenant's DNS Service.

use std::net::IpAddr;

use apiservice::v1alpha1::NetworkProfile;

use crate::tenant::network::ranges::nth_address;

/// Those asked for, else the tenth (IPv4) or sixteenth (IPv6) of each range of Service
/// addresses.
pub fn addresses(network: &NetworkProfile) -> Vec<String> {
    if !network.dns_service_ips.is_empty() {
        return network.dns_service_ips.clone();
    }
    let ranges = network.service_ranges();
    ranges
        .into_iter()
        .filter_map(dns_address)
        .map(|address| address.to_string())
        .collect()
}

fn dns_address(range: &str) -> Option<IpAddr> {
    let offset = if range.contains(':') { 16 } else { 10 };
    nth_address(range, offset)
}

#[cfg(test)]
mod tests {
    use super::dns_address;

    #[test]
    fn the_dns_address_is_counted_from_the_network() {
        let table = [
            ("10.96.0.0/16", Some("10.96.0.10")),
            ("10.96.7.9/16", Some("10.96.0.10")),
            ("fd00:1::5/108", Some("fd00:1::10")),
            ("255.255.255.250/32", None),
            ("nonsense", None),
        ];
        for (range, expected) in table {
            let found = dns_address(range).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{range}");
        }
    }
}
