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

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::Client;
use async_trait::async_trait;

use crate::tenancy::contents::Contents;
use crate::tenancy::sql::names::admit_password;
use crate::tenancy::{
    Access, Alarm, Claim, Compaction, Connection, Data, Health, Password, Stage, Tenancy,
    TenancyError, too_fast,
};

mod access;
mod account;
mod advisories;
mod bucket;
mod claims;
mod connection;
mod contents;
mod credentials;
mod feed;
mod jetstream;
mod keys;
mod kine;
mod names;
mod stages;
mod system;
mod token;

use access::lost;
use account::{Found, Signers, Wanted};
use claims::{Claims, Entered, Noted, Standing, otherwise};
use connection::{Kept, Link};
use credentials::Administrator;
pub use credentials::of_tenant as credentials;
use jetstream::JetStream;
use system::System;

/// How many copies of its data a tenant gets in a NATS with so many endpoints: three servers
/// and more are a cluster.
pub fn replicas(endpoints: usize) -> usize {
    match endpoints {
        0..=2 => 1,
        _ => 3,
    }
}

/// How many copies kine has to ask for (`replicas` of its endpoint) of a tenant whose claim
/// this is: those that its bucket has, else those that it gets with so many endpoints.
pub fn copies(claim: &Claim, endpoints: usize) -> usize {
    claim.replicas.unwrap_or_else(|| replicas(endpoints))
}

/// How often rights are given while the claim is turned to another stage.
const ATTEMPTS: usize = 5;

/// Administration of one NATS.
pub struct Nats {
    link: Link,
    administrator: Administrator,
    system: System,
    /// In the account with the claims.
    claims: Kept,
    entered: Entered,
}

impl Nats {
    /// See [`crate::tenancy::connect`].
    pub fn new(connection: &Connection) -> Result<Self, TenancyError> {
        Ok(Nats {
            link: Link::new(connection)?,
            administrator: Administrator::of(connection)?,
            system: System::new(),
            claims: Kept::default(),
            entered: Entered::default(),
        })
    }

    async fn account(&self, account: &str) -> Result<Option<Found>, TenancyError> {
        let (link, administrator) = (&self.link, &self.administrator);
        self.system.account(link, administrator, account).await
    }

    async fn make(&self, wanted: &Wanted, found: Option<&Found>) -> Result<bool, TenancyError> {
        let (link, administrator) = (&self.link, &self.administrator);
        self.system.make(link, administrator, wanted, found).await
    }

    /// The claims, `None` where nobody ever claimed anything.
    async fn claims(&self) -> Result<Option<Claims<'_>>, TenancyError> {
        let client = match self.claims.get() {
            Some(client) => client,
            None => {
                let account = keys::account_of_claims();
                let Some(found) = self.account(&account).await? else {
                    return Ok(None);
                };
                self.renew_claims(&found).await?;
                self.claims.keep(self.enter(&account).await?)
            }
        };
        Ok(Some(self.claims_by(client)))
    }

    /// The claims, whose place is made if need be.
    async fn claims_to_be(&self) -> Result<Claims<'_>, TenancyError> {
        let wanted = Wanted::of_claims(&self.administrator.seed);
        let found = self.account(&wanted.account).await?;
        self.make(&wanted, found.as_ref()).await?;
        let client = match self.claims.get() {
            Some(client) => client,
            None => self.claims.keep(self.enter(&wanted.account).await?),
        };
        let claims = self.claims_by(client);
        claims.make(self.link.replicas()).await?;
        Ok(claims)
    }

    /// The operator's key may be another one than when the account was made.
    async fn renew_claims(&self, found: &Found) -> Result<(), TenancyError> {
        let wanted = Wanted::of_claims(&self.administrator.seed);
        self.make(&wanted, Some(found)).await.map(drop)
    }

    fn claims_by(&self, client: Arc<Client>) -> Claims<'_> {
        Claims::new(client, &self.claims, self.link.deadline)
    }

    async fn standing(&self, claim: &Claim) -> Result<Standing, TenancyError> {
        match self.claims().await? {
            Some(claims) => claims.standing(claim).await,
            None => Ok(Standing::Absent),
        }
    }

    /// What the tenant has of the claim: all, or one of its names, whoever has the other one;
    /// what is done under it is done in an account that is made from its uid.
    ///
    /// # Errors
    /// [`TenancyError::SchemaTaken`] if it has neither, and another uid has one.
    async fn held(&self, claim: &Claim) -> Result<Option<Standing>, TenancyError> {
        names::admit(claim)?;
        let Some(claims) = Nats::claims(self).await? else {
            return Ok(None);
        };
        let names = claims.names(claim).await?;
        match names.own(claim) {
            Some(own) => Ok(Some(own)),
            None => names.standing(claim).map(|_| None),
        }
    }

    /// The same of who is about to change something.
    ///
    /// # Errors
    /// Also [`TenancyError::Refused`] if the claim is at another stage.
    async fn held_at(&self, claim: &Claim) -> Result<Option<Standing>, TenancyError> {
        let held = self.held(claim).await?;
        let stored = held.as_ref().and_then(Standing::record);
        match stored.and_then(|stored| claim.stage_differs(&stored.claim)) {
            Some(why) => Err(TenancyError::Refused(why)),
            None => Ok(held),
        }
    }

    /// As the administrator in an account.
    async fn enter(&self, account: &str) -> Result<Client, TenancyError> {
        let credentials = self.administrator.in_account(account)?;
        self.link.enter_beside_others(&credentials).await
    }

    fn jetstream<'a>(&self, client: &'a Client) -> JetStream<'a> {
        JetStream::new(client, self.link.deadline)
    }

    /// The account as it is while nobody but us gets in.
    fn closed(&self, claim: &Claim) -> Wanted {
        Wanted::of_tenant(claim, &self.administrator.seed, &Signers::default())
    }

    /// The account as it is while the tenant's user gets in, and those of passwords that it had
    /// a short time before.
    fn open(&self, claim: &Claim, password: &Password, found: Option<&Found>) -> Wanted {
        let signer = keys::tenants_signer(claim, password).public_key();
        let signers = Signers::after(found, &signer, system::now());
        Wanted::of_tenant(claim, &self.administrator.seed, &signers)
    }

    /// In the tenant's account as the administrator. One without our key gets it first; where
    /// there is none, a closed one is made.
    async fn enter_tenant(&self, claim: &Claim) -> Result<Client, TenancyError> {
        let account = keys::account_of(claim);
        let found = self.account(&account).await?;
        let own = keys::administrators_signer(&self.administrator.seed, &account);
        let enters = found.as_ref().is_some_and(|found| found.lets_in(&own));
        if !enters {
            let signers = found.as_ref().map(Found::signers).unwrap_or_default();
            let wanted = Wanted::of_tenant(claim, &self.administrator.seed, &signers);
            self.make(&wanted, found.as_ref()).await?;
        }
        self.enter(&account).await
    }

    /// Claims the names, unless they are claimed; whether that was to be done.
    async fn begin(
        &self,
        claims: &Claims<'_>,
        claim: &Claim,
        data: Data,
    ) -> Result<bool, TenancyError> {
        match claims.standing(claim).await? {
            Standing::Otherwise(found) => Err(TenancyError::Refused(otherwise(&found))),
            Standing::Absent if data == Data::Kept => Err(TenancyError::DataLost(format!(
                "nobody has claimed the bucket {:?}: the datastore is another one, or it was \
                 emptied",
                claim.schema
            ))),
            Standing::Absent => {
                claim.admit_new()?;
                claims.take(claim).await.map(|()| true)
            }
            standing if standing.is_whole() => Ok(false),
            _ => claims.take(claim).await.map(|()| false),
        }
    }

    /// Bucket and rights of a claim that stands, by its stored stage. Without a password those
    /// are let in who were.
    async fn give(
        &self,
        claims: &Claims<'_>,
        claim: &Claim,
        password: Option<&Password>,
        data: Data,
    ) -> Result<(), TenancyError> {
        for _ in 0..ATTEMPTS {
            let client = self.enter_tenant(claim).await?;
            let jetstream = self.jetstream(&client);
            // Before the stage is read: a bucket that is frozen has a claim that says so.
            let found = bucket::find(&jetstream, claim).await?;
            let standing = claims.standing(claim).await?;
            let Some(record) = standing.record() else {
                break;
            };
            let stored = record.claim.clone();
            if data == Data::Kept
                && stored.stage.lets_in()
                && let Some(what) = lost(&stored, &standing, found.as_ref())
            {
                return Err(TenancyError::DataLost(what));
            }
            let bucket = match stored.stage {
                Stage::Left => found,
                _ => Some(bucket::make(&jetstream, &stored, self.link.replicas(), found).await?),
            };
            self.let_in(&stored, password).await?;
            match claims.note(&stored, bucket.as_ref()).await? {
                Noted::Stands => return Ok(()),
                Noted::Turned => {}
                Noted::Gone => break,
            }
        }
        // Somebody was faster and took the claim away, or turned it: what was given has to go.
        let account = self.account(&keys::account_of(claim)).await?;
        self.make(&self.closed(claim), account.as_ref()).await?;
        Err(too_fast())
    }

    /// Lets in who is to be at the stage of the claim.
    async fn let_in(
        &self,
        stored: &Claim,
        password: Option<&Password>,
    ) -> Result<(), TenancyError> {
        let account = self.account(&keys::account_of(stored)).await?;
        let wanted = match (stored.stage.lets_in(), password) {
            (false, _) => self.closed(stored),
            (true, Some(password)) => self.open(stored, password, account.as_ref()),
            (true, None) => match account.as_ref().map(Found::signers) {
                Some(signers) if signers.current.is_some() => {
                    Wanted::of_tenant(stored, &self.administrator.seed, &signers)
                }
                _ => return Err(no_password()),
            },
        };
        self.make(&wanted, account.as_ref()).await.map(drop)
    }

    /// Takes a claim back for which nothing was made.
    async fn withdraw(&self, claims: &Claims<'_>, claim: &Claim) -> Result<(), TenancyError> {
        self.remove(claim).await?;
        let standing = claims.standing(claim).await?;
        claims.give_back(&standing).await
    }

    /// Deletes streams and account.
    async fn remove(&self, claim: &Claim) -> Result<(), TenancyError> {
        let account = keys::account_of(claim);
        let Some(found) = self.account(&account).await? else {
            return Ok(());
        };
        // A server that has missed the end of the account shall at least not let anybody in.
        self.make(&self.closed(claim), Some(&found)).await?;
        let client = self.enter(&account).await?;
        let jetstream = self.jetstream(&client);
        for name in jetstream.names().await? {
            jetstream.delete(&name).await?;
        }
        let (link, administrator) = (&self.link, &self.administrator);
        let accounts = [account.as_str()];
        self.system
            .delete_accounts(link, administrator, &accounts)
            .await
    }

    /// Streams and the account, counted together.
    async fn left(&self, claim: &Claim) -> Result<u64, TenancyError> {
        if self.account(&keys::account_of(claim)).await?.is_none() {
            return Ok(0);
        }
        let client = self.enter_tenant(claim).await?;
        let names = self.jetstream(&client).names().await?;
        Ok(names.len() as u64 + 1)
    }
}

fn no_password() -> TenancyError {
    TenancyError::Refused("this driver needs a password for the tenant's user".to_owned())
}

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
