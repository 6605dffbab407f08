//! Time as a parameter: the one place of this crate that asks the system.

use std::{sync::Arc, time::Duration};

pub use apiservice::clock::Clock;
use jiff::Timestamp;

/// The machine's clock.
pub fn system() -> Clock {
    #[allow(clippy::disallowed_methods)] // the source behind every Clock
    Clock::new(Timestamp::now)
}

/// What a function asks for how long the machine has been up, the time that it slept
/// included: the clock behind [`tokio::time::Instant`] stands still meanwhile. Cheap to
/// clone.
#[derive(Clone)]
pub struct Uptime(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Uptime {
    /// The machine's.
    pub fn system() -> Self {
        Self(Arc::new(|| {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
            Duration::new(time.tv_sec.unsigned_abs(), nanoseconds)
        }))
    }

    /// A clock that a test turns by hand.
    pub fn from_fn(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// How long it has been up.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl std::fmt::Debug for Uptime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Uptime")
    }
}
