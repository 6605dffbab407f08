//! The database with the claims, and the claims.

use super::connection::{Link, Session};
use super::failure::{DUPLICATE, DUPLICATE_COLUMN};
use super::names::{identifier, lock_name};
use crate::tenancy::sql::endpoint::random_text;
use crate::tenancy::sql::names::PLACE;
use crate::tenancy::sql::names::stage_of;
use crate::tenancy::{Claim, Stage, TenancyError};

/// The columns of a claim.
type Row = (
    String,
    String,
    String,
    String,
    String,
    Option<String>,
    String,
    Option<String>,
);

/// One statement each.
const TABLES: [&str; 2] = [
    "create table if not exists steward.secret (
        number tinyint primary key,
        text varchar(64) not null
    ) engine = InnoDB character set utf8mb4 collate utf8mb4_bin",
    "create table if not exists steward.claims (
        number bigint unsigned not null auto_increment unique,
        `schema` varchar(64) primary key,
        `user` varchar(128) not null unique,
        uid varchar(255) not null,
        namespace varchar(255) not null,
        name varchar(255) not null,
        role varchar(512),
        stage varchar(16) not null default 'serving',
        prefix varchar(512)
    ) engine = InnoDB character set utf8mb4 collate utf8mb4_bin",
];

/// What tables of versions before lack.
const COLUMNS: &str = "alter table steward.claims
    add column stage varchar(16) not null default 'serving', add column prefix varchar(512)";

/// A connection that holds the lock on this schema. Without the place of claims, which is
/// made only `to_claim`, there is nothing to be locked.
pub async fn lock(link: &Link, schema: &str, to_claim: bool) -> Result<Session, TenancyError> {
    let mut session = link.open().await?;
    if !is_there(&mut session).await? {
        if !to_claim {
            return Ok(session);
        }
        create(&mut session).await?;
    }
    let secret = secret(&mut session).await?;
    let name = lock_name(&secret, schema);
    let patience = session.patience().to_string();
    let sql = "select cast(get_lock(?, ?) as signed)";
    let got: Vec<(Option<i64>,)> = session
        .rows("wait for the lock", sql, &[&name, &patience])
        .await?;
    match got.first() {
        Some((Some(1),)) => Ok(session),
        _ => Err(TenancyError::Unreachable(format!(
            "{}: wait for the lock: somebody else changes schema {schema:?}",
            session.endpoint
        ))),
    }
}

/// Whether claims have their place. A table of a version before is made whole.
async fn is_there(session: &mut Session) -> Result<bool, TenancyError> {
    let sql = "select count(distinct table_name),
            count(case when table_name = 'claims' and column_name = 'prefix' then 1 end)
        from information_schema.columns
        where table_schema = ? and table_name in ('claims', 'secret')";
    let found: Vec<(i64, i64)> = session.rows("look for the claims", sql, &[PLACE]).await?;
    match found.first() {
        Some((2, 1)) => Ok(true),
        Some((2, _)) => {
            let columns = COLUMNS.to_owned();
            match session.run("add columns to the claims", columns).await {
                // Somebody else was faster.
                Err(failure) if failure.number == DUPLICATE_COLUMN => Ok(true),
                done => Ok(done.map(|()| true)?),
            }
        }
        _ => Ok(false),
    }
}

async fn create(session: &mut Session) -> Result<(), TenancyError> {
    let sql = "select table_name from information_schema.tables
        where table_schema = ? and table_name not in ('claims', 'secret')";
    let others: Vec<(String,)> = session.rows("look for tables", sql, &[PLACE]).await?;
    if !others.is_empty() {
        return Err(TenancyError::Refused(format!(
            "the database {PLACE:?} holds tables but no claims: it is somebody else's, and \
             Steward needs that name"
        )));
    }
    let sql = format!(
        "create database if not exists {} character set utf8mb4 collate utf8mb4_bin",
        identifier(PLACE)
    );
    session.run("create the database of claims", sql).await?;
    for sql in TABLES {
        session.run("create the claims", sql.to_owned()).await?;
    }
    Ok(())
}

/// What names of locks begin with. Made once; of several who make it, the first counts.
async fn secret(session: &mut Session) -> Result<String, TenancyError> {
    let sql = "select text from steward.secret where number = 1";
    for _ in 0..2 {
        let found: Vec<(String,)> = session.rows("read the secret", sql, &[]).await?;
        if let Some((secret,)) = found.into_iter().next() {
            return Ok(secret);
        }
        let write = "insert ignore into steward.secret (number, text) values (1, ?)";
        let made = random_text();
        session
            .write("write the secret", write, &[Some(&made)])
            .await?;
    }
    Err(TenancyError::Other(format!(
        "{}: the secret of locks does not stay",
        session.endpoint
    )))
}

fn claim(row: Row) -> Result<Claim, TenancyError> {
    let (schema, user, uid, namespace, name, role, stage, prefix) = row;
    Ok(Claim {
        stage: stage_of(&schema, &stage)?,
        uid,
        namespace,
        name,
        schema,
        user,
        role,
        prefix,
        replicas: None,
    })
}

/// All claims, the oldest first.
pub async fn claims(session: &mut Session) -> Result<Vec<Claim>, TenancyError> {
    if !is_there(session).await? {
        return Ok(Vec::new());
    }
    let sql = "select `schema`, `user`, uid, namespace, name, role, stage, prefix
        from steward.claims order by number";
    let rows: Vec<Row> = session.rows("read claims", sql, &[]).await?;
    rows.into_iter().map(claim).collect()
}

/// The claims on either name.
pub async fn claims_on(session: &mut Session, asked: &Claim) -> Result<Vec<Claim>, TenancyError> {
    if !is_there(session).await? {
        return Ok(Vec::new());
    }
    let sql = "select `schema`, `user`, uid, namespace, name, role, stage, prefix
        from steward.claims where `schema` = ? or `user` = ? order by `schema` <> ?";
    let names = [&asked.schema, &asked.user, &asked.schema].map(String::as_str);
    let rows: Vec<Row> = session.rows("read a claim", sql, &names).await?;
    rows.into_iter().map(claim).collect()
}

/// Writes a claim; whether the names were free.
pub async fn insert(session: &mut Session, claim: &Claim) -> Result<bool, TenancyError> {
    let sql = "insert into steward.claims
            (`schema`, `user`, uid, namespace, name, role, stage, prefix)
        values (?, ?, ?, ?, ?, ?, ?, ?)";
    let values = [
        Some(claim.schema.as_str()),
        Some(&claim.user),
        Some(&claim.uid),
        Some(&claim.namespace),
        Some(&claim.name),
        claim.role.as_deref(),
        Some(claim.stage.as_str()),
        claim.prefix.as_deref(),
    ];
    match session.write("claim", sql, &values).await {
        Ok(()) => Ok(true),
        Err(failure) if failure.number == DUPLICATE => Ok(false),
        Err(failure) => Err(failure.error),
    }
}

/// Brings this claim to another stage.
pub async fn mark(session: &mut Session, claim: &Claim, to: Stage) -> Result<(), TenancyError> {
    let sql = "update steward.claims set stage = ? where `schema` = ? and uid = ? and stage = ?";
    let values = [to.as_str(), &claim.schema, &claim.uid, claim.stage.as_str()].map(Some);
    Ok(session.write("change the stage", sql, &values).await?)
}

/// Deletes this claim.
pub async fn delete(session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
    let sql = "delete from steward.claims where `schema` = ? and uid = ?";
    let values = [Some(claim.schema.as_str()), Some(&claim.uid)];
    Ok(session.write("release the claim", sql, &values).await?)
}
