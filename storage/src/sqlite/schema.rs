//! The tables, their versions, and what must hold when the store is opened.
//!
//! `version`: every version of every key that is still known, and a row for
//! each deletion. A version lives in the states [revision, ended); `ended` is
//! NULL while it stands. A deletion has `value` NULL and ends where it begins,
//! so that it belongs to no state. `previous` is the version that it replaced.
//!
//! `standing` makes two standing versions of one key impossible, `history`
//! serves older states, `ended` finds what compaction may take.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor, Row};

use super::convert::{database, from_sql};
use crate::log::Bounds;
use crate::{Error, Identity, Revision};

/// "Stwd": marks the file as ours.
const APPLICATION: i64 = 0x5374_7764;

/// Step n leads from schema version n to n + 1. Only ever appended to.
const STEPS: &[&str] = &["
    CREATE TABLE store (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        id TEXT NOT NULL,
        revision INTEGER NOT NULL,
        compacted INTEGER NOT NULL
    );
    CREATE TABLE version (
        revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        created INTEGER NOT NULL,
        previous INTEGER,
        ended INTEGER,
        value BLOB
    );
    CREATE UNIQUE INDEX standing ON version (key) WHERE ended IS NULL;
    CREATE INDEX history ON version (key, revision);
    CREATE INDEX ended ON version (ended) WHERE ended IS NOT NULL;
"];

/// Indexes that have become others since the step that made them. A program of before uses
/// them as well, so that it can take the file back: they are no step.
const INDEXES: &[(&str, &str)] = &[
    // With `ended`, a read of an older state looks up no version that is not of that state.
    (
        "history",
        "CREATE INDEX history ON version (key, revision, ended)",
    ),
];

pub struct Opened {
    pub identity: Identity,
    pub bounds: Bounds,
}

/// Brings the tables to the present version and says what they hold.
pub async fn prepare(connection: &mut SqliteConnection) -> Result<Opened, Error> {
    let application = pragma(connection, "PRAGMA application_id").await?;
    let found = pragma(connection, "PRAGMA user_version").await?;
    if application != APPLICATION && (application, found) != (0, 0) {
        return Err(Error::Corrupt(
            "the file belongs to another program".to_owned(),
        ));
    }
    let known = STEPS.len();
    let found = usize::try_from(found)
        .ok()
        .filter(|found| *found <= known)
        .ok_or_else(|| {
            Error::Corrupt(format!(
                "the data has format {found}, this program knows up to {known}; use a newer one"
            ))
        })?;
    for (step, sql) in STEPS.iter().copied().enumerate().skip(found) {
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(database)?;
        transaction
            .execute(sqlx::raw_sql(sql))
            .await
            .map_err(database)?;
        if step == 0 {
            sqlx::query("INSERT INTO store VALUES (1, ?, ?, 0)")
                .bind(uuid::Uuid::new_v4().to_string())
                .bind(super::convert::to_sql(Revision::FIRST))
                .execute(&mut *transaction)
                .await
                .map_err(database)?;
        }
        // Pragmas take no parameters; both are numbers of ours.
        let mark = format!(
            "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {}",
            step + 1
        );
        transaction
            .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(mark)))
            .await
            .map_err(database)?;
        transaction.commit().await.map_err(database)?;
    }
    for (name, sql) in INDEXES.iter().copied() {
        match renew(connection, name, sql).await {
            // There may be no room for it. The old one does as well, only longer.
            Err(Error::Unavailable(error)) => {
                tracing::warn!(error, index = name, "an index was not made anew");
            }
            renewed => renewed?,
        }
    }
    inspect(connection).await
}

/// Makes an index anew, unless it is made in this way already.
async fn renew(
    connection: &mut SqliteConnection,
    name: &'static str,
    sql: &'static str,
) -> Result<(), Error> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?")
            .bind(name)
            .fetch_optional(&mut *connection)
            .await
            .map_err(database)?;
    if found.as_deref() == Some(sql) {
        return Ok(());
    }
    // Names of ours.
    let anew = format!("BEGIN IMMEDIATE; DROP INDEX IF EXISTS {name}; {sql}; COMMIT");
    let anew = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(anew)));
    if let Err(error) = anew.await {
        // SQLite may have done so itself, and then says that there is nothing to undo.
        let _ = connection.execute(sqlx::raw_sql("ROLLBACK")).await;
        return Err(database(error));
    }
    Ok(())
}

/// What must hold before a write is accepted: the file is whole, syncing is on, and no
/// row is newer than the counter.
async fn inspect(connection: &mut SqliteConnection) -> Result<Opened, Error> {
    const FULL: i64 = 2;
    if pragma(connection, "PRAGMA synchronous").await? != FULL {
        return Err(Error::Unavailable(
            "the database does not sync its commits".to_owned(),
        ));
    }
    // Damage is found here, once, and not by whoever happens to ask for what it took.
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(database)?;
    if verdict != "ok" {
        return Err(Error::Corrupt(format!("the file is damaged: {verdict}")));
    }
    let row = sqlx::query(
        "SELECT id, revision, compacted, (SELECT max(revision) FROM version) AS last FROM store",
    )
    .fetch_one(connection)
    .await
    .map_err(database)?;
    let revision: i64 = row.try_get("revision").map_err(database)?;
    let compacted: i64 = row.try_get("compacted").map_err(database)?;
    let last: Option<i64> = row.try_get("last").map_err(database)?;
    if last.is_some_and(|last| last > revision) || compacted > revision {
        return Err(Error::Corrupt(format!(
            "the counter stands at {revision}, but the newest change is {last:?} \
             and history is compacted up to {compacted}"
        )));
    }
    Ok(Opened {
        identity: Identity {
            id: row.try_get("id").map_err(database)?,
        },
        bounds: Bounds {
            revision: from_sql(revision)?,
            compacted: from_sql(compacted)?,
        },
    })
}

pub async fn pragma(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, Error> {
    sqlx::query_scalar(sql)
        .fetch_one(connection)
        .await
        .map_err(database)
}
