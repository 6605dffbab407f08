//! What an expression made, as JSON.

use serde_json::{Map, Number, Value};

use super::value::{Object, Val};
use super::{Budget, MEMORY, Unusable, time};
use crate::object::weight;

/// Bytes that a map or a list takes at least.
const NODE: usize = 700;
/// Bytes of an entry beside its text.
const ENTRY: usize = 2 * (size_of::<String>() + size_of::<Value>());
/// Larger whole numbers are texts in a patch: not every reader of JSON has more digits.
const SAFE: u64 = (1 << 53) - 1;
/// As many wrong names are told.
const MOST: usize = 20;

/// What it is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A configuration that is merged.
    Configuration,
    /// The value of an operation of a patch.
    Patch,
}

/// Why there is no JSON of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// Objects are in fields that their names are not those of.
    #[error("type mismatch: {0}")]
    Names(String),
    #[error("{0}")]
    Type(String),
    /// It takes too much.
    #[error("{0}")]
    Unusable(#[from] Unusable),
}

/// The fields from the root to what is looked at.
enum Path<'p> {
    Root(&'p str),
    In(&'p Path<'p>, &'p str),
}

impl Path<'_> {
    fn name(&self) -> String {
        match self {
            Self::Root(name) => (*name).to_owned(),
            Self::In(around, field) => format!("{}.{field}", around.name()),
        }
    }

    /// Whether it is the name of a type, without making it.
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Root(root) => *root == name,
            Self::In(around, field) => name
                .strip_suffix(field)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| around.is(rest)),
        }
    }
}

impl Val<'_> {
    /// The same as JSON. The names of an object's objects must be those of the fields that
    /// they are in.
    ///
    /// # Errors
    /// See [`Unwritable`].
    pub fn to_json(&self, form: Form, budget: &Budget) -> Result<Value, Unwritable> {
        let mut writer = Writer {
            form,
            budget,
            wrong: Vec::new(),
        };
        let root = match self {
            Val::Object(object) => Some(Path::Root(&object.name)),
            _ => None,
        };
        let value = writer.value(self, root.as_ref())?;
        match writer.wrong.is_empty() {
            true => Ok(value),
            false => Err(Unwritable::Names(writer.wrong.join("\n"))),
        }
    }
}

struct Writer<'w> {
    form: Form,
    budget: &'w Budget,
    /// What is said of names.
    wrong: Vec<String>,
}

impl Writer<'_> {
    /// Before a map or a list of so many entries is made.
    fn node(&self, entries: usize) -> Result<(), Unusable> {
        self.budget.take(1 + entries as u64)?;
        let bytes = entries.saturating_mul(ENTRY);
        self.budget.allocate(bytes.saturating_add(NODE))
    }

    fn text(&self, text: &str) -> Result<String, Unusable> {
        self.budget.copy(text.len())?;
        Ok(text.to_owned())
    }

    fn value(&mut self, value: &Val<'_>, path: Option<&Path<'_>>) -> Result<Value, Unwritable> {
        self.budget.take(1)?;
        Ok(match value {
            Val::Null => Value::Null,
            Val::Bool(value) => Value::Bool(*value),
            Val::Int(number) => self.whole(Number::from(*number), number.unsigned_abs()),
            Val::Uint(number) => self.whole(Number::from(*number), *number),
            Val::Double(number) => double(*number)?,
            Val::Text(text) => Value::String(self.text(text)?),
            Val::Bytes(bytes) => {
                use base64::Engine;
                self.budget.copy(bytes.len().saturating_mul(2))?;
                Value::String(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            Val::Json(value) => self.copied(value)?,
            Val::Object(object) => self.object(object, path)?,
            Val::Optional(Some(value)) => self.value(value, path)?,
            Val::Optional(None) => {
                return Err(Unwritable::Type("optional.none() dereference".to_owned()));
            }
            Val::Time(time) => Value::String(time.to_string()),
            Val::Duration(duration) => Value::String(time::shown(*duration)),
            list if list.is_list() => {
                self.node(list.length().unwrap_or(0))?;
                let mut items = Vec::new();
                for item in list.listed() {
                    items.push(self.value(&item, path)?);
                }
                Value::Array(items)
            }
            Val::Map(map) => {
                self.node(map.len())?;
                let mut fields = Map::new();
                for (key, value) in map.iter() {
                    let Val::Text(key) = key else {
                        let why = format!("map key {:?} is not a string", key.shown());
                        return Err(Unwritable::Type(why));
                    };
                    let key = self.text(key)?;
                    fields.insert(key, self.value(value, path)?);
                }
                Value::Object(fields)
            }
            other => {
                let why = format!("a value of the type {} has no JSON form", other.type_name());
                return Err(Unwritable::Type(why));
            }
        })
    }

    fn object(
        &mut self,
        object: &Object<'_>,
        path: Option<&Path<'_>>,
    ) -> Result<Value, Unwritable> {
        self.node(object.fields.len())?;
        if let Some(path) = path
            && self.wrong.len() < MOST
            && !path.is(&object.name)
        {
            let expected = path.name();
            self.wrong.push(format!(
                "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
                &*object.name
            ));
        }
        let mut fields = Map::new();
        for (name, value) in &object.fields {
            let key = self.text(name)?;
            let path = path.map(|path| Path::In(path, name));
            fields.insert(key, self.value(value, path.as_ref())?);
        }
        Ok(Value::Object(fields))
    }

    fn copied(&self, value: &Value) -> Result<Value, Unusable> {
        let most = usize::try_from(MEMORY).unwrap_or(usize::MAX);
        // What weighs more than all of it does not fit either.
        let bytes = weight::of(value, most).unwrap_or(usize::MAX);
        self.budget.take(bytes as u64 / 100)?;
        self.budget.allocate(bytes)?;
        Ok(value.clone())
    }

    fn whole(&self, number: Number, size: u64) -> Value {
        match self.form == Form::Patch && size > SAFE {
            true => Value::String(number.to_string()),
            false => Value::Number(number),
        }
    }
}

/// A number with a point where it needs one.
fn double(number: f64) -> Result<Value, Unwritable> {
    if number.fract() == 0.0 && number.abs() <= SAFE as f64 {
        return Ok(Value::from(number as i64));
    }
    let number = Number::from_f64(number).map(Value::Number);
    number.ok_or_else(|| Unwritable::Type("a number that is infinite or none".to_owned()))
}
