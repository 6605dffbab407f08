//! Names of tenants and of objects, and whose an object is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The whole cluster, as the place of a list.
pub const EVERYWHERE: &str = "";

/// Namespace and name, of a tenant or of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

impl NamespacedName {
    /// From its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Of an object.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What says that a tenant controls an object.
pub(super) fn tenant_reference(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == "TenantControlPlane"
            && owner.api_version.starts_with(apiservice::GROUP)
    })
}

/// The tenant that controls an object, else the one whose name label it
/// carries: an object of ours stays ours when somebody takes its labels away.
pub fn tenant_of(meta: &ObjectMeta) -> Option<NamespacedName> {
    if let Some(owner) = tenant_reference(meta) {
        return Some(NamespacedName::new(
            meta.namespace.clone()?,
            owner.name.clone(),
        ));
    }
    let name = meta.labels.as_ref()?.get(apiservice::names::LABEL_NAME)?;
    Some(NamespacedName::new(meta.namespace.clone()?, name))
}
