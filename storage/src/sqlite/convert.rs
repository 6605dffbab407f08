//! Errors and numbers of the database, as those of the log.

use std::path::Path;

use crate::{Error, Revision};

/// What a failure of a file means to the users of the log.
pub(super) fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}

/// What an error of the database means to the users of the log.
pub(super) fn database(error: sqlx::Error) -> Error {
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
pub(super) fn to_sql(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// The same, back.
pub(super) fn from_sql(revision: i64) -> Result<Revision, Error> {
    u64::try_from(revision)
        .map(Revision)
        .map_err(|_| Error::Corrupt(format!("revision {revision} is negative")))
}
