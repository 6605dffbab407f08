//! The conditions of a tenant, in one fixed order.

use apiservice::condition::{self, Status, reason, tenant as kind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::report::judgement::{self, Judgement, is_cause};
use crate::report::limits as storage_limits;
use crate::report::parts;
use crate::report::progress;
use crate::report::ready;
use crate::report::routes;
use crate::tenant::World;
use crate::tenant::backing::limits;
use crate::tenant::plan::{Outcome, Plan};

/// All conditions, Ready first; transition times are kept from `before`.
pub fn all(
    world: &World,
    plan: &Plan,
    outcomes: &[Outcome],
    before: &[Condition],
) -> Vec<Condition> {
    if world.is_left_alone() {
        return left_alone(world, before);
    }
    let deleting = world.is_leaving();
    let mut parts: Vec<(&'static str, Judgement)> = Vec::new();
    let mut say = |kind, verdict: Option<Judgement>| parts.extend(verdict.map(|it| (kind, it)));
    if deleting {
        say(
            kind::DELETION_BLOCKED,
            Some(parts::deletion(world, plan, outcomes)),
        );
        let ending = "The tenant is being deleted";
        for part in [kind::WORKLOAD_AVAILABLE, kind::REPLICAS_AVAILABLE] {
            say(part, Some(Judgement::no(reason::DELETING, ending)));
        }
        let unknown = Judgement::unknown(reason::DELETING, ending);
        say(kind::ENDPOINT_REACHABLE, Some(unknown));
    } else {
        say(
            kind::DATA_STORE_READY,
            parts::data_store(world, plan, outcomes),
        );
        say(kind::MIGRATING, parts::migrating(world));
        say(
            kind::STORAGE_WITHIN_LIMITS,
            storage_limits::within(world, condition::get(before, kind::STORAGE_WITHIN_LIMITS)),
        );
        say(
            kind::ADDRESS_ASSIGNED,
            Some(parts::address_assigned(world, plan, outcomes)),
        );
        say(kind::EXPOSED, routes::exposed(world, plan, outcomes));
        if world.is_paused() {
            say(
                kind::CERTIFICATES_READY,
                parts::certificates_at_rest(plan, condition::get(before, kind::CERTIFICATES_READY)),
            );
        } else {
            say(
                kind::CERTIFICATES_READY,
                parts::certificates(plan, outcomes),
            );
            say(
                kind::OBJECTS_OWNED,
                Some(parts::objects_owned(plan, outcomes)),
            );
        }
        say(
            kind::WORKLOAD_AVAILABLE,
            Some(parts::workload(world, plan, outcomes, before)),
        );
        say(
            kind::REPLICAS_AVAILABLE,
            Some(parts::replicas(world, plan, outcomes)),
        );
        say(
            kind::ENDPOINT_REACHABLE,
            parts::endpoint(world, condition::get(before, kind::ENDPOINT_REACHABLE)),
        );
        say(kind::WRITES_ADMITTED, parts::admission(world));
        say(kind::CLUSTER_CONFIGURED, parts::configured(world));
        say(kind::SPEC_SUPPORTED, Some(parts::supported(world)));
    }
    say(kind::PAUSED, parts::paused(world, before));
    let summary = ready::ready(world, &parts, before);
    let mut serves = world.tenant.metadata.generation;
    if !deleting {
        let progressing = progress::progressing(world, plan, outcomes, summary.as_ref(), before);
        let ready = condition::get(before, kind::READY);
        serves = progress::ready_generation(world, &progressing, ready);
        parts.push((kind::PROGRESSING, progressing.clone()));
        parts.push((kind::RECONCILING, progressing));
    }
    order(world, summary, parts, before, serves)
}

/// Of a tenant that is out of reach nobody can tell anything, whatever was said before; nor
/// of one whose spec is not known as a whole.
fn left_alone(world: &World, before: &[Condition]) -> Vec<Condition> {
    let (reason, why) = match &world.unreached {
        Some(why) => (reason::NAMESPACE_NOT_SERVED, why.clone()),
        None => (
            reason::SPEC_TOO_LARGE,
            format!(
                "The spec, which an older release took, becomes more than {} KiB where it is read; \
                 until it is made smaller it is not known as a whole",
                apiservice::bulk::MOST / 1024
            ),
        ),
    };
    let message = format!(
        "{why}: nothing is done for this tenant. Its pods go on as they are, until their \
         certificates end. It can be deleted."
    );
    let unknown = Judgement::unknown(reason, message);
    let parts = ORDER.into_iter().filter(|part| match *part {
        kind::READY => true,
        kind::PAUSED => false,
        said => condition::get(before, said).is_some(),
    });
    let parts = parts.map(|part| (part, unknown.clone())).collect();
    order(world, None, parts, before, world.tenant.metadata.generation)
}

/// Ready, then the parts, then what earlier passes said of parts that this one
/// says nothing of. `serves` is the generation that serves.
fn order(
    world: &World,
    summary: Option<Judgement>,
    parts: Vec<(&'static str, Judgement)>,
    before: &[Condition],
    serves: Option<i64>,
) -> Vec<Condition> {
    let said = summary
        .map(|verdict| (kind::READY, verdict))
        .into_iter()
        .chain(parts);
    let said: Vec<_> = said.collect();
    let mut found: Vec<Condition> = Vec::with_capacity(before.len().max(said.len()));
    let fresh = |(kind, verdict): &(&'static str, Judgement)| {
        // Ready is about what serves.
        let generation = match (*kind, verdict.status) {
            (kind::READY, Status::True) => serves,
            _ => world.tenant.metadata.generation,
        };
        let time = judgement::now(world);
        condition::new(
            kind,
            verdict.status,
            verdict.reason,
            verdict.message.clone(),
            generation,
            time,
        )
    };
    let by_name = world.tenant.spec.control_plane.by_name();
    let store = world.data_store.as_deref();
    let limited = store.is_none() || limits::of(store).is_some();
    for type_ in ORDER {
        // What nobody asks for any more is not said any more.
        let new = said.iter().find(|(kind, _)| *kind == type_).map(fresh);
        if type_ == kind::EXPOSED && by_name.is_none() && new.is_none() {
            continue;
        }
        if type_ == kind::STORAGE_WITHIN_LIMITS && !limited {
            continue;
        }
        let old = condition::get(before, type_);
        match (old, new) {
            (Some(old), Some(new)) => {
                let mut pair = vec![old.clone()];
                condition::set(&mut pair, new);
                found.extend(pair);
            }
            (None, Some(new)) => found.push(new),
            (Some(old), None) => found.push(old.clone()),
            (None, None) => {}
        }
    }
    found
}

const ORDER: [&str; 18] = [
    kind::READY,
    kind::PROGRESSING,
    kind::RECONCILING,
    kind::DATA_STORE_READY,
    kind::MIGRATING,
    kind::STORAGE_WITHIN_LIMITS,
    kind::ADDRESS_ASSIGNED,
    kind::EXPOSED,
    kind::CERTIFICATES_READY,
    kind::OBJECTS_OWNED,
    kind::WORKLOAD_AVAILABLE,
    kind::REPLICAS_AVAILABLE,
    kind::ENDPOINT_REACHABLE,
    kind::WRITES_ADMITTED,
    kind::CLUSTER_CONFIGURED,
    kind::SPEC_SUPPORTED,
    kind::PAUSED,
    kind::DELETION_BLOCKED,
];

/// Whether people should be told: it is bad already, or will be on a known day.
pub fn is_trouble(condition: &Condition) -> bool {
    let good_when_false = [
        kind::PAUSED,
        kind::DELETION_BLOCKED,
        kind::PROGRESSING,
        kind::RECONCILING,
        kind::MIGRATING,
    ]
    .contains(&condition.type_.as_str());
    let bad = if good_when_false { "True" } else { "False" };
    let cause = is_cause(&condition.reason) || condition.reason == reason::NO_REPLICA_AVAILABLE;
    let coming = [reason::CERTIFICATE_EXPIRING, reason::NEAR_LIMIT];
    condition.status == bad && cause || coming.contains(&condition.reason.as_str())
}
