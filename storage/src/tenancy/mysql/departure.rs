//! Dropping a tenant's database, whatever still holds it.

use super::connection::Session;
use super::failure::LOCK_WAIT;
use super::names::identifier;
use crate::tenancy::{Claim, TenancyError};

/// Drops the database, whose user is gone with its connections.
///
/// # Errors
/// [`TenancyError::Refused`] if transactions were prepared (`XA PREPARE`) that nobody ended:
/// they outlive connection and user, and the server does not say whose they are.
pub async fn drop_database(session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
    // The server gives up before we do, at a lock of either kind, so that it says why.
    let patience = format!(
        "set session lock_wait_timeout = {0}, innodb_lock_wait_timeout = {0}",
        (session.patience() / 3).max(1)
    );
    session.run("set up the session", patience).await?;
    let sql = format!("drop database if exists {}", identifier(&claim.schema));
    match session.run("drop the database", sql).await {
        Err(failure) if failure.number == LOCK_WAIT => {
            let prepared = "xa recover".to_owned();
            match session.count("look for transactions", prepared).await {
                Ok(count) if count > 0 => Err(TenancyError::Refused(format!(
                    "{}: drop the database {:?}: something holds its tables, and the server \
                     has {count} prepared transactions, which stay until somebody ends them; \
                     list them by XA RECOVER FORMAT='SQL' (in MySQL XA RECOVER CONVERT XID), \
                     and end those that no other application needs by XA ROLLBACK",
                    session.endpoint, claim.schema
                ))),
                _ => Err(failure.error),
            }
        }
        done => Ok(done?),
    }
}
