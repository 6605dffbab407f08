//! Passwords of tenants' users.

use std::fmt;

/// With what a tenant's user proves who it is, where the driver authenticates
/// by password. Printed as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password as the tenant's Secret has it.
    pub fn new(text: impl Into<String>) -> Self {
        Password(text.into())
    }

    /// For a connection, and for nothing that is printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(...)")
    }
}
