//! The Ingress that leads clients to a tenant by its name (features 2.10). TLS is passed
//! through: clients prove themselves with certificates to the API server and to nobody
//! before it.

use std::collections::BTreeMap;

use apiservice::names;
use apiservice::v1alpha1::{ByName, Ingress as Wanted, IngressController};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
};

use crate::cluster::routes::{
    BackendRef, IngressRouteTcp, IngressRouteTcpRoute, IngressRouteTcpSpec, IngressRouteTcpTls,
};
use crate::tenant::objects;
use crate::tenant::plan::Object;
use crate::tenant::world::World;

/// The name that Traefik's charts give the port for TLS.
const ENTRY_POINT: &str = "websecure";

/// What is asked of controllers, by their annotations. HAProxy's and NGINX's pass TLS
/// through if told so; of NGINX's the second is for releases that look into the connection.
fn pass_through(controller: Option<IngressController>) -> &'static [(&'static str, &'static str)] {
    match controller {
        Some(IngressController::Haproxy) => &[("haproxy.org/ssl-passthrough", "true")],
        Some(IngressController::Nginx) => &[
            ("nginx.ingress.kubernetes.io/ssl-passthrough", "true"),
            ("nginx.ingress.kubernetes.io/backend-protocol", "HTTPS"),
        ],
        _ => &[],
    }
}

/// The name of a rule of ours of an IngressRouteTCP.
pub fn host_of(rule: &str) -> Option<String> {
    let host = rule.strip_prefix("HostSNI(`")?.strip_suffix("`)")?;
    Some(host.to_owned())
}

/// The object that leads to the tenant; `None` without a usable name.
pub fn wanted(world: &World, ingress: &Wanted) -> Option<Object> {
    let targets = targets(world, ingress)?;
    Some(match ingress.controller_type {
        Some(IngressController::Traefik) => {
            Object::IngressRouteTcp(of_traefik(world, ingress, targets))
        }
        _ => Object::Ingress(plain(world, ingress, targets)),
    })
}

/// Names, and the port of the Service to which each leads.
fn targets(world: &World, ingress: &Wanted) -> Option<Vec<(String, i32)>> {
    let spec = &world.tenant.spec;
    let way = ByName::Ingress(ingress);
    let tunnel = spec.konnectivity();
    let tunnel = tunnel.and_then(|it| Some((way.tunnel_host()?, it.server.port)));
    let api = (way.host()?, spec.network_profile.port);
    Some(std::iter::once(api).chain(tunnel).collect())
}

fn plain(world: &World, ingress: &Wanted, targets: Vec<(String, i32)>) -> Ingress {
    let name = names::workload(world.name());
    let mut metadata = objects::meta(world, &name, names::component::INGRESS);
    objects::add_metadata(&mut metadata, ingress.additional_metadata.as_ref());
    let asked = pass_through(ingress.controller_type);
    if !asked.is_empty() {
        let annotations = metadata.annotations.get_or_insert_default();
        for (key, value) in asked {
            let given = annotations.entry((*key).to_owned());
            given.or_insert_with(|| (*value).to_owned());
        }
    }
    let hosts = targets.iter().map(|(host, _)| host.clone()).collect();
    let rule = |(host, port): (String, i32)| IngressRule {
        host: Some(host),
        http: Some(HTTPIngressRuleValue {
            paths: vec![HTTPIngressPath {
                path: Some("/".to_owned()),
                path_type: "Prefix".to_owned(),
                backend: IngressBackend {
                    service: Some(IngressServiceBackend {
                        name: name.clone(),
                        port: Some(ServiceBackendPort {
                            number: Some(port),
                            name: None,
                        }),
                    }),
                    resource: None,
                },
            }],
        }),
    };
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: ingress.ingress_class_name.clone(),
            tls: Some(vec![IngressTLS {
                hosts: Some(hosts),
                secret_name: None,
            }]),
            rules: Some(targets.into_iter().map(rule).collect()),
            default_backend: None,
        }),
        status: None,
    }
}

/// Traefik passes TLS through by a kind of its own. The names are the tenant's alone: ones
/// that every tenant has, such as `kubernetes`, would lead to any of them.
fn of_traefik(world: &World, ingress: &Wanted, targets: Vec<(String, i32)>) -> IngressRouteTcp {
    let name = names::workload(world.name());
    let mut metadata = objects::meta(world, &name, names::component::TRAEFIK_ROUTE);
    if let Some(class) = &ingress.ingress_class_name {
        metadata.annotations = Some(BTreeMap::from([(
            "kubernetes.io/ingress.class".to_owned(),
            class.clone(),
        )]));
    }
    objects::add_metadata(&mut metadata, ingress.additional_metadata.as_ref());
    let route = |(host, port): (String, i32)| IngressRouteTcpRoute {
        matches: format!("HostSNI(`{host}`)"),
        services: vec![BackendRef {
            name: name.clone(),
            port: Some(port),
        }],
    };
    IngressRouteTcp {
        metadata,
        spec: IngressRouteTcpSpec {
            entry_points: vec![ENTRY_POINT.to_owned()],
            routes: targets.into_iter().map(route).collect(),
            tls: IngressRouteTcpTls { passthrough: true },
        },
        status: None,
    }
}
