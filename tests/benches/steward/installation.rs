//! Steward as a user has it: a cluster with a node, the chart, its etcd.

use std::path::PathBuf;

use base64::Engine;
use serde_json::Value;
use tests::chart::{self, SYSTEM};
use tests::lab::programs::{ETCD, KUBERNETES};
use tests::lab::{Lab, Level, network};

use crate::Built;
use crate::failure::{Doing, Failure, Result};
use crate::requests;

/// A cluster with Steward, and a DataStore that is Ready.
pub struct Installation {
    pub lab: Lab,
    pub etcd: TenantsEtcd,
}

/// The tenants' etcd, with root's certificate.
pub struct TenantsEtcd {
    /// Of its Pod.
    address: String,
    /// Holds `ca.crt`, `tls.crt`, `tls.key`.
    pub certificates: PathBuf,
}

impl Installation {
    pub async fn start(built: &Built) -> Result<Self> {
        let mut say = |line: &str| eprintln!("   {line}");
        let lab = start_lab(Level::Pods).await?;
        chart::install_in_lab(&lab, &built.images, &mut say).await?;
        let etcd = TenantsEtcd::of(&lab).await?;
        Ok(Self { lab, etcd })
    }
}

/// A cluster with a name of its own, which goes with this process.
pub async fn start_lab(level: Level) -> Result<Lab> {
    let unique = uuid::Uuid::new_v4();
    let name = format!("bench{}", hex::encode(&unique.as_bytes()[..2]));
    Ok(Lab::start_named(&name, level, &mut |line| eprintln!("   {line}")).await?)
}

impl TenantsEtcd {
    async fn of(lab: &Lab) -> Result<Self> {
        let client = lab.client();
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/steward-etcd-0");
        let pod = requests::get(&client, &path)
            .await
            .doing(|| "get the Pod of etcd".into())?;
        let address = text(&pod, "/status/podIP")?;
        let path = format!("/api/v1/namespaces/{SYSTEM}/secrets/steward-etcd-certs");
        let secret = requests::get(&client, &path)
            .await
            .doing(|| "get etcd's Secret".into())?;
        let certificates = lab.directory().path().join("tenants-etcd");
        std::fs::create_dir_all(&certificates).doing(|| "create a directory".into())?;
        for key in ["ca.crt", "tls.crt", "tls.key"] {
            let bytes = decoded(&secret["data"][key])?;
            std::fs::write(certificates.join(key), bytes).doing(|| format!("write {key}"))?;
        }
        Ok(Self {
            address,
            certificates,
        })
    }

    /// Deletes all keys below `/prefix/`; that there are none is an error,
    /// because then something else was measured.
    pub fn delete_keys(&self, lab: &Lab, prefix: &str) -> Result<()> {
        let etcdctl = ETCD
            .path(lab.directories(), "etcdctl")
            .display()
            .to_string();
        let endpoints = format!("--endpoints=https://{}:2379", self.address);
        let file =
            |flag: &str, name: &str| format!("--{flag}={}", self.certificates.join(name).display());
        let (cert, key) = (file("cert", "tls.crt"), file("key", "tls.key"));
        // Its certificate has no address in it, only names.
        let arguments = [
            etcdctl.as_str(),
            &endpoints,
            "--insecure-skip-tls-verify",
            &cert,
            &key,
            "del",
            "--prefix",
            &format!("/{prefix}/"),
        ];
        match network::inside(lab.directory(), &arguments)?.trim() {
            "0" => Err(Failure::Said(format!(
                "nothing was written below /{prefix}/"
            ))),
            _ => Ok(()),
        }
    }
}

/// A string in an object.
pub fn text(object: &Value, pointer: &str) -> Result<String> {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found
        .map(str::to_owned)
        .ok_or_else(|| Failure::Said(format!("{pointer} is missing")))
}

/// A value of a Secret's data.
pub fn decoded(value: &Value) -> Result<Vec<u8>> {
    let encoded = value
        .as_str()
        .ok_or_else(|| Failure::Said("a Secret lacks a key".into()))?;
    base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|error| Failure::Said(format!("a Secret's data: {error}")))
}

/// The version of the tenants: the lab's own, whose images the node has.
pub fn version() -> &'static str {
    KUBERNETES.version()
}
