//! Where files are in containers, and Secrets as files.

use k8s_openapi::api::core::v1::{
    KeyToPath, SecretProjection, SecretVolumeSource, Volume, VolumeProjection,
};

/// Where certificates and keys are mounted.
pub const PKI: &str = "/etc/kubernetes/pki";

/// Where the scheduler's kubeconfig is mounted.
pub const SCHEDULER_CONFIG: &str = "/etc/kubernetes";

/// Where the controller manager's kubeconfig is mounted. Not /etc/kubernetes,
/// below which its certificates are another volume.
pub const CONTROLLER_MANAGER_CONFIG: &str = "/etc/kubernetes/kubeconfig";

/// Readable by owner and group.
pub(super) const READABLE: i32 = 0o440;

/// Keys of a Secret as files of a projected volume, some under another name.
pub fn secret(name: &str, items: &[(&str, Option<&str>)]) -> VolumeProjection {
    let items = items.iter().map(|(key, path)| KeyToPath {
        key: (*key).to_owned(),
        path: path.unwrap_or(key).to_owned(),
        mode: None,
    });
    VolumeProjection {
        secret: Some(SecretProjection {
            name: name.to_owned(),
            items: Some(items.collect()),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}

/// A volume with all of a Secret.
pub fn from_secret(name: &str, secret: String) -> Volume {
    of_secret(name, secret, None)
}

/// One key of a Secret as a volume.
pub fn one_of_secret(name: &str, secret: String, key: &str) -> Volume {
    let item = KeyToPath {
        key: key.to_owned(),
        path: key.to_owned(),
        mode: None,
    };
    of_secret(name, secret, Some(vec![item]))
}

fn of_secret(name: &str, secret: String, items: Option<Vec<KeyToPath>>) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(READABLE),
            items,
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
