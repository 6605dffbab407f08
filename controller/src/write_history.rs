//! What is remembered about the writes for one tenant: who opposes them, and
//! what the API refused.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::process::contested::{CONTESTED_EVERY, Contest, Repaired, Way};
use crate::tenant::plan::{ObjectKey, ObjectKind, Outcome};

/// Each change of a Deployment and each repair of it replaces pods. One that is
/// deleted is missed at once.
impl Repaired for (ObjectKey, Way) {
    fn longest_pause(&self) -> Duration {
        match self {
            (ObjectKey { kind, .. }, Way::Change) if *kind == ObjectKind::Deployment => {
                CONTESTED_EVERY * 10
            }
            _ => CONTESTED_EVERY,
        }
    }
}

/// The memory of one tenant's objects.
#[derive(Debug, Default)]
pub struct Memory {
    /// Who else writes our objects.
    pub contest: Contest<(ObjectKey, Way)>,
    /// Resource versions of what we wrote, to see whether someone wrote since.
    pub written: BTreeMap<ObjectKey, String>,
    /// What the API found invalid, so that it is not asked again at once:
    /// fingerprint of what was refused, when, and why.
    pub rejected: BTreeMap<ObjectKey, (u64, Timestamp, Outcome)>,
}

/// The memories of all tenants, by uid: names of objects do not tell whose they
/// are (the Secret `a-ca` is of the tenant `a`, the Service `a-ca` of another).
#[derive(Debug, Default)]
pub struct Writes {
    tenants: Mutex<BTreeMap<String, Memory>>,
}

impl Writes {
    /// Reads or changes the memory of a tenant. All tenants wait meanwhile: whatever takes
    /// time is done before.
    pub fn of<T>(&self, uid: &str, work: impl FnOnce(&mut Memory) -> T) -> T {
        let mut tenants = self.tenants.lock();
        if let Some(memory) = tenants.get_mut(uid) {
            return work(memory);
        }
        work(tenants.entry(uid.to_owned()).or_default())
    }

    /// A tenant is gone.
    pub fn forget(&self, uid: &str) {
        self.tenants.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_does_not_forget_what_another_of_a_similar_name_knows() {
        let writes = Writes::default();
        let key = ObjectKey {
            kind: ObjectKind::Service,
            namespace: "n".into(),
            name: "a-b".into(),
        };
        let note = |memory: &mut Memory| memory.written.insert(key.clone(), "7".into());
        writes.of("uid of a-b", note);
        writes.of("uid of a", note);
        writes.forget("uid of a");
        let left = writes.of("uid of a-b", |memory| memory.written.len());
        assert_eq!(left, 1);
        assert_eq!(writes.of("uid of a", |memory| memory.written.len()), 0);
    }
}
