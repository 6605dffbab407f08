//! The database with the claims, and the claims.

use super::connection::{Link, Session};
use super::names::{identifier, literal};
use crate::tenancy::sql::endpoint::lock_number;
use crate::tenancy::sql::names::PLACE;
use crate::tenancy::sql::names::stage_of;
use crate::tenancy::{Claim, Stage, TenancyError};

/// Who creates the place.
const CREATING: &str = "steward/place";

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

const TABLE: &str = "\
create schema if not exists steward;
create table if not exists steward.claims (
    number bigint generated always as identity unique,
    schema text collate \"C\" primary key,
    \"user\" text collate \"C\" not null unique,
    uid text collate \"C\" not null,
    namespace text not null,
    name text not null,
    role text,
    begun boolean not null default false,
    stage text not null default 'serving',
    prefix text
)";

/// What tables of versions before lack.
const COLUMNS: &str = "\
alter table steward.claims
    add column if not exists stage text not null default 'serving',
    add column if not exists prefix text";

/// How the table of claims is.
enum Table {
    Absent,
    Old,
    Whole,
}

/// A connection to the place, which is made unless it is there.
pub async fn enter(link: &Link) -> Result<Session, TenancyError> {
    let mut session = link.open().await?;
    if !session.in_place {
        let created = async {
            lock(&mut session, CREATING).await?;
            create_database(&mut session).await
        }
        .await;
        let endpoint = session.endpoint.clone();
        session.close().await;
        created?;
        session = link.enter(&endpoint, PLACE).await?;
    }
    if !has_table(&mut session).await? {
        create_table(&mut session).await?;
    }
    close_to_public(&mut session).await?;
    Ok(session)
}

/// Waits for the lock on this name, which ends with the session.
pub async fn lock(session: &mut Session, name: &str) -> Result<(), TenancyError> {
    let number = lock_number(name);
    let sql = format!("select pg_catalog.pg_advisory_lock({number})");
    Ok(session.run("wait for the lock", sql).await?)
}

async fn create_database(session: &mut Session) -> Result<(), TenancyError> {
    let there = "select true from pg_catalog.pg_database where datname = $1";
    if session
        .holds("look for a database", there, &[PLACE])
        .await?
    {
        return Ok(());
    }
    let name = identifier(PLACE);
    let sql = format!(
        "create database {name} template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'"
    );
    Ok(session.run("create the database of claims", sql).await?)
}

/// Whether there are claims. A table of a version before is made whole.
async fn has_table(session: &mut Session) -> Result<bool, TenancyError> {
    match table(session).await? {
        Table::Absent => Ok(false),
        Table::Whole => Ok(true),
        Table::Old => {
            let columns = COLUMNS.to_owned();
            session.run("add columns to the claims", columns).await?;
            Ok(true)
        }
    }
}

async fn table(session: &mut Session) -> Result<Table, TenancyError> {
    let sql = "select pg_catalog.count(*), pg_catalog.count(*) filter (where a.attname = 'prefix')
        from pg_catalog.pg_attribute a
        where a.attrelid = pg_catalog.to_regclass('steward.claims') and not a.attisdropped";
    let found: Vec<(i64, i64)> = session.rows("look for the claims", sql, &[]).await?;
    Ok(match found.first() {
        None | Some((0, _)) => Table::Absent,
        Some((_, 0)) => Table::Old,
        Some(_) => Table::Whole,
    })
}

async fn create_table(session: &mut Session) -> Result<(), TenancyError> {
    lock(session, CREATING).await?;
    let sql = "select true from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'steward')
        limit 1";
    if session.holds("look for tables", sql, &[]).await? {
        return Err(TenancyError::Refused(format!(
            "the database {PLACE:?} holds tables but no claims: it is somebody else's, and \
             Steward needs that name"
        )));
    }
    session.run("create the claims", TABLE.to_owned()).await?;
    let sql = format!(
        "select pg_catalog.pg_advisory_unlock({})",
        lock_number(CREATING)
    );
    Ok(session.run("give the lock back", sql).await?)
}

/// Everybody may enter the databases that a server comes with: tenants could meet there,
/// leave things, and keep `template1` from being copied.
async fn close_to_public(session: &mut Session) -> Result<(), TenancyError> {
    let open: Vec<(String, bool)> = session.rows("look for open databases", OPEN, &[]).await?;
    let ours = |name: &str| name == PLACE || OURS_TO_CLOSE.contains(&name);
    for (name, may) in open {
        if may && ours(&name) {
            let sql = format!("revoke all on database {} from public", identifier(&name));
            session.run("close a database", sql).await?;
        } else if name == PLACE {
            return Err(TenancyError::Refused(format!(
                "everybody may enter the database {PLACE:?}, and the administrator may not \
                 change that: revoke all on database {PLACE} from public"
            )));
        }
    }
    Ok(())
}

/// What every server comes with, apart from `template0`, which nobody enters.
pub const OURS_TO_CLOSE: [&str; 2] = ["postgres", "template1"];

/// Databases that everybody may enter or make temporary tables in, and whether we may
/// change that.
pub const OPEN: &str = "\
select datname::text, pg_catalog.pg_has_role(datdba, 'usage')
from pg_catalog.pg_database
where datallowconn
  and (pg_catalog.has_database_privilege('public', oid, 'connect')
    or pg_catalog.has_database_privilege('public', oid, 'temporary'))
order by datname";

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
    if !session.in_place || !has_table(session).await? {
        return Ok(Vec::new());
    }
    let sql = "select schema, \"user\", uid, namespace, name, role, stage, prefix
        from steward.claims order by number";
    let rows: Vec<Row> = session.rows("read claims", sql, &[]).await?;
    rows.into_iter().map(claim).collect()
}

/// The claims on either name.
pub async fn claims_on(session: &mut Session, asked: &Claim) -> Result<Vec<Claim>, TenancyError> {
    if !session.in_place || !has_table(session).await? {
        return Ok(Vec::new());
    }
    let sql = "select schema, \"user\", uid, namespace, name, role, stage, prefix
        from steward.claims where schema = $1 or \"user\" = $2 order by schema <> $1";
    let names = [asked.schema.as_str(), asked.user.as_str()];
    let rows: Vec<Row> = session.rows("read a claim", sql, &names).await?;
    rows.into_iter().map(claim).collect()
}

/// Writes a claim; whether the names were free.
pub async fn insert(session: &mut Session, claim: &Claim) -> Result<bool, TenancyError> {
    let sql = "insert into steward.claims 
            (schema, \"user\", uid, namespace, name, role, stage, prefix)
        values ($1, $2, $3, $4, $5, nullif($6, ''), $7, nullif($8, '')) on conflict do nothing returning true";
    let role = claim.role.as_deref().unwrap_or_default();
    let values = [
        &claim.schema,
        &claim.user,
        &claim.uid,
        &claim.namespace,
        &claim.name,
    ];
    let mut values: Vec<&str> = values.into_iter().map(String::as_str).collect();
    values.push(role);
    values.push(claim.stage.as_str());
    values.push(claim.prefix.as_deref().unwrap_or_default());
    Ok(session.holds("claim", sql, &values).await?)
}

/// Whether the table of this tenant was ever seen.
pub async fn began(session: &mut Session, claim: &Claim) -> Result<bool, TenancyError> {
    let sql = "select begun from steward.claims where schema = $1 and uid = $2";
    let names = [claim.schema.as_str(), claim.uid.as_str()];
    Ok(session.holds("read a claim", sql, &names).await?)
}

/// Notes whether the table of this tenant was seen, if that is news.
pub async fn note(session: &mut Session, claim: &Claim, seen: bool) -> Result<(), TenancyError> {
    if began(session, claim).await? == seen {
        return Ok(());
    }
    let sql = format!(
        "update steward.claims set begun = {seen} where schema = {} and uid = {}",
        literal(&claim.schema),
        literal(&claim.uid)
    );
    Ok(session.run("note that there is data", sql).await?)
}

/// Brings this claim to another stage.
pub async fn mark(session: &mut Session, claim: &Claim, to: Stage) -> Result<(), TenancyError> {
    let sql = format!(
        "update steward.claims set stage = {} where schema = {} and uid = {} and stage = {}",
        literal(to.as_str()),
        literal(&claim.schema),
        literal(&claim.uid),
        literal(claim.stage.as_str())
    );
    Ok(session.run("change the stage", sql).await?)
}

/// Deletes this claim.
pub async fn delete(session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
    let sql = format!(
        "delete from steward.claims where schema = {} and uid = {}",
        literal(&claim.schema),
        literal(&claim.uid)
    );
    Ok(session.run("release the claim", sql).await?)
}
