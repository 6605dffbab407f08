//! Checks of what a tenant asks of the DataStore that it is assigned, in the words in
//! which Kubernetes judges label selectors and tolerations.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

use crate::field::{Error, Errors, Path};
use crate::v1alpha1::{DataStoreToleration, TenantControlPlaneSpec, TolerationOperator};

pub(super) fn check(
    new: &TenantControlPlaneSpec,
    old: Option<&TenantControlPlaneSpec>,
    errors: &mut Errors,
) {
    if old.is_some_and(|old| old.data_store_assignment == new.data_store_assignment) {
        return;
    }
    let Some(assignment) = &new.data_store_assignment else {
        return;
    };
    let path = Path::new("spec.dataStoreAssignment");
    let selector = assignment.selector.as_ref();
    let expressions = selector.and_then(|it| it.match_expressions.as_ref());
    let at = path.child("selector").child("matchExpressions");
    for (position, expression) in expressions.into_iter().flatten().enumerate() {
        requirement(&at.index(position), expression, errors);
    }
    let at = path.child("tolerations");
    for (position, it) in assignment.tolerations.iter().enumerate() {
        toleration(&at.index(position), it, errors);
    }
}

fn requirement(path: &Path, expression: &LabelSelectorRequirement, errors: &mut Errors) {
    let values = expression.values.as_ref().is_some_and(|it| !it.is_empty());
    let at = path.child("values");
    match expression.operator.as_str() {
        "In" | "NotIn" if !values => errors.push(Error::required(
            &at,
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if values => errors.push(Error::forbidden(
            &at,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(Error::invalid(
            &path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
}

fn toleration(path: &Path, it: &DataStoreToleration, errors: &mut Errors) {
    let empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    match it.operator {
        TolerationOperator::Equal if empty(&it.key) => errors.push(Error::invalid(
            &path.child("operator"),
            "Equal",
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        )),
        TolerationOperator::Exists if !empty(&it.value) => errors.push(Error::invalid(
            &path.child("operator"),
            "Exists",
            "value must be empty when `operator` is 'Exists'",
        )),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_and_tolerations() {
        let spec = |assignment| {
            let spec = json!({"dataStoreAssignment": assignment});
            serde_json::from_value::<TenantControlPlaneSpec>(spec).unwrap()
        };
        let of = |new: &TenantControlPlaneSpec, old: Option<&TenantControlPlaneSpec>| {
            let mut errors = Errors::new();
            check(new, old, &mut errors);
            errors.iter().map(Error::to_string).collect::<Vec<_>>()
        };
        let bad = spec(json!({
            "selector": {"matchExpressions": [
                {"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["b"]},
                {"key": "a", "operator": "Like", "values": ["b"]},
                {"key": "a", "operator": "NotIn", "values": ["b"]},
            ]},
            "tolerations": [{}, {"operator": "Exists", "value": "v"}, {"operator": "Exists"}],
        }));
        let at = "spec.dataStoreAssignment";
        assert_eq!(
            of(&bad, None),
            [
                format!(
                    "{at}.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
                ),
                format!(
                    "{at}.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                ),
                format!(
                    "{at}.selector.matchExpressions[2].operator: Invalid value: \"Like\": not a valid selector operator"
                ),
                format!(
                    "{at}.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\""
                ),
                format!(
                    "{at}.tolerations[1].operator: Invalid value: \"Exists\": value must be empty when `operator` is 'Exists'"
                ),
            ]
        );
        assert!(
            of(&bad, Some(&bad)).is_empty(),
            "what was there is not blamed again"
        );
        assert!(of(&spec(json!({})), None).is_empty());
    }
}
