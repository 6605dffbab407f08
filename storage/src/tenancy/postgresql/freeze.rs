//! A tenant's user that can read and no longer write, whatever it has open.
//!
//! Rights are looked at when a statement begins to run, also where it was prepared long ago,
//! and what writes has locked the table before. So rights are changed under a lock of the
//! table that nobody shares: what had begun to write is over then, and what comes later is
//! refused.

use super::connection::Session;
use super::failure::Failure;
use super::join::join;
use super::names::literal;
use super::{contents, departure, rights};
use crate::tenancy::{Claim, TenancyError};

/// How long others may hold the table, in milliseconds. The tenant's transactions that hold
/// it longer are ended.
const PATIENCE: u32 = 700;
/// New transactions can come in between.
const ROUNDS: usize = 4;

/// Takes everything but reading from the user, in the tenant's database.
pub async fn freeze(inside: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
    // Without it there would be nothing that keeps kine from making one, and writing.
    if !rights::has_table(inside).await? {
        contents::make_table(inside).await?;
    }
    join(inside, &claim.user).await?;
    rights::provide_keeper(inside).await?;
    let patience = format!("set lock_timeout = {PATIENCE}");
    inside.run("set up the session", patience).await?;
    for _ in 1..ROUNDS {
        match attempt(inside, claim).await {
            Err(failure) if failure.is_held_up() => end_holders(inside, claim).await?,
            done => return Ok(done?),
        }
    }
    Ok(attempt(inside, claim).await?)
}

async fn attempt(inside: &mut Session, claim: &Claim) -> Result<(), Failure> {
    let done = inside.run("freeze the table", rights::reader(claim)).await;
    if done.is_err() {
        // What fails is not left open.
        let _ = inside.run("roll back", "rollback".to_owned()).await;
    }
    done
}

/// Ends transactions of the tenant that hold the table.
async fn end_holders(inside: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
    departure::end_prepared(inside).await?;
    let sql = format!(
        "select pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a \
         where a.usename = {} and exists (select from pg_catalog.pg_locks l \
             where l.pid = a.pid and l.granted \
             and l.relation = pg_catalog.to_regclass('public.kine'))",
        literal(&claim.user)
    );
    Ok(inside.run("end transactions", sql).await?)
}
