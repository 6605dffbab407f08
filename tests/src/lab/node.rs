//! The node of a run: containerd, kubelet, kube-proxy and DNS.
//!
//! It lives in a mount namespace of its own, with its own /run, /var/lib and
//! /var/log, because container programs keep paths of their own there
//! whatever they are told. When its last process ends, all its mounts end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;

use super::certificates::{NODE_NAME, kubeconfig_of};
use super::cgroup::Cgroup;
use super::cluster::Lab;
use super::control_plane::{kubernetes, wait_for_port};
use super::directories::{self, Directories, RunDirectory};
use super::edge;
use super::error::{Doing, Error, Result};
use super::images::{self, PAUSE};
use super::network::Addresses;
use super::packages::Packages;
use super::process::{self, Process, ProcessId, Program};
use super::programs::COREDNS;

/// Where the StorageClass of the lab comes from.
pub const PROVISIONER: &str = "lab.steward.butlerlabs.dev/disk";

/// $1 run directory, $2 directory of all runs, $3 cache, $4 what the host
/// writes, below $1. `more` is done while all of them are still in reach.
fn mounts(more: &str) -> String {
    format!("{MOUNTS_BEGIN}{more}{MOUNTS_END}")
}

const MOUNTS_BEGIN: &str = r#"
set -e
# Copies of other runs' mounts would outlive those runs.
while read -r _ path _; do
    case "$path" in "$2"/*) umount --lazy "$path" ;; esac
done < /proc/self/mounts
mount -t tmpfs -o mode=755,size=1g steward-lab /run
mkdir /run/kept-run /run/kept-cache
mount --bind "$1" /run/kept-run
mount --bind "$3" /run/kept-cache
mount --bind "/run/kept-run/$4/lib" /var/lib
mount --bind "/run/kept-run/$4/log" /var/log
"#;

const MOUNTS_END: &str = r#"
# Both may have been below what is now covered.
mkdir -p "$1" "$3"
mount --bind /run/kept-run "$1"
mount --bind /run/kept-cache "$3"
umount /run/kept-run /run/kept-cache
mount --make-rshared /
: > "$1/$4/mounted"
exec sleep infinity
"#;

/// Starts the process that holds the node's mount namespace.
pub fn hold_mounts(
    directories: &Directories,
    directory: &RunDirectory,
    cgroup: &Cgroup,
) -> Result<ProcessId> {
    let node = directory.node();
    let holder = Holder {
        name: "mounts",
        place: &node,
        namespaces: &["--mount"],
        more: "",
    };
    holder.start(directories, directory, cgroup)
}

/// A process that does nothing but hold namespaces.
pub(crate) struct Holder<'a> {
    /// In logs and records.
    pub name: &'a str,
    /// What the host writes, in the run's directory.
    pub place: &'a Path,
    /// Options of unshare.
    pub namespaces: &'a [&'a str],
    /// Further mounts, as a shell script.
    pub more: &'a str,
}

impl Holder<'_> {
    /// Returns once everything is mounted.
    pub fn start(
        &self,
        directories: &Directories,
        directory: &RunDirectory,
        cgroup: &Cgroup,
    ) -> Result<ProcessId> {
        for path in [&directories.cache, &directories.state] {
            if path.starts_with("/run") || path.starts_with("/var/run") {
                return Err(Error::Refused(format!(
                    "{} is below /run, which hosts cover",
                    path.display()
                )));
            }
        }
        for name in ["lib", "log", "cni", "plugins"] {
            directories::create(&self.place.join(name))?;
        }
        let below = self.place.strip_prefix(directory.path());
        let below = below.unwrap_or(self.place).to_owned();
        let script = mounts(self.more);
        let holder = process::start(
            directory,
            cgroup,
            Program::new(self.name, "unshare")
                .args(self.namespaces.iter().copied())
                .args(["--propagation", "slave", "sh", "-c", &script, "sh"])
                .args([
                    directory.path().to_owned(),
                    directories.runs(),
                    directories.cache.clone(),
                    below,
                ]),
        )?;
        let started = Instant::now();
        while !self.place.join("mounted").exists() {
            holder.check()?;
            if started.elapsed() > Duration::from_secs(10) {
                return Err(holder.failure("does not set up the host's mounts"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(holder.id)
    }
}

/// Starts containerd.
pub fn start_containerd(
    directories: &Directories,
    directory: &RunDirectory,
    cgroup: &Cgroup,
    mounts: ProcessId,
) -> Result<Process> {
    let packages = Packages::of(directories);
    let configuration = directory.configuration().join("containerd.toml");
    let node = Containerd {
        root: directory.node().join("containerd"),
        socket: directory.containerd_socket(),
        networks: directory.node().join("cni"),
        base: None,
    };
    directories::write(&configuration, node.configuration(&packages))?;
    process::start(
        directory,
        cgroup,
        Program::new("containerd", packages.containerd())
            .args(["--config".into(), configuration.into_os_string()])
            .env("PATH", packages.search_path())
            .env("LD_LIBRARY_PATH", packages.libraries())
            .in_mounts_of(mounts),
    )
}

/// Starts what needs the API server, once it answers.
pub async fn start(lab: &Lab, containerd: &Process) -> Result<()> {
    let (directory, addresses) = (lab.directory(), lab.addresses());
    let mounts = lab.process("mounts")?.id;
    let etc = directory.configuration();

    directories::write(
        &directory.node().join("cni/10-lab.conflist"),
        cni_configuration(&addresses.pods()),
    )?;
    let resolv = etc.join("resolv.conf");
    directories::write(&resolv, format!("nameserver {}\n", addresses.node()))?;
    let kubelet = etc.join("kubelet.yaml");
    directories::write(&kubelet, kubelet_configuration(lab)?)?;
    let proxy = etc.join("kube-proxy.yaml");
    directories::write(&proxy, proxy_configuration(lab))?;
    let corefile = etc.join("Corefile");
    directories::write(&corefile, corefile_text(directory, lab.addresses()))?;

    let started = Instant::now();
    while std::os::unix::net::UnixStream::connect(directory.containerd_socket()).is_err() {
        containerd.check()?;
        if started.elapsed() > Duration::from_secs(30) {
            return Err(containerd.failure("does not listen on its socket"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.spawn(
        kubernetes(lab.directories(), "kubelet")
            .args([
                format!("--config={}", kubelet.display()),
                format!(
                    "--kubeconfig={}",
                    directory.kubeconfigs().join("kubelet.conf").display()
                ),
                format!("--hostname-override={NODE_NAME}"),
                format!("--node-ip={}", addresses.node()),
            ])
            .env("PATH", Packages::of(lab.directories()).search_path())
            .in_mounts_of(mounts),
    )?;
    lab.spawn(
        kubernetes(lab.directories(), "kube-proxy")
            .args([format!("--config={}", proxy.display())])
            .in_mounts_of(mounts),
    )?;
    create_objects(lab)?;
    lab.spawn(
        Program::new("coredns", COREDNS.path(lab.directories(), "coredns"))
            .args(["-conf".into(), corefile.into_os_string()]),
    )?;
    images::load_for_node(lab.directories(), directory)
}

/// Waits until the node takes pods and Services answer from the machine.
pub async fn wait(lab: &Lab) -> Result<()> {
    let patience = Duration::from_secs(60);
    let addresses = lab.addresses();
    let nodes: kube::Api<Node> = kube::Api::all(lab.client());
    let kubelet = lab.process("kubelet")?;
    let started = Instant::now();
    loop {
        let node = nodes
            .get_opt(NODE_NAME)
            .await
            .doing(|| "get the node".into())?;
        let condition = node
            .and_then(|node| node.status?.conditions)
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "Ready");
        if condition.as_ref().is_some_and(|it| it.status == "True") {
            break;
        }
        kubelet.check()?;
        if started.elapsed() > patience {
            let why = condition.and_then(|it| it.message).unwrap_or_default();
            return Err(kubelet.failure(format!("does not make the node ready: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let service = (addresses.kubernetes_service(), 443).into();
    wait_for_port(&lab.process("kube-proxy")?, service, patience).await?;
    let dns = (addresses.node(), 53).into();
    wait_for_port(&lab.process("coredns")?, dns, patience).await
}

/// What is a host's own about its containerd.
pub(crate) struct Containerd {
    /// Where it keeps images and containers.
    pub root: PathBuf,
    pub socket: PathBuf,
    /// Its CNI configurations.
    pub networks: PathBuf,
    /// What containers are made from, if not from containerd's own.
    pub base: Option<PathBuf>,
}

impl Containerd {
    /// Its configuration file.
    pub fn configuration(&self, packages: &Packages) -> String {
        let base = self.base.as_ref().map_or_else(String::new, |base| {
            format!("\n  base_runtime_spec = \"{}\"", base.display())
        });
        format!(
            r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_tcp_service = true
  # Root without CAP_SYS_RESOURCE may not lower a score below its own.
  restrict_oom_score_adj = true
  # Pods' network namespaces belong to this run, not to /run/netns.
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"{base}

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni}"
  conf_dir = "{networks}"
"#,
            root = self.root.display(),
            socket = self.socket.display(),
            networks = self.networks.display(),
            runc = packages.runc().display(),
            cni = packages.cni().display(),
        )
    }
}

/// A cable for each pod and routes between them: no bridge, and so no need
/// for the kernel to filter bridged packets.
pub(crate) fn cni_configuration(pods: &str) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

fn kubelet_configuration(lab: &Lab) -> Result<String> {
    let directory = lab.directory();
    let mut configuration = kubelet_of_this_machine(&Cgroup::of(lab.name())?);
    let of_this_cluster = serde_json::json!({
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "30s"},
            "x509": {"clientCAFile": directory.pki().join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [lab.addresses().dns_service()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{}", directory.containerd_socket().display()),
        "resolvConf": directory.configuration().join("resolv.conf"),
        "volumePluginDir": directory.node().join("plugins"),
        "maxPods": 500,
    });
    if let (Some(all), serde_json::Value::Object(more)) =
        (configuration.as_object_mut(), of_this_cluster)
    {
        all.extend(more);
    }
    Ok(configuration.to_string())
}

/// What a kubelet must be told because of the machine, whatever its cluster is.
pub(crate) fn kubelet_of_this_machine(cgroup: &Cgroup) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup.kubelet_root(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "serializeImagePulls": false,
        // A preloaded image that is collected or doubted cannot be pulled again.
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        "imageMinimumGCAge": "24h",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
    })
}

fn proxy_configuration(lab: &Lab) -> String {
    serde_json::json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {
            "kubeconfig": kubeconfig_of(lab.directory(), "system:kube-proxy"),
        },
        "hostnameOverride": NODE_NAME,
        // Whoever is no pod (the machine at the other end of the cable) is
        // masqueraded, so that answers find their way back.
        "clusterCIDR": lab.addresses().pods(),
        "detectLocalMode": "ClusterCIDR",
        // Zero leaves the machine's own limits alone.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
            "udpTimeout": "0s",
            "udpStreamTimeout": "0s",
        },
    })
    .to_string()
}

/// Names at the edge lead to the node, where the proxy listens if there is one.
fn corefile_text(directory: &RunDirectory, addresses: Addresses) -> String {
    format!(
        ".:53 {{
    errors
    health 127.0.0.1:18080
    ready 127.0.0.1:18181
    hosts {{
        {node} {names}
        ttl 5
        fallthrough
    }}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    cache 30
    loadbalance
}}
",
        kubeconfig_of(directory, "system:coredns").display(),
        names = edge::names().join(" "),
        node = addresses.node(),
    )
}

/// What kubeadm and a distribution would have put into the cluster.
fn create_objects(lab: &Lab) -> Result<()> {
    let objects = format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: 'kubeadm:cluster-admins'}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}
subjects:
- {{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'kubeadm:cluster-admins'}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: 'kubeadm:apiserver-kubelet-client'}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:kubelet-api-admin'}}
subjects:
- {{apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver-kubelet-client}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: 'system:coredns'}}
rules:
- {{apiGroups: [''], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: 'system:coredns'}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:coredns'}}
subjects:
- {{apiGroup: rbac.authorization.k8s.io, kind: User, name: 'system:coredns'}}
---
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system, labels: {{k8s-app: kube-dns}}}}
spec:
  clusterIP: {service}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-lab
  namespace: kube-system
  labels: {{kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints:
- addresses: [{node}]
ports:
- {{name: dns, port: 53, protocol: UDP}}
- {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {{storageclass.kubernetes.io/is-default-class: 'true'}}
provisioner: {PROVISIONER}
reclaimPolicy: Delete
volumeBindingMode: WaitForFirstConsumer
",
        service = lab.addresses().dns_service(),
        node = lab.addresses().node(),
    );
    lab.create(&objects).map(drop)
}
