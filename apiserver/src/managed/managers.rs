//! Who owns which fields: `metadata.managedFields`, read and written (R5.1, R5.11, R5.12).

use std::collections::BTreeMap;
use std::fmt;

use apiservice::time;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::fields;
use super::set::Set;
use super::value::{self, Quoted};
use crate::object;

/// The only type of fields there is.
const FIELDS_V1: &str = "FieldsV1";
/// Entries of updates that are kept apart; older ones are put together.
const MOST_UPDATERS: usize = 10;
/// The manager that old updates are put together in.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who is who among managers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub operation: Operation,
    pub manager: String,
    /// The version of an update; empty for an applier, which is one in all versions.
    pub version: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl Id {
    /// Who applies.
    pub fn applier(manager: &str, subresource: &str) -> Self {
        Self {
            operation: Operation::Apply,
            manager: manager.to_owned(),
            version: String::new(),
            subresource: subresource.to_owned(),
        }
    }

    /// Who updates.
    pub fn updater(manager: &str, version: &str, subresource: &str) -> Self {
        Self {
            operation: Operation::Update,
            manager: manager.to_owned(),
            version: version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// The text by which Kubernetes sorts managers where it tells of them.
    pub fn sort_key(&self) -> String {
        let mut key = String::new();
        for (name, text) in [
            ("manager", self.manager.as_str()),
            ("operation", self.operation.name()),
            ("apiVersion", self.version.as_str()),
            ("subresource", self.subresource.as_str()),
        ] {
            if !text.is_empty() {
                key.push(if key.is_empty() { '{' } else { ',' });
                value::write_text(&mut key, name);
                key.push(':');
                value::write_text(&mut key, text);
            }
        }
        key.push('}');
        key
    }
}

/// As conflicts name it: `"kubectl" with subresource "status" using G/V`.
impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", Quoted(&self.manager))?;
        if !self.subresource.is_empty() {
            write!(out, " with subresource {}", Quoted(&self.subresource))?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(out, " using {}", self.version),
        }
    }
}

/// The fields of a manager: as they were written as long as nobody asks for them.
#[derive(Clone, Debug)]
pub enum Owned {
    /// The canonical form.
    Written(Value),
    Set(Set),
}

impl Owned {
    /// The set, read if it was not.
    pub fn set(&mut self) -> &mut Set {
        if let Self::Written(written) = self {
            // What is kept in this form was written by `encode`, or read once before.
            *self = Self::Set(fields::decode(written).unwrap_or_default());
        }
        match self {
            Self::Set(set) => set,
            Self::Written(_) => unreachable!("it was replaced above"),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Written(written) => written.as_object().is_none_or(Map::is_empty),
            Self::Set(set) => set.is_empty(),
        }
    }
}

/// One entry: what is owned, in which version, and since when.
#[derive(Clone, Debug)]
pub struct Entry {
    pub version: String,
    pub time: Option<Timestamp>,
    pub owned: Owned,
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub struct Managers(pub BTreeMap<Id, Entry>);

impl Managers {
    /// Reads the managers of a stored object.
    ///
    /// # Errors
    /// The text says what is wrong with which entry.
    pub fn stored(object: &Value) -> Result<Self, String> {
        let list = &object["metadata"]["managedFields"];
        Self::decode(list.as_array().map_or(&[], Vec::as_slice), &[])
    }

    /// Reads a list of managers. Those whose fields are also in `known`, which was written
    /// here, are taken as they are.
    ///
    /// # Errors
    /// The text says what is wrong with which entry.
    pub fn decode(list: &[Value], known: &[Value]) -> Result<Self, String> {
        let mut managers = BTreeMap::new();
        for (position, entry) in list.iter().enumerate() {
            let text = |field: &str| entry[field].as_str().unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                FIELDS_V1 => {}
                "" => {
                    return Err(format!(
                        "missing fieldsType in managed fields entry {position}"
                    ));
                }
                other => {
                    return Err(format!(
                        "invalid fieldsType {other:?} in managed fields entry {position}"
                    ));
                }
            }
            let fields = &entry["fieldsV1"];
            let is_known = known
                .get(position)
                .is_some_and(|known| known["fieldsV1"] == *fields);
            let owned = match is_known && !fields.is_null() {
                true => Owned::Written(fields.clone()),
                false => {
                    let set = fields::decode(fields);
                    Owned::Set(set.map_err(|error| format!("error decoding set: {error}"))?)
                }
            };
            let version = text("apiVersion");
            let id = match operation {
                Operation::Apply => Id::applier(text("manager"), text("subresource")),
                Operation::Update => Id::updater(text("manager"), version, text("subresource")),
            };
            let entry = Entry {
                version: version.to_owned(),
                time: time::read(text("time")).ok(),
                owned,
            };
            managers.insert(id, entry);
        }
        Ok(Self(managers))
    }

    /// The list as it is written; nothing if there are no managers.
    pub fn encode(self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        let mut all: Vec<(Id, Entry)> = self.0.into_iter().collect();
        all.sort_by(|(a, x), (b, y)| {
            let key = |id: &Id, entry: &Entry| (id.operation, seconds(entry));
            key(a, x)
                .cmp(&key(b, y))
                .then_with(|| a.manager.cmp(&b.manager))
                .then_with(|| x.version.cmp(&y.version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
        let list = all.into_iter().map(|(id, entry)| written(id, entry));
        Some(Value::Array(list.collect()))
    }

    /// Forgets those of other versions, which are served no more, and those of nothing.
    pub fn retain(&mut self, version: &str) {
        self.0
            .retain(|_, entry| entry.version == version && !entry.owned.is_empty());
    }

    /// Puts the oldest updates together, so that no more than ten are kept apart (R5.11).
    pub fn cap(&mut self) {
        let updaters = self
            .0
            .iter()
            .filter(|(id, _)| id.operation == Operation::Update);
        let mut updaters: Vec<(i64, String, Id)> = updaters
            .map(|(id, entry)| (seconds(entry), id.sort_key(), id.clone()))
            .collect();
        let Some(surplus) = updaters.len().checked_sub(MOST_UPDATERS).filter(|n| *n > 0) else {
            return;
        };
        updaters.sort();
        let mut versions: BTreeMap<String, Vec<Id>> = BTreeMap::new();
        let mut moved = 0;
        for (_, _, id) in updaters {
            if moved == surplus {
                break;
            }
            let bucket = Id::updater(ANCIENT, &id.version, "");
            match versions.get_mut(&id.version) {
                // The oldest of a version makes room for the entry that others go to. If
                // there is one, it stays.
                None if id != bucket && self.0.contains_key(&bucket) => {
                    versions.insert(id.version.clone(), Vec::new());
                }
                None => {
                    versions.insert(id.version.clone(), vec![id]);
                }
                Some(_) if id == bucket => {}
                Some(group) => {
                    moved += 1;
                    group.push(id);
                }
            }
        }
        for (version, group) in versions {
            self.put_together(&Id::updater(ANCIENT, &version, ""), &group);
        }
    }

    fn put_together(&mut self, bucket: &Id, group: &[Id]) {
        let Some(last) = group.last().filter(|last| *last != bucket) else {
            return;
        };
        if group.len() == 1 && !self.0.contains_key(bucket) {
            return;
        }
        // The most recent of them.
        let time = self.0.get(last).and_then(|entry| entry.time);
        let all = group
            .iter()
            .chain((!group.contains(bucket)).then_some(bucket));
        let sets: Vec<Set> = all
            .filter_map(|id| self.0.remove(id))
            .map(|mut entry| std::mem::take(entry.owned.set()))
            .collect();
        let entry = Entry {
            version: bucket.version.clone(),
            time,
            owned: Owned::Set(Set::union_of(sets)),
        };
        self.0.insert(bucket.clone(), entry);
    }
}

/// Takes out of a stored object the times of managers that Go does not read: with one of
/// them none of its clients can decode the object, its metadata alone included.
pub fn repair(object: &mut Value) {
    let list = object["metadata"].get_mut("managedFields");
    let entries = list.and_then(Value::as_array_mut).into_iter().flatten();
    for fields in entries.filter_map(Value::as_object_mut) {
        let text = fields.get("time").and_then(Value::as_str);
        if text.is_some_and(|text| time::read(text).is_err()) {
            fields.remove("time");
        }
    }
}

fn seconds(entry: &Entry) -> i64 {
    entry.time.map_or(0, Timestamp::as_second)
}

fn written(id: Id, entry: Entry) -> Value {
    let mut map = Map::new();
    let mut set = |name: &str, value: Value| map.insert(name.to_owned(), value);
    if !id.manager.is_empty() {
        set("manager", Value::String(id.manager));
    }
    set("operation", Value::from(id.operation.name()));
    set("apiVersion", Value::String(entry.version));
    if let Some(time) = entry.time {
        set("time", Value::from(object::time(time)));
    }
    set("fieldsType", Value::from(FIELDS_V1));
    let fields = match entry.owned {
        Owned::Written(written) => written,
        Owned::Set(set) => fields::encode(&set),
    };
    set("fieldsV1", fields);
    if !id.subresource.is_empty() {
        set("subresource", Value::String(id.subresource));
    }
    Value::Object(map)
}
