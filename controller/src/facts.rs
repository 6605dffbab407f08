//! What observers found out, by the uid of what it is about. Readers get
//! copies; nothing waits.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::stores::Verdict;
use crate::tenant::{
    plan::Bindings,
    world::{AccessFact, ProbeFacts, StoreHealth, StoreProblem},
};

/// All facts.
#[derive(Debug, Default)]
pub struct Facts {
    tenants: RwLock<HashMap<String, TenantFacts>>,
    stores: RwLock<HashMap<String, StoreFact>>,
}

/// About one tenant.
#[derive(Debug, Clone, Default)]
pub struct TenantFacts {
    /// What its API answered.
    pub probe: ProbeFacts,
    /// What its user may do in the datastore.
    pub access: Option<AccessFact>,
    /// Steps of its clean-up that failed, and why at last.
    pub cleanup_failures: u32,
    /// What makes the next plan put the clean-up off.
    pub cleanup_problem: Option<StoreProblem>,
    /// Wakes its probe before its time.
    pub wake_probe: Arc<Notify>,
    /// Wakes its access check before its time.
    pub wake_access: Arc<Notify>,
    /// What the plan wants inside the tenant and the probe has not seen there.
    pub wanted_bindings: Option<Bindings>,
}

/// About one DataStore.
#[derive(Debug, Clone, Default)]
pub struct StoreFact {
    /// The last answer.
    pub health: Option<Result<StoreHealth, StoreProblem>>,
    /// The same with what only the DataStore's own conditions tell.
    pub verdict: Option<Verdict>,
    /// Wakes its observer before its time.
    pub wake: Arc<Notify>,
}

impl Facts {
    /// Begins to know about a tenant.
    pub fn enter_tenant(&self, uid: &str) {
        self.tenants.write().entry(uid.into()).or_default();
    }

    /// About the tenant with this uid; nothing if it was never entered.
    pub fn tenant(&self, uid: &str) -> TenantFacts {
        self.tenants.read().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is known about a tenant.
    pub fn update_tenant<R>(&self, uid: &str, change: impl FnOnce(&mut TenantFacts) -> R) -> R {
        change(self.tenants.write().entry(uid.into()).or_default())
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
        self.tenants.write().remove(uid);
    }

    /// Nobody will ask about this DataStore again.
    pub fn forget_store(&self, uid: &str) {
        self.stores.write().remove(uid);
    }
}
