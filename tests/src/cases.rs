//! Cases from the field (`tests/cases`): what users of such a product ran into,
//! each as a file of commands with what is expected of them.
//!
//! A case is `C17.steps`, with its manifests beside it:
//!
//! ```text
//! C17: a patch that is no patch is answered with 4xx, never with 500
//!
//! ## api
//! $ kubectl apply -f C17.yaml
//! ! kubectl -n tenants patch tcp f17 --type=merge -p '[1,2]'
//!   lacks InternalError
//! ```
//!
//! * `$` must succeed, `!` must fail, `?` may do either. All commands of a case run
//!   in one directory, which has its manifests and the functions of `prelude.sh`,
//!   each in a bash of its own.
//! * Below a command, indented, is what is expected; all of it must hold:
//!   * `has TEXT`, `lacks TEXT`: both outputs together hold it, or do not;
//!   * `is TEXT`: standard output is this, line by line when written repeatedly;
//!   * `counts N TEXT`: so many lines of both outputs hold it;
//!   * `at /json/pointer VALUE`: in the JSON on standard output; `none` is nothing;
//!   * `serves NAME`, `serves-not NAME`: the certificate on standard output;
//!   * `within N s`: the command is run again until all holds, at most so long.
//! * `## PLACE` begins a part: `api` (kube-apiserver with our API server),
//!   `api alone` (the same, with no other case beside it: it may write the file
//!   `$RESTART` to have our API server restarted), `controller` (also the
//!   controller and an etcd for tenants, and nobody who runs pods), `pods` (an
//!   installation that runs pods). At its end the tenants of the case, which are
//!   named after it (`f17`), are deleted.
//!
//! `index.txt` has every case once, with its parts and what of it waits for
//! something that is not built; `known.txt` has the steps that are known to fail,
//! each with the reason. A step there that holds is a failure as well.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a fixture of tests: what fails ends the test, with its text"
)]

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use crate::served::{Said, run};

/// How long a command may take that does not end by itself.
const STEP: &str = "300";
/// How long a step that is known to fail is waited for.
const KNOWN: Duration = Duration::from_secs(10);

/// The folder of the cases.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// One file of steps.
#[derive(Clone, Debug)]
pub struct Case {
    /// `C17`
    pub name: String,
    pub title: String,
    pub parts: Vec<Part>,
}

/// What of a case runs in one place.
#[derive(Clone, Debug)]
pub struct Part {
    /// `api`, `api alone`, `controller` or `pods`.
    pub place: String,
    pub steps: Vec<Step>,
}

/// A command and what is expected of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// In the file.
    pub line: usize,
    pub command: String,
    /// None: either way.
    pub succeeds: Option<bool>,
    pub patience: Duration,
    pub expected: Vec<Expected>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    Has(String),
    Lacks(String),
    Is(String),
    Counts(usize, String),
    /// None: there is nothing.
    At(String, Option<Value>),
    Serves(String, bool),
}

/// Reads a case; what is wrong with the file ends the test.
pub fn parse(text: &str) -> Case {
    let mut lines = text.lines().enumerate();
    let (_, first) = lines.next().expect("a title");
    let (name, title) = first.split_once(": ").expect("`C17: title`");
    let mut parts: Vec<Part> = Vec::new();
    for (number, line) in lines {
        let line_number = number + 1;
        if let Some(place) = line.strip_prefix("## ") {
            let steps = Vec::new();
            let place = place.to_owned();
            parts.push(Part { place, steps });
            continue;
        }
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("{name}.steps:{line_number}: {line}");
        let part = parts
            .last_mut()
            .unwrap_or_else(|| panic!("no part: {}", at()));
        let Some(rest) = line.strip_prefix("  ") else {
            let (sign, command) = line.split_once(' ').unwrap_or_else(|| panic!("{}", at()));
            let succeeds = match sign {
                "$" => Some(true),
                "!" => Some(false),
                "?" => None,
                _ => panic!("{}", at()),
            };
            part.steps.push(Step {
                line: line_number,
                command: command.to_owned(),
                succeeds,
                patience: Duration::ZERO,
                expected: Vec::new(),
            });
            continue;
        };
        let step = part
            .steps
            .last_mut()
            .unwrap_or_else(|| panic!("no command: {}", at()));
        expect(step, rest.trim_start()).unwrap_or_else(|| panic!("{}", at()));
    }
    Case {
        name: name.to_owned(),
        title: title.to_owned(),
        parts,
    }
}

/// Adds a line below a command; None when it says nothing.
fn expect(step: &mut Step, line: &str) -> Option<()> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let text = rest.to_owned();
    let expected = match word {
        "has" if !text.is_empty() => Expected::Has(text),
        "lacks" if !text.is_empty() => Expected::Lacks(text),
        "is" => match step.expected.last_mut() {
            Some(Expected::Is(before)) => {
                before.push('\n');
                before.push_str(&text);
                return Some(());
            }
            _ => Expected::Is(text),
        },
        "counts" => {
            let (number, text) = rest.split_once(' ')?;
            Expected::Counts(number.parse().ok()?, text.to_owned())
        }
        "at" => {
            let (pointer, value) = rest.split_once(' ')?;
            let value = match value {
                "none" => None,
                value => Some(serde_json::from_str(value).ok()?),
            };
            Expected::At(pointer.to_owned(), value)
        }
        "serves" => Expected::Serves(text, true),
        "serves-not" => Expected::Serves(text, false),
        "within" => {
            let seconds = rest.strip_suffix(" s")?.parse().ok()?;
            step.patience = Duration::from_secs(seconds);
            return Some(());
        }
        _ => return None,
    };
    step.expected.push(expected);
    Some(())
}

impl Expected {
    fn holds(&self, said: &Said) -> bool {
        match self {
            Self::Has(text) => said.text().contains(text),
            Self::Lacks(text) => !said.text().contains(text),
            Self::Is(text) => said.stdout.trim() == text.trim(),
            Self::Counts(number, text) => {
                said.text().lines().filter(|it| it.contains(text)).count() == *number
            }
            Self::At(pointer, value) => match serde_json::from_str::<Value>(&said.stdout) {
                Ok(document) => document.pointer(pointer) == value.as_ref(),
                Err(_) => false,
            },
            Self::Serves(name, wanted) => match apiservice::pki::inspect(&said.stdout) {
                Ok(seen) => {
                    let addresses = seen.ip_addresses.iter().map(ToString::to_string);
                    let mut names = seen.dns_names.iter().cloned().chain(addresses);
                    names.any(|it| it == *name) == *wanted
                }
                Err(_) => false,
            },
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Has(text) => format!("has {text}"),
            Self::Lacks(text) => format!("lacks {text}"),
            Self::Is(text) => format!("is {}", text.replace('\n', "\n            is ")),
            Self::Counts(number, text) => format!("counts {number} {text}"),
            Self::At(pointer, Some(value)) => format!("at {pointer} {value}"),
            Self::At(pointer, None) => format!("at {pointer} none"),
            Self::Serves(name, true) => format!("serves {name}"),
            Self::Serves(name, false) => format!("serves-not {name}"),
        }
    }
}

impl Step {
    /// What does not hold, as text.
    fn misses(&self, said: &Said) -> Vec<String> {
        let mut misses = Vec::new();
        match self.succeeds {
            Some(true) if said.code != 0 => misses.push("it succeeds".to_owned()),
            Some(false) if said.code == 0 => misses.push("it fails".to_owned()),
            _ => {}
        }
        let others = self.expected.iter().filter(|it| !it.holds(said));
        misses.extend(others.map(Expected::text));
        misses
    }
}

/// All cases, in order of their names.
pub fn all() -> Vec<Case> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "steps") {
            let case = parse(&std::fs::read_to_string(&path).unwrap());
            assert_eq!(path.file_stem().unwrap().to_str().unwrap(), case.name);
            found.insert(case.name.clone(), case);
        }
    }
    found.into_values().collect()
}

/// A line of `index.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// Where parts of it run.
    pub places: Vec<String>,
    /// What of it waits, and for what.
    pub later: Option<String>,
}

/// `index.txt`.
pub fn index() -> Vec<Entry> {
    let text = std::fs::read_to_string(folder().join("index.txt")).unwrap();
    let lines = text
        .lines()
        .filter(|it| !it.is_empty() && !it.starts_with('#'));
    lines
        .map(|line| {
            let (line, later) = match line.split_once("; later: ") {
                Some((line, later)) => (line, Some(later.to_owned())),
                None => (line, None),
            };
            let (name, places) = line.split_once(' ').unwrap_or((line, ""));
            let places = places
                .split(", ")
                .map(str::trim)
                .filter(|it| !it.is_empty());
            Entry {
                name: name.to_owned(),
                places: places.map(str::to_owned).collect(),
                later,
            }
        })
        .collect()
}

/// `known.txt`: the reason for each step (`C07 api 4`) that is known to fail.
pub fn known() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join("known.txt")).unwrap();
    let lines = text
        .lines()
        .filter(|it| !it.is_empty() && !it.starts_with('#'));
    lines
        .map(|line| {
            let (step, reason) = line.split_once(": ").expect("`C07 api 4: reason`");
            (step.to_owned(), reason.to_owned())
        })
        .collect()
}

/// Where commands run: kubectl as administrator of a cluster.
#[derive(Debug)]
pub struct Place {
    home: tempfile::TempDir,
    kubeconfig: PathBuf,
    /// The directories of programs.
    path: String,
}

impl Place {
    pub fn new(kubectl: &Path, kubeconfig: &Path) -> Self {
        let path = std::env::var("PATH").unwrap();
        let programs = kubectl.parent().filter(|it| !it.as_os_str().is_empty());
        Self {
            home: tempfile::tempdir().unwrap(),
            kubeconfig: kubeconfig.to_owned(),
            path: programs.map_or(path.clone(), |it| format!("{}:{path}", it.display())),
        }
    }

    /// The file with which a case asks for a restart of the API server.
    pub fn restart(&self) -> PathBuf {
        self.home.path().join("restart")
    }

    /// Runs a command in a directory.
    pub fn run(&self, directory: &Path, command: &str) -> Said {
        run(Command::new("timeout")
            .args(["--kill-after=5", STEP, "bash", "-c"])
            .arg(format!(". ./prelude.sh; {command}"))
            .current_dir(directory)
            .env("PATH", &self.path)
            .env("HOME", self.home.path())
            .env("TMPDIR", directory)
            .env("RESTART", self.restart())
            // Nothing here lives long enough to need its memory back.
            .env("GOGC", "off")
            .env("KUBECONFIG", &self.kubeconfig))
    }

    /// Deletes the tenants of a case; what went wrong.
    fn sweep(&self, case: &str) -> Option<String> {
        let said = self.run(&folder(), &format!("sweep {case}"));
        (said.code != 0).then(|| format!("{case}: its tenants cannot be deleted: {}", said.text()))
    }

    /// A directory for a case, with its files.
    fn directory(&self, case: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir_in(self.home.path()).unwrap();
        for entry in std::fs::read_dir(folder()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let of_it = name
                .strip_prefix(case)
                .is_some_and(|rest| rest.starts_with(['.', '-']));
            if of_it || name == "prelude.sh" {
                std::fs::copy(&path, directory.path().join(name)).unwrap();
            }
        }
        directory
    }
}

/// What a run has found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Each with case, step, expected and seen.
    pub failures: Vec<String>,
    pub passed: usize,
    /// How many steps failed that are known to.
    pub known: usize,
    /// How long each case took.
    pub took: Vec<(Duration, String)>,
}

impl Outcome {
    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.failures.extend(other.failures);
        self.passed += other.passed;
        self.known += other.known;
        self.took.extend(other.took);
        self
    }

    /// Prints the slowest cases and fails with what failed.
    pub fn judge(mut self) {
        self.took.sort();
        let slowest = self.took.iter().rev().take(5);
        let slowest: Vec<String> = slowest
            .map(|(took, name)| format!("{name} {:.1} s", took.as_secs_f64()))
            .collect();
        println!(
            "{} cases: {} steps hold, {} are known to fail; the slowest: {}",
            self.took.len(),
            self.passed,
            self.known,
            slowest.join(", ")
        );
        let count = self.failures.len();
        assert!(count == 0, "\n{}\n{count} steps", self.failures.join("\n"));
    }
}

/// Runs the parts of all cases that belong to `place`, `at_once` at a time.
/// `CASES=C07,C12` takes these only.
pub fn run_all(place: &Place, name: &str, at_once: usize) -> Outcome {
    let chosen = std::env::var("CASES").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split(',').filter(|it| !it.is_empty()).collect();
    let mut waiting = VecDeque::new();
    for case in all() {
        if chosen.is_empty() || chosen.contains(&&*case.name) {
            let mut parts = case.parts.into_iter().peekable();
            while let Some(part) = parts.next() {
                let goes_on = parts
                    .peek()
                    .is_some_and(|next| next.place.starts_with(&part.place));
                if part.place == name {
                    waiting.push_back((case.name.clone(), case.title.clone(), part, goes_on));
                }
            }
        }
    }
    let known = known();
    let (waiting, outcome) = (Mutex::new(waiting), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().pop_front();
                    let Some((case, title, part, goes_on)) = next else {
                        return;
                    };
                    let began = Instant::now();
                    let mut said = run_part(place, &case, &title, &part, &known);
                    if !goes_on {
                        said.failures.extend(place.sweep(&case));
                    }
                    let took = began.elapsed();
                    let failed = said.failures.len();
                    println!(
                        "    {case} {name}: {failed} failed, {:.1} s",
                        took.as_secs_f64()
                    );
                    // Also here: a run that is stopped has said what it knew.
                    for failure in &said.failures {
                        println!("{failure}");
                    }
                    let mut outcome = outcome.lock();
                    *outcome = std::mem::take(&mut *outcome).and(said);
                    outcome.took.push((took, case));
                }
            });
        }
    });
    outcome.into_inner()
}

fn run_part(
    place: &Place,
    case: &str,
    title: &str,
    part: &Part,
    known: &BTreeMap<String, String>,
) -> Outcome {
    let directory = place.directory(case);
    let mut outcome = Outcome::default();
    for (number, step) in (1..).zip(&part.steps) {
        let id = format!("{case} {} {number}", part.place);
        let known = known.get(&id);
        let patience = known.map_or(step.patience, |_| step.patience.min(KNOWN));
        let began = Instant::now();
        let (said, misses) = loop {
            let said = place.run(directory.path(), &step.command);
            let misses = step.misses(&said);
            if misses.is_empty() || began.elapsed() >= patience {
                break (said, misses);
            }
            std::thread::sleep(Duration::from_millis(500));
        };
        match verdict(&misses, known) {
            Ok(true) => outcome.passed += 1,
            Ok(false) => outcome.known += 1,
            Err(why) => outcome.failures.push(format!(
                "{id} ({case}.steps:{}) {title}\n  $ {}\n  {why}\n  seen: exit code {}\n{}",
                step.line,
                step.command,
                said.code,
                shown(&said)
            )),
        }
    }
    outcome
}

/// Whether a step holds; one that is known to fail must not.
fn verdict(misses: &[String], known: Option<&String>) -> Result<bool, String> {
    match known {
        None if misses.is_empty() => Ok(true),
        None => Err(format!("expected: {}", misses.join("\n            "))),
        Some(_) if !misses.is_empty() => Ok(false),
        Some(why) => Err(format!("holds now, take it out of known.txt: {why}")),
    }
}

/// The beginning of both outputs, indented.
fn shown(said: &Said) -> String {
    let text = said.text();
    let lines = text.lines().take(40);
    lines
        .map(|line| format!("  | {}\n", line.chars().take(600).collect::<String>()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: i32, stdout: &str) -> Said {
        Said {
            code,
            stdout: stdout.to_owned(),
            stderr: String::new(),
        }
    }

    #[test]
    fn every_case_is_in_the_index_once_with_its_parts() {
        // The numbers of the collection, then ours; those between belong to cases that the
        // collection does not have.
        const NUMBERS: [u32; 60] = [
            1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 19, 20, 21, 23, 24, 25, 26, 28, 29,
            32, 33, 35, 36, 38, 40, 42, 44, 45, 46, 50, 51, 53, 54, 56, 58, 61, 63, 64, 65, 66, 69,
            70, 71, 72, 75, 76, 77, 78, 79, 81, 82, 85, 87, 88, 89, 90,
        ];
        let index = index();
        let names: Vec<&str> = index.iter().map(|it| &*it.name).collect();
        assert_eq!(names, NUMBERS.map(|number| format!("C{number:02}")));
        let mut cases: BTreeMap<String, Case> =
            all().into_iter().map(|it| (it.name.clone(), it)).collect();
        for entry in &index {
            let parts = cases.remove(&entry.name).map_or(Vec::new(), |it| it.parts);
            let places: Vec<String> = parts.into_iter().map(|it| it.place).collect();
            assert_eq!(places, entry.places, "{}", entry.name);
            assert!(
                !places.is_empty() || entry.later.is_some(),
                "{} is neither tested nor said to be later",
                entry.name
            );
        }
        assert!(cases.is_empty(), "not in index.txt: {:?}", cases.keys());
    }

    #[test]
    fn what_is_known_to_fail_names_steps_that_are_there() {
        let cases = all();
        let steps: Vec<String> = cases
            .iter()
            .flat_map(|case| {
                case.parts.iter().flat_map(|part| {
                    (1..=part.steps.len()).map(|it| format!("{} {} {it}", case.name, part.place))
                })
            })
            .collect();
        for step in known().keys() {
            assert!(steps.contains(step), "known.txt names {step}");
        }
        let places = ["api", "api alone", "controller", "pods"];
        for case in cases {
            for part in case.parts {
                assert!(
                    places.contains(&&*part.place),
                    "{}: {}",
                    case.name,
                    part.place
                );
            }
        }
    }

    #[test]
    fn what_is_known_to_fail_must_fail() {
        let (why, miss) = ("a fault".to_owned(), ["has a".to_owned()]);
        assert_eq!(verdict(&[], None), Ok(true));
        assert_eq!(verdict(&miss, Some(&why)), Ok(false));
        assert_eq!(verdict(&miss, None), Err("expected: has a".to_owned()));
        let holds = verdict(&[], Some(&why)).unwrap_err();
        assert_eq!(holds, "holds now, take it out of known.txt: a fault");
    }

    #[test]
    fn a_step_says_what_it_misses() {
        let case = parse(
            "C00: a title\n# a comment\n\n## api\n! do it\n  has a b\n  lacks c\n  within 3 s\n\
             $ other\n  is one\n  is two\n  counts 1 w\n$ json\n  at /a/0 {\"b\":1}\n  at /c none\n",
        );
        let steps = &case.parts[0].steps;
        assert_eq!(steps[0].patience, Duration::from_secs(3));
        assert_eq!(steps[0].misses(&said(1, "x a b")), [""; 0]);
        assert_eq!(
            steps[0].misses(&said(0, "ac")),
            ["it fails", "has a b", "lacks c"]
        );
        assert_eq!(steps[1].misses(&said(0, "one\ntwo\n")), [""; 0]);
        assert_eq!(steps[1].misses(&said(0, "one")).len(), 2);
        assert_eq!(steps[2].misses(&said(0, r#"{"a":[{"b":1}]}"#)), [""; 0]);
        assert_eq!(
            steps[2].misses(&said(0, r#"{"a":[],"c":0}"#)),
            ["at /a/0 {\"b\":1}", "at /c none"]
        );
    }
}
