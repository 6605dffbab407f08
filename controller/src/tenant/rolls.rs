//! Why the pods of a tenant are to be rolled, and whether that has to wait for its turn
//! (rule 29).
//!
//! What the tenant's own spec asks for is done at once, and so is a first start and
//! whatever puts right what somebody changed. So is what concerns this tenant alone and
//! cannot wait: a certificate that somebody rotated, or that is of no use, and another
//! address at which it is reached. What comes to many tenants together (a
//! change of their DataStore, another template of a new release, renewed certificates)
//! rolls a few of them at a time. Who is next is decided in `fleet.rs`; here it is
//! known as [`crate::tenant::turns::Turn`].

use apiservice::condition::{self, reason, tenant as kind};
use apiservice::names;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cluster::kept;
use crate::cluster::kinds::ObjectKind;
use crate::tenant::backing::beside::Beside;
use crate::tenant::backing::{moving, wiring};
use crate::tenant::pki::{certificates, expiry};
use crate::tenant::plan::{Plan, Step, Waiting};
use crate::tenant::running::{carried, live};
use crate::tenant::turns::{HOLD, Turn, Wait};
use crate::tenant::workload::arguments;
use crate::tenant::world::World;
use crate::tenant::{drift, objects};

/// What applying a Deployment would do to the pods, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the template is the one that is there, or no pods run.
    None,
    /// The first start of this tenant.
    First,
    /// It puts right what somebody changed.
    Repair,
    /// The tenant's spec asks for it, or something else that concerns this tenant alone.
    Asked,
    /// It comes from elsewhere, and so perhaps to others as well. It must begin by the
    /// time given, whosever turn it is.
    Fleet(Option<Timestamp>),
}

/// The hash of a pod template as it is wanted.
pub fn template(wanted: &Deployment) -> Option<String> {
    let template = &wanted.spec.as_ref()?.template;
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(template).ok()?);
    Some(hex::encode(&digest.finalize()[..16]))
}

/// Why the pods would be rolled.
pub fn change(world: &World, plan: &Plan, wanted: &Deployment) -> Change {
    let Some(live) = live(world) else {
        return Change::First;
    };
    let asleep = live.spec.as_ref().is_some_and(|it| it.replicas == Some(0));
    if asleep || world.is_asleep() || same(wanted, live) {
        return Change::None;
    }
    let applied = objects::annotation(&live.metadata, names::ANNOTATION_TEMPLATE);
    if applied.is_some() && applied == template(wanted).as_deref() {
        Change::Repair
    } else if is_first(world) {
        Change::First
    } else if is_asked_for(world)
        || has_other_keys(world.name(), wanted, live)
        || has_own_cause(world, plan, wanted, live)
        || has_another_address(wanted, live)
        || has_another_password(wanted, live)
        || has_another_password_beside(world, wanted, live)
        || has_begun_anew(wanted, live)
        || has_moved(world, wanted, live)
    {
        Change::Asked
    } else {
        Change::Fleet(renewed_by(world, wanted, live))
    }
}

/// Whether the pods would stay.
fn same(wanted: &Deployment, live: &Deployment) -> bool {
    let template = |of: &Deployment| serde_json::to_value(of.spec.as_ref().map(|it| &it.template));
    let (Ok(wish), Ok(there)) = (template(wanted), template(live)) else {
        return false;
    };
    let whole = serde_json::to_value(wanted).unwrap_or_default();
    let applied = objects::annotation(&live.metadata, names::ANNOTATION_TEMPLATE);
    match kept::spec_of(&whole, &live.metadata) {
        kept::Spec::Whole => {}
        kept::Spec::Beyond => {
            return applied.is_some() && applied == self::template(wanted).as_deref();
        }
        kept::Spec::Enlarged => return false,
    }
    let whole = |template: Value| serde_json::json!({"spec": {"template": template}});
    let (wish, there) = (whole(wish), whole(there));
    drift::first(&wish, &there).is_none()
        && drift::added(ObjectKind::Deployment, &wish, &there).is_none()
}

/// A label of the pods.
fn label<'a>(of: &'a Deployment, name: &str) -> Option<&'a String> {
    let meta = of.spec.as_ref()?.template.metadata.as_ref()?;
    meta.labels.as_ref()?.get(name)
}

/// Somebody has replaced keys of this tenant: its pods are of no use with those of before.
fn has_other_keys(tenant: &str, wanted: &Deployment, live: &Deployment) -> bool {
    let meta = wanted.spec.as_ref().map(|it| &it.template.metadata);
    let labels = meta.iter().flat_map(|it| it.iter());
    let mut labels = labels.flat_map(|it| it.labels.iter().flatten());
    labels.any(|(name, checksum)| {
        let part = name.strip_prefix(names::POD_LABEL_PREFIX);
        let keys = part.is_some_and(|part| !expiry::mounted(tenant).any(|(leaf, _)| leaf == part));
        let keys = keys && name != names::LABEL_POD_DATASTORE;
        keys && label(live, name).is_some_and(|before| before != checksum)
    })
}

/// Its data is in another DataStore than the one that its pods use, which they can only
/// read.
fn has_moved(world: &World, wanted: &Deployment, live: &Deployment) -> bool {
    moving::is_switching(world)
        || moving::given_by(wanted)
            .zip(moving::given_by(live))
            .is_some_and(|(now, before)| now != before)
}

/// Its database is an empty one now, of which its pods do not know.
fn has_begun_anew(wanted: &Deployment, live: &Deployment) -> bool {
    let begun = |of: &Deployment| {
        let meta = of.spec.as_ref()?.template.metadata.as_ref()?;
        objects::annotation(meta, names::ANNOTATION_STORAGE_BEGUN).map(str::to_owned)
    };
    begun(wanted) != begun(live)
}

/// The database has this tenant's new password already, and lets nobody in with the one of
/// before, or not for long. With the same endpoints, nothing else in that Secret can be another.
fn has_another_password(wanted: &Deployment, live: &Deployment) -> bool {
    let config = |of: &Deployment| {
        let meta = of.spec.as_ref()?.template.metadata.as_ref()?;
        objects::annotation(meta, names::ANNOTATION_STORAGE_CONFIG).map(str::to_owned)
    };
    let (now, before) = (config(wanted), config(live));
    now.is_some()
        && before.is_some()
        && now != before
        && wiring::endpoints(wanted) == wiring::endpoints(live)
}

/// The same of places beside the main one.
fn has_another_password_beside(world: &World, wanted: &Deployment, live: &Deployment) -> bool {
    let config = |of: &Deployment, beside: &Beside| {
        let meta = of.spec.as_ref()?.template.metadata.as_ref()?;
        let name = beside.named(names::ANNOTATION_STORAGE_CONFIG);
        objects::annotation(meta, &name).map(str::to_owned)
    };
    world.overrides.iter().any(|of| {
        let both = config(wanted, &of.beside).zip(config(live, &of.beside));
        let at = |it| wiring::endpoints_beside(it, &of.beside);
        both.is_some_and(|(now, before)| now != before) && at(wanted) == at(live)
    })
}

/// A leaf was made anew because somebody asked, or because what was there was of no use:
/// the pods need it now, and other tenants do not.
fn has_own_cause(world: &World, plan: &Plan, wanted: &Deployment, live: &Deployment) -> bool {
    expiry::mounted(world.name()).any(|(part, secret)| {
        let there = plan.secret(&secret).or_else(|| world.secret(&secret));
        let checksum = carried(wanted, part).filter(|it| carried(live, part) != Some(it));
        let own = there.zip(checksum);
        own.is_some_and(|(secret, checksum)| certificates::has_own_cause(secret, checksum))
    })
}

/// The tenant is reached elsewhere than where its API server says.
fn has_another_address(wanted: &Deployment, live: &Deployment) -> bool {
    let address = |of| arguments::api_server_argument(of, "advertise-address");
    let both = address(wanted).zip(address(live));
    both.is_some_and(|(wanted, live)| wanted != live)
}

/// The tenant has not been Ready yet.
pub fn is_first(world: &World) -> bool {
    !world.was_ready()
}

/// The spec asks for something that has not been carried out yet: neither has the
/// template been made for this generation, nor was it found that nothing had to be done.
pub fn is_asked_for(world: &World) -> bool {
    let generation = world.tenant.metadata.generation;
    let made = live(world).and_then(made_for);
    made != generation && !is_reached(world)
}

/// The generation for which the template was last changed.
pub fn made_for(live: &Deployment) -> Option<i64> {
    let made = objects::annotation(&live.metadata, names::ANNOTATION_GENERATION)?;
    made.parse().ok()
}

/// What this generation asks for has been carried out, or only a turn is missing.
fn is_reached(world: &World) -> bool {
    let generation = world.tenant.metadata.generation;
    let Some(status) = &world.tenant.status else {
        return false;
    };
    let Some(said) = condition::get(&status.conditions, kind::PROGRESSING) else {
        // A release of before that did not say.
        return status.observed_generation == generation;
    };
    let waits = [
        reason::ROLL_WAITING,
        reason::ROLLS_HALTED,
        reason::DATA_STORE_CHANGE_NOT_VERIFIED,
    ];
    said.observed_generation == generation
        && (said.status == "False" || waits.contains(&said.reason.as_str()))
}

/// Whether a change that needs a turn may be made now.
pub fn may(world: &World) -> bool {
    matches!(world.turn, Turn::Given(_) | Turn::NotNeeded)
}

/// Since when this tenant has been waiting, by what its status says.
pub fn waiting_since(world: &World) -> Option<Timestamp> {
    let status = world.tenant.status.as_ref()?;
    let said = condition::get(&status.conditions, kind::PROGRESSING)?;
    let waits = [reason::ROLL_WAITING, reason::ROLLS_HALTED].contains(&said.reason.as_str());
    waits.then_some(said.last_transition_time.0)
}

/// Says that others go first.
pub fn wait(world: &World, plan: &mut Plan) {
    let (reason, message) = match &world.turn {
        Turn::Waits(Wait::Halted(stuck)) => (
            reason::ROLLS_HALTED,
            format!(
                "The pods are to be rolled for a reason other than the spec (a change of the \
                 DataStore, of certificates, or a release of Steward). That has stopped, for {} \
                 was Ready before its own roll and is not since: see its conditions. Others go \
                 on after {} minutes, and later with each that fails.",
                stuck.join(", "),
                HOLD.as_mins()
            ),
        ),
        _ => (
            reason::ROLL_WAITING,
            "The pods are to be rolled for a reason other than the spec (a change of the \
             DataStore, of certificates, or a release of Steward). A few tenants are rolled at a \
             time; this one waits for its turn."
                .to_owned(),
        ),
    };
    let told = |step: &Step| matches!(step, Step::Wait(it) if it.condition == kind::PROGRESSING);
    if !plan.steps.iter().any(told) {
        plan.push(Step::Wait(Waiting {
            condition: kind::PROGRESSING,
            reason,
            message,
            problem: false,
            finding: None,
        }));
    }
}

/// When pods that run with certificates of before must be rolled, if that is why they
/// are. A certificate is renewed early in the window before its end, so half of the
/// window may be spent on waiting.
///
/// The end is that of what the pods run with, as it was noted when they were made: the
/// Secrets may hold the new ones already, whatever became of the pass that wrote them.
fn renewed_by(world: &World, wanted: &Deployment, live: &Deployment) -> Option<Timestamp> {
    let mut leaves = expiry::mounted(world.name());
    let changed = leaves.any(|(part, _)| carried(wanted, part) != carried(live, part));
    if !changed {
        return None;
    }
    let end = objects::annotation(&live.metadata, names::ANNOTATION_CERTIFICATES_END);
    let end = match end.and_then(|end| end.parse().ok()) {
        Some(end) => end,
        // A release of before did not note it.
        None => expiry::first_end(world, &Plan::default())?,
    };
    let half = world.settings.certificates.window() / 2;
    Some(end.checked_sub(half).unwrap_or(world.now))
}

/// Notes on the Deployment what was applied, for the decisions of later passes.
pub fn note(world: &World, plan: &Plan, why: Change, wanted: &mut Deployment) {
    let hash = template(wanted);
    let before = live(world);
    let known = before.map(|live| &live.metadata);
    let applied = known.and_then(|it| objects::annotation(it, names::ANNOTATION_TEMPLATE));
    let same = applied.is_some() && applied == hash.as_deref();
    // Where the template is the same, nothing is written for a new generation alone.
    let made = before.and_then(made_for).filter(|_| same);
    let generation = made.or(world.tenant.metadata.generation);
    let roll = match (&world.turn, before) {
        (Turn::Given(roll), _) if matches!(why, Change::Fleet(_)) => Some(roll.text()),
        // What becomes of the tenant now is its spec's doing.
        _ if why == Change::Asked => None,
        (_, Some(live)) => {
            objects::annotation(&live.metadata, names::ANNOTATION_ROLL).map(str::to_owned)
        }
        _ => None,
    };
    let end = known.and_then(|it| objects::annotation(it, names::ANNOTATION_CERTIFICATES_END));
    let end = match end.filter(|_| same) {
        Some(end) => Some(end.to_owned()),
        None => expiry::first_end(world, plan).map(|end| end.to_string()),
    };
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    for (name, value) in [
        (names::ANNOTATION_CERTIFICATES_END, end),
        (names::ANNOTATION_TEMPLATE, hash),
        (
            names::ANNOTATION_GENERATION,
            generation.map(|it| it.to_string()),
        ),
        (names::ANNOTATION_ROLL, roll),
    ] {
        annotations.extend(value.map(|value| (name.to_owned(), value)));
    }
}
