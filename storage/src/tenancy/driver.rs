//! What a driver does for tenants.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::access::{Access, Data};
use super::claim::{Claim, Stage};
use super::contents::Contents;
use super::error::TenancyError;
use super::health::{Compaction, Health};
use super::password::Password;

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

    /// Whether [`Tenancy::adopt`] would make the claim; `false` if it stands. Writes nothing.
    ///
    /// # Errors
    /// As for [`Tenancy::adopt`].
    async fn may_adopt(&self, claim: &Claim) -> Result<bool, TenancyError> {
        let _ = claim;
        Err(TenancyError::Refused(
            "what another operator has in a datastore of this driver cannot be adopted; only in \
             etcd"
                .to_owned(),
        ))
    }

    /// Makes the claim on data, user and role that are there without one, because an
    /// administrator says whose they are. Whether it did: not where the claim stands. Nothing
    /// but the claim is written; rights are made exact by [`Tenancy::prepare`].
    ///
    /// # Errors
    /// [`TenancyError::SchemaTaken`] if another uid holds a name; [`TenancyError::Refused`] if
    /// what is there is not a tenant's with exactly these names, and in drivers that cannot.
    async fn adopt(&self, claim: &Claim) -> Result<bool, TenancyError> {
        self.may_adopt(claim).await
    }

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
