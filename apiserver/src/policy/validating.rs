//! ValidatingAdmissionPolicies and their bindings (R7.16, R7.17).
//!
//! # Flow
//! A policy that is about a request is evaluated once for each binding that is, and for
//! each of its parameters. What was asked of the cluster for it (parameters, the namespace)
//! is asked before, and what its expressions ask the authorizer between two evaluations; the
//! evaluation itself waits for nothing, and keeps no other request from the worker that it
//! runs on.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1 as api;
use serde::Serialize;
use serde_json::Value;

use super::attributes::Attributes;
use super::cel::{self, Budget, Program, Unusable, Val};
use super::definition::{
    self, Binding, Definition, Misconfigured, NAMES, PolicySet, Said, in_force,
};
use super::labels::NamespaceLabels;
use super::matching::{Asked, may_concern_us};
use super::questions::{Questions, evaluate};
use super::source::{Configured, NotReady};
use super::values::{Bound, Values, namespace_of};
use super::webhooks::{Objects, holds};
use crate::namespaces::Namespaces;
use crate::status::Failure;

/// Bytes of a message that an expression makes.
const MESSAGE: usize = 5 * 1024;
/// Bytes of the value of an audit annotation.
const ANNOTATION: usize = 10 * 1024;
const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// A policy, as it is evaluated.
#[derive(Debug)]
pub struct Policy {
    definition: Definition,
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
struct Decision {
    /// Which one it is.
    index: usize,
    message: String,
    reason: String,
}

/// What a policy says with one parameter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decided {
    refusals: Vec<Decision>,
    annotations: Vec<(String, String)>,
    /// Errors of annotations, which refuse whatever the actions are.
    broken: Vec<String>,
}

/// A refusal, and whose it is.
struct Refusal {
    policy: Arc<Policy>,
    binding: Option<Arc<Binding>>,
    message: String,
    reason: String,
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
    fn decide(&self, values: &Values<'_>) -> Decided {
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
                Ok(other) => decided.broken.push(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    program.source(),
                    other.type_name()
                )),
                Err(_) if ignores_failures => {}
                Err(why) => decided.broken.push(why.to_string()),
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

impl PolicySet<Policy> {
    /// Asks all of them.
    ///
    /// # Errors
    /// That of the first that refuses.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        namespaces: &Namespaces,
        labels: &NamespaceLabels<'_>,
        objects: Objects<'_>,
        questions: &Questions<'_>,
    ) -> Result<(), Failure> {
        let unknown = |why: NotReady| attributes.refused(&why.to_string());
        let Some((policies, bindings)) = self.about(attributes).await.map_err(unknown)? else {
            return Ok(());
        };
        let asked = Asked {
            attributes,
            labels,
            objects,
        };
        let request = Value::Object(attributes.to_request(""));
        let mut refusals = Vec::new();
        for policy in policies.values() {
            attributes.in_time()?;
            let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for binding in in_force(&policy.definition, &bindings, &asked).await {
                let binding = match binding {
                    Ok(binding) => binding,
                    Err(why) => {
                        misconfigured(&mut refusals, policy, &why);
                        continue;
                    }
                };
                let params = self.params.collect(
                    policy.definition.param_kind.as_ref(),
                    binding.params.as_ref(),
                    attributes.namespace,
                    attributes.caller(),
                );
                let params = params.await;
                attributes.in_time()?;
                let params = match params {
                    Ok(params) => params,
                    Err(why) => {
                        let why = Misconfigured::binding(&binding, &why);
                        misconfigured(&mut refusals, policy, &why);
                        continue;
                    }
                };
                let namespace = namespace_of(&policy.definition, namespaces, attributes).await?;
                for params in params.all() {
                    let null = Value::Null;
                    let values = Values {
                        object: objects.new.unwrap_or(&null),
                        old: objects.old.unwrap_or(&null),
                        request: &request,
                        params,
                        namespace: &namespace,
                        questions: Some(questions),
                        until: attributes.deadline.into_std(),
                    };
                    let decide = |until| policy.decide(&values.ending(until));
                    let decided = evaluate(questions, decide).await?;
                    act(
                        attributes,
                        policy,
                        &binding,
                        decided,
                        &mut refusals,
                        &mut annotations,
                    );
                    // Between two that may take a while, others have their turn.
                    tokio::task::yield_now().await;
                }
            }
            for (key, values) in annotations {
                let values = values.join(", ");
                let name = &policy.definition.name;
                attributes.annotations.add_of(name, &key, values);
            }
        }
        match refusals.into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(denied(attributes, &refusal)),
        }
    }
}

/// The annotation about a refusal, in Kubernetes' order: whoever searches logs for its text
/// finds those of both.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Noted<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [String],
}

/// What a binding makes of what was decided.
fn act(
    attributes: &Attributes<'_>,
    policy: &Arc<Policy>,
    binding: &Arc<Binding>,
    decided: Decided,
    refusals: &mut Vec<Refusal>,
    annotations: &mut BTreeMap<String, Vec<String>>,
) {
    for decision in decided.refusals {
        if binding.does("Warn") {
            attributes.warnings.add(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.definition.name, binding.name, decision.message
            ));
        }
        if binding.does("Audit") {
            let failure = [Noted {
                message: &decision.message,
                policy: &policy.definition.name,
                binding: &binding.name,
                expression_index: decision.index,
                validation_actions: &binding.actions,
            }];
            // Texts and numbers always serialize.
            let failure = serde_json::to_string(&failure).unwrap_or_default();
            attributes.annotations.add(FAILURE, failure);
        }
        if binding.does("Deny") {
            refusals.push(Refusal {
                policy: policy.clone(),
                binding: Some(binding.clone()),
                message: decision.message,
                reason: decision.reason,
            });
        }
    }
    for message in decided.broken {
        refusals.push(Refusal {
            policy: policy.clone(),
            binding: Some(binding.clone()),
            message,
            reason: String::new(),
        });
    }
    for (key, value) in decided.annotations {
        let values = annotations.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }
}

/// A policy that cannot be evaluated refuses, unless it says otherwise.
fn misconfigured(refusals: &mut Vec<Refusal>, policy: &Arc<Policy>, why: &Misconfigured) {
    if !policy.definition.ignores_failures {
        refusals.push(Refusal {
            policy: policy.clone(),
            binding: why.binding.clone(),
            message: why.message(),
            reason: String::new(),
        });
    }
}

/// The answer to a request that a policy refused.
fn denied(attributes: &Attributes<'_>, refusal: &Refusal) -> Failure {
    let Refusal {
        policy,
        binding,
        message,
        reason,
    } = refusal;
    let bound = match binding {
        Some(binding) => format!(" with binding '{}'", binding.name),
        None => String::new(),
    };
    let why = format!(
        "ValidatingAdmissionPolicy '{}'{bound} denied request: {message}",
        policy.definition.name
    );
    let reason = match reason.as_str() {
        "" => "Invalid",
        reason => reason,
    };
    let code = match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let message = attributes.refused(&why).to_string();
    definition::denied(attributes, (reason, code), message, &[why])
}

#[cfg(test)]
mod tests;
