//! A registry over a real store, and requests to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use apiservice::Resource;
use apiservice::clock::Clock;
use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, Response, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use storage::Store;
use tokio_util::sync::CancellationToken;

use crate::authn::Identity;
use crate::authz::{Authorizer, Decision, Permit, verb};
use crate::cache::Cache;
use crate::namespaces::{Namespaces, State};
use crate::policy::Policies;
use crate::registry::{self, Registry, Request};
use crate::status::Failure;
use crate::subresource;
use crate::warnings::Warnings;

pub const TENANTS: &str = "tenantcontrolplanes";
pub const STORES: &str = "datastores";
/// Bytes of lists from the store; one holder alone has half of it.
pub const ANSWERS: usize = 8 << 20;

/// A registry with its feeder; the files of a store on disk go with it.
pub struct World {
    pub registry: Registry,
    pub seconds: Arc<AtomicI64>,
    _directory: Option<tempfile::TempDir>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.registry.shutdown.cancel();
    }
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub warnings: Vec<String>,
}

impl Answer {
    pub fn version(&self) -> u64 {
        let text = self.body["metadata"]["resourceVersion"].as_str();
        text.expect("a resourceVersion").parse().expect("a number")
    }

    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or("")
    }
}

/// One request: method, path parts, query, headers, body.
#[derive(Clone, Default)]
pub struct Call {
    plural: &'static str,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<&'static str>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
    user: Option<&'static str>,
    late: bool,
}

impl Call {
    pub fn tenants(name: &str) -> Self {
        Self::new(TENANTS, Some("n"), name)
    }

    pub fn stores(name: &str) -> Self {
        Self::new(STORES, None, name)
    }

    pub fn new(plural: &'static str, namespace: Option<&str>, name: &str) -> Self {
        Self {
            plural,
            namespace: namespace.map(str::to_owned),
            name: (!name.is_empty()).then(|| name.to_owned()),
            ..Self::default()
        }
    }

    pub fn everywhere(mut self) -> Self {
        self.namespace = None;
        self
    }

    /// Asked by another user.
    pub fn by(mut self, user: &'static str) -> Self {
        self.user = Some(user);
        self
    }

    /// Its answer is due already.
    pub fn late(mut self) -> Self {
        self.late = true;
        self
    }

    pub fn part(mut self, subresource: &'static str) -> Self {
        self.subresource = Some(subresource);
        self
    }

    /// `a=b&c=d`, not encoded.
    pub fn query(mut self, text: &str) -> Self {
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.query.push((key.to_owned(), value.to_owned()));
        }
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.insert(name, value.parse().expect("a header"));
        self
    }

    pub fn body(mut self, body: Value) -> Self {
        self.body = Bytes::from(body.to_string());
        self
    }

    pub fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Bytes::from(body);
        self
    }

    pub fn text(mut self, body: &str) -> Self {
        self.body = Bytes::from(body.to_owned());
        self
    }

    fn resource(&self) -> &'static Resource {
        apiservice::find(self.plural).expect("a resource")
    }

    pub fn permit<V>(&self) -> Permit<V> {
        let identity = Identity {
            user: self.user.unwrap_or("alice").to_owned(),
            uid: None,
            groups: Vec::new(),
            extra: Default::default(),
        };
        let rows = self.resource().subresources.iter();
        let mut rows = rows.filter(|row| Some(row.name()) == self.subresource);
        let (namespace, name) = (self.namespace.as_deref(), self.name.as_deref());
        Permit::for_test(identity, self.resource(), namespace, name, rows.next())
    }

    pub fn request(&self) -> Request {
        Request {
            headers: self.headers.clone(),
            query: self.query.as_slice().into(),
            body: self.body.clone(),
            path: String::new(),
            caller: "alice".to_owned(),
            deadline: match self.late {
                true => tokio::time::Instant::now(),
                false => tokio::time::Instant::now() + Duration::from_secs(30),
            },
            warnings: Warnings::default(),
            annotations: Default::default(),
            held: Default::default(),
        }
    }
}

impl World {
    pub async fn memory() -> Self {
        Self::over(storage::memory::open(), None, |_| true)
    }

    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path: PathBuf = directory.path().to_owned();
        let store = storage::sqlite::open(path).await.expect("a store");
        Self::over(store, Some(directory), |_| true)
    }

    /// Both kinds of store.
    pub async fn each() -> [Self; 2] {
        [Self::memory().await, Self::sqlite().await]
    }

    /// This store.
    pub fn with(store: Store) -> Self {
        Self::over(store, None, |_| true)
    }

    /// A user who may only what `allows` says of `VERB RESOURCE NAME`.
    pub fn limited(allows: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::over(storage::memory::open(), None, allows)
    }

    fn over(
        store: Store,
        directory: Option<tempfile::TempDir>,
        allows: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let seconds = Arc::new(AtomicI64::new(1_800_000_000));
        let time = seconds.clone();
        let cache = Cache::new(store.clone(), Default::default());
        let shutdown = CancellationToken::new();
        tokio::spawn(cache.clone().run(shutdown.clone()));
        let namespaces = Namespaces::for_test(vec![
            ("n", State::Active),
            ("m", State::Active),
            ("leaving", State::Terminating),
        ]);
        let registry = Registry {
            store: store.clone().into(),
            writable: store.into(),
            cache,
            quota: Arc::default(),
            answers: crate::pool::Pool::new(ANSWERS),
            limits: crate::limits::Limits::new(400, 200, "s"),
            replays: crate::pool::Pool::places(4),
            authorizer: Authorizer::for_test(move |_, question| {
                let asked = format!("{} {} {}", question.verb, question.resource, question.name);
                match allows(&asked) {
                    true => Decision::allow(),
                    false => Decision::Deny {
                        reason: String::new(),
                    },
                }
            }),
            policies: Policies::none(namespaces.clone()),
            namespaces,
            clock: Clock::new(move || {
                jiff::Timestamp::from_second(time.load(Ordering::SeqCst)).expect("a time")
            }),
            shutdown,
        };
        Self {
            registry,
            seconds,
            _directory: directory,
        }
    }

    /// With tenants in some of the namespaces `n` and `m` only.
    pub fn serving(mut self, served: &[&str]) -> Self {
        let states = vec![("n", State::Active), ("m", State::Active)];
        self.registry.namespaces = Namespaces::for_test_serving(states, served);
        self
    }

    /// With limits on what is stored.
    pub fn bounded(mut self, bounds: crate::quota::Bounds) -> Self {
        self.registry.quota = Arc::new(crate::quota::Quota::new(bounds));
        self
    }

    /// A registry of its own making.
    pub fn of(registry: Registry) -> Self {
        Self {
            registry,
            seconds: Arc::default(),
            _directory: None,
        }
    }

    pub async fn finish(result: Result<Response<Body>, Failure>, request: Request) -> Answer {
        let response = result.unwrap_or_else(|failure| failure.into_response(&request.headers));
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned())),
            warnings: request.warnings.texts(),
        }
    }

    pub async fn get(&self, call: Call) -> Answer {
        let request = call.request();
        let permit = call.permit::<verb::Get>();
        let result = match call.subresource {
            Some("scale") => subresource::scale::get(&self.registry, permit, &request).await,
            Some(_) => subresource::status::get(&self.registry, permit, &request).await,
            None => registry::get::run(&self.registry, permit, &request).await,
        };
        Self::finish(result, request).await
    }

    pub async fn list(&self, call: Call) -> Answer {
        let request = call.request();
        let permit = call.permit::<verb::List>();
        let result = registry::list::run(&self.registry, permit, &request).await;
        Self::finish(result, request).await
    }

    /// The answer to a list, of which nothing was read yet.
    pub async fn open_list(&self, call: Call) -> Response<Body> {
        let permit = call.permit::<verb::List>();
        let result = registry::list::run(&self.registry, permit, &call.request()).await;
        result.expect("a list")
    }

    pub async fn create(&self, call: Call) -> Answer {
        let request = call.request();
        let permit = Call { name: None, ..call }.permit::<verb::Create>();
        let result = registry::create::run(&self.registry, permit, &request).await;
        Self::finish(result, request).await
    }

    pub async fn update(&self, call: Call) -> Answer {
        let request = call.request();
        let permit = call.permit::<verb::Update>();
        let result = match call.subresource {
            Some("scale") => subresource::scale::update(&self.registry, permit, &request).await,
            Some(_) => subresource::status::update(&self.registry, permit, &request).await,
            None => registry::update::run(&self.registry, permit, &request).await,
        };
        Self::finish(result, request).await
    }

    pub async fn patch(&self, call: Call) -> Answer {
        let mut call = call;
        if !call.headers.contains_key(header::CONTENT_TYPE) {
            call = call.header(header::CONTENT_TYPE, "application/merge-patch+json");
        }
        let request = call.request();
        let permit = call.permit::<verb::Patch>();
        let result = match call.subresource {
            Some("scale") => subresource::scale::patch(&self.registry, permit, &request).await,
            Some(_) => subresource::status::patch(&self.registry, permit, &request).await,
            None => registry::patch::run(&self.registry, permit, &request).await,
        };
        Self::finish(result, request).await
    }

    pub async fn delete(&self, call: Call) -> Answer {
        let request = call.request();
        let permit = call.permit::<verb::Delete>();
        let result = registry::delete::run(&self.registry, permit, &request).await;
        Self::finish(result, request).await
    }

    pub async fn delete_collection(&self, call: Call) -> Answer {
        let request = call.request();
        let permit = call.permit::<verb::DeleteCollection>();
        let result = registry::delete_collection::run(&self.registry, permit, &request).await;
        Self::finish(result, request).await
    }

    /// The answer to a watch, of which nothing was read yet.
    pub async fn open_watch(&self, call: Call) -> Response<Body> {
        let permit = call.permit::<verb::Watch>();
        let result = registry::watch::run(&self.registry, permit, &call.request()).await;
        result.expect("a stream")
    }

    pub async fn watch(&self, call: Call) -> Events {
        let response = self.open_watch(call).await;
        Events {
            stream: Box::pin(
                response
                    .into_body()
                    .into_data_stream()
                    .map(|piece| piece.expect("a piece")),
            ),
            buffer: Vec::new(),
        }
    }

    /// A tenant in namespace `n`, stored.
    pub async fn tenant(&self, name: &str) -> Answer {
        let answer = self.create(Call::tenants("").body(tenant(name))).await;
        assert_eq!(answer.code, 201, "{}", answer.body);
        answer
    }
}

/// The events of a watch, taken apart.
pub struct Events {
    stream: std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            let piece = tokio::time::timeout(Duration::from_secs(5), self.stream.next()).await;
            match piece.expect("an event within five seconds") {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return None,
            }
        }
    }

    /// `TYPE name@resourceVersion` of the next event.
    pub async fn line(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let meta = &event["object"]["metadata"];
        format!(
            "{} {}@{}",
            event["type"].as_str().unwrap_or(""),
            meta["name"].as_str().unwrap_or(""),
            meta["resourceVersion"].as_str().unwrap_or("")
        )
    }

    /// Nothing comes for a while.
    pub async fn quiet(&mut self) {
        assert!(self.buffer.is_empty());
        let wait = tokio::time::timeout(Duration::from_millis(100), self.stream.next()).await;
        assert!(wait.is_err(), "{wait:?}");
    }
}

/// What makes a tenant large: a text of which nothing is made.
pub fn padding(text: &str) -> Value {
    json!([{"resource": "/events", "dataStore": text}])
}

/// The least that is a TenantControlPlane.
pub fn tenant(name: &str) -> Value {
    json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "kubernetes": {"version": "1.36.3", "kubelet": {}},
            "controlPlane": {
                "deployment": {"replicas": 2},
                "service": {"serviceType": "ClusterIP"},
            },
        },
    })
}
