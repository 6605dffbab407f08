//! What a run writes down about itself, so that the next run can clean up
//! after it however it ended, and what the machine gets back afterwards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::cluster::Level;
use super::command::succeeds;
use super::directories::{self, Directories, RunDirectory};
use super::error::{Doing, Error, Result};
use super::network::{self, Addresses};
use super::process::ProcessId;

/// The name of a run: part of names of interfaces, groups and directories.
pub const LONGEST_NAME: usize = 10;

/// One run, as its directory's `run.json` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Which address range it has.
    pub slot: u8,
    /// What it consists of.
    pub level: Level,
    /// The process for which it exists: a test, or `lab up` until it is done.
    pub owner: Option<ProcessId>,
    /// The process that tends it and removes it when its owner ends.
    pub agent: Option<ProcessId>,
    /// Whether it came up whole.
    pub ready: bool,
}

impl Record {
    /// Reads a run's record.
    pub fn read(directory: &RunDirectory) -> Result<Self> {
        let path = directory.record();
        serde_json::from_str(&directories::read(&path)?)
            .map_err(|error| Error::Refused(format!("{}: {error}", path.display())))
    }

    /// Writes it.
    pub fn write(&self, directory: &RunDirectory) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| Error::Refused(error.to_string()))?;
        directories::write(&directory.record(), text)
    }

    /// Its addresses.
    pub fn addresses(&self) -> Addresses {
        Addresses::of_slot(self.slot)
    }

    /// Whether anybody still wants it. A run whose owner and agent were both
    /// killed is a ruin.
    pub fn wanted(&self) -> bool {
        [self.owner, self.agent]
            .into_iter()
            .flatten()
            .any(ProcessId::alive)
    }
}

/// The lock that all that creates or removes runs holds.
pub struct Lock(#[allow(dead_code, reason = "held, not used")] File);

impl Lock {
    /// Waits for the lock.
    pub fn take(directories: &Directories) -> Result<Self> {
        directories::create(&directories.runs())?;
        let path = directories.state.join("lock");
        let file = File::create(&path).doing(|| format!("create {}", path.display()))?;
        file.lock().doing(|| format!("lock {}", path.display()))?;
        Ok(Self(file))
    }
}

/// Waits until no other run is starting. Side by side, starts only slow each
/// other down, until a deadline that is ample for one is missed by all.
pub async fn take_turn(directories: &Directories, say: &mut dyn FnMut(&str)) -> Result<File> {
    directories::create(&directories.state)?;
    let path = directories.state.join("starting");
    let file = File::create(&path).doing(|| format!("create {}", path.display()))?;
    let mut said = false;
    while file.try_lock().is_err() {
        if !said {
            say("another run is starting; waiting for it");
            said = true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(file)
}

/// The names of all runs that left a directory.
pub fn names(directories: &Directories) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directories.runs())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Claims a name and an address range for a new run.
pub fn claim(
    directories: &Directories,
    _lock: &Lock,
    name: &str,
    level: Level,
    owner: ProcessId,
) -> Result<Record> {
    let fits = (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !fits {
        return Err(Error::Refused(format!(
            "{name:?} is no name for a run: 1 to {LONGEST_NAME} of a-z and 0-9"
        )));
    }
    let directory = directories.run(name);
    if directory.path().exists() {
        return Err(Error::Refused(format!(
            "a run called {name} is up already: `lab down --name {name}` removes it"
        )));
    }
    let mut taken = network::occupied()?;
    taken.extend(
        names(directories)
            .iter()
            .filter_map(|name| Record::read(&directories.run(name)).ok())
            .map(|record| record.slot),
    );
    let slot = (0..network::SLOTS)
        .find(|slot| !taken.contains(slot))
        .ok_or_else(|| {
            Error::Refused(
                "no addresses are free: 198.18.0.0/15 is routed elsewhere, or too many runs are up"
                    .into(),
            )
        })?;
    directories::create(directory.path())?;
    let record = Record {
        name: name.to_owned(),
        slot,
        level,
        owner: Some(owner),
        agent: None,
        ready: false,
    };
    record.write(&directory)?;
    directory.create()?;
    Ok(record)
}

/// Removes what runs have left that nobody wants any more.
pub fn sweep(directories: &Directories, lock: &Lock) -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for name in names(directories) {
        let record = Record::read(&directories.run(&name)).ok();
        if record.is_none_or(|record| !record.wanted()) {
            remove(directories, lock, &name)?;
            swept.push(name);
        }
    }
    Ok(swept)
}

/// Removes a run: its agent, processes, cable, mounts, groups and files.
/// Whatever is gone already is no error.
pub fn remove(directories: &Directories, lock: &Lock, name: &str) -> Result<()> {
    let directory = directories.run(name);
    if let Ok(record) = Record::read(&directory)
        && let Some(agent) = record.agent
        && agent.pid != std::process::id()
    {
        agent.kill();
    }
    let cgroup = Cgroup::of(name)?;
    cgroup.kill()?;
    network::remove(&directory, name);
    unmount_below(directory.path())?;
    cgroup.remove()?;
    match fs::remove_dir_all(directory.path()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).doing(|| format!("remove {}", directory.path().display()));
        }
        _ => {}
    }
    if names(directories).is_empty() {
        restore_limits(directories, lock)?;
    }
    Ok(())
}

/// Keeps the logs of a run that is about to be removed; the newest five stay.
pub fn keep_logs(directories: &Directories, name: &str) -> Result<PathBuf> {
    let failed = directories.failed();
    directories::create(&failed)?;
    let mut kept: Vec<PathBuf> = fs::read_dir(&failed)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    kept.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
    for old in kept.iter().rev().skip(4) {
        let _ = fs::remove_dir_all(old);
    }
    let target = failed.join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&target);
    let logs = directories.run(name).logs();
    fs::rename(&logs, &target).doing(|| format!("keep {}", logs.display()))?;
    Ok(target)
}

/// Unmounts everything at or below a path, the last mount first.
fn unmount_below(path: &Path) -> Result<()> {
    let table = directories::read(Path::new("/proc/self/mounts"))?;
    let mounts: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|mount| Path::new(mount).starts_with(path))
        .collect();
    for mount in mounts.iter().rev() {
        succeeds(Command::new("umount").arg("--lazy").arg(mount));
    }
    Ok(())
}

const INOTIFY_INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";
/// A tenant's three programs hold about twelve, and all count as root's.
const INOTIFY_WANTED: u64 = 8192;

/// Raises the machine-wide limits that many programs under one user exhaust,
/// and notes what they were.
pub fn raise_limits(directories: &Directories, _lock: &Lock) -> Result<()> {
    let note = directories.state.join("max_user_instances");
    let current = directories::read(Path::new(INOTIFY_INSTANCES))?;
    let enough = current
        .trim()
        .parse::<u64>()
        .is_ok_and(|n| n >= INOTIFY_WANTED);
    if enough {
        return Ok(());
    }
    // Nobody else's value is noted as the machine's own.
    if !note.exists() {
        directories::write(&note, &current)?;
    }
    fs::write(INOTIFY_INSTANCES, INOTIFY_WANTED.to_string())
        .doing(|| format!("write {INOTIFY_INSTANCES}"))
}

fn restore_limits(directories: &Directories, _lock: &Lock) -> Result<()> {
    let note = directories.state.join("max_user_instances");
    if !note.exists() {
        return Ok(());
    }
    fs::write(INOTIFY_INSTANCES, directories::read(&note)?)
        .doing(|| format!("write {INOTIFY_INSTANCES}"))?;
    fs::remove_file(&note).doing(|| format!("remove {}", note.display()))
}
