//! Programs that the lab takes from Debian packages, unpacked into the cache.
//!
//! They are not installed: Debian's containerd would evict Docker's, and
//! packages start daemons.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::command::{run, succeeds};
use super::directories::{self, Directories};
use super::error::{Doing, Error, Result};
use super::programs::key;

const PACKAGES: [&str; 5] = [
    "containerd",
    "runc",
    "containernetworking-plugins",
    "libseccomp2",
    "busybox-static",
];

/// What the packages bring.
#[derive(Clone, Debug)]
pub struct Packages {
    root: PathBuf,
}

impl Packages {
    /// Where they are in the cache, unpacked or not yet.
    pub fn of(directories: &Directories) -> Self {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let mut parts = vec![release.as_str(), std::env::consts::ARCH];
        parts.extend(PACKAGES);
        Self {
            root: directories.cache.join(format!("packages-{}", key(parts))),
        }
    }

    /// containerd.
    pub fn containerd(&self) -> PathBuf {
        self.root.join("usr/bin/containerd")
    }
    /// containerd's client.
    pub fn ctr(&self) -> PathBuf {
        self.root.join("usr/bin/ctr")
    }
    /// runc.
    pub fn runc(&self) -> PathBuf {
        self.root.join("usr/sbin/runc")
    }
    /// The directory of CNI plug-ins.
    pub fn cni(&self) -> PathBuf {
        self.root.join("usr/lib/cni")
    }
    /// A static busybox.
    pub fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }
    /// `PATH` for containerd: its shims and runc come first.
    pub fn search_path(&self) -> String {
        format!(
            "{0}/usr/bin:{0}/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.root.display()
        )
    }
    /// The directory of libseccomp, which runc needs beyond libc.
    pub fn libraries(&self) -> PathBuf {
        let of_machine = self.root.join("usr/lib");
        std::fs::read_dir(&of_machine)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.join("libseccomp.so.2").exists())
            .unwrap_or(of_machine)
    }

    /// Whether the cache holds all of it.
    pub fn are_unpacked(&self) -> bool {
        [
            self.containerd(),
            self.ctr(),
            self.runc(),
            self.cni().join("ptp"),
            self.busybox(),
        ]
        .iter()
        .all(|path| path.is_file())
    }

    /// Fetches and unpacks the packages unless the cache holds them.
    pub fn fetch(&self, directories: &Directories, say: &mut dyn FnMut(&str)) -> Result<()> {
        if self.are_unpacked() {
            return Ok(());
        }
        say("fetching containerd, runc and CNI plug-ins from the distribution");
        let work = unpack(&PACKAGES, directories)?;
        let whole = Self {
            root: work.path().join("root"),
        };
        if !whole.are_unpacked() {
            return Err(Error::Refused(format!(
                "the packages {} do not bring what is expected of them",
                PACKAGES.join(", ")
            )));
        }
        let _ = std::fs::remove_dir_all(&self.root);
        std::fs::rename(&whole.root, &self.root).doing(|| format!("create {}", self.root.display()))
    }
}

/// Which of these packages, and of what they need, this machine lacks.
pub(crate) fn missing(packages: &[&str], directories: &Directories) -> Result<Vec<String>> {
    directories::create(&directories.cache)?;
    let depends = |packages: &[&str]| {
        run(Command::new("apt-cache")
            .args(["depends", "--recurse", "--no-recommends", "--no-suggests"])
            .args(["--no-conflicts", "--no-breaks", "--no-replaces"])
            .args(["--no-enhances"])
            .args(packages))
    };
    let text = match depends(packages) {
        Ok(text) => text,
        // The package lists may be missing.
        Err(_) => {
            run(Command::new("apt-get").args(["update", "-qq"]))?;
            depends(packages)?
        }
    };
    let installed = |name: &str| {
        let mut query = Command::new("dpkg-query");
        let said = run(query.args(["-W", "-f", "${db:Status-Status}"]).arg(name));
        said.is_ok_and(|status| status.trim() == "installed")
    };
    // Those of other architectures and virtual ones are told by their marks.
    Ok(text
        .lines()
        .filter(|line| line.starts_with(|it: char| it.is_ascii_alphanumeric()))
        .filter(|name| !name.contains(':') && !installed(name))
        .map(str::to_owned)
        .collect())
}

/// Fetches packages and unpacks them, into `root` of a directory in the cache.
pub(crate) fn unpack(packages: &[&str], directories: &Directories) -> Result<TempDir> {
    directories::create(&directories.cache)?;
    let work = tempfile::Builder::new()
        .prefix(".packages-")
        .tempdir_in(&directories.cache)
        .doing(|| format!("create a directory in {}", directories.cache.display()))?;
    if download(packages, work.path()).is_err() {
        // The package lists may be missing or old.
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        download(packages, work.path())?;
    }
    let root = work.path().join("root");
    for entry in std::fs::read_dir(work.path()).doing(|| "list packages".into())? {
        let path = entry.doing(|| "list packages".into())?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(&root))?;
        }
    }
    Ok(work)
}

fn download(packages: &[&str], into: &Path) -> Result<()> {
    let ran = run(Command::new("apt-get")
        .args(["download", "-qq"])
        .args(packages)
        .current_dir(into));
    match ran {
        Err(Error::Io { .. }) if !succeeds(Command::new("apt-get").arg("--version")) => {
            Err(Error::Refused(
                "apt-get is missing: what the lab does not build comes from Debian's or Ubuntu's packages"
                    .into(),
            ))
        }
        other => other.map(drop),
    }
}
