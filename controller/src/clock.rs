//! Time as a parameter: the one place of this crate that asks the system.

use std::sync::Arc;

use jiff::Timestamp;

/// What a function asks for the time of day. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        #[allow(clippy::disallowed_methods)] // the source behind every Clock
        Self(Arc::new(Timestamp::now))
    }

    /// A clock that a test turns by hand.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
