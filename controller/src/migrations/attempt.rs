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

use super::{About, Failures, keep_no_more, told};
use crate::cluster::caches::NamespacedName;
use crate::context::Key;
use crate::datastores::credentials;
use crate::process::places::Places;
use crate::process::timing;
use crate::report::diagnose::quote;
use crate::tenant::backing::{moving, password, settings, store as place};
use crate::tenant::objects;
use crate::tenant::world::{AccessFact, Held};

/// Moves under way at a time: each reads and writes as fast as both databases let it.
static MOVES: Places = Places::new(2, timing::ASKS_AGAIN);

/// Both ends, ready to begin.
struct Ends {
    source: Side,
    target: Side,
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
        if let Some(until) = failures.until.filter(|until| Instant::now() < *until) {
            return until.saturating_duration_since(Instant::now());
        }
        let source = held.data_store.as_str();
        let said = || tenant.status.as_ref()?.migration.clone();
        let before = self.ctx.facts.tenant(self.uid).migration.or_else(said);
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
                self.tell(match before {
                    Some(before) if told::is_stopped(before.phase) => {
                        told::stuck(before, target, &why)
                    }
                    before => told::pending(source, target, before, why),
                });
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
                    // It may not be able to write: nothing is as urgent.
                    if self.serves_from(source).await != Ok(true) {
                        failures.until = None;
                        self.tell(told::stuck(migration, target, &why));
                        return timing::MIGRATION_WAITS;
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
            Duration::try_from(asked).ok().filter(|it| !it.is_zero())
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
        let from = self.data_store(&held.data_store)?;
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
        let claim = place::moved(tenant, &held.claim, from.spec.driver, store.spec.driver);
        let password = match store.spec.driver.has_passwords() {
            true => Some(self.password(tenant)?),
            false => None,
        };
        // A copy that is still kept there must not be removed once it is in use again.
        let pending = store.status.iter().flat_map(|it| &it.pending_cleanups);
        if pending.into_iter().any(|it| it.uid == self.uid) {
            keep_no_more(self.ctx, self.uid, target).await?;
        }
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
        let found = self
            .ctx
            .caches
            .data_stores
            .get(&NamespacedName::new("", name));
        found.ok_or_else(|| format!("DataStore {name} does not exist"))
    }

    /// Whether a DataStore can be read and written with the settings that pods are given.
    fn serves(&self, name: &str) -> Result<(), String> {
        let store = self.data_store(name)?;
        let uid = store.metadata.uid.as_deref().unwrap_or_default();
        let fact = self.ctx.facts.store(uid);
        let Some(report) = &fact.report else {
            return Err(format!("DataStore {name} has not been asked yet"));
        };
        let of = |why: &str| format!("DataStore {name}: {}", why.trim_end_matches('.'));
        report.health.as_ref().map_err(|it| of(&it.message))?;
        report.separates_tenants.as_ref().map_err(|why| of(why))?;
        let wanted = settings::wanted(&credentials::fact(&store, &self.ctx.caches));
        match wanted.and_then(|wanted| fact.tried(&wanted)) {
            Some(Ok(())) => Ok(()),
            Some(Err(problem)) => Err(of(&problem.message)),
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
