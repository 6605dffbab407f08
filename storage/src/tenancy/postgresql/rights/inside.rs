//! Rights inside of a tenant's database.

use super::Repair;
use super::found::names;
use super::keeper::reader;
use crate::tenancy::postgresql::connection::Session;
use crate::tenancy::postgresql::names::{KEEPER, identifier};
use crate::tenancy::{Claim, Stage, TenancyError};

/// How rights inside of the database differ from those of the stage, asked by the
/// administrator there.
pub async fn repairs_inside(
    session: &mut Session,
    claim: &Claim,
) -> Result<Vec<Repair>, TenancyError> {
    match claim.stage {
        Stage::Serving => repairs_of_owner(session, claim).await,
        Stage::Frozen => repairs_of_reader(session, claim).await,
        // The user does not get there.
        Stage::Incoming | Stage::Left => Ok(Vec::new()),
    }
}

/// What the user of a frozen tenant may do beside reading.
async fn repairs_of_reader(
    session: &mut Session,
    claim: &Claim,
) -> Result<Vec<Repair>, TenancyError> {
    let user = [claim.user.as_str()];
    let both = [claim.user.as_str(), KEEPER];
    let found: Vec<(bool, bool, bool)> = session.rows("look at rights", READER, &both).await?;
    let mut repairs = Vec::new();
    let exact = matches!(found.first(), Some((true, false, true)));
    let makes = session.holds("look at schema public", MAKER, &user).await?;
    if !exact || makes {
        let why = format!(
            "user {:?} does not have the right to read alone",
            claim.user
        );
        repairs.push(Repair::new(why, reader(claim)));
    }
    Ok(repairs)
}

/// What the user of a tenant that serves lacks.
async fn repairs_of_owner(
    session: &mut Session,
    claim: &Claim,
) -> Result<Vec<Repair>, TenancyError> {
    let user = identifier(&claim.user);
    let mut repairs = Vec::new();
    let parameters = [claim.user.as_str()];
    let rights: Vec<(bool,)> = session
        .rows("look at schema public", INSIDE, &parameters)
        .await?;
    match rights.first() {
        None => repairs.push(Repair::new(
            "there is no schema public",
            format!("create schema public; grant usage, create on schema public to {user}"),
        )),
        Some((false,)) => repairs.push(Repair::new(
            format!(
                "user {:?} may not create tables in its database",
                claim.user
            ),
            format!("grant usage, create on schema public to {user}"),
        )),
        Some((true,)) => {}
    }
    let functions = names(session.rows("look at locks", LOCKS, &parameters).await?);
    if !functions.is_empty() {
        repairs.push(Repair::new(
            format!("user {:?} may take locks by number", claim.user),
            format!(
                "revoke execute on function {} from public, {user}",
                functions.join(", ")
            ),
        ));
    }
    let tables: Vec<(String, String)> = session.rows("look at tables", TABLES, &parameters).await?;
    for (name, kind) in tables {
        repairs.push(Repair::new(
            format!("user {:?} does not own {kind} {name:?}", claim.user),
            format!("alter {kind} public.{} owner to {user}", identifier(&name)),
        ));
    }
    Ok(repairs)
}

/// Whether the user reads kine's table, whether it can do more with it, and whether the keeper
/// owns it.
const READER: &str = "\
select pg_catalog.has_table_privilege(r.oid, c.oid, 'select'),
       c.relowner = r.oid
       or pg_catalog.has_table_privilege(r.oid, c.oid,
              'insert, update, delete, truncate, references, trigger')
       or pg_catalog.has_any_column_privilege(r.oid, c.oid, 'insert, update, references'),
       exists (select from pg_catalog.pg_roles k
               where k.oid = c.relowner and k.rolname = $2)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace, pg_catalog.pg_roles r
where n.nspname = 'public' and c.relname = 'kine' and r.rolname = $1";

/// Whether the user was given the right to make tables.
const MAKER: &str = "\
select true from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
join pg_catalog.pg_roles r on r.oid = a.grantee
where n.nspname = 'public' and r.rolname = $1 and a.privilege_type = 'CREATE' limit 1";

const INSIDE: &str = "\
select pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')
   and pg_catalog.has_schema_privilege(r.oid, n.oid, 'create')
from pg_catalog.pg_namespace n, pg_catalog.pg_roles r
where n.nspname = 'public' and r.rolname = $1";

/// Functions that take memory for locks which all databases share, a million in one
/// statement. Only a superuser takes them from a tenant.
const LOCKS: &str = "\
select 'pg_catalog.' || p.oid::pg_catalog.regprocedure::text from pg_catalog.pg_proc p
where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
  and p.proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$'
  and pg_catalog.has_function_privilege($1, p.oid, 'execute')
  and exists (select from pg_catalog.pg_roles a where a.rolname = current_user and a.rolsuper)
order by 1";

/// kine's table, as a restored copy may bring it.
const TABLES: &str = "\
select c.relname::text, case c.relkind when 'S' then 'sequence' else 'table' end
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_roles r on r.oid = c.relowner
where n.nspname = 'public' and r.rolname <> $1
  and (c.relname = 'kine' and c.relkind in ('r', 'p')
    or c.relname = 'kine_id_seq' and c.relkind = 'S'
       and not exists (select from pg_catalog.pg_depend p
                       where p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                         and p.objid = c.oid and p.deptype in ('a', 'i')))
order by c.relkind";
