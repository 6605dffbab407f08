//! Is a tenant usable? Read, write and watch through its published endpoint,
//! as a user with a fresh certificate of the group `steward:admin` would
//! (rule 15). If that path fails, the Service inside the management cluster
//! is tried as well, to tell a cut route from a dead server.

use std::{mem::discriminant, sync::Arc, time::Duration};

use apiservice::{names, v1alpha1::TenantControlPlane};
use futures::future::Either;
use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::Instrument;

use crate::cluster::caches::Reach;
use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::facts::TenantFacts;
use crate::inside::coming::Coming;
use crate::inside::connection::{Address, Credentials, Tenant, failure};
use crate::inside::identity::{client_certificate, pair_of};
use crate::inside::read_write_watch::{exercise, readers_read};
use crate::inside::ways::{Way, Ways, is_at_fault};
use crate::process::lanes::Lanes;
use crate::process::observers::{PROBES, pause};
use crate::process::{spans, timing};
use crate::tenant::objects::{is_asleep, is_paused};
use crate::tenant::world::{
    Admission, PathFact, ProbeFacts, ProbeFailure, ProbeFailureKind as Kind,
};

/// A probe's certificate is used for this long.
const CERTIFICATE_FOR: Duration = Duration::from_secs(120);
/// It is valid for this long, and a little more.
const CERTIFICATE_AT_MOST: Duration = Duration::from_secs(270);

/// How often a name that does not resolve is asked for every few seconds: for some
/// two minutes.
const NAME_ATTEMPTS: u32 = 36;
/// A first start that works through its Service for so long is waiting for
/// something slow.
const LINGERS: SignedDuration = SignedDuration::from_secs(6);

/// Probes one tenant until the task is ended.
pub async fn run(ctx: Arc<Context>, name: NamespacedName, uid: String) {
    let mut probe = Probe::default();
    let wake = ctx.facts.tenant(&uid).wake_probe;
    loop {
        let span = spans::round("Probe", spans::TENANTS, &name.namespace, &name.name);
        let wait = probe.round(&ctx, &name, &uid).instrument(span).await;
        pause(wait, &wake).await;
    }
}

#[derive(Default)]
struct Probe {
    credentials: Option<Held>,
    coming: Coming,
    /// Looks in a row that led nowhere.
    failures: u32,
    /// It has answered on some way.
    reached: bool,
    outside: Outside,
    readers: Readers,
}

/// Whether it is asked before the first Ready what readers may. An authorizer of the tenant's
/// own may never have heard of them: that is waited for no longer than roles take to become
/// known.
#[derive(Default)]
struct Readers {
    /// When it was first seen to work.
    works_since: Option<Instant>,
}

impl Readers {
    /// Takes in whether it works.
    fn learn(&mut self, works: bool) {
        if works {
            self.works_since.get_or_insert_with(Instant::now);
        }
    }

    fn are_waited_for(&self) -> bool {
        let since = self.works_since.map(|since| since.elapsed());
        since.is_none_or(|since| since < timing::READERS_WITHIN)
    }
}

/// The way to the published endpoint, which may not exist from here.
#[derive(Default)]
struct Outside {
    /// It led to the tenant once.
    reached: bool,
    /// The one that was tried last.
    address: String,
    failures: u32,
    /// While it never has and the Service leads there: when to try again.
    again: Option<Instant>,
}

impl Outside {
    /// Takes in what became of an attempt.
    fn learn(&mut self, fact: &PathFact) {
        if self.address != fact.address {
            self.address.clone_from(&fact.address);
            self.failures = 0;
        }
        if is_at_fault(fact) {
            self.failures = self.failures.saturating_add(1);
            let first = timing::PROBE_COMING;
            let slowest = match &fact.result {
                // Names of load balancers are made known within minutes.
                Err(failure)
                    if failure.kind == Kind::Unresolvable && self.failures < NAME_ATTEMPTS =>
                {
                    timing::PROBE_READY
                }
                // Something is there, and may know the way soon.
                Err(failure) if failure.kind == Kind::Refused => timing::PROBE_READY,
                _ => timing::NEVER_REACHED,
            };
            let wait = timing::observer_backoff(first, slowest, self.failures);
            self.again = Some(Instant::now() + wait);
        } else {
            *self = Self {
                reached: true,
                address: fact.address.clone(),
                ..Self::default()
            };
        }
    }

    /// Whether the way is worth an attempt, if the Service led there last.
    fn is_due(&self) -> bool {
        self.reached || self.again.is_none_or(|again| again <= Instant::now())
    }
}

struct Held {
    /// The authorities that it was made of.
    from: (Vec<u8>, Vec<u8>),
    until: Instant,
    /// As long as its authorities are missing, up to here.
    at_most: Instant,
    credentials: Credentials,
}

impl Probe {
    /// One look. Returns how long to wait for the next.
    async fn round(&mut self, ctx: &Context, name: &NamespacedName, uid: &str) -> Duration {
        let Some(tenant) = ctx.caches.tenants.get(name) else {
            return timing::PROBE_DOWN;
        };
        if tenant.metadata.uid.as_deref() != Some(uid) {
            return timing::PROBE_DOWN;
        }
        if is_paused(&tenant.metadata) {
            // Nothing is written into it, by the probe neither: what was found
            // before stands. It is due from when it may look again.
            let now = ctx.now();
            ctx.facts
                .update_tenant(uid, |facts| facts.since = Some(now));
            return timing::PROBE_DOWN;
        }
        if is_asleep(&tenant) || tenant.metadata.deletion_timestamp.is_some() {
            self.publish(ctx, name, uid, ProbeFacts::default());
            return timing::PROBE_DOWN;
        }
        let ways = Ways::of(ctx, name, &tenant);
        let published = ways.endpoint.as_ref().map(|way| way.address.clone());
        if self.coming.note(ctx, name, published.clone()) {
            self.failures = 0;
        }
        let known = ctx.facts.tenant(uid).probe;
        let (Some(endpoint), Some(address)) = (ways.endpoint, published) else {
            if known.endpoint.is_some() {
                self.publish(ctx, name, uid, ProbeFacts::default());
            }
            // Woken as soon as there is one.
            return timing::PROBE_DOWN;
        };
        let credentials = match self.credentials(ctx, name) {
            Ok(credentials) => credentials,
            Err(failure) => {
                let facts = ProbeFacts {
                    endpoint: Some(PathFact {
                        started: ctx.now(),
                        address,
                        result: Err(failure),
                    }),
                    ..ProbeFacts::default()
                };
                self.publish(ctx, name, uid, facts);
                return timing::PROBE_DOWN;
            }
        };
        let Some(credentials) = credentials else {
            match ctx.caches.reach(&name.namespace) {
                Reach::NotServed(_) | Reach::Refused(_) => return timing::PROBE_DOWN,
                // What a cache lacks is looked for first, by a pass.
                Reach::Here if tenant.was_ready() && says_lost(&tenant) => {}
                Reach::Here | Reach::NotYet => return timing::PROBE_COMING,
            }
            let message =
                "it cannot be asked without the authorities that sign the certificate to \
                           ask with"
                    .to_owned();
            let facts = ProbeFacts {
                endpoint: Some(PathFact {
                    started: ctx.now(),
                    address,
                    result: Err(failure(Kind::Unasked, message)),
                }),
                ..ProbeFacts::default()
            };
            self.publish(ctx, name, uid, facts);
            return timing::PROBE_DOWN;
        };
        let before = known;
        let path_is_well =
            |path: &Option<PathFact>| path.as_ref().is_some_and(|path| path.result.is_ok());
        // What was found before a restart of ours stands.
        self.reached |= tenant.was_ready();
        self.outside.reached |= tenant.was_ready() && !reported_unreachable(&tenant);
        let was_well = path_is_well(&before.endpoint);
        let inside_was_well = path_is_well(&before.service);
        let lanes = ctx.facts.tenant(uid).lanes;
        let readers = !tenant.was_ready() && self.readers.are_waited_for();
        let look = || look_at(ctx, name, &endpoint, &credentials, &lanes, readers);
        let through_service = || async {
            let service = ways.service.as_ref()?;
            if service.address == address {
                return None;
            }
            Some(look_at(ctx, name, service, &credentials, &lanes, readers).await)
        };
        let outside = before
            .endpoint
            .clone()
            .filter(|fact| fact.address == address && inside_was_well && !self.outside.is_due());
        let (mut seen, mut inside) = match outside {
            // It never led there, and is not tried each time.
            Some(fact) => {
                let seen = Seen {
                    fact,
                    admission: None,
                };
                (seen, through_service().await)
            }
            None => {
                let found = if was_well {
                    (look().await, None)
                } else {
                    side_by_side(look(), through_service()).await
                };
                self.outside.learn(&found.0.fact);
                found
            }
        };
        if was_well && seen.failed() || inside_was_well && inside.as_ref().is_some_and(Seen::failed)
        {
            let forbidden = |seen: &Seen| {
                let failure = seen.fact.result.as_ref().err();
                failure.is_some_and(|failure| failure.kind == Kind::Forbidden)
            };
            if forbidden(&seen) || inside.as_ref().is_some_and(forbidden) {
                // Whoever took the bindings away takes no tenant's Ready if they are
                // back at once.
                let TenantFacts {
                    wake_inside,
                    wake_probe,
                    ..
                } = ctx.facts.update_tenant(uid, |known| {
                    known.look_inside = true;
                    known.clone()
                });
                wake_inside.notify_one();
                pause(timing::REPAIRED_WITHIN, &wake_probe).await;
            }
            // Twice in a row, so that one lost packet takes none either.
            (seen, inside) = side_by_side(look(), through_service()).await;
        }
        let Seen {
            fact,
            mut admission,
        } = seen;
        let service = inside.map(|inside| {
            admission = admission.take().or(inside.admission);
            inside.fact
        });
        self.readers.learn(admission.is_some());
        let inside_well = path_is_well(&service);
        let well = fact.result.is_ok() || is_at_fault(&fact) && inside_well;
        let inside_since = service
            .as_ref()
            .filter(|path| path.result.is_ok())
            .map(|path| before.inside_since.unwrap_or(path.started));
        let facts = ProbeFacts {
            endpoint: Some(fact),
            service,
            inside_since,
            admission,
        };
        let lingers = inside_since.is_some_and(|since| ctx.now().duration_since(since) > LINGERS);
        self.publish(ctx, name, uid, facts);
        let ready = ctx.caches.tenants.get(name).is_some_and(|it| is_ready(&it));
        let wait = self.wait(well, well && (ready || !inside_well));
        if lingers && !tenant.was_ready() && !ready {
            return wait.max(timing::PROBE_DOWN);
        }
        // What serves may have changed, and somebody waits for it.
        if is_progressing(&tenant) {
            wait.min(timing::PROBE_DOWN)
        } else {
            wait
        }
    }

    /// How long to wait after a look. `rests`: nothing is expected to change.
    fn wait(&mut self, well: bool, rests: bool) -> Duration {
        self.reached |= well;
        self.failures = if well {
            0
        } else {
            self.failures.saturating_add(1)
        };
        match (rests, self.coming.pace()) {
            (true, _) => timing::PROBE_READY,
            (_, Some(pace)) => pace,
            _ if self.reached => timing::PROBE_DOWN,
            _ => timing::observer_backoff(timing::PROBE_DOWN, timing::NEVER_REACHED, self.failures),
        }
    }

    /// A certificate of ours for the tenant, made anew every few minutes and
    /// whenever an authority changes. `None`: the authorities are not there.
    fn credentials(
        &mut self,
        ctx: &Context,
        name: &NamespacedName,
    ) -> Result<Option<Credentials>, ProbeFailure> {
        let authority = pair_of(ctx, name, &names::ca(&name.name));
        let signer = pair_of(ctx, name, &names::client_ca(&name.name));
        let (Some(authority), Some(signer)) = (authority, signer) else {
            let held = self.credentials.as_ref();
            let valid = held.filter(|held| Instant::now() < held.at_most);
            return Ok(valid.map(|held| held.credentials.clone()));
        };
        let from = (
            authority.cert.clone().into_bytes(),
            signer.cert.clone().into_bytes(),
        );
        if let Some(held) = &self.credentials
            && held.from == from
            && Instant::now() < held.until
        {
            return Ok(Some(held.credentials.clone()));
        }
        let client = client_certificate(
            &signer,
            names::USER_CONTROLLER,
            names::GROUP_ADMIN,
            ctx.now(),
            &ctx.entropy,
        )?;
        let credentials = Credentials::new(&authority.cert, &client)?;
        self.credentials = Some(Held {
            from,
            until: Instant::now() + CERTIFICATE_FOR,
            at_most: Instant::now() + CERTIFICATE_AT_MOST,
            credentials: credentials.clone(),
        });
        Ok(Some(credentials))
    }

    fn publish(&self, ctx: &Context, name: &NamespacedName, uid: &str, facts: ProbeFacts) {
        let paths = [&facts.endpoint, &facts.service];
        let well = paths
            .iter()
            .any(|path| path.as_ref().is_some_and(|path| path.result.is_ok()));
        let changed = ctx.facts.update_tenant(uid, |known| {
            let changed = !same(&known.probe, &facts);
            known.probe = facts;
            if changed {
                // Another way may be open, or the bindings are gone.
                let ways = [&known.probe.endpoint, &known.probe.service];
                known.look_inside |= ways.iter().any(|way| {
                    let failure = way.as_ref().and_then(|way| way.result.as_ref().err());
                    failure.is_some_and(|failure| failure.kind == Kind::Forbidden)
                });
                known.wake_inside.notify_one();
            }
            changed
        });
        // While a tenant is not Ready, each success may be the one that its
        // plan waits for.
        let waiting = || {
            let tenant = ctx.caches.tenants.get(name);
            tenant.is_some_and(|tenant| !is_ready(&tenant) || is_progressing(&tenant))
        };
        if changed || well && waiting() {
            ctx.queue.add(Key::Tenant(name.clone()));
        }
    }
}

/// Whether the endpoint is said never to have been reached from here.
fn reported_unreachable(tenant: &TenantControlPlane) -> bool {
    let conditions = tenant.status.as_ref().map(|status| &status.conditions);
    let endpoint = conditions.and_then(|conditions| {
        let kind = apiservice::condition::tenant::ENDPOINT_REACHABLE;
        apiservice::condition::get(conditions, kind)
    });
    crate::report::ready::never_reached(endpoint)
}

/// Whether it is said that keys are lost.
fn says_lost(tenant: &TenantControlPlane) -> bool {
    use apiservice::condition::{get, reason, tenant::CERTIFICATES_READY};
    let conditions = tenant.status.as_ref().map(|status| &status.conditions);
    let said = conditions.and_then(|conditions| get(conditions, CERTIFICATES_READY));
    said.is_some_and(|it| it.reason == reason::KEY_MATERIAL_LOST)
}

fn is_ready(tenant: &TenantControlPlane) -> bool {
    holds(tenant, apiservice::condition::tenant::READY)
}

/// A change of its spec rolls out.
fn is_progressing(tenant: &TenantControlPlane) -> bool {
    holds(tenant, apiservice::condition::tenant::PROGRESSING) && tenant.was_ready()
}

fn holds(tenant: &TenantControlPlane, kind: &str) -> bool {
    let conditions = tenant.status.as_ref().map(|status| &status.conditions);
    conditions.is_some_and(|conditions| apiservice::condition::is_true(conditions, kind))
}

/// The same but for the time of the probe.
fn same(a: &ProbeFacts, b: &ProbeFacts) -> bool {
    let path = |fact: &Option<PathFact>| {
        fact.as_ref().map(|fact| {
            let result = fact.result.clone().map_err(|failure| failure.kind);
            (fact.address.clone(), result)
        })
    };
    path(&a.endpoint) == path(&b.endpoint)
        && path(&a.service) == path(&b.service)
        && a.admission.as_ref().map(discriminant) == b.admission.as_ref().map(discriminant)
}

/// What a look along one path found.
struct Seen {
    fact: PathFact,
    admission: Option<Admission>,
}

impl Seen {
    fn failed(&self) -> bool {
        self.fact.result.is_err()
    }
}

/// Looks along both paths. What the Service path says is of interest only if
/// the endpoint does not even answer, and is waited for only then.
async fn side_by_side(
    look: impl Future<Output = Seen>,
    service: impl Future<Output = Option<Seen>>,
) -> (Seen, Option<Seen>) {
    let (look, service) = (std::pin::pin!(look), std::pin::pin!(service));
    match futures::future::select(look, service).await {
        Either::Left((seen, service)) => {
            let inside = if is_at_fault(&seen.fact) {
                service.await
            } else {
                None
            };
            (seen, inside)
        }
        Either::Right((inside, look)) => {
            let seen = look.await;
            let inside = inside.filter(|_| is_at_fault(&seen.fact));
            (seen, inside)
        }
    }
}

async fn look_at(
    ctx: &Context,
    name: &NamespacedName,
    way: &Way,
    credentials: &Credentials,
    lanes: &Lanes,
    readers: bool,
) -> Seen {
    let address = way.address.as_str();
    // A wait for others is no silence of the tenant.
    let _turn = PROBES.take(&name.namespace).await;
    let to = Address::of(&name.namespace, address).await;
    let started = ctx.now();
    let begun = Instant::now();
    let stage = Mutex::new(Kind::TimedOut);
    let mut admission = None;
    let work = async {
        let connect = Tenant::connect(to, way.host.as_deref(), credentials, lanes);
        let tenant = match tokio::time::timeout(timing::CONNECT_DEADLINE, connect).await {
            Ok(connected) => connected?,
            Err(_) => {
                let message = format!("{address}: no connection in time");
                return Err(failure(Kind::TimedOut, message));
            }
        };
        *stage.lock() = Kind::Silent;
        admission = Some(exercise(&tenant, started, &stage).await?);
        match readers {
            true => readers_read(&tenant).await,
            false => Ok(()),
        }
    };
    let result = match tokio::time::timeout(timing::PROBE_DEADLINE, work).await {
        Ok(result) => result,
        Err(_) => {
            let seconds = timing::PROBE_DEADLINE.as_secs();
            Err(failure(
                *stage.lock(),
                format!("{address}: no answer within {seconds} s"),
            ))
        }
    };
    let milliseconds = begun.elapsed().as_millis();
    match &result {
        Ok(()) => tracing::trace!(address, milliseconds, "probe: well"),
        Err(failure) => {
            tracing::debug!(
                address,
                milliseconds,
                "probe: {:?}: {}",
                failure.kind,
                failure.message
            );
        }
    }
    let fact = PathFact {
        started,
        address: address.to_owned(),
        result,
    };
    Seen { fact, admission }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::testing::{context, fill, nothing};
    use crate::inside::connection::tests::{NAMES, somebody};
    use crate::process::observers::LOOKUPS;
    use jiff::Timestamp;

    fn fact(result: Result<(), Kind>) -> PathFact {
        PathFact {
            started: Timestamp::UNIX_EPOCH,
            address: "192.0.2.1:6443".to_owned(),
            result: result.map_err(|kind| failure(kind, "")),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_that_never_led_there_is_tried_less_and_less() {
        let mut outside = Outside::default();
        let mut attempts = 0;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(600) {
            if outside.is_due() {
                attempts += 1;
                outside.learn(&fact(Err(Kind::TimedOut)));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!((10..25).contains(&attempts), "{attempts} in ten minutes");
        tokio::time::sleep(timing::NEVER_REACHED).await;
        assert!(outside.is_due(), "it is never given up");

        outside.learn(&fact(Ok(())));
        outside.learn(&fact(Err(Kind::TimedOut)));
        assert!(outside.is_due(), "a way that is cut is watched");
    }

    /// With the names of others unanswered, a tenant that is well was called silent.
    #[tokio::test]
    async fn a_wait_for_the_names_of_others_is_no_silence() {
        let _names = NAMES.lock().await;
        let mut others = Vec::new();
        for group in 0..8 {
            for _ in 0..32 {
                others.push(LOOKUPS.take(&format!("others-{group}")).await);
            }
        }
        let (ctx, _) = context(nothing, true).await;
        let name = NamespacedName::new("n", "t");
        let way = Way {
            address: "localhost:1".to_owned(),
            host: None,
        };
        let (credentials, lanes) = (somebody(), Lanes::default());
        let look = look_at(&ctx, &name, &way, &credentials, &lanes, false);
        let mut look = std::pin::pin!(look);
        let long = timing::PROBE_DEADLINE + Duration::from_millis(500);
        assert!(tokio::time::timeout(long, &mut look).await.is_err());
        drop(others);
        let seen = look.await.fact.result.unwrap_err();
        assert_eq!(seen.kind, Kind::Refused, "{seen:?}");
    }

    /// With a webhook that authorizes, which knows no group of ours, a tenant never became
    /// Ready.
    #[tokio::test(start_paused = true)]
    async fn readers_are_waited_for_as_long_as_roles_take() {
        let mut readers = Readers::default();
        tokio::time::advance(Duration::from_secs(60)).await;
        readers.learn(false);
        assert!(readers.are_waited_for(), "it did not work until now");
        readers.learn(true);
        assert!(readers.are_waited_for());
        tokio::time::advance(timing::READERS_WITHIN).await;
        readers.learn(true);
        assert!(!readers.are_waited_for());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_every_few_seconds_at_first() {
        let mut outside = Outside::default();
        let mut waited = Duration::ZERO;
        let mut longest = Duration::ZERO;
        while waited < Duration::from_secs(120) {
            outside.learn(&fact(Err(Kind::Unresolvable)));
            let wait = outside.again.unwrap() - Instant::now();
            longest = longest.max(wait);
            waited += wait;
        }
        assert!(longest <= timing::PROBE_READY, "{longest:?}");
        for _ in 0..10 {
            outside.learn(&fact(Err(Kind::Unresolvable)));
        }
        let wait = outside.again.unwrap() - Instant::now();
        assert_eq!(wait, timing::NEVER_REACHED);
    }

    #[test]
    fn a_tenant_that_never_answered_is_looked_at_less_and_less() {
        let mut probe = Probe::default();
        let waits: Vec<_> = (0..9).map(|_| probe.wait(false, false).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(probe.wait(true, true), timing::PROBE_READY);
        assert_eq!(probe.wait(false, false), timing::PROBE_DOWN);
    }

    /// What it waits for wakes it.
    #[tokio::test]
    async fn a_tenant_without_an_endpoint_is_not_probed_all_the_time() {
        let lab = crate::tenant::testing::Lab::new();
        assert!(lab.world.tenant.status.is_none());
        let (ctx, _) = crate::context::testing::context(nothing, true).await;
        fill(&ctx.caches, &lab);
        let name = NamespacedName::of(&lab.world.tenant.metadata);
        let mut probe = Probe::default();
        for _ in 0..3 {
            let wait = probe.round(&ctx, &name, lab.world.uid()).await;
            assert!(probe.coming.pace().is_some(), "it may come up at any time");
            assert_eq!(wait, timing::PROBE_DOWN);
        }
    }
}
