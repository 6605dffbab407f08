//! Claims: a stream in an account of the administrator's own, with a message for each name
//! that is taken. A name is taken by the message that is the first of its subject, and given
//! back by deleting that very message: whoever is late does neither harm.
//!
//! Which names a tenant has is found by entries under its uid ([`index`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures::{StreamExt, TryStreamExt, stream};

use super::bucket::Bucket;
use super::connection::Kept;
use super::jetstream::JetStream;
use crate::tenancy::{Claim, Stage, TenancyError, too_fast};

mod index;
mod layout;
mod record;
mod standing;

pub use index::Entered;
use layout::{NAME, READERS, config, span};
pub use record::{Record, Stored};
use record::{read, subject_of_schema, subject_of_user};
pub use standing::{Names, Standing, otherwise};

/// Subjects of names that are taken. Both have a message for a claim that is whole.
const NAMES: [&str; 2] = ["claims.schema.>", "claims.user.>"];
/// How often a claim is tried that others change meanwhile.
const ATTEMPTS: usize = 5;

/// What became of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// The claim stands, and says so.
    Stands,
    /// The claim was changed meanwhile: what was given may not be what is due.
    Turned,
    /// There is no such claim.
    Gone,
}

/// The stream, by one connection.
pub struct Claims<'a> {
    client: Arc<Client>,
    kept: &'a Kept,
    deadline: Duration,
}

impl<'a> Claims<'a> {
    pub fn new(client: Arc<Client>, kept: &'a Kept, deadline: Duration) -> Self {
        Claims {
            client,
            kept,
            deadline,
        }
    }

    fn jetstream(&self) -> JetStream<'_> {
        JetStream::new(&self.client, self.deadline)
    }

    /// The stream, which is made if need be. One that is there has never fewer copies than
    /// before.
    pub async fn make(&self, replicas: usize) -> Result<(), TenancyError> {
        let jetstream = self.jetstream();
        let Some(stream) = self.kept.unless_silent(jetstream.stream(NAME).await)? else {
            let created = jetstream.create(&config(replicas)).await;
            return self.kept.unless_silent(created).map(drop);
        };
        let raised = jetstream.raise(&stream["config"], replicas).await;
        self.kept.unless_silent(raised).map(drop)
    }

    /// All claims, the oldest first.
    pub async fn all(&self) -> Result<Vec<Claim>, TenancyError> {
        let stream = self.jetstream().stream(NAME).await;
        let Some(stream) = self.kept.unless_silent(stream)? else {
            return Ok(Vec::new());
        };
        let (first, last) = span(&stream);
        self.between(first, last.saturating_add(1)).await
    }

    /// All claims whose messages are from one number up to before another, the oldest first.
    async fn between(&self, first: u64, end: u64) -> Result<Vec<Claim>, TenancyError> {
        // A request for each is what every server answers: many at a time, for a thousand
        // tenants are two thousand of them.
        let each = (end.saturating_sub(first) / READERS + 1).max(1);
        let parts = (first..end).step_by(usize::try_from(each).unwrap_or(usize::MAX));
        let parts: Vec<_> = parts
            .flat_map(|from| (0..NAMES.len()).map(move |of| (of, from)))
            .collect();
        let parts = stream::iter(parts)
            .map(|(of, from)| self.part(NAMES[of], from, from.saturating_add(each).min(end)));
        let parts = parts.buffered(usize::try_from(READERS).unwrap_or(1));
        let parts: Vec<Vec<Stored>> = parts.try_collect().await?;
        let mut found: BTreeMap<[String; 3], (u64, Claim)> = BTreeMap::new();
        for Stored { record, sequence } in parts.into_iter().flatten() {
            let claim = record.claim;
            let names = [&claim.uid, &claim.schema, &claim.user].map(Clone::clone);
            // A claim stands with each of its names.
            let (since, _) = found.entry(names).or_insert((sequence, claim));
            *since = sequence.min(*since);
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_by_key(|(since, _)| *since);
        Ok(found.into_iter().map(|(_, claim)| claim).collect())
    }

    /// What is stored of some subjects from one number up to before another.
    async fn part(&self, of: &str, from: u64, to: u64) -> Result<Vec<Stored>, TenancyError> {
        let (mut found, mut from) = (Vec::new(), from);
        while from < to {
            let next = self.jetstream().next(NAME, of, from).await;
            let Some(message) = self.kept.unless_silent(next)? else {
                break;
            };
            if message.sequence >= to {
                break;
            }
            from = message.sequence.saturating_add(1);
            found.push(read(&message)?);
        }
        Ok(found)
    }

    async fn at(&self, subject: &str) -> Result<Option<Stored>, TenancyError> {
        let last = self.jetstream().last(NAME, subject).await;
        let last = self.kept.unless_silent(last)?;
        last.as_ref().map(read).transpose()
    }

    /// What stands with both names.
    pub async fn names(&self, claim: &Claim) -> Result<Names, TenancyError> {
        let (of_schema, of_user) = (subject_of_schema(claim), subject_of_user(claim));
        let (schema, user) = futures::try_join!(self.at(&of_schema), self.at(&of_user))?;
        Ok(Names { schema, user })
    }

    /// How the claim stands.
    ///
    /// # Errors
    /// [`TenancyError::SchemaTaken`] if another uid holds a name.
    pub async fn standing(&self, claim: &Claim) -> Result<Standing, TenancyError> {
        self.names(claim).await?.standing(claim)
    }

    /// Takes both names, after their entry is there and before anything else. The stream is
    /// there.
    ///
    /// # Errors
    /// As [`Claims::standing`]; nothing is taken then that was not before.
    pub async fn take(&self, claim: &Claim) -> Result<(), TenancyError> {
        let entered = self.enter(claim).await?;
        let taken = self.take_names(claim).await;
        match &taken {
            // Whoever was refused the same names meanwhile may have removed it.
            Ok(()) => self.enter(claim).await.map(drop)?,
            Err(TenancyError::SchemaTaken { .. } | TenancyError::Refused(_)) => {
                self.leave(claim, entered).await?;
            }
            Err(_) => {}
        }
        taken
    }

    /// Deletes the entry that this call has written, unless it leads to a name.
    async fn leave(&self, claim: &Claim, entered: Option<u64>) -> Result<(), TenancyError> {
        match entered {
            Some(ours) if self.names(claim).await?.own(claim).is_none() => self.delete(ours).await,
            _ => Ok(()),
        }
    }

    async fn take_names(&self, claim: &Claim) -> Result<(), TenancyError> {
        for _ in 0..ATTEMPTS {
            let standing = self.standing(claim).await?;
            let (schema, user) = match standing {
                Standing::Otherwise(found) => return Err(TenancyError::Refused(otherwise(&found))),
                Standing::Absent => (None, None),
                Standing::Held { schema, user } => (schema, user),
            };
            let record = Record {
                claim: claim.clone(),
                made: None,
            };
            let mut ours = None;
            if schema.is_none() {
                let Some(at) = self.put(&subject_of_schema(claim), &record, 0).await? else {
                    continue;
                };
                ours = Some(at);
            }
            if user.is_some()
                || self
                    .put(&subject_of_user(claim), &record, 0)
                    .await?
                    .is_some()
            {
                return Ok(());
            }
            if let Some(at) = ours {
                self.delete(at).await?;
            }
        }
        Err(too_fast())
    }

    /// Notes when the bucket was made, and how many copies it has, unless that is noted, if the
    /// claim stands and is at the stage at which the caller took it for.
    pub async fn note(
        &self,
        claim: &Claim,
        bucket: Option<&Bucket>,
    ) -> Result<Noted, TenancyError> {
        let Standing::Held {
            schema: Some(stored),
            user: Some(_),
        } = self.standing(claim).await?
        else {
            return Ok(Noted::Gone);
        };
        if stored.record.claim.stage != claim.stage {
            return Ok(Noted::Turned);
        }
        let mut record = stored.record.clone();
        if let Some(bucket) = bucket {
            record.made = Some(bucket.made.clone());
            record.claim.replicas = Some(bucket.copies());
        }
        if record == stored.record {
            return Ok(Noted::Stands);
        }
        let subject = subject_of_schema(claim);
        let put = self.put(&subject, &record, stored.sequence).await?;
        Ok(put.map_or(Noted::Turned, |_| Noted::Stands))
    }

    /// Brings what is stored with a schema to a stage, if it is still that very message: what
    /// somebody else is about to write after the same one fails then, also if the stage is
    /// the same.
    pub async fn mark(&self, stored: &Stored, to: Stage) -> Result<Option<Claim>, TenancyError> {
        let mut record = stored.record.clone();
        if record.claim.stage != to && to == Stage::Incoming {
            // What was left is gone by then.
            record.made = None;
            record.claim.replicas = None;
        }
        record.claim.stage = to;
        let subject = subject_of_schema(&record.claim);
        let put = self.put(&subject, &record, stored.sequence).await?;
        Ok(put.map(|_| record.claim))
    }

    /// Gives back what the tenant has of the names.
    pub async fn give_back(&self, standing: &Standing) -> Result<(), TenancyError> {
        let Some(record) = standing.record() else {
            return Ok(());
        };
        if let Standing::Held { schema, user } = standing {
            // The schema last: as long as it stands, so does the claim.
            for stored in [user, schema].into_iter().flatten() {
                self.delete(stored.sequence).await?;
            }
        }
        // By it alone can what is left after an interruption be found.
        self.strike(&record.claim).await
    }

    /// Writes if the last message of the subject is the one with this number; 0 is none.
    async fn put(
        &self,
        subject: &str,
        record: &Record,
        last: u64,
    ) -> Result<Option<u64>, TenancyError> {
        let payload = serde_json::to_vec(record)
            .map_err(|e| TenancyError::Other(format!("write a claim: {e}")))?;
        let put = self.jetstream().append(NAME, subject, payload, last).await;
        self.kept.unless_silent(put)
    }

    async fn delete(&self, sequence: u64) -> Result<(), TenancyError> {
        let deleted = self.jetstream().delete_message(NAME, sequence).await;
        self.kept.unless_silent(deleted)
    }
}
