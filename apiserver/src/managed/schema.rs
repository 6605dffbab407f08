//! What can be owned and merged by parts (R5.3): the merge types of a kind, compiled once
//! from its OpenAPI schema.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

/// A type among those of [`Types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(usize);

/// Any value, owned as a whole.
const UNTYPED: TypeId = TypeId(0);
/// Any value whose maps are owned by fields, and its lists as a whole.
const DEDUCED: TypeId = TypeId(1);

/// The merge types of a kind and of all that is in it.
#[derive(Debug)]
pub struct Types {
    all: Vec<Type>,
    root: TypeId,
}

/// What a value of a type may be. Most have one of the three, what has no type all.
#[derive(Clone, Debug, Default)]
pub struct Type {
    pub scalar: Option<Scalar>,
    pub list: Option<List>,
    pub map: Option<Fields>,
}

/// What scalars a type takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Numeric,
    String,
    Boolean,
    /// Any of them.
    Untyped,
}

/// A list.
#[derive(Clone, Debug)]
pub struct List {
    pub items: TypeId,
    pub kind: ListKind,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq)]
pub enum ListKind {
    /// Not at all: the list is owned as a whole.
    Atomic,
    /// By their values.
    Set,
    /// By these fields, each with its default.
    Map(Vec<(String, Option<Value>)>),
}

/// A map or struct.
#[derive(Clone, Debug)]
pub struct Fields {
    /// The declared fields.
    pub declared: BTreeMap<String, TypeId>,
    /// The type of others; without one there must not be any.
    pub others: Option<TypeId>,
    /// It is owned as a whole.
    pub atomic: bool,
    /// Nothing is known of it: what is owned in it is not fitted to a new schema.
    pub deduced: bool,
}

impl Fields {
    /// The type of a field.
    pub fn field(&self, name: &str) -> Option<TypeId> {
        self.declared.get(name).copied().or(self.others)
    }
}

/// Which form of a type a value has: a value that is there decides where a type has
/// several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Map,
    Scalar,
    List,
}

impl Type {
    /// The form that a value makes of a type. Nothing if it has several and the value, null
    /// for one, none of them.
    pub fn form_of(&self, value: &Value) -> Option<Form> {
        let forms = [
            (Form::Map, self.map.is_some()),
            (Form::Scalar, self.scalar.is_some()),
            (Form::List, self.list.is_some()),
        ];
        let mut has = forms.into_iter().filter(|(_, has)| *has);
        if let (Some((only, _)), None) = (has.next(), has.next()) {
            return Some(only);
        }
        let form = match value {
            Value::Null => return None,
            Value::Object(_) => Form::Map,
            Value::Array(_) => Form::List,
            Value::Bool(_) | Value::Number(_) | Value::String(_) => Form::Scalar,
        };
        forms.contains(&(form, true)).then_some(form)
    }

    /// The form that is looked at first.
    pub fn first_form(&self) -> Form {
        match self {
            Self { map: Some(_), .. } => Form::Map,
            Self {
                scalar: Some(_), ..
            } => Form::Scalar,
            _ => Form::List,
        }
    }

    /// As [`Type::form_of`], or the first.
    pub fn form(&self, value: &Value) -> Form {
        self.form_of(value).unwrap_or_else(|| self.first_form())
    }
}

impl Types {
    /// Compiles the schema of a name among `schemas` (`components.schemas`) and all that it
    /// refers to.
    ///
    /// # Errors
    /// For a schema that is not structural; the text says where.
    pub fn compile(schemas: &Map<String, Value>, name: &str) -> Result<Self, String> {
        let mut compiler = Compiler {
            schemas,
            all: vec![untyped(), deduced()],
            named: HashMap::new(),
            atomic: Vec::new(),
        };
        let root = compiler.named(name)?;
        let Compiler {
            mut all, atomic, ..
        } = compiler;
        // Types that are used otherwise than they say: known once all are there.
        for (copy, of, as_atomic) in atomic {
            all[copy.0] = all[of.0].clone();
            let copy = &mut all[copy.0];
            match (&mut copy.map, &mut copy.list) {
                (Some(map), _) => map.atomic = as_atomic,
                (None, Some(list)) if as_atomic => list.kind = ListKind::Atomic,
                _ => return Err(format!("{name}: a scalar cannot have a map type")),
            }
        }
        Ok(Self { all, root })
    }

    /// The type of the object itself.
    pub fn root(&self) -> TypeId {
        self.root
    }

    /// A type.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.all[id.0]
    }
}

/// Any value, in one piece.
fn untyped() -> Type {
    Type {
        scalar: Some(Scalar::Untyped),
        list: Some(List {
            items: UNTYPED,
            kind: ListKind::Atomic,
        }),
        map: Some(Fields {
            declared: BTreeMap::new(),
            others: Some(UNTYPED),
            atomic: true,
            deduced: false,
        }),
    }
}

fn deduced() -> Type {
    Type {
        scalar: Some(Scalar::Untyped),
        list: Some(List {
            items: UNTYPED,
            kind: ListKind::Atomic,
        }),
        map: Some(Fields {
            declared: BTreeMap::new(),
            others: Some(DEDUCED),
            atomic: false,
            deduced: true,
        }),
    }
}

struct Compiler<'a> {
    schemas: &'a Map<String, Value>,
    all: Vec<Type>,
    named: HashMap<String, TypeId>,
    /// New types that are others, and whether they are atomic.
    atomic: Vec<(TypeId, TypeId, bool)>,
}

impl Compiler<'_> {
    fn add(&mut self, new: Type) -> TypeId {
        self.all.push(new);
        TypeId(self.all.len() - 1)
    }

    /// A schema of the document; one that refers to itself is met again here.
    fn named(&mut self, name: &str) -> Result<TypeId, String> {
        if let Some(id) = self.named.get(name) {
            return Ok(*id);
        }
        let schemas = self.schemas;
        let schema = schemas
            .get(name)
            .ok_or_else(|| format!("there is no schema {name}"))?;
        let id = self.add(Type::default());
        self.named.insert(name.to_owned(), id);
        self.all[id.0] = match name.rsplit("io.k8s.apimachinery.pkg.").next() {
            Some("api.resource.Quantity") => Type {
                scalar: Some(Scalar::Untyped),
                ..Type::default()
            },
            Some("runtime.RawExtension") => untyped(),
            _ => self.schema(schema, false, name)?,
        };
        Ok(id)
    }

    /// The type of what stands at a place where a type is used.
    fn used(&mut self, schema: &Value, preserve: bool, place: &str) -> Result<TypeId, String> {
        let Some(name) = referred(schema) else {
            let new = self.schema(schema, preserve, place)?;
            return Ok(self.add(new));
        };
        let id = self.named(name)?;
        match schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
            None => Ok(id),
            Some(kind) => {
                let copy = self.add(Type::default());
                self.atomic.push((copy, id, kind == "atomic"));
                Ok(copy)
            }
        }
    }

    fn schema(&mut self, schema: &Value, preserve: bool, place: &str) -> Result<Type, String> {
        let preserve = preserve || schema["x-kubernetes-preserve-unknown-fields"] == true;
        let of = |scalar| Type {
            scalar: Some(scalar),
            ..Type::default()
        };
        Ok(match schema.get("type").and_then(Value::as_str) {
            None => Type {
                scalar: Some(Scalar::Untyped),
                list: Some(self.list(schema, preserve, place)?),
                map: Some(self.map(schema, preserve, place)?),
            },
            Some("object") => Type {
                map: Some(self.map(schema, preserve, place)?),
                ..Type::default()
            },
            Some("array") => Type {
                list: Some(self.list(schema, preserve, place)?),
                ..Type::default()
            },
            Some("integer" | "number") => of(Scalar::Numeric),
            Some("boolean") => of(Scalar::Boolean),
            Some("string") => match schema.get("format").and_then(Value::as_str) {
                None | Some("" | "byte") => of(Scalar::String),
                Some(_) => of(Scalar::Untyped),
            },
            Some(other) => return Err(format!("{place}: unrecognized type: {other:?}")),
        })
    }

    fn map(&mut self, schema: &Value, preserve: bool, place: &str) -> Result<Fields, String> {
        let mut declared = BTreeMap::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let id = self.used(property, preserve, &format!("{place}.{name}"))?;
            declared.insert(name.clone(), id);
        }
        let (others, deduced) = match schema.get("additionalProperties") {
            None if preserve || declared.is_empty() => (Some(DEDUCED), true),
            None | Some(Value::Bool(false)) => (None, false),
            Some(Value::Bool(true)) => (Some(DEDUCED), true),
            Some(schema) => {
                let id = self.used(schema, preserve, &format!("{place}[*]"))?;
                // Of types without a name, for those with one are told by it.
                let inlined = referred(schema).is_none();
                let untyped = self.all[id.0].scalar == Some(Scalar::Untyped);
                (Some(id), inlined && untyped)
            }
        };
        let atomic = match schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
            None | Some("granular") => false,
            Some("atomic") => true,
            Some(other) => return Err(format!("{place}: unknown map type {other}")),
        };
        Ok(Fields {
            deduced: deduced && declared.is_empty(),
            declared,
            others,
            atomic,
        })
    }

    fn list(&mut self, schema: &Value, preserve: bool, place: &str) -> Result<List, String> {
        let items = match schema.get("items") {
            Some(items) => self.used(items, preserve, &format!("{place}[]"))?,
            None => UNTYPED,
        };
        let text = |keyword: &str| schema.get(keyword).and_then(Value::as_str);
        let kind = match text("x-kubernetes-list-type") {
            Some("atomic") => ListKind::Atomic,
            Some("set") => ListKind::Set,
            Some("map") => {
                let names = schema["x-kubernetes-list-map-keys"].as_array();
                let names = names.ok_or_else(|| format!("{place}: missing map keys"))?;
                self.keys(schema, names.iter().filter_map(Value::as_str))
            }
            Some(other) => return Err(format!("{place}: unknown list type {other}")),
            None => match text("x-kubernetes-patch-strategy") {
                Some("merge" | "merge,retainKeys") => match text("x-kubernetes-patch-merge-key") {
                    Some(key) => self.keys(schema, [key].into_iter()),
                    None => ListKind::Set,
                },
                _ => ListKind::Atomic,
            },
        };
        Ok(List { items, kind })
    }

    fn keys<'b>(&self, schema: &Value, names: impl Iterator<Item = &'b str>) -> ListKind {
        let items = &schema["items"];
        let items = match referred(items) {
            Some(name) => self.schemas.get(name).unwrap_or(items),
            None => items,
        };
        let default = |name: &str| items["properties"][name].get("default").cloned();
        ListKind::Map(names.map(|name| (name.to_owned(), default(name))).collect())
    }
}

/// The name of the schema that a schema refers to.
fn referred(schema: &Value) -> Option<&str> {
    let reference = match (schema.get("$ref"), schema.get("allOf")) {
        (Some(reference), _) => reference,
        (None, Some(Value::Array(all))) if all.len() == 1 => all[0].get("$ref")?,
        _ => return None,
    };
    reference.as_str()?.rsplit('/').next()
}
