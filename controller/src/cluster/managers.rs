//! Who manages the fields of an object of ours.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

/// The manager of the fields that we apply.
pub const FIELD_MANAGER: &str = "steward-controller";

/// An entry of our creation of an object, from which an apply cannot remove any field.
pub fn is_creation(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER)
        && entry.operation.as_deref() == Some("Update")
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

/// Keeps of the managers of fields only what `apply` needs to know.
pub fn prune_managers(meta: &mut ObjectMeta) {
    if let Some(entries) = &mut meta.managed_fields {
        entries.retain(is_creation);
        for entry in entries.iter_mut() {
            entry.fields_v1 = None;
        }
        if entries.is_empty() {
            meta.managed_fields = None;
        }
    }
}
