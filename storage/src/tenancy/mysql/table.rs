//! kine's table. kine would make it itself, but with names of keys in a collation in which
//! capital letters are small ones: the objects `Admin` and `admin` would be one, and who asks
//! for the first would be given the second. A table that is there kine uses as it is.

use super::connection::Session;
use super::names::identifier;
use crate::tenancy::{Claim, TenancyError};

/// The names of keys, told apart byte by byte. etcd orders them so, too.
const NAME: &str = "name varchar(630) character set ascii collate ascii_bin";

/// What kine v0.16.4 makes, apart from that.
const REST: &str = "\
created int,
deleted int,
create_revision bigint unsigned,
prev_revision bigint unsigned,
lease int,
value mediumblob,
old_value mediumblob,
index kine_name_index (name),
index kine_name_id_index (name, id),
index kine_id_deleted_index (id, deleted),
index kine_prev_revision_index (prev_revision),
unique index kine_name_prev_revision_uindex (name, prev_revision)";

/// How the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Absent,
    /// As kine makes it.
    Folds,
    Exact,
}

impl Table {
    /// How it differs from what it should be.
    pub fn difference(self, claim: &Claim) -> Option<String> {
        let schema = &claim.schema;
        match self {
            Table::Absent => Some(format!("database {schema:?} has no table for kine")),
            Table::Folds => Some(format!(
                "in database {schema:?} keys with capital letters are those with small ones"
            )),
            Table::Exact => None,
        }
    }
}

/// Asks the server.
pub async fn find(session: &mut Session, claim: &Claim) -> Result<Table, TenancyError> {
    let sql = "select cast(collation_name as char) from information_schema.columns
        where table_schema = ? and table_name = 'kine' and column_name = 'name'";
    let found: Vec<(Option<String>,)> = session
        .rows("look at the table", sql, &[&claim.schema])
        .await?;
    Ok(match found.first() {
        None => Table::Absent,
        Some((Some(collation),)) if collation == "ascii_bin" => Table::Exact,
        Some(_) => Table::Folds,
    })
}

/// Makes it what it should be.
pub async fn mend(session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
    let table = format!("{}.kine", identifier(&claim.schema));
    let (what, sql) = match find(session, claim).await? {
        Table::Exact => return Ok(()),
        Table::Folds => (
            "tell capital letters from small ones",
            format!("alter table {table} modify {NAME}"),
        ),
        Table::Absent => (
            "create the table",
            format!(
                "create table if not exists {table} \
                 (id bigint unsigned not null auto_increment primary key, {NAME}, {REST}) \
                 engine = InnoDB"
            ),
        ),
    };
    Ok(session.run(what, sql).await?)
}
