//! The conditions one by one: what each says, from the world, the waits of the
//! plan and the outcomes of its steps.

use apiservice::condition::{self, Status, reason, tenant as kind};
use apiservice::v1alpha1::{self, MigrationPhase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::cluster::chosen;
use crate::report::diagnose::{self, quote};
use crate::report::judgement::{Judgement, known_reason};
use crate::report::{progress, ready};
use crate::tenant::World;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::{AccessFact, StoreProblem};
use crate::tenant::backing::{moving, overrides, store};
use crate::tenant::network::exposure;
use crate::tenant::plan::{EXISTS, Finding, Object, ObjectKey, Outcome, Plan, Said, Step, Waiting};
use crate::tenant::workload::containers;
use crate::tenant::workload::flags;
use crate::tenant::world::{Admission, ProbeFailureKind};

/// The first wait of a type: trouble before patience.
fn waiting<'a>(plan: &'a Plan, type_: &str) -> Option<&'a Waiting> {
    let waits = || {
        plan.steps.iter().filter_map(|step| match step {
            Step::Wait(waiting) if waiting.condition == type_ => Some(waiting),
            _ => None,
        })
    };
    waits()
        .find(|waiting| waiting.problem)
        .or_else(|| waits().next())
}

/// The first failed step that `of` picks.
fn failure<'a>(
    plan: &'a Plan,
    outcomes: &'a [Outcome],
    of: impl Fn(&Step) -> bool,
) -> Option<(&'a str, &'a str)> {
    plan.steps
        .iter()
        .zip(outcomes)
        .find_map(|(step, outcome)| match outcome {
            Outcome::Failed {
                reason, message, ..
            } if reason != EXISTS && of(step) => Some((reason.as_str(), message.as_str())),
            _ => None,
        })
}

/// A failed write in the words of a condition.
fn refused(reason: &str, message: &str, fallback: &'static str) -> Judgement {
    Judgement::no(known_reason(reason).unwrap_or(fallback), quote(message))
}

fn object(step: &Step) -> Option<&Object> {
    match step {
        Step::Create(object) | Step::Apply(object) => Some(object),
        _ => None,
    }
}

/// The tenant's place in its DataStore.
pub fn data_store(world: &World, plan: &Plan, outcomes: &[Outcome]) -> Option<Judgement> {
    if let Some(waiting) = waiting(plan, kind::DATA_STORE_READY) {
        return Some(Judgement::no(waiting.reason, waiting.message.clone()));
    }
    let main = place(world, plan, outcomes);
    if main
        .as_ref()
        .is_some_and(|main| main.status != Status::True)
    {
        return main;
    }
    // What is said of the others is said only where it is bad.
    let wanted = world.overrides.iter().filter(|of| of.wanted);
    let beside = wanted.filter_map(|of| place(&overrides::at(world, of), plan, outcomes));
    let mut bad = beside.filter(|it| it.status != Status::True);
    bad.next().or(main)
}

/// One of the tenant's places.
fn place(world: &World, plan: &Plan, outcomes: &[Outcome]) -> Option<Judgement> {
    let claimant = world.claimant();
    let grants = |step: &Step| matches!(step, Step::Grant(grant) if grant.claim.uid == claimant);
    if let Some((reason, message)) = failure(plan, outcomes, grants) {
        return Some(
            match store::explain_failure(world, reason, &quote(message)) {
                Some(told) => Judgement::no(told.reason, told.message),
                None => refused(reason, message, reason::DATA_STORE_NOT_READY),
            },
        );
    }
    let name = claim::data_store(world).unwrap_or_default();
    if let Some(Err(problem)) = &world.store.health {
        let problem: &StoreProblem = problem;
        let told = store::explain(world, problem);
        return Some(Judgement::no(told.reason, told.message));
    }
    let granted = plan.steps.iter().zip(outcomes).any(|(step, outcome)| {
        grants(step) && matches!(outcome, Outcome::Done | Outcome::Unchanged)
    });
    match &world.store.access {
        Some(AccessFact::Revoked(why)) if !granted => Some(Judgement::no(
            reason::DATA_STORE_ACCESS_REVOKED,
            format!(
                "The tenant's user has lost its rights in DataStore {name}: {}",
                quote(why)
            ),
        )),
        Some(AccessFact::Unclaimed) if !granted && !store::may_start_empty(world) => {
            let told = store::data_not_found(world, &name);
            Some(Judgement::no(told.reason, told.message))
        }
        Some(AccessFact::Lost(what)) if !granted && !store::may_start_empty(world) => {
            let told = store::data_lost(world, what);
            Some(Judgement::no(told.reason, told.message))
        }
        Some(AccessFact::Granted) => Some(in_order(world, &name)),
        _ if granted => Some(in_order(world, &name)),
        // Not asked yet: what was said stays.
        None if chosen::settled(&world.tenant) => None,
        _ => Some(Judgement::no(
            reason::PROVISIONING,
            format!("A place in DataStore {name} is being made"),
        )),
    }
}

fn in_order(world: &World, name: &str) -> Judgement {
    let claim = claim::claim(world);
    let said = format!(
        "Schema {} and user {} in DataStore {name}",
        claim.schema, claim.user
    );
    match &world.store.health {
        Some(Ok(health)) if !health.warnings.is_empty() => Judgement::yes(
            reason::AS_EXPECTED,
            format!("{said}. {}", health.warnings.join(". ")),
        ),
        _ => Judgement::yes(reason::AS_EXPECTED, said),
    }
}

/// The last move of the data to another DataStore, if there was one.
pub fn migrating(world: &World) -> Option<Judgement> {
    let migration = world.migration.as_ref()?;
    let told = moving::told(migration);
    Some(match migration.phase {
        MigrationPhase::Completed => Judgement::no(reason::MIGRATED, told),
        MigrationPhase::Aborted => Judgement::no(reason::MIGRATION_ABORTED, told),
        MigrationPhase::Failed => Judgement::yes(reason::MIGRATION_FAILED, told),
        _ => Judgement::yes(reason::MIGRATING, told),
    })
}

/// Authorities, certificates, keys and kubeconfigs.
pub fn certificates(plan: &Plan, outcomes: &[Outcome]) -> Option<Judgement> {
    Some(certificates_now(plan, outcomes)).filter(|_| !found_again(plan, outcomes))
}

/// The same while the tenant is paused: what ends is told, and that it does not any
/// more. The rest stays as it was said.
pub fn certificates_at_rest(plan: &Plan, before: Option<&Condition>) -> Option<Judgement> {
    let ending = [reason::CERTIFICATE_EXPIRING, reason::CERTIFICATE_EXPIRED];
    match waiting(plan, kind::CERTIFICATES_READY) {
        Some(waiting) if waiting.problem => {
            Some(Judgement::no(waiting.reason, waiting.message.clone()))
        }
        Some(waiting) => Some(Judgement::yes(waiting.reason, waiting.message.clone())),
        None => before
            .filter(|before| ending.contains(&before.reason.as_str()))
            .map(|_| Judgement::yes(reason::AS_EXPECTED, "")),
    }
}

/// What seemed lost is there and had only lost its labels; the next pass comes
/// at once and knows it.
fn found_again(plan: &Plan, outcomes: &[Outcome]) -> bool {
    let mut steps = plan.steps.iter().zip(outcomes);
    steps.any(|(step, outcome)| matches!(step, Step::Recheck(_)) && *outcome == Outcome::Done)
}

fn certificates_now(plan: &Plan, outcomes: &[Outcome]) -> Judgement {
    let waiting = waiting(plan, kind::CERTIFICATES_READY);
    if let Some(waiting) = waiting.filter(|waiting| waiting.problem) {
        return Judgement::no(waiting.reason, waiting.message.clone());
    }
    let secret =
        |step: &Step| matches!(object(step), Some(Object::Secret(_) | Object::ConfigMap(_)));
    if let Some((reason, message)) = failure(plan, outcomes, secret)
        && reason != reason::NAME_TAKEN
    {
        return refused(reason, message, reason::REQUEST_REFUSED);
    }
    if let Some(waiting) = waiting {
        return Judgement::yes(waiting.reason, waiting.message.clone());
    }
    match self::waiting(plan, kind::ADDRESS_ASSIGNED) {
        Some(_) => Judgement::no(
            reason::PROVISIONING,
            "Certificates that carry the tenant's address wait for it",
        ),
        None => Judgement::yes(reason::AS_EXPECTED, ""),
    }
}

/// Names that others hold and fields that others fight over (rule 20).
pub fn objects_owned(plan: &Plan, outcomes: &[Outcome]) -> Judgement {
    let steps = plan.steps.iter().zip(outcomes);
    let found: Vec<(&str, Told<'_>)> = steps
        .filter_map(|(step, outcome)| match (step, outcome) {
            (Step::Wait(waiting), _) if waiting.condition == kind::OBJECTS_OWNED => {
                Some((waiting.reason, Told::of(&waiting.message, &waiting.finding)))
            }
            (
                _,
                Outcome::Failed {
                    reason,
                    message,
                    finding,
                    ..
                },
            ) => Some((reason.as_str(), Told::of(message, finding))),
            _ => None,
        })
        .collect();
    // A name that is taken holds up more than a field that is fought over.
    let mine = [reason::NAME_TAKEN, reason::CONTESTED];
    let of = |wanted: &str| -> Vec<Told<'_>> {
        let mut said: Vec<Told<'_>> = Vec::new();
        for (reason, told) in &found {
            if *reason == wanted && !said.contains(told) {
                said.push(*told);
            }
        }
        said
    };
    let said: Vec<(&'static str, Vec<Told<'_>>)> = mine.map(|reason| (reason, of(reason))).into();
    match said.iter().find(|(_, said)| !said.is_empty()) {
        Some((reason, _)) => {
            let all: Vec<Told<'_>> = said.iter().flat_map(|(_, said)| said.clone()).collect();
            Judgement::no(reason, together(&all))
        }
        None => Judgement::yes(reason::AS_EXPECTED, ""),
    }
}

/// What a condition is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told<'a> {
    /// About one object, in parts.
    Finding(&'a Finding),
    /// In words of somebody else.
    Text(&'a str),
}

impl<'a> Told<'a> {
    fn of(message: &'a str, finding: &'a Option<Box<Finding>>) -> Self {
        match finding {
            Some(finding) => Told::Finding(finding),
            None => Told::Text(message),
        }
    }
}

/// What is said of several objects, the same of several once, and each remedy once at
/// the end.
fn together(told: &[Told<'_>]) -> String {
    /// Of which objects it is said; of none where it is a text.
    struct Group<'a> {
        said: Result<&'a Said, &'a str>,
        objects: Vec<&'a ObjectKey>,
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut remedies: Vec<&str> = Vec::new();
    for one in told {
        let (said, object) = match one {
            Told::Finding(finding) => {
                let remedy = finding.remedy.filter(|remedy| !remedies.contains(remedy));
                remedies.extend(remedy);
                (Ok(&finding.said), Some(&finding.object))
            }
            Told::Text(text) => (Err(*text), None),
        };
        match groups.iter_mut().find(|known| known.said == said) {
            Some(known) => known.objects.extend(object),
            None => groups.push(Group {
                said,
                objects: object.into_iter().collect(),
            }),
        }
    }
    let sentences = groups.iter().map(|group| {
        let names: Vec<String> = group.objects.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        match (group.said, group.objects.len()) {
            (Err(text), _) => text.to_owned(),
            (Ok(Said::Does(what)), 0 | 1) => format!("{names} {what}"),
            (Ok(Said::Does(what)), _) => format!("{names}: each {what}"),
            (Ok(Said::Sentence(what)), _) => format!("{names}: {what}"),
        }
    });
    let remedies = remedies.into_iter().map(str::to_owned);
    sentences.chain(remedies).collect::<Vec<_>>().join(" ")
}

/// The Service and the address to publish.
pub fn address_assigned(world: &World, plan: &Plan, outcomes: &[Outcome]) -> Judgement {
    let service = |step: &Step| matches!(object(step), Some(Object::Service(_)));
    if let Some((reason, message)) = failure(plan, outcomes, service)
        && ![reason::NAME_TAKEN, reason::CONTESTED].contains(&reason)
    {
        return service_refused(world, message);
    }
    match exposure::of(world) {
        Ok(exposure) => Judgement::yes(reason::AS_EXPECTED, exposure.published.to_string()),
        Err(waiting) => {
            let said = diagnose::of_service(world)
                .map(|said| format!(" ({said})"))
                .unwrap_or_default();
            Judgement::no(waiting.reason, format!("{}{said}", waiting.message))
        }
    }
}

/// The management cluster's words, and what they usually mean.
fn service_refused(world: &World, message: &str) -> Judgement {
    let said = quote(message);
    let spec = &world.tenant.spec;
    let tunnel = spec.konnectivity().map(|it| it.server.port);
    let of_tunnel = tunnel.filter(|port| message.contains(&format!("Invalid value: {port}:")));
    let (field, port) = match of_tunnel {
        Some(port) => ("spec.addons.konnectivity.server.port", port),
        None => ("spec.networkProfile.port", spec.network_profile.port),
    };
    let remedy = if message.contains("provided port is already allocated") {
        format!("Node port {port} is in use: choose another {field}.")
    } else if message.contains("provided port is not in the valid range") {
        format!(
            "With serviceType NodePort, {field} ({port}) must be in the cluster's node port \
             range (30000-32767 unless changed)."
        )
    } else {
        "Check spec.controlPlane.service and spec.networkProfile.".to_owned()
    };
    Judgement::no(reason::SERVICE_REFUSED, format!("{remedy} ({said})"))
}

/// Whether at least one replica serves.
pub fn workload(
    world: &World,
    plan: &Plan,
    outcomes: &[Outcome],
    before: &[Condition],
) -> Judgement {
    // Also while asleep: what is refused now would be when it wakes.
    if world.serving() == 0
        && let Some(verdict) = deployment_refused(plan, outcomes)
    {
        return verdict;
    }
    if world.is_asleep() {
        return Judgement::no(reason::SLEEPING, "No replicas are wanted");
    }
    if world
        .deployment()
        .is_none_or(|live| !world.ours(&live.metadata))
    {
        return if world.is_paused() {
            Judgement::no(
                reason::PAUSED,
                "There is no Deployment, and none is made while the tenant is paused",
            )
        } else {
            Judgement::no(
                reason::PROVISIONING,
                "The Deployment waits for what its pods need",
            )
        };
    }
    match (world.serving(), diagnose::of_pods(world)) {
        (0, Some(trouble)) => Judgement::no(trouble.reason, trouble.message),
        (0, None) if ready::starting(condition::get(before, kind::WORKLOAD_AVAILABLE)) => {
            Judgement::no(reason::PROVISIONING, "The pods are starting")
        }
        (0, None) => Judgement::no(
            reason::NO_REPLICA_AVAILABLE,
            "No pod passes its readiness probe",
        ),
        (_, _) => Judgement::yes(reason::AS_EXPECTED, ""),
    }
}

/// The Deployment as the manifest wants it is not taken.
fn deployment_refused(plan: &Plan, outcomes: &[Outcome]) -> Option<Judgement> {
    let deployment = |step: &Step| matches!(object(step), Some(Object::Deployment(_)));
    let (reason, message) = failure(plan, outcomes, deployment)?;
    let elsewhere = [reason::NAME_TAKEN, reason::CONTESTED].contains(&reason);
    (!elsewhere).then(|| refused(reason, message, reason::POD_REJECTED))
}

/// Whether all replicas are there; one of several missing is told here only.
pub fn replicas(world: &World, plan: &Plan, outcomes: &[Outcome]) -> Judgement {
    let wanted = world.tenant.spec.control_plane.deployment.replicas;
    if let Some(verdict) = deployment_refused(plan, outcomes) {
        return verdict;
    }
    if wanted == 0 {
        return Judgement::yes(reason::SLEEPING, "No replicas are wanted");
    }
    let serving = world.serving();
    if progress::rolled_out(world) && serving >= usize::try_from(wanted).unwrap_or(0) {
        return Judgement::yes(
            reason::AS_EXPECTED,
            format!("{wanted} of {wanted} replicas are ready"),
        );
    }
    let updated = world.deployment().and_then(|live| live.status.as_ref());
    let updated = updated
        .and_then(|status| status.updated_replicas)
        .unwrap_or(0);
    let message = if serving >= usize::try_from(wanted).unwrap_or(0) {
        format!("A new generation of pods is being rolled out: {updated} of {wanted} are there")
    } else {
        format!("{serving} of {wanted} replicas are ready")
    };
    match diagnose::of_pods(world) {
        Some(trouble) => Judgement::no(trouble.reason, format!("{message}. {}", trouble.message)),
        None => Judgement::no(reason::REPLICAS_MISSING, message),
    }
}

/// What the probe says of the way to the published endpoint (rule 15).
///
/// Once it has answered, a way that fails while the Service works is cut. If it
/// never has, the controller may stand where nobody can tell; this is kept
/// through sleep and outages until it answers.
pub fn endpoint(world: &World, before: Option<&Condition>) -> Option<Judgement> {
    let never_reached = ready::never_reached(before);
    let answers = ready::probed(world).is_some_and(|fact| fact.result.is_ok());
    if never_reached && world.was_ready() && !answers {
        return None;
    }
    if world.is_asleep() {
        return Some(Judgement::unknown(
            reason::SLEEPING,
            "Nothing answers while the tenant sleeps",
        ));
    }
    let Some(fact) = ready::probed(world) else {
        // After a start of ours, what was found stands. What was found at another
        // address, or while there is none, does not.
        let elsewhere = world.probe.endpoint.is_some() || exposure::of(world).is_err();
        let stands = world.was_ready() && !elsewhere;
        return (!stands).then(|| Judgement::unknown(reason::UNKNOWN, "Not probed yet"));
    };
    Some(match &fact.result {
        Err(failure) if failure.kind == ProbeFailureKind::Unasked => {
            Judgement::unknown(reason::KEY_MATERIAL_LOST, quote(&failure.message))
        }
        Ok(()) => Judgement::yes(reason::AS_EXPECTED, format!("{} answers", fact.address)),
        Err(_) if ready::is_held_by_move(world) => Judgement::unknown(
            reason::MIGRATING,
            format!(
                "Nothing is written at {} while the data is moved",
                fact.address
            ),
        ),
        Err(_) if ready::is_moving_elsewhere(world, before) => Judgement::unknown(
            reason::ROLLING_OUT,
            format!(
                "{} does not answer yet: pods are replaced for it, and the place of before is kept",
                fact.address
            ),
        ),
        Err(failure) if ready::passes_inside(world, failure) => Judgement::unknown(
            ready::unreached(world, before),
            format!(
                "{} cannot be reached from the controller, the Service can: {}",
                fact.address,
                quote(&failure.message)
            ),
        ),
        Err(_) if ready::first_start(world) => {
            Judgement::unknown(reason::PROVISIONING, "Nothing answers yet")
        }
        Err(_) if world.serving() == 0 => Judgement::unknown(
            reason::NO_REPLICA_AVAILABLE,
            format!("Nothing behind {} could answer", fact.address),
        ),
        Err(failure) => Judgement::no(
            reason::ENDPOINT_UNREACHABLE,
            format!("{}: {}", fact.address, quote(&failure.message)),
        ),
    })
}

/// Whether the tenant's own webhooks, policies and quotas let its users write, as
/// far as the probe is like them. They are the tenant's business, so this is not
/// the end of Ready.
pub fn admission(world: &World) -> Option<Judgement> {
    Some(match world.probe.admission.as_ref()? {
        Admission::Passes => Judgement::yes(reason::AS_EXPECTED, ""),
        Admission::Refuses(why) => Judgement::no(
            reason::ADMISSION_REFUSES,
            format!(
                "The API server writes, but the tenant's own admission refuses the probe's Lease in \
                 namespace {}: {}. Check webhooks, policies and quotas inside the tenant.",
                apiservice::names::PROBE_NAMESPACE,
                quote(why)
            ),
        ),
    })
}

/// What is kept in the tenant's API. `None`: it was not looked at since this controller
/// began, and what was said stays.
pub fn configured(world: &World) -> Option<Judgement> {
    let facts = &world.inside;
    if !world.was_ready() {
        return Some(Judgement::no(reason::PROVISIONING, to_come(world)));
    }
    if let Some(problems) = facts.told() {
        return Some(Judgement::no(reason::CONFIGURATION_INCOMPLETE, problems));
    }
    let generation = facts.generation?;
    match Some(generation) == world.tenant.metadata.generation {
        true => Some(Judgement::yes(reason::AS_EXPECTED, "")),
        // It is being written.
        false => None,
    }
}

/// What comes with the first Ready. An add-on is on by its mere presence in the spec, so
/// those that are on are named.
fn to_come(world: &World) -> String {
    let addons = world.tenant.spec.addons.clone().unwrap_or_default();
    let on = [
        (addons.core_dns.is_some(), "CoreDNS"),
        (addons.kube_proxy.is_some(), "kube-proxy"),
        (addons.konnectivity.is_some(), "konnectivity"),
    ];
    let on: Vec<_> = on.iter().filter(|(on, _)| *on).map(|it| it.1).collect();
    match on.is_empty() {
        true => "What nodes need to join comes with the first Ready".to_owned(),
        false => format!(
            "What nodes need to join comes with the first Ready, and so do the add-ons that \
             spec.addons turns on: {}",
            on.join(", ")
        ),
    }
}

/// rule 9 and rule 22: what is accepted and has no effect. Where the images come from is
/// told as well, if the spec alone does not tell.
pub fn supported(world: &World) -> Judgement {
    let mut verdict = acted_upon(world);
    if let Some(told) = containers::told_of_registry(world) {
        let said = std::mem::take(&mut verdict.message);
        verdict.message = match said.is_empty() {
            true => told,
            false => format!("{said}. {told}"),
        };
    }
    verdict
}

fn acted_upon(world: &World) -> Judgement {
    let unsupported = v1alpha1::unsupported(&world.tenant.spec);
    if !unsupported.is_empty() {
        return Judgement::no(
            reason::FIELDS_NOT_SUPPORTED,
            format!(
                "Accepted and not acted upon yet: {}",
                unsupported.join(", ")
            ),
        );
    }
    let too_large = v1alpha1::too_large(&world.tenant.spec);
    if !too_large.is_empty() {
        return Judgement::no(
            reason::SPEC_TOO_LARGE,
            format!(
                "Larger than it may be, as an older release took it: {}. What others change in \
                 the objects that are made of it is not put right, and of certSANs only the first \
                 are in the certificate. Make it smaller",
                too_large.join(", ")
            ),
        );
    }
    let dropped = flags::dropped_plugins(world);
    if !dropped.is_empty() {
        return Judgement::no(
            reason::ADMISSION_PLUGINS_DROPPED,
            format!(
                "{} does not have these admission plug-ins: {}",
                world.tenant.spec.kubernetes.version,
                dropped.join(", ")
            ),
        );
    }
    Judgement::yes(reason::AS_EXPECTED, "")
}

/// Absent until the tenant is paused for the first time.
pub fn paused(world: &World, before: &[Condition]) -> Option<Judgement> {
    if world.is_paused() {
        return Some(Judgement::yes(
            reason::PAUSED,
            format!(
                "Nothing is changed until annotation {} is removed; running pods go on",
                apiservice::names::ANNOTATION_PAUSED
            ),
        ));
    }
    condition::get(before, kind::PAUSED).map(|_| Judgement::no(reason::AS_EXPECTED, ""))
}

/// What a deletion waits for.
pub fn deletion(world: &World, plan: &Plan, outcomes: &[Outcome]) -> Judgement {
    if let Some((reason, message)) = failure(plan, outcomes, |_| true) {
        return Judgement {
            status: Status::True,
            reason: known_reason(reason).unwrap_or(reason::REQUEST_REFUSED),
            message: quote(message),
        };
    }
    let left: Vec<_> = world
        .tenant
        .metadata
        .finalizers
        .iter()
        .flatten()
        .map(String::as_str)
        .filter(|finalizer| *finalizer != apiservice::names::FINALIZER)
        .collect();
    if left.is_empty() {
        let waits = waiting(plan, kind::DELETION_BLOCKED).map(|waits| waits.message.as_str());
        return Judgement::no(reason::DELETING, waits.unwrap_or("The deletion goes on"));
    }
    Judgement {
        status: Status::True,
        reason: reason::DELETING,
        message: format!(
            "Others have to take off their finalizers: {}",
            left.join(", ")
        ),
    }
}
