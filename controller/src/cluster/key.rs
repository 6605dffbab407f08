//! What the queue holds, and what a pass over it may have to wait for.

use crate::cluster::name::NamespacedName;

/// What the queue holds: one object of ours to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A TenantControlPlane.
    Tenant(NamespacedName),
    /// A DataStore, by name.
    DataStore(String),
}

/// What a pass may have to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Group {
    /// The datastore of a tenant.
    Store(String),
    /// None: the tenant has none yet.
    Nowhere,
    /// Any of the datastores: passes over DataStores themselves.
    Stores,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tenant(name) => write!(f, "tenantcontrolplane {name}"),
            Self::DataStore(name) => write!(f, "datastore {name}"),
        }
    }
}

impl Key {
    /// A number from 0 to 1 that is always the same for a key and differs
    /// between keys, to keep them from coming due together.
    pub fn spread(&self) -> f64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        f64::from(u32::try_from(hasher.finish() % 1000).unwrap_or(0)) / 1000.0
    }
}
