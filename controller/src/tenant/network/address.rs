//! Where a tenant is reached: the address to declare, the endpoint to publish
//! and the names that its serving certificate must carry (features 2.5).

use std::net::{IpAddr, Ipv6Addr};

use apiservice::condition::{reason, tenant as condition};
use apiservice::names;
use apiservice::v1alpha1::ServiceType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

use crate::tenant::plan::Waiting;
use crate::tenant::world::World;

/// Where clients reach the tenant's API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// An IP address, or the DNS name that a load balancer was given.
    pub host: String,
    /// Where clients outside the management cluster are sent: the advertised
    /// address if the tenant names one, else the same.
    pub client_host: String,
    /// Port of the API server, the same everywhere.
    pub port: i32,
    /// What the API server announces inside the tenant; always an IP address.
    pub advertise: IpAddr,
    /// The Service's own address.
    pub cluster_ip: IpAddr,
}

impl Address {
    /// `host:port`, with brackets around IPv6.
    pub fn endpoint(&self) -> String {
        join(&self.host, self.port)
    }

    /// `host:port` for kubeconfigs.
    pub fn client_endpoint(&self) -> String {
        join(&self.client_host, self.port)
    }
}

/// `host:port`, with brackets around IPv6.
pub fn join(host: &str, port: i32) -> String {
    if host.parse::<Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The address, or what it is waiting for.
pub fn of(world: &World) -> Result<Address, Waiting> {
    let network = &world.tenant.spec.network_profile;
    let service = world
        .service()
        .filter(|service| world.ours(&service.metadata));
    // Its address is in the certificate whatever clients use, so that pods are
    // not replaced a moment after their start.
    let Some(cluster_ip) = service.and_then(cluster_ip) else {
        return Err(pending("The Service has no address in the cluster yet"));
    };
    let declared = network.fixed_address();
    let host = match (
        declared,
        world.tenant.spec.control_plane.service.service_type,
    ) {
        (Some(declared), _) => declared.to_owned(),
        (None, ServiceType::LoadBalancer) => load_balancer(world, service)?,
        (None, _) => cluster_ip.to_string(),
    };
    let announced = network
        .advertise_address
        .as_deref()
        .filter(|address| !address.is_empty());
    let advertise = announced.and_then(|text| text.parse().ok());
    let advertise = advertise
        .or_else(|| host.parse().ok())
        .unwrap_or(cluster_ip);
    let client_host = announced.map_or_else(|| host.clone(), str::to_owned);
    Ok(Address {
        host,
        client_host,
        port: network.port,
        advertise,
        cluster_ip,
    })
}

/// The address of the Service inside the management cluster.
fn cluster_ip(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

/// The first address of a load balancer. A name is as good as an address: it
/// goes into the certificate, and whoever runs the load balancer keeps it.
fn load_balancer(world: &World, service: Option<&Service>) -> Result<String, Waiting> {
    let Some(service) = service else {
        return Err(pending("The Service is being created"));
    };
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let mut entries = status
        .into_iter()
        .flat_map(|status| status.ingress.iter().flatten());
    let found = entries.find_map(|entry| entry.ip.clone().or_else(|| entry.hostname.clone()));
    if let Some(found) = found.filter(|found| !found.is_empty()) {
        return Ok(found);
    }
    let late = silent_since(service)
        .is_some_and(|since| world.now.duration_since(since) >= world.settings.address_patience);
    let message = if late {
        let class = world
            .tenant
            .spec
            .network_profile
            .load_balancer_class
            .as_deref();
        let class = class.map_or_else(String::new, |class| format!(" of class {class}"));
        format!(
            "No load balancer{class} has given Service {}/{} an address. Install or check one, or \
             set spec.networkProfile.address, or use serviceType ClusterIP or NodePort.",
            world.namespace(),
            world.name()
        )
    } else {
        "The load balancer has not assigned an address yet".to_owned()
    };
    Err(Waiting {
        condition: condition::ADDRESS_ASSIGNED,
        reason: if late {
            reason::NO_ADDRESS
        } else {
            reason::ADDRESS_PENDING
        },
        message,
        problem: late,
        finding: None,
    })
}

/// Since when a load balancer could have answered.
pub fn silent_since(service: &Service) -> Option<Timestamp> {
    service
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0)
}

fn pending(message: &str) -> Waiting {
    Waiting {
        condition: condition::ADDRESS_ASSIGNED,
        reason: reason::ADDRESS_PENDING,
        message: message.to_owned(),
        problem: false,
        finding: None,
    }
}

/// Names and addresses that the API server's certificate must carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    /// DNS names, each once.
    pub dns: Vec<String>,
    /// IP addresses, each once.
    pub ip: Vec<IpAddr>,
}

impl AlternativeNames {
    fn add(&mut self, name: &str) {
        match name.parse::<IpAddr>() {
            Ok(address) if !self.ip.contains(&address) => self.ip.push(address),
            Ok(_) => {}
            Err(_) if name.is_empty() || self.dns.iter().any(|known| known == name) => {}
            Err(_) => self.dns.push(name.to_owned()),
        }
    }
}

/// The names by which a tenant is reached from outside it.
pub fn reached_at(address: &Address) -> AlternativeNames {
    let mut found = AlternativeNames::default();
    found.add(&address.host);
    found.add(&address.advertise.to_string());
    found.add(&address.cluster_ip.to_string());
    found
}

/// The names of features 2.3, with the tenant's own domain instead of a fixed
/// one, and the first address of each Service range, which pods of the tenant
/// use.
pub fn alternative_names(world: &World, address: &Address) -> AlternativeNames {
    let (name, namespace) = (world.name(), world.namespace());
    let network = &world.tenant.spec.network_profile;
    let service = names::service_host(name, namespace);
    let mut found = AlternativeNames::default();
    for fixed in ["localhost", "127.0.0.1", name] {
        found.add(fixed);
    }
    found.add(&format!("{name}.{namespace}"));
    found.add(&service);
    found.add(&format!("{service}.{}", world.settings.management_domain));
    for inside in ["kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
        found.add(inside);
    }
    found.add(&format!(
        "kubernetes.default.svc.{}",
        network.cluster_domain
    ));
    found.add(&address.host);
    found.add(&address.advertise.to_string());
    found.add(&address.cluster_ip.to_string());
    for range in network.service_ranges() {
        if let Some(first) = first_address(range) {
            found.add(&first.to_string());
        }
    }
    for extra in &network.cert_sans {
        found.add(extra);
    }
    found
}

/// The first address of a range after its network address: the tenant's
/// `kubernetes` Service.
pub fn first_address(range: &str) -> Option<IpAddr> {
    nth_address(range, 1)
}

/// An address of a range, counted from that of the network: older versions
/// stored ranges with bits set beyond the prefix.
pub fn nth_address(range: &str, offset: u32) -> Option<IpAddr> {
    let (address, prefix) = range.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(address) if prefix <= 32 => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            let found = (u32::from(address) & mask).checked_add(offset)?;
            Some(IpAddr::V4(found.into()))
        }
        IpAddr::V6(address) if prefix <= 128 => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            let found = (u128::from(address) & mask).checked_add(offset.into())?;
            Some(IpAddr::V6(found.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{first_address, join};

    #[test]
    fn the_first_address_of_a_range() {
        let table = [
            ("10.96.0.0/16", Some("10.96.0.1")),
            ("10.96.7.9/16", Some("10.96.0.1")),
            ("0.0.0.0/0", Some("0.0.0.1")),
            ("10.0.0.0/33", None),
            ("fd00:1::/108", Some("fd00:1::1")),
            ("::/0", Some("::1")),
            ("nonsense", None),
        ];
        for (range, expected) in table {
            assert_eq!(
                first_address(range)
                    .map(|found| found.to_string())
                    .as_deref(),
                expected,
                "{range}"
            );
        }
    }

    #[test]
    fn ipv6_gets_brackets() {
        assert_eq!(join("fd00::1", 6443), "[fd00::1]:6443");
        assert_eq!(join("10.0.0.1", 6443), "10.0.0.1:6443");
        assert_eq!(join("lb.example.com", 443), "lb.example.com:443");
    }
}
