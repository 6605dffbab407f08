//! A kind as a row: how it is called, where it lives, what it is judged by.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::field::{Error, ErrorKind, Errors, Path};
use crate::forms::NameRule;
use crate::rule::Rule;
use crate::schema::Schema;
use crate::{GROUP, VERSION, bulk, told};

/// Whether objects of a kind live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// They do not.
    Cluster,
    /// They do.
    Namespaced,
}

/// A column of a Table after the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// Where the value stands: properties, each after a dot, and `[?(@.type=="...")]` for
    /// one of a list.
    pub json_path: &'static str,
    /// The type: string, integer, number, boolean or date.
    pub kind: &'static str,
    /// The format, as in OpenAPI; may be empty.
    pub format: &'static str,
    /// What the column shows; may be empty.
    pub description: &'static str,
    /// 0 shows the column always, anything above only with `-o wide`.
    pub priority: i32,
}

/// A part of an object with a URL of its own.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    /// Which it is.
    pub part: Part,
    /// The kind that is sent and received.
    pub kind: &'static str,
    /// The group of that kind; empty stands for the group of the parent.
    pub group: &'static str,
    /// The version of that kind; empty stands for the version of the parent.
    pub version: &'static str,
    /// What can be done, sorted.
    pub verbs: &'static [&'static str],
}

/// The parts that objects may have. Whoever carries requests out asks for each.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// What the controller says of the object.
    Status,
    /// Its replicas, which stand there.
    Scale(ScalePaths),
    /// Access to the tenant that it is.
    Kubeconfig,
    /// Tokens with which nodes join the tenant that it is.
    JoinToken,
    /// The way of its data to another DataStore.
    Migrate,
}

impl Part {
    /// The last part of the URL.
    pub fn name(self) -> &'static str {
        match self {
            Part::Status => "status",
            Part::Scale(_) => "scale",
            Part::Kubeconfig => "kubeconfig",
            Part::JoinToken => "jointoken",
            Part::Migrate => "migrate",
        }
    }
}

impl Subresource {
    /// The last part of the URL.
    pub fn name(&self) -> &'static str {
        self.part.name()
    }
}

/// Where the values of a `Scale` stand in an object, as properties from the
/// root.
#[derive(Clone, Copy, Debug)]
pub struct ScalePaths {
    /// The wanted number.
    pub spec_replicas: &'static [&'static str],
    /// The observed number.
    pub status_replicas: &'static [&'static str],
    /// The label selector of what is counted, in its string form.
    pub label_selector: &'static [&'static str],
}

/// A right that a requester must hold to write a field (rule 8).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BorrowedRight {
    /// The verb.
    pub verb: &'static str,
    /// The API group; empty is the core group.
    pub group: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// The subresource; empty is the resource itself.
    pub subresource: &'static str,
    /// The namespace; none for what has no namespace.
    pub namespace: Option<String>,
    /// The name; none for all names.
    pub name: Option<String>,
    /// The field that borrows the right, as a path.
    pub field: String,
    /// A right to the same object that does as well.
    pub or: Option<OtherRight>,
}

/// See [`BorrowedRight::or`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OtherRight {
    /// The verb.
    pub verb: &'static str,
    /// The resource, in the same group.
    pub resource: &'static str,
    /// The subresource; empty is the resource itself.
    pub subresource: &'static str,
}

/// One kind. Everything that the API server knows of it stands here.
pub struct Resource {
    /// The name in URLs.
    pub plural: &'static str,
    /// The name for one.
    pub singular: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The kind of a list.
    pub list_kind: &'static str,
    /// Whether it lives in namespaces.
    pub scope: Scope,
    /// Short names for `kubectl`.
    pub short_names: &'static [&'static str],
    /// Categories for `kubectl`.
    pub categories: &'static [&'static str],
    /// What names it takes.
    pub name_rule: NameRule,
    /// The columns of a Table after the name, the age among them.
    pub columns: &'static [Column],
    /// The parts with a URL of their own.
    pub subresources: &'static [Subresource],
    pub(crate) behaviour: Behaviour,
}

/// What the row of a kind calls.
pub(crate) struct Behaviour {
    /// The schema.
    pub(crate) schema: fn() -> &'static Schema,
    /// Parts that are larger than they may be, which is found out before anything is decoded.
    pub(crate) sizes: fn(&Value, Option<&Value>) -> Vec<Error>,
    /// Rules that are published in the schema as well.
    pub(crate) rules: &'static [Rule],
    /// Decodes it as the types of this crate, as controllers do ([`decodes`]).
    pub(crate) decode: fn(&Value) -> Result<(), Error>,
    /// Rewritings before decoding (rule 6).
    pub(crate) normalize: fn(&mut Value),
    /// Field rules that CEL cannot say.
    pub(crate) check: fn(&Value, Option<&Value>) -> Errors,
    /// Those of them that stand for themselves: they are checked even when the
    /// shape is wrong elsewhere, and must bear with any shape.
    pub(crate) check_parts: fn(&Value, Option<&Value>) -> Errors,
    /// Warnings (rules 9, 10).
    pub(crate) warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    /// Borrowed rights (rule 8).
    pub(crate) borrowed: fn(&Value, Option<&Value>) -> Vec<BorrowedRight>,
}

/// Whether an object is one of these types, which is what readers of the kind make of it. A
/// controller whose list has one that is not sees none of the others either.
///
/// # Errors
/// The field that is not, and why.
pub(crate) fn decodes<T: DeserializeOwned>(object: &Value) -> Result<(), Error> {
    let decoded: Result<T, _> = serde_path_to_error::deserialize(object);
    let wrong = decoded.err().map(|error| {
        let path = Path::new(told::short(error.path(), told::MAX_PATH));
        let why = told::short(error.inner(), told::MAX_TEXT);
        Error::invalid_whole(&path, why)
    });
    wrong.map_or(Ok(()), Err)
}

/// A spec that takes more than it may once it is read as types ([`bulk`]), and more than the
/// one that is stored.
fn too_heavy(new: &Value, old: Option<&Value>) -> Option<Error> {
    let weight = bulk::weight(&new["spec"]);
    if weight <= bulk::MOST || old.is_some_and(|old| weight <= bulk::weight(&old["spec"])) {
        return None;
    }
    let mut error = Error::too_long(&Path::new("spec"), bulk::MOST as u64);
    error.detail.push_str(
        " as it is read, whatever its texts are: 48 for each value, and 512 more for each map \
         in a list",
    );
    Some(error)
}

/// An object of which no more is made when it is decoded than may be.
fn readable(object: &Value) -> Cow<'_, Value> {
    if bulk::weight(&object["spec"]) <= bulk::MOST {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    bulk::cut(&mut object["spec"]);
    Cow::Owned(object)
}

/// How many rights one object may borrow (rule 8): named Secrets and ConfigMaps, for the
/// most part.
pub const MAX_BORROWED: usize = 64;

/// What can be done with every kind, sorted.
pub const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

impl Resource {
    /// `group/version` as objects write it.
    pub fn api_version(&self) -> String {
        crate::api_version()
    }

    /// `plural.group`, the name of the kind in messages.
    pub fn qualified(&self) -> String {
        format!("{}.{GROUP}", self.plural)
    }

    /// The version.
    pub fn version(&self) -> &'static str {
        VERSION
    }

    /// Whether it has a status of its own.
    pub fn has_status(&self) -> bool {
        let mut all = self.subresources.iter();
        all.any(|one| matches!(one.part, Part::Status))
    }

    /// The subresource of a name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|one| one.name() == name)
    }

    /// The schema.
    pub fn schema(&self) -> &'static Schema {
        (self.behaviour.schema)()
    }

    /// Rewrites what may be written in two ways (rule 6). To be done before
    /// unknown fields are looked for. Idempotent.
    pub fn normalize(&self, object: &mut Value) {
        (self.behaviour.normalize)(object);
    }

    /// Fills in the static defaults, as a CRD does. Idempotent.
    pub fn default(&self, object: &mut Value) {
        self.schema().default(object);
    }

    /// What is wrong with an object, or with the change from `old`: its shape,
    /// then its field rules and immutability. Metadata is only decoded.
    ///
    /// Field rules are checked only when the shape is right; an error says so
    /// when they are not (R6.18). An object without errors is one of the types of this
    /// crate, whatever the schema says of it.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Errors {
        let mut errors = self.validate_shape(new, old);
        errors.extend(too_heavy(new, old));
        errors.extend((self.behaviour.sizes)(new, old));
        let blocked = errors.iter().any(|error| {
            matches!(
                error.kind,
                ErrorKind::Required
                    | ErrorKind::NotSupported
                    | ErrorKind::TooLong
                    | ErrorKind::TooMany
                    | ErrorKind::TypeInvalid
            )
        });
        if blocked {
            errors.append((self.behaviour.check_parts)(new, old));
            errors.push(Error::invalid(
                &Path::root(),
                Value::Null,
                "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ));
            return errors;
        }
        let shape_is_right = errors.is_empty();
        let rules = self.behaviour.rules.iter();
        errors.extend(rules.filter_map(|rule| rule.check(new, old)));
        // What an older release stored may be heavier than what is read of it as types.
        let (read, before) = (readable(new), old.map(readable));
        let before = before.as_deref();
        if shape_is_right {
            match self.undecodable(&read, before) {
                Some(error) => errors.push(error),
                None => errors.append((self.behaviour.check)(&read, before)),
            }
        }
        errors.append((self.behaviour.check_parts)(&read, before));
        errors
    }

    /// What is wrong with a write of the status; the rest of the object is the
    /// stored one.
    pub fn validate_status(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate_shape(new, Some(old));
        if errors.is_empty() {
            // The spec is the stored one, and is not decoded.
            errors.extend(self.undecodable(new, Some(old)));
        }
        errors
    }

    /// What our own readers of the kind could not decode; nothing for parts that are as they
    /// were, so that a finalizer can be taken off whatever is stored (R6.14).
    fn undecodable(&self, new: &Value, old: Option<&Value>) -> Option<Error> {
        let Some(old) = old else {
            return (self.behaviour.decode)(new).err();
        };
        let is_part = |name: &str| matches!(name, "metadata" | "spec" | "status");
        let fields = new.as_object().into_iter().flatten();
        let changed = fields.map(|(name, value)| match is_part(name) && *value == old[name] {
            true => (name.clone(), json!({})),
            false => (name.clone(), value.clone()),
        });
        (self.behaviour.decode)(&changed.collect()).err()
    }

    fn validate_shape(&self, new: &Value, old: Option<&Value>) -> Errors {
        match old {
            None => self.schema().validate(new, &Path::root()),
            Some(old) => self.schema().validate_update(new, old, &Path::root()),
        }
    }

    /// What the requester should know about a write that goes through (rules 9
    /// and 10).
    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        (self.behaviour.warnings)(&readable(new), old.map(readable).as_deref())
    }

    /// The rights that the requester must hold beside the one to write (rule
    /// 8), for what differs from `old`. Each once, in a stable order.
    pub fn borrowed(&self, new: &Value, old: Option<&Value>) -> Vec<BorrowedRight> {
        let mut rights = (self.behaviour.borrowed)(new, old);
        let mut seen = HashSet::with_capacity(rights.len());
        rights.retain(|right| {
            seen.insert(BorrowedRight {
                field: String::new(),
                ..right.clone()
            })
        });
        rights
    }

    /// What is wrong with the number of rights that an object borrows: each is a
    /// question to the cluster. An object that was stored with more can be changed as
    /// long as the number does not grow, and no write asks for more than the limit.
    pub fn borrows_too_much(&self, new: &Value, old: Option<&Value>) -> Option<Error> {
        let asked = self.borrowed(new, old);
        let before = old.map_or(0, |old| self.borrowed(old, None).len());
        let all = match old {
            Some(_) => self.borrowed(new, None),
            None => asked.clone(),
        };
        let grows = !asked.is_empty() && all.len() > before;
        if asked.len() <= MAX_BORROWED && !grows {
            return None;
        }
        let first = all.get(MAX_BORROWED)?;
        let path = Path::new(first.field.clone());
        Some(Error::too_many(&path, all.len(), MAX_BORROWED as u64))
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resource").field(&self.qualified()).finish()
    }
}
