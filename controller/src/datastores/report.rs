//! The status of a DataStore, from what is known of it. Pure.

use apiservice::{
    condition::{self, Status, data_store as types, reason},
    v1alpha1::{DataStoreStatus, Driver, PendingCleanup},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::datastores::credentials::{Certificate, Gap};
use crate::datastores::deletion;
use crate::datastores::drain::{Drain, Leaver, State};
use crate::datastores::world::World;
use crate::tenant::backing::drivers;
use crate::tenant::backing::facts::StoreProblemKind;
use crate::tenant::backing::facts::{CompactedBy, StoreReport};

/// The status of a DataStore.
pub fn status(world: &World) -> DataStoreStatus {
    let generation = world.store.metadata.generation;
    let pending = world.pending();
    let old = world.store.status.clone().unwrap_or_default();
    let mut conditions = old.conditions;
    let before = condition::get(&conditions, types::READY).cloned();
    let valid_before = condition::get(&conditions, types::VALID).cloned();
    let mut put = |one: (&'static str, Status, &str, String)| {
        let (type_, status, reason, message) = one;
        let new = condition::new(type_, status, reason, message, generation, Time(world.now));
        condition::set(&mut conditions, new);
    };
    let mut parts = vec![valid(world)];
    if let Some(report) = &world.report {
        parts.extend(asked(report, world.store.spec.driver));
    }
    let ready = ready(world, &parts);
    // A controller that has just started has not asked yet: what its
    // predecessor found stands until it has.
    let stands = world.report.is_none()
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
    put(allowed_deletion(world, &pending));
    put(cleanup_pending(world, &pending));
    if let Some(drain) = &world.drain {
        put(drained(drain, &world.overriding));
    }
    // A condition that says nothing bad and never did is noise.
    conditions.retain(|one: &Condition| {
        one.type_ != types::CLEANUP_PENDING || one.status == "True" || !pending.is_empty()
    });
    if world.drain.is_none() {
        conditions.retain(|one| one.type_ != types::DRAINED);
    }
    DataStoreStatus {
        used_by: world.used_by.clone(),
        observed_generation: generation,
        ready: if stands {
            old.ready
        } else {
            ready.1 == Status::True
        },
        version: world
            .report
            .as_ref()
            .and_then(|report| Some(report.health.as_ref().ok()?.version.clone()))
            .or(old.version),
        tenants: i64::try_from(world.used_by.len()).ok(),
        size: match world.bytes {
            Some(bytes) => Some(about(old.size, bytes)),
            None => old.size,
        },
        pending_cleanups: pending,
        conditions,
    }
}

/// A size that is told, if the one that was told before is not near enough: a status that
/// followed every byte would be written again and again.
fn about(told: Option<i64>, bytes: u64) -> i64 {
    /// What is smaller is no difference.
    const NOTHING: u64 = 1 << 20;
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    match told {
        Some(told) if told.abs_diff(bytes) <= NOTHING.max(told.unsigned_abs() / 10) => told,
        _ => bytes,
    }
}

/// Whether a status says another thing of Ready than the one before. That nothing is known yet
/// is no news.
pub fn is_news(before: Option<&DataStoreStatus>, status: &DataStoreStatus) -> bool {
    let ready = |status: &DataStoreStatus| {
        let ready = condition::get(&status.conditions, types::READY)?;
        Some((ready.status.clone(), ready.reason.clone()))
    };
    let now = ready(status);
    let known = now.as_ref().is_some_and(|(status, _)| status != "Unknown");
    known && before.and_then(ready) != now
}

type Part = (&'static str, Status, &'static str, String);

fn valid(world: &World) -> Part {
    match &world.gap {
        None => lasting(world),
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

/// What is there, and what of it ends soon. We renew none of it.
fn lasting(world: &World) -> Part {
    let now = world.now;
    let ended = |one: &Certificate| one.span.not_after <= now;
    let soon = world
        .certificates
        .iter()
        .filter(|one| one.warns(&world.terms) <= now);
    let told: Vec<String> = soon
        .map(|one| {
            let verb = if ended(one) { "ended" } else { "ends" };
            format!("{} {verb} at {}", one.field, one.span.not_after)
        })
        .collect();
    let (status, reason) = if told.is_empty() {
        (Status::True, reason::DATA_STORE_VALID)
    } else if world.certificates.iter().any(ended) {
        (Status::False, reason::CERTIFICATE_EXPIRED)
    } else {
        (Status::True, reason::CERTIFICATE_EXPIRING)
    };
    let message = match told.is_empty() {
        true => "All referenced Secrets are there.".to_owned(),
        false => format!(
            "{}. Put one that lasts longer in its place; an authority has to be trusted by the \
             database and by all tenants before it is changed.",
            told.join(", ")
        ),
    };
    (types::VALID, status, reason, message)
}

/// Conditions from the last answer of the database.
fn asked(report: &StoreReport, driver: Driver) -> Vec<Part> {
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
    match &report.health {
        Ok(health) => {
            parts.push(ok(types::REACHABLE, "It answers."));
            parts.push(ok(
                types::AUTHENTICATED,
                "Our credentials are accepted, and authentication is on.",
            ));
            parts.push(ok(types::SPACE_AVAILABLE, "No alarm is raised."));
            parts.push(match &report.separates_tenants {
                Ok(()) => ok(
                    types::VERSION_SUPPORTED,
                    &format!("Version {}.", health.version),
                ),
                Err(why) => (
                    types::VERSION_SUPPORTED,
                    Status::False,
                    drivers::row(driver).not_separated,
                    why.clone(),
                ),
            });
            match report.compacted {
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
                        format!("{message}. {}.", drivers::row(driver).remedy_of_full),
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

fn ready(world: &World, parts: &[Part]) -> Part {
    if !world.store.spec.driver.is_built() {
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
    if world.is_deleted() {
        let awaited = deletion::awaited(world);
        return (
            types::READY,
            Status::False,
            reason::DELETING,
            awaited.unwrap_or_else(|| "It is being deleted.".to_owned()),
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
        let kept = world
            .kept
            .as_ref()
            .map(|_| format!(" {KEPT}"))
            .unwrap_or_default();
        return (
            types::READY,
            Status::False,
            reason,
            format!("{message}{kept}"),
        );
    }
    if let Some(why) = &world.kept {
        return (
            types::READY,
            Status::False,
            reason::DATA_STORE_CHANGE_NOT_VERIFIED,
            format!("It was changed, and its new settings do not work: {why}. {KEPT}"),
        );
    }
    if world.report.is_none() {
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

/// What the pods of tenants have meanwhile.
const KEPT: &str = "Pods of tenants keep the settings that they run with until these work.";

fn allowed_deletion(world: &World, pending: &[PendingCleanup]) -> Part {
    if world.used_by.is_empty() && !pending.is_empty() {
        return (
            types::ALLOWED_DELETION,
            Status::False,
            reason::CLEANUP_PENDING,
            "Data of tenants that have left is still to be removed.".into(),
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

fn cleanup_pending(world: &World, pending: &[PendingCleanup]) -> Part {
    // Nothing is to be done about what is kept on purpose.
    let is_kept = |entry: &&PendingCleanup| {
        let until = entry.not_before.as_ref();
        until.is_some_and(|until| until.0 > world.now)
    };
    let (kept, due): (Vec<_>, Vec<_>) = pending.iter().partition(is_kept);
    let kept = match kept.len() {
        0 => String::new(),
        1 => " A copy of the data of 1 tenant that was moved elsewhere is kept for a time.".into(),
        more => format!(
            " Copies of the data of {more} tenants that were moved elsewhere are kept for a time."
        ),
    };
    if due.is_empty() {
        let message = match kept.is_empty() {
            true => "Nothing of deleted tenants is left.".to_owned(),
            false => kept.trim_start().to_owned(),
        };
        return (
            types::CLEANUP_PENDING,
            Status::False,
            reason::AS_EXPECTED,
            message,
        );
    }
    let names: Vec<String> = due
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
            "Users and data of tenants that have left are removed as soon as the datastore \
             allows it: {}.{kept}",
            names.join(", ")
        ),
    )
}

/// How far a DataStore is that is to be emptied.
fn drained(drain: &Drain, overriding: &[String]) -> Part {
    /// Of those that wait, and whose pods start, as many are named.
    const NAMED: usize = 5;
    // Nothing moves what they keep there.
    let stay = match overriding.is_empty() {
        true => String::new(),
        false => format!(
            " It stays in use by spec.dataStoreOverrides of {}{}.",
            overriding[..overriding.len().min(NAMED)].join(", "),
            match overriding.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            }
        ),
    };
    let all = drain.leavers.len();
    if all == 0 {
        let message = format!(
            "No tenant is left that taint {} sends away.{stay}",
            drain.taints
        );
        if !overriding.is_empty() {
            return (
                types::DRAINED,
                Status::False,
                reason::DRAIN_HELD_UP,
                message,
            );
        }
        return (types::DRAINED, Status::True, reason::DRAINED, message);
    }
    let waits = |leaver: &Leaver| match &leaver.state {
        State::Waits(why) => Some(format!("{}: {}", leaver.name(), why.trim_end_matches('.'))),
        State::Due | State::Goes(_) | State::Starts(_) => None,
    };
    let starts = |leaver: &Leaver| match &leaver.state {
        State::Starts(target) => Some(format!("{} in {target}", leaver.name())),
        _ => None,
    };
    let starting: Vec<String> = drain.leavers.iter().filter_map(starts).collect();
    let starting = match starting.is_empty() {
        true => String::new(),
        false => format!(
            " Pods are to start: {}.",
            starting[..starting.len().min(NAMED)].join(", ")
        ),
    };
    let waiting: Vec<String> = drain.leavers.iter().filter_map(waits).collect();
    let more = waiting.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    let held_up = match waiting.is_empty() {
        true => String::new(),
        false => format!(
            " These are held up: {}{more}.",
            waiting[..waiting.len().min(NAMED)].join("; ")
        ),
    };
    let why = match waiting.len() == all {
        true => reason::DRAIN_HELD_UP,
        false => reason::DRAINING,
    };
    let tenants = if all == 1 { "tenant is" } else { "tenants are" };
    let message = format!(
        "{all} {tenants} to leave because of taint {}, {} on the way.{starting}{held_up}{stay}",
        drain.taints,
        drain.going()
    );
    (types::DRAINED, Status::False, why, message)
}

#[cfg(test)]
mod tests {
    use apiservice::names;
    use apiservice::v1alpha1::DataStore;

    use super::*;
    use crate::tenant::backing::facts::{StoreHealth, StoreProblem};

    fn store() -> DataStore {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": "default", "uid": "u", "generation": 3},
            "spec": {"driver": "etcd", "endpoints": ["etcd:2379"]},
        }))
        .unwrap()
    }

    fn healthy() -> StoreReport {
        StoreReport {
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

    fn world(store: &DataStore, report: Option<&StoreReport>) -> World {
        World {
            report: report.cloned(),
            ..World::of(store.clone(), jiff::Timestamp::from_second(1).unwrap())
        }
    }

    #[test]
    fn a_size_is_told_when_it_is_another_one() {
        let mb = |number: u64| number << 20;
        assert_eq!(about(None, 7), 7);
        assert_eq!(about(Some(7), mb(1)), 7, "small change");
        assert_eq!(about(Some(7), mb(2)), 2 << 20);
        assert_eq!(about(Some(100 << 20), mb(109)), 100 << 20);
        assert_eq!(about(Some(100 << 20), mb(111)), 111 << 20);
        assert_eq!(about(Some(100 << 20), mb(80)), 80 << 20);
    }

    #[test]
    fn certificates_that_end_are_told() {
        use crate::tenant::pki::terms::Span;
        let day = |day: i64| jiff::Timestamp::from_second(day * 86_400).unwrap();
        let certificate = |part, field, from, to| Certificate {
            part,
            field,
            span: Span {
                not_before: day(from),
                not_after: day(to),
            },
        };
        let client = certificate("client", "client", 0, 365);
        let authority = certificate("authority", "authority", 0, 3650);
        // Renewed by others in its last third.
        let short = certificate("client", "client", 0, 3);
        let (store, well) = (store(), healthy());
        let told = |certificates: &[Certificate], at: i64| {
            let mut world = world(&store, Some(&well));
            world.certificates = certificates.to_vec();
            world.now = day(at);
            let status = super::status(&world);
            let valid = condition::get(&status.conditions, types::VALID).unwrap();
            let ready = condition::is_true(&status.conditions, types::READY);
            (ready, valid.reason.clone(), valid.message.clone())
        };
        let both = [authority, client];
        assert_eq!(told(&both, 350).1, reason::DATA_STORE_VALID);
        let (ready, why, said) = told(&both, 352);
        assert!(ready && why == reason::CERTIFICATE_EXPIRING, "{why}");
        assert!(
            said.starts_with("client ends at 1971-01-01T00:00:00Z."),
            "{said}"
        );
        let (ready, why, said) = told(&both, 365);
        assert!(!ready && why == reason::CERTIFICATE_EXPIRED, "{why}");
        assert!(said.starts_with("client ended at"), "{said}");
        assert_eq!(told(&[authority], 3559).1, reason::DATA_STORE_VALID);
        assert_eq!(told(&[authority], 3561).1, reason::CERTIFICATE_EXPIRING);
        assert_eq!(told(&[short], 2).1, reason::DATA_STORE_VALID);
    }

    #[test]
    fn ready_is_the_sum_of_its_parts() {
        let store = store();
        let well = healthy();
        let status = super::status(&world(&store, Some(&well)));
        assert!(status.ready);
        assert_eq!(status.version.as_deref(), Some("3.6.8"));
        assert_eq!(told(&status, types::READY), ("True".into(), "Ready".into()));

        let full = StoreReport::failed(StoreProblem {
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
    fn settings_that_do_not_work_are_told_to_be_kept_from_pods() {
        let store = store();
        let unreachable = StoreReport::failed(StoreProblem {
            kind: StoreProblemKind::Unreachable,
            message: "connection refused".into(),
        });
        let mut world = world(&store, Some(&unreachable));
        let ready = |world: &World| {
            let status = super::status(world);
            condition::get(&status.conditions, types::READY)
                .unwrap()
                .clone()
        };
        assert!(!ready(&world).message.contains("Pods of tenants keep"));
        world.kept = Some("connection refused".into());
        let told = ready(&world);
        assert_eq!(told.reason, reason::DATA_STORE_UNREACHABLE);
        assert!(told.message.contains("Pods of tenants keep"), "{told:?}");

        // We are let in, and the tenants' authority would not be.
        let well = healthy();
        world.report = Some(well);
        let told = ready(&world);
        let expected = ("False", reason::DATA_STORE_CHANGE_NOT_VERIFIED);
        assert_eq!((told.status.as_str(), told.reason.as_str()), expected);
        assert!(told.message.contains("connection refused"), "{told:?}");
    }

    #[test]
    fn a_used_data_store_names_its_users_and_is_held() {
        let store = store();
        let used = ["a/b".to_owned(), "c/d".to_owned()];
        let mut world = world(&store, None);
        world.used_by = used.into();
        let status = super::status(&world);
        let condition = condition::get(&status.conditions, types::ALLOWED_DELETION).unwrap();
        assert_eq!(condition.status, "False");
        assert!(condition.message.contains("a/b, c/d"));
    }

    #[test]
    fn how_far_the_emptying_is() {
        let mut store = store();
        let leaver = |name: &str, state| Leaver::named("n", name, state);
        let mut drain = Drain {
            taints: "leaving".into(),
            leavers: vec![
                leaver("a", State::Goes("b".into())),
                leaver("b", State::Due),
                leaver("c", State::Waits("it is paused".into())),
                leaver("d", State::Starts("b".into())),
            ],
        };
        let of = |store: &DataStore, drain: Option<&Drain>| {
            let mut world = world(store, None);
            world.drain = drain.cloned();
            super::status(&world)
        };
        let said = |status: &DataStoreStatus| {
            let it = condition::get(&status.conditions, types::DRAINED)?;
            Some((it.status.clone(), it.reason.clone(), it.message.clone()))
        };
        let some = |status: &str, reason: &str, message: &str| {
            Some((status.to_owned(), reason.to_owned(), message.to_owned()))
        };
        let status = of(&store, Some(&drain));
        let way = "4 tenants are to leave because of taint leaving, 2 on the way. Pods are to start: n/d in b. These are held \
                   up: n/c: it is paused.";
        assert_eq!(said(&status), some("False", "Draining", way));

        drain.leavers = (0..7)
            .map(|number| leaver(&number.to_string(), State::Waits("no room.".into())))
            .collect();
        let (_, reason, message) = said(&of(&store, Some(&drain))).unwrap();
        assert_eq!(reason, "DrainHeldUp");
        assert!(message.ends_with("n/4: no room; and 2 more."), "{message}");

        drain.leavers.clear();
        let status = of(&store, Some(&drain));
        let done = "No tenant is left that taint leaving sends away.";
        assert_eq!(said(&status), some("True", "Drained", done));
        store.status = Some(status);
        assert_eq!(said(&of(&store, None)), None, "the taint is gone");

        let mut world = world(&store, None);
        world.drain = Some(drain);
        world.overriding = vec!["n/e".to_owned()];
        let held = format!("{done} It stays in use by spec.dataStoreOverrides of n/e.");
        let status = super::status(&world);
        assert_eq!(said(&status), some("False", "DrainHeldUp", &held));
    }

    #[test]
    fn what_a_deletion_waits_for_is_told() {
        let mut store = store();
        store.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        store.status.get_or_insert_default().pending_cleanups = vec![PendingCleanup {
            not_before: None,
            uid: "1".into(),
            schema: Some("a_b".into()),
            ..PendingCleanup::default()
        }];
        let world = world(&store, None);
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
