//! What expressions of a policy are evaluated with.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::attributes::Attributes;
use super::cel::{Answer, Budget, Question, Resolve, Unusable, Val};
use super::definition::{Definition, Variables};
use super::questions::Questions;
use crate::namespaces::{Namespaces, Unlabelled};
use crate::status::Failure;

/// What they are about.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    pub object: &'a Value,
    pub old: &'a Value,
    pub request: &'a Value,
    pub params: &'a Value,
    pub namespace: &'a Value,
    /// What is asked about the user of the request; expressions that may not ask have none.
    pub questions: Option<&'a Questions<'a>>,
    /// When evaluating has to end.
    pub until: std::time::Instant,
}

impl<'a> Values<'a> {
    /// The same of another object.
    pub fn of<'b>(&self, object: &'b Value) -> Values<'b>
    where
        'a: 'b,
    {
        let values: Values<'b> = *self;
        Values { object, ..values }
    }
}

impl Values<'_> {
    /// The same for conditions, which see no namespace, as by Kubernetes.
    pub fn of_conditions(&self) -> Self {
        Self {
            namespace: &Value::Null,
            ..*self
        }
    }

    /// The same for expressions that may not ask the authorizer: by Kubernetes those are the
    /// ones that say something, and not the ones that decide.
    pub fn of_texts(&self) -> Self {
        Self {
            questions: None,
            ..*self
        }
    }

    /// The same for an evaluation that has to end by then.
    pub fn ending(&self, until: std::time::Instant) -> Self {
        Self { until, ..*self }
    }
}

/// The same with the policy's own variables, each evaluated when it is first asked for.
pub struct Bound<'p, 'a> {
    variables: &'p Variables,
    values: &'p Values<'a>,
    known: RefCell<BTreeMap<usize, Result<Val<'a>, Unusable>>>,
    /// Which variables are being evaluated: those above them only may they use.
    limit: RefCell<usize>,
}

impl<'p, 'a> Bound<'p, 'a> {
    /// None of the variables is known yet.
    pub fn new(variables: &'p Variables, values: &'p Values<'a>) -> Self {
        Self {
            variables,
            values,
            known: RefCell::default(),
            limit: RefCell::new(variables.all.len()),
        }
    }
}

impl<'a> Resolve<'a> for Bound<'_, 'a> {
    fn resolve(&self, name: &str) -> Option<Result<Val<'a>, Unusable>> {
        let values = self.values;
        let value = match name {
            "object" => values.object,
            "oldObject" => values.old,
            "request" => values.request,
            "params" => values.params,
            "namespaceObject" => values.namespace,
            "authorizer" => {
                let questions = values.questions.map(Questions::variable);
                return Some(questions.ok_or_else(unbound));
            }
            _ => return None,
        };
        Some(Ok(Val::from(value)))
    }

    fn ask(&self, question: Question) -> Result<Arc<Answer>, Unusable> {
        let questions = self.values.questions.ok_or_else(unbound)?;
        questions.answer(question)
    }

    fn variable(&self, name: &str, budget: &Budget) -> Option<Result<Val<'a>, Unusable>> {
        let limit = *self.limit.borrow();
        let index = self.variables.find(name, limit)?;
        if let Some(known) = self.known.borrow().get(&index) {
            return Some(known.clone());
        }
        self.limit.replace(index);
        let value = self.variables.all[index].1.value(self, budget);
        self.limit.replace(limit);
        let value = value.map_err(|why| match why {
            // Cut: each variable that asks for it says the same again, and keeps it.
            Unusable::Error(why) => Unusable::Error(ends(format!(
                "composited variable {name:?} fails to evaluate: {why}"
            ))),
            Unusable::Uncompiled(why) => Unusable::Error(format!(
                "composited variable {name:?} fails to compile: {why}"
            )),
            other @ (Unusable::OutOfBudget | Unusable::Unasked) => other,
        });
        self.known.borrow_mut().insert(index, value.clone());
        Some(value)
    }
}

/// What Kubernetes says where there is no authorizer.
fn unbound() -> Unusable {
    Unusable::Error("no such attribute(s): authorizer".to_owned())
}

/// Without its middle, if it is longer than what is told of one error.
fn ends(why: String) -> String {
    const MOST: usize = apiservice::told::MAX_TEXT / 2;
    if why.len() <= 2 * MOST {
        return why;
    }
    let from = (why.len() - MOST..).find(|at| why.is_char_boundary(*at));
    let end = why[from.unwrap_or(why.len())..].to_owned();
    format!("{}{end}", apiservice::told::cut(why, MOST))
}

/// The namespace of a request, for a policy that looks at it.
///
/// # Errors
/// 500 when the cluster does not say.
pub async fn namespace_of(
    definition: &Definition,
    namespaces: &Namespaces,
    attributes: &Attributes<'_>,
) -> Result<Value, Failure> {
    match attributes.namespace {
        Some(namespace) if definition.looks_at_namespace => {
            namespace_object(namespaces, namespace).await
        }
        _ => Ok(Value::Null),
    }
}

async fn namespace_object(namespaces: &Namespaces, name: &str) -> Result<Value, Failure> {
    let found = match namespaces.get(name).await {
        Ok(found) => found,
        // As in `NamespaceLabels`: what was left in it has to be deletable.
        Err(Unlabelled::Missing) => return Ok(Value::Null),
        Err(Unlabelled::Unknown(why)) => return Err(Failure::Internal(why)),
    };
    let mut namespace = serde_json::to_value(&found).unwrap_or_default();
    if let Some(fields) = namespace.as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "metadata" | "spec" | "status"));
    }
    if let Some(metadata) = namespace["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        metadata.remove("ownerReferences");
    }
    Ok(namespace)
}
