//! How a control plane is reached: Service, Ingress, Gateway.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AdditionalMetadata;
use crate::endpoint::{Endpoint, ends_in_number};
use crate::forms::{label_complaints, subdomain_complaints};

/// The Service in front of a control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["serviceType"]))]
pub struct Service {
    /// How the Service is published: ClusterIP, NodePort or LoadBalancer.
    pub service_type: ServiceType,
    /// Labels and annotations for the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_metadata: Option<AdditionalMetadata>,
    /// Ports beside those of the control plane.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub additional_ports: Vec<AdditionalPort>,
    /// Whether a LoadBalancer Service gets node ports. Only with serviceType
    /// LoadBalancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
}

/// How a Service is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Inside the management cluster.
    #[default]
    ClusterIP,
    /// On a port of every node.
    NodePort,
    /// Through a load balancer.
    LoadBalancer,
    /// A value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

impl ServiceType {
    /// As it stands in a Service.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::Unrecognized => "Unrecognized",
        }
    }
}

/// A port of the Service beside those of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "port", "targetPort"]))]
pub struct AdditionalPort {
    /// Name of the port.
    pub name: String,
    /// Protocol: TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Application protocol, as in a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// Port of the Service.
    pub port: i32,
    /// Port of the pods, by number or name.
    pub target_port: IntOrString,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// A value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

impl Protocol {
    /// As it stands in a Service.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Unrecognized => "UNRECOGNIZED",
        }
    }
}

/// An Ingress in front of the API server, with TLS passed through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// The IngressClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_class_name: Option<String>,
    /// Host name of the API server, which clients dial; may carry a port, which is 443
    /// otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Labels and annotations for the Ingress. They win over the annotations that come
    /// with controllerType.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_metadata: Option<AdditionalMetadata>,
    /// Which controller serves the class; decides how TLS is passed through: by
    /// annotations (haproxy, nginx), by an IngressRouteTCP instead of an Ingress (traefik),
    /// or by yours (generic, or left out).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_type: Option<IngressController>,
}

impl Ingress {
    /// The port of an Ingress controller where a host name names none.
    pub const PORT: i32 = 443;

    /// What clients dial; `None` without a usable host name.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let text = self.hostname.as_deref().filter(|text| !text.is_empty())?;
        let endpoint = match text.contains(':') {
            true => text.parse().ok(),
            false => Some(Endpoint::new(text, Self::PORT)),
        };
        endpoint.filter(|it| is_host(&it.host) && it.port > 0)
    }
}

/// An Ingress controller whose way of passing TLS through is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IngressController {
    /// HAProxy.
    Haproxy,
    /// NGINX.
    Nginx,
    /// Traefik.
    Traefik,
    /// Any other; annotations are the user's.
    Generic,
    /// A value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

/// A route of the Gateway API to the API server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// Host name of the API server, which clients dial.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[schemars(regex(
        pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    ))]
    pub hostname: Option<String>,
    /// The Gateways that carry the route. Port and section name are chosen by
    /// the controller: it attaches to the listeners kube-apiserver and, for konnectivity,
    /// konnectivity-server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub parent_refs: Vec<ParentReference>,
    /// Labels and annotations for the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_metadata: Option<AdditionalMetadata>,
}

impl Gateway {
    /// The listener of a Gateway that leads to API servers.
    pub const LISTENER: &str = "kube-apiserver";
    /// The listener of a Gateway that leads to the servers of tunnels.
    pub const TUNNEL_LISTENER: &str = "konnectivity-server";

    /// The name that clients dial; `None` without a usable one.
    pub fn host(&self) -> Option<&str> {
        let host = self.hostname.as_deref();
        host.filter(|host| is_host(host))
    }
}

/// Whether clients can dial it by DNS: objects may have been stored before names were held
/// to rules.
fn is_host(name: &str) -> bool {
    subdomain_complaints(name).is_empty()
        && name
            .split('.')
            .all(|label| label_complaints(label).is_empty())
        && !ends_in_number(name)
}

/// How a proxy of the management cluster leads clients to an API server by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ByName<'a> {
    /// Through an Ingress.
    Ingress(&'a Ingress),
    /// Through a route of the Gateway API.
    Gateway(&'a Gateway),
}

impl ByName<'_> {
    /// The name that clients dial; `None` without a usable one.
    pub fn host(&self) -> Option<String> {
        match self {
            ByName::Ingress(ingress) => Some(ingress.endpoint()?.host),
            ByName::Gateway(gateway) => gateway.host().map(str::to_owned),
        }
    }

    /// The name by which the tunnel's agents find its servers. A Gateway has a listener
    /// for them, so that the name may be the same; behind an Ingress it is what tells them
    /// from other clients.
    pub fn tunnel_host(&self) -> Option<String> {
        Some(self.any_tunnel_host()?).filter(|host| is_host(host))
    }

    /// The same, where it may be too long for a name.
    pub(super) fn any_tunnel_host(&self) -> Option<String> {
        let host = self.host()?;
        if host.contains(".k8s.") {
            return Some(host.replacen(".k8s.", ".konnectivity.", 1));
        }
        Some(match (self, host.split_once('.')) {
            (ByName::Gateway(_), _) => host,
            (ByName::Ingress(_), Some((first, rest))) => format!("{first}-konnectivity.{rest}"),
            (ByName::Ingress(_), None) => format!("{host}-konnectivity"),
        })
    }
}

/// A Gateway that a route is attached to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct ParentReference {
    /// API group of the parent.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the parent.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Namespace of the parent; without it, the namespace of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name of the parent.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Listener of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// Port of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

impl Default for ParentReference {
    fn default() -> Self {
        Self {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            namespace: None,
            name: String::new(),
            section_name: None,
            port: None,
        }
    }
}
