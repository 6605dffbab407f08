//! One policy, and what it says of an object.

use k8s_openapi::api::admissionregistration::v1 as api;

use crate::policy::cel::{self, Budget, Program, Unusable, Val};
use crate::policy::conditions::holds;
use crate::policy::definition::{self, Binding, Definition, NAMES, Said};
use crate::policy::matching::may_concern_us;
use crate::policy::source::Configured;
use crate::policy::values::{Bound, Values};

/// Bytes of a message; of one that an expression makes as of an error, which has the whole
/// expression.
const MESSAGE: usize = 5 * 1024;
/// Bytes of the value of an audit annotation.
const ANNOTATION: usize = 10 * 1024;

/// A policy, as it is evaluated.
#[derive(Debug)]
pub struct Policy {
    pub(super) definition: Definition,
    validations: Vec<Validation>,
    annotations: Vec<(String, Program)>,
}

impl AsRef<Definition> for Policy {
    fn as_ref(&self) -> &Definition {
        &self.definition
    }
}

#[derive(Debug)]
struct Validation {
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: String,
}

/// What one validation says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Which one it is.
    pub(super) index: usize,
    pub(super) message: String,
    pub(super) reason: String,
}

/// What a policy says with one parameter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) refusals: Vec<Decision>,
    pub(super) annotations: Vec<(String, String)>,
    /// Errors of annotations, which refuse whatever the actions are.
    pub(super) broken: Vec<String>,
}

impl Policy {
    /// Of what the cluster has.
    pub fn read(policy: api::ValidatingAdmissionPolicy) -> Self {
        let spec = policy.spec.unwrap_or_default();
        let mut definition = Definition::new(Said {
            name: policy.metadata.name,
            constraints: spec.match_constraints,
            conditions: spec.match_conditions,
            variables: spec.variables,
            failure_policy: spec.failure_policy,
            param_kind: spec.param_kind,
        });
        let validations = spec.validations.unwrap_or_default().into_iter();
        let validations = validations.map(|validation| Validation {
            program: definition.compile(&validation.expression, &NAMES),
            message: validation.message.unwrap_or_default(),
            message_program: validation
                .message_expression
                .map(|source| definition.compile_message(&source)),
            reason: validation.reason.unwrap_or_default(),
        });
        let validations = validations.collect();
        let annotations = spec.audit_annotations.unwrap_or_default().into_iter();
        let annotations = annotations.map(|annotation| {
            let program = definition.compile(&annotation.value_expression, &NAMES);
            (annotation.key, program)
        });
        let annotations = annotations.collect();
        Self {
            definition,
            validations,
            annotations,
        }
    }

    /// What it says of a request with one parameter.
    pub(super) fn decide(&self, values: &Values<'_>) -> Decided {
        let ignores_failures = self.definition.ignores_failures;
        let failed = |message: String| Decided {
            refusals: match ignores_failures {
                true => Vec::new(),
                false => vec![Decision {
                    index: 0,
                    message,
                    reason: String::new(),
                }],
            },
            ..Decided::default()
        };
        let budget = Budget::new(cel::POLICY).ending(values.until);
        let bound = Bound::new(&self.definition.variables, values);
        // What says something asks nobody, and has variables of its own.
        let of_texts = values.of_texts();
        let saying = Bound::new(&self.definition.variables, &of_texts);
        // Conditions have their own budget.
        let without_namespace = values.of_conditions();
        let variables = &self.definition.variables;
        let of_conditions = Bound::new(variables, &without_namespace);
        match holds(&self.definition.conditions, &of_conditions, values.until) {
            Ok(true) => {}
            Ok(false) => return Decided::default(),
            Err(why) => return failed(why),
        }
        let mut decided = Decided::default();
        for (index, validation) in self.validations.iter().enumerate() {
            let message = match validation.program.evaluate(&bound, &budget) {
                Ok(Val::Bool(true)) => continue,
                Err(why @ Unusable::OutOfBudget) => return failed(why.to_string()),
                Err(_) if ignores_failures => continue,
                Err(why) => Err(why.to_string()),
                Ok(_) => Ok(validation.message(&saying, &budget)),
            };
            let reason = match message {
                Ok(_) => validation.reason.clone(),
                // An error has none.
                Err(_) => String::new(),
            };
            let (Ok(message) | Err(message)) = message;
            let message = apiservice::told::cut(message, MESSAGE);
            decided.refusals.push(Decision {
                index,
                message,
                reason,
            });
        }
        budget.again(cel::POLICY);
        for (key, program) in &self.annotations {
            match program.evaluate(&saying, &budget) {
                Ok(Val::Text(text)) if text.trim().is_empty() => {}
                Ok(Val::Text(text)) => {
                    let text = apiservice::told::cut(text.trim().to_owned(), ANNOTATION);
                    decided.annotations.push((key.clone(), text));
                }
                Ok(Val::Null) => {}
                Ok(other) => decided.broken.push(apiservice::told::cut(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    program.source(),
                    other.type_name()
                ), MESSAGE)),
                Err(_) if ignores_failures => {}
                Err(why) => decided.broken.push(apiservice::told::cut(why.to_string(), MESSAGE)),
            }
        }
        decided
    }
}

impl Validation {
    fn message(&self, bound: &Bound<'_, '_>, budget: &Budget) -> String {
        let made = self.message_program.as_ref();
        let made = made.map(|program| program.evaluate(bound, budget));
        if let Some(Ok(Val::Text(text))) = made {
            let text = text.trim();
            if !text.is_empty() && text.len() <= MESSAGE && !text.contains('\n') {
                return text.to_owned();
            }
        }
        match self.message.trim() {
            "" => format!("failed expression: {}", self.program.source().trim()),
            message => message.to_owned(),
        }
    }
}

impl Configured for api::ValidatingAdmissionPolicy {
    type Kept = Policy;

    fn expressions(&self) -> Option<usize> {
        let Some(spec) = &self.spec else {
            return Some(0);
        };
        let conditions = spec.match_conditions.as_ref();
        let constraints = spec.match_constraints.as_ref();
        let common = definition::expressions(constraints, conditions, spec.variables.as_ref())?;
        let validations = spec.validations.iter().flatten();
        let annotations = spec.audit_annotations.iter().flatten();
        let own = validations
            .map(|one| {
                one.expression.len() + one.message_expression.as_ref().map_or(0, String::len)
            })
            .chain(annotations.map(|one| one.value_expression.len()));
        Some(common + own.sum::<usize>())
    }

    fn read(self) -> Option<Policy> {
        Some(Policy::read(self))
    }
}

impl Configured for api::ValidatingAdmissionPolicyBinding {
    type Kept = Binding;

    fn expressions(&self) -> Option<usize> {
        let matching = self.spec.match_resources.as_ref();
        matching.is_none_or(may_concern_us).then_some(0)
    }

    fn read(self) -> Option<Binding> {
        let spec = self.spec;
        let name = self.metadata.name.unwrap_or_default();
        let mut binding =
            Binding::new(name, spec.policy_name, spec.match_resources, spec.param_ref);
        binding.actions = spec.validation_actions;
        Some(binding)
    }
}
