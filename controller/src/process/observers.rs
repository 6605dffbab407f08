//! Tasks that find out what is slow or may hang. Each has its own deadline
//! and back-off and writes what it found into `facts.rs`; none
//! waits for another tenant.

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
