//! How a control plane is reached.

use crate::v1alpha1::{ByName, IngressController, ServiceType, TenantControlPlaneSpec};

/// The node ports of a cluster that was given no others.
const USUAL_NODE_PORTS: std::ops::RangeInclusive<i32> = 30000..=32767;

/// A Service that does not do all that is asked of it.
pub(super) fn service(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
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
}

/// What a proxy that routes by name needs beside what was said.
pub(super) fn by_name(spec: &TenantControlPlaneSpec, warnings: &mut Vec<String>) {
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
