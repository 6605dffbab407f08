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

mod configured;
mod patch;
mod policy;
mod refusals;

use std::sync::Arc;

use serde_json::Value;

pub use self::patch::prepare;
pub use self::policy::Policy;
use self::refusals::Refusals;
use super::asked::{Asked, Change, Objects};
use super::attributes::{Attributes, Operation};
use super::definition::{Binding, Definition, Misconfigured, PolicySet, in_force};
use super::questions::evaluate;
use super::reinvoked::{Reinvoked, Round};
use super::source::NotReady;
use super::values::{Values, namespace_of};
use crate::status::Failure;

/// What policies did in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub changed: bool,
    /// There is to be another round. It is asked for by each mutation that succeeds, also
    /// by one that changes nothing.
    pub again: bool,
}

/// Tells one policy with one parameter from the others: its name, that of the binding, and
/// namespace and name of the parameter.
pub type Key = [String; 4];

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

impl PolicySet<Policy> {
    /// Has all of them change the object.
    ///
    /// # Errors
    /// Those of policies that are not to be passed over, after all were asked; what becomes
    /// of an object that is none.
    pub async fn mutate(
        &self,
        request: &Change<'_>,
        object: &mut Value,
        (round, reinvoked): (Round, &mut Reinvoked<Key>),
    ) -> Result<Done, Failure> {
        let Change {
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
        request: &Change<'_>,
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
