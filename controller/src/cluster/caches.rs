//! What the controller has seen of the management cluster, kept by watches
//! and indexed by tenant. Reading is synchronous and never fails.
//!
//! Absence here is not deletion (rule 3): an API that does not answer leaves
//! everything as it was, and nothing in this crate deletes because something
//! is missing from a cache.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::AtomicBool},
};

use apiservice::v1alpha1::{DataStore, TenantControlPlane, data_store, tenant_control_plane};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Event, Pod, Secret, Service},
    networking::v1::Ingress,
    rbac::v1::{Role, RoleBinding},
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::cluster::cache::{AnyCache, Cache, Cached, EVERYWHERE};
use crate::cluster::kinds::ObjectKind;
use crate::cluster::managers::prune_managers;
use crate::cluster::name::NamespacedName;
use crate::cluster::routes::{Gateway, IngressRouteTcp, TlsRoute, TlsRouteV1Alpha2};
use crate::cluster::served::{Optional, Served};
use crate::process::queue::Queue;

/// Where tenants may stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// In any namespace: each kind is listed over the whole cluster.
    #[default]
    All,
    /// In these only: each kind is listed in each of them, and nowhere else.
    Listed(BTreeSet<String>),
}

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

impl Cached for DataStore {
    fn group(&self) -> Option<NamespacedName> {
        None
    }
}

/// All kinds.
#[derive(Debug, Default)]
pub struct Caches {
    /// Where all but our own kinds are listed.
    pub namespaces: Namespaces,
    pub tenants: Cache<TenantControlPlane>,
    /// The uids by which objects of tenants are judged.
    met: Mutex<HashMap<NamespacedName, String>>,
    pub data_stores: Cache<DataStore>,
    pub secrets: Cache<Secret>,
    pub config_maps: Cache<ConfigMap>,
    pub services: Cache<Service>,
    pub deployments: Cache<Deployment>,
    pub roles: Cache<Role>,
    pub role_bindings: Cache<RoleBinding>,
    pub ingresses: Cache<Ingress>,
    pub tls_routes: Cache<TlsRoute>,
    pub tls_routes_v1alpha2: Cache<TlsRouteV1Alpha2>,
    pub ingress_route_tcps: Cache<IngressRouteTcp>,
    /// Those of administrators, which routes refer to.
    pub gateways: Cache<Gateway>,
    /// Nobody could tell for some seconds which Gateways there are.
    pub gateways_overdue: AtomicBool,
    /// Which of the optional kinds the management cluster has.
    pub optional: watch::Sender<Served>,
    pub replica_sets: Cache<ReplicaSet>,
    pub pods: Cache<Pod>,
    /// Events of type Warning about pods, ReplicaSets, Deployments, Services.
    pub events: Cache<Event>,
    /// Tenants of which something may have been passed over before they were known.
    pub looks: Queue<NamespacedName>,
    /// Secrets that DataStores refer to.
    pub referenced_secrets: ReferencedSecrets,
}

/// Secrets watched one by one.
#[derive(Debug, Default)]
pub struct ReferencedSecrets {
    secrets: RwLock<BTreeMap<NamespacedName, Option<Arc<Secret>>>>,
    refused: RwLock<BTreeSet<NamespacedName>>,
}

impl ReferencedSecrets {
    /// Notes what a watch of one Secret says; `None`: it does not exist.
    pub fn set(&self, name: NamespacedName, secret: Option<Arc<Secret>>) {
        self.refused.write().remove(&name);
        self.secrets.write().insert(name, secret);
    }

    /// Notes that we may not read one; what is known of it stays. True if that is
    /// news.
    pub fn refuse(&self, name: NamespacedName) -> bool {
        self.refused.write().insert(name)
    }

    /// Whether we may not read one.
    pub fn is_refused(&self, name: &NamespacedName) -> bool {
        self.refused.read().contains(name)
    }

    /// Nobody refers to it any more.
    pub fn forget(&self, name: &NamespacedName) {
        self.refused.write().remove(name);
        self.secrets.write().remove(name);
    }

    /// The outer `None`: not known yet.
    pub fn get(&self, name: &NamespacedName) -> Option<Option<Arc<Secret>>> {
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

    /// A DataStore as it was seen last.
    pub fn data_store(&self, name: &str) -> Option<Arc<DataStore>> {
        self.data_stores.get(&NamespacedName::new("", name))
    }

    /// An object as it is held; `None` if it is not.
    pub fn kept<K: Cached>(&self, mut object: K) -> Option<Arc<K>> {
        prune_managers(object.meta_mut());
        object.keep(self).then(|| Arc::new(object))
    }

    /// Takes note of a tenant. If one of its name was there before that has gone, what is
    /// held of their objects was judged by that one, and is let go of: it is found again
    /// where it would be made. What others make for a tenant is looked for.
    pub fn meet(&self, name: &NamespacedName) {
        let uid = self
            .tenants
            .get(name)
            .and_then(|it| it.metadata.uid.clone());
        let mut met = self.met.lock();
        let before = match uid.clone() {
            Some(uid) => met.insert(name.clone(), uid),
            None => met.remove(name),
        };
        drop(met);
        // Where there was none, nothing of it was held. The next may come in two steps:
        // this one goes, and its objects are held before it is met.
        if uid.is_some() && before != uid && self.pods.has_begun(&name.namespace) {
            self.looks.add(name.clone());
        }
        if before.is_some() && before != uid {
            for kind in ObjectKind::ALL {
                kind.cache(self).forget_group(name);
            }
        }
    }

    /// Whether the pods and ReplicaSets of a namespace were listed, and all are held.
    pub fn pods_known(&self, namespace: &str) -> bool {
        let whole = self.pods.is_whole(namespace) && self.replica_sets.is_whole(namespace);
        whole && self.pods.synced(namespace) && self.replica_sets.synced(namespace)
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
            (
                tenant_control_plane::RESOURCE.plural,
                self.tenants.synced(EVERYWHERE),
            ),
            (
                data_store::RESOURCE.plural,
                self.data_stores.synced(EVERYWHERE),
            ),
        ];
        let places = self.namespaces.places();
        let others = self.decided_on().into_iter().map(|(kind, cache)| {
            let known = places.iter().all(|place| cache.is_known(place));
            (kind, known)
        });
        own.into_iter()
            .chain(others)
            .filter(|(_, known)| !known)
            .map(|(kind, _)| kind)
            .collect()
    }

    /// The namespaced kinds that a plan decides on. Kinds that a cluster may not have hold
    /// nothing up: what is made of them exists already or not, and is found later.
    fn decided_on(&self) -> Vec<(&'static str, &dyn AnyCache)> {
        let all = ObjectKind::ALL.into_iter();
        let everywhere = all.filter(|kind| kind.optional().is_none());
        everywhere
            .map(|kind| (kind.plural(), kind.cache(self)))
            .collect()
    }

    /// Whether the Gateways that routes may refer to are known, as far as they can be.
    pub fn gateways_known(&self) -> bool {
        match self.optional.borrow().has(Optional::Gateway) {
            None => false,
            Some(false) => true,
            Some(true) => {
                let places = self.namespaces.places();
                places.iter().all(|place| self.gateways.is_known(place))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            caches.ingresses.replace(place, vec![]);
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
}
