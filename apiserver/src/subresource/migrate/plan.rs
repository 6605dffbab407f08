//! What a tenant's object says of a move, and what it is to say. Pure.

use apiservice::names::ANNOTATION_MIGRATION_SOURCE_RETENTION as RETENTION;
use apiservice::v1alpha1::MigrationPhase;
use serde_json::{Map, Value, json};

use super::asked::KIND;

/// Why nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// What stands against it.
    Conflict(String),
    /// There is no move.
    Nothing,
}

/// Where the data is, and where it is to be.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    /// The DataStore that has the data; none until there is any.
    in_use: Option<&'a str>,
    /// `spec.dataStore`.
    wanted: Option<&'a str>,
    /// The last move, as the controller tells it.
    phase: Option<MigrationPhase>,
    target: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(object: &'a Value) -> Self {
        let storage = &object["status"]["storage"];
        let migration = &object["status"]["migration"];
        let has_data = text(&storage["setup"]["schema"]).is_some();
        let phase = migration.get("phase");
        Self {
            in_use: text(&storage["dataStoreName"]).filter(|_| has_data),
            wanted: text(&object["spec"]["dataStore"]),
            phase: phase.map(|phase| {
                let known = serde_json::from_value(phase.clone());
                known.unwrap_or(MigrationPhase::Unknown)
            }),
            target: text(&migration["target"]),
        }
    }

    /// Where the data is to go and is not yet.
    fn moving(&self) -> Option<&'a str> {
        let in_use = self.in_use?;
        self.wanted.filter(|wanted| *wanted != in_use)
    }

    /// Where the controller moves it at this moment, or has not finished calling that off.
    fn busy(&self) -> Option<&'a str> {
        let busy = match self.phase? {
            MigrationPhase::Pending
            | MigrationPhase::Completed
            | MigrationPhase::Failed
            | MigrationPhase::Aborted => false,
            MigrationPhase::Preparing
            | MigrationPhase::Copying
            | MigrationPhase::Following
            | MigrationPhase::Freezing
            | MigrationPhase::Verifying
            | MigrationPhase::Switching
            // Of a newer version: whoever knows it may be in the midst of it.
            | MigrationPhase::Unknown => true,
        };
        self.target.filter(|_| busy)
    }

    /// Where the tenant is served from since the last move, if it cannot be called off.
    fn switched(&self) -> Option<&'a str> {
        let target = self.target?;
        match self.phase? {
            MigrationPhase::Switching => Some(target),
            MigrationPhase::Completed => {
                let there = self.in_use == Some(target) && self.moving().is_none();
                there.then_some(target)
            }
            _ => None,
        }
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// The tenant has data, which a move would take along.
pub(super) fn has_data(object: &Value) -> bool {
    Place::of(object).in_use.is_some()
}

/// Where the data is to go and is not yet.
pub(super) fn under_way(object: &Value) -> Option<&str> {
    Place::of(object).moving()
}

/// Where the tenant is, or where it would begin: not where the server sends it.
pub(super) fn home(object: &Value) -> Option<&str> {
    let place = Place::of(object);
    let recorded = text(&object["status"]["storage"]["dataStoreName"]);
    place.in_use.or(place.wanted).or(recorded)
}

/// Whether `spec.dataStore` has to change for the data to go to `target`.
///
/// # Errors
/// [`Refused::Conflict`] while the data is moved to another one.
pub(super) fn step(object: &Value, target: &str) -> Result<bool, Refused> {
    let place = Place::of(object);
    if place.busy().is_some_and(|busy| busy != target) && place.in_use != Some(target) {
        return Err(in_the_way(&place));
    }
    if place.in_use == Some(target) {
        return match (place.moving(), place.busy()) {
            (None, _) => Ok(false),
            (Some(_), None) => Ok(true),
            (Some(_), Some(_)) => Err(in_the_way(&place)),
        };
    }
    Ok(place.wanted != Some(target))
}

fn in_the_way(place: &Place<'_>) -> Refused {
    let phase = place.phase.unwrap_or_default().as_str();
    let target = place.busy().unwrap_or_default();
    Refused::Conflict(match place.moving() {
        Some(_) => format!(
            "the tenant's data is being moved to DataStore {target} (phase {phase}): abort that \
             move with a DELETE of this subresource, or wait for its end, and try again"
        ),
        None => format!(
            "a move of the tenant's data to DataStore {target} is being called off (phase \
             {phase}): wait for its end, and try again"
        ),
    })
}

/// The tenant with its data on the way to `target`. Only what has to change differs.
///
/// # Errors
/// Those of [`step`].
pub(super) fn moved(
    object: &Value,
    target: &str,
    retention: Option<&str>,
) -> Result<Value, Refused> {
    let mut new = object.clone();
    if step(object, target)? {
        new["spec"]["dataStore"] = target.into();
    }
    if let Some(retention) = retention {
        let annotations = &mut new["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[RETENTION] = retention.into();
    }
    Ok(new)
}

/// The tenant with its data where it is; the same object while its move is being called
/// off already.
///
/// # Errors
/// [`Refused::Nothing`] without a move, [`Refused::Conflict`] for one that is over.
pub(super) fn aborted(object: &Value) -> Result<Value, Refused> {
    let place = Place::of(object);
    if let Some(target) = place.switched() {
        let source = text(&object["status"]["migration"]["source"]);
        let source = source.map_or_else(String::new, |source| {
            format!(": to move it back, ask for a move to DataStore {source}")
        });
        return Err(Refused::Conflict(format!(
            "the tenant is already served from DataStore {target}{source}"
        )));
    }
    let mut new = object.clone();
    match (place.in_use, place.moving(), place.busy()) {
        (Some(in_use), Some(_), _) => new["spec"]["dataStore"] = in_use.into(),
        (_, _, Some(_)) => {}
        (_, _, None) => return Err(Refused::Nothing),
    }
    Ok(new)
}

/// The MigrationRequest of a tenant.
pub(super) fn view(object: &Value) -> Value {
    let place = Place::of(object);
    let mut metadata = Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    let goal = place.wanted.filter(|wanted| {
        place.in_use != Some(*wanted) || (place.target == Some(*wanted) && place.phase.is_some())
    });
    if let Some(target) = goal {
        spec.insert("target".to_owned(), target.into());
    }
    if let Some(retention) = text(&object["metadata"]["annotations"][RETENTION]) {
        spec.insert("sourceRetention".to_owned(), retention.into());
    }
    let mut view = json!({
        "apiVersion": object["apiVersion"], "kind": KIND, "metadata": metadata, "spec": spec,
    });
    if let Some(status) = status(object, &place) {
        view["status"] = status;
    }
    view
}

/// What the controller tells of the move; of one that it has not seen yet, that.
fn status(object: &Value, place: &Place<'_>) -> Option<Value> {
    let told = object["status"].get("migration").cloned();
    let Some(target) = place.moving() else {
        return told;
    };
    let is_told = place.busy().is_some()
        || place.target == Some(target)
            && matches!(
                place.phase,
                Some(MigrationPhase::Pending | MigrationPhase::Failed)
            );
    match is_told {
        true => told,
        false => Some(json!({
            "phase": MigrationPhase::Pending.as_str(),
            "source": place.in_use,
            "target": target,
            "message": "the controller has not begun yet",
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenant with its data in `a`.
    fn tenant(wanted: Option<&str>, migration: Value) -> Value {
        let mut object = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "metadata": {"name": "t", "namespace": "n", "uid": "u", "labels": {"x": "y"}},
            "spec": {},
            "status": {"storage": {"dataStoreName": "a", "setup": {"schema": "n_t"}}},
        });
        if let Some(wanted) = wanted {
            object["spec"]["dataStore"] = wanted.into();
        }
        if !migration.is_null() {
            object["status"]["migration"] = migration;
        }
        object
    }

    fn to_b(phase: &str) -> Value {
        json!({"phase": phase, "source": "a", "target": "b"})
    }

    fn conflict<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
        match result.unwrap_err() {
            Refused::Conflict(why) => why,
            Refused::Nothing => panic!("nothing"),
        }
    }

    const BUSY: [&str; 7] = [
        "Preparing",
        "Copying",
        "Following",
        "Freezing",
        "Verifying",
        "Switching",
        "OfTheFuture",
    ];

    /// R8.29.
    #[test]
    fn a_move_is_begun_once() {
        let never = tenant(None, Value::Null);
        assert_eq!(step(&never, "b"), Ok(true));
        assert_eq!(step(&never, "a"), Ok(false), "it is there");
        let new = moved(&never, "b", Some("0s")).unwrap();
        let mut expected = never.clone();
        expected["spec"]["dataStore"] = "b".into();
        expected["metadata"]["annotations"] = json!({RETENTION: "0s"});
        assert_eq!(new, expected);
        assert_eq!(moved(&new, "b", None), Ok(new.clone()), "a repetition");
        assert_eq!(under_way(&new), Some("b"));
        // Before anything is done for it, it can be sent elsewhere, and back.
        for phase in ["Pending", "Failed", "Aborted"] {
            let waiting = tenant(Some("b"), to_b(phase));
            assert_eq!(step(&waiting, "c"), Ok(true), "{phase}");
            assert_eq!(step(&waiting, "a"), Ok(true), "{phase}");
            assert_eq!(step(&waiting, "b"), Ok(false), "{phase}");
        }
        for phase in BUSY {
            let busy = tenant(Some("b"), to_b(phase));
            assert_eq!(step(&busy, "b"), Ok(false), "{phase}");
            for other in ["a", "c"] {
                let why = conflict(step(&busy, other));
                assert!(why.contains("is being moved to DataStore b"), "{why}");
                assert!(why.contains("abort that move with a DELETE"), "{why}");
            }
            // Called off, and not over yet.
            let back = tenant(Some("a"), to_b(phase));
            assert_eq!(step(&back, "a"), Ok(false), "{phase}");
            assert_eq!(step(&back, "b"), Ok(true), "{phase}");
            assert!(conflict(step(&back, "c")).contains("is being called off"));
        }
        // Done: the next one begins.
        let mut done = tenant(Some("b"), to_b("Completed"));
        done["status"]["storage"]["dataStoreName"] = "b".into();
        assert_eq!(step(&done, "b"), Ok(false));
        assert_eq!(step(&done, "a"), Ok(true));
    }

    #[test]
    fn without_data_it_begins_there() {
        let mut fresh = tenant(None, Value::Null);
        fresh["status"]["storage"]["setup"] = Value::Null;
        assert!(!has_data(&fresh));
        assert_eq!(home(&fresh), Some("a"), "assigned");
        assert_eq!(step(&fresh, "b"), Ok(true));
        let new = moved(&fresh, "b", None).unwrap();
        assert_eq!(step(&new, "b"), Ok(false));
        assert_eq!(home(&new), Some("b"));
        let view = view(&new);
        assert_eq!(view["spec"], json!({"target": "b"}));
        assert_eq!(view.get("status"), None);
        assert_eq!(aborted(&new), Err(Refused::Nothing));
    }

    /// R8.29.
    #[test]
    fn a_move_is_called_off_until_the_switch() {
        for phase in ["Pending", "Failed"].iter().chain(&BUSY) {
            let moving = tenant(Some("b"), to_b(phase));
            if *phase == "Switching" {
                let why = conflict(aborted(&moving));
                assert_eq!(
                    why,
                    "the tenant is already served from DataStore b: to move it back, ask for a \
                     move to DataStore a"
                );
                continue;
            }
            let back = aborted(&moving).unwrap();
            assert_eq!(back["spec"]["dataStore"], "a", "{phase}");
            if BUSY.contains(phase) {
                assert_eq!(aborted(&back), Ok(back.clone()), "a repetition");
            }
        }
        // Also before the controller has seen it.
        let unseen = tenant(Some("b"), Value::Null);
        assert_eq!(aborted(&unseen).unwrap()["spec"]["dataStore"], "a");
        let mut done = tenant(Some("b"), to_b("Completed"));
        done["status"]["storage"]["dataStoreName"] = "b".into();
        assert!(conflict(aborted(&done)).contains("already served from DataStore b"));
        done["spec"]["dataStore"] = "a".into();
        assert_eq!(aborted(&done).unwrap()["spec"]["dataStore"], "b");
        for nothing in [
            tenant(None, Value::Null),
            tenant(Some("a"), to_b("Aborted")),
            tenant(Some("a"), to_b("Failed")),
        ] {
            assert_eq!(aborted(&nothing), Err(Refused::Nothing), "{nothing}");
        }
    }

    /// R8.29.
    #[test]
    fn what_is_seen_of_it() {
        let seen = |object: &Value| {
            let view = view(object);
            let target = view["spec"]["target"].as_str().map(str::to_owned);
            let phase = view["status"]["phase"].as_str().map(str::to_owned);
            (target, phase)
        };
        let of = |target: &str, phase: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            (some(target), some(phase))
        };
        for (object, target, phase) in [
            (tenant(None, Value::Null), "", ""),
            (tenant(Some("a"), Value::Null), "", ""),
            (tenant(Some("b"), Value::Null), "b", "Pending"),
            (tenant(Some("b"), to_b("Copying")), "b", "Copying"),
            (tenant(Some("b"), to_b("Failed")), "b", "Failed"),
            // It was called off, and is asked for again.
            (tenant(Some("b"), to_b("Aborted")), "b", "Pending"),
            (tenant(Some("c"), to_b("Failed")), "c", "Pending"),
            (tenant(Some("c"), to_b("Copying")), "c", "Copying"),
            (tenant(Some("a"), to_b("Copying")), "", "Copying"),
            (tenant(Some("a"), to_b("Aborted")), "", "Aborted"),
        ] {
            assert_eq!(seen(&object), of(target, phase), "{object}");
        }
        let mut done = tenant(Some("b"), to_b("Completed"));
        done["status"]["storage"]["dataStoreName"] = "b".into();
        assert_eq!(seen(&done), of("b", "Completed"));
        done["spec"]["dataStore"] = "a".into();
        assert_eq!(seen(&done), of("a", "Pending"));
        assert_eq!(
            view(&tenant(None, Value::Null))["metadata"],
            json!({"name": "t", "namespace": "n", "uid": "u"})
        );
    }
}
