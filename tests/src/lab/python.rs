//! Python with Kubernetes' client library, in an environment of its own in the cache: what
//! `requirements.txt` pins by hashes, and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::run;
use super::directories::{self, Directories};
use super::error::{Doing, Result};
use super::programs::key;

const REQUIREMENTS: &str = include_str!("../../programs/python/requirements.txt");

/// The interpreter that has the library; the environment is made unless the cache holds it.
///
/// # Errors
/// There is no `python3` that can make environments (Debian: `python3-venv`), or a package
/// cannot be fetched or is another than the one that is pinned.
pub fn interpreter(directories: &Directories) -> Result<PathBuf> {
    // What was installed for one version is not found by another.
    let version = run(Command::new("python3").arg("--version"))?;
    let target = directories
        .cache
        .join(format!("python-{}", key([REQUIREMENTS, &version])));
    let interpreter = Path::new("bin").join("python3");
    if target.join(&interpreter).exists() {
        return Ok(target.join(interpreter));
    }
    directories::create(&directories.cache)?;
    let work = tempfile::Builder::new()
        .prefix(".python-")
        .tempdir_in(&directories.cache)
        .doing(|| format!("create a directory in {}", directories.cache.display()))?;
    let requirements = work.path().join("requirements.txt");
    directories::write(&requirements, REQUIREMENTS)?;
    // Only `bin/pip` and the like name where it was made, and nobody calls them afterwards.
    let environment = work.path().join("environment");
    run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(&environment))?;
    run(Command::new(environment.join(&interpreter))
        .args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--require-hashes", "--requirement"])
        .arg(&requirements))?;
    let _ = std::fs::remove_dir_all(&target);
    std::fs::rename(&environment, &target).doing(|| format!("create {}", target.display()))?;
    Ok(target.join(interpreter))
}
