//! The log in SQLite: embedded, for one API server.
//!
//! # Flow
//! One connection writes ([`writer`]): it takes the writes that wait, applies
//! them in one transaction, commits, hands the changes to the feed, and only
//! then answers. A few connections read ([`read`]), each read in one snapshot.
//!
//! # Guarantees
//! * `synchronous=FULL`: a commit returns after the write-ahead log was synced
//!   to disk (rule 23).
//! * The data directory is locked: a second process is refused with
//!   [`Error::InUse`], and the lock ends with the process, however that ends.
//! * Values are encrypted on their way into the database, if at all ([`crate::seal`]).
//! * Revisions come from a counter in the database that is written in the same
//!   transaction as the change, so that deletes, compaction and restarts cannot
//!   make one appear twice.
//!
//! # Assumptions
//! The directory lies on a file system that honours `fsync` and `flock`; network
//! file systems often do not.

mod convert;
#[cfg(test)]
mod faults;
mod files;
mod read;
mod reopening;
mod schema;
mod sealed;
mod shared;
mod spans;
mod turns;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::log::watch::Feed;
use crate::log::{Bounds, Changes, Log, Range, Turn, Write};
use crate::seal::{Sealing, Seals};
use crate::{Change, Entry, Error, Identity, Page, Revision, Store};
use convert::{database, io};
pub use files::{CACHED_BYTES, FILE, LOCK};
use files::{ERASE, LOG, READERS, lock, options, spill_into};
use shared::{Looked, Shared};
use turns::{QUEUE, Turns};

/// Opens the store in `directory`, which is made if it does not exist.
///
/// # Errors
/// [`Error::InUse`] if another process has it open, [`Error::Corrupt`] if what
/// lies there is damaged, foreign, or written by a newer version of the program.
pub async fn open(directory: impl AsRef<Path>) -> Result<Store, Error> {
    open_sealed(directory, Sealing::default()).await
}

/// The same with values that are kept as `sealing` says.
///
/// # Errors
/// As [`open`], and [`Error::Sealed`] if a value could not be read with it.
pub async fn open_sealed(directory: impl AsRef<Path>, sealing: Sealing) -> Result<Store, Error> {
    Ok(Store::new(Arc::new(
        Sqlite::open(directory.as_ref(), sealing).await?,
    )))
}

type Reader = sqlx::pool::PoolConnection<sqlx::Sqlite>;

struct Sqlite {
    shared: Arc<Shared>,
    readers: SqlitePool,
    writer: writer::Handle,
}

impl Sqlite {
    async fn open(directory: &Path, sealing: Sealing) -> Result<Self, Error> {
        std::fs::create_dir_all(directory).map_err(|e| io(directory, &e))?;
        let lock = lock(directory)?;
        let mut options = options(directory);
        if sealing.encrypts() {
            options = options.pragma(ERASE.0, ERASE.1);
        }
        let mut connection = options.connect().await.map_err(database)?;
        spill_into(&mut connection, directory).await?;
        let opened = schema::prepare(&mut connection).await?;
        sealed::prepare(&mut connection, &sealing).await?;
        // The file's own name is durable only once its directory is.
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|e| io(directory, &e))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(QUEUE)
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false)
            .connect_with(options.clone().pragma("query_only", "ON"))
            .await
            .map_err(database)?;
        let shared = Arc::new(Shared {
            feed: Feed::new(opened.bounds.revision),
            turns: Turns::default(),
            seals: Seals::new(sealing),
            identity: opened.identity,
            compacted: AtomicU64::new(opened.bounds.compacted.0),
            rewritten: AtomicU64::new(0),
            directory: directory.to_owned(),
            lock: Mutex::new(Some(lock)),
            #[cfg(test)]
            faults: faults::Faults::default(),
        });
        let writer = writer::start(Arc::clone(&shared), connection, options);
        Ok(Sqlite {
            shared,
            readers,
            writer,
        })
    }

    async fn reader(&self) -> Result<Reader, Error> {
        self.readers.acquire().await.map_err(database)
    }

    async fn read_range(&self, range: Range) -> Result<Page, Error> {
        let published = self.shared.feed.published();
        let past = range.at.is_some_and(|at| at < published);
        if !past {
            let seals = &self.shared.seals;
            return read::range(&mut *self.reader().await?, seals, &range).await;
        }
        let turns = self.shared.turns.list(range.turn).await?;
        let seals = self.shared.seals.clone();
        self.look_back(turns, |mut reader| async move {
            read::range(&mut reader, &seals, &range).await
        })
        .await
    }

    /// Looks through history. Who asked may leave: SQLite goes on with what it has begun,
    /// so that the turn and the connection are taken until it is through.
    #[allow(
        clippy::disallowed_methods,
        reason = "it is waited for here, and ends by itself with its read"
    )]
    async fn look_back<T, F>(
        &self,
        turns: Vec<OwnedSemaphorePermit>,
        read: impl FnOnce(Reader) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let read = read(self.reader().await?);
        let reading = tokio::spawn(async move {
            let result = read.await;
            drop(turns);
            result
        });
        match reading.await {
            Ok(result) => result,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Closed),
            },
        }
    }
}

#[async_trait]
impl Log for Sqlite {
    async fn write(&self, write: Write) -> Result<Change, Error> {
        self.writer.write(write).await
    }

    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), Error> {
        let reading =
            async { read::get(&mut *self.reader().await?, &self.shared.seals, key).await };
        reading.instrument(spans::get(key)).await
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        let span = spans::list(&range);
        self.read_range(range).instrument(span).await
    }

    async fn changes(
        &self,
        prefix: &str,
        after: Revision,
        upto: Revision,
        limit: usize,
        turn: Turn,
    ) -> Result<Changes, Error> {
        let prefix = prefix.to_owned();
        let turns = self.shared.turns.changes(turn).await?;
        let seals = self.shared.seals.clone();
        self.look_back(turns, |mut reader| async move {
            read::changes(&mut reader, &seals, &prefix, after, upto, limit).await
        })
        .await
    }

    async fn bounds(&self) -> Result<Bounds, Error> {
        read::bounds(&mut *self.reader().await?).await
    }

    async fn compact(&self, below: Revision) -> Result<(), Error> {
        self.writer.compact(below).await
    }

    async fn advance(&self, to: Revision) -> Result<Revision, Error> {
        self.writer.advance(to).await
    }

    fn compacted(&self) -> Revision {
        Revision(self.shared.compacted.load(Ordering::Acquire))
    }

    fn feed(&self) -> &Feed {
        &self.shared.feed
    }

    fn identity(&self) -> Identity {
        self.shared.identity.clone()
    }

    async fn size(&self) -> Result<u64, Error> {
        let directory = &self.shared.directory;
        let mut size = 0;
        for name in [FILE, LOG] {
            match std::fs::metadata(directory.join(name)) {
                Ok(metadata) => size += metadata.len(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(io(directory, &e)),
            }
        }
        Ok(size)
    }

    async fn seal(&self, sealing: Arc<Sealing>) -> Result<(), Error> {
        // That is long, so that the writer looks only at what has come since.
        let turns = self.shared.turns.changes(Turn::Shared).await?;
        let rewritten = self.shared.rewritten.load(Ordering::Acquire);
        let with = Arc::clone(&sealing);
        let looking = self.look_back(turns, |mut reader| async move {
            sealed::readable(&mut reader, &with, Revision(0)).await
        });
        let upto = looking.await?.upto;
        self.writer.seal(sealing, Looked { upto, rewritten }).await
    }

    async fn reseal(&self) -> Result<u64, Error> {
        self.writer.reseal().await
    }

    async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
        self.shared.lock.lock().take();
    }
}

#[cfg(test)]
mod tests;
