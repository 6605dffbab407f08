//! Where the lab keeps things: a cache that outlives runs and clones, and a
//! directory for each run.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::error::{Doing, Error, Result};

/// The lab's two roots.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Built programs, packages and images; safe to delete at any time when
    /// no run is up.
    pub cache: PathBuf,
    /// Runs, their lock, and the logs of failed runs.
    pub state: PathBuf,
}

impl Directories {
    /// `${XDG_CACHE_HOME:-~/.cache}/steward-lab` and
    /// `${STEWARD_LAB_DIR:-/var/lib/steward-lab}`.
    #[allow(
        clippy::disallowed_methods,
        reason = "tests have no command line to declare these on"
    )]
    pub fn from_environment() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
            .ok_or_else(|| Error::Refused("neither XDG_CACHE_HOME nor HOME is set".into()))?
            .join("steward-lab");
        let state = set("STEWARD_LAB_DIR")
            .map_or_else(|| PathBuf::from("/var/lib/steward-lab"), PathBuf::from);
        for path in [&cache, &state] {
            if !path.is_absolute() {
                return Err(Error::Refused(format!(
                    "{} is not an absolute path",
                    path.display()
                )));
            }
        }
        Ok(Self { cache, state })
    }

    /// Takes the cache for the calling process, and removes what builds that
    /// were killed have left in it. The lock ends with the value.
    pub fn lock_cache(&self, say: &mut dyn FnMut(&str)) -> Result<File> {
        create(&self.cache)?;
        let path = self.cache.join("lock");
        let file = File::create(&path).doing(|| format!("create {}", path.display()))?;
        if file.try_lock().is_err() {
            say("another process is building; waiting for it");
            file.lock().doing(|| format!("lock {}", path.display()))?;
        }
        let left = std::fs::read_dir(&self.cache)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"."));
        for entry in left {
            let path = entry.path();
            std::fs::remove_dir_all(&path).doing(|| format!("remove {}", path.display()))?;
        }
        Ok(file)
    }

    /// All runs, each in a directory with its name.
    pub fn runs(&self) -> PathBuf {
        self.state.join("runs")
    }

    /// The directory of one run.
    pub fn run(&self, name: &str) -> RunDirectory {
        RunDirectory(self.runs().join(name))
    }

    /// Logs of runs that did not come up, kept until the next few failures.
    pub fn failed(&self) -> PathBuf {
        self.state.join("failed")
    }
}

/// The directory of one run and the fixed places in it.
#[derive(Clone, Debug)]
pub struct RunDirectory(PathBuf);

impl RunDirectory {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// What the next run needs to know to clean up after this one.
    pub fn record(&self) -> PathBuf {
        self.0.join("run.json")
    }
    /// A bind mount of the run's network namespace.
    pub fn network(&self) -> PathBuf {
        self.0.join("net")
    }
    /// One file for each program.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }
    /// The log of one program.
    pub fn log(&self, program: &str) -> PathBuf {
        self.logs().join(format!("{program}.log"))
    }
    /// The management API server's audit log (Metadata level).
    pub fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }
    /// One file for each program: process id and start time.
    pub fn processes(&self) -> PathBuf {
        self.0.join("processes")
    }
    /// Certificates and keys, with kubeadm's file names.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }
    /// kubeconfigs of the programs.
    pub fn kubeconfigs(&self) -> PathBuf {
        self.0.join("kubeconfigs")
    }
    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }
    /// Configuration files of the programs.
    pub fn configuration(&self) -> PathBuf {
        self.0.join("etc")
    }
    /// etcd's data.
    pub fn etcd(&self) -> PathBuf {
        self.0.join("etcd")
    }
    /// What the node writes: containerd's root, kubelet's root, pods' logs.
    pub fn node(&self) -> PathBuf {
        self.0.join("node")
    }
    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.node().join("containerd.sock")
    }
    /// What a worker host writes.
    pub fn worker(&self, number: u8) -> PathBuf {
        self.workers().join(number.to_string())
    }
    /// Worker hosts, one directory each.
    pub fn workers(&self) -> PathBuf {
        self.0.join("workers")
    }
    /// PersistentVolumes, one directory each.
    pub fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// Creates the directories that every run has.
    pub fn create(&self) -> Result<()> {
        for path in [
            self.logs(),
            self.processes(),
            self.pki(),
            self.kubeconfigs(),
            self.configuration(),
        ] {
            create(&path)?;
        }
        Ok(())
    }
}

/// Creates a directory with its parents.
pub(crate) fn create(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).doing(|| format!("create {}", path.display()))
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).doing(|| format!("read {}", path.display()))
}

/// Writes a file whole: a reader sees the old content or the new.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, content)
        .and_then(|()| std::fs::rename(&temporary, path))
        .doing(|| format!("write {}", path.display()))
}
