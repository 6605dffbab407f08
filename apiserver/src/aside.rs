//! Work that takes long, beside the workers that serve requests.
//!
//! # Guarantees
//! * Nobody keeps others from it: of one caller a piece of work is done at a time, and
//!   callers take turns.
//! * Whoever waits for a place has nothing in hand that is not counted: what the work makes
//!   is there from its beginning on, in [`AT_ONCE`] places of a kind at most. So work that
//!   builds on what other work made is one piece with it.

use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::turns::Turns;

/// Pieces of work of one kind at a time at most, however large the machine is.
pub(crate) const AT_ONCE: usize = 4;
/// Bytes of documents that take no longer than it would take to wait for a place.
const SHORT: usize = 32 * 1024;
/// From so many callers on, those that have no work are forgotten.
const CALLERS: usize = 64;

/// Places for work of one kind: each takes a processor.
pub struct Places {
    places: LazyLock<Semaphore>,
    turns: LazyLock<Turns<String>>,
}

impl Places {
    /// As many as there are processors, four at most.
    pub const fn new() -> Self {
        Places {
            places: LazyLock::new(|| {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                Semaphore::new(processors.min(AT_ONCE))
            }),
            turns: LazyLock::new(Turns::default),
        }
    }

    /// Does a caller's work, which may take long, while other tasks of this worker go on
    /// elsewhere.
    pub async fn run<T>(&self, caller: &str, work: impl FnOnce() -> T) -> T {
        // Who waits for a turn is in no queue that others are in.
        let turn = self.turns.of(caller.to_owned(), CALLERS);
        let _turn = turn.lock().await;
        // The semaphore is never closed.
        let _place = self.places.acquire().await.ok();
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
            // There is no other worker.
            _ => work(),
        }
    }

    /// As [`Places::run`]; nothing if it cannot begin in time.
    pub async fn run_by<T>(
        &self,
        until: Instant,
        caller: &str,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let done = tokio::time::timeout_at(until, self.run(caller, work));
        done.await.ok()
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

/// For reading, changing and comparing documents.
static DOCUMENTS: Places = Places::new();

/// Works on a caller's documents whose length does not tell how long that takes.
pub async fn long<T>(caller: &str, work: impl FnOnce() -> T) -> T {
    DOCUMENTS.run(caller, work).await
}

/// Works on a caller's documents of so many bytes; on short ones where it stands.
pub async fn documents<T>(caller: &str, bytes: usize, work: impl FnOnce() -> T) -> T {
    match bytes > SHORT {
        true => long(caller, work).await,
        false => work(),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// A caller with two dozen pieces of work does not stand before somebody who has one.
    #[tokio::test]
    async fn callers_take_turns() {
        let places = Places::new();
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let all = all.min(AT_ONCE) as u32;
        let mut busy = places.places.acquire_many(all).await.unwrap();
        let done = parking_lot::Mutex::new(Vec::new());
        let work = |caller: &'static str| {
            let done = &done;
            places
                .run(caller, move || done.lock().push(caller))
                .boxed_local()
        };
        let mut waiting: Vec<_> = (0..25).map(|_| work("greedy")).collect();
        waiting.push(work("other"));
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        // One place, which goes from one to the next.
        drop(busy.split(1));
        futures::future::join_all(waiting).await;
        let first = done.lock().iter().position(|who| *who == "other");
        assert_eq!(first, Some(1), "after the one that waited before");
        assert_eq!(done.lock().len(), 26);
    }
}
