//! Bearer tokens: the cluster is asked whose each is, and what it says is remembered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apiservice::told;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::identity::{Identity, Rejected};
use super::lane::Lane;
use crate::buckets::Buckets;
use crate::pool::Pool;
use crate::review_cache::ReviewCache;
use crate::reviews;

const TOKEN_LIFETIME: Duration = Duration::from_secs(10);
pub(crate) const TOKEN_CAPACITY: usize = 4096;
/// Tokens that were valid within this time are asked about again without being counted.
const GOOD_LIFETIME: Duration = Duration::from_secs(3600);
/// Requests that wait for reviews of tokens that were valid a while ago.
pub(crate) const WAITING: usize = 400;
type Reviewed = Result<Arc<Identity>, String>;

/// Asks about tokens.
pub(super) struct Tokens {
    client: Option<kube::Client>,
    pub(super) answers: ReviewCache<[u8; 32], Reviewed, String>,
    /// Tokens that were not valid, by where they came from.
    pub(super) failures: Buckets,
    /// Digests of tokens that were valid, and when that was said last.
    pub(super) good: Mutex<HashMap<[u8; 32], tokio::time::Instant>>,
    pub(super) lane: Lane,
    /// Requests that neither count by their source nor wait in the lane, by token.
    waiting: Pool,
}

impl Tokens {
    pub(super) fn new(client: Option<kube::Client>) -> Self {
        Tokens {
            client,
            answers: ReviewCache::new(TOKEN_LIFETIME, TOKEN_CAPACITY),
            failures: Buckets::default(),
            good: Mutex::default(),
            lane: Lane::default(),
            waiting: Pool::places(WAITING),
        }
    }

    /// Whether this token was valid when it was last asked about, not long ago.
    fn is_good(&self, key: &[u8; 32]) -> bool {
        let good = self.good.lock();
        good.get(key).is_some_and(|at| at.elapsed() < GOOD_LIFETIME)
    }

    pub(super) fn remember(&self, key: [u8; 32]) {
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

    /// Whose token it is.
    ///
    /// # Errors
    /// It is not valid, cannot be asked about, or has to wait for too many others.
    pub(super) async fn review(
        &self,
        token: &str,
        source: Option<IpAddr>,
    ) -> Result<Arc<Identity>, Rejected> {
        let client = self
            .client
            .as_ref()
            .ok_or_else(|| Rejected::Review("no cluster to ask".to_owned()))?;
        // The memory holds digests: it must not be a list of credentials.
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.answers.known(&key) {
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
        let reviewed = self.answers.get(&key, || ask(client, token)).await;
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

/// Asks the cluster whose token it is.
async fn ask(client: &kube::Client, token: &str) -> Result<Reviewed, String> {
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
    let identity = Identity {
        user: user.username.unwrap_or_default(),
        uid: user.uid.filter(|uid| !uid.is_empty()),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    };
    Ok(Ok(Arc::new(identity.complete())))
}
