//! Whether a tenant has ever been Ready.

use jiff::SignedDuration;

use crate::condition::tenant::{PROGRESSING, READY};
use crate::v1alpha1::TenantControlPlane;

/// A tenant cannot become Ready faster than this: its API server alone takes longer.
const TOO_SOON: SignedDuration = SignedDuration::from_secs(1);

impl TenantControlPlane {
    /// A control plane of this uid has served before. The version is recorded when
    /// a tenant becomes Ready for the first time and is never removed.
    pub fn was_ready(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|status| status.installed_version().is_some())
            && !self.never_ready_since_creation()
    }

    /// Ready has been False since the tenant was created, told by a release that
    /// recorded a version for a tenant that was created asleep, although it never
    /// ran. Releases since then always write the condition Progressing.
    fn never_ready_since_creation(&self) -> bool {
        let conditions = self.status.as_ref().map_or(&[][..], |it| &it.conditions);
        let of = |kind| conditions.iter().find(move |it| it.type_ == kind);
        if of(PROGRESSING).is_some() {
            return false;
        }
        let ready = of(READY).filter(|ready| ready.status == "False");
        let created = self.metadata.creation_timestamp.as_ref();
        ready.zip(created).is_some_and(|(ready, created)| {
            ready.last_transition_time.0.duration_since(created.0) <= TOO_SOON
        })
    }
}
