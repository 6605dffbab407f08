//! What a first try leaves in a DataStore when the tenant is given another one.

use std::sync::atomic::Ordering;

use apiservice::v1alpha1::{DataStoreSpec, MigrationStatus, TenantControlPlane};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::testing::Fake;
use super::*;
use crate::cluster::cache::EVERYWHERE;
use crate::context::testing::{Asked, context, fill};
use crate::observe;
use crate::tenant::backing::store as place;
use crate::tenant::plan::{Outcome, Plan, Step};
use crate::tenant::testing::Lab;
use crate::tenant::world::{AccessFact, Held, StoreHealth, World};

fn store(name: &str) -> DataStore {
    let spec = DataStoreSpec {
        endpoints: vec![format!("{name}:2379")],
        ..DataStoreSpec::default()
    };
    let mut store = DataStore::new(name, spec);
    store.metadata.uid = Some(format!("uid of {name}"));
    store
}

/// As the API answers who writes a status: with what was written.
fn answers(asked: &Asked) -> (u16, Value) {
    let parts: Vec<&str> = asked.path.split(['/', '?']).collect();
    let after = |kind: &str| {
        let at = parts.iter().position(|part| *part == kind);
        at.and_then(|at| parts.get(at + 1)).copied()
    };
    let mut written = match (after("datastores"), after("tenantcontrolplanes")) {
        (Some(name), _) => serde_json::to_value(store(name)).unwrap(),
        (_, Some(_)) => serde_json::to_value(&*Lab::new().world.tenant).unwrap(),
        _ => return (201, json!({})),
    };
    let mut status = asked.body["status"].clone();
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    written["status"] = status;
    (200, written)
}

/// A tenant that is to have a place in `a`, where answers are lost, and a DataStore `b`.
struct Try {
    ctx: Arc<Context>,
    name: NamespacedName,
    a: Arc<Fake>,
    b: Arc<Fake>,
}

impl Try {
    async fn new() -> Self {
        let mut lab = Lab::new();
        lab.tenant().spec.data_store = Some("a".to_owned());
        let (ctx, _) = context(answers, true).await;
        fill(&ctx.caches, &lab);
        let (a, b) = (Arc::new(Fake::default()), Arc::new(Fake::default()));
        a.torn.store(true, Ordering::Relaxed);
        b.claiming.store(true, Ordering::Relaxed);
        for (name, fake) in [("a", &a), ("b", &b)] {
            let store = store(name);
            ctx.connections.put(&store, &ctx.caches, fake.clone());
            let uid = store.metadata.uid.clone().unwrap();
            ctx.caches.data_stores.put(Arc::new(store));
            ctx.facts.update_store(&uid, |fact| {
                fact.health = Some(Ok(StoreHealth::default()));
            });
        }
        let name = NamespacedName::of(&lab.world.tenant.metadata);
        ctx.facts.enter_tenant(lab.world.uid(), ctx.now());
        Try { ctx, name, a, b }
    }

    /// Somebody changes the tenant.
    fn change(&self, change: impl FnOnce(&mut TenantControlPlane)) {
        let tenants = &self.ctx.caches.tenants;
        let mut tenant = (*tenants.get(&self.name).unwrap()).clone();
        change(&mut tenant);
        tenants.replace(EVERYWHERE, vec![Arc::new(tenant)]);
    }

    fn world(&self) -> World {
        observe::world(&self.name, &self.ctx).unwrap()
    }

    /// What a pass does in datastores, and its report.
    async fn pass(&self) -> (Plan, Vec<Outcome>) {
        let world = self.world();
        let mut plan = crate::tenant::plan(&world, &self.ctx.entropy);
        plan.steps.retain(|step| {
            matches!(
                step,
                Step::Grant(_)
                    | Step::DeferDeletion { .. }
                    | Step::RevokeAccess(_)
                    | Step::DropData(_)
                    | Step::NoteEmpty(_)
                    | Step::ReleaseClaim(_)
            )
        });
        let outcomes = crate::apply::apply(&self.ctx, &world, &plan).await;
        let status = crate::report::status(&world, &plan, &outcomes);
        self.change(|tenant| tenant.status = Some(status));
        (plan, outcomes)
    }

    async fn cleaned(&self, name: &str) {
        let store = self.ctx.caches.data_store(name);
        let store = store.unwrap();
        let left = clean_up(&self.ctx, &store).await.left_of(&store);
        let mut store = (*store).clone();
        store.status.get_or_insert_default().pending_cleanups = left;
        self.ctx.caches.data_stores.put(Arc::new(store));
    }

    /// As it is before there is anything but what the spec says, and a try in `a` was cut off.
    async fn cut_off() -> Self {
        let it = Try::new().await;
        let (_, outcomes) = it.pass().await;
        assert!(
            outcomes
                .iter()
                .any(|it| matches!(it, Outcome::Failed { .. }))
        );
        assert_eq!(it.a.uids().len(), 1, "it has claimed its names");
        assert!(it.ctx.facts.tenant(it.world().uid()).held.is_none());
        it.a.torn.store(false, Ordering::Relaxed);
        it
    }

    fn is_granted(&self) -> bool {
        let held = self.ctx.facts.tenant(self.world().uid()).held;
        held.is_some_and(|held| held.data_store == "b")
    }
}

fn named(name: &str) -> impl FnOnce(&mut TenantControlPlane) {
    let name = name.to_owned();
    move |tenant| tenant.spec.data_store = Some(name)
}

fn deleted(tenant: &mut TenantControlPlane) {
    tenant.metadata.finalizers = Some(vec![names::FINALIZER.to_owned()]);
    tenant.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
}

/// Nobody else knows of such a claim: a tenant of the same name never got one there again.
#[tokio::test]
async fn what_a_first_try_has_left_is_removed_once_the_tenant_is_elsewhere() {
    let it = Try::cut_off().await;
    it.change(named("b"));
    it.pass().await;
    assert!(!it.is_granted(), "not before it is recorded");
    it.cleaned("a").await;
    assert_eq!(it.a.uids().len(), 1, "not before it is elsewhere");
    it.pass().await;
    assert!(it.is_granted());
    it.cleaned("a").await;
    assert!(it.a.uids().is_empty());
    assert_eq!(it.b.uids().len(), 1);
    let store = it.ctx.caches.data_store("a");
    assert!(pending(&store.unwrap()).is_empty());
}

/// With a database that is away in between, and a tenant that goes.
#[tokio::test]
async fn what_a_first_try_has_left_outlives_the_tenant() {
    let it = Try::cut_off().await;
    it.a.away.store(true, Ordering::Relaxed);
    it.change(named("b"));
    it.pass().await;
    it.pass().await;
    assert!(it.is_granted());
    it.cleaned("a").await;
    it.change(deleted);
    it.pass().await;
    assert!(it.b.uids().is_empty());
    it.ctx.caches.tenants.replace(EVERYWHERE, vec![]);
    it.a.away.store(false, Ordering::Relaxed);
    it.cleaned("a").await;
    assert!(it.a.uids().is_empty());
}

/// The other DataStore never took it.
#[tokio::test]
async fn a_deletion_asks_where_a_first_try_was_made() {
    let it = Try::cut_off().await;
    it.change(named("none"));
    it.change(deleted);
    it.pass().await;
    assert!(it.a.uids().is_empty());

    // Seen by a pass before: that says still where it was.
    let it = Try::cut_off().await;
    it.change(named("none"));
    it.pass().await;
    it.change(deleted);
    it.pass().await;
    it.ctx.caches.tenants.replace(EVERYWHERE, vec![]);
    it.cleaned("a").await;
    assert!(it.a.uids().is_empty());
}

/// Back to where it began: what is in use there is not what was left.
#[tokio::test]
async fn who_comes_back_after_a_first_try_keeps_what_is_there() {
    let it = Try::cut_off().await;
    it.change(named("b"));
    it.pass().await;
    it.change(named("a"));
    it.pass().await;
    it.pass().await;
    let uid = it.world().uid().to_owned();
    let held = it.ctx.facts.tenant(&uid).held.unwrap();
    assert_eq!(held.data_store, "a");
    let store = it.ctx.caches.data_store("a");
    assert!(pending(&store.unwrap()).is_empty());
    it.cleaned("a").await;
    assert_eq!(it.a.uids(), [uid]);
    assert!(it.b.uids().is_empty());
}

/// What was found to be there, and what a move has left, is not what a first try has.
#[tokio::test]
async fn what_is_or_was_in_use_is_not_what_a_first_try_has_left() {
    let it = Try::cut_off().await;
    it.change(named("b"));
    it.pass().await;
    let uid = it.world().uid().to_owned();
    let held = |data_store: &str| {
        let claim = it.a.claims.lock()[0].0.clone();
        it.ctx.facts.update_tenant(&uid, |facts| {
            facts.access = Some(AccessFact::Granted);
            facts.held = Some(Held {
                data_store: data_store.to_owned(),
                claim,
            });
        });
    };
    let entries = || {
        let store = it.ctx.caches.data_store("a");
        pending(&store.unwrap()).len()
    };
    held("b");
    for known in [true, false] {
        let migration = Some(MigrationStatus {
            source: Some("a".to_owned()),
            target: Some("b".to_owned()),
            ..MigrationStatus::default()
        });
        it.ctx.facts.update_tenant(&uid, |facts| {
            facts.migration = migration.clone().filter(|_| known);
        });
        it.change(|tenant| {
            tenant.status.get_or_insert_default().migration = migration.filter(|_| !known);
        });
        it.cleaned("a").await;
        assert_eq!((it.a.uids().len(), entries()), (1, 1), "{known}");
    }
    held("a");
    it.cleaned("a").await;
    assert_eq!((it.a.uids().len(), entries()), (1, 0));
}

/// A controller that ends in the middle of a try has written no report.
#[tokio::test]
async fn where_something_is_made_is_noted_before() {
    let it = Try::new().await;
    let world = it.world();
    let plan = crate::tenant::plan(&world, &it.ctx.entropy);
    let grant = plan.steps.iter().find_map(|step| match step {
        Step::Grant(grant) => Some(grant.clone()),
        _ => None,
    });
    crate::apply::datastore::grant(&it.ctx, &world, &grant.unwrap()).await;
    it.change(named("b"));
    let tenant = it.ctx.caches.tenants.get(&it.name).unwrap();
    assert_eq!(place::tried(&tenant, "b"), Some("a"));
    assert_eq!(it.world().tried.as_deref(), Some("a"));
}
