//! Whether the server asks everybody for a password.

use super::connection::{Link, Login};
use crate::tenancy::TenancyError;
use crate::tenancy::sql::endpoint::{Endpoint, random_text};
use crate::tenancy::sql::entrance::Entrance;

/// Tries with what is not right.
pub async fn try_doors(link: &Link) -> Result<Entrance, TenancyError> {
    let session = link.open().await?;
    let endpoint = &session.endpoint.clone();
    session.close().await;
    // Rules of the server name users and databases; whom it knows none of falls under those
    // that hold for tenants.
    let (user, database) = (nobody(), nobody());
    let administrator = &link.servers.administrator;
    let mut entrance = Entrance {
        guarded: !lets_in(link, endpoint, &user, &database, true).await?,
        by_certificate: false,
    };
    if lets_in(link, endpoint, administrator, "postgres", true).await? {
        let certificate = link.servers.certificate().is_some();
        entrance.by_certificate = certificate;
        entrance.guarded &=
            certificate && !lets_in(link, endpoint, administrator, "postgres", false).await?;
    }
    Ok(entrance)
}

/// A name that nobody has.
fn nobody() -> String {
    format!("steward-nobody-{}", random_text())
}

/// Whether this user is let in with a password that is not its own.
async fn lets_in(
    link: &Link,
    endpoint: &Endpoint,
    user: &str,
    database: &str,
    certificate: bool,
) -> Result<bool, TenancyError> {
    let login = Login {
        user,
        password: &random_text(),
        database,
        certificate,
    };
    match link.login(endpoint, &login).await {
        Ok(session) => {
            session.close().await;
            Ok(true)
        }
        Err(failure) if failure.after_authentication() => Ok(true),
        Err(failure) => match failure.error {
            TenancyError::Unauthenticated(_) => Ok(false),
            error => Err(error),
        },
    }
}
