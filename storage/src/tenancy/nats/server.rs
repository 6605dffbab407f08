//! One NATS, as its administrator works with it.

use std::sync::Arc;

use async_nats::Client;

use super::account::{Found, Signers, Wanted};
use super::bucket;
use super::claims::{Claims, Entered, Noted, Standing, otherwise};
use super::connection::{Kept, Link};
use super::credentials::Administrator;
use super::jetstream::JetStream;
use super::keys;
use super::lost::lost;
use super::names;
use super::system::{self, System};
use crate::tenancy::{Claim, Connection, Data, Password, Stage, TenancyError, too_fast};

/// How often rights are given while the claim is turned to another stage.
const ATTEMPTS: usize = 5;

/// Administration of one NATS.
pub struct Nats {
    pub(super) link: Link,
    pub(super) administrator: Administrator,
    pub(super) system: System,
    /// In the account with the claims.
    pub(super) claims: Kept,
    pub(super) entered: Entered,
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

    pub(super) async fn account(&self, account: &str) -> Result<Option<Found>, TenancyError> {
        let (link, administrator) = (&self.link, &self.administrator);
        self.system.account(link, administrator, account).await
    }

    pub(super) async fn make(
        &self,
        wanted: &Wanted,
        found: Option<&Found>,
    ) -> Result<bool, TenancyError> {
        let (link, administrator) = (&self.link, &self.administrator);
        self.system.make(link, administrator, wanted, found).await
    }

    /// The claims, `None` where nobody ever claimed anything.
    pub(super) async fn claims(&self) -> Result<Option<Claims<'_>>, TenancyError> {
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
    pub(super) async fn claims_to_be(&self) -> Result<Claims<'_>, TenancyError> {
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
    pub(super) async fn renew_claims(&self, found: &Found) -> Result<(), TenancyError> {
        let wanted = Wanted::of_claims(&self.administrator.seed);
        self.make(&wanted, Some(found)).await.map(drop)
    }

    pub(super) fn claims_by(&self, client: Arc<Client>) -> Claims<'_> {
        Claims::new(client, &self.claims, self.link.deadline)
    }

    pub(super) async fn standing(&self, claim: &Claim) -> Result<Standing, TenancyError> {
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
    pub(super) async fn held(&self, claim: &Claim) -> Result<Option<Standing>, TenancyError> {
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
    pub(super) async fn held_at(&self, claim: &Claim) -> Result<Option<Standing>, TenancyError> {
        let held = self.held(claim).await?;
        let stored = held.as_ref().and_then(Standing::record);
        match stored.and_then(|stored| claim.stage_differs(&stored.claim)) {
            Some(why) => Err(TenancyError::Refused(why)),
            None => Ok(held),
        }
    }

    /// As the administrator in an account.
    pub(super) async fn enter(&self, account: &str) -> Result<Client, TenancyError> {
        let credentials = self.administrator.in_account(account)?;
        self.link.enter_beside_others(&credentials).await
    }

    pub(super) fn jetstream<'a>(&self, client: &'a Client) -> JetStream<'a> {
        JetStream::new(client, self.link.deadline)
    }

    /// The account as it is while nobody but us gets in.
    pub(super) fn closed(&self, claim: &Claim) -> Wanted {
        Wanted::of_tenant(claim, &self.administrator.seed, &Signers::default())
    }

    /// The account as it is while the tenant's user gets in, and those of passwords that it had
    /// a short time before.
    pub(super) fn open(&self, claim: &Claim, password: &Password, found: Option<&Found>) -> Wanted {
        let signer = keys::tenants_signer(claim, password).public_key();
        let signers = Signers::after(found, &signer, system::now());
        Wanted::of_tenant(claim, &self.administrator.seed, &signers)
    }

    /// In the tenant's account as the administrator. One without our key gets it first; where
    /// there is none, a closed one is made.
    pub(super) async fn enter_tenant(&self, claim: &Claim) -> Result<Client, TenancyError> {
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
    pub(super) async fn begin(
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
    pub(super) async fn give(
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
    pub(super) async fn let_in(
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
    pub(super) async fn withdraw(
        &self,
        claims: &Claims<'_>,
        claim: &Claim,
    ) -> Result<(), TenancyError> {
        self.remove(claim).await?;
        let standing = claims.standing(claim).await?;
        claims.give_back(&standing).await
    }

    /// Deletes streams and account.
    pub(super) async fn remove(&self, claim: &Claim) -> Result<(), TenancyError> {
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
    pub(super) async fn left(&self, claim: &Claim) -> Result<u64, TenancyError> {
        if self.account(&keys::account_of(claim)).await?.is_none() {
            return Ok(0);
        }
        let client = self.enter_tenant(claim).await?;
        let names = self.jetstream(&client).names().await?;
        Ok(names.len() as u64 + 1)
    }
}

/// A tenant gets in by a password.
pub(super) fn no_password() -> TenancyError {
    TenancyError::Refused("this driver needs a password for the tenant's user".to_owned())
}
