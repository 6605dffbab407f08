//! Which names a tenant has, found by its uid: for each claim an entry, a message whose
//! subject is uid, schema and user. So a search costs what the tenant has, and not what all
//! tenants have.
//!
//! What counts are the messages of the names. An entry is written before them and deleted after
//! them, so that none of them can be there without it, whoever is interrupted where. One that
//! leads to nothing is left by who was interrupted between the two: it holds no name, and is
//! passed over.
//!
//! Streams of before have no entries. Whoever first searches in one adds those that are missing
//! and notes in the stream's metadata that it has. Whatever else claims names in this NATS has
//! to write entries from then on.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::sync::Mutex;

use super::Claims;
use super::layout::{NAME, NOTED, READERS, span};
use super::record::{Record, Stored};
use crate::tenancy::{Claim, TenancyError};

/// In how many steps entries are added that are missing. What was done of them counts, also
/// where the deadline of a request comes before the end.
const STEPS: u64 = 16;

/// How far it is known that claims have their entries.
#[derive(Default)]
pub struct Entered(Mutex<Progress>);

enum Progress {
    /// Claims whose messages have smaller numbers have them.
    Before(u64),
    /// All have, and will.
    All,
}

impl Default for Progress {
    fn default() -> Self {
        Progress::Before(0)
    }
}

fn of_uid(uid: &str) -> String {
    format!("claims.of.{}", hex::encode(uid))
}

fn subject(claim: &Claim) -> String {
    let names = [&claim.schema, &claim.user].map(hex::encode);
    format!("{}.{}", of_uid(&claim.uid), names.join("."))
}

impl Claims<'_> {
    /// The claims of this uid, the oldest first.
    pub async fn of(&self, uid: &str, entered: &Entered) -> Result<Vec<Claim>, TenancyError> {
        // No claim is without one, and no subject has an empty part.
        if uid.is_empty() {
            return Ok(Vec::new());
        }
        self.complete(entered).await?;
        let entries = format!("{}.>", of_uid(uid));
        let mut found = Vec::new();
        for entry in self.part(&entries, 1, u64::MAX).await? {
            let claim = entry.record.claim;
            let own = self.names(&claim).await?.own(&claim);
            found.extend(
                own.as_ref()
                    .and_then(|own| Some((own.since()?, own.record()?.claim.clone()))),
            );
        }
        found.sort_by_key(|(since, _)| *since);
        Ok(found.into_iter().map(|(_, claim)| claim).collect())
    }

    /// Writes the entry of a claim; its number, if there was none.
    pub(super) async fn enter(&self, claim: &Claim) -> Result<Option<u64>, TenancyError> {
        let record = Record {
            claim: claim.clone(),
            made: None,
        };
        self.put(&subject(claim), &record, 0).await
    }

    /// Deletes the entry of a claim whose names are given back.
    pub(super) async fn strike(&self, claim: &Claim) -> Result<(), TenancyError> {
        match self.at(&subject(claim)).await? {
            Some(Stored { sequence, .. }) => self.delete(sequence).await,
            None => Ok(()),
        }
    }

    /// Adds entries that are missing of claims that were made before there were any. One after
    /// the other: whoever waits goes on where the one before was interrupted.
    async fn complete(&self, entered: &Entered) -> Result<(), TenancyError> {
        let mut progress = entered.0.lock().await;
        let Progress::Before(done) = *progress else {
            return Ok(());
        };
        let stream = self.jetstream().stream(NAME).await;
        let Some(stream) = self.kept.unless_silent(stream)? else {
            return Ok(());
        };
        let mut config = stream["config"].clone();
        if config["metadata"][NOTED.0] == NOTED.1 {
            *progress = Progress::All;
            return Ok(());
        }
        let (first, last) = span(&stream);
        let (mut from, end) = (done.max(first), last.saturating_add(1));
        let each = (end.saturating_sub(from) / STEPS).max(READERS);
        while from < end {
            let to = from.saturating_add(each).min(end);
            let missing = self.between(from, to).await?;
            let entries =
                stream::iter(missing).map(|claim| async move { self.enter(&claim).await });
            let entries = entries.buffered(usize::try_from(READERS).unwrap_or(1));
            let _: Vec<_> = entries.try_collect().await?;
            *progress = Progress::Before(to);
            from = to;
        }
        config["metadata"][NOTED.0] = json!(NOTED.1);
        let noted = self.jetstream().update(&config).await;
        self.kept.unless_silent(noted)?;
        *progress = Progress::All;
        Ok(())
    }
}
