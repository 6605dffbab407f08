//! Circles of files: where what a file uses leads back to it, none of them can be read, or
//! changed, without the others.
//!
//! A file uses what the paths in it lead to, outside of its tests. A name that a file only
//! gives on (`pub use`) belongs to the file that has it, and giving it on is no use of it: so a
//! page with the words of a folder can stand above those that work with them. The crate's root
//! is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{files, module};

/// The circles that there are. Take out what you mend; none is to be added.
pub const KNOWN: [(&str, &[&[&str]]); 4] = [
    ("apiservice", &[]),
    (
        "storage",
        &[
            &["log.rs", "log/error.rs", "log/watch.rs"],
            &["seal.rs", "seal/cipher.rs"],
        ],
    ),
    (
        "apiserver",
        &[
            &["audit/recording.rs", "audit/trail.rs"],
            &[
                "policy/cel.rs",
                "policy/cel/address.rs",
                "policy/cel/authorizer.rs",
                "policy/cel/formats.rs",
                "policy/cel/functions.rs",
                "policy/cel/lists.rs",
                "policy/cel/message.rs",
                "policy/cel/quantity.rs",
                "policy/cel/semver.rs",
                "policy/cel/strings.rs",
                "policy/cel/syntax.rs",
                "policy/cel/time.rs",
                "policy/cel/url.rs",
                "policy/cel/value.rs",
            ],
            &["registry.rs", "registry/get.rs", "registry/write.rs"],
        ],
    ),
    (
        "controller",
        &[
            &["apply.rs", "apply/pending.rs"],
            &[
                "cluster/cache.rs",
                "cluster/caches.rs",
                "cluster/concerned.rs",
                "cluster/kept.rs",
                "cluster/kinds.rs",
                "cluster/made.rs",
                "cluster/served.rs",
                "cluster/watches.rs",
            ],
            &[
                "datastores/cleanups.rs",
                "datastores/deletion.rs",
                "datastores/drain.rs",
                "datastores/plan.rs",
                "datastores/world.rs",
            ],
            &["tenant/network/exposure.rs", "tenant/network/routes.rs"],
            &[
                "tenant/objects.rs",
                "tenant/ran.rs",
                "tenant/turns.rs",
                "tenant/world.rs",
            ],
            &[
                "tenant/pki/certificates.rs",
                "tenant/pki/expiry.rs",
                "tenant/pki/kubeconfig.rs",
            ],
        ],
    ),
];

type Segments = Vec<String>;

/// What is found in one file.
#[derive(Default)]
struct Page {
    file: String,
    /// Where it stands among modules: `tenant`, `pki`.
    here: Segments,
    children: BTreeSet<String>,
    /// Names that it brings in: where they lead. So do those that it gives on.
    names: BTreeMap<String, Segments>,
    /// Modules of which it has, or gives on, everything.
    globs: Vec<Segments>,
    /// Its own items.
    items: BTreeSet<String>,
    /// What it uses, from the crate's root.
    used: Vec<Segments>,
    /// Modules that are there for tests.
    tests: Vec<Segments>,
}

/// The circles of a crate's files, each in the order of names.
pub fn of(source: &Path) -> BTreeSet<Vec<String>> {
    let mut all = Vec::new();
    files(source, &mut all);
    let pages = all.iter().map(|path| {
        let file = path.strip_prefix(source).unwrap().to_string_lossy();
        Page::read(&file, &std::fs::read_to_string(path).unwrap())
    });
    let pages: BTreeMap<Segments, Page> = pages
        .filter(|page| page.file != "main.rs")
        .map(|page| (page.here.clone(), page))
        .collect();
    let tests: Vec<&Segments> = pages.values().flat_map(|page| &page.tests).collect();
    let is_test = |module: &Segments| tests.iter().any(|test| module.starts_with(test));
    let uses: BTreeMap<&str, BTreeSet<&str>> = pages
        .values()
        .filter(|page| !page.here.is_empty() && !is_test(&page.here))
        .map(|page| {
            let used = page.used.iter().map(|path| home(path.clone(), &pages));
            let used = used.filter(|home| !home.is_empty() && !is_test(home));
            let used = used.map(|home| pages[&home].file.as_str());
            let others = used.filter(|file| *file != page.file);
            (page.file.as_str(), others.collect())
        })
        .collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> = uses
        .keys()
        .map(|file| (*file, reach(file, &uses)))
        .collect();
    let circles = reached.iter().filter(|(file, all)| all.contains(*file));
    circles
        .map(|(file, all)| {
            let around = all.iter().filter(|other| reached[*other].contains(file));
            around.map(|other| (*other).to_owned()).collect()
        })
        .collect()
}

/// What a file leads to.
fn reach<'a>(from: &str, uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        for other in uses.get(file).into_iter().flatten() {
            if found.insert(*other) {
                next.push(other);
            }
        }
    }
    found
}

/// The module that has what a path leads to: names that are given on are followed.
fn home(mut path: Segments, pages: &BTreeMap<Segments, Page>) -> Segments {
    // No more often than somebody gives a name on.
    for _ in 0..8 {
        let depth = (0..=path.len())
            .rev()
            .find(|n| pages.contains_key(&path[..*n]));
        let depth = depth.unwrap_or(0);
        let Some(page) = pages.get(&path[..depth]) else {
            return Vec::new();
        };
        let Some(name) = path.get(depth) else {
            return path;
        };
        let given = match page.names.get(name) {
            Some(to) => Some(to.clone()),
            None if page.items.contains(name) => None,
            None => page.globs.iter().find_map(|of| {
                let there = pages.get(of)?.items.contains(name);
                there.then(|| [of.clone(), vec![name.clone()]].concat())
            }),
        };
        let Some(mut to) = given else {
            return path[..depth].to_vec();
        };
        to.extend_from_slice(&path[depth + 1..]);
        if to == path {
            return path[..depth].to_vec();
        }
        path = to;
    }
    panic!("{} is given on and on", path.join("::"));
}

impl Page {
    fn read(file: &str, text: &str) -> Self {
        let here = module(file);
        let here = here.split('/').filter(|it| !it.is_empty());
        let mut page = Page {
            file: file.to_owned(),
            here: here.map(str::to_owned).collect(),
            ..Page::default()
        };
        let words = words(text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let code = page.without_tests(&words);
        for at in 0..code.len() {
            if let ["mod", name, ";"] = code[at..].get(..3).unwrap_or_default() {
                page.children.insert((*name).to_owned());
            }
        }
        let rest = page.imports(&code);
        page.paths(&rest);
        page
    }

    /// Takes out what is there for tests.
    fn without_tests<'w>(&mut self, words: &[&'w str]) -> Vec<&'w str> {
        let mut code = Vec::new();
        let mut at = 0;
        while at < words.len() {
            if words[at..].starts_with(&["#", "[", "cfg", "("]) {
                let end = at + words[at..].iter().position(|word| *word == "]").unwrap();
                let condition = &words[at..end];
                if condition.contains(&"test") && !condition.contains(&"not") {
                    at = end + 1;
                    let item = &words[at..];
                    let item = &item[..item_length(item)];
                    if let [.., "mod", name, ";"] = item {
                        self.tests
                            .push([&self.here[..], &[(*name).to_owned()]].concat());
                    }
                    at += item.len();
                    continue;
                }
            }
            code.push(words[at]);
            at += 1;
        }
        code
    }

    /// Reads what is imported and given on, and leaves the rest.
    fn imports<'w>(&mut self, code: &[&'w str]) -> Vec<&'w str> {
        let mut rest = Vec::new();
        let mut at = 0;
        while at < code.len() {
            if code[at] != "use" {
                rest.push(code[at]);
                at += 1;
                continue;
            }
            let end = at + code[at..].iter().position(|word| *word == ";").unwrap();
            let gives = at > 0 && matches!(code[at - 1], "pub" | ")");
            for (path, name) in tree(&code[at + 1..end]) {
                let Some(path) = self.absolute(&path) else {
                    continue;
                };
                match name.as_str() {
                    "*" => self.globs.push(path),
                    _ => {
                        if !gives {
                            self.used.push(path.clone());
                        }
                        self.names.insert(name, path);
                    }
                }
            }
            at = end + 1;
        }
        rest
    }

    /// Reads the paths in the code.
    fn paths(&mut self, code: &[&str]) {
        let is_name = |word: &str| word.starts_with(|c: char| c.is_alphabetic() || c == '_');
        for (at, word) in code.iter().enumerate() {
            if !is_name(word) || at > 0 && code[at - 1] == "::" {
                continue;
            }
            let mut path = vec![(*word).to_owned()];
            for pair in code[at + 1..].chunks_exact(2) {
                match pair {
                    ["::", name] if is_name(name) => path.push((*name).to_owned()),
                    _ => break,
                }
            }
            if path.len() > 1
                && let Some(path) = self.absolute(&path)
            {
                self.used.push(path);
            }
            let item = at > 0
                && matches!(
                    code[at - 1],
                    "struct" | "enum" | "fn" | "const" | "static" | "type" | "trait"
                );
            if item {
                self.items.insert((*word).to_owned());
            }
        }
    }

    /// The path from the crate's root; nothing for one of another crate.
    fn absolute(&self, path: &[String]) -> Option<Segments> {
        let first = path.first()?;
        let rest = &path[1..];
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&self.here[..], rest].concat()),
            "super" => {
                let supers = path.iter().take_while(|it| *it == "super").count();
                let above = self.here.len().checked_sub(supers)?;
                Some([&self.here[..above], &path[supers..]].concat())
            }
            name => match self.names.get(name) {
                Some(to) => Some([&to[..], rest].concat()),
                None if self.children.contains(name) => Some([&self.here[..], path].concat()),
                None => None,
            },
        }
    }
}

/// How many words an item has, with its attributes: to its `;`, or the end of its braces.
fn item_length(words: &[&str]) -> usize {
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate() {
        match *word {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" if depth <= 1 => return at + usize::from(depth == 1),
            "}" => depth -= 1,
            ";" | "," if depth == 0 => return at + 1,
            _ => {}
        }
    }
    words.len()
}

/// The paths of `a::{b, c as d, e::{self, f}}`, each with the name that it gets.
fn tree(words: &[&str]) -> Vec<(Segments, String)> {
    let mut path = Segments::new();
    let mut at = 0;
    while at < words.len() {
        match words[at] {
            "::" => {}
            "{" => {
                let inside = &words[at + 1..words.len() - 1];
                let branches = branches(inside).into_iter().flat_map(tree);
                return branches
                    .map(|(rest, name)| match rest.as_slice() {
                        [own] if own == "self" => (path.clone(), path[path.len() - 1].clone()),
                        _ => ([path.clone(), rest].concat(), name),
                    })
                    .collect();
            }
            "*" => return vec![(path, "*".to_owned())],
            "as" => return vec![(path, words[at + 1].to_owned())],
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    let name = path.last().cloned();
    name.map(|name| (path, name)).into_iter().collect()
}

/// What stands between commas.
fn branches<'s, 'w>(words: &'s [&'w str]) -> Vec<&'s [&'w str]> {
    let mut depth = 0;
    words
        .split(|word| {
            match *word {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && *word == ","
        })
        .filter(|branch| !branch.is_empty())
        .collect()
}

/// Names, `::` and single signs; without comments and texts.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = raw_text(rest) {
            raw
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            match rest[1..].chars().next() {
                Some('\\') => quoted(rest, '\''),
                Some(letter) if rest[1 + letter.len_utf8()..].starts_with('\'') => {
                    2 + letter.len_utf8()
                }
                _ => 1,
            }
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            let end = end.unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            words.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                words.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    words
}

/// How long a raw text is that stands here.
fn raw_text(rest: &str) -> Option<usize> {
    let start = ["r", "br"].iter().find(|it| {
        let after = rest.strip_prefix(**it).unwrap_or_default();
        after.trim_start_matches('#').starts_with('"')
    })?;
    let hashes = rest[start.len()..].find('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = start.len() + hashes + 1;
    Some(inside + rest[inside..].find(&end)? + end.len())
}

/// How long a text or a letter in these quotes is.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn files_are_read() {
    let page = Page::read(
        "a/b.rs",
        "mod c;\n#[cfg(test)]\nmod tests;\nuse super::{d::{self, E as F}, g};\npub use c::H;\n\
         use std::fmt;\n// crate::i\nfn x<'a>(_: &'a str) { crate::j::k(\"crate::l\"); d::m(); \
         c::n(); fmt::o(); let _ = ('{', r#\"super::p\"#); }\n\
         #[cfg(test)]\nmod more {\n use crate::q;\n}\nuse crate::r::*;",
    );
    let paths =
        |paths: &[Segments]| -> Vec<String> { paths.iter().map(|path| path.join("::")).collect() };
    let used = ["a::d", "a::d::E", "a::g", "j::k", "a::d::m", "a::b::c::n"];
    assert_eq!(paths(&page.used), used);
    assert_eq!(paths(&page.globs), ["r"]);
    assert_eq!(paths(&page.tests), ["a::b::tests"]);
    assert_eq!(page.names["F"].join("::"), "a::d::E");
    assert_eq!(page.names["H"].join("::"), "a::b::c::H");
    assert_eq!(page.items, BTreeSet::from(["x".to_owned()]));
}

#[test]
fn names_that_are_given_on_are_followed() {
    let pages = [
        Page::read("a.rs", "mod b; mod c; pub use b::One; pub use c::*;"),
        Page::read("a/b.rs", "use super::Two; pub struct One;"),
        Page::read("a/c.rs", "pub struct Two;"),
        Page::read(
            "d.rs",
            "use crate::a::{One, Three}; fn e() { crate::a::Two::new() }",
        ),
    ];
    let pages = pages.into_iter().map(|page| (page.here.clone(), page));
    let pages: BTreeMap<_, _> = pages.collect();
    let homes = |file: &str| -> Vec<String> {
        let used = pages[&vec![file.to_owned()]].used.iter();
        used.map(|path| home(path.clone(), &pages).join("/"))
            .collect()
    };
    assert_eq!(homes("d"), ["a/b", "a", "a/c"]);
    assert!(homes("a").is_empty());
}
