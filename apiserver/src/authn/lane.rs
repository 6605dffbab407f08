//! A slow way for tokens from sources that have sent too many bad ones.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::identity::Rejected;

/// How many reviews are under way for sources that have sent too many tokens that were
/// not valid, how long a turn waits after one that proves nothing, and how many wait.
pub(crate) const LANE: usize = 4;
pub(super) const LANE_PACE: Duration = Duration::from_millis(100);
pub(crate) const LANE_WAITING: usize = 64;

/// The way of tokens that nobody knows from sources that have sent too many bad ones:
/// a few at a time, slowly, so that what they cost does not grow with how many come.
///
/// Each question is paid for before it is asked, by the time at which its turn is free again:
/// who asks may go away at any moment (its deadline, the reset of its stream), and must not
/// save the pace by that.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) turns: Semaphore,
    waiting: Semaphore,
    /// When the turns that nobody has are free again.
    free_at: Mutex<Vec<tokio::time::Instant>>,
}

/// A turn in the lane, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    lane: &'a Lane,
    free_at: tokio::time::Instant,
    _permit: SemaphorePermit<'a>,
}

impl Turn<'_> {
    /// Waits until the last question is paid for, and pays for the next one.
    async fn pay(&mut self) {
        tokio::time::sleep_until(self.free_at).await;
        self.free_at = tokio::time::Instant::now() + LANE_PACE;
    }

    /// The question cost nothing: the token was valid.
    pub(super) fn give_back(&mut self) {
        self.free_at = tokio::time::Instant::now();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // The permit goes after this: whoever gets it finds the time.
        self.lane.free_at.lock().push(self.free_at);
    }
}

impl Default for Lane {
    fn default() -> Self {
        Lane {
            turns: Semaphore::new(LANE),
            waiting: Semaphore::new(LANE_WAITING),
            free_at: Mutex::new(vec![tokio::time::Instant::now(); LANE]),
        }
    }
}

impl Lane {
    /// Waits for a turn that is paid for, which lasts until it is dropped.
    ///
    /// # Errors
    /// Too many are waiting already.
    pub(super) async fn enter(&self) -> Result<Turn<'_>, Rejected> {
        let waiting = self.waiting.try_acquire();
        let waiting = waiting.map_err(|_| Rejected::Source)?;
        let permit = self.turns.acquire().await;
        drop(waiting);
        let mut turn = Turn {
            lane: self,
            _permit: permit.map_err(|_| Rejected::Source)?,
            free_at: self.first_free(),
        };
        turn.pay().await;
        Ok(turn)
    }

    /// When the turn that is free first is free. Takes that time out.
    fn first_free(&self) -> tokio::time::Instant {
        let mut free_at = self.free_at.lock();
        let first = (0..free_at.len()).min_by_key(|&number| free_at[number]);
        first.map_or_else(tokio::time::Instant::now, |first| {
            free_at.swap_remove(first)
        })
    }
}
