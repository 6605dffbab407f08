//! Certificates and kubeconfigs of a run, made by kubeadm: the lab judges
//! code that makes certificates, and shares none with it.

use std::path::PathBuf;
use std::process::Command;

use super::command::run;
use super::directories::{self, Directories, RunDirectory};
use super::error::{Doing, Result};
use super::network::Addresses;
use super::programs::KUBERNETES;

/// The one node's name.
pub const NODE_NAME: &str = "node-1";

/// Writes all certificates and kubeconfigs of the run.
pub fn create(
    directories: &Directories,
    directory: &RunDirectory,
    name: &str,
    addresses: Addresses,
) -> Result<()> {
    let configuration = directory.configuration().join("kubeadm.yaml");
    directories::write(&configuration, kubeadm(directory, name, addresses))?;
    let kubeadm = |arguments: &[&str]| {
        run(Command::new(KUBERNETES.path(directories, "kubeadm"))
            .args(arguments)
            .arg("--config")
            .arg(&configuration))
    };
    kubeadm(&["init", "phase", "certs", "all"])?;
    run(Command::new(KUBERNETES.path(directories, "kubeadm"))
        .args(["init", "phase", "kubeconfig", "all", "--config"])
        .arg(&configuration)
        .arg("--kubeconfig-dir")
        .arg(directory.kubeconfigs()))?;
    for user in ["system:kube-proxy", "system:coredns"] {
        let text = kubeadm(&["kubeconfig", "user", "--client-name", user])?;
        directories::write(&kubeconfig_of(directory, user), text)?;
    }
    // This one is of system:masters, so that it works before any binding.
    let administrator = directory.kubeconfigs().join("super-admin.conf");
    std::fs::copy(&administrator, directory.kubeconfig())
        .doing(|| format!("copy {}", administrator.display()))?;
    Ok(())
}

/// The kubeconfig of `system:NAME`.
pub fn kubeconfig_of(directory: &RunDirectory, user: &str) -> PathBuf {
    let name = user.trim_start_matches("system:");
    directory.kubeconfigs().join(format!("{name}.conf"))
}

fn kubeadm(directory: &RunDirectory, name: &str, addresses: Addresses) -> String {
    let node = addresses.node();
    let host = addresses.host();
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: {node}
  bindPort: 6443
nodeRegistration:
  name: {NODE_NAME}
  criSocket: unix://{socket}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: steward-lab-{name}
kubernetesVersion: {version}
certificatesDir: {pki}
controlPlaneEndpoint: {node}:6443
encryptionAlgorithm: ECDSA-P256
networking:
  serviceSubnet: {services}
  podSubnet: {pods}
  dnsDomain: cluster.local
apiServer:
  certSANs: [{node}, {host}, localhost, 127.0.0.1]
etcd:
  local:
    dataDir: {etcd}
    serverCertSANs: [{node}]
",
        socket = directory.containerd_socket().display(),
        version = KUBERNETES.version(),
        pki = directory.pki().display(),
        services = addresses.services(),
        pods = addresses.pods(),
        etcd = directory.etcd().display(),
    )
}
