//! Tenants' datastores: names, rights and data of tenants in the databases that
//! their own API servers use.
//!
//! # Flow
//! [`Tenancy::prepare`] claims the names first, under keys that only the
//! administrator can write, and then creates what the tenant needs (rule 17).
//! On deletion: [`Tenancy::revoke`], [`Tenancy::drop_data`],
//! [`Tenancy::remaining`] until it says 0, [`Tenancy::release`] (rule 18). How a tenant's data
//! moves to another datastore is in [`crate::moving`]; only that reads contents, through
//! [`Tenancy::contents`].
//!
//! # Guarantees
//! * Every call can be repeated; a repetition that finds nothing to do writes
//!   nothing.
//! * Every call ends by the deadline of its [`Connection`], give or take the
//!   number of steps it consists of.
//! * Nothing is granted, revoked or deleted under a claim of another uid.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

mod claim;
pub mod contents;
pub mod etcd;
pub mod mysql;
pub mod nats;
pub mod postgresql;
mod sql;
mod tls;

pub use claim::{Claim, Stage};
use contents::Contents;

/// How a datastore is reached. PEM texts are as in a `DataStore`.
#[derive(Clone)]
pub struct Connection {
    /// As in `DataStore.spec.driver`: `etcd`, `MySQL`, `NATS` or `PostgreSQL`.
    pub driver: String,
    /// `host:port` each.
    pub endpoints: Vec<String>,
    /// Authorities that the server's certificate may come from.
    pub ca_pem: Option<Vec<u8>>,
    /// Certificate of the administrator; for etcd its common name is `root`.
    pub client_cert: Option<Vec<u8>>,
    /// The key of `client_cert`.
    pub client_key: Option<Vec<u8>>,
    /// Administrator's name, where the driver authenticates by password.
    pub username: Option<String>,
    /// Administrator's password.
    pub password: Option<String>,
    /// How long one request to the server may take.
    pub deadline: Duration,
}

impl Connection {
    /// What suits a controller: five seconds for one request.
    pub const DEADLINE: Duration = Duration::from_secs(5);
}

impl fmt::Debug for Connection {
    /// Without key and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("driver", &self.driver)
            .field("endpoints", &self.endpoints)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

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

/// What the administrator sees of a datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// As the server says it, for example `3.6.15`.
    pub version: String,
    /// The newest revision; see [`Tenancy::compact_older_than`]. 0 where there is none.
    pub revision: u64,
    /// Whether the server checks who is asking. Without it there is no
    /// separation of tenants, and [`Tenancy::prepare`] refuses.
    pub authentication: bool,
    /// What the server raised.
    pub alarms: Vec<Alarm>,
    /// What this version lets tenants do that they must not: a sentence each.
    /// Empty is good (rule 21).
    pub gaps: Vec<String>,
    /// Bytes of the database file, or of all databases that the administrator may enter.
    pub size: u64,
    /// Bytes of it in use. The rest comes back by defragmentation.
    pub used: u64,
    /// Bytes at which the server stops writing, if it says so.
    pub quota: Option<u64>,
}

/// An alarm of the datastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The quota is reached: reads and deletes only, until space was made, the
    /// database defragmented and the alarm disarmed.
    NoSpace,
    /// Members disagree about the data.
    Corrupt,
}

/// Whether a tenant's user has its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Exactly those that it should have.
    Exact,
    /// Those, and a password of before still lets somebody in for whom it was kept long
    /// enough. [`Tenancy::prepare`] ends that.
    Former,
    /// Those, given by a key of the administrator's of before. It takes nothing from the
    /// tenant; [`Tenancy::prepare`] gives them by the one of now.
    Outdated,
    /// Others; a sentence says how they differ. [`Tenancy::prepare`] repairs it.
    Differs(String),
    /// The claim stands, and the data is gone: its database was dropped, or is being
    /// restored. A sentence says what is missing. [`Tenancy::prepare`] makes an empty one
    /// in its place only where it is told that there is none to be kept.
    Lost(String),
    /// None: neither of the names is claimed. A database that has the tenant's data
    /// would know them.
    Unclaimed,
}

/// Whether a tenant has data that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// It may begin with an empty database.
    New,
    /// It served before: in an empty database its API server would find no objects, and
    /// its nodes would end what they run.
    Kept,
}

/// What an attempt to compact found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// It was done already, by the server itself or by someone else.
    ByOthers,
    /// Nobody had done it; this call did.
    ByUs,
    /// This driver's history is not ours to compact.
    NotOurs,
}

/// Why a datastore did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenancyError {
    /// No answer, or a server that cannot answer now. Worth repeating.
    #[error("the datastore cannot be reached: {0}")]
    Unreachable(String),
    /// The server does not accept who we are, or we do not accept who it is.
    #[error("the datastore and the controller do not accept each other: {0}")]
    Unauthenticated(String),
    /// The server accepts reads and deletes only.
    #[error("the datastore is full: {0}")]
    NoSpace(String),
    /// Another tenant holds a name.
    #[error("{what} is claimed by tenant control plane {namespace}/{name} (uid {uid})")]
    SchemaTaken {
        /// Which name, for example `schema "a"`.
        what: String,
        /// Of the holder.
        uid: String,
        /// Of the holder.
        namespace: String,
        /// Of the holder.
        name: String,
    },
    /// The claim stands, and the data that has to be there is gone.
    #[error("{0}")]
    DataLost(String),
    /// It cannot be done as asked, now or later, unless somebody changes
    /// something. The sentence says what.
    #[error("{0}")]
    Refused(String),
    /// Anything else the server said.
    #[error("the datastore failed: {0}")]
    Other(String),
}

/// Administration of one datastore. Implementations keep their connections, so
/// keep the value for as long as the datastore's credentials are the same.
#[async_trait]
pub trait Tenancy: Send + Sync {
    /// Is it there, does it accept us as administrator, can it be trusted?
    async fn verify(&self) -> Result<Health, TenancyError>;

    /// What the tenant control plane with this uid has claimed, oldest first.
    /// May read all claims of the datastore: ask once, then [`Tenancy::check`].
    async fn claims(&self, uid: &str) -> Result<Vec<Claim>, TenancyError>;

    /// The uids of all tenant control planes that have claimed anything. Reads all
    /// claims of the datastore.
    async fn claimants(&self) -> Result<BTreeSet<String>, TenancyError>;

    /// Claims the names and gives the user exactly its rights and, where the driver
    /// authenticates by password, this password. Where the claim stands, its stored stage
    /// decides what those rights are; a new one is [`Stage::Serving`] or [`Stage::Incoming`].
    ///
    /// # Errors
    /// [`TenancyError::SchemaTaken`] if another uid holds a name;
    /// [`TenancyError::Refused`] for names that nobody may have, for data,
    /// users or roles that exist without a claim (they belong to someone whom
    /// we do not know), and while authentication is off;
    /// [`TenancyError::DataLost`] if data that is [`Data::Kept`] is not there. A first
    /// attempt that is refused leaves no claim behind.
    async fn prepare(
        &self,
        claim: &Claim,
        password: Option<&Password>,
        data: Data,
    ) -> Result<(), TenancyError>;

    /// Does the user still have exactly its rights, and is it let in with this
    /// password? Without one, and where the driver has none, only the rights are
    /// looked at. Writes nothing, but once that the tenant's data was seen. The rights are
    /// those of the stored stage; that the claim is at another one differs, too.
    async fn check(
        &self,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Access, TenancyError>;

    /// Takes the user's rights away, and the user itself unless it owns data, with which
    /// it goes then. In etcd, streams that it has open already may live on: end its
    /// processes first. SQL databases end its connections.
    ///
    /// # Errors
    /// [`TenancyError::Refused`], and nothing is done, if the claim is at another stage: who
    /// is late does not harm data that was moved here again. The same holds for
    /// [`Tenancy::drop_data`] and [`Tenancy::release`].
    async fn revoke(&self, claim: &Claim) -> Result<(), TenancyError>;

    /// Deletes the tenant's data, as long as the claim stands (in etcd a page at a time): a
    /// caller that is late deletes nothing of the next tenant.
    async fn drop_data(&self, claim: &Claim) -> Result<(), TenancyError>;

    /// How much is left of the tenant: keys or database, user and role counted together.
    async fn remaining(&self, claim: &Claim) -> Result<u64, TenancyError>;

    /// Gives the names back.
    ///
    /// # Errors
    /// [`TenancyError::Refused`] while something remains.
    async fn release(&self, claim: &Claim) -> Result<(), TenancyError>;

    /// Brings a claim to another stage, with the rights that belong to it, and gives it back.
    /// `claim` is what is stored, or is at `to` already: then its rights are made sure of.
    /// Where the user may get in afterwards and the driver authenticates by password, it gets
    /// this password, if there is one; a user that is made anew needs one.
    ///
    /// When this returns for [`Stage::Frozen`], no write of the tenant's user can succeed any
    /// more, and all that succeeded can be seen. [`Stage::Incoming`] deletes what was left, and
    /// whoever has [`Tenancy::contents`] of an incoming claim by then writes nothing more.
    ///
    /// # Errors
    /// [`TenancyError::Refused`] if something else is stored, and for a way that there is not.
    async fn turn(
        &self,
        claim: &Claim,
        to: Stage,
        password: Option<&Password>,
    ) -> Result<Claim, TenancyError>;

    /// The tenant's keys and values, to be read; to be written while the claim is
    /// [`Stage::Incoming`]. SQL databases let the tenant's user read, which needs its
    /// password: what a tenant makes in its database must not run with other rights.
    ///
    /// # Errors
    /// [`TenancyError::Refused`] if the claim is not what is stored, or is [`Stage::Left`].
    async fn contents<'a>(
        &'a self,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError>;

    /// Whether the tenant's API server has kine before this datastore.
    fn through_kine(&self) -> bool;

    /// Forgets history before `revision` if nobody else has (rule 21). The
    /// caller remembers from [`Health::revision`] what was newest some minutes
    /// ago; [`crate::compact::floor`] does the arithmetic.
    async fn compact_older_than(&self, revision: u64) -> Result<Compaction, TenancyError>;
}

/// Administration of the datastore behind `connection`. Does not connect yet.
///
/// # Errors
/// [`TenancyError::Refused`] for a driver that is not built, and for
/// certificates and keys that cannot be used.
pub fn connect(connection: Connection) -> Result<Box<dyn Tenancy>, TenancyError> {
    match connection.driver.as_str() {
        "etcd" => Ok(Box::new(etcd::Etcd::new(connection)?)),
        "MySQL" => Ok(Box::new(mysql::connect(connection)?)),
        "PostgreSQL" => Ok(Box::new(postgresql::connect(connection)?)),
        "NATS" => Ok(Box::new(nats::Nats::new(&connection)?)),
        other => Err(TenancyError::Refused(format!(
            "datastores of driver {other:?} are not supported; use driver \"etcd\", \
             \"MySQL\", \"NATS\" or \"PostgreSQL\""
        ))),
    }
}

/// Why a claim does not go to another stage.
pub(crate) fn not_to_be_turned(claim: &Claim, stored: &Claim, to: Stage) -> TenancyError {
    TenancyError::Refused(match claim.stage_differs(stored) {
        Some(why) => format!("{why}, and cannot become {}", to.as_str()),
        None => format!(
            "schema {:?} is {} and cannot become {}",
            claim.schema,
            stored.stage.as_str(),
            to.as_str()
        ),
    })
}

/// Nothing can be done under a claim that nobody holds.
pub(crate) fn unclaimed(claim: &Claim) -> TenancyError {
    TenancyError::Refused(format!("schema {:?} is not claimed", claim.schema))
}

/// Others write the claim again and again.
pub(crate) fn too_fast() -> TenancyError {
    TenancyError::Unreachable("the claim changes faster than it can be read".to_owned())
}
