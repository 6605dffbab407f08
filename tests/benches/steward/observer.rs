//! Watches what happens in a namespace while a tenant starts.

use std::time::{Duration, Instant};

use controller::tenant::workload::kubelet_probes::SERVES;
use futures::{AsyncBufReadExt, StreamExt};
use kube::Client;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::failure::{Doing, Failure, Result};
use crate::phases::{Phase, Timeline};
use crate::requests;

/// What has been seen, and when.
enum Seen {
    Object(Instant, Value),
    Moment(Instant, Phase),
    Ended(String),
}

/// Watches of everything that belongs to a tenant. Ends with the value.
pub struct Observer {
    seen: UnboundedReceiver<Seen>,
    sender: UnboundedSender<Seen>,
    tasks: JoinSet<()>,
    tenant: String,
    began: Instant,
    port: u16,
    asked: bool,
    /// Of the tenant's pod.
    pub pod_uid: Option<String>,
    pub timeline: Timeline,
}

impl Observer {
    /// Starts to watch; when it returns, nothing that comes later is missed.
    pub async fn start(client: &Client, namespace: &str, tenant: &str, port: u16) -> Result<Self> {
        let (sender, seen) = unbounded_channel();
        let mut tasks = JoinSet::new();
        let paths = [
            format!(
                "{}/namespaces/{namespace}/tenantcontrolplanes",
                requests::GROUP_VERSION
            ),
            format!("/api/v1/namespaces/{namespace}/services"),
            format!("/api/v1/namespaces/{namespace}/pods"),
            format!("/apis/apps/v1/namespaces/{namespace}/deployments"),
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
        ];
        for path in paths {
            let list = requests::get(client, &path)
                .await
                .doing(|| format!("list {path}"))?;
            let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
            let request =
                http::Request::get(format!("{path}?watch=true&resourceVersion={version}"))
                    .body(Vec::new())
                    .map_err(|error| Failure::Said(error.to_string()))?;
            let opened =
                tokio::time::timeout(Duration::from_secs(20), client.request_stream(request));
            let stream = opened
                .await
                .map_err(|_| Failure::Said(format!("watch {path}: no answer")))?;
            let mut lines = stream.doing(|| format!("watch {path}"))?.lines();
            let sender = sender.clone();
            tasks.spawn(async move {
                while let Some(Ok(line)) = lines.next().await {
                    let now = Instant::now();
                    let event: Value = serde_json::from_str(&line).unwrap_or_default();
                    if event["type"] == "ADDED" || event["type"] == "MODIFIED" {
                        let _ = sender.send(Seen::Object(now, event["object"].clone()));
                    }
                }
                let _ = sender.send(Seen::Ended(path));
            });
        }
        Ok(Self {
            seen,
            sender,
            tasks,
            tenant: tenant.to_owned(),
            began: Instant::now(),
            port,
            asked: false,
            pod_uid: None,
            timeline: Timeline::default(),
        })
    }

    /// The moment from which all others are counted: now.
    pub fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// A moment of the caller's own: now.
    pub fn mark(&mut self, phase: Phase) {
        self.timeline.mark(phase, self.began.elapsed());
    }

    /// Takes in what is seen until the tenant is Ready.
    pub async fn until_ready(&mut self, patience: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + patience;
        while self.timeline.at(Phase::Ready).is_none() {
            match tokio::time::timeout_at(deadline, self.seen.recv()).await {
                Ok(Some(seen)) => self.take(seen)?,
                _ => {
                    let (tenant, story) = (&self.tenant, self.timeline.story());
                    return Err(Failure::Said(format!(
                        "{tenant}: not Ready within {patience:?}\n{story}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes in what came meanwhile, stops watching, and asks the machine when
    /// the pod's processes began.
    pub fn finish(mut self) -> Result<Timeline> {
        while let Ok(seen) = self.seen.try_recv() {
            self.take(seen)?;
        }
        self.tasks.abort_all();
        // One reading of both clocks ties them together.
        let (now, boot) = (self.began.elapsed(), crate::machine::since_boot());
        let processes = self
            .pod_uid
            .as_deref()
            .map(crate::machine::processes_of_pod);
        for (program, start) in processes.unwrap_or_default() {
            let after = now.saturating_sub(boot.saturating_sub(start));
            let phase = match program.as_str() {
                "kube-apiserver" => Phase::ApiServer,
                "kube-controller-manager" => Phase::ControllerManager,
                "kube-scheduler" => Phase::Scheduler,
                "pause" => Phase::Sandbox,
                _ => continue,
            };
            self.timeline.mark(phase, after);
        }
        Ok(self.timeline)
    }

    fn take(&mut self, seen: Seen) -> Result<()> {
        match seen {
            Seen::Moment(at, phase) => self.timeline.mark(phase, at.duration_since(self.began)),
            Seen::Ended(path) => return Err(Failure::Said(format!("the watch of {path} ended"))),
            Seen::Object(at, object) => {
                let after = at.saturating_duration_since(self.began);
                match object["kind"].as_str().unwrap_or_default() {
                    "TenantControlPlane" => self.tenant(after, &object),
                    "Service" => self.service(after, &object),
                    "Deployment" => self.timeline.mark(Phase::Deployment, after),
                    "EndpointSlice" => self.endpoints(after, &object),
                    "Pod" => self.pod(after, &object)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn tenant(&mut self, after: Duration, object: &Value) {
        if object["metadata"]["name"] != self.tenant.as_str() {
            return;
        }
        for condition in list(&object["status"]["conditions"]) {
            let field = |name: &str| condition[name].as_str().unwrap_or_default();
            let text = format!(
                "tenant {}={} {}: {}",
                field("type"),
                field("status"),
                field("reason"),
                field("message")
            );
            self.timeline.note(after, text);
        }
        if condition(object, "Ready") {
            self.timeline.mark(Phase::Ready, after);
        }
    }

    fn service(&mut self, after: Duration, object: &Value) {
        self.timeline.mark(Phase::Service, after);
        if !list(&object["status"]["loadBalancer"]["ingress"]).is_empty() {
            self.timeline.mark(Phase::Address, after);
        }
    }

    fn endpoints(&mut self, after: Duration, object: &Value) {
        if list(&object["endpoints"])
            .iter()
            .any(|it| it["conditions"]["ready"] == true)
        {
            self.timeline.mark(Phase::Endpoint, after);
        }
    }

    fn pod(&mut self, after: Duration, object: &Value) -> Result<()> {
        self.timeline.mark(Phase::Pod, after);
        self.pod_uid = object["metadata"]["uid"].as_str().map(str::to_owned);
        for (name, phase) in [
            ("PodScheduled", Phase::Scheduled),
            ("Ready", Phase::PodReady),
        ] {
            if condition(object, name) {
                self.timeline.mark(phase, after);
            }
        }
        for status in list(&object["status"]["containerStatuses"]) {
            let state = status["state"]
                .as_object()
                .and_then(|it| it.keys().next().cloned());
            let name = status["name"].as_str().unwrap_or_default();
            let text = format!(
                "container {name}: {}, ready {}",
                state.unwrap_or_default(),
                status["ready"]
            );
            self.timeline.note(after, text);
        }
        match object["status"]["podIP"].as_str() {
            Some(address) if !self.asked => {
                self.asked = true;
                self.timeline
                    .note(after, format!("pod address {address} known"));
                self.ask(&format!("https://{address}:{}", self.port))
            }
            _ => Ok(()),
        }
    }

    /// Asks /readyz of the pod itself, as the peer's is asked, and as its own
    /// readiness probe asks.
    fn ask(&mut self, server: &str) -> Result<()> {
        let client = requests::anonymous(server)?;
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            let mut listening = false;
            let mut checked = false;
            loop {
                let answer = requests::get_text(&client, "/readyz").await;
                let served = matches!(answer, Ok(_) | Err(kube::Error::Api(_)));
                if served && !listening {
                    listening = true;
                    let _ = sender.send(Seen::Moment(Instant::now(), Phase::Listening));
                }
                if listening && !checked && requests::get_text(&client, SERVES).await.is_ok() {
                    checked = true;
                    let _ = sender.send(Seen::Moment(Instant::now(), Phase::Checks));
                }
                if answer.is_ok() {
                    let _ = sender.send(Seen::Moment(Instant::now(), Phase::Readyz));
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Ok(())
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn condition(object: &Value, name: &str) -> bool {
    let is = |it: &&Value| it["type"] == name;
    list(&object["status"]["conditions"])
        .iter()
        .find(is)
        .is_some_and(|it| it["status"] == "True")
}
