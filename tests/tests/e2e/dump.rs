//! What is there: in the cluster, in the tenants' etcd, on the node. Taken
//! before and after, it shows what was left behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use etcd_client::GetOptions;
use tests::installed::of_etcd;
use tests::lab::{Lab, network};

use crate::stage::{Stage, processes_below};

/// Kinds whose objects come and go by themselves.
const RESTLESS: [&str; 9] = [
    "endpoints",
    "certificatesigningrequests.certificates.k8s.io",
    "events",
    "events.events.k8s.io",
    "componentstatuses",
    "leases.coordination.k8s.io",
    "ipaddresses.networking.k8s.io",
    "nodes.metrics.k8s.io",
    "pods.metrics.k8s.io",
];

/// Lines by where they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump(BTreeMap<&'static str, Vec<String>>);

impl Dump {
    pub async fn of(stage: &Stage) -> Self {
        let mut dump = BTreeMap::from([("cluster", objects(stage)), ("etcd", etcd(stage).await)]);
        if let Some(lab) = stage.it.lab() {
            dump.extend([
                ("processes", processes(lab)),
                ("control groups", control_groups(lab)),
                ("mounts", mounts(lab)),
                ("links and routes", links(lab)),
            ]);
        }
        for lines in dump.values_mut() {
            lines.sort();
        }
        Self(dump)
    }

    /// How many lines there are, by place.
    pub fn size(&self) -> String {
        let sizes = self
            .0
            .iter()
            .map(|(place, lines)| format!("{place} {}", lines.len()));
        sizes.collect::<Vec<_>>().join(", ")
    }

    /// What `after` has more (+) and less (-).
    fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        for (place, before) in &self.0 {
            let after = &after.0[place];
            for (sign, these, others) in [("-", before, after), ("+", after, before)] {
                let mut others = others.clone();
                for line in these {
                    match others.iter().position(|other| other == line) {
                        Some(at) => drop(others.swap_remove(at)),
                        None => text.push_str(&format!("{sign} {place}: {line}\n")),
                    }
                }
            }
        }
        text
    }

    /// What is there once what other parts have deleted is gone.
    pub async fn at_rest(stage: &Stage) -> Self {
        let began = Instant::now();
        let mut before = Self::of(stage).await;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = Self::of(stage).await;
            let going = stage.it.kubectl(&[
                "get",
                "tcp",
                "-A",
                "-o",
                "jsonpath={.items[*].metadata.deletionTimestamp}",
            ]);
            let moves = before.difference(&now);
            let long = began.elapsed() > Duration::from_secs(30);
            if going.is_empty() && (moves.is_empty() || long) {
                return now;
            }
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "tenants are still going: {going}"
            );
            before = now;
        }
    }

    /// Waits until everything is again as it was: kubelet and kube-proxy clean up
    /// in their own time.
    pub async fn comes_back(&self, stage: &Stage, patience: Duration) -> Duration {
        let began = Instant::now();
        loop {
            let difference = self.difference(&Self::of(stage).await);
            if difference.is_empty() {
                return began.elapsed();
            }
            assert!(
                began.elapsed() < patience,
                "left behind (+) or lost (-):\n{difference}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

fn objects(stage: &Stage) -> Vec<String> {
    let kinds = stage
        .it
        .kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !RESTLESS.contains(kind))
        .collect();
    let columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name";
    let kinds = kinds.join(",");
    let all = stage.it.kubectl(&[
        "get",
        &kinds,
        "-A",
        "--ignore-not-found",
        "--no-headers",
        "-o",
        columns,
    ]);
    all.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Keys, users and roles.
pub async fn etcd(stage: &Stage) -> Vec<String> {
    let mut etcd = stage.it.etcd().await;
    let all = GetOptions::new().with_all_keys().with_keys_only();
    let keys = of_etcd(async || etcd.get("", Some(all.clone())).await);
    let keys = keys.await.unwrap();
    let keys = keys
        .kvs()
        .iter()
        .map(|kv| format!("key {}", kv.key_str().unwrap()));
    let mut lines: Vec<String> = keys.collect();
    let users = etcd.user_list().await.unwrap();
    lines.extend(users.users().iter().map(|user| format!("user {user}")));
    let roles = etcd.role_list().await.unwrap();
    lines.extend(roles.roles().iter().map(|role| format!("role {role}")));
    lines
}

/// Of the run, pods' included; without what container programs start for a
/// moment.
fn processes(lab: &Lab) -> Vec<String> {
    let all = processes_below(&format!("steward-lab-{}/", lab.name()));
    all.into_iter()
        .map(|(_, name)| name)
        .filter(|name| name != "runc" && !name.is_empty())
        .collect()
}

fn control_groups(lab: &Lab) -> Vec<String> {
    let name = format!("steward-lab-{}", lab.name());
    let mut found = Vec::new();
    let mut open = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(directory) = open.pop() {
        let ours = directory.to_string_lossy().contains(&name);
        if ours {
            found.push(directory.display().to_string());
        }
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            // Only the run's own groups are looked into below the second level.
            let deep = path.components().count() > 6;
            if path.is_dir() && !path.is_symlink() && (ours || !deep) {
                open.push(path);
            }
        }
    }
    found
}

/// Of the node's mount namespace, network namespaces of pods included, and of
/// the machine as far as they name the run.
fn mounts(lab: &Lab) -> Vec<String> {
    let holder = lab.process("mounts").unwrap().id.pid;
    let read = |path: String| std::fs::read_to_string(path).unwrap();
    let run = lab.directory().path().display().to_string();
    let place = |line: &str| {
        let fields: Vec<&str> = line.split(' ').take(3).collect();
        format!("{} {}", fields[1], fields[2])
    };
    let inside = read(format!("/proc/{holder}/mounts"));
    let outside = read("/proc/self/mounts".to_owned());
    let outside = outside.lines().filter(|line| line.contains(&run));
    inside
        .lines()
        .map(|line| format!("node {}", place(line)))
        .chain(outside.map(|line| format!("machine {}", place(line))))
        .collect()
}

fn links(lab: &Lab) -> Vec<String> {
    let inside = |arguments: &[&str]| network::inside(lab.directory(), arguments).unwrap();
    let links = inside(&["ip", "-o", "link"]);
    let name = |line: &str| line.split(": ").nth(1).unwrap_or_default().to_owned();
    let routes = inside(&["ip", "-o", "route"]);
    links
        .lines()
        .map(|line| format!("link {}", name(line)))
        .chain(routes.lines().map(|line| format!("route {line}")))
        .collect()
}
