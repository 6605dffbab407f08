//! The role that owns the tables of tenants that do not write.

use crate::tenancy::postgresql::connection::Session;
use crate::tenancy::postgresql::join::join;
use crate::tenancy::postgresql::names::{KEEPER, identifier};
use crate::tenancy::{Claim, TenancyError};

/// Makes the user one that reads, once nobody writes any more: what writes has the table
/// locked from before its rights are looked at to the end of its transaction. The keeper is
/// there, and whoever runs this is a member of it and of the user.
pub fn reader(claim: &Claim) -> String {
    let user = identifier(&claim.user);
    format!(
        "begin; \
         lock table public.kine in access exclusive mode; \
         grant create on schema public to {KEEPER}; \
         alter table public.kine owner to {KEEPER}; \
         revoke create on schema public from {KEEPER}; \
         revoke all on table public.kine from public, {user} cascade; \
         grant select on table public.kine to {user}; \
         revoke create on schema public from {user} cascade; \
         commit"
    )
}

/// Makes the keeper, unless it is there, and joins it.
pub async fn provide_keeper(session: &mut Session) -> Result<(), TenancyError> {
    let there = "select true from pg_catalog.pg_roles where rolname = $1";
    if !session
        .holds("look for the keeper", there, &[KEEPER])
        .await?
    {
        let made = session.run(
            "create the keeper",
            format!(
                "create role {KEEPER} nologin nosuperuser nocreatedb nocreaterole noreplication \
                 nobypassrls noinherit"
            ),
        );
        match made.await {
            // Somebody was faster: it exists, or is being made.
            Err(failure) if matches!(failure.code.as_str(), "42710" | "23505") => {}
            made => made?,
        }
    }
    if session
        .holds("look at the keeper", POWERFUL, &[KEEPER])
        .await?
    {
        return Err(TenancyError::Refused(format!(
            "role {KEEPER:?}, which owns the tables of tenants while they are moved, has rights of \
             its own, which tenants could use: take them away (alter role {KEEPER} nologin \
             nosuperuser nocreatedb nocreaterole noreplication nobypassrls), and its memberships"
        )));
    }
    Ok(join(session, KEEPER).await?)
}

/// Whether the keeper can do anything, by itself or as a member of others. Roles of tenants, who
/// may have made it a member of theirs, can nothing of this.
const POWERFUL: &str = "\
select true from pg_catalog.pg_roles k, pg_catalog.pg_roles r
where k.rolname = $1
  and pg_catalog.pg_has_role(k.oid, r.oid, 'member')
  and (r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls
       or r.oid = k.oid and r.rolcanlogin
       or r.rolname like 'pg\\_%')
limit 1";
