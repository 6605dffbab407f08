//! The files of a store, and how they are opened.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor};

use super::convert::{database, io};
use crate::Error;

/// The file in the data directory that holds the log.
pub const FILE: &str = "steward.db";
/// SQLite's write-ahead log of it.
pub(super) const LOG: &str = "steward.db-wal";
/// The write-ahead log shrinks back to this after a burst.
pub(super) const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// The file in the data directory that is locked while the store is open.
pub const LOCK: &str = "lock";

/// How long one statement waits for another connection. Readers do not block in
/// WAL mode; this covers the moments in which a checkpoint resets the log.
const BUSY: Duration = Duration::from_secs(10);
/// What was deleted or written anew is not left to be read in the file: it may be what a
/// value was before it was encrypted.
pub(super) const ERASE: (&str, &str) = ("secure_delete", "ON");
/// The file in the data directory that says that values were encrypted, and what they were
/// before may still be in the files.
pub(super) const ERASE_DUE: &str = "erase";
/// Connections that read.
pub(super) const READERS: u32 = 4;
/// KiB of pages that each connection keeps.
const CACHED_KIB: usize = 8 * 1024;
/// Bytes of pages that readers and the writer keep.
pub const CACHED_BYTES: usize = (READERS as usize + 1) * CACHED_KIB * 1024;

/// How a connection is opened.
pub(super) fn options(directory: &Path) -> SqliteConnectOptions {
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
pub(super) async fn spill_into(
    connection: &mut SqliteConnection,
    directory: &Path,
) -> Result<(), Error> {
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
pub(super) fn lock(directory: &Path) -> Result<File, Error> {
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
