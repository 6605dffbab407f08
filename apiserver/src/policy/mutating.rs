//! MutatingAdmissionPolicies and their bindings (R7.18).
//!
//! # Flow
//! As with the validating ones, a policy that is about a request is evaluated once for each
//! binding that is, and for each of its parameters. Which ones are is decided by the object
//! as the round finds it; what they change is seen by those after them. Of a deletion there
//! is no object, and they are not asked.
//!
//! # Guarantees
//! What one policy takes with one parameter is bounded as in [`super::cel`], all its
//! mutations together. After each mutation the object is one of its kind, and no larger than
//! one may be.

mod patch;

use std::sync::Arc;

use apiservice::told;
use k8s_openapi::api::admissionregistration::{v1 as api, v1beta1};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::patch::Mutation;
pub use self::patch::prepare;
use super::attributes::{Attributes, Operation};
use super::cel::{self, Budget, JSON_PATCH, OBJECT};
use super::definition::{
    self, Binding, Definition, Misconfigured, NAMES, PolicySet, Said, in_force,
};
use super::labels::NamespaceLabels;
use super::matching::{Asked, may_concern_us};
use super::questions::{Questions, evaluate};
use super::reinvoked::{Reinvoked, Round};
use super::source::{Configured, NotReady};
use super::values::{Bound, Values, namespace_of};
use super::webhooks::{Making, Objects, holds};
use crate::namespaces::Namespaces;
use crate::status::Failure;

/// A request, as it is admitted by all who may change its object.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub attributes: &'a Attributes<'a>,
    pub namespaces: &'a Namespaces,
    pub labels: &'a NamespaceLabels<'a>,
    pub old: Option<&'a Value>,
    pub questions: &'a Questions<'a>,
    /// What makes an object of what they made of it.
    pub making: &'a dyn Making,
}

/// A policy, as it is evaluated.
#[derive(Debug)]
pub struct Policy {
    definition: Definition,
    mutations: Vec<Mutation>,
    reinvoked: bool,
}

impl AsRef<Definition> for Policy {
    fn as_ref(&self) -> &Definition {
        &self.definition
    }
}

/// What policies did in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub changed: bool,
    /// There is to be another round. It is asked for by each mutation that succeeds, also
    /// by one that changes nothing.
    pub again: bool,
}

/// What one policy with one parameter did.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// Whether it was evaluated, and not only its conditions.
    ran: bool,
    /// The object, if it was changed.
    changed: Option<Value>,
    /// Whether any of its mutations succeeded.
    applied: bool,
    errors: Vec<String>,
}

/// Tells one policy with one parameter from the others: its name, that of the binding, and
/// namespace and name of the parameter.
pub type Key = [String; 4];

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
    fn change(
        &self,
        request: &Request<'_>,
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

/// One of another version of the API, which says the same in the same words. What could not
/// be read would be a policy without constraints, which refuses what it is asked about.
fn as_v1<T>(other: &impl Serialize) -> T
where
    T: k8s_openapi::Resource + DeserializeOwned + Default,
{
    let value = serde_json::to_value(other).ok();
    let read = value.and_then(|mut value| {
        value["apiVersion"] = Value::from(T::API_VERSION);
        serde_json::from_value(value).ok()
    });
    read.unwrap_or_default()
}

impl Configured for api::MutatingAdmissionPolicy {
    type Kept = Policy;

    fn expressions(&self) -> Option<usize> {
        let Some(spec) = &self.spec else {
            return Some(0);
        };
        let conditions = spec.match_conditions.as_ref();
        let constraints = spec.match_constraints.as_ref();
        let common = definition::expressions(constraints, conditions, spec.variables.as_ref())?;
        let mutations = spec.mutations.iter().flatten();
        let own = mutations.map(|mutation| {
            let patch = mutation.json_patch.as_ref();
            let patch = patch.and_then(|patch| patch.expression.as_ref());
            let config = mutation.apply_configuration.as_ref();
            let config = config.and_then(|config| config.expression.as_ref());
            patch.map_or(0, String::len) + config.map_or(0, String::len)
        });
        Some(common + own.sum::<usize>())
    }

    fn read(self) -> Option<Policy> {
        Some(Policy::read(self))
    }
}

impl Configured for v1beta1::MutatingAdmissionPolicy {
    type Kept = Policy;

    fn expressions(&self) -> Option<usize> {
        as_v1::<api::MutatingAdmissionPolicy>(self).expressions()
    }

    fn read(self) -> Option<Policy> {
        as_v1::<api::MutatingAdmissionPolicy>(&self).read()
    }
}

impl Configured for api::MutatingAdmissionPolicyBinding {
    type Kept = Binding;

    fn expressions(&self) -> Option<usize> {
        let spec = self.spec.as_ref();
        let matching = spec.and_then(|spec| spec.match_resources.as_ref());
        matching.is_none_or(may_concern_us).then_some(0)
    }

    fn read(self) -> Option<Binding> {
        let spec = self.spec.unwrap_or_default();
        Some(Binding::new(
            self.metadata.name.unwrap_or_default(),
            spec.policy_name.unwrap_or_default(),
            spec.match_resources,
            spec.param_ref,
        ))
    }
}

impl Configured for v1beta1::MutatingAdmissionPolicyBinding {
    type Kept = Binding;

    fn expressions(&self) -> Option<usize> {
        as_v1::<api::MutatingAdmissionPolicyBinding>(self).expressions()
    }

    fn read(self) -> Option<Binding> {
        as_v1::<api::MutatingAdmissionPolicyBinding>(&self).read()
    }
}

/// Whether any may be about a request.
///
/// # Errors
/// While they are not known.
pub async fn concern(
    policies: &PolicySet<Policy>,
    attributes: &Attributes<'_>,
) -> Result<bool, NotReady> {
    match attributes.operation {
        Operation::Create | Operation::Update => policies.concern(attributes).await,
        Operation::Delete => Ok(false),
    }
}

/// What is wrong with policies that are not to be passed over: the first of each are told.
#[derive(Default)]
struct Refusals {
    /// With what they are made of.
    misconfigured: Vec<String>,
    /// With what became of them.
    failed: Vec<String>,
    /// How many were passed over, and why the first was.
    ignored: (usize, Option<String>),
}

/// Causes of one kind that an answer has at most.
const MOST_CAUSES: usize = told::MAX_PATHS / 2;

impl Refusals {
    fn misconfigured(&mut self, definition: &Definition, why: &Misconfigured) {
        if definition.ignores_failures {
            self.ignore(definition, &why.message());
        } else if self.misconfigured.len() < MOST_CAUSES {
            let binding = why.binding.as_deref();
            let told = refusal(definition, binding, &why.message());
            self.misconfigured.push(told);
        }
    }

    fn failed(&mut self, definition: &Definition, binding: &Binding, errors: &[String]) {
        let Some(first) = errors.first() else {
            return;
        };
        if definition.ignores_failures {
            self.ignore(definition, first);
            return;
        }
        let room = MOST_CAUSES.saturating_sub(self.failed.len());
        let told = errors.iter().take(room);
        let told = told.map(|why| refusal(definition, Some(binding), why));
        self.failed.extend(told);
    }

    fn ignore(&mut self, definition: &Definition, why: &str) {
        let (count, first) = &mut self.ignored;
        *count += 1;
        first.get_or_insert_with(|| {
            let why = told::short(why, told::MAX_TEXT);
            format!("policy {:?}: {why}", definition.name)
        });
    }

    fn answer(self, attributes: &Attributes<'_>) -> Result<(), Failure> {
        // Once for a request, however many there are.
        if let (count, Some(first)) = &self.ignored {
            tracing::warn!(count, first, "mutating policies failed and are passed over");
        }
        let reason = match (self.misconfigured.is_empty(), self.failed.is_empty()) {
            (true, true) => return Ok(()),
            (true, false) => "Invalid",
            (false, _) => "Forbidden",
        };
        let mut causes = self.misconfigured;
        causes.extend(self.failed);
        let message = causes.first().cloned().unwrap_or_default();
        let refused = definition::denied(attributes, (reason, 403), message, &causes);
        Err(refused)
    }
}

fn refusal(definition: &Definition, binding: Option<&Binding>, why: &str) -> String {
    let name = &definition.name;
    let why = told::short(why, told::MAX_TEXT);
    match binding {
        Some(Binding { name: binding, .. }) => {
            format!("policy '{name}' with binding '{binding}' denied request: {why}")
        }
        None => format!("policy {name:?} denied request: {why}"),
    }
}

impl PolicySet<Policy> {
    /// Has all of them change the object.
    ///
    /// # Errors
    /// Those of policies that are not to be passed over, after all were asked; what becomes
    /// of an object that is none.
    pub async fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        (round, reinvoked): (Round, &mut Reinvoked<Key>),
    ) -> Result<Done, Failure> {
        let Request {
            attributes,
            labels,
            old,
            ..
        } = *request;
        let mut done = Done::default();
        let unknown = |why: NotReady| attributes.refused(&why.to_string());
        let Some((policies, bindings)) = self.about(attributes).await.map_err(unknown)? else {
            return Ok(done);
        };
        let mut refusals = Refusals::default();
        let mut due: Vec<(&Arc<Policy>, Arc<Binding>)> = Vec::new();
        let asked = Asked {
            attributes,
            labels,
            objects: Objects {
                new: Some(object),
                old,
            },
        };
        for policy in policies.values() {
            attributes.in_time()?;
            for binding in in_force(&policy.definition, &bindings, &asked).await {
                match binding {
                    Ok(binding) => due.push((policy, binding)),
                    Err(why) => refusals.misconfigured(&policy.definition, &why),
                }
            }
        }
        let invoked = Value::Object(attributes.to_request(""));
        for (policy, binding) in due {
            let one = Invoked {
                policy,
                binding: &binding,
                request: &invoked,
                round,
            };
            let found = self.invoke(request, one, object, reinvoked, &mut refusals);
            let found = found.await?;
            done.changed |= found.changed;
            done.again |= found.again;
        }
        if done.again {
            reinvoked.others_changed_it();
        }
        refusals.answer(attributes)?;
        Ok(done)
    }

    /// Has a policy with one binding change the object.
    async fn invoke(
        &self,
        request: &Request<'_>,
        one: Invoked<'_>,
        object: &mut Value,
        reinvoked: &mut Reinvoked<Key>,
        refusals: &mut Refusals,
    ) -> Result<Done, Failure> {
        let Invoked {
            policy,
            binding,
            request: invoked,
            round,
        } = one;
        let (attributes, definition) = (request.attributes, &policy.definition);
        let kind = definition.param_kind.as_ref();
        let by = binding.params.as_ref();
        let params = self
            .params
            .collect(kind, by, attributes.namespace, attributes.caller())
            .await;
        attributes.in_time()?;
        let mut done = Done::default();
        let params = match params {
            Ok(params) => params,
            Err(why) => {
                refusals.misconfigured(definition, &Misconfigured::binding(binding, &why));
                return Ok(done);
            }
        };
        let namespace = namespace_of(definition, request.namespaces, attributes).await?;
        for params in params.all() {
            attributes.in_time()?;
            let key = key(definition, binding, params);
            let values = Values {
                object: &Value::Null,
                old: request.old.unwrap_or(&Value::Null),
                request: invoked,
                params,
                namespace: &namespace,
                questions: Some(request.questions),
                until: attributes.deadline.into_std(),
            };
            let due = reinvoked.is_due(round, &key);
            let change = |until| policy.change(request, &values.ending(until), object, due);
            let outcome = evaluate(request.questions, change).await??;
            refusals.failed(definition, binding, &outcome.errors);
            done.changed |= outcome.changed.is_some();
            done.again |= outcome.applied;
            if let Some(changed) = outcome.changed {
                *object = changed;
                reinvoked.others_changed_it();
                // Before the next is asked: none adds to what is too large already.
                request.making.hold(object).await?;
            }
            if outcome.ran && policy.reinvoked {
                reinvoked.wants_to_know(key);
            }
            // Between two that may take a while, others have their turn.
            tokio::task::yield_now().await;
        }
        Ok(done)
    }
}

/// A policy that is in force by a binding, for a request as expressions see it.
#[derive(Clone, Copy)]
struct Invoked<'a> {
    policy: &'a Policy,
    binding: &'a Arc<Binding>,
    request: &'a Value,
    round: Round,
}

fn key(definition: &Definition, binding: &Binding, params: &Value) -> Key {
    let meta = |name: &str| {
        let text = params["metadata"][name].as_str();
        text.unwrap_or_default().to_owned()
    };
    [
        definition.name.clone(),
        binding.name.clone(),
        meta("namespace"),
        meta("name"),
    ]
}

#[cfg(test)]
mod tests;
