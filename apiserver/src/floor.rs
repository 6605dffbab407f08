//! Is this the store that the cluster's tenants belong to? (rule 4)
//!
//! The owners of all tenants' objects live in our storage. Were a fresh or an older
//! volume served, the garbage collector would find the owners gone and delete the
//! tenants. So the store's identity and a floor of its revision are mirrored in a
//! Secret of our namespace, and a store that is new, foreign or older is not served
//! until an administrator says so, by an annotation on that Secret.
//!
//! A first start is told from a lost record by the tenants: with no record, the store
//! is taken if no Deployment in the cluster is owned by one of our kinds. If that
//! cannot be asked, it is not taken.
//!
//! Flow: [`Floor::run`] reads the Secret, [`judge`] decides (pure), the outcome is
//! stored for [`Floor::ready`], which every resource request asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apiservice::names;
use arc_swap::ArcSwap;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use storage::{Revision, Store};
use tokio_util::sync::CancellationToken;

use crate::delegate;
use crate::metrics::Metrics;
use crate::status::Failure;

/// On the Secret: the identity of a store that is to be served though it does not
/// match the record. Used up by being read.
pub const ACCEPT: &str = "steward.butlerlabs.dev/accept-store";

const IDENTITY: &str = "identity";
const REVISION: &str = "revision";
/// A floor that cannot be read is the highest: nothing passes by mistake.
const UNREADABLE: u64 = u64::MAX;
const WAITING: Duration = Duration::from_secs(3);
const SERVING: Duration = Duration::from_secs(30);
/// Any one step: reading or writing the Secret, asking for tenants.
const STEP: Duration = Duration::from_secs(10);

/// What the Secret says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub identity: Option<String>,
    pub floor: u64,
    pub accepted: Option<String>,
}

/// Whether the cluster has objects that our kinds own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    None,
    /// `namespace/name` of one.
    Some(String),
    Unknown(String),
}

/// What to do with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one on record.
    Serve,
    /// Record it, after its revision was raised to `above`: clients have seen that.
    Adopt {
        above: u64,
    },
    Refuse(String),
}

/// Decides about the store `identity` at `revision`. `confirmed`: this process has
/// served it already, so that a deleted record is merely written again.
pub fn judge(
    record: &Record,
    identity: &str,
    revision: u64,
    confirmed: bool,
    tenants: impl FnOnce() -> Tenants,
) -> Verdict {
    // A floor that could not be read says nothing about what clients have seen.
    let above = if record.floor == UNREADABLE {
        0
    } else {
        record.floor
    };
    let adopt = Verdict::Adopt { above };
    match &record.identity {
        Some(known) if known == identity && revision >= record.floor => Verdict::Serve,
        _ if record.accepted.as_deref() == Some(identity) => adopt,
        Some(known) if known == identity => Verdict::Refuse(format!(
            "the store {identity} is an older copy: it is at revision {revision}, and has been at {}",
            record.floor
        )),
        Some(known) => Verdict::Refuse(format!(
            "the store {identity} is not the one on record, which is {known} at revision {}",
            record.floor
        )),
        None if confirmed => adopt,
        None => match tenants() {
            Tenants::None => adopt,
            Tenants::Some(example) => Verdict::Refuse(format!(
                "no store is on record, and the cluster has tenants (Deployment {example}) that \
                 the store {identity} may not know"
            )),
            Tenants::Unknown(why) => Verdict::Refuse(format!(
                "no store is on record, and whether the cluster has tenants cannot be told ({why})"
            )),
        },
    }
}

/// What requests are told.
enum State {
    Ready,
    NotReady(String),
}

/// The gate in front of storage.
pub struct Floor {
    api: Api<Secret>,
    client: kube::Client,
    namespace: String,
    secret: String,
    state: ArcSwap<State>,
    metrics: Arc<Metrics>,
}

/// Why a step of the gate failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the Secret: {}", delegate::describe(.0))]
    Secret(#[source] kube::Error),
    #[error("the store: {0}")]
    Store(#[from] storage::Error),
    #[error("no answer within {} s", STEP.as_secs())]
    Slow(#[from] tokio::time::error::Elapsed),
}

impl Floor {
    /// A closed gate.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        secret: &str,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Floor {
            api: Api::namespaced(client.clone(), namespace),
            client,
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            state: ArcSwap::from_pointee(State::NotReady("the store is being opened".to_owned())),
            metrics,
        })
    }

    /// Whether resource requests may be answered from the store.
    ///
    /// # Errors
    /// 503 with the reason and, where it helps, the command that confirms the store.
    pub fn ready(&self) -> Result<(), Failure> {
        match &**self.state.load() {
            State::Ready => Ok(()),
            State::NotReady(why) => Err(Failure::store_unavailable(why)),
        }
    }

    /// The answer while the store's owner has not handed it over yet.
    pub fn not_open(&self) -> Failure {
        Failure::store_unavailable("the store is being opened")
    }

    /// Says why there is no store.
    pub fn closed(&self, why: String) {
        self.state.store(Arc::new(State::NotReady(why)));
    }

    /// Waits until the store may be served. `false`: stopped before.
    pub async fn confirm(&self, store: &Store, stop: &CancellationToken) -> bool {
        loop {
            let confirmed = tokio::select! {
                confirmed = self.step(store, false) => confirmed,
                () = stop.cancelled() => return false,
            };
            if confirmed {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(WAITING) => {}
                () = stop.cancelled() => return false,
            }
        }
    }

    /// Keeps the record up to date, and the gate closed while it is another's.
    pub async fn run(&self, store: &Store, stop: CancellationToken) {
        let mut confirmed = true;
        loop {
            let pause = if confirmed { SERVING } else { WAITING };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            confirmed = self.step(store, true).await;
        }
    }

    /// Records the newest revision, at shutdown.
    pub async fn finish(&self, store: &Store) {
        if self.ready().is_ok() {
            self.step(store, true).await;
        }
    }

    /// One look at the record. Failures leave the gate as it is.
    async fn step(&self, store: &Store, served: bool) -> bool {
        let result = tokio::time::timeout(STEP, self.look(store, served)).await;
        match result.map_err(Error::from).and_then(|result| result) {
            Ok(Ok(())) => {
                if self.ready().is_err() {
                    tracing::info!(store = store.identity().id, "the store is served");
                }
                self.state.store(Arc::new(State::Ready));
                true
            }
            Ok(Err(why)) => {
                tracing::error!("{why}");
                self.closed(why);
                false
            }
            Err(error) => {
                tracing::warn!(%error, "cannot compare the store with its record");
                if self.ready().is_err() {
                    self.closed(format!("it is not compared with its record yet: {error}"));
                }
                self.ready().is_ok()
            }
        }
    }

    /// Reads the record and acts on it. The inner error is what an administrator has
    /// to decide.
    async fn look(&self, store: &Store, served: bool) -> Result<Result<(), String>, Error> {
        let identity = store.identity().id;
        let revision = store.revision().await?.0;
        let found = self
            .api
            .get_opt(&self.secret)
            .await
            .map_err(Error::Secret)?;
        let record = found.as_ref().map(parse).unwrap_or_default();
        let confirmed = served && self.ready().is_ok();
        let tenants = if record.identity.is_none() && !confirmed {
            self.tenants().await
        } else {
            Tenants::None
        };
        match judge(&record, &identity, revision, confirmed, || tenants) {
            Verdict::Serve => {
                if revision > record.floor || record.accepted.is_some() {
                    self.write(found, &identity, revision).await?;
                }
                self.metrics.floor(revision);
                Ok(Ok(()))
            }
            Verdict::Adopt { above } => {
                let revision = if above > revision {
                    store.advance(Revision(above)).await?.0
                } else {
                    revision
                };
                self.write(found, &identity, revision).await?;
                self.metrics.floor(revision);
                tracing::info!(store = identity, revision, "recorded the store");
                Ok(Ok(()))
            }
            Verdict::Refuse(why) => {
                if found.is_none() {
                    // So that the command below has something to annotate.
                    self.create(BTreeMap::new()).await?;
                }
                Ok(Err(format!(
                    "{why}; serving it would make the cluster delete what belongs to objects \
                     that it lacks. If it is the right one, confirm it: kubectl --namespace {} \
                     annotate --overwrite secret {} {ACCEPT}={identity}",
                    self.namespace, self.secret
                )))
            }
        }
    }

    async fn write(
        &self,
        found: Option<Secret>,
        identity: &str,
        revision: u64,
    ) -> Result<(), Error> {
        let data = BTreeMap::from([
            (
                IDENTITY.to_owned(),
                ByteString(identity.as_bytes().to_vec()),
            ),
            (
                REVISION.to_owned(),
                ByteString(revision.to_string().into_bytes()),
            ),
        ]);
        let Some(mut secret) = found else {
            return self.create(data).await;
        };
        secret.data = Some(data);
        if let Some(annotations) = &mut secret.metadata.annotations {
            annotations.remove(ACCEPT);
        }
        // Carries the resourceVersion that was read: another's write is never lost.
        self.api
            .replace(&self.secret, &PostParams::default(), &secret)
            .await
            .map(|_| ())
            .map_err(Error::Secret)
    }

    async fn create(&self, data: BTreeMap<String, ByteString>) -> Result<(), Error> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.secret.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        };
        self.api
            .create(&PostParams::default(), &secret)
            .await
            .map(|_| ())
            .map_err(Error::Secret)
    }

    /// Asks for one Deployment that one of our kinds owns. Only names and owners are
    /// transferred.
    async fn tenants(&self) -> Tenants {
        let api: Api<Deployment> = Api::all(self.client.clone());
        let selector = format!("{}={}", names::LABEL_PROJECT, names::PROJECT);
        let mut page = ListParams::default().labels(&selector).limit(500);
        loop {
            let list = match api.list_metadata(&page).await {
                Ok(list) => list,
                Err(error) => {
                    return Tenants::Unknown(format!(
                        "listing Deployments: {}",
                        delegate::describe(&error)
                    ));
                }
            };
            let owned = list.items.iter().find(|item| owned_by_us(&item.metadata));
            if let Some(item) = owned {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                return Tenants::Some(format!(
                    "{}/{}",
                    text(&item.metadata.namespace),
                    text(&item.metadata.name)
                ));
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Tenants::None,
            }
        }
    }
}

fn owned_by_us(metadata: &ObjectMeta) -> bool {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| {
        owner
            .api_version
            .split_once('/')
            .is_some_and(|(group, _)| group == apiservice::GROUP)
    })
}

fn parse(secret: &Secret) -> Record {
    let text = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        String::from_utf8(bytes.clone())
            .ok()
            .filter(|text| !text.is_empty())
    };
    let annotations = secret.metadata.annotations.as_ref();
    Record {
        identity: text(IDENTITY),
        floor: text(REVISION).map_or(0, |text| text.parse().unwrap_or(UNREADABLE)),
        accepted: annotations.and_then(|all| all.get(ACCEPT).cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(identity: &str, floor: u64, accepted: &str) -> Record {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Record {
            identity: some(identity),
            floor,
            accepted: some(accepted),
        }
    }

    fn tenants() -> Tenants {
        Tenants::Some("ns/t".to_owned())
    }

    fn refused(verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Refuse(why) => why,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn the_store_on_record_is_served() {
        for revision in [7, 8] {
            let verdict = judge(&record("a", 7, ""), "a", revision, false, tenants);
            assert_eq!(verdict, Verdict::Serve);
        }
    }

    #[test]
    fn new_foreign_and_older_stores_are_not() {
        let foreign = judge(&record("a", 7, ""), "b", 100, false, || Tenants::None);
        assert!(refused(&foreign).contains("not the one on record, which is a at revision 7"));
        let older = judge(&record("a", 7, ""), "a", 6, false, || Tenants::None);
        assert!(refused(&older).contains("it is at revision 6, and has been at 7"));
        let lost = judge(&record("", 0, ""), "a", 1, false, tenants);
        assert!(refused(&lost).contains("Deployment ns/t"));
        let blind = judge(&record("", 0, ""), "a", 1, false, || {
            Tenants::Unknown("forbidden".to_owned())
        });
        assert!(refused(&blind).contains("(forbidden)"));
    }

    /// A process that has served the store does not become foreign to it by a swap of
    /// the record, and a foreign record still closes the gate.
    #[test]
    fn a_deleted_record_is_written_again_and_a_foreign_one_is_not() {
        let rewritten = judge(&record("", 0, ""), "a", 9, true, tenants);
        assert_eq!(rewritten, Verdict::Adopt { above: 0 });
        refused(&judge(&record("b", 1, ""), "a", 9, true, tenants));
    }

    #[test]
    fn a_first_start_needs_nobody() {
        let verdict = judge(&record("", 0, ""), "a", 1, false, || Tenants::None);
        assert_eq!(verdict, Verdict::Adopt { above: 0 });
    }

    #[test]
    fn a_confirmation_is_for_one_store_and_keeps_revisions_growing() {
        let verdict = judge(&record("a", 7, "b"), "b", 1, false, tenants);
        assert_eq!(verdict, Verdict::Adopt { above: 7 });
        let verdict = judge(&record("a", 7, "a"), "a", 1, false, tenants);
        assert_eq!(verdict, Verdict::Adopt { above: 7 });
        refused(&judge(&record("a", 7, "b"), "c", 1, false, tenants));
    }

    #[test]
    fn an_unreadable_floor_lets_nothing_pass() {
        let secret = Secret {
            data: Some(BTreeMap::from([
                (IDENTITY.to_owned(), ByteString(b"a".to_vec())),
                (REVISION.to_owned(), ByteString(b"x".to_vec())),
            ])),
            ..Secret::default()
        };
        refused(&judge(&parse(&secret), "a", 9, false, tenants));
    }
}
