//! One attempt to move a tenant's data.

use std::sync::Arc;
use std::time::Duration;

use apiservice::condition::reason;
use apiservice::names::{self, key};
use apiservice::v1alpha1::{DataStore, MigrationPhase, MigrationStatus, TenantControlPlane};
use parking_lot::Mutex;
use storage::moving::{self as data, Limits, MoveError, Progress, Report, Side};
use storage::tenancy::{Claim, Password, Stage};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::told::HeldUp;
use super::{About, Failures, keep_no_more, of, told};
use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::datastores::credentials;
use crate::process::lease::Unfinished;
use crate::process::places::Places;
use crate::process::timing;
use crate::report::diagnose::quote;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::StoreReport;
use crate::tenant::backing::facts::{AccessFact, Held, StoreProblemKind};
use crate::tenant::backing::{moving, password, settings};
use crate::tenant::objects;

/// Moves under way at a time: each reads and writes as fast as both databases let it.
static MOVES: Places = Places::new(2, timing::ASKS_AGAIN);

/// Both ends, ready to begin.
struct Ends {
    source: Side,
    target: Side,
}

/// What became of a tenant that could not write.
enum Settled {
    /// It is served from the target.
    Moved,
    /// It is served from where it was, or the attempt is to say what is wrong there.
    Writes,
}

impl About<'_> {
    /// Moves the data to `target` if all is well there and here; says why not otherwise.
    pub(super) async fn attempt(
        &self,
        tenant: &TenantControlPlane,
        held: &Held,
        target: &str,
        failures: &mut Failures,
    ) -> Duration {
        if failures.target != target {
            *failures = Failures {
                target: target.to_owned(),
                ..Failures::default()
            };
        }
        let source = held.data_store.as_str();
        let before = || self.ctx.facts.migration_of(tenant);
        // Whoever cannot write is looked after before anything else, and waits for nobody's
        // place: others may have theirs for hours.
        let stopped = before().is_some_and(|it| moving::stops_writes(it.phase));
        if (stopped || held.claim.stage == Stage::Frozen)
            && let Some(wait) = self.look_after(tenant, held, target, before()).await
        {
            return wait;
        }
        if let Some(until) = failures.until.filter(|until| Instant::now() < *until) {
            return until.saturating_duration_since(Instant::now());
        }
        // Who cleans up there after an earlier move does it before, or not at all.
        let rights = self.ctx.facts.tenant(self.uid).rights;
        let changing = rights.lock().await;
        // Before anything is changed.
        let begun = match MOVES.take(&self.name.namespace) {
            Some(place) => self
                .ends(tenant, held, target)
                .await
                .map(|ends| (ends, place)),
            None => Err("others are being moved, and two are at a time".to_owned()),
        };
        let (ends, _place) = match begun {
            Ok(begun) => begun,
            Err(why) => {
                self.tell(told::pending(source, target, before(), why));
                return timing::MIGRATION_WAITS;
            }
        };
        let migration = MigrationStatus {
            phase: MigrationPhase::Preparing,
            source: Some(source.to_owned()),
            target: Some(target.to_owned()),
            start_time: Some(told::time(self.ctx.now())),
            failures: i32::try_from(failures.count)
                .ok()
                .filter(|count| *count > 0),
            ..MigrationStatus::default()
        };
        self.tell(migration.clone());
        drop(changing);
        self.tell_all(false, reason::MIGRATING, migration.clone())
            .await;
        let (result, mut migration) = self.move_data(&ends, migration, target).await;
        match result {
            None => timing::MIGRATION_LOOK,
            Some(Ok(report)) => {
                *failures = Failures::default();
                self.moved(ends.target, target, migration, &report);
                timing::MIGRATION_STEP
            }
            // The next look does what is to be done instead.
            Some(Err(MoveError::Aborted)) => Duration::ZERO,
            Some(Err(error)) => {
                failures.count += 1;
                let (first, slowest) = timing::MIGRATION_AGAIN;
                let wait = timing::observer_backoff(first, slowest, failures.count);
                failures.until = Some(Instant::now() + wait);
                if let Err(why) = self.undo(&ends).await {
                    tracing::warn!(tenant = %self.name, "not all of a failed move is undone: {why}");
                    // It may not be able to write. The next look is for that alone: it finds
                    // out what is in the way, without a place that others wait for.
                    if self.serves_from(source).await != Ok(true) {
                        migration.phase = MigrationPhase::Freezing;
                        migration.failures = i32::try_from(failures.count).ok();
                        self.tell(migration);
                        return Duration::ZERO;
                    }
                }
                let why = quote(&error.to_string());
                migration.phase = MigrationPhase::Failed;
                migration.completion_time = Some(told::time(self.ctx.now()));
                migration.failures = i32::try_from(failures.count).ok();
                migration.message = Some(format!(
                    "{}. It is tried again in {} s; to call it off, set spec.dataStore to {source}.",
                    why.trim_end_matches('.'),
                    wait.as_secs()
                ));
                self.tell_all(true, reason::MIGRATION_FAILED, migration)
                    .await;
                wait
            }
        }
    }

    /// Brings a tenant that cannot write to where it can, if that is known. How long until the
    /// next look; `None`: it can write where its data was, and a move may begin anew.
    async fn look_after(
        &self,
        tenant: &TenantControlPlane,
        held: &Held,
        target: &str,
        before: Option<MigrationStatus>,
    ) -> Option<Duration> {
        let source = held.data_store.as_str();
        let open = before.clone().filter(|it| !it.phase.has_ended());
        let open = open.unwrap_or_else(|| MigrationStatus {
            source: Some(source.to_owned()),
            target: Some(target.to_owned()),
            ..MigrationStatus::default()
        });
        // Who changes its rights meanwhile does it before, or after.
        let rights = self.ctx.facts.tenant(self.uid).rights;
        let _changing = rights.lock().await;
        match self.settle(tenant, held, target, &open).await {
            Ok(Settled::Moved) => Some(timing::MIGRATION_STEP),
            Ok(Settled::Writes) => {
                if moving::stops_writes(open.phase) || open.phase == MigrationPhase::Switching {
                    let why = "an attempt before was ended, and writes are let through again";
                    self.tell(told::pending(source, target, before, why.to_owned()));
                }
                None
            }
            Err(held_up) => Some(self.wait_for(open, target, &held_up)),
        }
    }

    /// Ends what an attempt before has left: forward if the target is in service, and back if
    /// not.
    async fn settle(
        &self,
        tenant: &TenantControlPlane,
        held: &Held,
        target: &str,
        open: &MigrationStatus,
    ) -> Result<Settled, HeldUp> {
        let source = held.data_store.as_str();
        let store = self.store(source).map_err(HeldUp::Otherwise)?;
        let stored = self.claims(store.as_ref()).await;
        let stored = stored.map_err(|why| of(source, &why))?;
        let stored = stored.iter().find(|it| it.is_same_hold(&held.claim));
        match stored {
            Some(claim) if claim.stage == Stage::Frozen => {}
            Some(claim) if claim.stage == Stage::Serving => {
                self.hold(source, claim.clone());
                return Ok(Settled::Writes);
            }
            // What is wrong with it the attempt says.
            _ => return Ok(Settled::Writes),
        }
        // Pods have written there since: what is here is not to come back unless somebody
        // asks for it.
        let served = open.phase == MigrationPhase::Switching;
        let older = |what: &str| {
            HeldUp::Otherwise(format!(
                "DataStore {target}, where the tenant was served from, {what}; restore it, or \
                 set spec.dataStore to {source} to go back to what was there before the move"
            ))
        };
        // With its finalizer somebody has taken away what it may have been put in service for.
        if self.is_gone(target).await.map_err(HeldUp::Otherwise)? {
            if served {
                return Err(older("does not exist"));
            }
            self.thaw(held).await.map_err(HeldUp::Otherwise)?;
            return Ok(Settled::Writes);
        }
        self.answers(target)?;
        let sides = self.sides(tenant, held, target);
        let ends = sides.map_err(HeldUp::Otherwise)?;
        let there = self.claims(ends.target.tenancy.as_ref()).await;
        let there = there.map_err(HeldUp::Target)?;
        let mut there = there
            .iter()
            .filter(|it| it.is_same_hold(&ends.target.claim));
        if there.any(|it| it.stage == Stage::Serving) {
            return self.go_on(ends, target, open).await;
        }
        if served {
            return Err(older("does not have its data any more"));
        }
        if let Err(why) = self.undo(&ends).await {
            if self.serves_from(source).await != Ok(true) {
                return Err(HeldUp::Otherwise(why));
            }
            tracing::warn!(tenant = %self.name, "not all of a move that was ended is undone: {why}");
        }
        self.hold(source, held.claim.at(Stage::Serving));
        Ok(Settled::Writes)
    }

    /// The target is in service, and its rights are made sure of.
    async fn go_on(
        &self,
        ends: Ends,
        target: &str,
        open: &MigrationStatus,
    ) -> Result<Settled, HeldUp> {
        let (done, migration) = self.move_data(&ends, open.clone(), target).await;
        match done {
            Some(Ok(report)) => {
                self.moved(ends.target, target, migration, &report);
                Ok(Settled::Moved)
            }
            Some(Err(MoveError::Target(error))) => Err(HeldUp::Target(error.to_string())),
            Some(Err(error)) => Err(HeldUp::Otherwise(error.to_string())),
            None => Err(HeldUp::Otherwise(Unfinished::Ended.to_string())),
        }
    }

    async fn undo(&self, ends: &Ends) -> Result<(), String> {
        self.timed(data::undo(&ends.source, &ends.target)).await
    }

    /// Runs until it ends, is called off, or this replica leads no more (`None`).
    async fn move_data(
        &self,
        ends: &Ends,
        migration: MigrationStatus,
        target: &str,
    ) -> (Option<Result<Report, MoveError>>, MigrationStatus) {
        let stop = CancellationToken::new();
        let known = Mutex::new((migration, Instant::now()));
        let limits = self.limits();
        let told = |progress: Progress| {
            let mut known = known.lock();
            let before = known.0.phase;
            told::progress(&mut known.0, &progress);
            let migration = known.0.clone();
            let turned = migration.phase != before;
            // What another process left frozen is thawed before anything is copied.
            let thawed = progress.phase == data::Phase::Copying;
            self.ctx.facts.update_tenant(self.uid, |facts| {
                facts.migration = Some(migration);
                if let Some(held) = facts.held.as_mut().filter(|_| thawed) {
                    held.claim.stage = Stage::Serving;
                }
            });
            if turned || known.1.elapsed() >= timing::MIGRATION_TOLD {
                known.1 = Instant::now();
                self.ctx.queue.add(Key::Tenant(self.name.clone()));
            }
        };
        let work = data::run(&ends.source, &ends.target, &limits, &told, &stop);
        let watched = async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => return done,
                    () = tokio::time::sleep(timing::MIGRATION_STEP) => {
                        if !self.still_wants(&ends.source, target) {
                            stop.cancel();
                        }
                    }
                }
            }
        };
        let done = self.ctx.leadership.hold(watched).await;
        (done, known.into_inner().0)
    }

    /// Whether the move is still asked for.
    fn still_wants(&self, source: &Side, target: &str) -> bool {
        let held = self.ctx.facts.tenant(self.uid).held;
        let from = held.filter(|held| held.claim.schema == source.claim.schema);
        self.tenant().zip(from).is_some_and(|(tenant, held)| {
            moving::target(&tenant, &held.data_store).as_deref() == Some(target)
        })
    }

    fn limits(&self) -> Limits {
        let whole = self.tenant().and_then(|tenant| {
            let asked = objects::annotation(&tenant.metadata, names::ANNOTATION_MIGRATION_TIMEOUT);
            let asked = apiservice::duration::parse(asked?)?;
            let asked = Duration::try_from(asked).ok().filter(|it| !it.is_zero());
            asked.map(|asked| asked.min(timing::MIGRATION_LONGEST))
        });
        Limits {
            whole: Some(whole.unwrap_or(timing::MIGRATION_WHOLE)),
            ..Limits::default()
        }
    }

    /// The data is in service in the target: it is where the tenant is from now on.
    fn moved(
        &self,
        target: Side,
        data_store: &str,
        mut migration: MigrationStatus,
        report: &Report,
    ) {
        told::switching(&mut migration, report);
        let claim = Claim {
            stage: Stage::Serving,
            ..target.claim
        };
        self.ctx.facts.update_tenant(self.uid, |facts| {
            facts.held = Some(Held {
                data_store: data_store.to_owned(),
                claim,
            });
            facts.access = Some(AccessFact::Granted);
            facts.password = target.password;
            facts.migration = Some(migration);
        });
        self.ctx.queue.add(Key::Tenant(self.name.clone()));
    }

    /// Both ends, or why there cannot be a beginning yet.
    async fn ends(
        &self,
        tenant: &TenantControlPlane,
        held: &Held,
        target: &str,
    ) -> Result<Ends, String> {
        self.serves(&held.data_store)?;
        let store = self.data_store(target)?;
        if store.metadata.deletion_timestamp.is_some() {
            return Err(format!("DataStore {target} is being deleted"));
        }
        if !store.spec.driver.is_built() {
            return Err(format!(
                "DataStore {target} has driver {}, which this version does not run yet",
                store.spec.driver.as_str()
            ));
        }
        self.serves(target)?;
        // A copy that is still kept there must not be removed once it is in use again.
        let pending = store.status.iter().flat_map(|it| &it.pending_cleanups);
        if pending.into_iter().any(|it| it.uid == self.uid) {
            keep_no_more(self.ctx, self.uid, target).await?;
        }
        self.sides(tenant, held, target)
    }

    /// Both ends, whatever they are like.
    fn sides(
        &self,
        tenant: &TenantControlPlane,
        held: &Held,
        target: &str,
    ) -> Result<Ends, String> {
        let store = self.data_store(target)?;
        let from = self.data_store(&held.data_store)?;
        let claim = claim::moved(tenant, &held.claim, from.spec.driver, store.spec.driver);
        let password = match store.spec.driver.has_passwords() {
            true => Some(self.password(tenant)?),
            false => None,
        };
        Ok(Ends {
            source: Side {
                tenancy: self.store(&held.data_store)?,
                claim: held.claim.clone(),
                password: self.known_password(tenant),
            },
            target: Side {
                tenancy: self.store(target)?,
                claim,
                password,
            },
        })
    }

    fn data_store(&self, name: &str) -> Result<Arc<DataStore>, String> {
        let found = self.ctx.caches.data_store(name);
        found.ok_or_else(|| format!("DataStore {name} does not exist"))
    }

    /// Whether a DataStore can be read and written with the settings that pods are given.
    fn serves(&self, name: &str) -> Result<(), String> {
        let store = self.data_store(name)?;
        let report = self.report(&store, name)?;
        let of = |why: &str| format!("DataStore {name}: {}", why.trim_end_matches('.'));
        report.health.as_ref().map_err(|it| of(&it.message))?;
        report.separates_tenants.as_ref().map_err(|why| of(why))?;
        self.is_tried(&store, name)
    }

    /// Whether the target of a move that was ended can say if it was put in service. What it
    /// is asked takes no space; and another database, which has taken its place, knows
    /// nothing of it.
    fn answers(&self, target: &str) -> Result<(), HeldUp> {
        let store = self.data_store(target).map_err(HeldUp::Otherwise)?;
        let report = self.report(&store, target).map_err(HeldUp::Otherwise)?;
        match report.health {
            Err(problem) if problem.kind != StoreProblemKind::Full => {
                return Err(HeldUp::Target(problem.message));
            }
            _ => {}
        }
        self.is_tried(&store, target).map_err(HeldUp::Otherwise)
    }

    fn report(&self, store: &DataStore, name: &str) -> Result<StoreReport, String> {
        let uid = store.metadata.uid.as_deref().unwrap_or_default();
        let report = self.ctx.facts.store(uid).report;
        report.ok_or_else(|| format!("DataStore {name} has not been asked yet"))
    }

    /// Whether its settings of now were found to work.
    fn is_tried(&self, store: &DataStore, name: &str) -> Result<(), String> {
        let uid = store.metadata.uid.as_deref().unwrap_or_default();
        let fact = self.ctx.facts.store(uid);
        let wanted = settings::wanted(&credentials::fact(store, &self.ctx.caches));
        match wanted.and_then(|wanted| fact.tried(&wanted)) {
            Some(Ok(())) => Ok(()),
            Some(Err(problem)) => {
                let why = problem.message.trim_end_matches('.');
                Err(format!("DataStore {name}: {why}"))
            }
            None => Err(format!("the settings of DataStore {name} are being tried")),
        }
    }

    /// The password that the tenant has where its data is: as it was let in last or, where
    /// nobody has tried since a start, the one of its Secret.
    pub(super) fn known_password(&self, tenant: &TenantControlPlane) -> Option<Password> {
        let known = self.ctx.facts.tenant(self.uid).password;
        known.or_else(|| self.password_in_secret(tenant))
    }

    fn password_in_secret(&self, tenant: &TenantControlPlane) -> Option<Password> {
        let name = NamespacedName::of(&tenant.metadata);
        let secret = NamespacedName::new(name.namespace, names::datastore_config(&name.name));
        let secret = self.ctx.caches.secrets.get(&secret);
        let text = secret.and_then(|secret| objects::text(&secret, key::DB_PASSWORD));
        text.and_then(|text| password::usable(&text))
    }

    /// The same, or a new one.
    fn password(&self, tenant: &TenantControlPlane) -> Result<Password, String> {
        self.password_in_secret(tenant)
            .or_else(|| password::make(&self.ctx.entropy))
            .ok_or_else(|| "the machine has no random numbers".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use apiservice::v1alpha1::{DataStoreSpec, Driver, MigrationPhase as Phase};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::cluster::cache::EVERYWHERE;
    use crate::context::Context;
    use crate::context::testing::{Answers, context, fill, nothing};
    use crate::datastores::testing::Fake;
    use crate::facts::Trial;
    use crate::tenant::backing::facts::StoreHealth;
    use crate::tenant::testing::Lab;

    /// A tenant of which another process has begun to bring the data from DataStore `a` to
    /// `b`, and which cannot write, as a leader knows it that has just begun.
    struct Left {
        ctx: Arc<Context>,
        name: NamespacedName,
        uid: String,
        a: Arc<Fake>,
        b: Arc<Fake>,
    }

    impl Left {
        /// In this phase, with this stage of the claim in `b`.
        async fn at(phase: Phase, there: Option<Stage>) -> Self {
            Left::answered(phase, there, nothing).await
        }

        /// With a management cluster that answers like this.
        async fn answered(phase: Phase, there: Option<Stage>, answers: Answers) -> Self {
            let mut lab = Lab::new();
            let tenant = lab.tenant();
            tenant.spec.data_store = Some("b".to_owned());
            tenant.status.get_or_insert_default().migration = Some(MigrationStatus {
                phase,
                source: Some("a".to_owned()),
                target: Some("b".to_owned()),
                ..MigrationStatus::default()
            });
            let frozen = claim::wished(tenant, Driver::Etcd).at(Stage::Frozen);
            let target = claim::moved(tenant, &frozen, Driver::Etcd, Driver::Etcd);
            let (ctx, _) = context(answers, true).await;
            fill(&ctx.caches, &lab);
            let left = Left {
                name: NamespacedName::of(&lab.world.tenant.metadata),
                uid: lab.world.uid().to_owned(),
                a: Arc::new(Fake::of([frozen.clone()])),
                b: Arc::new(Fake::of(there.map(|stage| target.at(stage)))),
                ctx,
            };
            left.stores(|_| {}, true);
            for store in ["a", "b"] {
                left.healthy(store);
            }
            left.ctx.facts.enter_tenant(&left.uid, left.ctx.now());
            left.ctx.facts.update_tenant(&left.uid, |facts| {
                facts.held = Some(Held {
                    data_store: "a".to_owned(),
                    claim: frozen,
                });
            });
            left
        }

        /// The DataStores that there are, with a change of `b`.
        fn stores(&self, change: impl Fn(&mut DataStore), with_b: bool) {
            let store = |name: &str| {
                let spec = DataStoreSpec {
                    endpoints: vec![format!("{name}:2379")],
                    ..DataStoreSpec::default()
                };
                let mut store = DataStore::new(name, spec);
                store.metadata.uid = Some(format!("uid of {name}"));
                store
            };
            let (a, mut b) = (store("a"), store("b"));
            change(&mut b);
            let (connections, caches) = (&self.ctx.connections, &self.ctx.caches);
            connections.put(&a, caches, self.a.clone());
            connections.put(&b, caches, self.b.clone());
            let mut all = vec![Arc::new(a)];
            all.extend(with_b.then(|| Arc::new(b)));
            caches.data_stores.replace(EVERYWHERE, all);
        }

        /// It was asked, and its settings were tried.
        fn healthy(&self, store: &str) {
            let live = self.ctx.caches.data_store(store).unwrap();
            let wanted = settings::wanted(&credentials::fact(&live, &self.ctx.caches));
            let uid = live.metadata.uid.as_deref().unwrap();
            self.ctx.facts.enter_store(uid);
            self.ctx.facts.update_store(uid, |fact| {
                fact.report = Some(StoreReport {
                    health: Ok(StoreHealth::default()),
                    separates_tenants: Ok(()),
                    compacted: None,
                });
                fact.trial = wanted.clone().map(|fingerprint| Trial {
                    fingerprint,
                    result: Ok(()),
                });
            });
        }

        /// Somebody wants it to be there.
        fn wish(&self, data_store: &str) {
            let tenants = &self.ctx.caches.tenants;
            let mut tenant = (*tenants.get(&self.name).unwrap()).clone();
            tenant.spec.data_store = Some(data_store.to_owned());
            tenants.replace(EVERYWHERE, vec![Arc::new(tenant)]);
        }

        /// One look, and what is said after it.
        async fn turn(&self) -> (Phase, String) {
            let about = About {
                ctx: &self.ctx,
                name: &self.name,
                uid: &self.uid,
            };
            about.turn(&mut Failures::default()).await;
            let said = self.ctx.facts.tenant(&self.uid).migration.unwrap();
            (said.phase, said.message.unwrap_or_default())
        }

        fn source(&self) -> Vec<Stage> {
            self.a.stages()
        }
    }

    fn goes(store: &mut DataStore) {
        store.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        store.metadata.finalizers = Some(vec![names::FINALIZER_DATA_STORE.to_owned()]);
    }

    /// A clock that is to go on for longer than it can stopped each attempt with a panic.
    #[tokio::test]
    async fn an_attempt_has_an_end_whatever_somebody_asks_for() {
        let left = Left::at(Phase::Copying, None).await;
        let about = About {
            ctx: &left.ctx,
            name: &left.name,
            uid: &left.uid,
        };
        for (asked, expected) in [
            ("72h", Duration::from_secs(72 * 60 * 60)),
            ("2562047788015215h", timing::MIGRATION_LONGEST),
            ("0s", timing::MIGRATION_WHOLE),
            ("-1h", timing::MIGRATION_WHOLE),
        ] {
            let tenants = &left.ctx.caches.tenants;
            let mut tenant = (*tenants.get(&left.name).unwrap()).clone();
            let annotations = tenant.metadata.annotations.get_or_insert_default();
            let name = names::ANNOTATION_MIGRATION_TIMEOUT;
            annotations.insert(name.to_owned(), asked.to_owned());
            tenants.replace(EVERYWHERE, vec![Arc::new(tenant)]);
            assert_eq!(about.limits().whole, Some(expected), "{asked}");
        }
    }

    /// Seen: after a restart two other moves took both places, for hours, while a tenant whose
    /// source was frozen could not write.
    #[tokio::test]
    async fn who_cannot_write_waits_for_nobodys_move() {
        let _others = [MOVES.take("x").unwrap(), MOVES.take("y").unwrap()];
        for there in [Some(Stage::Incoming), None] {
            let left = Left::at(Phase::Verifying, there).await;
            let (phase, message) = left.turn().await;
            assert_eq!(left.source(), [Stage::Serving], "{message}");
            assert_eq!(left.b.stages(), []);
            assert_eq!(phase, Phase::Pending);
            assert!(message.contains("others are being moved"), "{message}");
            let held = left.ctx.facts.tenant(&left.uid).held.unwrap();
            assert_eq!(held.claim.stage, Stage::Serving);
        }
        // The answer to the switch was lost.
        let left = Left::at(Phase::Verifying, Some(Stage::Serving)).await;
        assert_eq!(left.turn().await.0, Phase::Switching);
        let held = left.ctx.facts.tenant(&left.uid).held.unwrap();
        assert_eq!(
            (held.data_store.as_str(), held.claim.stage),
            ("b", Stage::Serving)
        );
        assert_eq!(left.source(), [Stage::Frozen]);
    }

    #[tokio::test]
    async fn who_cannot_write_is_told_for_what_it_waits() {
        let answers = "until DataStore b answers";
        let left = Left::at(Phase::Freezing, Some(Stage::Incoming)).await;
        left.a.away.store(true, Ordering::Relaxed);
        let (phase, message) = left.turn().await;
        assert_eq!(phase, Phase::Freezing);
        assert!(message.starts_with("Writes are refused"), "{message}");
        assert!(
            message.contains("DataStore a") && !message.contains(answers),
            "{message}"
        );

        let left = Left::at(Phase::Freezing, Some(Stage::Incoming)).await;
        left.ctx
            .facts
            .update_store("uid of b", |fact| fact.report = None);
        let (phase, message) = left.turn().await;
        assert_eq!(phase, Phase::Freezing);
        assert!(message.contains("has not been asked yet"), "{message}");
        assert!(!message.contains("delete it"), "{message}");

        let left = Left::at(Phase::Freezing, Some(Stage::Incoming)).await;
        left.b.away.store(true, Ordering::Relaxed);
        let (phase, message) = left.turn().await;
        assert_eq!(phase, Phase::Freezing);
        assert!(message.contains(answers), "{message}");
        assert!(message.contains(names::FINALIZER_DATA_STORE), "{message}");
        assert_eq!(left.source(), [Stage::Frozen]);

        // Called off: what the source answers is not what the target does.
        let left = Left::at(Phase::Freezing, Some(Stage::Incoming)).await;
        left.wish("a");
        left.a.away.store(true, Ordering::Relaxed);
        let (phase, message) = left.turn().await;
        assert_eq!(phase, Phase::Freezing, "{message}");
        assert!(
            message.contains("DataStore a") && !message.contains(answers),
            "{message}"
        );
        left.a.away.store(false, Ordering::Relaxed);
        assert_eq!(left.turn().await.0, Phase::Aborted);
        assert_eq!(left.source(), [Stage::Serving]);
    }

    /// A target that may have been put in service counts until somebody says that it is gone
    /// for good, by a deletion and by taking its finalizer away.
    #[tokio::test]
    async fn a_target_that_is_gone_for_good_is_waited_for_by_nobody() {
        for wish in ["b", "a"] {
            let left = Left::at(Phase::Freezing, Some(Stage::Incoming)).await;
            left.wish(wish);
            left.b.away.store(true, Ordering::Relaxed);
            left.stores(goes, true);
            for _ in 0..2 {
                let (phase, message) = left.turn().await;
                assert_eq!(phase, Phase::Freezing);
                assert!(message.contains(names::FINALIZER_DATA_STORE), "{message}");
                assert!(!message.contains("delete it"), "it is: {message}");
                assert_eq!(left.source(), [Stage::Frozen], "nobody has said so");
            }
            left.stores(goes, false);
            let (phase, message) = left.turn().await;
            assert_eq!(left.source(), [Stage::Serving], "{message}");
            match wish {
                "a" => assert_eq!(phase, Phase::Aborted),
                _ => {
                    assert_eq!(phase, Phase::Pending);
                    assert!(message.contains("does not exist"), "{message}");
                }
            }
        }
        // One that is not seen may be there: what cannot be read is in no list.
        let broken: Answers = |_| {
            let why = "unable to decode stored object";
            let status = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": why,
                "reason": "InternalError", "code": 500,
            });
            (500, status)
        };
        for wish in ["b", "a"] {
            let left = Left::answered(Phase::Freezing, Some(Stage::Serving), broken).await;
            left.wish(wish);
            left.stores(goes, false);
            let (phase, message) = left.turn().await;
            assert_eq!(
                (phase, left.source()),
                (Phase::Freezing, vec![Stage::Frozen])
            );
            assert!(message.contains("cannot be told"), "{message}");
        }
        // One that answers is asked, whatever becomes of it.
        let left = Left::at(Phase::Freezing, Some(Stage::Incoming)).await;
        left.stores(goes, true);
        assert_eq!(left.turn().await.0, Phase::Pending);
        assert_eq!(left.source(), [Stage::Serving]);
    }

    /// Pods may have written there: what the source has is older.
    #[tokio::test]
    async fn what_was_in_service_in_the_target_is_not_given_up_unasked() {
        let left = Left::at(Phase::Switching, None).await;
        left.stores(goes, false);
        let (phase, message) = left.turn().await;
        assert_eq!(
            (phase, left.source()),
            (Phase::Switching, vec![Stage::Frozen])
        );
        assert!(message.contains("spec.dataStore"), "{message}");
        left.wish("a");
        assert_eq!(left.turn().await.0, Phase::Aborted);
        assert_eq!(left.source(), [Stage::Serving]);
    }
}
