//! The tunnel to nodes that the API server cannot reach, as far as it is outside of the
//! tenant: a server beside each API server, to which agents on the nodes connect.
//!
//! The API server hands the server its connections to nodes, pods and Services over a
//! socket in the pod. Agents come through the tenant's Service and prove themselves with
//! tokens of their ServiceAccount, which the server lets its API server review. How many
//! servers there are, agents read from the servers' Leases in the tenant: a number in a
//! flag would be wrong during each roll, and would roll the pods to scale them.

use std::collections::BTreeMap;

use apiservice::names::{self, component, container, key, volume};
use apiservice::v1alpha1::{Konnectivity, KonnectivityServer};
use apiservice::version::{Minor, fitting};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe,
    ResourceRequirements, SecretVolumeSource, SleepAction, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::cluster::kinds::ObjectKind;
use crate::tenant::objects;
use crate::tenant::plan::{ObjectKey, Plan, Step};
use crate::tenant::workload::arguments::{self, Flags};
use crate::tenant::workload::containers;
use crate::tenant::workload::files::{PKI, READABLE};
use crate::tenant::world::World;

/// Where its kubeconfig is mounted.
const CONFIG: &str = "/etc/kubernetes/konnectivity";
/// Where the API server finds what sends its connections into the tunnel.
const SELECTOR: &str = "/etc/kubernetes/konnectivity/configurations";
/// Where the socket is, which both mount.
const SOCKET: &str = "/run/konnectivity";
/// Metrics, on the loopback interface.
const ADMIN_PORT: i32 = 8133;
/// Health, and metrics once more.
const HEALTH_PORT: i32 = 8134;
/// For how long a server goes on after its pod has been told to end, in seconds. Its API
/// server takes requests for three more.
const LINGERS: i64 = 5;

/// The release that fits a minor version of Kubernetes, the newest first; versions
/// before the last get that. The project recommends the release of the same minor version
/// (README, "Versioning and releases"), but does not make one for each in time, so that
/// none is derived from a number: v0.36.0, v0.34.0 and v0.33.0 are tags that
/// proxy.golang.org has, and images v0.35.0 to v0.33.0 of registry.k8s.io are what others
/// run. Leases of servers are in all of them.
const VERSIONS: [(Minor, &str); 4] = [
    (Minor(1, 36), "v0.36.0"),
    (Minor(1, 35), "v0.35.0"),
    (Minor(1, 34), "v0.34.0"),
    (Minor(1, 33), "v0.33.0"),
];

/// `repository:tag` of the image of one end. `given` and `version` are from the spec,
/// `usual` is what the schema fills in, so that a tenant that names it has no wish.
pub fn image(
    given: &str,
    usual: &str,
    version: Option<&str>,
    kubernetes: &str,
    registry: &str,
) -> String {
    let repository = match given.strip_prefix("registry.k8s.io/") {
        Some(path) if given == usual => format!("{registry}/{path}"),
        _ => given.to_owned(),
    };
    let name = repository.rsplit('/').next().unwrap_or_default();
    match version {
        None if name.contains([':', '@']) => repository,
        version => {
            let version = version.unwrap_or_else(|| fitting(&VERSIONS, kubernetes));
            format!("{repository}:{version}")
        }
    }
}

/// Keeps what sends the API server's connections into the tunnel, and removes what the
/// tunnel consisted of once no pod has it any more.
pub fn plan(world: &World, plan: &mut Plan) {
    if world.tenant.spec.konnectivity().is_none() {
        return remove(world, plan);
    }
    let name = names::konnectivity_egress_selector_configuration(world.name());
    let data = BTreeMap::from([(key::EGRESS_SELECTOR.to_owned(), selector())]);
    objects::keep_config_map(world, plan, &name, component::EGRESS_SELECTOR, data);
}

/// JSON is YAML as well.
fn selector() -> String {
    let tunnel = json!({
        "proxyProtocol": "GRPC",
        "transport": {"uds": {"udsName": socket()}},
    });
    let config = json!({
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": tunnel}],
    });
    format!("{config:#}\n")
}

fn socket() -> String {
    format!("{SOCKET}/konnectivity-server.socket")
}

/// The objects that a tenant has for its tunnel alone.
pub fn objects_of(tenant: &str) -> [(ObjectKind, String); 3] {
    [
        (
            ObjectKind::ConfigMap,
            names::konnectivity_egress_selector_configuration(tenant),
        ),
        (ObjectKind::Secret, names::konnectivity_certificate(tenant)),
        (ObjectKind::Secret, names::konnectivity_kubeconfig(tenant)),
    ]
}

fn remove(world: &World, plan: &mut Plan) {
    // A pod of before that starts anew needs them.
    if is_mounted(world) {
        return;
    }
    for (kind, name) in objects_of(world.name()) {
        let meta = world.owned.meta(kind, &name);
        let Some(meta) = meta.filter(|meta| world.ours(meta)) else {
            continue;
        };
        let paused = kind == ObjectKind::Secret && objects::is_paused(meta);
        let Some(uid) = meta.uid.clone().filter(|_| !paused) else {
            continue;
        };
        let key = ObjectKey {
            kind,
            namespace: world.namespace().to_owned(),
            name,
        };
        plan.push(Step::Delete { key, uid });
    }
}

/// Whether there may be pods with a server.
fn is_mounted(world: &World) -> bool {
    let Some(live) = world.deployment().filter(|live| world.ours(&live.metadata)) else {
        return false;
    };
    let template = live.spec.as_ref().and_then(|it| it.template.spec.as_ref());
    let wanted = template.is_some_and(|pod| {
        let mut containers = pod.containers.iter();
        containers.any(|it| it.name == container::KONNECTIVITY)
    });
    let status = live.status.clone().unwrap_or_default();
    let observed = status.observed_generation >= live.metadata.generation;
    wanted || !observed || status.replicas.unwrap_or(0) != status.updated_replicas.unwrap_or(0)
}

/// The server's container.
pub fn container(world: &World, tunnel: &Konnectivity) -> Container {
    let server = &tunnel.server;
    let port = |name: &str, port: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: container::KONNECTIVITY.to_owned(),
        image: Some(image(
            &server.image,
            &KonnectivityServer::default().image,
            server.version.as_deref(),
            &world.tenant.spec.kubernetes.version,
            containers::registry(world),
        )),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/proxy-server".to_owned()]),
        args: Some(arguments(server)),
        env: Some(vec![EnvVar {
            name: "POD_NAME".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.name".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        }]),
        ports: Some(vec![
            port("agentport", server.port),
            port("healthport", HEALTH_PORT),
        ]),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: LINGERS }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        liveness_probe: Some(probe(10, 15, 8)),
        readiness_probe: Some(probe(1, 2, 3)),
        resources: Some(resources(server)),
        security_context: Some(
            server
                .security_context
                .clone()
                .unwrap_or_else(|| containers::container_security(&[])),
        ),
        volume_mounts: Some(vec![
            mount(volume::KONNECTIVITY_KUBECONFIG, CONFIG, true),
            mount(volume::KONNECTIVITY_CERTIFICATE, PKI, true),
            mount(volume::KONNECTIVITY_SOCKET, SOCKET, false),
        ]),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn arguments(server: &KonnectivityServer) -> Vec<String> {
    let (managed, defaults) = layers(server.port);
    arguments::layers(managed, defaults, &server.extra_args)
}

fn layers(port: i32) -> (Flags, Flags) {
    let managed = vec![
        ("admin-port", ADMIN_PORT.to_string()),
        ("agent-namespace", "kube-system".to_owned()),
        ("agent-port", port.to_string()),
        (
            "agent-service-account",
            names::KONNECTIVITY_AGENT.to_owned(),
        ),
        (
            "authentication-audience",
            names::KONNECTIVITY_SERVER.to_owned(),
        ),
        // Agents come to the same host and port range as other clients, trust the same
        // authority, and both processes are in one pod: a certificate of its own would
        // have the same names and be no better kept.
        ("cluster-cert", format!("{PKI}/{}", key::API_SERVER_CRT)),
        ("cluster-key", format!("{PKI}/{}", key::API_SERVER_KEY)),
        ("enable-lease-controller", "true".to_owned()),
        ("health-port", HEALTH_PORT.to_string()),
        (
            "kubeconfig",
            format!("{CONFIG}/{}", key::KONNECTIVITY_SERVER_CONF),
        ),
        ("lease-namespace", "kube-system".to_owned()),
        ("mode", "grpc".to_owned()),
        // One Lease for each pod, also if the container is started again.
        ("server-id", "$(POD_NAME)".to_owned()),
        ("server-port", "0".to_owned()),
        ("uds-name", socket()),
    ];
    let defaults = vec![
        // Each agent that comes is asked about, and whoever else comes there too: with
        // client-go's five a second one stranger would keep all agents out.
        ("kubeconfig-burst", "400".to_owned()),
        ("kubeconfig-qps", "200".to_owned()),
        // An agent whose node is gone is not asked for an hour, which is its own default.
        ("keepalive-time", "20s".to_owned()),
        // Kubelets through the agent on their node, if it has one.
        ("proxy-strategies", "destHost,default".to_owned()),
        ("v", "2".to_owned()),
    ];
    (managed, defaults)
}

/// Whether the process listens. Not whether agents are connected: they come through the
/// Service, which does not lead to a pod before it is ready.
fn probe(period: i32, timeout: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz".to_owned()),
            port: IntOrString::Int(HEALTH_PORT),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(failures),
        success_threshold: Some(1),
        ..Probe::default()
    }
}

fn resources(server: &KonnectivityServer) -> ResourceRequirements {
    let given = server.resources.clone();
    let given = given.filter(|given| *given != ResourceRequirements::default());
    given.unwrap_or_else(|| ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_owned(), Quantity("10m".to_owned())),
            ("memory".to_owned(), Quantity("30Mi".to_owned())),
        ])),
        ..ResourceRequirements::default()
    })
}

/// What the API server mounts of the tunnel.
pub fn mounts_of_api_server() -> [VolumeMount; 2] {
    [
        mount(volume::EGRESS_SELECTOR, SELECTOR, true),
        mount(volume::KONNECTIVITY_SOCKET, SOCKET, false),
    ]
}

/// The file that sends the API server's connections into the tunnel.
pub fn selector_file() -> String {
    format!("{SELECTOR}/{}", key::EGRESS_SELECTOR)
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// The volumes of the tunnel.
pub fn volumes(world: &World) -> [Volume; 4] {
    let name = world.name();
    let item = |key: &str| KeyToPath {
        key: key.to_owned(),
        path: key.to_owned(),
        mode: None,
    };
    let secret = |secret_name: String, keys: &[&str]| SecretVolumeSource {
        secret_name: Some(secret_name),
        default_mode: Some(READABLE),
        items: Some(keys.iter().map(|key| item(key)).collect()),
        ..SecretVolumeSource::default()
    };
    [
        Volume {
            name: volume::KONNECTIVITY_SOCKET.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity("1Mi".to_owned())),
            }),
            ..Volume::default()
        },
        Volume {
            name: volume::EGRESS_SELECTOR.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: names::konnectivity_egress_selector_configuration(name),
                default_mode: Some(READABLE),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: volume::KONNECTIVITY_KUBECONFIG.to_owned(),
            secret: Some(secret(
                names::konnectivity_kubeconfig(name),
                &[key::KONNECTIVITY_SERVER_CONF],
            )),
            ..Volume::default()
        },
        Volume {
            name: volume::KONNECTIVITY_CERTIFICATE.to_owned(),
            secret: Some(secret(
                names::api_server(name),
                &[key::API_SERVER_CRT, key::API_SERVER_KEY],
            )),
            ..Volume::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use apiservice::v1alpha1::KONNECTIVITY_SERVER_FLAGS;

    use super::*;

    /// What the API warns of at the write is what is left out here.
    #[test]
    fn the_managed_flags_are_the_published_ones() {
        let (managed, _) = layers(8132);
        let names: Vec<&str> = managed.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, KONNECTIVITY_SERVER_FLAGS);
    }

    #[test]
    fn images_of_both_ends() {
        let usual = "registry.k8s.io/kas-network-proxy/proxy-server";
        let of = |given: &str, version: Option<&str>, kubernetes: &str| {
            image(given, usual, version, kubernetes, "mirror.example.com/k8s")
        };
        let table = [
            (
                usual,
                None,
                "v1.36.3",
                "mirror.example.com/k8s/kas-network-proxy/proxy-server:v0.36.0",
            ),
            (
                usual,
                Some("v0.34.0"),
                "v1.36.3",
                "mirror.example.com/k8s/kas-network-proxy/proxy-server:v0.34.0",
            ),
            (
                usual,
                None,
                "1.29.0",
                "mirror.example.com/k8s/kas-network-proxy/proxy-server:v0.33.0",
            ),
            // One that is newer than this Steward.
            (
                "own.example.com:5000/proxy",
                None,
                "v1.40.1",
                "own.example.com:5000/proxy:v0.36.0",
            ),
            (
                "own.example.com:5000/proxy:mine",
                None,
                "v1.36.3",
                "own.example.com:5000/proxy:mine",
            ),
        ];
        for (given, version, kubernetes, wanted) in table {
            assert_eq!(of(given, version, kubernetes), wanted);
        }
        assert!(VERSIONS.is_sorted_by(|one, other| one.0 > other.0));
    }
}
