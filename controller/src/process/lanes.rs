//! What bounds the connections to one tenant that are under way at a time.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::process::timing;

/// Some lanes, shared by all that have a copy.
#[derive(Clone, Debug)]
pub struct Lanes(Arc<Semaphore>);

impl Default for Lanes {
    fn default() -> Self {
        Self::of(timing::CONNECTIONS)
    }
}

impl Lanes {
    /// As many.
    pub fn of(number: usize) -> Self {
        Self(Arc::new(Semaphore::new(number)))
    }

    /// A lane, as soon as there is one.
    pub async fn wait(&self) -> Option<SemaphorePermit<'_>> {
        self.0.acquire().await.ok()
    }

    /// A lane, if one is free.
    pub fn free(&self) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire().ok()
    }
}
