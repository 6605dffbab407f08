//! How the API server of a tenant reaches its data: flags, files and, where the database
//! does not speak etcd's protocol, kine beside it (features 2.8). Nothing else in a pod
//! asks for the driver.

use apiservice::names::{self, key};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount, VolumeProjection};

use crate::tenant::backing::backed::Backing;
use crate::tenant::backing::kine;
use crate::tenant::workload::arguments::{self, Flags};
use crate::tenant::workload::files;
use crate::tenant::workload::files::PKI;
use crate::tenant::world::World;

/// What comes into the pods for the database.
#[derive(Debug, Default)]
pub struct Wiring {
    /// Of the API server.
    pub flags: Flags,
    /// Files in the API server's volume of certificates and keys.
    pub pki: Vec<VolumeProjection>,
    /// Further volumes of the pod.
    pub volumes: Vec<Volume>,
    /// Further mounts of the API server.
    pub mounts: Vec<VolumeMount>,
    /// What runs beside it: an init container that goes on.
    pub sidecar: Option<Container>,
}

/// What a tenant needs for the database that it has.
pub fn of(world: &World, place: &Backing) -> Wiring {
    match place.driver.is_through_kine() {
        true => kine::wiring(world, place),
        false => etcd(world, place),
    }
}

/// The `host:port`s that the pods of a Deployment are given.
pub fn endpoints(live: &Deployment) -> Option<Vec<String>> {
    let servers = arguments::api_server_argument(live, "etcd-servers")?;
    if servers == kine::SERVER {
        return kine::endpoints(live);
    }
    let servers = servers.split(',');
    Some(
        servers
            .map(|at| at.strip_prefix("https://").unwrap_or(at).to_owned())
            .collect(),
    )
}

fn etcd(world: &World, place: &Backing) -> Wiring {
    let servers: Vec<String> = place
        .endpoints
        .iter()
        .map(|at| format!("https://{at}"))
        .collect();
    let pki = |file: &str| format!("{PKI}/{file}");
    Wiring {
        flags: vec![
            ("etcd-cafile", pki("etcd/ca.crt")),
            ("etcd-certfile", pki("etcd/server.crt")),
            // Compaction touches all tenants' keys and is not a tenant's right (rule 21).
            ("etcd-compaction-interval", "0".to_owned()),
            ("etcd-keyfile", pki("etcd/server.key")),
            ("etcd-prefix", place.prefix.clone()),
            ("etcd-servers", servers.join(",")),
        ],
        pki: vec![files::secret(
            &names::datastore_certificate(world.name()),
            &[
                (key::CA_CRT, Some("etcd/ca.crt")),
                (key::DATASTORE_CRT, Some("etcd/server.crt")),
                (key::DATASTORE_KEY, Some("etcd/server.key")),
            ],
        )],
        ..Wiring::default()
    }
}

/// A mount of a volume.
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

#[cfg(test)]
mod tests {
    use apiservice::v1alpha1::Driver;

    use super::*;
    use crate::tenant::testing::Lab;

    /// Whatever the driver, the API server is given no flag that a user could set as well.
    #[test]
    fn flags_of_the_database_are_managed_ones() {
        let lab = Lab::ready();
        let managed =
            apiservice::v1alpha1::managed_flags(apiservice::v1alpha1::Component::ApiServer);
        for driver in [
            Driver::Etcd,
            Driver::PostgreSQL,
            Driver::MySQL,
            Driver::NATS,
        ] {
            let place = Backing {
                driver,
                ..Backing::default()
            };
            for (name, _) in of(&lab.world, &place).flags {
                assert!(managed.contains(&name), "{driver:?}: {name}");
            }
        }
    }
}
