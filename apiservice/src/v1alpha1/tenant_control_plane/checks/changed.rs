//! What of a spec is not as it was: a stored object that an older version accepted can still be
//! edited elsewhere.

use crate::v1alpha1::TenantControlPlaneSpec;

/// Whether a part of the spec is not what it was.
pub(super) fn changed<T: PartialEq>(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    part: impl Fn(&TenantControlPlaneSpec) -> T,
) -> bool {
    old.is_none_or(|old| part(old) != part(new))
}
