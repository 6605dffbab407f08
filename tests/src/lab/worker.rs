//! Worker hosts: machines, as far as kubeadm can tell, that join a control
//! plane which runs in the cluster.
//!
//! Each has a network, mounts and a host name of its own, with containerd in it
//! and what would start the kubelet on a real machine. What is written to /etc,
//! /usr and /opt there stays there.
//!
//! # Guarantees
//! * Several stand side by side, of one tenant or of several.
//! * A host ends with its value, and in any case with its run: its processes are
//!   in control groups of the run, its files in the run's directory.
//!
//! # Assumptions
//! Those of the [lab](super): also here control groups version 2 are written for
//! and unproven. Tenants have the pod addresses [`TENANT_PODS`](network::TENANT_PODS).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::cluster::{Lab, Level};
use super::command::run;
use super::directories::{self, Directories, RunDirectory};
use super::error::{Doing, Error, Result};
use super::images;
use super::network::{self, WORKERS};
use super::node::{Containerd, Holder, cni_configuration, kubelet_of_this_machine};
use super::packages::Packages;
use super::process::{self, Process, ProcessId, Program};
use super::programs::KUBERNETES;

mod kubeadm;

/// Where containerd listens on a host: where kubeadm looks for it.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// The machine's files are seen and never changed: kubeadm, the kubelet and pods
/// write where they like.
const MOUNTS: &str = r#"
for path in /etc /usr /opt; do
    # Where one leads into another, the other is covered.
    if [ -d $path ] && [ ! -L $path ]; then
        mkdir -p /run/written$path/new /run/written$path/work
        mount -t overlay -o "lowerdir=$path,upperdir=/run/written$path/new,workdir=/run/written$path/work" steward-lab $path
    fi
done
mount -t tmpfs -o mode=1777,size=1g steward-lab /tmp
hostname NAME
# They may be links to what is covered.
rm -f /etc/resolv.conf /etc/hostname /etc/hosts
echo nameserver SERVER > /etc/resolv.conf
echo NAME > /etc/hostname
printf '127.0.0.1 localhost\nADDRESS NAME\n' > /etc/hosts
mkdir -p /etc/cni/net.d
"#;

/// What systemd does on a machine, by the unit that comes with kubeadm.
/// $1 address of the host, $2 directory of further configuration.
const KUBELET: &str = r#"
flags=/var/lib/kubelet/kubeadm-flags.env
while :; do
    if [ -f /var/lib/kubelet/config.yaml ] && [ -f $flags ]; then
        . $flags
        mkdir -p /etc/kubernetes/manifests
        kubelet \
            --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
            --kubeconfig=/etc/kubernetes/kubelet.conf \
            --config=/var/lib/kubelet/config.yaml --config-dir="$2" \
            --node-ip="$1" $KUBELET_KUBEADM_ARGS &
        echo $! > /run/kubelet.pid
        wait $!
    fi
    sleep 0.1
done
"#;

/// Called by runc in each container before it starts. A network namespace cannot
/// set the machine's limits, and kube-proxy ends when it fails to; so that it is
/// configured as everywhere, it finds a file that takes the value.
const HOOK: &str = r#"
bundle=$(sed -n 's/.*"bundle":"\([^"]*\)".*/\1/p')
limit=$bundle/rootfs/proc/sys/net/netfilter/nf_conntrack_max
[ ! -e "$limit" ] || mount --bind "$1" "$limit"
"#;

/// A worker host. Dropping it removes it, unless it was
/// [attached to](Worker::attach) or [left standing](Worker::leave).
pub struct Worker {
    number: u8,
    run_name: String,
    directories: Directories,
    directory: RunDirectory,
    cgroup: Cgroup,
    address: std::net::Ipv4Addr,
    ours: bool,
}

impl Lab {
    /// Starts worker host `number`, from 1 to [`WORKERS`].
    ///
    /// # Errors
    /// Also if there is one of this number already.
    pub async fn worker(&self, number: u8) -> Result<Worker> {
        Worker::start(self, number).await
    }
}

impl Worker {
    /// Starts worker host `number` of a cluster that runs pods.
    pub async fn start(lab: &Lab, number: u8) -> Result<Self> {
        if lab.level() < Level::Pods {
            return Err(Error::Refused("worker hosts need the level `pods`".into()));
        }
        let mut worker = Self::of(lab, number)?;
        directories::create(&worker.directory.workers())?;
        let place = worker.place();
        // Whoever makes it has the number.
        match std::fs::create_dir(&place) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Refused(format!(
                    "worker host {number} is up already: `lab worker --name {} down {number}` removes it",
                    lab.name()
                )));
            }
            made => made.doing(|| format!("create {}", place.display()))?,
        }
        worker.ours = true;
        worker.assemble(lab).await?;
        Ok(worker)
    }

    /// A worker host that is up; it stays up.
    pub fn attach(lab: &Lab, number: u8) -> Result<Self> {
        let worker = Self::of(lab, number)?;
        worker.holder()?;
        Ok(worker)
    }

    /// Worker host `number`, up or not; it stays as it is.
    pub fn of(lab: &Lab, number: u8) -> Result<Self> {
        if !(1..=WORKERS).contains(&number) {
            return Err(Error::Refused(format!(
                "{number} is no worker host: 1 to {WORKERS}"
            )));
        }
        Ok(Self {
            number,
            run_name: lab.name().to_owned(),
            directories: lab.directories().clone(),
            directory: lab.directory().clone(),
            cgroup: Cgroup::of_worker(lab.name(), number)?,
            address: lab.addresses().worker(number),
            ours: false,
        })
    }

    /// Leaves the host standing when this value ends; it ends with the run.
    pub fn leave(mut self) {
        self.ours = false;
    }

    /// Its host name, which is the name of its Node.
    pub fn name(&self) -> String {
        format!("worker-{}", self.number)
    }

    /// Its address, at which the control plane finds the kubelet.
    pub fn address(&self) -> std::net::Ipv4Addr {
        self.address
    }

    /// Runs a command on the host and returns its output. kubeadm, kubectl,
    /// kubelet, busybox and the programs of the machine are found by name.
    pub fn run<S: Into<OsString> + Clone>(&self, command: &[S]) -> Result<String> {
        run(&mut self.command(command)?)
    }

    fn command<S: Into<OsString> + Clone>(&self, command: &[S]) -> Result<Command> {
        let mut words = command.iter().cloned().map(Into::into);
        let name = words
            .next()
            .ok_or_else(|| Error::Refused("no command is given".into()))?;
        let program = self.program("command", name)?.args(words);
        Ok(program.command(&self.directory, &self.cgroup))
    }

    /// The end of the log of one of its programs: `containerd`, `kubelet`.
    pub fn log(&self, program: &str) -> String {
        process::tail(&self.directory.log(&self.process_name(program)), 20)
    }

    /// One of its programs: `containerd`; `kubelet` is what starts the kubelet
    /// again whenever it ends.
    pub fn process(&self, program: &str) -> Result<Process> {
        process::recorded(&self.directory, &self.process_name(program))
    }

    /// Removes the host.
    ///
    /// # Errors
    /// What could not be removed. It goes with the run.
    pub fn remove(self) -> Result<()> {
        let removed = self.take_away();
        self.leave();
        removed
    }

    fn take_away(&self) -> Result<()> {
        self.cgroup.kill()?;
        network::detach_worker(&self.directory, self.number);
        self.cgroup.remove()?;
        for program in PROGRAMS {
            let _ =
                std::fs::remove_file(self.directory.processes().join(self.process_name(program)));
        }
        match std::fs::remove_dir_all(self.place()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("remove {}", self.place().display()))
            }
            _ => Ok(()),
        }
    }

    async fn assemble(&self, lab: &Lab) -> Result<()> {
        self.cgroup.create()?;
        let place = self.place();
        let more = MOUNTS
            .replace("NAME", &self.name())
            .replace("SERVER", &lab.addresses().node().to_string())
            .replace("ADDRESS", &self.address.to_string());
        let holder = Holder {
            name: &self.process_name("mounts"),
            place: &place,
            namespaces: &["--mount", "--net", "--uts"],
            more: &more,
        };
        let holder = holder.start(&self.directories, &self.directory, &self.cgroup)?;
        network::attach_worker(&self.directory, lab.addresses(), holder, self.number)?;
        let containerd = self.start_containerd()?;
        self.start_kubelet()?;
        self.wait_for_containerd(&containerd).await?;
        self.load_image(&images::node_archive(&self.directories))?;
        containerd.check()
    }

    /// Loads an image archive into the host.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let import = images::import(&self.directories, Path::new(SOCKET), archive);
        self.run(&import).map(drop)
    }

    fn start_containerd(&self) -> Result<Process> {
        let packages = Packages::of(&self.directories);
        let base = self.place().join("container.json");
        directories::write(&base, self.base_of_containers(&packages)?)?;
        let containerd = Containerd {
            root: "/var/lib/containerd".into(),
            socket: SOCKET.into(),
            networks: "/etc/cni/net.d".into(),
            base: Some(base),
        };
        let configuration = self.place().join("containerd.toml");
        directories::write(&configuration, containerd.configuration(&packages))?;
        let network = self.place().join("cni/10-lab.conflist");
        directories::write(
            &network,
            cni_configuration(&network::worker_pods(self.number)),
        )?;
        self.run(&[
            "cp".as_ref(),
            network.as_os_str(),
            "/etc/cni/net.d/".as_ref(),
        ])?;
        let program = self
            .program("containerd", packages.containerd())?
            .args(["--config".into(), configuration.into_os_string()])
            .env("LD_LIBRARY_PATH", packages.libraries());
        process::start(&self.directory, &self.cgroup, program)
    }

    /// containerd's own, and the [hook](HOOK).
    fn base_of_containers(&self, packages: &Packages) -> Result<String> {
        let limit = self.place().join("nf_conntrack_max");
        directories::write(&limit, "0\n")?;
        let mut ctr = Command::new(packages.ctr());
        let text = run(ctr.args(["oci", "spec"]))?;
        let mut base: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| Error::Refused(error.to_string()))?;
        base["hooks"] = serde_json::json!({"createContainer": [{
            "path": "/bin/sh",
            "args": ["sh", "-ec", HOOK, "sh", limit],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        }]});
        Ok(base.to_string())
    }

    fn start_kubelet(&self) -> Result<()> {
        let further = self.place().join("kubelet.d");
        directories::create(&further)?;
        let configuration = kubelet_of_this_machine(&self.cgroup);
        directories::write(&further.join("10-lab.conf"), configuration.to_string())?;
        let program = self.program("kubelet", "sh")?.args([
            "-c".into(),
            KUBELET.into(),
            "sh".into(),
            self.address.to_string().into(),
            further.into_os_string(),
        ]);
        process::start(&self.directory, &self.cgroup, program).map(drop)
    }

    async fn wait_for_containerd(&self, containerd: &Process) -> Result<()> {
        let holder = self.holder()?;
        let socket = PathBuf::from(format!("/proc/{}/root{SOCKET}", holder.pid));
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            containerd.check()?;
            if started.elapsed() > Duration::from_secs(30) {
                return Err(containerd.failure("does not listen on its socket"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// A program on the host.
    fn program(&self, name: &str, path: impl Into<OsString>) -> Result<Program> {
        let packages = Packages::of(&self.directories);
        let kubernetes = KUBERNETES.directory(&self.directories);
        let search = [
            kubernetes.display().to_string(),
            packages.search_path(),
            packages.busybox().with_file_name("").display().to_string(),
        ];
        Ok(Program::new(&self.process_name(name), path)
            .env("PATH", search.join(":"))
            .on_host_of(self.holder()?))
    }

    fn holder(&self) -> Result<ProcessId> {
        let holder = self.process("mounts")?;
        holder.check()?;
        Ok(holder.id)
    }

    fn process_name(&self, program: &str) -> String {
        format!("w{}-{program}", self.number)
    }

    fn place(&self) -> PathBuf {
        self.directory.worker(self.number)
    }
}

/// What is recorded of a host.
const PROGRAMS: [&str; 3] = ["mounts", "containerd", "kubelet"];

impl Drop for Worker {
    fn drop(&mut self) {
        // The run may be gone, and the host with it.
        if !self.ours || !self.directory.path().exists() {
            return;
        }
        if let Err(error) = self.take_away() {
            eprintln!(
                "worker host {} of the run {} is not removed: {error}",
                self.number, self.run_name
            );
        }
    }
}
