//! Values: those of the request are borrowed, those of an expression are shared.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::address::Block;
use super::authorizer::Authz;
use super::formats::Format;
use super::quantity::Quantity;
use super::semver::Semver;
use super::url::Url;
use super::{Budget, Evaluated, MAX_NESTED};

/// What is made while it is asked for.
pub type Items<'v, T> = Box<dyn Iterator<Item = T> + 'v>;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Of this expression alone; in the words of the evaluator of Kubernetes.
    #[error("{0}")]
    Error(String),
    /// It could not be read.
    #[error("compilation error: {0}")]
    Uncompiled(String),
    /// Nothing more may be evaluated.
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    OutOfBudget,
    /// A question to the authorizer has no answer yet: it is evaluated again once it has.
    #[error("the authorizer was not asked yet")]
    Unasked,
}

impl Unusable {
    /// Whether nothing around it may go on, whatever it would make of an error.
    pub fn ends_all(&self) -> bool {
        matches!(self, Self::OutOfBudget | Self::Unasked)
    }
}

/// A value.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Arc<[u8]>),
    /// A map or list of the request.
    Json(&'a Value),
    List(Rc<List<'a>>),
    Map(Rc<Map<'a>>),
    Object(Rc<Object<'a>>),
    Optional(Option<Rc<Val<'a>>>),
    Type(&'static str),
    Time(Timestamp),
    Duration(SignedDuration),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(Block),
    Url(Rc<Url>),
    Semver(Rc<Semver>),
    Format(&'static Format),
    Authz(Rc<Authz<'a>>),
    /// What was collected, after one item failed.
    Failed(Rc<str>),
}

/// The type of a whole object that an expression makes; those of what is in it follow after
/// dots.
pub const OBJECT: &str = "Object";
/// The type of an operation of a JSON patch.
pub const JSON_PATCH: &str = "JSONPatch";
/// The type of a message without fields.
pub const EMPTY: &str = "google.protobuf.Empty";

/// What an expression makes of a named type: its fields, each once.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    pub name: Arc<str>,
    pub fields: Vec<(Arc<str>, Val<'a>)>,
    depth: usize,
}

impl<'a> Object<'a> {
    /// A field that is set.
    pub fn field(&self, name: &str) -> Option<&Val<'a>> {
        let found = self.fields.iter().find(|(known, _)| &**known == name);
        found.map(|(_, value)| value)
    }
}

/// Items, and how many levels of values they are.
#[derive(Clone, Debug)]
pub struct List<'a> {
    items: Vec<Val<'a>>,
    depth: usize,
}

/// Entries, each key once, and how many levels of values they are.
#[derive(Clone, Debug)]
pub struct Map<'a> {
    entries: Vec<(Val<'a>, Val<'a>)>,
    places: HashMap<Key<'a>, usize>,
    depth: usize,
}

/// A key of a map. Numbers that are equal are one key, whatever their types are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Text(Text<'a>),
    Bool(bool),
    Whole(i128),
}

impl<'a> Key<'a> {
    /// Of a value; nothing for one that no key is equal to.
    fn new(value: &Val<'a>) -> Option<Self> {
        Some(match value {
            Val::Text(text) => Self::Text(text.clone()),
            Val::Bool(value) => Self::Bool(*value),
            Val::Int(number) => Self::Whole(i128::from(*number)),
            Val::Uint(number) => Self::Whole(i128::from(*number)),
            Val::Double(number) if number.fract() == 0.0 => Self::Whole(*number as i128),
            _ => return None,
        })
    }
}

impl<'a> Map<'a> {
    fn find(&self, key: &Key<'_>) -> Option<Val<'a>> {
        let places: &HashMap<Key<'_>, usize> = &self.places;
        let place = places.get(key)?;
        self.entries.get(*place).map(|(_, value)| value.clone())
    }
}

impl<'a> List<'a> {
    /// Adds items.
    ///
    /// # Errors
    /// For items that make it too deep; then it has only those before them.
    pub fn extend(&mut self, items: Vec<Val<'a>>) -> Result<(), Unusable> {
        for item in items {
            self.depth = self.depth.max(around(item.depth())?);
            self.items.push(item);
        }
        Ok(())
    }
}

impl<'a> std::ops::Deref for List<'a> {
    type Target = Vec<Val<'a>>;

    fn deref(&self) -> &Vec<Val<'a>> {
        &self.items
    }
}

impl<'a> std::ops::Deref for Map<'a> {
    type Target = Vec<(Val<'a>, Val<'a>)>;

    fn deref(&self) -> &Vec<(Val<'a>, Val<'a>)> {
        &self.entries
    }
}

/// Levels of what holds a value with so many.
fn around(depth: usize) -> Result<usize, Unusable> {
    match depth < MAX_NESTED {
        true => Ok(depth + 1),
        false => Err(Unusable::Error("the value is nested too deep".to_owned())),
    }
}

/// A text.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self::Borrowed("")
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        str::hash(self, hasher);
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, out)
    }
}

/// What a call says that there is not for these values.
pub fn overload() -> Unusable {
    Unusable::Error("no such overload".to_owned())
}

/// The same as a result.
pub fn no_overload<'a>() -> Evaluated<'a> {
    Err(overload())
}

/// The type that a name stands for.
pub fn type_of_name<'a>(name: &str) -> Option<Val<'a>> {
    const TYPES: [&str; 16] = [
        "bool",
        "bytes",
        "double",
        "google.protobuf.Duration",
        "google.protobuf.Timestamp",
        "int",
        "kubernetes.Quantity",
        "list",
        "map",
        "net.CIDR",
        "net.IP",
        "null_type",
        "optional_type",
        "string",
        "type",
        "uint",
    ];
    let found = TYPES.iter().find(|known| **known == name);
    found.map(|name| Val::Type(name))
}

impl<'a> From<&'a Value> for Val<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Val::Null,
            Value::Bool(value) => Val::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Val::Int(number),
                (None, Some(number)) => Val::Uint(number),
                (None, None) => Val::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Val::Text(Text::Borrowed(text)),
            Value::Array(_) | Value::Object(_) => Val::Json(value),
        }
    }
}

impl<'a> Val<'a> {
    /// A text of its own.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Val::Text(Text::Shared(text.into()))
    }

    /// A list.
    ///
    /// # Errors
    /// For one that is nested too deep.
    pub fn list(items: Vec<Val<'a>>) -> Evaluated<'a> {
        let depths = items.iter().map(Val::depth);
        let depth = around(depths.max().unwrap_or(0))?;
        Ok(Val::List(Rc::new(List { items, depth })))
    }

    /// An optional that holds something.
    ///
    /// # Errors
    /// The same.
    pub fn some(value: Val<'a>) -> Evaluated<'a> {
        around(value.depth())?;
        Ok(Val::Optional(Some(Rc::new(value))))
    }

    /// Levels of values in one another that an expression made.
    fn depth(&self) -> usize {
        match self {
            Val::List(list) => list.depth,
            Val::Map(map) => map.depth,
            Val::Object(object) => object.depth,
            // No more of them than there are levels.
            Val::Optional(Some(inner)) => 1 + inner.depth(),
            _ => 0,
        }
    }

    /// An object of a named type, whose fields are each there once.
    ///
    /// # Errors
    /// For one that is nested too deep, and for an operation of a patch whose texts are none.
    pub fn object(name: Arc<str>, fields: Vec<(Arc<str>, Val<'a>)>) -> Evaluated<'a> {
        if &*name == JSON_PATCH {
            let mut texts = fields.iter().filter(|(field, _)| &**field != "value");
            if let Some((field, _)) = texts.find(|(_, value)| !matches!(value, Val::Text(_))) {
                return super::error(format!("unexpected type for JSONPatchType '{field}' field"));
            }
        }
        let depths = fields.iter().map(|(_, value)| value.depth());
        let depth = around(depths.max().unwrap_or(0))?;
        Ok(Val::Object(Rc::new(Object {
            name,
            fields,
            depth,
        })))
    }

    /// A map.
    ///
    /// # Errors
    /// For keys that are none, or given twice; for one that takes too much.
    pub fn map(entries: Vec<(Val<'a>, Val<'a>)>, budget: &Budget) -> Evaluated<'a> {
        // A table is at most half empty.
        let place = size_of::<(Key<'a>, usize)>();
        budget.allocate(entries.len().saturating_mul(2 * place))?;
        let mut places = HashMap::with_capacity(entries.len());
        let mut depth = 0;
        for (at, (key, value)) in entries.iter().enumerate() {
            budget.take(1)?;
            if let Val::Text(text) = key {
                budget.look(text.len())?;
            }
            depth = depth.max(value.depth());
            let known = match (key, Key::new(key)) {
                (Val::Double(_), _) | (_, None) => {
                    return Err(Unusable::Error("unsupported key type".to_owned()));
                }
                (_, Some(key)) => places.insert(key, at),
            };
            if known.is_some() {
                return super::error(format!("Failed with repeated key: {}", key.shown()));
            }
        }
        let depth = around(depth)?;
        Ok(Val::Map(Rc::new(Map {
            entries,
            places,
            depth,
        })))
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::Text(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::Json(Value::Array(_)) | Val::List(_) => "list",
            Val::Json(_) | Val::Map(_) => "map",
            Val::Object(object) if &*object.name == JSON_PATCH => JSON_PATCH,
            Val::Object(object) if &*object.name == EMPTY => EMPTY,
            Val::Object(_) => OBJECT,
            Val::Optional(_) => "optional_type",
            Val::Type(_) => "type",
            Val::Time(_) => "google.protobuf.Timestamp",
            Val::Duration(_) => "google.protobuf.Duration",
            Val::Quantity(_) => "kubernetes.Quantity",
            Val::Ip(_) => "net.IP",
            Val::Cidr(_) => "net.CIDR",
            Val::Url(_) => "kubernetes.URL",
            Val::Semver(_) => "kubernetes.Semver",
            Val::Format(_) => "kubernetes.NamedFormat",
            Val::Authz(authz) => authz.type_name(),
            Val::Failed(_) => "error",
        }
    }

    /// What an optional holds.
    ///
    /// # Errors
    /// For what is no optional.
    pub fn optional(self) -> Result<Option<Val<'a>>, Unusable> {
        match self {
            Val::Optional(value) => Ok(value.map(|value| value.as_ref().clone())),
            _ => Err(overload()),
        }
    }

    /// A field of a map, or of an optional map.
    pub fn field(&self, name: &str) -> Evaluated<'a> {
        match self {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => {
                let found = inner.get_text(name)?;
                Ok(Val::Optional(found.map(Rc::new)))
            }
            Val::Authz(authz) => authz.field(name),
            _ => self
                .get_text(name)?
                .ok_or_else(|| Unusable::Error(format!("no such key: {name}"))),
        }
    }

    /// Whether a map has a field.
    ///
    /// # Errors
    /// For what is no map.
    pub fn has(&self, name: &str) -> Result<bool, Unusable> {
        match self {
            Val::Optional(None) => Ok(false),
            Val::Optional(Some(inner)) => inner.has(name),
            _ => Ok(self.get_text(name)?.is_some()),
        }
    }

    fn get_text(&self, name: &str) -> Result<Option<Val<'a>>, Unusable> {
        match self {
            Val::Json(Value::Object(map)) => Ok(map.get(name).map(Val::from)),
            Val::Map(map) => Ok(map.find(&Key::Text(Text::Borrowed(name)))),
            Val::Failed(_) | Val::Authz(_) => Err(overload()),
            // Of these the parts of a patch only can be looked at.
            Val::Object(object) => match &*object.name {
                JSON_PATCH => Ok(object.field(name).cloned()),
                _ => Err(overload()),
            },
            // As by the evaluator of Kubernetes: what has no fields lacks this one.
            _ => Ok(None),
        }
    }

    /// What stands at an index or a key.
    ///
    /// # Errors
    /// For what has neither.
    pub fn get(&self, key: &Val<'a>) -> Result<Option<Val<'a>>, Unusable> {
        match (self, key) {
            (Val::Json(Value::Object(_)), Val::Text(name)) => self.get_text(name),
            (Val::Json(Value::Object(_)), _) => Ok(None),
            (Val::Map(map), key) => Ok(Key::new(key).and_then(|key| map.find(&key))),
            (Val::Json(Value::Array(list)), key) => {
                let at = key.index().ok_or_else(overload)?;
                Ok(at.and_then(|at| list.get(at)).map(Val::from))
            }
            (Val::List(list), key) => {
                let at = key.index().ok_or_else(overload)?;
                Ok(at.and_then(|at| list.get(at)).cloned())
            }
            _ => Err(overload()),
        }
    }

    /// A number as a place in a list; nothing inside for one that is in none.
    fn index(&self) -> Option<Option<usize>> {
        match self {
            Val::Int(at) => Some(usize::try_from(*at).ok()),
            Val::Uint(at) => Some(usize::try_from(*at).ok()),
            Val::Double(at) if at.fract() == 0.0 => {
                Some((*at >= 0.0 && *at < 1e9).then_some(*at as usize))
            }
            _ => None,
        }
    }

    /// How many items, entries, characters or bytes; nothing for what has none.
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Val::Text(text) => text.chars().count(),
            Val::Bytes(bytes) => bytes.len(),
            Val::Json(Value::Array(list)) => list.len(),
            Val::Json(Value::Object(map)) => map.len(),
            Val::List(list) => list.len(),
            Val::Map(map) => map.len(),
            _ => return None,
        })
    }

    /// How many items a list has, or entries a map; nothing for what is neither.
    pub fn length(&self) -> Option<usize> {
        match self {
            Val::Text(_) | Val::Bytes(_) => None,
            other => other.size(),
        }
    }

    /// What stands at a place of a list.
    pub fn at(&self, place: usize) -> Option<Val<'a>> {
        match self {
            Val::Json(Value::Array(list)) => list.get(place).map(Val::from),
            Val::List(list) => list.get(place).cloned(),
            _ => None,
        }
    }

    /// The items of a list, or the keys of a map, one by one.
    pub fn items(&self) -> Option<Items<'_, Val<'a>>> {
        let text = |key: &'a String| Val::Text(Text::Borrowed(key));
        Some(match self {
            Val::Json(Value::Array(list)) => Box::new(list.iter().map(Val::from)),
            Val::Json(Value::Object(map)) => Box::new(map.keys().map(text)),
            Val::List(list) => Box::new(list.iter().cloned()),
            Val::Map(map) => Box::new(map.iter().map(|(key, _)| key.clone())),
            _ => return None,
        })
    }

    /// The same of a list; none of what is no list.
    pub fn listed(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        let items = self.is_list().then(|| self.items()).flatten();
        items.into_iter().flatten()
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self, Val::List(_) | Val::Json(Value::Array(_)))
    }

    /// Keys and values of a map, or positions and items of a list, one by one.
    pub fn pairs(&self) -> Option<Items<'_, (Val<'a>, Val<'a>)>> {
        if self.is_list() {
            let items = self.items()?.enumerate();
            return Some(Box::new(
                items.map(|(at, item)| (Val::Int(at as i64), item)),
            ));
        }
        Some(match self {
            Val::Json(Value::Object(map)) => {
                let pair = |(key, value): (&'a String, &'a Value)| {
                    (Val::Text(Text::Borrowed(key)), Val::from(value))
                };
                Box::new(map.iter().map(pair))
            }
            Val::Map(map) => Box::new(map.iter().cloned()),
            _ => return None,
        })
    }

    /// Equality of keys and other small values.
    fn same(&self, other: &Val<'a>) -> bool {
        match (self, other) {
            (Val::Text(a), Val::Text(b)) => **a == **b,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            _ => self.number_order(other) == Some(Ordering::Equal),
        }
    }

    /// How two numbers of any type stand to each other.
    fn number_order(&self, other: &Val<'a>) -> Option<Ordering> {
        let whole = |value: &Val<'a>| match value {
            Val::Int(number) => Some(i128::from(*number)),
            Val::Uint(number) => Some(i128::from(*number)),
            _ => None,
        };
        if let (Some(a), Some(b)) = (whole(self), whole(other)) {
            return Some(a.cmp(&b));
        }
        match (self, other) {
            (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
            (Val::Double(a), b) => mixed_order(whole(b)?, *a).map(Ordering::reverse),
            (a, Val::Double(b)) => mixed_order(whole(a)?, *b),
            _ => None,
        }
    }

    /// Deep equality; values of different types are not equal.
    ///
    /// # Errors
    /// When comparing takes too much.
    pub fn equal(&self, other: &Val<'a>, budget: &Budget) -> Result<bool, Unusable> {
        budget.take(1)?;
        Ok(match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Text(a), Val::Text(b)) => {
                budget.look(a.len().min(b.len()))?;
                **a == **b
            }
            (Val::Bytes(a), Val::Bytes(b)) => {
                budget.look(a.len().min(b.len()))?;
                a == b
            }
            (Val::Type(a), Val::Type(b)) => a == b,
            (Val::Time(a), Val::Time(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::Quantity(a), Val::Quantity(b)) => a == b,
            (Val::Ip(a), Val::Ip(b)) => a == b,
            (Val::Cidr(a), Val::Cidr(b)) => a == b,
            (Val::Url(a), Val::Url(b)) => {
                budget.look(a.text().len().min(b.text().len()))?;
                a.text() == b.text()
            }
            (Val::Semver(a), Val::Semver(b)) => {
                budget.look(a.bytes().min(b.bytes()))?;
                a.order(b).is_eq()
            }
            (Val::Format(a), Val::Format(b)) => a.name == b.name,
            (Val::Authz(_), Val::Authz(_)) => return Err(overload()),
            (Val::Optional(None), Val::Optional(None)) => true,
            (Val::Optional(Some(a)), Val::Optional(Some(b))) => a.equal(b, budget)?,
            (Val::Object(a), Val::Object(b)) => {
                if a.name != b.name || a.fields.len() != b.fields.len() {
                    return Ok(false);
                }
                for (name, value) in &a.fields {
                    budget.take(b.fields.len() as u64)?;
                    match b.field(name) {
                        Some(found) if value.equal(found, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ if self.is_list() && other.is_list() => {
                if self.length() != other.length() {
                    return Ok(false);
                }
                for (a, b) in self.listed().zip(other.listed()) {
                    if !a.equal(&b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ if self.is_map() && other.is_map() => {
                if self.length() != other.length() {
                    return Ok(false);
                }
                for (key, value) in self.pairs().into_iter().flatten() {
                    if let Val::Text(key) = &key {
                        budget.look(key.len())?;
                    }
                    match other.get(&key)? {
                        Some(found) if value.equal(&found, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => self.same(other),
        })
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        matches!(self, Val::Map(_) | Val::Json(Value::Object(_)))
    }

    /// Which comes first.
    ///
    /// # Errors
    /// For values that have no order; when comparing takes too much.
    pub fn order(&self, other: &Val<'a>, budget: &Budget) -> Result<Option<Ordering>, Unusable> {
        budget.take(1)?;
        budget.look(self.bytes().min(other.bytes()))?;
        self.order_uncounted(other)
    }

    /// Bytes of a text, or of bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Val::Text(text) => text.len(),
            Val::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// [`Val::order`] for who counted what it takes.
    ///
    /// # Errors
    /// For values that have no order.
    pub fn order_uncounted(&self, other: &Val<'a>) -> Result<Option<Ordering>, Unusable> {
        Ok(Some(match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
            (Val::Text(a), Val::Text(b)) => (**a).cmp(&**b),
            (Val::Bytes(a), Val::Bytes(b)) => a.cmp(b),
            (Val::Time(a), Val::Time(b)) => a.cmp(b),
            (Val::Duration(a), Val::Duration(b)) => a.cmp(b),
            _ => {
                let is_number =
                    |value: &Val<'a>| matches!(value, Val::Int(_) | Val::Uint(_) | Val::Double(_));
                if !is_number(self) || !is_number(other) {
                    return Err(overload());
                }
                return Ok(self.number_order(other));
            }
        }))
    }

    /// As a person reads it, for messages.
    pub fn shown(&self) -> String {
        match self {
            Val::Text(text) => text.to_string(),
            Val::Null => "null".to_owned(),
            Val::Bool(value) => value.to_string(),
            Val::Int(value) => value.to_string(),
            Val::Uint(value) => value.to_string(),
            Val::Double(value) => super::strings::double(*value),
            other => other.type_name().to_owned(),
        }
    }
}

/// How a whole number stands to another, exactly: rounding it would make three of them
/// stand in no order.
fn mixed_order(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Larger than all whole numbers that there are, which a cast keeps.
    let order = whole.cmp(&(double.trunc() as i128));
    let part = 0.0.partial_cmp(&(double - double.trunc()));
    Some(order.then(part.unwrap_or(Ordering::Equal)))
}
