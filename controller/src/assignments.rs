//! Assigns DataStores to tenants that name none ([`apiservice::assignment`]).
//!
//! What was decided is written to the tenant's status before anything is claimed, and
//! stands from then on, over restarts. Until the status is read back it is counted here,
//! so that a hundred tenants that come at once are spread as if one came after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apiservice::assignment::{self, Assigned, Candidate, Unassigned};
use apiservice::v1alpha1::{DataStore, TenantControlPlane};
use parking_lot::Mutex;

use crate::cluster::chosen;
use crate::cluster::overrides;
use crate::facts::{Seen, StoreFact};

/// Where tenants were sent whose status does not say so yet, by uid.
#[derive(Default)]
pub struct Assignments {
    sent: Mutex<BTreeMap<String, String>>,
}

impl Assignments {
    /// The DataStore of a tenant that has none.
    ///
    /// # Errors
    /// Why none can take it.
    pub fn decide(
        &self,
        seen: &Seen<'_>,
        tenant: &TenantControlPlane,
    ) -> Result<Assigned, Unassigned> {
        let own = tenant.metadata.uid.as_deref().unwrap_or_default();
        let mut sent = self.sent.lock();
        let counts = count(seen, own, &mut sent);
        let stores = seen.caches.data_stores.all();
        let beside = overrides::stores(tenant);
        let is_own = |store: &&Arc<DataStore>| {
            let name = store.metadata.name.as_deref();
            !name.is_some_and(|name| beside.contains(name))
        };
        let candidates: Vec<Candidate<'_>> = stores
            .iter()
            .filter(is_own)
            .map(|store| candidate(seen, store, &counts))
            .collect();
        let wish = tenant.spec.data_store_assignment.as_ref();
        let assigned = assignment::assign(wish, &candidates)?;
        sent.insert(own.to_owned(), assigned.data_store.clone());
        Ok(assigned)
    }
}

/// Tenants by DataStore, `own` not counted. Forgets who is gone, or is known from
/// elsewhere.
fn count(seen: &Seen<'_>, own: &str, sent: &mut BTreeMap<String, String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let mut waiting = BTreeSet::new();
    for tenant in seen.caches.tenants.all() {
        let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
        if uid == own {
            continue;
        }
        let chosen = chosen::choose(&tenant);
        let known = seen.facts.claimed_in(uid).or_else(|| match sent.get(uid) {
            // Sent elsewhere than its status says, which is to follow.
            Some(_) if chosen::is_assigned(&tenant) => None,
            _ => chosen.clone(),
        });
        let there = known.or_else(|| {
            let name = sent.get(uid).cloned();
            waiting.extend((name != chosen).then(|| uid.to_owned()));
            name
        });
        if let Some(name) = there {
            *counts.entry(name).or_default() += 1;
        }
    }
    sent.retain(|uid, _| waiting.contains(uid));
    counts
}

fn candidate<'a>(
    seen: &Seen<'_>,
    store: &'a Arc<DataStore>,
    counts: &BTreeMap<String, u64>,
) -> Candidate<'a> {
    let uid = store.metadata.uid.as_deref().unwrap_or_default();
    let name = store.metadata.name.as_deref().unwrap_or_default();
    let fact = seen.facts.store(uid);
    Candidate {
        store,
        trouble: trouble(&fact),
        tenants: counts.get(name).copied().unwrap_or(0),
        bytes: fact.measured.map_or(0, |it| it.bytes),
        latency: fact.measured.map(|it| it.latency),
        is_default: seen.settings.default_data_store.as_deref() == Some(name),
    }
}

fn trouble(fact: &StoreFact) -> Option<String> {
    let Some(report) = &fact.report else {
        return Some("it has not been asked yet".to_owned());
    };
    let trouble = report.health.as_ref().err();
    let trouble = trouble.map(|problem| problem.message.clone());
    trouble.or_else(|| report.separates_tenants.clone().err())
}
