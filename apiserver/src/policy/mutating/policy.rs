//! One policy, and what it makes of an object.

use apiservice::told;
use k8s_openapi::api::admissionregistration::v1 as api;
use serde_json::Value;

use super::patch::Mutation;
use crate::policy::asked::Change;
use crate::policy::cel::{self, Budget, JSON_PATCH, OBJECT};
use crate::policy::conditions::holds;
use crate::policy::definition::{Definition, NAMES, Said};
use crate::policy::values::{Bound, Values};
use crate::status::Failure;

/// A policy, as it is evaluated.
#[derive(Debug)]
pub struct Policy {
    pub(super) definition: Definition,
    mutations: Vec<Mutation>,
    pub(super) reinvoked: bool,
}

impl AsRef<Definition> for Policy {
    fn as_ref(&self) -> &Definition {
        &self.definition
    }
}

/// What one policy with one parameter did.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Whether it was evaluated, and not only its conditions.
    pub(super) ran: bool,
    /// The object, if it was changed.
    pub(super) changed: Option<Value>,
    /// Whether any of its mutations succeeded.
    pub(super) applied: bool,
    pub(super) errors: Vec<String>,
}

impl Policy {
    /// Of what the cluster has.
    pub fn read(policy: api::MutatingAdmissionPolicy) -> Self {
        let spec = policy.spec.unwrap_or_default();
        let mut definition = Definition::new(Said {
            name: policy.metadata.name,
            constraints: spec.match_constraints,
            conditions: spec.match_conditions,
            variables: spec.variables,
            failure_policy: spec.failure_policy,
            param_kind: spec.param_kind,
        });
        let names: Vec<&str> = NAMES.into_iter().chain([OBJECT, JSON_PATCH]).collect();
        let mutations = spec.mutations.unwrap_or_default().into_iter();
        let mutations = mutations.filter_map(|mutation| {
            let mut compile =
                |source: Option<String>| definition.compile(&source.unwrap_or_default(), &names);
            match mutation.patch_type.as_str() {
                "JSONPatch" => mutation
                    .json_patch
                    .map(|patch| Mutation::Json(compile(patch.expression))),
                "ApplyConfiguration" => mutation
                    .apply_configuration
                    .map(|config| Mutation::Apply(compile(config.expression))),
                _ => None,
            }
        });
        let mutations = mutations.collect();
        Self {
            definition,
            mutations,
            reinvoked: spec.reinvocation_policy.as_deref() == Some("IfNeeded"),
        }
    }

    /// What it makes of the object; what it says of the object before stays if one of its
    /// mutations fails. `values` are those of the expressions beside the object; `due` is
    /// whether it is to change anything if its conditions hold.
    ///
    /// # Errors
    /// Why what it made is no object of the kind, or one that is too large.
    pub(super) fn change(
        &self,
        request: &Change<'_>,
        values: &Values<'_>,
        object: &Value,
        due: bool,
    ) -> Result<Outcome, Failure> {
        let until = values.until;
        let budget = Budget::new(cel::POLICY).ending(until);
        let mut outcome = Outcome::default();
        let variables = &self.definition.variables;
        {
            let values = values.of(object).of_conditions();
            let bound = Bound::new(variables, &values);
            match holds(&self.definition.conditions, &bound, until) {
                Ok(true) if due => outcome.ran = true,
                Ok(_) => return Ok(outcome),
                Err(why) => {
                    outcome.errors.push(told::cut(why, told::MAX_TEXT));
                    return Ok(outcome);
                }
            }
        }
        for mutation in &self.mutations {
            // Each has its own steps; bytes and time are of all of them.
            budget.again(cel::POLICY);
            let current = outcome.changed.as_ref().unwrap_or(object);
            let made = {
                let values = values.of(current);
                let bound = Bound::new(variables, &values);
                mutation.patch(&bound, &budget)
            };
            if request.questions.has_open() {
                // Those after it would ask about an object that there will not be.
                break;
            }
            let made = made.and_then(|patch| patch.apply(current, request.attributes.kind()));
            match made {
                Ok(None) => outcome.applied = true,
                Ok(Some(mut made)) => {
                    request.making.complete(&mut made)?;
                    outcome.applied = true;
                    if made != *current {
                        outcome.changed = Some(made);
                    }
                }
                Err(why) => outcome.errors.push(told::cut(why, told::MAX_TEXT)),
            }
        }
        Ok(outcome)
    }
}
