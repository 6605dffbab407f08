//! The tenant's kube-proxy, as kubeadm installs it.

use apiservice::names;
use apiservice::version::KubernetesVersion;
use serde_json::{Value, json};

use crate::inside::objects::{SYSTEM, config_map, metadata, yaml};
use crate::inside::rbac::{cluster_role_binding, group, role, role_binding, rule, service_account};
use crate::inside::wanted::{Cluster, Kept, checksum};

const NAME: &str = "kube-proxy";

/// What there is of it, whether it is wanted or not.
pub fn objects(cluster: &Cluster) -> Vec<Kept> {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(Some(SYSTEM), NAME),
    });
    // For kubeadm, which looks at it while it joins a node.
    let mut look = rule("", &["configmaps"], &["get"]);
    look["resourceNames"] = json!([NAME]);
    vec![
        Kept::whole(account),
        Kept::whole(cluster_role_binding(
            "kubeadm:node-proxier",
            "system:node-proxier",
            json!([service_account(SYSTEM, NAME)]),
        )),
        Kept::whole(role(SYSTEM, NAME, json!([look]))),
        Kept::whole(role_binding(
            SYSTEM,
            NAME,
            json!([group("system:bootstrappers:kubeadm:default-node-token")]),
        )),
        Kept::until_edited(config(cluster), "/data/config.conf"),
        Kept::whole(daemon_set(cluster)),
    ]
}

fn image(cluster: &Cluster) -> String {
    let given = cluster.kube_proxy();
    let repository = given.and_then(|image| image.image_repository.as_deref());
    let repository = repository.unwrap_or(&cluster.registry);
    let tag = given.and_then(|image| image.image_tag.clone());
    let tag = tag.unwrap_or_else(|| {
        let version = &cluster.version;
        let parsed = version.parse::<KubernetesVersion>();
        parsed.map_or_else(|_| version.clone(), |version| version.tag())
    });
    format!("{repository}/kube-proxy:{tag}")
}

fn config(cluster: &Cluster) -> Value {
    let pods = cluster.tenant.spec.network_profile.pod_ranges();
    let services = cluster.tenant.spec.network_profile.service_ranges();
    let ipv6 = services.first().is_some_and(|range| range.contains(':'));
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": if ipv6 { "::" } else { "0.0.0.0" },
        "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
        "clusterCIDR": pods.join(","),
    });
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "default",
            "cluster": {
                "certificate-authority":
                    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
                "server": cluster.endpoint.url(),
            },
        }],
        "contexts": [{
            "name": "default",
            "context": {"cluster": "default", "namespace": "default", "user": "default"},
        }],
        "current-context": "default",
        "users": [{
            "name": "default",
            "user": {"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
        }],
    });
    let data = json!({"config.conf": yaml(&config), "kubeconfig.conf": yaml(&kubeconfig)});
    let mut map = config_map(SYSTEM, NAME, data);
    map["metadata"]["labels"]["app"] = json!(NAME);
    map
}

fn daemon_set(cluster: &Cluster) -> Value {
    let labels = json!({"k8s-app": NAME});
    // kube-proxy reads where its API server is once.
    let mark = checksum(&cluster.endpoint.to_string());
    let mut meta = metadata(Some(SYSTEM), NAME);
    meta["labels"]["k8s-app"] = json!(NAME);
    let container = json!({
        "name": NAME,
        "image": image(cluster),
        "imagePullPolicy": "IfNotPresent",
        "command": [
            "/usr/local/bin/kube-proxy",
            "--config=/var/lib/kube-proxy/config.conf",
            "--hostname-override=$(NODE_NAME)",
        ],
        "env": [{
            "name": "NODE_NAME",
            "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}},
        }],
        "securityContext": {"privileged": true},
        "volumeMounts": [
            {"name": NAME, "mountPath": "/var/lib/kube-proxy"},
            {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
            {"name": "lib-modules", "mountPath": "/lib/modules", "readOnly": true},
        ],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {names::ANNOTATION_CHECKSUM: mark},
                },
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "containers": [container],
                    "hostNetwork": true,
                    "serviceAccountName": NAME,
                    "tolerations": [{"operator": "Exists"}],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "volumes": [
                        {"name": NAME, "configMap": {"name": NAME}},
                        {"name": "xtables-lock", "hostPath": {
                            "path": "/run/xtables.lock", "type": "FileOrCreate",
                        }},
                        {"name": "lib-modules", "hostPath": {"path": "/lib/modules"}},
                    ],
                },
            },
        },
    })
}
