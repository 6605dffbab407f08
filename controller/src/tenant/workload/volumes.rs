//! What the pods of a tenant mount: certificates, keys and kubeconfigs, each
//! container only what it uses (features 2.8).

use apiservice::names::{self, key, volume};
use apiservice::v1alpha1::Component;
use k8s_openapi::api::core::v1::{ProjectedVolumeSource, Volume, VolumeMount, VolumeProjection};

use crate::tenant::backing::wired::Wiring;
use crate::tenant::workload::files::{
    CONTROLLER_MANAGER_CONFIG, PKI, READABLE, SCHEDULER_CONFIG, from_secret, secret,
};
use crate::tenant::workload::konnectivity;
use crate::tenant::world::World;

/// The mounts of one container, the user's last.
pub fn mounts(world: &World, component: Component, wiring: &Wiring) -> Vec<VolumeMount> {
    let ours: &[(&str, &str)] = match component {
        Component::ApiServer => &[(volume::PKI, PKI)],
        Component::ControllerManager => &[
            (volume::SIGNING_PKI, PKI),
            (
                volume::CONTROLLER_MANAGER_KUBECONFIG,
                CONTROLLER_MANAGER_CONFIG,
            ),
        ],
        Component::Scheduler => &[(volume::SCHEDULER_KUBECONFIG, SCHEDULER_CONFIG)],
        Component::Kine => &[],
    };
    let more = world
        .tenant
        .spec
        .control_plane
        .deployment
        .additional_volume_mounts
        .as_ref();
    let more = more.map_or(&[][..], |more| match component {
        Component::ApiServer => &more.api_server,
        Component::ControllerManager => &more.controller_manager,
        Component::Scheduler => &more.scheduler,
        Component::Kine => &[],
    });
    let ours = ours.iter().map(|(name, path)| VolumeMount {
        name: (*name).to_owned(),
        mount_path: (*path).to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    let tunnel = world.tenant.spec.konnectivity();
    let tunnel = tunnel.filter(|_| component == Component::ApiServer);
    let tunnel = tunnel.map(|_| konnectivity::mounts_of_api_server());
    let of_database = wiring
        .mounts
        .iter()
        .filter(|_| component == Component::ApiServer);
    ours.chain(of_database.cloned())
        .chain(tunnel.into_iter().flatten())
        .chain(more.iter().cloned())
        .collect()
}

/// The API server gets no private key of an authority; the controller manager
/// gets the one with which it signs for nodes.
pub fn all(world: &World, wiring: &Wiring) -> Vec<Volume> {
    let name = world.name();
    let api_server = [
        secret(
            &names::api_server(name),
            &[(key::API_SERVER_CRT, None), (key::API_SERVER_KEY, None)],
        ),
        secret(&names::ca(name), &[(key::CA_CRT, None)]),
        secret(
            &names::client_ca(name),
            &[(key::CLIENT_CA_BUNDLE_CRT, Some("client-ca.crt"))],
        ),
        secret(
            &names::api_server_kubelet_client(name),
            &[
                (key::API_SERVER_KUBELET_CLIENT_CRT, None),
                (key::API_SERVER_KUBELET_CLIENT_KEY, None),
            ],
        ),
        secret(
            &names::front_proxy_ca(name),
            &[(key::FRONT_PROXY_CA_CRT, None)],
        ),
        secret(
            &names::front_proxy_client(name),
            &[
                (key::FRONT_PROXY_CLIENT_CRT, None),
                (key::FRONT_PROXY_CLIENT_KEY, None),
            ],
        ),
        secret(
            &names::service_account(name),
            &[(key::SA_PUB, None), (key::SA_KEY, None)],
        ),
    ];
    let controller_manager = [
        secret(
            &names::ca(name),
            &[(key::CA_CRT, None), (key::CA_KEY, None)],
        ),
        secret(
            &names::client_ca(name),
            &[(key::CLIENT_CA_BUNDLE_CRT, Some("client-ca.crt"))],
        ),
        secret(
            &names::front_proxy_ca(name),
            &[(key::FRONT_PROXY_CA_CRT, None)],
        ),
        secret(&names::service_account(name), &[(key::SA_KEY, None)]),
    ];
    let of_database = wiring.pki.iter().cloned();
    let mut all = vec![
        projected(
            volume::PKI,
            api_server.into_iter().chain(of_database).collect(),
        ),
        projected(volume::SIGNING_PKI, controller_manager.into()),
        from_secret(
            volume::CONTROLLER_MANAGER_KUBECONFIG,
            names::controller_manager_kubeconfig(name),
        ),
        from_secret(
            volume::SCHEDULER_KUBECONFIG,
            names::scheduler_kubeconfig(name),
        ),
    ];
    all.extend(wiring.volumes.iter().cloned());
    if world.tenant.spec.konnectivity().is_some() {
        all.extend(konnectivity::volumes(world));
    }
    all
}

fn projected(name: &str, sources: Vec<VolumeProjection>) -> Volume {
    Volume {
        name: name.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(READABLE),
            sources: Some(sources),
        }),
        ..Volume::default()
    }
}
