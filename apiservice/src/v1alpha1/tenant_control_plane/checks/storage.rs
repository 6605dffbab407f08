//! Where a tenant's data is, and under which names.

use std::collections::BTreeSet;

use super::changed::changed;
use crate::field::{Error, Errors, Path};
use crate::v1alpha1::{MOST_OVERRIDING, TenantControlPlane, TenantControlPlaneSpec};

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

/// Resources in other DataStores. Where `old` has run, its objects are where they are.
pub(super) fn overrides(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlane>,
    errors: &mut Errors,
) {
    let before = old.map(|old| &old.spec);
    let path = Path::new("spec.dataStoreOverrides");
    let own = |spec: &TenantControlPlaneSpec| {
        let (own, all) = (spec.data_store.clone(), spec.data_store_overrides.clone());
        (own, all)
    };
    if changed(new, before, own) {
        own_store(new, old, &path, errors);
    }
    if !changed(new, before, |spec| spec.data_store_overrides.clone()) {
        return;
    }
    let (mut seen, mut stores) = (BTreeSet::new(), BTreeSet::new());
    for (position, one) in new.data_store_overrides.iter().enumerate() {
        let path = path.index(position);
        for (field, value) in [("resource", &one.resource), ("dataStore", &one.data_store)] {
            if value.as_deref().is_none_or(str::is_empty) {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        stores.extend(&one.data_store);
        let Some(resource) = one.resource.as_ref().filter(|it| !it.is_empty()) else {
            continue;
        };
        let path = path.child("resource");
        if !is_group_and_resource(resource) {
            let detail = "must be a group, a slash and a resource, in small letters: /events, or \
                          apps/replicasets";
            errors.push(Error::invalid(&path, resource.as_str(), detail));
        } else if !seen.insert(one.kept_as()) {
            errors.push(Error::duplicate(&path, resource.as_str()));
        }
    }
    if stores.len() > MOST_OVERRIDING {
        let detail = format!(
            "names {} DataStores; must be {MOST_OVERRIDING} at most: each is a container in the \
             control plane's pods",
            stores.len()
        );
        errors.push(Error::forbidden(&path, detail));
    }
    if let Some(old) = old.filter(|old| old.was_ready())
        && of_objects(&old.spec) != of_objects(new)
    {
        let detail = "only overrides of /events can be added, changed or removed once the tenant \
                      has been Ready: existing objects of other resources would stay where they \
                      are, and the tenant would not find them";
        errors.push(Error::forbidden(&path, detail));
    }
}

/// The DataStore of an override is another one than the tenant's own.
fn own_store(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlane>,
    path: &Path,
    errors: &mut Errors,
) {
    let in_use = || {
        let storage = old?.status.as_ref()?.storage.as_ref()?;
        storage.data_store_name.clone()
    };
    let named = new.data_store.clone().filter(|name| !name.is_empty());
    let Some(own) = named.or_else(in_use) else {
        return;
    };
    for (position, one) in new.data_store_overrides.iter().enumerate() {
        if one.data_store.as_ref() == Some(&own) {
            let path = path.index(position).child("dataStore");
            let detail = "must be another DataStore than the tenant's own";
            errors.push(Error::invalid(&path, own.as_str(), detail));
        }
    }
}

/// Where objects are kept that somebody would miss.
fn of_objects(spec: &TenantControlPlaneSpec) -> BTreeSet<(&str, Option<&str>)> {
    let all = spec.data_store_overrides.iter();
    let objects = all.filter(|one| !one.is_of_events());
    objects
        .map(|one| (one.kept_as(), one.data_store.as_deref()))
        .collect()
}

/// `[group]/resource`, without what would mean something else in the flag.
fn is_group_and_resource(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    let name = |it: &str| {
        let ends = [it.as_bytes().first(), it.as_bytes().last()];
        let ends = ends.into_iter().flatten().all(|it| *it != b'-');
        !it.is_empty() && ends && it.bytes().all(plain)
    };
    let Some((group, resource)) = text.split_once('/') else {
        return false;
    };
    text.len() <= 253 && name(resource) && (group.is_empty() || group.split('.').all(name))
}
