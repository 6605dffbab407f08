//! What a mutation makes of an object.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::managed::schema::Types;
use crate::managed::typed::Duplicates;
use crate::merge::{self, Inapplicable};
use crate::object::depth;
use crate::policy::attributes::kind_of;
use crate::policy::cel::{Budget, Form, JSON_PATCH, OBJECT, Object, Program, Unwritable, Val};
use crate::policy::values::Bound;

/// Values that an object and a configuration for it may have together.
const MOST_VALUES: usize = 200_000;
/// Operations that an expression may make.
const MOST_OPERATIONS: usize = 10_000;

/// One mutation of a policy.
#[derive(Debug)]
pub enum Mutation {
    /// An object that is merged as by server-side apply.
    Apply(Program),
    /// A list of operations.
    Json(Program),
}

/// What an expression made.
#[derive(Debug)]
pub enum Patch {
    Apply(Value),
    Json(merge::Patch),
}

/// Group, version and kind.
pub type Kind<'k> = (&'k str, &'k str, &'k str);

impl Mutation {
    /// Evaluates the expression.
    ///
    /// # Errors
    /// In the words of Kubernetes where it has any.
    pub fn patch(&self, bound: &Bound<'_, '_>, budget: &Budget) -> Result<Patch, String> {
        budget.in_time().map_err(|why| why.to_string())?;
        let (Self::Apply(program) | Self::Json(program)) = self;
        let made = program.evaluate(bound, budget);
        let made = made.map_err(|why| why.to_string())?;
        match (self, made) {
            (Self::Apply(_), Val::Object(object)) if *object.name == *OBJECT => {
                let made = Val::Object(object).to_json(Form::Configuration, budget);
                made.map(Patch::Apply).map_err(|why| why.to_string())
            }
            (Self::Apply(_), other) => Err(format!(
                "must evaluate to {OBJECT} but got {}",
                other.type_name()
            )),
            (Self::Json(_), list) if list.is_list() => operations(&list, budget).map(Patch::Json),
            (Self::Json(_), other) => Err(format!(
                "must evaluate to list({JSON_PATCH}) but got {}",
                other.type_name()
            )),
        }
    }
}

fn operations(list: &Val<'_>, budget: &Budget) -> Result<merge::Patch, String> {
    let length = list.length().unwrap_or(0);
    if length > MOST_OPERATIONS {
        return Err(format!(
            "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {length}"
        ));
    }
    let mut all = Vec::with_capacity(length);
    for item in list.listed() {
        all.push(operation(&item, budget)?);
    }
    Ok(merge::Patch::Json(all))
}

fn operation(item: &Val<'_>, budget: &Budget) -> Result<merge::Operation, String> {
    let Val::Object(object) = item else {
        return Err(format!(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {}",
            item.type_name()
        ));
    };
    let text = |name: &str| text(object, name, budget);
    let value = object.field("value");
    let value = value.map(|value| value.to_json(Form::Patch, budget));
    let value = value.transpose().map_err(|why| match why {
        Unwritable::Names(_) => why.to_string(),
        why => format!(
            "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {why}"
        ),
    })?;
    let from = Some(text("from")?).filter(|from| !from.is_empty());
    let made = merge::Operation::new(&text("op")?, text("path")?, from, value);
    made.map_err(|why| format!("JSON Patch: {why}"))
}

/// Expressions share their texts: many operations may have a long one.
fn text(object: &Object<'_>, name: &str, budget: &Budget) -> Result<String, String> {
    let Some(Val::Text(text)) = object.field(name) else {
        return Ok(String::new());
    };
    let text: &str = text;
    budget.copy(text.len()).map_err(|why| why.to_string())?;
    Ok(text.to_owned())
}

impl Patch {
    /// The object with what it says; nothing if it says nothing.
    ///
    /// # Errors
    /// Why it does not apply.
    pub fn apply(self, object: &Value, kind: Kind<'_>) -> Result<Option<Value>, String> {
        match self {
            Self::Json(patch) if patch.is_empty() => Ok(None),
            Self::Json(patch) => {
                let mut made = object.clone();
                match patch.apply(&mut made) {
                    Ok(()) => Ok(Some(made)),
                    // What is not as it was tested stays as it is.
                    Err(Inapplicable::Untrue(_)) => Ok(None),
                    Err(why) => Err(format!("JSON Patch: {why}")),
                }
            }
            Self::Apply(config) => {
                let made = merged(object, config, kind);
                made.map(Some)
                    .map_err(|why| format!("error applying patch: {why}"))
            }
        }
    }
}

/// How our kinds are merged, compiled once from what we publish. A Scale is not: nor does
/// Kubernetes know how.
static ALL: LazyLock<HashMap<Kind<'static>, Types>> = LazyLock::new(|| {
    let document = apiservice::openapi::v3_group_version();
    let none = Map::new();
    let schemas = document["components"]["schemas"].as_object();
    let schemas = schemas.unwrap_or(&none);
    let is = |schema: &Value, (group, version, kind): Kind<'_>| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        let mut kinds = kinds.into_iter().flatten();
        kinds.any(|known| {
            known["group"] == group && known["version"] == version && known["kind"] == kind
        })
    };
    let resources = apiservice::RESOURCES.iter().copied();
    let kinds = resources.flat_map(|resource| {
        let parts = resource.subresources.iter().map(|part| part.name());
        let all = std::iter::once("").chain(parts);
        all.map(|part| kind_of(resource, part))
    });
    let kinds = kinds.filter(|(group, ..)| *group == apiservice::GROUP);
    let compiled = kinds.filter_map(|kind| {
        let (name, _) = schemas.iter().find(|(_, schema)| is(schema, kind))?;
        Some((kind, Types::compile(schemas, name).ok()?))
    });
    compiled.collect()
});

/// Compiles what the first policy would else wait for.
pub fn prepare() {
    LazyLock::force(&ALL);
}

/// Whether objects of a kind can be merged.
#[cfg(test)]
pub fn is_known(kind: Kind<'_>) -> bool {
    ALL.contains_key(&kind)
}

fn merged(object: &Value, mut config: Value, kind: Kind<'_>) -> Result<Value, String> {
    let (group, version, name) = kind;
    let types = ALL.get(&kind);
    let types =
        types.ok_or_else(|| {
            format!("failed to convert patch object to typed object: no corresponding type for {group}/{version}, Kind={name}")
        })?;
    if let Some(fields) = config.as_object_mut() {
        for name in ["apiVersion", "kind"] {
            fields.insert(name.to_owned(), object[name].clone());
        }
    }
    if depth::exceeds(&config, depth::MAX_DEPTH) {
        return Err(depth::message());
    }
    let mut values = 0;
    for document in [&config, object] {
        depth::walk(document, depth::MAX_DEPTH, &mut |_| values += 1);
    }
    if values > MOST_VALUES {
        return Err("the object or the configuration has too many values".to_owned());
    }
    let typed = types.validate(&config, Duplicates::Refused);
    typed.map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let atomics = types.atomics(&config);
    if !atomics.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomics.join(", ")
        ));
    }
    let typed = types.validate(object, Duplicates::Allowed);
    typed.map_err(|why| format!("failed to convert original object to typed object: {why}"))?;
    Ok(types.merge(object, &config))
}
