//! Moves a tenant's data to another DataStore while the tenant runs
//! ([`storage::moving`] does the copying). One task for each tenant, which mostly sleeps.
//!
//! # What says where the data is
//! The claims in the databases, and nothing else: the tenant is served from the one whose
//! claim has stage `Serving`, or `Frozen` if no other has. Status is a report. It is read
//! for one thing only: where a move led that another process has begun.
//!
//! # Flow
//! A wish ([`moving::target`]) begins a move as soon as both databases are well and few
//! enough others are under way. Until the claim of the target is in service, whatever ends
//! the move leaves the source in service and nothing in the target. From then on there is
//! no way back but another move: pods are given the target, and once none is left of
//! before, the source's rights are taken away. Its copy is recorded on the DataStore as to
//! be removed after a time.

mod attempt;
mod told;

use std::sync::Arc;
use std::time::Duration;

use apiservice::names;
use apiservice::v1alpha1::{MigrationPhase as Phase, MigrationStatus, TenantControlPlane};
use jiff::{SignedDuration, Timestamp};
use storage::tenancy::{Claim, Stage, Tenancy};
use tokio::time::Instant;

use crate::apply::pending::{Left, keep_no_more, keep_until};
use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::observe;
use crate::observers::access;
use crate::process::lease::Unfinished;
use crate::process::observers::pause;
use crate::process::timing;
use crate::report::progress;
use crate::tenant::backing::facts::Held;
use crate::tenant::backing::moving;
use crate::tenant::{World, deletion, objects};
use apiservice::condition::reason;
use told::HeldUp;

/// The tenant that a task is about, at one moment.
struct About<'a> {
    ctx: &'a Context,
    name: &'a NamespacedName,
    uid: &'a str,
}

/// How often a move failed in a row, and when the next is tried.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    /// To which DataStore.
    target: String,
    until: Option<Instant>,
    /// Since when the pods of before have to end, with the new ones serving.
    ending: Option<Instant>,
}

impl Failures {
    /// After a move that is called off: each makes a database and takes it away again, so the
    /// next to the same target waits a little.
    fn called_off(migration: &MigrationStatus) -> Self {
        let (pause, _) = timing::MIGRATION_AGAIN;
        Failures {
            target: migration.target.clone().unwrap_or_default(),
            until: Some(Instant::now() + pause),
            ..Failures::default()
        }
    }
}

/// How long a copy is kept at least of whose readers nobody knows that they have ended.
const UNSEEN_PODS: SignedDuration = SignedDuration::from_mins(60);

/// How long a copy is kept at most, as the subresource admits it too.
const LONGEST_KEPT: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Looks after the moves of one tenant until the task is ended.
pub async fn run(ctx: Arc<Context>, name: NamespacedName, uid: String) {
    let wake = ctx.facts.tenant(&uid).wake_migration;
    let mut failures = Failures::default();
    loop {
        let about = About {
            ctx: &ctx,
            name: &name,
            uid: &uid,
        };
        let wait = about.turn(&mut failures).await;
        pause(wait, &wake).await;
    }
}

/// What is to be done about a move.
#[derive(Debug, PartialEq)]
enum Wish {
    Nothing,
    /// The data is to be brought there.
    Move(String),
    /// The data is there, and pods, rights and copies are still as before.
    Finish(MigrationStatus),
    /// What was begun is not wanted any more.
    CallOff(MigrationStatus),
    /// A move was left by somebody of whom nothing else is known.
    Thaw,
}

/// From what is wanted, where the data is, and what is said of the last move.
fn wish(tenant: &TenantControlPlane, held: &Held, said: Option<MigrationStatus>) -> Wish {
    let open = said.filter(|it| moving::is_under_way(Some(it)));
    if let Some(it) = &open
        && it.target.as_ref() == Some(&held.data_store)
    {
        return Wish::Finish(it.clone());
    }
    match (moving::target(tenant, &held.data_store), open) {
        (Some(target), None) => Wish::Move(target),
        (Some(target), Some(open)) if open.target.as_ref() == Some(&target) => Wish::Move(target),
        (_, Some(open)) => Wish::CallOff(open),
        (None, None) if held.claim.stage == Stage::Frozen => Wish::Thaw,
        (None, None) => Wish::Nothing,
    }
}

impl About<'_> {
    /// One look; how long until the next.
    async fn turn(&self, failures: &mut Failures) -> Duration {
        let Some(tenant) = self.tenant() else {
            return timing::MIGRATION_LOOK;
        };
        let facts = self.ctx.facts.tenant(self.uid);
        let said = facts.migration_of(&tenant);
        let Some(held) = facts.held else {
            self.without_data(&tenant, said);
            return timing::MIGRATION_LOOK;
        };
        match wish(&tenant, &held, said) {
            Wish::Nothing => timing::MIGRATION_LOOK,
            Wish::Move(target) => self.attempt(&tenant, &held, &target, failures).await,
            Wish::Finish(migration) => self.finish(&tenant, migration, &mut failures.ending).await,
            Wish::CallOff(migration) => {
                *failures = Failures::called_off(&migration);
                self.call_off(&tenant, &held, migration).await
            }
            Wish::Thaw => {
                if let Err(why) = self.thaw(&held).await {
                    tracing::warn!(tenant = %self.name, "writes are still refused: {why}");
                }
                timing::MIGRATION_LOOK
            }
        }
    }

    /// The tenant as it is now; none if it is another one, or not ours to look at.
    fn tenant(&self) -> Option<Arc<TenantControlPlane>> {
        let tenant = self.ctx.caches.tenants.get(self.name)?;
        let same = tenant.metadata.uid.as_deref() == Some(self.uid);
        (same && self.ctx.leadership.leads()).then_some(tenant)
    }

    /// Nothing can be on its way of a tenant that is deleted before it has data.
    fn without_data(&self, tenant: &TenantControlPlane, said: Option<MigrationStatus>) {
        let open = said.filter(|it| moving::is_under_way(Some(it)));
        if let Some(mut open) = open.filter(|_| tenant.metadata.deletion_timestamp.is_some()) {
            open.phase = Phase::Aborted;
            self.tell(open);
        }
    }

    /// Makes known how far a move is.
    fn tell(&self, migration: MigrationStatus) {
        let changed = self.ctx.facts.update_tenant(self.uid, |facts| {
            let changed = facts.migration.as_ref() != Some(&migration);
            facts.migration = Some(migration);
            changed
        });
        if changed {
            self.ctx.queue.add(Key::Tenant(self.name.clone()));
        }
    }

    /// The same, with an Event about it.
    async fn tell_all(&self, warning: bool, why: &'static str, migration: MigrationStatus) {
        let message = moving::told(&migration);
        tracing::info!(tenant = %self.name, reason = why, "{message}");
        self.ctx.metrics.migration(why);
        self.tell(migration);
        if let Some(tenant) = self.tenant() {
            let events = &self.ctx.events;
            events.tell(tenant.as_ref(), warning, why, &message).await;
        }
    }

    async fn is_gone(&self, data_store: &str) -> Result<bool, String> {
        access::is_taken_away(self.ctx, data_store).await
    }

    fn store(&self, name: &str) -> Result<Arc<dyn Tenancy>, String> {
        let store = self.ctx.caches.data_store(name);
        let store = store.ok_or_else(|| format!("DataStore {name} does not exist"))?;
        let connections = &self.ctx.connections;
        connections
            .get(&store, &self.ctx.caches)
            .map_err(|error| error.to_string())
    }

    /// Within a deadline, and no longer than this replica leads.
    async fn timed<R, E: std::fmt::Display>(
        &self,
        work: impl Future<Output = Result<R, E>>,
    ) -> Result<R, String> {
        let leadership = &self.ctx.leadership;
        match leadership.within(timing::DROP_DEADLINE, work).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(Unfinished::Late(_)) => Err("the datastore does not answer".to_owned()),
            Err(ended) => Err(ended.to_string()),
        }
    }

    /// The claims of this tenant in a datastore.
    async fn claims(&self, store: &dyn Tenancy) -> Result<Vec<Claim>, String> {
        self.timed(store.claims(self.uid)).await
    }

    /// Takes away what is in the target and brings the source back into service, whoever
    /// has begun the move. As long as it cannot be known whether the target was put in
    /// service, the source stays as it is: data is never written in two places.
    async fn call_off(
        &self,
        tenant: &TenantControlPlane,
        held: &Held,
        mut migration: MigrationStatus,
    ) -> Duration {
        let target = migration.target.clone().unwrap_or_default();
        let cleared = self.clear(tenant, held, &target).await;
        // Of one that goes, both places are removed, whichever of them serves.
        let leaving = tenant.metadata.deletion_timestamp.is_some();
        if let Err(held_up) = &cleared {
            if !leaving && self.serves_from(&held.data_store).await != Ok(true) {
                return self.wait_for(migration, &target, held_up);
            }
            let why = held_up.why();
            let problem = format!("a move to DataStore {target} was called off: {why}");
            let left = Left {
                claim: &held.claim,
                until: self.ctx.now(),
                known: false,
                why: &problem,
            };
            if let Err(why) = keep_until(self.ctx, &target, &left).await {
                tracing::warn!(tenant = %self.name, "{problem}; not recorded: {why}");
            }
        }
        let frozen = held.claim.stage == Stage::Frozen || moving::stops_writes(migration.phase);
        if !leaving && let Err(why) = self.thaw(held).await {
            // Of one that could write, there is nothing to be let through again.
            if frozen {
                return self.wait_for(migration, &target, &HeldUp::Otherwise(why));
            }
            tracing::warn!(tenant = %self.name, "whether it can write is not known: {why}");
        }
        migration.phase = Phase::Aborted;
        migration.completion_time = Some(told::time(self.ctx.now()));
        migration.message = cleared.err().map(|held_up| {
            format!(
                "what the move has brought to DataStore {target:?} is removed later, unless it is \
                 what serves: {}",
                held_up.why().trim_end_matches('.')
            )
        });
        self.tell_all(false, reason::MIGRATION_ABORTED, migration)
            .await;
        timing::MIGRATION_STEP
    }

    /// Says for what a tenant waits that cannot write; how long until the next look.
    fn wait_for(&self, migration: MigrationStatus, target: &str, held_up: &HeldUp) -> Duration {
        let store = self.ctx.caches.data_store(target);
        let deleting = store.is_some_and(|it| it.metadata.deletion_timestamp.is_some());
        self.tell(told::stuck(migration, target, held_up, deleting));
        timing::MIGRATION_WAITS
    }

    /// Whether the tenant can write in this datastore: then no other one serves it.
    async fn serves_from(&self, data_store: &str) -> Result<bool, String> {
        let store = self.store(data_store)?;
        let claims = self.claims(store.as_ref()).await?;
        Ok(claims.iter().any(|claim| claim.stage == Stage::Serving))
    }

    /// Takes away what a move has brought to a datastore, as long as it is not in service.
    async fn clear(
        &self,
        tenant: &TenantControlPlane,
        held: &Held,
        target: &str,
    ) -> Result<(), HeldUp> {
        if self.is_gone(target).await.map_err(HeldUp::Otherwise)? {
            return Ok(());
        }
        let store = self.store(target).map_err(HeldUp::Target)?;
        let claims = self.claims(store.as_ref()).await;
        for claim in claims.map_err(HeldUp::Target)? {
            match claim.stage {
                Stage::Incoming => {
                    let emptied = self.empty(store.as_ref(), &claim).await;
                    emptied.map_err(HeldUp::Target)?;
                }
                Stage::Serving | Stage::Frozen => {
                    let leaving = tenant.metadata.deletion_timestamp.is_some();
                    let writes = self.serves_from(&held.data_store).await;
                    let writes = writes.map_err(|why| of(&held.data_store, &why))?;
                    match in_use(claim.stage, writes, leaving) {
                        InUse::HasLeft => {
                            let left = self.timed(store.turn(&claim, Stage::Left, None)).await;
                            let left = left.map_err(HeldUp::Target)?;
                            let kept = self.keep_left(tenant, target, &left).await;
                            kept.map_err(HeldUp::Otherwise)?;
                        }
                        InUse::Counts => {
                            self.hold(target, claim);
                            let why = "the tenant is served from there already".to_owned();
                            return Err(HeldUp::Otherwise(why));
                        }
                        InUse::Stays(why) => return Err(HeldUp::Otherwise(why.to_owned())),
                    }
                }
                // What an earlier move has left, if the attempt has come no further than to
                // take its record away.
                Stage::Left => {
                    let kept = self.keep_left(tenant, target, &claim).await;
                    kept.map_err(HeldUp::Otherwise)?;
                }
            }
        }
        Ok(())
    }

    /// Takes away what was brought to a datastore.
    async fn empty(&self, store: &dyn Tenancy, claim: &Claim) -> Result<(), String> {
        // What is on its way to put it in service finds another claim than it had.
        let turned = store.turn(claim, Stage::Incoming, None);
        let claim = self.timed(turned).await?;
        self.timed(store.revoke(&claim)).await?;
        self.timed(store.drop_data(&claim)).await?;
        self.timed(store.release(&claim)).await
    }

    /// Records what a move has left, unless that is recorded.
    async fn keep_left(
        &self,
        tenant: &TenantControlPlane,
        data_store: &str,
        claim: &Claim,
    ) -> Result<(), String> {
        if self.is_recorded(data_store) {
            return Ok(());
        }
        let left = Left {
            claim,
            until: kept_until(tenant, self.ctx.now()),
            known: true,
            why: "its data was moved to another DataStore",
        };
        keep_until(self.ctx, data_store, &left).await
    }

    /// Whether a DataStore notes that something of the tenant is to be removed from it.
    fn is_recorded(&self, data_store: &str) -> bool {
        let store = self.ctx.caches.data_store(data_store);
        let status = store.and_then(|store| store.status.clone());
        let mut pending = status.into_iter().flat_map(|it| it.pending_cleanups);
        pending.any(|it| it.uid == self.uid)
    }

    /// Lets the tenant write again where its data is.
    async fn thaw(&self, held: &Held) -> Result<(), String> {
        let of = |why: String| format!("DataStore {}: {why}", held.data_store);
        let store = self.store(&held.data_store)?;
        for claim in self.claims(store.as_ref()).await.map_err(of)? {
            if claim.stage == Stage::Frozen {
                let tenant = self.tenant().ok_or("the tenant is gone")?;
                let password = self.known_password(&tenant);
                let serving = store.turn(&claim, Stage::Serving, password.as_ref());
                let claim = self.timed(serving).await.map_err(of)?;
                self.hold(&held.data_store, claim);
            }
        }
        Ok(())
    }

    /// The claim by which the tenant is served now.
    fn hold(&self, data_store: &str, claim: Claim) {
        self.ctx.facts.update_tenant(self.uid, |facts| {
            facts.held = Some(Held {
                data_store: data_store.to_owned(),
                claim,
            });
        });
    }

    /// Ends a move whose data is in service in the target: pods first, then the source.
    async fn finish(
        &self,
        tenant: &TenantControlPlane,
        mut migration: MigrationStatus,
        ending: &mut Option<Instant>,
    ) -> Duration {
        if migration.phase != Phase::Switching || migration.message.is_some() {
            // Another process brought it so far and could not say so, or what was waited for
            // is known.
            migration.phase = Phase::Switching;
            migration.message = None;
            self.tell(migration.clone());
        }
        let leaving = tenant.metadata.deletion_timestamp.is_some();
        let world = observe::world(self.name, self.ctx);
        let switched = world.as_ref().is_some_and(progress::has_switched);
        if !switched && !leaving {
            self.ctx.facts.tenant(self.uid).wake_probe.notify_one();
            *ending = None;
            return timing::MIGRATION_STEP;
        }
        let source = migration.source.clone().unwrap_or_default();
        let now = self.ctx.now();
        let mut until = kept_until(tenant, now);
        if leaving || !world.is_some_and(|world| has_ended(&world)) {
            // The pods of a node that is gone never end.
            let since = *ending.get_or_insert_with(Instant::now);
            if !leaving && since.elapsed() < timing::MIGRATION_PODS_END {
                return timing::MIGRATION_STEP;
            }
            let unseen = now.checked_add(UNSEEN_PODS).unwrap_or(Timestamp::MAX);
            until = until.max(unseen);
        }
        migration.message = None;
        if let Err(why) = self.leave(&source, until).await {
            tracing::warn!(tenant = %self.name, "DataStore {source} is not left yet: {why}");
            // A deletion does not wait for it for ever.
            let since = *ending.get_or_insert_with(Instant::now);
            if !leaving || since.elapsed() < timing::MIGRATION_PODS_END {
                return timing::MIGRATION_WAITS;
            }
            migration.message = Some(format!(
                "what is left in DataStore {source} is not recorded; remove it there"
            ));
        }
        *ending = None;
        migration.phase = Phase::Completed;
        migration.completion_time = Some(told::time(now));
        migration.source_kept_until = Some(told::time(until));
        migration.failures = None;
        self.tell_all(false, reason::MIGRATED, migration).await;
        timing::MIGRATION_LOOK
    }

    /// Records what is left in the source, and takes the rights there away. A source that
    /// does not answer, or is gone, holds nothing up.
    async fn leave(&self, source: &str, until: Timestamp) -> Result<(), String> {
        if self.is_gone(source).await? {
            return Ok(());
        }
        let claim = match self.store(source) {
            Ok(store) => self.turn_left(store.as_ref()).await,
            Err(why) => Err(why),
        };
        let (claim, why) = match claim {
            Ok(None) => return Ok(()),
            Ok(Some(claim)) => (claim, "its data was moved to another DataStore".to_owned()),
            Err(why) => {
                let held = self.ctx.facts.tenant(self.uid).held;
                let held = held.ok_or("it is not known where the data is")?;
                (held.claim, why)
            }
        };
        let left = Left {
            claim: &claim,
            until,
            known: true,
            why: &why,
        };
        keep_until(self.ctx, source, &left).await
    }

    /// Takes the rights in the source away, if there are any.
    async fn turn_left(&self, store: &dyn Tenancy) -> Result<Option<Claim>, String> {
        for claim in self.claims(store).await? {
            match claim.stage {
                Stage::Frozen => {
                    let left = self.timed(store.turn(&claim, Stage::Left, None)).await?;
                    return Ok(Some(left));
                }
                Stage::Left => return Ok(Some(claim)),
                Stage::Serving | Stage::Incoming => {}
            }
        }
        Ok(None)
    }
}

/// What a DataStore has said that is not the target of the move.
fn of(data_store: &str, why: &str) -> HeldUp {
    HeldUp::Otherwise(format!("DataStore {data_store}: {why}"))
}

/// What a place is in which a move that is called off finds the tenant's data in use.
#[derive(Debug, PartialEq)]
enum InUse {
    /// An earlier move ended while it could not be reached.
    HasLeft,
    /// What is to be called off is done: from now on that is where the data is.
    Counts,
    Stays(&'static str),
}

/// By its stage, by whether the tenant writes where it is held, and whether it is deleted.
fn in_use(stage: Stage, writes: bool, leaving: bool) -> InUse {
    match (stage, writes) {
        (Stage::Serving, true) => InUse::Stays(
            "the tenant is served from there, too, and without what it has written since",
        ),
        // Both are removed, and the deletion knows of the one where it is held.
        (Stage::Serving, false) if leaving => InUse::Stays("the tenant is served from there"),
        (Stage::Serving, false) => InUse::Counts,
        (_, true) => InUse::HasLeft,
        (_, false) => InUse::Stays("it is frozen there as well as where it is to stay"),
    }
}

/// Whether no pod is left that was given another DataStore, those that are ending included:
/// an API server that still runs there would tell nodes that everything was deleted when the
/// copy is, and they would end what they run.
fn has_ended(world: &World) -> bool {
    let live = world.deployment().and_then(|live| live.spec.as_ref());
    let replicas = match world.is_asleep() {
        true => 0,
        false => live.and_then(|spec| spec.replicas).unwrap_or(1),
    };
    let running = deletion::running(&world.pods, &[]);
    world.pods_known && running <= usize::try_from(replicas).unwrap_or(0)
}

/// Until when the source keeps its copy.
fn kept_until(tenant: &TenantControlPlane, now: Timestamp) -> Timestamp {
    let asked = objects::annotation(
        &tenant.metadata,
        names::ANNOTATION_MIGRATION_SOURCE_RETENTION,
    );
    let asked = asked.and_then(apiservice::duration::parse);
    let usual = SignedDuration::try_from(names::MIGRATION_SOURCE_RETENTION);
    let keep = asked.or(usual.ok()).unwrap_or_default();
    let keep = keep.clamp(SignedDuration::ZERO, LONGEST_KEPT);
    now.checked_add(keep).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data is never served from two places, and never from the one without the last writes.
    #[test]
    fn what_is_in_use_is_not_called_off() {
        use Stage::{Frozen, Serving};
        assert_eq!(in_use(Serving, false, false), InUse::Counts);
        for (stage, writes, leaving) in [
            (Serving, true, false),
            (Serving, true, true),
            (Serving, false, true),
            (Frozen, false, false),
            (Frozen, false, true),
        ] {
            let found = in_use(stage, writes, leaving);
            assert!(
                matches!(found, InUse::Stays(_)),
                "{stage:?} {writes}: {found:?}"
            );
        }
        assert_eq!(in_use(Frozen, true, false), InUse::HasLeft);
        assert_eq!(in_use(Frozen, true, true), InUse::HasLeft);
    }

    #[test]
    fn copies_are_not_kept_for_ever() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let kept = |asked: &str| {
            let mut tenant = TenantControlPlane::new("t", Default::default());
            let annotations = tenant.metadata.annotations.get_or_insert_default();
            let name = names::ANNOTATION_MIGRATION_SOURCE_RETENTION;
            annotations.insert(name.to_owned(), asked.to_owned());
            kept_until(&tenant, now).duration_since(now)
        };
        assert_eq!(kept("2h"), SignedDuration::from_hours(2));
        assert_eq!(kept("-2h"), SignedDuration::ZERO);
        assert_eq!(kept("999999h"), LONGEST_KEPT);
        assert_eq!(kept("nonsense"), SignedDuration::from_hours(24));
    }

    /// Each move that is called off makes a place and takes it away.
    #[tokio::test(start_paused = true)]
    async fn who_calls_off_waits_a_little() {
        let migration = MigrationStatus {
            target: Some("there".to_owned()),
            ..MigrationStatus::default()
        };
        let failures = Failures::called_off(&migration);
        assert_eq!((failures.count, failures.target.as_str()), (0, "there"));
        let wait = failures.until.unwrap() - Instant::now();
        assert_eq!(wait, timing::MIGRATION_AGAIN.0);
    }

    fn held(data_store: &str, stage: Stage) -> Held {
        Held {
            data_store: data_store.into(),
            claim: crate::tenant::testing::claim().at(stage),
        }
    }

    fn said(phase: Phase, source: &str, target: &str) -> MigrationStatus {
        MigrationStatus {
            phase,
            source: Some(source.into()),
            target: Some(target.into()),
            ..MigrationStatus::default()
        }
    }

    fn tenant(data_store: &str) -> TenantControlPlane {
        let mut tenant = TenantControlPlane::new("t", Default::default());
        tenant.spec.data_store = Some(data_store.into());
        tenant
    }

    #[test]
    fn what_is_done_about_a_move() {
        let at = |stage| held("a", stage);
        let serving = || at(Stage::Serving);
        let of = |wanted: &str, held: Held, said| wish(&tenant(wanted), &held, said);
        assert_eq!(of("a", serving(), None), Wish::Nothing);
        assert_eq!(of("", serving(), None), Wish::Nothing, "it names none");
        assert_eq!(of("b", serving(), None), Wish::Move("b".into()));
        let ended = [Phase::Completed, Phase::Aborted];
        for phase in ended {
            let before = Some(said(phase, "b", "a"));
            assert_eq!(of("a", serving(), before.clone()), Wish::Nothing);
            assert_eq!(of("b", serving(), before), Wish::Move("b".into()));
        }
        let copying = said(Phase::Copying, "a", "b");
        let open = || Some(copying.clone());
        assert_eq!(of("b", serving(), open()), Wish::Move("b".into()), "go on");
        let off = || Wish::CallOff(copying.clone());
        assert_eq!(of("a", serving(), open()), off());
        assert_eq!(of("c", serving(), open()), off(), "before another");
        assert_eq!(of("a", at(Stage::Frozen), None), Wish::Thaw);
        assert_eq!(of("a", at(Stage::Frozen), open()), off());

        // It is in service there: whatever is said of the move, it cannot be called off.
        let there = || held("b", Stage::Serving);
        for wanted in ["a", "b", "c"] {
            let finish = Wish::Finish(copying.clone());
            assert_eq!(of(wanted, there(), open()), finish, "{wanted}");
        }
    }

    #[test]
    fn nothing_is_begun_for_who_goes_or_is_paused() {
        let mut going = tenant("b");
        going.metadata.deletion_timestamp = Some(told::time(Timestamp::UNIX_EPOCH));
        let mut paused = tenant("b");
        let annotations = paused.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_PAUSED.into(), String::new());
        for tenant in [going, paused] {
            let held = held("a", Stage::Serving);
            assert_eq!(wish(&tenant, &held, None), Wish::Nothing);
            let copying = said(Phase::Copying, "a", "b");
            let off = Wish::CallOff(copying.clone());
            assert_eq!(wish(&tenant, &held, Some(copying)), off);
        }
    }

    /// Seen: nodes ended what they ran, because a pod that was ending told them that all
    /// had been deleted.
    #[test]
    fn a_copy_stays_while_somebody_may_read_it() {
        let mut lab = crate::tenant::testing::Lab::ready();
        assert!(has_ended(&lab.world));
        let ending = lab.world.pods[0].clone();
        lab.world.pods.push(ending);
        assert!(!has_ended(&lab.world), "one is ending");
        lab.world.pods.pop();
        lab.world.pods_known = false;
        assert!(!has_ended(&lab.world), "nobody knows");
        lab.world.pods_known = true;
        lab.spec().control_plane.deployment.replicas = 0;
        assert!(!has_ended(&lab.world), "it has just fallen asleep");
        lab.world.pods.clear();
        assert!(has_ended(&lab.world));
    }

    #[test]
    fn a_copy_is_kept_as_long_as_asked() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let kept = |text: Option<&str>| {
            let mut tenant = tenant("b");
            let annotations = tenant.metadata.annotations.get_or_insert_default();
            let name = names::ANNOTATION_MIGRATION_SOURCE_RETENTION;
            annotations.extend(text.map(|text| (name.to_owned(), text.to_owned())));
            kept_until(&tenant, now).duration_since(now).as_secs()
        };
        assert_eq!(kept(None), 24 * 60 * 60);
        assert_eq!(kept(Some("72h")), 72 * 60 * 60);
        assert_eq!(kept(Some("0s")), 0);
        assert_eq!(kept(Some("-1h")), 0);
        assert_eq!(kept(Some("for ever")), 24 * 60 * 60);
    }
}
