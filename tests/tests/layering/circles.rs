//! Which files of a room use each other in a circle that goes through several of its folders:
//! none of these can be read without the others.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, declared, listed, module};

/// The modules of a crate, each by its path (`tenant/pki/terms`), with what they use.
pub struct Modules {
    /// Without those that are there for tests.
    code: BTreeMap<String, String>,
    /// The names by which a module gives away what is in others.
    given: BTreeMap<(String, String), Vec<String>>,
}

impl Modules {
    /// Of files, by their names.
    pub fn of(files: &[(String, String)]) -> Self {
        let path = |name: &str| module(name).trim_end_matches('/').to_owned();
        let mut for_tests = BTreeSet::new();
        for (name, text) in files {
            let tests = declared(text).into_iter().filter(|(_, tests)| *tests);
            for_tests.extend(tests.map(|(test, _)| format!("{}/{test}", path(name))));
        }
        let is_test = |path: &str| {
            let of = |test: &String| path == test || path.starts_with(&format!("{test}/"));
            path.is_empty() || for_tests.iter().any(of)
        };
        let all = files.iter().map(|(name, text)| (path(name), code(text)));
        let mut modules = Self {
            code: all.filter(|(path, _)| !is_test(path)).collect(),
            given: BTreeMap::new(),
        };
        for (module, code) in modules.code.clone() {
            let (own, given) = split(&code);
            for path in modules.paths(&module, &given) {
                if let Some(name) = path.last() {
                    let name = (module.clone(), name.clone());
                    modules.given.insert(name, path);
                }
            }
            modules.code.insert(module, own);
        }
        modules
    }

    /// Those that are in a circle with one of another folder of their room.
    pub fn in_circles(&self) -> BTreeSet<String> {
        let uses: BTreeMap<&str, BTreeSet<String>> = self
            .code
            .iter()
            .map(|(module, code)| (module.as_str(), self.used(module, code)))
            .collect();
        let reach: BTreeMap<&str, BTreeSet<&str>> = uses
            .keys()
            .map(|module| (*module, reached(&uses, module)))
            .collect();
        let mut found = BTreeSet::new();
        for (one, from) in &reach {
            let back = from.iter().filter(|other| reach[*other].contains(one));
            let folder = self.folder(one);
            if back.into_iter().any(|other| self.folder(other) != folder) {
                found.insert((*one).to_owned());
            }
        }
        found
    }

    /// A module that has others below it is of their folder.
    fn folder<'a>(&self, module: &'a str) -> &'a str {
        let below = format!("{module}/");
        match self.code.keys().any(|other| other.starts_with(&below)) {
            true => module,
            false => module.rsplit_once('/').map_or("", |(folder, _)| folder),
        }
    }

    /// The other modules of its room that a module uses.
    fn used(&self, module: &str, code: &str) -> BTreeSet<String> {
        let room = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
        let found = self.paths(module, code).into_iter();
        let found = found.filter_map(|path| self.resolve(&path));
        found
            .filter(|other| other != module && room(other) == room(module))
            .collect()
    }

    /// The module in which what a path names is.
    fn resolve(&self, path: &[String]) -> Option<String> {
        let known = (1..=path.len()).rev();
        let known = known.map(|length| (length, path[..length].join("/")));
        let mut known = known.filter(|(_, module)| self.code.contains_key(module));
        let (length, module) = known.next()?;
        let name = path.get(length).cloned();
        let given = name.and_then(|name| self.given.get(&(module.clone(), name)));
        match given {
            Some(given) if given[..] != *path => self.resolve(given),
            _ => Some(module),
        }
    }

    /// The paths of a module's code, each from the crate's root.
    fn paths(&self, module: &str, code: &str) -> Vec<Vec<String>> {
        let own: Vec<String> = module.split('/').map(str::to_owned).collect();
        let below = format!("{module}/");
        let children = self.code.keys().filter_map(|it| it.strip_prefix(&below));
        let mut starts: Vec<(String, Vec<String>)> = children
            .filter(|child| !child.contains('/'))
            .map(|child| (format!("{child}::"), own.clone()))
            .collect();
        starts.push(("crate::".to_owned(), Vec::new()));
        starts.push(("self::".to_owned(), own.clone()));
        for up in 1..=own.len() {
            starts.push(("super::".repeat(up), own[..own.len() - up].to_vec()));
        }
        let mut paths = Vec::new();
        for (start, root) in starts {
            let keyword = ["crate::", "self::"].contains(&start.as_str());
            let keyword = keyword || start.starts_with("super::");
            for (at, _) in code.match_indices(&start) {
                let before = code[..at].chars().next_back();
                let inside = |c: char| c.is_alphanumeric() || "_:.".contains(c);
                if before.is_some_and(inside) {
                    continue;
                }
                let rest = match keyword {
                    true => &code[at + start.len()..],
                    false => &code[at..],
                };
                // It is one of those that go further up.
                if rest.starts_with("super::") {
                    continue;
                }
                expand(rest, &root, &mut paths);
            }
        }
        paths
    }
}

/// The paths that begin with a text, also those of `a::{b, c::d}`.
fn expand(text: &str, root: &[String], paths: &mut Vec<Vec<String>>) {
    let text = text.trim_start();
    if let Some(list) = text.strip_prefix('{') {
        for path in listed(list).filter(|path| !path.trim().is_empty()) {
            expand(path, root, paths);
        }
        return;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let mut path = root.to_vec();
    if !name.is_empty() && name != "self" {
        path.push(name.to_owned());
    }
    match rest.strip_prefix("::") {
        Some(rest) => expand(rest, &path, paths),
        None => paths.push(path),
    }
}

/// Code without what it gives away (`pub use`), and that.
fn split(code: &str) -> (String, String) {
    let (mut own, mut given) = (String::new(), String::new());
    let mut rest = code;
    while let Some(at) = rest
        .find("pub use ")
        .or_else(|| rest.find("pub(crate) use "))
    {
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end + 1);
        own.push_str(&rest[..at]);
        given.push_str(rest[at..end].trim_start_matches("pub(crate) "));
        given.push('\n');
        rest = &rest[end..];
    }
    own.push_str(rest);
    (own, given)
}

/// Everything that a module uses, and what that uses, and so on.
fn reached<'a>(uses: &'a BTreeMap<&'a str, BTreeSet<String>>, module: &str) -> BTreeSet<&'a str> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut next = vec![module];
    while let Some(module) = next.pop() {
        for other in &uses[module] {
            if found.insert(other) {
                next.push(other);
            }
        }
    }
    found
}

#[test]
fn circles_are_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = |back: &str| {
        [
            file(
                "room.rs",
                "pub mod a;\npub mod b;\nmod c;\n#[cfg(test)]\nmod tests;\n",
            ),
            file(
                "room/a.rs",
                "pub mod x;\nmod y;\npub use y::Why;\nfn f() { x::g() }",
            ),
            file(
                "room/a/x.rs",
                "use crate::room::{b, c::Sea};\n// crate::room::a::y",
            ),
            file("room/a/y.rs", "use super::super::c;"),
            file("room/b.rs", back),
            file("room/c.rs", ""),
            file("room/tests.rs", "use super::a::x; use super::b;"),
            file("other.rs", "use crate::room::a;"),
        ]
    };
    let found = |back: &str| Modules::of(&files(back)).in_circles().into_iter().collect();
    let none: Vec<String> = found("use crate::other;");
    assert!(none.is_empty(), "{none:?}");
    // What is given away is where it stands.
    assert!(Vec::<String>::is_empty(&found("use crate::room::a::Why;")));
    let circle: Vec<String> = found("use crate::room::a;");
    assert_eq!(circle, ["room/a", "room/a/x", "room/b"]);
    let circle: Vec<String> = found("use super::{c, a::x::{self}};");
    assert_eq!(circle, ["room/a/x", "room/b"]);
}
