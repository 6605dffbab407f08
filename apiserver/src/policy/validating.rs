//! ValidatingAdmissionPolicies and their bindings (R7.16, R7.17).
//!
//! # Flow
//! A policy that is about a request is evaluated once for each binding that is, and for
//! each of its parameters. What was asked of the cluster for it (parameters, the namespace)
//! is asked before; the evaluation itself waits for nothing, and keeps no other request from
//! the worker that it runs on.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::admissionregistration::v1 as api;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::attributes::Attributes;
use super::cel::{self, Budget, Program, Resolve, Unusable, Val};
use super::hooks::Condition;
use super::labels::NamespaceLabels;
use super::params::{ParamKind, Params};
use super::rules::{Rule, Selector};
use super::source::{Configured, NotReady, Source};
use super::webhooks::{Objects, holds};
use crate::namespaces::{Namespaces, Unlabelled};
use crate::status::{Denied, Failure};

/// Names that expressions of policies may use.
pub const NAMES: [&str; 6] = [
    "object",
    "oldObject",
    "request",
    "params",
    "namespaceObject",
    "variables",
];
/// Bytes of a message that an expression makes.
const MESSAGE: usize = 5 * 1024;
/// Bytes of the value of an audit annotation.
const ANNOTATION: usize = 10 * 1024;
const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// All that is there.
pub struct ValidatingPolicies {
    pub policies: Source<Policy>,
    pub bindings: Source<Binding>,
    pub params: Params,
}

/// Which requests a policy or a binding is about.
#[derive(Debug, Default)]
struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    namespaces: Selector,
    objects: Selector,
}

/// A policy, as it is evaluated.
#[derive(Debug)]
pub struct Policy {
    name: String,
    matching: Result<Matching, String>,
    conditions: Vec<Condition>,
    variables: Vec<(String, Program)>,
    /// Where those of a name are, in their order.
    variable_places: HashMap<String, Vec<usize>>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Program)>,
    ignores_failures: bool,
    param_kind: Option<ParamKind>,
    /// Whether any expression looks at the namespace.
    looks_at_namespace: bool,
}

#[derive(Debug)]
struct Validation {
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: String,
}

/// Where a policy is in force.
#[derive(Debug)]
pub struct Binding {
    name: String,
    policy: String,
    matching: Result<Option<Matching>, String>,
    actions: Vec<String>,
    params: Option<api::ParamRef>,
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

fn rules(rules: Option<Vec<api::NamedRuleWithOperations>>) -> Vec<Rule> {
    let rules = rules.unwrap_or_default().into_iter();
    let rule = |rule: api::NamedRuleWithOperations| Rule {
        operations: rule.operations.unwrap_or_default(),
        groups: rule.api_groups.unwrap_or_default(),
        versions: rule.api_versions.unwrap_or_default(),
        resources: rule.resources.unwrap_or_default(),
        names: rule.resource_names.unwrap_or_default(),
        scope: rule.scope.unwrap_or_default(),
    };
    rules.map(rule).collect()
}

impl Matching {
    fn new(of: api::MatchResources) -> Result<Self, String> {
        Ok(Self {
            rules: rules(of.resource_rules),
            excluded: rules(of.exclude_resource_rules),
            namespaces: Selector::new(of.namespace_selector.as_ref())?,
            objects: Selector::new(of.object_selector.as_ref())?,
        })
    }

    /// Whether the request is one of these, as far as the rules say.
    fn concerns(&self, attributes: &Attributes<'_>) -> bool {
        let of = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(attributes));
        !of(&self.excluded) && (self.rules.is_empty() || of(&self.rules))
    }

    async fn matches(
        &self,
        attributes: &Attributes<'_>,
        labels: &NamespaceLabels<'_>,
        objects: Objects<'_>,
    ) -> Result<bool, Failure> {
        Ok(self.concerns(attributes)
            && self.objects.matches_any([objects.new, objects.old])
            && labels.selected(&self.namespaces).await?)
    }
}

impl Policy {
    /// Of what the cluster has; nothing if it cannot concern us.
    pub fn read(policy: api::ValidatingAdmissionPolicy) -> Option<Self> {
        let name = policy.metadata.name.unwrap_or_default();
        let spec = policy.spec.unwrap_or_default();
        let constraints = spec
            .match_constraints
            .ok_or_else(|| "policy contained no match constraints, a required field".to_owned());
        let matching = constraints.and_then(Matching::new);
        if let Ok(matching) = &matching
            && !matching.rules.is_empty()
            && !matching.rules.iter().any(Rule::concerns_us)
        {
            return None;
        }
        let compile = |source: &str| Program::compile(source, &NAMES);
        let variables = spec.variables.unwrap_or_default().into_iter();
        let variables: Vec<_> = variables
            .map(|variable| (variable.name, compile(&variable.expression)))
            .collect();
        let mut variable_places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, (name, _)) in variables.iter().enumerate() {
            let places = variable_places.entry(name.clone());
            places.or_default().push(place);
        }
        let validations = spec.validations.unwrap_or_default().into_iter();
        let validations: Vec<_> = validations
            .map(|validation| Validation {
                program: compile(&validation.expression),
                message: validation.message.unwrap_or_default(),
                message_program: validation.message_expression.as_deref().map(compile),
                reason: validation.reason.unwrap_or_default(),
            })
            .collect();
        let annotations = spec.audit_annotations.unwrap_or_default().into_iter();
        let annotations: Vec<_> = annotations
            .map(|annotation| (annotation.key, compile(&annotation.value_expression)))
            .collect();
        let looks = |program: &Program| program.source().contains("namespaceObject");
        let messages = validations
            .iter()
            .filter_map(|one| one.message_program.as_ref());
        let mut all = variables
            .iter()
            .map(|(_, program)| program)
            .chain(validations.iter().map(|one| &one.program))
            .chain(messages)
            .chain(annotations.iter().map(|(_, program)| program));
        let looks_at_namespace = all.any(looks);
        Some(Self {
            name,
            matching,
            conditions: Condition::all(spec.match_conditions, &NAMES),
            variables,
            variable_places,
            validations,
            annotations,
            ignores_failures: spec.failure_policy.as_deref() == Some("Ignore"),
            param_kind: spec.param_kind.map(ParamKind::from),
            looks_at_namespace,
        })
    }

    /// What it says of a request with one parameter.
    fn decide(&self, values: &Values<'_>) -> Decided {
        let failed = |message: String| Decided {
            refusals: match self.ignores_failures {
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
        let bound = Bound::new(self, values);
        // Conditions have their own budget.
        match holds(&self.conditions, &bound) {
            Ok(true) => {}
            Ok(false) => return Decided::default(),
            Err(why) => return failed(why),
        }
        let mut decided = Decided::default();
        for (index, validation) in self.validations.iter().enumerate() {
            let message = match validation.program.evaluate(&bound, &budget) {
                Ok(Val::Bool(true)) => continue,
                Err(why @ Unusable::OutOfBudget) => return failed(why.to_string()),
                Err(_) if self.ignores_failures => continue,
                Err(why) => Err(why.to_string()),
                Ok(_) => Ok(validation.message(&bound, &budget)),
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
            match program.evaluate(&bound, &budget) {
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
                Err(_) if self.ignores_failures => {}
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

/// What expressions of a policy are about.
struct Values<'a> {
    object: &'a Value,
    old: &'a Value,
    request: &'a Value,
    params: &'a Value,
    namespace: &'a Value,
    /// When the answer is due.
    until: std::time::Instant,
}

/// The same with the policy's own variables, each evaluated when it is first asked for.
struct Bound<'p, 'a> {
    policy: &'p Policy,
    values: &'p Values<'a>,
    known: RefCell<BTreeMap<usize, Result<Val<'a>, Unusable>>>,
    /// Which variables are being evaluated: those above them only may they use.
    limit: RefCell<usize>,
}

impl<'p, 'a> Bound<'p, 'a> {
    fn new(policy: &'p Policy, values: &'p Values<'a>) -> Self {
        Self {
            policy,
            values,
            known: RefCell::default(),
            limit: RefCell::new(policy.variables.len()),
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
            _ => return None,
        };
        Some(Ok(Val::from(value)))
    }

    fn variable(&self, name: &str, budget: &Budget) -> Option<Result<Val<'a>, Unusable>> {
        let limit = *self.limit.borrow();
        let named = self.policy.variable_places.get(name)?;
        let above = named.partition_point(|place| *place < limit);
        let index = *named[..above].last()?;
        if let Some(known) = self.known.borrow().get(&index) {
            return Some(known.clone());
        }
        self.limit.replace(index);
        let value = self.policy.variables[index].1.value(self, budget);
        self.limit.replace(limit);
        let value = value.map_err(|why| match why {
            // Cut: each variable that asks for it says the same again, and keeps it.
            Unusable::Error(why) => Unusable::Error(ends(format!(
                "composited variable {name:?} fails to evaluate: {why}"
            ))),
            Unusable::Uncompiled(why) => Unusable::Error(format!(
                "composited variable {name:?} fails to compile: {why}"
            )),
            other @ Unusable::OutOfBudget => other,
        });
        self.known.borrow_mut().insert(index, value.clone());
        Some(value)
    }
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

impl Binding {
    /// Of what the cluster has.
    pub fn read(binding: api::ValidatingAdmissionPolicyBinding) -> Option<Self> {
        let spec = binding.spec;
        Some(Self {
            name: binding.metadata.name.unwrap_or_default(),
            policy: spec.policy_name,
            matching: spec.match_resources.map(Matching::new).transpose(),
            actions: spec.validation_actions,
            params: spec.param_ref,
        })
    }

    fn does(&self, action: &str) -> bool {
        self.actions.iter().any(|one| one == action)
    }
}

/// Whether rules may be about anything of ours; without any they are.
fn may_concern_us(of: &api::MatchResources) -> bool {
    let rules = rules(of.resource_rules.clone());
    rules.is_empty() || rules.iter().any(Rule::concerns_us)
}

impl Configured for api::ValidatingAdmissionPolicy {
    type Kept = Policy;

    fn expressions(&self) -> Option<usize> {
        let spec = self.spec.as_ref();
        let constraints = spec.and_then(|spec| spec.match_constraints.as_ref());
        if !constraints.is_none_or(may_concern_us) {
            return None;
        }
        let Some(spec) = spec else {
            return Some(0);
        };
        let conditions = spec.match_conditions.iter().flatten();
        let variables = spec.variables.iter().flatten();
        let validations = spec.validations.iter().flatten();
        let annotations = spec.audit_annotations.iter().flatten();
        let all = conditions
            .map(|one| one.expression.len())
            .chain(variables.map(|one| one.expression.len()))
            .chain(validations.map(|one| {
                one.expression.len() + one.message_expression.as_ref().map_or(0, String::len)
            }))
            .chain(annotations.map(|one| one.value_expression.len()));
        Some(all.sum())
    }

    fn read(self) -> Option<Policy> {
        Policy::read(self)
    }
}

impl Configured for api::ValidatingAdmissionPolicyBinding {
    type Kept = Binding;

    fn expressions(&self) -> Option<usize> {
        let matching = self.spec.match_resources.as_ref();
        matching.is_none_or(may_concern_us).then_some(0)
    }

    fn read(self) -> Option<Binding> {
        Binding::read(self)
    }
}

impl ValidatingPolicies {
    /// None yet, with parameters from this cluster.
    pub fn new(params: Params) -> Self {
        Self {
            policies: Source::default(),
            bindings: Source::default(),
            params,
        }
    }

    /// Whether any may be about a request.
    ///
    /// # Errors
    /// While they are not known.
    pub async fn concern(&self, attributes: &Attributes<'_>) -> Result<bool, NotReady> {
        let policies = self.policies.all(attributes.deadline).await?;
        let concern = policies.values().any(|policy| match &policy.matching {
            Ok(matching) => matching.concerns(attributes),
            Err(_) => true,
        });
        // However many there are, they say nothing without a policy of ours.
        match self.bindings.all(attributes.deadline).await {
            Err(NotReady::TooMuch) if !concern => Ok(false),
            bindings => bindings.map(|_| concern),
        }
    }

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
    ) -> Result<(), Failure> {
        let unknown = |why: NotReady| attributes.refused(&why.to_string());
        let policies = self
            .policies
            .all(attributes.deadline)
            .await
            .map_err(unknown)?;
        if !self.concern(attributes).await.map_err(unknown)? {
            return Ok(());
        }
        let bindings = self
            .bindings
            .all(attributes.deadline)
            .await
            .map_err(unknown)?;
        let request = Value::Object(attributes.to_request(""));
        let mut refusals = Vec::new();
        for policy in policies.values() {
            attributes.in_time()?;
            let matches = match &policy.matching {
                Ok(matching) => matching.matches(attributes, labels, objects).await,
                Err(why) => Err(Failure::Internal(why.clone())),
            };
            match matches {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    misconfigured(&mut refusals, policy, None, &why.to_string());
                    continue;
                }
            }
            let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
            let bound = bindings.values();
            for binding in bound.filter(|binding| binding.policy == policy.name) {
                let matches = match &binding.matching {
                    Ok(None) => Ok(true),
                    Ok(Some(matching)) => matching.matches(attributes, labels, objects).await,
                    Err(why) => Err(Failure::Internal(why.clone())),
                };
                match matches {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(why) => {
                        misconfigured(&mut refusals, policy, Some(binding), &why.to_string());
                        continue;
                    }
                }
                let kind = policy.param_kind.as_ref();
                let params =
                    self.params
                        .collect(kind, binding.params.as_ref(), attributes.namespace);
                let params = params.await;
                attributes.in_time()?;
                let params = match params {
                    Ok(params) => params,
                    Err(why) => {
                        misconfigured(&mut refusals, policy, Some(binding), &why);
                        continue;
                    }
                };
                let namespace = match attributes.namespace {
                    Some(namespace) if policy.looks_at_namespace => {
                        namespace_object(namespaces, namespace).await?
                    }
                    _ => Value::Null,
                };
                for params in &params {
                    let null = Value::Null;
                    let values = Values {
                        object: objects.new.unwrap_or(&null),
                        old: objects.old.unwrap_or(&null),
                        request: &request,
                        params,
                        namespace: &namespace,
                        until: attributes.deadline.into_std(),
                    };
                    let decided = aside(attributes.deadline, || policy.decide(&values)).await;
                    let decided = decided.ok_or_else(|| {
                        attributes.refused("no time was left to evaluate the policies")
                    })?;
                    act(
                        attributes,
                        policy,
                        binding,
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
                attributes.annotations.add_of(&policy.name, &key, values);
            }
        }
        match refusals.into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(denied(attributes, &refusal)),
        }
    }
}

/// Evaluations at a time: each takes a processor.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Does what may take long while other tasks of this worker of the runtime go on elsewhere;
/// nothing if it cannot begin in time.
async fn aside<T>(until: Instant, work: impl FnOnce() -> T) -> Option<T> {
    let place = tokio::time::timeout_at(until, PLACES.acquire()).await;
    // The semaphore is never closed.
    let _place = place.ok()?.ok()?;
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => Some(tokio::task::block_in_place(work)),
        // There is no other worker.
        _ => Some(work()),
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
                policy.name, binding.name, decision.message
            ));
        }
        if binding.does("Audit") {
            let failure = [Noted {
                message: &decision.message,
                policy: &policy.name,
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
fn misconfigured(
    refusals: &mut Vec<Refusal>,
    policy: &Arc<Policy>,
    binding: Option<&Arc<Binding>>,
    why: &str,
) {
    if policy.ignores_failures {
        return;
    }
    let what = match binding {
        Some(_) => "binding",
        None => "policy",
    };
    refusals.push(Refusal {
        policy: policy.clone(),
        binding: binding.cloned(),
        message: format!("failed to configure {what}: {why}"),
        reason: String::new(),
    });
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
        policy.name
    );
    let reason = match reason.as_str() {
        "" => "Invalid",
        reason => reason,
    };
    let mut details = json!({
        "name": attributes.shown_name(),
        "group": apiservice::GROUP,
        "kind": attributes.resource.plural,
    });
    details["causes"] = json!([{"message": why}]);
    let forbidden = attributes.refused(&why);
    Failure::Denied(Box::new(Denied {
        message: forbidden.to_string(),
        reason: reason.to_owned(),
        code: match reason {
            "Unauthorized" => 401,
            "Forbidden" => 403,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        },
        details: Some(details),
    }))
}

/// What expressions see of a namespace.
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

#[cfg(test)]
mod tests;
