//! Tenants in PostgreSQL, 13 or later, each in a database of its own.
//!
//! The administrator owns the databases; a tenant's role may connect to its own and work in
//! schema `public` there. From everybody (`PUBLIC`) the right to connect is taken, also to
//! `postgres` and `template1`, where tenants would meet. The administrator is a superuser,
//! or has CREATEDB and CREATEROLE. Connections go to the server itself: a pooler between
//! would break the locks that belong to sessions.
//!
//! # What PostgreSQL keeps from a tenant
//! Shown by `tests/postgresql_isolation.rs` with a tenant's own password against PostgreSQL
//! 15. Refused: entering any other database, the claims too; making databases, roles,
//! schemas, extensions and temporary tables; becoming another role; giving or taking rights
//! on databases; renaming or dropping its own; files and programs of the server; settings of
//! the server; ending or cancelling what others run. Locks and notifications are its
//! database's own.
//!
//! # What PostgreSQL does not keep from a tenant
//! * Names of databases and roles, who is connected, sizes and counters of statistics can be read.
//! * Memory for locks is one for all (`max_locks_per_transaction`): a tenant that locks very
//!   many tables at once makes what others begin fail (53200) until its transaction ends.
//!   Locks by number, with which that is easiest, are taken from it where the administrator
//!   is a superuser; kine needs none.
//! * Connections are one for all (`max_connections`): set it to more than [`CONNECTIONS`]
//!   times the number of tenants.
//! * A tenant can give rights on what it has to the users of others. They open nothing,
//!   since those may not enter its database, and are taken away when those are deleted.
//!   Before PostgreSQL 15 it can also make others members of its own role, which
//!   [`Tenancy::prepare`](crate::tenancy::Tenancy::prepare) undoes.
//! * Its own password and its own settings of sessions can be changed by it, which
//!   [`Tenancy::prepare`](crate::tenancy::Tenancy::prepare) puts right.
//! * There are no quotas: a tenant can fill the disk, and keep processors and memory busy.
//!   The number of its connections is limited ([`CONNECTIONS`]).
//! * The queue of notifications is one for all: a transaction that listens and never ends
//!   keeps it from being emptied. kine uses none.

use async_trait::async_trait;

use crate::tenancy::contents::Contents;
use crate::tenancy::contents::kine::Kine;
use crate::tenancy::sql::entrance::{BY_CERTIFICATE, Entrance, Guard};
use crate::tenancy::sql::gauge::{Gauge, patience};
use crate::tenancy::sql::logins::Logins;
use crate::tenancy::sql::names::PLACE;
use crate::tenancy::sql::{Present, Server, Sql, no_database};
use crate::tenancy::{Access, Claim, Connection, Health, Password, Stage, TenancyError};

mod connection;
mod contents;
mod departure;
mod entrance;
mod failure;
mod freeze;
mod handshake;
mod join;
mod messages;
mod names;
mod place;
mod rights;
mod scram;

use connection::{Link, Login, Session};
use failure::Failure;
use join::join;
use names::{KEEPER, identifier, literal};
pub use rights::CONNECTIONS;
use rights::Repair;

/// One PostgreSQL.
pub struct PostgreSql {
    link: Link,
    guard: Guard,
    gauge: Gauge,
    logins: Logins,
}

/// See [`crate::tenancy::connect`].
pub fn connect(connection: Connection) -> Result<Sql<PostgreSql>, TenancyError> {
    Ok(Sql::new(PostgreSql {
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
}

impl PostgreSql {
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
            database: &claim.schema,
            certificate: true,
        };
        match self.link.login(&session.endpoint, &login).await {
            Ok(entered) => {
                entered.close().await;
                Ok(Entry::Accepted)
            }
            Err(failure) if failure.is_wrong_password() => Ok(Entry::WrongPassword),
            // All of its connections are in use.
            Err(failure) if failure.code == "53300" && failure.after_authentication() => {
                Ok(Entry::Accepted)
            }
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

    /// Creates role and database; whether the role is new. Nobody may enter the database
    /// before its rights are as they should be.
    async fn create(&self, session: &mut Session, claim: &Claim) -> Result<bool, TenancyError> {
        let there = self.present(session, claim).await?;
        if !there.user {
            let user = identifier(&claim.user);
            let sql = format!(
                "create role {user} login nosuperuser nocreatedb nocreaterole noreplication \
                 nobypassrls noinherit connection limit {CONNECTIONS}"
            );
            session.run("create the user", sql).await?;
        }
        if !there.database {
            let database = identifier(&claim.schema);
            let sql = format!(
                "create database {database} template template0 encoding 'UTF8' lc_collate 'C' \
                 lc_ctype 'C' allow_connections false"
            );
            session.run("create the database", sql).await?;
        }
        Ok(!there.user)
    }

    /// Carries out what mends, each as the rights of before demand it.
    async fn mend(
        &self,
        session: &mut Session,
        claim: &Claim,
        repairs: Vec<Repair>,
    ) -> Result<(), TenancyError> {
        if let Some(hopeless) = repairs.iter().find(|repair| repair.sql.is_none()) {
            return Err(TenancyError::Refused(hopeless.why.clone()));
        }
        for repair in repairs {
            if repair
                .sql
                .as_ref()
                .is_some_and(|sql| sql.contains(" owner to "))
            {
                join(session, &claim.user).await?;
                // Where the server has one, it may be the owner. If it is another
                // administrator's, it is not, and this cannot be done.
                if let Err(failure) = join(session, KEEPER).await {
                    tracing::debug!(error = %failure.error, "cannot join the keeper of tables");
                }
            }
            if let Some(sql) = repair.sql {
                session.run("repair rights", sql).await?;
            }
        }
        Ok(())
    }

    /// Makes the role and the rights on the database what they should be.
    async fn mend_outside(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        let found = rights::find(session, claim).await?;
        let repairs = rights::repairs(&found, claim);
        if repairs.is_empty() {
            return Ok(());
        }
        self.mend(session, claim, repairs).await?;
        // A right can come from somebody whom we may not speak for.
        let found = rights::find(session, claim).await?;
        match rights::repairs(&found, claim).first() {
            None => Ok(()),
            Some(left) => Err(TenancyError::Refused(format!(
                "{}, and the administrator may not mend it",
                left.why
            ))),
        }
    }

    /// Makes the rights inside of the database what they should be; whether it has kine's
    /// table. kine itself makes that of a tenant that begins here.
    async fn mend_inside(&self, inside: &mut Session, claim: &Claim) -> Result<bool, TenancyError> {
        if claim.stage != Stage::Serving && !rights::has_table(inside).await? {
            contents::make_table(inside).await?;
        }
        if claim.stage == Stage::Frozen {
            rights::provide_keeper(inside).await?;
        }
        let repairs = rights::repairs_inside(inside, claim).await?;
        self.mend(inside, claim, repairs).await?;
        rights::has_table(inside).await
    }

    /// Gives the user this password, unless it has it.
    async fn settle_password(
        &self,
        session: &mut Session,
        claim: &Claim,
        password: Option<&Password>,
        new: bool,
    ) -> Result<(), TenancyError> {
        let enters = claim.stage.lets_in();
        let Some(password) = password else {
            return match new && enters {
                true => Err(TenancyError::Refused(no_password())),
                false => Ok(()),
            };
        };
        let wrong = match new || !enters {
            true => new,
            false => matches!(
                self.try_password(session, claim, password).await?,
                Entry::WrongPassword
            ),
        };
        if wrong {
            let user = identifier(&claim.user);
            let verifier = literal(&scram::verifier(password));
            let sql = format!("alter role {user} password {verifier}");
            session.run("set the password", sql).await?;
        }
        Ok(())
    }

    /// How role and rights on the database differ. Nothing does of what is not there.
    async fn differs_outside(
        &self,
        session: &mut Session,
        claim: &Claim,
    ) -> Result<Option<String>, TenancyError> {
        let there = self.present(session, claim).await?;
        if !there.user || !there.database {
            return Ok(None);
        }
        let found = rights::find(session, claim).await?;
        Ok(reasons(rights::repairs(&found, claim)))
    }

    /// What is to be mended inside of the tenant's database.
    async fn inside(&self, session: &Session, claim: &Claim) -> Result<Session, TenancyError> {
        Ok(self.link.enter(&session.endpoint, &claim.schema).await?)
    }

    /// Databases that everybody may enter, apart from those that are closed before the
    /// first tenant comes.
    async fn gaps(&self, session: &mut Session) -> Result<Vec<String>, TenancyError> {
        let open: Vec<(String, bool)> = session
            .rows("look for open databases", place::OPEN, &[])
            .await?;
        let claimed = place::claims(session).await?;
        let is_tenants = |name: &str| claimed.iter().any(|claim| claim.schema == name);
        let to_be_closed = |name: &str| {
            !session.in_place && (name == PLACE || place::OURS_TO_CLOSE.contains(&name))
        };
        // Those of tenants are looked at, and mended, one by one.
        let looked_after = |name: &str, may: bool| is_tenants(name) || (may && to_be_closed(name));
        let open = open
            .into_iter()
            .filter(|(name, may)| !looked_after(name, *may));
        let gaps = open.map(|(name, _)| {
            format!(
                "Everybody may enter the database {name:?}, tenants too; run: revoke all on \
                 database {} from public.",
                identifier(&name)
            )
        });
        Ok(gaps.collect())
    }
}

/// Bytes of all databases that the administrator may enter.
async fn measure(session: &mut Session) -> Result<u64, Failure> {
    let patience = patience(session.deadline);
    let limit = format!("set statement_timeout = {}", patience.as_millis());
    session.run("limit the question", limit).await?;
    session.deadline = patience;
    let sql = "select coalesce(sum(pg_catalog.pg_database_size(oid)), 0)::bigint
        from pg_catalog.pg_database
        where pg_catalog.has_database_privilege(oid, 'connect')";
    let found: Vec<(i64,)> = session.rows("measure", sql, &[]).await?;
    Ok(found
        .first()
        .map_or(0, |row| u64::try_from(row.0).unwrap_or(0)))
}

fn no_table(claim: &Claim) -> String {
    format!("database {:?} has no table \"kine\" any more", claim.schema)
}

fn no_password() -> String {
    "this driver needs a password for the tenant's user".to_owned()
}

fn reasons(repairs: Vec<Repair>) -> Option<String> {
    let why: Vec<_> = repairs.into_iter().map(|repair| repair.why).collect();
    (!why.is_empty()).then(|| why.join("; "))
}

#[async_trait]
impl Server for PostgreSql {
    type Session = Session;

    fn admit(&self, claim: &Claim) -> Result<(), TenancyError> {
        names::admit_names(claim, &self.link.servers.administrator)
    }

    async fn open(&self) -> Result<Session, TenancyError> {
        self.link.open().await
    }

    async fn lock(&self, schema: &str, to_claim: bool) -> Result<Session, TenancyError> {
        let mut session = match to_claim {
            true => place::enter(&self.link).await?,
            false => self.link.open().await?,
        };
        place::lock(&mut session, &format!("schema/{schema}")).await?;
        Ok(session)
    }

    async fn close(&self, session: Session) {
        session.close().await;
    }

    fn reusable(&self, session: &Session) -> bool {
        session.in_place
    }

    async fn health(&self) -> Result<Health, TenancyError> {
        let mut session = self.link.open().await?;
        self.link.prove(&session.endpoint).await?;
        let entrance = self.guard.entrance(entrance::try_doors(&self.link)).await?;
        let sql = "select pg_catalog.split_part(current_setting('server_version'), ' ', 1)";
        let found: Vec<(String,)> = session.rows("ask the server", sql, &[]).await?;
        let (version,) = found.into_iter().next().unwrap_or_default();
        let mut gaps = self.gaps(&mut session).await?;
        if entrance.by_certificate {
            gaps.push(BY_CERTIFICATE.to_owned());
        }
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

    async fn admit_first(&self, session: &mut Session, _claim: &Claim) -> Result<(), TenancyError> {
        let sql = "select rolsuper or (rolcreatedb and rolcreaterole)
            from pg_catalog.pg_roles where rolname = current_user";
        match session.holds("look at the administrator", sql, &[]).await? {
            true => Ok(()),
            false => Err(TenancyError::Refused(
                "the administrator may not make databases and roles: it needs to be a \
                 superuser, or to have CREATEDB and CREATEROLE"
                    .to_owned(),
            )),
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
        let sql = "select exists (select from pg_catalog.pg_database where datname = $1),
            exists (select from pg_catalog.pg_roles where rolname = $2)";
        let names = [claim.schema.as_str(), claim.user.as_str()];
        let found: Vec<(bool, bool)> = session.rows("look for the tenant", sql, &names).await?;
        let (database, user) = found.first().copied().unwrap_or_default();
        Ok(Present { database, user })
    }

    async fn give(
        &self,
        session: &mut Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<(), TenancyError> {
        if claim.stage == Stage::Left {
            return match self.differs_outside(session, claim).await? {
                Some(_) => self.shut_out(session, claim).await,
                None => Ok(()),
            };
        }
        let new = self.create(session, claim).await?;
        let mended = self.mend_outside(session, claim).await;
        if matches!(mended, Err(TenancyError::Refused(_))) {
            // Whoever has a former password can do what is not to be mended: a new one does
            // not wait for that.
            let settled = self.settle_password(session, claim, password, new).await;
            if let Err(error) = settled {
                tracing::debug!(%error, schema = claim.schema, "the password is not settled");
            }
        }
        mended?;
        let mut inside = self.inside(session, claim).await?;
        let mended = self.mend_inside(&mut inside, claim).await;
        inside.close().await;
        if !mended? {
            // It begins anew.
            place::note(session, claim, false).await?;
        }
        self.settle_password(session, claim, password, new).await
    }

    async fn mark(
        &self,
        session: &mut Session,
        claim: &Claim,
        to: Stage,
    ) -> Result<(), TenancyError> {
        place::mark(session, claim, to).await
    }

    async fn freeze(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        if let Some(what) = self.lost(session, claim).await?
            && place::began(session, claim).await?
        {
            return Err(TenancyError::DataLost(what));
        }
        self.mend_outside(session, claim).await?;
        let mut inside = self.inside(session, claim).await?;
        let frozen = freeze::freeze(&mut inside, claim).await;
        inside.close().await;
        frozen
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
        let mut inside = match (writes, password) {
            (true, _) => self.inside(session, claim).await?,
            (false, Some(password)) => {
                contents::enter_as_tenant(&self.link, session, claim, password).await?
            }
            (false, None) => return Err(TenancyError::Refused(no_password())),
        };
        if !rights::has_table(&mut inside).await? {
            // One that never ran has none: it has data nowhere, and moves with nothing. As
            // the tenant, whose kine would have made it.
            if writes || place::began(session, claim).await? {
                inside.close().await;
                return Err(TenancyError::Refused(no_table(claim)));
            }
            contents::make_table(&mut inside).await?;
        }
        contents::plan_by_indexes(&mut inside).await?;
        let prefix = claim.prefix(true);
        let kine = Kine::new(inside, contents::dialect(), prefix, writes);
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
        let mut inside = match self.link.enter(&session.endpoint, &claim.schema).await {
            // It is closed. To open it makes no data.
            Err(failure) if failure.code == "55000" => return Ok(None),
            inside => inside?,
        };
        let there = rights::has_table(&mut inside).await;
        inside.close().await;
        Ok((!there?).then(|| no_table(claim)))
    }

    async fn access(
        &self,
        session: &mut Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Access, TenancyError> {
        let there = self.present(session, claim).await?;
        if !there.database {
            return Ok(Access::Lost(no_database(claim)));
        }
        if !there.user && claim.stage != Stage::Left {
            let why = format!("user {:?} does not exist", claim.user);
            return Ok(Access::Differs(why));
        }
        if let Some(why) = self.differs_outside(session, claim).await? {
            return Ok(Access::Differs(why));
        }
        if !claim.stage.lets_in() {
            return Ok(Access::Exact);
        }
        let mut inside = self.inside(session, claim).await?;
        let looked = async {
            let has_table = rights::has_table(&mut inside).await?;
            let repairs = rights::repairs_inside(&mut inside, claim).await?;
            Ok::<_, TenancyError>((has_table, repairs))
        };
        let looked = looked.await;
        inside.close().await;
        let (has_table, repairs) = looked?;
        // kine makes its table when it first starts.
        if has_table {
            place::note(session, claim, true).await?;
        } else if place::began(session, claim).await? {
            return Ok(Access::Lost(no_table(claim)));
        }
        if let Some(why) = reasons(repairs) {
            return Ok(Access::Differs(why));
        }
        let Some(password) = password else {
            return Ok(Access::Exact);
        };
        let stored = rights::verifier(session, claim).await?;
        let stored = stored.as_deref();
        if stored.is_some_and(|it| self.logins.is_known(&claim.user, password, it)) {
            return Ok(Access::Exact);
        }
        Ok(match self.try_password(session, claim, password).await? {
            Entry::Accepted => {
                if let Some(stored) = stored {
                    self.logins.remember(&claim.user, password, stored);
                }
                Access::Exact
            }
            Entry::WrongPassword => Access::Differs(format!(
                "the server does not accept the password of user {:?}",
                claim.user
            )),
        })
    }

    async fn shut_out(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        let there = self.present(session, claim).await?;
        if !there.user {
            return Ok(());
        }
        join(session, &claim.user).await?;
        let user = identifier(&claim.user);
        let sql = format!("alter role {user} nologin connection limit 0");
        session.run("shut the user out", sql).await?;
        if there.database {
            let database = identifier(&claim.schema);
            let sql = format!("revoke all on database {database} from {user} cascade");
            session.run("revoke rights", sql).await?;
        }
        let sql = format!(
            "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity \
             where usename = {}",
            literal(&claim.user)
        );
        Ok(session.run("end the user's connections", sql).await?)
    }

    async fn remove(&self, session: &mut Session, claim: &Claim) -> Result<(), TenancyError> {
        self.shut_out(session, claim).await?;
        let there = self.present(session, claim).await?;
        if there.database {
            departure::drop_database(&self.link, session, claim).await?;
        }
        if there.user {
            departure::drop_role(&self.link, session, claim).await?;
        }
        Ok(())
    }
}
