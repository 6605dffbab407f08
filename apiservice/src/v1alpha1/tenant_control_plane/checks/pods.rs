//! What is added to the pods of a control plane.

use std::collections::BTreeSet;

use serde_json::Value;

use super::changed::changed;
use super::unique_name::unique_name;
use crate::field::{Error, Errors, Path};
use crate::names;
use crate::v1alpha1::{Deployment, TenantControlPlaneSpec};

/// Containers, volumes and mounts.
pub(super) fn check(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    let path = Path::new("spec.controlPlane.deployment");
    let deployment = &new.control_plane.deployment;
    if changed(new, old, |spec| {
        let deployment = &spec.control_plane.deployment;
        (
            deployment.additional_containers.clone(),
            deployment.additional_init_containers.clone(),
        )
    }) {
        containers(&path, deployment, errors);
    }
    if changed(new, old, |spec| {
        spec.control_plane.deployment.additional_volumes.clone()
    }) {
        volumes(&path.child("additionalVolumes"), deployment, errors);
    }
    if changed(new, old, |spec| {
        spec.control_plane
            .deployment
            .additional_volume_mounts
            .clone()
    }) {
        mounts(&path.child("additionalVolumeMounts"), deployment, errors);
    }
}

fn containers(path: &Path, deployment: &Deployment, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (field, list) in [
        ("additionalContainers", &deployment.additional_containers),
        (
            "additionalInitContainers",
            &deployment.additional_init_containers,
        ),
    ] {
        for (position, container) in list.iter().enumerate() {
            let path = path.child(field).index(position);
            let ours = names::container::ALL;
            unique_name(&path, &container.name, ours, &mut seen, errors);
            if container.image.as_deref().is_none_or(str::is_empty) {
                errors.push(Error::required(&path.child("image"), ""));
            }
        }
    }
}

fn volumes(path: &Path, deployment: &Deployment, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (position, volume) in deployment.additional_volumes.iter().enumerate() {
        let path = path.index(position);
        unique_name(&path, &volume.name, names::volume::ALL, &mut seen, errors);
        // Plain data always serializes.
        let volume = serde_json::to_value(volume).unwrap_or_default();
        modes(&path, &volume, errors);
    }
}

fn mounts(path: &Path, deployment: &Deployment, errors: &mut Errors) {
    let Some(mounts) = &deployment.additional_volume_mounts else {
        return;
    };
    for (component, list) in [
        ("apiServer", &mounts.api_server),
        ("controllerManager", &mounts.controller_manager),
        ("scheduler", &mounts.scheduler),
    ] {
        let mut seen = BTreeSet::new();
        for (position, mount) in list.iter().enumerate() {
            if !seen.insert(mount.mount_path.as_str()) {
                let path = path.child(component).index(position).child("mountPath");
                let detail = "must be unique";
                errors.push(Error::invalid(&path, mount.mount_path.as_str(), detail));
            }
        }
    }
}

/// Modes of files, wherever they are in a volume: the management cluster would
/// refuse the pods for one, which shows only when there are pods.
fn modes(path: &Path, value: &Value, errors: &mut Errors) {
    const MAX: i64 = 0o777;
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = path.child(name);
                let mode = value
                    .as_i64()
                    .filter(|_| name == "mode" || name == "defaultMode");
                match mode {
                    Some(mode) if !(0..=MAX).contains(&mode) => {
                        let detail = "must be a number between 0 and 0777 (octal), both inclusive; JSON has no octal numbers: 0640 is 416";
                        errors.push(Error::invalid(&path, mode, detail));
                    }
                    _ => modes(&path, value, errors),
                }
            }
        }
        Value::Array(list) => {
            for (position, value) in list.iter().enumerate() {
                modes(&path.index(position), value, errors);
            }
        }
        _ => {}
    }
}
