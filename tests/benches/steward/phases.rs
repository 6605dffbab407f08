//! What a start is made of: when each thing was first seen, counted from the
//! request that creates the tenant.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::report::{Values, figure, markdown};

/// A moment of a start, in the usual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Phase {
    Accepted,
    Service,
    Address,
    Deployment,
    Pod,
    Scheduled,
    Sandbox,
    ApiServer,
    Scheduler,
    ControllerManager,
    Listening,
    Checks,
    Readyz,
    PodReady,
    Endpoint,
    Ready,
    Kubeconfig,
    FirstWrite,
}

/// All of them, with what a person reads, and how the moment is known.
pub const PHASES: [(Phase, &str, &str); 18] = [
    (Phase::Accepted, "create answered", "answer"),
    (Phase::Service, "Service exists", "watch"),
    (Phase::Address, "Service has its address", "watch"),
    (Phase::Deployment, "Deployment exists", "watch"),
    (Phase::Pod, "Pod exists", "watch"),
    (Phase::Scheduled, "Pod is scheduled", "watch"),
    (Phase::Sandbox, "first process of the sandbox", "/proc"),
    (Phase::ApiServer, "process kube-apiserver", "/proc"),
    (Phase::Scheduler, "process kube-scheduler", "/proc"),
    (
        Phase::ControllerManager,
        "process kube-controller-manager",
        "/proc",
    ),
    (Phase::Listening, "serves HTTP", "asked each 20 ms"),
    (Phase::Checks, "the pod's checks pass", "asked each 20 ms"),
    (Phase::Readyz, "/readyz is 200", "asked each 20 ms"),
    (Phase::PodReady, "Pod is Ready", "watch"),
    (Phase::Endpoint, "endpoint is ready", "watch"),
    (Phase::Ready, "tenant is Ready", "watch"),
    (Phase::Kubeconfig, "kubeconfig minted", "answer"),
    (Phase::FirstWrite, "first write", "answer"),
];

/// One start.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    seen: [Option<Duration>; PHASES.len()],
    /// Whatever else was said, such as conditions, in order.
    notes: Vec<(Duration, String)>,
}

impl Timeline {
    /// The first time counts.
    pub fn mark(&mut self, phase: Phase, after: Duration) {
        self.seen[phase as usize].get_or_insert(after);
    }

    pub fn note(&mut self, after: Duration, text: String) {
        if self.notes.iter().all(|(_, known)| *known != text) {
            self.notes.push((after, text));
        }
    }

    pub fn at(&self, phase: Phase) -> Option<Duration> {
        self.seen[phase as usize]
    }

    /// All notes, in lines.
    pub fn story(&self) -> String {
        let line =
            |(after, text): &(Duration, String)| format!("{:7.3} s  {text}\n", after.as_secs_f64());
        self.notes.iter().map(line).collect()
    }

    /// As JSON, in seconds.
    pub fn json(&self) -> Value {
        let seen: Map<String, Value> = PHASES
            .iter()
            .filter_map(|(phase, name, _)| {
                Some(((*name).to_owned(), json!(self.at(*phase)?.as_secs_f64())))
            })
            .collect();
        let notes: Vec<Value> = self
            .notes
            .iter()
            .map(|(after, text)| json!([after.as_secs_f64(), text]))
            .collect();
        json!({"seconds": seen, "notes": notes})
    }
}

/// Medians of many starts: seconds from the beginning, and since the moment
/// before in the usual order.
pub fn table(starts: &[Timeline]) -> String {
    let mut lines = vec![["Moment", "p50 s", "p90 s", "step p50 s", "seen by"].map(str::to_owned)];
    let mut before: Option<Phase> = None;
    for (phase, name, source) in PHASES {
        let all: Values = starts
            .iter()
            .filter_map(|it| it.at(phase))
            .map(|it| it.as_secs_f64())
            .collect();
        let p50 = all.percentile(50.0);
        if p50.is_nan() {
            continue;
        }
        // Of each start, not of the medians: they need not be of one start.
        let step: Values = starts
            .iter()
            .filter_map(|it| {
                let from = before.map_or(Some(Duration::ZERO), |before| it.at(before))?;
                Some(it.at(phase)?.as_secs_f64() - from.as_secs_f64())
            })
            .collect();
        lines.push([
            name.to_owned(),
            figure(p50),
            figure(all.percentile(90.0)),
            format!("{:+.3}", step.percentile(50.0)),
            source.to_owned(),
        ]);
        before = Some(phase);
    }
    markdown(&lines)
}
