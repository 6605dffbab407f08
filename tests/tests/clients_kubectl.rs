//! kubectl, command by command, against our server and against a
//! CustomResourceDefinition of the same schema: what differs is a file in git,
//! each difference with its reason.
//!
//! The commands are in `golden/kubectl/steps.txt`. `UPDATE_GOLDEN=1 cargo test -p
//! tests --test clients_kubectl` writes `differences.txt` anew.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use regex::Regex;
use tests::lab::{Lab, Level};
use tests::served::{Said, Served, eventually, run};

/// One command and what is expected of it.
struct Step {
    command: String,
    succeeds: bool,
    /// Why the two answers differ.
    reason: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/kubectl")
}

fn steps() -> Vec<Step> {
    let text = std::fs::read_to_string(folder().join("steps.txt")).unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        match line.split_once(' ') {
            Some((sign @ ("$" | "!"), command)) => steps.push(Step {
                command: command.to_owned(),
                succeeds: sign == "$",
                reason: None,
            }),
            Some(("~", reason)) => steps.last_mut().unwrap().reason = Some(reason.to_owned()),
            _ => assert!(line.is_empty() || line.starts_with('#'), "{line}"),
        }
    }
    steps
}

/// One of the two clusters, with a home and a working directory of its own.
struct Side {
    directory: tempfile::TempDir,
    programs: PathBuf,
}

impl Side {
    fn new(lab: &Lab) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        for folder in [folder(), examples] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        std::fs::create_dir(directory.path().join("tmp")).unwrap();
        std::fs::copy(lab.kubeconfig(), directory.path().join("kubeconfig")).unwrap();
        let kubectl = lab.program("kubectl");
        Self {
            directory,
            programs: kubectl.parent().unwrap().to_owned(),
        }
    }

    fn run(&self, command: &str) -> Said {
        let path = std::env::var("PATH").unwrap();
        // What `kubectl edit` leaves behind goes with the rest.
        let temporary = self.directory.path().join("tmp");
        let mut said = run(Command::new("bash")
            .args(["-c", &format!(". ./prelude.sh; {command}")])
            .current_dir(self.directory.path())
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("HOME", self.directory.path())
            .env("TMPDIR", &temporary)
            .env("KUBECONFIG", self.directory.path().join("kubeconfig")));
        for text in [&mut said.stdout, &mut said.stderr] {
            *text = text.replace(&*temporary.to_string_lossy(), "/tmp");
        }
        said
    }

    async fn ready(&self) {
        eventually("kubectl knows the kinds", Duration::from_secs(90), || {
            self.run("kubectl explain tcp && kubectl explain datastores && kubectl explain tcp --output=plaintext-openapiv2 && kubectl get tcp,datastores -A")
                .code
                == 0
        })
        .await;
    }
}

/// Takes out what no two runs have in common.
struct Normal(Vec<(Regex, &'static str)>);

impl Normal {
    fn new() -> Self {
        let rules = [
            (
                r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                "UID",
            ),
            (
                r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000)",
                "TIME",
            ),
            (r#"(?i)(resource ?version"?: *)"?[0-9]+"?"#, "${1}REVISION"),
            (r#""continue":"[^"]*""#, r#""continue":"TOKEN""#),
            (r"\b(\d+m)?\d+s\b", "AGE"),
            (r#"(\\"resourceVersion\\":\\")\d+"#, "${1}REVISION"),
            // Said once, by --show-managed-fields.
            (r#"\\"managedFields\\":\[.*?\],(\\"name\\":)"#, "$1"),
            (r"/tmp/(LIVE|MERGED)-\d+", "/tmp/$1"),
            (r"kubectl-edit-\d+", "kubectl-edit"),
            (r"gen-[a-z0-9]{5}", "gen-RANDOM"),
            (r"(?m)^[EWI]\d{4} [\d:.]+ +\d+ ", "LOG "),
            // Columns are as wide as the ages in them.
            (r"(?m)(\S)  +", "$1   "),
            (r"(?m) +$", ""),
        ];
        Self(
            rules
                .map(|(pattern, with)| (Regex::new(pattern).unwrap(), with))
                .into(),
        )
    }

    fn text(&self, said: &Said) -> String {
        let mut text = said.text();
        for (pattern, with) in &self.0 {
            text = pattern.replace_all(&text, *with).into_owned();
        }
        text
    }
}

/// The lines that one side has and the other has not, in order.
fn differences(crd: &str, ours: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (crd.lines().collect(), ours.lines().collect());
    // common[i][j]: length of the longest common part of a[i..] and b[j..].
    let mut common = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || common[i + 1][j] >= common[i][j + 1]) {
            text += &format!("  CRD  | {}\n", a[i]);
            i += 1;
        } else {
            text += &format!("  ours | {}\n", b[j]);
            j += 1;
        }
    }
    text
}

/// R6.6, R6.15, R6.22, R8.21.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_sees_what_it_sees_of_a_crd() {
    let other = Lab::start(Level::Api).await.unwrap();
    for resource in apiservice::RESOURCES {
        let crd = apiservice::crd::crd(resource).unwrap();
        let crd = serde_json::to_string(&crd).unwrap();
        let path = other.directory().path().join("crd.json");
        std::fs::write(&path, crd).unwrap();
        let path = path.display().to_string();
        other.kubectl(&["create", "-f", &path]).unwrap();
    }
    let served = Served::here().await;
    let (crd, ours) = (Side::new(&other), Side::new(&served.lab));
    tokio::join!(crd.ready(), ours.ready());

    let steps = steps();
    let answers = |side: &Side| -> Vec<Said> {
        let timed = |step: &Step| {
            let started = Instant::now();
            let said = side.run(&step.command);
            if started.elapsed() > Duration::from_secs(3) {
                println!("{:?}: {}", started.elapsed(), step.command);
            }
            said
        };
        steps.iter().map(timed).collect()
    };
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| answers(&crd));
        let ours = answers(&ours);
        (theirs.join().unwrap(), ours)
    });

    let normal = Normal::new();
    let (mut golden, mut wrong) = (String::new(), String::new());
    for ((step, theirs), mine) in steps.iter().zip(theirs).zip(ours) {
        let codes = [theirs.code, mine.code];
        let (theirs, mine) = (normal.text(&theirs), normal.text(&mine));
        let differs = codes[0] != codes[1] || theirs != mine;
        let shown = format!(
            "$ {}\n{}{}",
            step.command,
            if codes[0] == codes[1] {
                String::new()
            } else {
                format!("  exit codes: CRD {}, ours {}\n", codes[0], codes[1])
            },
            differences(&theirs, &mine)
        );
        match &step.reason {
            Some(reason) if differs => golden += &format!("because {reason}\n{shown}\n"),
            Some(_) => wrong += &format!("does not differ any more, remove the reason:\n{shown}\n"),
            None if differs => wrong += &format!("differs, and no reason is given:\n{shown}\n"),
            None if (codes[0] == 0) != step.succeeds => {
                wrong += &format!("exit code {} on both:\n{shown}{mine}\n", codes[0]);
            }
            None => {}
        }
    }
    let path = folder().join("differences.txt");
    let head = "# Where kubectl sees our kinds otherwise than a CustomResourceDefinition of the same\n# schema. Written by the test clients_kubectl; the reasons come from steps.txt.\n\n";
    let golden = format!("{head}{}\n", golden.trim_end());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &golden).unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        before == golden,
        "differences.txt is not what is seen; if that is meant, run with UPDATE_GOLDEN=1:\n{}",
        differences(&before, &golden)
            .replace("  CRD  |", "  file |")
            .replace("  ours |", "  seen |")
    );
}
