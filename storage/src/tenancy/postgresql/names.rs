//! Names and values inside of statements that take no parameters.

use crate::tenancy::sql::names::{Rules, admit};
use crate::tenancy::{Claim, TenancyError};

/// Owns the tables of frozen tenants, and may do nothing. It must be nobody with rights: what a
/// tenant has made for its table, such as a function that an index is of, is run as the table's
/// owner when the server analyzes it.
pub const KEEPER: &str = "steward_keeper";
/// Longer names are cut off by the server.
const LENGTH: usize = 63;

/// A name, as it is.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, as it is, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

/// Refuses names that nobody may have.
pub fn admit_names(claim: &Claim, administrator: &str) -> Result<(), TenancyError> {
    let rules = Rules {
        schema_length: LENGTH,
        user_length: LENGTH,
        reserved: &[
            "postgres",
            "template0",
            "template1",
            "public",
            "none",
            KEEPER,
        ],
        reserved_prefixes: &["pg_"],
        administrator,
    };
    admit(claim, &rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_end_where_they_should() {
        assert_eq!(
            identifier("a\"; drop database b; --"),
            "\"a\"\"; drop database b; --\""
        );
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'"), " E'\\\\'''");
    }
}
