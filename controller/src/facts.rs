//! What observers found out, by the uid of what it is about. Readers get
//! copies; nothing waits.

use std::{collections::HashMap, sync::Arc};

use apiservice::v1alpha1::{MigrationStatus, TenantControlPlane};
use jiff::Timestamp;
use parking_lot::RwLock;
use storage::tenancy::Password;
use tokio::sync::Notify;

use crate::cluster::caches::Caches;
use crate::cluster::chosen;
use crate::process::lanes::Lanes;
use crate::tenant::backing::facts::StoreReport;
use crate::tenant::backing::facts::{AccessFact, Held, StoreHealth, StoreProblem};
use crate::tenant::backing::limits::SizeFact;
use crate::tenant::backing::moving;
use crate::tenant::backing::store as place;
use crate::tenant::ran;
use crate::tenant::world::{ForNodes, InsideFacts, ProbeFacts, Settings};

/// All facts.
#[derive(Debug, Default)]
pub struct Facts {
    tenants: RwLock<HashMap<String, TenantFacts>>,
    stores: RwLock<HashMap<String, StoreFact>>,
    /// When it was first seen that a tenant goes, by uid.
    leaving: RwLock<HashMap<String, Timestamp>>,
}

/// About one tenant, or one of its places beside the main one.
#[derive(Debug, Clone, Default)]
pub struct TenantFacts {
    /// Of what is known of a place beside a tenant's main one: the tenant's uid.
    pub of: Option<String>,
    /// Since when it is observed.
    pub since: Option<Timestamp>,
    /// What its API answered.
    pub probe: ProbeFacts,
    /// What its nodes are told of it; `None` until a pass knows it.
    pub for_nodes: Option<ForNodes>,
    /// What came of keeping in it what belongs there.
    pub inside: InsideFacts,
    /// How much it has in its datastore.
    pub size: SizeFact,
    /// What its user may do in the datastore.
    pub access: Option<AccessFact>,
    /// Its claim, once a database has confirmed it.
    pub held: Option<Held>,
    /// No database that was asked has a claim of it.
    pub nowhere: bool,
    /// The password with which its user was let in last.
    pub password: Option<Password>,
    /// The move of its data to another DataStore, as far as this process knows of one.
    pub migration: Option<MigrationStatus>,
    /// Held by whoever changes its rights in the datastore, or looks at them, until what
    /// came of it is known here.
    pub rights: Arc<tokio::sync::Mutex<()>>,
    /// Steps of its clean-up that failed, and why at last.
    pub cleanup_failures: u32,
    /// What makes the next plan put the clean-up off.
    pub cleanup_problem: Option<StoreProblem>,
    /// Its clean-up found no claim where it has to have one.
    pub unclaimed: bool,
    /// Wakes its probe before its time.
    pub wake_probe: Arc<Notify>,
    /// Wakes its access check before its time.
    pub wake_access: Arc<Notify>,
    /// Wakes the same of its places beside the main one before its time.
    pub wake_beside: Arc<Notify>,
    /// Wakes whoever moves its data before its time.
    pub wake_migration: Arc<Notify>,
    /// Wakes whoever keeps in it what belongs there before its time.
    pub wake_inside: Arc<Notify>,
    /// The probe met something that has to be there and is not.
    pub look_inside: bool,
    /// The connections of its probe that may be under way at a time.
    pub lanes: Lanes,
}

/// Whether settings of a DataStore that would reach pods were found to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Of the settings.
    pub fingerprint: String,
    /// A database that is away later does not take back that they worked.
    pub result: Result<(), StoreProblem>,
}

/// What was measured of a database that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Of the whole database.
    pub bytes: u64,
    /// From the question how it is to the answer.
    pub latency: std::time::Duration,
}

/// About one DataStore.
#[derive(Debug, Clone, Default)]
pub struct StoreFact {
    /// What the last look found.
    pub report: Option<StoreReport>,
    /// What was measured with it.
    pub measured: Option<Measured>,
    /// The settings that were tried last, by their fingerprint, and what came of it.
    pub trial: Option<Trial>,
    /// Wakes its observer before its time.
    pub wake: Arc<Notify>,
}

/// What decisions about several tenants and DataStores look at.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub caches: &'a Caches,
    pub facts: &'a Facts,
    pub settings: &'a Settings,
    pub now: Timestamp,
}

impl Seen<'_> {
    /// The tenants whose data is in a DataStore or is to be there.
    pub fn placed(&self, store: &str) -> Vec<Arc<TenantControlPlane>> {
        let mut tenants = self.caches.tenants.all();
        tenants.retain(|tenant| self.facts.data_store_of(tenant).as_deref() == Some(store));
        tenants
    }

    /// Those of them that the right database knows: they were Ready with it. One that may
    /// begin anew has no data that it must have.
    pub fn proven(&self, store: &str) -> Vec<Arc<TenantControlPlane>> {
        let mut tenants = self.placed(store);
        tenants.retain(|tenant| {
            ran::has_run(self.caches, tenant) && !place::is_to_start_empty(tenant)
        });
        tenants
    }
}

impl StoreFact {
    /// The last answer.
    pub fn health(&self) -> Option<Result<StoreHealth, StoreProblem>> {
        self.report.as_ref().map(|report| report.health.clone())
    }

    /// What came of trying these settings, if they were the last to be tried.
    pub fn tried(&self, fingerprint: &str) -> Option<Result<(), StoreProblem>> {
        let trial = self.trial.as_ref();
        let trial = trial.filter(|trial| trial.fingerprint == fingerprint);
        trial.map(|trial| trial.result.clone())
    }

    /// Takes in what came of a trial; whether that is news.
    pub fn learn(&mut self, trial: Trial) -> bool {
        if self.tried(&trial.fingerprint) == Some(Ok(())) || self.trial.as_ref() == Some(&trial) {
            return false;
        }
        self.trial = Some(trial);
        true
    }
}

impl TenantFacts {
    /// Whether the tenant's data is in a DataStore, or is being moved there.
    pub fn is_or_comes_to(&self, data_store: &str) -> bool {
        let is_here = |held: &Held| held.data_store == data_store;
        let migration = self.migration.as_ref();
        let target = migration.and_then(|it| it.target.as_deref());
        self.held.as_ref().is_some_and(is_here)
            || moving::is_under_way(migration) && target == Some(data_store)
    }

    /// See [`Facts::data_store_of`].
    pub fn data_store_of(&self, tenant: &TenantControlPlane) -> Option<String> {
        let held = self.held.as_ref().map(|held| held.data_store.clone());
        held.or_else(|| chosen::choose(tenant))
    }

    /// See [`Facts::migration_of`].
    pub fn migration_of(&self, tenant: &TenantControlPlane) -> Option<MigrationStatus> {
        let known = self.migration.clone();
        known.or_else(|| tenant.status.as_ref()?.migration.clone())
    }

    /// Takes in what a pass knows for nodes. While nothing is known, or no pod serves,
    /// what was known stands.
    pub fn tell_nodes(&mut self, found: Option<ForNodes>) {
        let Some(found) = found else { return };
        let before = self.for_nodes.take().and_then(|known| known.version);
        self.for_nodes = Some(ForNodes {
            version: found.version.or(before),
            ..found
        });
    }

    /// Takes in what a look at the datastore found; whether that is news. A
    /// claim that was found once stands until its names are another tenant's. What was
    /// found where the tenant's data is not any more is nothing about it.
    pub fn learn(&mut self, access: AccessFact, held: Option<Held>) -> bool {
        let elsewhere = |held: &Held, known: &Held| held.data_store != known.data_store;
        if held
            .as_ref()
            .zip(self.held.as_ref())
            .is_some_and(|(held, known)| elsewhere(held, known))
        {
            return false;
        }
        let held = match access {
            AccessFact::Taken { .. } => None,
            _ => held.or_else(|| self.held.clone()),
        };
        let changed = self.access.as_ref() != Some(&access) || self.held != held;
        self.access = Some(access);
        self.held = held;
        changed
    }
}

impl Facts {
    /// Begins to know about a tenant.
    pub fn enter_tenant(&self, uid: &str, now: Timestamp) {
        let mut tenants = self.tenants.write();
        tenants.entry(uid.into()).or_default().since = Some(now);
    }

    /// About the tenant with this uid; nothing if it was never entered.
    pub fn tenant(&self, uid: &str) -> TenantFacts {
        self.tenants.read().get(uid).cloned().unwrap_or_default()
    }

    /// Name of the DataStore that has the claim of the tenant with this uid.
    pub fn claimed_in(&self, uid: &str) -> Option<String> {
        let tenants = self.tenants.read();
        Some(tenants.get(uid)?.held.as_ref()?.data_store.clone())
    }

    /// How much the tenant with this uid has in its datastore.
    pub fn size_of(&self, uid: &str) -> SizeFact {
        let tenants = self.tenants.read();
        tenants.get(uid).map(|facts| facts.size).unwrap_or_default()
    }

    /// Name of the DataStore that has a tenant's data, or else is to have it.
    pub fn data_store_of(&self, tenant: &TenantControlPlane) -> Option<String> {
        self.of(tenant, |facts| facts.data_store_of(tenant))
    }

    /// The move of a tenant's data as this process knows of it, or else as it was told.
    pub fn migration_of(&self, tenant: &TenantControlPlane) -> Option<MigrationStatus> {
        self.of(tenant, |facts| facts.migration_of(tenant))
    }

    /// What is asked of the facts about a tenant, without a copy of all of them.
    fn of<R>(&self, tenant: &TenantControlPlane, ask: impl FnOnce(&TenantFacts) -> R) -> R {
        let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
        match self.tenants.read().get(uid) {
            Some(facts) => ask(facts),
            None => ask(&TenantFacts::default()),
        }
    }

    /// When it was first seen that this tenant is being deleted; `now` if that
    /// was not known.
    pub fn leaving_since(&self, uid: &str, now: Timestamp) -> Timestamp {
        *self.leaving.write().entry(uid.into()).or_insert(now)
    }

    /// Nothing is left of this tenant.
    pub fn left(&self, uid: &str) {
        self.leaving.write().remove(uid);
    }

    /// Changes what is known about a tenant.
    pub fn update_tenant<R>(&self, uid: &str, change: impl FnOnce(&mut TenantFacts) -> R) -> R {
        change(self.tenants.write().entry(uid.into()).or_default())
    }

    /// The same of one of its places beside the main one, by the uid that claims it; of the
    /// main one, by its own.
    pub fn update_place<R>(
        &self,
        uid: &str,
        claimant: &str,
        change: impl FnOnce(&mut TenantFacts) -> R,
    ) -> R {
        self.update_tenant(claimant, |facts| {
            facts.of = (uid != claimant).then(|| uid.to_owned());
            change(facts)
        })
    }

    /// Names that were refused to a tenant may be free: it asks again. Whether some were.
    pub fn ask_again(&self, uid: &str) -> bool {
        self.update_tenant(uid, |facts| {
            let refused = facts.access.as_ref().is_some_and(AccessFact::is_refused);
            if refused {
                facts.access = None;
            }
            refused
        })
    }

    /// Begins to know about a DataStore.
    pub fn enter_store(&self, uid: &str) {
        self.stores.write().entry(uid.into()).or_default();
    }

    /// About the DataStore with this uid; nothing if it was never entered.
    pub fn store(&self, uid: &str) -> StoreFact {
        self.stores.read().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is known about a DataStore.
    pub fn update_store<R>(&self, uid: &str, change: impl FnOnce(&mut StoreFact) -> R) -> R {
        change(self.stores.write().entry(uid.into()).or_default())
    }

    /// Nobody will ask about this tenant again.
    pub fn forget_tenant(&self, uid: &str) {
        let mut tenants = self.tenants.write();
        tenants.retain(|known, facts| known != uid && facts.of.as_deref() != Some(uid));
        drop(tenants);
        self.left(uid);
    }

    /// Nobody will ask about this DataStore again.
    pub fn forget_store(&self, uid: &str) {
        self.stores.write().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use apiservice::v1alpha1::MigrationPhase;

    use super::*;
    use crate::tenant::backing::facts::StoreProblemKind;
    use crate::tenant::testing;

    /// A clean-up that was begun before a move came back empties nothing that is in use.
    #[test]
    fn what_is_here_or_comes_is_not_cleaned_up() {
        let held = |data_store: &str| {
            let (data_store, claim) = (data_store.to_owned(), testing::claim());
            Some(Held { data_store, claim })
        };
        let migration = |target: &str, phase| {
            let target = Some(target.to_owned());
            Some(MigrationStatus {
                target,
                phase,
                ..MigrationStatus::default()
            })
        };
        let facts = |held, migration| TenantFacts {
            held,
            migration,
            ..TenantFacts::default()
        };
        use MigrationPhase::{Aborted, Completed, Copying, Preparing};
        for (facts, expected) in [
            (facts(None, None), false),
            (facts(held("a"), None), true),
            (facts(held("b"), None), false),
            (facts(held("b"), migration("a", Preparing)), true),
            (facts(held("b"), migration("a", Copying)), true),
            (facts(held("b"), migration("a", Aborted)), false),
            (facts(held("b"), migration("c", Copying)), false),
            (facts(held("b"), migration("b", Completed)), false),
        ] {
            assert_eq!(facts.is_or_comes_to("a"), expected, "{facts:?}");
        }
    }

    #[test]
    fn settings_that_worked_stay_so_until_others_are_tried() {
        let down = StoreProblem {
            kind: StoreProblemKind::Unreachable,
            message: "no answer".into(),
        };
        let trial = |fingerprint: &str, result| Trial {
            fingerprint: fingerprint.into(),
            result,
        };
        let mut fact = StoreFact::default();
        assert_eq!(fact.tried("a"), None);
        assert!(fact.learn(trial("a", Err(down.clone()))));
        assert_eq!(fact.tried("a"), Some(Err(down.clone())));
        assert!(!fact.learn(trial("a", Err(down.clone()))), "no news");
        assert!(fact.learn(trial("a", Ok(()))));
        assert!(!fact.learn(trial("a", Err(down.clone()))), "merely down");
        assert_eq!(fact.tried("a"), Some(Ok(())));
        assert_eq!(fact.tried("b"), None);
        assert!(fact.learn(trial("b", Err(down.clone()))));
        // What worked once has to be tried again.
        assert_eq!(fact.tried("a"), None);
        assert!(fact.learn(trial("a", Err(down))));
    }
}
