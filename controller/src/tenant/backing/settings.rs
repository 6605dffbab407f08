//! Which settings of its DataStore a tenant's pods are given: those of now, or those
//! that they run with until the ones of now have been found to work (rule 28).
//!
//! A slip in a DataStore reaches every tenant in it at once. So what would reach
//! running pods is tried by the controller first, and is given to them by turns
//! ([`crate::tenant::rolls`]).

use apiservice::condition::{reason, tenant as condition};
use apiservice::names::key;
use apiservice::pki::Pair;
use sha2::{Digest, Sha256};

use crate::tenant::backing::facts::{CredentialsFact, StoreProblem, StoreProblemKind};
use crate::tenant::backing::{beside, moving, wiring};
use crate::tenant::plan::{Plan, Step, Waiting};
use crate::tenant::world::World;
use crate::tenant::{objects, rolls};

/// What reaches the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` each.
    pub endpoints: Vec<String>,
    /// What [`fingerprint`] makes of all of them, as far as they are known.
    pub fingerprint: Option<String>,
    /// They are those of before, not those of the DataStore as it is now.
    pub kept: bool,
}

/// A fingerprint of the settings that reach the pods: the endpoints, and the authority
/// that both sides' certificates come from.
///
/// Where pods are given a copy of our client certificate, that as well.
pub fn fingerprint(endpoints: &[String], authority: &str, client: Option<&Pair>) -> String {
    let mut digest = Sha256::new();
    for endpoint in endpoints {
        digest.update(endpoint.as_bytes());
        digest.update([0]);
    }
    digest.update(authority.as_bytes());
    if let Some(client) = client {
        digest.update([0]);
        digest.update(client.cert.as_bytes());
    }
    hex::encode(&digest.finalize()[..16])
}

/// The fingerprint of the DataStore as it is now; `None` while its Secrets are not known.
pub fn wanted(credentials: &CredentialsFact) -> Option<String> {
    match credentials {
        CredentialsFact::Known(known) => Some(fingerprint(
            &known.endpoints,
            &known.authority,
            known.client.as_ref(),
        )),
        _ => None,
    }
}

/// Chooses between the settings of now (`endpoints`) and those that the pods run with.
/// Plans what is said about it, and asks for a turn where pods are to be rolled.
pub fn choose(world: &World, name: &str, endpoints: &[String], plan: &mut Plan) -> Settings {
    let wanted = wanted(&world.store.credentials);
    let current = |fingerprint| Settings {
        endpoints: endpoints.to_vec(),
        fingerprint,
        kept: false,
    };
    let Some(running) = running(world) else {
        return current(wanted);
    };
    let same = match &wanted {
        Some(wanted) => running.fingerprint.as_ref() == Some(wanted),
        // The certificate stays as it is until the Secrets are known.
        None => running.endpoints == endpoints,
    };
    if same {
        return current(running.fingerprint);
    }
    if wanted.is_none() || world.store.trial != Some(Ok(())) {
        plan.push(Step::Wait(untried(world, name)));
        return running;
    }
    // They worked once, and do not now: whoever runs on others is better off.
    if let Some(Err(problem)) = &world.store.health
        && problem.kind != StoreProblemKind::Full
    {
        plan.push(Step::Wait(does_not_work(name, problem)));
        return running;
    }
    if rolls::is_first(world) || rolls::is_asked_for(world) || is_of_another(world, name) {
        return current(wanted);
    }
    plan.roll_by(None);
    if rolls::may(world) {
        return current(wanted);
    }
    rolls::wait(world, plan);
    running
}

/// Whether the pods were given another DataStore than this one: the data is not there any
/// more.
fn is_of_another(world: &World, name: &str) -> bool {
    // The pods are given its main place by name, and no other moves.
    if world.beside.is_some() {
        return false;
    }
    moving::is_switching(world) || moving::given(world).is_some_and(|given| given != name)
}

/// What the pods run with. `None` where none run, or nobody can tell.
fn running(world: &World) -> Option<Settings> {
    let live = world.deployment();
    let live = live.filter(|live| world.ours(&live.metadata))?;
    if world.is_asleep() || live.spec.as_ref()?.replicas == Some(0) {
        return None;
    }
    let beside = world.beside.as_ref();
    let endpoints = match beside {
        None => wiring::endpoints(live)?,
        Some(beside) => wiring::endpoints_beside(live, beside)?,
    };
    let noted = beside::settings_annotation(beside);
    let noted = objects::annotation(&live.metadata, &noted);
    // A release of before did not note it.
    let fingerprint = noted.map(str::to_owned).or_else(|| {
        let secret = world.secret(&world.certificate_secret())?;
        let authority = objects::text(secret, key::CA_CRT)?;
        Some(fingerprint(&endpoints, &authority, None))
    })?;
    Some(Settings {
        endpoints,
        fingerprint: Some(fingerprint),
        kept: true,
    })
}

fn does_not_work(name: &str, problem: &StoreProblem) -> Waiting {
    let why = problem.message.trim_end_matches('.');
    let remedy = "Correct spec.endpoints of the DataStore, or the Secrets that it refers to";
    kept(name, &format!("{why}. {remedy}"))
}

fn kept(name: &str, why: &str) -> Waiting {
    Waiting {
        condition: condition::DATA_STORE_READY,
        reason: reason::DATA_STORE_CHANGE_NOT_VERIFIED,
        message: format!(
            "DataStore {name} was changed, and its new settings do not work, so the pods keep \
             the previous ones: {why}."
        ),
        problem: true,
        finding: None,
    }
}

/// Why the settings of now are not given to the pods.
fn untried(world: &World, name: &str) -> Waiting {
    let why = match (&world.store.credentials, &world.store.trial) {
        (CredentialsFact::Missing { what, remedy }, _) => Some(format!("{what}: {remedy}")),
        (_, Some(Err(problem))) => return does_not_work(name, problem),
        _ => None,
    };
    match why {
        Some(why) => kept(name, &why),
        None => Waiting {
            condition: condition::PROGRESSING,
            reason: reason::DATA_STORE_CHANGE_NOT_VERIFIED,
            message: format!(
                "DataStore {name} was changed. Its new settings are being tried; until they work, \
                 the pods keep the previous ones."
            ),
            problem: false,
            finding: None,
        },
    }
}
