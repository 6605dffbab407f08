//! Whether a configuration is about a request: rules and label selectors. Pure.

use std::collections::BTreeMap;

use apiservice::Scope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::Value;

use super::attributes::Attributes;

const ANY: &str = "*";

/// Operations on resources; each list may have `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub operations: Vec<String>,
    pub groups: Vec<String>,
    pub versions: Vec<String>,
    /// `R`, `R/S`, `*`, `*/*`, `R/*` or `*/S`.
    pub resources: Vec<String>,
    /// Names of objects; none: all.
    pub names: Vec<String>,
    /// `Namespaced`, `Cluster` or `*`; empty as well.
    pub scope: String,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == ANY || one == wanted)
}

impl Rule {
    /// Whether it can be about anything that is served here.
    pub fn concerns_us(&self) -> bool {
        has(&self.groups, apiservice::GROUP)
            && has(&self.versions, apiservice::VERSION)
            && self.resources.iter().any(|resource| {
                let name = resource.split('/').next().unwrap_or_default();
                name == ANY || apiservice::find(name).is_some()
            })
    }

    /// Whether it is about a request.
    pub fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let namespaced = attributes.resource.scope == Scope::Namespaced;
        let scope = match self.scope.as_str() {
            "" | ANY => true,
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => false,
        };
        let named = self.names.is_empty() || self.names.contains(&attributes.name);
        scope
            && named
            && has(&self.operations, attributes.operation.as_str())
            && has(&self.groups, apiservice::GROUP)
            && has(&self.versions, apiservice::VERSION)
            && self.resource(attributes)
    }

    fn resource(&self, attributes: &Attributes<'_>) -> bool {
        self.resources.iter().any(|resource| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            (resource == ANY || resource == attributes.resource.plural)
                && (subresource == ANY || subresource == attributes.subresource)
        })
    }
}

/// Labels that select; empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Of what a configuration says.
    ///
    /// # Errors
    /// For an operator that is none.
    pub fn new(selector: Option<&meta::LabelSelector>) -> Result<Self, String> {
        let Some(selector) = selector else {
            return Ok(Self::default());
        };
        let labels = selector.match_labels.iter().flatten();
        let mut all: Vec<Requirement> = labels
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.clone()],
            })
            .collect();
        for expression in selector.match_expressions.iter().flatten() {
            all.push(Requirement {
                key: expression.key.clone(),
                operator: match expression.operator.as_str() {
                    "In" => Operator::In,
                    "NotIn" => Operator::NotIn,
                    "Exists" => Operator::Exists,
                    "DoesNotExist" => Operator::DoesNotExist,
                    other => return Err(format!("{other:?} is not a valid label selector operator")),
                },
                values: expression.values.clone().unwrap_or_default(),
            });
        }
        Ok(Self(all))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it selects what has these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.select(|key| labels.get(key).map(String::as_str))
    }

    /// Whether it selects one of these objects.
    pub fn matches_any(&self, objects: [Option<&Value>; 2]) -> bool {
        let mut objects = objects.into_iter().flatten();
        self.is_empty()
            || objects.any(|object| {
                let labels = &object["metadata"]["labels"];
                self.select(|key| labels[key].as_str())
            })
    }

    fn select<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            let listed = |value: &str| requirement.values.iter().any(|one| one == value);
            match requirement.operator {
                Operator::In => value.is_some_and(listed),
                Operator::NotIn => !value.is_some_and(listed),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}
