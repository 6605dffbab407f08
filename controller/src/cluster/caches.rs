//! What the controller has seen of the management cluster, kept by watches
//! and indexed by tenant. Reading is synchronous and never fails.
//!
//! Absence here is not deletion (rule 3): an API that does not answer leaves
//! everything as it was, and nothing in this crate deletes because something
//! is missing from a cache.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use apiservice::v1alpha1::{DataStore, TenantControlPlane};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Event, ObjectReference, Pod, Secret, Service},
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use parking_lot::RwLock;
use serde_json::Value;

use crate::cluster::kinds::{Found, ObjectKind, Owned};

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

/// What says that a tenant controls an object.
fn tenant_reference(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == "TenantControlPlane"
            && owner.api_version.starts_with(apiservice::GROUP)
    })
}

fn has_tenant(meta: &ObjectMeta) -> bool {
    tenant_reference(meta).is_some()
}

/// What is needed of an object that is in the way.
fn bare(meta: &ObjectMeta) -> ObjectMeta {
    let name = apiservice::names::LABEL_NAME;
    let label = meta
        .labels
        .as_ref()
        .and_then(|labels| labels.get_key_value(name));
    ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        creation_timestamp: meta.creation_timestamp.clone(),
        deletion_timestamp: meta.deletion_timestamp.clone(),
        owner_references: meta.owner_references.clone(),
        labels: label.map(|(key, value)| [(key.clone(), value.clone())].into()),
        ..ObjectMeta::default()
    }
}

/// The tenant that controls an object, else the one whose name label it
/// carries: an object of ours stays ours when somebody takes its labels away.
pub fn tenant_of(meta: &ObjectMeta) -> Option<Name> {
    if let Some(owner) = tenant_reference(meta) {
        return Some(Name::new(meta.namespace.clone()?, owner.name.clone()));
    }
    let name = meta.labels.as_ref()?.get(apiservice::names::LABEL_NAME)?;
    Some(Name::new(meta.namespace.clone()?, name))
}

/// Where tenants may stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// In any namespace: each kind is listed over the whole cluster.
    #[default]
    All,
    /// In these only: each kind is listed in each of them, and nowhere else.
    Listed(BTreeSet<String>),
}

/// The whole cluster, as the place of a list.
pub const EVERYWHERE: &str = "";

impl Namespaces {
    /// From a list of names; an empty one is the whole cluster.
    pub fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let names = names.into_iter().filter(|name| !name.is_empty());
        match names.cloned().collect::<BTreeSet<_>>() {
            none if none.is_empty() => Self::All,
            names => Self::Listed(names),
        }
    }

    /// Whether tenants may stand in this namespace.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Listed(names) => names.contains(namespace),
        }
    }

    /// The lists that are needed of a kind, each by its namespace.
    pub fn places(&self) -> Vec<&str> {
        match self {
            Self::All => vec![EVERYWHERE],
            Self::Listed(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

/// What came of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Listing {
    Done,
    /// We may not, and the API says why.
    Refused(String),
}

/// One kind's objects.
#[derive(Debug)]
pub struct Cache<K> {
    inner: RwLock<Inner<K>>,
    /// By place: a namespace, or [`EVERYWHERE`].
    lists: RwLock<HashMap<String, Listing>>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: HashMap<Name, Arc<K>>,
    groups: HashMap<Name, HashSet<Name>>,
    /// What answers to writes put in while a list is under way, by place.
    fresh: HashMap<String, HashSet<Name>>,
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
                fresh: HashMap::new(),
                gone: VecDeque::new(),
            }),
            lists: RwLock::default(),
        }
    }
}

/// Objects with metadata and the group that they are looked up by.
pub trait Cached: kube::Resource<DynamicType = ()> + Send + Sync + 'static {
    /// How many of a group are held; beyond it the oldest go. What anybody can
    /// make is bounded, so that it costs only those of its own group.
    const MOST: usize = usize::MAX;

    /// False for what nobody will ask for.
    fn is_of_use(&self) -> bool {
        true
    }

    /// Takes out what nobody reads.
    fn prune(&mut self) {}

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
        for (place, fresh) in &mut inner.fresh {
            if is_in(place, &name) {
                fresh.insert(name.clone());
            }
        }
        inner.put(name, object);
        true
    }

    /// A list of a place begins: what is put from now on may be missing from it.
    pub fn begin_list(&self, place: &str) {
        let mut inner = self.inner.write();
        inner.fresh.insert(place.to_owned(), HashSet::new());
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

    /// A complete list of its kind in a place: what is there and not in it leaves
    /// the cache, unless it was put in since the list began. Returns what left.
    pub fn replace(&self, place: &str, list: Vec<Arc<K>>) -> Vec<Arc<K>> {
        let mut inner = self.inner.write();
        let fresh = inner.fresh.remove(place).unwrap_or_default();
        let names: HashSet<Name> = list.iter().map(|object| Name::of(object.meta())).collect();
        let gone: Vec<Arc<K>> = inner
            .objects
            .iter()
            .filter(|(name, _)| is_in(place, name))
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
        let mut lists = self.lists.write();
        lists.insert(place.to_owned(), Listing::Done);
        gone
    }

    /// We may not list a place. What is held of it stays. True if that is news.
    pub fn refuse(&self, place: &str, why: String) -> bool {
        let was = self
            .lists
            .write()
            .insert(place.to_owned(), Listing::Refused(why));
        !matches!(was, Some(Listing::Refused(_)))
    }

    /// Why a place may not be listed, if that was the last answer.
    pub fn refusal(&self, place: &str) -> Option<String> {
        match self.lists.read().get(place) {
            Some(Listing::Refused(why)) => Some(why.clone()),
            _ => None,
        }
    }

    /// True once a complete list was seen of a namespace, or of everything.
    pub fn synced(&self, place: &str) -> bool {
        let lists = self.lists.read();
        let done = |place| lists.get(place) == Some(&Listing::Done);
        done(EVERYWHERE) || done(place)
    }

    /// True once a place was listed or is known not to be ours to list.
    fn is_known(&self, place: &str) -> bool {
        self.synced(place) || self.refusal(place).is_some()
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
        let group = object.group();
        if let Some(group) = &group {
            let names = self.groups.entry(group.clone()).or_default();
            names.insert(name.clone());
        }
        self.objects.insert(name, object);
        if let Some(group) = group {
            self.shorten(&group);
        }
    }

    fn shorten(&mut self, group: &Name) {
        while let Some(names) = self.groups.get(group)
            && names.len() > K::MOST
        {
            let age = |name: &&Name| self.objects.get(*name).map(|held| revision(held.meta()));
            let Some(oldest) = names.iter().min_by_key(age).cloned() else {
                return;
            };
            self.remove(&oldest);
        }
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

fn is_in(place: &str, name: &Name) -> bool {
    place == EVERYWHERE || place == name.namespace
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
/// What no tenant controls is never read: it is only in the way. Anybody can make such
/// objects with our labels, each of a MiB.
impl Cached for Secret {
    fn prune(&mut self) {
        if !has_tenant(&self.metadata) {
            *self = Secret {
                metadata: bare(&self.metadata),
                ..Secret::default()
            };
        }
    }
}
impl Cached for ConfigMap {
    fn prune(&mut self) {
        if !has_tenant(&self.metadata) {
            *self = ConfigMap {
                metadata: bare(&self.metadata),
                ..ConfigMap::default()
            };
        }
    }
}
impl Cached for Service {}
impl Cached for Deployment {}
impl Cached for Role {}
impl Cached for RoleBinding {}
impl Cached for ReplicaSet {}
impl Cached for Pod {}
impl Cached for Event {
    const MOST: usize = 1000;

    fn is_of_use(&self) -> bool {
        matches!(
            self.involved_object.kind.as_deref(),
            Some("Pod" | "ReplicaSet" | "Deployment" | "Service")
        )
    }

    fn prune(&mut self) {
        let meta = std::mem::take(&mut self.metadata);
        let about = std::mem::take(&mut self.involved_object);
        *self = Event {
            metadata: ObjectMeta {
                name: meta.name,
                namespace: meta.namespace,
                uid: meta.uid,
                resource_version: meta.resource_version,
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                kind: about.kind,
                namespace: about.namespace,
                name: about.name,
                uid: about.uid,
                ..ObjectReference::default()
            },
            reason: self.reason.take().map(|reason| cut(reason, 128)),
            message: self.message.take().map(|message| cut(message, MESSAGE)),
            type_: self.type_.take(),
            last_timestamp: self.last_timestamp.take(),
            event_time: self.event_time.take(),
            series: self.series.take(),
            ..Event::default()
        };
    }

    /// By the namespace of what it is about: which tenant that is, is decided
    /// when it is looked up.
    fn group(&self) -> Option<Name> {
        Some(Name::new(self.involved_object.namespace.clone()?, ""))
    }
}

/// Bytes of the message of an Event that are kept.
const MESSAGE: usize = 1024;

/// An object as the caches hold it. Most of the managers of fields are of no interest
/// and take space.
pub fn kept<K: Cached>(mut object: K) -> Arc<K> {
    super::managers::prune_managers(object.meta_mut());
    object.prune();
    Arc::new(object)
}

/// The beginning of a text.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.shrink_to_fit();
    }
    text
}

/// All kinds.
#[derive(Debug, Default)]
pub struct Caches {
    /// Where all but our own kinds are listed.
    pub namespaces: Namespaces,
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
    refused: RwLock<BTreeSet<Name>>,
}

impl Material {
    /// Notes what a watch of one Secret says; `None`: it does not exist.
    pub fn set(&self, name: Name, secret: Option<Arc<Secret>>) {
        self.refused.write().remove(&name);
        self.secrets.write().insert(name, secret);
    }

    /// Notes that we may not read one; what is known of it stays. True if that is
    /// news.
    pub fn refuse(&self, name: Name) -> bool {
        self.refused.write().insert(name)
    }

    /// Whether we may not read one.
    pub fn is_refused(&self, name: &Name) -> bool {
        self.refused.read().contains(name)
    }

    /// Nobody refers to it any more.
    pub fn forget(&self, name: &Name) {
        self.refused.write().remove(name);
        self.secrets.write().remove(name);
    }

    /// The outer `None`: not known yet.
    pub fn get(&self, name: &Name) -> Option<Option<Arc<Secret>>> {
        self.secrets.read().get(name).cloned()
    }
}

/// Whether what a tenant needs can be seen and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Everything that a plan decides on was listed in its namespace.
    Here,
    /// Something is still being listed.
    NotYet,
    /// Tenants do not stand in that namespace. A sentence that says so.
    NotServed(String),
    /// We may not list something there. A sentence that says what.
    Refused(String),
}

impl Caches {
    /// Empty, for tenants in these namespaces.
    pub fn of(namespaces: Namespaces) -> Self {
        Self {
            namespaces,
            ..Self::default()
        }
    }

    /// What can be planned for a tenant in this namespace.
    pub fn reach(&self, namespace: &str) -> Reach {
        if !self.tenants.synced(EVERYWHERE) || !self.data_stores.synced(EVERYWHERE) {
            return Reach::NotYet;
        }
        if !self.namespaces.has(namespace) {
            return Reach::NotServed(format!(
                "Namespace {namespace} is not in tenantNamespaces of the chart's values"
            ));
        }
        let kinds = self.decided_on();
        let refused = kinds.iter().find_map(|(_, cache)| cache.refusal(namespace));
        if let Some(why) = refused {
            return Reach::Refused(format!(
                "The controller has no rights in namespace {namespace}: {why}"
            ));
        }
        match kinds.iter().all(|(_, cache)| cache.synced(namespace)) {
            true => Reach::Here,
            false => Reach::NotYet,
        }
    }

    /// True once everything that a plan decides on was listed, wherever we may. Pods and
    /// ReplicaSets are not waited for: whoever decides by them asks `pods_known`.
    pub fn synced(&self) -> bool {
        self.unsynced().is_empty()
    }

    /// The kinds that are still being waited for.
    pub fn unsynced(&self) -> Vec<&'static str> {
        let own = [
            ("tenantcontrolplanes", self.tenants.synced(EVERYWHERE)),
            ("datastores", self.data_stores.synced(EVERYWHERE)),
        ];
        let places = self.namespaces.places();
        let others = self.decided_on().map(|(kind, cache)| {
            let known = places.iter().all(|place| cache.is_known(place));
            (kind, known)
        });
        own.into_iter()
            .chain(others)
            .filter(|(_, known)| !known)
            .map(|(kind, _)| kind)
            .collect()
    }

    /// The namespaced kinds that a plan decides on.
    fn decided_on(&self) -> [(&'static str, &dyn AnyCache); ObjectKind::ALL.len()] {
        ObjectKind::ALL.map(|kind| (kind.plural(), kind.cache(self)))
    }
}

/// A cache of a kind of the table, whichever it is.
pub trait AnyCache {
    /// See [`Cache::synced`].
    fn synced(&self, place: &str) -> bool;

    /// True once a place was listed or is known not to be ours to list.
    fn is_known(&self, place: &str) -> bool;

    /// See [`Cache::refusal`].
    fn refusal(&self, place: &str) -> Option<String>;

    /// Metadata of one object.
    fn meta(&self, name: &Name) -> Option<ObjectMeta>;

    /// All of a group, in the order of their names.
    fn held(&self, group: &Name) -> Vec<Found>;

    /// Puts in what the API answered; what does not decode is of a later Kubernetes, and
    /// is left out.
    fn remember(&self, object: Value);

    /// See [`Cache::forget`].
    fn forget(&self, name: &Name, uid: &str);
}

impl<K: Owned> AnyCache for Cache<K>
where
    Found: From<Arc<K>>,
{
    fn synced(&self, place: &str) -> bool {
        Self::synced(self, place)
    }

    fn is_known(&self, place: &str) -> bool {
        Self::is_known(self, place)
    }

    fn refusal(&self, place: &str) -> Option<String> {
        Self::refusal(self, place)
    }

    fn meta(&self, name: &Name) -> Option<ObjectMeta> {
        Some(self.get(name)?.meta().clone())
    }

    fn held(&self, group: &Name) -> Vec<Found> {
        self.of(group).into_iter().map(Found::from).collect()
    }

    fn remember(&self, object: Value) {
        if let Ok(object) = serde_json::from_value::<K>(object) {
            self.put(kept(object));
        }
    }

    fn forget(&self, name: &Name, uid: &str) {
        Self::forget(self, name, uid);
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
        cache.begin_list(EVERYWHERE);
        cache.put(map("new", "2", "50", Some("t")));
        let gone = cache.replace(EVERYWHERE, vec![map("other", "3", "20", Some("u"))]);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].metadata.name.as_deref(), Some("old"));
        assert!(cache.get(&Name::new("ns", "new")).is_some());
        assert!(cache.synced(EVERYWHERE) && cache.synced("ns"));
        assert_eq!(cache.of(&Name::new("ns", "u")).len(), 1);
    }

    #[test]
    fn a_relist_of_one_namespace_leaves_the_others() {
        let cache = Cache::default();
        let within = |namespace: &str, name: &str| {
            let mut object = ConfigMap::clone(&map(name, name, "5", Some("t")));
            object.metadata.namespace = Some(namespace.into());
            Arc::new(object)
        };
        cache.put(within("a", "old"));
        cache.put(within("b", "kept"));
        cache.begin_list("a");
        cache.begin_list("b");
        cache.put(within("a", "new"));
        let gone = cache.replace("a", vec![]);
        assert_eq!(gone.len(), 1);
        assert!(cache.get(&Name::new("a", "new")).is_some());
        assert!(cache.get(&Name::new("b", "kept")).is_some());
        assert!(cache.synced("a") && !cache.synced("b") && !cache.synced(EVERYWHERE));
        // The list of the other namespace is still under way.
        cache.put(within("b", "new"));
        assert_eq!(cache.replace("b", vec![]).len(), 1);
        assert!(cache.get(&Name::new("b", "new")).is_some());
    }

    #[test]
    fn a_namespace_without_rights_keeps_no_other_waiting() {
        let names = ["a".to_owned(), "b".to_owned(), String::new()];
        let caches = Caches::of(Namespaces::listed(&names));
        assert_eq!(Namespaces::listed(&names[2..]), Namespaces::All);
        assert_eq!(caches.namespaces.places(), ["a", "b"]);
        let list = |place: &str| {
            caches.config_maps.replace(place, vec![]);
            caches.services.replace(place, vec![]);
            caches.deployments.replace(place, vec![]);
            caches.roles.replace(place, vec![]);
            caches.role_bindings.replace(place, vec![]);
        };
        list("a");
        caches.secrets.replace("a", vec![]);
        list("b");
        assert_eq!(caches.reach("a"), Reach::NotYet, "of our own kinds");
        caches.tenants.replace(EVERYWHERE, vec![]);
        caches.data_stores.replace(EVERYWHERE, vec![]);
        assert_eq!(caches.reach("a"), Reach::Here);
        assert_eq!(caches.reach("b"), Reach::NotYet);
        assert!(matches!(caches.reach("c"), Reach::NotServed(_)));
        assert_eq!(caches.unsynced(), ["secrets"]);
        assert!(caches.secrets.refuse("b", "no".into()));
        assert!(!caches.secrets.refuse("b", "no".into()), "no news");
        assert!(caches.synced(), "nothing is to be waited for");
        assert_eq!(caches.reach("a"), Reach::Here);
        assert!(matches!(caches.reach("b"), Reach::Refused(why) if why.contains("no")));
        // The rights are given.
        caches.secrets.replace("b", vec![]);
        assert_eq!(caches.reach("b"), Reach::Here);
    }

    #[test]
    fn secrets_of_strangers_are_held_without_what_is_in_them() {
        let large = k8s_openapi::ByteString(vec![7; 1_000_000]);
        let labels = [("steward.butlerlabs.dev/name".to_owned(), "a".to_owned())];
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some("a-ca".into()),
                namespace: Some("tenants".into()),
                labels: Some(labels.clone().into()),
                annotations: Some([("a".into(), "x".repeat(200_000))].into()),
                ..ObjectMeta::default()
            },
            data: Some([("k".into(), large)].into()),
            ..Secret::default()
        };
        let mut owned = secret.clone();
        secret.prune();
        let size = serde_json::to_string(&secret).unwrap().len();
        assert!(size < 1000, "{size} bytes are held");
        assert_eq!(secret.group(), Some(Name::new("tenants", "a")));

        owned.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "steward.butlerlabs.dev/v1alpha1".into(),
            kind: "TenantControlPlane".into(),
            name: "a".into(),
            uid: "u".into(),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
        let before = owned.clone();
        owned.prune();
        assert_eq!(owned, before, "what a tenant controls is read");
    }

    /// Anybody may write Events, of 250 kB each.
    #[test]
    fn events_of_strangers_are_pruned_and_capped_by_namespace() {
        let event = |namespace: &str, number: usize| Event {
            metadata: ObjectMeta {
                name: Some(format!("e{number}")),
                namespace: Some(namespace.into()),
                uid: Some(format!("{namespace}-{number}")),
                resource_version: Some(number.to_string()),
                annotations: Some([("a".into(), "x".repeat(200_000))].into()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                namespace: Some(namespace.into()),
                kind: Some("Pod".into()),
                field_path: Some("x".repeat(9000)),
                ..ObjectReference::default()
            },
            message: Some("ä".repeat(100_000)),
            reason: Some("Failed".into()),
            ..Event::default()
        };
        let cache = Cache::default();
        let mut quiet = event("quiet", 1);
        quiet.prune();
        let size = serde_json::to_string(&quiet).unwrap().len();
        assert!(size < 2000, "{size} bytes are held");
        assert_eq!(quiet.reason.as_deref(), Some("Failed"));
        assert_eq!(quiet.message.as_ref().unwrap().len(), MESSAGE);
        cache.put(Arc::new(quiet));
        for number in 0..Event::MOST + 50 {
            let mut event = event("loud", number);
            event.prune();
            cache.put(Arc::new(event));
        }
        let loud = cache.of(&Name::new("loud", ""));
        assert_eq!(loud.len(), Event::MOST);
        let has = |number| {
            cache
                .get(&Name::new("loud", format!("e{number}")))
                .is_some()
        };
        assert!(!has(49) && has(50), "the oldest go");
        assert_eq!(cache.of(&Name::new("quiet", "")).len(), 1);
        let mut other = event("quiet", 2);
        other.involved_object.kind = Some("Node".into());
        assert!(!other.is_of_use());
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
