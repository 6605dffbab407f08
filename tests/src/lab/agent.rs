//! The process that tends a run: it gives volumes and addresses, and removes
//! the run when the process that wanted it is gone.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::cluster::{Lab, Level};
use super::directories::Directories;
use super::error::{Doing, Error, Result};
use super::process::{self, Process};
use super::record::{self, Lock, Record};
use super::{load_balancers, volumes};

/// Starts the agent of a run as a process of its own.
///
/// It is not in the run's control group, so that it can remove the run.
pub(crate) fn start(lab: &Lab) -> Result<Process> {
    let mut agent = Command::new(program()?);
    agent.args(["agent", "--name", lab.name()]);
    process::spawn(agent, "agent", lab.directory())
}

/// The `lab` program: this process, or the one that cargo built beside the
/// test that is running.
fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STEWARD_LAB_PROGRAM") {
        return Ok(path.into());
    }
    let me = std::env::current_exe().doing(|| "find this program".into())?;
    if me.file_name() == Some(OsStr::new("lab")) {
        return Ok(me);
    }
    me.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("lab"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::Refused(
                "the program `lab` is not built: `make lab`, or name it in STEWARD_LAB_PROGRAM"
                    .into(),
            )
        })
}

/// Tends the run called `name` until it is gone.
pub async fn run(name: &str) -> Result<()> {
    let lab = Lab::attach(name).await?;
    let ended = ended(&lab);
    if lab.level() == Level::Api {
        return ended.await;
    }
    tokio::select! {
        result = ended => result,
        () = volumes::provide(&lab) => Ok(()),
        () = load_balancers::assign(&lab) => Ok(()),
    }
}

/// Waits for the end of the run, and brings it about once its owner is gone.
async fn ended(lab: &Lab) -> Result<()> {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let Ok(record) = Record::read(lab.directory()) else {
            return Ok(());
        };
        if record.owner.is_some_and(|owner| !owner.alive()) {
            return remove(lab.directories(), &record.name);
        }
    }
}

fn remove(directories: &Directories, name: &str) -> Result<()> {
    let lock = Lock::take(directories)?;
    // Somebody else may have removed it, and the name may be in use again.
    match Record::read(&directories.run(name)) {
        Ok(record) if record.agent.map(|agent| agent.pid) == Some(std::process::id()) => {
            record::remove(directories, &lock, name)
        }
        _ => Ok(()),
    }
}

/// Does `pass` now, after each change that a watch reports, and every ten
/// seconds. What fails is printed and done again.
pub(crate) async fn keep<K, F>(api: kube::Api<K>, what: &str, mut pass: impl FnMut() -> F)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
    F: Future<Output = Result<()>>,
{
    use futures::StreamExt;
    use kube::runtime::WatchStreamExt;
    let changes = kube::runtime::watcher(api, Default::default())
        .default_backoff()
        .touched_objects();
    let mut changes = std::pin::pin!(changes.ready_chunks(64));
    loop {
        if let Err(error) = pass().await {
            eprintln!("{what}: {error}");
        }
        // The end of a watch, an error of it and a change all mean the same:
        // look again.
        let _ = tokio::time::timeout(Duration::from_secs(10), changes.next()).await;
    }
}
