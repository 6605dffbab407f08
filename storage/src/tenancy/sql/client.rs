//! What errors mean that come from no server.

use crate::tenancy::TenancyError;

/// The connection failed, or the two sides do not accept each other's certificates.
pub fn without_answer(error: &sqlx::Error, text: impl Fn(&str) -> String) -> TenancyError {
    match error {
        sqlx::Error::Io(error) => {
            let tls = error
                .get_ref()
                .and_then(|e| e.downcast_ref::<rustls::Error>());
            match tls {
                Some(error) => TenancyError::Unauthenticated(text(&error.to_string())),
                None => TenancyError::Unreachable(text(&error.to_string())),
            }
        }
        sqlx::Error::Tls(error) => TenancyError::Unauthenticated(text(&error.to_string())),
        sqlx::Error::Configuration(error) => TenancyError::Refused(text(&error.to_string())),
        other => TenancyError::Other(text(&other.to_string())),
    }
}
