//! Whether a server asks everybody for a password.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::tenancy::TenancyError;

/// The question leaves lines in the server's log that look like somebody who guesses
/// passwords, so it is not asked more often while the answer is good.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// What is said of [`Entrance::by_certificate`].
pub const BY_CERTIFICATE: &str = "The client certificate of the datastore alone lets one in as \
    the administrator, and tenants' pods get a copy of it; make the server ask for the \
    password too.";

/// What is answered to who wants to bring a tenant there.
pub const BY_CERTIFICATE_REFUSED: &str = "the client certificate of the datastore alone lets \
    one in as the administrator, and tenants' pods get a copy of it: make the server ask for \
    the password too (PostgreSQL: in pg_hba.conf \"scram-sha-256 clientcert=verify-ca\" instead \
    of \"cert\"), or take the certificate out of the DataStore";

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
    pub async fn entrance(
        &self,
        try_doors: impl Future<Output = Result<Entrance, TenancyError>>,
    ) -> Result<Entrance, TenancyError> {
        let mut known = self.0.lock().await;
        if let Some((since, entrance)) = *known
            && since.elapsed() < KNOWN_FOR
            && entrance.guarded
            && !entrance.by_certificate
        {
            return Ok(entrance);
        }
        let entrance = try_doors.await?;
        *known = Some((Instant::now(), entrance));
        Ok(entrance)
    }
}
