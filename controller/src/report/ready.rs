//! Whether a tenant is Ready, and if not, why (rule 15). Ready is earned by the
//! probe; what is known about datastore and pods only explains its failure.

use apiservice::condition::{Status, get, reason, tenant as condition};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use crate::cluster::kinds::ObjectKind;
use crate::report::diagnose::{self, quote};
use crate::report::judgement::{Judgement, is_cause};
use crate::report::progress;
use crate::tenant::World;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::{AccessFact, StoreProblemKind};
use crate::tenant::backing::{moving, store};
use crate::tenant::network::{exposure, service};
use crate::tenant::workload::live;
use crate::tenant::world::{
    PathFact, ProbeFacts, ProbeFailure, ProbeFailureKind as Kind, ready_condition,
};
use apiservice::v1alpha1::ServiceType;

/// A probe comes every few seconds. What it found longer ago than this, it may not
/// find now.
const FRESH: SignedDuration = SignedDuration::from_secs(30);

/// Whether the probe has said nothing for so long that it does not count any more.
pub fn is_overdue(probe: &ProbeFacts, since: Option<Timestamp>, now: Timestamp) -> bool {
    let started = |path: &Option<PathFact>| path.as_ref().map(|path| path.started);
    let last = started(&probe.endpoint)
        .max(started(&probe.service))
        .max(since);
    last.is_some_and(|last| now.duration_since(last) > FRESH)
}

/// The summary: as [`found`] has it, unless it says Ready by what was found too
/// long ago.
pub fn ready(
    world: &World,
    parts: &[(&'static str, Judgement)],
    earlier: &[Condition],
) -> Option<Judgement> {
    let found = moved(world, found(world, parts, earlier));
    let ready = match &found {
        Some(verdict) => verdict.status == Status::True,
        None => get(earlier, condition::READY).is_some_and(|before| before.status != "False"),
    };
    // While a tenant is paused, nobody probes it, and what was seen last stands.
    if ready && !world.is_paused() && is_overdue(&world.probe, world.observed_since, world.now) {
        return Some(Judgement::unknown(
            reason::PROBE_OVERDUE,
            format!(
                "Not probed for more than {} seconds. The controller's log may tell why.",
                FRESH.as_secs()
            ),
        ));
    }
    found
}

/// The same while the data cannot be written for a moment, which no probe need have met
/// yet: nobody writes while the copy is completed, and pods of before can only read.
fn moved(world: &World, found: Option<Judgement>) -> Option<Judgement> {
    let serves = !world.is_asleep() && !world.is_leaving();
    let migration = world.migration.as_ref().filter(|_| serves);
    let Some(migration) = migration.filter(|_| is_held_by_move(world)) else {
        return found;
    };
    let mut message = moving::told(migration);
    // What keeps the new pods from serving.
    if let Some(found) = found.filter(|it| it.status == Status::False)
        && moving::is_switching(world)
        && (is_cause(found.reason) || found.reason == reason::NO_REPLICA_AVAILABLE)
    {
        message = format!("{message} ({})", found.message);
    }
    Some(Judgement::no(reason::MIGRATING, message))
}

/// Whether nothing is written because the data is on its way.
pub fn is_held_by_move(world: &World) -> bool {
    // Pods of before may still be ending, to which nobody is led any more.
    let switching = moving::is_switching(world) && !progress::has_switched(world);
    moving::is_frozen(world) || switching
}

/// The summary of what is known. `parts` are the other conditions of this pass, in order of
/// cause before effect; `None` keeps what was said before.
fn found(
    world: &World,
    parts: &[(&'static str, Judgement)],
    earlier: &[Condition],
) -> Option<Judgement> {
    let before = get(earlier, condition::READY);
    if world.is_leaving() {
        return Some(Judgement::no(
            reason::DELETING,
            "The tenant is being deleted",
        ));
    }
    if world.is_asleep() {
        return Some(Judgement::no(
            reason::SLEEPING,
            "Asleep: spec.controlPlane.deployment.replicas is 0. Data, address and certificates stay.",
        ));
    }
    if let Some(broken) = broken(world) {
        return Some(broken);
    }
    let deployed = world
        .deployment()
        .is_some_and(|live| world.ours(&live.metadata));
    if !deployed {
        return Some(coming(world, parts));
    }
    let was = before.is_some_and(|before| before.status == "True");
    let Some(fact) = probed(world) else {
        // No probe yet: after a start of ours, what was earned stays earned.
        return if was {
            None
        } else {
            Some(coming(world, parts))
        };
    };
    match &fact.result {
        Ok(()) if was || earned(fact, before) => Some(Judgement::yes(
            reason::READY,
            format!("Reads, writes and watches through {}", fact.address),
        )),
        Ok(()) => None,
        // Clients are where they were.
        Err(_)
            if was && is_moving_elsewhere(world, get(earlier, condition::ENDPOINT_REACHABLE)) =>
        {
            None
        }
        Err(failure)
            if passes_inside(world, failure)
                && unreached(world, get(earlier, condition::ENDPOINT_REACHABLE))
                    == reason::ENDPOINT_ROUTE_LOST =>
        {
            Some(Judgement::no(
                reason::ENDPOINT_ROUTE_LOST,
                format!(
                    "{} no longer answers, the Service does: {}. Check the way there (routes, load \
                     balancer, network policies).",
                    fact.address,
                    quote(&failure.message)
                ),
            ))
        }
        // Nobody leads clients there, wherever one stands.
        Err(failure) if passes_inside(world, failure) && not_led(parts).is_some() => {
            let coming = first_start(world).then(|| coming(world, parts));
            coming.or_else(|| not_led(parts).cloned())
        }
        // The way from outside may be a moment later than the one inside.
        Err(failure) if passes_inside(world, failure) && on_its_way(world, failure) => {
            let coming = coming(world, parts);
            Some(
                if coming.reason == reason::PROVISIONING && awaits_name(world, failure) {
                    let message = format!(
                        "Works through its Service. The load balancer's name does not resolve yet: {}",
                        quote(&failure.message)
                    );
                    Judgement::no(reason::PROVISIONING, message)
                } else {
                    coming
                },
            )
        }
        Err(failure) if passes_inside(world, failure) => {
            Some(if was || inside_earned(world, before) {
                Judgement::yes(
                    reason::ENDPOINT_NOT_PROBED,
                    format!(
                        "Works through its Service. {} cannot be reached from the controller: {}.",
                        fact.address,
                        quote(&failure.message)
                    ),
                )
            } else {
                return None;
            })
        }
        Err(failure) => Some(explain(world, parts, fact, failure, before)),
    }
}

/// How long the new place may take once all pods are made for it: nodes' packet filters
/// follow, and a probe comes.
const MOVE_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// How long a move to another place is none of the alarms, whatever holds it up.
const MOVE_AT_MOST: SignedDuration = SignedDuration::from_secs(3 * 60);

/// The tenant is to be reached elsewhere, as its spec asks, and pods are being replaced for
/// that; inside it answers. `before` is what was said of its endpoint: a controller that has
/// just begun goes by that.
pub fn is_moving_elsewhere(world: &World, before: Option<&Condition>) -> bool {
    let Some(before) = before else { return false };
    let said = before.reason == reason::ROLLING_OUT;
    // It answered at the place of before, or nobody has looked at the new one yet. An alarm
    // stands until something answers.
    let begins = before.status == "True" || before.reason == reason::UNKNOWN;
    let long = world.now.duration_since(before.last_transition_time.0) >= MOVE_AT_MOST;
    if !(begins || said && !long) {
        return false;
    }
    let told = world.told.as_ref().map(|told| &told.endpoint);
    let clients = exposure::of(world).ok().map(|it| it.clients);
    let elsewhere = match told {
        Some(told) => clients.is_some() && Some(told) != clients.as_ref(),
        None => said,
    };
    let inside = world.probe.service.as_ref();
    let inside = inside.is_some_and(|fact| fact.result.is_ok());
    elsewhere && inside && !is_settled(world, MOVE_PATIENCE)
}

/// All pods are of the Deployment as it is now, and have been ready for so long.
fn is_settled(world: &World, patience: SignedDuration) -> bool {
    let since = |pod: &Pod| Some(ready_condition(pod)?.last_transition_time.as_ref()?.0);
    let last = world.pods.iter().filter_map(|pod| since(pod)).max();
    live::is_rolled_out(world) && last.is_none_or(|last| world.now.duration_since(last) >= patience)
}

/// What is known to be missing of what leads clients to the tenant by its name.
fn not_led<'a>(parts: &'a [(&'static str, Judgement)]) -> Option<&'a Judgement> {
    let mut parts = parts.iter();
    let (_, verdict) = parts.find(|(kind, _)| *kind == condition::EXPOSED)?;
    (verdict.status == Status::False).then_some(verdict)
}

/// Whether the endpoint was never reached from where the controller stands.
pub fn never_reached(endpoint: Option<&Condition>) -> bool {
    endpoint.is_some_and(|before| before.reason == reason::ENDPOINT_NOT_PROBED)
}

/// How long the way to the endpoint may take at a first start when the one inside
/// is there: the controller may stand where nothing leads to it.
const WAY_PATIENCE: SignedDuration = SignedDuration::from_secs(1);
/// The same where something answers and refuses, such as a load balancer that has
/// not found the pods yet.
const REFUSED_PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// The same where a load balancer was given a name that does not resolve yet: it is
/// made known within minutes.
const NAME_PATIENCE: SignedDuration = SignedDuration::from_secs(120);

/// A first start whose way from outside is given a moment more.
fn on_its_way(world: &World, failure: &ProbeFailure) -> bool {
    let patience = match failure.kind {
        Kind::Refused => REFUSED_PATIENCE,
        _ if awaits_name(world, failure) => NAME_PATIENCE,
        _ => WAY_PATIENCE,
    };
    let since = world.probe.inside_since;
    !world.was_ready() && since.is_none_or(|since| world.now.duration_since(since) < patience)
}

/// The name that a load balancer was given does not resolve yet. One that was
/// declared is as its owner has it.
fn awaits_name(world: &World, failure: &ProbeFailure) -> bool {
    let spec = &world.tenant.spec;
    failure.kind == Kind::Unresolvable
        && spec.network_profile.fixed_address().is_none()
        && spec.control_plane.service.service_type == ServiceType::LoadBalancer
}

/// What it means that the endpoint cannot be reached while the Service can,
/// after what was said of it before. The way to the endpoint of a tenant that was
/// never Ready has never been used.
pub fn unreached(world: &World, endpoint: Option<&Condition>) -> &'static str {
    let first = [
        reason::ENDPOINT_NOT_PROBED,
        reason::UNKNOWN,
        reason::PROVISIONING,
    ];
    match endpoint {
        Some(before) if world.was_ready() && !first.contains(&before.reason.as_str()) => {
            reason::ENDPOINT_ROUTE_LOST
        }
        _ => reason::ENDPOINT_NOT_PROBED,
    }
}

/// The result of the probe through the published endpoint, if the probe still
/// asks where the tenant is.
pub fn probed(world: &World) -> Option<&PathFact> {
    let fact = world.probe.endpoint.as_ref()?;
    let elsewhere = exposure::of(world).is_ok_and(|it| it.published.to_string() != fact.address);
    (!elsewhere).then_some(fact)
}

/// A probe that started before the tenant broke proves nothing. Conditions
/// carry whole seconds.
fn earned(fact: &PathFact, before: Option<&Condition>) -> bool {
    before.is_none_or(|before| fact.started.as_second() > before.last_transition_time.0.as_second())
}

fn inside_earned(world: &World, before: Option<&Condition>) -> bool {
    world
        .probe
        .service
        .as_ref()
        .is_some_and(|fact| earned(fact, before))
}

/// Only the way to the endpoint fails, the tenant itself does not (rule 15). Where a proxy
/// leads to tenants by name and refuses, the controller has reached it: nobody else is led
/// further.
pub fn passes_inside(world: &World, failure: &ProbeFailure) -> bool {
    let by_name = world.tenant.spec.control_plane.by_name();
    if failure.kind == Kind::Refused && by_name.is_some_and(|it| it.host().is_some()) {
        return false;
    }
    let path = matches!(
        failure.kind,
        Kind::Unresolvable | Kind::Refused | Kind::TimedOut | Kind::Silent
    );
    path && world
        .probe
        .service
        .as_ref()
        .is_some_and(|fact| fact.result.is_ok())
}

/// What is known to be broken, whatever the last probe said.
fn broken(world: &World) -> Option<Judgement> {
    if service::selector_changed(world) {
        let left = world.is_paused()
            || world
                .contested
                .keys()
                .any(|key| key.kind == ObjectKind::Service);
        let next = if left {
            "Change it back"
        } else {
            "It is being put right"
        };
        return Some(Judgement::no(
            reason::SERVICE_SELECTOR_CHANGED,
            format!(
                "Service {}/{} selects other pods than the tenant's. {next}.",
                world.namespace(),
                world.name()
            ),
        ));
    }
    if let Some(AccessFact::Revoked(why)) = &world.store.access
        && world.deployment().is_some()
    {
        return Some(revoked(why));
    }
    if let Some(AccessFact::Lost(what)) = &world.store.access
        && world.deployment().is_some()
        && !store::may_start_empty(world)
    {
        let told = store::data_lost(world, what);
        return Some(Judgement::no(told.reason, told.message));
    }
    if let Some(Err(problem)) = &world.store.health
        && problem.kind == StoreProblemKind::Full
        && world.deployment().is_some()
    {
        let told = store::explain(world, problem);
        return Some(Judgement::no(told.reason, told.message));
    }
    None
}

fn revoked(why: &str) -> Judgement {
    Judgement::no(
        reason::DATA_STORE_ACCESS_REVOKED,
        format!(
            "The tenant's user has lost its rights in the DataStore: {}",
            quote(why)
        ),
    )
}

/// Before there is a result of the probe: the first part with trouble, else
/// the first that is not there yet.
fn coming(world: &World, parts: &[(&'static str, Judgement)]) -> Judgement {
    let trouble = parts.iter().find(|(kind, verdict)| {
        summed(kind) && verdict.status == Status::False && is_cause(verdict.reason)
    });
    if let Some((_, verdict)) = trouble {
        return verdict.clone();
    }
    if let Some(trouble) = diagnose::of_pods(world) {
        return Judgement::no(trouble.reason, trouble.message);
    }
    let waiting = parts
        .iter()
        .find(|(kind, verdict)| summed(kind) && verdict.status != Status::True);
    let message = match waiting {
        Some((_, verdict)) if !verdict.message.is_empty() => verdict.message.clone(),
        _ => "Waiting for the first answer of the tenant's API".to_owned(),
    };
    Judgement::no(reason::PROVISIONING, message)
}

/// How long failed probes of a tenant that was never Ready are no news.
const FIRST_START: SignedDuration = SignedDuration::from_secs(60);

/// The tenant is coming up for the first time, and has not taken long yet. One
/// that was created asleep comes up when it has its first pod.
pub fn first_start(world: &World) -> bool {
    let created = |meta: &ObjectMeta| meta.creation_timestamp.as_ref().map(|at| at.0);
    let pods = world.pods.iter().filter_map(|pod| created(&pod.metadata));
    let began = created(&world.tenant.metadata).max(pods.min());
    !world.was_ready() && began.is_some_and(|began| world.now.duration_since(began) < FIRST_START)
}

/// The pods have not been there before, or the tenant slept.
pub fn starting(before: Option<&Condition>) -> bool {
    before.is_none_or(|before| {
        [reason::PROVISIONING, reason::SLEEPING].contains(&before.reason.as_str())
    })
}

/// Conditions without which a tenant cannot be Ready. A missing replica is
/// not one of them (rule 15).
fn summed(kind: &str) -> bool {
    [
        condition::DATA_STORE_READY,
        condition::CERTIFICATES_READY,
        condition::OBJECTS_OWNED,
        condition::ADDRESS_ASSIGNED,
        condition::EXPOSED,
        condition::WORKLOAD_AVAILABLE,
    ]
    .contains(&kind)
}

/// Why the probe fails: the nearest cause that is known.
fn explain(
    world: &World,
    parts: &[(&'static str, Judgement)],
    fact: &PathFact,
    failure: &ProbeFailure,
    before: Option<&Condition>,
) -> Judgement {
    let said = quote(&failure.message);
    if failure.kind == Kind::Unasked {
        return Judgement::no(
            reason::KEY_MATERIAL_LOST,
            format!("Nobody can tell: {said}"),
        );
    }
    if first_start(world) {
        return coming(world, parts);
    }
    match failure.kind {
        Kind::Untrusted => {
            return Judgement::no(
                reason::SERVING_CERTIFICATE_MISMATCH,
                format!(
                    "{} presents a certificate that is not this tenant's: {said}. Check what \
                     answers there.",
                    fact.address
                ),
            );
        }
        Kind::Unauthenticated => {
            return Judgement::no(
                reason::PROBE_REFUSED,
                format!("The tenant's API does not accept its own certificates: {said}"),
            );
        }
        Kind::Forbidden => {
            let why = world.inside.told();
            return Judgement::no(
                reason::BOOTSTRAP_INCOMPLETE,
                format!(
                    "The bindings inside the tenant are missing: {}. They are being written.",
                    why.unwrap_or(said)
                ),
            );
        }
        _ => {}
    }
    if let Some(verdict) = of_store(world, failure) {
        return verdict;
    }
    if world.serving() == 0 {
        if let Some(trouble) = diagnose::of_pods(world) {
            return Judgement::no(trouble.reason, trouble.message);
        }
        if starting(before) {
            return coming(world, parts);
        }
        return Judgement::no(
            reason::NO_REPLICA_AVAILABLE,
            format!("No replica of the control plane answers its readiness probe ({said})"),
        );
    }
    match failure.kind {
        Kind::Storage | Kind::Read | Kind::Write | Kind::Watch => Judgement::no(
            reason::PROBE_FAILED,
            format!(
                "The tenant's API answers, but does not {}: {said}",
                verb(failure.kind)
            ),
        ),
        _ => Judgement::no(
            reason::ENDPOINT_UNREACHABLE,
            format!(
                "{} does not answer: {said}. The pods are ready: check the way there (routes, \
                 load balancer, network policies).",
                fact.address
            ),
        ),
    }
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Write => "write",
        Kind::Watch => "watch",
        Kind::Storage => "reach its storage",
        _ => "read",
    }
}

/// The datastore as the cause of a failed probe: by what is known about it, or
/// by the words in which etcd's errors reach the tenant's clients.
fn of_store(world: &World, failure: &ProbeFailure) -> Option<Judgement> {
    match &world.store.access {
        Some(AccessFact::Revoked(why)) => return Some(revoked(why)),
        Some(AccessFact::Unclaimed) => {
            let name = claim::data_store(world).unwrap_or_default();
            let told = store::data_not_found(world, &name);
            return Some(Judgement::no(told.reason, told.message));
        }
        Some(AccessFact::Lost(what)) => {
            let told = store::data_lost(world, what);
            return Some(Judgement::no(told.reason, told.message));
        }
        Some(AccessFact::Taken { by }) => {
            let told = store::taken(world, by);
            return Some(Judgement::no(told.reason, told.message));
        }
        _ => {}
    }
    if let Some(Err(problem)) = &world.store.health {
        let told = store::explain(world, problem);
        return Some(Judgement::no(told.reason, told.message));
    }
    let said = failure.message.to_lowercase();
    if said.contains("permission denied") || said.contains("user name is empty") {
        return Some(revoked(&failure.message));
    }
    if said.contains("database space exceeded") {
        return Some(Judgement::no(
            reason::DATA_STORE_FULL,
            format!("The DataStore takes no writes: {}", quote(&failure.message)),
        ));
    }
    None
}
