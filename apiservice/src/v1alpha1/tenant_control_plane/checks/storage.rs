//! Where a tenant's data is, and under which names.

use std::collections::BTreeSet;

use super::changed::changed;
use crate::field::{Error, Errors, Path};
use crate::v1alpha1::{TenantControlPlane, TenantControlPlaneSpec};

/// The names in the database are given once: by the spec, or by the controller.
pub(super) fn names(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlane>,
    errors: &mut Errors,
) {
    let before = old.map(|old| &old.spec);
    let setup = old.and_then(|old| old.status.as_ref()?.storage.as_ref()?.setup.as_ref());
    let rows = [
        (
            "dataStoreSchema",
            &new.data_store_schema,
            before.and_then(|old| old.data_store_schema.as_ref()),
            setup.and_then(|setup| setup.schema.as_ref()),
        ),
        (
            "dataStoreUsername",
            &new.data_store_username,
            before.and_then(|old| old.data_store_username.as_ref()),
            setup.and_then(|setup| setup.user.as_ref()),
        ),
    ];
    for (field, wanted, before, in_use) in rows {
        let Some(wanted) = wanted.as_ref().filter(|&wanted| Some(wanted) != before) else {
            continue;
        };
        let path = Path::new("spec").child(field);
        // A change of a field that was set is the published rule's business.
        if let Some(in_use) = in_use.filter(|&in_use| in_use != wanted && before.is_none()) {
            let detail =
                format!("the tenant already uses {in_use}; leave the field out or set it to that");
            errors.push(Error::invalid(&path, wanted.as_str(), detail));
        }
        if wanted == "root" {
            let detail = "root is the administrator of the DataStore; choose another name";
            errors.push(Error::invalid(&path, wanted.as_str(), detail));
        }
    }
}

pub(super) fn overrides(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    if !changed(new, old, |spec| spec.data_store_overrides.clone()) {
        return;
    }
    let path = Path::new("spec.dataStoreOverrides");
    let mut seen = BTreeSet::new();
    for (position, one) in new.data_store_overrides.iter().enumerate() {
        let path = path.index(position);
        for (field, value) in [("resource", &one.resource), ("dataStore", &one.data_store)] {
            if value.as_deref().is_none_or(str::is_empty) {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        if let Some(resource) = &one.resource
            && !seen.insert(resource)
        {
            errors.push(Error::duplicate(&path.child("resource"), resource.as_str()));
        }
    }
}
