//! Which DataStore a tenant's own object names. Good for knowing whom to ask, and for nothing
//! that pods are given: where its data is, the databases say.

use apiservice::v1alpha1::{StorageStatus, TenantControlPlane};

/// The DataStore of a tenant: the one where its data is, else the one that the
/// spec names, else the one that was assigned to it.
pub fn choose(tenant: &TenantControlPlane) -> Option<String> {
    let recorded = storage(tenant).and_then(|storage| storage.data_store_name.clone());
    if settled(tenant) && recorded.is_some() {
        return recorded;
    }
    let named = tenant.spec.data_store.clone();
    named.filter(|name| !name.is_empty()).or(recorded)
}

/// Whether a tenant that has no data yet is where it was assigned.
pub fn is_assigned(tenant: &TenantControlPlane) -> bool {
    let named = tenant.spec.data_store.as_ref();
    !settled(tenant) && named.is_none_or(String::is_empty) && choose(tenant).is_some()
}

/// Whether status says that the grant was made once. Good for knowing whom to
/// ask before anything is claimed, and for nothing that pods are given.
pub fn settled(tenant: &TenantControlPlane) -> bool {
    let setup = storage(tenant).and_then(|storage| storage.setup.as_ref());
    setup.is_some_and(|setup| setup.schema.is_some())
}

/// What its status says of a tenant's place.
pub fn storage(tenant: &TenantControlPlane) -> Option<&StorageStatus> {
    tenant.status.as_ref()?.storage.as_ref()
}
