//! Fills the caches: one watch for each kind, for as long as the process
//! runs. What changes is told to the queue.

use std::{sync::Arc, time::Duration};

use apiservice::names;
use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{Event as CoreEvent, Secret};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event},
    },
};
use serde::de::DeserializeOwned;

use crate::{
    caches::{Cache, Cached, Caches, Name, tenant_of},
    context::Key,
    queue::Queue,
    requeue,
};

/// What a watch needs besides its kind.
#[derive(Clone)]
pub struct Watches {
    /// Reaches the management cluster.
    pub client: Client,
    pub caches: Arc<Caches>,
    pub queue: Arc<Queue<Key>>,
}

impl Watches {
    /// The watches of all kinds, each to be run as its own task.
    pub fn all(&self) -> Vec<BoxFuture<'static, ()>> {
        let ours = format!("{}={}", names::LABEL_PROJECT, names::PROJECT);
        let ours = || Config::default().labels(&ours);
        let named = || Config::default().labels(names::LABEL_NAME);
        vec![
            self.watch(
                Config::default(),
                |caches| &caches.tenants,
                |caches, queue, tenant| {
                    queue.add(Key::Tenant(Name::of(&tenant.metadata)));
                    for store in crate::data_store::stores_of(caches, tenant) {
                        queue.add(Key::DataStore(store));
                    }
                },
            ),
            self.watch(
                Config::default(),
                |caches| &caches.data_stores,
                |caches, queue, store| {
                    let name = store.metadata.name.clone().unwrap_or_default();
                    for tenant in crate::data_store::tenants_of(caches, &name) {
                        queue.add(Key::Tenant(tenant));
                    }
                    queue.add(Key::DataStore(name));
                },
            ),
            self.watch(ours(), |caches| &caches.secrets, tell_tenant),
            self.watch(ours(), |caches| &caches.config_maps, tell_tenant),
            self.watch(ours(), |caches| &caches.services, tell_tenant),
            self.watch(ours(), |caches| &caches.deployments, tell_tenant),
            self.watch(ours(), |caches| &caches.roles, tell_tenant),
            self.watch(ours(), |caches| &caches.role_bindings, tell_tenant),
            self.watch(named(), |caches| &caches.replica_sets, tell_tenant),
            self.watch(named(), |caches| &caches.pods, tell_tenant),
            self.watch(
                Config::default().fields("type=Warning"),
                |caches| &caches.events,
                tell_tenants_near,
            ),
        ]
    }

    fn watch<K>(
        &self,
        config: Config,
        cache: fn(&Caches) -> &Cache<K>,
        tell: fn(&Caches, &Queue<Key>, &K),
    ) -> BoxFuture<'static, ()>
    where
        K: Cached + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let this = self.clone();
        Box::pin(async move {
            let api: Api<K> = Api::all(this.client.clone());
            let mut stream = watcher::watcher(api, config)
                .backoff(requeue::watch_backoff())
                .boxed();
            let mut list = vec![];
            let mut trouble = Trouble::new(K::plural(&()).into_owned());
            while let Some(event) = stream.next().await {
                let cache = cache(&this.caches);
                match event {
                    Ok(Event::Init) => {
                        cache.begin_list();
                        list.clear();
                    }
                    Ok(Event::InitApply(object)) => list.push(prune(object)),
                    Ok(Event::InitDone) => {
                        let listed: Vec<Arc<K>> = std::mem::take(&mut list);
                        let gone = cache.replace(listed.clone());
                        trouble.over();
                        for object in &gone {
                            this.is_there(object.as_ref(), cache).await;
                        }
                        for object in gone.iter().chain(&listed) {
                            tell(&this.caches, &this.queue, object);
                        }
                    }
                    Ok(Event::Apply(object)) => {
                        trouble.over();
                        let object = prune(object);
                        let before = cache.get(&Name::of(object.meta()));
                        if cache.put(object.clone()) {
                            tell(&this.caches, &this.queue, &object);
                            if let Some(before) = before {
                                // It may have belonged to another tenant.
                                tell(&this.caches, &this.queue, &before);
                            }
                        }
                    }
                    Ok(Event::Delete(object)) => {
                        trouble.over();
                        let object = prune(object);
                        if !this.is_there(object.as_ref(), cache).await {
                            cache.remove(&object);
                        }
                        tell(&this.caches, &this.queue, &object);
                    }
                    Err(error) => trouble.note(&error),
                }
            }
        })
    }

    /// An object that leaves a selection may only have lost its label. Ours
    /// are looked up by name, so that a missing label is not taken for a
    /// missing object; one that is found is put into the cache.
    async fn is_there<K>(&self, object: &K, cache: &Cache<K>) -> bool
    where
        K: Cached + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let ours = matches!(
            K::kind(&()).as_ref(),
            "Secret" | "ConfigMap" | "Service" | "Deployment" | "Role" | "RoleBinding"
        );
        let lives = tenant_of(object.meta())
            .and_then(|tenant| self.caches.tenants.get(&tenant))
            .is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_none());
        if !ours || !lives {
            return false;
        }
        let name = Name::of(object.meta());
        let path = format!("{}/{}", K::url_path(&(), Some(&name.namespace)), name.name);
        let Ok(request) = http::Request::get(path).body(vec![]) else {
            return false;
        };
        let call = self.client.request::<K>(request);
        match tokio::time::timeout(requeue::LOOK_DEADLINE, call).await {
            Ok(Ok(found)) if found.meta().uid == object.meta().uid => {
                cache.put(prune(found));
                true
            }
            _ => false,
        }
    }

    /// The watch of one Secret that a DataStore refers to.
    pub fn secret(&self, name: Name) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            let api: Api<Secret> = Api::namespaced(this.client.clone(), &name.namespace);
            let config = Config::default().fields(&format!("metadata.name={}", name.name));
            let mut stream = watcher::watcher(api, config)
                .backoff(requeue::watch_backoff())
                .boxed();
            let mut trouble = Trouble::new(format!("secret {name}"));
            let mut found = None;
            while let Some(event) = stream.next().await {
                match event {
                    Ok(Event::Init) => found = None,
                    Ok(Event::InitApply(secret)) => found = Some(Arc::new(secret)),
                    Ok(Event::InitDone) => this.tell_material(&name, found.clone()),
                    Ok(Event::Apply(secret)) => this.tell_material(&name, Some(Arc::new(secret))),
                    Ok(Event::Delete(_)) => this.tell_material(&name, None),
                    Err(error) => {
                        trouble.note(&error);
                        continue;
                    }
                }
                trouble.over();
            }
        })
    }

    fn tell_material(&self, name: &Name, secret: Option<Arc<Secret>>) {
        self.caches.material.set(name.clone(), secret);
        for store in self.caches.data_stores.all() {
            if crate::data_store::references(&store).contains(name) {
                let store = store.metadata.name.clone().unwrap_or_default();
                for tenant in crate::data_store::tenants_of(&self.caches, &store) {
                    self.queue.add(Key::Tenant(tenant));
                }
                self.queue.add(Key::DataStore(store));
            }
        }
    }
}

fn tell_tenant<K: Cached>(_: &Caches, queue: &Queue<Key>, object: &K) {
    if let Some(tenant) = tenant_of(object.meta()) {
        queue.add(Key::Tenant(tenant));
    }
}

/// Events carry no labels: what they are about starts with a tenant's name.
fn tell_tenants_near(caches: &Caches, queue: &Queue<Key>, event: &CoreEvent) {
    if let Some(tenant) = tenant_near(caches, event) {
        queue.add(Key::Tenant(tenant));
    }
}

/// The tenant that an event of the management cluster is about: the one whose
/// name is the longest beginning of the object's.
pub fn tenant_near(caches: &Caches, event: &CoreEvent) -> Option<Name> {
    let about = &event.involved_object;
    if !matches!(
        about.kind.as_deref(),
        Some("Pod" | "ReplicaSet" | "Deployment" | "Service")
    ) {
        return None;
    }
    let namespace = about.namespace.clone()?;
    let mut name = about.name.as_deref()?;
    loop {
        let candidate = Name::new(namespace.clone(), name);
        if caches.tenants.get(&candidate).is_some() {
            return Some(candidate);
        }
        name = name.rsplit_once('-')?.0;
    }
}

/// Most of the managers of fields are of no interest and take space.
fn prune<K: Cached>(mut object: K) -> Arc<K> {
    crate::apply_objects::prune_managers(object.meta_mut());
    Arc::new(object)
}

/// Says once a minute that a watch does not work, and once that it does again.
struct Trouble {
    what: String,
    said: Option<tokio::time::Instant>,
}

impl Trouble {
    fn new(what: String) -> Self {
        Self { what, said: None }
    }

    fn note(&mut self, error: &watcher::Error) {
        let due = self
            .said
            .is_none_or(|said| said.elapsed() > Duration::from_secs(60));
        if due {
            self.said = Some(tokio::time::Instant::now());
            tracing::warn!(watch = self.what, "cannot watch: {error}");
        }
    }

    fn over(&mut self) {
        if self.said.take().is_some() {
            tracing::info!(watch = self.what, "watching again");
        }
    }
}
