//! A plan for a DataStore: what is to be done next. Plans are values; `apply` is the only one
//! to carry them out.
//!
//! What takes long comes alone, in an order: clean-ups, then who is to leave, then the
//! finalizer. After each the world is seen again and planned for again, until nothing is to be
//! done.

use std::fmt;
use std::sync::Arc;

use apiservice::names;
use apiservice::v1alpha1::TenantControlPlane;

use crate::cluster::name::NamespacedName;
use crate::datastores::cleanups::{self, CleanUp, Cleaned};
use crate::datastores::world::World;
use crate::datastores::{deletion, drain};

/// The next steps of a pass.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Those of one plan do not depend on each other.
    pub steps: Vec<Step>,
}

/// One thing to do, or one thing that is being waited for.
#[derive(Clone, Debug)]
pub enum Step {
    /// Remove what a tenant has left there.
    CleanUp(CleanUp),
    /// Ask for a move of this tenant's data to wherever there is room.
    SendAway(Arc<TenantControlPlane>),
    /// Wake whoever tries settings.
    Try,
    /// Put [`apiservice::names::FINALIZER_DATA_STORE`] on it.
    AddFinalizer,
    /// Take that off it.
    ReleaseFinalizer,
    /// Nothing to do but to wait, as a condition shows.
    Wait(String),
}

/// What became of a step; same index as the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out.
    Done,
    /// It is not to be done now.
    Unchanged,
    /// A clean-up was tried.
    Cleaned(Cleaned),
    /// The DataStore is gone.
    Gone,
    /// The API has refused it, in its words.
    Failed(String),
}

impl Plan {
    /// Adds a step.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Nothing would change, neither in the database nor in objects.
    pub fn is_quiet(&self) -> bool {
        let quiet = |step: &Step| matches!(step, Step::Try | Step::Wait(_));
        self.steps.iter().all(quiet)
    }
}

/// Plans the next steps for one DataStore.
///
/// # Guarantees
/// The same world gives the same steps. A world in which everything is as wanted gives a plan
/// that is quiet.
pub fn plan(world: &World) -> Plan {
    let mut plan = Plan::default();
    if world.is_paused() {
        return plan;
    }
    cleanups::plan(world, &mut plan);
    if plan.steps.is_empty() {
        drain::plan(world, &mut plan);
    }
    if plan.steps.is_empty() {
        hold(world, &mut plan);
    }
    plan
}

/// Our finalizer is there while a tenant uses the DataStore or has left something in it.
fn hold(world: &World, plan: &mut Plan) {
    if world.untried {
        // Not only when it is time again.
        plan.push(Step::Try);
    }
    if world.done.finalized {
        return;
    }
    if world.is_deleted() {
        deletion::plan(world, plan);
        return;
    }
    let held = !world.used_by.is_empty() || !world.pending().is_empty();
    match (held, has_finalizer(world)) {
        (true, false) => plan.push(Step::AddFinalizer),
        (false, true) => plan.push(Step::ReleaseFinalizer),
        _ => {}
    }
}

/// Whether our finalizer is on it.
pub fn has_finalizer(world: &World) -> bool {
    let mut all = world.store.metadata.finalizers.iter().flatten();
    all.any(|one| one == names::FINALIZER_DATA_STORE)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CleanUp(cleanup) => {
                let text = |it: &Option<String>| it.clone().unwrap_or_default();
                let entry = &cleanup.entry;
                let (namespace, name) = (text(&entry.namespace), text(&entry.name));
                write!(f, "clean up after {namespace}/{name} (uid {})", entry.uid)?;
                if cleanup.lives {
                    write!(f, ", whose data is elsewhere")?;
                }
                match &cleanup.running {
                    Some(why) => write!(f, ", no more than its rights: {why}"),
                    None => Ok(()),
                }
            }
            Step::SendAway(tenant) => {
                write!(f, "send {} away", NamespacedName::of(&tenant.metadata))
            }
            Step::Try => write!(f, "have its settings tried"),
            Step::AddFinalizer => write!(f, "add the finalizer"),
            Step::ReleaseFinalizer => write!(f, "release the finalizer"),
            Step::Wait(why) => write!(f, "wait: {why}"),
        }
    }
}
