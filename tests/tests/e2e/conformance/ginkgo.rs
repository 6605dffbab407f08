//! Runs Kubernetes' tests by ginkgo, and shows how far they are.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long all tests of a run may take.
const PATIENCE: &str = "3h";
/// How often it is said how far they are.
const SAID: Duration = Duration::from_secs(30);

pub struct Ginkgo {
    pub program: PathBuf,
    pub tests: PathBuf,
    pub kubectl: PathBuf,
    pub kubeconfig: PathBuf,
    pub focus: Option<String>,
    pub skip: Vec<String>,
    /// Where reports and logs are written.
    pub output: PathBuf,
}

impl Ginkgo {
    /// Runs tests by their labels, so many side by side; where the report is, and whether
    /// all that was to be run ended well.
    pub fn run(&self, name: &str, labels: &str, beside: &str) -> (PathBuf, bool) {
        let report = format!("{name}.json");
        let home = self.output.join("home");
        std::fs::create_dir_all(&home).unwrap();
        let log = File::create(self.output.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--procs={beside}"))
            .arg(format!("--label-filter={labels}"))
            .args(self.focus.iter().map(|it| format!("--focus={it}")))
            .args(self.skip.iter().map(|it| format!("--skip={it}")))
            .arg(format!("--timeout={PATIENCE}"))
            .arg(format!("--output-dir={}", self.output.display()))
            .arg(format!("--json-report={report}"))
            .arg(format!("--junit-report={name}.xml"))
            .args(["--no-color", "--succinct"])
            .arg(&self.tests)
            .args(["--", "--provider=skeleton"])
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--kubectl-path={}", self.kubectl.display()))
            // What a user has there is of no concern.
            .env("HOME", &home)
            .env("KUBECACHEDIR", home.join("cache"))
            .env_remove("KUBECONFIG")
            .current_dir(&self.output)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().unwrap());
        println!("    {name}: tests with labels {labels}, {beside} side by side");
        let mut child = command.spawn().unwrap();
        let mut shown = Shown::of(name);
        let said = shown.say_now_and_then();
        let mut output = child.stdout.take().unwrap();
        let mut log = log;
        let mut buffer = [0; 8192];
        loop {
            let read = output.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            log.write_all(&buffer[..read]).unwrap();
            shown.more(&buffer[..read]);
        }
        let status = child.wait().unwrap();
        drop(said);
        println!("    {name}: {status}");
        (self.output.join(report), status.success())
    }
}

/// How far the tests are, by the dots with which ginkgo marks each that has ended.
struct Shown {
    name: String,
    line: Vec<u8>,
    ended: Arc<AtomicUsize>,
}

impl Shown {
    fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            line: Vec::new(),
            ended: Arc::default(),
        }
    }

    /// Until what is returned is dropped.
    fn say_now_and_then(&self) -> Sender<()> {
        let (until, ended) = channel();
        let (name, count, began) = (self.name.clone(), self.ended.clone(), Instant::now());
        std::thread::spawn(move || {
            while ended.recv_timeout(SAID) == Err(RecvTimeoutError::Timeout) {
                let (count, seconds) = (count.load(Ordering::Relaxed), began.elapsed().as_secs());
                println!("    {name}: {count} have ended after {seconds} s");
            }
        });
        until
    }

    fn more(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                // A dot stands alone, and its line may end much later.
                if self.line.ends_with("•".as_bytes()) {
                    self.ended.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim().to_owned();
            if line.starts_with("Will run") || line.starts_with("[FAIL]") {
                println!("    {}: {line}", self.name);
            }
            self.line.clear();
        }
    }
}
