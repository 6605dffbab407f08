//! What keeps a tenant's database and role from being dropped, and how it is taken away:
//! transactions that were prepared and never ended, and rights that other tenants gave to
//! the role in databases of their own.

use super::connection::{Link, Session};
use super::failure::Failure;
use super::join::join;
use super::names::{identifier, literal};
use super::place;
use crate::tenancy::{Claim, TenancyError};

/// A tenant can give again what is taken away while we go round.
const ROUNDS: usize = 3;

/// Drops the database with all that runs in it.
pub async fn drop_database(
    link: &Link,
    session: &mut Session,
    claim: &Claim,
) -> Result<(), TenancyError> {
    let sql = "select true from pg_catalog.pg_prepared_xacts where database = $1 limit 1";
    if session
        .holds("look for transactions", sql, &[&claim.schema])
        .await?
    {
        let mut inside = link.enter(&session.endpoint, &claim.schema).await?;
        let ended = end_prepared(&mut inside).await;
        inside.close().await;
        ended?;
    }
    let database = identifier(&claim.schema);
    let sql = format!("drop database if exists {database} with (force)");
    Ok(session.run("drop the database", sql).await?)
}

/// Drops the role, whose database is gone.
pub async fn drop_role(
    link: &Link,
    session: &mut Session,
    claim: &Claim,
) -> Result<(), TenancyError> {
    let sql = format!("drop role if exists {}", identifier(&claim.user));
    for _ in 1..ROUNDS {
        match session.run("drop the user", sql.clone()).await {
            Err(failure) if failure.code == "2BP01" => {}
            done => return Ok(done?),
        }
        take_rights_away(link, session, claim).await?;
    }
    Ok(session.run("drop the user", sql).await?)
}

/// Wherever something names the role: which database, none for what all share, and whether
/// the role owns something there.
const NAMED: &str = "\
select coalesce(d.datname::text, ''), bool_or(s.deptype = 'o')
from pg_catalog.pg_shdepend s
join pg_catalog.pg_roles r on r.oid = s.refobjid
left join pg_catalog.pg_database d on d.oid = s.dbid
where s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and r.rolname = $1
group by 1 order by 1";

async fn take_rights_away(
    link: &Link,
    session: &mut Session,
    claim: &Claim,
) -> Result<(), TenancyError> {
    join(session, &claim.user).await?;
    let named: Vec<(String, bool)> = session
        .rows("look at rights", NAMED, &[&claim.user])
        .await?;
    let claims = place::claims(session).await?;
    let drop_owned = format!("drop owned by {}", identifier(&claim.user));
    for (database, owns) in named {
        if database.is_empty() {
            session.run("take rights away", drop_owned.clone()).await?;
            continue;
        }
        // Only a superuser gives somebody else something to own: it is not ours to delete.
        if owns {
            return Err(TenancyError::Refused(format!(
                "user {:?} owns something in database {database:?}, which is not its own: give \
                 it to another owner",
                claim.user
            )));
        }
        let holder = claims.iter().find(|claim| claim.schema == database);
        let holder = holder.map(|claim| claim.user.as_str());
        if let Some(holder) = holder {
            join(session, holder).await?;
        }
        let mut there = match link.enter(&session.endpoint, &database).await {
            Err(failure) if failure.code == "3D000" => continue,
            there => there?,
        };
        let taken = take_away_there(&mut there, &drop_owned, holder).await;
        there.close().await;
        taken?;
    }
    Ok(())
}

/// A tenant whose transaction holds what is needed loses that transaction.
async fn take_away_there(
    there: &mut Session,
    drop_owned: &str,
    holder: Option<&str>,
) -> Result<(), TenancyError> {
    let sql = format!(
        "set lock_timeout = {}; {drop_owned}",
        (there.deadline.as_millis() / 3).max(1)
    );
    let taken = there.run("take rights away", sql.clone()).await;
    let (Err(failure), Some(holder)) = (&taken, holder) else {
        return Ok(taken?);
    };
    if !failure.is_held_up() {
        return Ok(taken?);
    }
    end_prepared(there).await?;
    let end = format!(
        "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity \
         where usename = {} and xact_start is not null",
        literal(holder)
    );
    there.run("end transactions", end).await?;
    Ok(there.run("take rights away", sql).await?)
}

/// Rolls back what was prepared in this database. kine prepares nothing.
pub async fn end_prepared(inside: &mut Session) -> Result<(), Failure> {
    let sql = "select gid, owner::text from pg_catalog.pg_prepared_xacts
        where database = current_database()";
    let found: Vec<(String, String)> = inside.rows("look for transactions", sql, &[]).await?;
    for (gid, owner) in found {
        // Only its owner may, or a superuser.
        join(inside, &owner).await?;
        let role = format!("set role {}", identifier(&owner));
        inside.run("become the user", role).await?;
        let sql = format!("rollback prepared {}", literal(&gid));
        let ended = inside.run("roll back", sql).await;
        inside
            .run("be the administrator", "reset role".to_owned())
            .await?;
        match ended {
            // Its owner was faster.
            Err(failure) if failure.code == "42704" => {}
            ended => ended?,
        }
    }
    Ok(())
}
