//! Steward installed by helm, as a user does it: the chart with its own etcd,
//! up to a DataStore that is Ready; and taken away again.
//!
//! # Guarantees
//! * [`remove`] takes what [`install`] made and what was done with it, in the
//!   two namespaces and outside of them, and nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::command;
use crate::lab::programs::{ETCD, HELM};
use crate::lab::{self, Lab};
use crate::served::API_SERVICE;

/// Namespace of the installation.
pub const SYSTEM: &str = "steward-system";
/// Namespace of the tenants.
pub const TENANTS: &str = "tenants";
/// Tag of images built here.
const TAG: &str = "dev";
const RELEASE: &str = "steward";
/// A label of what the tests make outside of namespaces, and of the namespaces.
pub const MADE: &str = "steward.butlerlabs.dev/made-by-tests";

/// Why Steward is not installed. Shown to a person as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lab(#[from] lab::Error),
    #[error("{said}\nThe pods:\n{pods}")]
    Helm { said: lab::Error, pods: String },
    #[error("DataStore default is not there after {0:?}; the Job steward-etcd-setup-* posts it")]
    NoDataStore(Duration),
    #[error("{0} exists in this cluster already; nothing is touched that the tests did not make")]
    Taken(String),
    #[error("building the images: {0}")]
    Images(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Programs, and a kubeconfig with all rights.
#[derive(Clone, Debug)]
pub struct Access {
    pub kubectl: PathBuf,
    pub helm: PathBuf,
    pub kubeconfig: PathBuf,
}

impl Access {
    /// Of a cluster of the lab; helm is there once it is [built](GoProgram::build).
    ///
    /// [`GoProgram::build`]: crate::lab::programs::GoProgram::build
    pub fn of(lab: &Lab) -> Self {
        Self {
            kubectl: lab.program("kubectl"),
            helm: HELM.path(lab.directories(), "helm"),
            kubeconfig: lab.kubeconfig(),
        }
    }

    /// Runs kubectl as administrator and returns its output.
    pub fn kubectl(&self, arguments: &[&str]) -> lab::Result<String> {
        command::run(self.command().args(arguments))
    }

    /// Runs `kubectl apply -f -` on a manifest.
    pub fn apply(&self, manifest: &str) -> lab::Result<String> {
        command::run_with_input(self.command().args(["apply", "-f", "-"]), manifest)
    }

    /// kubectl as administrator, without arguments.
    pub fn command(&self) -> Command {
        let mut kubectl = Command::new(&self.kubectl);
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig);
        kubectl
    }

    fn helm(&self, arguments: &[&str]) -> lab::Result<String> {
        let mut helm = Command::new(&self.helm);
        helm.arg("--kubeconfig").arg(&self.kubeconfig);
        command::run(helm.args(arguments))
    }
}

/// The images of an installation, each as `repository:tag`.
#[derive(Clone, Debug)]
pub struct Images {
    pub api_server: String,
    pub controller: String,
    pub etcd: String,
}

impl Images {
    /// Built here, with the lab's etcd.
    pub fn local() -> Self {
        let etcd = ETCD.version().trim_start_matches('v');
        Self {
            api_server: format!("localhost/steward-apiserver:{TAG}"),
            controller: format!("localhost/steward-controller:{TAG}"),
            etcd: format!("registry.k8s.io/etcd:{etcd}-0"),
        }
    }

    /// As values of the chart.
    fn values(&self) -> String {
        let images = [
            ("image.apiserver", &self.api_server),
            ("image.controller", &self.controller),
            ("etcd.image", &self.etcd),
        ];
        let mut values = vec!["etcd.enabled=true".to_owned()];
        for (key, image) in images {
            let (repository, tag) = split(image);
            values.push(format!("{key}.repository={repository}"));
            values.push(format!("{key}.tag={tag}"));
        }
        values.join(",")
    }
}

/// Repository and tag; a colon before a slash is that of a registry's port.
fn split(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (image, "latest"),
    }
}

/// Builds the archives of both images below a target directory, whose programs
/// are used if they are built; `lab` is the program of that name, and `profile` cargo's:
/// `dev` is what tests are compiled with, `release` what users get.
pub fn build_images(target: &Path, lab: &Path, profile: &str) -> Result<PathBuf> {
    let images = target.join(match profile {
        "release" => "images".to_owned(),
        profile => format!("images-{profile}"),
    });
    let status = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/demo/images.sh"))
        .arg(TAG)
        .arg(&images)
        .env("CARGO_TARGET_DIR", target)
        .env("PROFILE", profile)
        .env("LAB", lab)
        // Hundreds of lines that would stand where failures are looked for.
        .env("CARGO_TERM_QUIET", "true")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| Error::Images(error.to_string()))?;
    if !status.success() {
        return Err(Error::Images(format!("tests/demo/images.sh: {status}")));
    }
    Ok(images)
}

/// Loads the images from a directory with `steward-apiserver.tar` and
/// `steward-controller.tar` into the lab's node, and installs.
pub async fn install_in_lab(lab: &Lab, images: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    {
        let _lock = lab.directories().lock_cache(say)?;
        HELM.build(lab.directories(), say)?;
    }
    say("loading the images, installing the chart");
    for program in ["apiserver", "controller"] {
        lab.load_image(&images.join(format!("steward-{program}.tar")))?;
    }
    let access = Access::of(lab);
    install(&access, &Images::local(), say).await?;
    access.kubectl(&["create", "namespace", TENANTS])?;
    Ok(())
}

/// Installs the chart and waits until the API answers and the DataStore is Ready.
pub async fn install(access: &Access, images: &Images, say: &mut dyn FnMut(&str)) -> Result<()> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/steward");
    let values = images.values();
    let helm = ["install", RELEASE, chart, "--namespace", SYSTEM];
    let how = [
        "--create-namespace",
        "--wait",
        "--timeout=5m",
        "--set",
        &values,
    ];
    if let Err(said) = access.helm(&[&helm[..], &how].concat()) {
        let pods = access.kubectl(&["get", "pods", "-A"]).unwrap_or_default();
        return Err(Error::Helm { said, pods });
    }
    say("waiting for the DataStore");
    let wait = |condition: &str, object: &str| {
        let condition = format!("--for=condition={condition}");
        access.kubectl(&["-n", SYSTEM, "wait", &condition, object, "--timeout=120s"])
    };
    wait("Available", &format!("apiservice/{API_SERVICE}"))?;
    let patience = Duration::from_secs(180);
    let started = Instant::now();
    while access.kubectl(&["get", "datastore", "default"]).is_err() {
        if started.elapsed() > patience {
            return Err(Error::NoDataStore(patience));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    wait("Ready", "datastore/default")?;
    let label = "app.kubernetes.io/component=etcd-setup";
    let set_up = [
        "wait",
        "--for=condition=Complete",
        "job",
        "-l",
        label,
        "--timeout=120s",
    ];
    access.kubectl(&[&["-n", SYSTEM][..], &set_up].concat())?;
    Ok(())
}

/// Upgrades with other values, written as `key=JSON`, and waits for the pods.
pub fn upgrade(access: &Access, values: &str) -> Result<()> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/steward");
    let helm = ["upgrade", RELEASE, chart, "--namespace", SYSTEM];
    let how = [
        "--reuse-values",
        "--wait",
        "--timeout=3m",
        "--set-json",
        values,
    ];
    if let Err(said) = access.helm(&[&helm[..], &how].concat()) {
        let pods = access.kubectl(&["get", "pods", "-A"]).unwrap_or_default();
        return Err(Error::Helm { said, pods });
    }
    Ok(())
}

/// Makes both namespaces in somebody's cluster, with a label by which
/// [`remove`] knows them; what a killed run has left is removed first.
///
/// # Errors
/// [`Error::Taken`] if a namespace or the API is there and not ours.
pub fn claim(access: &Access) -> Result<()> {
    remove(access)?;
    let registered = format!("apiservice/{API_SERVICE}");
    let namespaces = [SYSTEM, TENANTS].map(|name| format!("namespace/{name}"));
    for object in [registered].iter().chain(&namespaces) {
        if !absent(access, object)? {
            return Err(Error::Taken(object.clone()));
        }
    }
    for namespace in [SYSTEM, TENANTS] {
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {MADE: "true"}},
        });
        access.apply(&manifest.to_string())?;
    }
    Ok(())
}

fn absent(access: &Access, object: &str) -> lab::Result<bool> {
    let found = access.kubectl(&["get", object, "--ignore-not-found", "-o", "name"])?;
    Ok(found.is_empty())
}

/// Removes an installation whose namespaces are [claimed](claim), tenants and
/// DataStores included. Nothing is there: nothing is done.
pub fn remove(access: &Access) -> Result<()> {
    let label = format!("{MADE}=true");
    let claimed = access.kubectl(&["get", "namespaces", "-l", &label, "-o", "name"])?;
    if claimed.is_empty() {
        return Ok(());
    }
    let delete = |arguments: &[&str]| {
        let how = ["--ignore-not-found", "--timeout=120s"];
        access.kubectl(&[&["delete"], arguments, &how].concat())
    };
    let api = format!("apiservice/{API_SERVICE}");
    // An API that does not answer any more must not keep the rest.
    let emptied = if absent(access, &api)? {
        Ok(())
    } else {
        let tenants = delete(&["-n", TENANTS, "tcp", "--all"]);
        tenants
            .and_then(|_| delete(&["datastores", "--all"]))
            .map(drop)
    };
    let installed = access.helm(&["list", "-q", "-a", "-n", SYSTEM])?;
    if installed.lines().any(|name| name == RELEASE) {
        let how = ["uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout=3m"];
        access.helm(&how)?;
    }
    delete(&[&api])?;
    delete(&["clusterroles,clusterrolebindings", "-l", &label])?;
    for namespace in claimed.split_whitespace() {
        delete(&[namespace])?;
    }
    Ok(emptied?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(split("localhost:5000/a/b:v1"), ("localhost:5000/a/b", "v1"));
        assert_eq!(
            split("localhost:5000/a/b"),
            ("localhost:5000/a/b", "latest")
        );
        assert_eq!(split("etcd:3.6.15-0"), ("etcd", "3.6.15-0"));
    }
}
