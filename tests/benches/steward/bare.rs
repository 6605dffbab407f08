//! The peer of a tenant's start: one kube-apiserver as a bare process on the
//! tenants' etcd, with the flags and certificates of a tenant.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tests::chart::TENANTS;
use tests::lab::Lab;
use tests::lab::process::Program;
use tests::lab::programs::KUBERNETES;

use crate::failure::{Doing, Failure, Result};
use crate::installation::{TenantsEtcd, decoded, text};
use crate::requests;

/// What the report calls it.
pub const NAME: &str = "kube-apiserver 1.36.3, bare process, exec to /readyz";

const PORT: u16 = 7443;
/// Its etcd has a name that only the cluster's DNS knows: it asks that, as a
/// pod does. The stamp is made by the last step before exec.
const SCRIPT: &str =
    r#"mount --bind "$0" /etc/resolv.conf && stamp=$1 && shift && : > "$stamp" && exec "$@""#;

/// How to start it.
pub struct Bare {
    arguments: Vec<String>,
    resolver: PathBuf,
    directory: PathBuf,
}

impl Bare {
    /// Takes flags and files of a tenant's kube-apiserver. What differs: the
    /// keyspace, etcd's root as its user (a tenant may write only its own
    /// keys), and the port.
    pub async fn like(lab: &Lab, etcd: &TenantsEtcd, tenant: &str) -> Result<Self> {
        let client = lab.client();
        let path = format!("/apis/apps/v1/namespaces/{TENANTS}/deployments/{tenant}");
        let deployment = requests::get(&client, &path)
            .await
            .doing(|| format!("get {path}"))?;
        let pod = &deployment["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().map_or(&[][..], Vec::as_slice);
        let container = containers.iter().find(|it| it["name"] == "kube-apiserver");
        let container =
            container.ok_or_else(|| Failure::Said(format!("{path} has no kube-apiserver")))?;
        let directory = lab.directory().path().join("bare");
        let mut arguments: Vec<String> = container["args"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let name = text(mount, "/name")?;
            let target = directory.join(&name);
            let volumes = pod["volumes"].as_array().map_or(&[][..], Vec::as_slice);
            let volume = volumes.iter().find(|it| it["name"] == name.as_str());
            let volume = volume.ok_or_else(|| Failure::Said(format!("no volume {name}")))?;
            unpack(&client, volume, &target).await?;
            let inside = text(mount, "/mountPath")?;
            for argument in &mut arguments {
                *argument = argument.replace(&inside, &target.display().to_string());
            }
        }
        let file = |name: &str| etcd.certificates.join(name).display().to_string();
        // The last of a flag counts.
        arguments.push(format!("--etcd-certfile={}", file("tls.crt")));
        arguments.push(format!("--etcd-keyfile={}", file("tls.key")));
        arguments.push(format!("--secure-port={PORT}"));
        let resolver = directory.join("resolv.conf");
        let line = format!("nameserver {}\n", lab.addresses().dns_service());
        std::fs::write(&resolver, line).doing(|| "write a resolv.conf".into())?;
        Ok(Self {
            arguments,
            resolver,
            directory,
        })
    }

    /// Starts one on the keyspace `/bench-NUMBER` and stops it; the keyspace
    /// is fresh and goes with it. Returns the time from exec to /readyz.
    pub async fn start(&self, lab: &Lab, etcd: &TenantsEtcd, number: usize) -> Result<Duration> {
        let stamp = self.directory.join(format!("stamp-{number}"));
        let prefix = format!("bench-{number}");
        let name = format!("bare-{number}");
        let program = Program::new(&name, "unshare")
            .args(["--mount", "sh", "-c", SCRIPT])
            .args([self.resolver.as_os_str(), stamp.as_os_str()])
            .args([KUBERNETES.path(lab.directories(), "kube-apiserver")])
            .args(&self.arguments)
            .args([format!("--etcd-prefix=/{prefix}")]);
        let client = requests::anonymous(&format!("https://{}:{PORT}", lab.addresses().node()))?;
        let process = lab.spawn(program)?;
        let ready = requests::until_ready(&client, Duration::from_secs(120)).await;
        let end = SystemTime::now();
        process.check()?;
        if let Err(failure) = ready {
            return Err(process.failure(failure.to_string()).into());
        }
        process.id.kill();
        etcd.delete_keys(lab, &prefix)?;
        let began = std::fs::metadata(&stamp).and_then(|it| it.modified());
        let began = began.doing(|| format!("read the time of {}", stamp.display()))?;
        end.duration_since(began)
            .map_err(|error| Failure::Said(error.to_string()))
    }
}

/// Writes the files of a volume that is made of Secrets.
async fn unpack(client: &kube::Client, volume: &Value, target: &Path) -> Result<()> {
    let mut sources: Vec<(String, &Value)> = Vec::new();
    if volume["secret"].is_object() {
        sources.push((
            text(volume, "/secret/secretName")?,
            &volume["secret"]["items"],
        ));
    }
    for source in volume["projected"]["sources"]
        .as_array()
        .into_iter()
        .flatten()
    {
        sources.push((text(source, "/secret/name")?, &source["secret"]["items"]));
    }
    if sources.is_empty() {
        return Err(Failure::Said(format!(
            "a volume of another kind than expected: {volume}"
        )));
    }
    for (name, items) in sources {
        let path = format!("/api/v1/namespaces/{TENANTS}/secrets/{name}");
        let secret = requests::get(client, &path)
            .await
            .doing(|| format!("get {path}"))?;
        let keys = secret["data"]
            .as_object()
            .into_iter()
            .flat_map(|it| it.keys());
        let files: Vec<(String, String)> = match items.as_array() {
            Some(items) => items
                .iter()
                .map(|item| Ok((text(item, "/key")?, text(item, "/path")?)))
                .collect::<Result<_>>()?,
            None => keys.map(|key| (key.clone(), key.clone())).collect(),
        };
        for (key, file) in files {
            let file = target.join(file);
            let parent = file.parent().unwrap_or(target);
            std::fs::create_dir_all(parent).doing(|| format!("create {}", parent.display()))?;
            let bytes = decoded(&secret["data"][&key])?;
            std::fs::write(&file, bytes).doing(|| format!("write {}", file.display()))?;
        }
    }
    Ok(())
}
