//! From one stage to another in etcd. The stage is part of the claim, which is replaced in a
//! transaction; rights follow it.

use etcd_client::Compare;

use super::claims::{self, Hold};
use super::database::Etcd;
use super::range::{after, span};
use crate::tenancy::{Claim, Stage, TenancyError, not_to_be_turned, too_fast, unclaimed};

/// How often a race for the claim is run again.
const ATTEMPTS: usize = 5;

/// Refuses a prefix that is not of the claim's own keys.
pub fn admit_prefix(claim: &Claim) -> Result<(), TenancyError> {
    let own = format!("/{}", claim.schema);
    match &claim.prefix {
        Some(prefix) if *prefix != own => Err(TenancyError::Refused(format!(
            "the keys of schema {:?} cannot begin with {prefix:?}: in etcd they begin with \
             {own:?}, which is all that the tenant's user has rights for",
            claim.schema
        ))),
        _ => Ok(()),
    }
}

/// Refuses contents of a claim that is not as it is said to be.
pub fn admit_contents(claim: &Claim, hold: Option<Hold>) -> Result<Hold, TenancyError> {
    let hold = hold.ok_or_else(|| unclaimed(claim))?;
    match claim.stage_differs(&hold.claim) {
        Some(why) => Err(TenancyError::Refused(why)),
        None if claim.stage == Stage::Left => Err(TenancyError::Refused(format!(
            "schema {:?} was left: nobody reads it",
            claim.schema
        ))),
        None => Ok(hold),
    }
}

impl Etcd {
    /// The claim, if it is held.
    ///
    /// # Errors
    /// [`TenancyError::Refused`] if it is at another stage.
    pub(super) async fn held_at_stage(&self, claim: &Claim) -> Result<Option<Hold>, TenancyError> {
        let hold = claims::hold(&self.link, claim).await?;
        match hold
            .as_ref()
            .and_then(|hold| claim.stage_differs(&hold.claim))
        {
            Some(why) => Err(TenancyError::Refused(why)),
            None => Ok(hold),
        }
    }

    /// Deletes all keys of the tenant, as long as the claims are unchanged; whether they were.
    pub(super) async fn delete_all(
        &self,
        claim: &Claim,
        unchanged: &[Compare],
    ) -> Result<bool, TenancyError> {
        let (from, to) = span(claim);
        loop {
            let page = self.page(from.clone(), &to, true).await?;
            let Some(last) = page.kvs().last() else {
                return Ok(true);
            };
            let end = after(last.key());
            if !claims::delete_under(&self.link, unchanged, &from, &end).await? {
                return Ok(false);
            }
        }
    }

    /// Nobody else of this process changes rights.
    pub(super) async fn turn_alone(&self, claim: &Claim, to: Stage) -> Result<Claim, TenancyError> {
        for _ in 0..ATTEMPTS {
            let hold = claims::hold(&self.link, claim).await?;
            let hold = hold.ok_or_else(|| unclaimed(claim))?;
            let stored = &hold.claim;
            let turned = stored.at(to);
            let again = stored.stage == to;
            // Who was late with what is incoming finds another claim than it had.
            if again
                && to == Stage::Incoming
                && !claims::rewrite(&self.link, &hold, &turned).await?
            {
                continue;
            }
            if !again {
                if stored.stage != claim.stage || !stored.stage.may_become(to) {
                    return Err(not_to_be_turned(claim, stored, to));
                }
                // First, for what was left must never be taken for what comes.
                if to == Stage::Incoming && !self.delete_all(stored, &hold.unchanged).await? {
                    continue;
                }
                if !claims::rewrite(&self.link, &hold, &turned).await? {
                    continue;
                }
            }
            self.settle_rights(&turned).await?;
            return Ok(turned);
        }
        Err(too_fast())
    }
}
