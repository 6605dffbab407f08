//! What `kubeadm join` reads in a cluster, and what lets a joining node in: the objects
//! that `kubeadm init` leaves behind, under its names. Their shapes follow its phases
//! upload-config and bootstrap-token of Kubernetes 1.36; what older versions lack does
//! not disturb them.

use apiservice::names;
use serde_json::{Value, json};

use crate::inside::objects::{SYSTEM, config_map, yaml};
use crate::inside::rbac::{
    cluster_role, cluster_role_binding, group, role, role_binding, rule, user,
};
use crate::inside::wanted::{Cluster, Kept, problem};
use crate::tenant::kubeadm;
use crate::tenant::world::InsideProblem;

/// Nodes that have a certificate.
const NODES: &str = "system:nodes";
/// Whoever comes with a token that is for joining.
const JOINING: &str = "system:bootstrappers:kubeadm:default-node-token";
/// As whom an API server asks a kubelet.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

const PUBLIC: &str = "kube-public";

/// All of it; what cannot be made is told.
pub fn objects(cluster: &Cluster, problems: &mut Vec<InsideProblem>) -> Vec<Kept> {
    let mut objects = vec![
        cluster_info(cluster),
        role(
            PUBLIC,
            "kubeadm:bootstrap-signer-clusterinfo",
            json!([named("cluster-info")]),
        ),
        role_binding(
            PUBLIC,
            "kubeadm:bootstrap-signer-clusterinfo",
            json!([user("system:anonymous")]),
        ),
        // Whether a token is signed for: anonymous is not a group of those who are known.
        role(
            PUBLIC,
            names::GROUP_JOIN_TOKENS,
            json!([named("cluster-info")]),
        ),
        role_binding(
            PUBLIC,
            names::GROUP_JOIN_TOKENS,
            json!([group(names::GROUP_JOIN_TOKENS)]),
        ),
        cluster_role_binding(
            "kubeadm:kubelet-bootstrap",
            "system:node-bootstrapper",
            json!([group(JOINING)]),
        ),
        cluster_role("kubeadm:get-nodes", json!([rule("", &["nodes"], &["get"])])),
        cluster_role_binding(
            "kubeadm:get-nodes",
            "kubeadm:get-nodes",
            json!([group(JOINING)]),
        ),
        cluster_role_binding(
            "kubeadm:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            json!([group(JOINING)]),
        ),
        cluster_role_binding(
            "kubeadm:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            json!([group(NODES)]),
        ),
        cluster_role_binding(
            "kubeadm:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            json!([user(KUBELET_CLIENT)]),
        ),
        // Secrets of one type cannot be told from others by RBAC.
        role(
            names::TOKEN_NAMESPACE,
            names::GROUP_JOIN_TOKENS,
            json!([rule("", &["secrets"], &["create", "delete", "get", "list"])]),
        ),
        role_binding(
            names::TOKEN_NAMESPACE,
            names::GROUP_JOIN_TOKENS,
            json!([group(names::GROUP_JOIN_TOKENS)]),
        ),
        document(
            SYSTEM,
            "kubeadm-config",
            "ClusterConfiguration",
            &kubeadm::configuration(&cluster.tenant, &cluster.version, &cluster.endpoint),
        ),
        role(
            SYSTEM,
            "kubeadm:nodes-kubeadm-config",
            json!([named("kubeadm-config")]),
        ),
        role_binding(
            SYSTEM,
            "kubeadm:nodes-kubeadm-config",
            json!([group(JOINING), group(NODES)]),
        ),
        role(
            SYSTEM,
            "kubeadm:kubelet-config",
            json!([named("kubelet-config")]),
        ),
        role_binding(
            SYSTEM,
            "kubeadm:kubelet-config",
            json!([group(NODES), group(JOINING)]),
        ),
    ];
    match kubelet(cluster) {
        Ok(config) => objects.push(document(SYSTEM, "kubelet-config", "kubelet", &config)),
        Err(why) => problems.push(problem(
            "spec.kubernetes.kubelet.configurationJSONPatches does not fit the kubelet's \
             configuration, and what was there before stays",
            &why,
        )),
    }
    objects.into_iter().map(Kept::whole).collect()
}

/// Where the cluster is and who signs for it, for whoever has a token. The tenant's
/// bootstrap signer adds a signature for each of them.
fn cluster_info(cluster: &Cluster) -> Value {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "",
            "cluster": {
                "certificate-authority-data": STANDARD.encode(&cluster.authority),
                "server": cluster.endpoint.url(),
            },
        }],
        "contexts": null,
        "current-context": "",
        "preferences": {},
        "users": null,
    });
    document(PUBLIC, "cluster-info", "kubeconfig", &kubeconfig)
}

/// The configuration of kubelets: kubeadm's defaults, what the spec says, and then its
/// patches.
pub fn kubelet(cluster: &Cluster) -> Result<Value, String> {
    let spec = &cluster.tenant.spec;
    let network = &spec.network_profile;
    let driver = spec.kubernetes.kubelet.cgroupfs;
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": driver.map_or("systemd", |driver| driver.as_str()),
        "clusterDNS": crate::tenant::network::dns::addresses(network),
        "clusterDomain": network.cluster_domain,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "rotateCertificates": true,
        "staticPodPath": "/etc/kubernetes/manifests",
    });
    if spec.kubernetes.kubelet.serving_certificates.is_some() {
        config["serverTLSBootstrap"] = json!(true);
    }
    let patches = &spec.kubernetes.kubelet.configuration_json_patches;
    if patches.len() > OPERATIONS {
        return Err(format!("it has more than {OPERATIONS} operations"));
    }
    for (number, patch) in patches.iter().enumerate() {
        let at = |why: String| format!("operation {number}: {why}");
        // Our own type and the crate's have the same shape on the wire.
        let operation = serde_json::to_value(patch).and_then(serde_json::from_value);
        let operation: json_patch::PatchOperation =
            operation.map_err(|error| at(error.to_string()))?;
        json_patch::patch(&mut config, &[operation]).map_err(|error| at(error.to_string()))?;
        // Before the next one copies it.
        bounded(&config).map_err(at)?;
    }
    Ok(config)
}

/// Operations that are carried out.
const OPERATIONS: usize = 100;
/// Bytes and levels of a kubelet's configuration. A real one has a few KiB and five.
const BYTES: usize = 64 * 1024;
const LEVELS: usize = 32;

fn bounded(config: &Value) -> Result<(), String> {
    fn is_deeper(value: &Value, levels: usize) -> bool {
        levels == 0
            || match value {
                Value::Array(list) => list.iter().any(|it| is_deeper(it, levels - 1)),
                Value::Object(map) => map.values().any(|it| is_deeper(it, levels - 1)),
                _ => false,
            }
    }
    if is_deeper(config, LEVELS) {
        return Err(format!(
            "the configuration is nested deeper than {LEVELS} levels"
        ));
    }
    match config.to_string().len() > BYTES {
        true => Err(format!("the configuration is larger than {BYTES} bytes")),
        false => Ok(()),
    }
}

fn named(config_map: &str) -> Value {
    let mut rule = rule("", &["configmaps"], &["get"]);
    rule["resourceNames"] = json!([config_map]);
    rule
}

/// A ConfigMap with one document.
fn document(namespace: &str, name: &str, key: &str, document: &Value) -> Value {
    config_map(namespace, name, json!({key: yaml(document)}))
}
