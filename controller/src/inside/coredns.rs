//! The tenant's cluster DNS, as kubeadm installs it.

use apiservice::version::{Minor, fitting};
use serde_json::{Value, json};

use crate::inside::objects::{SYSTEM, config_map, metadata};
use crate::inside::rbac::{cluster_role, cluster_role_binding, rule, service_account};
use crate::inside::wanted::{Cluster, Kept};
use crate::tenant::network::dns;

const NAME: &str = "coredns";
const SERVICE: &str = "kube-dns";
const ROLE: &str = "system:coredns";

/// The version that kubeadm of a minor version installs (CoreDNSVersion in
/// cmd/kubeadm/app/constants of that branch), the newest first. Older versions of
/// Kubernetes get the last, which works with them too.
const VERSIONS: [(Minor, &str); 5] = [
    (Minor(1, 36), "v1.14.2"),
    (Minor(1, 35), "v1.13.1"),
    (Minor(1, 34), "v1.12.1"),
    (Minor(1, 33), "v1.12.0"),
    (Minor(1, 32), "v1.11.3"),
];

/// What there is of it, whether it is wanted or not.
pub fn objects(cluster: &Cluster) -> Vec<Kept> {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(Some(SYSTEM), NAME),
    });
    let rules = json!([
        rule(
            "",
            &["endpoints", "services", "pods", "namespaces"],
            &["list", "watch"]
        ),
        rule("discovery.k8s.io", &["endpointslices"], &["list", "watch"]),
    ]);
    let subjects = json!([service_account(SYSTEM, NAME)]);
    vec![
        Kept::whole(account),
        Kept::whole(cluster_role(ROLE, rules)),
        Kept::whole(cluster_role_binding(ROLE, ROLE, subjects)),
        Kept::until_edited(corefile(cluster), "/data/Corefile"),
        Kept::whole(service(cluster)),
        Kept::at_first(deployment(cluster), "/spec/replicas"),
    ]
}

fn image(cluster: &Cluster) -> String {
    let given = cluster.core_dns();
    let tag = given.and_then(|image| image.image_tag.clone());
    let tag = tag.unwrap_or_else(|| fitting(&VERSIONS, &cluster.version).to_owned());
    match given.and_then(|image| image.image_repository.as_deref()) {
        Some(repository) => format!("{repository}/coredns:{tag}"),
        // In the common registry it has a folder of its own.
        None if cluster.registry == "registry.k8s.io" => {
            format!("registry.k8s.io/coredns/coredns:{tag}")
        }
        None => format!("{}/coredns:{tag}", cluster.registry),
    }
}

fn corefile(cluster: &Cluster) -> Value {
    let domain = &cluster.tenant.spec.network_profile.cluster_domain;
    let text = format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    );
    config_map(SYSTEM, NAME, json!({"Corefile": text}))
}

fn service(cluster: &Cluster) -> Value {
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "port": port, "protocol": protocol, "targetPort": port});
    let mut meta = metadata(Some(SYSTEM), SERVICE);
    meta["labels"]["k8s-app"] = json!("kube-dns");
    meta["labels"]["kubernetes.io/cluster-service"] = json!("true");
    meta["labels"]["kubernetes.io/name"] = json!("CoreDNS");
    meta["annotations"] = json!({"prometheus.io/port": "9153", "prometheus.io/scrape": "true"});
    let addresses = dns::addresses(&cluster.tenant.spec.network_profile);
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "clusterIP": addresses.first(),
            "ports": [
                port("dns", "UDP", 53),
                port("dns-tcp", "TCP", 53),
                port("metrics", "TCP", 9153),
            ],
            "selector": {"k8s-app": "kube-dns"},
        },
    });
    // One of each family: a Service has no more.
    let second = addresses.iter().find(|other| {
        let families = addresses.first().map(|first| first.contains(':'));
        families.is_some_and(|first| first != other.contains(':'))
    });
    if let (Some(first), Some(second)) = (addresses.first(), second) {
        service["spec"]["clusterIPs"] = json!([first, second]);
        service["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    }
    service
}

/// Where it finds the API server, if not at the Service kubernetes: that leads to an
/// address, and where a proxy leads to the tenant by its name, nodes may reach that alone.
fn api_server(cluster: &Cluster) -> Value {
    let by_name = cluster.tenant.spec.control_plane.by_name();
    if by_name.and_then(|it| it.host()).is_none() {
        return json!([]);
    }
    let api = &cluster.endpoint;
    json!([
        {"name": "KUBERNETES_SERVICE_HOST", "value": api.host},
        {"name": "KUBERNETES_SERVICE_PORT", "value": api.port.to_string()},
    ])
}

fn deployment(cluster: &Cluster) -> Value {
    let labels = json!({"k8s-app": "kube-dns"});
    let mut meta = metadata(Some(SYSTEM), NAME);
    meta["labels"]["k8s-app"] = json!("kube-dns");
    let port = |name: &str, protocol: &str, port: u16| json!({"containerPort": port, "name": name, "protocol": protocol});
    let container = json!({
        "name": NAME,
        "image": image(cluster),
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "env": api_server(cluster),
        "resources": {
            "limits": {"memory": "170Mi"},
            "requests": {"cpu": "100m", "memory": "70Mi"},
        },
        "ports": [
            port("dns", "UDP", 53),
            port("dns-tcp", "TCP", 53),
            port("metrics", "TCP", 9153),
            port("liveness-probe", "TCP", 8080),
            port("readiness-probe", "TCP", 8181),
        ],
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "liveness-probe", "scheme": "HTTP"},
            "initialDelaySeconds": 60,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": 5,
        },
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "readiness-probe", "scheme": "HTTP"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{
            "name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true,
        }],
    });
    // Two that do not share a node if there is another.
    let apart = json!({
        "weight": 100,
        "podAffinityTerm": {
            "labelSelector": {"matchExpressions": [
                {"key": "k8s-app", "operator": "In", "values": ["kube-dns"]},
            ]},
            "topologyKey": "kubernetes.io/hostname",
        },
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": NAME,
                    "affinity": {"podAntiAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [apart],
                    }},
                    "tolerations": [
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                    ],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "containers": [container],
                    "dnsPolicy": "Default",
                    "volumes": [{
                        "name": "config-volume",
                        "configMap": {
                            "name": NAME,
                            "items": [{"key": "Corefile", "path": "Corefile"}],
                        },
                    }],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_fit_those_of_kubernetes() {
        assert_eq!(fitting(&VERSIONS, "v1.36.3"), "v1.14.2");
        assert_eq!(fitting(&VERSIONS, "1.35.0"), "v1.13.1");
        assert_eq!(fitting(&VERSIONS, "v1.29.4"), "v1.11.3");
        // One that is newer than this Steward.
        assert_eq!(fitting(&VERSIONS, "v1.40.0"), "v1.14.2");
        assert!(VERSIONS.is_sorted_by(|one, other| one.0 > other.0));
    }
}
