//! Whether every value that is kept can be read, and whether any is encrypted at all.
//!
//! To know the first, every value is looked at, which reads the whole file. A store that
//! is not encrypted, and is not to be, is spared that by a note in the file: a table that
//! has a row once a value was encrypted. Triggers write it, in the transaction of that
//! value, and they lie in the file: a program of before knows nothing of the note and keeps
//! it all the same. So it is no step of the schema, and a file without it is looked at.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};

use super::convert::{database, to_sql};
use super::read::{bounds, column, number};
use crate::seal::{HEAD, SealError, Sealing, is_marked};
use crate::{Error, Revision};

/// Values of one key that are tried until one opens: some may be damaged.
const TRIED: usize = 32;

/// The table, and what fills it. The bytes are what encrypted values begin with.
const NOTE: [(&str, &str); 3] = [
    (
        "sealed",
        "CREATE TABLE sealed (one INTEGER PRIMARY KEY CHECK (one = 1))",
    ),
    (
        "sealed_put",
        "CREATE TRIGGER sealed_put AFTER INSERT ON version \
         WHEN substr(NEW.value, 1, 8) = x'6b38733a656e633a' \
         BEGIN INSERT OR IGNORE INTO sealed VALUES (1); END",
    ),
    (
        "sealed_change",
        "CREATE TRIGGER sealed_change AFTER UPDATE OF value ON version \
         WHEN substr(NEW.value, 1, 8) = x'6b38733a656e633a' \
         BEGIN INSERT OR IGNORE INTO sealed VALUES (1); END",
    ),
];

/// Where the values were looked at.
pub struct Seen {
    /// All up to this one.
    pub upto: Revision,
    /// Whether there is no encrypted value; not said where none was looked at.
    plain: bool,
}

/// Before anybody else has the file: whether all values can be read, and the note.
pub async fn prepare(connection: &mut SqliteConnection, sealing: &Sealing) -> Result<(), Error> {
    match note(connection).await {
        // There may be no room for it. Without it the values are looked at.
        Err(Error::Unavailable(error)) => {
            tracing::warn!(error, "whether values are encrypted was not noted");
        }
        noted => noted?,
    }
    let seen = readable(connection, sealing, Revision(0)).await?;
    if seen.plain && is_noted(connection).await? {
        let cleared = sqlx::query("DELETE FROM sealed").execute(connection).await;
        if let Err(error) = cleared {
            tracing::warn!(%error, "that no value is encrypted was not noted");
        }
    }
    Ok(())
}

/// Makes the note where it is not there. It says then that values may be encrypted.
async fn note(connection: &mut SqliteConnection) -> Result<(), Error> {
    if is_noted(connection).await? {
        return Ok(());
    }
    let [(_, table), (put, on_put), (change, on_change)] = NOTE;
    // Names of ours.
    let anew = format!(
        "BEGIN IMMEDIATE; DROP TABLE IF EXISTS sealed; DROP TRIGGER IF EXISTS {put}; \
         DROP TRIGGER IF EXISTS {change}; {table}; INSERT INTO sealed VALUES (1); \
         {on_put}; {on_change}; COMMIT"
    );
    let anew = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(anew)));
    if let Err(error) = anew.await {
        // SQLite may have done so itself, and then says that there is nothing to undo.
        let _ = connection.execute(sqlx::raw_sql("ROLLBACK")).await;
        return Err(database(error));
    }
    Ok(())
}

/// Whether the note is kept, in this way.
async fn is_noted(connection: &mut SqliteConnection) -> Result<bool, Error> {
    for (name, sql) in NOTE {
        let found: Option<String> =
            sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = ?")
                .bind(name)
                .fetch_optional(&mut *connection)
                .await
                .map_err(database)?;
        if found.as_deref() != Some(sql) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether it is noted that no value is encrypted.
async fn is_plain(connection: &mut SqliteConnection) -> Result<bool, Error> {
    if !is_noted(connection).await? {
        return Ok(false);
    }
    let some: Option<i64> = sqlx::query_scalar("SELECT one FROM sealed")
        .fetch_optional(connection)
        .await
        .map_err(database)?;
    Ok(some.is_none())
}

/// What was found of the values after a revision.
#[derive(Default)]
struct Found {
    /// By rule and key: some that it has written.
    of: BTreeMap<(Option<usize>, Vec<u8>), Vec<i64>>,
    /// How many are as they are without a rule, so that nothing has to be tried.
    plain: u64,
    marked: bool,
    /// How many have a beginning that says nothing, and the first of them.
    damaged: u64,
    first: Option<String>,
}

/// Whether every value after a revision can be read: its key is there, and opens at least
/// one of the values that were written with it. One that alone cannot be read is damaged,
/// which is its own trouble; who reads it is told.
pub async fn readable(
    connection: &mut SqliteConnection,
    sealing: &Sealing,
    after: Revision,
) -> Result<Seen, Error> {
    let mut transaction = connection.begin().await.map_err(database)?;
    let upto = bounds(&mut transaction).await?.revision;
    if !sealing.encrypts() && is_plain(&mut transaction).await? {
        return Ok(Seen { upto, plain: false });
    }
    let found = find(&mut transaction, sealing, after).await?;
    let mut opens = found.plain > 0;
    for some in found.of.values() {
        opens_one(&mut transaction, sealing, some).await?;
        opens = true;
    }
    if let Some(key) = found.first {
        let damaged = unreadable(&key, &SealError::Damaged);
        // If nothing at all can be read, it is not damage of one.
        if !opens {
            return Err(damaged);
        }
        tracing::error!(values = found.damaged, %damaged, "damaged");
    }
    Ok(Seen {
        upto,
        plain: !found.marked && after == Revision(0),
    })
}

fn unreadable(key: &str, error: &SealError) -> Error {
    Error::Sealed(format!("that of {key}: {error}"))
}

/// Looks at what each value begins with.
///
/// # Errors
/// [`Error::Sealed`] if it is of a key that is not there.
async fn find(
    connection: &mut SqliteConnection,
    sealing: &Sealing,
    after: Revision,
) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut rows = sqlx::query(
        "SELECT key, revision, substr(value, 1, ?) FROM version NOT INDEXED \
         WHERE revision > ? AND value IS NOT NULL",
    )
    .bind(number(HEAD))
    .bind(to_sql(after))
    .fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(database)? {
        let key: String = column(&row, 0)?;
        let head: Vec<u8> = column(&row, 2)?;
        found.marked |= is_marked(&head);
        match sealing.key_of(&key, &head) {
            Ok(None) => found.plain += 1,
            Ok(Some(of)) => {
                let at = (sealing.rule_of(&key), of.prefix().to_vec());
                let some = found.of.entry(at).or_default();
                if some.len() < TRIED {
                    some.push(column(&row, 1)?);
                }
            }
            Err(SealError::Damaged) => {
                found.damaged += 1;
                found.first.get_or_insert(key);
            }
            Err(error) => return Err(unreadable(&key, &error)),
        }
    }
    Ok(found)
}

/// Whether one of these values, which are of one key, can be opened.
async fn opens_one(
    connection: &mut SqliteConnection,
    sealing: &Sealing,
    some: &[i64],
) -> Result<(), Error> {
    let mut refused = None;
    for at in some {
        let row = sqlx::query("SELECT key, value FROM version WHERE revision = ?")
            .bind(at)
            .fetch_one(&mut *connection)
            .await
            .map_err(database)?;
        let (key, kept): (String, Vec<u8>) = (column(&row, 0)?, column(&row, 1)?);
        match sealing.open(&key, &kept) {
            Ok(_) => return Ok(()),
            Err(error) => {
                refused.get_or_insert(unreadable(&key, &error));
            }
        }
    }
    refused.map_or(Ok(()), Err)
}
