//! ValidatingAdmissionPolicies and their bindings (R7.16, R7.17).
//!
//! # Flow
//! A policy that is about a request is evaluated once for each binding that is, and for
//! each of its parameters. What was asked of the cluster for it (parameters, the namespace)
//! is asked before, and what its expressions ask the authorizer between two evaluations; the
//! evaluation itself waits for nothing, and keeps no other request from the worker that it
//! runs on.

mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use self::policy::Decided;
pub use self::policy::Policy;
use super::asked::{Asked, Objects};
use super::attributes::Attributes;
use super::definition::{self, Binding, Misconfigured, PolicySet, in_force};
use super::labels::NamespaceLabels;
use super::questions::{Questions, evaluate};
use super::source::NotReady;
use super::values::{Values, namespace_of};
use crate::namespaces::Namespaces;
use crate::status::Failure;

const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Bytes of the values of one audit annotation, from which on there are no more.
const VALUES: usize = 10 * 1024;

/// A refusal, and whose it is.
struct Refusal {
    policy: Arc<Policy>,
    binding: Option<Arc<Binding>>,
    message: String,
    reason: String,
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
        let mut first = None;
        for policy in policies.values() {
            attributes.in_time()?;
            let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for binding in in_force(&policy.definition, &bindings, &asked).await {
                let binding = match binding {
                    Ok(binding) => binding,
                    Err(why) => {
                        misconfigured(&mut first, policy, &why);
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
                        misconfigured(&mut first, policy, &why);
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
                        &mut first,
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
        match first {
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
    first: &mut Option<Refusal>,
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
            first.get_or_insert_with(|| Refusal {
                policy: policy.clone(),
                binding: Some(binding.clone()),
                message: decision.message,
                reason: decision.reason,
            });
        }
    }
    for message in decided.broken {
        first.get_or_insert_with(|| Refusal {
            policy: policy.clone(),
            binding: Some(binding.clone()),
            message,
            reason: String::new(),
        });
    }
    for (key, value) in decided.annotations {
        let values = annotations.entry(key).or_default();
        let length: usize = values.iter().map(String::len).sum();
        if length < VALUES && !values.contains(&value) {
            values.push(value);
        }
    }
}

/// A policy that cannot be evaluated refuses, unless it says otherwise.
fn misconfigured(first: &mut Option<Refusal>, policy: &Arc<Policy>, why: &Misconfigured) {
    if !policy.definition.ignores_failures {
        first.get_or_insert_with(|| Refusal {
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
