//! What is known of namespaces, for admission: whether something may be created in one
//! (R7.4, R7.5), and what selectors of policies see of it (R7.7).
//!
//! Flow: [`Namespaces::follow`] keeps names, phases and labels by list and watch; a name
//! that is not there is looked up live, because the namespace may be a second old. Labels
//! are kept up to a bound; those beyond it are looked up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::RwLock;

use crate::reviews;
use crate::watched::Watched;

/// How long a namespace that was just made may take to arrive by watch.
const ARRIVAL: Duration = Duration::from_millis(50);
const LOOKUP: Duration = Duration::from_secs(5);
/// Bytes of labels that are kept, of all namespaces and of one.
pub(crate) const LABELS: usize = 16 * 1024 * 1024;
const LABELS_OF_ONE: usize = 64 * 1024;

/// Labels of a namespace.
pub type Labels = Arc<BTreeMap<String, String>>;

/// Whether something may be created in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Missing,
    Active,
    Terminating,
    /// The cluster did not say.
    Unknown,
}

/// Why the labels of a namespace are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlabelled {
    /// There is no such namespace.
    Missing,
    /// The cluster did not say; this is why.
    Unknown(String),
}

/// What is kept of one namespace.
#[derive(Clone, Debug)]
struct Known {
    state: State,
    /// None if they are too many to be kept.
    labels: Option<Labels>,
    bytes: usize,
}

impl Known {
    fn of(namespace: &Namespace) -> Self {
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        let bytes = labels.iter().map(|(key, value)| key.len() + value.len());
        let bytes = bytes.sum();
        let kept = bytes <= LABELS_OF_ONE;
        Self {
            state: state_of(namespace),
            labels: kept.then(|| Arc::new(labels)),
            bytes: if kept { bytes } else { 0 },
        }
    }
}

/// All that is kept.
#[derive(Debug, Default)]
struct All {
    by_name: HashMap<String, Known>,
    /// Bytes of labels.
    bytes: usize,
}

impl All {
    fn set(&mut self, namespace: &Namespace) {
        let name = namespace.name_any();
        self.remove(&name);
        let mut known = Known::of(namespace);
        if self.bytes + known.bytes > LABELS {
            (known.labels, known.bytes) = (None, 0);
        }
        self.bytes += known.bytes;
        self.by_name.insert(name, known);
    }

    fn remove(&mut self, name: &str) {
        if let Some(gone) = self.by_name.remove(name) {
            self.bytes -= gone.bytes;
        }
    }
}

/// The namespaces of the cluster.
pub struct Namespaces {
    known: RwLock<All>,
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
        let known = states.into_iter().map(|(name, state)| {
            let known = Known {
                state,
                labels: Some(Labels::default()),
                bytes: 0,
            };
            (name.to_owned(), known)
        });
        Arc::new(Namespaces {
            known: RwLock::new(All {
                by_name: known.collect(),
                bytes: 0,
            }),
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
        match look_up(client, namespace).await {
            Ok(Some(found)) => state_of(&found),
            Ok(None) => State::Missing,
            Err(error) => {
                tracing::warn!(namespace, error, "cannot look up a namespace");
                State::Unknown
            }
        }
    }

    /// The labels of one namespace.
    ///
    /// # Errors
    /// See [`Unlabelled`].
    pub async fn labels(&self, namespace: &str) -> Result<Labels, Unlabelled> {
        let known = self.known.read().by_name.get(namespace).cloned();
        if let Some(labels) = known.and_then(|known| known.labels) {
            return Ok(labels);
        }
        let found = self.get(namespace).await?;
        Ok(Arc::new(found.metadata.labels.unwrap_or_default()))
    }

    /// One namespace, as it is now.
    ///
    /// # Errors
    /// See [`Unlabelled`].
    pub async fn get(&self, namespace: &str) -> Result<Namespace, Unlabelled> {
        let client = self.client.as_ref().ok_or(Unlabelled::Missing)?;
        let found = look_up(client, namespace).await;
        let found = found.map_err(Unlabelled::Unknown)?;
        found.ok_or(Unlabelled::Missing)
    }

    fn cached(&self, namespace: &str) -> Option<State> {
        let known = self.known.read();
        known.by_name.get(namespace).map(|known| known.state)
    }

    /// Keeps the namespaces, for ever.
    pub async fn follow(&self, client: kube::Client) {
        let api: Api<Watched<Namespace>> = Api::all(client);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed = All::default();
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => listed = All::default(),
                Ok(Some(watcher::Event::InitApply(Watched(found)))) => {
                    listed.set(&found);
                }
                Ok(Some(watcher::Event::InitDone)) => {
                    *self.known.write() = std::mem::take(&mut listed);
                    self.loaded.store(true, Ordering::Release);
                }
                Ok(Some(watcher::Event::Apply(Watched(found)))) => {
                    self.known.write().set(&found);
                }
                Ok(Some(watcher::Event::Delete(Watched(gone)))) => {
                    self.known.write().remove(&gone.name_any());
                }
                Ok(None) => return,
                Err(error) => {
                    let error = reviews::describe(&error);
                    tracing::warn!(error, "cannot follow namespaces");
                }
            }
        }
    }
}

async fn look_up(client: &kube::Client, namespace: &str) -> Result<Option<Namespace>, String> {
    let api: Api<Watched<Namespace>> = Api::all(client.clone());
    match tokio::time::timeout(LOOKUP, api.get_opt(namespace)).await {
        Ok(Ok(found)) => Ok(found.map(|Watched(found)| found)),
        Ok(Err(error)) => Err(reviews::describe(&error)),
        Err(_) => Err("no answer within 5 s".to_owned()),
    }
}

fn state_of(namespace: &Namespace) -> State {
    if namespace.metadata.deletion_timestamp.is_some() {
        State::Terminating
    } else {
        State::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(name: &str, bytes: usize) -> Namespace {
        let labels = [("k".to_owned(), "x".repeat(bytes - 1))];
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.metadata.labels = Some(labels.into());
        namespace
    }

    /// What is not kept is asked for when it is needed; that there is such a namespace is
    /// known all the same.
    #[test]
    fn labels_are_kept_within_bounds() {
        let mut all = All::default();
        let kept = |all: &All, name: &str| all.by_name[name].labels.is_some();
        all.set(&labelled("large", LABELS_OF_ONE + 1));
        assert!(!kept(&all, "large"));
        let count = LABELS / LABELS_OF_ONE;
        for n in 0..count {
            all.set(&labelled(&format!("n{n}"), LABELS_OF_ONE));
        }
        assert_eq!(all.bytes, LABELS);
        all.set(&labelled("one more", 1));
        assert!(!kept(&all, "one more") && kept(&all, "n0"));
        // Another state of one takes the place of its last.
        all.set(&labelled("n0", 1));
        all.set(&labelled("one more", 1));
        assert!(kept(&all, "one more"));
        all.remove("n0");
        assert_eq!(all.bytes, (count - 1) * LABELS_OF_ONE + 1);
    }

    /// Whoever may write one namespace sets a time there that none of our types takes.
    #[test]
    fn one_namespace_does_not_end_the_list_of_all() {
        let late = "9999-12-31T23:59:59Z";
        let text = serde_json::json!({
            "items": [
                {"metadata": {"name": "a", "labels": {"k": "v"}, "managedFields": [{"time": late}]}},
                {"metadata": {"name": "b", "deletionTimestamp": late}, "status": {"conditions": [
                    {"type": "T", "status": "True", "lastTransitionTime": late},
                ]}},
            ],
            "metadata": {"resourceVersion": "1"},
        });
        type List<K> = kube::core::ObjectList<K>;
        assert!(serde_json::from_value::<List<Namespace>>(text.clone()).is_err());
        let read: List<Watched<Namespace>> = serde_json::from_value(text).unwrap();
        let mut all = All::default();
        for Watched(namespace) in &read.items {
            all.set(namespace);
        }
        assert_eq!(all.by_name["a"].labels.as_ref().unwrap()["k"], "v");
        assert_eq!(all.by_name["b"].state, State::Terminating);
    }
}
