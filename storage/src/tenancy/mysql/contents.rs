//! How the contents of kine's table are read and written in MySQL and MariaDB.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::FromRow;
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use tokio::time::Instant;

use super::connection::{Link, Login, Session};
use super::failure::{Failure, NO_SUCH_THREAD};
use super::names::identifier;
use crate::tenancy::contents::kine::{Dialect, Keys, Statements, Value};
use crate::tenancy::{Claim, Password, TenancyError};

/// Reads with the tenant's own rights.
pub async fn enter_as_tenant(
    link: &Link,
    at: &Session,
    claim: &Claim,
    password: &Password,
) -> Result<Session, TenancyError> {
    let login = Login {
        user: &claim.user,
        password: password.expose(),
        database: Some(&claim.schema),
        certificate: true,
    };
    Ok(link.session(&at.endpoint, &login).await?)
}

/// Makes the connection one to the tenant's database, as which others find it.
pub async fn enter(session: &mut Session, claim: &Claim) -> Result<(), Failure> {
    let sql = format!("use {}", identifier(&claim.schema));
    session.run("enter the database", sql).await
}

/// Ends what other connections of the administrator do in the database: who is late with a
/// write has to ask for the claim again.
pub async fn end_ours(session: &mut Session, claim: &Claim) -> Result<(), Failure> {
    let sql = "select cast(id as char) from information_schema.processlist
        where db = ? and id <> connection_id()
        and user = substring_index(current_user(), '@', 1)";
    let found: Vec<(String,)> = session
        .rows("look at connections", sql, &[&claim.schema])
        .await?;
    end(session, found.into_iter().map(|row| row.0).collect()).await
}

/// Ends connections, and waits until they have.
pub async fn end(session: &mut Session, ids: Vec<String>) -> Result<(), Failure> {
    for id in &ids {
        match session.run("end a connection", format!("kill {id}")).await {
            Err(failure) if failure.number == NO_SUCH_THREAD => {}
            done => done?,
        }
    }
    let deadline = Instant::now() + session.deadline;
    let sql = "select cast(id as char) from information_schema.processlist
        where find_in_set(id, ?)";
    let ids = ids.join(",");
    while !ids.is_empty() {
        let left: Vec<(String,)> = session.rows("look at connections", sql, &[&ids]).await?;
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(Failure::unreachable(
                &session.endpoint,
                "connections of the tenant's user do not end",
            ));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// How MySQL says it.
pub fn dialect(claim: &Claim) -> Dialect {
    Dialect {
        table: format!("{}.kine", identifier(&claim.schema)),
        integer: "signed",
        text: "char",
        sha256: |value| format!("unhex(sha2({value}, 256))"),
        parameter: |_| "?".to_owned(),
        raise: |table, floor| format!("alter table {table} auto_increment = {}", floor + 1),
        keys: Keys {
            longest: 630,
            ascii: true,
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
        let answer = self.ask_with(what, sql, values).await;
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
