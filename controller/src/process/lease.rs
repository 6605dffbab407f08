//! Who leads: the only place that knows. A Lease of coordination.k8s.io is
//! held by one replica, and only that replica writes.
//!
//! The decision is pure ([`decide`]). A holder is believed for as long as
//! its Lease's duration, counted on our own clock from when we saw it
//! change, so that clocks of two machines need not agree. A leader that
//! cannot renew stops leading before others may start; so does one whose machine
//! slept, for its end is counted on a clock that goes on meanwhile, too.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::process::clock::{Clock, Uptime};

/// How long a Lease is good for after its last renewal.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often one looks at the Lease.
const EVERY: Duration = Duration::from_secs(2);
/// Deadline of one request.
const CALL: Duration = Duration::from_secs(4);
/// How often work that waits looks whether the machine has slept: timers stand still
/// meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// Why work was not done, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    /// The Lease ended before it.
    #[error("this replica does not lead any more")]
    Ended,
    /// It took longer than this.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

/// What to do about the Lease.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is none.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is free or was not renewed in its time.
    Take,
    /// Somebody holds it.
    Follow,
}

/// The Lease as last seen, with our own time of its last change.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    renewal: Option<(String, String)>,
    at: Option<Instant>,
}

impl Seen {
    /// Notes a Lease read at `now`.
    pub fn note(&mut self, lease: &Lease, now: Instant) {
        let spec = lease.spec.clone().unwrap_or_default();
        let renewal = (
            spec.holder_identity.unwrap_or_default(),
            spec.renew_time
                .map(|time| time.0.to_string())
                .unwrap_or_default(),
        );
        if self.renewal.as_ref() != Some(&renewal) {
            self.renewal = Some(renewal);
            self.at = Some(now);
        }
    }
}

/// Decides by a Lease read at `now` and noted in `seen`.
pub fn decide(lease: Option<&Lease>, seen: &Seen, identity: &str, now: Instant) -> Decision {
    let Some(lease) = lease else {
        return Decision::Create;
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    if holder == identity {
        return Decision::Renew;
    }
    if holder.is_empty() {
        return Decision::Take;
    }
    let seconds = spec.lease_duration_seconds.unwrap_or(15).max(1);
    let good_for = Duration::from_secs(u64::from(seconds.unsigned_abs()));
    match seen.at {
        Some(at) if now.duration_since(at) >= good_for => Decision::Take,
        _ => Decision::Follow,
    }
}

/// Until when this replica leads, on two clocks: timers run on the first, which stands
/// still while the machine sleeps; the second does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    at: Instant,
    uptime: Duration,
}

impl End {
    /// After so long, from now.
    fn after(long: Duration, uptime: &Uptime) -> Self {
        End {
            at: Instant::now() + long,
            uptime: uptime.now() + long,
        }
    }

    fn is_over(self, uptime: &Uptime) -> bool {
        Instant::now() >= self.at || uptime.now() >= self.uptime
    }
}

/// Whether this replica may write now. Checked before each write.
#[derive(Debug, Clone)]
pub struct Leadership {
    until: watch::Receiver<Option<End>>,
    uptime: Uptime,
}

impl Leadership {
    /// Leads for ever: a single replica without a Lease.
    pub fn always() -> Self {
        let far = Duration::from_secs(86_400 * 365 * 30);
        let (sender, until) = watch::channel(Some(End {
            at: Instant::now() + far,
            uptime: far,
        }));
        // The receiver keeps the last value after its sender is gone.
        drop(sender);
        // It is nobody's turn after a sleep.
        let uptime = Uptime::from_fn(|| Duration::ZERO);
        Self { until, uptime }
    }

    /// True while the Lease is ours and fresh enough.
    pub fn leads(&self) -> bool {
        self.until.borrow().is_some_and(|end| !self.is_over(end))
    }

    fn is_over(&self, end: End) -> bool {
        end.is_over(&self.uptime)
    }

    /// Waits until this replica does not lead, which may be later than it looks
    /// now: the Lease is renewed.
    pub async fn lost(&self) {
        let mut until = self.until.clone();
        loop {
            let Some(end) = *until.borrow_and_update() else {
                return;
            };
            if self.is_over(end) {
                return;
            }
            let look = end.at.min(Instant::now() + LOOK);
            tokio::select! {
                () = tokio::time::sleep_until(look) => {}
                changed = until.changed() => if changed.is_err() {
                    // Nobody renews it any more.
                    tokio::time::sleep_until(look).await;
                }
            }
        }
    }

    /// Does what only the leader may do. `None`: the Lease ended before the work
    /// did; it is not waited for, so that it is over before another replica begins.
    pub async fn hold<R>(&self, work: impl Future<Output = R>) -> Option<R> {
        let mut work = pin!(work);
        // Asked each time that the work goes on: an answer that arrives after a sleep
        // leads to no further request.
        let work = poll_fn(|context| match self.leads() {
            true => work.as_mut().poll(context).map(Some),
            false => Poll::Ready(None),
        });
        tokio::select! {
            biased;
            () = self.lost() => None,
            result = work => result,
        }
    }

    /// The same within a deadline.
    ///
    /// # Errors
    /// It was not done, or nobody knows.
    pub async fn within<R>(
        &self,
        deadline: Duration,
        work: impl Future<Output = R>,
    ) -> Result<R, Unfinished> {
        let work = tokio::time::timeout(deadline, work);
        match self.hold(work).await {
            None => Err(Unfinished::Ended),
            Some(done) => done.map_err(|_| Unfinished::Late(deadline)),
        }
    }

    /// Waits until this replica leads. Never returns if it never does.
    pub async fn gained(&mut self) {
        loop {
            if self.leads() {
                return;
            }
            if self.until.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Takes part in the election until told to stop, then gives the Lease back.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    clock: Clock,
    uptime: Uptime,
    sender: watch::Sender<Option<End>>,
}

impl Election {
    /// A candidate for the Lease `name` in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        clock: Clock,
        uptime: Uptime,
    ) -> (Self, Leadership) {
        let (sender, until) = watch::channel(None);
        let election = Self {
            api: Api::namespaced(client, namespace),
            name: name.into(),
            identity: identity.into(),
            clock,
            uptime: uptime.clone(),
            sender,
        };
        (election, Leadership { until, uptime })
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut seen = Seen::default();
        loop {
            // Counted from before the request is sent.
            let end = End::after(RENEW_DEADLINE, &self.uptime);
            match tokio::time::timeout(CALL, self.turn(&mut seen)).await {
                Ok(Ok(true)) => {
                    if self.sender.borrow().is_none() {
                        tracing::info!(lease = self.name, "leading");
                    }
                    self.sender.send_replace(Some(end));
                }
                Ok(Ok(false)) => self.lose("another replica leads"),
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.name, "cannot renew the lease: {error}");
                    self.expire();
                }
                Err(_) => {
                    tracing::warn!(lease = self.name, "cannot renew the lease: no answer");
                    self.expire();
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        let led = self.sender.send_replace(None).is_some();
        if led && let Ok(Err(error)) = tokio::time::timeout(CALL, self.give_back()).await {
            tracing::warn!(lease = self.name, "cannot give the lease back: {error}");
        }
    }

    fn lose(&self, why: &str) {
        if self.sender.send_replace(None).is_some() {
            tracing::warn!(lease = self.name, "not leading any more: {why}");
        }
    }

    fn expire(&self) {
        let gone = self
            .sender
            .borrow()
            .is_some_and(|end| end.is_over(&self.uptime));
        if gone {
            self.lose("the lease could not be renewed in time");
        }
    }

    /// One look. True: it is ours.
    async fn turn(&self, seen: &mut Seen) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        let now = Instant::now();
        if let Some(lease) = &lease {
            seen.note(lease, now);
        }
        let time = MicroTime(self.clock.now());
        let written = match decide(lease.as_ref(), seen, &self.identity, now) {
            Decision::Follow => return Ok(false),
            Decision::Create => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(LeaseSpec {
                        acquire_time: Some(time.clone()),
                        ..self.spec(time)
                    }),
                };
                self.api.create(&PostParams::default(), &lease).await
            }
            decision @ (Decision::Renew | Decision::Take) => {
                let Some(mut lease) = lease else {
                    return Ok(false);
                };
                let old = lease.spec.take().unwrap_or_default();
                let mut spec = self.spec(time.clone());
                if decision == Decision::Take {
                    spec.acquire_time = Some(time);
                    spec.lease_transitions = Some(old.lease_transitions.unwrap_or(0) + 1);
                } else {
                    spec.acquire_time = old.acquire_time;
                    spec.lease_transitions = old.lease_transitions;
                }
                lease.spec = Some(spec);
                // The resourceVersion read makes two takers one.
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, time: MicroTime) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(time),
            ..LeaseSpec::default()
        }
    }

    async fn give_back(&self) -> Result<(), kube::Error> {
        let lease = self.api.get(&self.name).await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        if holder.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        let patch = serde_json::json!({
            "metadata": {"resourceVersion": lease.metadata.resource_version},
            "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
        });
        self.api
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    fn lease(holder: &str, renewed: i64) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(jiff::Timestamp::from_second(renewed).unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn an_absent_own_or_free_lease_is_ours() {
        let now = Instant::now();
        let mut seen = Seen::default();
        assert_eq!(decide(None, &seen, "a", now), Decision::Create);
        seen.note(&lease("a", 1), now);
        assert_eq!(
            decide(Some(&lease("a", 1)), &seen, "a", now),
            Decision::Renew
        );
        assert_eq!(decide(Some(&lease("", 1)), &seen, "a", now), Decision::Take);
    }

    #[test]
    fn a_holder_is_believed_for_its_duration_on_our_clock() {
        let start = Instant::now();
        let mut seen = Seen::default();
        // The time in it lies years back: clocks may differ.
        seen.note(&lease("b", 1), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            decide(Some(&lease("b", 1)), &seen, "a", at(14)),
            Decision::Follow
        );
        assert_eq!(
            decide(Some(&lease("b", 1)), &seen, "a", at(15)),
            Decision::Take
        );
        seen.note(&lease("b", 2), at(14));
        assert_eq!(
            decide(Some(&lease("b", 2)), &seen, "a", at(28)),
            Decision::Follow
        );
    }

    #[test]
    fn a_leader_stops_before_another_may_start() {
        assert!(RENEW_DEADLINE + CALL < DURATION);
    }

    /// A leader, with what renews its Lease and what counts its machine's sleep.
    fn leading() -> (watch::Sender<Option<End>>, Leadership, Arc<AtomicU64>) {
        let slept = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let uptime = Uptime::from_fn({
            let slept = slept.clone();
            move || start.elapsed() + Duration::from_secs(slept.load(Ordering::Relaxed))
        });
        let (sender, until) = watch::channel(Some(End::after(RENEW_DEADLINE, &uptime)));
        (sender, Leadership { until, uptime }, slept)
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_slept_does_not_write() {
        let (sender, leadership, slept) = leading();
        assert!(leadership.leads());
        // The timers have stood still.
        let sleep = |seconds| slept.fetch_add(seconds, Ordering::Relaxed);
        sleep(10);
        assert!(!leadership.leads());
        assert_eq!(leadership.hold(async {}).await, None, "nothing begins");
        tokio::time::timeout(LOOK, leadership.lost()).await.unwrap();
        let renew = || sender.send_replace(Some(End::after(RENEW_DEADLINE, &leadership.uptime)));
        renew();
        assert!(leadership.leads(), "it renewed the Lease after it woke");

        // What is under way when it falls asleep goes no further, whether it waits ...
        let start = Instant::now();
        let falls_asleep = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            sleep(9);
        };
        let long = tokio::time::sleep(Duration::from_secs(9));
        let (held, ()) = tokio::join!(leadership.hold(long), falls_asleep);
        assert_eq!(held, None);
        assert!(start.elapsed() <= Duration::from_secs(2) + LOOK);
        // ... or is given its answer at once.
        renew();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let wrote = AtomicU64::new(0);
        let work = async {
            answered.await.unwrap();
            wrote.store(1, Ordering::Relaxed);
        };
        let wakes = async {
            sleep(60);
            answer.send(()).unwrap();
        };
        let (held, ()) = tokio::join!(leadership.hold(work), wakes);
        assert_eq!((held, wrote.into_inner()), (None, 0));
    }

    #[test]
    fn the_machine_is_up() {
        let uptime = Uptime::system();
        let first = uptime.now();
        assert!(first > Duration::ZERO && uptime.now() >= first);
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_with_the_lease() {
        let (sender, leadership, _) = leading();
        let after = |long| Some(End::after(long, &leadership.uptime));
        let start = Instant::now();
        let work = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let renew = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            sender.send_replace(after(RENEW_DEADLINE));
        };
        // It lasts as long as the Lease is renewed, and not longer.
        let (held, ()) = tokio::join!(leadership.hold(work(60)), renew);
        assert_eq!(held, None);
        assert_eq!(start.elapsed(), Duration::from_secs(18));
        assert_eq!(
            leadership.hold(async {}).await,
            None,
            "nothing begins after"
        );

        sender.send_replace(after(RENEW_DEADLINE));
        assert_eq!(leadership.hold(work(9)).await, Some(()));
        let seconds = Duration::from_secs;
        sender.send_replace(after(RENEW_DEADLINE));
        assert_eq!(leadership.within(seconds(9), work(8)).await, Ok(()));
        sender.send_replace(after(RENEW_DEADLINE));
        let late = leadership.within(seconds(7), work(8)).await;
        assert_eq!(late, Err(Unfinished::Late(seconds(7))));
        sender.send_replace(after(RENEW_DEADLINE));
        let start = Instant::now();
        let lose = async {
            sender.send_replace(None);
        };
        let (held, ()) = tokio::join!(leadership.hold(work(1)), lose);
        assert_eq!((held, start.elapsed()), (None, Duration::ZERO));
        assert_eq!(Leadership::always().hold(work(3600)).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_by_itself() {
        let (sender, leadership, _) = leading();
        assert!(leadership.leads());
        tokio::time::advance(RENEW_DEADLINE).await;
        assert!(!leadership.leads());
        drop(sender);
    }
}
