//! From one stage to another, and what may be read and written at each.
//!
//! The stage is in the message of the claim that is under the schema, and what it says is what
//! counts. It is written if that is still the message that was read, also where the stage stays
//! as it is: so of two who turn a claim one is late, and changes nothing.

use async_nats::Client;

use super::bucket::Bucket;
use super::claims::{Claims, Standing, otherwise};
use super::contents::Kept;
use super::jetstream::JetStream;
use super::server::Nats;
use super::{bucket, keys};
use crate::tenancy::{
    Claim, Data, Password, Stage, TenancyError, not_to_be_turned, too_fast, unclaimed,
};

/// What is stored of a claim that is whole.
fn stored<'a>(claim: &Claim, standing: &'a Standing) -> Result<&'a Claim, TenancyError> {
    match standing {
        Standing::Otherwise(found) => Err(TenancyError::Refused(otherwise(found))),
        Standing::Held {
            schema: Some(stored),
            user: Some(_),
        } => Ok(&stored.record.claim),
        _ => Err(unclaimed(claim)),
    }
}

impl Nats {
    /// See [`crate::tenancy::Tenancy::turn`].
    pub(super) async fn turn_to(
        &self,
        claim: &Claim,
        to: Stage,
        password: Option<&Password>,
    ) -> Result<Claim, TenancyError> {
        let Some(claims) = Nats::claims(self).await? else {
            return Err(unclaimed(claim));
        };
        let standing = claims.standing(claim).await?;
        let stored = stored(claim, &standing)?;
        let from = stored.stage;
        if from != to && (from != claim.stage || !from.may_become(to)) {
            return Err(not_to_be_turned(claim, stored, to));
        }
        let turned = match from == to && to != Stage::Incoming {
            true => stored.clone(),
            false => mark(&claims, &standing, to).await?,
        };
        match to {
            Stage::Frozen => self.set_and_mark(&turned).await?,
            Stage::Incoming => self.receive(&claims, &turned).await?,
            Stage::Serving if from == Stage::Incoming => self.set_and_mark(&turned).await?,
            Stage::Serving | Stage::Left => {}
        }
        let data = match from {
            Stage::Incoming => Data::New,
            _ => Data::Kept,
        };
        self.give(&claims, &turned, password, data).await?;
        // With the number of copies, which is noted with the bucket.
        let standing = claims.standing(claim).await?;
        Ok(self::stored(claim, &standing)?.at(to))
    }

    /// Gives the bucket the settings of its claim's stage, and a last message of ours. Frozen,
    /// it takes nothing of the tenant's any more, and the message comes after all that it has
    /// taken before. In service, kine takes a bucket with its own settings alone, and with a
    /// last message that can be read.
    async fn set_and_mark(&self, claim: &Claim) -> Result<(), TenancyError> {
        let client = self.enter_tenant(claim).await?;
        let jetstream = self.jetstream(&client);
        let Some(found) = bucket::find(&jetstream, claim).await? else {
            return Err(no_bucket(claim));
        };
        if found.differs(claim).is_some() {
            bucket::repair(&jetstream, claim, &found).await?;
        }
        bucket::mark(&jetstream, claim).await.map(drop)
    }

    /// Makes what writes to the bucket of before write to nothing, and deletes one that was
    /// left. It is known by having no place for writers, so that it is never taken for what
    /// comes, also by whoever goes on after an interruption.
    async fn receive(&self, claims: &Claims<'_>, claim: &Claim) -> Result<(), TenancyError> {
        let client = self.enter_tenant(claim).await?;
        let jetstream = self.jetstream(&client);
        let Some(found) = bucket::find(&jetstream, claim).await? else {
            return Ok(());
        };
        // Whoever was faster has made a place for its own writers.
        let standing = claims.standing(claim).await?;
        match (stored(claim, &standing)?.stage, found.place()) {
            (Stage::Incoming, Some(_)) => bucket::repair(&jetstream, claim, &found).await.map(drop),
            (Stage::Incoming, None) => delete_left(&jetstream, claim, &found).await,
            _ => Err(too_fast()),
        }
    }

    /// See [`crate::tenancy::Tenancy::contents`].
    pub(super) async fn open_contents(&self, claim: &Claim) -> Result<Kept, TenancyError> {
        let held = self.standing(claim).await?;
        let stored = stored(claim, &held)?;
        match claim.stage_differs(stored) {
            Some(why) => return Err(TenancyError::Refused(why)),
            None if stored.stage == Stage::Left => {
                return Err(TenancyError::Refused(format!(
                    "schema {:?} was left: nobody reads it",
                    claim.schema
                )));
            }
            None => {}
        }
        let client = self.enter_tenant(stored).await?;
        let place = self.place(&client, stored).await?;
        let (deadline, prefix) = (self.link.deadline, stored.prefix(true));
        Ok(Kept::new(client, deadline, &stored.schema, prefix, place))
    }

    /// Where a writer puts messages, if the bucket is to be written.
    async fn place(&self, client: &Client, claim: &Claim) -> Result<Option<String>, TenancyError> {
        if claim.stage != Stage::Incoming {
            return Ok(None);
        }
        let found = bucket::find(&self.jetstream(client), claim).await?;
        let place = found.as_ref().and_then(Bucket::place);
        match place {
            Some(place) => Ok(Some(place.to_owned())),
            None => Err(TenancyError::Refused(format!(
                "the bucket {:?} of account {} is not ready to be filled",
                claim.schema,
                keys::account_of(claim)
            ))),
        }
    }
}

/// Deletes the bucket that was left, if it is still the one that was found before the claim was
/// read: what serves has no place for writers either, but was made later.
///
/// JetStream deletes by name alone, with no condition. So what is left is the time of one
/// request: who sleeps between this answer and the next line for as long as somebody else takes
/// to fill the bucket and let it serve, deletes that.
async fn delete_left(
    jetstream: &JetStream<'_>,
    claim: &Claim,
    found: &Bucket,
) -> Result<(), TenancyError> {
    match bucket::find(jetstream, claim).await? {
        None => Ok(()),
        Some(now) if now.is_left_as(found) => jetstream.delete(&bucket::name(claim)).await,
        Some(_) => Err(too_fast()),
    }
}

/// Writes the stage, unless somebody else has.
async fn mark(claims: &Claims<'_>, standing: &Standing, to: Stage) -> Result<Claim, TenancyError> {
    let Standing::Held {
        schema: Some(stored),
        ..
    } = standing
    else {
        return Err(too_fast());
    };
    claims.mark(stored, to).await?.ok_or_else(too_fast)
}

fn no_bucket(claim: &Claim) -> TenancyError {
    TenancyError::DataLost(format!("the bucket {:?} does not exist", claim.schema))
}
