//! What policies of both kinds have in common: what they are about, what they are bound to,
//! and their variables.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1 as api;
use serde_json::{Value, json};

use super::asked::Asked;
use super::attributes::Attributes;
use super::cel::Program;
use super::conditions::Condition;
use super::matching::{Matching, may_concern_us};
use super::params::{ParamKind, Params};
use super::source::{All, NotReady, Source};
use crate::status::{Denied, Details, Failure};

/// Names that expressions of policies may use.
pub const NAMES: [&str; 7] = [
    "object",
    "oldObject",
    "request",
    "params",
    "namespaceObject",
    "variables",
    AUTHORIZER,
];
/// The one that expressions of messages may not use.
const AUTHORIZER: &str = "authorizer";

/// What the cluster has of a policy, of either kind.
pub struct Said {
    pub name: Option<String>,
    pub constraints: Option<api::MatchResources>,
    pub conditions: Option<Vec<api::MatchCondition>>,
    pub variables: Option<Vec<api::Variable>>,
    pub failure_policy: Option<String>,
    pub param_kind: Option<api::ParamKind>,
}

/// The same, as it is evaluated.
#[derive(Debug)]
pub struct Definition {
    pub name: String,
    pub matching: Result<Matching, String>,
    pub conditions: Vec<Condition>,
    pub variables: Variables,
    pub ignores_failures: bool,
    pub param_kind: Option<ParamKind>,
    /// Whether any expression looks at the namespace, beside conditions, which see none.
    pub looks_at_namespace: bool,
}

/// Expressions that have names, in their order.
#[derive(Debug, Default)]
pub struct Variables {
    pub all: Vec<(String, Program)>,
    /// Where those of a name are.
    places: HashMap<String, Vec<usize>>,
}

impl Variables {
    /// The last of a name that stands before `limit`.
    pub fn find(&self, name: &str, limit: usize) -> Option<usize> {
        let named = self.places.get(name)?;
        let above = named.partition_point(|place| *place < limit);
        named[..above].last().copied()
    }
}

impl Definition {
    /// Of what the cluster has.
    pub fn new(said: Said) -> Self {
        let constraints = said
            .constraints
            .ok_or_else(|| "policy contained no match constraints, a required field".to_owned());
        let mut definition = Self {
            name: said.name.unwrap_or_default(),
            matching: constraints.and_then(Matching::new),
            conditions: Condition::all(said.conditions, &NAMES),
            variables: Variables::default(),
            ignores_failures: said.failure_policy.as_deref() == Some("Ignore"),
            param_kind: said.param_kind.map(ParamKind::from),
            looks_at_namespace: false,
        };
        for (place, variable) in said.variables.into_iter().flatten().enumerate() {
            let program = definition.compile(&variable.expression, &NAMES);
            let variables = &mut definition.variables;
            let places = variables.places.entry(variable.name.clone()).or_default();
            places.push(place);
            variables.all.push((variable.name, program));
        }
        definition
    }

    /// One more of its expressions, over these names.
    pub fn compile(&mut self, source: &str, names: &[&str]) -> Program {
        self.looks_at_namespace |= looks(source);
        Program::compile(source, names)
    }

    /// The expression of a message.
    pub fn compile_message(&mut self, source: &str) -> Program {
        let names = NAMES.into_iter().filter(|name| *name != AUTHORIZER);
        self.compile(source, &names.collect::<Vec<_>>())
    }

    /// Whether it is about a request, as far as the rules say.
    fn concerns(&self, attributes: &Attributes<'_>) -> bool {
        match &self.matching {
            Ok(matching) => matching.concerns(attributes),
            Err(_) => true,
        }
    }
}

fn looks(source: &str) -> bool {
    source.contains("namespaceObject")
}

/// Bytes of the expressions that policies of both kinds have; nothing for a policy that
/// cannot concern us.
pub fn expressions(
    constraints: Option<&api::MatchResources>,
    conditions: Option<&Vec<api::MatchCondition>>,
    variables: Option<&Vec<api::Variable>>,
) -> Option<usize> {
    if !constraints.is_none_or(may_concern_us) {
        return None;
    }
    let conditions = conditions.into_iter().flatten();
    let variables = variables.into_iter().flatten();
    let all = conditions
        .map(|one| one.expression.len())
        .chain(variables.map(|one| one.expression.len()));
    Some(all.sum())
}

/// Where a policy is in force.
#[derive(Debug)]
pub struct Binding {
    pub name: String,
    pub policy: String,
    pub matching: Result<Option<Matching>, String>,
    pub params: Option<api::ParamRef>,
    /// What a validating policy does with what it finds.
    pub actions: Vec<String>,
}

impl Binding {
    /// Of what the cluster has, of either kind.
    pub fn new(
        name: String,
        policy: String,
        matching: Option<api::MatchResources>,
        params: Option<api::ParamRef>,
    ) -> Self {
        Self {
            name,
            policy,
            matching: matching.map(Matching::new).transpose(),
            params,
            actions: Vec::new(),
        }
    }

    /// Whether a validating policy does this with what it finds.
    pub fn does(&self, action: &str) -> bool {
        self.actions.iter().any(|one| one == action)
    }
}

/// Why a policy is not evaluated.
pub struct Misconfigured {
    /// The binding that it is the fault of.
    pub binding: Option<Arc<Binding>>,
    why: String,
}

impl Misconfigured {
    /// A fault of a binding.
    pub fn binding(binding: &Arc<Binding>, why: &str) -> Self {
        Self {
            binding: Some(binding.clone()),
            why: why.to_owned(),
        }
    }

    /// As Kubernetes says it.
    pub fn message(&self) -> String {
        let what = match self.binding {
            Some(_) => "binding",
            None => "policy",
        };
        format!("failed to configure {what}: {}", self.why)
    }
}

/// All policies of one kind, and what they are bound to and evaluated with.
pub struct PolicySet<P> {
    pub policies: Source<P>,
    pub bindings: Source<Binding>,
    pub params: Arc<Params>,
}

/// Policies and their bindings.
pub type Both<P> = (All<P>, All<Binding>);

impl<P: AsRef<Definition>> PolicySet<P> {
    /// None yet.
    pub fn new(params: Arc<Params>) -> Self {
        Self {
            policies: Source::default(),
            bindings: Source::default(),
            params,
        }
    }

    /// None, and that is known.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self {
            policies: Source::known(Default::default()),
            bindings: Source::known(Default::default()),
            params: Arc::new(Params::new(None)),
        }
    }

    /// Whether all were listed once.
    pub fn is_loaded(&self) -> bool {
        self.policies.is_loaded() && self.bindings.is_loaded()
    }

    /// Whether any may be about a request.
    ///
    /// # Errors
    /// While they are not known.
    pub async fn concern(&self, attributes: &Attributes<'_>) -> Result<bool, NotReady> {
        Ok(self.about(attributes).await?.is_some())
    }

    /// All of them, if any may be about a request.
    ///
    /// # Errors
    /// The same.
    pub async fn about(&self, attributes: &Attributes<'_>) -> Result<Option<Both<P>>, NotReady> {
        let policies = self.policies.all(attributes.deadline).await?;
        let mut definitions = policies.values().map(|policy| (**policy).as_ref());
        let concern = definitions.any(|definition| definition.concerns(attributes));
        // However many there are, they say nothing without a policy of ours.
        match self.bindings.all(attributes.deadline).await {
            Err(NotReady::TooMuch) if !concern => Ok(None),
            bindings => bindings.map(|bindings| concern.then_some((policies, bindings))),
        }
    }
}

/// The bindings with which a policy is about a request, in their order, and what is wrong
/// with others, or with the policy.
pub async fn in_force(
    definition: &Definition,
    bindings: &All<Binding>,
    asked: &Asked<'_>,
) -> Vec<Result<Arc<Binding>, Misconfigured>> {
    let matches = match &definition.matching {
        Ok(matching) => matching.matches(asked).await,
        Err(why) => Err(Failure::Internal(why.clone())),
    };
    match matches {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => {
            return vec![Err(Misconfigured {
                binding: None,
                why: why.to_string(),
            })];
        }
    }
    let mut found = Vec::new();
    let bound = bindings.values();
    for binding in bound.filter(|binding| binding.policy == definition.name) {
        let matches = match &binding.matching {
            Ok(None) => Ok(true),
            Ok(Some(matching)) => matching.matches(asked).await,
            Err(why) => Err(Failure::Internal(why.clone())),
        };
        match matches {
            Ok(true) => found.push(Ok(binding.clone())),
            Ok(false) => {}
            Err(why) => found.push(Err(Misconfigured::binding(binding, &why.to_string()))),
        }
    }
    found
}

/// The answer to a request that policies refused: the message is the first cause.
pub fn denied(
    attributes: &Attributes<'_>,
    (reason, code): (&str, i32),
    message: String,
    causes: &[String],
) -> Failure {
    let causes: Vec<Value> = causes
        .iter()
        .map(|cause| json!({"message": cause}))
        .collect();
    let details = json!({
        "name": attributes.shown_name(),
        "group": apiservice::GROUP,
        "kind": attributes.resource.plural,
        "causes": causes,
    });
    Failure::Denied(Box::new(Denied {
        message,
        reason: reason.to_owned(),
        code,
        details: Some(Details::new(&details.to_string())),
    }))
}
