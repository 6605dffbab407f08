//! Kinds of routes that a management cluster may have: of the Gateway API and of Traefik.
//! As far as we write and read them; k8s_openapi has none of them.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// Names of a kind as k8s_openapi has them, and its type.
macro_rules! kind {
    ($(#[$doc:meta])* $name:ident of $group:literal / $version:literal, $kind:literal, $plural:literal, $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(default)]
        pub struct $name {
            /// Name, labels, owner.
            pub metadata: ObjectMeta,
            /// What is wanted.
            pub spec: $spec,
            /// What became of it.
            pub status: Option<$status>,
        }

        impl k8s_openapi::Resource for $name {
            const API_VERSION: &'static str = concat!($group, "/", $version);
            const GROUP: &'static str = $group;
            const KIND: &'static str = $kind;
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = NamespaceResourceScope;
        }

        impl k8s_openapi::Metadata for $name {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let fields = 4 + usize::from(self.status.is_some());
                let mut object = serializer.serialize_struct($kind, fields)?;
                object.serialize_field("apiVersion", concat!($group, "/", $version))?;
                object.serialize_field("kind", $kind)?;
                object.serialize_field("metadata", &self.metadata)?;
                object.serialize_field("spec", &self.spec)?;
                if let Some(status) = &self.status {
                    object.serialize_field("status", status)?;
                }
                object.end()
            }
        }
    };
}

kind! {
    /// A route of TLS connections by the name that their client asks for.
    TlsRoute of "gateway.networking.k8s.io" / "v1", "TLSRoute", "tlsroutes",
    TlsRouteSpec, TlsRouteStatus
}

kind! {
    /// The same, as the Gateway API had it before version 1.5.
    TlsRouteV1Alpha2 of "gateway.networking.k8s.io" / "v1alpha2", "TLSRoute", "tlsroutes",
    TlsRouteSpec, TlsRouteStatus
}

kind! {
    /// A proxy with listeners. Read only: they are the administrator's.
    Gateway of "gateway.networking.k8s.io" / "v1", "Gateway", "gateways",
    GatewaySpec, GatewayStatus
}

kind! {
    /// A route of TCP connections by the name that their client asks for, of Traefik.
    IngressRouteTcp of "traefik.io" / "v1alpha1", "IngressRouteTCP", "ingressroutetcps",
    IngressRouteTcpSpec, IngressRouteTcpStatus
}

/// What a TLSRoute asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRouteSpec {
    /// Gateways, and the listener of each.
    pub parent_refs: Vec<RouteParent>,
    /// Names of the server.
    pub hostnames: Vec<String>,
    /// Where to.
    pub rules: Vec<TlsRouteRule>,
}

/// A listener of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParent {
    /// API group of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its namespace; without it, that of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Name of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Port of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// Where a TLSRoute leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRouteRule {
    /// Services.
    pub backend_refs: Vec<BackendRef>,
}

/// A port of a Service in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendRef {
    /// Name of the Service.
    pub name: String,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// What became of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRouteStatus {
    /// What the controller of each Gateway says.
    pub parents: Vec<RouteParentStatus>,
}

/// What the controller of a Gateway says about a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// The Gateway.
    pub parent_ref: RouteParent,
    /// Who speaks.
    pub controller_name: String,
    /// What it says.
    pub conditions: Vec<Condition>,
}

/// What a Gateway listens on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// Its listeners.
    pub listeners: Vec<Listener>,
}

/// A port of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: i32,
    /// Its protocol, such as TLS.
    pub protocol: String,
}

/// Whether a Gateway works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// What its controller says.
    pub conditions: Vec<Condition>,
}

/// What an IngressRouteTCP asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressRouteTcpSpec {
    /// Names of Traefik's ports.
    pub entry_points: Vec<String>,
    /// Routes by name.
    pub routes: Vec<IngressRouteTcpRoute>,
    /// How TLS is treated.
    pub tls: IngressRouteTcpTls,
}

/// One route of an IngressRouteTCP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressRouteTcpRoute {
    /// Which connections, such as ``HostSNI(`a.example.com`)``.
    #[serde(rename = "match")]
    pub matches: String,
    /// Where to.
    pub services: Vec<BackendRef>,
}

/// How an IngressRouteTCP treats TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressRouteTcpTls {
    /// It is left to the server behind it.
    pub passthrough: bool,
}

/// It has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IngressRouteTcpStatus {}

impl Gateway {
    /// A listener for TLS, by its name.
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        let mut all = self.spec.listeners.iter();
        all.find(|it| it.name == name && it.protocol == "TLS")
    }

    /// Its controller says that it takes connections.
    pub fn is_programmed(&self) -> bool {
        let status = self.status.as_ref();
        status
            .is_some_and(|status| apiservice::condition::is_true(&status.conditions, "Programmed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn routes_are_written_with_their_version_and_read_with_what_is_unknown() {
        let text = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute",
            "metadata": {"name": "a"},
            "spec": {
                "parentRefs": [{"name": "g", "sectionName": "s", "port": 1, "later": true}],
                "hostnames": ["a.b"],
                "rules": [{"name": "r", "backendRefs": [{"name": "a", "port": 6443, "weight": 1}]}],
            },
        });
        let route: TlsRoute = serde_json::from_value(text.clone()).unwrap();
        let mut wanted = text;
        wanted["spec"]["parentRefs"][0]
            .as_object_mut()
            .unwrap()
            .remove("later");
        let rule = &mut wanted["spec"]["rules"][0];
        rule.as_object_mut().unwrap().remove("name");
        rule["backendRefs"][0]
            .as_object_mut()
            .unwrap()
            .remove("weight");
        assert_eq!(serde_json::to_value(&route).unwrap(), wanted);
        let old: TlsRouteV1Alpha2 = serde_json::from_value(wanted).unwrap();
        let value = serde_json::to_value(&old).unwrap();
        assert_eq!(value["apiVersion"], "gateway.networking.k8s.io/v1alpha2");
        assert_eq!(
            <TlsRouteV1Alpha2 as kube::Resource>::url_path(&(), Some("n")),
            "/apis/gateway.networking.k8s.io/v1alpha2/namespaces/n/tlsroutes"
        );
    }

    #[test]
    fn a_listener_is_found_by_name_and_is_for_tls() {
        let gateway: Gateway = serde_json::from_value(json!({
            "metadata": {"name": "g"},
            "spec": {"listeners": [
                {"name": "a", "port": 443, "protocol": "HTTPS"},
                {"name": "b", "port": 6443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
            ]},
            "status": {"conditions": [{
                "type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap();
        assert_eq!(gateway.listener("a"), None);
        assert_eq!(gateway.listener("b").unwrap().port, 6443);
        assert!(gateway.is_programmed());
        assert!(!Gateway::default().is_programmed());
    }
}
