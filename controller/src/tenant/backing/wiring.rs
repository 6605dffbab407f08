//! How the API server of a tenant reaches its data: flags, files and, where the database
//! does not speak etcd's protocol, kine beside it (features 2.8). Nothing else in a pod
//! asks for the driver.

use apiservice::names::{self, container, key};
use k8s_openapi::api::apps::v1::Deployment;

use crate::tenant::backing::backed::Backing;
use crate::tenant::backing::beside::{self, Beside};
use crate::tenant::backing::wired::Wiring;
use crate::tenant::backing::{kine, relay};
use crate::tenant::workload::arguments;
use crate::tenant::workload::files;
use crate::tenant::workload::files::PKI;
use crate::tenant::world::World;

/// What a tenant needs for the database that it has.
pub fn of(world: &World, place: &Backing) -> Wiring {
    let mut all = match place.driver.is_through_kine() {
        true => kine::wiring(world, place),
        false => etcd(world, place),
    };
    let mut overrides = Vec::new();
    let mut touches_etcd = !place.driver.is_through_kine();
    for (place, beside) in places(place) {
        let wiring = match place.driver.is_through_kine() {
            true => kine::wiring(world, place),
            false => relay::wiring(world, place, beside),
        };
        touches_etcd |= !place.driver.is_through_kine();
        all.volumes.extend(wiring.volumes);
        all.sidecars.extend(wiring.sidecars);
        let resources = beside.resources.iter();
        // Without TLS, whatever the main place has: kube-apiserver's client leaves its
        // certificate away for what begins with http, and for nothing else.
        overrides.extend(resources.map(|it| format!("{it}#http://{}", beside.address())));
    }
    if !overrides.is_empty() {
        all.flags
            .push(("etcd-servers-overrides", overrides.join(",")));
    }
    if touches_etcd {
        // Compaction touches all tenants' keys and is not a tenant's right (rule 21).
        all.flags.push(("etcd-compaction-interval", "0".to_owned()));
    }
    all
}

/// The places beside the main one.
fn places(place: &Backing) -> impl Iterator<Item = (&Backing, &Beside)> {
    let all = place.overrides.iter();
    all.filter_map(|place| Some((place, place.beside.as_ref()?)))
}

/// Annotations of the pods, which are rolled when what a place beside the main one needs is
/// another. A relay reads certificates by itself.
pub fn annotations(place: &Backing) -> Vec<(String, String)> {
    let of = |(place, beside): (&Backing, &Beside)| {
        let config = place.config_checksum.clone();
        let certificate = place.certificate_checksum.clone();
        let certificate = certificate.filter(|_| place.driver.is_through_kine());
        [
            (beside.named(names::ANNOTATION_STORAGE_CONFIG), config),
            (
                beside.named(names::ANNOTATION_STORAGE_CERTIFICATE),
                certificate,
            ),
        ]
    };
    let all = places(place).flat_map(of);
    all.filter_map(|(name, checksum)| Some((name, checksum?)))
        .collect()
}

/// Annotations of the Deployment: with which settings of the places beside the main one its
/// pods run.
pub fn settings(place: &Backing) -> Vec<(String, String)> {
    let of = |(place, beside): (&Backing, &Beside)| {
        let name = beside::settings_annotation(Some(beside));
        Some((name, place.settings.clone()?))
    };
    places(place).filter_map(of).collect()
}

/// The `host:port`s that the pods of a Deployment are given for a place beside the main one.
pub fn endpoints_beside(live: &Deployment, beside: &Beside) -> Option<Vec<String>> {
    let pod = live.spec.as_ref()?.template.spec.as_ref()?;
    let named = |name: &str| {
        let name = beside.named(name);
        let mut sidecars = pod.init_containers.iter().flatten();
        sidecars.find(|it| it.name == name)
    };
    match named(container::KINE) {
        Some(kine) => kine::endpoints_of(kine),
        None => relay::endpoints(named(container::RELAY)?),
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
