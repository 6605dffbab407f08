//! Tenants in MariaDB (10.4 or later) and MySQL (5.7 or later), each in a database of its
//! own.
//!
//! A tenant's user comes from everywhere (`'user'@'%'`) and has on its database what kine
//! needs, and nothing else. Names of databases are patterns where rights are given, so that
//! they are written in a way in which they mean themselves alone. kine's table is made here,
//! for kine's own takes keys that differ in capital letters for one. Connections go to the
//! server itself: a proxy between would break the locks that belong to sessions. In a
//! cluster in which several servers write, locks are each server's own.
//!
//! # What the server keeps from a tenant
//! Shown by `tests/mysql_isolation.rs` with a tenant's own password against MariaDB 10.11.
//! Refused: everything in other databases, the claims too, and their names; making and
//! dropping databases and users; giving rights; dropping tables, temporary tables,
//! views, procedures, triggers and events; files of the server; its settings, logs and
//! plug-ins; ending what others run.
//!
//! # What the server does not keep from a tenant
//! * Settings and counters of the server can be read.
//! * Prepared statements are one number for all (`max_prepared_stmt_count`, 16382 unless it
//!   is set): a tenant that keeps very many makes those of others fail (1461) until it
//!   is gone. Raise it with the number of tenants.
//! * Connections are one for all (`max_connections`): set it to more than [`CONNECTIONS`]
//!   times the number of tenants.
//! * A transaction that it has prepared (`XA PREPARE`) outlives it and holds its tables, and
//!   the server does not say whose it is: the deletion asks a person to end it.
//! * Its own password can be changed by it, which
//!   [`Tenancy::prepare`](crate::tenancy::Tenancy::prepare) puts right.
//! * Locks by name (`GET_LOCK`) are one for all, so that ours have names that nobody can
//!   guess.
//! * There are no quotas: a tenant can fill the disk, and keep processors and memory busy.
//!   The number of its connections is limited ([`CONNECTIONS`]).

use async_trait::async_trait;
use tokio::time::Instant;

use crate::tenancy::contents::Contents;
use crate::tenancy::contents::kine::Kine;
use crate::tenancy::sql::entrance::{BY_CERTIFICATE, Entrance, Guard};
use crate::tenancy::sql::gauge::{Gauge, patience};
use crate::tenancy::sql::logins::Logins;
use crate::tenancy::sql::{Present, Server, Sql, no_database};
use crate::tenancy::{Access, Claim, Connection, Health, Password, Stage, TenancyError};

mod connection;
mod contents;
mod departure;
mod entrance;
mod failure;
mod handshake;
mod names;
mod place;
mod rights;
mod table;

use connection::{Link, Login, Session};
use failure::Failure;
use names::{account, account_at, identified, identifier};
pub use rights::CONNECTIONS;
use rights::{Mend, Repair};
use table::Table;

/// One MySQL or MariaDB.
pub struct MySql {
    link: Link,
    guard: Guard,
    gauge: Gauge,
    logins: Logins,
}

/// See [`crate::tenancy::connect`].
pub fn connect(connection: Connection) -> Result<Sql<MySql>, TenancyError> {
    Ok(Sql::new(MySql {
        link: Link::new(connection)?,
        guard: Guard::default(),
        gauge: Gauge::default(),
        logins: Logins::default(),
    }))
}

/// How a tenant's login ended.
enum Entry {
    Accepted,
    WrongPassword,
    /// Its account is locked, or its password has expired.
    Suspended,
}

impl MySql {
    /// Whether the tenant's user is let into its database with this password.
    async fn try_password(
        &self,
        session: &Session,
        claim: &Claim,
        password: &Password,
    ) -> Result<Entry, TenancyError> {
        let login = Login {
            user: &claim.user,
            password: password.expose(),
            database: Some(&claim.schema),
            certificate: true,
        };
        // Who has to change its password first is let in, and can do nothing else.
        let entered = match self.link.login(&session.endpoint, &login).await {
            Ok(connection) => self.link.use_once(&session.endpoint, connection).await,
            Err(failure) => Err(failure),
        };
        match entered {
            Ok(()) => Ok(Entry::Accepted),
            Err(failure) if failure.is_wrong_password() => Ok(Entry::WrongPassword),
            Err(failure) if failure.is_suspended() => Ok(Entry::Suspended),
            // All of its connections are in use.
            Err(failure) if matches!(failure.number, 1203 | 1226) => Ok(Entry::Accepted),
            Err(failure) => Err(match failure.error {
                // It is not the administrator who is not accepted.
                TenancyError::Unauthenticated(text) => TenancyError::Refused(format!(
                    "the server does not let user {:?} in: {text}",
                    claim.user
                )),
                error => error,
            }),
        }
    }

    /// Makes the user and its rights what they should be; whether the user is new, and
    /// whether anything was changed.
    async fn mend(
        &self,
        session: &mut Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<(bool, bool), TenancyError> {
        let mut new = false;
        let mut left = None;
        // A new user, its rights, and a look at both.
        for _ in 0..3 {
            let found = rights::find(session, claim).await?;
            let repairs = rights::repairs(&found, claim);
            if repairs.is_empty() {
                return Ok((new, left.is_some()));
            }
            if repairs.iter().any(|repair| repair.mend == Mend::Anew) {
                let Some(password) = password else {
                    return Err(TenancyError::Refused(no_password()));
                };
                self.make_user(session, claim, password).await?;
                new = true;
            }
            for repair in repairs {
                if let Mend::Statement(sql) = repair.mend {
                    session.run("repair rights", sql).await?;
                }
                left = Some(repair.why);
            }
        }
        Err(TenancyError::Refused(format!(
            "{}, and the administrator may not mend it",
            left.unwrap_or_default()
        )))
    }

    /// Makes the user, after everything that has its name is gone.
    async fn make_user(
        &self,
        session: &mut Session,
        claim: &Claim,
        password: &Password,
    ) -> Result<(), TenancyError> {
        self.drop_user(session, claim).await?;
        let sql = format!(
            "create user {} {} {}",
            account(&claim.user),
            identified(password, session.mariadb),
            rights::attributes()
        );
        Ok(session.run("create the user", sql).await?)
    }

    /// Drops everything that has the user's name.
    async fn drop_user(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        let found = rights::find(session, claim).await?;
        for host in found.hosts {
            let sql = match host.is_empty() && session.mariadb {
                true => format!("drop role if exists {}", identifier(&claim.user)),
                false => format!("drop user if exists {}", account_at(&claim.user, &host)),
            };
            session.run("drop the user", sql).await?;
        }
        Ok(())
    }

    /// Ends the user's connections. One that stays could write into the database of the
    /// next tenant of that name.
    async fn end_connections(
        &self,
        session: &mut Session,
        claim: &Claim,
    ) -> Result<(), TenancyError> {
        // Without the right to see what others run, there would seem to be nothing.
        let probe = "select count(*) from information_schema.innodb_trx";
        session
            .rows::<(i64,)>("look at connections", probe, &[])
            .await?;
        let sql = "select cast(id as char) from information_schema.processlist where user = ?";
        let found: Vec<(String,)> = session
            .rows("look at connections", sql, &[&claim.user])
            .await?;
        let ids = found.into_iter().map(|row| row.0).collect();
        Ok(contents::end(session, ids).await?)
    }

    /// Makes database and table what they should be.
    async fn prepare_table(
        &self,
        session: &mut Session,
        claim: &Claim,
    ) -> Result<(), TenancyError> {
        if let Some(why) = open(session, claim).await? {
            return Err(TenancyError::Refused(why));
        }
        if !self.present(session, claim).await?.database {
            let sql = format!(
                "create database if not exists {} character set utf8mb4 collate utf8mb4_bin",
                identifier(&claim.schema)
            );
            session.run("create the database", sql).await?;
        }
        table::mend(session, claim).await
    }
}

fn no_password() -> String {
    "this driver needs a password for the tenant's user".to_owned()
}

/// Why others get at the tenant's database, whatever is done for it alone.
async fn open(session: &mut Session, claim: &Claim) -> Result<Option<String>, TenancyError> {
    let open = entrance::open_to_all(session, &claim.schema).await?;
    Ok((!open.is_empty()).then(|| {
        format!(
            "everybody has rights on databases {}, and {:?} is one: take them away",
            open.join(", "),
            claim.schema
        )
    }))
}

/// Bytes of all databases.
async fn measure(session: &mut Session) -> Result<u64, Failure> {
    let patience = patience(session.deadline);
    // The server itself ends the question: it would go on after its connection.
    let limit = match session.mariadb {
        true => format!(
            "set session max_statement_time = {}",
            patience.as_secs_f64()
        ),
        false => format!("set session max_execution_time = {}", patience.as_millis()),
    };
    session.run("limit the question", limit).await?;
    session.deadline = patience;
    let begin = Instant::now();
    let size = |found: Vec<(i64,)>| {
        found
            .first()
            .map_or(0, |row| u64::try_from(row.0).unwrap_or(0))
    };
    // The other question opens every table.
    if session.mariadb {
        let sql = "select cast(coalesce(sum(file_size), 0) as signed)
            from information_schema.innodb_sys_tablespaces where name like '%/%'";
        if let Ok(found) = session.rows("measure", sql, &[]).await {
            return Ok(size(found));
        }
        session.deadline = patience.saturating_sub(begin.elapsed());
    }
    let sql = "select cast(coalesce(sum(data_length + index_length), 0) as signed)
        from information_schema.tables where table_type = 'BASE TABLE'";
    Ok(size(session.rows("measure", sql, &[]).await?))
}

fn reasons(repairs: Vec<Repair>) -> Option<String> {
    let why: Vec<_> = repairs.into_iter().map(|repair| repair.why).collect();
    (!why.is_empty()).then(|| why.join("; "))
}

#[async_trait]
impl Server for MySql {
    type Session = Session;

    fn admit(&self, claim: &Claim) -> Result<(), TenancyError> {
        names::admit_names(claim, &self.link.servers.administrator)
    }

    fn admit_here(&self, session: &Session, claim: &Claim) -> Result<(), TenancyError> {
        names::admit_user(claim, session.mariadb)
    }

    async fn open(&self) -> Result<Session, TenancyError> {
        self.link.open().await
    }

    async fn lock(&self, schema: &str, to_claim: bool) -> Result<Session, TenancyError> {
        place::lock(&self.link, schema, to_claim).await
    }

    async fn close(&self, session: Session) {
        session.close().await;
    }

    fn reusable(&self, _session: &Session) -> bool {
        true
    }

    async fn health(&self) -> Result<Health, TenancyError> {
        let mut session = self.link.open().await?;
        self.link.prove(&session.endpoint).await?;
        let entrance = self.guard.entrance(entrance::try_doors(&self.link)).await?;
        let mut gaps = entrance::gaps(&mut session).await?;
        if entrance.by_certificate {
            gaps.push(BY_CERTIFICATE.to_owned());
        }
        let version = session.version.clone();
        // Last, for what it leaves undone ends with the connection.
        let size = self.gauge.size(measure(&mut session)).await;
        session.close().await;
        Ok(Health {
            version,
            revision: 0,
            authentication: entrance.guarded,
            alarms: Vec::new(),
            gaps,
            size,
            used: size,
            quota: None,
        })
    }

    async fn entrance(&self) -> Result<Entrance, TenancyError> {
        self.guard.entrance(entrance::try_doors(&self.link)).await
    }

    async fn admit_first(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        match open(session, claim).await? {
            Some(why) => Err(TenancyError::Refused(why)),
            None => Ok(()),
        }
    }

    async fn claims(&self, session: &mut Session) -> Result<Vec<Claim>, TenancyError> {
        place::claims(session).await
    }

    async fn claims_on(
        &self,
        session: &mut Session,
        claim: &Claim,
    ) -> Result<Vec<Claim>, TenancyError> {
        place::claims_on(session, claim).await
    }

    async fn insert(&self, session: &mut Session, claim: &Claim) -> Result<bool, TenancyError> {
        place::insert(session, claim).await
    }

    async fn delete(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        place::delete(session, claim).await
    }

    async fn present(&self, session: &mut Session, claim: &Claim) -> Result<Present, TenancyError> {
        let sql = "select
            exists (select 1 from information_schema.schemata where schema_name = ?),
            exists (select 1 from mysql.user where User = ?)";
        let names = [claim.schema.as_str(), claim.user.as_str()];
        let found: Vec<(i64, i64)> = session.rows("look for the tenant", sql, &names).await?;
        let (database, user) = found.first().copied().unwrap_or_default();
        Ok(Present {
            database: database != 0,
            user: user != 0,
        })
    }

    async fn give(
        &self,
        session: &mut Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<(), TenancyError> {
        if claim.stage != Stage::Left {
            self.prepare_table(session, claim).await?;
        }
        if !claim.stage.lets_in() {
            return match self.present(session, claim).await?.user {
                true => self.shut_out(session, claim).await,
                false => Ok(()),
            };
        }
        let (new, mended) = self.mend(session, claim, password).await?;
        if mended && claim.stage == Stage::Frozen {
            self.end_connections(session, claim).await?;
        }
        let Some(password) = password else {
            return Ok(());
        };
        if new
            || matches!(
                self.try_password(session, claim, password).await?,
                Entry::Accepted
            )
        {
            return Ok(());
        }
        let sql = format!(
            "alter user {} {} {}",
            account(&claim.user),
            identified(password, session.mariadb),
            rights::attributes()
        );
        Ok(session.run("set the password", sql).await?)
    }

    async fn mark(
        &self,
        session: &mut Session,
        claim: &Claim,
        to: Stage,
    ) -> Result<(), TenancyError> {
        place::mark(session, claim, to).await
    }

    /// A connection keeps the rights on its database with which it entered that, so that
    /// those that are open are ended.
    async fn freeze(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        if let Some(what) = self.lost(session, claim).await? {
            return Err(TenancyError::DataLost(what));
        }
        self.mend(session, claim, None).await?;
        self.end_connections(session, claim).await
    }

    async fn end_ours(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        Ok(contents::end_ours(session, claim).await?)
    }

    async fn contents<'a>(
        &'a self,
        session: &mut Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError> {
        let writes = claim.stage == Stage::Incoming;
        let inside = match (writes, password) {
            (true, _) => {
                let password = &self.link.servers.password;
                let login = self.link.as_administrator(password, true);
                let mut own = self.link.session(&session.endpoint, &login).await?;
                contents::enter(&mut own, claim).await?;
                own
            }
            (false, Some(password)) => {
                contents::enter_as_tenant(&self.link, session, claim, password).await?
            }
            (false, None) => return Err(TenancyError::Refused(no_password())),
        };
        let prefix = claim.prefix(true);
        let kine = Kine::new(inside, contents::dialect(claim), prefix, writes);
        Ok(Box::new(kine))
    }

    async fn lost(
        &self,
        session: &mut Session,
        claim: &Claim,
    ) -> Result<Option<String>, TenancyError> {
        if !self.present(session, claim).await?.database {
            return Ok(Some(no_database(claim)));
        }
        Ok(match table::find(session, claim).await? {
            table @ Table::Absent => table.difference(claim),
            _ => None,
        })
    }

    async fn access(
        &self,
        session: &mut Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Access, TenancyError> {
        if let Some(what) = self.lost(session, claim).await? {
            return Ok(Access::Lost(what));
        }
        if let Some(why) = open(session, claim).await? {
            return Ok(Access::Differs(why));
        }
        if let Some(why) = table::find(session, claim).await?.difference(claim) {
            return Ok(Access::Differs(why));
        }
        if !claim.stage.lets_in() {
            return Ok(match self.present(session, claim).await?.user {
                true => Access::Differs(format!("user {:?} exists", claim.user)),
                false => Access::Exact,
            });
        }
        let found = rights::find(session, claim).await?;
        if let Some(why) = reasons(rights::repairs(&found, claim)) {
            return Ok(Access::Differs(why));
        }
        let Some(password) = password else {
            return Ok(Access::Exact);
        };
        let user = &claim.user;
        // The hash of the password is part of it.
        let stored = &found.account;
        if self.logins.is_known(user, password, stored) {
            return Ok(Access::Exact);
        }
        Ok(match self.try_password(session, claim, password).await? {
            Entry::Accepted => {
                self.logins.remember(user, password, stored);
                Access::Exact
            }
            Entry::WrongPassword => Access::Differs(format!(
                "the server does not accept the password of user {user:?}"
            )),
            Entry::Suspended => Access::Differs(format!("user {user:?} is locked")),
        })
    }

    async fn shut_out(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        self.drop_user(session, claim).await?;
        self.end_connections(session, claim).await
    }

    async fn remove(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        self.shut_out(session, claim).await?;
        departure::drop_database(session, claim).await
    }
}
