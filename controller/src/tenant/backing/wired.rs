//! What comes into the pods of a tenant for its databases, as a value.

use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount, VolumeProjection};

use crate::tenant::workload::arguments::Flags;

/// What comes into the pods for the database.
#[derive(Debug, Default)]
pub struct Wiring {
    /// Of the API server.
    pub flags: Flags,
    /// Files in the API server's volume of certificates and keys.
    pub pki: Vec<VolumeProjection>,
    /// Further volumes of the pod.
    pub volumes: Vec<Volume>,
    /// Further mounts of the API server.
    pub mounts: Vec<VolumeMount>,
    /// What runs beside it: init containers that go on.
    pub sidecars: Vec<Container>,
}

/// A mount of a volume.
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
