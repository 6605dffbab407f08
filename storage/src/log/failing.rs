//! A log over another one that fails when it is told to: how those who build on the log
//! answer to that can be tried without a disk that fails.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::log::watch::Feed;
use crate::log::{Bounds, Changes, Log, Range, Turn, Write};
use crate::seal::Sealing;
use crate::{Change, Entry, Error, Identity, Page, Revision, Store};

/// What fails, until it is told otherwise. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Told>>);

#[derive(Clone, Debug, Default)]
struct Told {
    reads: Option<Error>,
    writes: Option<(Error, bool)>,
}

impl Faults {
    /// Reads fail.
    pub fn reads(&self, error: Error) {
        self.0.lock().reads = Some(error);
    }

    /// Writes fail and do not happen.
    pub fn writes(&self, error: Error) {
        self.0.lock().writes = Some((error, false));
    }

    /// Writes happen, and are told to have failed.
    pub fn acknowledgements(&self, error: Error) {
        self.0.lock().writes = Some((error, true));
    }

    /// All is well again.
    pub fn end(&self) {
        *self.0.lock() = Told::default();
    }

    fn read(&self) -> Result<(), Error> {
        self.0.lock().reads.clone().map_or(Ok(()), Err)
    }
}

/// `store`, and what makes it fail.
pub fn over(store: &Store) -> (Store, Faults) {
    let faults = Faults::default();
    let log = Failing {
        log: Arc::clone(store.log()),
        faults: faults.clone(),
    };
    (Store::new(Arc::new(log)), faults)
}

struct Failing {
    log: Arc<dyn Log>,
    faults: Faults,
}

#[async_trait]
impl Log for Failing {
    async fn write(&self, write: Write) -> Result<Change, Error> {
        let told = self.faults.0.lock().writes.clone();
        match told {
            Some((error, true)) => self.log.write(write).await.and(Err(error)),
            Some((error, false)) => Err(error),
            None => self.log.write(write).await,
        }
    }

    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        self.faults.read()?;
        self.log.get(key).await
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        self.faults.read()?;
        self.log.range(range).await
    }

    async fn changes(
        &self,
        prefix: &str,
        after: Revision,
        upto: Revision,
        limit: usize,
        turn: Turn,
    ) -> Result<Changes, Error> {
        self.faults.read()?;
        self.log.changes(prefix, after, upto, limit, turn).await
    }

    async fn bounds(&self) -> Result<Bounds, Error> {
        self.faults.read()?;
        self.log.bounds().await
    }

    async fn compact(&self, below: Revision) -> Result<(), Error> {
        self.log.compact(below).await
    }

    async fn advance(&self, to: Revision) -> Result<Revision, Error> {
        self.log.advance(to).await
    }

    fn compacted(&self) -> Revision {
        self.log.compacted()
    }

    fn feed(&self) -> &Feed {
        self.log.feed()
    }

    fn identity(&self) -> Identity {
        self.log.identity()
    }

    async fn size(&self) -> Result<u64, Error> {
        self.log.size().await
    }

    async fn seal(&self, sealing: Arc<Sealing>) -> Result<(), Error> {
        self.log.seal(sealing).await
    }

    async fn reseal(&self) -> Result<u64, Error> {
        self.log.reseal().await
    }

    async fn close(&self) {
        self.log.close().await;
    }
}
