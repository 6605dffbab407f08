//! Is a datastore there, does it know us, can it keep tenants apart, has it
//! room, and does somebody compact it?

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use apiservice::{
    pki::{self, Leaf, Pair, Usage},
    v1alpha1::{DataStore, TenantControlPlane},
};
use jiff::SignedDuration;
use storage::tenancy::{Tenancy, TenancyError};
use tokio::time::Instant;
use tracing::Instrument;

use crate::cluster::concerned::tenants_of;
use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::datastores::{credentials, health};
use crate::facts::{Measured, Trial};
use crate::process::lease::Unfinished;
use crate::process::observers::pause;
use crate::process::{spans, timing};
use crate::tenant::backing::facts::{CompactedBy, StoreReport};
use crate::tenant::backing::facts::{CredentialsFact, StoreProblem, StoreProblemKind};
use crate::tenant::backing::settings;
use crate::tenant::pki::{authorities, certificates};

/// How long the certificate lives that tries an authority.
const TRIAL_LIFE: SignedDuration = SignedDuration::from_mins(5);

/// Looks at one DataStore until the task is ended.
pub async fn run(ctx: Arc<Context>, name: String, uid: String) {
    let wake = ctx.facts.store(&uid).wake;
    let mut failures = 0;
    let mut compaction = Compaction::default();
    loop {
        let span = spans::round("Probe", spans::STORES, "", &name);
        let looked = look(&ctx, &name, &uid, &mut compaction).instrument(span);
        let Some(seen) = looked.await else {
            pause(timing::HEALTH_UNKNOWN, &wake).await;
            continue;
        };
        let well = seen.report.health.is_ok();
        let unreachable = seen
            .report
            .health
            .as_ref()
            .is_err_and(|problem| problem.kind == StoreProblemKind::Unreachable);
        failures = if well { 0 } else { failures + 1 };
        if unreachable && failures % 3 == 0 {
            // A connection that is stuck is not worth keeping.
            ctx.connections.drop(&uid);
        }
        publish(&ctx, &name, &uid, seen);
        let wait = if well {
            timing::HEALTH_EVERY
        } else {
            timing::observer_backoff(timing::HEALTH_UNKNOWN, timing::HEALTH_SLOWEST, failures)
        };
        pause(wait, &wake).await;
    }
}

/// What a look found.
struct Seen {
    report: StoreReport,
    /// `None` where there was no answer.
    measured: Option<Measured>,
    trial: Option<Trial>,
}

/// `None`: it cannot be asked, because its material is not known.
async fn look(ctx: &Context, name: &str, uid: &str, compaction: &mut Compaction) -> Option<Seen> {
    let store = ctx.caches.data_store(name)?;
    if store.metadata.uid.as_deref() != Some(uid) || credentials::gap(&store, &ctx.caches).is_some()
    {
        return None;
    }
    let settings = || settings::wanted(&credentials::fact(&store, &ctx.caches));
    let fingerprinted = settings();
    let before = ctx.facts.store(uid).health();
    let was_well = before.is_some_and(|before| before.is_ok());
    let (report, measured) = ask(ctx, name, &store, compaction, was_well).await;
    let seen = |report, trial| Seen {
        report,
        measured,
        trial,
    };
    let fingerprint = fingerprinted?;
    if settings().as_ref() != Some(&fingerprint) {
        // They were changed meanwhile: nobody knows which of them answered.
        return Some(seen(report, None));
    }
    let known = ctx.facts.store(uid).tried(&fingerprint) == Some(Ok(()));
    let result = match health::serves(&report) {
        Ok(()) if !known => match trust(ctx, &store).await {
            Ok(()) => knows_its_tenants(ctx, name, &store).await,
            failed => failed,
        },
        answer => answer,
    };
    let trial = Trial {
        fingerprint,
        result,
    };
    Some(seen(report, Some(trial)))
}

/// Asks a datastore how it is.
async fn ask(
    ctx: &Context,
    name: &str,
    store: &DataStore,
    compaction: &mut Compaction,
    was_well: bool,
) -> (StoreReport, Option<Measured>) {
    let tenancy = match ctx.connections.get(store, &ctx.caches) {
        Ok(tenancy) => tenancy,
        Err(error) => return (health::refused(&error), None),
    };
    let mut began = Instant::now();
    let mut answer = tokio::time::timeout(timing::STORE_DEADLINE, tenancy.verify()).await;
    let late = match &answer {
        Err(_) => true,
        Ok(Err(TenancyError::Unreachable(_))) => began.elapsed() >= timing::STORE_LATE,
        Ok(_) => false,
    };
    if late && was_well {
        // One answer that came too late may have been held up here, where many tenants
        // begin at once: a database that is away is so a second time.
        began = Instant::now();
        answer = tokio::time::timeout(timing::STORE_AGAIN, tenancy.verify()).await;
    }
    let latency = began.elapsed();
    let measured = match &answer {
        Ok(Ok(health)) => Some(Measured {
            bytes: health.size,
            latency,
        }),
        _ => None,
    };
    let report = match answer {
        Ok(Ok(health)) => {
            compaction
                .turn(ctx, name, tenancy.as_ref(), health.revision)
                .await;
            health::report(&health, compaction.by)
        }
        Ok(Err(error)) => StoreReport::failed(health::problem_of(&error)),
        Err(_) => StoreReport::failed(StoreProblem {
            kind: StoreProblemKind::Unreachable,
            message: format!(
                "{} does not answer within {} s",
                store.spec.endpoints.join(", "),
                timing::STORE_DEADLINE.as_secs()
            ),
        }),
    };
    (report, measured)
}

/// Whether the datastore accepts whom its authority signs for, as tenants are: our own
/// certificate may come from elsewhere.
async fn trust(ctx: &Context, store: &DataStore) -> Result<(), StoreProblem> {
    let problem = |message: String| StoreProblem {
        kind: StoreProblemKind::Unauthenticated,
        message: format!(
            "a client certificate of the authority in spec.tlsConfig is not accepted: {message}"
        ),
    };
    let CredentialsFact::Known(credentials) = credentials::fact(store, &ctx.caches) else {
        return Err(problem("its Secrets are not known".into()));
    };
    let mut connection = credentials::resolve(store, &ctx.caches)
        .map_err(|_| problem("its Secrets are not known".into()))?;
    let (Some(key), Some(ours)) = (&credentials.authority_key, &connection.client_cert) else {
        // Nobody is signed for.
        return Ok(());
    };
    let authority = Pair {
        cert: credentials.authority.clone(),
        key: key.clone(),
    };
    let signed = pki::inspect(&String::from_utf8_lossy(ours)).and_then(|ours| {
        let leaf = Leaf {
            subject: certificates::subject(&ours.subject.common_name, &[]),
            usage: Usage::Client,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            validity: authorities::validity(ctx.now(), TRIAL_LIFE),
        };
        pki::sign(&authority, &leaf, &ctx.entropy)
    });
    let signed = signed.map_err(|error| problem(error.to_string()))?;
    connection.client_cert = Some(signed.cert.into_bytes());
    connection.client_key = Some(signed.key.into_bytes());
    let work = async { storage::tenancy::connect(connection)?.verify().await };
    match tokio::time::timeout(timing::STORE_DEADLINE, work).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(problem(error.to_string())),
        Err(_) => Err(problem("no answer".into())),
    }
}

/// Whether the datastore is the one with the data of the tenants that are said to be in
/// it. One that works and is another one would be given pods, which find nothing there.
///
/// That one of them has a claim is enough: what a tenant's status says may be wrong, and
/// must not stand in the way of the others.
async fn knows_its_tenants(
    ctx: &Context,
    name: &str,
    store: &DataStore,
) -> Result<(), StoreProblem> {
    let tenants = ctx.seen().proven(name);
    let here: BTreeMap<&str, &TenantControlPlane> = tenants
        .iter()
        .map(|tenant| {
            (
                tenant.metadata.uid.as_deref().unwrap_or_default(),
                &**tenant,
            )
        })
        .collect();
    if here.is_empty() {
        return Ok(());
    }
    let tenancy = ctx.connections.get(store, &ctx.caches);
    let tenancy = tenancy.map_err(|error| StoreProblem {
        kind: StoreProblemKind::Unauthenticated,
        message: error.to_string(),
    })?;
    let claimants = tokio::time::timeout(timing::STORE_DEADLINE, tenancy.claimants()).await;
    let claimants = match claimants {
        Ok(answer) => answer.map_err(|error| health::problem_of(&error))?,
        Err(_) => {
            return Err(StoreProblem {
                kind: StoreProblemKind::Unreachable,
                message: format!(
                    "its claims cannot be read within {} s",
                    timing::STORE_DEADLINE.as_secs()
                ),
            });
        }
    };
    if here.keys().any(|uid| claimants.contains(*uid)) {
        return Ok(());
    }
    let names = here.values().take(NAMED);
    let names: Vec<String> = names
        .map(|tenant| NamespacedName::of(&tenant.metadata).to_string())
        .collect();
    Err(StoreProblem {
        kind: StoreProblemKind::Unhealthy,
        message: format!(
            "it knows none of the {} tenants that were Ready with it ({}{}): it is not the \
             database with their data, or an older state of it",
            here.len(),
            names.join(", "),
            if here.len() > NAMED { ", ..." } else { "" }
        ),
    })
}

/// How many tenants a message names.
const NAMED: usize = 3;

fn publish(ctx: &Context, name: &str, uid: &str, seen: Seen) {
    let Seen {
        report,
        measured,
        trial,
    } = seen;
    let changed = ctx.facts.update_store(uid, |fact| {
        let learnt = trial.is_some_and(|trial| fact.learn(trial));
        let changed = learnt || fact.report.as_ref() != Some(&report);
        fact.measured = measured.or(fact.measured);
        fact.report = Some(report);
        changed
    });
    if changed {
        ctx.queue.add(Key::DataStore(name.to_owned()));
        for tenant in tenants_of(&ctx.caches, name) {
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
        if last.is_some_and(|(_, at)| now.duration_since(*at) < timing::COMPACT_EVERY) {
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
        let work = tenancy.compact_older_than(before);
        match ctx.leadership.within(timing::DROP_DEADLINE, work).await {
            Ok(Ok(done)) => {
                self.by = match done {
                    storage::tenancy::Compaction::ByUs => Some(CompactedBy::Us),
                    storage::tenancy::Compaction::ByOthers => Some(CompactedBy::Others),
                    storage::tenancy::Compaction::NotOurs => None,
                };
                tracing::debug!(data_store = name, ?done, "compaction");
            }
            Ok(Err(error)) => tracing::warn!(data_store = name, "cannot compact: {error}"),
            Err(Unfinished::Late(_)) => {
                tracing::warn!(data_store = name, "cannot compact: no answer");
            }
            Err(Unfinished::Ended) => {}
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
