//! Writers that create, change and delete without a pause, and remember what
//! the server has acknowledged.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::NAMESPACE;
use crate::heard::State;
use crate::watchers::api;

const WRITERS: usize = 3;
/// Between two writes of one writer.
const PAUSE: Duration = Duration::from_millis(10);
/// Changes of an object between its creation and its deletion.
const CHANGES: u32 = 4;

/// A write that got its 2xx.
#[derive(Clone, Debug)]
pub enum Acknowledged {
    Put(State),
    Delete { uid: String },
}

/// The writers.
pub struct Churn {
    writes: Arc<Mutex<Vec<Acknowledged>>>,
    running: watch::Sender<bool>,
    /// How many writers wait for leave to write.
    parked: watch::Sender<usize>,
    writers: Vec<JoinHandle<()>>,
}

impl Churn {
    pub fn start(client: kube::Client) -> Self {
        let (running, _) = watch::channel(true);
        let writes = Arc::new(Mutex::new(Vec::new()));
        let parked = watch::Sender::new(0);
        let writers = (0..WRITERS)
            .map(|number| {
                let writer = Writer {
                    api: api(client.clone()),
                    number,
                    step: 0,
                    writes: writes.clone(),
                    running: running.subscribe(),
                    parked: parked.clone(),
                };
                tokio::spawn(writer.run())
            })
            .collect();
        Self {
            writes,
            running,
            parked,
            writers,
        }
    }

    pub fn go_on(&self) {
        self.running.send_replace(true);
    }

    /// Lets the writers work on for a while, stops them, and returns what was
    /// acknowledged since they were last stopped.
    pub async fn pause_after(&self, time: Duration) -> Vec<Acknowledged> {
        tokio::time::sleep(time).await;
        self.running.send_replace(false);
        let mut parked = self.parked.subscribe();
        let all = parked.wait_for(|parked| *parked == WRITERS);
        tokio::time::timeout(Duration::from_secs(60), all)
            .await
            .expect("a write is answered, or fails, within 60 s")
            .unwrap();
        std::mem::take(&mut self.writes.lock())
    }

    pub async fn stop(self) {
        for writer in self.writers {
            writer.abort();
            let _ = writer.await;
        }
    }
}

struct Writer {
    api: kube::Api<DynamicObject>,
    number: usize,
    step: u64,
    writes: Arc<Mutex<Vec<Acknowledged>>>,
    running: watch::Receiver<bool>,
    parked: watch::Sender<usize>,
}

impl Writer {
    /// One object that stays and one that comes and goes.
    async fn run(mut self) {
        let stays = format!("stays-{}", self.number);
        let goes = format!("goes-{}", self.number);
        loop {
            for name in [&stays, &goes] {
                if !self.exists(name).await {
                    self.create(name).await;
                }
                for _ in 0..CHANGES {
                    self.change(name).await;
                }
            }
            self.delete(&goes).await;
        }
    }

    /// Waits for leave to write, and makes the next step's name.
    async fn next(&mut self) -> String {
        tokio::time::sleep(PAUSE).await;
        self.parked.send_modify(|parked| *parked += 1);
        // Fails when the test is over; then this task is aborted.
        let _ = self.running.wait_for(|running| *running).await;
        self.parked.send_modify(|parked| *parked -= 1);
        self.step += 1;
        format!("{}-{}", self.number, self.step)
    }

    async fn exists(&mut self, name: &str) -> bool {
        loop {
            match self.api.get_opt(name).await {
                Ok(found) => return found.is_some(),
                // Whatever is down comes back.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn create(&mut self, name: &str) {
        let step = self.next().await;
        let object = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "TenantControlPlane",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"step": step}},
            "spec": {
                "kubernetes": {"version": "v1.36.3", "kubelet": {}},
                "controlPlane": {"service": {"serviceType": "ClusterIP"}},
            },
        });
        let object = serde_json::from_value(object).unwrap();
        let result = self.api.create(&PostParams::default(), &object).await;
        self.note(result);
    }

    async fn change(&mut self, name: &str) {
        let step = self.next().await;
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"step": step}}}));
        let result = self.api.patch(name, &PatchParams::default(), &patch).await;
        self.note(result);
    }

    async fn delete(&mut self, name: &str) {
        self.next().await;
        let Ok(Some(object)) = self.api.get_opt(name).await else {
            return;
        };
        let uid = object.metadata.uid.unwrap();
        let result = self.api.delete(name, &DeleteParams::default()).await;
        if result.is_ok() {
            self.writes.lock().push(Acknowledged::Delete { uid });
        }
    }

    /// A write without an answer may have been done or not: it is not noted.
    fn note(&self, result: Result<DynamicObject, kube::Error>) {
        if let Ok(object) = result {
            let state = State::of(&serde_json::to_value(object).unwrap());
            self.writes.lock().push(Acknowledged::Put(state));
        }
    }
}
