//! One move, from its beginning to its end.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::compare::{self, Same};
use super::copy::{Both, Rewrite};
use super::error::{MoveError, Stop, of_source, of_target};
use super::progress::{Limits, Phase, Progress, Report};
use super::side::{Held, Side, clear, stored, thaw};
use crate::tenancy::{Claim, Data, Stage, TenancyError};

/// How often a copy is begun, all in all.
const COPIES: u32 = 6;
/// What the margin is multiplied by when the source has overtaken it.
const WIDER: u64 = 10;
/// Revisions that a target is ahead, if nobody says: etcd is raised by writes.
/// So is one to which the tenant is moved later: what a SQL database is ahead has to be
/// written there.
const MARGIN: u64 = 5_000;
/// How often both sides are compared, with what differs mended in between.
const COMPARISONS: u32 = 4;
/// How long changes are followed before the freeze, at most, and what is little of them.
const FOLLOWING: Duration = Duration::from_secs(60);
const LITTLE: Duration = Duration::from_millis(200);
/// A round of which the tenant may wait for the end.
const SHORT: Duration = Duration::from_secs(3);

/// Whether the target is as close as it comes while the tenant writes: a round took little
/// time, or hardly less than the one before, in which as much had been written.
fn is_close(took: Duration, before: Duration) -> bool {
    took < LITTLE || took < SHORT && took.as_secs_f64() > 0.7 * before.as_secs_f64()
}

/// What the target is once nothing that was on its way there can put it in service.
enum Fenced {
    /// Incoming, by this claim.
    Incoming(Claim),
    /// There is none, or it was left.
    Absent,
    /// It serves, or has served: whether the source still counts is for others to find out.
    Serves,
}

/// Waits until an instant; for ever if there is none, or the clock does not go that far.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// What is known of one move.
pub struct Job<'a> {
    source: &'a Side,
    target: &'a Side,
    limits: &'a Limits,
    told: &'a (dyn Fn(Progress) + Send + Sync),
    stop: &'a CancellationToken,
    begun: Instant,
    frozen: Option<Instant>,
    copying: Duration,
    progress: Progress,
    begun_anew: u32,
    /// The target was claimed by this move: no attempt before can put it in service.
    fenced: bool,
}

impl<'a> Job<'a> {
    pub fn new(
        source: &'a Side,
        target: &'a Side,
        limits: &'a Limits,
        told: &'a (dyn Fn(Progress) + Send + Sync),
        stop: &'a CancellationToken,
    ) -> Self {
        Job {
            source,
            target,
            limits,
            told,
            stop,
            begun: Instant::now(),
            frozen: None,
            copying: Duration::ZERO,
            progress: Progress {
                phase: Phase::Preparing,
                total_keys: None,
                copied_keys: 0,
                copied_bytes: 0,
                frozen_for: None,
            },
            begun_anew: 0,
            fenced: false,
        }
    }

    pub async fn run(mut self, held: Held) -> Result<Report, MoveError> {
        let verified = match self.prepare(held).await {
            Ok(()) => self.copy().await,
            Err(error) => Err(error),
        };
        match verified {
            Ok(report) => self.switch(report).await,
            Err(error) => {
                self.give_up().await;
                Err(error)
            }
        }
    }

    /// Says how far it is.
    fn tell(&mut self, phase: Phase) {
        self.progress.phase = phase;
        self.progress.frozen_for = self.frozen.map(|since| since.elapsed());
        (self.told)(self.progress);
    }

    /// Does something that can be left at any time, as long as there is time and nobody says
    /// stop. Claims are changed outside of this, so that no such request is on its way when
    /// it is given up.
    async fn within<T>(
        limits: &Limits,
        clocks: (Instant, Option<Instant>),
        stop: &CancellationToken,
        work: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        let (begun, frozen) = clocks;
        let whole = until(limits.whole.and_then(|whole| begun.checked_add(whole)));
        let freeze = until(frozen.and_then(|since| since.checked_add(limits.freeze)));
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(MoveError::Aborted.into()),
            () = freeze => Err(MoveError::FrozenTooLong(limits.freeze).into()),
            () = whole => Err(MoveError::TookTooLong(limits.whole.unwrap_or_default()).into()),
            done = work => done,
        }
    }

    /// A source that serves, and a target that nobody uses and that is empty.
    async fn prepare(&mut self, held: Held) -> Result<(), MoveError> {
        self.tell(Phase::Preparing);
        if let stage @ (Stage::Incoming | Stage::Left) = held.source.stage {
            return Err(MoveError::Refused(format!(
                "schema {:?} cannot be moved: it is {}, so that no tenant works with it",
                self.source.claim.schema,
                stage.as_str()
            )));
        }
        if held.target == Some(Stage::Frozen) && held.source.stage != Stage::Serving {
            return Err(MoveError::Refused(format!(
                "schema {:?} is frozen in both datastores: only a person can tell where the \
                 tenant's data is",
                self.target.claim.schema
            )));
        }
        self.refuse_prefix(&held.source)?;
        if self.stop.is_cancelled() {
            return Err(MoveError::Aborted);
        }
        self.claim_target(held.target).await.map_err(refusal)?;
        self.fenced = true;
        // Whoever froze it is gone, and can no longer put in service what it had copied.
        thaw(self.source).await.map_err(MoveError::Source)
    }

    /// In etcd, rights are for one prefix alone.
    fn refuse_prefix(&self, source: &Claim) -> Result<(), MoveError> {
        let target = &self.target.claim;
        let own = format!("/{}", target.schema);
        let prefix = target.prefix(self.target.tenancy.through_kine());
        if !self.target.tenancy.through_kine() && prefix != own {
            return Err(MoveError::Refused(format!(
                "the tenant's keys begin with {prefix:?}, which in etcd has to be {own:?}: move \
                 it with that as the prefix of the target's claim, which rewrites all keys"
            )));
        }
        let from = source.prefix(self.source.tenancy.through_kine());
        for prefix in [&prefix, &from] {
            if !prefix.starts_with('/') || prefix.ends_with('/') {
                return Err(MoveError::Refused(format!(
                    "the prefix {prefix:?} of the tenant's keys does not begin with a slash, or \
                     ends with one"
                )));
            }
        }
        Ok(())
    }

    async fn claim_target(&self, stage: Option<Stage>) -> Result<(), TenancyError> {
        let Side {
            tenancy,
            claim,
            password,
        } = self.target;
        let incoming = claim.at(Stage::Incoming);
        match stage {
            Some(stage @ (Stage::Left | Stage::Frozen)) => {
                if stage == Stage::Frozen {
                    // A move away from there ended while it could not be reached.
                    let frozen = claim.at(Stage::Frozen);
                    tenancy.turn(&frozen, Stage::Left, None).await?;
                }
                let left = claim.at(Stage::Left);
                let turned = tenancy.turn(&left, Stage::Incoming, password.as_ref());
                turned.await?;
            }
            // What an attempt before has left.
            Some(Stage::Incoming) => {
                let turned = tenancy.turn(&incoming, Stage::Incoming, password.as_ref());
                clear(self.target, &turned.await?).await?;
            }
            _ => {}
        }
        tenancy
            .prepare(&incoming, password.as_ref(), Data::New)
            .await
    }

    /// Copies until the target is the same as the source, which is frozen then.
    async fn copy(&mut self) -> Result<Report, MoveError> {
        let mut margin = self.limits.margin.unwrap_or(MARGIN);
        loop {
            let stopped = match self.copy_once(margin).await {
                Ok(report) => return Ok(report),
                Err(Stop::Failed(error)) => return Err(error),
                Err(stopped) => stopped,
            };
            self.begun_anew += 1;
            if self.frozen.take().is_some() {
                thaw(self.source).await.map_err(MoveError::Source)?;
            }
            let why = match stopped {
                Stop::Overtaken => {
                    margin = margin.saturating_mul(WIDER).max(margin + 1000);
                    "the source came to revisions that had been given in the target"
                }
                _ => "the source was compacted before what was written could be followed",
            };
            tracing::info!(why, margin, "the copy is begun anew");
            if self.begun_anew >= COPIES {
                return Err(MoveError::Differs(format!(
                    "the copy was begun {COPIES} times and not finished, at last because {why}; \
                     move the tenant when less is written"
                )));
            }
        }
    }

    async fn copy_once(&mut self, margin: u64) -> Result<Report, Stop> {
        let (limits, stop, begun) = (self.limits, self.stop, self.begun);
        let serving = self.source.claim.at(Stage::Serving);
        let mut both = {
            let open = self.open(&serving);
            Self::within(limits, (begun, None), stop, open).await?
        };
        let work = self.follow_serving(&mut both, margin);
        Self::within(limits, (begun, None), stop, work).await?;

        self.copying = self.begun.elapsed();
        let frozen = Instant::now();
        self.frozen = Some(frozen);
        self.tell(Phase::Freezing);
        let password = self.source.password.as_ref();
        let turned = self.source.tenancy.turn(&serving, Stage::Frozen, password);
        let claim = turned
            .await
            .map_err(|error| refused_by(MoveError::Source, error))?;

        let tenancy = &self.source.tenancy;
        let work = async {
            // The connection of before may have been ended with the tenant's.
            if both.source.newest().await.is_err() {
                both.source = tenancy
                    .contents(&claim, password)
                    .await
                    .map_err(MoveError::Source)?;
            }
            self.finish_frozen(&mut both).await
        };
        Self::within(limits, (begun, Some(frozen)), stop, work).await
    }

    /// Both sides, to be read and to be written.
    async fn open(&self, serving: &Claim) -> Result<Both<'a>, Stop> {
        let (source, target) = (self.source, self.target);
        let from = serving.prefix(source.tenancy.through_kine());
        let to = target.claim.prefix(target.tenancy.through_kine());
        let incoming = target.claim.at(Stage::Incoming);
        let opened = source.tenancy.contents(serving, source.password.as_ref());
        let reader = opened.await.map_err(|error| of_source(error.into()))?;
        let opened = target.tenancy.contents(&incoming, target.password.as_ref());
        let writer = opened.await.map_err(|error| of_target(error.into()))?;
        Ok(Both::new(reader, writer, Rewrite { from, to }))
    }

    /// All that is done while the tenant writes.
    async fn follow_serving(&mut self, both: &mut Both<'_>, margin: u64) -> Result<(), Stop> {
        self.tell(Phase::Preparing);
        both.raise(margin).await?;
        self.progress.total_keys = both.source.count().await.ok();
        self.tell(Phase::Copying);
        let mut tell = |keys: u64, bytes: u64| {
            self.progress.copied_keys += keys;
            self.progress.copied_bytes += bytes;
            (self.told)(self.progress);
        };
        both.copy(&mut tell).await?;
        self.tell(Phase::Following);
        let following = Instant::now();
        let mut before = Duration::MAX;
        loop {
            let round = Instant::now();
            both.follow(false).await?;
            both.refuse_overtaken(margin / 4).await?;
            let took = round.elapsed();
            if is_close(took, before) || following.elapsed() > FOLLOWING {
                return Ok(());
            }
            before = took;
            self.tell(Phase::Following);
        }
    }

    /// All that is done while the tenant cannot write.
    async fn finish_frozen(&mut self, both: &mut Both<'_>) -> Result<Report, Stop> {
        let source_revision = both.source.newest().await.map_err(of_source)?;
        both.refuse_overtaken(0).await?;
        both.follow(true).await?;
        self.tell(Phase::Verifying);
        let (same, mended) = self.verify(both).await?;
        let floor = both.floor;
        both.target.seal(floor).await.map_err(of_target)?;
        Ok(Report {
            done_before: false,
            keys: same.keys,
            bytes: same.bytes,
            digest: same.digest,
            copying: self.copying,
            frozen: Duration::ZERO,
            source_revision,
            target_revision: floor,
            mended,
            begun_anew: self.begun_anew,
        })
    }

    /// Compares until nothing differs and nothing was written since.
    async fn verify(&mut self, both: &mut Both<'_>) -> Result<(Same, u64), Stop> {
        let mut mended = 0;
        let mut last = String::new();
        for round in 0..COMPARISONS {
            let compared = compare::compare(both, round > 0).await;
            match compared {
                Err(Stop::Compacted) => continue,
                Err(stop) => return Err(stop),
                Ok(compare::Compared::Same(same)) => match both.follow(true).await? {
                    0 => return Ok((same, mended)),
                    // Somebody who was late has let the tenant write; or a lease has ended.
                    _ => both.refuse_overtaken(0).await?,
                },
                Ok(compare::Compared::Differs(keys)) => {
                    last = keys.first().cloned().unwrap_or_default();
                    mended += both.mend(&keys).await?;
                }
            }
            self.tell(Phase::Verifying);
        }
        Err(MoveError::Differs(format!(
            "the two datastores did not become the same: {mended} keys were mended in \
             {COMPARISONS} comparisons, and there are others, such as {last:?}; look for who else \
             writes to either of them, and try again"
        ))
        .into())
    }

    /// Puts the target in service. From here on nobody stops it.
    async fn switch(mut self, mut report: Report) -> Result<Report, MoveError> {
        self.tell(Phase::Switching);
        // Somebody who thaws the source takes it for the one that counts.
        let held = match stored(self.source).await {
            Ok(Some(claim)) if claim.stage == Stage::Frozen => Ok(()),
            Ok(_) => Err(MoveError::Refused(format!(
                "schema {:?} was let serve by somebody else while it was moved",
                self.source.claim.schema
            ))),
            Err(error) => Err(MoveError::Source(error)),
        };
        if let Err(error) = held {
            self.give_up().await;
            return Err(error);
        }
        let incoming = self.target.claim.at(Stage::Incoming);
        let password = self.target.password.as_ref();
        let turned = self
            .target
            .tenancy
            .turn(&incoming, Stage::Serving, password);
        if let Err(error) = turned.await {
            // Whether it was done is not known, and may still be on its way. Only if it can
            // be no more, the source is what counts.
            let fenced = match self.fence().await {
                Ok(Fenced::Incoming(claim)) => Some(claim),
                // It was answered, with a no, and so is whatever else would be written there.
                Err(_) if matches!(error, TenancyError::NoSpace(_)) => {
                    let found = stored(self.target).await.ok().flatten();
                    found.filter(|claim| claim.stage == Stage::Incoming)
                }
                _ => None,
            };
            if fenced.is_some() {
                self.thaw_and_clear(fenced).await;
            }
            return Err(MoveError::Target(error));
        }
        report.frozen = self.frozen.map_or(Duration::ZERO, |since| since.elapsed());
        Ok(report)
    }

    /// Lets the source serve, and takes the target away, which this move has not tried to put
    /// in service. Where one before it may have, the source stays as it is: data is never
    /// written in two places. What cannot be done now is left for [`super::undo`].
    async fn give_up(&self) {
        match self.fence().await {
            Ok(Fenced::Incoming(claim)) => self.thaw_and_clear(Some(claim)).await,
            Ok(Fenced::Absent) => self.thaw_and_clear(None).await,
            Ok(Fenced::Serves) => {
                tracing::warn!("the target of a move serves: the source stays as it is");
            }
            Err(_) if self.fenced => self.thaw_and_clear(None).await,
            Err(error) => tracing::warn!(
                %error,
                "whether a move has put its target in service is not known: the source stays as it is"
            ),
        }
    }

    /// Makes whatever is on its way to the incoming target fail.
    async fn fence(&self) -> Result<Fenced, TenancyError> {
        match stored(self.target).await? {
            Some(claim) if claim.stage == Stage::Incoming => {
                let password = self.target.password.as_ref();
                let tenancy = &self.target.tenancy;
                let turned = tenancy.turn(&claim, Stage::Incoming, password);
                Ok(Fenced::Incoming(turned.await?))
            }
            Some(claim) if claim.stage == Stage::Left => Ok(Fenced::Absent),
            None => Ok(Fenced::Absent),
            Some(_) => Ok(Fenced::Serves),
        }
    }

    async fn thaw_and_clear(&self, target: Option<Claim>) {
        if let Err(error) = thaw(self.source).await {
            tracing::warn!(%error, "the source of a move that failed stays frozen for now");
        }
        if let Some(claim) = target
            && let Err(error) = clear(self.target, &claim).await
        {
            tracing::warn!(%error, "the target of a move that failed is not empty yet");
        }
    }
}

/// What a datastore refused is nobody's failure.
fn refused_by(of: fn(TenancyError) -> MoveError, error: TenancyError) -> MoveError {
    match error {
        TenancyError::Refused(why) => MoveError::Refused(why),
        error => of(error),
    }
}

fn refusal(error: TenancyError) -> MoveError {
    refused_by(MoveError::Target, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody's bound may be beyond the end of the clock.
    #[tokio::test(start_paused = true)]
    async fn time_that_never_passes_stops_nothing() {
        let now = Instant::now();
        let stop = CancellationToken::new();
        let work = async || {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        };
        let done = async |whole, freeze| {
            let limits = Limits {
                whole: Some(whole),
                freeze,
                ..Limits::default()
            };
            let clocks = (now, Some(now));
            Job::within(&limits, clocks, &stop, work()).await.is_ok()
        };
        assert!(done(Duration::MAX, Duration::MAX).await);
        let now = Duration::ZERO;
        assert!(!done(now, Duration::MAX).await && !done(Duration::MAX, now).await);
    }

    #[test]
    fn a_busy_tenant_is_not_followed_for_ever() {
        let close =
            |took, before| is_close(Duration::from_millis(took), Duration::from_millis(before));
        assert!(close(100, u64::MAX));
        assert!(!close(1_000, u64::MAX), "the first round tells nothing");
        assert!(!close(500, 1_000), "each is much shorter");
        assert!(close(450, 500));
        assert!(close(900, 500), "or longer");
        assert!(!close(4_000, 4_000), "nobody is to wait for that");
    }
}
