//! One etcd, as its administrator reads it.

use etcd_client::GetOptions;
use tokio::sync::Mutex;

use super::claims;
use super::connection::Link;
use super::range::{after, prefix, span};
use crate::tenancy::{Claim, Connection, TenancyError};

/// Keys deleted or measured at a time.
const PAGE: i64 = 500;

/// Administration of one etcd.
pub struct Etcd {
    pub(super) link: Link,
    /// Users and roles are not part of a transaction: one after the other, so that nobody
    /// carries out what was decided at another stage of the claim.
    pub(super) rights: Mutex<()>,
}

impl Etcd {
    /// See [`crate::tenancy::connect`].
    pub fn new(connection: Connection) -> Result<Self, TenancyError> {
        Ok(Etcd {
            link: Link::new(connection)?,
            rights: Mutex::default(),
        })
    }

    /// What was there before anybody claimed the names belongs to someone else.
    pub(super) async fn refuse_unclaimed(&self, claim: &Claim) -> Result<(), TenancyError> {
        let found = self.leftovers(claim).await?;
        let mut what = Vec::new();
        if found.keys > 0 {
            what.push(format!("{} keys under {}", found.keys, prefix(claim)));
        }
        if found.user {
            what.push(format!("the user {:?}", claim.user));
        }
        if found.role {
            what.push(format!("the role {:?}", claim.role()));
        }
        if what.is_empty() {
            return Ok(());
        }
        Err(TenancyError::Refused(format!(
            "the datastore already holds {}, which no tenant control plane has claimed; \
             choose another schema and user, or remove them",
            what.join(" and ")
        )))
    }

    /// What there is of the tenant, claimed or not.
    pub(super) async fn leftovers(&self, claim: &Claim) -> Result<Leftovers, TenancyError> {
        let (from, to) = span(claim);
        let keys = self
            .link
            .ask("count keys", |mut client| {
                let options = GetOptions::new().with_range(to.clone()).with_count_only();
                let from = from.clone();
                async move { client.get(from, Some(options)).await }
            })
            .await?
            .count();
        Ok(Leftovers {
            keys: u64::try_from(keys).unwrap_or(0),
            user: self.roles_of(&claim.user).await?.is_some(),
            role: self.permissions_of(claim.role()).await?.is_some(),
        })
    }

    /// All claims that there are, of whomever.
    pub(super) async fn claim_pairs(&self) -> Result<Vec<claims::Pair>, TenancyError> {
        let mut pairs = Vec::new();
        for (mut from, to) in claims::spans() {
            loop {
                let page = self.page(from, &to, false).await?;
                for pair in page.kvs() {
                    pairs.push((
                        pair.create_revision(),
                        pair.key().to_vec(),
                        pair.value().to_vec(),
                    ));
                }
                match page.kvs().last() {
                    Some(last) if page.more() => from = after(last.key()),
                    _ => break,
                }
            }
        }
        Ok(pairs)
    }

    /// The next keys of the tenant, in order.
    pub(super) async fn page(
        &self,
        from: Vec<u8>,
        to: &[u8],
        keys_only: bool,
    ) -> Result<etcd_client::GetResponse, TenancyError> {
        self.link
            .ask("list keys", |mut client| {
                let mut options = GetOptions::new().with_range(to).with_limit(PAGE);
                if keys_only {
                    options = options.with_keys_only();
                }
                let from = from.clone();
                async move { client.get(from, Some(options)).await }
            })
            .await
    }
}

/// What there is of a tenant, claimed or not.
pub(super) struct Leftovers {
    pub(super) keys: u64,
    pub(super) user: bool,
    pub(super) role: bool,
}
