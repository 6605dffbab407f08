//! The tunnel from the API server to nodes that it cannot reach, as far as it is in the
//! tenant: the agents, and what the servers beside the API servers may do there.

use apiservice::endpoint::Endpoint;
use apiservice::names::{KONNECTIVITY_AGENT, KONNECTIVITY_SERVER};
use apiservice::v1alpha1::{Konnectivity, KonnectivityAgent, KonnectivityAgentMode, flag_name};
use serde_json::{Value, json};

use crate::inside::objects::{SYSTEM, metadata};
use crate::inside::rbac::{cluster_role_binding, role, role_binding, rule, service_account, user};
use crate::inside::wanted::{Cluster, Kept};
use crate::tenant::workload::konnectivity;

/// The Role of agents, beside that of the servers.
const AGENT_ROLE: &str = "system:konnectivity-agent";
/// Where an agent finds the token that it shows to servers.
const TOKENS: &str = "/var/run/secrets/tokens";
const TOKEN: &str = "konnectivity-agent-token";
/// How long a token is good for, in seconds; the kubelet renews it in time.
const TOKEN_SECONDS: u32 = 3600;
const HEALTH_PORT: u16 = 8134;
const ADMIN_PORT: u16 = 8133;
/// An unprivileged user.
const NOBODY: u32 = 65532;
/// Agents of a Deployment whose number nobody has named: one may be lost.
const REPLICAS: i32 = 2;

/// What there is of it, whether it is wanted or not.
pub fn objects(cluster: &Cluster) -> Vec<Kept> {
    let unwanted = Konnectivity::default();
    let tunnel = cluster.konnectivity().unwrap_or(&unwanted);
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(Some(SYSTEM), KONNECTIVITY_AGENT),
    });
    let leases = |verbs: &[&str]| json!([rule("coordination.k8s.io", &["leases"], verbs)]);
    let mut all = vec![
        Kept::whole(account),
        // To review the tokens of agents.
        Kept::whole(cluster_role_binding(
            KONNECTIVITY_SERVER,
            "system:auth-delegator",
            json!([user(KONNECTIVITY_SERVER)]),
        )),
        // Each server has a Lease, and agents count them.
        Kept::whole(role(
            SYSTEM,
            KONNECTIVITY_SERVER,
            leases(&["create", "delete", "get", "list", "update"]),
        )),
        Kept::whole(role_binding(
            SYSTEM,
            KONNECTIVITY_SERVER,
            json!([user(KONNECTIVITY_SERVER)]),
        )),
        Kept::whole(role(SYSTEM, AGENT_ROLE, leases(&["get", "list", "watch"]))),
        Kept::whole(role_binding(
            SYSTEM,
            AGENT_ROLE,
            json!([service_account(SYSTEM, KONNECTIVITY_AGENT)]),
        )),
    ];
    let (set, deployment) = (daemon_set(cluster, tunnel), deployment(cluster, tunnel));
    // The other one goes when this one is there.
    all.extend(match tunnel.agent.mode {
        KonnectivityAgentMode::Deployment => [deployment, Kept::whole(set).absent()],
        _ => [Kept::whole(set), deployment.absent()],
    });
    all
}

fn daemon_set(cluster: &Cluster, tunnel: &Konnectivity) -> Value {
    let mut set = workload("DaemonSet", cluster, tunnel);
    set["spec"]["template"]["spec"]["priorityClassName"] = json!("system-node-critical");
    // An agent that is told to end drains for as long as it may, half a minute.
    set["spec"]["updateStrategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}});
    set
}

fn deployment(cluster: &Cluster, tunnel: &Konnectivity) -> Kept {
    let mut deployment = workload("Deployment", cluster, tunnel);
    let spec = &mut deployment["spec"];
    spec["template"]["spec"]["priorityClassName"] = json!("system-cluster-critical");
    // Two that do not share a node if there is another.
    spec["template"]["spec"]["affinity"] = json!({"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "labelSelector": {"matchLabels": {"k8s-app": KONNECTIVITY_AGENT}},
                "topologyKey": "kubernetes.io/hostname",
            },
        }],
    }});
    spec["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}});
    match tunnel.agent.replicas {
        Some(replicas) => {
            spec["replicas"] = json!(replicas);
            Kept::whole(deployment)
        }
        None => {
            spec["replicas"] = json!(REPLICAS);
            Kept::at_first(deployment, "/spec/replicas")
        }
    }
}

/// What both kinds have in common. A field that somebody could take out of the spec is
/// always said, so that it is put back.
fn workload(kind: &str, cluster: &Cluster, tunnel: &Konnectivity) -> Value {
    let agent = &tunnel.agent;
    let labels = json!({"k8s-app": KONNECTIVITY_AGENT});
    let mut meta = metadata(Some(SYSTEM), KONNECTIVITY_AGENT);
    meta["labels"]["k8s-app"] = json!(KONNECTIVITY_AGENT);
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [container(cluster, tunnel)],
                    // Of the node: cluster DNS may be what is behind the tunnel.
                    "dnsPolicy": "Default",
                    "hostNetwork": agent.host_network,
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": NOBODY,
                        "runAsGroup": NOBODY,
                        "fsGroup": NOBODY,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "serviceAccountName": KONNECTIVITY_AGENT,
                    "tolerations": agent.tolerations,
                    "volumes": [{"name": TOKEN, "projected": {"sources": [
                        {"serviceAccountToken": {
                            "audience": KONNECTIVITY_SERVER,
                            "expirationSeconds": TOKEN_SECONDS,
                            "path": TOKEN,
                        }},
                    ]}}],
                },
            },
        },
    })
}

fn container(cluster: &Cluster, tunnel: &Konnectivity) -> Value {
    let api = &cluster.endpoint;
    // Without a tunnel it is only named, to be removed.
    let servers = cluster.agents.clone();
    let servers = servers.unwrap_or_else(|| Endpoint::new(&api.host, tunnel.server.port));
    let agent = &tunnel.agent;
    let probe = |path: &str| json!({"path": path, "port": HEALTH_PORT, "scheme": "HTTP"});
    // The API fills it in where it is left out, and leaves it there later.
    let on_host = |port: u16| if agent.host_network { port } else { 0 };
    let listens = |name: &str, port: u16| {
        json!({
            "name": name,
            "containerPort": port,
            "hostPort": on_host(port),
            "protocol": "TCP",
        })
    };
    json!({
        "name": KONNECTIVITY_AGENT,
        "image": konnectivity::image(
            &agent.image,
            &KonnectivityAgent::default().image,
            agent.version.as_deref(),
            &cluster.version,
            &cluster.registry,
        ),
        "imagePullPolicy": "IfNotPresent",
        "command": ["/proxy-agent"],
        "args": arguments(&servers, tunnel),
        "env": [
            {"name": "HOST_IP", "valueFrom": {"fieldRef": {
                "apiVersion": "v1", "fieldPath": "status.hostIP",
            }}},
            // Leases are read there too: whether Service addresses lead anywhere yet is
            // not the tunnel's concern.
            {"name": "KUBERNETES_SERVICE_HOST", "value": api.host},
            {"name": "KUBERNETES_SERVICE_PORT", "value": api.port.to_string()},
        ],
        "ports": [listens("healthport", HEALTH_PORT), listens("adminport", ADMIN_PORT)],
        "livenessProbe": {
            "httpGet": probe("/healthz"),
            "initialDelaySeconds": 15,
            "timeoutSeconds": 15,
            "periodSeconds": 10,
            "failureThreshold": 3,
        },
        // Whether it is connected to a server.
        "readinessProbe": {
            "httpGet": probe("/readyz"),
            "timeoutSeconds": 2,
            "periodSeconds": 2,
            "failureThreshold": 3,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "30Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{"name": TOKEN, "mountPath": TOKENS, "readOnly": true}],
    })
}

/// Ours, but for flags that the user sets, and then the user's.
fn arguments(servers: &Endpoint, tunnel: &Konnectivity) -> Vec<String> {
    let extra = &tunnel.agent.extra_args;
    let is_theirs = |name: &str| extra.iter().any(|it| flag_name(it) == name);
    let ours = [
        ("admin-server-port", ADMIN_PORT.to_string()),
        // For requests to the kubelet beside it.
        ("agent-identifiers", "host=$(HOST_IP)".to_owned()),
        (
            "ca-cert",
            "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt".to_owned(),
        ),
        ("count-server-leases", "true".to_owned()),
        ("health-server-port", HEALTH_PORT.to_string()),
        // Servers take no pings more often than each 30 s. Its own default is an hour,
        // for which it would take a lost server for one that it is connected to.
        ("keepalive-time", "35s".to_owned()),
        ("lease-namespace", SYSTEM.to_owned()),
        ("proxy-server-host", servers.host.clone()),
        ("proxy-server-port", servers.port.to_string()),
        ("service-account-token-path", format!("{TOKENS}/{TOKEN}")),
        ("sync-interval-cap", "5s".to_owned()),
        ("v", "2".to_owned()),
    ];
    let ours = ours.into_iter().filter(|(name, _)| !is_theirs(name));
    let ours = ours.map(|(name, value)| format!("--{name}={value}"));
    ours.chain(extra.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_of_an_agent_wins() {
        let mut tunnel = Konnectivity::default();
        tunnel.agent.extra_args = vec!["--v=4".to_owned(), "--sync_interval_cap=9s".to_owned()];
        let all = arguments(&Endpoint::new("h", 8132), &tunnel);
        let last = all[all.len() - 2..].to_vec();
        assert_eq!(last, tunnel.agent.extra_args);
        assert!(!all.contains(&"--v=2".to_owned()));
        assert!(!all.contains(&"--sync-interval-cap=5s".to_owned()));
    }
}
