//! kine's table in PostgreSQL, as kine v0.16.4 makes it, and how its contents are read and
//! written.

use async_trait::async_trait;
use sqlx::FromRow;
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;

use super::connection::{Link, Login, Session};
use super::failure::Failure;
use super::names::literal;
use crate::tenancy::contents::kine::{Dialect, Keys, Statements, Value};
use crate::tenancy::{Claim, Password, TenancyError};

/// What kine makes. It finds all of it, and makes nothing more.
const TABLE: &str = "\
create table if not exists public.kine (
    id bigserial primary key,
    name text collate \"C\",
    created integer,
    deleted integer,
    create_revision bigint,
    prev_revision bigint,
    lease integer,
    value bytea,
    old_value bytea
);
create index if not exists kine_name_index on public.kine (name);
create index if not exists kine_name_id_index on public.kine (name, id);
create index if not exists kine_id_deleted_index on public.kine (id, deleted);
create index if not exists kine_prev_revision_index on public.kine (prev_revision);
create unique index if not exists kine_name_prev_revision_uindex on public.kine
    (name, prev_revision);
create index if not exists kine_list_query_index on public.kine (name, id desc, deleted)";

/// Makes the table in the database that the session is in.
pub async fn make_table(inside: &mut Session) -> Result<(), Failure> {
    inside.run("create the table", TABLE.to_owned()).await
}

/// Everything is read in the order of an index, a page at a time. Without statistics, which a
/// table that was just filled does not have, the server would sort all of it for each page.
pub async fn plan_by_indexes(inside: &mut Session) -> Result<(), Failure> {
    let others = [
        "seqscan",
        "bitmapscan",
        "hashjoin",
        "mergejoin",
        "hashagg",
        "sort",
    ];
    let off = others.map(|way| format!("set enable_{way} = off"));
    inside.run("set up the session", off.join("; ")).await
}

/// Reads with the tenant's own rights: a view or a policy that it made in its database runs
/// with no others.
pub async fn enter_as_tenant(
    link: &Link,
    at: &Session,
    claim: &Claim,
    password: &Password,
) -> Result<Session, TenancyError> {
    let login = Login {
        user: &claim.user,
        password: password.expose(),
        database: &claim.schema,
        certificate: true,
    };
    Ok(link.login(&at.endpoint, &login).await?)
}

/// Ends what other connections of the administrator do in the database: who is late with a
/// write has to ask for the claim again.
pub async fn end_ours(session: &mut Session, claim: &Claim) -> Result<(), Failure> {
    let sql = format!(
        "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity \
         where datname = {} and usename = current_user and pid <> pg_catalog.pg_backend_pid()",
        literal(&claim.schema)
    );
    session.run("end connections", sql).await?;
    let left = "select true from pg_catalog.pg_stat_activity where datname = $1
        and usename = current_user and pid <> pg_catalog.pg_backend_pid() limit 1";
    let deadline = tokio::time::Instant::now() + session.deadline;
    while session
        .holds("look at connections", left, &[&claim.schema])
        .await?
    {
        if tokio::time::Instant::now() > deadline {
            return Err(Failure::unreachable(
                &session.endpoint,
                "connections to the tenant's database do not end",
            ));
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(())
}

/// How PostgreSQL says it.
pub fn dialect() -> Dialect {
    Dialect {
        table: "public.kine".to_owned(),
        integer: "bigint",
        text: "text",
        sha256: |value| format!("pg_catalog.sha256({value})"),
        parameter: |number| format!("${number}"),
        raise: |table, floor| {
            format!(
                "select pg_catalog.setval(pg_catalog.pg_get_serial_sequence('{table}', 'id'), \
                 {floor})"
            )
        },
        keys: Keys {
            // An entry of an index has to fit into a page.
            longest: 2000,
            ascii: false,
        },
    }
}

#[async_trait]
impl Statements for Session {
    async fn ask<T>(
        &mut self,
        what: &'static str,
        sql: String,
        values: &[Value<'_>],
        most: usize,
    ) -> Result<Vec<T>, TenancyError>
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, MySqlRow> + Send + Unpin,
    {
        let before = std::mem::replace(&mut self.most, most);
        let answer = Session::ask(self, what, sql, values).await;
        self.most = before;
        Ok(answer?)
    }

    async fn change(
        &mut self,
        what: &'static str,
        sql: String,
        values: &[Value<'_>],
    ) -> Result<(), TenancyError> {
        Ok(Session::change(self, what, sql, values).await?)
    }

    async fn carry_out(&mut self, what: &'static str, sql: String) -> Result<(), TenancyError> {
        Ok(self.run(what, sql).await?)
    }

    async fn close(self) {
        Session::close(self).await;
    }
}
