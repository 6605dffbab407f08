//! The places that a tenant has beside its main one, as its own object names them: API resources
//! that are kept in other DataStores. Good for knowing whom to ask, as `chosen.rs` is.

use std::collections::BTreeSet;

use apiservice::v1alpha1::{StorageOverrideStatus, TenantControlPlane};
use sha2::{Digest, Sha256};

/// The uid by which a tenant claims its place in the DataStore of an override. It has the form
/// of a uid, for names in databases are made of it.
pub fn claimant(uid: &str, data_store: &str) -> String {
    let digest = hex::encode(Sha256::digest(format!("{uid}/{data_store}")));
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digest[part]);
    parts.join("-")
}

/// What the status says of these places.
pub fn told(tenant: &TenantControlPlane) -> &[StorageOverrideStatus] {
    let storage = tenant.status.as_ref().and_then(|it| it.storage.as_ref());
    storage.map_or(&[], |storage| &storage.overrides)
}

/// Names of the DataStores in which a tenant has such a place, or is to have one.
pub fn stores(tenant: &TenantControlPlane) -> BTreeSet<&str> {
    let spec = tenant.spec.data_store_overrides.iter();
    let wanted = spec.filter_map(|one| one.data_store.as_deref());
    let there = told(tenant).iter().map(|it| it.data_store_name.as_str());
    wanted.chain(there).filter(|it| !it.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each tenant and each DataStore another, and never one of a tenant itself.
    #[test]
    fn claims_are_told_apart_by_uids_that_look_like_uids() {
        let uid = "3d0c0a5e-0000-4000-8000-000000000001";
        let one = claimant(uid, "a");
        assert_eq!(one.len(), uid.len());
        let parts = |of: &str| of.split('-').map(str::len).collect::<Vec<_>>();
        assert_eq!(parts(&one), parts(uid));
        assert_eq!(one, claimant(uid, "a"));
        assert_ne!(one, claimant(uid, "b"));
        assert_ne!(one, claimant("3d0c0a5e-0000-4000-8000-000000000002", "a"));
    }
}
