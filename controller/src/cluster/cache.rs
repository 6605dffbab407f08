//! What is held of one kind of object, indexed by tenant or by whatever else groups it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use apiservice::legible;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::RwLock;
use serde_json::Value;

use crate::cluster::caches::Caches;
use crate::cluster::kinds::{Found, Owned};
pub use crate::cluster::name::EVERYWHERE;
use crate::cluster::name::{NamespacedName, tenant_of};
use crate::cluster::taken::{Most, Room, Taken};

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
    objects: HashMap<NamespacedName, Arc<K>>,
    groups: HashMap<NamespacedName, HashSet<NamespacedName>>,
    /// How much is held of each namespace.
    taken: Taken,
    /// What answers to writes put in while a list is under way, by place.
    fresh: HashMap<String, HashSet<NamespacedName>>,
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
                taken: Taken::default(),
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

    /// How many are held of one namespace; what comes beyond it is left out.
    const MOST_IN_NAMESPACE: usize = usize::MAX;

    /// Bytes, by [`Cached::weight`], that are held of all namespaces together, and of one
    /// half of it. When there is no room, the namespace that has most gives way.
    const MOST_BYTES: usize = usize::MAX;

    /// What it takes in memory, as far as that is bounded.
    fn weight(&self) -> usize {
        0
    }

    /// Takes out what nobody reads. False for an object that is not held at all.
    fn keep(&mut self, _caches: &Caches) -> bool {
        true
    }

    /// The tenant it belongs to, or whatever else it is grouped by.
    fn group(&self) -> Option<NamespacedName> {
        tenant_of(self.meta())
    }
}

impl<K: Cached> Cache<K> {
    /// Puts in what a watch or the answer to a write says. What is older than
    /// what is held is dropped; false then.
    pub fn put(&self, object: Arc<K>) -> bool {
        let name = NamespacedName::of(object.meta());
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
        let name = NamespacedName::of(object.meta());
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
    pub fn forget(&self, name: &NamespacedName, uid: &str) {
        let mut inner = self.inner.write();
        if let Some(held) = inner.objects.get(name)
            && held.meta().uid.as_deref() == Some(uid)
        {
            inner.remove(name);
        }
    }

    /// A list that is under way has an object that cannot be read: what is held of it stays.
    pub fn leave(&self, place: &str, name: NamespacedName) {
        if let Some(fresh) = self.inner.write().fresh.get_mut(place) {
            fresh.insert(name);
        }
    }

    /// A complete list of its kind in a place: what is there and not in it leaves
    /// the cache, unless it was put in since the list began. Returns what left, and what
    /// of the list is not what was held already.
    pub fn replace(&self, place: &str, list: Vec<Arc<K>>) -> (Vec<Arc<K>>, Vec<Arc<K>>) {
        let mut inner = self.inner.write();
        inner
            .taken
            .is_listed(|namespace| place == EVERYWHERE || place == namespace);
        let fresh = inner.fresh.remove(place).unwrap_or_default();
        let names: HashSet<NamespacedName> = list
            .iter()
            .map(|object| NamespacedName::of(object.meta()))
            .collect();
        let gone: Vec<Arc<K>> = inner
            .objects
            .iter()
            .filter(|(name, _)| is_in(place, name))
            .filter(|(name, _)| !names.contains(*name) && !fresh.contains(*name))
            .map(|(_, held)| held.clone())
            .collect();
        for object in &gone {
            inner.remove(&NamespacedName::of(object.meta()));
        }
        let mut news = vec![];
        for object in list {
            let name = NamespacedName::of(object.meta());
            let held = inner.objects.get(&name).map(|held| held.meta());
            let held = held.filter(|held| held.uid == object.meta().uid);
            if held.is_some_and(|held| revision(held) > revision(object.meta())) {
                continue;
            }
            let version = |meta: &ObjectMeta| meta.resource_version.clone();
            let same = |held| version(held).is_some() && version(held) == version(object.meta());
            if !held.is_some_and(same) {
                news.push(object.clone());
            }
            inner.put(name, object);
        }
        drop(inner);
        let mut lists = self.lists.write();
        lists.insert(place.to_owned(), Listing::Done);
        (gone, news)
    }

    /// Takes out all of a place, whose kind is not served any more. If it is again, the
    /// place is not known before it was listed.
    pub fn clear(&self, place: &str) {
        self.replace(place, vec![]);
        self.lists.write().remove(place);
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
    pub(super) fn is_known(&self, place: &str) -> bool {
        self.synced(place) || self.refusal(place).is_some()
    }

    /// Whether nothing of a namespace was left out for want of room since it was listed.
    pub fn is_whole(&self, namespace: &str) -> bool {
        self.inner.read().taken.is_whole(namespace)
    }

    /// Whether what is in a namespace was judged, or is being judged, by the tenants of then.
    pub(super) fn has_begun(&self, namespace: &str) -> bool {
        let inner = self.inner.read();
        let begun = |place| self.is_known(place) || inner.fresh.contains_key(place);
        begun(EVERYWHERE) || begun(namespace)
    }

    /// One object.
    pub fn get(&self, name: &NamespacedName) -> Option<Arc<K>> {
        self.inner.read().objects.get(name).cloned()
    }

    /// The objects of a group, in the order of their names.
    pub fn of(&self, group: &NamespacedName) -> Vec<Arc<K>> {
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

    fn put(&mut self, name: NamespacedName, object: Arc<K>) {
        self.remove(&name);
        let weight = object.weight();
        if !self.make_room(&name.namespace, weight) {
            return;
        }
        self.taken.add(&name.namespace, weight);
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

    /// Whether there is room in a namespace for an object of these bytes, once those have
    /// given way that have more.
    fn make_room(&mut self, namespace: &str, bytes: usize) -> bool {
        let most = Most {
            objects: K::MOST_IN_NAMESPACE,
            bytes: K::MOST_BYTES,
        };
        loop {
            let of = match self.taken.room(namespace, bytes, most) {
                Room::Free => return true,
                Room::Of(other) => Some(other),
                Room::None => None,
            };
            let mut names = self.objects.keys();
            let given = of.and_then(|of| names.find(|name| name.namespace == of).cloned());
            let Some(given) = given else {
                self.taken.left_out(namespace);
                return false;
            };
            self.taken.left_out(&given.namespace);
            self.remove(&given);
        }
    }

    fn shorten(&mut self, group: &NamespacedName) {
        while let Some(names) = self.groups.get(group)
            && names.len() > K::MOST
        {
            let age =
                |name: &&NamespacedName| self.objects.get(*name).map(|held| revision(held.meta()));
            let Some(oldest) = names.iter().min_by_key(age).cloned() else {
                return;
            };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, name: &NamespacedName) {
        let Some(old) = self.objects.remove(name) else {
            return;
        };
        self.taken.remove(&name.namespace, old.weight());
        if let Some(group) = old.group()
            && let Some(names) = self.groups.get_mut(&group)
        {
            names.remove(name);
            if names.is_empty() {
                self.groups.remove(&group);
            }
        }
    }
}

fn is_in(place: &str, name: &NamespacedName) -> bool {
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

/// A cache of a kind of the table, whichever it is.
pub trait AnyCache {
    /// See [`Cache::synced`].
    fn synced(&self, place: &str) -> bool;

    /// True once a place was listed or is known not to be ours to list.
    fn is_known(&self, place: &str) -> bool;

    /// See [`Cache::refusal`].
    fn refusal(&self, place: &str) -> Option<String>;

    /// Metadata of one object.
    fn meta(&self, name: &NamespacedName) -> Option<ObjectMeta>;

    /// All of a group, in the order of their names.
    fn held(&self, group: &NamespacedName) -> Vec<Found>;

    /// Puts in what the API answered; what does not decode is of a later Kubernetes, and
    /// is left out.
    fn remember(&self, object: Value, caches: &Caches);

    /// Takes out all of a group.
    fn forget_group(&self, group: &NamespacedName);

    /// Takes out all of a place: its kind is not served any more.
    fn clear(&self, place: &str);

    /// See [`Cache::forget`].
    fn forget(&self, name: &NamespacedName, uid: &str);
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

    fn meta(&self, name: &NamespacedName) -> Option<ObjectMeta> {
        Some(self.get(name)?.meta().clone())
    }

    fn held(&self, group: &NamespacedName) -> Vec<Found> {
        self.of(group).into_iter().map(Found::from).collect()
    }

    fn remember(&self, mut object: Value, caches: &Caches) {
        let object = legible::decode::<K>(&mut object).ok();
        if let Some(object) = object.and_then(|object| caches.kept(object)) {
            self.put(object);
        }
    }

    fn forget_group(&self, group: &NamespacedName) {
        let mut inner = self.inner.write();
        for name in inner.groups.get(group).cloned().unwrap_or_default() {
            inner.remove(&name);
        }
    }

    fn clear(&self, place: &str) {
        Cache::clear(self, place);
    }

    fn forget(&self, name: &NamespacedName, uid: &str) {
        Self::forget(self, name, uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
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
    fn a_kind_that_comes_again_is_not_known_before_it_is_listed() {
        let cache: Cache<ConfigMap> = Cache::default();
        cache.replace(EVERYWHERE, vec![map("a", "1", "1", Some("t"))]);
        assert!(cache.is_known(EVERYWHERE));
        AnyCache::clear(&cache, EVERYWHERE);
        assert!(cache.is_empty() && !cache.is_known(EVERYWHERE));
    }

    #[test]
    fn a_late_watch_event_does_not_undo_the_answer_to_a_write() {
        let cache = Cache::default();
        assert!(cache.put(map("a", "1", "12", Some("t"))));
        assert!(!cache.put(map("a", "1", "9", Some("t"))));
        cache.remove(&map("a", "1", "9", Some("t")));
        assert_eq!(cache.of(&NamespacedName::new("ns", "t")).len(), 1);
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
        let (gone, _) = cache.replace(EVERYWHERE, vec![map("other", "3", "20", Some("u"))]);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].metadata.name.as_deref(), Some("old"));
        assert!(cache.get(&NamespacedName::new("ns", "new")).is_some());
        assert!(cache.synced(EVERYWHERE) && cache.synced("ns"));
        assert_eq!(cache.of(&NamespacedName::new("ns", "u")).len(), 1);
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
        let (gone, _) = cache.replace("a", vec![]);
        assert_eq!(gone.len(), 1);
        assert!(cache.get(&NamespacedName::new("a", "new")).is_some());
        assert!(cache.get(&NamespacedName::new("b", "kept")).is_some());
        assert!(cache.synced("a") && !cache.synced("b") && !cache.synced(EVERYWHERE));
        // The list of the other namespace is still under way.
        cache.put(within("b", "new"));
        assert_eq!(cache.replace("b", vec![]).0.len(), 1);
        assert!(cache.get(&NamespacedName::new("b", "new")).is_some());
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
        assert_eq!(cache.of(&NamespacedName::new("ns", "t")).len(), 1);
    }

    #[test]
    fn an_object_that_changes_its_label_changes_its_tenant() {
        let cache = Cache::default();
        cache.put(map("a", "1", "1", Some("t")));
        cache.put(map("a", "1", "2", Some("u")));
        assert!(cache.of(&NamespacedName::new("ns", "t")).is_empty());
        assert_eq!(cache.of(&NamespacedName::new("ns", "u")).len(), 1);
        cache.put(map("a", "1", "3", None));
        assert!(cache.of(&NamespacedName::new("ns", "u")).is_empty());
        assert_eq!(cache.len(), 1);
    }

    /// A list that is read again is no news, and what it has and cannot be read is not gone.
    #[test]
    fn a_list_tells_what_is_new_in_it() {
        let cache = Cache::default();
        let names = |all: Vec<Arc<ConfigMap>>| -> Vec<String> {
            let names = all.into_iter().map(|it| it.metadata.name.clone().unwrap());
            names.collect()
        };
        let list = |all: &[(&str, &str, &str)], unread: &[&str]| {
            cache.begin_list(EVERYWHERE);
            for name in unread {
                cache.leave(
                    EVERYWHERE,
                    NamespacedName::of(&map(name, "", "", None).metadata),
                );
            }
            let all = all
                .iter()
                .map(|(name, uid, version)| map(name, uid, version, None));
            let (gone, news) = cache.replace(EVERYWHERE, all.collect());
            (names(gone), names(news))
        };
        let of = |all: &[&str]| -> Vec<String> { all.iter().map(|it| (*it).to_owned()).collect() };
        let all = [("a", "1", "10"), ("b", "2", "11"), ("c", "3", "12")];
        assert_eq!(list(&all, &[]), (vec![], of(&["a", "b", "c"])));
        assert_eq!(list(&all, &[]), (vec![], vec![]));
        let next = [("a", "1", "20"), ("b", "4", "11"), ("c", "3", "12")];
        assert_eq!(list(&next, &[]), (vec![], of(&["a", "b"])));
        assert_eq!(list(&next[..1], &["b"]), (of(&["c"]), vec![]));
        assert_eq!(cache.len(), 2);
        assert_eq!(list(&next[..1], &[]), (of(&["b"]), vec![]));
    }
}
