//! Tenants in SQL databases: what PostgreSQL and MySQL have in common.
//!
//! A tenant's data is a database of its own, which the administrator owns; its user
//! authenticates by password and has the rights in that database that kine needs, and no
//! others. Claims are rows of a table in a database that only the administrator opens.
//!
//! # Who is late harms nobody
//! Whatever changes something runs on one connection. That holds a lock of its session on
//! the name of the schema, reads the claim under the lock, and issues the statements. Only
//! under the same lock is a claim made or given back. So a caller that was stopped between
//! two statements either still has the connection, and with it lock and claim, or its next
//! statement fails.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use entrance::BY_CERTIFICATE_REFUSED;

use crate::tenancy::contents::Contents;
use crate::tenancy::{
    Access, Claim, Compaction, Data, Health, Password, Stage, Tenancy, TenancyError, too_fast,
};

mod client;
pub mod endpoint;
pub mod entrance;
pub mod gauge;
pub mod logins;
pub mod metered;
pub mod names;
mod server;
pub mod servers;
mod turn;

pub use client::without_answer;
pub use server::{Present, Server};

/// Connections for reading that are kept for the next call.
const KEPT: usize = 4;
/// Bytes of an answer: of what the administrator asks about all tenants, and of what is asked in
/// a tenant's own database, where the tenant may have it say what it likes.
pub const ANSWER: usize = 32 << 20;
pub const TENANTS_ANSWER: usize = 1 << 20;
/// Characters of a server's words that are passed on.
const WORDS: usize = 1000;

/// The words of a server, of which a tenant's may have any length.
pub fn words(said: &str) -> String {
    said.chars().take(WORDS).collect()
}

/// After so long without use the network may have forgotten a connection.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// A sentence about a database that is gone.
pub fn no_database(claim: &Claim) -> String {
    format!("database {:?} does not exist", claim.schema)
}

/// What is done to a tenant that holds its claim.
enum Change {
    ShutOut,
    Remove,
    Release,
}

/// How a claim stands.
enum Standing {
    /// As asked, at this stage.
    Held(Claim),
    /// One of the names, together with another name, for the same uid.
    Otherwise(Claim),
    Absent,
}

/// Administration of one SQL server.
pub struct Sql<S: Server> {
    server: S,
    kept: Mutex<Vec<(Instant, S::Session)>>,
}

impl<S: Server> Sql<S> {
    /// Does not connect.
    pub fn new(server: S) -> Self {
        Sql {
            server,
            kept: Mutex::default(),
        }
    }

    /// Reads, by a connection that was used before if there is one.
    async fn read<T, F>(
        &self,
        read: impl Fn(S::Session) -> F + Send + Sync,
    ) -> Result<T, TenancyError>
    where
        F: Future<Output = (S::Session, Result<T, TenancyError>)> + Send,
    {
        loop {
            let kept = self.kept.lock().pop();
            let kept = kept.filter(|(since, _)| since.elapsed() < KEPT_FOR);
            let old = kept.is_some();
            let session = match kept {
                Some((_, session)) => session,
                None => self.server.open().await?,
            };
            match read(session).await {
                // It may have ended while nobody used it.
                (_, Err(TenancyError::Unreachable(_))) if old => continue,
                (session, Err(error)) => {
                    self.server.close(session).await;
                    return Err(error);
                }
                (session, Ok(found)) => {
                    self.keep(session).await;
                    return Ok(found);
                }
            }
        }
    }

    /// All claims.
    async fn all(&self) -> Result<Vec<Claim>, TenancyError> {
        self.read(|mut session| async move {
            let found = self.server.claims(&mut session).await;
            (session, found)
        })
        .await
    }

    async fn keep(&self, session: S::Session) {
        if self.server.reusable(&session) {
            let mut kept = self.kept.lock();
            if kept.len() < KEPT {
                kept.push((Instant::now(), session));
                return;
            }
        }
        self.server.close(session).await;
    }

    /// How the claim stands.
    ///
    /// # Errors
    /// [`TenancyError::SchemaTaken`] if another uid holds a name.
    async fn standing(
        &self,
        session: &mut S::Session,
        claim: &Claim,
    ) -> Result<Standing, TenancyError> {
        let found = self.server.claims_on(session, claim).await?;
        if let Some(other) = found.iter().find(|found| found.uid != claim.uid) {
            let what = match other.schema == claim.schema {
                true => format!("schema {:?}", claim.schema),
                false => format!("user {:?}", claim.user),
            };
            return Err(TenancyError::SchemaTaken {
                what,
                uid: other.uid.clone(),
                namespace: other.namespace.clone(),
                name: other.name.clone(),
            });
        }
        Ok(match found.into_iter().next() {
            None => Standing::Absent,
            Some(found) if found.is_same_hold(claim) => Standing::Held(found),
            Some(found) => Standing::Otherwise(found),
        })
    }

    /// Whether the claim is held, by whoever reads `session`.
    async fn holds(&self, session: &mut S::Session, claim: &Claim) -> Result<bool, TenancyError> {
        Ok(matches!(
            self.standing(session, claim).await?,
            Standing::Held(_)
        ))
    }

    /// What was there before anybody claimed the names belongs to someone else.
    async fn take(&self, session: &mut S::Session, claim: &Claim) -> Result<(), TenancyError> {
        let found = self.server.present(session, claim).await?;
        let mut what = Vec::new();
        if found.database {
            what.push(format!("the database {:?}", claim.schema));
        }
        if found.user {
            what.push(format!("the user {:?}", claim.user));
        }
        if !what.is_empty() {
            return Err(TenancyError::Refused(format!(
                "the datastore already holds {}, which no tenant control plane has claimed; \
                 choose another schema and user, or remove them",
                what.join(" and ")
            )));
        }
        if self.server.insert(session, claim).await? || self.holds(session, claim).await? {
            return Ok(());
        }
        Err(too_fast())
    }

    async fn prepare_under(
        &self,
        session: &mut S::Session,
        claim: &Claim,
        password: &Password,
        data: Data,
    ) -> Result<(), TenancyError> {
        self.server.admit_here(session, claim)?;
        match self.standing(session, claim).await? {
            Standing::Held(stored) => {
                if data == Data::Kept
                    && stored.stage.lets_in()
                    && let Some(what) = self.server.lost(session, claim).await?
                {
                    return Err(TenancyError::DataLost(what));
                }
                self.server.give(session, &stored, Some(password)).await
            }
            Standing::Absent => {
                self.begin(session, claim, data).await?;
                let given = self.server.give(session, claim, Some(password)).await;
                if let Err(TenancyError::Refused(_)) = given
                    && let Err(error) = self.withdraw(session, claim).await
                {
                    // The refusal is what somebody has to mend. Whoever deletes the tenant
                    // finds the claim, and by it what is left.
                    tracing::warn!(schema = claim.schema, %error, "a refused claim stays");
                }
                given
            }
            Standing::Otherwise(found) => Err(TenancyError::Refused(otherwise(&found))),
        }
    }

    /// Takes back what a first try has made, under the lock under which it was made:
    /// [`Sql::take`] has seen that nothing was there before.
    async fn withdraw(&self, session: &mut S::Session, claim: &Claim) -> Result<(), TenancyError> {
        if self.server.present(session, claim).await?.count() > 0 {
            self.server.remove(session, claim).await?;
        }
        self.server.delete(session, claim).await
    }

    /// Takes names that nobody has claimed.
    async fn begin(
        &self,
        session: &mut S::Session,
        claim: &Claim,
        data: Data,
    ) -> Result<(), TenancyError> {
        claim.admit_new()?;
        if data == Data::Kept && !self.server.present(session, claim).await?.database {
            return Err(TenancyError::DataLost(format!(
                "database {:?} does not exist, and nobody has claimed it: the datastore is \
                 another one, or it was emptied",
                claim.schema
            )));
        }
        self.server.admit_first(session, claim).await?;
        self.take(session, claim).await
    }

    /// Changes something of the tenant, if it holds its claim.
    async fn change(&self, claim: &Claim, change: Change) -> Result<(), TenancyError> {
        self.server.admit(claim)?;
        let mut session = self.server.lock(&claim.schema, false).await?;
        let done = match self.standing(&mut session, claim).await {
            Ok(Standing::Held(stored)) => match claim.stage_differs(&stored) {
                None => self.change_under(&mut session, &stored, change).await,
                Some(why) => Err(TenancyError::Refused(why)),
            },
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        self.server.close(session).await;
        done
    }

    async fn change_under(
        &self,
        session: &mut S::Session,
        claim: &Claim,
        change: Change,
    ) -> Result<(), TenancyError> {
        match change {
            Change::ShutOut => {
                self.server.shut_out(session, claim).await?;
                // Without a database nothing needs the user any more.
                match self.server.present(session, claim).await? {
                    found if found.database => Ok(()),
                    _ => self.server.remove(session, claim).await,
                }
            }
            Change::Remove => self.server.remove(session, claim).await,
            Change::Release => match self.server.present(session, claim).await?.count() {
                0 => self.server.delete(session, claim).await,
                left => Err(TenancyError::Refused(format!(
                    "{left} of database and user of schema {:?} are left; its claim stays",
                    claim.schema
                ))),
            },
        }
    }

    async fn access(
        &self,
        session: &mut S::Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Access, TenancyError> {
        let stored = match self.standing(session, claim).await? {
            Standing::Held(stored) => stored,
            Standing::Otherwise(found) => return Ok(Access::Differs(otherwise(&found))),
            Standing::Absent => return Ok(Access::Unclaimed),
        };
        if let Some(why) = claim.stage_differs(&stored) {
            return Ok(Access::Differs(why));
        }
        self.server.access(session, &stored, password).await
    }

    /// How much is left, which is nothing without the claim.
    async fn left(&self, session: &mut S::Session, claim: &Claim) -> Result<u64, TenancyError> {
        match self.holds(session, claim).await? {
            true => Ok(self.server.present(session, claim).await?.count()),
            false => Ok(0),
        }
    }
}

fn otherwise(found: &Claim) -> String {
    format!(
        "this tenant control plane has claimed schema {:?} with user {:?}, not as it asks now",
        found.schema, found.user
    )
}

#[async_trait]
impl<S: Server> Tenancy for Sql<S> {
    async fn verify(&self) -> Result<Health, TenancyError> {
        self.server.health().await
    }

    async fn claims(&self, uid: &str) -> Result<Vec<Claim>, TenancyError> {
        let mut found = self.all().await?;
        found.retain(|claim| claim.uid == uid);
        Ok(found)
    }

    async fn claimants(&self) -> Result<BTreeSet<String>, TenancyError> {
        let found = self.all().await?;
        Ok(found.into_iter().map(|claim| claim.uid).collect())
    }

    async fn prepare(
        &self,
        claim: &Claim,
        password: Option<&Password>,
        data: Data,
    ) -> Result<(), TenancyError> {
        self.server.admit(claim)?;
        let Some(password) = password else {
            return Err(TenancyError::Refused(
                "this driver needs a password for the tenant's user".to_owned(),
            ));
        };
        names::admit_password(password)?;
        let entrance = self.server.entrance().await?;
        if !entrance.guarded {
            return Err(TenancyError::Refused(
                "the datastore lets everybody in without the right password: every tenant \
                 could read all others; make it ask for passwords"
                    .to_owned(),
            ));
        }
        if entrance.by_certificate {
            return Err(TenancyError::Refused(BY_CERTIFICATE_REFUSED.to_owned()));
        }
        let mut session = self.server.lock(&claim.schema, true).await?;
        let done = self
            .prepare_under(&mut session, claim, password, data)
            .await;
        self.server.close(session).await;
        done
    }

    async fn check(
        &self,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Access, TenancyError> {
        self.server.admit(claim)?;
        self.read(|mut session| async move {
            let access = self.access(&mut session, claim, password).await;
            (session, access)
        })
        .await
    }

    async fn revoke(&self, claim: &Claim) -> Result<(), TenancyError> {
        self.change(claim, Change::ShutOut).await
    }

    async fn drop_data(&self, claim: &Claim) -> Result<(), TenancyError> {
        self.change(claim, Change::Remove).await
    }

    async fn remaining(&self, claim: &Claim) -> Result<u64, TenancyError> {
        self.server.admit(claim)?;
        self.read(|mut session| async move {
            let left = self.left(&mut session, claim).await;
            (session, left)
        })
        .await
    }

    async fn release(&self, claim: &Claim) -> Result<(), TenancyError> {
        self.change(claim, Change::Release).await
    }

    async fn turn(
        &self,
        claim: &Claim,
        to: Stage,
        password: Option<&Password>,
    ) -> Result<Claim, TenancyError> {
        self.server.admit(claim)?;
        let mut session = self.server.lock(&claim.schema, false).await?;
        let done = self.turn_under(&mut session, claim, to, password).await;
        self.server.close(session).await;
        done
    }

    async fn contents<'a>(
        &'a self,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError> {
        self.server.admit(claim)?;
        let mut session = self.server.open().await?;
        let opened = self.contents_under(&mut session, claim, password).await;
        self.server.close(session).await;
        opened
    }

    fn through_kine(&self) -> bool {
        true
    }

    /// kine compacts its own table, as the tenant's API server asks it to.
    async fn compact_older_than(&self, _revision: u64) -> Result<Compaction, TenancyError> {
        Ok(Compaction::NotOurs)
    }
}
