//! Parameters of policies: objects of any kind, read when they are needed with the rights of
//! this server.
//!
//! # Guarantees
//! * What is read for a binding takes at most [`ANSWER`] bytes and [`TREE`], and in all
//!   [`PLACES`] times as much: who comes later waits, as long as its request may take. A
//!   caller has one place at a time, and others come before its next.
//! * A server that does not answer takes no place.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1 as api;
use kube::api::{Api, DynamicObject, GetParams, ListParams};
use kube::client::Body;
use kube::core::{GroupVersionKind, Request, Status};
use kube::discovery::{ApiResource, Scope};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::rules::Selector;
use crate::aside;
use crate::decode::{self, Media};
use crate::reviews;
use crate::turns::Turns;
use crate::whole_body::whole;

/// How long each answer may take, or how long it may be on its way.
const PATIENCE: Duration = Duration::from_secs(5);
/// Kinds of parameters that are remembered, and for how long.
const KINDS: usize = 64;
const REMEMBERED: Duration = Duration::from_secs(60);
/// Parameters that one binding may select.
const MOST: u32 = 50;
/// Bytes of an answer, and of the tree that is made of it: those of 50 objects in a list as
/// well as those of one.
pub(crate) const ANSWER: usize = 3 * 1024 * 1024;
pub(crate) const TREE: usize = 12 * 1024 * 1024;
/// Bindings whose parameters are held at a time.
pub(crate) const PLACES: usize = 2;

/// The kind of a policy's parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParamKind {
    pub api_version: String,
    pub kind: String,
}

impl From<api::ParamKind> for ParamKind {
    fn from(kind: api::ParamKind) -> Self {
        Self {
            api_version: kind.api_version.unwrap_or_default(),
            kind: kind.kind.unwrap_or_default(),
        }
    }
}

impl ParamKind {
    /// As Kubernetes prints it.
    fn shown(&self) -> String {
        format!(
            "&ParamKind{{APIVersion:{},Kind:{},}}",
            self.api_version, self.kind
        )
    }
}

/// How a kind is served.
#[derive(Clone, Debug)]
struct Served {
    resource: ApiResource,
    namespaced: bool,
    since: Instant,
}

/// What a binding is evaluated with, and its place.
#[derive(Debug)]
pub struct Held<'a> {
    all: Vec<Value>,
    /// Of all, and of the caller: given back in this order.
    _place: Option<(SemaphorePermit<'a>, OwnedMutexGuard<()>)>,
}

impl Held<'_> {
    /// Each in turn; never empty unless a binding selects nothing.
    pub fn all(&self) -> &[Value] {
        &self.all
    }
}

/// See the module.
pub struct Params {
    client: Option<kube::Client>,
    kinds: Mutex<HashMap<ParamKind, Served>>,
    places: Semaphore,
    /// The requests of one caller, one after the other.
    turns: Turns<String>,
}

impl Params {
    /// From a cluster.
    pub fn new(client: Option<kube::Client>) -> Self {
        Self {
            client,
            kinds: Mutex::default(),
            places: Semaphore::new(PLACES),
            turns: Turns::default(),
        }
    }

    /// What a binding is evaluated with: once with nothing if it has no parameters.
    ///
    /// # Errors
    /// Why there are none, in the words of Kubernetes where it has any.
    pub async fn collect(
        &self,
        kind: Option<&ParamKind>,
        by: Option<&api::ParamRef>,
        namespace: Option<&str>,
        caller: &str,
    ) -> Result<Held<'_>, String> {
        let (Some(kind), Some(by)) = (kind, by) else {
            return Ok(Held {
                all: vec![Value::Null],
                _place: None,
            });
        };
        let unknown = || format!("paramKind kind `{}` not known", kind.shown());
        let late = |_| {
            format!(
                "paramKind kind `{}` not yet synced to use for admission",
                kind.shown()
            )
        };
        let client = self.client.as_ref().ok_or_else(unknown)?;
        let asked = async {
            let served = self.served(client, kind).await?;
            let api = scoped(client, &served, by, namespace)?;
            let wanted = Wanted::new(&api, by)?;
            let answer = client.send(wanted.request).await;
            let answer = answer.map_err(|why| reviews::describe(&why))?;
            Ok::<_, String>((wanted.by_name, answer))
        };
        let (by_name, answer) = timeout(PATIENCE, asked).await.map_err(late)??;
        // Those that nobody waits for are forgotten.
        let turn = self.turns.of(caller.to_owned(), 0).lock_owned().await;
        // It is never closed.
        let place = self.places.acquire().await.map_err(|why| why.to_string())?;
        let (status, body) = (answer.status(), whole(answer.into_body(), ANSWER));
        let body = timeout(PATIENCE, body).await.map_err(late)?;
        let body = body.map_err(|why| why.to_string())?.ok_or_else(too_much)?;
        let all = aside::documents(caller, body.len(), || read(by_name, status, &body)).await?;
        if all.is_empty() && by.parameter_not_found_action.as_deref() == Some("Deny") {
            let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
            return Err(why.to_owned());
        }
        Ok(Held {
            all,
            _place: Some((place, turn)),
        })
    }

    async fn served(&self, client: &kube::Client, kind: &ParamKind) -> Result<Served, String> {
        let known = self.kinds.lock().get(kind).cloned();
        if let Some(known) = known.filter(|known| known.since.elapsed() < REMEMBERED) {
            return Ok(known);
        }
        let (group, version) = match kind.api_version.split_once('/') {
            Some(parts) => parts,
            None => ("", kind.api_version.as_str()),
        };
        let wanted = GroupVersionKind::gvk(group, version, &kind.kind);
        let found = kube::discovery::pinned_kind(client, &wanted).await;
        let (resource, capabilities) = found.map_err(|why| {
            let why = reviews::describe(&why);
            tracing::warn!(
                kind = kind.shown(),
                why,
                "the kind of a policy's parameters"
            );
            format!("paramKind kind `{}` not known", kind.shown())
        })?;
        let served = Served {
            resource,
            namespaced: capabilities.scope == Scope::Namespaced,
            since: Instant::now(),
        };
        let mut kinds = self.kinds.lock();
        if kinds.len() >= KINDS {
            kinds.clear();
        }
        kinds.insert(kind.clone(), served.clone());
        Ok(served)
    }
}

/// Where the parameters of a binding are.
fn scoped(
    client: &kube::Client,
    served: &Served,
    by: &api::ParamRef,
    namespace: Option<&str>,
) -> Result<Api<DynamicObject>, String> {
    let given = by.namespace.as_deref().filter(|given| !given.is_empty());
    match (served.namespaced, given, namespace) {
        (false, Some(_), _) => Err(
            "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned(),
        ),
        (false, None, _) => Ok(Api::all_with(client.clone(), &served.resource)),
        (true, Some(namespace), _) | (true, None, Some(namespace)) => Ok(Api::namespaced_with(
            client.clone(),
            namespace,
            &served.resource,
        )),
        (true, None, None) => Err(
            "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                .to_owned(),
        ),
    }
}

/// A binding's parameters as they are asked for.
struct Wanted {
    by_name: bool,
    request: http::Request<Body>,
}

impl Wanted {
    fn new(api: &Api<DynamicObject>, by: &api::ParamRef) -> Result<Self, String> {
        let asks = Request::new(api.resource_url());
        let name = by.name.as_deref().filter(|name| !name.is_empty());
        let request = match (name, &by.selector) {
            (Some(_), Some(_)) => {
                return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned());
            }
            (Some(name), None) => asks.get(name, &GetParams::default()),
            (None, Some(selector)) => {
                let selector = Selector::new(Some(selector))?.to_string();
                asks.list(&ListParams::default().limit(MOST).labels(&selector))
            }
            (None, None) => return Err("one of name or selector must be provided".to_owned()),
        };
        let request = request.map_err(|why| why.to_string())?;
        Ok(Self {
            by_name: name.is_some(),
            request: request.map(Body::from),
        })
    }
}

/// The parameters of an answer: an object, or the items of a list.
fn read(by_name: bool, status: http::StatusCode, body: &[u8]) -> Result<Vec<Value>, String> {
    decode::weigh(Media::Json, body, TREE).map_err(|_| too_much())?;
    let said = serde_json::from_slice::<Value>(body);
    if !status.is_success() {
        if by_name && status == http::StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let told = said.ok().and_then(|said| Status::deserialize(said).ok());
        return Err(match told {
            Some(told) => reviews::describe(&kube::Error::Api(told.boxed())),
            None => format!("the server answered {status}"),
        });
    }
    let mut said = said.map_err(|why| why.to_string())?;
    if !said.is_object() {
        return Err("the answer is no object".to_owned());
    }
    if by_name {
        return Ok(vec![said]);
    }
    let more = said["metadata"]["continue"].as_str();
    if more.is_some_and(|token| !token.is_empty()) {
        return Err(format!("the binding selects more than {MOST} parameters"));
    }
    let (version, kind) = (said["apiVersion"].take(), said["kind"].as_str());
    let kind = kind.map_or("", |kind| kind.trim_end_matches("List"));
    let kind = Value::from(kind);
    let Value::Array(mut items) = said["items"].take() else {
        return Ok(Vec::new());
    };
    // Items of a list say no kind themselves.
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.entry("apiVersion").or_insert_with(|| version.clone());
        item.entry("kind").or_insert_with(|| kind.clone());
    }
    Ok(items)
}

fn too_much() -> String {
    format!(
        "the parameters of the binding are too large: at most {ANSWER} bytes, and {TREE} once they are read"
    )
}

#[cfg(test)]
mod tests;
