//! Is a datastore there, does it know us, can it keep tenants apart, has it
//! room, and does somebody compact it?

use std::{collections::VecDeque, sync::Arc};

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

/// Compaction by us, if nobody else does it. Others do it every few minutes and
/// keep as much; only what is older than [`KEPT`] of our turns tells that nobody
/// does, whoever comes first.
#[derive(Default)]
struct Compaction {
    marks: Marks,
    by: Option<CompactedBy>,
}

/// Turns whose history is kept.
const KEPT: usize = 3;

/// What was newest at each of the last turns, and when that was.
#[derive(Default)]
struct Marks(VecDeque<(u64, Instant)>);

impl Marks {
    /// Notes the newest revision when a turn is due; then, once there are enough,
    /// the revision before which nothing should be left.
    fn note(&mut self, revision: u64, now: Instant) -> Option<u64> {
        let last = self.0.back();
        if last.is_some_and(|(_, at)| now.duration_since(*at) < requeue::COMPACT_EVERY) {
            return None;
        }
        self.0.push_back((revision, now));
        if self.0.len() <= KEPT {
            return None;
        }
        self.0.pop_front().map(|(revision, _)| revision)
    }
}

impl Compaction {
    /// Compacts when it is time, and learns whether it was us who had to.
    async fn turn(&mut self, ctx: &Context, name: &str, tenancy: &dyn Tenancy, revision: u64) {
        let Some(before) = self.marks.note(revision, Instant::now()) else {
            return;
        };
        if !ctx.leadership.leads() {
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The newest revision grows by one a second; we look every five seconds.
    fn turns(marks: &mut Marks, minutes: u64) -> Vec<(u64, u64)> {
        let start = Instant::now();
        let seconds = (0..=minutes * 60).step_by(5);
        let at = |second| start + std::time::Duration::from_secs(second);
        seconds
            .filter_map(|second| Some((second, marks.note(second, at(second))?)))
            .collect()
    }

    #[test]
    fn nobody_is_compacted_away_who_keeps_ten_minutes() {
        let turns = turns(&mut Marks::default(), 31);
        assert_eq!(turns, [(900, 0), (1200, 300), (1500, 600), (1800, 900)]);
    }
}
