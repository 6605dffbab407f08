//! Steward as a user has it: a cluster with a node, the chart, its etcd.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::Value;
use tests::lab::programs::{ETCD, HELM, KUBERNETES};
use tests::lab::{Lab, Level, network};

use crate::Built;
use crate::failure::{Doing, Failure, Result};
use crate::requests;

/// Tag of the images.
pub const TAG: &str = "dev";
/// Namespace of the installation.
pub const SYSTEM: &str = "steward-system";
/// Namespace of the tenants.
pub const TENANTS: &str = "tenants";

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
        {
            let _lock = lab.directories().lock_cache(&mut say)?;
            HELM.build(lab.directories(), &mut say)?;
        }
        say("loading the images, installing the chart");
        for program in ["apiserver", "controller"] {
            lab.load_image(&built.images.join(format!("steward-{program}.tar")))?;
        }
        install(&lab)?;
        say("waiting for the DataStore");
        let api = "apiservice/v1alpha1.steward.butlerlabs.dev";
        lab.kubectl(&["wait", "--for=condition=Available", api, "--timeout=120s"])?;
        let deadline = Instant::now() + Duration::from_secs(180);
        while let Err(error) = lab.kubectl(&["get", "datastore", "default"]) {
            if Instant::now() > deadline {
                return Err(error.into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        lab.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "datastore/default",
            "--timeout=120s",
        ])?;
        lab.kubectl(&["create", "namespace", TENANTS])?;
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

fn install(lab: &Lab) -> Result<()> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/steward");
    let etcd = ETCD.version().trim_start_matches('v');
    let values = [
        "image.apiserver.repository=localhost/steward-apiserver".to_owned(),
        format!("image.apiserver.tag={TAG}"),
        "image.controller.repository=localhost/steward-controller".to_owned(),
        format!("image.controller.tag={TAG}"),
        "etcd.enabled=true".to_owned(),
        "etcd.image.repository=registry.k8s.io/etcd".to_owned(),
        format!("etcd.image.tag={etcd}-0"),
    ];
    let output = Command::new(HELM.path(lab.directories(), "helm"))
        .args([
            "install",
            "steward",
            chart,
            "--namespace",
            SYSTEM,
            "--create-namespace",
        ])
        .args(["--wait", "--timeout", "5m", "--set", &values.join(",")])
        .arg("--kubeconfig")
        .arg(lab.kubeconfig())
        .stdin(Stdio::null())
        .output()
        .doing(|| "run helm".into())?;
    if output.status.success() {
        return Ok(());
    }
    let pods = lab.kubectl(&["get", "pods", "-A"]).unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Said(format!("helm install: {said}\n{pods}")))
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
