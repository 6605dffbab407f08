//! A control group for each run.
//!
//! It serves two ends. Every process of a run is born in it, and so are their
//! children, which makes "kill all that belongs to this run" exact, whatever
//! was orphaned. And the kubelet gets a root of its own: two kubelets that
//! share one delete each other's pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::directories;
use super::error::{Doing, Error, Result};
use super::process;

/// The control groups of one run.
#[derive(Clone, Debug)]
pub struct Cgroup {
    name: String,
    /// One directory (version 2) or one for each controller (version 1).
    hierarchies: Vec<PathBuf>,
    version: Version,
}

/// Which kind of control groups the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller. What the lab is proven on.
    V1,
    /// One hierarchy.
    V2,
}

impl Cgroup {
    /// The groups of run `run`; creates nothing.
    pub fn of(run: &str) -> Result<Self> {
        let (version, hierarchies) = mounted(&directories::read(Path::new("/proc/self/mounts"))?)?;
        Ok(Self {
            name: format!("steward-lab-{run}"),
            hierarchies,
            version,
        })
    }

    /// The groups of a worker host, within those of the run: whoever ends the
    /// run ends them too.
    pub fn of_worker(run: &str, number: u8) -> Result<Self> {
        let mut groups = Self::of(run)?;
        groups.name.push_str(&format!("/w{number}"));
        Ok(groups)
    }

    /// Which kind of control groups the machine has.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The kubelet's `cgroupRoot`.
    pub fn kubelet_root(&self) -> String {
        format!("/{}/k8s", self.name)
    }

    /// The directory whose `cgroup.procs` the run's own programs join.
    pub fn programs(&self) -> PathBuf {
        self.tracking().join("lab")
    }

    /// Creates the groups in every hierarchy.
    pub fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let group = hierarchy.join(&self.name);
            for (parent, path) in [
                (hierarchy.as_path(), group.clone()),
                (group.as_path(), group.join("k8s")),
                (group.as_path(), group.join("lab")),
            ] {
                directories::create(&path)?;
                match self.version {
                    Version::V1 => inherit_cpuset(parent, &path)?,
                    Version::V2 => delegate(parent)?,
                }
            }
        }
        Ok(())
    }

    /// Kills every process in the groups, children first or not: all get
    /// SIGKILL again and again until none is left.
    pub fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut left = Vec::new();
            // Every hierarchy: whoever moved out of one is found in another.
            for hierarchy in &self.hierarchies {
                collect(&hierarchy.join(&self.name), &mut left);
            }
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Refused(format!(
                    "processes of {} do not end: {left:?}",
                    self.name
                )));
            }
            process::signal(&left, "KILL");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes the groups. They must be empty.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        for hierarchy in &self.hierarchies {
            let group = hierarchy.join(&self.name);
            // The kernel lets go of a group shortly after its last process.
            while let Err(source) = remove_tree(&group) {
                if Instant::now() > deadline {
                    return Err(source).doing(|| format!("remove {}", group.display()));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn tracking(&self) -> PathBuf {
        let chosen = self
            .hierarchies
            .iter()
            .find(|path| path.ends_with("pids"))
            .or_else(|| self.hierarchies.first());
        // `mounted` refuses a machine without hierarchies.
        chosen.map_or_else(PathBuf::new, |path| path.join(&self.name))
    }
}

/// Reads the mount table: the hierarchies that hold controllers.
fn mounted(mounts: &str) -> Result<(Version, Vec<PathBuf>)> {
    let of_type = |kind: &str| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = mounts
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ').skip(1);
                let path = fields.next()?;
                (fields.next()? == kind).then(|| PathBuf::from(path))
            })
            .collect();
        paths.sort();
        paths.dedup();
        paths
    };
    let mut v1 = of_type("cgroup");
    let v2 = of_type("cgroup2");
    if v1.iter().any(|path| path.ends_with("memory")) {
        // runc joins the controllerless second version beside the first.
        v1.extend(v2);
        return Ok((Version::V1, v1));
    }
    if v2.is_empty() {
        return Err(Error::Refused(
            "no control groups are mounted under /sys/fs/cgroup".into(),
        ));
    }
    Ok((Version::V2, v2.into_iter().take(1).collect()))
}

/// A new v1 cpuset is empty and takes no process until it is given CPUs.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.join(file).exists() {
            let value = directories::read(&parent.join(file))?;
            fs::write(child.join(file), value)
                .doing(|| format!("write {}", child.join(file).display()))?;
        }
    }
    Ok(())
}

/// Hands all controllers down to the children of a v2 group.
fn delegate(parent: &Path) -> Result<()> {
    let controllers = directories::read(&parent.join("cgroup.controllers"))?;
    let wanted: Vec<String> = controllers
        .split_whitespace()
        .map(|controller| format!("+{controller}"))
        .collect();
    let file = parent.join("cgroup.subtree_control");
    for controller in wanted {
        // Some (cpu with real-time processes) are refused; the kubelet names
        // what it misses.
        let _ = fs::write(&file, &controller);
    }
    Ok(())
}

fn collect(group: &Path, into: &mut Vec<u32>) {
    if let Ok(text) = fs::read_to_string(group.join("cgroup.procs")) {
        into.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    for child in children(group) {
        collect(&child, into);
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    for child in children(group) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchies_of_both_versions() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                  cgroup /sys/fs/cgroup/memory cgroup rw 0 0\n\
                  cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let (version, paths) = mounted(v1).unwrap();
        assert_eq!(version, Version::V1);
        assert_eq!(paths.len(), 3);
        let hybrid = "cgroup /sys/fs/cgroup/net_cls cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let (version, paths) = mounted(hybrid).unwrap();
        assert_eq!(version, Version::V2);
        assert_eq!(paths, [PathBuf::from("/sys/fs/cgroup")]);
        assert!(mounted("tmpfs /tmp tmpfs rw 0 0\n").is_err());
    }
}
