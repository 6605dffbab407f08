//! One run of the lab, from start to removal.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::command;
use super::control_plane::{self, Told};
use super::directories::{Directories, RunDirectory};
use super::error::{Doing, Error, Result};
use super::go;
use super::network::{self, Addresses};
use super::node;
use super::packages::Packages;
use super::process::{self, Process, ProcessId, Program};
use super::programs::{self, KUBERNETES};
use super::record::{self, Lock, Record};
use super::{certificates, images};

/// What a run consists of. Take the lowest that proves the point.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// etcd, kube-apiserver with aggregation, kube-controller-manager.
    Api,
    /// Also a node that runs pods, Services, DNS, volumes and addresses for
    /// Services of type LoadBalancer.
    Pods,
}

/// A running management cluster. Dropping it removes it, unless it was
/// [attached to](Lab::attach) or [left standing](Lab::leave).
pub struct Lab {
    directories: Directories,
    directory: RunDirectory,
    cgroup: Cgroup,
    record: Record,
    client: kube::Client,
    ours: bool,
}

/// How to reach the cluster's etcd from the machine.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// Its address.
    pub endpoint: String,
    /// The authority of its certificate.
    pub authority: PathBuf,
    /// A client certificate.
    pub certificate: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
}

impl Lab {
    /// Starts a cluster with a name of its own. It ends when the value is
    /// dropped, and also when the calling process ends in any other way.
    ///
    /// # Errors
    /// The text of an error names the program that failed, shows the end of
    /// its log and says where the logs are kept.
    pub async fn start(level: Level) -> Result<Self> {
        Self::start_told(level, Told::default()).await
    }

    /// The same, with a policy of its audit log (`audit.k8s.io/v1`).
    pub async fn start_audited(level: Level, audit_policy: &str) -> Result<Self> {
        let told = Told {
            audit_policy,
            ..Told::default()
        };
        Self::start_told(level, told).await
    }

    /// The same, with a TracingConfiguration of kube-apiserver.
    pub async fn start_traced(level: Level, tracing: &str) -> Result<Self> {
        let told = Told {
            tracing: Some(tracing),
            ..Told::default()
        };
        Self::start_told(level, told).await
    }

    async fn start_told(level: Level, told: Told<'_>) -> Result<Self> {
        let name = hex::encode(&uuid::Uuid::new_v4().as_bytes()[..4]);
        let say = &mut |line: &str| tracing::info!("{line}");
        Self::start_as(&name, level, told, say).await
    }

    /// Starts a cluster called `name`.
    pub async fn start_named(name: &str, level: Level, say: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::start_as(name, level, Told::default(), say).await
    }

    async fn start_as(
        name: &str,
        level: Level,
        told: Told<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let directories = Directories::from_environment()?;
        build(&directories, level, say)?;
        let _turn = record::take_turn(&directories, say).await?;
        let record = {
            let lock = Lock::take(&directories)?;
            for swept in record::sweep(&directories, &lock)? {
                say(&format!("removed what the run {swept} had left"));
            }
            let record = record::claim(&directories, &lock, name, level, ProcessId::current()?)?;
            record::raise_limits(&directories, &lock)?;
            record
        };
        match Self::assemble(directories.clone(), record, told, say).await {
            Ok(lab) => Ok(lab),
            Err(error) => {
                let kept = record::keep_logs(&directories, name);
                let lock = Lock::take(&directories)?;
                record::remove(&directories, &lock, name)?;
                Err(relocate(error, kept.ok()))
            }
        }
    }

    /// The cluster of a run that is up; it stays up.
    pub async fn attach(name: &str) -> Result<Self> {
        let directories = Directories::from_environment()?;
        let directory = directories.run(name);
        if !directory.record().exists() {
            return Err(Error::Refused(format!(
                "no run called {name} is up (there are: {})",
                record::names(&directories).join(", ")
            )));
        }
        let record = Record::read(&directory)?;
        Ok(Self {
            client: client(&directory.kubeconfig()).await?,
            cgroup: Cgroup::of(name)?,
            directory,
            directories,
            record,
            ours: false,
        })
    }

    /// Leaves the cluster standing when this value and this process end.
    pub fn leave(mut self) -> Result<()> {
        self.record.owner = None;
        self.record.write(&self.directory)?;
        self.ours = false;
        Ok(())
    }

    /// A client with all rights.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The path of a kubeconfig with all rights.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.kubeconfig()
    }

    /// The run's directory: certificates (`pki`), logs, volumes.
    pub fn directory(&self) -> &RunDirectory {
        &self.directory
    }

    /// The run's addresses.
    pub fn addresses(&self) -> Addresses {
        self.record.addresses()
    }

    /// The machine's address as the cluster sees it. A server under test
    /// listens on it (or on all addresses) to be reached by the cluster.
    pub fn host_ip(&self) -> Ipv4Addr {
        self.addresses().host()
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// What the run consists of.
    pub fn level(&self) -> Level {
        self.record.level
    }

    /// The lab's roots.
    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    /// The path of a program of the release under test (`kubectl`, ...).
    pub fn program(&self, name: &str) -> PathBuf {
        KUBERNETES.path(&self.directories, name)
    }

    /// Where kubectl keeps what a cluster offers: by address, and another cluster may have
    /// had this one's a minute ago.
    pub fn kubectl_cache(&self) -> PathBuf {
        self.kubeconfig().with_extension("cache")
    }

    /// Runs kubectl as administrator and returns its output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        command::run(&mut self.kubectl_command(arguments))
    }

    /// Runs `kubectl apply -f -` on a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        command::run_with_input(&mut self.kubectl_command(&["apply", "-f", "-"]), manifest)
    }

    /// Runs `kubectl create -f -` without the round trips of validation.
    pub(crate) fn create(&self, manifest: &str) -> Result<String> {
        let arguments = ["create", "--validate=false", "-f", "-"];
        command::run_with_input(&mut self.kubectl_command(&arguments), manifest)
    }

    /// Starts a program in the cluster's network, with its output in the
    /// run's logs.
    pub fn spawn(&self, program: Program) -> Result<Process> {
        process::start(&self.directory, &self.cgroup, program)
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT`) to a program of the cluster.
    pub fn signal(&self, program: &str, signal: &str) -> Result<()> {
        let process = self.process(program)?;
        process.check()?;
        process.id.signal(signal);
        Ok(())
    }

    /// A program of the cluster by name: `etcd`, `kube-apiserver`,
    /// `kube-controller-manager`, `kube-scheduler`, `containerd`, `kubelet`,
    /// `kube-proxy`, `coredns`, or what [`spawn`](Lab::spawn) started.
    pub fn process(&self, name: &str) -> Result<Process> {
        process::recorded(&self.directory, name)
    }

    /// The cluster's etcd: a client of it has all rights. A test that keeps
    /// data of its own there uses a prefix other than `/registry/`.
    pub fn etcd(&self) -> Etcd {
        let pki = self.directory.pki();
        Etcd {
            endpoint: format!(
                "https://{}:{}",
                self.addresses().node(),
                control_plane::ETCD_PORT
            ),
            authority: pki.join("etcd/ca.crt"),
            certificate: pki.join("apiserver-etcd-client.crt"),
            key: pki.join("apiserver-etcd-client.key"),
        }
    }

    /// A further kube-apiserver on the cluster's etcd, with the keyspace
    /// `prefix` (such as `/bench-7`) and a port of its own; not started.
    /// [`spawn`](Lab::spawn) starts it, the administrator's credentials work.
    pub fn further_api_server(&self, name: &str, prefix: &str, port: u16) -> Result<Program> {
        let program =
            control_plane::api_server(&self.directories, &self.directory, self.addresses())?;
        Ok(program.named(name).args([
            format!("--etcd-prefix={prefix}"),
            format!("--secure-port={port}"),
            // It must not fight over the endpoints of the Service `kubernetes`.
            "--endpoint-reconciler-type=none".to_owned(),
            "--audit-log-path=".to_owned(),
            "--audit-policy-file=".to_owned(),
        ]))
    }

    /// Loads an image archive into the node.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        images::load(&self.directories, &self.directory, archive)
    }

    async fn assemble(
        directories: Directories,
        record: Record,
        told: Told<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let directory = directories.run(&record.name);
        let addresses = record.addresses();
        let cgroup = Cgroup::of(&record.name)?;
        cgroup.create()?;
        network::create(&directory, &record.name, addresses)?;
        certificates::create(&directories, &directory, &record.name, addresses)?;
        let start = |program: Program| process::start(&directory, &cgroup, program);

        say("starting etcd and kube-apiserver");
        let etcd = start(control_plane::etcd(&directories, &directory, addresses))?;
        let containerd = if record.level >= Level::Pods {
            let holder = node::hold_mounts(&directories, &directory, &cgroup)?;
            Some(node::start_containerd(
                &directories,
                &directory,
                &cgroup,
                holder,
            )?)
        } else {
            None
        };
        let address = (addresses.node(), control_plane::ETCD_PORT).into();
        control_plane::wait_for_port(&etcd, address, Duration::from_secs(30)).await?;
        let api_server = start(control_plane::told_api_server(
            &directories,
            &directory,
            addresses,
            told,
        )?)?;
        // Both keep trying until the API server answers, and are warm by then.
        let mut manager = start(control_plane::controller_manager(
            &directories,
            &directory,
            addresses,
        ))?;
        let scheduler = if record.level >= Level::Pods {
            Some(start(control_plane::scheduler(&directories, &directory))?)
        } else {
            None
        };
        let client = client(&directory.kubeconfig()).await?;
        control_plane::wait_for_ready(&api_server, &client, Duration::from_secs(60)).await?;
        let mut lab = Self {
            directories,
            directory,
            cgroup,
            record,
            client,
            ours: true,
        };
        if let Some(containerd) = &containerd {
            say("starting the node");
            node::start(&lab, containerd).await?;
        }
        let agent = super::agent::start(&lab)?;
        lab.record.agent = Some(agent.id);
        lab.record.write(&lab.directory)?;
        say("waiting for the controllers");
        let waited = wait_for_controllers(&lab.client, &manager).await;
        if manager.check().is_err() {
            // It gives the API server ten seconds to be healthy, which can be too short
            // beside other runs, and ends. A kubelet would start it again, too.
            manager = lab.spawn(control_plane::controller_manager(
                &lab.directories,
                &lab.directory,
                addresses,
            ))?;
            wait_for_controllers(&lab.client, &manager).await?;
        } else {
            waited?;
        }
        if containerd.is_some() {
            node::wait(&lab).await?;
        }
        for process in [&etcd, &api_server, &manager, &agent]
            .into_iter()
            .chain(&scheduler)
            .chain(&containerd)
        {
            process.check()?;
        }
        lab.record.ready = true;
        lab.record.write(&lab.directory)?;
        Ok(lab)
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .env("KUBECACHEDIR", self.kubectl_cache())
            .env(go::VARIABLE, go::growth());
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        if std::thread::panicking()
            && let Ok(kept) = record::keep_logs(&self.directories, &self.record.name)
        {
            eprintln!("logs of the lab: {}", kept.display());
        }
        let removed = Lock::take(&self.directories)
            .and_then(|lock| record::remove(&self.directories, &lock, &self.record.name));
        if let Err(error) = removed {
            eprintln!("the lab's run {} is not removed: {error}", self.record.name);
        }
    }
}

/// Builds or fetches whatever a level needs and the cache does not hold.
pub fn build(directories: &Directories, level: Level, say: &mut dyn FnMut(&str)) -> Result<()> {
    let _lock = directories.lock_cache(say)?;
    let needed: &[&programs::GoProgram] = match level {
        Level::Api => &[&programs::ETCD, &KUBERNETES],
        Level::Pods => &[
            &programs::ETCD,
            &programs::COREDNS,
            &programs::KONNECTIVITY,
            &KUBERNETES,
        ],
    };
    let missing: Vec<_> = needed
        .iter()
        .filter(|program| !program.is_built(directories))
        .collect();
    if level >= Level::Pods {
        Packages::of(directories).fetch(directories, say)?;
    }
    if !missing.is_empty() {
        let total: Duration = missing.iter().map(|program| program.expected()).sum();
        say(&format!(
            "building {}: about {} min with two cores, once for this machine",
            missing
                .iter()
                .map(|program| program.name)
                .collect::<Vec<_>>()
                .join(", "),
            total.as_secs().div_ceil(60)
        ));
    }
    for program in missing {
        program.build(directories, say)?;
    }
    if level >= Level::Pods {
        images::build_for_node(directories, say)?;
    }
    Ok(())
}

/// A namespace is of use once it has its ServiceAccount.
async fn wait_for_controllers(client: &kube::Client, manager: &Process) -> Result<()> {
    use k8s_openapi::api::core::v1::ServiceAccount;
    let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(client.clone(), "default");
    for _ in 0..1200 {
        let found = accounts
            .get_opt("default")
            .await
            .doing(|| "get the default ServiceAccount".into())?;
        if found.is_some() {
            return Ok(());
        }
        manager.check()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(manager.failure("made no ServiceAccount within 60 s"))
}

/// A client by a kubeconfig's current context.
pub(crate) async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let refused = |error: kube::config::KubeconfigError| {
        Error::Refused(format!("{}: {error}", kubeconfig.display()))
    };
    let file = kube::config::Kubeconfig::read_from(kubeconfig).map_err(refused)?;
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default())
        .await
        .map_err(refused)?;
    kube::Client::try_from(config).doing(|| "create a client".into())
}

/// Logs move before the run's directory goes: the error must name the new place.
fn relocate(error: Error, kept: Option<PathBuf>) -> Error {
    match (error, kept) {
        (
            Error::Program {
                program,
                what,
                tail,
                ..
            },
            Some(logs),
        ) => Error::Program {
            program,
            what,
            tail,
            logs,
        },
        (error, _) => error,
    }
}
