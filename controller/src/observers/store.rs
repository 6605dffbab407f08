//! Is a datastore there, does it know us, can it keep tenants apart, has it
//! room, and does somebody compact it?

use std::sync::Arc;

use storage::tenancy::Tenancy;
use tokio::time::Instant;

use super::pause;
use crate::{
    caches::Name,
    context::{Context, Key},
    data_store, requeue,
    stores::{self, CompactedBy, Verdict},
    tenant::world::{StoreProblem, StoreProblemKind},
};

/// Looks at one DataStore until the task is ended.
pub async fn run(ctx: Arc<Context>, name: String, uid: String) {
    let wake = ctx.facts.store(&uid).wake;
    let mut failures = 0;
    let mut compaction = Compaction::default();
    loop {
        let Some(verdict) = look(&ctx, &name, &uid, &mut compaction).await else {
            pause(requeue::HEALTH_UNKNOWN, &wake).await;
            continue;
        };
        let well = verdict.health.is_ok();
        let unreachable = verdict
            .health
            .as_ref()
            .is_err_and(|problem| problem.kind == StoreProblemKind::Unreachable);
        failures = if well { 0 } else { failures + 1 };
        if unreachable && failures % 3 == 0 {
            // A connection that is stuck is not worth keeping.
            ctx.connections.drop(&uid);
        }
        publish(&ctx, &name, &uid, verdict);
        let wait = if well {
            requeue::HEALTH_EVERY
        } else {
            requeue::observer_backoff(requeue::HEALTH_UNKNOWN, requeue::HEALTH_SLOWEST, failures)
        };
        pause(wait, &wake).await;
    }
}

/// `None`: it cannot be asked, because its material is not known.
async fn look(
    ctx: &Context,
    name: &str,
    uid: &str,
    compaction: &mut Compaction,
) -> Option<Verdict> {
    let store = ctx.caches.data_stores.get(&Name::new("", name))?;
    if store.metadata.uid.as_deref() != Some(uid)
        || data_store::material_gap(&store, &ctx.caches).is_some()
    {
        return None;
    }
    let tenancy = match ctx.connections.get(&store, &ctx.caches) {
        Ok(tenancy) => tenancy,
        Err(error) => return Some(stores::refused(&error)),
    };
    let answer = tokio::time::timeout(requeue::STORE_DEADLINE, tenancy.verify()).await;
    Some(match answer {
        Ok(Ok(health)) => {
            compaction
                .turn(ctx, name, tenancy.as_ref(), health.revision)
                .await;
            stores::verdict(&health, compaction.by)
        }
        Ok(Err(error)) => Verdict::failed(stores::problem_of(&error)),
        Err(_) => Verdict::failed(StoreProblem {
            kind: StoreProblemKind::Unreachable,
            message: format!(
                "{} does not answer within {} s",
                store.spec.endpoints.join(", "),
                requeue::STORE_DEADLINE.as_secs()
            ),
        }),
    })
}

fn publish(ctx: &Context, name: &str, uid: &str, verdict: Verdict) {
    let changed = ctx.facts.update_store(uid, |fact| {
        let changed = fact.verdict.as_ref() != Some(&verdict);
        fact.health = Some(verdict.health.clone());
        fact.verdict = Some(verdict);
        changed
    });
    if changed {
        ctx.queue.add(Key::DataStore(name.to_owned()));
        for tenant in data_store::tenants_of(&ctx.caches, name) {
            ctx.queue.add(Key::Tenant(tenant));
        }
    }
}

/// Compaction by us, if nobody else does it: history older than one interval
/// is dropped.
#[derive(Default)]
struct Compaction {
    /// What was newest at the last turn, and when that was.
    last: Option<(u64, Instant)>,
    by: Option<CompactedBy>,
}

impl Compaction {
    /// Whether it was us who compacted the last time.
    async fn turn(&mut self, ctx: &Context, name: &str, tenancy: &dyn Tenancy, revision: u64) {
        let Some((before, at)) = self.last else {
            self.last = Some((revision, Instant::now()));
            return;
        };
        if at.elapsed() < requeue::COMPACT_EVERY || !ctx.leadership.leads() {
            return;
        }
        self.last = Some((revision, Instant::now()));
        let work = tenancy.compact_older_than(before);
        match tokio::time::timeout(requeue::DROP_DEADLINE, work).await {
            Ok(Ok(done)) => {
                self.by = Some(match done {
                    storage::tenancy::Compaction::ByUs => CompactedBy::Us,
                    _ => CompactedBy::Others,
                });
                tracing::debug!(data_store = name, ?done, "compaction");
            }
            Ok(Err(error)) => tracing::warn!(data_store = name, "cannot compact: {error}"),
            Err(_) => tracing::warn!(data_store = name, "cannot compact: no answer"),
        }
    }
}
