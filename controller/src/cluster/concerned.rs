//! Whom a change of a DataStore concerns, and which DataStores one of a tenant or a Secret.

use std::collections::BTreeSet;

use apiservice::v1alpha1::{DataStore, PendingCleanup, TenantControlPlane};

use crate::cluster::caches::Caches;
use crate::cluster::chosen;
use crate::cluster::name::NamespacedName;
use crate::cluster::overrides;

/// The DataStores that a change of this tenant may concern.
pub fn stores_of(caches: &Caches, tenant: &TenantControlPlane) -> Vec<String> {
    let named: BTreeSet<String> = tenant
        .spec
        .data_store
        .iter()
        .chain(
            tenant
                .status
                .iter()
                .filter_map(|status| status.storage.as_ref()?.data_store_name.as_ref()),
        )
        .cloned()
        .collect();
    let lost = || {
        let is_there = |name: &String| caches.data_store(name).is_some();
        chosen::is_assigned(tenant) && !named.iter().any(is_there)
    };
    if !named.is_empty() && !lost() {
        let beside = overrides::stores(tenant).into_iter().map(str::to_owned);
        let all: BTreeSet<String> = named.into_iter().chain(beside).collect();
        return all.into_iter().collect();
    }
    caches
        .data_stores
        .all()
        .iter()
        .filter_map(|store| store.metadata.name.clone())
        .collect()
}

/// The tenants that a change of this DataStore may concern.
pub fn tenants_of(caches: &Caches, store: &str) -> Vec<NamespacedName> {
    caches
        .tenants
        .all()
        .iter()
        .filter(|tenant| stores_of(caches, tenant).iter().any(|name| name == store))
        .map(|tenant| NamespacedName::of(&tenant.metadata))
        .collect()
}

/// The tenants that a change of this DataStore concerns, from what it was before, if that is
/// known: all in it, if it is something that is given to them. Who else comes and goes there,
/// its size, and what is removed from it change all the time, and concern those alone that
/// still wait for a place, or that are named.
pub fn concerned(
    caches: &Caches,
    store: &DataStore,
    before: Option<&DataStore>,
) -> Vec<NamespacedName> {
    let same = before.is_some_and(|before| {
        before.spec == store.spec
            && before.metadata.uid == store.metadata.uid
            && before.metadata.annotations == store.metadata.annotations
            && before.metadata.labels == store.metadata.labels
            && before.metadata.deletion_timestamp == store.metadata.deletion_timestamp
    });
    let (now, then) = (pending(store), before.map_or_else(Vec::new, pending));
    let differs = |uid: &str| {
        let of = |all: &[PendingCleanup]| all.iter().find(|it| it.uid == uid).cloned();
        of(&now) != of(&then)
    };
    let waits_or_is_named = |name: &NamespacedName| {
        let tenant = caches.tenants.get(name);
        tenant.is_some_and(|it| {
            let uid = it.metadata.uid.as_deref();
            let name = store.metadata.name.as_deref().unwrap_or_default();
            let has_place = overrides::stores(&it).contains(name);
            let beside = uid.filter(|_| has_place);
            chosen::choose(&it).is_none()
                || uid.is_some_and(differs)
                || beside.is_some_and(|uid| differs(&overrides::claimant(uid, name)))
        })
    };
    let mut tenants = tenants_of(caches, store.metadata.name.as_deref().unwrap_or_default());
    tenants.retain(|name| !same || waits_or_is_named(name));
    tenants
}

/// The Secrets that a DataStore refers to.
pub fn references(store: &DataStore) -> BTreeSet<NamespacedName> {
    let spec = &store.spec;
    let tls = spec.tls_config.iter().flat_map(|tls| {
        let authority = &tls.certificate_authority;
        let client = tls
            .client_certificate
            .iter()
            .flat_map(|client| [&client.certificate, &client.private_key]);
        std::iter::once(&authority.certificate)
            .chain(&authority.private_key)
            .chain(client)
    });
    let basic = spec
        .basic_auth
        .iter()
        .flat_map(|auth| [&auth.username, &auth.password]);
    tls.chain(basic)
        .filter(|content| content.inline().is_none())
        .filter_map(|content| {
            let reference = content.secret_reference.as_ref()?;
            Some(NamespacedName::new(
                reference.namespace.clone()?,
                reference.name.clone()?,
            ))
        })
        .collect()
}

/// The clean-ups that a DataStore has recorded.
pub fn pending(store: &DataStore) -> Vec<PendingCleanup> {
    let status = store.status.as_ref();
    status.map_or_else(Vec::new, |status| status.pending_cleanups.clone())
}
