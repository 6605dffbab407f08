//! Tasks that find out what is slow or may hang. Each has its own deadline
//! and back-off and writes what it found into [`crate::facts::Facts`]; none
//! waits for another tenant.

pub mod access;
pub mod exercise;
mod first_start;
pub mod probe;
pub mod store;

use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

/// Probes under way at once; more wait, within their own deadline.
pub static PROBES: Semaphore = Semaphore::const_new(512);
/// Access checks under way at once.
pub static CHECKS: Semaphore = Semaphore::const_new(16);

/// Sleeps for so long or until woken.
pub async fn pause(wait: Duration, wake: &Notify) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = wake.notified() => {}
    }
}
