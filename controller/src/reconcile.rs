//! One pass over one tenant. It takes no hint of what changed, so that the
//! path after a crash is the path of every day.

pub mod data_store;

use std::time::Duration;

use jiff::Timestamp;
use tracing::Instrument;

use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::observers::access;
use crate::process::contested::CONTESTED_EVERY;
use crate::process::spans;
use crate::process::timing::{self, Next};
use crate::tenant::plan::{EXISTS, Outcome, Plan};
use crate::{apply, observe, report, tenant};

/// Observe, plan, apply, report, write. `None`: the tenant is gone, or this
/// replica does not lead and therefore only watches.
pub async fn reconcile(name: &NamespacedName, ctx: &Context) -> Option<Next> {
    let key = Key::Tenant(name.clone());
    if !ctx.leadership.leads() {
        ctx.failures.none(&key);
        return None;
    }
    let Some(mut world) = observe::world(name, ctx) else {
        ctx.failures.none(&key);
        return None;
    };
    if let Some(data_store) = tenant::deletion::taken_for_gone(&world) {
        world.data_store_unseen = match access::is_taken_away(ctx, &data_store).await {
            Ok(true) => None,
            // The next pass sees it.
            Ok(false) => Some(format!("DataStore {data_store} is not seen yet")),
            Err(why) => Some(why),
        };
    }
    for of in tenant::backing::overrides::taken_for_gone(&world) {
        let beside = &mut world.overrides[of];
        let data_store = beside.beside.data_store.clone();
        beside.unseen = match access::is_taken_away(ctx, &data_store).await {
            Ok(true) => None,
            Ok(false) => Some(format!("DataStore {data_store} is not seen yet")),
            Err(why) => Some(why),
        };
    }
    ctx.facts.update_tenant(world.uid(), |known| {
        known.tell_nodes(report::for_nodes(&world));
    });
    let mut plan = tenant::plan(&world, &ctx.entropy);
    match plan.roll {
        // It takes a turn: asked for once it is known that one is needed.
        Some(roll) => {
            world.turn = ctx.fleet.turn(&ctx.seen(), &world, roll);
            plan = tenant::plan(&world, &ctx.entropy);
        }
        None => ctx.fleet.leave(world.uid()),
    }
    let outcomes = apply::apply(ctx, &world, &plan).await;
    ctx.fleet.done(&world, &plan, &outcomes);
    let status = report::status(&world, &plan, &outcomes);
    let written = apply::status(ctx, &world, status);
    let span = spans::step("Status", || "write the status".to_owned());
    let written = written.instrument(span).await;
    apply::turns::call(ctx).await;
    let failures = if failed(&outcomes) || written.is_err() {
        ctx.failures.more(&key)
    } else {
        ctx.failures.none(&key);
        0
    };
    let spread = key.spread();
    let next = next(&plan, &outcomes, failures, ctx.now(), spread);
    Some(match written {
        Ok(()) => next,
        Err(()) => Next(next.0.min(timing::backoff(failures, spread))),
    })
}

/// True if a pass must count as a failure of its key.
fn failed(outcomes: &[Outcome]) -> bool {
    outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Failed { retry: true, .. }))
}

/// When to look at a tenant again if nothing changes before. `failures`
/// counts passes in a row that failed, this one included.
fn next(plan: &Plan, outcomes: &[Outcome], failures: u32, now: Timestamp, spread: f64) -> Next {
    let Next(mut next) = timing::resync(spread);
    for outcome in outcomes {
        if let Outcome::Failed { reason, retry, .. } = outcome {
            let wait = match reason.as_str() {
                apiservice::condition::reason::CONTESTED => CONTESTED_EVERY,
                apiservice::condition::reason::NAME_TAKEN => timing::NAME_TAKEN_EVERY,
                // It is in the cache now: the next plan knows it.
                EXISTS => timing::backoff(failures, spread),
                _ if *retry => timing::backoff(failures, spread),
                _ => timing::HOPELESS_EVERY,
            };
            next = next.min(wait);
        }
    }
    if let Some(at) = plan.revisit {
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        next = next.min(wait.max(timing::FIRST));
    }
    Next(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::testing::{context, fill, nothing};
    use crate::tenant::testing::Lab;

    #[tokio::test]
    async fn the_standby_plans_nothing() {
        let lab = Lab::new();
        let name = NamespacedName::of(&lab.world.tenant.metadata);
        for leads in [true, false] {
            let (ctx, asked) = context(nothing, leads).await;
            fill(&ctx.caches, &lab);
            let next = reconcile(&name, &ctx).await;
            assert_eq!(next.is_some(), leads);
            assert_eq!(asked.lock().is_empty(), !leads, "{asked:?}");
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn failure(reason: &str, retry: bool) -> Outcome {
        Outcome::Failed {
            reason: reason.into(),
            message: String::new(),
            retry,
            finding: None,
        }
    }

    #[test]
    fn a_quiet_tenant_is_left_alone() {
        let Next(wait) = next(&Plan::default(), &[Outcome::Unchanged], 0, now(), 0.0);
        assert_eq!(wait, timing::RESYNC);
    }

    #[test]
    fn failures_back_off_by_key() {
        let failures = timing::Failures::default();
        let waits: Vec<_> = (0..12)
            .map(|_| {
                let count = failures.more(&"a");
                let outcomes = [failure("ApplyFailed", true)];
                next(&Plan::default(), &outcomes, count, now(), 0.0).0
            })
            .collect();
        assert_eq!(waits[0], Duration::from_millis(100));
        assert_eq!(waits[3], Duration::from_millis(800));
        assert_eq!(waits[11], timing::SLOWEST);
        assert_eq!(failures.more(&"b"), 1);
        failures.none(&"a");
        assert_eq!(failures.more(&"a"), 1);
    }

    #[test]
    fn the_nearest_reason_counts() {
        let mut plan = Plan::default();
        plan.revisit_at(Timestamp::from_second(1_800_000_030).unwrap());
        let outcomes = [
            Outcome::Done,
            failure(apiservice::condition::reason::CONTESTED, false),
            Outcome::NotReached,
        ];
        let Next(wait) = next(&plan, &outcomes, 0, now(), 0.5);
        assert_eq!(wait, Duration::from_secs(30));
        let Next(wait) = next(&Plan::default(), &outcomes, 0, now(), 0.5);
        assert_eq!(wait, CONTESTED_EVERY);
    }

    #[test]
    fn what_retrying_hardly_helps_is_tried_seldom() {
        let outcomes = [failure("Invalid", false)];
        let Next(wait) = next(&Plan::default(), &outcomes, 0, now(), 0.0);
        assert_eq!(wait, timing::HOPELESS_EVERY);
    }
}
