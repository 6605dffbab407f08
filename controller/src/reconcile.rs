//! One pass over one tenant. It takes no hint of what changed, so that the
//! path after a crash is the path of every day.

use tracing::Instrument;

use crate::cluster::caches::NamespacedName;
use crate::cluster::key::Key;
use crate::context::Context;
use crate::process::spans;
use crate::process::timing::{self, Next};
use crate::{apply, fleet, observe, report, tenant};

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
    ctx.facts.update_tenant(world.uid(), |known| {
        known.tell_nodes(report::for_nodes(&world));
    });
    let mut plan = tenant::plan(&world, &ctx.entropy);
    match plan.roll {
        // It takes a turn: asked for once it is known that one is needed.
        Some(roll) => {
            world.turn = fleet::turn(ctx, &world, roll);
            plan = tenant::plan(&world, &ctx.entropy);
        }
        None => ctx.fleet.leave(world.uid()),
    }
    let outcomes = apply::apply(ctx, &world, &plan).await;
    fleet::done(ctx, &world, &plan, &outcomes);
    let status = report::status(&world, &plan, &outcomes);
    let written = apply::status(ctx, &world, status);
    let span = spans::step("Status", || "write the status".to_owned());
    let written = written.instrument(span).await;
    fleet::call(ctx).await;
    let failures = if timing::failed(&outcomes) || written.is_err() {
        ctx.failures.more(&key)
    } else {
        ctx.failures.none(&key);
        0
    };
    let spread = key.spread();
    let next = timing::next(&plan, &outcomes, failures, ctx.now(), spread);
    Some(match written {
        Ok(()) => next,
        Err(()) => Next(next.0.min(timing::backoff(failures, spread))),
    })
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
}
