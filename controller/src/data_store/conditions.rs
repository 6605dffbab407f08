//! The conditions of a DataStore, from what is known of it. Pure.

use apiservice::{
    condition::{self, Status, data_store as types, reason},
    names,
    v1alpha1::{DataStore, DataStoreStatus, Driver, PendingCleanup},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    material::Gap,
    stores::{CompactedBy, Verdict},
    tenant::world::StoreProblemKind,
};

/// What the status of a DataStore is made of.
pub struct StoreWorld<'a> {
    pub store: &'a DataStore,
    pub gap: Option<Gap>,
    pub verdict: Option<&'a Verdict>,
    pub used_by: &'a [String],
    pub pending: &'a [PendingCleanup],
    pub now: Time,
}

/// The status of a DataStore.
pub fn status(world: &StoreWorld<'_>) -> DataStoreStatus {
    let generation = world.store.metadata.generation;
    let old = world.store.status.clone().unwrap_or_default();
    let mut conditions = old.conditions;
    let before = condition::get(&conditions, types::READY).cloned();
    let valid_before = condition::get(&conditions, types::VALID).cloned();
    let mut put = |one: (&'static str, Status, &str, String)| {
        let (type_, status, reason, message) = one;
        let new = condition::new(
            type_,
            status,
            reason,
            message,
            generation,
            world.now.clone(),
        );
        condition::set(&mut conditions, new);
    };
    let mut parts = vec![valid(world)];
    if let Some(verdict) = world.verdict {
        parts.extend(asked(verdict));
    }
    let ready = ready(world, &parts);
    // A controller that has just started has not asked yet: what its
    // predecessor found stands until it has.
    let stands = world.verdict.is_none()
        && ready.1 == Status::Unknown
        && before.is_some_and(|before| before.observed_generation == generation);
    if !stands {
        put(ready.clone());
    }
    // The same of the Secrets, which it has not read yet.
    let read_before = matches!(world.gap, Some(Gap::Unknown))
        && valid_before.is_some_and(|before| before.observed_generation == generation);
    for part in parts {
        if part.0 != types::VALID || !read_before {
            put(part);
        }
    }
    put(allowed_deletion(world));
    put(cleanup_pending(world));
    // A condition that says nothing bad and never did is noise.
    conditions.retain(|one: &Condition| {
        one.type_ != types::CLEANUP_PENDING || one.status == "True" || !world.pending.is_empty()
    });
    DataStoreStatus {
        used_by: world.used_by.to_vec(),
        observed_generation: generation,
        ready: if stands {
            old.ready
        } else {
            ready.1 == Status::True
        },
        version: world
            .verdict
            .and_then(|verdict| Some(verdict.health.as_ref().ok()?.version.clone()))
            .or(old.version),
        pending_cleanups: world.pending.to_vec(),
        conditions,
    }
}

type Part = (&'static str, Status, &'static str, String);

fn valid(world: &StoreWorld<'_>) -> Part {
    match &world.gap {
        None => (
            types::VALID,
            Status::True,
            reason::DATA_STORE_VALID,
            "All referenced Secrets are there.".into(),
        ),
        Some(Gap::Unknown) => (
            types::VALID,
            Status::Unknown,
            reason::UNKNOWN,
            "The referenced Secrets are being read.".into(),
        ),
        Some(Gap::Missing { what, remedy, key }) => (
            types::VALID,
            Status::False,
            if *key {
                reason::SECRET_KEY_NOT_FOUND
            } else {
                reason::SECRET_NOT_FOUND
            },
            format!("{what}: {remedy}."),
        ),
    }
}

/// Conditions from the last answer of the database.
fn asked(verdict: &Verdict) -> Vec<Part> {
    let ok = |type_, message: &str| (type_, Status::True, reason::AS_EXPECTED, message.to_owned());
    let unknown = |type_| {
        let message = "The datastore does not answer.".to_owned();
        (
            type_,
            Status::Unknown,
            reason::DATA_STORE_UNREACHABLE,
            message,
        )
    };
    let mut parts = vec![];
    match &verdict.health {
        Ok(health) => {
            parts.push(ok(types::REACHABLE, "It answers."));
            parts.push(ok(
                types::AUTHENTICATED,
                "Our credentials are accepted, and authentication is on.",
            ));
            parts.push(ok(types::SPACE_AVAILABLE, "No alarm is raised."));
            parts.push(match &verdict.separates_tenants {
                Ok(()) => ok(
                    types::VERSION_SUPPORTED,
                    &format!("Version {}.", health.version),
                ),
                Err(why) => (
                    types::VERSION_SUPPORTED,
                    Status::False,
                    reason::VERSION_TOO_OLD,
                    why.clone(),
                ),
            });
            match verdict.compacted {
                None => {}
                Some(CompactedBy::Others) => {
                    parts.push(ok(types::COMPACTED, "It is compacted by others."));
                }
                Some(CompactedBy::Us) => parts.push((
                    types::COMPACTED,
                    Status::True,
                    reason::COMPACTED_BY_STEWARD,
                    "Nobody else compacts it, so the controller does.".into(),
                )),
            }
        }
        Err(problem) => {
            let message = problem.message.clone();
            match problem.kind {
                StoreProblemKind::Unreachable => {
                    parts.push((
                        types::REACHABLE,
                        Status::False,
                        reason::DATA_STORE_UNREACHABLE,
                        format!(
                            "{message}. Check that it runs and that spec.endpoints lead to it."
                        ),
                    ));
                    parts.push(unknown(types::AUTHENTICATED));
                    parts.push(unknown(types::SPACE_AVAILABLE));
                }
                StoreProblemKind::Unauthenticated => {
                    parts.push(ok(types::REACHABLE, "It answers."));
                    parts.push((
                        types::AUTHENTICATED,
                        Status::False,
                        reason::DATA_STORE_UNAUTHORIZED,
                        format!("{message}. Check the referenced credentials."),
                    ));
                }
                StoreProblemKind::Insecure => {
                    parts.push(ok(types::REACHABLE, "It answers."));
                    parts.push((
                        types::AUTHENTICATED,
                        Status::False,
                        reason::AUTHENTICATION_DISABLED,
                        format!(
                            "{message}. Turn authentication on, else tenants could read each other."
                        ),
                    ));
                }
                StoreProblemKind::Full => {
                    parts.push(ok(types::REACHABLE, "It answers."));
                    parts.push((
                        types::SPACE_AVAILABLE,
                        Status::False,
                        reason::DATA_STORE_FULL,
                        format!("{message}. Compact and defragment it or raise its quota, then disarm the alarm."),
                    ));
                }
                StoreProblemKind::Unhealthy => parts.push((
                    types::REACHABLE,
                    Status::False,
                    reason::DATA_STORE_NOT_READY,
                    format!("{message}."),
                )),
            }
        }
    }
    parts
}

fn ready(world: &StoreWorld<'_>, parts: &[Part]) -> Part {
    if !matches!(world.store.spec.driver, Driver::Etcd) {
        let driver = world.store.spec.driver.as_str();
        return (
            types::READY,
            Status::False,
            reason::DRIVER_NOT_SUPPORTED,
            format!(
                "Driver {driver} is accepted, but this version does not run tenants on it yet."
            ),
        );
    }
    if world.store.metadata.deletion_timestamp.is_some() {
        return (
            types::READY,
            Status::False,
            reason::DELETING,
            deleting(world),
        );
    }
    let decides = [
        types::VALID,
        types::REACHABLE,
        types::AUTHENTICATED,
        types::SPACE_AVAILABLE,
        types::VERSION_SUPPORTED,
    ];
    let bad = parts
        .iter()
        .find(|part| decides.contains(&part.0) && part.1 == Status::False);
    if let Some((_, _, reason, message)) = bad {
        return (types::READY, Status::False, reason, message.clone());
    }
    if world.verdict.is_none() {
        return (
            types::READY,
            Status::Unknown,
            reason::UNKNOWN,
            "It has not been asked yet.".into(),
        );
    }
    (
        types::READY,
        Status::True,
        reason::READY,
        "Tenants can be placed here.".into(),
    )
}

/// What its deletion waits for.
fn deleting(world: &StoreWorld<'_>) -> String {
    if !world.used_by.is_empty() {
        return "It is being deleted, and goes with the last tenant that uses it.".into();
    }
    if !world.pending.is_empty() {
        return format!(
            "It is being deleted, and goes when the data of deleted tenants is removed. If the \
             database is gone for good, remove its finalizer {}.",
            names::FINALIZER_DATA_STORE
        );
    }
    "It is being deleted.".into()
}

fn allowed_deletion(world: &StoreWorld<'_>) -> Part {
    if world.used_by.is_empty() && !world.pending.is_empty() {
        return (
            types::ALLOWED_DELETION,
            Status::False,
            reason::CLEANUP_PENDING,
            "Data of deleted tenants is still to be removed.".into(),
        );
    }
    if world.used_by.is_empty() {
        return (
            types::ALLOWED_DELETION,
            Status::True,
            reason::DATA_STORE_UNUSED,
            "No tenant uses it.".into(),
        );
    }
    let shown: Vec<&str> = world.used_by.iter().take(10).map(String::as_str).collect();
    let more = world.used_by.len().saturating_sub(shown.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (
        types::ALLOWED_DELETION,
        Status::False,
        reason::DATA_STORE_STILL_USED,
        format!(
            "Used by {}{more}. Delete or move them first.",
            shown.join(", ")
        ),
    )
}

fn cleanup_pending(world: &StoreWorld<'_>) -> Part {
    if world.pending.is_empty() {
        let message = "Nothing of deleted tenants is left.".to_owned();
        return (
            types::CLEANUP_PENDING,
            Status::False,
            reason::AS_EXPECTED,
            message,
        );
    }
    let names: Vec<String> = world
        .pending
        .iter()
        .take(10)
        .map(|entry| {
            format!(
                "{}/{} (schema {})",
                entry.namespace.as_deref().unwrap_or_default(),
                entry.name.as_deref().unwrap_or_default(),
                entry.schema.as_deref().unwrap_or_default()
            )
        })
        .collect();
    (
        types::CLEANUP_PENDING,
        Status::True,
        reason::CLEANUP_PENDING,
        format!(
            "Users and data of deleted tenants are removed as soon as the datastore allows it: {}.",
            names.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::world::{StoreHealth, StoreProblem};

    fn store() -> DataStore {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": "default", "uid": "u", "generation": 3},
            "spec": {"driver": "etcd", "endpoints": ["etcd:2379"]},
        }))
        .unwrap()
    }

    fn healthy() -> Verdict {
        Verdict {
            health: Ok(StoreHealth {
                version: "3.6.8".into(),
                warnings: vec![],
            }),
            separates_tenants: Ok(()),
            compacted: None,
        }
    }

    fn told(status: &DataStoreStatus, type_: &str) -> (String, String) {
        let condition = condition::get(&status.conditions, type_).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    fn world<'a>(store: &'a DataStore, verdict: Option<&'a Verdict>) -> StoreWorld<'a> {
        StoreWorld {
            store,
            gap: None,
            verdict,
            used_by: &[],
            pending: &[],
            now: Time(jiff::Timestamp::from_second(1).unwrap()),
        }
    }

    #[test]
    fn ready_is_the_sum_of_its_parts() {
        let store = store();
        let well = healthy();
        let status = super::status(&world(&store, Some(&well)));
        assert!(status.ready);
        assert_eq!(status.version.as_deref(), Some("3.6.8"));
        assert_eq!(told(&status, types::READY), ("True".into(), "Ready".into()));

        let full = Verdict::failed(StoreProblem {
            kind: StoreProblemKind::Full,
            message: "alarm NOSPACE".into(),
        });
        let status = super::status(&world(&store, Some(&full)));
        assert!(!status.ready);
        assert_eq!(
            told(&status, types::READY),
            ("False".into(), reason::DATA_STORE_FULL.into())
        );

        let status = super::status(&world(&store, None));
        assert_eq!(told(&status, types::READY).0, "Unknown");

        let mut known = store.clone();
        known.status = Some(super::status(&world(&store, Some(&well))));
        let mut restarted = world(&known, None);
        for gap in [None, Some(Gap::Unknown)] {
            restarted.gap = gap;
            assert_eq!(
                Some(&super::status(&restarted)),
                known.status.as_ref(),
                "a restart changes nothing"
            );
        }

        let mut missing = world(&store, None);
        missing.gap = Some(Gap::Missing {
            what: "Secret a/b does not exist".into(),
            remedy: "create it".into(),
            key: false,
        });
        let status = super::status(&missing);
        assert_eq!(
            told(&status, types::READY),
            ("False".into(), reason::SECRET_NOT_FOUND.into())
        );
    }

    #[test]
    fn a_used_data_store_names_its_users_and_is_held() {
        let store = store();
        let used = ["a/b".to_owned(), "c/d".to_owned()];
        let mut world = world(&store, None);
        world.used_by = &used;
        let status = super::status(&world);
        let condition = condition::get(&status.conditions, types::ALLOWED_DELETION).unwrap();
        assert_eq!(condition.status, "False");
        assert!(condition.message.contains("a/b, c/d"));
    }

    #[test]
    fn what_a_deletion_waits_for_is_told() {
        let mut store = store();
        store.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let pending = [PendingCleanup {
            uid: "1".into(),
            schema: Some("a_b".into()),
            ..PendingCleanup::default()
        }];
        let mut world = world(&store, None);
        world.pending = &pending;
        let status = super::status(&world);
        let find = |type_| condition::get(&status.conditions, type_).unwrap();
        let allowed = find(types::ALLOWED_DELETION);
        assert_eq!(
            (allowed.status.as_str(), allowed.reason.as_str()),
            ("False", "CleanupPending")
        );
        assert!(
            find(types::READY)
                .message
                .contains(names::FINALIZER_DATA_STORE)
        );
        assert!(find(types::CLEANUP_PENDING).message.contains("a_b"));
    }
}
