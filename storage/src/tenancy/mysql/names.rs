//! Names and values inside of statements that take no parameters. Sessions run with an empty
//! `sql_mode`, in which these are the quotes.

use aws_lc_rs::digest;

use crate::tenancy::sql::names::{PLACE, Rules, admit};
use crate::tenancy::{Claim, Password, TenancyError};

/// MySQL's limit for names of databases.
const SCHEMA_LENGTH: usize = 64;
/// MariaDB's limit for names of users.
const USER_LENGTH: usize = 128;
/// MySQL's.
const MYSQL_USER_LENGTH: usize = 32;

/// A name, as it is.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text, as it is.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A user from anywhere.
pub fn account(user: &str) -> String {
    account_at(user, "%")
}

/// A user from hosts of this pattern.
pub fn account_at(user: &str, host: &str) -> String {
    format!("{}@{}", literal(user), literal(host))
}

/// The name of one database where a statement takes a pattern of names: without it
/// `a_b` would stand for `axb` too.
pub fn pattern(schema: &str) -> String {
    let mut pattern = String::new();
    for c in schema.chars() {
        if matches!(c, '_' | '%' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// How a user proves who it is, in statements that make or change one. MariaDB writes
/// these to its logs, so that it gets what it would store; MySQL leaves the password out
/// of them by itself.
pub fn identified(password: &Password, mariadb: bool) -> String {
    match mariadb {
        false => format!("identified by {}", literal(password.expose())),
        true => {
            let once = sha1(password.expose().as_bytes());
            let twice = hex::encode_upper(sha1(once.as_ref()));
            format!("identified via mysql_native_password using '*{twice}'")
        }
    }
}

fn sha1(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes)
}

/// Refuses names that nobody may have.
pub fn admit_names(claim: &Claim, administrator: &str) -> Result<(), TenancyError> {
    let rules = Rules {
        schema_length: SCHEMA_LENGTH,
        user_length: USER_LENGTH,
        reserved: &[
            "information_schema",
            "performance_schema",
            "mysql",
            "sys",
            "test",
            "root",
            "public",
            "none",
        ],
        reserved_prefixes: &["mysql.", "mariadb."],
        administrator,
    };
    admit(claim, &rules)
}

/// Refuses a user that this server cannot have.
pub fn admit_user(claim: &Claim, mariadb: bool) -> Result<(), TenancyError> {
    match claim.user.len() {
        length if mariadb || length <= MYSQL_USER_LENGTH => Ok(()),
        length => Err(TenancyError::Refused(format!(
            "the datastore user {:?} cannot be used: it has {length} characters, and MySQL \
             allows {MYSQL_USER_LENGTH}; MariaDB allows more",
            claim.user
        ))),
    }
}

/// The name of the lock on a schema. The beginning is a secret: names of locks are one
/// for all users of a server, and who knows one can hold it.
pub fn lock_name(secret: &str, schema: &str) -> String {
    let text = format!("{secret}/{schema}");
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    format!("{PLACE}/{}", &hex::encode(hash)[..40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_end_where_they_should() {
        assert_eq!(identifier("a`b"), "`a``b`");
        assert_eq!(literal("a'\\b"), "'a''\\\\b'");
        assert_eq!(account("u"), "'u'@'%'");
        assert_eq!(pattern("a_b%c\\d"), "a\\_b\\%c\\\\d");
        assert_eq!(lock_name("s", "a").len(), 48);
        assert_ne!(lock_name("s", "a"), lock_name("s", "b"));
    }

    /// As `SELECT PASSWORD('secret')` has it.
    #[test]
    fn hashes_are_those_of_the_server() {
        assert_eq!(
            identified(&Password::new("secret"), true),
            "identified via mysql_native_password using \
             '*14E65567ABDB5135D0CFD9A70B3032C179A49EE7'"
        );
        assert_eq!(
            identified(&Password::new("it's"), false),
            "identified by 'it''s'"
        );
    }
}
