//! Gathers the world of a DataStore from caches and facts, without I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apiservice::names;
use apiservice::v1alpha1::TenantControlPlane;

use crate::cluster::concerned;
use crate::cluster::name::{NamespacedName, tenant_of};
use crate::cluster::overrides;
use crate::context::Context;
use crate::datastores::cleanups::{self, Proofs};
use crate::datastores::world::{Done, World};
use crate::datastores::{credentials, drain};
use crate::facts::Seen;
use crate::tenant::backing::beside::{self, Beside};
use crate::tenant::backing::{moving, settings};
use crate::tenant::objects;

/// The world of the DataStore of this name, after what the pass has done; `None` if there is
/// no such DataStore (any more), or the caches are not filled yet.
pub fn world(name: &str, done: &Done, ctx: &Context) -> Option<World> {
    let caches = &ctx.caches;
    if !caches.synced() {
        return None;
    }
    let seen = ctx.seen();
    let store = caches.data_store(name)?;
    let uid = store.metadata.uid.clone().unwrap_or_default();
    if done.uid.as_ref().is_some_and(|it| *it != uid) {
        return None;
    }
    let fact = ctx.facts.store(&uid);
    let current = settings::wanted(&credentials::fact(&store, caches));
    let tried = current.as_deref().and_then(|current| fact.tried(current));
    let untried = current.is_some() && tried.is_none();
    let used_by = users(&seen, name);
    let beside = overriding(&seen, name).into_iter();
    let beside = beside.filter(|tenant| drain::is_sent_away(tenant, &store));
    let overriding = beside.map(|it| NamespacedName::of(&it.metadata).to_string());
    let problem = tried.and_then(Result::err).map(|problem| problem.message);
    let kept = problem.filter(|_| is_kept(&seen, name, &used_by, current.as_deref()));
    let mut world = World {
        now: seen.now,
        terms: ctx.settings.certificates,
        gap: credentials::gap(&store, caches),
        certificates: credentials::certificates(&store, caches),
        report: fact.report,
        bytes: fact.measured.map(|it| it.bytes),
        untried,
        kept,
        used_by,
        overriding: overriding.collect(),
        owners: BTreeMap::new(),
        proofs: Proofs::default(),
        drain: None,
        done: done.clone(),
        store,
    };
    let recorded = concerned::pending(&world.store);
    // This runs at each change of a tenant, and to gather proofs is to walk through all tenants.
    if !recorded.is_empty() && done.cleaned.is_none() && world.is_well() {
        world.owners = cleanups::owners(&seen, &world.store, &recorded);
        world.proofs = Proofs::of(&seen, name, &recorded);
    }
    if !world.is_paused() {
        world.drain = drain::of(&ctx.drains, &seen, &world.store, world.is_well());
    }
    Some(world)
}

/// The names of those whose data is there, is to be there, or is on its way from or to it.
fn users(seen: &Seen<'_>, store: &str) -> Vec<String> {
    let moving = seen.caches.tenants.all().into_iter();
    let moving = moving.filter(|tenant| {
        let migration = seen.facts.migration_of(tenant);
        let migration = migration.filter(|it| moving::is_moving(it.phase));
        let ends = migration.map(|it| [it.source, it.target]);
        ends.is_some_and(|ends| ends.iter().flatten().any(|end| end == store))
    });
    let beside = overriding(seen, store).into_iter();
    let tenants = seen.placed(store).into_iter().chain(moving).chain(beside);
    let names: BTreeSet<String> = tenants
        .map(|tenant| NamespacedName::of(&tenant.metadata).to_string())
        .collect();
    names.into_iter().collect()
}

/// The tenants that keep some resources there, and most of their data elsewhere.
fn overriding(seen: &Seen<'_>, store: &str) -> Vec<Arc<TenantControlPlane>> {
    let mut tenants = seen.caches.tenants.all();
    tenants.retain(|tenant| overrides::stores(tenant).contains(store));
    tenants
}

/// Whether pods of one of these tenants run with other settings than `current`.
fn is_kept(seen: &Seen<'_>, store: &str, tenants: &[String], current: Option<&str>) -> bool {
    let beside = beside::settings_annotation(Some(&Beside::in_store(store, 0)));
    let deployments = seen.caches.deployments.all();
    deployments.iter().any(|live| {
        let noted = match moving::given_by(live) == Some(store) {
            true => objects::annotation(&live.metadata, names::ANNOTATION_DATA_STORE),
            false => objects::annotation(&live.metadata, &beside),
        };
        let runs = live.spec.as_ref().is_some_and(|it| it.replicas != Some(0));
        let other = noted.is_some() && noted != current;
        let tenant = || tenant_of(&live.metadata).map(|name| name.to_string());
        runs && other && current.is_some() && tenant().is_some_and(|name| tenants.contains(&name))
    })
}
