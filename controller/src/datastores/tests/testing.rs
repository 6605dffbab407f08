//! A database for tests.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use storage::tenancy::contents::Contents;
use storage::tenancy::{
    Access, Claim, Compaction, Data, Health, Password, Stage, Tenancy, TenancyError,
};

/// A database with claims, and the keys of each.
#[derive(Default)]
pub struct Fake {
    pub claims: Mutex<Vec<(Claim, u64)>>,
    /// It does not answer.
    pub away: AtomicBool,
    /// How long a grant takes, of several answers.
    pub slow: Mutex<Duration>,
}

impl Fake {
    /// One in which these tenants are served.
    pub fn with(uids: &[&str]) -> Self {
        let claim = |uid: &&str| Claim {
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
            uid: (*uid).into(),
            namespace: "n".into(),
            name: "t".into(),
            schema: format!("schema of {uid}"),
            user: "u".into(),
            role: None,
        };
        Self::of(uids.iter().map(claim))
    }

    /// One with these claims.
    pub fn of(claims: impl IntoIterator<Item = Claim>) -> Self {
        Self {
            claims: Mutex::new(claims.into_iter().map(|claim| (claim, 7)).collect()),
            ..Self::default()
        }
    }

    pub fn uids(&self) -> Vec<String> {
        let claims = self.claims.lock();
        claims.iter().map(|(claim, _)| claim.uid.clone()).collect()
    }

    /// The stages of its claims.
    pub fn stages(&self) -> Vec<Stage> {
        let claims = self.claims.lock();
        claims.iter().map(|(claim, _)| claim.stage).collect()
    }

    fn answers(&self) -> Result<(), TenancyError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(TenancyError::Unreachable("connection refused".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Tenancy for Fake {
    async fn verify(&self) -> Result<Health, TenancyError> {
        Err(TenancyError::Other("not asked here".into()))
    }
    async fn claims(&self, uid: &str) -> Result<Vec<Claim>, TenancyError> {
        self.answers()?;
        let claims = self.claims.lock();
        let its = claims.iter().filter(|(claim, _)| claim.uid == uid);
        Ok(its.map(|(claim, _)| claim.clone()).collect())
    }
    async fn claimants(&self) -> Result<BTreeSet<String>, TenancyError> {
        self.answers()?;
        Ok(self.uids().into_iter().collect())
    }
    async fn prepare(&self, _: &Claim, _: Option<&Password>, _: Data) -> Result<(), TenancyError> {
        let slow = *self.slow.lock();
        tokio::time::sleep(slow).await;
        self.answers()
    }
    async fn check(&self, _: &Claim, _: Option<&Password>) -> Result<Access, TenancyError> {
        self.answers()?;
        Ok(Access::Exact)
    }
    async fn revoke(&self, _: &Claim) -> Result<(), TenancyError> {
        self.answers()
    }
    async fn drop_data(&self, claim: &Claim) -> Result<(), TenancyError> {
        self.answers()?;
        for (held, keys) in self.claims.lock().iter_mut() {
            if held == claim {
                *keys = 0;
            }
        }
        Ok(())
    }
    async fn remaining(&self, claim: &Claim) -> Result<u64, TenancyError> {
        self.answers()?;
        let claims = self.claims.lock();
        let found = claims.iter().find(|(held, _)| held == claim);
        Ok(found.map_or(0, |(_, keys)| *keys))
    }
    async fn release(&self, claim: &Claim) -> Result<(), TenancyError> {
        self.answers()?;
        self.claims.lock().retain(|(held, _)| held != claim);
        Ok(())
    }
    async fn turn(
        &self,
        claim: &Claim,
        to: Stage,
        _: Option<&Password>,
    ) -> Result<Claim, TenancyError> {
        self.answers()?;
        for (held, _) in self.claims.lock().iter_mut() {
            if held == claim {
                *held = claim.at(to);
            }
        }
        Ok(claim.at(to))
    }
    async fn contents<'a>(
        &'a self,
        _: &Claim,
        _: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError> {
        Err(TenancyError::Other("not asked here".into()))
    }
    fn through_kine(&self) -> bool {
        false
    }
    async fn compact_older_than(&self, _: u64) -> Result<Compaction, TenancyError> {
        Ok(Compaction::NotOurs)
    }
}
