//! Which crate may use which, and inside a crate which room may use which other
//! (docs: explanation/architecture.md). A room is a module of `lib.rs`: a file, a folder, or
//! both.

#[path = "layering/circles.rs"]
mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use apiservice::v1alpha1::Driver;
use serde_json::Value;
use storage::tenancy::Connection;

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

/// How a crate is built of rooms.
struct House {
    name: &'static str,
    /// Each may use those before it.
    rooms: &'static [&'static str],
    /// What is not so yet: a file, and the later room that it uses. Take out what you mend.
    exceptions: &'static [(&'static str, &'static str)],
}

const APISERVICE: House = House {
    name: "apiservice",
    rooms: &[
        "told",
        "bulk",
        "number",
        "time",
        "legible",
        "duration",
        "clock",
        "names",
        "forms",
        "condition",
        "endpoint",
        "pki",
        "version",
        "admission_plugins",
        "field",
        "schema",
        "rule",
        "resource",
        "meta",
        "v1alpha1",
        "assignment",
        "crd",
        "discovery",
        "openapi",
        "registration",
    ],
    exceptions: &[],
};

const APISERVER: House = House {
    name: "apiserver",
    rooms: &[
        "warnings",
        "status",
        "target",
        "object",
        "selector",
        "options",
        "protobuf",
        "decode",
        "accept",
        "merge",
        "managed",
        "stored",
        "table",
        "documents",
        "metrics",
        "kubeconfig",
        "reviews",
        "review_cache",
        "watched",
        "namespaces",
        "buckets",
        "pool",
        "turns",
        "live_bytes",
        "aside",
        "whole_body",
        "trust",
        "authn",
        "limits",
        "authz",
        "reader",
        "cache",
        "quota",
        "audit",
        "spans",
        "admission",
        "policy",
        "respond",
        "registry",
        "subresource",
        "health",
        "store_guard",
        "response_body",
        "sending",
        "pipeline",
        "args",
        "encryption",
        "serving_pair",
        "tls",
        "registration",
        "linger",
        "server",
        "run",
    ],
    exceptions: &[],
};

const CONTROLLER: House = House {
    name: "controller",
    rooms: &[
        "process",
        "cluster",
        "tenant",
        "args",
        "relay",
        "report",
        "facts",
        "assignments",
        "fleet",
        "write_history",
        "datastores",
        "context",
        "inside",
        "apply",
        "observers",
        "observe",
        "reconcile",
        "migrations",
        "sizes",
        "scrape",
        "supervisor",
        "import",
        "run",
    ],
    exceptions: &[],
};

const STORAGE: House = House {
    name: "storage",
    rooms: &["seal", "log", "sqlite", "tenancy", "moving"],
    exceptions: &[],
};

impl House {
    fn source(&self) -> PathBuf {
        root().join(self.name).join("src")
    }

    fn lib(&self) -> String {
        std::fs::read_to_string(self.source().join("lib.rs")).unwrap()
    }

    /// The modules of `lib.rs`, without those that are there for tests.
    fn modules(&self) -> BTreeSet<String> {
        let modules = declared(&self.lib()).into_iter();
        let modules = modules.filter(|(_, for_tests)| !for_tests);
        modules.map(|(module, _)| module).collect()
    }

    /// The rooms by whose names `lib.rs` gives away what is in others: `pub use log::Entry;`.
    fn given_away(&self) -> BTreeMap<String, String> {
        let lib = self.lib();
        let mut given = BTreeMap::new();
        for item in lib.split("pub use ").skip(1) {
            let path = item.split(';').next().unwrap();
            if let Some((room, names)) = path.split_once("::") {
                let names = names.trim_matches(['{', '}']).split(',');
                given.extend(names.map(|name| (name.trim().to_owned(), room.to_owned())));
            }
        }
        given
    }

    /// Its files, by their names.
    fn texts(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        files(&self.source(), &mut all);
        let all = all.iter().map(|path| {
            let name = path.strip_prefix(self.source()).unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            (name.to_string_lossy().into_owned(), text)
        });
        all.collect()
    }

    /// A file, and the later room that it uses.
    fn backward(&self) -> BTreeSet<(String, String)> {
        let place = |room: &str| self.rooms.iter().position(|it| *it == room);
        let given = self.given_away();
        let all = self.texts();
        let mut for_tests = BTreeSet::new();
        for (name, text) in &all {
            let (module, tests) = (module(name), declared(text).into_iter());
            let tests = tests.filter(|(_, for_tests)| *for_tests);
            for_tests.extend(tests.map(|(test, _)| format!("{module}{test}/")));
        }
        let mut backward = BTreeSet::new();
        for (name, text) in &all {
            let module = module(name);
            let Some(mine) = module.split('/').next().and_then(place) else {
                continue;
            };
            if for_tests.iter().any(|test| module.starts_with(test)) {
                continue;
            }
            for other in used(text, module.matches('/').count()) {
                let other = given.get(&other).unwrap_or(&other);
                if place(other).is_some_and(|theirs| theirs > mine) {
                    backward.insert((name.clone(), other.clone()));
                }
            }
        }
        backward
    }

    fn check(&self) {
        let rooms: BTreeSet<String> = self.rooms.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(self.modules(), rooms, "{}: rooms and lib.rs", self.name);
        let known = self.exceptions.iter();
        let known: BTreeSet<_> = known
            .map(|(file, room)| ((*file).to_owned(), (*room).to_owned()))
            .collect();
        assert_eq!(self.backward(), known, "{}: uses a later room", self.name);
    }
}

/// The module of a file: `tenant/pki/`, and of the crate's root nothing.
fn module(file: &str) -> String {
    match file.trim_end_matches(".rs").trim_end_matches("/mod") {
        "lib" | "main" => String::new(),
        module => format!("{module}/"),
    }
}

/// The modules that a file declares, and whether they are there for tests only.
fn declared(text: &str) -> Vec<(String, bool)> {
    let mut modules = Vec::new();
    let mut for_tests = false;
    for line in text.lines() {
        let item = match line.strip_prefix("pub") {
            Some(rest) => rest
                .trim_start_matches("(crate)")
                .trim_start_matches("(super)"),
            None => line,
        };
        if let Some(name) = item.trim_start().strip_prefix("mod ")
            && let Some(name) = name.strip_suffix(';')
        {
            modules.push((name.to_owned(), for_tests));
        }
        for_tests = line == "#[cfg(test)]" || for_tests && line.starts_with("#[");
    }
    modules
}

/// A file without its tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// The rooms that a file uses outside its tests: the first names of paths from the crate's
/// root, also in `crate::{these, three::names, here}`. The file is so many levels below it:
/// that many times `super` is the root as well.
fn used(text: &str, levels: usize) -> BTreeSet<String> {
    let code = code(text);
    let first = |path: &str| {
        let path = path.trim_start().chars();
        path.take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let supers = "super::".repeat(levels);
    let mut used = BTreeSet::new();
    for root in ["crate::", &supers] {
        for (at, start) in code.match_indices(root) {
            let rest = &code[at + start.len()..];
            match rest.strip_prefix('{') {
                Some(list) => used.extend(listed(list).map(first)),
                None => drop(used.insert(first(rest))),
            }
        }
    }
    used
}

/// The paths of `a, b::{c, d}, e}`.
fn listed(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let depth_after = |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth
    };
    let depths: Vec<i32> = list.chars().map(depth_after).collect();
    let end = depths.iter().position(|it| *it < 0).unwrap_or(depths.len());
    let end = list
        .char_indices()
        .nth(end)
        .map_or(list.len(), |(at, _)| at);
    let mut depths = depths.into_iter();
    list[..end].split(move |c| depths.next() == Some(0) && c == ',')
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

/// Rooms are those of `lib.rs`, in one order without a circle.
#[test]
fn rooms_use_what_comes_before_them() {
    for house in [APISERVICE, STORAGE, APISERVER, CONTROLLER] {
        house.check();
    }
}

/// What a file uses does not lead back to it, but where it is known to.
#[test]
fn files_go_round_in_known_circles_only() {
    for (name, known) in circles::KNOWN {
        let known = known
            .iter()
            .map(|circle| circle.iter().map(|file| (*file).to_owned()));
        let known: BTreeSet<Vec<String>> = known.map(Iterator::collect).collect();
        let found = circles::of(&root().join(name).join("src"));
        assert_eq!(found, known, "{name}: circles, and those of circles::KNOWN");
    }
}

/// The tables of the architecture page have all rooms, in that order.
#[test]
fn rooms_are_drawn() {
    let page = root().join("docs/src/explanation/architecture.md");
    let page = std::fs::read_to_string(page).unwrap();
    for house in [APISERVICE, STORAGE, APISERVER, CONTROLLER] {
        let chapters = page.split("\n## ");
        let mut chapters = chapters.filter(|it| it.starts_with(&format!("{}:", house.name)));
        let rows = chapters.next().unwrap().lines();
        let rooms = rows.filter_map(|row| row.strip_prefix("| `")?.split('|').next());
        let rooms = rooms.flat_map(|names| names.split(','));
        let rooms = rooms.map(|name| name.trim_matches([' ', '`', '/']).trim_end_matches(".rs"));
        assert_eq!(rooms.collect::<Vec<_>>(), house.rooms, "{}", house.name);
    }
}

/// Neither of the two uses the other: what both say of a driver is the same.
#[test]
fn drivers_are_the_same_to_both() {
    // Nobody is asked: they only have to look like an administrator's.
    let credentials = "-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n";
    let seed = format!("SO{}F7TI", "A".repeat(52));
    let all = Driver::BUILT.replace(" or ", ", ");
    for name in all.split(", ") {
        let driver: Driver = serde_json::from_value(name.into()).unwrap();
        assert!(driver.is_built(), "{name}");
        let tenancy = storage::tenancy::connect(Connection {
            driver: driver.as_str().to_owned(),
            endpoints: vec!["127.0.0.1:1".to_owned()],
            ca_pem: None,
            client_cert: None,
            client_key: None,
            username: Some(credentials.to_owned()),
            password: Some(seed.clone()),
            deadline: Connection::DEADLINE,
        });
        let through_kine = tenancy.unwrap().through_kine();
        assert_eq!(through_kine, driver.is_through_kine(), "{name}");
    }
}

/// A further driver is a row there, and a module of `storage::tenancy`.
#[test]
fn drivers_are_told_apart_in_one_place() {
    let names = Driver::BUILT.replace(" or ", ", ");
    let named = names.split(", ").map(|name| {
        let driver: Driver = serde_json::from_value(name.into()).unwrap();
        format!("Driver::{driver:?}")
    });
    let named: Vec<String> = named.collect();
    let mut all = Vec::new();
    files(&CONTROLLER.source(), &mut all);
    let tells = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let code = code(&text);
        named.iter().any(|name| code.contains(name.as_str()))
    };
    all.retain(tells);
    let in_tests = |path: &PathBuf| path.iter().any(|it| it == "tests" || it == "tests.rs");
    all.retain(|path| !in_tests(path));
    let home = CONTROLLER.source().join("tenant/backing/drivers.rs");
    assert_eq!(all, [home]);
}

#[test]
fn paths_are_read() {
    let text = "use crate::{a, b::{c, d}, e};\nuse super::super::f::g;\n// crate::h\n\
        fn x() { crate::i::j() }\n#[cfg(test)]\nmod tests {\n use crate::k;\n}";
    let names = |levels| used(text, levels).into_iter().collect::<Vec<_>>();
    assert_eq!(names(2), ["a", "b", "e", "f", "i"]);
    assert_eq!(names(3), ["a", "b", "e", "i"]);
}
