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

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use async_trait::async_trait;
use futures::FutureExt;
use parking_lot::Mutex;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Executor};
use tracing::Instrument;

use crate::log::watch::Feed;
use crate::log::{Bounds, Changes, Log, Range, Turn, Write};
use crate::seal::{Sealing, Seals};
use crate::{Change, Entry, Error, Identity, Page, Revision, Store};

#[cfg(test)]
mod faults;
mod read;
mod reopening;
mod schema;
mod sealed;
mod spans;
mod writer;

/// The file in the data directory that holds the log.
pub const FILE: &str = "steward.db";
/// SQLite's write-ahead log of it.
const LOG: &str = "steward.db-wal";
/// The write-ahead log shrinks back to this after a burst.
const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// The file in the data directory that is locked while the store is open.
pub const LOCK: &str = "lock";

/// How long one statement waits for another connection. Readers do not block in
/// WAL mode; this covers the moments in which a checkpoint resets the log.
const BUSY: Duration = Duration::from_secs(10);
/// How long a read waits for a free connection before it is refused.
const QUEUE: Duration = Duration::from_secs(10);
/// What was deleted or written anew is not left to be read in the file: it may be what a
/// value was before it was encrypted.
const ERASE: (&str, &str) = ("secure_delete", "ON");
/// The file in the data directory that says that values were encrypted, and what they were
/// before may still be in the files.
const ERASE_DUE: &str = "erase";
const READERS: u32 = 4;
/// KiB of pages that each connection keeps.
const CACHED_KIB: usize = 8 * 1024;
/// Bytes of pages that readers and the writer keep.
pub const CACHED_BYTES: usize = (READERS as usize + 1) * CACHED_KIB * 1024;
/// Of them, those that may be looking through history.
const HISTORIANS: usize = 2;
/// Of these, those that may be reading older states: watches go on beside them.
const LISTS: usize = 1;
/// One more is for who feeds a cache.
const FEEDERS: usize = 1;
// One is left for the present.
const _: () = assert!(LISTS < HISTORIANS && HISTORIANS + FEEDERS < READERS as usize);

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

/// Turns to look through history, which is long: few do at a time, and reads of now go
/// before.
struct Turns {
    lists: Arc<Semaphore>,
    shared: Arc<Semaphore>,
    feeders: Arc<Semaphore>,
    /// Where everybody who has a turn goes in, and there is room for all of them.
    gate: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let turns = |count| Arc::new(Semaphore::new(count));
        Turns {
            lists: turns(LISTS),
            shared: turns(HISTORIANS),
            feeders: turns(FEEDERS),
            gate: turns(HISTORIANS + FEEDERS),
        }
    }
}

impl Turns {
    /// Waits until these have one to give, one after the other.
    async fn wait(of: &[&Arc<Semaphore>]) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        let all = async {
            let mut turns = Vec::with_capacity(of.len());
            for turn in of {
                let turn = Arc::clone(turn).acquire_owned().await;
                turns.push(turn.map_err(|_| Error::Closed)?);
            }
            Ok(turns)
        };
        let turns = tokio::time::timeout(QUEUE, all).await;
        turns.map_err(|_| database(sqlx::Error::PoolTimedOut))?
    }

    /// To read an older state.
    async fn list(&self, turn: Turn) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        match turn {
            Turn::Shared => Self::wait(&[&self.lists, &self.shared, &self.gate]).await,
            Turn::Feeder => Self::wait(&[&self.feeders, &self.gate]).await,
        }
    }

    /// To read changes.
    async fn changes(&self, turn: Turn) -> Result<Vec<OwnedSemaphorePermit>, Error> {
        match turn {
            Turn::Shared => Self::wait(&[&self.shared, &self.gate]).await,
            Turn::Feeder => Self::wait(&[&self.feeders, &self.gate]).await,
        }
    }

    /// Comes back when nobody looks through history any more. From now on nobody begins to,
    /// however many wait for a turn already.
    fn quiet(&self) -> impl Future<Output = Quiet> + Send + use<> {
        let all = u32::try_from(HISTORIANS + FEEDERS).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.gate).acquire_many_owned(all).map(Quiet)
    }
}

/// Nobody looks through history while this is held.
struct Quiet(
    #[expect(dead_code, reason = "held, and given back")]
    Result<OwnedSemaphorePermit, tokio::sync::AcquireError>,
);

/// Which values were found to be readable.
struct Looked {
    upto: Revision,
    /// How often values had been brought to another form before.
    rewritten: u64,
}

/// What the writer and everybody else share.
struct Shared {
    feed: Feed,
    turns: Turns,
    seals: Seals,
    identity: Identity,
    /// A copy of what the database says, for those who cannot wait.
    compacted: AtomicU64,
    /// How often values were brought to another form where they stand.
    rewritten: AtomicU64,
    directory: PathBuf,
    /// Held until the writer is done too; taken out by `close`.
    lock: Mutex<Option<File>>,
    /// What the disk is to do next.
    #[cfg(test)]
    faults: faults::Faults,
}

impl Shared {
    /// Bytes of the write-ahead log; none if that cannot be said.
    fn log_size(&self) -> u64 {
        let log = std::fs::metadata(self.directory.join(LOG));
        log.map_or(0, |metadata| metadata.len())
    }
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

fn options(directory: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(directory.join(FILE))
        .create_if_missing(true)
        .page_size(8192)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .row_buffer_size(1024)
        .pragma("journal_size_limit", LOG_BYTES.to_string())
        .pragma("cache_size", format!("-{CACHED_KIB}"))
        .disable_statement_logging()
}

/// Has temporary files lie in the data directory, for it may be the only one that can be
/// written, and what is sorted or made anew is as large as the store. It holds for all of
/// the process, as long as the directory is there.
async fn spill_into(connection: &mut SqliteConnection, directory: &Path) -> Result<(), Error> {
    let directory = std::path::absolute(directory).map_err(|e| io(directory, &e))?;
    // Pragmas take no parameters, and SQLite only texts.
    let Some(name) = directory.to_str() else {
        tracing::warn!(
            ?directory,
            "temporary files are put elsewhere: its name is no text"
        );
        return Ok(());
    };
    let set = format!(
        "PRAGMA temp_store_directory = '{}'",
        name.replace('\'', "''")
    );
    let set = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(set)));
    set.await.map_err(database)?;
    Ok(())
}

/// Takes the directory for this process. The kernel gives it back when the
/// process ends.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| io(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(format!(
            "another process holds {}",
            path.display()
        ))),
        Err(TryLockError::Error(e)) => Err(io(&path, &e)),
    }
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}

/// What an error of the database means to the users of the log.
fn database(error: sqlx::Error) -> Error {
    // SQLite's primary result codes.
    const CORRUPT: i32 = 11;
    const CONSTRAINT: i32 = 19;
    const NOT_A_DATABASE: i32 = 26;
    if let sqlx::Error::PoolClosed = error {
        return Error::Closed;
    }
    let code = error
        .as_database_error()
        .and_then(|e| e.code()?.parse::<i32>().ok())
        .map(|extended| extended & 0xff);
    match code {
        // A constraint can only fail if the table contradicts the counter.
        Some(CORRUPT | CONSTRAINT | NOT_A_DATABASE) => Error::Corrupt(error.to_string()),
        _ if matches!(error, sqlx::Error::ColumnDecode { .. }) => Error::Corrupt(error.to_string()),
        _ => Error::Unavailable(error.to_string()),
    }
}

/// Revisions are stored as SQLite's signed integers.
fn to_sql(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn from_sql(revision: i64) -> Result<Revision, Error> {
    u64::try_from(revision)
        .map(Revision)
        .map_err(|_| Error::Corrupt(format!("revision {revision} is negative")))
}

#[cfg(test)]
mod tests;
