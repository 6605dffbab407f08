//! Which requests a policy or a binding is about.

use k8s_openapi::api::admissionregistration::v1 as api;

use super::asked::{Asked, Objects};
use super::attributes::Attributes;
use super::rules::{Rule, Selector};
use crate::status::Failure;

/// See the module.
#[derive(Debug, Default)]
pub struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    namespaces: Selector,
    objects: Selector,
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

/// Whether rules may be about anything of ours; without any they are.
pub fn may_concern_us(of: &api::MatchResources) -> bool {
    let rules = rules(of.resource_rules.clone());
    rules.is_empty() || rules.iter().any(Rule::concerns_us)
}

impl Matching {
    /// Of what the cluster has.
    ///
    /// # Errors
    /// For a selector that is none.
    pub fn new(of: api::MatchResources) -> Result<Self, String> {
        Ok(Self {
            rules: rules(of.resource_rules),
            excluded: rules(of.exclude_resource_rules),
            namespaces: Selector::new(of.namespace_selector.as_ref())?,
            objects: Selector::new(of.object_selector.as_ref())?,
        })
    }

    /// Whether the request is one of these, as far as the rules say.
    pub fn concerns(&self, attributes: &Attributes<'_>) -> bool {
        let of = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(attributes));
        !of(&self.excluded) && (self.rules.is_empty() || of(&self.rules))
    }

    /// Whether it is.
    ///
    /// # Errors
    /// 500 when the cluster does not say what labels the namespace has.
    pub async fn matches(&self, asked: &Asked<'_>) -> Result<bool, Failure> {
        let Objects { new, old } = asked.objects;
        Ok(self.concerns(asked.attributes)
            && self.objects.matches_any([new, old])
            && asked.labels.selected(&self.namespaces).await?)
    }
}
