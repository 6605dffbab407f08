//! The ConfigMap that says in kubeadm's words what this cluster is (features
//! 2.6), for tools that read it.

use apiservice::endpoint::Endpoint;
use apiservice::names;
use apiservice::v1alpha1::TenantControlPlane;
use serde_json::{Value, json};

use crate::tenant::backing::backed::Backing;
use crate::tenant::network::exposure::Exposure;
use crate::tenant::objects;
use crate::tenant::plan::Plan;
use crate::tenant::world::World;

const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";

/// Keeps the ConfigMap as soon as there is an address.
pub fn plan(world: &World, exposure: Option<&Exposure>, place: &Backing, plan: &mut Plan) {
    let Some(exposure) = exposure else { return };
    let name = names::kubeadm_config(world.name());
    let data = [
        (
            names::key::INIT_CONFIGURATION.to_owned(),
            init(exposure).to_string(),
        ),
        (
            names::key::CLUSTER_CONFIGURATION.to_owned(),
            cluster(world, exposure, place).to_string(),
        ),
    ];
    let component = names::component::KUBEADM_CONFIG;
    objects::keep_config_map(world, plan, &name, component, data.into());
}

fn init(exposure: &Exposure) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {
            "advertiseAddress": exposure.advertise.to_string(),
            "bindPort": exposure.local.port,
        },
    })
}

fn cluster(world: &World, exposure: &Exposure, place: &Backing) -> Value {
    let endpoints: Vec<String> = place
        .endpoints
        .iter()
        .map(|at| format!("https://{at}"))
        .collect();
    let version = &world.tenant.spec.kubernetes.version;
    let mut cluster = configuration(&world.tenant, version, &exposure.clients);
    let names = world.tenant.spec.network_profile.certificate_names();
    cluster["apiServer"] = json!({"certSANs": names.collect::<Vec<_>>()});
    cluster["etcd"] = json!({"external": {"endpoints": endpoints}});
    cluster
}

/// What this cluster is to those that join it.
pub fn configuration(tenant: &TenantControlPlane, version: &str, endpoint: &Endpoint) -> Value {
    let spec = &tenant.spec;
    json!({
        "apiVersion": API_VERSION,
        "kind": "ClusterConfiguration",
        "clusterName": tenant.metadata.name,
        "kubernetesVersion": version,
        "controlPlaneEndpoint": endpoint.to_string(),
        "networking": {
            "dnsDomain": spec.network_profile.cluster_domain,
            "podSubnet": spec.network_profile.pod_ranges().join(","),
            "serviceSubnet": spec.network_profile.service_ranges().join(","),
        },
    })
}
