//! The Gateway API's own definitions of its kinds, from the Go module that go.mod and
//! go.sum pin. They are kept in the cache, and only tests that want them install them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::command::run;
use super::directories::{self, Directories};
use super::error::{Doing, Error, Result};
use super::programs::key;

const GO_MOD: &str = include_str!("../../programs/gateway-api/go.mod");
const GO_SUM: &str = include_str!("../../programs/gateway-api/go.sum");
const MODULE: &str = "sigs.k8s.io/gateway-api";

/// The kinds that routes of TLS connections need.
const KINDS: [&str; 3] = ["gatewayclasses", "gateways", "tlsroutes"];

/// The files of the definitions, fetched unless the cache holds them.
///
/// # Errors
/// The module cannot be fetched, or is not the one of go.sum.
pub fn definitions(directories: &Directories) -> Result<Vec<PathBuf>> {
    let target = directories
        .cache
        .join(format!("gateway-api-{}", key([GO_MOD, GO_SUM])));
    let files: Vec<PathBuf> = KINDS
        .iter()
        .map(|kind| target.join(format!("{kind}.yaml")))
        .collect();
    if files.iter().all(|file| file.is_file()) {
        return Ok(files);
    }
    directories::create(&directories.cache)?;
    let work = tempfile::Builder::new()
        .prefix(".gateway-api-")
        .tempdir_in(&directories.cache)
        .doing(|| format!("create a directory in {}", directories.cache.display()))?;
    let output = work.path().join("output");
    directories::create(&output)?;
    let module = fetched(work.path())?;
    for kind in KINDS {
        let name = format!("config/crd/standard/gateway.networking.k8s.io_{kind}.yaml");
        let (from, to) = (module.join(name), output.join(format!("{kind}.yaml")));
        std::fs::copy(&from, &to).doing(|| format!("copy {}", from.display()))?;
    }
    let _ = std::fs::remove_dir_all(&target);
    std::fs::rename(&output, &target).doing(|| format!("create {}", target.display()))?;
    Ok(files)
}

/// The directory of the module, compared with go.sum.
fn fetched(work: &Path) -> Result<PathBuf> {
    directories::write(&work.join("go.mod"), GO_MOD)?;
    directories::write(&work.join("go.sum"), GO_SUM)?;
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", MODULE])
        .current_dir(work)
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly");
    let said = run(&mut go)?;
    let said: Value = serde_json::from_str(&said)
        .map_err(|error| Error::Refused(format!("go mod download: {error}")))?;
    match said["Dir"].as_str() {
        Some(directory) => Ok(directory.into()),
        None => Err(Error::Refused(format!(
            "go mod download: {}",
            said["Error"]
        ))),
    }
}
