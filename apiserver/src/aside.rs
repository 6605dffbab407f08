//! Work that takes long, beside the workers that serve requests.

use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// Pieces of work of one kind at a time at most, however large the machine is.
pub(crate) const AT_ONCE: usize = 4;
/// Bytes of documents that take no longer than it would take to wait for a place.
const SHORT: usize = 32 * 1024;

/// Places for work of one kind: each takes a processor.
pub struct Places(LazyLock<Semaphore>);

impl Places {
    /// As many as there are processors, four at most.
    pub const fn new() -> Self {
        Places(LazyLock::new(|| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            Semaphore::new(processors.min(AT_ONCE))
        }))
    }

    /// Does what may take long while other tasks of this worker go on elsewhere.
    pub async fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        // The semaphore is never closed.
        let _place = self.0.acquire().await.ok();
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
            // There is no other worker.
            _ => work(),
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

/// For reading, changing and comparing documents.
static DOCUMENTS: Places = Places::new();

/// Works on documents of so many bytes; on short ones where it stands.
pub async fn documents<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    match bytes > SHORT {
        true => DOCUMENTS.run(work).await,
        false => work(),
    }
}
