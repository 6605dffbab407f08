//! Field ownership at one endpoint of a kind: the object, its status or its scale.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::conflict::Conflicts;
use super::last_applied;
use super::managers::{Entry, Id, Managers, Owned};
use super::schema::Types;
use super::set::Set;
use super::typed::{Duplicates, Invalid};
use super::updater::{Updater, without_identity};
use super::written::{self, count, list, take_managers, values, without_managers};
use crate::decode::strict;
use crate::object::{depth, meta, set_meta};

/// Who owns what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Who moves from client-side to server-side apply.
const KUBECTL: &str = "kubectl";
/// What a manager without a name is called.
const UNKNOWN: &str = "unknown";
/// Bytes that the configuration that was applied last may take as a tree.
const LAST_APPLIED_TREE: usize = 8 * 1024 * 1024;

/// Values that an object may have for its fields to have owners, and that its managers may
/// have on their own. What real objects of the largest size have is half of it; a set of as
/// many paths takes some 15 MiB.
const MOST_VALUES: usize = 150_000;
/// Values that an object and a configuration for it may have together, of which the merged
/// object has no more: a real object of the largest size is applied as a whole.
const MOST_MERGED: usize = 200_000;

/// Ownership at one endpoint.
pub struct Tracker {
    types: Types,
    /// Of the objects that are written there.
    api_version: String,
    kind: &'static str,
    subresource: &'static str,
    ignored: Set,
}

/// Why a configuration is not applied.
#[derive(Debug)]
pub enum Inapplicable {
    /// It is not for this endpoint, or not a configuration: the client's mistake.
    Misdirected(String),
    /// It has, or the object has, more values than may have owners.
    TooMany,
    /// It does not fit the schema, or the object does not.
    Untyped(String),
    /// Others own what it changes.
    Conflicts(Conflicts),
}

impl Tracker {
    /// The endpoint of a kind and a subresource (empty for the object), which does not take
    /// the fields that are ignored.
    ///
    /// # Errors
    /// For a schema that is not structural.
    pub fn new(
        schemas: &Map<String, Value>,
        schema: &str,
        (api_version, kind): (String, &'static str),
        subresource: &'static str,
        ignored: &[&str],
    ) -> Result<Self, String> {
        let ignored = ignored.iter().map(|name| Set::path(&[name]));
        Ok(Self {
            types: Types::compile(schemas, schema)?,
            api_version,
            kind,
            subresource,
            ignored: Set::union_of(ignored),
        })
    }

    fn updater(&self) -> Updater<'_> {
        Updater {
            types: &self.types,
            version: &self.api_version,
            ignored: &self.ignored,
        }
    }

    /// Records who changed what: sets the managers of `new`, which replaces `live` (or is
    /// created) and has what its author says about them. Neither needs to be of the type:
    /// what cannot be told apart in them belongs to nobody.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str, now: Timestamp) {
        let said = take_managers(new);
        let too_many = |object: &Value| values(object, MOST_VALUES).is_none();
        if too_many(new) || live.is_some_and(too_many) {
            // Too large to be looked at by parts: it belongs to nobody, as what is too large
            // to be stored with its managers (R3.88). Who writes a subresource has no say in
            // what becomes of those of the rest.
            if !self.subresource.is_empty() {
                set_meta(new, "managedFields", live.and_then(written::copied));
            }
            return;
        }
        let known = live.map(list).unwrap_or_default();
        let managers = self.base(said.as_ref(), known);
        // Nobody applied anything to what is not tracked (R5.8).
        if managers.0.is_empty() && live.is_some_and(|live| !meta(live, "uid").is_empty()) {
            return;
        }
        let managers = self.updated(live, new, managers, manager, now);
        set_meta(new, "managedFields", managers.encode());
    }

    fn updated(
        &self,
        live: Option<&Value>,
        new: &Value,
        mut managers: Managers,
        manager: &str,
        now: Timestamp,
    ) -> Managers {
        let nothing;
        let live = match live {
            Some(live) => live,
            None => {
                nothing = self.nothing();
                &nothing
            }
        };
        let owned = self.updater().update(live, new, &mut managers);
        let mut owned = without_identity(owned);
        if !owned.is_empty() {
            let manager = if manager.is_empty() { UNKNOWN } else { manager };
            let id = Id::updater(manager, &self.api_version, self.subresource);
            if let Some(mut before) = managers.0.remove(&id) {
                owned = owned.union(std::mem::take(before.owned.set()));
            }
            let entry = Entry {
                version: self.api_version.clone(),
                time: Some(now),
                owned: Owned::Set(owned),
            };
            managers.0.insert(id, entry);
        }
        managers.cap();
        managers
    }

    /// The managers that a change starts from: what its author says, or those that there
    /// are (R5.8).
    fn base(&self, said: Option<&Value>, known: &[Value]) -> Managers {
        let said = match said {
            // What is stored takes no reading.
            Some(Value::Array(said))
                if self.subresource.is_empty()
                    && (said == known || count(said, MOST_VALUES).is_some()) =>
            {
                said
            }
            _ => return Managers::decode(known, known).unwrap_or_default(),
        };
        let reset = match said.as_slice() {
            [] => true,
            [only] => only.as_object().is_some_and(Map::is_empty),
            _ => false,
        };
        if reset {
            return Managers::default();
        }
        match Managers::decode(said, known) {
            Ok(managers) if !managers.0.is_empty() => managers,
            _ => Managers::decode(known, known).unwrap_or_default(),
        }
    }

    /// An object of the kind that has nothing.
    fn nothing(&self) -> Value {
        json!({"apiVersion": self.api_version, "kind": self.kind})
    }

    /// Applies a configuration to the live object, or to nothing: the new object with its
    /// managers, before defaults. What is left of maps and lists that were removed is null.
    ///
    /// # Errors
    /// See [`Inapplicable`].
    pub fn apply(
        &self,
        live: Option<&Value>,
        config: &Value,
        manager: &str,
        force: bool,
        now: Timestamp,
    ) -> Result<Value, Inapplicable> {
        self.check(config)?;
        let live_values = live.map_or(Some(0), |live| values(live, MOST_VALUES));
        let merged = live_values
            .zip(values(config, MOST_VALUES))
            .is_some_and(|(live, config)| live + config <= MOST_MERGED);
        let owners = live.is_none_or(|live| count(list(live), MOST_VALUES).is_some());
        if !merged || !owners {
            return Err(Inapplicable::TooMany);
        }
        let typed = self.types.validate(config, Duplicates::Refused);
        typed.map_err(|error| self.untyped("patch", config, &error))?;
        let managers = live.map_or(Ok(Managers::default()), Managers::stored);
        let mut managers = managers.map_err(|error| {
            Inapplicable::Untyped(format!("failed to decode managed fields: {error}"))
        })?;
        let live = live.map_or_else(|| self.nothing(), without_managers);
        let typed = self.types.validate(&live, Duplicates::Allowed);
        typed.map_err(|error| self.untyped("live", &live, &error))?;
        if managers.0.is_empty() {
            managers = self.updated(None, &live, managers, BEFORE_FIRST_APPLY, now);
        }
        let applier = Id::applier(manager, self.subresource);
        let applied = self.applied(&live, config, managers, &applier, force)?;
        let (new, mut managers) = applied;
        let changed = new.is_some();
        if let Some(mut entry) = managers.0.remove(&applier) {
            let set = without_identity(std::mem::take(entry.owned.set()));
            if !set.is_empty() {
                entry.owned = Owned::Set(set);
                // What changes nothing does not make it younger (R5.26).
                entry.time = if changed { Some(now) } else { entry.time };
                managers.0.insert(applier, entry);
            }
        }
        let mut new = new.unwrap_or(live);
        if manager == KUBECTL && last_applied::get(&new).is_some() {
            last_applied::set(&mut new, config);
        }
        set_meta(&mut new, "managedFields", managers.encode());
        Ok(new)
    }

    /// Applied, by force where kubectl's annotation shows that it owned what is in conflict
    /// (R5.21).
    fn applied(
        &self,
        live: &Value,
        config: &Value,
        managers: Managers,
        applier: &Id,
        force: bool,
    ) -> Result<(Option<Value>, Managers), Inapplicable> {
        let run = |mut managers: Managers, force| {
            let updater = self.updater();
            let new = updater.apply(live, config, &mut managers, applier, force)?;
            Ok((new, managers))
        };
        let moves = !force && applier.manager == KUBECTL && last_applied::get(live).is_some();
        let again = moves.then(|| managers.clone());
        let conflicts: Conflicts = match run(managers, force) {
            Ok(applied) => return Ok(applied),
            Err(conflicts) => conflicts,
        };
        let allowed =
            again.and_then(|again| Some((again, self.unchanged_since_last_applied(live)?)));
        let Some((again, allowed)) = allowed else {
            return Err(Inapplicable::Conflicts(conflicts));
        };
        let conflicts = conflicts.without(&allowed);
        match conflicts.is_empty() {
            true => run(again, true).map_err(Inapplicable::Conflicts),
            false => Err(Inapplicable::Conflicts(conflicts)),
        }
    }

    /// The fields that are as the annotation of client-side apply has them.
    fn unchanged_since_last_applied(&self, live: &Value) -> Option<Set> {
        let text = last_applied::get(live)?.as_bytes();
        strict::weigh_json(text, LAST_APPLIED_TREE).ok()?;
        let last: Value = serde_json::from_slice(text).ok()?;
        if last["apiVersion"] != *self.api_version || depth::exceeds(&last, depth::MAX_DEPTH) {
            return None;
        }
        self.types.validate(&last, Duplicates::Refused).ok()?;
        let changes = self.types.compare(&last, live);
        let gone = Set::union_of([changes.removed, changes.modified, changes.added]);
        Some(self.types.field_set(&last).difference(&gone))
    }

    /// R5.16: the configuration is one of this endpoint.
    fn check(&self, config: &Value) -> Result<(), Inapplicable> {
        let text = |field: &str| config[field].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version != self.api_version || kind != self.kind {
            let given = group_version_kind(version, kind);
            let why = format!("invalid object type: {given}");
            return Err(Inapplicable::Misdirected(apiservice::told::cut(
                why,
                apiservice::told::MAX_TEXT,
            )));
        }
        if config["metadata"]
            .get("managedFields")
            .is_some_and(|managers| !managers.is_null())
        {
            let why = "metadata.managedFields must be nil".to_owned();
            return Err(Inapplicable::Misdirected(why));
        }
        Ok(())
    }

    fn untyped(&self, which: &str, object: &Value, error: &Invalid) -> Inapplicable {
        let text = |field: &str| {
            let text = meta(object, field).to_owned();
            apiservice::told::cut(text, apiservice::told::MAX_PATH)
        };
        Inapplicable::Untyped(format!(
            "failed to create typed {which} object ({}/{}; {}): {error}",
            text("namespace"),
            text("name"),
            group_version_kind(&self.api_version, self.kind),
        ))
    }
}

/// `G/V, Kind=K`.
fn group_version_kind(version: &str, kind: &str) -> String {
    match version.contains('/') {
        true => format!("{version}, Kind={kind}"),
        false => format!("/{version}, Kind={kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const VERSION: &str = "steward.butlerlabs.dev/v1alpha1";

    fn tracker() -> Tracker {
        let document = apiservice::openapi::v3_group_version();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        let name = apiservice::openapi::schema_name(resource);
        let kind = (resource.api_version(), resource.kind);
        Tracker::new(schemas, &name, kind, "", &["status"]).unwrap()
    }

    fn object(finalizers: impl Iterator<Item = usize>) -> Value {
        let finalizers = finalizers.map(|n| Value::from(format!("a.b/{n}")));
        json!({"apiVersion": VERSION, "kind": "TenantControlPlane", "metadata": {
            "name": "a", "uid": "u", "finalizers": finalizers.collect::<Vec<_>>()}})
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_600_000_000).unwrap()
    }

    /// Comparing each item with each would take hours.
    #[test]
    fn large_sets_take_little_time() {
        let tracker = tracker();
        let began = Instant::now();
        let mut first = object(0..100_000);
        tracker.update(None, &mut first, "one", now());
        let mut second = object((0..100_000).rev());
        second["metadata"]["managedFields"] = first["metadata"]["managedFields"].clone();
        tracker.update(Some(&object(50_000..150_000)), &mut second, "two", now());
        assert_eq!(list(&first).len(), 1);
        let config = object((0..100_000).rev());
        let applied = tracker.apply(Some(&first), &config, "three", false, now());
        assert!(applied.is_err_and(|error| matches!(error, Inapplicable::TooMany)));
        let live = object(0..60_000);
        let config = object((30_000..90_000).rev());
        let applied = tracker.apply(Some(&live), &config, "three", false, now());
        let applied = applied.unwrap();
        let all = applied["metadata"]["finalizers"].as_array().unwrap();
        assert_eq!(all.len(), 90_000);
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
    }

    /// Objects of tiny parts by the hundred thousand have no owners.
    /// R5.14.
    #[test]
    fn what_has_too_many_values_has_no_owners() {
        let tracker = tracker();
        let labels: Map<String, Value> = (0..160_000)
            .map(|n| (n.to_string(), Value::from("")))
            .collect();
        let mut new = object(0..1);
        new["metadata"]["labels"] = Value::Object(labels);
        tracker.update(None, &mut new, "one", now());
        assert!(list(&new).is_empty());
        let mut less = object(0..1);
        tracker.update(Some(&new), &mut less, "one", now());
        assert!(list(&less).is_empty());
    }

    /// R5.8: who may only write the status has no say in who owns the rest, whatever the body
    /// says of managers and however large it is.
    #[test]
    fn a_subresource_leaves_the_managers_of_the_rest() {
        let document = apiservice::openapi::v3_group_version();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        let name = apiservice::openapi::schema_name(resource);
        let kind = (resource.api_version(), resource.kind);
        let ignored = ["metadata", "spec"];
        let status = Tracker::new(schemas, &name, kind, "status", &ignored).unwrap();
        let mut live = object(0..2);
        tracker().update(None, &mut live, "one", now());
        let many = Value::from(vec![0; 195_000]);
        let hostile = json!([{"manager": "one", "operation": "Update", "apiVersion": VERSION,
            "fieldsType": "FieldsV1", "fieldsV1": many}]);
        for (managers, extra) in [(hostile, Value::Null), (Value::Null, many)] {
            let mut new = live.clone();
            new["metadata"]["managedFields"] = managers;
            new["status"] = json!({"extra": extra});
            status.update(Some(&live), &mut new, "two", now());
            assert!(list(&new).contains(&list(&live)[0]));
        }
    }

    /// R5.8: managers that are too many are as those that cannot be read.
    #[test]
    fn managers_that_are_too_many_are_not_read() {
        let mut live = object(0..2);
        tracker().update(None, &mut live, "one", now());
        let fields: Map<String, Value> = (0..160_000)
            .map(|n| (format!("f:{n}"), json!({})))
            .collect();
        let mut new = live.clone();
        new["metadata"]["managedFields"] = json!([{"manager": "two", "operation": "Update",
            "apiVersion": VERSION, "fieldsType": "FieldsV1", "fieldsV1": fields}]);
        tracker().update(Some(&live), &mut new, "three", now());
        assert_eq!(list(&new), list(&live));
    }

    /// What managers own does not count as what the object has.
    #[test]
    fn many_appliers_of_a_large_object_go_on() {
        let tracker = tracker();
        let labels: Map<String, Value> = (0..14_500)
            .map(|n| (format!("{n:x}"), Value::from("")))
            .collect();
        let mut config = object(0..0);
        config["metadata"]["labels"] = Value::Object(labels);
        config["metadata"].as_object_mut().unwrap().remove("uid");
        let mut live = tracker.apply(None, &config, "m0", false, now()).unwrap();
        for n in 1..11 {
            live["metadata"]["uid"] = json!("u");
            let manager = format!("m{n}");
            let applied = tracker.apply(Some(&live), &config, &manager, false, now());
            live = applied.unwrap();
        }
        assert_eq!(list(&live).len(), 11);
    }

    #[test]
    fn live_and_applied_values_are_bounded_together() {
        let tracker = tracker();
        let (live, config) = (object(0..110_000), object(110_000..220_000));
        let applied = tracker.apply(Some(&live), &config, "one", false, now());
        assert!(matches!(applied, Err(Inapplicable::TooMany)));
    }

    #[test]
    fn conflicts_are_few_and_short() {
        let tracker = tracker();
        let labels = |value: &str| -> Map<String, Value> {
            let labels =
                (0..2_000).map(|n| (format!("{n}{}", "k".repeat(300)), Value::from(value)));
            labels.collect()
        };
        let mut live = object(0..0);
        live["metadata"]["labels"] = Value::Object(labels("a"));
        tracker.update(None, &mut live, "one", now());
        let mut config = object(0..0);
        config["metadata"]["labels"] = Value::Object(labels("b"));
        let refused = tracker.apply(Some(&live), &config, "two", false, now());
        let Err(Inapplicable::Conflicts(conflicts)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(conflicts.causes().len(), 500);
        let text = conflicts.to_string();
        assert!(text.starts_with("Apply failed with 2000 conflicts: conflicts with \"one\""));
        assert!(text.ends_with("\n- ..."));
        assert!(text.len() < 150_000, "{}", text.len());
    }

    /// R5.11: the oldest of many are put together.
    #[test]
    fn no_more_than_ten_updaters_are_kept_apart() {
        let tracker = tracker();
        let mut live = object(0..0);
        live["metadata"].as_object_mut().unwrap().remove("uid");
        tracker.update(None, &mut live, "none", now());
        live["metadata"]["uid"] = json!("u");
        live["metadata"]["labels"] = json!({});
        for n in 0..15 {
            let mut new = live.clone();
            new["metadata"]["labels"][format!("l{n:02}")] = json!("x");
            let time = Timestamp::from_second(1_600_000_000 + n).unwrap();
            let before = (n > 0).then_some(&live);
            tracker.update(before, &mut new, &format!("m{n:02}"), time);
            live = new;
        }
        let names: Vec<_> = list(&live).iter().map(|entry| &entry["manager"]).collect();
        assert_eq!(names.len(), 10, "{names:?}");
        assert_eq!(names[0], "ancient-changes");
        assert_eq!(names[9], "m14");
        let old = &list(&live)[0]["fieldsV1"]["f:metadata"]["f:labels"];
        assert!(
            old.get("f:l05").is_some() && old.get("f:l06").is_none(),
            "{old}"
        );
    }
}
