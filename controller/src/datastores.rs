//! One pass over one DataStore: who uses it, whether it can be used, what is
//! still to be cleaned up there.

pub mod access;
mod conditions;
pub mod credentials;
pub mod drain;
pub mod health;
pub mod observer;
pub mod setup;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use apiservice::{
    condition::{self, data_store as types},
    names,
    v1alpha1::{DataStore, PendingCleanup, TenantControlPlane},
};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::apply;
use crate::apply::datastore::cleanups::{self, Cleaned, Proofs};
use crate::cluster::caches::Reach;
use crate::cluster::concerned::{pending, tenants_of};
use crate::cluster::key::Key;
use crate::cluster::name::{NamespacedName, tenant_of};
use crate::context::Context;
#[cfg(test)]
pub(crate) use crate::datastores::tests::testing;
use crate::process::timing::{self, Next};
use crate::tenant::backing::facts::AccessFact;
use crate::tenant::backing::{moving, settings, store as place};
use crate::tenant::{deletion, objects, ran};

/// Looks at one DataStore and writes what is to be written. `None`: it is
/// gone, or this replica does not lead.
pub async fn reconcile(name: &str, ctx: &Context) -> Option<Next> {
    if !ctx.caches.synced() || !ctx.leadership.leads() {
        return None;
    }
    let store = ctx.caches.data_store(name)?;
    let paused = store
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(names::ANNOTATION_PAUSED));
    if paused {
        return Some(Next(timing::backoff(20, 0.0)));
    }
    let uid = store.metadata.uid.clone().unwrap_or_default();
    let report = ctx.facts.store(&uid).report;
    let well = report.is_some_and(|report| report.health.is_ok());
    let mut round = Round::default();
    if well {
        round = clean_up(ctx, &store).await;
    }
    let drain = drain::turn(ctx, &store, well).await;
    // That took its time, and so does each write below: what has been recorded
    // meanwhile must not be lost. What is written is made from the state that
    // the write is conditional on, with nothing to wait for in between.
    let read = || {
        let current = ctx.caches.data_store(name);
        current.filter(|current| current.metadata.uid.as_deref() == Some(&uid))
    };
    let mut store = read()?;
    let fact = ctx.facts.store(&uid);
    let current = settings::wanted(&credentials::fact(&store, &ctx.caches));
    let tried = current.as_deref().and_then(|current| fact.tried(current));
    if current.is_some() && tried.is_none() {
        // What it is now has not been tried: not only when it is time again.
        fact.wake.notify_one();
    }
    let untried = tried.and_then(Result::err);
    let untried = untried.map(|problem| problem.message);
    let report = fact.report;
    let mut used_by = users(ctx, name);
    let mut pending = round.left_of(&store);
    let key = Key::DataStore(name.to_owned());
    let mut told = None;
    let written = async {
        let wanted = finalizers(&store, !used_by.is_empty() || !pending.is_empty());
        if let Some(wanted) = wanted {
            apply::finalize_store(ctx, &store, wanted).await?;
            let Some(current) = read() else {
                return Ok(());
            };
            store = current;
            used_by = users(ctx, name);
            pending = round.left_of(&store);
        }
        let gone =
            store.metadata.deletion_timestamp.is_some() && used_by.is_empty() && pending.is_empty();
        let facts = conditions::StoreWorld {
            store: &store,
            gap: credentials::gap(&store, &ctx.caches),
            certificates: &credentials::certificates(&store, &ctx.caches),
            terms: &ctx.settings.certificates,
            report: report.as_ref(),
            bytes: fact.measured.map(|it| it.bytes),
            kept: untried
                .as_deref()
                .filter(|_| is_kept(ctx, &used_by, current.as_deref())),
            used_by: &used_by,
            pending: &pending,
            drain: drain.as_ref(),
            now: Time(ctx.now()),
        };
        let status = told.insert(conditions::status(&facts));
        if gone {
            return Ok(());
        }
        apply::store_status(ctx, &store, status).await
    };
    let result = written.await;
    if let Some(status) = told
        && let Some(condition) = condition::get(&status.conditions, types::READY)
    {
        let before = store
            .status
            .as_ref()
            .and_then(|status| condition::get(&status.conditions, types::READY));
        // That nothing is known yet is no news.
        if condition.status != "Unknown"
            && before.map(|before| (&before.status, &before.reason))
                != Some((&condition.status, &condition.reason))
        {
            ctx.events
                .tell(
                    store.as_ref(),
                    condition.status == "False",
                    &condition.reason,
                    &condition.message,
                )
                .await;
        }
    }
    Some(match result {
        Ok(()) => {
            ctx.failures.none(&key);
            let next = match pending.is_empty() {
                true => timing::resync(key.spread()),
                false if round.goes_on() => Next(timing::backoff(0, key.spread())),
                false => Next(timing::CLEANUP_EVERY),
            };
            let drains = drain.as_ref().and_then(drain::next);
            drains.map_or(next, |drains| Next(next.0.min(drains)))
        }
        Err(refusal) if refusal.code == 404 => return None,
        Err(refusal) => {
            tracing::debug!(data_store = name, "cannot write: {}", refusal.message);
            Next(timing::backoff(ctx.failures.more(&key), key.spread()))
        }
    })
}

/// The names of those whose data is there, is to be there, or is on its way from or to it.
fn users(ctx: &Context, store: &str) -> Vec<String> {
    let moving = ctx.caches.tenants.all().into_iter();
    let moving = moving.filter(|tenant| {
        let migration = ctx.facts.migration_of(tenant);
        let migration = migration.filter(|it| moving::is_moving(it.phase));
        let ends = migration.map(|it| [it.source, it.target]);
        ends.is_some_and(|ends| ends.iter().flatten().any(|end| end == store))
    });
    let tenants = ctx.seen().placed(store).into_iter().chain(moving);
    let names: BTreeSet<String> = tenants
        .map(|tenant| NamespacedName::of(&tenant.metadata).to_string())
        .collect();
    names.into_iter().collect()
}

/// Whether pods of one of these tenants run with other settings than `current`.
fn is_kept(ctx: &Context, tenants: &[String], current: Option<&str>) -> bool {
    let deployments = ctx.caches.deployments.all();
    deployments.iter().any(|live| {
        let noted = objects::annotation(&live.metadata, names::ANNOTATION_DATA_STORE);
        let runs = live.spec.as_ref().is_some_and(|it| it.replicas != Some(0));
        let other = noted.is_some() && noted != current;
        let tenant = || tenant_of(&live.metadata).map(|name| name.to_string());
        runs && other && current.is_some() && tenant().is_some_and(|name| tenants.contains(&name))
    })
}

/// What became of the clean-ups of one pass, by uid.
#[derive(Default)]
struct Round(BTreeMap<String, Cleaned>);

impl Round {
    /// The clean-ups that a DataStore as it is now has left.
    fn left_of(&self, store: &DataStore) -> Vec<PendingCleanup> {
        let mut left = pending(store);
        left.retain(|entry| self.0.get(&entry.uid) != Some(&Cleaned::Whole));
        for entry in &mut left {
            match self.0.get(&entry.uid) {
                Some(Cleaned::Not(why)) => entry.message = Some(why.clone()),
                Some(Cleaned::ButClaim) => {
                    entry.user = None;
                    entry.message = Some("its user and data are removed".to_owned());
                }
                _ => {}
            }
        }
        left
    }

    /// Some of them can go on as soon as this was written.
    fn goes_on(&self) -> bool {
        self.0.values().any(|it| *it == Cleaned::ButClaim)
    }
}

/// Some clean-ups at a time, each time others first, for as long as a worker can be
/// spared: what has not had its turn has it in the next round.
async fn clean_up(ctx: &Context, store: &DataStore) -> Round {
    let began = tokio::time::Instant::now();
    let turn = ctx.now().as_second() / timing::CLEANUP_EVERY.as_secs().cast_signed();
    let entries = in_turn(pending(store), turn);
    // Every change of a tenant leads here, and what proves a database asks for all of them.
    if entries.is_empty() {
        return Round::default();
    }
    let proofs = &proofs(ctx, store, &entries);
    let rounds = futures::stream::iter(entries).map(|entry| async move {
        if began.elapsed() >= timing::CLEANUP_ROUND {
            return None;
        }
        let done = clean_up_one(ctx, store, &entry, proofs).await?;
        Some((entry.uid, done))
    });
    let rounds = rounds.buffer_unordered(timing::CLEANUPS_AT_A_TIME);
    Round(rounds.filter_map(async |done| done).collect().await)
}

/// The same, with another one first in each turn.
fn in_turn<T>(mut entries: Vec<T>, turn: i64) -> Vec<T> {
    let first = i64::try_from(entries.len())
        .ok()
        .and_then(|len| turn.checked_rem_euclid(len));
    entries.rotate_left(
        first
            .and_then(|first| usize::try_from(first).ok())
            .unwrap_or(0),
    );
    entries
}

/// Whose claims prove that a database is the right one: tenants that were Ready with it,
/// and those that have left something there. One that never was Ready may have been given
/// its place in the wrong one.
fn proofs(ctx: &Context, store: &DataStore, entries: &[PendingCleanup]) -> Proofs {
    let name = store.metadata.name.as_deref().unwrap_or_default();
    let tenants = ctx.seen().placed(name).into_iter();
    // One that may begin anew has no data that the right database must have.
    let tenants = tenants
        .filter(|tenant| ran::has_run(&ctx.caches, tenant) && !place::is_to_start_empty(tenant));
    let left = entries.iter().filter(|entry| entry.user.is_some());
    Proofs {
        tenants: tenants
            .filter_map(|tenant| tenant.metadata.uid.clone())
            .collect(),
        left: left.map(|entry| entry.uid.clone()).collect(),
    }
}

/// `None`: it is not to be done now.
async fn clean_up_one(
    ctx: &Context,
    store: &DataStore,
    entry: &PendingCleanup,
    proofs: &Proofs,
) -> Option<Cleaned> {
    // Its tenant may still be there, and may even have been given its
    // finalizer back; then it is the tenant's own deletion that cleans up.
    let tenants = ctx.caches.tenants.all();
    let is = |tenant: &Arc<TenantControlPlane>| tenant.metadata.uid.as_deref() == Some(&entry.uid);
    let lives = tenants.iter().any(is);
    if lives && !is_past(ctx, store, entry) {
        return None;
    }
    // A move that has begun meanwhile brings it here again.
    let facts = ctx.facts.tenant(&entry.uid);
    let _alone = facts.rights.try_lock().ok()?;
    if lives && is_wanted_here(ctx, store, entry) {
        return None;
    }
    // Its pods have another DataStore.
    let running = if lives { None } else { running(ctx, entry) };
    let done = cleanups::clean_up(ctx, store, entry, proofs, lives, running).await;
    if done == Cleaned::Whole {
        if !lives {
            ctx.facts.left(&entry.uid);
        }
        tracing::info!(uid = entry.uid, "cleaned up after a tenant that has left");
        claim_again(ctx, store);
    }
    Some(done)
}

/// Whether the data of a tenant that lives is in a DataStore, or is being moved there, or what
/// was recorded is recorded no more.
fn is_wanted_here(ctx: &Context, store: &DataStore, entry: &PendingCleanup) -> bool {
    let name = store.metadata.name.clone().unwrap_or_default();
    let facts = ctx.facts.tenant(&entry.uid);
    let now = ctx.caches.data_store(&name);
    let recorded = now.is_some_and(|now| pending(&now).iter().any(|it| it.uid == entry.uid));
    !recorded || facts.is_or_comes_to(&name)
}

/// Whether what a tenant has left behind when its data was moved is kept no longer: nobody
/// keeps anything in a DataStore that is being deleted.
fn is_past(ctx: &Context, store: &DataStore, entry: &PendingCleanup) -> bool {
    let until = entry.not_before.as_ref();
    until.is_some_and(|until| ctx.now() >= until.0 || store.metadata.deletion_timestamp.is_some())
}

/// Pods of a tenant that is gone; none once they had their time to end.
fn running(ctx: &Context, entry: &PendingCleanup) -> Option<String> {
    let (Some(namespace), Some(name)) = (&entry.namespace, &entry.name) else {
        return None;
    };
    let now = ctx.now();
    let since = ctx.facts.leaving_since(&entry.uid, now);
    let gone_for = now.duration_since(since);
    let seen = ctx.caches.reach(namespace) == Reach::Here && ctx.caches.pods_known(namespace);
    if !seen {
        return (gone_for < deletion::UNSEEN_END).then(|| deletion::UNSEEN.to_owned());
    }
    if gone_for >= deletion::PODS_END {
        return None;
    }
    let name = NamespacedName::new(namespace, name);
    let caches = &ctx.caches;
    let heir = caches.tenants.get(&name);
    let heir = heir.and_then(|heir| heir.metadata.creation_timestamp.clone());
    let pods = before(caches.pods.of(&name), heir.as_ref());
    let sets = before(caches.replica_sets.of(&name), heir.as_ref());
    let running = deletion::running(&pods, &sets);
    (running > 0).then(|| format!("its pods have to end: {running} left"))
}

/// What is older than a tenant of the same name, which is not its.
fn before<K: kube::Resource>(mut objects: Vec<Arc<K>>, heir: Option<&Time>) -> Vec<Arc<K>> {
    objects.retain(|object| {
        let created = object.meta().creation_timestamp.as_ref();
        heir.is_none_or(|heir| created.is_none_or(|created| created.0 < heir.0))
    });
    objects
}

/// Names have become free: whoever was refused some may ask again at once.
fn claim_again(ctx: &Context, store: &DataStore) {
    let name = store.metadata.name.as_deref().unwrap_or_default();
    for tenant in tenants_of(&ctx.caches, name) {
        let Some(uid) = ctx
            .caches
            .tenants
            .get(&tenant)
            .and_then(|tenant| tenant.metadata.uid.clone())
        else {
            continue;
        };
        let refused = ctx.facts.update_tenant(&uid, |facts| {
            let refused = matches!(
                facts.access,
                Some(AccessFact::Taken { .. } | AccessFact::Refused(_))
            );
            if refused {
                facts.access = None;
            }
            refused
        });
        if refused {
            ctx.queue.add(Key::Tenant(tenant));
        }
    }
}

/// The finalizers to set, if they are to be changed: ours is there while a
/// tenant uses the DataStore or has left something in it.
fn finalizers(store: &DataStore, held: bool) -> Option<Vec<String>> {
    let mut all = store.metadata.finalizers.clone().unwrap_or_default();
    let there = all.iter().any(|one| one == names::FINALIZER_DATA_STORE);
    let deleting = store.metadata.deletion_timestamp.is_some();
    if held && !there && !deleting {
        all.push(names::FINALIZER_DATA_STORE.into());
        return Some(all);
    }
    if !held && there {
        all.retain(|one| one != names::FINALIZER_DATA_STORE);
        return Some(all);
    }
    None
}
