//! Who may look through history, and when.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::convert::database;
use super::files::READERS;
use crate::Error;
use crate::log::Turn;

/// How long a read waits for a free connection before it is refused.
pub(super) const QUEUE: Duration = Duration::from_secs(10);
/// Of the connections that read, those that may be looking through history.
pub(super) const HISTORIANS: usize = 2;
/// Of these, those that may be reading older states: watches go on beside them.
const LISTS: usize = 1;
/// One more is for who feeds a cache.
const FEEDERS: usize = 1;
// One is left for the present.
const _: () = assert!(LISTS < HISTORIANS && HISTORIANS + FEEDERS < READERS as usize);

/// Turns to look through history, which is long: few do at a time, and reads of now go
/// before.
pub(super) struct Turns {
    lists: Arc<Semaphore>,
    pub(super) shared: Arc<Semaphore>,
    feeders: Arc<Semaphore>,
    /// Where everybody who has a turn goes in, and there is room for all of them.
    gate: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let turns = |count| Arc::new(Semaphore::new(count));
        Turns {
            lists: turns(LISTS),
            shared: turns(HISTORIANS),
            feeders: turns(FEEDERS),
            gate: turns(HISTORIANS + FEEDERS),
        }
    }
}

impl Turns {
    /// Waits until these have one to give, one after the other.
    async fn wait(of: &[&Arc<Semaphore>]) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        let all = async {
            let mut turns = Vec::with_capacity(of.len());
            for turn in of {
                let turn = Arc::clone(turn).acquire_owned().await;
                turns.push(turn.map_err(|_| Error::Closed)?);
            }
            Ok(turns)
        };
        let turns = tokio::time::timeout(QUEUE, all).await;
        turns.map_err(|_| database(sqlx::Error::PoolTimedOut))?
    }

    /// To read an older state.
    pub(super) async fn list(&self, turn: Turn) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        match turn {
            Turn::Shared => Self::wait(&[&self.lists, &self.shared, &self.gate]).await,
            Turn::Feeder => Self::wait(&[&self.feeders, &self.gate]).await,
        }
    }

    /// To read changes.
    pub(super) async fn changes(&self, turn: Turn) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        match turn {
            Turn::Shared => Self::wait(&[&self.shared, &self.gate]).await,
            Turn::Feeder => Self::wait(&[&self.feeders, &self.gate]).await,
        }
    }

    /// Comes back when nobody looks through history any more. From now on nobody begins to,
    /// however many wait for a turn already.
    pub(super) fn quiet(&self) -> impl Future<Output = Quiet> + Send + use<> {
        let all = u32::try_from(HISTORIANS + FEEDERS).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.gate).acquire_many_owned(all).map(Quiet)
    }
}

/// Nobody looks through history while this is held.
pub(super) struct Quiet(
    #[expect(dead_code, reason = "held, and given back")]
    Result<OwnedSemaphorePermit, tokio::sync::AcquireError>,
);
