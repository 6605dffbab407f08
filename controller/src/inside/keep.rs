//! Keeps in a tenant what belongs there: looks, plans, writes, and tells what came of
//! it. One task a tenant, so that none waits for another.
//!
//! The first time it goes past the Service, to an API server that serves and is not
//! Ready yet: its readiness is asked for without credentials, and until it has written
//! its own roles, a second later, it would let nobody ask.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use apiservice::names;
use apiservice::v1alpha1::{RegistrySettings, TenantControlPlane, WritePermissions};
use apiservice::version::KubernetesVersion;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::facts::TenantFacts;
use crate::inside::coming::Coming;
use crate::inside::connection::{Address, Tenant, failure};
use crate::inside::identity::{Writer, pair_of};
use crate::inside::objects::title;
use crate::inside::plan::{self, Basis, Step};
use crate::inside::wanted::{self, Cluster, How, Inside, Kept};
use crate::inside::ways::{Way, Ways, is_left_alone};
use crate::inside::write;
use crate::process::contested::{CONTESTED_EVERY, Contest, Repair, Repaired};
use crate::process::lanes::Lanes;
use crate::process::lease::Unfinished;
use crate::process::observers::{VISITS, pause};
use crate::process::places::{Place, Places};
use crate::process::timing;
use crate::report::progress;
use crate::tenant::backing::limits::Standing;
use crate::tenant::backing::store as place;
use crate::tenant::ran;
use crate::tenant::workload::containers;
use crate::tenant::world::{
    Addons, InsideProblem, ProbeFacts, ProbeFailure, ProbeFailureKind as Kind, is_ready,
};

/// Tenants in which pods of add-ons that run well are replaced at a time, where the
/// tenant did not ask for it: after an upgrade of Steward, or a change of its registry.
static ROLLS: Places = Places::new(4, timing::ASKS_AGAIN);

/// Pods that do not even refuse a connection cannot be reached from here: after
/// as many the Service has to do.
const SILENT_ATTEMPTS: u32 = 3;
/// How long what nobody asks for is not looked for again.
const GONE_FOR: Duration = Duration::from_secs(300);
/// Writes of one visit that may hang.
const HANGING: usize = 2;

/// Keeps what belongs into one tenant until the task is ended.
pub async fn run(ctx: Arc<Context>, name: NamespacedName, uid: String) {
    let mut keeper = Keeper::default();
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
    /// When to look again, as long as the objects are made of the same.
    again: Option<(Instant, Basis)>,
    /// Objects that nobody asks for and that were not there, and when they were last
    /// looked for: a backup may bring them back.
    gone: BTreeMap<String, Instant>,
    /// Who else writes what we keep.
    contest: Contest<Fought>,
    /// Pods of add-ons are being replaced.
    rolling: Option<Rolling>,
    /// The registry that the tenant's control plane last ran with.
    registry: Option<String>,
}

impl Default for Keeper {
    fn default() -> Self {
        Keeper {
            coming: Coming::default(),
            lanes: Lanes::of(1),
            silent: 0,
            failures: 0,
            again: None,
            gone: BTreeMap::new(),
            contest: Contest::default(),
            rolling: None,
            registry: None,
        }
    }
}

/// A place among those that replace pods.
struct Rolling {
    _place: Place<'static>,
    since: Instant,
    /// Whose pods were replaced.
    of: BTreeSet<String>,
}

/// What is fought over: an object of a tenant, and whether it is deleted or changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fought {
    object: String,
    deleted: bool,
    runs_pods: bool,
}

impl Fought {
    fn over(step: &Step) -> Self {
        let object = step.object();
        Fought {
            object: title(object),
            deleted: matches!(step, Step::Create(_)),
            runs_pods: matches!(object["kind"].as_str(), Some("Deployment" | "DaemonSet")),
        }
    }
}

impl Repaired for Fought {
    fn longest_pause(&self) -> Duration {
        match self.runs_pods {
            true => CONTESTED_EVERY * 10,
            false => CONTESTED_EVERY,
        }
    }
}

/// What a visit has done.
#[derive(Default)]
struct Done {
    /// What was written.
    steps: Vec<Step>,
    /// What could not be made or written.
    problems: Vec<InsideProblem>,
    /// Something waits for its turn.
    waits: bool,
    /// Titles of what was not read, or is not as it is to be. `None`: nothing was looked at.
    unsettled: Option<BTreeSet<String>>,
    /// Those of them that were seen to be missing or to say something else, and stayed so.
    differing: BTreeSet<String>,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// No way leads there yet.
    NoWay,
    /// Everything is there as it is to be, or waits for its turn.
    Complete,
    /// Something could not be looked at or written.
    Failed,
}

/// What a round is about.
struct Round<'a> {
    ctx: &'a Context,
    name: &'a NamespacedName,
    uid: &'a str,
    basis: &'a Basis,
}

impl Keeper {
    async fn round(&mut self, ctx: &Context, name: &NamespacedName, uid: &str) -> Duration {
        let Some(tenant) = ctx.caches.tenants.get(name) else {
            return timing::PROBE_DOWN;
        };
        if tenant.metadata.uid.as_deref() != Some(uid) || is_left_alone(&tenant) {
            return timing::PROBE_DOWN;
        }
        self.coming.note(ctx, name, None);
        let ways = Ways::of(ctx, name, &tenant);
        let registry = self.registry(ctx, name, &tenant);
        let basis = basis(ctx, name, tenant, registry);
        let (probe, asked) = ctx.facts.update_tenant(uid, |known| {
            (known.probe.clone(), std::mem::take(&mut known.look_inside))
        });
        if let Some((at, made_of)) = &self.again
            && basis.is_same(made_of)
            && *at > Instant::now()
            && (!asked || self.failures > 0)
        {
            // Woken by what is no news here.
            return at.duration_since(Instant::now());
        }
        let round = Round {
            ctx,
            name,
            uid,
            basis: &basis,
        };
        let found = self.visit_one_way(&round, &ways, &probe).await;
        let wait = self.wait(found, basis.first);
        self.again = Some((Instant::now() + wait, basis));
        wait
    }

    /// The registry of this installation. Where the tenant's own pods follow a change of
    /// it, they do so by turns, and its add-ons come after those that run.
    fn registry(
        &mut self,
        ctx: &Context,
        name: &NamespacedName,
        tenant: &TenantControlPlane,
    ) -> String {
        let settings = &tenant.spec.control_plane.deployment.registry_settings;
        let own = ctx.settings.registry.trim_end_matches('/');
        if settings.registry != RegistrySettings::default().registry {
            return own.to_owned();
        }
        let runs = registry_of(&own_pods(ctx, name), &settings.api_server_image);
        self.registry = runs.or(self.registry.take());
        self.registry.clone().unwrap_or_else(|| own.to_owned())
    }

    /// Tries one way after the other, until one has led to the tenant.
    async fn visit_one_way(&mut self, round: &Round<'_>, ways: &Ways, probe: &ProbeFacts) -> Found {
        let (ctx, name) = (round.ctx, round.name);
        let mut found = Found::NoWay;
        if round.basis.first {
            for way in ways.to_pods(&own_pods(ctx, name)) {
                if self.silent >= SILENT_ATTEMPTS {
                    break;
                }
                match self.visit(round, &way).await {
                    Ok(done) => return learn(round, done),
                    Err(failure) if failure.kind == Kind::TimedOut => self.silent += 1,
                    // It does not serve yet.
                    Err(_) => {}
                }
                found = Found::Failed;
            }
        }
        let Some(way) = ways.open(probe) else {
            return found;
        };
        match self.visit(round, &way).await {
            Ok(done) => learn(round, done),
            // It refuses: nothing is written until somebody has mended that.
            Err(failure) if matches!(failure.kind, Kind::Forbidden | Kind::Unauthenticated) => {
                let about = "The tenant's API lets nobody of Steward's in";
                let problems = vec![wanted::problem(about, &failure.message)];
                learn(
                    round,
                    Done {
                        problems,
                        ..Done::default()
                    },
                )
            }
            // What was seen last stands: Ready tells of the rest.
            Err(failure) => {
                let tenant = name.to_string();
                tracing::debug!(tenant, "not looked into: {}", failure.message);
                Found::Failed
            }
        }
    }

    /// Looks at the tenant and writes what is missing, as the first that may.
    async fn visit(&mut self, round: &Round<'_>, way: &Way) -> Result<Done, ProbeFailure> {
        let (ctx, first) = (round.ctx, round.basis.first);
        // A wait for others is no silence of the tenant.
        let _turn = VISITS.take(&round.name.namespace).await;
        let mut refused: Option<ProbeFailure> = None;
        for writer in Writer::of(first, round.basis.anew) {
            let credentials = writer.credentials(ctx, round.name)?;
            let lanes = self.lanes.clone();
            let host = way.host.as_deref();
            let address = Address::of(&round.name.namespace, &way.address).await;
            let visit = async {
                let connect = Tenant::connect(address, host, &credentials, &lanes);
                let connect = tokio::time::timeout(timing::CONNECT_DEADLINE, connect);
                let Ok(tenant) = connect.await else {
                    let message = format!("{}: no connection in time", way.address);
                    return Err(failure(Kind::TimedOut, message));
                };
                self.put_right(&tenant?, round).await
            };
            let visit = ctx.leadership.within(timing::VISIT_DEADLINE, visit).await;
            let visit = visit.map_err(|unfinished| match unfinished {
                Unfinished::Ended => failure(Kind::Unasked, unfinished.to_string()),
                Unfinished::Late(_) => failure(Kind::Silent, "the tenant's API does not answer"),
            })?;
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
        let said = crate::report::diagnose::quote(&said);
        Err(failure(Kind::Forbidden, format!("{remedy} ({said})")))
    }

    /// Looks, plans and writes.
    async fn put_right(
        &mut self,
        tenant: &Tenant,
        round: &Round<'_>,
    ) -> Result<Done, ProbeFailure> {
        let basis = round.basis;
        let (mut wanted, mut problems) = plan::wanted(basis);
        self.gone.retain(|_, looked| looked.elapsed() < GONE_FOR);
        wanted
            .retain(|kept| kept.how != How::Absent || !self.gone.contains_key(&title(&kept.value)));
        let mut unsettled: BTreeSet<String> =
            wanted.iter().map(|kept| title(&kept.value)).collect();
        let (inside, unread) = write::look(tenant, wanted, basis.first).await?;
        problems.extend(unread);
        for (kept, live) in &inside.found {
            let title = title(&kept.value);
            match kept.how == How::Absent && live.is_none() {
                true => drop(self.gone.insert(title, Instant::now())),
                false => drop(self.gone.remove(&title)),
            }
        }
        self.leave_place(&inside);
        let steps = plan::plan(&inside);
        for (kept, _) in &inside.found {
            unsettled.remove(&title(&kept.value));
        }
        let planned: BTreeSet<String> = steps.iter().map(|step| title(step.object())).collect();
        unsettled.extend(planned.iter().cloned());
        let mut done = Done {
            problems,
            ..Done::default()
        };
        let mut hanging = 0;
        for step in steps {
            if hanging >= HANGING {
                done.waits = true;
                break;
            }
            if let Step::Blocked { object, field } = &step {
                let about = format!("{} is not one of ours", title(object));
                let said = format!("its {field} differs: delete it, and it is made anew");
                done.problems.push(wanted::problem(about, &said));
                continue;
            }
            match self.may(&step, round) {
                May::Now => {}
                May::InTurn => {
                    done.waits = true;
                    continue;
                }
                May::Later(until) => {
                    let field = match &step {
                        Step::Apply { field, .. }
                        | Step::Put { field, .. }
                        | Step::Replace { field, .. } => format!(" ({field})"),
                        _ => String::new(),
                    };
                    let about = format!("{}{field} is contested", title(step.object()));
                    let said = format!(
                        "somebody else keeps changing it back, so the next attempt is at {until:.0}"
                    );
                    done.problems.push(wanted::problem(about, &said));
                    continue;
                }
            }
            let began = Instant::now();
            match write::carry_out(tenant, &step, basis.first).await {
                Ok(()) => {
                    let content = fingerprint(step.object());
                    let now = round.ctx.now();
                    self.contest.wrote(Fought::over(&step), content, now);
                    unsettled.remove(&title(step.object()));
                    done.steps.push(step);
                }
                // Somebody has changed it since it was read: it is read again.
                Err(failure) if failure.message.contains("object has been modified") => {
                    done.waits = true;
                }
                Err(failure) if failure.kind == Kind::Write => {
                    hanging += usize::from(began.elapsed() >= timing::STEP_DEADLINE);
                    let about = format!("Cannot {step}");
                    done.problems.push(wanted::problem(about, &failure.message));
                }
                Err(failure) => return Err(failure),
            }
        }
        done.differing = planned.intersection(&unsettled).cloned().collect();
        done.unsettled = Some(unsettled);
        Ok(done)
    }

    /// Whether a step may be carried out now. What the tenant asked for itself may.
    fn may(&mut self, step: &Step, round: &Round<'_>) -> May {
        let now = round.ctx.now();
        let fought = Fought::over(step);
        let content = fingerprint(step.object());
        if let Repair::Contested { until } = self.contest.ask(&fought, content, now) {
            return May::Later(until);
        }
        let cluster = round.basis.cluster.as_ref();
        let generation = cluster.and_then(|it| it.tenant.metadata.generation);
        let known = round.ctx.facts.tenant(round.uid).inside.generation;
        let asked_for = known.is_some() && known != generation;
        if !matches!(step, Step::Apply { rolls: true, .. }) || asked_for {
            return May::Now;
        }
        let of = title(step.object());
        if let Some(rolling) = &mut self.rolling {
            rolling.of.insert(of);
            return May::Now;
        }
        match ROLLS.take(&round.name.namespace) {
            Some(place) => {
                self.rolling = Some(Rolling {
                    _place: place,
                    since: Instant::now(),
                    of: BTreeSet::from([of]),
                });
                May::Now
            }
            None => May::InTurn,
        }
    }

    /// Gives the place back once the pods that were replaced run, or have not for long.
    fn leave_place(&mut self, inside: &Inside) {
        let Some(rolling) = &self.rolling else {
            return;
        };
        let of = |kept: &Kept| rolling.of.contains(&title(&kept.value));
        let all = inside.found.iter().filter(|(kept, _)| of(kept));
        let all = all.filter_map(|(_, live)| live.as_ref());
        let settled = all.filter_map(plan::is_settled).all(|settled| settled);
        let seen = rolling.since.elapsed() > Duration::from_secs(1);
        if settled && seen || rolling.since.elapsed() > timing::ROLL_HELD_FOR {
            self.rolling = None;
        }
    }

    /// How long to wait after a round. `first`: the tenant may be about to come up.
    fn wait(&mut self, found: Found, first: bool) -> Duration {
        if found != Found::Failed {
            self.failures = 0;
        }
        let coming = self.coming.pace().filter(|_| first);
        match (found, coming) {
            // What it is made of may change before, and is told of.
            (Found::Complete, _) if self.rolling.is_some() => timing::PROBE_READY,
            (Found::Complete, _) => timing::INSIDE_EVERY,
            (Found::NoWay | Found::Failed, Some(pace)) => pace,
            (Found::NoWay, None) => timing::PROBE_DOWN,
            (Found::Failed, None) => {
                self.failures = self.failures.saturating_add(1);
                let (first, slowest) = (timing::PROBE_DOWN, timing::INSIDE_EVERY);
                timing::observer_backoff(first, slowest, self.failures)
            }
        }
    }
}

/// Whether a step may be carried out.
enum May {
    Now,
    /// Others are being rolled.
    InTurn,
    /// Somebody works against it.
    Later(Timestamp),
}

/// Of what is wanted of an object, whatever was seen of it when it was written.
fn fingerprint(object: &Value) -> u64 {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Makes known what came of a visit.
fn learn(round: &Round<'_>, done: Done) -> Found {
    let Round {
        ctx,
        name,
        uid,
        basis,
    } = round;
    let tenant = name.to_string();
    for step in &done.steps {
        tracing::info!(tenant, "in the tenant: {step}");
    }
    let cluster = basis.cluster.as_ref().filter(|_| !basis.first);
    let well = done.problems.is_empty();
    let (changed, wake) = ctx.facts.update_tenant(uid, |known: &mut TenantFacts| {
        let mut facts = known.inside.clone();
        if let Some(cluster) = cluster.filter(|_| well && !done.waits) {
            // The rest of a change comes with the version that serves.
            let wanted = &cluster.tenant.spec.kubernetes.version;
            if is_same_version(wanted, &cluster.version) {
                facts.generation = cluster.tenant.metadata.generation;
            }
            facts.addons = Some(Addons {
                core_dns: cluster.core_dns().is_some(),
                kube_proxy: cluster.kube_proxy().is_some(),
                konnectivity: cluster.konnectivity().map(|it| it.agent.mode),
            });
        }
        // Whatever else is missing.
        let settled = |kept: &Kept| {
            let unsettled = done.unsettled.as_ref();
            unsettled.is_some_and(|titles| !titles.contains(&title(&kept.value)))
        };
        // As long as one of them says something else, it may refuse nothing.
        let differs =
            |kept: &Kept| kept.how != How::Absent && done.differing.contains(&title(&kept.value));
        if let Some((cluster, refusals)) = cluster.map(|cluster| (cluster, cluster.refusals())) {
            if refusals.iter().all(settled) {
                facts.blocked = Some(cluster.blocked().all());
            } else if refusals.iter().any(differs) {
                facts.blocked = Some(WritePermissions::default());
            }
        }
        facts.problems = done.problems;
        let changed = !known.inside.is_same(&facts);
        if changed {
            known.inside = facts;
        }
        (changed, known.wake_probe.clone())
    });
    if changed {
        if let Some(problems) = ctx.facts.tenant(uid).inside.told() {
            tracing::warn!(
                tenant,
                "what belongs into the tenant is not there: {problems}"
            );
        }
        ctx.queue.add(Key::Tenant((*name).clone()));
    }
    if !done.steps.is_empty() {
        wake.notify_one();
    }
    match well {
        true => Found::Complete,
        false => Found::Failed,
    }
}

fn is_same_version(one: &str, other: &str) -> bool {
    let parsed = |text: &str| text.parse::<KubernetesVersion>();
    match (parsed(one), parsed(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// What the objects in a tenant are made of, as far as it is known.
fn basis(
    ctx: &Context,
    name: &NamespacedName,
    tenant: Arc<TenantControlPlane>,
    registry: String,
) -> Basis {
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    let facts = ctx.facts.tenant(uid);
    let chosen = facts.data_store_of(&tenant).unwrap_or_default();
    let TenantFacts {
        for_nodes, size, ..
    } = facts;
    let store = ctx.caches.data_store(&chosen);
    let standing = size.standing_in(store.as_deref(), &tenant);
    let served = for_nodes.and_then(|it| Some(((it.endpoint, it.agents), it.version?)));
    let authority = pair_of(ctx, name, &names::ca(&name.name));
    let first = !ran::may_have_run(&ctx.caches, &tenant);
    let anew = !first && place::is_to_start_empty(&tenant);
    let cluster = served.zip(authority);
    let cluster = cluster.map(|(((endpoint, agents), version), authority)| Cluster {
        tenant,
        endpoint,
        agents,
        authority: authority.cert,
        registry,
        version,
        over_limit: standing == Standing::Exceeded,
    });
    Basis {
        first,
        anew,
        cluster,
    }
}

/// The registry that all of these pods have their API server from, if they agree.
fn registry_of(pods: &[Arc<Pod>], image_name: &str) -> Option<String> {
    let registry = |pod: &Arc<Pod>| {
        let (image, _tag) = containers::api_server_image(pod)?.rsplit_once(':')?;
        Some(
            image
                .strip_suffix(image_name)?
                .strip_suffix('/')?
                .to_owned(),
        )
    };
    let mut all = pods.iter().filter(|pod| is_ready(pod)).map(registry);
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first))
        .then_some(first)
}

/// The pods that our Deployment has made: anybody can make one with its labels.
fn own_pods(ctx: &Context, name: &NamespacedName) -> Vec<Arc<Pod>> {
    let deployment = ctx.caches.deployments.get(&NamespacedName::new(
        &name.namespace,
        names::workload(&name.name),
    ));
    let Some(live) = deployment else {
        return Vec::new();
    };
    let sets = ctx.caches.replica_sets.of(name);
    progress::made_by(&live, &sets, ctx.caches.pods.of(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiservice::endpoint::Endpoint;
    use serde_json::json;

    use crate::context::testing::{context, fill, nothing};
    use crate::tenant::testing::Lab;

    /// A tenant that ran, in a context that has its objects.
    async fn known(lab: &Lab) -> (Arc<Context>, NamespacedName, String) {
        let (ctx, _) = context(nothing, true).await;
        fill(&ctx.caches, lab);
        let uid = lab.world.uid().to_owned();
        ctx.facts.enter_tenant(&uid, ctx.now());
        (ctx, NamespacedName::of(&lab.world.tenant.metadata), uid)
    }

    #[tokio::test]
    async fn which_writes_are_refused_is_known_whatever_else_is_missing() {
        let mut lab = Lab::ready();
        lab.spec().write_permissions = Some(WritePermissions {
            block_creation: true,
            ..WritePermissions::default()
        });
        let (ctx, name, uid) = known(&lab).await;
        let basis = Basis {
            first: false,
            anew: false,
            cluster: Some(Cluster {
                tenant: lab.world.tenant.clone(),
                endpoint: Endpoint::new("10.0.0.10", 6443),
                agents: None,
                authority: String::new(),
                registry: String::new(),
                version: "v1.36.3".to_owned(),
                over_limit: false,
            }),
        };
        let round = Round {
            ctx: &ctx,
            name: &name,
            uid: &uid,
            basis: &basis,
        };
        let told = |unsettled: Option<&str>| {
            let done = Done {
                problems: vec![wanted::problem("Cannot create X", "no")],
                unsettled: unsettled.map(|title| BTreeSet::from([title.to_owned()])),
                ..Done::default()
            };
            learn(&round, done);
            ctx.facts.tenant(&uid).inside.blocked
        };
        assert_eq!(told(None), None, "nothing was looked at");
        let binding = "ValidatingAdmissionPolicyBinding steward-write-permissions";
        assert_eq!(told(Some(binding)), None);
        let blocked = told(Some("Deployment kube-system/coredns")).unwrap();
        assert!(blocked.block_creation && !blocked.block_update);
        assert_eq!(told(Some(binding)), Some(blocked), "it could not be read");

        // Somebody has taken the effect from it, and keeps doing so.
        let told = |title: &str| {
            let done = Done {
                unsettled: Some(BTreeSet::from([title.to_owned()])),
                differing: BTreeSet::from([title.to_owned()]),
                ..Done::default()
            };
            learn(&round, done);
            ctx.facts.tenant(&uid).inside.blocked
        };
        assert_eq!(told("Deployment kube-system/coredns"), Some(blocked));
        assert_eq!(told(binding), Some(WritePermissions::default()));
    }

    /// Who ran is not written to beyond its RBAC, whatever its status says (rule 16).
    #[tokio::test]
    async fn an_emptied_status_makes_no_first_start() {
        let mut lab = Lab::ready();
        lab.tenant().status = None;
        let (ctx, name, _) = known(&lab).await;
        let tenant = lab.world.tenant.clone();
        assert!(!basis(&ctx, &name, tenant, String::new()).first);
        let fresh = Lab::new();
        let (ctx, name, _) = known(&fresh).await;
        let tenant = fresh.world.tenant.clone();
        assert!(basis(&ctx, &name, tenant, String::new()).first);
    }

    #[test]
    fn what_fails_is_tried_less_and_less() {
        let mut keeper = Keeper::default();
        let mut wait = |found| keeper.wait(found, false).as_secs();
        assert_eq!(wait(Found::Complete), 30);
        let waits: Vec<_> = (0..6).map(|_| wait(Found::Failed)).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
        assert_eq!(wait(Found::NoWay), 2);
        assert_eq!(wait(Found::Failed), 2);
    }

    /// Whoever changes an add-on back each time has its pods replaced less and less.
    #[test]
    fn a_fight_over_an_object_is_slowed_down() {
        let mut keeper = Keeper::default();
        let seen = |version: i64| {
            json!({
                "kind": "DaemonSet",
                "metadata": {"name": "kube-proxy", "resourceVersion": version.to_string()},
            })
        };
        let step = Step::Apply {
            object: seen(0),
            field: "spec.template".to_owned(),
            rolls: false,
        };
        let content = fingerprint(&seen(0));
        let start = Timestamp::UNIX_EPOCH;
        let mut writes = Vec::new();
        for second in (0..3600).step_by(30) {
            let now = start + jiff::SignedDuration::from_secs(second);
            // The other one has written in between.
            let content = fingerprint(&seen(second));
            let asked = keeper.contest.ask(&Fought::over(&step), content, now);
            if asked == Repair::Write {
                writes.push(second);
                keeper.contest.wrote(Fought::over(&step), content, now);
            }
        }
        assert!(writes.len() <= 12, "{writes:?}");
        // Another wish of ours is written at once.
        let now = start + jiff::SignedDuration::from_secs(3600);
        let other = keeper.contest.ask(&Fought::over(&step), content + 1, now);
        assert_eq!(other, Repair::Write);
    }

    #[test]
    fn add_ons_come_from_where_the_pods_that_run_do() {
        let pod = |image: &str, ready: bool| {
            let mut pod = crate::tenant::testing::pod(0, ready);
            let containers = &mut pod.spec.get_or_insert_default().containers;
            containers.clear();
            containers.push(k8s_openapi::api::core::v1::Container {
                name: names::container::API_SERVER.to_owned(),
                image: Some(image.to_owned()),
                ..Default::default()
            });
            Arc::new(pod)
        };
        let old = || pod("a.example/x/kube-apiserver:v1.36.3", true);
        let new = |ready| pod("b.example/kube-apiserver:v1.36.3", ready);
        let of = |pods: &[Arc<Pod>]| registry_of(pods, "kube-apiserver");
        assert_eq!(of(&[old(), new(false)]).as_deref(), Some("a.example/x"));
        assert_eq!(of(&[old(), new(true)]), None, "not yet");
        assert_eq!(of(&[new(true)]).as_deref(), Some("b.example"));
        assert_eq!(of(&[new(false)]), None);
    }

    #[test]
    fn versions_are_compared_as_such() {
        assert!(is_same_version("v1.36.3", "1.36.3"));
        assert!(!is_same_version("v1.36.3", "v1.36.4"));
    }
}
