//! Field ownership at one endpoint of a kind: the object, its status or its scale.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::conflict::Conflicts;
use super::managers::{Entry, Id, Managers, Owned};
use super::schema::Types;
use super::set::Set;
use super::typed::{Duplicates, Invalid};
use super::updater::{Updater, without_identity};
use super::value;
use crate::decode::{depth, weight};
use crate::object::{meta, set_meta};

/// What `kubectl apply` on the client's side leaves (R5.21).
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who owns what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Who moves from client-side to server-side apply.
const KUBECTL: &str = "kubectl";
/// What a manager without a name is called.
const UNKNOWN: &str = "unknown";
/// Bytes that an object may have in its annotations.
const MAX_ANNOTATIONS: usize = 256 * 1024;
/// Bytes that the configuration that was applied last may take as a tree.
const LAST_APPLIED_TREE: usize = 8 * 1024 * 1024;

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
            Some(Value::Array(said)) if self.subresource.is_empty() => said,
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
        let typed = self.types.validate(config, Duplicates::Refused);
        typed.map_err(|error| self.untyped("patch", config, &error))?;
        let mut live = live.cloned().unwrap_or_else(|| self.nothing());
        let mut managers = Managers::stored(&live).map_err(|error| {
            Inapplicable::Untyped(format!("failed to decode managed fields: {error}"))
        })?;
        take_managers(&mut live);
        let typed = self.types.validate(&live, Duplicates::Allowed);
        typed.map_err(|error| self.untyped("live", &live, &error))?;
        if managers.0.is_empty() {
            managers = self.updated(None, &live, managers, BEFORE_FIRST_APPLY, now);
        }
        let applier = Id::applier(manager, self.subresource);
        let applied = self.applied(&live, config, &managers, &applier, force)?;
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
        if manager == KUBECTL && last_applied(&new).is_some() {
            set_last_applied(&mut new, config);
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
        managers: &Managers,
        applier: &Id,
        force: bool,
    ) -> Result<(Option<Value>, Managers), Inapplicable> {
        let run = |force| {
            let mut managers = managers.clone();
            let new = self
                .updater()
                .apply(live, config, &mut managers, applier, force)?;
            Ok((new, managers))
        };
        let conflicts: Conflicts = match run(force) {
            Ok(applied) => return Ok(applied),
            Err(conflicts) => conflicts,
        };
        let allowed = match applier.manager == KUBECTL {
            true => self.unchanged_since_last_applied(live),
            false => None,
        };
        let Some(allowed) = allowed else {
            return Err(Inapplicable::Conflicts(conflicts));
        };
        let conflicts = conflicts.without(&allowed);
        match conflicts.is_empty() {
            true => run(true).map_err(Inapplicable::Conflicts),
            false => Err(Inapplicable::Conflicts(conflicts)),
        }
    }

    /// The fields that are as the annotation of client-side apply has them.
    fn unchanged_since_last_applied(&self, live: &Value) -> Option<Set> {
        let text = last_applied(live)?.as_bytes();
        weight::of_json(text, LAST_APPLIED_TREE).ok()?;
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

/// The managers of an object, as they are written.
pub fn list(object: &Value) -> &[Value] {
    let list = object["metadata"]["managedFields"].as_array();
    list.map_or(&[], Vec::as_slice)
}

/// Bytes of the managers of an object, as they are written.
pub fn length(object: &Value) -> usize {
    match object["metadata"].get("managedFields") {
        Some(managers) => r#""managedFields":,"#.len() + crate::merge::length(managers),
        None => 0,
    }
}

/// Takes the managers out of an object.
pub fn take_managers(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.remove("managedFields")
}

/// If the managers of two objects differ in times only, and the objects in nothing else,
/// the new one takes those of the old one: what changes nothing is not written (R5.26).
pub fn keep_times(old: &Value, new: &mut Value) {
    let (before, after) = (list(old), list(new));
    if before.len() != after.len() || before == after {
        return;
    }
    let same = |(a, b): (&Value, &Value)| same_but(a, b, &["time"]);
    if !before.iter().zip(after).all(same) || !same_but(old, new, &["metadata", "managedFields"]) {
        return;
    }
    let before = Value::from(before.to_vec());
    set_meta(new, "managedFields", Some(before));
}

/// Whether two maps are equal but for what is at a path.
fn same_but(left: &Value, right: &Value, path: &[&str]) -> bool {
    let Some((name, rest)) = path.split_first() else {
        return true;
    };
    let (Value::Object(left), Value::Object(right)) = (left, right) else {
        return left == right;
    };
    fn others<'a>(map: &'a Map<String, Value>, name: &str) -> Vec<(&'a String, &'a Value)> {
        map.iter().filter(|(key, _)| *key != name).collect()
    }
    if others(left, name) != others(right, name) {
        return false;
    }
    match (left.get(*name), right.get(*name)) {
        (Some(left), Some(right)) => same_but(left, right, rest),
        (left, right) => rest.is_empty() || left == right,
    }
}

fn last_applied(object: &Value) -> Option<&str> {
    let text = object["metadata"]["annotations"].get(LAST_APPLIED)?;
    text.as_str().filter(|text| !text.is_empty())
}

/// Keeps the annotation in step with what is applied on the server's side. If the
/// annotations would be too large with it, it goes.
fn set_last_applied(object: &mut Value, config: &Value) {
    let mut config = config.clone();
    if let Some(annotations) = config["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else {
        return;
    };
    let mut text = String::new();
    value::write_json(&mut text, &config);
    text.push('\n');
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
    let size: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}
