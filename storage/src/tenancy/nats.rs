//! Tenants in NATS JetStream, each in an account of its own.
//!
//! # What keeps tenants apart
//! In NATS it is the account. Users of one account that may create streams and consumers,
//! which kine must, are not kept apart by rights on subjects: the body of the request, which no
//! right looks at, names a stream to mirror, subjects to take and a subject to deliver to, and
//! the server carries that out for everybody in the account. So each tenant has an account, and
//! with it subjects, streams, limits and a JetStream of its own; nothing is imported or
//! exported.
//!
//! # What the administrator has to prepare
//! Accounts can be made while the server runs only in *operator mode*:
//! * `operator` and `system_account` in the server's configuration,
//! * `resolver { type: full, allow_delete: true, ... }`: the servers keep the accounts' tokens
//!   and take new ones,
//! * `jetstream { ... }`.
//!
//! The `DataStore` has in `basicAuth.username` the credentials of a user of the system account
//! (a file as `nsc generate creds` writes it), and in `basicAuth.password` the seed of a signing
//! key of the operator. With these Steward is the administrator of all accounts. One NATS can
//! be shared by installations of Steward that have the same signing key. Servers that are not
//! so are refused by [`Tenancy::verify`] with what is missing. Accounts or users in a server's
//! configuration cannot be used: they are not ours to edit; nor a callout, for tenants would be
//! shut out while that is down.
//!
//! # How
//! * The account of a tenant is a hash of uid and schema ([`keys::account_of`]). So nobody who
//!   is late can do anything to the next tenant of the schema, and a credential of a former
//!   tenant leads to an account that there is not. Its token lists two keys that sign users:
//!   ours, derived from the operator's, and the tenant's, derived from the password in its
//!   Secret, which gives exactly the rights that kine needs ([`account`]).
//! * kine gets a file with its credentials ([`credentials`]), which is made from claim and
//!   password alone.
//! * The tenant's bucket has the name of the schema. It is made here, as kine would make it.
//! * Claims are messages of a stream in an account of ours ([`claims`]), which are written if
//!   the subject has none.
//! * The stage of a claim decides who gets into the account ([`account`]) and what the bucket
//!   takes ([`bucket`]). How one leads to another is in [`stages`].
//!
//! # What NATS does not keep from a tenant
//! Shown by `tests/nats_isolation.rs` with a tenant's own credentials. Whoever has them may
//! read and write the bucket, and if it is gone make another one with another configuration in
//! the same account; he cannot make a second stream. There is no quota: he can fill the
//! storage for all ([`Alarm::NoSpace`]) and make consumers without end. He is told the server's
//! name, version and addresses.
//!
//! In a cluster a server that is cut off while an account is closed and deleted may bring it
//! back when it joins again, as it was then: with the former tenant's key, and with nothing in
//! it.

mod access;
mod account;
mod advisories;
mod bucket;
mod claims;
mod connection;
mod contents;
mod copies;
mod credentials;
mod feed;
mod jetstream;
mod keys;
mod kine;
mod lost;
mod names;
mod server;
mod stages;
mod system;
mod token;

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::tenancy::contents::Contents;
use crate::tenancy::sql::names::admit_password;
use crate::tenancy::{
    Access, Alarm, Claim, Compaction, Data, Health, Password, Stage, Tenancy, TenancyError,
};
use claims::{Standing, otherwise};
pub use copies::{copies, replicas};
pub use credentials::of_tenant as credentials;
pub use server::Nats;
use server::no_password;

#[async_trait]
impl Tenancy for Nats {
    async fn verify(&self) -> Result<Health, TenancyError> {
        let server = self.system.server(&self.link, &self.administrator).await?;
        let full = server.quota.is_some_and(|quota| server.used >= quota);
        Ok(Health {
            gaps: advisories::gaps(&server.version),
            version: server.version,
            revision: 0,
            authentication: true,
            alarms: if full { vec![Alarm::NoSpace] } else { vec![] },
            size: server.used,
            used: server.used,
            quota: server.quota,
        })
    }

    async fn claims(&self, uid: &str) -> Result<Vec<Claim>, TenancyError> {
        let Some(claims) = Nats::claims(self).await? else {
            return Ok(Vec::new());
        };
        claims.of(uid, &self.entered).await
    }

    async fn claimants(&self) -> Result<BTreeSet<String>, TenancyError> {
        let Some(claims) = Nats::claims(self).await? else {
            return Ok(BTreeSet::new());
        };
        let found = claims.all().await?;
        Ok(found.into_iter().map(|claim| claim.uid).collect())
    }

    async fn prepare(
        &self,
        claim: &Claim,
        password: Option<&Password>,
        data: Data,
    ) -> Result<(), TenancyError> {
        names::admit(claim)?;
        let password = password.ok_or_else(no_password)?;
        admit_password(password)?;
        self.system.server(&self.link, &self.administrator).await?;
        let claims = self.claims_to_be().await?;
        let first = self.begin(&claims, claim, data).await?;
        let given = self.give(&claims, claim, Some(password), data).await;
        if let (true, Err(TenancyError::Refused(_))) = (first, &given)
            && let Err(error) = self.withdraw(&claims, claim).await
        {
            // The refusal is what somebody has to mend. Whoever deletes the tenant finds the
            // claim, and by it what is left.
            tracing::warn!(schema = claim.schema, %error, "a refused claim stays");
        }
        given
    }

    async fn check(
        &self,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Access, TenancyError> {
        names::admit(claim)?;
        let standing = self.standing(claim).await?;
        match &standing {
            Standing::Absent => return Ok(Access::Unclaimed),
            Standing::Otherwise(found) => return Ok(Access::Differs(otherwise(found))),
            Standing::Held { .. } if standing.is_whole() => {}
            Standing::Held { .. } => {
                return Ok(Access::Differs(format!(
                    "schema {:?} and user {:?} are not both claimed",
                    claim.schema, claim.user
                )));
            }
        }
        let stored = standing.record().map(|record| &record.claim);
        if let Some(why) = stored.and_then(|stored| claim.stage_differs(stored)) {
            return Ok(Access::Differs(why));
        }
        match self.account(&keys::account_of(claim)).await? {
            Some(found) => self.access(claim, &standing, &found, password).await,
            None => Ok(Access::Differs(format!(
                "account {} does not exist",
                keys::account_of(claim)
            ))),
        }
    }

    async fn revoke(&self, claim: &Claim) -> Result<(), TenancyError> {
        if self.held_at(claim).await?.is_none() {
            return Ok(());
        }
        match self.account(&keys::account_of(claim)).await? {
            None => Ok(()),
            found => self
                .make(&self.closed(claim), found.as_ref())
                .await
                .map(drop),
        }
    }

    async fn drop_data(&self, claim: &Claim) -> Result<(), TenancyError> {
        match self.held_at(claim).await? {
            Some(_) => self.remove(claim).await,
            None => Ok(()),
        }
    }

    async fn remaining(&self, claim: &Claim) -> Result<u64, TenancyError> {
        match self.held(claim).await? {
            Some(_) => self.left(claim).await,
            None => Ok(0),
        }
    }

    async fn release(&self, claim: &Claim) -> Result<(), TenancyError> {
        let Some(own) = self.held_at(claim).await? else {
            return Ok(());
        };
        let Some(claims) = Nats::claims(self).await? else {
            return Ok(());
        };
        match self.left(claim).await? {
            0 => claims.give_back(&own).await,
            left => Err(TenancyError::Refused(format!(
                "{left} of streams and account of schema {:?} are left; its claim stays",
                claim.schema
            ))),
        }
    }

    async fn turn(
        &self,
        claim: &Claim,
        to: Stage,
        password: Option<&Password>,
    ) -> Result<Claim, TenancyError> {
        names::admit(claim)?;
        self.turn_to(claim, to, password).await
    }

    /// By the administrator: what is in a bucket is not carried out by anybody.
    async fn contents<'a>(
        &'a self,
        claim: &Claim,
        _password: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError> {
        names::admit(claim)?;
        Ok(Box::new(self.open_contents(claim).await?))
    }

    fn through_kine(&self) -> bool {
        true
    }

    /// The bucket keeps the last ten values of each key, and nothing else is to be compacted.
    async fn compact_older_than(&self, _revision: u64) -> Result<Compaction, TenancyError> {
        Ok(Compaction::NotOurs)
    }
}

#[cfg(test)]
mod testing {
    use crate::tenancy::{Claim, Stage};

    pub fn claim(uid: &str, schema: &str, user: &str) -> Claim {
        Claim {
            uid: uid.to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: schema.to_owned(),
            user: user.to_owned(),
            role: None,
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
        }
    }
}
