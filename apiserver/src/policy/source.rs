//! Configurations of the cluster, kept by list and watch.
//!
//! # Guarantees
//! * What is kept is bounded, by number and by bytes. With more there are none: a policy
//!   that is not seen must not count as one that there is not.
//! * Before the first list nobody is admitted. After it, what was seen last counts while
//!   the cluster cannot be asked, as with any server of Kubernetes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::TryStreamExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::reviews;

/// Configurations of one kind that are kept.
const MOST: usize = 5_000;
/// Bytes of them, as they are written.
const BYTES: usize = 16 * 1024 * 1024;
/// How many are read at a time.
const PAGE: u32 = 50;
/// How long a request waits for the first list (R7.3).
const PATIENCE: Duration = Duration::from_secs(10);

/// All of one kind that may concern us, by name.
pub type All<T> = Arc<BTreeMap<String, Arc<T>>>;

#[derive(Debug)]
enum State<T> {
    Waiting,
    TooMuch,
    Known(All<T>),
}

/// See the module.
#[derive(Debug)]
pub struct Source<T> {
    state: ArcSwap<State<T>>,
    changed: Notify,
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("not yet ready to handle request")]
    Waiting,
    #[error("the cluster has more admission configurations for this kind than this server keeps")]
    TooMuch,
}

/// What is being kept, with its size.
struct Kept<T>(BTreeMap<String, (Arc<T>, usize)>);

impl<T> Default for Source<T> {
    /// Nothing is known yet.
    fn default() -> Self {
        Self {
            state: ArcSwap::from_pointee(State::Waiting),
            changed: Notify::new(),
        }
    }
}

impl<T> Source<T> {
    /// These and no others.
    pub fn known(all: BTreeMap<String, Arc<T>>) -> Self {
        Self {
            state: ArcSwap::from_pointee(State::Known(Arc::new(all))),
            changed: Notify::new(),
        }
    }

    /// Whether they were listed once.
    pub fn is_loaded(&self) -> bool {
        !matches!(**self.state.load(), State::Waiting)
    }

    /// All of them; waits a little for the first list.
    ///
    /// # Errors
    /// When they are not known.
    pub async fn all(&self, deadline: Instant) -> Result<All<T>, NotReady> {
        let until = deadline.min(Instant::now() + PATIENCE);
        loop {
            let changed = self.changed.notified();
            match &**self.state.load() {
                State::Known(all) => return Ok(all.clone()),
                State::TooMuch => return Err(NotReady::TooMuch),
                State::Waiting => {}
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return Err(NotReady::Waiting);
            }
        }
    }

    fn publish(&self, state: State<T>) {
        self.state.store(Arc::new(state));
        self.changed.notify_waiters();
    }

    fn publish_kept(&self, kept: &Kept<T>) {
        let bytes: usize = kept.0.values().map(|(_, bytes)| bytes).sum();
        if kept.0.len() > MOST || bytes > BYTES {
            tracing::error!(
                count = kept.0.len(),
                bytes,
                "too many admission configurations: what they may be about is refused"
            );
            return self.publish(State::TooMuch);
        }
        let all = kept.0.iter();
        let all = all.map(|(name, (one, _))| (name.clone(), one.clone()));
        self.publish(State::Known(Arc::new(all.collect())));
    }

    /// Keeps them, for ever. `read` says which of them may concern us; a kind that the
    /// cluster does not have is one of which there are none.
    pub async fn follow<K>(&self, client: kube::Client, read: impl Fn(K) -> Option<T>)
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
        K::DynamicType: Default + std::hash::Hash + Eq + Clone,
    {
        let api: Api<K> = Api::all(client);
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut kept = Kept(BTreeMap::new());
        let mut listed = Kept(BTreeMap::new());
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => listed.0.clear(),
                Ok(Some(watcher::Event::InitApply(found))) => {
                    listed.set(found, &read);
                }
                Ok(Some(watcher::Event::InitDone)) => {
                    kept = std::mem::replace(&mut listed, Kept(BTreeMap::new()));
                    self.publish_kept(&kept);
                }
                Ok(Some(watcher::Event::Apply(found))) => {
                    if kept.set(found, &read) {
                        self.publish_kept(&kept);
                    }
                }
                Ok(Some(watcher::Event::Delete(gone))) => {
                    if kept.0.remove(&gone.name_any()).is_some() {
                        self.publish_kept(&kept);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    if not_served(&error) && !self.is_loaded() {
                        self.publish_kept(&kept);
                    }
                    let error = reviews::describe(&error);
                    tracing::warn!(kind, error, "cannot follow admission configurations");
                }
            }
        }
    }
}

impl<T> Kept<T> {
    /// Whether that changes anything.
    fn set<K>(&mut self, found: K, read: &impl Fn(K) -> Option<T>) -> bool
    where
        K: Resource + Serialize,
    {
        let name = found.name_any();
        let bytes = serde_json::to_string(&found).map_or(0, |text| text.len());
        match read(found) {
            Some(one) => {
                self.0.insert(name, (Arc::new(one), bytes));
                true
            }
            None => self.0.remove(&name).is_some(),
        }
    }
}

fn not_served(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_is_admitted_before_the_first_list_nor_with_too_many() {
        let source = Source::<u8>::default();
        let soon = Instant::now() + Duration::from_secs(60);
        let began = Instant::now();
        assert_eq!(source.all(soon).await, Err(NotReady::Waiting));
        assert_eq!(began.elapsed(), PATIENCE);
        let one = (Arc::new(1), BYTES / 2);
        let mut kept = Kept(BTreeMap::from([("a".to_owned(), one.clone())]));
        source.publish_kept(&kept);
        assert_eq!(source.all(soon).await.unwrap().len(), 1);
        kept.0.insert("b".to_owned(), (Arc::new(2), BYTES / 2 + 1));
        source.publish_kept(&kept);
        assert_eq!(source.all(soon).await, Err(NotReady::TooMuch));
        kept.0.remove("b");
        source.publish_kept(&kept);
        assert!(source.all(soon).await.is_ok());
        kept.0 = (0..=MOST)
            .map(|n| (n.to_string(), (Arc::new(0), 1)))
            .collect();
        source.publish_kept(&kept);
        assert_eq!(source.all(soon).await, Err(NotReady::TooMuch));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_with_the_first_list() {
        let source = Source::<u8>::default();
        let soon = Instant::now() + Duration::from_secs(5);
        let listed = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            source.publish_kept(&Kept(BTreeMap::new()));
        };
        let (all, ()) = tokio::join!(source.all(soon), listed);
        assert!(all.unwrap().is_empty());
    }
}
