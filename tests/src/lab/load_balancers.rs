//! Addresses for Services of type LoadBalancer, as a cloud would give them.
//! kube-proxy answers on them, and the machine has a route to all of them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::agent::keep;
use super::cluster::Lab;
use super::error::{Doing, Error, Result};
use super::network::Addresses;

/// Gives addresses until the run ends.
pub(crate) async fn assign(lab: &Lab) {
    let services: kube::Api<Service> = kube::Api::all(lab.client());
    keep(services, "addresses", || pass(lab)).await;
}

async fn pass(lab: &Lab) -> Result<()> {
    let all: kube::Api<Service> = kube::Api::all(lab.client());
    let services = all
        .list(&Default::default())
        .await
        .doing(|| "list Services".into())?
        .items;
    for (namespace, name, wanted) in plan(&services, lab.addresses())? {
        let api: kube::Api<Service> = kube::Api::namespaced(lab.client(), &namespace);
        let ingress = match &wanted {
            Some(ip) => json!([{"ip": ip, "ipMode": "VIP"}]),
            None => json!(null),
        };
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        api.patch_status(&name, &PatchParams::default(), &patch)
            .await
            .doing(|| format!("give an address to {namespace}/{name}"))?;
        println!("{namespace}/{name}: {}", wanted.as_deref().unwrap_or("-"));
    }
    Ok(())
}

/// Which Services get which address, and which lose theirs.
fn plan(
    services: &[Service],
    addresses: Addresses,
) -> Result<Vec<(String, String, Option<String>)>> {
    let mut used: BTreeSet<String> = services
        .iter()
        .filter(|service| is_ours(service))
        .flat_map(ingress)
        .filter_map(|ingress| ingress.ip.clone())
        .collect();
    let mut changes = Vec::new();
    for service in services {
        let has = ingress(service).next().is_some();
        let change = match (is_ours(service), has) {
            (true, false) if service.metadata.deletion_timestamp.is_none() => {
                let asked = service
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.load_balancer_ip.clone())
                    .filter(|ip| !ip.is_empty());
                let free = (1..=254)
                    .map(|n| addresses.load_balancer(n).to_string())
                    .find(|ip| match &asked {
                        Some(asked) => asked == ip && !used.contains(ip),
                        None => !used.contains(ip),
                    });
                match (free, asked) {
                    (Some(ip), _) => {
                        used.insert(ip.clone());
                        Some(ip)
                    }
                    // As a cloud: the Service stays pending.
                    (None, Some(_)) => continue,
                    (None, None) => {
                        return Err(Error::Refused("no address is free".into()));
                    }
                }
            }
            (false, true) if !is_balanced(service) => None,
            _ => continue,
        };
        let namespace = service.namespace().unwrap_or_default();
        changes.push((namespace, service.name_any(), change));
    }
    Ok(changes)
}

fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

/// A Service with a class is somebody else's.
fn is_ours(service: &Service) -> bool {
    let class = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_class.as_ref());
    is_balanced(service) && class.is_none()
}

fn ingress(service: &Service) -> impl Iterator<Item = &LoadBalancerIngress> {
    service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref())
        .filter_map(|status| status.ingress.as_ref())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, kind: &str, asked: &str, ip: Option<&str>) -> Service {
        let ingress: Vec<_> = ip.map(|ip| json!({"ip": ip})).into_iter().collect();
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "a"},
            "spec": {"type": kind, "loadBalancerIP": asked},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    #[test]
    fn each_service_gets_an_address_of_its_own() {
        let services = [
            service("has", "LoadBalancer", "", Some("198.18.1.1")),
            service("asks", "LoadBalancer", "198.18.1.2", None),
            service("new", "LoadBalancer", "", None),
            service("greedy", "LoadBalancer", "198.18.1.1", None),
            service("plain", "ClusterIP", "", None),
            service("former", "ClusterIP", "", Some("198.18.1.9")),
        ];
        let plan = plan(&services, Addresses::of_slot(0)).unwrap();
        let plan: Vec<_> = plan
            .iter()
            .map(|(_, name, ip)| (name.as_str(), ip.as_deref()))
            .collect();
        assert_eq!(
            plan,
            [
                ("asks", Some("198.18.1.2")),
                ("new", Some("198.18.1.3")),
                ("former", None),
            ]
        );
    }
}
