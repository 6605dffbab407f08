//! From one stage to another, and what may be read and written at each.

use super::{Server, Sql, Standing, otherwise};
use crate::tenancy::contents::Contents;
use crate::tenancy::{Claim, Password, Stage, TenancyError, not_to_be_turned, unclaimed};

impl<S: Server> Sql<S> {
    /// What is stored of this claim.
    async fn stored(&self, session: &mut S::Session, claim: &Claim) -> Result<Claim, TenancyError> {
        match self.standing(session, claim).await? {
            Standing::Held(stored) => Ok(stored),
            Standing::Otherwise(found) => Err(TenancyError::Refused(otherwise(&found))),
            Standing::Absent => Err(unclaimed(claim)),
        }
    }

    /// The lock on the schema is held.
    pub(super) async fn turn_under(
        &self,
        session: &mut S::Session,
        claim: &Claim,
        to: Stage,
        password: Option<&Password>,
    ) -> Result<Claim, TenancyError> {
        let stored = self.stored(session, claim).await?;
        let turned = stored.at(to);
        if stored.stage != to {
            if stored.stage != claim.stage || !stored.stage.may_become(to) {
                return Err(not_to_be_turned(claim, &stored, to));
            }
            if to == Stage::Incoming {
                // First, for what was left must never be taken for what comes.
                self.server.remove(session, &stored).await?;
            }
            self.server.mark(session, &stored, to).await?;
        }
        match to {
            Stage::Serving => {
                self.server.end_ours(session, &turned).await?;
                self.server.give(session, &turned, password).await?;
            }
            Stage::Incoming => {
                self.server.end_ours(session, &turned).await?;
                self.server.give(session, &turned, password).await?;
            }
            Stage::Frozen => self.server.freeze(session, &turned).await?,
            Stage::Left => self.server.shut_out(session, &turned).await?,
        }
        Ok(turned)
    }

    /// Who writes has a connection that is ended before the data serves: so it is opened
    /// before the claim is read for the last time.
    pub(super) async fn contents_under<'a>(
        &'a self,
        session: &mut S::Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError> {
        self.admit_contents(session, claim).await?;
        if claim.stage == Stage::Incoming {
            self.server.end_ours(session, claim).await?;
        }
        let stored = self.admit_contents(session, claim).await?;
        let opened = self.server.contents(session, &stored, password).await?;
        self.admit_contents(session, claim).await?;
        Ok(opened)
    }

    async fn admit_contents(
        &self,
        session: &mut S::Session,
        claim: &Claim,
    ) -> Result<Claim, TenancyError> {
        let stored = self.stored(session, claim).await?;
        match claim.stage_differs(&stored) {
            Some(why) => Err(TenancyError::Refused(why)),
            None if stored.stage == Stage::Left => Err(TenancyError::Refused(format!(
                "schema {:?} was left: nobody reads it",
                claim.schema
            ))),
            None => Ok(stored),
        }
    }
}
