//! A context whose management cluster answers as a test says, and what it was asked.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::convert::Infallible;
use std::sync::Arc;

use apiservice::pki::Entropy;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::cluster::cache::EVERYWHERE;
use crate::cluster::caches::{Caches, Namespaces};
use crate::cluster::events::Events;
use crate::context::Context;
use crate::process::clock::{self, Uptime};
use crate::process::lease::{Election, Leadership};
use crate::process::metrics::Metrics;
use crate::process::queue::Queue;
use crate::process::shares::Shares;
use crate::tenant::plan::Object;
use crate::tenant::testing::Lab;

/// One request to the management cluster.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// `null` if it is empty.
    pub body: Value,
}

/// What the management cluster answers: a code and an object.
pub type Answers = fn(&Asked) -> (u16, Value);

/// Nothing is there.
pub fn nothing(_: &Asked) -> (u16, Value) {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
        "message": "not found", "code": 404,
    });
    (404, status)
}

/// A context, and the requests that were made with it so far.
pub async fn context(answers: Answers, leads: bool) -> (Arc<Context>, Arc<Mutex<Vec<Asked>>>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (address, asked) = cluster(answers).await;
    let config = Config::new(address.parse().unwrap());
    let client = Client::try_from(config).unwrap();
    let clock = clock::system();
    let leadership = match leads {
        true => Leadership::always(),
        false => {
            let (clock, uptime) = (clock.clone(), Uptime::system());
            Election::new(client.clone(), "n", "lease", "other", clock, uptime).1
        }
    };
    let ctx = Context {
        events: Events::new(client.clone(), "test", Namespaces::All),
        client,
        caches: Arc::default(),
        queue: Arc::new(Queue::new()),
        shares: Arc::new(Shares::of(4)),
        facts: Arc::default(),
        fleet: Default::default(),
        assignments: Default::default(),
        drains: Default::default(),
        connections: Default::default(),
        settings: Arc::default(),
        leadership,
        clock,
        entropy: Entropy,
        writes: Default::default(),
        failures: Default::default(),
        metrics: Arc::new(Metrics::new()),
    };
    (Arc::new(ctx), asked)
}

async fn cluster(answers: Answers) -> (String, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let all = asked.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let all = all.clone();
            let service = hyper::service::service_fn(move |request| {
                let all = all.clone();
                async move { Ok::<_, Infallible>(answer(request, &all, answers).await) }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, asked)
}

async fn answer(
    request: Request<Incoming>,
    all: &Mutex<Vec<Asked>>,
    answers: Answers,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let (code, said) = answers(&asked);
    all.lock().push(asked);
    let response = Response::builder().status(code);
    let response = response.header("content-type", "application/json");
    response.body(Full::new(said.to_string().into())).unwrap()
}

/// Everything was listed, and there is what a lab has.
pub fn fill(caches: &Caches, lab: &Lab) {
    caches
        .tenants
        .replace(EVERYWHERE, vec![lab.world.tenant.clone()]);
    let stores = lab.world.data_store.clone().into_iter().collect();
    caches.data_stores.replace(EVERYWHERE, stores);
    caches.secrets.replace(EVERYWHERE, vec![]);
    caches.config_maps.replace(EVERYWHERE, vec![]);
    caches.services.replace(EVERYWHERE, vec![]);
    caches.deployments.replace(EVERYWHERE, vec![]);
    caches.roles.replace(EVERYWHERE, vec![]);
    caches.role_bindings.replace(EVERYWHERE, vec![]);
    caches.ingresses.replace(EVERYWHERE, vec![]);
    let seen = lab.seen();
    caches.pods.replace(EVERYWHERE, seen.pods);
    caches.replica_sets.replace(EVERYWHERE, seen.replica_sets);
    for found in lab.world.owned.iter() {
        let value = Object::from(found.clone()).value().unwrap();
        found.kind().cache(caches).remember(value, caches);
    }
}

/// What this process has in its memory (`VmRSS:`), or has had at most (`VmHWM:`), in bytes.
pub fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

/// From now on: the most that this process has had is what it has, which is returned.
pub fn measure() -> usize {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    memory("VmRSS:")
}

/// Runs one test in a process of its own, where the environment says so, and what it says.
pub fn alone(test: &str, variable: &str, value: &str) -> String {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, value)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(child.status.success(), "{said}");
    said
}
