//! What kine's table is to one kind of database, and the statements that it is read with.

use async_trait::async_trait;
use sqlx::FromRow;
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;

use crate::tenancy::TenancyError;

/// How a database says it.
pub struct Dialect {
    /// kine's table.
    pub table: String,
    /// The type of whole numbers of 64 bits in a cast.
    pub integer: &'static str,
    /// The type of texts in a cast.
    pub text: &'static str,
    /// The SHA-256 of an expression, as bytes.
    pub sha256: fn(&str) -> String,
    /// A parameter, counted from one.
    pub parameter: fn(usize) -> String,
    /// Makes the next row have a greater number than this.
    pub raise: fn(&str, u64) -> String,
    /// Bytes of a key, and whether they are more than ASCII.
    pub keys: Keys,
}

/// Which keys fit into the table.
#[derive(Clone, Copy)]
pub struct Keys {
    /// Bytes.
    pub longest: usize,
    /// Whether others than ASCII are.
    pub ascii: bool,
}

/// A value in a statement.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Text(&'a str),
    Integer(i64),
    Bytes(&'a [u8]),
}

/// A connection to the database with the table.
#[async_trait]
pub trait Statements: Send {
    /// Asks; the answer has so many bytes at most.
    async fn ask<T>(
        &mut self,
        what: &'static str,
        sql: String,
        values: &[Value<'_>],
        most: usize,
    ) -> Result<Vec<T>, TenancyError>
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, MySqlRow> + Send + Unpin;

    /// Changes something.
    async fn change(
        &mut self,
        what: &'static str,
        sql: String,
        values: &[Value<'_>],
    ) -> Result<(), TenancyError>;

    /// The same without values, for what cannot be prepared.
    async fn carry_out(&mut self, what: &'static str, sql: String) -> Result<(), TenancyError>;

    /// Says good-bye: a server tells of connections that end without.
    async fn close(self);
}
