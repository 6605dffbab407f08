//! Keeps in a tenant what belongs there: looks, plans, writes, and tells what came of
//! it. One task a tenant, so that none waits for another.
//!
//! The first time it goes past the Service, to an API server that serves and is not
//! Ready yet: its readiness is asked for without credentials, and until it has written
//! its own roles, a second later, it would let nobody ask.

use std::sync::Arc;
use std::time::Duration;

use apiservice::names;
use apiservice::v1alpha1::TenantControlPlane;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::cluster::caches::NamespacedName;
use crate::context::{Context, Key};
use crate::facts::TenantFacts;
use crate::inside::coming::Coming;
use crate::inside::connection::{Tenant, failure};
use crate::inside::identity::{Writer, pair_of};
use crate::inside::plan::{self, Basis, Cluster, Step};
use crate::inside::ways::{Way, Ways};
use crate::inside::write;
use crate::process::lanes::Lanes;
use crate::process::observers::pause;
use crate::process::{lease, timing};
use crate::tenant::objects::is_paused;
use crate::tenant::world::{Addons, ProbeFacts, ProbeFailure, ProbeFailureKind as Kind};

/// Tenants that are looked into at once; more wait.
static VISITS: Semaphore = Semaphore::const_new(256);

/// Pods that do not even refuse a connection cannot be reached from here: after
/// as many the Service has to do.
const SILENT_ATTEMPTS: u32 = 3;

/// Keeps what belongs into one tenant until the task is ended.
pub async fn run(ctx: Arc<Context>, name: NamespacedName, uid: String) {
    let mut keeper = Keeper {
        coming: Coming::default(),
        lanes: Lanes::of(1),
        silent: 0,
        failures: 0,
        complete: None,
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
    /// When everything was there, and what it was made of.
    complete: Option<(Instant, Basis)>,
}

/// What a visit has done.
struct Done {
    /// What was written.
    steps: Vec<Step>,
    /// What could not be made or written, a sentence each.
    problems: Vec<String>,
}

/// Problems that are told at a time.
const PROBLEMS: usize = 5;

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
    async fn round(&mut self, ctx: &Context, name: &NamespacedName, uid: &str) -> Duration {
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
        let basis = basis(ctx, name, tenant);
        let probe = ctx.facts.tenant(uid).probe;
        if let Some((at, made_of)) = &self.complete
            && basis.is_same(made_of)
            && at.elapsed() < timing::INSIDE_EVERY
            && is_well(&probe)
        {
            return timing::PROBE_DOWN;
        }
        let found = self.visit_one_way(ctx, name, uid, &basis, &probe).await;
        self.complete = (found == Found::Complete).then(|| (Instant::now(), basis));
        self.wait(found)
    }

    /// Tries one way after the other, until one has led to the tenant.
    async fn visit_one_way(
        &mut self,
        ctx: &Context,
        name: &NamespacedName,
        uid: &str,
        basis: &Basis,
        probe: &ProbeFacts,
    ) -> Found {
        let Some(tenant) = ctx.caches.tenants.get(name) else {
            return Found::NoWay;
        };
        let ways = Ways::of(ctx, name, &tenant);
        let mut found = Found::NoWay;
        if basis.first && self.silent < SILENT_ATTEMPTS {
            for way in ways.to_pods(&ctx.caches.pods.of(name)) {
                match self.visit(ctx, name, basis, &way).await {
                    Ok(done) => return self.learn(ctx, name, uid, basis, Ok(done)),
                    Err(failure) if failure.kind == Kind::TimedOut => self.silent += 1,
                    // It does not serve yet.
                    Err(_) => {}
                }
                found = Found::Failed;
            }
        }
        match ways.open(probe) {
            Some(way) => {
                let visit = self.visit(ctx, name, basis, &way).await;
                self.learn(ctx, name, uid, basis, visit)
            }
            None => found,
        }
    }

    /// Looks at the tenant and writes what is missing, as the first that may.
    async fn visit(
        &self,
        ctx: &Context,
        name: &NamespacedName,
        basis: &Basis,
        way: &Way,
    ) -> Result<Done, ProbeFailure> {
        // A wait for others is no silence of the tenant.
        let _permit = VISITS.acquire().await;
        let mut refused: Option<ProbeFailure> = None;
        for writer in Writer::of(basis.first) {
            let credentials = writer.credentials(ctx, name)?;
            let visit = async {
                let connect =
                    Tenant::connect(&way.address, way.host.as_deref(), &credentials, &self.lanes);
                let connect = tokio::time::timeout(timing::CONNECT_DEADLINE, connect);
                let Ok(tenant) = connect.await else {
                    let message = format!("{}: no connection in time", way.address);
                    return Err(failure(Kind::TimedOut, message));
                };
                put_right(&tenant?, basis).await
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
        name: &NamespacedName,
        uid: &str,
        basis: &Basis,
        visit: Result<Done, ProbeFailure>,
    ) -> Found {
        let tenant = name.to_string();
        let done = visit.unwrap_or_else(|failure| Done {
            steps: Vec::new(),
            problems: vec![failure.message],
        });
        for step in &done.steps {
            tracing::info!(tenant, "in the tenant: {step}");
        }
        let mut problems = done.problems;
        problems.truncate(PROBLEMS);
        let problem = (!problems.is_empty()).then(|| problems.join(" "));
        let cluster = basis.cluster.as_ref().filter(|_| !basis.first);
        let (changed, wake) = ctx.facts.update_tenant(uid, |known: &mut TenantFacts| {
            let mut facts = known.inside.clone();
            if problem.is_none()
                && let Some(cluster) = cluster
            {
                facts.generation = cluster.tenant.metadata.generation;
                facts.addons = Some(Addons {
                    core_dns: cluster.core_dns().is_some(),
                    kube_proxy: cluster.kube_proxy().is_some(),
                    konnectivity: cluster.konnectivity().map(|it| it.agent.mode),
                });
            }
            facts.problem = problem;
            let changed = known.inside != facts;
            known.inside = facts;
            (changed, known.wake_probe.clone())
        });
        let problem = ctx.facts.tenant(uid).inside.problem;
        if changed {
            if let Some(problem) = &problem {
                tracing::warn!(
                    tenant,
                    "what belongs into the tenant is not there: {problem}"
                );
            }
            ctx.queue.add(Key::Tenant(name.clone()));
        }
        if !done.steps.is_empty() {
            wake.notify_one();
        }
        match problem {
            None => Found::Complete,
            Some(_) => Found::Failed,
        }
    }

    /// How long to wait after a round.
    fn wait(&mut self, found: Found) -> Duration {
        if found != Found::Failed {
            self.failures = 0;
        }
        match found {
            // What it was made of may change; the tenant is looked at less often.
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

/// What the objects in a tenant are made of, as far as it is known.
fn basis(ctx: &Context, name: &NamespacedName, tenant: Arc<TenantControlPlane>) -> Basis {
    let status = tenant.status.as_ref();
    let endpoint = status.and_then(|status| status.control_plane_endpoint.clone());
    let authority = pair_of(ctx, name, &names::ca(&name.name));
    let first = !tenant.was_ready();
    let cluster = endpoint.filter(|endpoint| !endpoint.is_empty());
    let cluster = cluster.zip(authority).map(|(endpoint, authority)| Cluster {
        tenant,
        endpoint,
        authority: authority.cert,
        registry: ctx.settings.registry.clone(),
    });
    Basis { first, cluster }
}

/// Looks, plans and writes. What one object meets holds up no other, but for what the
/// writer may not do at all.
async fn put_right(tenant: &Tenant, basis: &Basis) -> Result<Done, ProbeFailure> {
    let (wanted, problems) = plan::wanted(basis);
    let mut done = Done {
        steps: Vec::new(),
        problems: problems.into_iter().map(|problem| problem.0).collect(),
    };
    let inside = write::look(tenant, wanted).await?;
    for step in plan::plan(&inside) {
        match write::carry_out(tenant, &step, basis.first).await {
            Ok(()) => done.steps.push(step),
            Err(failure) if failure.kind == Kind::Write => {
                done.problems
                    .push(format!("Cannot {step}: {}.", failure.message));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(done)
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
    fn what_fails_is_tried_less_and_less() {
        let mut keeper = Keeper {
            coming: Coming::default(),
            lanes: Lanes::of(1),
            silent: 0,
            failures: 0,
            complete: None,
        };
        let mut wait = |found| keeper.wait(found).as_secs();
        assert_eq!(wait(Found::Complete), 2);
        let waits: Vec<_> = (0..6).map(|_| wait(Found::Failed)).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
        assert_eq!(wait(Found::NoWay), 2);
        assert_eq!(wait(Found::Failed), 2);
    }
}
