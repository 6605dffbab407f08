//! Who is asking (R1.19-R1.27).
//!
//! Order: the front proxy's headers, a client certificate, a bearer token, nobody.
//! The first that succeeds names the caller. Whoever presented something that does
//! not prove anything gets 401; anonymous is only who presented nothing.
//!
//! Flow: [`Authenticator::follow`] keeps the ConfigMap with the authorities loaded;
//! [`Authenticator::authenticate`] reads the newest state for each request.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apiservice::clock::Clock;
use apiservice::told;
use arc_swap::ArcSwapOption;
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, header};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::buckets::Buckets;
use crate::pool::Pool;
use crate::review_cache::ReviewCache;
use crate::reviews;
use crate::target::percent_decode;
use crate::trust::{Authority, RequestHeader, Trust};

const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";
const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";
/// Subject attribute that carries a user's uid.
const UID_ATTRIBUTE: &str = "1.3.6.1.4.1.57683.2";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
const TOKEN_LIFETIME: Duration = Duration::from_secs(10);
pub(crate) const TOKEN_CAPACITY: usize = 4096;
/// Tokens that were valid within this time are asked about again without being counted.
const GOOD_LIFETIME: Duration = Duration::from_secs(3600);
/// How many reviews are under way for sources that have sent too many tokens that were
/// not valid, how long a turn waits after one that proves nothing, and how many wait.
pub(crate) const LANE: usize = 4;
const LANE_PACE: Duration = Duration::from_millis(100);
pub(crate) const LANE_WAITING: usize = 64;
/// Requests that wait for reviews of tokens that were valid a while ago.
pub(crate) const WAITING: usize = 400;
/// A signature on a connection's certificate is checked again after this long.
const VERDICT_LIFETIME: Duration = Duration::from_secs(60);

/// Certificates of a chain, leaf first, and bytes of them that are looked at. Which of
/// them signed which is found by trying, before it is known whether anybody whom we trust
/// signed any: with many of one name that takes seconds.
const MAX_CHAIN: usize = 5;
pub(crate) const MAX_CHAIN_BYTES: usize = 16 * 1024;

/// A user, as Kubernetes describes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub user: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// By what a caller was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    FrontProxy,
    Certificate,
    Token,
    Nothing,
}

/// An authenticated request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub identity: Arc<Identity>,
    pub via: Via,
}

impl Caller {
    /// Whether the caller has an identity. A front proxy may name nobody, too.
    pub fn is_somebody(&self) -> bool {
        let nobody = |group: &String| group == UNAUTHENTICATED;
        self.via != Via::Nothing
            && self.identity.user != ANONYMOUS
            && !self.identity.groups.iter().any(nobody)
    }
}

/// Why a credential proves nothing. Logged; the caller only learns "Unauthorized".
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("front proxy certificate {0:?} is not one of the allowed names")]
    Name(String),
    #[error("header {0} is not valid UTF-8")]
    Header(String),
    #[error("the token is not valid: {0}")]
    Token(String),
    #[error("the token could not be reviewed: {0}")]
    Review(String),
    #[error("too many tokens from there were not valid")]
    Source,
    #[error("too many requests wait for the review of this token")]
    Waiting,
}

/// The other end of a connection: its certificates, leaf first.
#[derive(Debug, Default)]
pub struct Peer {
    chain: Vec<CertificateDer<'static>>,
    /// It presented more than is looked at, of which nothing is kept.
    excessive: bool,
    verdict: Mutex<Option<Arc<Verdict>>>,
    /// Where it connects from.
    source: Option<IpAddr>,
}

/// What is known of a peer's certificate. Checked once for all requests of a
/// connection, as long as trust is the same; its end is compared at each request.
#[derive(Debug)]
struct Verdict {
    trust: Arc<Trust>,
    at: tokio::time::Instant,
    /// Until when it holds: the end of what is valid. What is not stays so.
    until: Timestamp,
    common_name: String,
    /// The outcome with each authority; `None` where there is no such authority.
    front_proxy: Option<Result<(), String>>,
    client: Option<Result<Identity, String>>,
}

impl Peer {
    /// With what it presented in the handshake. What is too much proves nothing: it is
    /// answered as what nobody signed, and no alert, which would look like a broken line.
    pub fn new(chain: &[CertificateDer<'_>]) -> Self {
        let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
        let excessive = chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES;
        let chain = chain.iter().filter(|_| !excessive);
        Peer {
            chain: chain.map(|c| c.clone().into_owned()).collect(),
            excessive,
            ..Peer::default()
        }
    }

    /// Whether it presented more than is looked at.
    pub fn is_excessive(&self) -> bool {
        self.excessive
    }

    /// Where it connects from.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// The same peer, at this address.
    pub fn at(self, source: IpAddr) -> Self {
        Peer {
            source: Some(source),
            ..self
        }
    }
}

type Reviewed = Result<Arc<Identity>, String>;

/// Recognises callers.
pub struct Authenticator {
    client: Option<kube::Client>,
    trust: ArcSwapOption<Trust>,
    /// Told when trust has changed.
    news: Notify,
    tokens: ReviewCache<[u8; 32], Reviewed, String>,
    /// Tokens that were not valid, by where they came from.
    failures: Buckets,
    /// Digests of tokens that were valid, and when that was said last.
    good: Mutex<HashMap<[u8; 32], tokio::time::Instant>>,
    lane: Lane,
    /// Requests that neither count by their source nor wait in the lane, by token.
    waiting: Pool,
    clock: Clock,
}

impl Authenticator {
    /// An authenticator that has no ConfigMap yet: certificates prove nothing until
    /// [`Authenticator::follow`] has loaded it.
    pub fn new(client: Option<kube::Client>, clock: Clock) -> Arc<Self> {
        Arc::new(Authenticator {
            client,
            trust: ArcSwapOption::empty(),
            news: Notify::new(),
            tokens: ReviewCache::new(TOKEN_LIFETIME, TOKEN_CAPACITY),
            failures: Buckets::default(),
            good: Mutex::default(),
            lane: Lane::default(),
            waiting: Pool::places(WAITING),
            clock,
        })
    }

    /// Whether the ConfigMap was read, or is known to be absent.
    pub fn is_loaded(&self) -> bool {
        self.trust.load().is_some()
    }

    /// Takes over what the ConfigMap says. Open connections live on and are judged
    /// anew (R1.20).
    pub fn load(&self, data: &BTreeMap<String, String>) {
        let (trust, problems) = Trust::parse(data);
        for problem in problems {
            tracing::warn!(config_map = CONFIG_MAP, "{problem}");
        }
        let unchanged = self.trust.load().as_deref() == Some(&trust);
        if !unchanged {
            tracing::info!(
                front_proxy = trust.front_proxy.is_some(),
                client_certificates = trust.client.is_some(),
                "loaded the authorities of callers"
            );
            self.trust.store(Some(Arc::new(trust)));
            self.news.notify_waiters();
        }
    }

    /// Keeps the ConfigMap loaded, for ever. Without the right to read it nobody is
    /// recognised by certificate, readiness fails, and the log says which right.
    pub async fn follow(&self, client: kube::Client) {
        let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        let only = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
        let mut events = std::pin::pin!(watcher(api, only).default_backoff());
        let mut seen = false;
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => seen = false,
                Ok(Some(watcher::Event::InitApply(map) | watcher::Event::Apply(map))) => {
                    seen = true;
                    self.load(&map.data.unwrap_or_default());
                }
                // A cluster without the ConfigMap has tokens only. One that loses it
                // keeps what it said.
                Ok(Some(watcher::Event::InitDone)) if !seen && !self.is_loaded() => {
                    tracing::warn!(config_map = CONFIG_MAP, "not found: tokens only");
                    self.load(&BTreeMap::new());
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => tracing::warn!(
                    config_map = CONFIG_MAP,
                    error = reviews::describe(&error),
                    "cannot read it; the ServiceAccount needs the Role \
                     extension-apiserver-authentication-reader in kube-system"
                ),
            }
        }
    }

    /// Recognises the caller of one request, and removes from its headers what
    /// identifies it (R1.25).
    ///
    /// # Errors
    /// Why nothing that was presented is a proof; the answer is a bare 401.
    pub async fn authenticate(
        &self,
        peer: &Peer,
        headers: &mut HeaderMap,
    ) -> Result<Caller, Rejected> {
        let result = self.recognise(peer, headers).await;
        headers.remove(header::AUTHORIZATION);
        let trust = self.trust.load();
        if let Some(front) = trust.as_ref().and_then(|trust| trust.front_proxy.as_ref()) {
            strip(front, headers);
        }
        result
    }

    async fn recognise(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Rejected> {
        let mut rejected = None;
        if let Some(verdict) = self.verdict(peer) {
            match front_proxy(&verdict, headers) {
                Ok(Some(identity)) => return Ok(caller(identity, Via::FrontProxy)),
                Ok(None) => {}
                Err(error) => rejected = Some(error),
            }
            match &verdict.client {
                Some(Ok(identity)) => return Ok(caller(identity.clone(), Via::Certificate)),
                Some(Err(error)) => rejected = Some(Rejected::Certificate(error.clone())),
                None => {}
            }
        }
        if let Some(token) = bearer(headers) {
            match self.review(token, peer.source).await {
                Ok(identity) => {
                    return Ok(Caller {
                        identity,
                        via: Via::Token,
                    });
                }
                Err(error) => rejected = Some(error),
            }
        }
        match rejected {
            Some(error) => Err(error),
            None => Ok(caller(
                Identity {
                    user: ANONYMOUS.to_owned(),
                    uid: None,
                    groups: vec![UNAUTHENTICATED.to_owned()],
                    extra: BTreeMap::new(),
                },
                Via::Nothing,
            )),
        }
    }

    /// Whether the peer speaks for others: its connections are everybody's.
    pub fn is_front_proxy(&self, peer: &Peer) -> bool {
        self.verdict(peer)
            .is_some_and(|verdict| is_front_proxy(&verdict))
    }

    /// Comes back when the peer is no longer what it was taken for: the authorities were
    /// read or replaced after it connected, or its certificate has ended.
    pub async fn changes_sides(&self, peer: &Peer, front_proxy: bool) {
        loop {
            let news = self.news.notified();
            if self.is_front_proxy(peer) != front_proxy {
                return;
            }
            // Nobody tells of the end of a certificate.
            let _ = tokio::time::timeout(VERDICT_LIFETIME, news).await;
        }
    }

    /// What is known of the peer's certificate, if it has one and we know whom to trust.
    fn verdict(&self, peer: &Peer) -> Option<Arc<Verdict>> {
        let trust = self.trust.load_full()?;
        let leaf = peer.chain.first();
        if leaf.is_none() && !peer.excessive {
            return None;
        }
        let now = self.clock.now();
        let mut known = peer.verdict.lock();
        if let Some(verdict) = &*known
            && Arc::ptr_eq(&verdict.trust, &trust)
            && verdict.at.elapsed() < VERDICT_LIFETIME
            && now <= verdict.until
        {
            return Some(verdict.clone());
        }
        let described = leaf.ok_or_else(|| "the chain is too long".to_owned());
        let described = described.and_then(describe);
        let verify = |authority: &Authority| {
            let (identity, _) = described.as_ref().map_err(String::clone)?;
            authority.verify(&peer.chain, now)?;
            Ok(identity)
        };
        let client = |authority: &Authority| {
            let identity: &Identity = verify(authority)?;
            if identity.user.is_empty() {
                return Err("the subject has no common name".to_owned());
            }
            Ok(identity.clone())
        };
        let front_proxy = trust.front_proxy.as_ref();
        let front_proxy = front_proxy.map(|front| verify(&front.authority).map(|_| ()));
        let client = trust.client.as_ref().map(client);
        let (common_name, until) = match described {
            Ok((identity, not_after)) if now <= not_after => (identity.user, not_after),
            Ok((identity, _)) => (identity.user, Timestamp::MAX),
            Err(_) => (String::new(), Timestamp::MAX),
        };
        let verdict = Arc::new(Verdict {
            trust,
            at: tokio::time::Instant::now(),
            until,
            common_name,
            front_proxy,
            client,
        });
        *known = Some(verdict.clone());
        Some(verdict)
    }

    /// Whether this token was valid when it was last asked about, not long ago.
    fn is_good(&self, key: &[u8; 32]) -> bool {
        let good = self.good.lock();
        good.get(key).is_some_and(|at| at.elapsed() < GOOD_LIFETIME)
    }

    fn remember(&self, key: [u8; 32]) {
        let mut good = self.good.lock();
        if good.len() >= TOKEN_CAPACITY && !good.contains_key(&key) {
            good.retain(|_, at| at.elapsed() < GOOD_LIFETIME);
            if good.len() >= TOKEN_CAPACITY {
                // All young: let a quarter go, whichever, so that this stays rare.
                let mut position = 0;
                good.retain(|_, _| {
                    position += 1;
                    position > TOKEN_CAPACITY / 4
                });
            }
        }
        good.insert(key, tokio::time::Instant::now());
    }

    async fn review(&self, token: &str, source: Option<IpAddr>) -> Result<Arc<Identity>, Rejected> {
        let client = self
            .client
            .as_ref()
            .ok_or_else(|| Rejected::Review("no cluster to ask".to_owned()))?;
        // The memory holds digests: it must not be a list of credentials.
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.known(&key) {
            return known.map_err(Rejected::Token);
        }
        // Taken before the question, so that many at once count, and given back for an
        // answer: only what is not valid costs. What was valid does not count at all, and
        // what is new from a source that has no more is not refused: behind one address
        // there may be many. It waits its turn.
        let good = self.is_good(&key);
        let _waits = match good {
            true => {
                let place = self.waiting.enter(&hex::encode(key));
                Some(place.map_err(|_| Rejected::Waiting)?)
            }
            false => None,
        };
        let counted = source.filter(|_| !good);
        let mut lane = match counted {
            Some(source) if !self.failures.take(source) => Some(self.lane.enter().await?),
            _ => None,
        };
        let counted = counted.filter(|_| lane.is_none());
        let ask = || async {
            let review = TokenReview {
                spec: TokenReviewSpec {
                    token: token.to_owned(),
                    audiences: None,
                },
                ..TokenReview::default()
            };
            let status = reviews::ask(client, &review)
                .await?
                .status
                .unwrap_or_default();
            if !status.authenticated.unwrap_or_default() {
                let error = status.error.unwrap_or_default();
                return Ok(Err(told::cut(error, told::MAX_TEXT)));
            }
            let user = status.user.unwrap_or_default();
            Ok(Ok(Arc::new(complete(Identity {
                user: user.username.unwrap_or_default(),
                uid: user.uid.filter(|uid| !uid.is_empty()),
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            }))))
        };
        let reviewed = self.tokens.get(&key, ask).await;
        if let (Some(source), Ok(Ok(_)) | Err(_)) = (counted, &reviewed) {
            self.failures.give_back(source);
        }
        match &reviewed {
            Ok(Ok(_)) => self.remember(key),
            Ok(Err(_)) => {
                self.good.lock().remove(&key);
            }
            Err(_) => {}
        }
        if let (Some(turn), Ok(Ok(_))) = (&mut lane, &reviewed) {
            turn.give_back();
        }
        drop(lane);
        reviewed.map_err(Rejected::Review)?.map_err(Rejected::Token)
    }
}

/// The way of tokens that nobody knows from sources that have sent too many bad ones:
/// a few at a time, slowly, so that what they cost does not grow with how many come.
///
/// Each question is paid for before it is asked, by the time at which its turn is free again:
/// who asks may go away at any moment (its deadline, the reset of its stream), and must not
/// save the pace by that.
#[derive(Debug)]
struct Lane {
    turns: Semaphore,
    waiting: Semaphore,
    /// When the turns that nobody has are free again.
    free_at: Mutex<Vec<tokio::time::Instant>>,
}

/// A turn in the lane, until it is dropped.
#[derive(Debug)]
struct Turn<'a> {
    lane: &'a Lane,
    free_at: tokio::time::Instant,
    _permit: SemaphorePermit<'a>,
}

impl Turn<'_> {
    /// Waits until the last question is paid for, and pays for the next one.
    async fn pay(&mut self) {
        tokio::time::sleep_until(self.free_at).await;
        self.free_at = tokio::time::Instant::now() + LANE_PACE;
    }

    /// The question cost nothing: the token was valid.
    fn give_back(&mut self) {
        self.free_at = tokio::time::Instant::now();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // The permit goes after this: whoever gets it finds the time.
        self.lane.free_at.lock().push(self.free_at);
    }
}

impl Default for Lane {
    fn default() -> Self {
        Lane {
            turns: Semaphore::new(LANE),
            waiting: Semaphore::new(LANE_WAITING),
            free_at: Mutex::new(vec![tokio::time::Instant::now(); LANE]),
        }
    }
}

impl Lane {
    /// Waits for a turn that is paid for, which lasts until it is dropped.
    ///
    /// # Errors
    /// Too many are waiting already.
    async fn enter(&self) -> Result<Turn<'_>, Rejected> {
        let waiting = self.waiting.try_acquire();
        let waiting = waiting.map_err(|_| Rejected::Source)?;
        let permit = self.turns.acquire().await;
        drop(waiting);
        let mut turn = Turn {
            lane: self,
            _permit: permit.map_err(|_| Rejected::Source)?,
            free_at: self.first_free(),
        };
        turn.pay().await;
        Ok(turn)
    }

    /// When the turn that is free first is free. Takes that time out.
    fn first_free(&self) -> tokio::time::Instant {
        let mut free_at = self.free_at.lock();
        let first = (0..free_at.len()).min_by_key(|&number| free_at[number]);
        first.map_or_else(tokio::time::Instant::now, |first| {
            free_at.swap_remove(first)
        })
    }
}

fn caller(identity: Identity, via: Via) -> Caller {
    let identity = match via {
        Via::Nothing => identity,
        _ => complete(identity),
    };
    Caller {
        identity: Arc::new(identity),
        via,
    }
}

/// Adds `system:authenticated`, for request headers too (R1.23).
fn complete(mut identity: Identity) -> Identity {
    let known = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
    if !identity.groups.iter().any(known) {
        identity.groups.push(AUTHENTICATED.to_owned());
    }
    identity
}

/// Whether the peer's certificate is that of the front proxy.
fn is_front_proxy(verdict: &Verdict) -> bool {
    let names = verdict.trust.front_proxy.as_ref();
    matches!(verdict.front_proxy, Some(Ok(())))
        && names.is_some_and(|rules| {
            rules.allowed_names.is_empty() || rules.allowed_names.contains(&verdict.common_name)
        })
}

/// The user that the front proxy names, if this is the front proxy and it names one.
fn front_proxy(verdict: &Verdict, headers: &HeaderMap) -> Result<Option<Identity>, Rejected> {
    let Some(rules) = &verdict.trust.front_proxy else {
        return Ok(None);
    };
    match &verdict.front_proxy {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(Rejected::Certificate(error.clone())),
        None => return Ok(None),
    }
    if !rules.allowed_names.is_empty() && !rules.allowed_names.contains(&verdict.common_name) {
        return Err(Rejected::Name(verdict.common_name.clone()));
    }
    let Some(user) = first_value(headers, &rules.username)? else {
        return Ok(None);
    };
    let mut groups = Vec::new();
    for name in &rules.group {
        for value in headers.get_all(name) {
            groups.push(text(name, value)?);
        }
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let key = rules
            .extra_prefix
            .iter()
            .find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
        if let Some(key) = key {
            let values = extra.entry(extra_key(key)).or_default();
            values.push(text(name, value)?);
        }
    }
    Ok(Some(Identity {
        user,
        uid: first_value(headers, &rules.uid)?,
        groups,
        extra,
    }))
}

/// The key of an extra header: percent-decoded, or as it is if that fails (R1.24).
fn extra_key(encoded: &str) -> String {
    let valid = encoded
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if valid {
        percent_decode(encoded, false)
    } else {
        encoded.to_owned()
    }
}

fn first_value(headers: &HeaderMap, names: &[HeaderName]) -> Result<Option<String>, Rejected> {
    for name in names {
        if let Some(value) = headers.get(name).filter(|value| !value.is_empty()) {
            return text(name, value).map(Some);
        }
    }
    Ok(None)
}

/// Two users must never become one by replaced bytes, so that text is UTF-8 or refused.
fn text(name: &HeaderName, value: &http::HeaderValue) -> Result<String, Rejected> {
    std::str::from_utf8(value.as_bytes())
        .map(str::to_owned)
        .map_err(|_| Rejected::Header(name.to_string()))
}

fn strip(rules: &RequestHeader, headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            rules.username.contains(name)
                || rules.uid.contains(name)
                || rules.group.contains(name)
                || rules
                    .extra_prefix
                    .iter()
                    .any(|prefix| name.as_str().starts_with(prefix.as_str()))
        })
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whom a certificate names, and until when. Says nothing about who signed it.
fn describe(leaf: &CertificateDer<'_>) -> Result<(Identity, Timestamp), String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let subject = certificate.subject();
    let strings = |oid: &str| -> Vec<String> {
        subject
            .iter_attributes()
            .filter(|attribute| attribute.attr_type().to_id_string() == oid)
            .filter_map(|attribute| attribute.as_str().ok().map(str::to_owned))
            .collect()
    };
    // RFC 5280 writes 9999-12-31T23:59:59Z for what does not end, which is beyond the
    // last timestamp.
    let not_after = certificate.validity().not_after.timestamp();
    let last = Timestamp::MAX.as_second();
    let not_after =
        Timestamp::from_second(not_after.min(last)).map_err(|error| error.to_string())?;
    let digest = format!("X509SHA256={}", hex::encode(Sha256::digest(leaf)));
    let identity = Identity {
        // As Go: the last common name counts.
        user: strings("2.5.4.3").pop().unwrap_or_default(),
        uid: strings(UID_ATTRIBUTE).into_iter().next(),
        groups: strings("2.5.4.10"),
        extra: BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![digest])]),
    };
    Ok((identity, not_after))
}

#[cfg(test)]
pub(crate) mod tests;
