//! Which crate may use which, and which part of the controller may use which other
//! (docs: explanation/architecture.md).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}

#[test]
fn crates_use_each_other_as_drawn() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "cargo metadata");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    let uses: BTreeMap<&str, BTreeSet<&str>> = packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let all = dependencies
                .filter(|it| it["kind"].is_null())
                .map(|it| it["name"].as_str().unwrap())
                .filter(|name| ours.contains(name));
            (package["name"].as_str().unwrap(), all.collect())
        })
        .collect();
    let drawn = BTreeMap::from([
        ("apiservice", BTreeSet::new()),
        ("storage", BTreeSet::new()),
        ("telemetry", BTreeSet::from(["apiservice"])),
        (
            "apiserver",
            BTreeSet::from(["apiservice", "storage", "telemetry"]),
        ),
        (
            "controller",
            BTreeSet::from(["apiservice", "storage", "telemetry"]),
        ),
        (
            "tests",
            BTreeSet::from(["apiserver", "apiservice", "controller", "storage"]),
        ),
    ]);
    assert_eq!(uses, drawn);
}

/// The parts of the controller; each may use those before it.
const PARTS: [&str; 18] = [
    "process",
    "cluster",
    "tenant",
    "report",
    "datastores",
    "facts",
    "assignments",
    "fleet",
    "context",
    "inside",
    "apply",
    "observe",
    "reconcile",
    "migrations",
    "sizes",
    "supervisor",
    "args",
    "run",
];

/// What is not so yet: a file, and the later part that it uses. Take out what you mend.
const EXCEPTIONS: [(&str, &str); 19] = [
    ("cluster/looks.rs", "context"),
    ("cluster/watches.rs", "context"),
    ("cluster/watches.rs", "datastores"),
    ("context.rs", "apply"),
    ("datastores.rs", "apply"),
    ("datastores.rs", "context"),
    ("datastores/access.rs", "context"),
    ("datastores/access.rs", "facts"),
    ("datastores/drain.rs", "context"),
    ("datastores/observer.rs", "context"),
    ("datastores/observer.rs", "facts"),
    ("datastores/setup.rs", "args"),
    ("fleet.rs", "context"),
    ("process/health.rs", "context"),
    ("process/metrics.rs", "context"),
    ("process/metrics.rs", "datastores"),
    ("process/metrics.rs", "fleet"),
    ("process/metrics.rs", "report"),
    ("process/timing.rs", "tenant"),
];

/// The parts that a file of the controller uses outside its tests: the first names of
/// paths from the crate's root, also in `crate::{these, three::names, here}`.
fn used(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let first = |path: &str| {
        let path = path.trim_start().chars();
        path.take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut used = BTreeSet::new();
    for (at, start) in text.match_indices("crate::") {
        let rest = &text[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or(list);
                used.extend(list.split(',').map(first));
            }
            None => drop(used.insert(first(rest))),
        }
    }
    used
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// The parts are those of `lib.rs`, in one order without a circle.
#[test]
fn parts_of_the_controller_use_what_comes_before_them() {
    let source = root().join("controller/src");
    let lib = std::fs::read_to_string(source.join("lib.rs")).unwrap();
    let there: BTreeSet<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(|name| name.trim_end_matches(';'))
        .collect();
    assert_eq!(there, BTreeSet::from(PARTS), "PARTS and lib.rs");
    let place = |part: &str| PARTS.iter().position(|it| *it == part);
    let mut all = Vec::new();
    files(&source, &mut all);
    let mut backward = BTreeSet::new();
    for path in all {
        let name = path
            .strip_prefix(&source)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let part = name.split(['/', '.']).next().unwrap();
        let test = [
            "testing",
            "tests",
            "scenarios",
            "repairs",
            "removals",
            "renewals",
            "rollouts",
            "exposures",
        ];
        let stem = path.file_stem().unwrap().to_string_lossy();
        let Some(mine) = place(part).filter(|_| !test.contains(&stem.as_ref())) else {
            continue;
        };
        for other in used(&std::fs::read_to_string(&path).unwrap()) {
            if place(&other).is_some_and(|theirs| theirs > mine) {
                backward.insert((name.clone(), other));
            }
        }
    }
    let known = EXCEPTIONS.map(|(file, part)| (file.to_owned(), part.to_owned()));
    assert_eq!(backward, BTreeSet::from(known));
}
