//! The kinds of objects that tenants are made of in the management cluster: one row each.
//!
//! A new kind is a new row. Everything that is done for all kinds (paths, caches,
//! watches, writes, what a tenant owns) follows from the table, and where kinds differ
//! the compiler asks for the new one.

use std::{collections::BTreeMap, fmt, sync::Arc};

use apiservice::{legible, names};
use futures::future::BoxFuture;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Secret, Service},
        networking::v1::Ingress,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::runtime::watcher::Config;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::cluster::cache::{AnyCache, Cached};
use crate::cluster::caches::Caches;
use crate::cluster::name::NamespacedName;
use crate::cluster::routes::{IngressRouteTcp, TlsRoute, TlsRouteV1Alpha2};
use crate::cluster::watches::{Watches, tell_tenant};

/// A kind of the table as a type.
pub trait Owned:
    Cached
    + kube::Resource<Scope = kube::core::NamespaceResourceScope>
    + Clone
    + fmt::Debug
    + Serialize
    + DeserializeOwned
{
    /// Its row.
    const KIND: ObjectKind;

    /// What is held, if it is of this kind.
    fn of(found: &Found) -> Option<&Arc<Self>>;

    /// The same, to be changed.
    fn of_mut(found: &mut Found) -> Option<&mut Arc<Self>>;
}

macro_rules! kinds {
    ($($kind:ident in $caches:ident),* $(,)?) => {
        /// A row of the table. Ordered as the table is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ObjectKind {
            $(#[allow(missing_docs, reason = "the type of this name")] $kind,)*
        }

        /// An object of ours in the management cluster, complete.
        #[derive(Clone, Debug)]
        #[allow(
            clippy::large_enum_variant,
            reason = "a step holds it in a box, and there are some twenty in a plan"
        )]
        pub enum Object {
            $(#[allow(missing_docs, reason = "the type of this name")] $kind($kind),)*
        }

        /// What the management cluster has under a name, as a cache holds it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Found {
            $(#[allow(missing_docs, reason = "the type of this name")] $kind(Arc<$kind>),)*
        }

        impl ObjectKind {
            /// All of them.
            pub const ALL: [ObjectKind; [$(ObjectKind::$kind),*].len()] = [$(ObjectKind::$kind),*];

            /// As `kind` has it on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(ObjectKind::$kind => <$kind as k8s_openapi::Resource>::KIND,)*
                }
            }

            /// As URLs have it.
            pub fn plural(self) -> &'static str {
                match self {
                    $(ObjectKind::$kind => <$kind as k8s_openapi::Resource>::URL_PATH_SEGMENT,)*
                }
            }

            /// The path of an object, or of the collection in a namespace.
            pub fn path(self, namespace: &str, name: Option<&str>) -> String {
                let collection = match self {
                    $(ObjectKind::$kind => <$kind as kube::Resource>::url_path(&(), Some(namespace)),)*
                };
                match name {
                    Some(name) => format!("{collection}/{name}"),
                    None => collection,
                }
            }

            /// The cache of it.
            pub fn cache(self, caches: &Caches) -> &dyn AnyCache {
                match self {
                    $(ObjectKind::$kind => &caches.$caches,)*
                }
            }

            /// The watch that fills the cache in one place.
            pub fn watch(
                self,
                watches: &Watches,
                place: &str,
                config: Config,
            ) -> BoxFuture<'static, ()> {
                match self {
                    $(ObjectKind::$kind => watches.namespaced(place, config, |caches| &caches.$caches, tell_tenant),)*
                }
            }

            /// An object as it came over the wire, with the fields that this version knows;
            /// `None` if it does not decode.
            pub fn known(self, live: &Value) -> Option<Value> {
                fn of<K: Owned>(live: &Value) -> Option<Value> {
                    let whole = K::deserialize(live);
                    let known = whole.or_else(|_| legible::decode::<K>(&mut live.clone()));
                    serde_json::to_value(known.ok()?).ok()
                }
                match self {
                    $(ObjectKind::$kind => of::<$kind>(live),)*
                }
            }
        }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> ObjectKind {
                match self {
                    $(Object::$kind(_) => ObjectKind::$kind,)*
                }
            }

            /// Its metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self {
                    $(Object::$kind(object) => &object.metadata,)*
                }
            }

            /// Its metadata, to be changed.
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $(Object::$kind(object) => &mut object.metadata,)*
                }
            }

            /// The object as it goes over the wire, with apiVersion and kind.
            pub fn value(&self) -> Result<Value, serde_json::Error> {
                match self {
                    $(Object::$kind(object) => serde_json::to_value(object),)*
                }
            }
        }

        impl Found {
            /// Its kind.
            pub fn kind(&self) -> ObjectKind {
                match self {
                    $(Found::$kind(_) => ObjectKind::$kind,)*
                }
            }

            /// Its metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self {
                    $(Found::$kind(object) => &object.metadata,)*
                }
            }
        }

        impl From<Object> for Found {
            fn from(object: Object) -> Self {
                match object {
                    $(Object::$kind(object) => Found::$kind(Arc::new(object)),)*
                }
            }
        }

        impl From<Found> for Object {
            fn from(found: Found) -> Self {
                match found {
                    $(Found::$kind(object) => Object::$kind(Arc::unwrap_or_clone(object)),)*
                }
            }
        }

        $(
            impl From<Arc<$kind>> for Found {
                fn from(object: Arc<$kind>) -> Self {
                    Found::$kind(object)
                }
            }

            impl Owned for $kind {
                const KIND: ObjectKind = ObjectKind::$kind;

                fn of(found: &Found) -> Option<&Arc<Self>> {
                    match found {
                        Found::$kind(object) => Some(object),
                        _ => None,
                    }
                }

                fn of_mut(found: &mut Found) -> Option<&mut Arc<Self>> {
                    match found {
                        Found::$kind(object) => Some(object),
                        _ => None,
                    }
                }
            }
        )*
    };
}

kinds! {
    Secret in secrets,
    ConfigMap in config_maps,
    Service in services,
    Deployment in deployments,
    RoleBinding in role_bindings,
    Role in roles,
    Ingress in ingresses,
    TlsRoute in tls_routes,
    TlsRouteV1Alpha2 in tls_routes_v1alpha2,
    IngressRouteTcp in ingress_route_tcps,
}

impl ObjectKind {
    /// The kind of this name; `None` for those that are not in the table.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The names that a tenant's objects of this kind have.
    pub fn names(self, tenant: &str) -> Vec<String> {
        match self {
            ObjectKind::Secret => names::secrets(tenant).into_iter().collect(),
            ObjectKind::ConfigMap => names::config_maps(tenant).into_iter().collect(),
            ObjectKind::Service | ObjectKind::Ingress | ObjectKind::IngressRouteTcp => {
                vec![names::workload(tenant)]
            }
            ObjectKind::TlsRoute | ObjectKind::TlsRouteV1Alpha2 => {
                vec![names::workload(tenant), names::konnectivity_route(tenant)]
            }
            ObjectKind::Deployment => vec![names::workload(tenant)],
            ObjectKind::RoleBinding | ObjectKind::Role => vec![names::kubeconfig_signer(tenant)],
        }
    }

    /// Whether this is one of them.
    pub fn is_name_of(self, tenant: &str, name: &str) -> bool {
        let of_override = || self == ObjectKind::Secret && names::is_of_override(tenant, name);
        name.starts_with(tenant)
            && (self.names(tenant).iter().any(|it| it == name) || of_override())
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// ObjectKind and place of an object of ours in the management cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind.
    pub kind: ObjectKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// Its path.
    pub fn path(&self) -> String {
        self.kind.path(&self.namespace, Some(&self.name))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl Object {
    /// Its kind and place.
    pub fn key(&self) -> ObjectKey {
        let meta = self.meta();
        ObjectKey {
            kind: self.kind(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

/// The objects of a tenant, and what has the name of one of them: the cache may hold
/// objects that are not ours (rule 20). By kind and name; all are in one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory(BTreeMap<(ObjectKind, String), Found>);

impl Inventory {
    /// What the caches have under the names of a tenant.
    pub fn gather(caches: &Caches, name: &NamespacedName) -> Self {
        let mut owned = Inventory::default();
        for kind in ObjectKind::ALL {
            owned.extend(kind.cache(caches).held(name));
        }
        // In the way also with another tenant's label.
        let signer = NamespacedName::new(&name.namespace, names::kubeconfig_signer(&name.name));
        owned.extend(caches.roles.get(&signer).map(Found::from));
        owned.extend(caches.role_bindings.get(&signer).map(Found::from));
        owned
    }

    /// Puts one in, in place of what was there.
    pub fn insert(&mut self, object: impl Into<Found>) -> Option<Found> {
        let object = object.into();
        let name = object.meta().name.clone().unwrap_or_default();
        self.0.insert((object.kind(), name), object)
    }

    /// Takes one out.
    pub fn remove(&mut self, kind: ObjectKind, name: &str) -> Option<Found> {
        self.0.remove(&(kind, name.to_owned()))
    }

    /// One of a kind.
    pub fn get<K: Owned>(&self, name: &str) -> Option<&Arc<K>> {
        K::of(self.0.get(&(K::KIND, name.to_owned()))?)
    }

    /// One of a kind, to be changed.
    pub fn get_mut<K: Owned>(&mut self, name: &str) -> Option<&mut K> {
        let found = self.0.get_mut(&(K::KIND, name.to_owned()))?;
        K::of_mut(found).map(Arc::make_mut)
    }

    /// All of a kind, in the order of their names.
    pub fn of<K: Owned>(&self) -> impl Iterator<Item = &Arc<K>> {
        self.0.values().filter_map(K::of)
    }

    /// All, in the order of the table and of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Found> {
        self.0.values()
    }

    /// Metadata of what there is under a name.
    pub fn meta(&self, kind: ObjectKind, name: &str) -> Option<&ObjectMeta> {
        self.0.get(&(kind, name.to_owned())).map(Found::meta)
    }
}

impl Extend<Found> for Inventory {
    fn extend<T: IntoIterator<Item = Found>>(&mut self, objects: T) {
        for object in objects {
            self.insert(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let core =
            ["secrets", "configmaps", "services"].map(|it| format!("/api/v1/namespaces/n/{it}"));
        let rbac = ["rolebindings", "roles"]
            .map(|it| format!("/apis/rbac.authorization.k8s.io/v1/namespaces/n/{it}"));
        let apps = "/apis/apps/v1/namespaces/n/deployments".to_owned();
        let routes = [
            "/apis/networking.k8s.io/v1/namespaces/n/ingresses",
            "/apis/gateway.networking.k8s.io/v1/namespaces/n/tlsroutes",
            "/apis/gateway.networking.k8s.io/v1alpha2/namespaces/n/tlsroutes",
            "/apis/traefik.io/v1alpha1/namespaces/n/ingressroutetcps",
        ]
        .map(str::to_owned);
        let all = core.into_iter().chain([apps]).chain(rbac).chain(routes);
        let paths = ObjectKind::ALL.map(|kind| kind.path("n", None));
        assert_eq!(paths.to_vec(), all.collect::<Vec<_>>());
        let names = ObjectKind::ALL.map(ObjectKind::name);
        assert_eq!(
            names,
            [
                "Secret",
                "ConfigMap",
                "Service",
                "Deployment",
                "RoleBinding",
                "Role",
                "Ingress",
                "TLSRoute",
                "TLSRoute",
                "IngressRouteTCP",
            ]
        );
        assert_eq!(
            ObjectKind::Role.path("n", Some("r")),
            "/apis/rbac.authorization.k8s.io/v1/namespaces/n/roles/r"
        );
    }

    #[test]
    fn objects_of_one_name_are_told_apart_by_their_kinds() {
        let named = || ObjectMeta {
            name: Some("a".to_owned()),
            ..ObjectMeta::default()
        };
        let mut owned = Inventory::default();
        owned.insert(Object::Secret(Secret {
            metadata: named(),
            ..Secret::default()
        }));
        owned.insert(Arc::new(Role {
            metadata: named(),
            ..Role::default()
        }));
        assert!(owned.get::<Secret>("a").is_some() && owned.get::<Role>("a").is_some());
        assert!(owned.get::<Service>("a").is_none());
        assert_eq!(owned.of::<Role>().count(), 1);
        owned.get_mut::<Role>("a").unwrap().metadata.uid = Some("u".to_owned());
        assert_eq!(
            owned.meta(ObjectKind::Role, "a").unwrap().uid.as_deref(),
            Some("u")
        );
        assert!(owned.remove(ObjectKind::Secret, "a").is_some());
        let left: Vec<ObjectKind> = owned.iter().map(Found::kind).collect();
        assert_eq!(left, [ObjectKind::Role]);
    }
}
