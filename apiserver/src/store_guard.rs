//! Is this the store that the cluster's tenants belong to? (rule 4)
//!
//! The owners of all tenants' objects live in our storage. Were a fresh or an older
//! volume served, the garbage collector would find the owners gone and delete the
//! tenants. So the store's identity and a floor of its revision are mirrored in a
//! Secret of our namespace, and a store that is new, foreign or older is not served
//! until an administrator says so, by an annotation on that Secret.
//!
//! Revisions are reserved ahead: before a store is served, the Secret says up to which
//! revision it may write, and writes stop short of that until more are reserved. An
//! orderly end takes the reservation back to what was used. After any other end nobody
//! knows what clients have seen, so the store continues after everything that was
//! reserved, without history: every older resourceVersion gets 410, and clients list
//! anew. So it does after a store was confirmed.
//!
//! A first start is told from a lost record by the tenants: with no record, the store
//! is taken if no Deployment in the cluster is owned by one of our kinds. If that
//! cannot be asked, it is not taken. An installation that is limited to some namespaces
//! has the right to ask in these alone: it asks everywhere unless it is certain that it
//! may not.
//!
//! Flow: [`StoreGuard::run`] reads the Secret, [`judge`] decides (pure), the outcome is
//! stored for [`StoreGuard::ready`], which every resource request asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apiservice::names;
use arc_swap::ArcSwap;
use http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use storage::{Revision, Store};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::reviews;
use crate::status::Failure;

/// On the Secret: the identity of a store that is to be served though it does not
/// match the record. Used up by being read.
pub const ACCEPT: &str = "steward.butlerlabs.dev/accept-store";

const IDENTITY: &str = "identity";
const REVISION: &str = "revision";
const RESERVED: &str = "reserved";
/// How many revisions are reserved at a time: half an hour of more writes than a disk
/// syncs.
const AHEAD: u64 = 1_000_000;
/// Writes stop when no more than this many are left: more than are ever under way.
const MARGIN: u64 = 10_000;
/// A floor that cannot be read is the highest: nothing passes by mistake.
const UNREADABLE: u64 = u64::MAX;
const WAITING: Duration = Duration::from_secs(3);
const SERVING: Duration = Duration::from_secs(30);
/// Between attempts to close a record that somebody else wrote in between.
const AGAIN: Duration = Duration::from_millis(50);
/// Any one step: reading or writing the Secret, asking for tenants.
pub(crate) const STEP: Duration = Duration::from_secs(10);

/// What the Secret says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub identity: Option<String>,
    /// A revision that the store was seen at.
    pub floor: u64,
    /// The last revision that it may have used since; at least the floor, if both can be read.
    pub reserved: u64,
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
    /// It is the one on record. Of a store that was not closed in order, clients may
    /// have seen `above`: it continues after that.
    Serve {
        above: Option<u64>,
    },
    /// Record it as it is: nobody has seen another.
    Record,
    /// Record it, continuing after `above` and after all that it knows itself, without
    /// history: clients have seen another store, or another past of this one.
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
    // What could not be read says nothing about what clients have seen.
    let read = |number: u64| if number == UNREADABLE { 0 } else { number };
    let adopt = Verdict::Adopt {
        above: read(record.floor).max(read(record.reserved)),
    };
    match &record.identity {
        Some(known)
            if known == identity
                && revision >= record.floor
                && (confirmed || record.reserved != UNREADABLE) =>
        {
            Verdict::Serve {
                above: Some(read(record.reserved)).filter(|above| !confirmed && *above > revision),
            }
        }
        _ if record.accepted.as_deref() == Some(identity) => adopt,
        Some(known) if known == identity && revision >= record.floor => Verdict::Refuse(format!(
            "up to which revision the store {identity} was used cannot be read from its record"
        )),
        Some(known) if known == identity => Verdict::Refuse(format!(
            "the store {identity} is an older copy: it is at revision {revision}, and has been at {}",
            record.floor
        )),
        Some(known) => Verdict::Refuse(format!(
            "the store {identity} is not the one on record, which is {known} at revision {}",
            record.floor
        )),
        None if confirmed => Verdict::Record,
        None => match tenants() {
            Tenants::None => Verdict::Record,
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

/// For what the record is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Before the store is served.
    Open,
    /// While it is served.
    Keep,
    /// At its end, when nothing is written any more.
    Close,
}

/// What requests are told.
enum State {
    Ready,
    NotReady(String),
}

/// The gate in front of storage.
pub struct StoreGuard {
    api: Api<Secret>,
    client: kube::Client,
    namespace: String,
    secret: String,
    /// Where tenants may run; none: anywhere.
    tenants_in: Vec<String>,
    state: ArcSwap<State>,
    /// The last revision that writes may use.
    reserved: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Why a step of the gate failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the Secret: {}", reviews::describe(.0))]
    Secret(#[source] kube::Error),
    #[error("the store: {0}")]
    Store(#[from] storage::Error),
    #[error("no answer within {} s", STEP.as_secs())]
    Slow(#[from] tokio::time::error::Elapsed),
}

impl Error {
    /// Whether the Secret was written by somebody else since it was read.
    fn is_conflict(&self) -> bool {
        match self {
            Error::Secret(kube::Error::Api(status)) => status.code == StatusCode::CONFLICT,
            Error::Secret(_) | Error::Store(_) | Error::Slow(_) => false,
        }
    }
}

impl StoreGuard {
    /// A closed gate. `tenants_in` are the namespaces in which tenants may run; none:
    /// any.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        secret: &str,
        tenants_in: Vec<String>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(StoreGuard {
            api: Api::namespaced(client.clone(), namespace),
            client,
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            tenants_in,
            reserved: AtomicU64::new(0),
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

    /// Whether a store at `revision` may be written to.
    ///
    /// # Errors
    /// 503 while the revisions that were reserved are used up.
    pub fn writable(&self, revision: u64) -> Result<(), Failure> {
        if revision.saturating_add(MARGIN) < self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Failure::store_unavailable(
            "no revisions are reserved: the Secret of the store cannot be written",
        ))
    }

    /// The answer while the store's owner has not handed it over yet.
    pub fn not_open(&self) -> Failure {
        Failure::store_unavailable("the store is being opened")
    }

    #[cfg(test)]
    pub fn open_for_test(&self) {
        self.state.store(Arc::new(State::Ready));
    }

    /// Says why there is no store.
    pub fn closed(&self, why: String) {
        self.state.store(Arc::new(State::NotReady(why)));
    }

    /// Waits until the store may be served. `false`: stopped before.
    pub async fn confirm(&self, store: &Store, stop: &CancellationToken) -> bool {
        loop {
            let confirmed = tokio::select! {
                confirmed = self.step(store, Ask::Open) => confirmed,
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
            // Not awaited at the end: the last step reads the record anew, and again if what
            // this one has sent arrives in between.
            confirmed = tokio::select! {
                confirmed = self.step(store, Ask::Keep) => confirmed,
                () = stop.cancelled() => return,
            };
        }
    }

    /// Records the newest revision, at shutdown.
    pub async fn finish(&self, store: &Store) {
        if self.ready().is_ok() {
            self.step(store, Ask::Close).await;
        }
    }

    /// One look at the record. Failures leave the gate as it is.
    async fn step(&self, store: &Store, ask: Ask) -> bool {
        let looked = async {
            match ask {
                Ask::Open | Ask::Keep => self.look(store, ask).await,
                Ask::Close => self.close(store).await,
            }
        };
        let result = tokio::time::timeout(STEP, looked).await;
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

    /// The last look at the record, until nobody writes it in between: a step that was called
    /// off may have sent what arrives only now. Given up, the end would look like a crash, and
    /// all clients would list anew.
    async fn close(&self, store: &Store) -> Result<Result<(), String>, Error> {
        loop {
            match self.look(store, Ask::Close).await {
                Err(error) if error.is_conflict() => tokio::time::sleep(AGAIN).await,
                closed => return closed,
            }
        }
    }

    /// Reads the record and acts on it. The inner error is what an administrator has
    /// to decide.
    async fn look(&self, store: &Store, ask: Ask) -> Result<Result<(), String>, Error> {
        let identity = store.identity().id;
        let revision = store.revision().await?.0;
        let found = self
            .api
            .get_opt(&self.secret)
            .await
            .map_err(Error::Secret)?;
        let record = found.as_ref().map(parse).unwrap_or_default();
        let confirmed = ask != Ask::Open && self.ready().is_ok();
        let tenants = if record.identity.is_none() && !confirmed {
            self.tenants().await
        } else {
            Tenants::None
        };
        match judge(&record, &identity, revision, confirmed, || tenants) {
            Verdict::Serve { above } => {
                let revision = match above {
                    Some(above) => {
                        tracing::info!(
                            above,
                            "the server was not shut down in order: revisions are skipped, older resourceVersions get 410"
                        );
                        store.advance(Revision(above)).await?.0
                    }
                    None => revision,
                };
                let mine = self.reserved.load(Ordering::Acquire);
                let low = ask == Ask::Keep && mine < revision.saturating_add(AHEAD / 2);
                let stale = revision > record.floor || record.reserved < mine;
                if ask != Ask::Keep || low || stale || record.accepted.is_some() {
                    self.reserve(found, &identity, revision, ask).await?;
                }
                self.metrics.floor(revision);
                Ok(Ok(()))
            }
            Verdict::Record => {
                self.reserve(found, &identity, revision, ask).await?;
                self.metrics.floor(revision);
                tracing::info!(store = identity, revision, "recorded the store");
                Ok(Ok(()))
            }
            Verdict::Adopt { above } => {
                let above = Revision(above.max(revision).saturating_add(1));
                let revision = store.advance(above).await?.0;
                self.reserve(found, &identity, revision, ask).await?;
                self.metrics.floor(revision);
                tracing::info!(
                    store = identity,
                    revision,
                    "recorded the store that was confirmed"
                );
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

    /// Records where the store is, and up to where it may go. Nothing may be written
    /// beyond that before the record says so, nor below it after it says less.
    async fn reserve(
        &self,
        found: Option<Secret>,
        identity: &str,
        revision: u64,
        ask: Ask,
    ) -> Result<(), Error> {
        let reserved = match ask {
            Ask::Open | Ask::Keep => revision.saturating_add(AHEAD),
            Ask::Close => revision,
        };
        if ask == Ask::Close {
            self.reserved.store(reserved, Ordering::Release);
        }
        self.write(found, identity, revision, reserved).await?;
        self.reserved.store(reserved, Ordering::Release);
        Ok(())
    }

    async fn write(
        &self,
        found: Option<Secret>,
        identity: &str,
        revision: u64,
        reserved: u64,
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
            (
                RESERVED.to_owned(),
                ByteString(reserved.to_string().into_bytes()),
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
    /// transferred. Where tenants may run in some namespaces only, there may still be others
    /// elsewhere, of before: they are found if somebody has given the right to look.
    async fn tenants(&self) -> Tenants {
        let everywhere = match self.tenants_in.is_empty() {
            true => Ok(true),
            false => self.may_look_everywhere().await,
        };
        match everywhere {
            Ok(true) => return tenants(Api::all(self.client.clone())).await,
            Ok(false) => {}
            Err(why) => {
                return Tenants::Unknown(format!("asking where Deployments may be listed: {why}"));
            }
        }
        tracing::warn!(
            namespaces = self.tenants_in.join(","),
            "no store is on record; whether there are tenants is looked up in these namespaces \
             only, for there is no right to list Deployments in others"
        );
        for namespace in &self.tenants_in {
            let api = Api::namespaced(self.client.clone(), namespace);
            let found = tenants(api).await;
            if found != Tenants::None {
                return found;
            }
        }
        Tenants::None
    }
}

impl StoreGuard {
    /// Whether Deployments may be listed in all namespaces. Asked and not tried: a request
    /// that is refused looks like an attempt in the cluster's audit log.
    ///
    /// # Errors
    /// Why that is not certain. Who has the right must not be told of an empty cluster
    /// because a question was lost.
    async fn may_look_everywhere(&self) -> Result<bool, String> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("list".to_owned()),
                    group: Some("apps".to_owned()),
                    resource: Some("deployments".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) => match answer.status {
                Some(status) if status.allowed => Ok(true),
                Some(status) => match status.evaluation_error.filter(|error| !error.is_empty()) {
                    // An authorizer that might have allowed it did not answer.
                    Some(error) => Err(error),
                    None => Ok(false),
                },
                None => Err("the review has no status".to_owned()),
            },
            // Who may not even ask was given nothing.
            Err(kube::Error::Api(status)) if status.code == StatusCode::FORBIDDEN => Ok(false),
            Err(error) => Err(reviews::describe(&error)),
        }
    }
}

async fn tenants(api: Api<Deployment>) -> Tenants {
    let selector = format!("{}={}", names::LABEL_PROJECT, names::PROJECT);
    let mut page = ListParams::default().labels(&selector).limit(500);
    loop {
        let list = match api.list_metadata(&page).await {
            Ok(list) => list,
            Err(error) => {
                return Tenants::Unknown(format!(
                    "listing Deployments: {}",
                    reviews::describe(&error)
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
    let number = |key: &str| text(key).map(|text| text.parse().unwrap_or(UNREADABLE));
    let floor = number(REVISION).unwrap_or(0);
    Record {
        identity: text(IDENTITY),
        floor,
        // Servers of before did not reserve.
        reserved: match number(RESERVED) {
            Some(reserved) if floor != UNREADABLE => reserved.max(floor),
            Some(reserved) => reserved,
            None => floor,
        },
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
            reserved: floor,
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
            assert_eq!(verdict, Verdict::Serve { above: None });
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
        assert_eq!(rewritten, Verdict::Record);
        refused(&judge(&record("b", 1, ""), "a", 9, true, tenants));
    }

    #[test]
    fn a_first_start_needs_nobody() {
        let verdict = judge(&record("", 0, ""), "a", 1, false, || Tenants::None);
        assert_eq!(verdict, Verdict::Record);
    }

    #[test]
    fn a_confirmation_is_for_one_store_and_keeps_revisions_growing() {
        let verdict = judge(&record("a", 7, "b"), "b", 1, false, tenants);
        assert_eq!(verdict, Verdict::Adopt { above: 7 });
        let verdict = judge(&record("a", 7, "a"), "a", 1, false, tenants);
        assert_eq!(verdict, Verdict::Adopt { above: 7 });
        refused(&judge(&record("a", 7, "b"), "c", 1, false, tenants));
    }

    /// After a crash clients may have seen all that was reserved, and a copy of the
    /// store that is between the floor and that is not told from it: both continue after
    /// it, so that nobody takes up where this store has never been.
    #[test]
    fn a_store_that_was_not_closed_continues_after_what_was_reserved() {
        let crashed = Record {
            reserved: 1_000,
            ..record("a", 7, "")
        };
        let verdict = judge(&crashed, "a", 9, false, tenants);
        assert_eq!(verdict, Verdict::Serve { above: Some(1_000) });
        // While it is served, it is on its way there.
        let verdict = judge(&crashed, "a", 9, true, tenants);
        assert_eq!(verdict, Verdict::Serve { above: None });
        refused(&judge(&crashed, "a", 6, false, tenants));
        let confirmed = Record {
            accepted: Some("a".to_owned()),
            ..crashed
        };
        let verdict = judge(&confirmed, "a", 6, false, tenants);
        assert_eq!(verdict, Verdict::Adopt { above: 1_000 });
    }

    /// A cluster that holds one Secret, and no Deployments.
    fn cluster() -> (
        kube::Client,
        Arc<parking_lot::Mutex<Option<serde_json::Value>>>,
    ) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let secret = Arc::new(parking_lot::Mutex::new(None));
        let held = secret.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let held = held.clone();
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let body = request.into_body().collect_bytes().await.unwrap();
                let answer = if path.ends_with("/deployments") {
                    serde_json::json!({"metadata": {}, "items": []})
                } else if method == http::Method::GET {
                    held.lock().clone().unwrap_or_else(|| {
                        serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                            "status": "Failure", "message": "none", "reason": "NotFound", "code": 404})
                    })
                } else {
                    let secret: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    *held.lock() = Some(secret.clone());
                    secret
                };
                let code = if answer["code"] == 404 { 404 } else { 200 };
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                let mut response = http::Response::new(body);
                *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        (kube::Client::new(service, "default"), secret)
    }

    /// R9.8: a cluster that does not answer costs the end one step, which is the last.
    #[tokio::test(start_paused = true)]
    async fn a_step_under_way_does_not_hold_up_the_end() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            futures::future::pending::<
                Result<http::Response<kube::client::Body>, std::convert::Infallible>,
            >()
        });
        let client = kube::Client::new(silent, "default");
        let metrics = Arc::new(Metrics::new());
        let guard = StoreGuard::new(client, "ns", "s", Vec::new(), metrics);
        guard.open_for_test();
        let store = storage::memory::open();
        let stop = CancellationToken::new();
        let mut running = Box::pin(guard.run(&store, stop.clone()));
        // In the middle of a step.
        let soon = SERVING + Duration::from_secs(1);
        tokio::time::timeout(soon, &mut running).await.unwrap_err();
        let began = tokio::time::Instant::now();
        stop.cancel();
        running.await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        guard.finish(&store).await;
        assert_eq!(began.elapsed(), STEP);
    }

    /// A Secret that is written only by who has read it last. The first replacement arrives
    /// late: before the second one is looked at.
    #[derive(Default)]
    struct Late {
        secret: Option<serde_json::Value>,
        on_its_way: Option<serde_json::Value>,
        replaced: usize,
        version: usize,
    }

    impl Late {
        fn store(&mut self, mut secret: serde_json::Value) -> serde_json::Value {
            self.version += 1;
            secret["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.secret = Some(secret.clone());
            secret
        }

        fn failure(code: u16, reason: &str) -> serde_json::Value {
            serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "message": "no", "reason": reason, "code": code})
        }

        /// Nothing: it is on its way.
        fn answer(&mut self, method: &http::Method, body: &[u8]) -> Option<serde_json::Value> {
            if method == http::Method::GET {
                let secret = self.secret.clone();
                return Some(secret.unwrap_or_else(|| Self::failure(404, "NotFound")));
            }
            let sent: serde_json::Value = serde_json::from_slice(body).unwrap();
            if method == http::Method::POST {
                return Some(self.store(sent));
            }
            self.replaced += 1;
            if self.replaced == 1 {
                self.on_its_way = Some(sent);
                return None;
            }
            if let Some(late) = self.on_its_way.take() {
                self.store(late);
            }
            let version = self.version.to_string();
            match sent["metadata"]["resourceVersion"] == version.as_str() {
                true => Some(self.store(sent)),
                false => Some(Self::failure(409, "Conflict")),
            }
        }
    }

    /// A step that was called off has sent what arrives between the reading and the writing
    /// of the last one: the end is orderly nevertheless.
    #[tokio::test(start_paused = true)]
    async fn what_a_step_has_sent_does_not_spoil_the_end() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let late = Arc::new(parking_lot::Mutex::new(Late::default()));
        let held = late.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let held = held.clone();
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let body = request.into_body().collect_bytes().await.unwrap();
                let answer = match path.ends_with("/deployments") {
                    true => Some(serde_json::json!({"metadata": {}, "items": []})),
                    false => held.lock().answer(&method, &body),
                };
                let Some(answer) = answer else {
                    return futures::future::pending().await;
                };
                let code = answer["code"].as_u64().unwrap_or(200);
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                let mut response = http::Response::new(body);
                *response.status_mut() = StatusCode::from_u16(code as u16).unwrap();
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let client = kube::Client::new(service, "default");
        let guard = StoreGuard::new(client, "ns", "s", Vec::new(), Arc::new(Metrics::new()));
        let store = storage::memory::open();
        let stop = CancellationToken::new();
        assert!(guard.confirm(&store, &stop).await);
        let expect = storage::Expect::Absent;
        store.put("/a", "1".into(), expect).await.unwrap();
        let mut running = Box::pin(guard.run(&store, stop.clone()));
        let soon = SERVING + Duration::from_secs(1);
        tokio::time::timeout(soon, &mut running).await.unwrap_err();
        assert!(late.lock().on_its_way.is_some());
        stop.cancel();
        running.await;
        guard.finish(&store).await;
        let secret = late.lock().secret.clone().unwrap();
        let record = parse(&serde_json::from_value(secret).unwrap());
        let revision = store.revision().await.unwrap().0;
        assert_eq!((record.floor, record.reserved), (revision, revision));
    }

    #[tokio::test]
    async fn older_versions_are_gone_after_a_crash_and_after_a_confirmation() {
        use storage::{Error, Expect, memory};
        let (client, secret) = cluster();
        let floor = || {
            let metrics = Arc::new(Metrics::new());
            StoreGuard::new(client.clone(), "ns", "s", Vec::new(), metrics)
        };
        let stop = CancellationToken::new();
        let store = memory::open();

        let first = floor();
        first.writable(1).unwrap_err();
        assert!(first.confirm(&store, &stop).await);
        first.writable(1).unwrap();
        first.writable(AHEAD).unwrap_err();
        let seen = store.put("/a", "1".into(), Expect::Absent).await.unwrap();
        // In order: what clients have seen is good for the next process.
        first.finish(&store).await;
        first.writable(2).unwrap_err();
        let second = floor();
        assert!(second.confirm(&store, &stop).await);
        store.watch("/", seen.modified).await.unwrap();

        // Not in order: it is not.
        let third = floor();
        assert!(third.confirm(&store, &stop).await);
        let expired = store.watch("/", seen.modified).await.err();
        assert!(
            matches!(expired, Some(Error::Compacted { .. })),
            "{expired:?}"
        );
        let next = store.put("/b", "1".into(), Expect::Absent).await.unwrap();
        assert!(next.modified.0 > AHEAD);
        third.finish(&store).await;

        // A store of its own history that was confirmed, ahead of the record or not.
        let other = memory::open();
        let mut entry = other.put("/a", "1".into(), Expect::Absent).await.unwrap();
        let early = entry.modified;
        for ahead in [0, 3 * AHEAD] {
            other.advance(Revision(ahead)).await.unwrap();
            let expect = Expect::At(entry.modified);
            entry = other.put("/a", "2".into(), expect).await.unwrap();
            secret.lock().as_mut().unwrap()["metadata"]["annotations"] =
                serde_json::json!({ACCEPT: other.identity().id});
            if ahead > 0 {
                let foreign = serde_json::json!("Zm9yZWlnbg==");
                secret.lock().as_mut().unwrap()["data"]["identity"] = foreign;
            }
            let fourth = floor();
            assert!(fourth.confirm(&other, &stop).await);
            for version in [early, entry.modified, next.modified] {
                let expired = other.watch("/", version).await.err();
                assert!(
                    matches!(expired, Some(Error::Compacted { .. })),
                    "{version} {expired:?}"
                );
            }
            fourth.finish(&other).await;
        }
    }

    /// A new store without a record, tenants that stand in no namespace of the list, and a
    /// cluster in which one may look there or not.
    #[tokio::test]
    async fn tenants_outside_of_the_list_are_found_where_one_may_look() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        for may in [true, false] {
            let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
            let paths = asked.clone();
            let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let path = request.uri().path().to_owned();
                paths.lock().push(path.clone());
                let answer = match path.as_str() {
                    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
                        serde_json::json!({"spec": {}, "status": {"allowed": may}})
                    }
                    "/apis/apps/v1/deployments" => serde_json::json!({
                        "metadata": {},
                        "items": [{"metadata": {
                            "name": "t", "namespace": "elsewhere",
                            "ownerReferences": [{
                                "apiVersion": format!("{}/v1alpha1", apiservice::GROUP),
                                "kind": "TenantControlPlane", "name": "t", "uid": "u",
                            }],
                        }}],
                    }),
                    _ => serde_json::json!({"metadata": {}, "items": []}),
                };
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                async move { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
            });
            let client = kube::Client::new(service, "default");
            let list = vec!["a".to_owned(), "b".to_owned()];
            let floor = StoreGuard::new(client, "ns", "s", list, Arc::new(Metrics::new()));
            let found = floor.tenants().await;
            let asked = asked.lock().clone();
            match may {
                true => assert_eq!(found, Tenants::Some("elsewhere/t".to_owned())),
                false => {
                    assert_eq!(found, Tenants::None);
                    // Nothing is tried that would be refused.
                    let everywhere = |path: &String| path == "/apis/apps/v1/deployments";
                    assert!(!asked.iter().any(everywhere), "{asked:?}");
                    assert_eq!(asked.len(), 3, "{asked:?}");
                }
            }
        }
    }

    /// The same, where whether one may look is not told.
    #[tokio::test]
    async fn a_question_that_is_lost_opens_no_empty_store() {
        use serde_json::json;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let failure = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "" };
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": "no", "reason": reason, "code": code})
        };
        let review = |status: serde_json::Value| json!({"spec": {}, "status": status});
        let lost = serde_json::Value::Null;
        let evaluated = json!({"allowed": false, "evaluationError": "the webhook is down"});
        for (answer, opens) in [
            (failure(500), false),
            (failure(429), false),
            (failure(401), false),
            (lost, false),
            (json!({"spec": {}}), false),
            (review(evaluated), false),
            (failure(403), true),
            (
                review(json!({"allowed": false, "evaluationError": ""})),
                true,
            ),
        ] {
            let secrets = Arc::new(parking_lot::Mutex::new(Vec::new()));
            // What is asked after the first time is answered.
            let answers = Arc::new(parking_lot::Mutex::new(Some(answer.clone())));
            let (written, asked) = (secrets.clone(), answers.clone());
            let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let (written, asked) = (written.clone(), asked.clone());
                async move {
                    let (method, path) =
                        (request.method().clone(), request.uri().path().to_owned());
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let none = json!({"metadata": {}, "items": []});
                    let answer = match path.as_str() {
                        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
                            match asked.lock().take() {
                                Some(serde_json::Value::Null) => {
                                    return Err(std::io::Error::other("reset"));
                                }
                                Some(answer) => answer,
                                None => review(json!({"allowed": true})),
                            }
                        }
                        "/apis/apps/v1/deployments" => {
                            json!({"metadata": {}, "items": [{"metadata": {
                                "name": "t", "namespace": "elsewhere",
                                "ownerReferences": [{
                                    "apiVersion": format!("{}/v1alpha1", apiservice::GROUP),
                                    "kind": "TenantControlPlane", "name": "t", "uid": "u",
                                }],
                            }}]})
                        }
                        path if path.ends_with("/deployments") => none,
                        _ if method == http::Method::GET => failure(404),
                        _ => {
                            let secret: serde_json::Value = serde_json::from_slice(&body).unwrap();
                            written.lock().push(secret.clone());
                            secret
                        }
                    };
                    let code = answer["code"].as_u64().unwrap_or(200);
                    let body = kube::client::Body::from(answer.to_string().into_bytes());
                    let mut response = http::Response::new(body);
                    *response.status_mut() = StatusCode::from_u16(code as u16).unwrap();
                    Ok(response)
                }
            });
            let client = kube::Client::new(service, "default");
            let list = vec!["a".to_owned()];
            let floor = StoreGuard::new(client, "ns", "s", list, Arc::new(Metrics::new()));
            let store = storage::memory::open();
            assert_eq!(floor.step(&store, Ask::Open).await, opens, "{answer}");
            let identity = |secret: &serde_json::Value| secret["data"][IDENTITY].is_string();
            let recorded = || secrets.lock().iter().any(identity);
            assert_eq!(
                (floor.ready().is_ok(), recorded()),
                (opens, opens),
                "{answer}"
            );
            if !opens {
                // It is asked again, and then the tenants are found.
                assert!(!floor.step(&store, Ask::Open).await);
                let why = format!("{:?}", floor.ready().unwrap_err());
                assert!(why.contains("elsewhere/t") && !recorded(), "{why}");
            }
        }
    }

    /// What can be read of it counts once an administrator has confirmed the store.
    #[test]
    fn an_unreadable_record_lets_nothing_pass() {
        let of = |revision: &str, reserved: Option<&str>| {
            let mut data = BTreeMap::from([
                (IDENTITY.to_owned(), ByteString(b"a".to_vec())),
                (REVISION.to_owned(), ByteString(revision.into())),
            ]);
            let reserved = reserved.map(|it| (RESERVED.to_owned(), ByteString(it.into())));
            data.extend(reserved);
            parse(&Secret {
                data: Some(data),
                ..Secret::default()
            })
        };
        for (record, known) in [
            (of("x", None), 0),
            (of("7", Some("x")), 7),
            (of("x", Some("1000000")), 1_000_000),
        ] {
            refused(&judge(&record, "a", 9, false, tenants));
            let confirmed = Record {
                accepted: Some("a".to_owned()),
                ..record
            };
            let verdict = judge(&confirmed, "a", 9, false, tenants);
            assert_eq!(verdict, Verdict::Adopt { above: known });
        }
    }
}
