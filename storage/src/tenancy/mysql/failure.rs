//! What the answers of MySQL and MariaDB mean.

use std::time::Duration;

use sqlx::mysql::MySqlDatabaseError;

use crate::tenancy::TenancyError;
use crate::tenancy::sql::endpoint::Endpoint;
use crate::tenancy::sql::{without_answer, words};

/// A name that is there already.
pub const DUPLICATE: u16 = 1062;
/// A column that is there already.
pub const DUPLICATE_COLUMN: u16 = 1060;
/// A connection that has ended by itself.
pub const NO_SUCH_THREAD: u16 = 1094;

/// A lock that was not had in time.
pub const LOCK_WAIT: u16 = 1205;

/// An error, with the number that the server gave it.
#[derive(Debug)]
pub struct Failure {
    /// 0 if the server said nothing.
    pub number: u16,
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
            sqlx::Error::Database(error) => error.try_downcast_ref::<MySqlDatabaseError>(),
            _ => None,
        };
        match database {
            None => Failure {
                number: 0,
                error: without_answer(error, text),
            },
            Some(said) => Failure {
                number: said.number(),
                error: meaning(said.number(), said.message(), text(&words(said.message()))),
            },
        }
    }

    /// More came than may.
    pub fn too_long(endpoint: &Endpoint, what: &str, most: usize) -> Self {
        Failure {
            number: 0,
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
            number: 0,
            error: TenancyError::Unreachable(format!("{endpoint}: {message}")),
        }
    }

    pub fn refused(endpoint: &Endpoint, message: &str) -> Self {
        Failure {
            number: 0,
            error: TenancyError::Refused(format!("{endpoint}: {message}")),
        }
    }

    /// Whether the server had accepted who is asking before it raised this: he has
    /// all the connections that he may, or no such database.
    pub fn after_authentication(&self) -> bool {
        matches!(self.number, 1044 | 1049 | 1203 | 1226)
    }

    /// Whether the server did not accept who is asking.
    pub fn is_wrong_password(&self) -> bool {
        matches!(self.number, 1045 | 1698)
    }

    /// Whether the account is locked, or its password has expired.
    pub fn is_suspended(&self) -> bool {
        matches!(self.number, 1820 | 1862 | 3118 | 3955 | 4150 | 4151)
    }
}

fn meaning(number: u16, message: &str, text: String) -> TenancyError {
    match number {
        1021 | 1114 => TenancyError::NoSpace(text),
        // The system's own number for a full disk.
        1026 | 1030 if message.contains("28") => TenancyError::NoSpace(text),
        1045 | 1130 | 1251 | 1698 | 3159 => TenancyError::Unauthenticated(text),
        1044 | 1095 | 1142 | 1143 | 1227 | 1370 | 1396 | 1410 => TenancyError::Refused(format!(
            "{text}; the administrator needs all privileges with GRANT OPTION, or at \
                 least those that Steward gives to tenants, and CREATE, DROP, CREATE USER, \
                 PROCESS, CONNECTION ADMIN and SELECT on mysql.*"
        )),
        1461 => TenancyError::Unreachable(format!(
            "{text}; tenants together keep more prepared statements than the server allows: \
             raise max_prepared_stmt_count"
        )),
        // Too many connections, a server that ends, a lock that was not had in time, a
        // server that only reads, a network that failed.
        1040
        | 1053
        | 1077..=1080
        | 1129
        | 1152..=1161
        | 1203
        | LOCK_WAIT
        | 1226
        | 1290
        | 1317
        | 1836
        | 1927
        | 4150
        | 4151 => TenancyError::Unreachable(text),
        _ => TenancyError::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let kind = |number: u16| meaning(number, "errno 28", "t".to_owned());
        assert!(matches!(kind(1045), TenancyError::Unauthenticated(_)));
        assert!(matches!(kind(1040), TenancyError::Unreachable(_)));
        assert!(matches!(kind(1021), TenancyError::NoSpace(_)));
        assert!(matches!(kind(1030), TenancyError::NoSpace(_)));
        assert!(matches!(kind(1227), TenancyError::Refused(_)));
        assert!(matches!(kind(1064), TenancyError::Other(_)));
        let many = kind(1461).to_string();
        assert!(many.contains("max_prepared_stmt_count"), "{many}");
    }
}
