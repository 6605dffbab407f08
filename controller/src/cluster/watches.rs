//! Fills the caches: one watch for each kind, for as long as the process
//! runs, or one for each kind in each namespace with tenants. What changes is told
//! to the queue.

use std::{
    iter,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use apiservice::names;
use apiservice::v1alpha1::{DataStore, TenantControlPlane};
use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{Event as CoreEvent, Secret};
use kube::{
    Client,
    core::NamespaceResourceScope,
    runtime::watcher::{self, Config},
};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::cluster::cache::{Cache, Cached, EVERYWHERE};
use crate::cluster::caches::Caches;
use crate::cluster::concerned;
use crate::cluster::follow::{Event, follow, path};
use crate::cluster::key::Key;
use crate::cluster::kinds::ObjectKind;
use crate::cluster::made::tenant_near;
use crate::cluster::name::{NamespacedName, tenant_of};
use crate::cluster::pieces::{self, Bounds};
use crate::cluster::routes::Gateway;
use crate::cluster::served::{self, Optional};
use crate::process::queue::Queue;
use crate::process::timing;

/// Objects of a page, of some MiB each, which the API server has in its memory.
pub(super) const PAGE: u32 = 20;
/// One list at a time, for its sake as well. Those of pods and Events may take long, and
/// nothing waits for them.
static LISTS_OF_OWNED: Semaphore = Semaphore::const_new(1);
pub(super) static LISTS_OF_OTHERS: Semaphore = Semaphore::const_new(1);
/// Nothing waits for those of kinds that a cluster may not have, one of which may hang: a
/// webhook that converts their versions does not answer.
static LISTS_OF_OPTIONAL: [Semaphore; Optional::ALL.len()] =
    [const { Semaphore::const_new(1) }; Optional::ALL.len()];
/// Between looks whether the tenants were listed.
const TENANTS_LOOK: Duration = Duration::from_millis(20);

/// Queues what an object concerns that is new, has changed (from what it was before, if that
/// is known) or is gone.
pub type Tell<K> = fn(&Caches, &Queue<Key>, &K, Option<&K>);

/// What a watch needs besides its kind.
#[derive(Clone)]
pub struct Watches {
    /// Reaches the management cluster.
    pub client: Client,
    pub caches: Arc<Caches>,
    pub queue: Arc<Queue<Key>>,
}

impl Watches {
    /// The watches of all kinds, each to be run as its own task. Our own kinds are
    /// watched in the whole cluster also where tenants have to stand in listed
    /// namespaces: one that stands elsewhere is told so, and can be deleted.
    pub fn all(&self) -> Vec<BoxFuture<'static, ()>> {
        let mut all = vec![
            self.watch(
                EVERYWHERE,
                Config::default().page_size(PAGE),
                |caches| &caches.tenants,
                |caches, queue, tenant, before| {
                    caches.meet(&NamespacedName::of(&tenant.metadata));
                    queue.add(Key::Tenant(NamespacedName::of(&tenant.metadata)));
                    for tenant in iter::once(tenant).chain(before) {
                        for store in concerned::stores_of(caches, tenant) {
                            queue.add(Key::DataStore(store));
                        }
                    }
                },
            ),
            self.watch(
                EVERYWHERE,
                Config::default().page_size(PAGE),
                |caches| &caches.data_stores,
                tell_data_store,
            ),
        ];
        all.push(Box::pin(self.clone().follow_optional()));
        all.push(Box::pin(self.clone().look_for_new()));
        for place in self.caches.namespaces.places() {
            all.extend(self.within(place));
        }
        all
    }

    /// The watches of what tenants are made of, in one place.
    fn within(&self, place: &str) -> Vec<BoxFuture<'static, ()>> {
        let ours = format!("{}={}", names::LABEL_PROJECT, names::PROJECT);
        let ours = || Config::default().labels(&ours).page_size(PAGE);
        let named = || Config::default().labels(names::LABEL_NAME).page_size(PAGE);
        let warnings = Config::default().fields("type=Warning").page_size(PAGE);
        let tabled = ObjectKind::ALL.map(|kind| match kind.optional() {
            None => kind.watch(self, place, ours()),
            Some(optional) => {
                let (run, clear) = (self.clone(), self.clone());
                let (at, config, cleared) = (place.to_owned(), ours(), place.to_owned());
                self.where_served(
                    optional,
                    move || kind.watch(&run, &at, config.clone()),
                    move || kind.cache(&clear.caches).clear(&cleared),
                )
            }
        });
        let mut all = Vec::from(tabled);
        all.extend([
            self.gateways(place),
            self.namespaced(place, named(), |caches| &caches.replica_sets, tell_tenant),
            self.namespaced(place, named(), |caches| &caches.pods, tell_tenant),
            self.namespaced(place, warnings, |caches| &caches.events, tell_tenants_near),
        ]);
        all
    }

    /// The watch of Gateways, which are the administrators'.
    fn gateways(&self, place: &str) -> BoxFuture<'static, ()> {
        let (run, clear) = (self.clone(), self.clone());
        let (at, cleared) = (place.to_owned(), place.to_owned());
        self.where_served(
            Optional::Gateway,
            move || {
                let config = Config::default().page_size(PAGE);
                run.namespaced(&at, config, |caches| &caches.gateways, tell_routed_through)
            },
            move || clear.caches.gateways.clear(&cleared),
        )
    }

    /// Runs a watch while its kind is served, and lets go of what is held when it is not
    /// any more.
    fn where_served(
        &self,
        kind: Optional,
        watch: impl Fn() -> BoxFuture<'static, ()> + Send + 'static,
        clear: impl Fn() + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let mut served = self.caches.optional.subscribe();
        Box::pin(async move {
            // The sender lives as long as the caches, which the watches hold.
            while served
                .wait_for(|it| it.has(kind) == Some(true))
                .await
                .is_ok()
            {
                tokio::select! {
                    () = watch() => {}
                    _ = served.wait_for(|it| it.has(kind) != Some(true)) => {}
                }
                clear();
            }
        })
    }

    /// Finds out which optional kinds the management cluster serves, again and again: they
    /// are installed and removed while we run.
    async fn follow_optional(self) {
        let mut were_known = true;
        loop {
            let known = self.caches.optional.borrow().clone();
            let found = served::look(&self.client, &known).await;
            if found != known {
                self.caches.optional.send_replace(found);
                self.tell_routed(|_| true);
            }
            // Unknown twice in a row: for as long as lies between looks.
            let are_known = self.caches.gateways_known();
            let overdue = !are_known && !were_known;
            were_known = are_known;
            if self
                .caches
                .gateways_overdue
                .swap(overdue, Ordering::Relaxed)
                != overdue
            {
                self.tell_routed(|_| true);
            }
            tokio::time::sleep(timing::OPTIONAL_EVERY).await;
        }
    }

    /// What tenants' routes depend on has changed.
    fn tell_routed(&self, concerned: impl Fn(&TenantControlPlane) -> bool) {
        let tenants = self.caches.tenants.all().into_iter();
        let routed = tenants.filter(|it| it.spec.control_plane.by_name().is_some());
        for tenant in routed.filter(|it| concerned(it)) {
            self.queue
                .add(Key::Tenant(NamespacedName::of(&tenant.metadata)));
        }
    }

    /// The watch of a kind in one place; `tell` says whom a change concerns.
    pub fn namespaced<K>(
        &self,
        place: &str,
        config: Config,
        cache: fn(&Caches) -> &Cache<K>,
        tell: Tell<K>,
    ) -> BoxFuture<'static, ()>
    where
        K: Cached
            + kube::Resource<Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        self.watch(place, config, cache, tell)
    }

    fn watch<K>(
        &self,
        place: &str,
        config: Config,
        cache: fn(&Caches) -> &Cache<K>,
        tell: Tell<K>,
    ) -> BoxFuture<'static, ()>
    where
        K: Cached + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let (this, place) = (self.clone(), place.to_owned());
        Box::pin(async move {
            // Objects are judged by the tenants that there are, and by those that are gone
            // and have left something in a DataStore.
            let own = <K as kube::Resource>::group(&()) == apiservice::GROUP;
            let judges = || {
                let caches = &this.caches;
                caches.tenants.synced(EVERYWHERE) && caches.data_stores.synced(EVERYWHERE)
            };
            while !own && !judges() {
                tokio::time::sleep(TENANTS_LOOK).await;
            }
            let is_gateway = K::kind(&()) == <Gateway as kube::Resource>::kind(&());
            let turns = turns::<K>();
            let mut turn: Option<SemaphorePermit<'static>> = None;
            let bounds = Bounds::at(&path::<K>(&place));
            let start = || follow::<K>(this.client.clone(), &place, &config, bounds);
            let mut stream = start();
            let mut list = vec![];
            let mut trouble = Trouble::new(match place.as_str() {
                EVERYWHERE => K::plural(&()).into_owned(),
                namespace => format!("{} in {namespace}", K::plural(&())),
            });
            while let Some(event) = stream.next().await {
                let cache = cache(&this.caches);
                match event {
                    Ok(Event::Init) => {
                        drop(turn.take());
                        if !own {
                            turn = turns.acquire().await.ok();
                        }
                        cache.begin_list(&place);
                        list.clear();
                    }
                    Ok(Event::InitApply(object)) => list.extend(this.caches.kept(object)),
                    Ok(Event::InitUnread(name)) => cache.leave(&place, name),
                    Ok(Event::InitDone) => {
                        drop(turn.take());
                        let was_refused = cache.refusal(&place).is_some();
                        let was_known = cache.synced(&place);
                        let (gone, news) = cache.replace(&place, std::mem::take(&mut list));
                        trouble.over();
                        if was_refused {
                            this.tell_all_in(&place);
                        }
                        for object in &gone {
                            this.is_there(object.as_ref(), cache).await;
                        }
                        for object in gone.iter().chain(&news) {
                            tell(&this.caches, &this.queue, object, None);
                        }
                        if is_gateway && !was_known {
                            // Who waited to know of them is told that there is none, too.
                            this.tell_routed(|_| true);
                        }
                    }
                    Ok(Event::Apply(object)) => {
                        trouble.over();
                        let name = NamespacedName::of(object.meta());
                        let before = cache.get(&name);
                        let Some(object) = this.caches.kept(object) else {
                            if let Some(before) = before {
                                cache.forget(
                                    &name,
                                    before.meta().uid.as_deref().unwrap_or_default(),
                                );
                                tell(&this.caches, &this.queue, &before, None);
                            }
                            continue;
                        };
                        if cache.put(object.clone()) {
                            tell(&this.caches, &this.queue, &object, before.as_deref());
                        }
                    }
                    Ok(Event::Delete(object)) => {
                        trouble.over();
                        if !this.is_there(&object, cache).await {
                            cache.remove(&object);
                        }
                        tell(&this.caches, &this.queue, &object, None);
                    }
                    Err(error) => {
                        drop(turn.take());
                        trouble.note(&error);
                        // The rights may be those of a namespace that is ending, and
                        // the other namespaces do not wait for it.
                        // Routes can do without having seen their Gateways.
                        let elsewhere = place != EVERYWHERE || is_gateway;
                        let lasting = elsewhere && trouble.is_lasting_refusal();
                        if lasting && cache.refuse(&place, error.to_string()) {
                            this.tell_all_in(&place);
                            // A watch that goes on when the rights are back says
                            // nothing of it; a list does.
                            stream = start();
                        }
                    }
                }
            }
        })
    }

    /// What can be known and done in a namespace has changed.
    fn tell_all_in(&self, namespace: &str) {
        for tenant in self.caches.tenants.all() {
            let name = NamespacedName::of(&tenant.metadata);
            if name.namespace == namespace {
                self.queue.add(Key::Tenant(name));
            }
        }
    }

    /// An object that leaves a selection may only have lost its label. Ours
    /// are looked up by name, so that a missing label is not taken for a
    /// missing object; one that is found is put into the cache.
    async fn is_there<K>(&self, object: &K, cache: &Cache<K>) -> bool
    where
        K: Cached + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let ours = ObjectKind::ALL
            .iter()
            .any(|kind| kind.name() == K::kind(&()));
        let lives = tenant_of(object.meta())
            .and_then(|tenant| self.caches.tenants.get(&tenant))
            .is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_none());
        if !ours || !lives {
            return false;
        }
        let name = NamespacedName::of(object.meta());
        let path = format!("{}/{}", path::<K>(&name.namespace), name.name);
        let call = pieces::get::<K>(&self.client, path);
        match tokio::time::timeout(timing::LOOK_DEADLINE, call).await {
            Ok(Ok(found)) if found.meta().uid == object.meta().uid => {
                let found = self.caches.kept(found);
                found.is_some_and(|found| cache.put(found))
            }
            _ => false,
        }
    }

    /// The watch of one Secret that a DataStore refers to.
    pub fn secret(&self, name: NamespacedName) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            let config = Config::default().fields(&format!("metadata.name={}", name.name));
            let (client, place) = (this.client.clone(), &name.namespace);
            let mut stream = follow::<Secret>(client, place, &config, Bounds::REFERENCED);
            let mut trouble = Trouble::new(format!("secret {name}"));
            let (mut found, mut is_unread) = (None, false);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(Event::Init) => (found, is_unread) = (None, false),
                    Ok(Event::InitApply(secret)) => found = Some(Arc::new(secret)),
                    // It is there: what is known of it stays.
                    Ok(Event::InitUnread(_)) => is_unread = true,
                    Ok(Event::InitDone) if is_unread => {}
                    Ok(Event::InitDone) => this.tell_material(&name, found.clone()),
                    Ok(Event::Apply(secret)) => this.tell_material(&name, Some(Arc::new(secret))),
                    Ok(Event::Delete(_)) => this.tell_material(&name, None),
                    Err(error) => {
                        trouble.note(&error);
                        let lasting = trouble.is_lasting_refusal();
                        if lasting && this.caches.referenced_secrets.refuse(name.clone()) {
                            this.tell_users(&name);
                        }
                        continue;
                    }
                }
                trouble.over();
            }
        })
    }

    fn tell_material(&self, name: &NamespacedName, secret: Option<Arc<Secret>>) {
        self.caches.referenced_secrets.set(name.clone(), secret);
        self.tell_users(name);
    }

    /// Tells the DataStores that refer to a Secret, and their tenants.
    fn tell_users(&self, name: &NamespacedName) {
        for store in self.caches.data_stores.all() {
            if concerned::references(&store).contains(name) {
                let store = store.metadata.name.clone().unwrap_or_default();
                for tenant in concerned::tenants_of(&self.caches, &store) {
                    self.queue.add(Key::Tenant(tenant));
                }
                self.queue.add(Key::DataStore(store));
            }
        }
    }
}

/// Where the lists of a kind wait for each other.
fn turns<K: Cached>() -> &'static Semaphore {
    match Optional::ALL.iter().position(|it| it.is::<K>()) {
        Some(at) => &LISTS_OF_OPTIONAL[at],
        None if ObjectKind::named(&K::kind(&())).is_some() => &LISTS_OF_OWNED,
        None => &LISTS_OF_OTHERS,
    }
}

/// What changed concerns the tenant that it belongs to.
pub fn tell_tenant<K: Cached>(_: &Caches, queue: &Queue<Key>, object: &K, before: Option<&K>) {
    // It may have belonged to another tenant.
    for object in iter::once(object).chain(before) {
        if let Some(tenant) = tenant_of(object.meta()) {
            queue.add(Key::Tenant(tenant));
        }
    }
}

/// A DataStore that changed concerns some of the tenants in it.
fn tell_data_store(
    caches: &Caches,
    queue: &Queue<Key>,
    store: &DataStore,
    before: Option<&DataStore>,
) {
    let name = store.metadata.name.clone().unwrap_or_default();
    for tenant in concerned::concerned(caches, store, before) {
        queue.add(Key::Tenant(tenant));
    }
    queue.add(Key::DataStore(name));
}

/// A Gateway that changed concerns the tenants whose routes refer to it.
fn tell_routed_through(
    caches: &Caches,
    queue: &Queue<Key>,
    gateway: &Gateway,
    _: Option<&Gateway>,
) {
    let changed = NamespacedName::of(&gateway.metadata);
    for tenant in caches.tenants.all() {
        let Some(routed) = &tenant.spec.control_plane.gateway else {
            continue;
        };
        let name = NamespacedName::of(&tenant.metadata);
        let mut parents = routed.parent_refs.iter();
        let refers = parents.any(|it| {
            let namespace = it.namespace.as_deref().unwrap_or(&name.namespace);
            it.name == changed.name && namespace == changed.namespace
        });
        if refers {
            queue.add(Key::Tenant(name));
        }
    }
}

/// Events carry no labels: what they are about starts with a tenant's name.
fn tell_tenants_near(
    caches: &Caches,
    queue: &Queue<Key>,
    event: &CoreEvent,
    before: Option<&CoreEvent>,
) {
    for event in iter::once(event).chain(before) {
        if let Some(tenant) = tenant_near(caches, event) {
            queue.add(Key::Tenant(tenant));
        }
    }
}

/// Says once a minute that a watch does not work, and once that it does again.
struct Trouble {
    what: String,
    said: Option<tokio::time::Instant>,
    /// When the first and the last of the answers came that were all that we may not.
    refused: Option<(tokio::time::Instant, tokio::time::Instant)>,
}

/// A kube-apiserver that has just started refuses what it will grant.
const LASTING: Duration = Duration::from_secs(10);
/// A watch that was silent for longer between two refusals has gone on between them.
const APART: Duration = Duration::from_secs(120);

fn is_refusal(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}

impl Trouble {
    fn new(what: String) -> Self {
        Self {
            what,
            said: None,
            refused: None,
        }
    }

    /// Whether nothing but refusals has come for so long that it will stay so.
    fn is_lasting_refusal(&self) -> bool {
        self.refused
            .is_some_and(|(first, _)| first.elapsed() >= LASTING)
    }

    fn note(&mut self, error: &watcher::Error) {
        let now = tokio::time::Instant::now();
        let before = self.refused.filter(|(_, last)| last.elapsed() < APART);
        self.refused = is_refusal(error).then(|| (before.map_or(now, |(first, _)| first), now));
        let due = self
            .said
            .is_none_or(|said| said.elapsed() > Duration::from_secs(60));
        if due {
            self.said = Some(now);
            tracing::warn!(watch = self.what, "cannot watch: {error}");
        }
    }

    fn over(&mut self) {
        self.refused = None;
        if self.said.take().is_some() {
            tracing::info!(watch = self.what, "watching again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiservice::v1alpha1::PendingCleanup;
    use kube::core::Status;

    /// One that hangs, because nobody converts its versions, keeps none waiting that is needed.
    #[test]
    fn kinds_that_may_be_missing_are_listed_by_themselves() {
        use crate::cluster::routes::{IngressRouteTcp, TlsRoute, TlsRouteV1Alpha2};
        use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

        let optional = [
            turns::<TlsRoute>(),
            turns::<TlsRouteV1Alpha2>(),
            turns::<Gateway>(),
            turns::<IngressRouteTcp>(),
        ];
        let needed = [turns::<Secret>(), turns::<Pod>()];
        assert!(std::ptr::eq(needed[0], turns::<Deployment>()));
        let all: std::collections::BTreeSet<_> = optional
            .iter()
            .chain(&needed)
            .map(|it| std::ptr::from_ref(*it))
            .collect();
        assert_eq!(all.len(), 6);
    }

    /// A watch that is too old begins anew: nobody is told what is as it was.
    #[tokio::test]
    async fn a_list_that_is_read_again_wakes_nobody() {
        use crate::context::testing::{Asked, context, fill};
        use serde_json::json;

        fn answers(asked: &Asked) -> (u16, serde_json::Value) {
            if asked.path.contains("watch=true") {
                return (410, json!({"kind": "Status", "code": 410}));
            }
            let gateway = json!({"metadata": {
                "name": "g", "namespace": "edge", "uid": "u", "resourceVersion": "1",
            }});
            (
                200,
                json!({"items": [gateway], "metadata": {"resourceVersion": "9"}}),
            )
        }
        let (ctx, asked) = context(answers, true).await;
        let lab = crate::tenant::testing::Lab::ready();
        fill(&ctx.caches, &lab);
        let mut tenant = TenantControlPlane::clone(&lab.world.tenant);
        tenant.spec.control_plane.gateway = serde_json::from_value(json!({
            "hostname": "a.example.com", "parentRefs": [{"name": "g", "namespace": "edge"}],
        }))
        .unwrap();
        assert!(tenant.spec.control_plane.by_name().is_some());
        ctx.caches
            .tenants
            .replace(EVERYWHERE, vec![Arc::new(tenant)]);
        let watches = Watches {
            client: ctx.client.clone(),
            caches: ctx.caches.clone(),
            queue: ctx.queue.clone(),
        };
        let config = Config::default().page_size(PAGE);
        let watch = watches.namespaced(
            EVERYWHERE,
            config,
            |caches| &caches.gateways,
            tell_routed_through,
        );
        let lists = || {
            asked
                .lock()
                .iter()
                .filter(|it| !it.path.contains("watch="))
                .count()
        };
        let reads = async {
            let told = ctx.queue.next().await;
            ctx.queue.done(told);
            while lists() < 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = watch => unreachable!("it goes on"),
            () = reads => {}
        }
        assert_eq!(ctx.queue.depth(), 0);
    }

    /// A tenant that comes or goes is no news to all the others of its DataStore.
    #[test]
    fn whom_a_data_store_concerns() {
        let caches = Caches::default();
        let tenant = |name: &str, wanted: Option<&str>| {
            let mut tenant = TenantControlPlane::new(name, Default::default());
            tenant.metadata.namespace = Some("n".to_owned());
            tenant.metadata.uid = Some(format!("uid-{name}"));
            tenant.spec.data_store = wanted.map(str::to_owned);
            Arc::new(tenant)
        };
        let mut tenants: Vec<_> = (0..10)
            .map(|number| tenant(&format!("t{number}"), Some("a")))
            .collect();
        tenants.push(tenant("waits", None));
        caches.tenants.replace(EVERYWHERE, tenants);
        let store: DataStore = serde_json::from_value(serde_json::json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": "a", "uid": "u"},
            "spec": {"driver": "etcd", "endpoints": ["etcd:2379"]},
        }))
        .unwrap();
        caches
            .data_stores
            .replace(EVERYWHERE, vec![Arc::new(store.clone())]);
        let told = |now: &DataStore, before: Option<&DataStore>| {
            let queue = Queue::new();
            tell_data_store(&caches, &queue, now, before);
            queue.depth()
        };
        assert_eq!(told(&store, None), 12, "all, and itself");
        let mut used = store.clone();
        let status = used.status.get_or_insert_default();
        status.used_by.push("n/t10".to_owned());
        status.size = Some(5);
        assert_eq!(
            told(&used, Some(&store)),
            2,
            "who waits for a place, and itself"
        );
        let mut pending = used.clone();
        let status = pending.status.get_or_insert_default();
        status.pending_cleanups.push(PendingCleanup {
            uid: "uid-t3".to_owned(),
            ..PendingCleanup::default()
        });
        assert_eq!(told(&pending, Some(&used)), 3, "who is named, too");
        assert_eq!(told(&used, Some(&pending)), 3);
        let mut changed = used.clone();
        changed.spec.endpoints.push("etcd-1:2379".to_owned());
        assert_eq!(told(&changed, Some(&used)), 12);
        let mut deleted = used.clone();
        deleted.metadata.deletion_timestamp = Some(at_zero());
        assert_eq!(told(&deleted, Some(&used)), 12);
    }

    fn at_zero() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH)
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_counts_once_it_lasts() {
        let failure = |code| {
            let status = Status::failure("no", "Reason").with_code(code);
            watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
        };
        let mut trouble = Trouble::new("secrets in a".into());
        trouble.note(&failure(403));
        assert!(!trouble.is_lasting_refusal());
        tokio::time::advance(LASTING).await;
        // Between refusals was another answer: not for so long.
        trouble.note(&failure(503));
        trouble.note(&failure(403));
        assert!(!trouble.is_lasting_refusal());
        tokio::time::advance(LASTING).await;
        trouble.note(&failure(403));
        assert!(trouble.is_lasting_refusal());
        trouble.over();
        assert!(!trouble.is_lasting_refusal());
        // A watch that went on in silence between two refusals.
        trouble.note(&failure(403));
        tokio::time::advance(APART).await;
        trouble.note(&failure(403));
        assert!(!trouble.is_lasting_refusal());
    }
}
