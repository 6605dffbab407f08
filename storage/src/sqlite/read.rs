//! Reads. Each sees one snapshot: a single statement, or a read transaction.
//!
//! A read of many values asks for their sizes first, which SQLite tells without
//! reading them, and then for as many as fit into one answer: neither the answer nor
//! the rows that wait for their reader are ever more than that.

use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

use super::convert::{database, from_sql, to_sql};
use crate::log::{Bounds, Changes, PAGE_BYTES, REPLAY_BYTES, Range, fitting, range_end};
use crate::seal::{Seals, marked};
use crate::{Change, Entry, Error, Page, Revision};

pub async fn bounds(connection: &mut SqliteConnection) -> Result<Bounds, Error> {
    let row = sqlx::query("SELECT revision, compacted FROM store")
        .fetch_one(connection)
        .await
        .map_err(database)?;
    Ok(Bounds {
        revision: revision(&row, 0)?,
        compacted: revision(&row, 1)?,
    })
}

pub async fn get(
    connection: &mut SqliteConnection,
    seals: &Seals,
    key: &str,
) -> Result<(Option<Entry>, Revision), Error> {
    let row = sqlx::query(
        "SELECT store.revision, version.value, version.created, version.revision FROM store \
         LEFT JOIN version ON version.key = ? AND version.ended IS NULL",
    )
    .bind(key)
    .fetch_one(connection)
    .await
    .map_err(database)?;
    let now = revision(&row, 0)?;
    let modified: Option<i64> = column(&row, 3)?;
    let entry = match modified {
        None => None,
        Some(_) => Some(entry(seals, key.to_owned(), &row, 1)?),
    };
    Ok((entry, now))
}

/// The standing version of a key, within the caller's transaction.
pub async fn current(
    connection: &mut SqliteConnection,
    seals: &Seals,
    key: &str,
) -> Result<Option<Entry>, Error> {
    sqlx::query("SELECT value, created, revision FROM version WHERE key = ? AND ended IS NULL")
        .bind(key)
        .fetch_optional(connection)
        .await
        .map_err(database)?
        .map(|row| entry(seals, key.to_owned(), &row, 0))
        .transpose()
}

pub async fn range(
    connection: &mut SqliteConnection,
    seals: &Seals,
    range: &Range,
) -> Result<Page, Error> {
    const STANDING: &str = "SELECT key, value, created, revision FROM version \
         WHERE ended IS NULL AND key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
    const STANDING_SIZES: &str = "SELECT length(value) FROM version \
         WHERE ended IS NULL AND key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
    const STANDING_COUNT: &str = "SELECT count(*) FROM version \
         WHERE ended IS NULL AND key >= ?1 AND key < ?2";
    // INDEXED BY: without it the planner may walk the whole table in the order
    // of revisions.
    const PAST: &str = "SELECT key, value, created, revision FROM version INDEXED BY history \
         WHERE key >= ?1 AND key < ?2 \
         AND revision <= ?4 AND (ended IS NULL OR ended > ?4) ORDER BY key LIMIT ?3";
    const PAST_SIZES: &str = "SELECT length(value) FROM version INDEXED BY history \
         WHERE key >= ?1 AND key < ?2 \
         AND revision <= ?4 AND (ended IS NULL OR ended > ?4) ORDER BY key LIMIT ?3";
    const PAST_COUNT: &str = "SELECT count(*) FROM version INDEXED BY history \
         WHERE key >= ?1 AND key < ?2 \
         AND revision <= ?3 AND (ended IS NULL OR ended > ?3)";

    let end = range_end(&range.prefix);
    let start = match &range.after {
        Some(after) => range.prefix.clone().max(successor(after)),
        None => range.prefix.clone(),
    };
    let wanted = range.limit.unwrap_or(usize::MAX);
    let mut transaction = connection.begin().await.map_err(database)?;
    let bounds = bounds(&mut transaction).await?;
    let at = range.at.unwrap_or(bounds.revision);
    bounds.admit(at)?;
    let newest = at == bounds.revision;

    let mut query = sqlx::query(if newest { STANDING_SIZES } else { PAST_SIZES })
        .bind(&start)
        .bind(&end)
        .bind(number(wanted));
    if !newest {
        query = query.bind(to_sql(at));
    }
    let sizes = sizes(&mut transaction, query).await?;
    let count = fitting(sizes.iter().copied(), PAGE_BYTES);

    let mut query = sqlx::query(if newest { STANDING } else { PAST })
        .bind(&start)
        .bind(&end)
        .bind(number(count));
    if !newest {
        query = query.bind(to_sql(at));
    }
    let mut entries = Vec::new();
    {
        let mut rows = query.fetch(&mut *transaction);
        while let Some(row) = rows.try_next().await.map_err(database)? {
            entries.push(entry(seals, column(&row, 0)?, &row, 1)?);
        }
    }

    let mut remaining = 0;
    if entries.len() == wanted || count < sizes.len() {
        let next = entries.last().map_or(start, |last| successor(&last.key));
        let mut query =
            sqlx::query_scalar::<_, i64>(if newest { STANDING_COUNT } else { PAST_COUNT })
                .bind(next)
                .bind(&end);
        if !newest {
            query = query.bind(to_sql(at));
        }
        let count = query.fetch_one(&mut *transaction).await.map_err(database)?;
        remaining = u64::try_from(count).unwrap_or(0);
    }
    transaction.commit().await.map_err(database)?;
    Ok(Page {
        entries,
        revision: at,
        more: remaining > 0,
        remaining,
    })
}

/// The sizes that a statement gives.
async fn sizes(
    connection: &mut SqliteConnection,
    query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
) -> Result<Vec<usize>, Error> {
    let mut sizes = Vec::new();
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(database)? {
        let size: i64 = column(&row, 0)?;
        sizes.push(usize::try_from(size).unwrap_or(0));
    }
    Ok(sizes)
}

/// A limit for SQL.
pub fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A string after `key` and before every other key after it: keys hold no
/// control characters. One bound instead of two lets the index begin there.
fn successor(key: &str) -> String {
    format!("{key}\u{1}")
}

pub async fn changes(
    connection: &mut SqliteConnection,
    seals: &Seals,
    prefix: &str,
    after: Revision,
    upto: Revision,
    limit: usize,
) -> Result<Changes, Error> {
    const SIZES: &str = "SELECT ifnull(length(v.value), 0) + ifnull(length(p.value), 0) \
         FROM version v NOT INDEXED LEFT JOIN version p ON p.revision = v.previous \
         WHERE v.revision > ? AND v.revision <= ? AND v.key >= ? AND v.key < ? \
         ORDER BY v.revision LIMIT ?";
    // NOT INDEXED: in the order of revisions, which is that of the table.
    const CHANGES: &str = "SELECT v.key, v.value, v.created, v.revision, \
         p.value, p.created, p.revision, v.previous \
         FROM version v NOT INDEXED LEFT JOIN version p ON p.revision = v.previous \
         WHERE v.revision > ? AND v.revision <= ? AND v.key >= ? AND v.key < ? \
         ORDER BY v.revision LIMIT ?";

    let mut transaction = connection.begin().await.map_err(database)?;
    bounds(&mut transaction).await?.admit(after)?;
    let end = range_end(prefix);
    let asked = |sql: &'static str, limit: usize| {
        sqlx::query(sql)
            .bind(to_sql(after))
            .bind(to_sql(upto))
            .bind(prefix.to_owned())
            .bind(end.clone())
            .bind(number(limit))
    };
    let sizes = sizes(&mut transaction, asked(SIZES, limit)).await?;
    let count = fitting(sizes.iter().copied(), REPLAY_BYTES);
    let mut changes = Vec::new();
    // Each question may look at all that is kept of history.
    if count > 0 {
        let mut rows = asked(CHANGES, count).fetch(&mut *transaction);
        while let Some(row) = rows.try_next().await.map_err(database)? {
            changes.push(change(seals, &row)?);
        }
    }
    transaction.commit().await.map_err(database)?;
    Ok(Changes {
        changes,
        more: count < sizes.len() || sizes.len() == limit,
    })
}

fn change(seals: &Seals, row: &SqliteRow) -> Result<Change, Error> {
    let key: String = column(row, 0)?;
    let value: Option<Vec<u8>> = column(row, 1)?;
    let at = revision(row, 3)?;
    let has_previous: Option<i64> = column(row, 7)?;
    let previous = match has_previous {
        None => None,
        Some(_) => Some(entry(seals, key.clone(), row, 4)?),
    };
    match (value, previous) {
        (Some(value), previous) => Ok(Change::Put {
            entry: Entry {
                value: open(seals, &key, value).into(),
                key,
                created: revision(row, 2)?,
                modified: at,
            },
            previous,
        }),
        (None, Some(previous)) => Ok(Change::Delete {
            previous,
            revision: at,
        }),
        (None, None) => Err(Error::Corrupt(format!(
            "revision {at} deletes {key}, but what it deleted is missing"
        ))),
    }
}

/// An entry from the columns value, created, revision that begin at `first`.
fn entry(seals: &Seals, key: String, row: &SqliteRow, first: usize) -> Result<Entry, Error> {
    let value: Vec<u8> = column(row, first)?;
    Ok(Entry {
        value: open(seals, &key, value).into(),
        key,
        created: revision(row, first + 1)?,
        modified: revision(row, first + 2)?,
    })
}

/// A value as it was put. One that cannot be read (all could when the store was opened, so
/// it is damaged) is given as it is kept: it is one object's trouble and not that of all.
/// It is marked as encrypted, also where it is not: what somebody has put into the file
/// where values are to be encrypted must not pass for an object.
fn open(seals: &Seals, key: &str, kept: Vec<u8>) -> Vec<u8> {
    let sealing = seals.current();
    match sealing.key_of(key, &kept) {
        Ok(None) => return kept,
        Ok(Some(found)) if found.is_identity() => return kept,
        _ => {}
    }
    sealing.open(key, &kept).unwrap_or_else(|error| {
        tracing::error!(key, %error, "a value cannot be read");
        marked(kept)
    })
}

fn revision(row: &SqliteRow, index: usize) -> Result<Revision, Error> {
    from_sql(column(row, index)?)
}

pub fn column<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, Error>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(database)
}
