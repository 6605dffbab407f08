//! Tenants in etcd, separated by its own authentication and roles.
//!
//! A tenant's data lives under `/<schema>/`. Its user authenticates by a client
//! certificate whose common name is the user's name, has no password, and holds
//! one role, named after schema and uid, with read and write on the range
//! [`/<schema>/`, `/<schema>0`). Schemas hold no `/`, so that no two of these
//! ranges meet, also if one name is a prefix of the other.
//!
//! # What etcd keeps from a tenant
//! Shown by `tests/etcd_isolation.rs` with a tenant's own certificate against
//! etcd 3.6.15. Refused: reading, writing, watching and deleting any key outside
//! its range, in transactions too; compaction; raising and disarming alarms;
//! users and roles other than its own; turning authentication off; snapshots,
//! hashes, defragmentation, moving the leader, changing members; revoking,
//! renewing and using a lease that is attached to a key of somebody else.
//!
//! # What etcd does not keep from a tenant
//! * Its own user and role, the server's status (version, sizes, revision), the
//!   members and the active alarms can be read.
//! * The revision in every answer tells how much everybody writes.
//! * A lease that is attached to no key belongs to nobody: whoever knows or
//!   guesses its 63-bit number can revoke it. Kubernetes attaches a lease right
//!   after it made it. While any lease is attached to keys of others, listing
//!   leases is refused, which hides the numbers; if none is, it is allowed.
//! * There are no quotas: a tenant can fill the database for all
//!   ([`crate::tenancy::Alarm::NoSpace`]) and make leases without end.
//! * Rights are checked when a watch begins, not while it runs: a stream that
//!   is open when the user is deleted goes on until its connection ends.
//! * Each change of users or roles makes requests under way fail once with
//!   "revision of auth store is old"; clients repeat them.

mod adopt;
mod advisories;
mod bootstrap;
mod claims;
mod connection;
mod contents;
mod database;
mod diagnose;
mod range;
mod rights;
mod turn;

use std::collections::BTreeSet;

use async_trait::async_trait;
use etcd_client::{AlarmAction, AlarmType, CompactionOptions, GetOptions};

use crate::tenancy::contents::Contents;
use crate::tenancy::{
    Access, Alarm, Claim, Compaction, Data, Health, Password, Stage, Tenancy, TenancyError,
};
pub use bootstrap::bootstrap;
use claims::Standing;
pub use database::Etcd;

#[async_trait]
impl Tenancy for Etcd {
    async fn verify(&self) -> Result<Health, TenancyError> {
        let status = self
            .link
            .ask("status", |mut client| async move { client.status().await })
            .await?;
        self.link.prove_root().await?;
        let alarms = self
            .link
            .ask("list alarms", |mut client| async move {
                client.alarm(AlarmAction::Get, AlarmType::None, None).await
            })
            .await?;
        let mut raised = Vec::new();
        for alarm in alarms.alarms() {
            let alarm = match alarm.alarm() {
                AlarmType::Nospace => Alarm::NoSpace,
                AlarmType::Corrupt => Alarm::Corrupt,
                AlarmType::None => continue,
            };
            if !raised.contains(&alarm) {
                raised.push(alarm);
            }
        }
        let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        Ok(Health {
            version: status.version().to_owned(),
            revision: bytes(status.header().map_or(0, |header| header.revision())),
            authentication: self.link.authentication().await?,
            alarms: raised,
            gaps: advisories::gaps(status.version()),
            size: bytes(status.db_size()),
            used: bytes(status.raft_used_db_size()),
            quota: Some(bytes(status.db_size_quota())).filter(|quota| *quota > 0),
        })
    }

    async fn claims(&self, uid: &str) -> Result<Vec<Claim>, TenancyError> {
        Ok(claims::of(uid, self.claim_pairs().await?))
    }

    async fn claimants(&self) -> Result<BTreeSet<String>, TenancyError> {
        let pairs = self.claim_pairs().await?;
        let claims = pairs.iter().filter_map(claims::in_pair);
        Ok(claims.map(|claim| claim.uid).collect())
    }

    async fn prepare(
        &self,
        claim: &Claim,
        _password: Option<&Password>,
        _data: Data,
    ) -> Result<(), TenancyError> {
        claims::admit(claim)?;
        if !self.link.authentication().await? {
            return Err(TenancyError::Refused(
                "authentication of the datastore is off: every tenant could read all others; \
                 turn it on with root as an administrator's user"
                    .to_owned(),
            ));
        }
        if !claims::held(&self.link, claim).await? {
            claim.admit_new()?;
            turn::admit_prefix(claim)?;
            self.refuse_unclaimed(claim).await?;
            claims::take(&self.link, claim).await?;
        }
        let _one = self.rights.lock().await;
        self.settle_rights(claim).await
    }

    async fn may_adopt(&self, claim: &Claim) -> Result<bool, TenancyError> {
        self.look_to_adopt(claim).await
    }

    async fn adopt(&self, claim: &Claim) -> Result<bool, TenancyError> {
        if !self.look_to_adopt(claim).await? {
            return Ok(false);
        }
        claims::take(&self.link, claim).await?;
        Ok(true)
    }

    async fn check(
        &self,
        claim: &Claim,
        _password: Option<&Password>,
    ) -> Result<Access, TenancyError> {
        claims::admit(claim)?;
        let differs = |how: String| Ok(Access::Differs(how));
        match claims::standing(&self.link, claim).await? {
            Standing::Held => {}
            Standing::Partly => {
                return differs(format!(
                    "schema {:?} and user {:?} are not both claimed",
                    claim.schema, claim.user
                ));
            }
            Standing::Absent => return Ok(Access::Unclaimed),
        }
        let Some(hold) = claims::hold(&self.link, claim).await? else {
            return Ok(Access::Unclaimed);
        };
        if let Some(why) = claim.stage_differs(&hold.claim) {
            return differs(why);
        }
        Ok(match self.rights_differ(&hold.claim).await? {
            Some(how) => Access::Differs(how),
            None => Access::Exact,
        })
    }

    async fn revoke(&self, claim: &Claim) -> Result<(), TenancyError> {
        claims::admit(claim)?;
        let _one = self.rights.lock().await;
        match self.held_at_stage(claim).await? {
            Some(hold) => self.delete_rights(&hold.claim).await,
            None => Ok(()),
        }
    }

    async fn drop_data(&self, claim: &Claim) -> Result<(), TenancyError> {
        claims::admit(claim)?;
        while let Some(hold) = self.held_at_stage(claim).await? {
            // As long as nobody changes the claims, which are then read again.
            if self.delete_all(claim, &hold.unchanged).await? {
                break;
            }
        }
        Ok(())
    }

    async fn remaining(&self, claim: &Claim) -> Result<u64, TenancyError> {
        claims::admit(claim)?;
        if !claims::held(&self.link, claim).await? {
            return Ok(0);
        }
        let left = self.leftovers(claim).await?;
        Ok(left.keys + u64::from(left.user) + u64::from(left.role))
    }

    async fn release(&self, claim: &Claim) -> Result<(), TenancyError> {
        claims::admit(claim)?;
        if self.held_at_stage(claim).await?.is_none() {
            // One of two names may be left.
            return claims::give_back(&self.link, claim).await;
        }
        let left = self.remaining(claim).await?;
        if left > 0 {
            return Err(TenancyError::Refused(format!(
                "{left} keys, users and roles of schema {:?} are left; its claim stays",
                claim.schema
            )));
        }
        claims::give_back(&self.link, claim).await
    }

    async fn turn(
        &self,
        claim: &Claim,
        to: Stage,
        _password: Option<&Password>,
    ) -> Result<Claim, TenancyError> {
        claims::admit(claim)?;
        let _one = self.rights.lock().await;
        self.turn_alone(claim, to).await
    }

    async fn contents<'a>(
        &'a self,
        claim: &Claim,
        _password: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError> {
        claims::admit(claim)?;
        let hold = turn::admit_contents(claim, claims::hold(&self.link, claim).await?)?;
        Ok(Box::new(contents::Keys::new(self, hold)))
    }

    fn through_kine(&self) -> bool {
        false
    }

    async fn compact_older_than(&self, revision: u64) -> Result<Compaction, TenancyError> {
        let Ok(revision @ 2..) = i64::try_from(revision) else {
            return Ok(Compaction::ByOthers);
        };
        // The state just below can be read only as long as nobody compacted.
        let probe = self.link.ask("read an old revision", |mut client| {
            let options = GetOptions::new()
                .with_revision(revision - 1)
                .with_count_only()
                .with_limit(1);
            async move { client.get(claims::ROOT, Some(options)).await }
        });
        match probe.await {
            Ok(_) => {}
            Err(error) if connection::is_compacted(&error) => return Ok(Compaction::ByOthers),
            Err(error) => return Err(error),
        }
        let done = self.link.ask("compact", |mut client| {
            let options = CompactionOptions::new();
            async move { client.compact(revision, Some(options)).await }
        });
        match done.await {
            Ok(_) => Ok(Compaction::ByUs),
            Err(error) if connection::is_compacted(&error) => Ok(Compaction::ByOthers),
            Err(error) => Err(error),
        }
    }
}
