//! What the machine lacks, and how long the rest will take.

use std::process::{Command, Stdio};

use super::cgroup::{Cgroup, Version};
use super::directories::Directories;
use super::error::{Doing, Error, Result};
use super::packages::Packages;
use super::programs;

/// The one list of requirements. It is a shell script, so that it also works
/// where there is no cargo yet.
const SCRIPT: &str = include_str!("../../preflight.sh");

/// Prints everything that is missing; fails if anything is.
pub fn check(directories: &Directories) -> Result<()> {
    let status = Command::new("sh")
        .arg("-c")
        .arg(SCRIPT)
        .arg("tests/preflight.sh")
        .stdin(Stdio::null())
        .status()
        .doing(|| "run sh".into())?;
    if !status.success() {
        return Err(Error::Refused("the machine lacks something".into()));
    }
    if Cgroup::of("preflight")?.version() == Version::V2 {
        println!("note: this machine has control groups version 2; the lab is proven on version 1");
    }
    let missing: Vec<_> = programs::ALL
        .iter()
        .filter(|program| !program.is_built(directories))
        .collect();
    let seconds: u64 = missing
        .iter()
        .map(|program| program.expected().as_secs())
        .sum();
    if missing.is_empty() && Packages::of(directories).are_unpacked() {
        println!(
            "the programs of the cluster are in {}",
            directories.cache.display()
        );
    } else {
        println!(
            "to build, once for this machine: {} (about {} min with two cores)",
            missing
                .iter()
                .map(|program| program.name)
                .collect::<Vec<_>>()
                .join(", "),
            seconds.div_ceil(60)
        );
    }
    Ok(())
}
