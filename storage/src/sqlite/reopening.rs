//! When the writer tries again to open the database that it has lost, and what is said of it.
//!
//! It may stay away for hours, and each attempt may come from a write that somebody asked for:
//! so a line is for what is new, and for who reads the log only now.

use std::time::Duration;

use tokio::time::Instant;

/// How long after the connection was lost the database is opened anew.
const AGAIN: Duration = Duration::from_millis(200);
/// How often the pause is doubled. With the last one, 800 ms, a database that can be opened is
/// open within a second, for which those who read it wait.
const DOUBLINGS: u32 = 2;
/// Between two lines about a database that cannot be opened.
const QUIET: Duration = Duration::from_secs(60);

/// The attempts since the database was last open.
#[derive(Debug, Default)]
pub struct Reopening {
    failed: u32,
    /// When it was last said that it cannot be opened.
    told: Option<Instant>,
}

impl Reopening {
    /// How long to wait until the next attempt.
    pub fn pause(&self) -> Duration {
        AGAIN * (1 << self.failed.min(DOUBLINGS))
    }

    /// Whether no attempt has failed yet.
    pub fn is_first(&self) -> bool {
        self.failed == 0
    }

    /// An attempt has failed; whether to say so.
    pub fn failed(&mut self, now: Instant) -> bool {
        self.failed = self.failed.saturating_add(1);
        let due = self.told.is_none_or(|told| now - told >= QUIET);
        if due {
            self.told = Some(now);
        }
        due
    }

    /// The database is open; whether to say so, since the contrary was said.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(self).told.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments, in seconds from the first attempt, at which a line is written.
    fn told(attempts: u32) -> Vec<u64> {
        let (mut reopening, began) = (Reopening::default(), Instant::now());
        let (mut now, mut told) = (began, Vec::new());
        for _ in 0..attempts {
            now += reopening.pause();
            if reopening.failed(now) {
                told.push((now - began).as_secs());
            }
        }
        told
    }

    #[test]
    fn a_database_that_stays_away_is_told_once_a_minute() {
        assert_eq!(told(50), [0]);
        assert_eq!(told(200), [0, 60, 120]);
    }

    #[test]
    fn it_is_tried_less_often_but_within_a_second() {
        let mut reopening = Reopening::default();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pauses.push(reopening.pause().as_millis());
            let _ = reopening.failed(Instant::now());
        }
        assert_eq!(pauses[..4], [200, 400, 800, 800]);
        assert!(pauses.iter().all(|pause| *pause < 1_000));
        assert!(reopening.succeeded() && reopening.is_first());
        assert!(!reopening.succeeded(), "nothing was said to the contrary");
        assert_eq!(reopening.pause(), AGAIN);
        assert!(reopening.failed(Instant::now()), "it is new again");
    }
}
