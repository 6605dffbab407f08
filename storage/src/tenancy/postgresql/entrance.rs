//! Whether the server asks everybody for a password.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connection::{Link, Login};
use crate::tenancy::TenancyError;
use crate::tenancy::sql::endpoint::{Endpoint, random_text};

/// The question leaves lines in the server's log, so it is not asked more often.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// Nobody without the right password, or the certificate.
    pub guarded: bool,
    /// The client certificate of the datastore alone makes one the administrator.
    pub by_certificate: bool,
}

/// Remembers what was good.
#[derive(Default)]
pub struct Guard(Mutex<Option<(Instant, Entrance)>>);

impl Guard {
    /// Who is let in, of late.
    pub async fn entrance(&self, link: &Link) -> Result<Entrance, TenancyError> {
        let mut known = self.0.lock().await;
        if let Some((since, entrance)) = *known {
            if since.elapsed() < KNOWN_FOR && entrance.guarded {
                return Ok(entrance);
            }
        }
        let session = link.open().await?;
        let endpoint = session.endpoint.clone();
        session.close().await;
        let entrance = try_doors(link, &endpoint).await?;
        *known = Some((Instant::now(), entrance));
        Ok(entrance)
    }
}

async fn try_doors(link: &Link, endpoint: &Endpoint) -> Result<Entrance, TenancyError> {
    // Rules of the server name users and databases; whom it knows none of falls under those
    // that hold for tenants.
    let (user, database) = (nobody(), nobody());
    let administrator = &link.administrator;
    let mut entrance = Entrance {
        guarded: !lets_in(link, endpoint, &user, &database, true).await?,
        by_certificate: false,
    };
    if lets_in(link, endpoint, administrator, "postgres", true).await? {
        let certificate = link.has_certificate();
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
