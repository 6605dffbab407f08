//! PersistentVolumes for claims of the StorageClass `standard`: directories
//! of the run, on the machine's disk.

use std::os::unix::fs::PermissionsExt;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::agent::keep;
use super::cluster::Lab;
use super::directories;
use super::error::{Doing, Error, Result};
use super::node::PROVISIONER;

const CLASS: &str = "standard";
/// Written by the scheduler once it knows where the pod will run.
const NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Makes and removes volumes until the run ends.
pub(crate) async fn provide(lab: &Lab) {
    let claims: kube::Api<PersistentVolumeClaim> = kube::Api::all(lab.client());
    let volumes: kube::Api<PersistentVolume> = kube::Api::all(lab.client());
    tokio::join!(
        keep(claims, "volumes", || create(lab)),
        keep(volumes, "volumes", || remove(lab)),
    );
}

async fn create(lab: &Lab) -> Result<()> {
    let claims: kube::Api<PersistentVolumeClaim> = kube::Api::all(lab.client());
    let volumes: kube::Api<PersistentVolume> = kube::Api::all(lab.client());
    let claims = claims
        .list(&Default::default())
        .await
        .doing(|| "list claims".into())?;
    for claim in claims {
        let Some(volume) = volume(lab, &claim)? else {
            continue;
        };
        let name = volume.name_any();
        let path = lab.directory().volumes().join(&name);
        directories::create(&path)?;
        // A pod's user need not be root, and may have no fsGroup.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
            .doing(|| format!("open {} to all", path.display()))?;
        match volumes.create(&PostParams::default(), &volume).await {
            Ok(_) => println!("{name}: created"),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).doing(|| format!("create volume {name}")),
        }
    }
    Ok(())
}

/// The volume that a claim waits for.
fn volume(lab: &Lab, claim: &PersistentVolumeClaim) -> Result<Option<PersistentVolume>> {
    let spec = claim.spec.clone().unwrap_or_default();
    let pending = spec.volume_name.is_none()
        && spec.storage_class_name.as_deref() == Some(CLASS)
        && claim.metadata.deletion_timestamp.is_none();
    let (true, Some(node), Some(uid)) = (pending, claim.annotations().get(NODE), claim.uid())
    else {
        return Ok(None);
    };
    let name = format!("pvc-{uid}");
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": spec.resources.and_then(|resources| resources.requests),
            "accessModes": spec.access_modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
            "local": {"path": lab.directory().volumes().join(&name)},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace(),
                "name": claim.name_any(),
                "uid": uid,
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
            ]}]}},
        },
    });
    serde_json::from_value(volume)
        .map(Some)
        .map_err(|error| Error::Refused(error.to_string()))
}

async fn remove(lab: &Lab) -> Result<()> {
    let volumes: kube::Api<PersistentVolume> = kube::Api::all(lab.client());
    let all = volumes
        .list(&Default::default())
        .await
        .doing(|| "list volumes".into())?;
    for volume in all {
        let ours =
            volume.annotations().get(PROVISIONED_BY).map(String::as_str) == Some(PROVISIONER);
        let spec = volume.spec.as_ref();
        let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        let phase = volume
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let done = matches!(phase, Some("Released" | "Failed"));
        let over = ours && policy == Some("Delete") && done;
        if !over || volume.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = volume.name_any();
        let path = lab.directory().volumes().join(&name);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).doing(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        volumes
            .delete(&name, &DeleteParams::default())
            .await
            .doing(|| format!("delete volume {name}"))?;
        println!("{name}: removed");
    }
    Ok(())
}
