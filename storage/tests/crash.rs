//! kill -9 at random points under load, again and again on the same directory.
//!
//! The test runs itself as a child process, which writes, watches and compacts,
//! and reports on its standard output what was acknowledged to it and what its
//! watches saw. After the kill the parent opens the store and checks that
//!
//! * nothing acknowledged is lost,
//! * no revision names two changes, within a life of the process or across them,
//! * a watch replays each change once and in order, and the changes lead from
//!   the oldest known state to the newest,
//! * the child's watches saw nothing that is not in the log, and left nothing out.
//!
//! 30 rounds, or as many as `STEWARD_CRASH_ROUNDS` says.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is its own process and its own owner of tasks"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use storage::{Change, Error, Expect, Revision, Store, WatchItem, sqlite};

const DIRECTORY: &str = "STEWARD_CRASH_DIRECTORY";
const WRITERS: usize = 6;
const WATCHERS: [&str; 4] = ["/", "/", "/k/1/", "/shared"];

/// A change as both sides write it down: its key and its value, if any.
type Fact = (String, Option<String>);

#[test]
fn kill_nine_loses_nothing() {
    let rounds: u32 = match std::env::var("STEWARD_CRASH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("STEWARD_CRASH_ROUNDS is a number"),
        Err(_) => 30,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut directory = tempfile::tempdir().unwrap();
    let mut memory = Memory::default();
    let (mut acknowledged, mut watched) = (0, 0);
    for round in 0..rounds {
        if round > 0 && round % 25 == 0 {
            directory = tempfile::tempdir().unwrap();
            memory = Memory::default();
        }
        // Now and then while it is still starting.
        let delay = rand::random_range(0..160);
        let report = live_and_die(directory.path(), Duration::from_millis(delay));
        acknowledged += report.acknowledged.len();
        watched += report.watched.iter().map(Vec::len).sum::<usize>();
        runtime.block_on(memory.check(directory.path(), &report, round));
    }
    println!("{rounds} kills, {acknowledged} writes acknowledged, {watched} changes watched");
    assert!(acknowledged > rounds as usize, "the load is not a load");
    assert!(watched > rounds as usize, "nothing was watched");
}

/// What a child said before it died.
#[derive(Default)]
struct Report {
    /// Where the store stood when the child opened it.
    opened: Option<u64>,
    acknowledged: Vec<(u64, Fact)>,
    watched: [Vec<(u64, String)>; WATCHERS.len()],
    compacted: u64,
}

fn live_and_die(directory: &Path, delay: Duration) -> Report {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--include-ignored"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut report = Report::default();
        let mut output = BufReader::new(output);
        let mut line = String::new();
        // A line without its end was cut by the kill.
        while output.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
            report.add(line.trim_end());
            line.clear();
        }
        report
    });
    std::thread::sleep(delay);
    assert!(
        child.try_wait().unwrap().is_none(),
        "the child ended by itself"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

impl Report {
    fn add(&mut self, line: &str) {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match kind {
            "@opened" => self.opened = Some(number()),
            "@compacted" => self.compacted = number(),
            "@put" => {
                let revision = number();
                let key = words.next().unwrap().to_owned();
                let value = words.next().unwrap().to_owned();
                self.acknowledged.push((revision, (key, Some(value))));
            }
            "@deleted" => {
                let revision = number();
                let key = words.next().unwrap().to_owned();
                self.acknowledged.push((revision, (key, None)));
            }
            "@watched" => {
                let watch = number() as usize;
                let revision = number();
                let key = words.next().unwrap().to_owned();
                self.watched[watch].push((revision, key));
            }
            _ => {}
        }
    }
}

/// What the parent knows of one directory.
#[derive(Default)]
struct Memory {
    identity: Option<String>,
    facts: BTreeMap<u64, Fact>,
    /// Where the store stood at the last check.
    revision: u64,
    compacted: u64,
}

impl Memory {
    async fn check(&mut self, directory: &Path, report: &Report, round: u32) {
        let store = sqlite::open(directory).await.unwrap();
        let id = store.identity().id;
        assert_eq!(self.identity.get_or_insert(id.clone()), &id);

        let revision = store.revision().await.unwrap().0;
        let floor = store.compacted().0;
        assert!(floor >= self.compacted.max(report.compacted));
        if let Some(opened) = report.opened {
            assert_eq!(opened, self.revision.max(1), "round {round}");
        }
        for (acknowledged, fact) in &report.acknowledged {
            assert!(
                *acknowledged > self.revision,
                "revision {acknowledged} was used before, now for {fact:?}"
            );
            self.learn(*acknowledged, fact);
        }

        let history = history(&store, floor, revision).await;
        let numbers: Vec<u64> = history.iter().map(|(at, _)| *at).collect();
        let expected: Vec<u64> = (floor.max(1) + 1..=revision).collect();
        assert_eq!(numbers, expected, "history has gaps or repeats");
        for (at, fact) in &history {
            self.learn(*at, fact);
        }
        self.check_states(&store, floor, revision, &history).await;
        self.check_acknowledged(&store, floor, revision).await;
        self.check_watched(report, floor);

        store.close().await;
        if round.is_multiple_of(10) {
            check_integrity(directory).await;
        }
        self.revision = revision;
        self.compacted = floor;
    }

    /// A revision names one change, for ever.
    fn learn(&mut self, revision: u64, fact: &Fact) {
        let known = self.facts.entry(revision).or_insert_with(|| fact.clone());
        assert_eq!(known, fact, "revision {revision} names two changes");
    }

    /// The oldest state and the changes after it give the newest state.
    async fn check_states(
        &self,
        store: &Store,
        floor: u64,
        revision: u64,
        history: &[(u64, Fact)],
    ) {
        let mut state = state(store, floor.max(1)).await;
        for (at, (key, value)) in history {
            match value {
                Some(value) => state.insert(key.clone(), (*at, value.clone())),
                None => state.remove(key),
            };
        }
        assert_eq!(state, self::state(store, revision).await);
    }

    /// The last that was acknowledged of each key is there, or something newer.
    async fn check_acknowledged(&self, store: &Store, floor: u64, revision: u64) {
        assert!(self.facts.keys().all(|known| *known <= revision));
        let state = state(store, revision).await;
        let mut last = BTreeMap::new();
        for (at, (key, value)) in &self.facts {
            last.insert(key, (at, value));
        }
        for (key, (at, value)) in last {
            let expected = value.as_ref().map(|value| (*at, value.clone()));
            let found = state.get(key);
            // A change that nobody was told of may have come after it, and
            // compaction may have taken it; above the floor all is known.
            let newer = found.is_none_or(|(found, _)| found > at);
            assert!(
                found == expected.as_ref() || (*at <= floor && newer),
                "{key}: {expected:?} was acknowledged, {found:?} is there"
            );
        }
    }

    /// Each watch saw what the log says, without gaps, from its beginning on.
    fn check_watched(&self, report: &Report, floor: u64) {
        for (prefix, watched) in WATCHERS.iter().zip(&report.watched) {
            let Some((last, _)) = watched.last() else {
                continue;
            };
            // Below the floor only what was acknowledged or watched is known.
            let from = floor.max(report.opened.unwrap_or(0));
            let expected: Vec<_> = self
                .facts
                .range(from + 1..)
                .take_while(|(at, _)| *at <= last)
                .filter(|(_, (key, _))| key.starts_with(prefix))
                .map(|(at, (key, _))| (*at, key.clone()))
                .collect();
            let seen: Vec<_> = watched
                .iter()
                .filter(|(at, _)| *at > from)
                .cloned()
                .collect();
            assert_eq!(seen, expected, "a watch of {prefix}");
            assert!(watched.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}

/// All changes in (floor, revision], as a watch replays them.
async fn history(store: &Store, floor: u64, revision: u64) -> Vec<(u64, Fact)> {
    let mut watch = store.watch("/", Revision(floor)).await.unwrap();
    let mut history = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchItem::Progress(at) => {
                assert_eq!(at.0, revision);
                return history;
            }
            WatchItem::Change(change) => {
                let value = match &change {
                    Change::Put { entry, .. } => Some(text(&entry.value)),
                    Change::Delete { .. } => None,
                };
                history.push((change.revision().0, (change.key().to_owned(), value)));
            }
        }
    }
}

async fn state(store: &Store, at: u64) -> BTreeMap<String, (u64, String)> {
    let mut entries = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.range("/", after.as_deref(), None, Some(Revision(at)));
        let page = page.await.unwrap();
        entries.extend(page.entries);
        if !page.more {
            break;
        }
        after = entries.last().map(|entry| entry.key.clone());
    }
    entries
        .into_iter()
        .map(|entry| (entry.key, (entry.modified.0, text(&entry.value))))
        .collect()
}

async fn check_integrity(directory: &Path) {
    use sqlx::ConnectOptions;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(directory.join(sqlite::FILE));
    let mut connection = options.connect().await.unwrap();
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(verdict, "ok");
}

fn text(value: &Bytes) -> String {
    // Values are padded to sizes that spill over pages.
    let text = std::str::from_utf8(value).unwrap();
    text.split('.').next().unwrap().to_owned()
}

/// The process that is killed. Without its directory it has nothing to do.
#[test]
#[ignore = "runs as a child of kill_nine_loses_nothing"]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = sqlite::open(&directory).await.unwrap();
        let opened = store.revision().await.unwrap();
        say(&format!("@opened {opened}"));
        let watches = WATCHERS.iter().enumerate().map(|(id, prefix)| {
            let store = store.clone();
            tokio::spawn(watch(store, id, prefix, opened))
        });
        let watches: Vec<_> = watches.collect();
        for writer in 0..WRITERS {
            tokio::spawn(write(store.clone(), writer));
        }
        let compactor = tokio::spawn(compact(store));
        futures::future::join_all(watches).await;
        compactor.await.unwrap();
    });
}

/// One system call, so that a kill cuts between lines or within the last one.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
}

async fn watch(store: Store, id: usize, prefix: &'static str, after: Revision) {
    let mut watch = store.watch(prefix, after).await.unwrap();
    loop {
        match watch.next().await.unwrap() {
            Ok(WatchItem::Change(change)) => {
                say(&format!(
                    "@watched {id} {} {}",
                    change.revision(),
                    change.key()
                ));
            }
            Ok(WatchItem::Progress(_)) => {}
            // The compactor of this test is merciless.
            Err(Error::Compacted { .. } | Error::Slow { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn write(store: Store, writer: usize) {
    loop {
        let key = match rand::random_range(0..10) {
            0 => "/shared".to_owned(),
            _ => format!("/k/{writer}/{}", rand::random_range(0..12)),
        };
        let current = store.get(&key).await.unwrap().0;
        let value = format!("{:016x}", rand::random::<u64>());
        let padding = ".".repeat(rand::random_range(1..6_000));
        let padded = Bytes::from(value.clone() + &padding);
        let done = match current {
            Some(entry) if rand::random_range(0..4) == 0 => store
                .delete(&key, entry.modified)
                .await
                .map(|at| format!("@deleted {at} {key}")),
            current => {
                let expect = current.map_or(Expect::Absent, |entry| Expect::At(entry.modified));
                store
                    .put(&key, padded, expect)
                    .await
                    .map(|entry| format!("@put {} {key} {value}", entry.modified))
            }
        };
        match done {
            Ok(line) => say(&line),
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn compact(store: Store) {
    loop {
        tokio::time::sleep(Duration::from_millis(rand::random_range(1..60))).await;
        let newest = store.revision().await.unwrap().0;
        let below = Revision(newest.saturating_sub(rand::random_range(0..400)));
        store.compact(below).await.unwrap();
        say(&format!("@compacted {}", store.compacted()));
    }
}
