//! How much does a tenant have in its datastore? Measured now and then, more often where it
//! nears a limit: to measure is to have the datastore read all that the tenant has.
//!
//! A measurement has its turn and its deadline, and a pause after it that grows with the time
//! that it took: a datastore spends a few percent of one processor on a tenant at most, and
//! one percent where there is no limit.

use std::sync::Arc;
use std::time::Duration;

use apiservice::names;
use apiservice::v1alpha1::{MigrationPhase, TenantControlPlane};
use storage::tenancy::contents::Usage;
use storage::tenancy::{Password, Stage};
use tokio::time::{Instant, sleep};

use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::facts::TenantFacts;
use crate::observers::access;
use crate::process::observers::SIZES;
use crate::process::timing;
use crate::tenant::backing::facts::Held;
use crate::tenant::backing::limits::{self, SizeFact, Standing};
use crate::tenant::backing::moving;
use crate::tenant::ran;

/// Measures one tenant until the task is ended.
pub async fn run(ctx: Arc<Context>, name: NamespacedName, uid: String) {
    let mut pace = Pace::new(Instant::now());
    loop {
        let tenant = ctx.caches.tenants.get(&name);
        let same = |it: &Arc<TenantControlPlane>| {
            it.metadata.uid.as_deref() == Some(&uid) && it.metadata.deletion_timestamp.is_none()
        };
        if let Some(tenant) = tenant.filter(same) {
            look(&ctx, &name, &uid, &tenant, &mut pace).await;
        }
        sleep(timing::SIZE_LOOK).await;
    }
}

/// Measures if it is time, and says how the tenant stands to the limits of now.
async fn look(
    ctx: &Context,
    name: &NamespacedName,
    uid: &str,
    tenant: &TenantControlPlane,
    pace: &mut Pace,
) {
    let facts = ctx.facts.tenant(uid);
    let Some(chosen) = facts.data_store_of(tenant) else {
        return;
    };
    let mut measured = None;
    if let Some(held) = measurable(ctx, tenant, &facts)
        && pace.is_due(&held.data_store, Instant::now())
    {
        measured = measure(ctx, tenant, held, facts.password.clone(), pace).await;
    }
    // It may have been changed since.
    let Some(store) = ctx.caches.data_store(&chosen) else {
        return;
    };
    let limits = limits::of(Some(&store));
    let stale = pace.is_stale(Instant::now());
    let (before, now) = ctx.facts.update_tenant(uid, |facts| {
        let before = facts.size;
        facts.size = learnt(before, measured, stale);
        if facts.size.usage.is_some() || stale {
            facts.size.standing = Some(facts.size.standing(limits, tenant));
        }
        (before, facts.size)
    });
    pace.follow(limits.is_some(), now.standing);
    if before != now {
        ctx.queue.add(Key::Tenant(name.clone()));
    }
    if before.standing != now.standing {
        ctx.facts.tenant(uid).wake_inside.notify_one();
    }
}

/// What is known after a look. What could not be measured for long is not known any more.
fn learnt(before: SizeFact, measured: Option<Usage>, stale: bool) -> SizeFact {
    let usage = measured.or(before.usage.filter(|_| !stale));
    let standing = before.standing.or(stale.then_some(Standing::Unknown));
    SizeFact { usage, standing }
}

/// The place of a tenant that ran: of others there is nothing to measure. One that waits for a
/// move, or whose data is copied, writes as before, and whoever may ask for a move must not be
/// rid of a limit by it; one that cannot write has what it had.
fn measurable<'a>(
    ctx: &Context,
    tenant: &TenantControlPlane,
    facts: &'a TenantFacts,
) -> Option<&'a Held> {
    let held = facts.held.as_ref()?;
    let moves = facts.migration.as_ref().is_some_and(|it| {
        // Or pods are led from one copy to the other.
        moving::stops_writes(it.phase) || it.phase == MigrationPhase::Switching
    });
    let writes = held.claim.stage == Stage::Serving && !moves;
    (writes && ran::may_have_run(&ctx.caches, tenant)).then_some(held)
}

/// `None`: it could not be measured, or cannot be asked now.
async fn measure(
    ctx: &Context,
    tenant: &TenantControlPlane,
    held: &Held,
    known: Option<Password>,
    pace: &mut Pace,
) -> Option<Usage> {
    let tenancy = access::reach(ctx, &held.data_store)?;
    let driver = access::driver(ctx, &held.data_store);
    let in_secret = || {
        let name = tenant.metadata.name.as_deref().unwrap_or_default();
        access::password_of(ctx, tenant, &names::datastore_config(name), driver)
    };
    let password = known.or_else(in_secret);
    if driver.has_passwords() && password.is_none() {
        return None;
    }
    // A wait for others is no silence of the datastore.
    let _turn = SIZES.take(&held.data_store).await;
    let began = Instant::now();
    let mut usage = Usage::default();
    let work = async {
        let mut contents = tenancy.contents(&held.claim, password.as_ref()).await?;
        let counted = contents.usage(&mut usage).await;
        contents.close().await;
        counted
    };
    let found = tokio::time::timeout(timing::SIZE_DEADLINE, work).await;
    let told = |why: &dyn std::fmt::Display| {
        let tenant = format!("{}/{}", held.claim.namespace, held.claim.name);
        tracing::debug!(tenant, "its size is not known: {why}");
    };
    let usage = match found {
        Ok(Ok(())) => Some(usage),
        Ok(Err(error)) => {
            told(&error);
            None
        }
        Err(_) => {
            told(&"there was no end in time");
            // A part of it may be too much already.
            let store = ctx.caches.data_store(&held.data_store);
            limits::of(store.as_deref())
                .is_some_and(|limits| limits::is_reached(limits, usage))
                .then_some(usage)
        }
    };
    pace.measured(&held.data_store, began, Instant::now(), usage.is_some());
    usage
}

/// When a tenant is to be measured.
struct Pace {
    /// Where it was measured last, when that ended, and how long it took.
    last: Option<(String, Instant, Duration)>,
    /// When it was known last, or since when it is to be.
    known: Instant,
    /// Between measurements at least.
    every: Duration,
    /// And at least so many times the length of the last one.
    times: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Pace {
            last: None,
            known: now,
            every: timing::SIZE_LIMITED,
            times: timing::SIZE_PAUSE,
        }
    }

    fn is_due(&self, data_store: &str, now: Instant) -> bool {
        self.last.as_ref().is_none_or(|(place, ended, _)| {
            place != data_store || now.duration_since(*ended) >= self.wait()
        })
    }

    /// How long it is not measured again.
    fn wait(&self) -> Duration {
        let took = self
            .last
            .as_ref()
            .map_or(Duration::ZERO, |(.., took)| *took);
        self.every.max(took * self.times)
    }

    fn measured(&mut self, data_store: &str, began: Instant, now: Instant, well: bool) {
        self.last = Some((data_store.to_owned(), now, now.duration_since(began)));
        if well {
            self.known = now;
        }
    }

    fn is_stale(&self, now: Instant) -> bool {
        // One measurement may fail.
        now.duration_since(self.known) >= timing::SIZE_STALE.max(self.wait() * 2)
    }

    fn follow(&mut self, limited: bool, standing: Option<Standing>) {
        (self.every, self.times) = match (limited, standing) {
            // It failed so far.
            (_, None) => (timing::SIZE_LIMITED, timing::SIZE_PAUSE),
            // Nothing depends on it.
            (false, _) => (timing::SIZE_UNLIMITED, timing::SIZE_PAUSE_UNLIMITED),
            (true, Some(Standing::Near | Standing::Exceeded)) => {
                (timing::SIZE_NEAR, timing::SIZE_PAUSE)
            }
            (true, Some(Standing::Within | Standing::Unknown)) => {
                (timing::SIZE_LIMITED, timing::SIZE_PAUSE)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_is_near_a_limit_is_measured_more_often_and_who_is_large_less() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(pace.is_due("a", start), "at once");
        // Seconds until it is due again, of one that took so long.
        let mut wait = |limited, standing, took: Duration| {
            pace.measured("a", start - took, start, true);
            pace.follow(limited, standing);
            assert!(pace.is_due("b", start), "it was moved");
            let due = |second: &u32| pace.is_due("a", start + SECOND * *second);
            (0..3600).find(due).unwrap()
        };
        assert_eq!(wait(false, Some(Standing::Within), SECOND), 1800);
        assert_eq!(wait(false, Some(Standing::Within), SECOND * 30), 3000);
        assert_eq!(wait(true, Some(Standing::Within), SECOND), 60);
        assert_eq!(wait(true, Some(Standing::Near), Duration::ZERO), 15);
        assert_eq!(wait(true, Some(Standing::Exceeded), Duration::ZERO), 15);
        assert_eq!(wait(true, Some(Standing::Exceeded), SECOND * 5), 100);
        assert_eq!(wait(false, None, SECOND), 60);
    }

    #[test]
    fn what_cannot_be_measured_for_long_is_not_known_any_more() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let failed = start + timing::SIZE_STALE / 2;
        pace.measured("a", failed - SECOND, failed, false);
        assert!(!pace.is_stale(failed));
        let late = start + timing::SIZE_STALE;
        assert!(pace.is_stale(late));
        pace.measured("a", late, late, true);
        assert!(!pace.is_stale(late));
        // Of a large one without a limit the next measurement is far away.
        pace.measured("a", late - timing::SIZE_DEADLINE, late, true);
        pace.follow(false, Some(Standing::Within));
        assert!(!pace.is_stale(late + timing::SIZE_STALE * 2));
        assert!(pace.is_stale(late + pace.wait() * 2));

        let usage = Some(Usage {
            bytes: 1,
            objects: 1,
        });
        let known = |usage, standing| SizeFact { usage, standing };
        let exceeded = Some(Standing::Exceeded);
        let before = known(usage, exceeded);
        assert_eq!(learnt(before, None, false), before);
        assert_eq!(learnt(before, None, true), known(None, exceeded));
        // Nobody has measured it since this process began.
        let nothing = known(None, None);
        assert_eq!(learnt(nothing, None, false), nothing);
        let unknown = known(None, Some(Standing::Unknown));
        assert_eq!(learnt(nothing, None, true), unknown);
        assert_eq!(learnt(nothing, usage, false), known(usage, None));
    }

    /// Who is moved is measured as long as it writes: whoever asks for a move that never begins
    /// would be without a limit else.
    #[tokio::test]
    async fn a_tenant_that_writes_is_measured_whatever_its_move_waits_for() {
        use crate::context::testing::{context, nothing};
        use crate::tenant::testing::{Lab, claim};
        use apiservice::v1alpha1::{MigrationPhase as Phase, MigrationStatus};

        let (ctx, _) = context(nothing, true).await;
        let lab = Lab::ready();
        let held = |stage| Held {
            data_store: "default".to_owned(),
            claim: claim().at(stage),
        };
        for (phase, measured) in [
            (None, true),
            (Some(Phase::Pending), true),
            (Some(Phase::Preparing), true),
            (Some(Phase::Copying), true),
            (Some(Phase::Following), true),
            (Some(Phase::Freezing), false),
            (Some(Phase::Verifying), false),
            (Some(Phase::Switching), false),
            (Some(Phase::Failed), true),
            (Some(Phase::Completed), true),
        ] {
            let migration = phase.map(|phase| MigrationStatus {
                phase,
                ..MigrationStatus::default()
            });
            let facts = TenantFacts {
                held: Some(held(Stage::Serving)),
                migration,
                ..TenantFacts::default()
            };
            let found = measurable(&ctx, &lab.world.tenant, &facts);
            assert_eq!(found.is_some(), measured, "{phase:?}");
        }
        let frozen = TenantFacts {
            held: Some(held(Stage::Frozen)),
            ..TenantFacts::default()
        };
        assert!(measurable(&ctx, &lab.world.tenant, &frozen).is_none());
    }
}
