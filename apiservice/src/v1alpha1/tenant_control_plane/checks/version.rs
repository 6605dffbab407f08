//! The version of Kubernetes.

use super::changed::changed;
use crate::field::{Error, Errors, Path};
use crate::v1alpha1::TenantControlPlaneSpec;
use crate::version::{KubernetesVersion, Minor, newest};

/// Upgrades go from minor to minor, never down to an older minor version; a patch
/// release can be taken back. What counts is the version that last ran: before
/// the first one runs, while an upgrade does not come up, and while the tenant
/// sleeps, the version can be put right.
pub(super) fn check(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    installed: Option<&str>,
    errors: &mut Errors,
) {
    if !changed(new, old, |spec| spec.kubernetes.version.clone()) {
        return;
    }
    let path = Path::new("spec.kubernetes.version");
    let text = new.kubernetes.version.as_str();
    let wanted = match text.parse::<KubernetesVersion>() {
        Ok(wanted) => wanted,
        Err(error) => {
            errors.push(Error::invalid(&path, text, error.to_string()));
            return;
        }
    };
    let newest = newest();
    if wanted.minor() > newest {
        let detail =
            format!("the newest supported version is {newest}; choose one of v{newest}.x or older");
        errors.push(Error::invalid(&path, text, detail));
        return;
    }
    let installed = installed.and_then(|text| text.parse::<KubernetesVersion>().ok());
    let Some(installed) = installed else {
        return;
    };
    let Minor(major, minor) = installed.minor();
    let patch_release = wanted.minor() == installed.minor() && wanted.is_release();
    if wanted < installed && !patch_release {
        let detail = format!(
            "must not be older than the installed version {installed}, except for a patch release of the same minor version: Kubernetes does not read its data back after a downgrade"
        );
        errors.push(Error::invalid(&path, text, detail));
    } else if wanted.minor() > Minor(major, minor + 1) {
        let next = Minor(major, minor + 1);
        let detail = format!("must not skip a minor version: from {installed} go to v{next} first");
        errors.push(Error::invalid(&path, text, detail));
    }
}
