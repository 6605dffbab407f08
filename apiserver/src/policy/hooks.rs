//! Webhooks, as their configurations have them. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1 as api;

use super::call::Endpoint;
use super::conditions::Condition;
use super::rules::{Rule, Selector};
use super::source::Configured;

/// Names that conditions of webhooks may use.
pub const NAMES: [&str; 4] = ["object", "oldObject", "request", "authorizer"];

/// How long an answer is waited for, unless the configuration says otherwise.
const TIMEOUT: i32 = 10;

/// The version of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// With its group.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// What a webhook may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Change the object.
    Mutating,
    /// Refuse the request.
    Validating,
}

impl Kind {
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validating",
        }
    }
}

/// One webhook.
#[derive(Debug)]
pub struct Hook {
    pub configuration: Arc<str>,
    pub name: String,
    /// Its place in its configuration.
    pub position: usize,
    pub rules: Vec<Rule>,
    pub namespaces: Result<Selector, String>,
    pub objects: Result<Selector, String>,
    pub conditions: Vec<Condition>,
    /// What becomes of a request when it cannot be asked.
    pub ignores_failures: bool,
    /// Whether it is asked again when others changed the object after it.
    pub reinvoked: bool,
    /// Whether it may be asked for a dry run.
    pub takes_dry_runs: bool,
    pub timeout: Duration,
    /// The first version of its list that is known here.
    pub version: Option<Version>,
    pub endpoint: Endpoint,
}

/// The webhooks of one configuration that may concern us, and how many it has in all.
#[derive(Debug)]
pub struct Configuration {
    pub count: usize,
    pub hooks: Vec<Arc<Hook>>,
}

/// What the two kinds of webhooks have in common.
struct Common {
    configuration: Arc<str>,
    name: String,
    position: usize,
    rules: Option<Vec<api::RuleWithOperations>>,
    namespaces: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    objects: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    conditions: Option<Vec<api::MatchCondition>>,
    failure_policy: Option<String>,
    side_effects: String,
    timeout: Option<i32>,
    versions: Vec<String>,
    client: api::WebhookClientConfig,
    reinvoked: bool,
}

impl Configuration {
    /// Of mutating webhooks; nothing if none of them can concern us.
    pub fn mutating(config: api::MutatingWebhookConfiguration) -> Option<Self> {
        let name: Arc<str> = config.metadata.name.unwrap_or_default().into();
        let hooks = config.webhooks.unwrap_or_default();
        let count = hooks.len();
        let common = hooks
            .into_iter()
            .enumerate()
            .map(|(position, hook)| Common {
                configuration: name.clone(),
                name: hook.name,
                position,
                rules: hook.rules,
                namespaces: hook.namespace_selector,
                objects: hook.object_selector,
                conditions: hook.match_conditions,
                failure_policy: hook.failure_policy,
                side_effects: hook.side_effects,
                timeout: hook.timeout_seconds,
                versions: hook.admission_review_versions,
                client: hook.client_config,
                reinvoked: hook.reinvocation_policy.as_deref() == Some("IfNeeded"),
            });
        Self::of(count, common)
    }

    /// Of validating webhooks; nothing if none of them can concern us.
    pub fn validating(config: api::ValidatingWebhookConfiguration) -> Option<Self> {
        let name: Arc<str> = config.metadata.name.unwrap_or_default().into();
        let hooks = config.webhooks.unwrap_or_default();
        let count = hooks.len();
        let common = hooks
            .into_iter()
            .enumerate()
            .map(|(position, hook)| Common {
                configuration: name.clone(),
                name: hook.name,
                position,
                rules: hook.rules,
                namespaces: hook.namespace_selector,
                objects: hook.object_selector,
                conditions: hook.match_conditions,
                failure_policy: hook.failure_policy,
                side_effects: hook.side_effects,
                timeout: hook.timeout_seconds,
                versions: hook.admission_review_versions,
                client: hook.client_config,
                reinvoked: false,
            });
        Self::of(count, common)
    }

    fn of(count: usize, hooks: impl Iterator<Item = Common>) -> Option<Self> {
        let hooks: Vec<_> = hooks.filter_map(hook).map(Arc::new).collect();
        (!hooks.is_empty()).then_some(Self { count, hooks })
    }
}

impl Configured for api::MutatingWebhookConfiguration {
    type Kept = Configuration;

    fn expressions(&self) -> Option<usize> {
        let hooks = self.webhooks.iter().flatten();
        length(hooks.map(|hook| (&hook.rules, &hook.match_conditions)))
    }

    fn read(self) -> Option<Configuration> {
        Configuration::mutating(self)
    }
}

impl Configured for api::ValidatingWebhookConfiguration {
    type Kept = Configuration;

    fn expressions(&self) -> Option<usize> {
        let hooks = self.webhooks.iter().flatten();
        length(hooks.map(|hook| (&hook.rules, &hook.match_conditions)))
    }

    fn read(self) -> Option<Configuration> {
        Configuration::validating(self)
    }
}

type Rules = Option<Vec<api::RuleWithOperations>>;
type Conditions = Option<Vec<api::MatchCondition>>;

/// Bytes of the expressions of the webhooks that may concern us; nothing if none may.
fn length<'a>(hooks: impl Iterator<Item = (&'a Rules, &'a Conditions)>) -> Option<usize> {
    let ours = |rules: &Rules| {
        rules
            .iter()
            .flatten()
            .cloned()
            .map(rule)
            .any(|rule| rule.concerns_us())
    };
    let mut sum = None;
    for (_, conditions) in hooks.filter(|(rules, _)| ours(rules)) {
        let conditions = conditions.iter().flatten();
        let bytes: usize = conditions.map(|condition| condition.expression.len()).sum();
        sum = Some(sum.unwrap_or(0) + bytes);
    }
    sum
}

fn rule(rule: api::RuleWithOperations) -> Rule {
    Rule {
        operations: rule.operations.unwrap_or_default(),
        groups: rule.api_groups.unwrap_or_default(),
        versions: rule.api_versions.unwrap_or_default(),
        resources: rule.resources.unwrap_or_default(),
        names: Vec::new(),
        scope: rule.scope.unwrap_or_default(),
    }
}

fn hook(of: Common) -> Option<Hook> {
    let rules = of.rules.unwrap_or_default().into_iter();
    let rules: Vec<Rule> = rules.map(rule).filter(Rule::concerns_us).collect();
    if rules.is_empty() {
        return None;
    }
    let seconds = of.timeout.unwrap_or(TIMEOUT).clamp(1, 30);
    let version = of
        .versions
        .iter()
        .find_map(|version| match version.as_str() {
            "v1" => Some(Version::V1),
            "v1beta1" => Some(Version::V1Beta1),
            _ => None,
        });
    Some(Hook {
        configuration: of.configuration,
        name: of.name,
        position: of.position,
        rules,
        namespaces: Selector::new(of.namespaces.as_ref()),
        objects: Selector::new(of.objects.as_ref()),
        conditions: Condition::all(of.conditions, &NAMES),
        ignores_failures: of.failure_policy.as_deref() == Some("Ignore"),
        reinvoked: of.reinvoked,
        takes_dry_runs: matches!(of.side_effects.as_str(), "None" | "NoneOnDryRun"),
        timeout: Duration::from_secs(seconds.unsigned_abs().into()),
        version,
        endpoint: Endpoint::new(of.client),
    })
}
