//! Programs of a run: started in its namespaces and control group, known by
//! process id and start time, each with a log of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::command;
use super::directories::{self, RunDirectory};
use super::error::{Doing, Error, Result};
use super::go;

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start: u64,
}

impl ProcessId {
    /// The calling process.
    pub fn current() -> Result<Self> {
        let pid = std::process::id();
        Self::of(pid).ok_or_else(|| Error::Refused(format!("/proc/{pid}/stat cannot be read")))
    }

    /// The process with this id, if it runs: one whose first thread has ended
    /// holds its files and ports as long as another thread is there.
    pub fn of(pid: u32) -> Option<Self> {
        let entry = PathBuf::from(format!("/proc/{pid}"));
        let (state, start) = stat(&entry)?;
        (runs(state) || a_thread_runs(&entry)).then_some(Self { pid, start })
    }

    /// Whether this very process still runs.
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal by name, if the process is still this one.
    pub fn signal(self, name: &str) {
        if self.alive() {
            signal(&[self.pid], name);
        }
    }

    /// Kills the process and waits until nothing of it runs, ten seconds at most.
    pub fn kill(self) {
        self.signal("KILL");
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Sends a signal to each process; one that is gone is no error. The shell's
/// own `kill` is everywhere, the program of that name is not.
pub(crate) fn signal(pids: &[u32], name: &str) {
    let mut shell = command::command("sh", ["-c", "kill \"$@\" 2>/dev/null", "sh"]);
    shell.arg(format!("-{name}"));
    shell.args(pids.iter().map(u32::to_string));
    let _ = command::run(&mut shell);
}

fn stat(entry: &Path) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(entry.join("stat")).ok()?)
}

/// Neither ended and not collected yet (`Z`), nor about to vanish (`X`).
fn runs(state: char) -> bool {
    state != 'Z' && state != 'X'
}

fn a_thread_runs(entry: &Path) -> bool {
    let threads = fs::read_dir(entry.join("task")).into_iter().flatten();
    let states = threads.flatten().filter_map(|thread| stat(&thread.path()));
    states.into_iter().any(|(state, _)| runs(state))
}

/// State and start time. The second field is the program's name in
/// parentheses and may hold anything, so that fields count from the last
/// parenthesis.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A program to start.
pub struct Program {
    name: String,
    command: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    place: Place,
}

/// Where a program runs.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the run's network, with the machine's files.
    Network,
    /// Also with the mounts of this process.
    Mounts(ProcessId),
    /// On the worker host whose namespaces this process holds.
    Host(ProcessId),
}

impl Program {
    /// A program called `name` in logs and records.
    pub fn new(name: &str, path: impl Into<OsString>) -> Self {
        Self {
            name: name.to_owned(),
            command: vec![path.into()],
            environment: Vec::new(),
            place: Place::Network,
        }
    }

    /// Gives the program another name in logs and records.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Adds arguments.
    pub fn args<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs the program in the mount namespace of another process.
    pub fn in_mounts_of(mut self, holder: ProcessId) -> Self {
        self.place = Place::Mounts(holder);
        self
    }

    /// Runs the program on the worker host of another process: its network,
    /// its mounts, its host name.
    pub fn on_host_of(mut self, holder: ProcessId) -> Self {
        self.place = Place::Host(holder);
        self
    }

    /// The command that becomes the program, in its place and control group.
    pub(crate) fn command(&self, directory: &RunDirectory, cgroup: &Cgroup) -> Command {
        // The shell joins the group and then becomes nsenter, which becomes the
        // program: one process id from beginning to end.
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec nsenter \"$@\""])
            .arg(cgroup.programs());
        let of = |holder: ProcessId, kind: &str| format!("/proc/{}/ns/{kind}", holder.pid);
        match self.place {
            Place::Host(holder) => shell
                .arg(format!("--net={}", of(holder, "net")))
                .arg(format!("--uts={}", of(holder, "uts"))),
            _ => shell.arg(format!("--net={}", directory.network().display())),
        };
        if let Place::Mounts(holder) | Place::Host(holder) = self.place {
            shell.arg(format!("--mount={}", of(holder, "mnt")));
        }
        shell.arg("--").args(&self.command);
        shell.env(go::VARIABLE, go::growth());
        for (name, value) in &self.environment {
            shell.env(name, value);
        }
        shell
    }
}

/// A running program of the lab.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name in logs and records.
    pub name: String,
    /// The process.
    pub id: ProcessId,
    pub(crate) log: PathBuf,
    pub(crate) logs: PathBuf,
}

impl Process {
    /// Fails, with the end of its log, if the program has ended.
    pub fn check(&self) -> Result<()> {
        if self.id.alive() {
            return Ok(());
        }
        Err(self.failure("ended unexpectedly"))
    }

    /// An error that shows the end of the log.
    pub fn failure(&self, what: impl Into<String>) -> Error {
        Error::Program {
            program: self.name.clone(),
            what: what.into(),
            tail: tail(&self.log, 20),
            logs: self.logs.clone(),
        }
    }
}

/// Starts `program` in the run's network namespace and control group.
///
/// The process survives its parent. Its output goes to the run's log of that
/// name, which is appended to.
pub fn start(directory: &RunDirectory, cgroup: &Cgroup, program: Program) -> Result<Process> {
    let process = spawn(program.command(directory, cgroup), &program.name, directory)?;
    let id = serde_json::to_vec(&process.id);
    let record = id.map_err(|error| Error::Refused(error.to_string()))?;
    directories::write(&directory.processes().join(&program.name), record)?;
    Ok(process)
}

/// Starts a command that survives this process, with its output in the run's
/// log of that name, which is appended to.
pub(crate) fn spawn(mut command: Command, name: &str, directory: &RunDirectory) -> Result<Process> {
    let path = directory.log(name);
    let open = || format!("open {}", path.display());
    let log = File::options().create(true).append(true).open(&path);
    let log = log.doing(open)?;
    let log_too = log.try_clone().doing(open)?;
    let mut child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too)
        .process_group(0)
        .spawn()
        .doing(|| format!("start {name}"))?;
    let id = ProcessId::of(child.id()).ok_or_else(|| Error::Program {
        program: name.to_owned(),
        what: "ended at once".into(),
        tail: tail(&path, 20),
        logs: directory.logs(),
    })?;
    // Whoever outlives the program must collect it, or it stays a zombie.
    std::thread::Builder::new()
        .name(format!("wait {name}"))
        .spawn(move || child.wait())
        .doing(|| "start a thread".into())?;
    Ok(Process {
        name: name.to_owned(),
        id,
        log: path,
        logs: directory.logs(),
    })
}

/// The program called `name` of a run, running or not.
pub fn recorded(directory: &RunDirectory, name: &str) -> Result<Process> {
    let path = directory.processes().join(name);
    let record = directories::read(&path)?;
    let id = serde_json::from_str(&record)
        .map_err(|error| Error::Refused(format!("{}: {error}", path.display())))?;
    Ok(Process {
        name: name.to_owned(),
        id,
        log: directory.log(name),
        logs: directory.logs(),
    })
}

/// The last `lines` lines of a file; of a long file only its end is read.
pub fn tail(path: &Path, lines: usize) -> String {
    const WINDOW: u64 = 64 * 1024;
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        file.read_to_end(&mut text)
    });
    if let Err(error) = read {
        return format!("({}: {error})", path.display());
    }
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_hold_anything() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(parse_stat(stat), Some(('S', 4711)));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessId::current().unwrap();
        assert!(me.alive());
        assert!(
            !ProcessId {
                start: me.start + 1,
                ..me
            }
            .alive()
        );
    }

    #[test]
    fn a_process_runs_as_long_as_a_thread_of_it() {
        const SOURCE: &str = "
            #include <pthread.h>
            #include <unistd.h>
            static void *stay(void *p) { (void)p; pause(); return 0; }
            int main(void) {
                pthread_t other;
                pthread_create(&other, 0, stay, 0);
                pthread_exit(0);
            }
        ";
        let files = tempfile::tempdir().unwrap();
        let (source, program) = (files.path().join("a.c"), files.path().join("a"));
        fs::write(&source, SOURCE).unwrap();
        let mut cc = Command::new("cc");
        let cc = cc.args(["-pthread", "-o"]).arg(&program).arg(&source);
        assert!(cc.status().unwrap().success());
        let mut child = Command::new(&program).spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        let entry = PathBuf::from(format!("/proc/{}", id.pid));
        while stat(&entry).unwrap().0 != 'Z' {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(id.alive());
        id.kill();
        assert!(!a_thread_runs(&entry) && !id.alive());
        child.wait().unwrap();
    }

    #[test]
    fn a_tail_is_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "a\nb\nc\n").unwrap();
        assert_eq!(tail(file.path(), 2), "b\nc");
    }
}
