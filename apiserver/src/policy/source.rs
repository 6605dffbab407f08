//! Configurations of the cluster, kept by list and watch.
//!
//! # Guarantees
//! * What is kept of all kinds together is bounded, by number and by bytes, texts and the
//!   trees made of expressions alike; what is listed anew and has changed counts beside what
//!   it replaces. It is weighed before it is made, and nothing is read beyond the bound. With more
//!   there are none: a policy that is not seen must not count as one that there is not. They
//!   are then listed again and again until they fit.
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
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::reviews;
use crate::watched::Watched;

/// Configurations of one kind that are kept.
const MOST: usize = 5_000;
/// Bytes of those of all kinds: as they are written, and their expressions as trees.
pub(crate) const BYTES: usize = 48 * 1024 * 1024;
/// Bytes of the tree of an expression for each byte of its text, at most about. Most have far
/// fewer: a name or a text is one node, whatever its length.
const TREE: usize = 128;
/// How many are read at a time: each may have 1.5 MiB.
const PAGE: u32 = 5;
/// How long what was known of a kind stays in force when it is not served any more.
const WITHDRAWN: Duration = Duration::from_secs(60);
/// How long until what is not served is asked for again.
const UNSERVED: Duration = Duration::from_secs(5);
/// How long until too many are listed again.
const AGAIN: Duration = Duration::from_secs(30);
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

/// A kind of configuration.
pub trait Configured {
    /// What is kept of it.
    type Kept: Send + 'static;

    /// Bytes of the texts of all its expressions; nothing if it cannot concern us.
    fn expressions(&self) -> Option<usize>;

    /// Makes it; nothing if it cannot concern us.
    fn read(self) -> Option<Self::Kept>;
}

/// What is listed and watched.
pub trait Followed:
    Resource<DynamicType: Default + std::hash::Hash + Eq + Clone>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + 'static
{
}

impl<K> Followed for K where
    K: Resource<DynamicType: Default + std::hash::Hash + Eq + Clone>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + 'static
{
}

/// Why a kind, or a version of it, is not followed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    TooMuch,
    NotServed,
}

/// Room for what is kept of all kinds.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BYTES)))
    }
}

/// Reading an expression takes a hundred times its bytes for a moment: one is read at a time.
static READING: Mutex<()> = Mutex::const_new(());

/// One that is kept, with its room.
#[derive(Debug)]
struct One<T> {
    made: Arc<T>,
    version: Option<String>,
    _room: Arc<OwnedSemaphorePermit>,
}

impl<T> Clone for One<T> {
    fn clone(&self) -> Self {
        Self {
            made: self.made.clone(),
            version: self.version.clone(),
            _room: self._room.clone(),
        }
    }
}

/// What is being kept.
struct Kept<T> {
    all: BTreeMap<String, One<T>>,
    room: Room,
}

/// There is more than is kept.
#[derive(Debug, PartialEq, Eq)]
struct TooMuch;

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

    /// One and no others.
    #[cfg(test)]
    pub(crate) fn one<K>(object: serde_json::Value) -> Self
    where
        K: Configured<Kept = T> + ResourceExt + DeserializeOwned,
    {
        let read: K = serde_json::from_value(object).expect("one of its kind");
        let name = read.name_any();
        let kept = read.read().expect("one of ours");
        Self::known([(name, Arc::new(kept))].into())
    }

    /// More than are kept.
    #[cfg(test)]
    pub(crate) fn too_much() -> Self {
        Self {
            state: ArcSwap::from_pointee(State::TooMuch),
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
        let all = kept.all.iter();
        let all = all.map(|(name, one)| (name.clone(), one.made.clone()));
        self.publish_all(all.collect());
    }

    fn publish_all(&self, all: BTreeMap<String, Arc<T>>) {
        self.publish(State::Known(Arc::new(all)));
    }

    /// Keeps them, for ever. A kind that the cluster does not have is one of which there are
    /// none.
    pub async fn follow<K>(&self, client: kube::Client, room: &Room)
    where
        K: Configured<Kept = T> + Followed,
        T: Send + Sync + 'static,
    {
        let mut unserved = None;
        loop {
            let ended = self.follow_what_fits::<K>(client.clone(), room, &mut unserved);
            let ended = ended.await;
            self.pause::<K>(ended, &mut unserved).await;
        }
    }

    /// The same of a kind of which the cluster has one version or the other, or none.
    pub async fn follow_either<K, L>(&self, client: kube::Client, room: &Room)
    where
        K: Configured<Kept = T> + Followed,
        L: Configured<Kept = T> + Followed,
        T: Send + Sync + 'static,
    {
        let mut unserved = None;
        loop {
            let ended = self.follow_what_fits::<K>(client.clone(), room, &mut unserved);
            let mut ended = ended.await;
            if ended == Ended::NotServed {
                let other = self.follow_what_fits::<L>(client.clone(), room, &mut unserved);
                ended = other.await;
            }
            self.pause::<K>(ended, &mut unserved).await;
        }
    }

    /// Until they are listed anew. `unserved` is since when the kind is not served.
    async fn pause<K: Followed>(&self, ended: Ended, unserved: &mut Option<Instant>)
    where
        T: Send + Sync + 'static,
    {
        match ended {
            Ended::TooMuch => {
                tracing::error!(
                    kind = kind_of::<K>(),
                    most = MOST,
                    bytes = BYTES,
                    "too many admission configurations: what they may be about is refused"
                );
                self.publish(State::TooMuch);
            }
            Ended::NotServed => self.without::<K>(unserved),
        }
        let pause = match ended {
            Ended::TooMuch => AGAIN,
            Ended::NotServed => UNSERVED,
        };
        tokio::time::sleep(pause).await;
    }

    /// Of a kind that is not served there are none. Where there were some, they stay in force
    /// for a while: of several kube-apiservers that are being replaced one may not have it.
    fn without<K: Followed>(&self, unserved: &mut Option<Instant>)
    where
        T: Send + Sync + 'static,
    {
        let none = matches!(&**self.state.load(), State::Known(all) if all.is_empty());
        if !self.is_loaded() {
            self.publish_all(BTreeMap::new());
        } else if none {
            *unserved = None;
        } else {
            let kind = kind_of::<K>();
            match *unserved {
                None => {
                    let seconds = WITHDRAWN.as_secs();
                    tracing::warn!(
                        kind,
                        seconds,
                        "the cluster does not serve this kind: what was known of it stays in force for a while"
                    );
                    *unserved = Some(Instant::now());
                }
                Some(since) if since.elapsed() < WITHDRAWN => {}
                Some(_) => {
                    tracing::warn!(
                        kind,
                        "the cluster does not serve this kind any more: none of it is in force"
                    );
                    self.publish_all(BTreeMap::new());
                    *unserved = None;
                }
            }
        }
    }

    /// Keeps them as long as they fit, and are served.
    async fn follow_what_fits<K>(
        &self,
        client: kube::Client,
        room: &Room,
        unserved: &mut Option<Instant>,
    ) -> Ended
    where
        K: Configured<Kept = T> + Followed,
        T: Send + Sync + 'static,
    {
        let api: Api<Watched<K>> = Api::all(client);
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut kept = Kept::new(room);
        let mut listed = Kept::new(room);
        loop {
            let fits = match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => {
                    listed = Kept::new(room);
                    Ok(())
                }
                Ok(Some(watcher::Event::InitApply(Watched(found)))) => {
                    listed.set(found, Some(&kept)).await.map(drop)
                }
                Ok(Some(watcher::Event::InitDone)) => {
                    *unserved = None;
                    kept = std::mem::replace(&mut listed, Kept::new(room));
                    self.publish_kept(&kept);
                    Ok(())
                }
                Ok(Some(watcher::Event::Apply(Watched(found)))) => {
                    kept.set(found, None).await.map(|changed| {
                        if changed {
                            self.publish_kept(&kept);
                        }
                    })
                }
                Ok(Some(watcher::Event::Delete(gone))) => {
                    if kept.remove(&gone.name_any()) {
                        self.publish_kept(&kept);
                    }
                    Ok(())
                }
                // It does not end by itself.
                Ok(None) => return Ended::NotServed,
                Err(error) if not_served(&error) => return Ended::NotServed,
                Err(error) => {
                    let error = reviews::describe(&error);
                    let kind = kind_of::<K>();
                    tracing::warn!(kind, error, "cannot follow admission configurations");
                    Ok(())
                }
            };
            if fits.is_err() {
                return Ended::TooMuch;
            }
        }
    }
}

fn kind_of<K: Followed>() -> String {
    K::kind(&K::DynamicType::default()).into_owned()
}

impl<T> Kept<T> {
    /// Nothing yet.
    fn new(room: &Room) -> Self {
        Self {
            all: BTreeMap::new(),
            room: room.clone(),
        }
    }
}

impl<T: Send + Sync + 'static> Kept<T> {
    /// Whether that changes anything. One that is in `before` as it is found is not made again.
    async fn set<K>(&mut self, found: K, before: Option<&Self>) -> Result<bool, TooMuch>
    where
        K: Configured<Kept = T> + Resource + Serialize + Send + 'static,
    {
        let name = found.name_any();
        let removed = self.remove(&name);
        let Some(expressions) = found.expressions() else {
            return Ok(removed);
        };
        if self.all.len() >= MOST {
            return Err(TooMuch);
        }
        let version = found.resource_version();
        let before = before.and_then(|before| before.all.get(&name));
        if let Some(same) = before.filter(|before| version.is_some() && before.version == version) {
            self.all.insert(name, same.clone());
            return Ok(true);
        }
        let text = serde_json::to_string(&found).map_or(BYTES, |text| text.len());
        let bytes = text.saturating_add(TREE.saturating_mul(expressions));
        let bytes = u32::try_from(bytes).map_err(|_| TooMuch)?;
        let room = self.room.0.clone().try_acquire_many_owned(bytes);
        let room = room.map_err(|_| TooMuch)?;
        let _reading = READING.lock().await;
        // A large one takes a while to parse.
        let made = tokio::task::spawn_blocking(move || found.read()).await;
        let Ok(Some(made)) = made else {
            // What cannot be made must not count as what is not there.
            return made.map(|_| removed).map_err(|_| TooMuch);
        };
        let one = One {
            made: Arc::new(made),
            version,
            _room: Arc::new(room),
        };
        self.all.insert(name, one);
        Ok(true)
    }

    fn remove(&mut self, name: &str) -> bool {
        self.all.remove(name).is_some()
    }
}

fn not_served(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(why) | WatchStartFailed(why) | WatchFailed(why)) = error else {
        return false;
    };
    matches!(why, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy as Policy;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_is_admitted_before_the_first_list_nor_with_too_many() {
        let source = Source::<u8>::default();
        let soon = Instant::now() + Duration::from_secs(60);
        let began = Instant::now();
        assert_eq!(source.all(soon).await, Err(NotReady::Waiting));
        assert_eq!(began.elapsed(), PATIENCE);
        source.publish(State::TooMuch);
        assert_eq!(source.all(soon).await, Err(NotReady::TooMuch));
        source.publish_all([("a".to_owned(), Arc::new(1))].into());
        assert_eq!(source.all(soon).await.unwrap().len(), 1);
    }

    /// A cluster whose kube-apiservers are replaced one after the other does not lose them.
    #[tokio::test(start_paused = true)]
    async fn what_is_not_served_any_more_is_withdrawn_after_a_while() {
        let source = Source::<u8>::default();
        let soon = || Instant::now() + Duration::from_secs(5);
        let mut unserved = None;
        let unserve = |unserved: &mut Option<Instant>| source.without::<Policy>(unserved);
        unserve(&mut unserved);
        assert!(source.all(soon()).await.unwrap().is_empty() && unserved.is_none());
        for too_much in [false, true] {
            source.publish_all([("a".to_owned(), Arc::new(1))].into());
            if too_much {
                source.publish(State::TooMuch);
            }
            for _ in 0..12 {
                unserve(&mut unserved);
                let all = source.all(soon()).await;
                assert!(all.is_err() == too_much && all.is_ok_and(|it| it.len() == 1) != too_much);
                tokio::time::advance(UNSERVED).await;
            }
            unserve(&mut unserved);
            assert!(source.all(soon()).await.unwrap().is_empty());
            unserve(&mut unserved);
            assert_eq!(unserved, None);
        }
    }

    fn policy(name: &str, group: &str, validations: usize, length: usize) -> Policy {
        let rule = json!({"operations": ["*"], "apiGroups": [group], "apiVersions": ["*"], "resources": ["*"]});
        let one = json!({"expression": "!".repeat(length)});
        let policy = json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": vec![one; validations]}});
        serde_json::from_value(policy).unwrap()
    }

    /// Expressions take far more than their text, and are not made where they do not fit.
    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let room = Room::default();
        let taken = || BYTES - room.0.available_permits();
        let mut kept = Kept::new(&room);
        assert_eq!(kept.set(policy("small", "*", 1, 100), None).await, Ok(true));
        let before = taken();
        assert!(before > TREE * 100);
        let large = || policy("large", "*", 10, BYTES / TREE / 16);
        assert_eq!(kept.set(large(), None).await, Ok(true));
        assert_eq!(kept.set(large(), None).await, Ok(true), "in its own place");
        let other = policy("other", "apps", 100, 100_000);
        assert_eq!(kept.set(other, None).await, Ok(false));
        assert_eq!(kept.all.len(), 2);
        let more = || policy("more", "*", 7, BYTES / TREE / 16);
        assert_eq!(kept.set(more(), None).await, Err(TooMuch));
        // Those of another kind have the same room.
        let mut others = Kept::new(&room);
        assert_eq!(others.set(more(), None).await, Err(TooMuch));
        assert!(kept.remove("large"));
        assert_eq!(taken(), before);
        assert_eq!(others.set(more(), None).await, Ok(true));
        for n in 0..MOST {
            kept.all.insert(n.to_string(), kept.all["small"].clone());
        }
        assert_eq!(kept.set(policy("x", "*", 1, 1), None).await, Err(TooMuch));
    }

    /// A watch that lost its place lists all of them again: those that are as before take no
    /// more than before, and are not made again.
    #[tokio::test]
    async fn what_is_listed_again_is_kept_once() {
        let room = Room::default();
        let versioned = |version: &str| {
            let mut one = policy("one", "*", 9, BYTES / TREE / 16);
            one.metadata.resource_version = Some(version.to_owned());
            one
        };
        let mut kept = Kept::new(&room);
        assert_eq!(kept.set(versioned("1"), None).await, Ok(true));
        let before = room.0.available_permits();
        let mut listed = Kept::new(&room);
        assert_eq!(listed.set(versioned("1"), Some(&kept)).await, Ok(true));
        assert_eq!(room.0.available_permits(), before);
        assert!(Arc::ptr_eq(&listed.all["one"].made, &kept.all["one"].made));
        // One that has changed has room of its own.
        let mut changed = Kept::new(&room);
        assert_eq!(changed.set(versioned("2"), Some(&kept)).await, Err(TooMuch));
        drop((kept, listed));
        assert_eq!(changed.set(versioned("2"), None).await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_with_the_first_list() {
        let source = Source::<u8>::default();
        let soon = Instant::now() + Duration::from_secs(5);
        let listed = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            source.publish_all(BTreeMap::new());
        };
        let (all, ()) = tokio::join!(source.all(soon), listed);
        assert!(all.unwrap().is_empty());
    }
}
