//! `spec.networkProfile`: addresses and names of the tenant cluster.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bulk::OTHERS;

/// Addresses and names of the tenant cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkProfile {
    /// Address of the API server, instead of the one that the Service gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Address that the tenant's nodes and pods use for the API server, where
    /// it differs from the one in the management cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_address: Option<String>,
    /// Put address into the externalIPs of the Service. Only with serviceType
    /// ClusterIP or NodePort.
    #[serde(rename = "allowAddressAsExternalIP")]
    pub allow_address_as_external_ip: bool,
    /// Port of the API server, also of the Service, and the node port with
    /// serviceType NodePort.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Further names and addresses in the certificate of the API server.
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub cert_sans: Vec<String>,
    /// Range of Service addresses. Deprecated: use serviceCidrs.
    pub service_cidr: String,
    /// Range of pod addresses. Deprecated: use podCidrs.
    pub pod_cidr: String,
    /// Ranges of Service addresses, one for each IP family; they win over
    /// serviceCidr.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub service_cidrs: Vec<String>,
    /// Ranges of pod addresses, one for each IP family; they win over podCidr.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub pod_cidrs: Vec<String>,
    /// Addresses of the DNS Service, each inside a range of Service addresses.
    /// Without them, the tenth address of each range is used.
    #[serde(rename = "dnsServiceIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub dns_service_ips: Vec<String>,
    /// DNS domain of the tenant cluster. It cannot be changed.
    #[schemars(regex(pattern = r".*\..*"))]
    pub cluster_domain: String,
    /// Which implementation serves a LoadBalancer Service. Only with serviceType
    /// LoadBalancer. It cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub load_balancer_class: Option<String>,
    /// From where the load balancer takes connections. Only with serviceType
    /// LoadBalancer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub load_balancer_source_ranges: Vec<String>,
}

impl Default for NetworkProfile {
    fn default() -> Self {
        Self {
            address: None,
            advertise_address: None,
            allow_address_as_external_ip: false,
            port: 6443,
            cert_sans: Vec::new(),
            service_cidr: "10.96.0.0/16".to_owned(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidrs: Vec::new(),
            pod_cidrs: Vec::new(),
            dns_service_ips: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            load_balancer_class: None,
            load_balancer_source_ranges: Vec::new(),
        }
    }
}

impl NetworkProfile {
    /// The ranges of Service addresses in force.
    pub fn service_ranges(&self) -> Vec<&str> {
        ranges(&self.service_cidrs, &self.service_cidr)
    }

    /// The ranges of pod addresses in force.
    pub fn pod_ranges(&self) -> Vec<&str> {
        ranges(&self.pod_cidrs, &self.pod_cidr)
    }

    /// Names and addresses that are put into certificates: as many as there may be. An older
    /// release took more.
    pub fn certificate_names(&self) -> impl Iterator<Item = &str> {
        let mut left = OTHERS;
        let names = self.cert_sans.iter().map(String::as_str);
        names.take_while(move |name| {
            // With the quotes and the comma of JSON.
            let rest = left.checked_sub(name.len() + 3);
            left = rest.unwrap_or(0);
            rest.is_some()
        })
    }

    /// The fixed address, if one is set; an empty string is none.
    pub fn fixed_address(&self) -> Option<&str> {
        self.address
            .as_deref()
            .filter(|address| !address.is_empty())
    }

    /// The address for nodes and pods of the tenant, if one is set; an empty string is
    /// none.
    pub fn announced_address(&self) -> Option<IpAddr> {
        self.advertise_address.as_deref()?.parse().ok()
    }
}

fn ranges<'a>(list: &'a [String], single: &'a str) -> Vec<&'a str> {
    if list.is_empty() {
        [single].into_iter().filter(|one| !one.is_empty()).collect()
    } else {
        list.iter().map(String::as_str).collect()
    }
}
