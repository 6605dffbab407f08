//! Keeps in a tenant what belongs there: looks, plans, writes, and tells what came of
//! it. One task a tenant, so that none waits for another.
//!
//! The first time it goes past the Service, to an API server that serves and is not
//! Ready yet: its readiness is asked for without credentials, and until it has written
//! its own roles, a second later, it would let nobody ask.

use std::sync::Arc;
use std::time::Duration;

use apiservice::v1alpha1::TenantControlPlane;
use tokio::sync::Semaphore;

use crate::cluster::caches::Name;
use crate::context::{Context, Key};
use crate::facts::TenantFacts;
use crate::inside::coming::Coming;
use crate::inside::connection::{Tenant, failure};
use crate::inside::identity::Writer;
use crate::inside::plan::{self, Step};
use crate::inside::ways::{Way, Ways};
use crate::inside::write;
use crate::process::lanes::Lanes;
use crate::process::observers::pause;
use crate::process::{lease, timing};
use crate::tenant::objects::is_paused;
use crate::tenant::world::{InsideFacts, ProbeFacts, ProbeFailure, ProbeFailureKind as Kind};

/// Tenants that are looked into at once; more wait.
static VISITS: Semaphore = Semaphore::const_new(256);

/// Pods that do not even refuse a connection cannot be reached from here: after
/// as many the Service has to do.
const SILENT_ATTEMPTS: u32 = 3;

/// Keeps what belongs into one tenant until the task is ended.
pub async fn run(ctx: Arc<Context>, name: Name, uid: String) {
    let mut keeper = Keeper {
        coming: Coming::default(),
        lanes: Lanes::of(1),
        silent: 0,
        failures: 0,
    };
    let wake = ctx.facts.tenant(&uid).wake_inside;
    loop {
        let wait = keeper.round(&ctx, &name, &uid).await;
        pause(wait, &wake).await;
    }
}

struct Keeper {
    coming: Coming,
    /// Apart from the probe's, which may wait for what is yet to be written.
    lanes: Lanes,
    /// Attempts at pods that were met with silence.
    silent: u32,
    /// Visits in a row that failed.
    failures: u32,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// No way leads there yet.
    NoWay,
    /// Everything is there as it is to be.
    Complete,
    /// Something could not be looked at or written.
    Failed,
}

impl Keeper {
    async fn round(&mut self, ctx: &Context, name: &Name, uid: &str) -> Duration {
        let Some(tenant) = ctx.caches.tenants.get(name) else {
            return timing::PROBE_DOWN;
        };
        if tenant.metadata.uid.as_deref() != Some(uid) || is_left_alone(&tenant) {
            return timing::PROBE_DOWN;
        }
        if self.coming.note(ctx, name, None) {
            self.silent = 0;
            self.failures = 0;
        }
        let probe = ctx.facts.tenant(uid).probe;
        let found = self.visit_one_way(ctx, name, uid, &tenant, &probe).await;
        self.wait(found, is_well(&probe))
    }

    /// Tries one way after the other, until one has led to the tenant.
    async fn visit_one_way(
        &mut self,
        ctx: &Context,
        name: &Name,
        uid: &str,
        tenant: &TenantControlPlane,
        probe: &ProbeFacts,
    ) -> Found {
        let ways = Ways::of(ctx, name, tenant);
        let first = !tenant.was_ready();
        let mut found = Found::NoWay;
        if first && self.silent < SILENT_ATTEMPTS {
            for way in ways.to_pods(&ctx.caches.pods.of(name)) {
                match self.visit(ctx, name, first, &way).await {
                    Ok(steps) => return self.learn(ctx, name, uid, Ok(steps)),
                    Err(failure) if failure.kind == Kind::TimedOut => self.silent += 1,
                    // It does not serve yet.
                    Err(_) => {}
                }
                found = Found::Failed;
            }
        }
        match ways.open(probe) {
            Some(way) => {
                let visit = self.visit(ctx, name, first, &way).await;
                self.learn(ctx, name, uid, visit)
            }
            None => found,
        }
    }

    /// Looks at the tenant and writes what is missing, as the first that may. Returns
    /// what was written.
    async fn visit(
        &self,
        ctx: &Context,
        name: &Name,
        first: bool,
        way: &Way,
    ) -> Result<Vec<Step>, ProbeFailure> {
        // A wait for others is no silence of the tenant.
        let _permit = VISITS.acquire().await;
        let mut refused: Option<ProbeFailure> = None;
        for writer in Writer::of(first) {
            let credentials = writer.credentials(ctx, name)?;
            let visit = async {
                let connect =
                    Tenant::connect(&way.address, way.host.as_deref(), &credentials, &self.lanes);
                let connect = tokio::time::timeout(timing::CONNECT_DEADLINE, connect);
                let Ok(tenant) = connect.await else {
                    let message = format!("{}: no connection in time", way.address);
                    return Err(failure(Kind::TimedOut, message));
                };
                let tenant = tenant?;
                let inside = write::look(&tenant, plan::wanted(first)).await?;
                let steps = plan::plan(&inside);
                for step in &steps {
                    write::carry_out(&tenant, step).await?;
                }
                Ok(steps)
            };
            let visit = tokio::time::timeout(timing::VISIT_DEADLINE, visit);
            let visit = match ctx.leadership.hold(visit).await {
                None => return Err(failure(Kind::Unasked, lease::ENDED)),
                Some(Ok(visit)) => visit,
                Some(Err(_)) => {
                    return Err(failure(Kind::Silent, "the tenant's API does not answer"));
                }
            };
            match visit {
                Err(failure) if failure.kind == Kind::Forbidden => {
                    refused.get_or_insert(failure);
                }
                visit => return visit,
            }
        }
        let remedy = "bind the group kubeadm:cluster-admins to the ClusterRole cluster-admin \
                      again with super-admin.conf of the admin Secret";
        let said = refused.map(|failure| failure.message).unwrap_or_default();
        Err(failure(Kind::Forbidden, format!("{said}; {remedy}")))
    }

    /// Makes known what came of a visit.
    fn learn(
        &self,
        ctx: &Context,
        name: &Name,
        uid: &str,
        visit: Result<Vec<Step>, ProbeFailure>,
    ) -> Found {
        let tenant = name.to_string();
        let (steps, problem) = match visit {
            Ok(steps) => (steps, None),
            Err(failure) => (Vec::new(), Some(failure.message)),
        };
        for step in &steps {
            tracing::info!(tenant, "in the tenant: {step}");
        }
        let found = match problem {
            None => Found::Complete,
            Some(_) => Found::Failed,
        };
        let facts = InsideFacts { problem };
        let (changed, wake) = ctx.facts.update_tenant(uid, |known: &mut TenantFacts| {
            let changed = known.inside != facts;
            known.inside = facts.clone();
            (changed, known.wake_probe.clone())
        });
        if changed {
            if let Some(problem) = &facts.problem {
                tracing::warn!(
                    tenant,
                    "what belongs into the tenant is not there: {problem}"
                );
            }
            ctx.queue.add(Key::Tenant(name.clone()));
        }
        if !steps.is_empty() {
            wake.notify_one();
        }
        found
    }

    /// How long to wait after a round. `well`: the tenant can be used.
    fn wait(&mut self, found: Found, well: bool) -> Duration {
        if found != Found::Failed {
            self.failures = 0;
        }
        match found {
            Found::Complete if well => timing::INSIDE_EVERY,
            // Woken as soon as there is a way.
            Found::Complete => timing::PROBE_DOWN,
            Found::NoWay | Found::Failed if self.coming.is() => timing::PROBE_COMING,
            Found::NoWay => timing::PROBE_DOWN,
            Found::Failed => {
                self.failures = self.failures.saturating_add(1);
                let (first, slowest) = (timing::PROBE_DOWN, timing::INSIDE_EVERY);
                timing::observer_backoff(first, slowest, self.failures)
            }
        }
    }
}

/// Nothing is written into a tenant that is paused, asleep or on its way out.
fn is_left_alone(tenant: &TenantControlPlane) -> bool {
    is_paused(&tenant.metadata)
        || tenant.spec.control_plane.deployment.replicas == 0
        || tenant.metadata.deletion_timestamp.is_some()
}

fn is_well(probe: &ProbeFacts) -> bool {
    let ways = [&probe.endpoint, &probe.service];
    ways.iter()
        .any(|fact| fact.as_ref().is_some_and(|fact| fact.result.is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_looked_at_seldom_and_what_fails_less_and_less() {
        let mut keeper = Keeper {
            coming: Coming::default(),
            lanes: Lanes::of(1),
            silent: 0,
            failures: 0,
        };
        assert_eq!(keeper.wait(Found::Complete, true), timing::INSIDE_EVERY);
        assert_eq!(keeper.wait(Found::Complete, false), timing::PROBE_DOWN);
        let mut wait = |found| keeper.wait(found, false).as_secs();
        let waits: Vec<_> = (0..6).map(|_| wait(Found::Failed)).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
        assert_eq!(wait(Found::NoWay), 2);
        assert_eq!(wait(Found::Failed), 2);
    }
}
