//! One SQL server, as its administrator sees it.

use async_trait::async_trait;

use super::entrance::Entrance;
use crate::tenancy::contents::Contents;
use crate::tenancy::{Access, Claim, Health, Password, Stage, TenancyError};

/// One SQL server, as its administrator sees it.
#[async_trait]
pub trait Server: Send + Sync {
    /// A connection as the administrator, to the database with the claims if there is
    /// one.
    type Session: Send + 'static;

    /// Refuses names that nobody may have.
    fn admit(&self, claim: &Claim) -> Result<(), TenancyError>;
    /// Refuses names that this very server cannot have.
    fn admit_here(&self, _session: &Self::Session, _claim: &Claim) -> Result<(), TenancyError> {
        Ok(())
    }
    /// Refuses what would be refused after the claim was made, while nothing is there.
    async fn admit_first(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
    ) -> Result<(), TenancyError>;
    /// A new connection.
    async fn open(&self) -> Result<Self::Session, TenancyError>;
    /// A new connection that holds the lock on this schema. Where claims have no place
    /// yet, it is made if somebody is about to claim.
    async fn lock(&self, schema: &str, to_claim: bool) -> Result<Self::Session, TenancyError>;
    /// Ends the connection and its lock.
    async fn close(&self, session: Self::Session);
    /// Whether another call may use the connection.
    fn reusable(&self, session: &Self::Session) -> bool;

    /// What [`verify`](crate::tenancy::Tenancy::verify) answers.
    async fn health(&self) -> Result<Health, TenancyError>;
    /// Whom the server lets in.
    async fn entrance(&self) -> Result<Entrance, TenancyError>;

    /// All claims, the oldest first.
    async fn claims(&self, session: &mut Self::Session) -> Result<Vec<Claim>, TenancyError>;
    /// The claims, of whomever, on either of these names.
    async fn claims_on(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
    ) -> Result<Vec<Claim>, TenancyError>;
    /// Writes a claim; whether it was first.
    async fn insert(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
    ) -> Result<bool, TenancyError>;
    /// Brings a claim from one stage to another, if it is there.
    async fn mark(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
        to: Stage,
    ) -> Result<(), TenancyError>;
    /// Deletes a claim.
    async fn delete(&self, session: &mut Self::Session, claim: &Claim) -> Result<(), TenancyError>;

    /// What there is of the tenant, claimed or not.
    async fn present(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
    ) -> Result<Present, TenancyError>;
    /// Creates what is absent and repairs what differs, for the stage of the claim.
    async fn give(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<(), TenancyError>;
    /// Lets the user read and not write, and returns when no write of its can succeed.
    async fn freeze(&self, session: &mut Self::Session, claim: &Claim) -> Result<(), TenancyError>;
    /// Ends other connections of the administrator to the database, those of
    /// [`Server::contents`].
    async fn end_ours(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
    ) -> Result<(), TenancyError>;
    /// A connection of its own to the contents, to be written by the administrator while the
    /// claim is incoming, else to be read by the user.
    async fn contents<'a>(
        &'a self,
        session: &mut Self::Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError>;
    /// What is gone of the data of a tenant that has some; a sentence without full stop.
    async fn lost(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
    ) -> Result<Option<String>, TenancyError>;
    /// How data, rights and password are, under a claim that is held.
    async fn access(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Access, TenancyError>;
    /// Lets the user in no more, and ends its connections.
    async fn shut_out(
        &self,
        session: &mut Self::Session,
        claim: &Claim,
    ) -> Result<(), TenancyError>;
    /// Deletes the database, and the user if it is still there.
    async fn remove(&self, session: &mut Self::Session, claim: &Claim) -> Result<(), TenancyError>;
}

/// What there is of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// The database.
    pub database: bool,
    /// The user.
    pub user: bool,
}

impl Present {
    pub(super) fn count(self) -> u64 {
        u64::from(self.database) + u64::from(self.user)
    }
}
