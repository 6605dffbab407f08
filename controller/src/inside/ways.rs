//! The ways to a tenant's API.

use apiservice::endpoint::Endpoint;
use apiservice::names;
use apiservice::v1alpha1::TenantControlPlane;
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::tenant::objects::{is_asleep, is_paused};
use crate::tenant::world::{PathFact, ProbeFacts, ProbeFailureKind as Kind};

/// One way to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// `host:port`.
    pub address: String,
    /// The name that the tenant's certificate has, if it is not the host.
    pub host: Option<String>,
}

/// Where a tenant is published.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// As its status says it to everybody.
    pub endpoint: Option<Way>,
    /// Its Service inside the management cluster.
    pub service: Option<Way>,
}

impl Ways {
    /// As the caches have it.
    pub fn of(ctx: &Context, name: &NamespacedName, tenant: &TenantControlPlane) -> Self {
        let status = tenant.status.as_ref();
        let endpoint = status
            .and_then(|status| status.control_plane_endpoint.clone())
            .filter(|endpoint| !endpoint.is_empty());
        let service = NamespacedName::new(&name.namespace, names::workload(&name.name));
        let service = ctx.caches.services.get(&service);
        Ways {
            endpoint: endpoint.map(|address| Way {
                address,
                host: None,
            }),
            service: service.and_then(|service| through(&service, name)),
        }
    }

    /// The ways that led to the tenant last, whatever it said there.
    pub fn open(&self, probe: &ProbeFacts) -> Option<Way> {
        let leads = |fact: &Option<PathFact>| fact.as_ref().is_some_and(|it| !is_at_fault(it));
        let endpoint = self.endpoint.clone().filter(|_| leads(&probe.endpoint));
        endpoint.or_else(|| self.service.clone().filter(|_| leads(&probe.service)))
    }

    /// Past the Service, to pods that are not ready yet.
    pub fn to_pods(&self, pods: &[impl AsRef<Pod>]) -> Vec<Way> {
        let Some(service) = &self.service else {
            return Vec::new();
        };
        let Ok(Endpoint { port, .. }) = service.address.parse() else {
            return Vec::new();
        };
        let way = |pod: &Pod| {
            let ip = pod.status.as_ref()?.pod_ip.as_deref()?;
            Some(Way {
                address: Endpoint::new(ip, port).to_string(),
                host: service.host.clone(),
            })
        };
        pods.iter().filter_map(|pod| way(pod.as_ref())).collect()
    }
}

/// True if the way may be to blame for a failure, and not the tenant.
pub fn is_at_fault(fact: &PathFact) -> bool {
    let kind = fact.result.as_ref().err().map(|failure| failure.kind);
    matches!(
        kind,
        Some(Kind::Unresolvable | Kind::Refused | Kind::TimedOut | Kind::Silent | Kind::Untrusted)
    )
}

fn through(service: &Service, name: &NamespacedName) -> Option<Way> {
    let spec = service.spec.as_ref()?;
    let ip = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None")?;
    let ports = spec.ports.as_ref()?;
    let port = ports
        .iter()
        .find(|port| port.name.as_deref() == Some(names::PORT_API_SERVER))
        .or_else(|| ports.first())?;
    Some(Way {
        address: Endpoint::new(ip, port.port).to_string(),
        host: Some(names::service_host(&name.name, &name.namespace)),
    })
}

/// Nothing is written into a tenant that is paused, asleep or on its way out, or of whose
/// spec not all is held.
pub fn is_left_alone(tenant: &TenantControlPlane) -> bool {
    is_paused(&tenant.metadata)
        || tenant.spec.is_cut
        || is_asleep(tenant)
        || tenant.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::PodStatus;
    use std::sync::Arc;

    fn way(address: &str) -> Way {
        Way {
            address: address.to_owned(),
            host: None,
        }
    }

    fn fact(result: Result<(), Kind>) -> Option<PathFact> {
        Some(PathFact {
            started: Timestamp::UNIX_EPOCH,
            address: String::new(),
            result: result.map_err(|kind| crate::inside::connection::failure(kind, "")),
        })
    }

    #[test]
    fn a_way_is_open_if_the_tenant_itself_answered() {
        let ways = Ways {
            endpoint: Some(way("e:1")),
            service: Some(way("s:1")),
        };
        let open = |endpoint, service| {
            let probe = ProbeFacts {
                endpoint,
                service,
                ..ProbeFacts::default()
            };
            ways.open(&probe).map(|way| way.address)
        };
        assert_eq!(open(None, None), None, "nobody has looked");
        let refuses = || fact(Err(Kind::Forbidden));
        let cut = || fact(Err(Kind::TimedOut));
        assert_eq!(open(refuses(), None).unwrap(), "e:1");
        assert_eq!(open(fact(Ok(())), fact(Ok(()))).unwrap(), "e:1");
        assert_eq!(open(cut(), refuses()).unwrap(), "s:1");
        assert_eq!(open(cut(), cut()), None);
        // Somebody else answers there.
        assert_eq!(open(fact(Err(Kind::Untrusted)), None), None);
    }

    #[test]
    fn pods_are_asked_at_the_port_and_by_the_name_of_their_service() {
        let pod = |ip: Option<&str>| {
            let status = PodStatus {
                pod_ip: ip.map(str::to_owned),
                ..PodStatus::default()
            };
            Arc::new(Pod {
                status: Some(status),
                ..Pod::default()
            })
        };
        let pods = [pod(None), pod(Some("10.1.0.2")), pod(Some("fd00::2"))];
        let mut ways = Ways::default();
        assert_eq!(ways.to_pods(&pods), [], "no Service yet");
        ways.service = Some(Way {
            address: "10.0.0.1:6443".to_owned(),
            host: Some("a.b.svc".to_owned()),
        });
        let found = ways.to_pods(&pods);
        let places: Vec<&str> = found.iter().map(|way| way.address.as_str()).collect();
        assert_eq!(places, ["10.1.0.2:6443", "[fd00::2]:6443"]);
        assert!(
            found
                .iter()
                .all(|way| way.host.as_deref() == Some("a.b.svc"))
        );
    }
}
