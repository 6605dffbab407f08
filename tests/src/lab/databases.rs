//! PostgreSQL and MariaDB, from the distribution's packages, unpacked into the cache with
//! the libraries that they need. They are not installed: packages start daemons.

use std::collections::BTreeSet;
use std::process::Command;

use super::command::run;
use super::directories::{self, Directories};
use super::error::{Doing, Error, Result};
use super::packages::unpack;

pub mod beside;
pub mod nats;
pub mod running;
pub mod server;

/// The packages to begin with. The first stands for the version that the release has.
const ROOTS: [&str; 2] = ["postgresql", "mariadb-server-core"];
/// What comes with the C library, and a compiler for queries, which is larger than all else.
const LEFT_OUT: [&str; 2] = ["libc6", "libllvm"];

/// The directory of the databases in the cache.
const NAME: &str = "databases";

/// The servers, to start them. The caller sees to it that they are there (`lab build
/// --databases`).
#[cfg(feature = "judges")]
pub fn programs(directories: &Directories) -> Result<server::Programs> {
    server::Programs::in_cache(&directories.cache).doing(|| "find the databases".into())
}

/// Whether the cache holds all of it.
pub fn are_unpacked(directories: &Directories) -> bool {
    let root = directories.cache.join(NAME);
    let versions = std::fs::read_dir(root.join("usr/lib/postgresql"));
    let postgres = versions
        .into_iter()
        .flatten()
        .flatten()
        .any(|version| version.path().join("bin/postgres").is_file());
    postgres && root.join("usr/sbin/mariadbd").is_file()
}

/// Fetches and unpacks the packages unless the cache holds them. The caller holds the
/// lock on the cache.
pub fn fetch(directories: &Directories, say: &mut dyn FnMut(&str)) -> Result<()> {
    if are_unpacked(directories) {
        return Ok(());
    }
    say("fetching PostgreSQL and MariaDB from the distribution (40 MB)");
    directories::create(&directories.cache)?;
    let packages = match closure() {
        Ok(packages) => packages,
        Err(_) => {
            // The package lists may be missing or old.
            run(Command::new("apt-get").args(["update", "-qq"]))?;
            closure()?
        }
    };
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    let work = unpack(&packages, directories)?;
    let root = directories.cache.join(NAME);
    let _ = std::fs::remove_dir_all(&root);
    std::fs::rename(work.path().join("root"), &root)
        .doing(|| format!("create {}", root.display()))?;
    if are_unpacked(directories) {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "the packages {} do not bring what is expected of them",
        packages.join(", ")
    )))
}

/// The servers and the libraries that they need, those that a machine has among them: other
/// versions of those need not fit.
fn closure() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut next: BTreeSet<String> = ROOTS.iter().map(|&root| root.to_owned()).collect();
    while !next.is_empty() {
        let depends = run(Command::new("apt-cache")
            .args([
                "depends",
                "--no-recommends",
                "--no-suggests",
                "--no-conflicts",
            ])
            .args(["--no-breaks", "--no-replaces", "--no-enhances"])
            .args(&next))?;
        found.extend(next);
        next = dependencies(&depends)
            .filter(|name| is_wanted(name) && !found.contains(*name))
            .map(str::to_owned)
            .collect();
    }
    // It brings nothing of its own.
    found.remove(ROOTS[0]);
    Ok(found)
}

/// The names in what `apt-cache depends` prints.
fn dependencies(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches('|'));
    lines.filter_map(|line| {
        let depends = line.strip_prefix("Depends: ");
        depends.or_else(|| line.strip_prefix("PreDepends: "))
    })
}

fn is_wanted(name: &str) -> bool {
    let versioned = name.strip_prefix("postgresql-");
    let server = versioned.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    let library = name.starts_with("lib") && !LEFT_OUT.iter().any(|it| name.starts_with(it));
    server || library
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_libraries_are_wanted() {
        let text = "postgresql-15\n |Depends: locales\n  Depends: locales-all\n  \
                    Depends: postgresql-common\n  Depends: libc6\n  Depends: libllvm14\n  \
                    Depends: libicu72\n  PreDepends: libpam0g\n    libother\n";
        let wanted: Vec<_> = dependencies(text).filter(|name| is_wanted(name)).collect();
        assert_eq!(wanted, ["libicu72", "libpam0g"]);
        assert!(is_wanted("postgresql-15") && !is_wanted("postgresql-client-15"));
    }
}
