//! The cluster on which all parts run, and what they share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etcd_client::AlarmAction;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tests::installed::{
    Installed, SYSTEM, TENANTS, data_store_path, object_path, tenant, tenant_path, tenants_path,
};
use tests::lab::process::ProcessId;
use tests::lab::{Lab, network};

use crate::audit::Log;
use crate::story::{Story, is};

/// How long a tenant may take to become Ready, on a machine that is busy.
pub const COMING: Duration = Duration::from_secs(120);
/// Rule 15.
pub const LOST: Duration = Duration::from_secs(15);
/// How long a tenant may take to be Ready again once a fault is over.
pub const BACK: Duration = Duration::from_secs(30);
/// How long a deletion may take.
pub const GONE: Duration = Duration::from_secs(60);

/// What some steps need.
pub const AUDIT_LOG: &str = "the audit log of the API server";

pub struct Stage {
    pub it: Installed,
    measured: Mutex<Vec<(String, String)>>,
    stories: Mutex<BTreeMap<String, Instant>>,
    ignored: AtomicUsize,
}

impl Stage {
    pub async fn set() -> Self {
        Self {
            it: Installed::start().await,
            measured: Mutex::default(),
            stories: Mutex::default(),
            ignored: AtomicUsize::default(),
        }
    }

    /// The lab, for a part or a step that needs its hands on the machine. In
    /// somebody's cluster there is none: the step is ignored, which is said.
    pub fn lab(&self, step: &str, needs: &str) -> Option<&Lab> {
        let lab = self.it.lab();
        if lab.is_none() {
            println!("test {step} ... ignored, needs {needs}");
            self.ignored.fetch_add(1, Ordering::Relaxed);
        }
        lab
    }

    /// The audit log from now on, for a step; see [`lab`](Self::lab).
    pub fn audit(&self, step: &str) -> Option<Log> {
        let lab = self.lab(step, AUDIT_LOG)?;
        Some(Log::from_now(lab.directory().audit_log()))
    }

    /// How many parts and steps were ignored.
    pub fn ignored(&self) -> usize {
        self.ignored.load(Ordering::Relaxed)
    }

    /// Notes a figure for the end.
    pub fn note(&self, what: impl Into<String>, figure: impl Into<String>) {
        let (what, figure) = (what.into(), figure.into());
        println!("    {what}: {figure}");
        self.measured.lock().push((what, figure));
    }

    /// Prints all figures.
    pub fn measured(&self) {
        let all = self.measured.lock();
        let width = all.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
        println!("\nmeasured:");
        for (what, figure) in all.iter() {
            println!("  {what:width$}  {figure}");
        }
    }

    /// Watches a tenant.
    pub fn story(&self, name: &str) -> Story {
        self.stories.lock().insert(name.to_owned(), Instant::now());
        Story::of(self.it.client(), name)
    }

    /// Creates a tenant of the DataStore `default`.
    pub async fn create(&self, manifest: &Value) {
        self.it.post(&tenants_path(), manifest).await.unwrap();
    }

    /// A tenant that is Ready and has this many replicas; made if it is not there.
    /// R8.44.
    pub async fn tenant(&self, name: &str, replicas: i32) -> Story {
        let story = self.story(name);
        let began = Instant::now();
        match self.it.get(&tenant_path(name)).await {
            Err(_) => self.create(&tenant(name, replicas)).await,
            Ok(found) if found["spec"]["controlPlane"]["deployment"]["replicas"] != replicas => {
                let patch =
                    json!({"spec": {"controlPlane": {"deployment": {"replicas": replicas}}}});
                self.it.patch(&tenant_path(name), &patch).await.unwrap();
            }
            Ok(_) => {}
        }
        story
            .until(began, COMING, "Ready with all replicas", |object| {
                object["spec"]["controlPlane"]["deployment"]["replicas"] == replicas
                    && is(object, "Ready", "True", "Ready")
                    && is(object, "ReplicasAvailable", "True", "")
                    && object["status"]["observedGeneration"] == object["metadata"]["generation"]
            })
            .await;
        story
    }

    /// Deletes a tenant and waits until it is gone; how long that took.
    pub async fn remove(&self, name: &str) -> Duration {
        let began = Instant::now();
        self.it.delete(&tenant_path(name)).await.unwrap();
        let what = format!("tenant {name} is gone");
        self.it
            .until(&what, GONE, async || {
                self.absent(&tenant_path(name)).await.then_some(())
            })
            .await;
        began.elapsed()
    }

    /// Whether nothing is there: 404, and no other answer.
    pub async fn absent(&self, path: &str) -> bool {
        absent(&self.it.get(path).await)
    }

    /// An object of [`TENANTS`].
    pub async fn object(&self, resource: &str, name: &str) -> Option<Value> {
        self.it
            .get(&object_path(TENANTS, resource, name))
            .await
            .ok()
    }

    /// Pods with a label.
    pub async fn pods(&self, namespace: &str, selector: &str) -> Vec<Value> {
        let path = object_path(namespace, "pods", "");
        let selector = selector.replace('=', "%3D");
        let list = self
            .it
            .get(&format!("{path}?labelSelector={selector}"))
            .await
            .unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The pods of a tenant that are not being deleted.
    pub async fn pods_of(&self, tenant: &str) -> Vec<Value> {
        let mut pods = self
            .pods(TENANTS, &format!("steward.butlerlabs.dev/name={tenant}"))
            .await;
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods
    }

    /// The processes of a pod whose program is called `program`.
    pub fn processes(&self, pod: &Value, program: &str) -> Vec<ProcessId> {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let found = processes_below(&format!("pod{uid}"));
        found
            .into_iter()
            .filter(|(_, name)| name == program)
            .map(|(id, _)| id)
            .collect()
    }

    /// The events of a tenant, and of no earlier one of its name, as (type, reason,
    /// message).
    pub async fn events(&self, name: &str) -> Vec<[String; 3]> {
        let tenant = self.it.get(&tenant_path(name)).await.unwrap();
        let uid = tenant["metadata"]["uid"].as_str().unwrap();
        let selector = format!("--field-selector=involvedObject.uid={uid}");
        let said = self
            .it
            .kubectl(&["-n", TENANTS, "get", "events", &selector, "-o", "json"]);
        let list: Value = serde_json::from_str(&said).unwrap();
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        all.iter()
            .map(|event| ["type", "reason", "message"].map(|key| word(event, key)))
            .collect()
    }

    /// The pod of the tenants' etcd.
    pub async fn etcd_pod(&self) -> kube::Result<Value> {
        let path = object_path(SYSTEM, "pods", "steward-etcd-0");
        self.it.get(&path).await
    }

    /// Stops the tenants' etcd (0) or starts it (1).
    pub async fn scale_etcd(&self, replicas: i32) -> kube::Result<()> {
        let path = object_path(SYSTEM, "statefulsets", "steward-etcd");
        let scale = json!({"spec": {"replicas": replicas}});
        self.it.patch(&path, &scale).await.map(drop)
    }

    /// Undoes what a part that failed may have left behind.
    pub async fn calm(&self) {
        if let Some(lab) = self.it.lab() {
            calm_machine(lab);
        }
        let _ = self.scale_etcd(1).await;
        let up = [
            "-n",
            SYSTEM,
            "rollout",
            "status",
            "statefulset/steward-etcd",
            "--timeout=60s",
        ];
        self.it.try_kubectl(&up);
        let disarmed = async {
            let mut etcd = self.it.etcd().await;
            crate::ready::no_space(&mut etcd, AlarmAction::Deactivate).await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), disarmed).await;
        crate::rollout::calm(self).await;
        self.it.try_kubectl(&[
            "-n",
            TENANTS,
            "delete",
            "tcp,services",
            "--all",
            "--timeout=60s",
        ]);
        let Ok(default) = self.it.get(&data_store_path("default")).await else {
            return;
        };
        let names = self.it.try_kubectl(&[
            "get",
            "datastores",
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ]);
        for name in names
            .stdout
            .split_whitespace()
            .filter(|name| *name != "default")
        {
            let right = json!({"spec": default["spec"]});
            let _ = self.it.patch(&data_store_path(name), &right).await;
            self.it
                .try_kubectl(&["delete", "datastore", name, "--timeout=60s"]);
        }
        let secret = object_path(SYSTEM, "secrets", crate::deletion::SECRET);
        let _ = self.it.delete(&secret).await;
    }

    /// Prints what the cluster looks like after a part has failed.
    pub fn explain(&self, part: &str) {
        let show = |arguments: &[&str]| println!("{}", self.it.try_kubectl(arguments).text());
        println!("--- the cluster after {part}");
        show(&["get", "tcp,datastores", "-A"]);
        show(&["get", "pods", "-A"]);
        let logs = [
            "-n",
            SYSTEM,
            "logs",
            "deploy/steward-controller",
            "--tail=40",
        ];
        show(&logs);
        println!("---");
    }

    /// Logs of our programs, kept for whoever reads the failure.
    pub fn keep_logs(&self) {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-logs");
        std::fs::create_dir_all(&directory).unwrap();
        for name in [
            "deploy/steward-apiserver",
            "deploy/steward-controller",
            "statefulset/steward-etcd",
        ] {
            let logs = self
                .it
                .try_kubectl(&["-n", SYSTEM, "logs", name, "--all-containers"]);
            let file = directory.join(name.replace('/', "-") + ".log");
            std::fs::write(file, logs.text()).unwrap();
        }
        println!("logs: {}", directory.display());
    }
}

/// Whether the answer is 404, and no other error.
pub fn absent(answer: &kube::Result<Value>) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.code == 404)
}

/// Takes away cuts in the network, and lets go on what was stopped.
fn calm_machine(lab: &Lab) {
    let table = ["nft", "delete", "table", "inet", crate::ready::CUT];
    let _ = network::inside(lab.directory(), &table);
    for (id, _) in processes_below(&format!("steward-lab-{}/", lab.name())) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.pid)).unwrap_or_default();
        let state = stat.rsplit(')').next();
        if state.is_some_and(|rest| rest.starts_with(" T")) {
            id.signal("CONT");
        }
    }
}

/// Processes in a control group whose path holds `part`, with the names of
/// their programs.
pub fn processes_below(part: &str) -> Vec<(ProcessId, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        if !String::from_utf8_lossy(&read("cgroup")).contains(part) {
            continue;
        }
        let command = read("cmdline");
        let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
        let program = String::from_utf8_lossy(program);
        let name = program.rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(id) = ProcessId::of(pid) {
            found.push((id, name));
        }
    }
    found
}
