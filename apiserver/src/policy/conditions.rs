//! Conditions of webhooks and policies: whether they are asked at all.

use k8s_openapi::api::admissionregistration::v1 as api;

use super::cel::{self, Budget, Program, Val};

/// A condition with its name.
#[derive(Clone, Debug)]
pub struct Condition {
    pub name: String,
    pub program: Program,
}

impl Condition {
    /// Of what a configuration says, over these names.
    pub fn all(conditions: Option<Vec<api::MatchCondition>>, names: &[&str]) -> Vec<Self> {
        let conditions = conditions.unwrap_or_default().into_iter();
        let condition = |condition: api::MatchCondition| Condition {
            program: Program::compile(&condition.expression, names),
            name: condition.name,
        };
        conditions.map(condition).collect()
    }
}

/// Whether all conditions hold; one that does not decides, whatever is wrong with others.
/// Nothing is evaluated after `until`.
///
/// # Errors
/// What is wrong with them.
pub fn holds<'a>(
    conditions: &[Condition],
    variables: &dyn cel::Resolve<'a>,
    until: std::time::Instant,
) -> Result<bool, String> {
    let budget = Budget::new(cel::CONDITIONS).ending(until);
    let mut wrong = Vec::new();
    for condition in conditions {
        match condition.program.evaluate(variables, &budget) {
            Ok(Val::Bool(true)) => {}
            Ok(Val::Bool(false)) => return Ok(false),
            Ok(other) => wrong.push(format!(
                "expression '{}' resulted in error: must evaluate to bool, not {}",
                condition.program.source(),
                other.type_name()
            )),
            Err(why @ cel::Unusable::OutOfBudget) => return Err(why.to_string()),
            Err(why) => wrong.push(why.to_string()),
        }
    }
    wrong.dedup();
    match wrong.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::policy::cel::Named;
    use crate::policy::hooks::NAMES;

    fn condition(source: &str) -> Condition {
        Condition {
            name: "c".to_owned(),
            program: Program::compile(source, &NAMES),
        }
    }

    /// R7.7: one that does not hold decides, whatever is wrong with others.
    #[test]
    fn conditions() {
        let object = json!({"metadata": {"name": "a"}});
        let null = Value::Null;
        let variables = [
            ("object", Val::from(&object)),
            ("oldObject", Val::from(&null)),
            ("request", Val::Null),
        ];
        let cases: [(&[&str], Result<bool, &str>); 6] = [
            (&[], Ok(true)),
            (
                &["object.metadata.name == 'a'", "oldObject == null"],
                Ok(true),
            ),
            (&["object.metadata.name == 'b'"], Ok(false)),
            (&["object.x.y", "object.metadata.name == 'b'"], Ok(false)),
            (
                &["object.x == 1", "object.metadata.name == 'a'"],
                Err("expression 'object.x == 1' resulted in error: no such key: x"),
            ),
            (
                &["object.x == 1", "object.y == 1"],
                Err(
                    "[expression 'object.x == 1' resulted in error: no such key: x, expression 'object.y == 1' resulted in error: no such key: y]",
                ),
            ),
        ];
        for (sources, expected) in cases {
            let conditions: Vec<_> = sources.iter().copied().map(condition).collect();
            let held = holds(&conditions, &Named(&variables), soon());
            assert_eq!(held, expected.map_err(str::to_owned), "{sources:?}");
        }
        let condition = condition("object.metadata.name");
        assert!(holds(&[condition], &Named(&variables), soon()).is_err());
    }

    fn soon() -> std::time::Instant {
        std::time::Instant::now() + Duration::from_secs(30)
    }
}
