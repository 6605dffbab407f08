//! The managers of a kind's replicas, as those of its Scale, and back (R5.25).

use super::managers::{Entry, Id, Managers, Operation, Owned};
use super::set::Set;

/// Where a Scale has its replicas.
const REPLICAS: [&str; 2] = ["spec", "replicas"];

/// The version of a Scale.
pub const API_VERSION: &str = "autoscaling/v1";

/// The managers that own the replicas of the object, at `path`, as managers of its Scale.
pub fn to_scale(managers: &Managers, path: &[&str]) -> Managers {
    let owners = managers.0.iter().filter_map(|(id, entry)| {
        let mut entry = entry.clone();
        if !entry.owned.set().has(path) {
            return None;
        }
        let entry = Entry {
            version: API_VERSION.to_owned(),
            time: entry.time,
            owned: Owned::Set(Set::path(&REPLICAS)),
        };
        Some((with_version(id, API_VERSION), entry))
    });
    Managers(owners.collect())
}

/// The managers of the object after its Scale was written, in `version`: who owns the
/// replicas is said by those of the Scale, all else stays.
pub fn to_object(managers: Managers, scale: Managers, path: &[&str], version: &str) -> Managers {
    let replicas = Set::path(path);
    let mut scale: Vec<(Id, Entry)> = scale.0.into_iter().collect();
    scale.retain_mut(|(_, entry)| entry.owned.set().has(&REPLICAS));
    let mut all = Managers::default();
    for (id, mut entry) in managers.0 {
        if entry.owned.set().has(path) {
            let seen = with_version(&id, API_VERSION);
            match scale.iter().position(|(other, _)| *other == seen) {
                // It still has them.
                Some(position) => {
                    let (_, owner) = scale.swap_remove(position);
                    entry.time = owner.time;
                }
                None => {
                    let set = entry.owned.set();
                    *set = std::mem::take(set).difference(&replicas);
                }
            }
            if entry.owned.set().is_empty() {
                continue;
            }
        }
        all.0.insert(id, entry);
    }
    for (id, owner) in scale {
        let id = with_version(&id, version);
        let entry = all.0.entry(id).or_insert_with(|| Entry {
            version: version.to_owned(),
            time: None,
            owned: Owned::Set(Set::default()),
        });
        entry.time = owner.time;
        let set = entry.owned.set();
        *set = std::mem::take(set).union(replicas.clone());
    }
    all
}

fn with_version(id: &Id, version: &str) -> Id {
    match id.operation {
        Operation::Apply => id.clone(),
        Operation::Update => Id {
            version: version.to_owned(),
            ..id.clone()
        },
    }
}
