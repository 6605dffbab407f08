//! May they: SubjectAccessReviews, and the only maker of [`Permit`].
//!
//! Flow: [`Authorizer::authorize`] answers for every path, known or not (rule 1);
//! [`Authorized::permit`] then turns the answer into a `Permit<V>`, if the resource,
//! the subresource and the verb exist. The registry asks for that proof.
//!
//! Guarantees: without an answer from the cluster nothing is allowed. Both answers
//! are used for 10 s (R1.30); [`Authorizer::allowed_uncached`] asks anew.

mod permit;
mod question;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;

use crate::authn::Identity;
use crate::limits::Slot;
use crate::review_cache::ReviewCache;
use crate::reviews;
use crate::status::Failure;
use crate::target::{Target, Verb};
pub use permit::{Authorized, Permit, verb};
use question::Question;
pub use question::{Attributes, Decision, Reviewed};
pub use refusal::{forbidden, refused};

const LIFETIME: Duration = Duration::from_secs(10);
pub(crate) const CAPACITY: usize = 8192;
/// May do everything, without a question (R1.28).
const MASTERS: &str = "system:masters";
/// Open to all, so that probes need no credentials (R2.33).
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/livez"];

/// Asks the cluster, and remembers.
pub struct Authorizer {
    source: Source,
    /// By digests of the questions, which are as long as callers like.
    memo: ReviewCache<Question, Reviewed, Failure>,
}

enum Source {
    Cluster(kube::Client),
    #[cfg(test)]
    Test(Box<Judge>),
}

/// Decides in place of a cluster.
#[cfg(test)]
type Judge = dyn Fn(&Identity, &Attributes) -> Decision + Send + Sync;

impl Authorizer {
    /// An authorizer that asks the cluster behind `client`.
    pub fn new(client: kube::Client) -> Arc<Self> {
        Self::over(Source::Cluster(client))
    }

    fn over(source: Source) -> Arc<Self> {
        Arc::new(Authorizer {
            source,
            memo: ReviewCache::new(LIFETIME, CAPACITY),
        })
    }

    /// An authorizer that answers by itself.
    #[cfg(test)]
    pub(crate) fn for_test(
        decide: impl Fn(&Identity, &Attributes) -> Decision + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::over(Source::Test(Box::new(decide)))
    }

    /// Whether the caller may do what the target says. A `place` is taken while the cluster
    /// is asked, by this caller or another: what is known needs none. `heard` is told what the
    /// answer was.
    ///
    /// # Errors
    /// `Forbidden` if not; `Internal` when the cluster cannot be asked; that of `place`.
    pub async fn authorize(
        &self,
        identity: Arc<Identity>,
        target: Target,
        place: impl FnOnce() -> Result<Slot, Failure>,
        heard: impl FnOnce(&Result<Decision, Failure>),
    ) -> Result<Authorized, Failure> {
        let attributes = Attributes::of(&target);
        let decision = self.answer(&identity, &attributes, place).await;
        heard(&decision);
        match decision? {
            Decision::Allow { .. } => Ok(Authorized::new(identity, target)),
            Decision::Deny { reason } => Err(forbidden(&identity, &attributes, &reason)),
        }
    }

    /// What the cluster says of a question that is not about a request to this server, at most
    /// 10 s old: no path of it is open to all. Whoever asks waits, and has to see to it that
    /// not too many do.
    ///
    /// # Errors
    /// `Internal` when the cluster cannot be asked.
    pub async fn reviewed(
        &self,
        identity: &Identity,
        attributes: &Attributes,
    ) -> Result<Reviewed, Failure> {
        match is_master(identity) {
            true => Ok(Decision::allow().into()),
            false => self.remembered(identity, attributes, || Ok(None)).await,
        }
    }

    /// The answer to one question, at most 10 s old.
    ///
    /// # Errors
    /// `Internal` when the cluster cannot be asked.
    pub async fn allowed(
        &self,
        identity: &Identity,
        attributes: &Attributes,
    ) -> Result<Decision, Failure> {
        self.answer(identity, attributes, || Ok(None)).await
    }

    async fn answer(
        &self,
        identity: &Identity,
        attributes: &Attributes,
        place: impl FnOnce() -> Result<Slot, Failure>,
    ) -> Result<Decision, Failure> {
        if let Some(decision) = locally(identity, attributes) {
            return Ok(decision);
        }
        let reviewed = self.remembered(identity, attributes, place).await?;
        Ok(reviewed.decision)
    }

    async fn remembered(
        &self,
        identity: &Identity,
        attributes: &Attributes,
        place: impl FnOnce() -> Result<Slot, Failure>,
    ) -> Result<Reviewed, Failure> {
        let ask = || async {
            let answer = self.ask(identity, attributes).await;
            answer.map(Reviewed::short).map_err(Failure::Internal)
        };
        let question = question::question(identity, attributes);
        if let Some(known) = self.memo.known(&question) {
            return Ok(known);
        }
        // Also for who waits for the answer to another's question: nobody else counts them.
        let _place = place()?;
        self.memo.get(&question, ask).await
    }

    /// The answer of this moment, for what must not outlive a revocation.
    ///
    /// # Errors
    /// `Internal` when the cluster cannot be asked.
    pub async fn allowed_uncached(
        &self,
        identity: &Identity,
        attributes: &Attributes,
    ) -> Result<Decision, Failure> {
        match locally(identity, attributes) {
            Some(decision) => Ok(decision),
            None => {
                let reviewed = self.ask(identity, attributes).await;
                let reviewed = reviewed.map_err(Failure::Internal)?;
                Ok(reviewed.decision)
            }
        }
    }

    /// The right that a patch needs when it would create the object (R1.33).
    ///
    /// # Errors
    /// `Forbidden` if the caller may not create it.
    pub async fn also_create(
        &self,
        patch: &Permit<verb::Patch>,
    ) -> Result<Permit<verb::Create>, Failure> {
        let attributes = patch.attributes(Verb::Create);
        match self.allowed(patch.identity(), &attributes).await? {
            Decision::Allow { .. } => Ok(patch.to_create()),
            Decision::Deny { reason } => Err(forbidden(patch.identity(), &attributes, &reason)),
        }
    }

    async fn ask(&self, identity: &Identity, attributes: &Attributes) -> Result<Reviewed, String> {
        #[allow(
            clippy::infallible_destructuring_match,
            reason = "tests have a second source"
        )]
        let client = match &self.source {
            Source::Cluster(client) => client,
            #[cfg(test)]
            Source::Test(decide) => return Ok(decide(identity, attributes).into()),
        };
        let review = SubjectAccessReview {
            spec: attributes.review(identity),
            ..SubjectAccessReview::default()
        };
        let status = reviews::ask(client, &review)
            .await?
            .status
            .unwrap_or_default();
        let reason = status.reason.unwrap_or_default();
        let decision = match status.allowed && !status.denied.unwrap_or_default() {
            true => Decision::Allow { reason },
            false => Decision::Deny { reason },
        };
        Ok(Reviewed {
            decision,
            error: status.evaluation_error.unwrap_or_default(),
        })
    }
}

/// The answers that need no question (R1.28).
fn locally(identity: &Identity, attributes: &Attributes) -> Option<Decision> {
    let open = attributes
        .path
        .as_deref()
        .is_some_and(|path| OPEN_PATHS.contains(&path));
    (open || is_master(identity)).then(Decision::allow)
}

fn is_master(identity: &Identity) -> bool {
    identity.groups.iter().any(|group| group == MASTERS)
}

#[cfg(test)]
mod tests;
