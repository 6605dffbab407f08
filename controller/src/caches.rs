//! What the controller has seen of the management cluster, kept by watches
//! and indexed by tenant. Reading is synchronous and never fails.
//!
//! Absence here is not deletion (rule 3): an API that does not answer leaves
//! everything as it was, and nothing in this crate deletes because something
//! is missing from a cache.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use apiservice::v1alpha1::{DataStore, TenantControlPlane};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Event, Pod, Secret, Service},
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use parking_lot::RwLock;

/// Namespace and name, of a tenant or of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

impl Name {
    /// From its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Of an object.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The tenant that controls an object, else the one whose name label it
/// carries: an object of ours stays ours when somebody takes its labels away.
pub fn tenant_of(meta: &ObjectMeta) -> Option<Name> {
    let owner = meta.owner_references.iter().flatten().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == "TenantControlPlane"
            && owner.api_version.starts_with(apiservice::GROUP)
    });
    if let Some(owner) = owner {
        return Some(Name::new(meta.namespace.clone()?, owner.name.clone()));
    }
    let name = meta.labels.as_ref()?.get(apiservice::names::LABEL_NAME)?;
    Some(Name::new(meta.namespace.clone()?, name))
}

/// One kind's objects.
#[derive(Debug)]
pub struct Cache<K> {
    inner: RwLock<Inner<K>>,
    synced: AtomicBool,
}

#[derive(Debug)]
struct Inner<K> {
    objects: HashMap<Name, Arc<K>>,
    groups: HashMap<Name, HashSet<Name>>,
    /// What answers to writes put in while a list is under way.
    fresh: Option<HashSet<Name>>,
    /// Uids that were last seen leaving, with their revision: the answer to a
    /// write may arrive after the news that its object is gone.
    gone: VecDeque<(String, u128)>,
}

/// How many uids are remembered as gone.
const REMEMBERED: usize = 1024;

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            inner: RwLock::new(Inner {
                objects: HashMap::new(),
                groups: HashMap::new(),
                fresh: None,
                gone: VecDeque::new(),
            }),
            synced: AtomicBool::new(false),
        }
    }
}

/// Objects with metadata and the group that they are looked up by.
pub trait Cached: kube::Resource<DynamicType = ()> + Send + Sync + 'static {
    /// The tenant it belongs to, or whatever else it is grouped by.
    fn group(&self) -> Option<Name> {
        tenant_of(self.meta())
    }
}

impl<K: Cached> Cache<K> {
    /// Puts in what a watch or the answer to a write says. What is older than
    /// what is held is dropped; false then.
    pub fn put(&self, object: Arc<K>) -> bool {
        let name = Name::of(object.meta());
        let mut inner = self.inner.write();
        if let Some(held) = inner.objects.get(&name)
            && held.meta().uid == object.meta().uid
            && revision(held.meta()) > revision(object.meta())
        {
            return false;
        }
        if inner.is_gone(object.meta()) {
            return false;
        }
        if let Some(fresh) = &mut inner.fresh {
            fresh.insert(name.clone());
        }
        inner.put(name, object);
        true
    }

    /// A list begins: what is put from now on may be missing from it.
    pub fn begin_list(&self) {
        self.inner.write().fresh = Some(HashSet::new());
    }

    /// Takes out an object that a watch says is gone, unless what is held is
    /// newer or another object of that name.
    pub fn remove(&self, object: &K) {
        let name = Name::of(object.meta());
        let mut inner = self.inner.write();
        inner.bury(object.meta());
        if let Some(held) = inner.objects.get(&name)
            && held.meta().uid == object.meta().uid
            && revision(held.meta()) <= revision(object.meta())
        {
            inner.remove(&name);
        }
    }

    /// Takes out an object by name and uid, when an answer says it is gone.
    pub fn forget(&self, name: &Name, uid: &str) {
        let mut inner = self.inner.write();
        if let Some(held) = inner.objects.get(name)
            && held.meta().uid.as_deref() == Some(uid)
        {
            inner.remove(name);
        }
    }

    /// A complete list of its kind: what is not in it leaves the cache, unless
    /// it was put in since the list began. Returns what left.
    pub fn replace(&self, list: Vec<Arc<K>>) -> Vec<Arc<K>> {
        let mut inner = self.inner.write();
        let fresh = inner.fresh.take().unwrap_or_default();
        let names: HashSet<Name> = list.iter().map(|object| Name::of(object.meta())).collect();
        let gone: Vec<Arc<K>> = inner
            .objects
            .iter()
            .filter(|(name, _)| !names.contains(*name) && !fresh.contains(*name))
            .map(|(_, held)| held.clone())
            .collect();
        for object in &gone {
            inner.remove(&Name::of(object.meta()));
        }
        for object in list {
            let name = Name::of(object.meta());
            let older = inner.objects.get(&name).is_some_and(|held| {
                held.meta().uid == object.meta().uid
                    && revision(held.meta()) > revision(object.meta())
            });
            if !older {
                inner.put(name, object);
            }
        }
        drop(inner);
        self.synced.store(true, Ordering::Release);
        gone
    }

    /// True once a complete list was seen.
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// One object.
    pub fn get(&self, name: &Name) -> Option<Arc<K>> {
        self.inner.read().objects.get(name).cloned()
    }

    /// The objects of a group, in the order of their names.
    pub fn of(&self, group: &Name) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let Some(names) = inner.groups.get(group) else {
            return vec![];
        };
        let mut found: Vec<_> = names
            .iter()
            .filter_map(|name| Some((name, inner.objects.get(name)?.clone())))
            .collect();
        found.sort_by(|a, b| a.0.cmp(b.0));
        found.into_iter().map(|(_, object)| object).collect()
    }

    /// Everything held.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// How much is held.
    pub fn len(&self) -> usize {
        self.inner.read().objects.len()
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Cached> Inner<K> {
    fn bury(&mut self, meta: &ObjectMeta) {
        if let Some(uid) = &meta.uid {
            self.gone.push_back((uid.clone(), revision(meta)));
            if self.gone.len() > REMEMBERED {
                self.gone.pop_front();
            }
        }
    }

    /// True for a state of an object from before it left. One that only left a
    /// selection may come back, with a later revision.
    fn is_gone(&self, meta: &ObjectMeta) -> bool {
        let left = self
            .gone
            .iter()
            .rev()
            .find(|(uid, _)| meta.uid.as_ref() == Some(uid));
        left.is_some_and(|(_, at)| revision(meta) <= *at)
    }

    fn put(&mut self, name: Name, object: Arc<K>) {
        self.remove(&name);
        if let Some(group) = object.group() {
            self.groups.entry(group).or_default().insert(name.clone());
        }
        self.objects.insert(name, object);
    }

    fn remove(&mut self, name: &Name) {
        if let Some(old) = self.objects.remove(name)
            && let Some(group) = old.group()
            && let Some(names) = self.groups.get_mut(&group)
        {
            names.remove(name);
            if names.is_empty() {
                self.groups.remove(&group);
            }
        }
    }
}

/// Resource versions of one kind can be compared since Kubernetes 1.35 says
/// so; what cannot be read counts as oldest.
fn revision(meta: &ObjectMeta) -> u128 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

impl Cached for TenantControlPlane {
    /// By the DataStore that it uses, or would.
    fn group(&self) -> Option<Name> {
        None
    }
}
impl Cached for DataStore {
    fn group(&self) -> Option<Name> {
        None
    }
}
impl Cached for Secret {}
impl Cached for ConfigMap {}
impl Cached for Service {}
impl Cached for Deployment {}
impl Cached for Role {}
impl Cached for RoleBinding {}
impl Cached for ReplicaSet {}
impl Cached for Pod {}
impl Cached for Event {
    /// By the namespace of what it is about: which tenant that is, is decided
    /// when it is looked up.
    fn group(&self) -> Option<Name> {
        Some(Name::new(self.involved_object.namespace.clone()?, ""))
    }
}

/// All kinds.
#[derive(Debug, Default)]
pub struct Caches {
    pub tenants: Cache<TenantControlPlane>,
    pub data_stores: Cache<DataStore>,
    pub secrets: Cache<Secret>,
    pub config_maps: Cache<ConfigMap>,
    pub services: Cache<Service>,
    pub deployments: Cache<Deployment>,
    pub roles: Cache<Role>,
    pub role_bindings: Cache<RoleBinding>,
    pub replica_sets: Cache<ReplicaSet>,
    pub pods: Cache<Pod>,
    /// Events of type Warning about pods, ReplicaSets, Deployments, Services.
    pub events: Cache<Event>,
    /// Secrets that DataStores refer to.
    pub material: Material,
}

/// Secrets watched one by one.
#[derive(Debug, Default)]
pub struct Material {
    secrets: RwLock<BTreeMap<Name, Option<Arc<Secret>>>>,
}

impl Material {
    /// Notes what a watch of one Secret says; `None`: it does not exist.
    pub fn set(&self, name: Name, secret: Option<Arc<Secret>>) {
        self.secrets.write().insert(name, secret);
    }

    /// Nobody refers to it any more.
    pub fn forget(&self, name: &Name) {
        self.secrets.write().remove(name);
    }

    /// The outer `None`: not known yet.
    pub fn get(&self, name: &Name) -> Option<Option<Arc<Secret>>> {
        self.secrets.read().get(name).cloned()
    }
}

impl Caches {
    /// True once everything that a plan decides on was listed. Pods, replica
    /// sets and events only explain; they are not waited for.
    pub fn synced(&self) -> bool {
        self.unsynced().is_empty()
    }

    /// The kinds that are still being waited for.
    pub fn unsynced(&self) -> Vec<&'static str> {
        [
            ("tenantcontrolplanes", self.tenants.synced()),
            ("datastores", self.data_stores.synced()),
            ("secrets", self.secrets.synced()),
            ("configmaps", self.config_maps.synced()),
            ("services", self.services.synced()),
            ("deployments", self.deployments.synced()),
            ("roles", self.roles.synced()),
            ("rolebindings", self.role_bindings.synced()),
        ]
        .into_iter()
        .filter(|(_, synced)| !synced)
        .map(|(kind, _)| kind)
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn map(name: &str, uid: &str, version: &str, tenant: Option<&str>) -> Arc<ConfigMap> {
        Arc::new(ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                uid: Some(uid.into()),
                resource_version: Some(version.into()),
                labels: tenant
                    .map(|tenant| [(apiservice::names::LABEL_NAME.into(), tenant.into())].into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        })
    }

    #[test]
    fn a_late_watch_event_does_not_undo_the_answer_to_a_write() {
        let cache = Cache::default();
        assert!(cache.put(map("a", "1", "12", Some("t"))));
        assert!(!cache.put(map("a", "1", "9", Some("t"))));
        cache.remove(&map("a", "1", "9", Some("t")));
        assert_eq!(cache.of(&Name::new("ns", "t")).len(), 1);
        // A new object of that name is not compared with the old one's.
        assert!(cache.put(map("a", "2", "3", Some("t"))));
        cache.remove(&map("a", "1", "99", Some("t")));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn the_answer_to_a_write_does_not_bring_a_deleted_object_back() {
        let cache = Cache::default();
        cache.put(map("a", "1", "5", Some("t")));
        cache.remove(&map("a", "1", "8", Some("t")));
        assert!(!cache.put(map("a", "1", "7", Some("t"))));
        assert!(cache.is_empty());
        // It may come back into the selection, or be made anew.
        assert!(cache.put(map("a", "1", "9", Some("t"))));
        assert!(cache.put(map("a", "2", "3", Some("t"))));
    }

    #[test]
    fn a_relist_drops_what_is_gone_and_keeps_what_is_newer() {
        let cache = Cache::default();
        cache.put(map("old", "1", "5", Some("t")));
        cache.begin_list();
        cache.put(map("new", "2", "50", Some("t")));
        let gone = cache.replace(vec![map("other", "3", "20", Some("u"))]);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].metadata.name.as_deref(), Some("old"));
        assert!(cache.get(&Name::new("ns", "new")).is_some());
        assert!(cache.synced());
        assert_eq!(cache.of(&Name::new("ns", "u")).len(), 1);
    }

    #[test]
    fn a_controlled_object_needs_no_label() {
        let mut object = ConfigMap::clone(&map("a", "1", "1", None));
        object.metadata.owner_references = Some(vec![OwnerReference {
            api_version: apiservice::api_version(),
            kind: "TenantControlPlane".into(),
            name: "t".into(),
            uid: "u".into(),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
        let cache = Cache::default();
        cache.put(Arc::new(object));
        assert_eq!(cache.of(&Name::new("ns", "t")).len(), 1);
    }

    #[test]
    fn an_object_that_changes_its_label_changes_its_tenant() {
        let cache = Cache::default();
        cache.put(map("a", "1", "1", Some("t")));
        cache.put(map("a", "1", "2", Some("u")));
        assert!(cache.of(&Name::new("ns", "t")).is_empty());
        assert_eq!(cache.of(&Name::new("ns", "u")).len(), 1);
        cache.put(map("a", "1", "3", None));
        assert!(cache.of(&Name::new("ns", "u")).is_empty());
        assert_eq!(cache.len(), 1);
    }
}
