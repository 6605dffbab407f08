//! Carries a plan out: the only writer to the management cluster and to tenants'
//! datastores, and only while this replica leads.
//!
//! Steps of one stage run side by side; a stage begins when all steps of the
//! stages before it went well.

mod claims;
pub mod data_store;
pub mod objects;
mod own_kinds;
pub mod pending;
pub mod turns;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tracing::Instrument;

use crate::apply::own_kinds as own;
use crate::context::Context;
use crate::process::spans;
use crate::tenant::plan::{Grant, Object, Outcome, Plan, Step};
use crate::tenant::world::World;

pub use crate::apply::own_kinds::{status, store_status};

/// Steps under way at once for one tenant.
const TOGETHER: usize = 12;

/// Carries out a plan; the outcomes have the indices of the steps.
pub async fn apply(ctx: &Context, world: &World, plan: &Plan) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::NotReached; plan.steps.len()];
    let mut start = 0;
    while start < plan.steps.len() {
        let stage = plan.steps[start].stage();
        let end = plan.steps[start..]
            .iter()
            .position(|step| step.stage() != stage)
            .map_or(plan.steps.len(), |length| start + length);
        // A binding can be written only once the Role that it names is there.
        let (bindings, others): (Vec<usize>, Vec<usize>) =
            (start..end).partition(|index| is_binding(&plan.steps[*index]));
        let mut results = side_by_side(ctx, world, plan, &others).await;
        results.extend(side_by_side(ctx, world, plan, &bindings).await);
        let mut failed = false;
        for (index, outcome) in results {
            failed |= matches!(outcome, Outcome::Failed { .. });
            note(ctx, world, &plan.steps[index], &outcome);
            outcomes[index] = outcome;
        }
        if failed {
            break;
        }
        start = end;
    }
    outcomes
}

fn is_binding(step: &Step) -> bool {
    match step {
        Step::Create(object) | Step::Apply(object) => {
            matches!(object.as_ref(), Object::RoleBinding(_))
        }
        _ => false,
    }
}

/// Carries out the steps of these indices, some at a time.
async fn side_by_side(
    ctx: &Context,
    world: &World,
    plan: &Plan,
    indices: &[usize],
) -> Vec<(usize, Outcome)> {
    let steps: Vec<BoxFuture<'_, (usize, Outcome)>> = indices
        .iter()
        .map(|index| async move { (*index, one(ctx, world, &plan.steps[*index]).await) }.boxed())
        .collect();
    stream::iter(steps)
        .buffer_unordered(TOGETHER)
        .collect()
        .await
}

async fn one(ctx: &Context, world: &World, step: &Step) -> Outcome {
    let span = spans::step(verb(step), || describe(step));
    let outcome = carried_out(ctx, world, step).instrument(span.clone()).await;
    if let Outcome::Failed { reason, .. } = &outcome {
        spans::failed(&span, reason);
    }
    outcome
}

async fn carried_out(ctx: &Context, world: &World, step: &Step) -> Outcome {
    if !ctx.leadership.leads() {
        return Outcome::Failed {
            reason: "NotLeading".into(),
            message: "another replica leads".into(),
            retry: false,
            finding: None,
        };
    }
    match step {
        Step::AddFinalizer => own::add_finalizer(ctx, world).await,
        Step::ReleaseFinalizer => own::release_finalizer(ctx, world).await,
        Step::Create(object) => objects::create(ctx, world, object).await,
        Step::Apply(object) => objects::apply(ctx, world, object).await,
        Step::Recheck(key) => objects::look(ctx, world, key).await,
        Step::Delete { key, uid } | Step::DeleteFormer { key, uid } => {
            objects::delete(ctx, key, uid).await
        }
        Step::DeleteBestEffort { key, uid } => match objects::delete(ctx, key, uid).await {
            Outcome::Failed { message, .. } => {
                let tenant = world.tenant_name();
                tracing::info!(tenant, "{key} is left to the garbage collector: {message}");
                Outcome::Unchanged
            }
            outcome => outcome,
        },
        Step::ClearReplaceRequest(names) => own::replaced(ctx, world, names).await,
        Step::Grant(grant) => claims::grant(ctx, world, grant).await,
        Step::RevokeAccess(claim) => claims::revoke(ctx, world, claim).await,
        Step::DropData(claim) => claims::drop_data(ctx, world, claim).await,
        Step::NoteEmpty(claim) => own::note_empty(ctx, world, claim).await,
        Step::ReleaseClaim(claim) => claims::release(ctx, world, claim).await,
        Step::DeferDeletion {
            claim,
            data_store,
            known,
            why,
        } => pending::defer(ctx, world, claim, data_store, *known, why).await,
        Step::Wait(_) => Outcome::Unchanged,
        Step::Event(event) => {
            ctx.events
                .tell(
                    world.tenant.as_ref(),
                    event.warning,
                    event.reason,
                    &event.message,
                )
                .await;
            Outcome::Done
        }
    }
}

fn note(ctx: &Context, world: &World, step: &Step, outcome: &Outcome) {
    let tenant = world.tenant_name();
    match outcome {
        Outcome::Done => {
            tracing::info!(tenant, step = describe(step), "done");
            ctx.metrics.steps("done");
        }
        // Said by a condition and an Event; each pass would say it again here.
        Outcome::Failed {
            reason, message, ..
        } if reason == apiservice::condition::reason::CONTESTED => {
            tracing::debug!(tenant, step = describe(step), "{message}");
            ctx.metrics.steps("failed");
        }
        Outcome::Failed {
            reason, message, ..
        } => {
            tracing::warn!(tenant, step = describe(step), reason, "failed: {message}");
            ctx.metrics.steps("failed");
        }
        Outcome::Unchanged | Outcome::NotReached => {}
    }
}

/// What kind of step it is, in one word.
fn verb(step: &Step) -> &'static str {
    match step {
        Step::Create(_) => "Create",
        Step::Apply(_) => "Apply",
        Step::Recheck(_) => "Get",
        Step::Delete { .. } | Step::DeleteFormer { .. } | Step::DeleteBestEffort { .. } => "Delete",
        Step::Grant(_) => "Grant",
        Step::RevokeAccess(_) => "Revoke",
        Step::DropData(_) => "Drop",
        Step::ReleaseClaim(_) => "Release",
        Step::AddFinalizer
        | Step::ReleaseFinalizer
        | Step::ClearReplaceRequest(_)
        | Step::NoteEmpty(_)
        | Step::DeferDeletion { .. } => "Patch",
        Step::Wait(_) => "Wait",
        Step::Event(_) => "Event",
    }
}

/// What a step does, without any content.
fn describe(step: &Step) -> String {
    match step {
        Step::AddFinalizer => "add the finalizer".into(),
        Step::ReleaseFinalizer => "release the finalizer".into(),
        Step::Create(object) => format!("create {}", object.key()),
        Step::Apply(object) => format!("apply {}", object.key()),
        Step::Recheck(key) => format!("look for {key}"),
        Step::Delete { key, .. }
        | Step::DeleteFormer { key, .. }
        | Step::DeleteBestEffort { key, .. } => format!("delete {key}"),
        Step::ClearReplaceRequest(names) => {
            format!("note that the keys of {} were replaced", names.join(", "))
        }
        Step::Grant(Grant { claim, .. }) => {
            format!("grant schema {} to {}", claim.schema, claim.user)
        }
        Step::RevokeAccess(claim) => format!("revoke the rights of {}", claim.user),
        Step::DropData(claim) => format!("drop the data of schema {}", claim.schema),
        Step::NoteEmpty(claim) => format!("note that nothing is left of schema {}", claim.schema),
        Step::ReleaseClaim(claim) => format!("release schema {}", claim.schema),
        Step::DeferDeletion { data_store, .. } => {
            format!("record the clean-up on DataStore {data_store}")
        }
        Step::Wait(waiting) => format!("wait: {}", waiting.reason),
        Step::Event(event) => format!("event {}", event.reason),
    }
}
