//! What is known of namespaces, for admission of creates (R7.4, R7.5).
//!
//! Flow: [`Namespaces::follow`] keeps names and phases by list and watch; a name that
//! is not there is looked up live, because the namespace may be a second old.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::RwLock;

use crate::delegate;

/// How long a namespace that was just made may take to arrive by watch.
const ARRIVAL: Duration = Duration::from_millis(50);
const LOOKUP: Duration = Duration::from_secs(5);

/// Whether something may be created in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Missing,
    Active,
    Terminating,
    /// The cluster did not say.
    Unknown,
}

/// The namespaces of the cluster.
pub struct Namespaces {
    known: RwLock<HashMap<String, State>>,
    loaded: AtomicBool,
    /// Those in which something may be created; none: all of them.
    served: Vec<String>,
    client: Option<kube::Client>,
}

impl Namespaces {
    /// Of a cluster, with those in which something may be created; none: any.
    pub fn new(client: kube::Client, served: Vec<String>) -> Arc<Self> {
        Arc::new(Namespaces {
            known: RwLock::default(),
            loaded: AtomicBool::new(false),
            served,
            client: Some(client),
        })
    }

    /// Namespaces that stay as they are; others are missing.
    #[cfg(test)]
    pub(crate) fn for_test(states: Vec<(&'static str, State)>) -> Arc<Self> {
        Self::for_test_serving(states, &[])
    }

    /// The same, where objects may be created in some of them only.
    #[cfg(test)]
    pub(crate) fn for_test_serving(
        states: Vec<(&'static str, State)>,
        served: &[&str],
    ) -> Arc<Self> {
        let known = states
            .into_iter()
            .map(|(name, state)| (name.to_owned(), state));
        Arc::new(Namespaces {
            known: RwLock::new(known.collect()),
            loaded: AtomicBool::new(true),
            served: served.iter().map(|name| (*name).to_owned()).collect(),
            client: None,
        })
    }

    /// Whether all namespaces were listed once.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Whether this installation may have objects in a namespace.
    pub fn serves(&self, namespace: &str) -> bool {
        self.served.is_empty() || self.served.iter().any(|name| name == namespace)
    }

    /// The state of one namespace.
    pub async fn state(&self, namespace: &str) -> State {
        if let Some(state) = self.cached(namespace) {
            return state;
        }
        let Some(client) = &self.client else {
            return State::Missing;
        };
        tokio::time::sleep(ARRIVAL).await;
        if let Some(state) = self.cached(namespace) {
            return state;
        }
        let api: Api<Namespace> = Api::all(client.clone());
        match tokio::time::timeout(LOOKUP, api.get_opt(namespace)).await {
            Ok(Ok(Some(found))) => state_of(&found),
            Ok(Ok(None)) => State::Missing,
            Ok(Err(error)) => {
                let error = delegate::describe(&error);
                tracing::warn!(namespace, error, "cannot look up a namespace");
                State::Unknown
            }
            Err(_) => State::Unknown,
        }
    }

    fn cached(&self, namespace: &str) -> Option<State> {
        self.known.read().get(namespace).copied()
    }

    /// Keeps the namespaces, for ever.
    pub async fn follow(&self, client: kube::Client) {
        let api: Api<Namespace> = Api::all(client);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed = HashMap::new();
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => listed.clear(),
                Ok(Some(watcher::Event::InitApply(found))) => {
                    listed.insert(found.name_any(), state_of(&found));
                }
                Ok(Some(watcher::Event::InitDone)) => {
                    *self.known.write() = std::mem::take(&mut listed);
                    self.loaded.store(true, Ordering::Release);
                }
                Ok(Some(watcher::Event::Apply(found))) => {
                    self.known
                        .write()
                        .insert(found.name_any(), state_of(&found));
                }
                Ok(Some(watcher::Event::Delete(gone))) => {
                    self.known.write().remove(&gone.name_any());
                }
                Ok(None) => return,
                Err(error) => {
                    let error = delegate::describe(&error);
                    tracing::warn!(error, "cannot follow namespaces");
                }
            }
        }
    }
}

fn state_of(namespace: &Namespace) -> State {
    if namespace.metadata.deletion_timestamp.is_some() {
        State::Terminating
    } else {
        State::Active
    }
}
