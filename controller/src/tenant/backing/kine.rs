//! kine: etcd's protocol over a SQL database or NATS, in a container beside the API server
//! (features 2.8). They speak over a socket in a volume of the pod.

use apiservice::names::{container, key, volume};
use apiservice::v1alpha1::Component;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, Probe,
    SecretKeySelector, Volume,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use storage::tenancy::Claim;

use crate::tenant::backing::backed::Backing;
use crate::tenant::backing::beside::{self, Beside};
use crate::tenant::backing::claim;
use crate::tenant::backing::drivers::{self, Credentials, Place};
use crate::tenant::backing::wired::{Wiring, mount};
use crate::tenant::workload::arguments::{self, Flags};
use crate::tenant::workload::containers;
use crate::tenant::workload::files;
use crate::tenant::world::World;

/// The API server's `--etcd-servers`.
pub const SERVER: &str = "unix:///uds/kine";
/// Where the socket is.
const SOCKET: &str = "/uds";
/// Where authority and client certificate of the database are.
const CERTIFICATES: &str = "/certs";
/// Where the file is with which it enters its database, if it needs one.
const CREDENTIALS: &str = "/credentials";
/// Metrics, and with them the sign that kine has its database. Not its own default,
/// 8080, which a container of the user may have.
const METRICS: i32 = 2381;
/// Connections to the database that one kine has at most: a database of the usual settings
/// has a hundred for all.
const CONNECTIONS: usize = 8;

/// What comes into the pods. Beside the main place, the API server is told where it is by
/// others.
pub fn wiring(world: &World, place: &Backing) -> Wiring {
    let beside = place.beside.as_ref();
    let sidecars = vec![sidecar(world, place)];
    if beside.is_some() {
        return Wiring {
            volumes: secrets(world, place),
            sidecars,
            ..Wiring::default()
        };
    }
    let socket = Volume {
        name: volume::KINE_SOCKET.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    let mut all = vec![socket];
    all.extend(secrets(world, place));
    Wiring {
        flags: vec![
            ("etcd-prefix", place.prefix.clone()),
            ("etcd-servers", SERVER.to_owned()),
        ],
        pki: Vec::new(),
        volumes: all,
        mounts: vec![mount(volume::KINE_SOCKET, SOCKET, false)],
        sidecars,
    }
}

/// The name of a container or a volume for a place.
fn named(place: &Backing, name: &str) -> String {
    let beside = place.beside.as_ref();
    beside.map_or_else(|| name.to_owned(), |beside| beside.named(name))
}

fn secrets(world: &World, place: &Backing) -> Vec<Volume> {
    let beside = place.beside.as_ref();
    let mut all = Vec::new();
    if place.files.authority {
        all.push(files::from_secret(
            &named(place, volume::KINE_CERTIFICATES),
            beside::certificate_secret(world.name(), beside),
        ));
    }
    if let Some(file) = credentials(place) {
        all.push(files::one_of_secret(
            &named(place, volume::KINE_CREDENTIALS),
            beside::config_secret(world.name(), beside),
            file.key,
        ));
    }
    all
}

/// The port for metrics.
fn metrics(place: &Backing) -> i32 {
    place.beside.as_ref().map_or(METRICS, Beside::metrics)
}

fn sidecar(world: &World, place: &Backing) -> Container {
    let mut mounts = Vec::new();
    if place.beside.is_none() {
        mounts.push(mount(volume::KINE_SOCKET, SOCKET, false));
    }
    if place.files.authority {
        let certificates = named(place, volume::KINE_CERTIFICATES);
        mounts.push(mount(&certificates, CERTIFICATES, true));
    }
    if credentials(place).is_some() {
        mounts.push(mount(
            &named(place, volume::KINE_CREDENTIALS),
            CREDENTIALS,
            true,
        ));
    }
    let arguments = arguments(world, place);
    let port = metrics(place);
    let listens = arguments.contains(&format!("--metrics-bind-address=:{port}"));
    Container {
        name: named(place, container::KINE),
        image: Some(world.settings.kine_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/bin/kine".to_owned()]),
        args: Some(arguments),
        env: Some(environment(world, place)),
        ports: listens.then(|| {
            vec![ContainerPort {
                name: Some("kine-metrics".to_owned()),
                container_port: port,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]
        }),
        liveness_probe: listens.then(|| liveness(port)),
        resources: Some(containers::resources(world, Component::Kine)),
        security_context: Some(containers::container_security(&[])),
        volume_mounts: Some(mounts),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        // A sidecar as Kubernetes has them: it ends after the API server, which needs it
        // to end in order. Beside it, it would be gone first, and every pod would take all
        // of its thirty seconds.
        restart_policy: Some("Always".to_owned()),
        ..Container::default()
    }
}

/// kine opens the port once it has its database. It waits five minutes for that, and so
/// does this probe.
fn liveness(port: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/metrics".to_owned()),
            port: IntOrString::Int(port),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(10),
        timeout_seconds: Some(15),
        failure_threshold: Some(30),
        success_threshold: Some(1),
        ..Probe::default()
    }
}

fn arguments(world: &World, place: &Backing) -> Vec<String> {
    let extra = world
        .tenant
        .spec
        .control_plane
        .deployment
        .extra_args
        .as_ref();
    let extra = extra.map_or(&[][..], |extra| extra.of(Component::Kine));
    let (managed, defaults) = layers(place);
    arguments::layers_of(Component::Kine, managed, defaults, extra)
}

fn layers(place: &Backing) -> (Flags, Flags) {
    let file = |name: &str| format!("{CERTIFICATES}/{name}");
    let metrics = ("metrics-bind-address", format!(":{}", metrics(place)));
    let (listen, fixed, free) = match &place.beside {
        None => (SERVER.to_owned(), None, Some(metrics)),
        // What the user says is said to all of them, and they are in one pod.
        Some(beside) => (format!("tcp://{}", beside.address()), Some(metrics), None),
    };
    let mut managed = vec![("listen-address", listen)];
    managed.extend(fixed);
    if place.files.authority {
        managed.push(("ca-file", file(key::CA_CRT)));
    }
    if place.files.client {
        managed.push(("cert-file", file(key::DATASTORE_CRT)));
        managed.push(("key-file", file(key::DATASTORE_KEY)));
    }
    let mut defaults = vec![
        ("datastore-max-idle-connections", "4".to_owned()),
        ("datastore-max-open-connections", CONNECTIONS.to_string()),
    ];
    defaults.extend(free);
    (managed, defaults)
}

/// The way to the database is in the environment and not an argument: arguments are
/// shown to whoever may list the processes of the node.
fn environment(world: &World, place: &Backing) -> Vec<EnvVar> {
    let from_secret = |key: &str| EnvVar {
        name: key.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: beside::config_secret(world.name(), place.beside.as_ref()),
                key: key.to_owned(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    vec![
        from_secret(key::DB_USER),
        from_secret(key::DB_PASSWORD),
        EnvVar {
            name: ENDPOINT.to_owned(),
            value: Some(endpoint(place, &claim_of(world, place))),
            ..EnvVar::default()
        },
    ]
}

/// What was claimed in a place.
fn claim_of(world: &World, place: &Backing) -> Claim {
    let uid = place.beside.as_ref().map(|it| it.claimant(world.uid()));
    let held = world.overrides.iter().find_map(|of| {
        let held = of.store.held.as_ref()?;
        (Some(&held.claim.uid) == uid.as_ref()).then(|| held.claim.clone())
    });
    match &place.beside {
        None => claim::claim(world),
        Some(beside) => {
            held.unwrap_or_else(|| claim::overriding(&world.tenant, beside, place.driver))
        }
    }
}

/// kine's own variable.
const ENDPOINT: &str = "KINE_ENDPOINT";
/// What the kubelet fills in.
const LOGIN: &str = "$(DB_USER):$(DB_PASSWORD)@";

/// Names of databases need no escaping: those that would are refused
/// (`storage::tenancy`).
fn endpoint(place: &Backing, claim: &Claim) -> String {
    let Some(kine) = &drivers::row(place.driver).kine else {
        return String::new();
    };
    (kine.endpoint)(&Place {
        endpoints: &place.endpoints,
        claim,
        schema: &place.schema,
        login: LOGIN,
        files: CREDENTIALS,
    })
}

/// The file with which it enters the tenant's database, if it needs one.
fn credentials(place: &Backing) -> Option<Credentials> {
    drivers::row(place.driver).kine.as_ref()?.credentials
}

/// The `host:port`s in the environment of a Deployment's kine.
pub fn endpoints(live: &Deployment) -> Option<Vec<String>> {
    let pod = live.spec.as_ref()?.template.spec.as_ref()?;
    let mut sidecars = pod.init_containers.iter().flatten();
    endpoints_of(sidecars.find(|it| it.name == container::KINE)?)
}

/// The `host:port`s in the environment of one kine.
pub fn endpoints_of(kine: &Container) -> Option<Vec<String>> {
    let mut variables = kine.env.iter().flatten();
    let variable = variables.find(|it| it.name == ENDPOINT)?;
    let value = variable.value.as_ref()?;
    let mut kines = drivers::ALL.iter().filter_map(|row| row.kine.as_ref());
    kines.find_map(|kine| (kine.endpoints)(value))
}

#[cfg(test)]
mod tests {
    use apiservice::v1alpha1::Driver;

    use super::*;
    use crate::tenant::backing::backed::Files;
    use crate::tenant::testing::{Lab, claim};

    fn place(driver: Driver) -> Backing {
        Backing {
            driver,
            endpoints: vec!["db-0.example:5432".into(), "[fd00::1]:5432".into()],
            schema: "tenants_a".into(),
            files: Files {
                authority: true,
                client: false,
            },
            ..Backing::default()
        }
    }

    #[test]
    fn where_kine_finds_its_database() {
        let of = |driver| endpoint(&place(driver), &claim());
        assert_eq!(
            of(Driver::PostgreSQL),
            "postgres://$(DB_USER):$(DB_PASSWORD)@/tenants_a?host=db-0.example,fd00::1\
             &port=5432,5432&target_session_attrs=read-write"
        );
        assert_eq!(
            of(Driver::MySQL),
            "mysql://$(DB_USER):$(DB_PASSWORD)@tcp(db-0.example:5432)/tenants_a"
        );
        assert_eq!(
            of(Driver::NATS),
            "nats://db-0.example:5432?bucket=tenants_a&noEmbed&replicas=1\
             &credsFile=/credentials/nats.creds,nats://[fd00::1]:5432"
        );
    }

    /// kine starts with the number of copies that its bucket has, and with no other.
    #[test]
    fn kine_asks_for_the_copies_that_there_are() {
        let mut lab = Lab::ready();
        let told = |lab: &Lab| {
            let kine = sidecar(&lab.world, &place(Driver::NATS));
            let mut variables = kine.env.into_iter().flatten();
            let endpoint = variables.find(|it| it.name == ENDPOINT).unwrap().value;
            let endpoint = endpoint.unwrap();
            let (_, after) = endpoint.split_once("&replicas=").unwrap();
            after.chars().next().unwrap()
        };
        assert_eq!(told(&lab), '1', "two endpoints, and no more is known");
        lab.world.store.held.as_mut().unwrap().claim.replicas = Some(3);
        assert_eq!(told(&lab), '3', "whatever the number of endpoints is");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for driver in [Driver::PostgreSQL, Driver::MySQL, Driver::NATS] {
            let lab = Lab::ready();
            let place = place(driver);
            let mut live = lab.world.deployment().unwrap().clone();
            let spec = live.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
            spec.init_containers = Some(vec![sidecar(&lab.world, &place)]);
            let read = endpoints(&live).unwrap();
            let count = if driver == Driver::MySQL { 1 } else { 2 };
            assert_eq!(read, place.endpoints[..count], "{driver:?}");
        }
    }

    /// What the API warns of at the write is what is left out here.
    #[test]
    fn the_managed_flags_are_the_published_ones_and_endpoint() {
        let mut whole = place(Driver::PostgreSQL);
        whole.files.client = true;
        let (managed, _) = layers(&whole);
        let mut names: Vec<&str> = managed.iter().map(|(name, _)| *name).collect();
        names.push("endpoint");
        names.sort_unstable();
        assert_eq!(names, apiservice::v1alpha1::managed_flags(Component::Kine));
    }

    #[test]
    fn a_user_can_change_defaults_and_not_where_the_data_is() {
        let mut lab = Lab::ready();
        let extra = &mut lab.spec().control_plane.deployment.extra_args;
        extra.get_or_insert_default().kine = [
            "--endpoint=sqlite://",
            "--metrics-bind-address=0",
            "--slow-sql-threshold=2s",
        ]
        .map(str::to_owned)
        .to_vec();
        let kine = sidecar(&lab.world, &place(Driver::PostgreSQL));
        assert_eq!(
            kine.args.unwrap(),
            [
                "--ca-file=/certs/ca.crt",
                "--datastore-max-idle-connections=4",
                "--datastore-max-open-connections=8",
                "--listen-address=unix:///uds/kine",
                "--metrics-bind-address=0",
                "--slow-sql-threshold=2s",
            ]
        );
        assert!(kine.liveness_probe.is_none(), "nothing listens for it");
    }
}
