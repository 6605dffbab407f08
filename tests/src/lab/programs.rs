//! Programs that the lab builds from source: pinned by go.mod and go.sum,
//! built once, and kept in a cache that outlives the clone.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::command::{describe, run};
use super::directories::{self, Directories};
use super::error::{Doing, Error, Result};
use super::process::tail;

pub mod conformance;

/// One Go module of ours that becomes one executable.
pub struct GoProgram {
    /// Name of the executable.
    pub name: &'static str,
    /// Names by which it is called, links beside it.
    pub links: &'static [&'static str],
    /// The package to build.
    package: &'static str,
    /// The module that gives it its version.
    module: &'static str,
    /// Variables of the linker that carry the version. `{version}`, `{major}`
    /// and `{minor}` are filled in.
    variables: &'static [&'static str],
    go_mod: &'static str,
    go_sum: &'static str,
    main: Option<&'static str>,
    /// Cold build with two cores, for the estimate.
    expected: Duration,
}

macro_rules! source {
    ($name:literal, $file:literal) => {
        include_str!(concat!("../../programs/", $name, "/", $file))
    };
}

/// Without them kubeadm and the checks of version skew go astray.
const VERSION_OF_KUBERNETES: &[&str] = &[
    "k8s.io/component-base/version.gitVersion={version}",
    "k8s.io/component-base/version.gitMajor={major}",
    "k8s.io/component-base/version.gitMinor={minor}",
    "k8s.io/component-base/version.gitTreeState=clean",
    "k8s.io/client-go/pkg/version.gitVersion={version}",
    "k8s.io/client-go/pkg/version.gitMajor={major}",
    "k8s.io/client-go/pkg/version.gitMinor={minor}",
    "k8s.io/client-go/pkg/version.gitTreeState=clean",
];

/// Kubernetes: server programs, kubelet, kubeadm and kubectl.
pub static KUBERNETES: GoProgram = GoProgram {
    name: "kubernetes",
    links: &[
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
        "kubeadm",
        "kubectl",
    ],
    package: ".",
    module: "k8s.io/kubernetes",
    variables: VERSION_OF_KUBERNETES,
    go_mod: source!("kubernetes", "go.mod"),
    go_sum: source!("kubernetes", "go.sum"),
    main: Some(source!("kubernetes", "main.go")),
    expected: Duration::from_secs(480),
};

/// etcd and etcdctl.
pub static ETCD: GoProgram = GoProgram {
    name: "etcd",
    links: &["etcdctl"],
    package: ".",
    module: "go.etcd.io/etcd/server/v3",
    variables: &[],
    go_mod: source!("etcd", "go.mod"),
    go_sum: source!("etcd", "go.sum"),
    main: Some(source!("etcd", "main.go")),
    expected: Duration::from_secs(70),
};

/// CoreDNS.
pub static COREDNS: GoProgram = GoProgram {
    name: "coredns",
    links: &[],
    package: ".",
    module: "github.com/coredns/coredns",
    variables: &[],
    go_mod: source!("coredns", "go.mod"),
    go_sum: source!("coredns", "go.sum"),
    main: Some(source!("coredns", "main.go")),
    expected: Duration::from_secs(60),
};

/// helm.
pub static HELM: GoProgram = GoProgram {
    name: "helm",
    links: &[],
    package: "helm.sh/helm/v3/cmd/helm",
    module: "helm.sh/helm/v3",
    variables: &["helm.sh/helm/v3/internal/version.version={version}"],
    go_mod: source!("helm", "go.mod"),
    go_sum: source!("helm", "go.sum"),
    main: None,
    expected: Duration::from_secs(90),
};

/// Both ends of the tunnel from an API server to nodes that it cannot reach, and a
/// webhook for tests of it.
pub static KONNECTIVITY: GoProgram = GoProgram {
    name: "konnectivity",
    links: &["proxy-server", "proxy-agent", "webhook"],
    package: ".",
    module: "sigs.k8s.io/apiserver-network-proxy",
    variables: &[],
    go_mod: source!("konnectivity", "go.mod"),
    go_sum: source!("konnectivity", "go.sum"),
    main: Some(source!("konnectivity", "main.go")),
    expected: Duration::from_secs(120),
};

/// Everything the lab builds with Go, cheapest first, so that a machine that
/// cannot build says so soon.
pub static ALL: [&GoProgram; 5] = [&ETCD, &COREDNS, &HELM, &KONNECTIVITY, &KUBERNETES];

/// A client-go informer that prints what it hears, for tests of our server; no
/// part of a cluster, so that whoever needs it builds it.
pub static INFORMER: GoProgram = GoProgram {
    name: "informer",
    links: &[],
    package: ".",
    module: "k8s.io/client-go",
    variables: &[],
    go_mod: source!("informer", "go.mod"),
    go_sum: source!("informer", "go.sum"),
    main: Some(source!("informer", "main.go")),
    expected: Duration::from_secs(60),
};

/// Kubernetes' clients and decoder of protobuf, to compare ours with a CRD's; no part of a
/// cluster either.
pub static METADATA: GoProgram = GoProgram {
    name: "metadata",
    links: &[],
    package: ".",
    module: "k8s.io/client-go",
    variables: &[],
    go_mod: source!("metadata", "go.mod"),
    go_sum: source!("metadata", "go.sum"),
    main: Some(source!("metadata", "main.go")),
    expected: Duration::from_secs(60),
};

/// A receiver of traces, OTLP over gRPC, that writes what it is given into a file.
pub static COLLECTOR: GoProgram = GoProgram {
    name: "collector",
    links: &[],
    package: ".",
    module: "go.opentelemetry.io/proto/otlp",
    variables: &[],
    go_mod: source!("collector", "go.mod"),
    go_sum: source!("collector", "go.sum"),
    main: Some(source!("collector", "main.go")),
    expected: Duration::from_secs(40),
};

/// What Kubernetes makes of updates and applied configurations, to compare ours with; no
/// part of a cluster either.
pub static MANAGED_FIELDS: GoProgram = GoProgram {
    name: "managedfields",
    links: &[],
    package: ".",
    module: "k8s.io/apimachinery",
    variables: &[],
    go_mod: source!("managedfields", "go.mod"),
    go_sum: source!("managedfields", "go.sum"),
    main: Some(source!("managedfields", "main.go")),
    expected: Duration::from_secs(30),
};

/// What Kubernetes makes of expressions of admission, to compare ours with.
pub static EXPRESSIONS: GoProgram = GoProgram {
    name: "expressions",
    links: &[],
    package: ".",
    module: "k8s.io/apiserver",
    variables: &[],
    go_mod: source!("expressions", "go.mod"),
    go_sum: source!("expressions", "go.sum"),
    main: Some(source!("expressions", "main.go")),
    expected: Duration::from_secs(40),
};

/// Flux's library for sets of objects, Argo CD's for a cluster, controller-runtime, and Helm 4:
/// clients that judge our API, for tests of it.
pub static FLUX: GoProgram = GoProgram {
    name: "flux",
    links: &[],
    package: ".",
    module: "github.com/fluxcd/pkg/ssa",
    variables: &[],
    go_mod: source!("flux", "go.mod"),
    go_sum: source!("flux", "go.sum"),
    main: Some(source!("flux", "main.go")),
    expected: Duration::from_secs(60),
};

/// See [`FLUX`].
pub static ARGO_CD: GoProgram = GoProgram {
    name: "argocd",
    links: &[],
    package: ".",
    module: "github.com/argoproj/argo-cd/gitops-engine",
    variables: &[],
    go_mod: source!("argocd", "go.mod"),
    go_sum: source!("argocd", "go.sum"),
    main: Some(source!("argocd", "main.go")),
    expected: Duration::from_secs(60),
};

/// See [`FLUX`].
pub static CONTROLLER_RUNTIME: GoProgram = GoProgram {
    name: "controllerruntime",
    links: &[],
    package: ".",
    module: "sigs.k8s.io/controller-runtime",
    variables: &[],
    go_mod: source!("controllerruntime", "go.mod"),
    go_sum: source!("controllerruntime", "go.sum"),
    main: Some(source!("controllerruntime", "main.go")),
    expected: Duration::from_secs(30),
};

/// See [`FLUX`].
pub static HELM_4: GoProgram = GoProgram {
    name: "helm4",
    links: &[],
    package: "helm.sh/helm/v4/cmd/helm",
    module: "helm.sh/helm/v4",
    variables: &["helm.sh/helm/v4/internal/version.version={version}"],
    go_mod: source!("helm4", "go.mod"),
    go_sum: source!("helm4", "go.sum"),
    main: None,
    expected: Duration::from_secs(90),
};

/// kine, by which API servers keep their data in SQL databases; for tests of tenants in
/// those, no part of the management cluster.
pub static KINE: GoProgram = GoProgram {
    name: "kine",
    links: &[],
    package: "github.com/k3s-io/kine",
    module: "github.com/k3s-io/kine",
    variables: &["github.com/k3s-io/kine/pkg/version.Version={version}"],
    go_mod: source!("kine", "go.mod"),
    go_sum: source!("kine", "go.sum"),
    main: None,
    expected: Duration::from_secs(150),
};

/// NATS, a database of tenants beside the cluster.
pub static NATS: GoProgram = GoProgram {
    name: "nats-server",
    links: &[],
    package: "github.com/nats-io/nats-server/v2",
    module: "github.com/nats-io/nats-server/v2",
    variables: &[],
    go_mod: source!("nats", "go.mod"),
    go_sum: source!("nats", "go.sum"),
    main: None,
    expected: Duration::from_secs(60),
};

impl GoProgram {
    /// The version in go.mod, with its "v".
    pub fn version(&self) -> &'static str {
        self.go_mod
            .lines()
            .filter_map(|line| {
                let line = line.trim().trim_start_matches("require ");
                let version = line.strip_prefix(self.module)?.strip_prefix(' ')?;
                version.split_whitespace().next()
            })
            .next()
            .unwrap_or_default()
    }

    /// Cold build with two cores.
    pub fn expected(&self) -> Duration {
        self.expected
    }

    /// Where the executable is once it is built.
    pub fn directory(&self, directories: &Directories) -> PathBuf {
        directories
            .cache
            .join(format!("{}-{}", self.name, self.key()))
    }

    /// The path of the executable or of one of its links.
    pub fn path(&self, directories: &Directories, name: &str) -> PathBuf {
        self.directory(directories).join(name)
    }

    /// Whether the cache holds it.
    pub fn is_built(&self, directories: &Directories) -> bool {
        self.path(directories, self.name).is_file()
            && self
                .links
                .iter()
                .all(|link| self.path(directories, link).is_file())
    }

    /// Builds it unless the cache holds it; `say` receives lines of progress.
    pub fn build(&self, directories: &Directories, say: &mut dyn FnMut(&str)) -> Result<()> {
        if self.is_built(directories) {
            return Ok(());
        }
        let target = self.directory(directories);
        directories::create(&directories.cache)?;
        let work = tempfile::Builder::new()
            .prefix(&format!(".{}-", self.name))
            .tempdir_in(&directories.cache)
            .doing(|| format!("create a directory in {}", directories.cache.display()))?;
        let source = work.path().join("source");
        let output = work.path().join("output");
        directories::create(&source)?;
        directories::create(&output)?;
        directories::write(&source.join("go.mod"), self.go_mod)?;
        directories::write(&source.join("go.sum"), self.go_sum)?;
        if let Some(main) = self.main {
            directories::write(&source.join("main.go"), main)?;
        }
        self.download(&source, say)?;
        self.compile(&source, &output, say)?;
        for link in self.links {
            std::os::unix::fs::symlink(self.name, output.join(link))
                .doing(|| format!("link {link}"))?;
        }
        // A half-built program is never under the final name, and what stands
        // there without being whole makes way.
        let _ = std::fs::remove_dir_all(&target);
        std::fs::rename(&output, &target).doing(|| format!("create {}", target.display()))
    }

    fn download(&self, source: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
        say(&format!(
            "{} {}: fetching modules",
            self.name,
            self.version()
        ));
        let mut attempt = 1;
        loop {
            // `go list` fetches only what the package needs, `go mod
            // download` everything that any test anywhere mentions.
            match run(self.list(source).args(["-deps", self.package])) {
                Ok(_) => return Ok(()),
                Err(error) if attempt == 3 => return Err(error),
                Err(_) => {
                    attempt += 1;
                    say(&format!("{}: trying again to fetch modules", self.name));
                    std::thread::sleep(Duration::from_secs(3));
                }
            }
        }
    }

    fn compile(&self, source: &Path, output: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
        let stale: HashSet<String> = run(self
            .list(source)
            .args(self.flags())
            .args(["-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}"])
            .arg(self.package))?
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
        let started = Instant::now();
        let log = source.join("build.log");
        let mut lines = Vec::new();
        let mut command = if self.is_test() {
            // It says nothing of its packages.
            say(&progress(self, 0, stale.len(), started.elapsed()));
            let mut command = self.go(source, "test");
            command.arg("-c");
            command
        } else {
            let mut command = self.go(source, "build");
            command.arg("-v");
            command
        };
        command
            .args(self.flags())
            .arg("-o")
            .arg(output.join(self.name))
            .arg(self.package);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .doing(|| "start go".into())?;
        let mut done = 0;
        let mut last = None;
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).lines().map_while(|line| line.ok()) {
                if stale.contains(&line) {
                    done += 1;
                }
                lines.push(line);
                let due = last.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(5));
                if due {
                    last = Some(Instant::now());
                    say(&progress(self, done, stale.len(), started.elapsed()));
                }
            }
        }
        let status = child.wait().doing(|| "wait for go".into())?;
        if status.success() {
            say(&format!(
                "{} {}: built in {} s",
                self.name,
                self.version(),
                started.elapsed().as_secs()
            ));
            return Ok(());
        }
        directories::write(&log, lines.join("\n"))?;
        Err(Error::Command {
            command: describe(&command),
            status: status.to_string(),
            output: tail(&log, 20),
        })
    }

    /// Whether it is a package's tests, which Go names so.
    fn is_test(&self) -> bool {
        self.name.ends_with(".test")
    }

    fn list(&self, source: &Path) -> Command {
        let mut command = self.go(source, "list");
        if self.is_test() {
            command.arg("-test");
        }
        command
    }

    /// Where Go keeps the sources of its module.
    pub(crate) fn sources(&self) -> Result<PathBuf> {
        let work = tempfile::tempdir().doing(|| "create a temporary directory".into())?;
        directories::write(&work.path().join("go.mod"), self.go_mod)?;
        directories::write(&work.path().join("go.sum"), self.go_sum)?;
        run(self
            .go(work.path(), "list")
            .args(["-m", "-f", "{{.Dir}}", self.module]))
        .map(|path| path.trim().into())
    }

    fn go(&self, source: &Path, subcommand: &str) -> Command {
        let mut command = Command::new("go");
        command
            .arg(subcommand)
            .current_dir(source)
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            .env("GOFLAGS", "-mod=readonly -buildvcs=false");
        command
    }

    fn flags(&self) -> Vec<String> {
        let version = self.version();
        let mut numbers = version.trim_start_matches('v').split('.');
        let major = numbers.next().unwrap_or_default();
        let minor = numbers.next().unwrap_or_default();
        let mut linker = "-s -w".to_owned();
        for variable in self.variables {
            linker.push_str(" -X ");
            linker.push_str(
                &variable
                    .replace("{version}", version)
                    .replace("{major}", major)
                    .replace("{minor}", minor),
            );
        }
        vec!["-trimpath".into(), format!("-ldflags={linker}")]
    }

    /// Whatever changes the executable changes the key.
    fn key(&self) -> String {
        let mut parts = vec![
            self.go_mod.to_owned(),
            self.go_sum.to_owned(),
            self.main.unwrap_or_default().to_owned(),
            self.package.to_owned(),
            std::env::consts::ARCH.to_owned(),
            self.links.join(" "),
        ];
        parts.extend(self.flags());
        key(parts.iter().map(String::as_str))
    }
}

/// A short hash of several texts, each counted with its length.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    hex::encode(&context.finish().as_ref()[..8])
}

fn progress(program: &GoProgram, done: usize, all: usize, elapsed: Duration) -> String {
    let mut text = format!(
        "{} {}: {done} of {all} packages, {} s",
        program.name,
        program.version(),
        elapsed.as_secs()
    );
    if done > 20 && all > done {
        let left = elapsed.as_secs_f64() * (all - done) as f64 / done as f64;
        text.push_str(&format!(", about {left:.0} s left"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_version() {
        let of_tests = [
            &INFORMER,
            &COLLECTOR,
            &MANAGED_FIELDS,
            &EXPRESSIONS,
            &KINE,
            &NATS,
        ];
        let conformance = conformance::ALL;
        let clients = [&FLUX, &ARGO_CD, &CONTROLLER_RUNTIME, &HELM_4];
        for program in ALL
            .into_iter()
            .chain(of_tests)
            .chain(clients)
            .chain(conformance)
        {
            assert!(program.version().starts_with('v'), "{}", program.name);
        }
        assert_eq!(KUBERNETES.version(), "v1.36.3");
        assert_eq!(conformance::E2E.version(), KUBERNETES.version());
    }

    #[test]
    fn versions_reach_the_linker() {
        let flags = KUBERNETES.flags().join(" ");
        assert!(flags.contains("version.gitVersion=v1.36.3 "), "{flags}");
        assert!(flags.contains("version.gitMinor=36"), "{flags}");
        assert!(!flags.contains('{'), "{flags}");
    }

    #[test]
    fn the_key_tells_apart_where_texts_end() {
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
    }
}
