//! Tasks that find out what is slow or may hang. Each has its own deadline
//! and back-off and writes what it found into `facts.rs`; none
//! waits for another tenant.

use std::time::Duration;

use tokio::sync::Notify;

use crate::process::turns::Turns;

/// Probes under way at once; more wait, before their own deadline begins. Those of one
/// namespace have half of them: a probe of a tenant that does not answer takes three
/// seconds along each of two ways, so 500 such tenants would have nearly all.
pub static PROBES: Turns = Turns::new(512, 256);
/// Tenants that are looked into at once, and those of one namespace.
pub static VISITS: Turns = Turns::new(256, 128);
/// Tenants whose nodes' requests for certificates are read at a time, each with a few MiB in
/// memory, and those of one namespace.
pub static LOOKS: Turns = Turns::new(8, 4);
/// Answers of tenants, of 256 KiB at most, that are longer than usual and are read at once, and
/// those of one namespace.
pub static ANSWERS: Turns = Turns::new(64, 16);
/// Names of hosts at which tenants are reached that are looked up at once, and those of the
/// tenants of one namespace. Each takes a thread for as long as DNS is silent.
pub static LOOKUPS: Turns = Turns::new(256, 32);
/// Questions to datastores about tenants' rights under way at once, and those to one of
/// them: as large a share as of the workers.
pub static CHECKS: Turns = Turns::new(16, 4);
/// Tenants whose size is being measured, and those of one datastore: that reads all that they
/// have, and may take minutes.
pub static SIZES: Turns = Turns::new(8, 1);

/// Sleeps for so long or until woken.
pub async fn pause(wait: Duration, wake: &Notify) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = wake.notified() => {}
    }
}
