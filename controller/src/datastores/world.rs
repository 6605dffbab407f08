//! What a plan for a DataStore may look at: facts that were gathered before it, without any
//! way to gather more.

use std::collections::BTreeMap;
use std::sync::Arc;

use apiservice::v1alpha1::{DataStore, PendingCleanup};
use jiff::Timestamp;

use crate::cluster::concerned;
use crate::datastores::cleanups::{Cleaned, Owner, Proofs, Round};
use crate::datastores::credentials::{Certificate, Gap};
use crate::datastores::drain::Drain;
use crate::datastores::plan::{Outcome, Plan, Step};
use crate::tenant::backing::facts::StoreReport;
use crate::tenant::objects;
use crate::tenant::pki::terms::Terms;

/// Everything that [`crate::datastores::plan()`] may know about one DataStore.
#[derive(Clone, Debug)]
pub struct World {
    /// The clock of this pass.
    pub now: Timestamp,
    /// The DataStore as our API served it.
    pub store: Arc<DataStore>,
    /// When certificates are told to end.
    pub terms: Terms,
    /// What is missing of what it refers to.
    pub gap: Option<Gap>,
    /// The certificates that it refers to, as far as they are there.
    pub certificates: Vec<Certificate>,
    /// What the last look at the database found; `None` until it was asked.
    pub report: Option<StoreReport>,
    /// Bytes of the whole database, when it answered last.
    pub bytes: Option<u64>,
    /// Its settings are known, and nobody has tried these yet.
    pub untried: bool,
    /// Why those of now do not work, where pods of tenants keep settings of before.
    pub kept: Option<String>,
    /// Tenants whose data is there, is to be there, or is on its way from or to it.
    pub used_by: Vec<String>,
    /// Those that keep no more there than some resources (spec.dataStoreOverrides), and do not
    /// tolerate what it is to be emptied for.
    pub overriding: Vec<String>,
    /// Whose clean-ups are recorded, by uid; empty while the database cannot be used.
    pub owners: BTreeMap<String, Owner>,
    /// By what the right database is known, where there is something to clean up.
    pub proofs: Proofs,
    /// If it is to be emptied: who is to leave, and how far that is.
    pub drain: Option<Drain>,
    /// What this pass has done before this world was seen.
    pub done: Done,
}

impl World {
    /// A DataStore of which nothing else is known.
    #[cfg(test)]
    pub fn of(store: DataStore, now: Timestamp) -> Self {
        Self {
            now,
            store: Arc::new(store),
            terms: Terms::default(),
            gap: None,
            certificates: Vec::new(),
            report: None,
            bytes: None,
            untried: false,
            kept: None,
            used_by: Vec::new(),
            overriding: Vec::new(),
            owners: BTreeMap::new(),
            proofs: Proofs::default(),
            drain: None,
            done: Done::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.store.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.store.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The pause annotation stops everything.
    pub fn is_paused(&self) -> bool {
        objects::is_paused(&self.store.metadata)
    }

    /// Somebody deletes it.
    pub fn is_deleted(&self) -> bool {
        self.store.metadata.deletion_timestamp.is_some()
    }

    /// The database can be used.
    pub fn is_well(&self) -> bool {
        let report = self.report.as_ref();
        report.is_some_and(|report| report.health.is_ok())
    }

    /// The clean-ups that are left, after those of this pass.
    pub fn pending(&self) -> Vec<PendingCleanup> {
        let recorded = concerned::pending(&self.store);
        match &self.done.cleaned {
            Some(round) => round.left_of(recorded),
            None => recorded,
        }
    }

    /// It is deleted, and nothing holds it.
    pub fn is_over(&self) -> bool {
        self.is_deleted() && self.used_by.is_empty() && self.pending().is_empty()
    }
}

/// What a pass has done. What takes long is done first; then the world is seen again, so that
/// nothing is lost that was recorded meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The uid of the DataStore.
    pub uid: Option<String>,
    /// What became of its clean-ups, once they had their turn.
    pub cleaned: Option<Round>,
    /// Tenants were sent away.
    pub sent: bool,
    /// Its finalizers were written.
    pub finalized: bool,
}

impl Done {
    /// Takes note of what became of a plan; whether the pass goes on with another one.
    pub fn note(&mut self, world: &World, plan: &Plan, outcomes: &[Outcome]) -> bool {
        self.uid = Some(world.uid().to_owned());
        for (step, outcome) in plan.steps.iter().zip(outcomes) {
            match step {
                Step::CleanUp(cleanup) => {
                    let round = self.cleaned.get_or_insert_default();
                    if let Outcome::Cleaned(cleaned) = outcome {
                        round.note(&cleanup.entry.uid, cleaned.clone());
                    }
                }
                Step::SendAway(_) => self.sent = true,
                Step::AddFinalizer | Step::ReleaseFinalizer => self.finalized = true,
                Step::Try | Step::Wait(_) => {}
            }
        }
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Gone | Outcome::Failed(_));
        !plan.is_quiet() && !outcomes.iter().any(failed)
    }

    /// Some of what was cleaned up can go on as soon as that is recorded.
    pub fn goes_on(&self) -> bool {
        let round = self.cleaned.as_ref();
        round.is_some_and(|round| round.has(&Cleaned::ButClaim))
    }
}
