//! What the answers of PostgreSQL mean.

use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use crate::tenancy::TenancyError;
use crate::tenancy::sql::endpoint::Endpoint;
use crate::tenancy::sql::{without_answer, words};

/// An error, with what the server said of it for programs.
#[derive(Debug)]
pub struct Failure {
    /// SQLSTATE, or nothing if the server said nothing.
    pub code: String,
    /// The function of the server that raised it. Tells apart what a code does not, and
    /// unlike the message it is in no language.
    pub routine: String,
    pub error: TenancyError,
}

impl From<Failure> for TenancyError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Failure {
    pub fn of(endpoint: &Endpoint, what: &str, error: &sqlx::Error) -> Self {
        let text = |message: &str| format!("{endpoint}: {what}: {message}");
        let database = match error {
            sqlx::Error::Database(error) => error.try_downcast_ref::<PgDatabaseError>(),
            _ => None,
        };
        let Some(said) = database else {
            return Failure {
                code: String::new(),
                routine: String::new(),
                error: without_answer(error, text),
            };
        };
        let mut message = words(said.message());
        // What stands in the way of a deletion is in the details alone.
        if let ("2BP01", Some(detail)) = (said.code(), said.detail()) {
            message = format!("{message}: {}", words(detail).replace('\n', ", "));
        }
        Failure {
            code: said.code().to_owned(),
            routine: said.routine().unwrap_or_default().to_owned(),
            error: meaning(said.code(), text(&message)),
        }
    }

    /// More came than may.
    pub fn too_long(endpoint: &Endpoint, what: &str, most: usize) -> Self {
        Failure {
            code: String::new(),
            routine: String::new(),
            error: TenancyError::Other(format!(
                "{endpoint}: {what}: the answer has more than {most} bytes"
            )),
        }
    }

    pub fn silence(endpoint: &Endpoint, what: &str, deadline: Duration) -> Self {
        Failure::unreachable(endpoint, &format!("{what}: no answer within {deadline:?}"))
    }

    pub fn unreachable(endpoint: &Endpoint, message: &str) -> Self {
        Failure {
            code: String::new(),
            routine: String::new(),
            error: TenancyError::Unreachable(format!("{endpoint}: {message}")),
        }
    }

    pub fn refused(endpoint: &Endpoint, message: &str) -> Self {
        Failure {
            code: String::new(),
            routine: String::new(),
            error: TenancyError::Refused(format!("{endpoint}: {message}")),
        }
    }

    /// Whether the server had accepted who is asking before it raised this.
    pub fn after_authentication(&self) -> bool {
        match self.code.as_str() {
            // No such role, or one that may not log in: said only to who was let in.
            "28000" | "53300" => self.routine == "InitializeSessionUserId",
            "3D000" | "42501" | "55000" => true,
            _ => false,
        }
    }

    /// Whether somebody else's transaction holds what was needed.
    pub fn is_held_up(&self) -> bool {
        // "tuple concurrently updated" has no code of its own.
        matches!(self.code.as_str(), "55P03" | "57014" | "40P01" | "XX000")
    }

    /// Whether the server did not accept who is asking.
    pub fn is_wrong_password(&self) -> bool {
        self.code == "28P01"
    }
}

fn meaning(code: &str, text: String) -> TenancyError {
    match (code, &code[..2.min(code.len())]) {
        ("53100", _) => TenancyError::NoSpace(text),
        ("42501", _) => TenancyError::Refused(format!(
            "{text}; the administrator needs to be a superuser, or to have CREATEDB and \
             CREATEROLE and to own what Steward works with"
        )),
        ("2BP01" | "55006", _) => TenancyError::Refused(text),
        ("53200", _) => TenancyError::Unreachable(format!(
            "{text}; tenants together hold more locks than the server has memory for: raise \
             max_locks_per_transaction"
        )),
        // A lock was not had in time; the server starts, stops, or has no more room for us.
        ("55P03" | "25006", _) | (_, "08" | "57" | "53") => TenancyError::Unreachable(text),
        (_, "28") => TenancyError::Unauthenticated(text),
        _ => TenancyError::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        let kind = |code: &str| meaning(code, "t".to_owned());
        assert!(matches!(kind("28P01"), TenancyError::Unauthenticated(_)));
        assert!(matches!(kind("57P03"), TenancyError::Unreachable(_)));
        assert!(matches!(kind("53300"), TenancyError::Unreachable(_)));
        assert!(matches!(kind("53100"), TenancyError::NoSpace(_)));
        assert!(matches!(kind("42501"), TenancyError::Refused(_)));
        assert!(matches!(kind("XX000"), TenancyError::Other(_)));
        assert!(matches!(kind(""), TenancyError::Other(_)));
        let many = kind("53200").to_string();
        assert!(many.contains("max_locks_per_transaction"), "{many}");
    }
}
