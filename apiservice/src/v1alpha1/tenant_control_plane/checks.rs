//! Checks of a TenantControlPlane that CEL cannot say.
//!
//! Each looks only at what has changed, so that a stored object that an older
//! version accepted can still be edited elsewhere.

mod addresses;
mod arguments;
mod assignment;
mod changed;
mod dns;
mod networks;
mod patches;
mod pods;
mod ports;
mod ranges;
mod routes;
mod storage;
mod unique_name;
mod version;
mod workers;

use serde_json::Value;

use crate::field::{Error, Errors, Path};
use crate::v1alpha1::TenantControlPlane;
use networks::InUse;

/// Those of a whole object.
pub(super) fn check(new: &Value, old: Option<&Value>) -> Errors {
    if old.is_some_and(|old| old["spec"] == new["spec"]) {
        return Errors::new();
    }
    let new = match serde_json::from_value::<TenantControlPlane>(new.clone()) {
        Ok(new) => new.spec,
        Err(error) => {
            return Error::invalid_whole(&Path::new("spec"), error.to_string()).into();
        }
    };
    // What was stored by another version may not decode; then all is new.
    let old = old.and_then(|old| serde_json::from_value::<TenantControlPlane>(old.clone()).ok());
    let before = old.as_ref().map(|old| &old.spec);
    let installed = old
        .as_ref()
        .filter(|old| old.was_ready())
        .and_then(|old| old.status.as_ref())
        .and_then(|status| status.installed_version());

    let mut errors = Errors::new();
    version::check(&new, before, installed, &mut errors);
    storage::names(&new, old.as_ref(), &mut errors);
    let in_use = match installed {
        Some(_) => InUse::Yes,
        None => InUse::No,
    };
    networks::check(&new, before, in_use, &mut errors);
    addresses::addresses(&new, before, &mut errors);
    addresses::cluster_domain(&new, before, &mut errors);
    addresses::certificate_names(&new, before, &mut errors);
    pods::check(&new, before, &mut errors);
    arguments::of_components(&new, before, &mut errors);
    ports::check(&new, before, &mut errors);
    arguments::of_tunnel(&new, before, &mut errors);
    routes::check(&new, before, &mut errors);
    assignment::check(&new, before, &mut errors);
    storage::overrides(&new, old.as_ref(), &mut errors);
    workers::bootstrap(&new, before, &mut errors);
    workers::serving_certificates(&new, before, &mut errors);
    errors
}

/// Checks of what stands for itself, whatever else is wrong with the object.
pub(super) fn check_parts(new: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    patches::check(new, old, &mut errors);
    errors
}
