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

impl std::fmt::Display for Selector {
    /// As in the query of a list.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, one) in self.0.iter().enumerate() {
            if at > 0 {
                out.write_str(",")?;
            }
            let (key, values) = (&one.key, one.values.join(","));
            match one.operator {
                Operator::In => write!(out, "{key} in ({values})")?,
                Operator::NotIn => write!(out, "{key} notin ({values})")?,
                Operator::Exists => write!(out, "{key}")?,
                Operator::DoesNotExist => write!(out, "!{key}")?,
            }
        }
        Ok(())
    }
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
                    other => {
                        return Err(format!("{other:?} is not a valid label selector operator"));
                    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::policy::Operation;
    use crate::policy::attributes::testing::Asked;
    use serde_json::json;

    /// A request by nobody in particular.
    pub fn with_attributes<T>(
        (operation, plural, subresource): (Operation, &str, &'static str),
        check: impl FnOnce(&Attributes<'_>) -> T,
    ) -> T {
        let mut asked = Asked::by_user("a");
        asked.identity.groups = vec!["g".to_owned()];
        let resource = apiservice::find(plural).unwrap();
        check(&Attributes {
            operation,
            resource,
            subresource,
            namespace: (resource.scope == Scope::Namespaced).then_some("n"),
            ..asked.creation()
        })
    }

    fn list(text: &str) -> Vec<String> {
        text.split(' ')
            .filter(|one| !one.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn rules_match() {
        use Operation::{Create, Delete, Update};
        let (tenants, stores) = ("tenantcontrolplanes", "datastores");
        let ours = apiservice::GROUP;
        // operations, groups, versions, resources, names, scope
        let cases = [
            (
                ["CREATE", ours, "v1alpha1", tenants, "", ""],
                (Create, tenants, ""),
                true,
            ),
            (
                ["CREATE", ours, "v1alpha1", tenants, "", ""],
                (Update, tenants, ""),
                false,
            ),
            (
                ["CREATE", ours, "v1alpha1", tenants, "", ""],
                (Create, stores, ""),
                false,
            ),
            (
                ["CREATE UPDATE", "*", "*", "*", "", "*"],
                (Update, tenants, ""),
                true,
            ),
            (
                ["*", "*", "*", "*", "", ""],
                (Update, tenants, "status"),
                false,
            ),
            (
                ["*", "*", "*", "*/*", "", ""],
                (Update, tenants, "status"),
                true,
            ),
            (["*", "*", "*", "*/*", "", ""], (Delete, tenants, ""), true),
            (
                ["*", "*", "*", "*/scale", "", ""],
                (Update, tenants, "scale"),
                true,
            ),
            (
                ["*", "*", "*", "*/scale", "", ""],
                (Update, tenants, ""),
                false,
            ),
            (
                ["*", "*", "*", "tenantcontrolplanes/*", "", ""],
                (Update, tenants, ""),
                true,
            ),
            (
                ["*", "*", "*", "tenantcontrolplanes/status", "", ""],
                (Update, tenants, "status"),
                true,
            ),
            (
                ["*", "*", "*", "datastores/*", "", ""],
                (Update, tenants, "status"),
                false,
            ),
            (
                ["*", "apps", "*", "*", "", ""],
                (Update, tenants, ""),
                false,
            ),
            (["*", ours, "v1", "*", "", ""], (Update, tenants, ""), false),
            (
                ["*", "*", "*", "*", "", "Namespaced"],
                (Update, tenants, ""),
                true,
            ),
            (
                ["*", "*", "*", "*", "", "Namespaced"],
                (Update, stores, ""),
                false,
            ),
            (
                ["*", "*", "*", "*", "", "Cluster"],
                (Update, stores, ""),
                true,
            ),
            (
                ["*", "*", "*", "*", "", "Cluster"],
                (Update, tenants, ""),
                false,
            ),
            (
                ["*", "*", "*", "*", "one two", ""],
                (Update, tenants, ""),
                true,
            ),
            (
                ["*", "*", "*", "*", "two", ""],
                (Update, tenants, ""),
                false,
            ),
            (["*", "", "*", "*", "", ""], (Update, tenants, ""), false),
        ];
        for (rule, request, expected) in cases {
            let [operations, groups, versions, resources, names, scope] = rule;
            let rule = Rule {
                operations: list(operations),
                groups: list(groups),
                versions: list(versions),
                resources: list(resources),
                names: list(names),
                scope: scope.to_owned(),
            };
            let matched = with_attributes(request, |attributes| rule.matches(attributes));
            assert_eq!(matched, expected, "{rule:?} {request:?}");
            assert!(!matched || rule.concerns_us(), "{rule:?}");
        }
        let others = Rule {
            groups: list("*"),
            versions: list("*"),
            resources: list("pods pods/*"),
            ..Rule::default()
        };
        assert!(!others.concerns_us());
    }

    #[test]
    fn selectors_select() {
        let expression =
            |key: &str, operator: &str, values: &[&str]| meta::LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            };
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let selector = |expressions: Vec<_>, pairs: &[(&str, &str)]| meta::LabelSelector {
            match_expressions: Some(expressions),
            match_labels: Some(labels(pairs)),
        };
        let cases = [
            (selector(vec![], &[]), vec![true, true, true]),
            (selector(vec![], &[("a", "1")]), vec![false, true, false]),
            (
                selector(vec![expression("a", "In", &["1", "2"])], &[]),
                vec![false, true, true],
            ),
            (
                selector(vec![expression("a", "NotIn", &["1"])], &[]),
                vec![true, false, true],
            ),
            (
                selector(vec![expression("a", "Exists", &[])], &[]),
                vec![false, true, true],
            ),
            (
                selector(vec![expression("a", "DoesNotExist", &[])], &[]),
                vec![true, false, false],
            ),
            (
                selector(vec![expression("a", "Exists", &[])], &[("a", "2")]),
                vec![false, false, true],
            ),
        ];
        let of = [
            labels(&[]),
            labels(&[("a", "1")]),
            labels(&[("a", "2"), ("b", "3")]),
        ];
        for (selector, expected) in cases {
            let selector = Selector::new(Some(&selector)).unwrap();
            let selected: Vec<bool> = of.iter().map(|labels| selector.matches(labels)).collect();
            assert_eq!(selected, expected, "{selector:?}");
            let objects = of
                .each_ref()
                .map(|labels| json!({"metadata": {"labels": labels}}));
            let seen: Vec<bool> = objects
                .iter()
                .map(|object| selector.matches_any([None, Some(object)]))
                .collect();
            assert_eq!(seen, expected, "{selector:?}");
        }
        let wrong = selector(vec![expression("a", "Like", &[])], &[]);
        assert!(Selector::new(Some(&wrong)).is_err());
        assert!(Selector::new(None).unwrap().is_empty());
        // Of a deletion there is the old object only, and nothing of neither.
        let selector = Selector::new(Some(&selector(vec![], &[("a", "1")]))).unwrap();
        assert!(!selector.matches_any([None, None]));
        assert_eq!(selector.to_string(), "a in (1)");
    }
}
