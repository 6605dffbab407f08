//! Carries out what is planned for a DataStore.

mod cleaning;
mod sending;

use apiservice::condition::{self, data_store as types};
use apiservice::names;
use apiservice::v1alpha1::DataStoreStatus;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::time::Instant;

use crate::apply::objects::Refusal;
use crate::apply::own_kinds as own;
use crate::context::Context;
use crate::datastores::plan::{Outcome, Plan, Step};
use crate::datastores::report;
use crate::datastores::world::World;
use crate::process::timing;

/// Carries out a plan; the outcomes have the indices of the steps.
pub async fn apply(ctx: &Context, world: &World, plan: &Plan) -> Vec<Outcome> {
    let began = Instant::now();
    // One tenant may learn what the next one need not ask.
    let together = match plan.steps.first() {
        Some(Step::CleanUp(_)) => timing::CLEANUPS_AT_A_TIME,
        _ => 1,
    };
    let steps: Vec<BoxFuture<'_, (usize, Outcome)>> = plan
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| async move { (index, one(ctx, world, step, began).await) }.boxed())
        .collect();
    let steps = stream::iter(steps).buffer_unordered(together);
    let mut outcomes: Vec<(usize, Outcome)> = steps.collect().await;
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn one(ctx: &Context, world: &World, step: &Step, began: Instant) -> Outcome {
    match step {
        // For as long as a worker can be spared.
        Step::CleanUp(_) if began.elapsed() >= timing::CLEANUP_ROUND => Outcome::Unchanged,
        Step::CleanUp(planned) => match cleaning::clean_up(ctx, world, planned).await {
            Some(cleaned) => Outcome::Cleaned(cleaned),
            None => Outcome::Unchanged,
        },
        Step::SendAway(tenant) => sending::send_away(ctx, world, tenant).await,
        Step::Try => {
            ctx.facts.store(world.uid()).wake.notify_one();
            Outcome::Done
        }
        Step::AddFinalizer => {
            let mut all = finalizers(world);
            all.push(names::FINALIZER_DATA_STORE.into());
            outcome(own::finalize_store(ctx, &world.store, all).await)
        }
        Step::ReleaseFinalizer => {
            let mut all = finalizers(world);
            all.retain(|one| one != names::FINALIZER_DATA_STORE);
            outcome(own::finalize_store(ctx, &world.store, all).await)
        }
        Step::Wait(_) => Outcome::Unchanged,
    }
}

fn finalizers(world: &World) -> Vec<String> {
    world.store.metadata.finalizers.clone().unwrap_or_default()
}

fn outcome(result: Result<(), Refusal>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(refusal) if refusal.code == 404 => Outcome::Gone,
        Err(refusal) => Outcome::Failed(refusal.message),
    }
}

/// Writes the status, unless it is that already, and tells what is new. Nothing is written
/// about what goes.
pub async fn status(ctx: &Context, world: &World, status: &DataStoreStatus) -> Outcome {
    let written = match world.is_over() {
        true => Outcome::Unchanged,
        false => outcome(own::store_status(ctx, &world.store, status).await),
    };
    let before = world.store.status.as_ref();
    if report::is_news(before, status)
        && let Some(ready) = condition::get(&status.conditions, types::READY)
    {
        let about = world.store.as_ref();
        ctx.events
            .tell(
                about,
                ready.status == "False",
                &ready.reason,
                &ready.message,
            )
            .await;
    }
    written
}
