//! The way to the etcd of an override: a relay beside the API server, which is this very
//! program (`controller/src/relay.rs`).
//!
//! kube-apiserver has one client certificate and one authority for all of its databases. The
//! relay has those of this place, and lends them to whoever connects at the pod's own loopback:
//! those are the pod's containers, whose tenant's data it is.

use apiservice::names::{container, key, volume};
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::tenant::backing::backed::Backing;
use crate::tenant::backing::beside::{self, Beside};
use crate::tenant::backing::wired::{Wiring, mount};
use crate::tenant::workload::containers;
use crate::tenant::workload::files;
use crate::tenant::world::World;

/// Where authority, certificate and key are.
const CERTIFICATES: &str = "/certs";
/// The argument with the endpoints.
const ENDPOINTS: &str = "--endpoints=";

/// What comes into the pods.
pub fn wiring(world: &World, place: &Backing, of: &Beside) -> Wiring {
    let secret = beside::certificate_secret(world.name(), Some(of));
    let certificates = of.named(volume::RELAY_CERTIFICATES);
    Wiring {
        volumes: vec![files::from_secret(&certificates, secret)],
        sidecars: vec![Container {
            name: of.named(container::RELAY),
            image: world.settings.relay_image.clone(),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(vec!["/steward-controller".to_owned()]),
            args: Some(vec![
                "relay".to_owned(),
                format!("--listen={}", of.address()),
                format!("{ENDPOINTS}{}", place.endpoints.join(",")),
                format!("--ca={CERTIFICATES}/{}", key::CA_CRT),
                format!("--certificate={CERTIFICATES}/{}", key::DATASTORE_CRT),
                format!("--key={CERTIFICATES}/{}", key::DATASTORE_KEY),
            ]),
            resources: Some(resources()),
            security_context: Some(containers::container_security(&[])),
            volume_mounts: Some(vec![mount(&certificates, CERTIFICATES, true)]),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            // As kine's: it ends after the API server. It needs no probe: it ends by itself
            // where it cannot listen, and has nothing else that a restart would mend.
            restart_policy: Some("Always".to_owned()),
            ..Container::default()
        }],
        ..Wiring::default()
    }
}

/// It copies bytes.
fn resources() -> ResourceRequirements {
    let requests = [("cpu", "10m"), ("memory", "16Mi")];
    let requests = requests.map(|(name, value)| (name.to_owned(), Quantity(value.to_owned())));
    ResourceRequirements {
        requests: Some(requests.into()),
        ..ResourceRequirements::default()
    }
}

/// The `host:port`s that a relay is given.
pub fn endpoints(relay: &Container) -> Option<Vec<String>> {
    let mut arguments = relay.args.iter().flatten();
    let list = arguments.find_map(|it| it.strip_prefix(ENDPOINTS))?;
    Some(list.split(',').map(str::to_owned).collect())
}
