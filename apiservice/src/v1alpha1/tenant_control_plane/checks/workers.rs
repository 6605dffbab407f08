//! What nodes are given.

use ipnet::IpNet;

use super::changed::changed;
use crate::field::{Error, Errors, Path};
use crate::v1alpha1::TenantControlPlaneSpec;

pub(super) fn bootstrap(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    let part = |spec: &TenantControlPlaneSpec| spec.addons.as_ref()?.worker_bootstrap.clone();
    let Some(worker) = part(new).filter(|_| changed(new, old, part)) else {
        return;
    };
    let path = Path::new("spec.addons.workerBootstrap");
    if worker.talos.is_none() {
        errors.push(Error::required(
            &path.child("talos"),
            "needed with provider talos; it may be {}",
        ));
    }
    allowed_subnets(&path, &worker.allowed_subnets, errors);
}

pub(super) fn serving_certificates(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    let part = |spec: &TenantControlPlaneSpec| spec.kubernetes.kubelet.serving_certificates.clone();
    let Some(wanted) = part(new).filter(|_| changed(new, old, part)) else {
        return;
    };
    let path = Path::new("spec.kubernetes.kubelet.servingCertificates");
    allowed_subnets(&path, &wanted.allowed_subnets, errors);
}

/// `allowedSubnets` are networks.
fn allowed_subnets(parent: &Path, ranges: &[String], errors: &mut Errors) {
    for (position, range) in ranges.iter().enumerate() {
        if range.parse::<IpNet>().is_err() {
            let path = parent.child("allowedSubnets").index(position);
            let detail = "must be a network such as 192.0.2.0/24";
            errors.push(Error::invalid(&path, range.as_str(), detail));
        }
    }
}
