//! Who is asking (R1.19-R1.27).
//!
//! Order: the front proxy's headers, a client certificate, a bearer token, nobody.
//! The first that succeeds names the caller. Whoever presented something that does
//! not prove anything gets 401; anonymous is only who presented nothing.
//!
//! Flow: [`Authenticator::follow`] keeps the ConfigMap with the authorities loaded;
//! [`Authenticator::authenticate`] reads the newest state for each request.

mod front_proxy;
mod identity;
mod lane;
mod peer;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use apiservice::clock::Clock;
use arc_swap::ArcSwapOption;
use futures::TryStreamExt;
use http::{HeaderMap, header};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::Notify;

use crate::reviews;
use crate::trust::Trust;
use crate::watched::Watched;
pub use identity::{Caller, Identity, Rejected, UNAUTHENTICATED, Via};
#[cfg(test)]
pub(crate) use lane::{LANE, LANE_WAITING};
#[cfg(test)]
pub(crate) use peer::MAX_CHAIN_BYTES;
pub use peer::Peer;
use peer::{VERDICT_LIFETIME, Verdict};
use tokens::Tokens;
#[cfg(test)]
pub(crate) use tokens::{TOKEN_CAPACITY, WAITING};

const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// Recognises callers.
pub struct Authenticator {
    trust: ArcSwapOption<Trust>,
    /// Told when trust has changed.
    news: Notify,
    tokens: Tokens,
    clock: Clock,
}

impl Authenticator {
    /// An authenticator that has no ConfigMap yet: certificates prove nothing until
    /// [`Authenticator::follow`] has loaded it.
    pub fn new(client: Option<kube::Client>, clock: Clock) -> Arc<Self> {
        Arc::new(Authenticator {
            trust: ArcSwapOption::empty(),
            news: Notify::new(),
            tokens: Tokens::new(client),
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
        let api: Api<Watched<ConfigMap>> = Api::namespaced(client, NAMESPACE);
        let only = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
        let mut events = std::pin::pin!(watcher(api, only).default_backoff());
        let mut seen = false;
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => seen = false,
                Ok(Some(
                    watcher::Event::InitApply(Watched(map)) | watcher::Event::Apply(Watched(map)),
                )) => {
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
            front_proxy::strip(front, headers);
        }
        result
    }

    async fn recognise(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Rejected> {
        let mut rejected = None;
        if let Some(verdict) = self.verdict(peer) {
            match front_proxy::identity(&verdict, headers) {
                Ok(Some(identity)) => return Ok(Caller::new(identity, Via::FrontProxy)),
                Ok(None) => {}
                Err(error) => rejected = Some(error),
            }
            match &verdict.client {
                Some(Ok(identity)) => return Ok(Caller::new(identity.clone(), Via::Certificate)),
                Some(Err(error)) => rejected = Some(Rejected::Certificate(error.clone())),
                None => {}
            }
        }
        if let Some(token) = bearer(headers) {
            match self.tokens.review(token, peer.source()).await {
                Ok(identity) => {
                    return Ok(Caller {
                        identity,
                        via: Via::Token,
                    });
                }
                Err(error) => rejected = Some(error),
            }
        }
        rejected.map_or_else(|| Ok(Caller::anonymous()), Err)
    }

    /// Whether the peer speaks for others: its connections are everybody's.
    pub fn is_front_proxy(&self, peer: &Peer) -> bool {
        self.verdict(peer)
            .is_some_and(|verdict| front_proxy::is_it(&verdict))
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
        peer.verdict(self.trust.load_full()?, self.clock.now())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
pub(crate) mod tests;
