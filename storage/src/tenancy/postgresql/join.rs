//! The administrator as a member of a tenant's role.

use super::connection::Session;
use super::failure::Failure;
use super::names::identifier;

/// Only a member of a role may give it something or end its sessions, or a superuser.
pub(super) async fn join(session: &mut Session, user: &str) -> Result<(), Failure> {
    let sql = "select not pg_catalog.pg_has_role(current_user, oid, 'usage')
        from pg_catalog.pg_roles where rolname = $1";
    if session.holds("look at roles", sql, &[user]).await? {
        let sql = format!("grant {} to current_user", identifier(user));
        session.run("join the user's role", sql).await?;
    }
    Ok(())
}
