//! Whether a tenant in NATS has exactly what the stage of its claim gives it.

use super::account::{Found, Wanted};
use super::bucket::{self, Bucket};
use super::claims::Standing;
use super::lost::lost;
use super::server::Nats;
use super::{credentials, keys, system};
use crate::tenancy::{Access, Claim, Password, Stage, TenancyError};

impl Nats {
    /// The bucket as the tenant's user sees it, if it is let in.
    async fn seen(
        &self,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Option<Bucket>, TenancyError> {
        let client = match password {
            Some(password) => {
                let credentials = credentials(claim, password)?;
                self.link.enter(&credentials).await?
            }
            None => self.enter(&keys::account_of(claim)).await?,
        };
        bucket::find(&self.jetstream(&client), claim).await
    }

    pub(super) async fn access(
        &self,
        claim: &Claim,
        standing: &Standing,
        found: &Found,
        password: Option<&Password>,
    ) -> Result<Access, TenancyError> {
        if !claim.stage.lets_in() {
            return self.access_of_nobody(claim, standing, found).await;
        }
        let mut signers = found.signers();
        let is_due = signers.is_due(system::now());
        if let Some(password) = password {
            signers.current = Some(keys::tenants_signer(claim, password).public_key());
        }
        let wanted = Wanted::of_tenant(claim, &self.administrator.seed, &signers);
        let outdated = !wanted.is(found, &self.administrator.operator);
        if signers.current.is_none() || (outdated && !wanted.gives_the_same(found)) {
            return Ok(Access::Differs(format!(
                "account {} does not give exactly its rights to the tenant's user",
                wanted.account
            )));
        }
        let own = keys::administrators_signer(&self.administrator.seed, &wanted.account);
        if password.is_none() && !found.lets_in(&own) {
            // Nobody whose key is at hand is let in to look further.
            return Ok(Access::Outdated);
        }
        let bucket = match self.seen(claim, password).await {
            Err(TenancyError::Unauthenticated(why)) => {
                return Ok(Access::Differs(format!(
                    "user {:?} is not let in: {why}",
                    claim.user
                )));
            }
            other => other?,
        };
        if let Some(what) = lost(claim, standing, bucket.as_ref()) {
            return Ok(Access::Lost(what));
        }
        let is_noted = is_noted(standing, bucket.as_ref());
        Ok(match bucket.and_then(|it| it.differs(claim)) {
            Some(how) => Access::Differs(how),
            None if outdated || !is_noted => Access::Outdated,
            None if is_due => Access::Former,
            None => Access::Exact,
        })
    }

    /// The same where nobody is let in but the administrator.
    async fn access_of_nobody(
        &self,
        claim: &Claim,
        standing: &Standing,
        found: &Found,
    ) -> Result<Access, TenancyError> {
        let wanted = self.closed(claim);
        if !wanted.is(found, &self.administrator.operator) {
            return Ok(match wanted.gives_the_same(found) {
                true => Access::Outdated,
                false => Access::Differs(format!("account {} is not closed", wanted.account)),
            });
        }
        if claim.stage == Stage::Left {
            return Ok(Access::Exact);
        }
        let bucket = self.seen(claim, None).await?;
        if let Some(what) = lost(claim, standing, bucket.as_ref()) {
            return Ok(Access::Differs(what));
        }
        let is_noted = is_noted(standing, bucket.as_ref());
        Ok(match bucket.and_then(|it| it.differs(claim)) {
            Some(how) => Access::Differs(how),
            None if !is_noted => Access::Outdated,
            None => Access::Exact,
        })
    }
}

/// Whether the number of copies is, without which the tenant's own kine would not start.
fn is_noted(standing: &Standing, bucket: Option<&Bucket>) -> bool {
    let noted = standing.record().and_then(|record| record.claim.replicas);
    bucket.is_none_or(|bucket| noted == Some(bucket.copies()))
}
