use k8s_openapi::api::admissionregistration::v1 as api;

use super::*;
use crate::policy::attributes::testing::Asked;
use crate::policy::cel::{self, Unusable};
use crate::policy::params::Params;
use crate::policy::questions::PLACES;
use crate::policy::source::{Configured, Source};
use serde_json::json;

fn policy(spec: Value) -> Policy {
    let mut spec = spec;
    spec["matchConstraints"] = json!({"resourceRules": [{"operations": ["*"], "apiGroups": ["*"],
        "apiVersions": ["*"], "resources": ["*"]}]});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"}, "spec": spec});
    Policy::read(serde_json::from_value(policy).unwrap())
}

fn decide(policy: &Policy, object: &Value, params: &Value) -> Decided {
    let (null, request) = (Value::Null, json!({"operation": "CREATE"}));
    policy.decide(&Values {
        object,
        old: &null,
        request: &request,
        params,
        namespace: &json!({"metadata": {"labels": {"env": "prod"}}}),
        questions: None,
        until: std::time::Instant::now() + cel::TIME,
    })
}

fn said(policy: &Policy, object: &Value, params: &Value) -> Vec<(String, String)> {
    let decided = decide(policy, object, params).refusals.into_iter();
    decided.map(|one| (one.message, one.reason)).collect()
}

#[test]
fn validations_and_their_messages() {
    let policy = policy(json!({
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "twice", "expression": "variables.replicas * 2"},
            {"name": "broken", "expression": "object.nothing"},
            {"name": "later", "expression": "variables.afterwards"},
            {"name": "afterwards", "expression": "1"},
        ],
        "validations": [
            {"expression": "variables.twice < 10"},
            {"expression": "variables.replicas < params.most", "message": " too many ", "reason": "Forbidden"},
            {"expression": "namespaceObject.metadata.labels.env != 'prod'",
                "messageExpression": "'not in ' + namespaceObject.metadata.labels.env", "message": "m"},
            {"expression": "variables.replicas < 4", "messageExpression": "'a\\nb'", "message": "m"},
            {"expression": "variables.replicas < 4", "messageExpression": "object.nothing"},
            {"expression": "variables.broken == 1"},
            {"expression": "variables.later == 1"},
        ],
    }));
    let object = json!({"spec": {"replicas": 5}});
    let pairs = |message: &str, reason: &str| (message.to_owned(), reason.to_owned());
    assert_eq!(
        said(&policy, &object, &json!({"most": 3})),
        [
            pairs("failed expression: variables.twice < 10", ""),
            pairs("too many", "Forbidden"),
            pairs("not in prod", ""),
            pairs("m", ""),
            pairs("failed expression: variables.replicas < 4", ""),
            pairs(
                "expression 'variables.broken == 1' resulted in error: composited variable \"broken\" fails to evaluate: no such key: nothing",
                ""
            ),
            // A variable knows those before it only.
            pairs(
                "expression 'variables.later == 1' resulted in error: composited variable \"later\" fails to evaluate: undefined field 'afterwards'",
                ""
            ),
        ]
    );
}

#[test]
fn conditions_and_failures() {
    let object = json!({"spec": {"replicas": 5}});
    let spec = |condition: &str, failure: &str| {
        json!({"failurePolicy": failure, "matchConditions": [{"name": "c", "expression": condition}],
            "validations": [{"expression": "false", "message": "no"}, {"expression": "object.x"}]})
    };
    let messages = |condition: &str, failure: &str| -> Vec<String> {
        let said = said(&policy(spec(condition, failure)), &object, &Value::Null);
        said.into_iter().map(|(message, _)| message).collect()
    };
    assert!(messages("object.spec.replicas > 6", "Fail").is_empty());
    assert_eq!(messages("request.operation == 'CREATE'", "Ignore"), ["no"]);
    assert_eq!(
        messages("request.operation == 'CREATE'", "Fail"),
        [
            "no",
            "expression 'object.x' resulted in error: no such key: x"
        ]
    );
    let failing = "expression 'object.y' resulted in error: no such key: y";
    assert_eq!(messages("object.y", "Fail"), [failing]);
    assert!(messages("object.y", "Ignore").is_empty());
}

#[test]
fn annotations() {
    let policy = policy(json!({"validations": [], "auditAnnotations": [
        {"key": "a", "valueExpression": "' ' + object.spec.name"},
        {"key": "b", "valueExpression": "null"},
        {"key": "c", "valueExpression": "''"},
        {"key": "d", "valueExpression": "1"},
        {"key": "e", "valueExpression": "object.nothing"},
    ]}));
    let decided = decide(&policy, &json!({"spec": {"name": "x"}}), &Value::Null);
    assert_eq!(decided.annotations, [("a".to_owned(), "x".to_owned())]);
    assert_eq!(decided.broken.len(), 2);
    assert!(decided.broken[0].contains("unsupported return type: int"));
}

/// What one policy takes is bounded, whatever its variables do.
#[test]
fn what_a_policy_takes_is_bounded() {
    let many: Vec<u32> = (0..3_000).collect();
    let expression = "object.l.all(a, object.l.all(b, true))";
    let policy = policy(json!({
        "variables": [{"name": "v", "expression": expression}],
        "validations": vec![json!({"expression": format!("variables.v && {expression}")}); 100],
    }));
    let began = std::time::Instant::now();
    let said = said(&policy, &json!({"l": many}), &Value::Null);
    assert_eq!(
        said[0].0,
        "validation failed due to running out of cost budget, no further validation rules will be run"
    );
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn policies_about_others_are_not_kept() {
    let of = |resource: &str| {
        let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [
            {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]}]}}});
        let policy: api::ValidatingAdmissionPolicy = serde_json::from_value(policy).unwrap();
        policy.expressions()
    };
    assert!(of("pods").is_none() && of("datastores").is_some() && of("*/status").is_some());
}

/// Bindings of other people's policies are not kept; too many others stop only what a policy
/// is about.
#[tokio::test]
async fn too_many_bindings_stop_nobody_without_a_policy() {
    let binding = |group: &str| -> api::ValidatingAdmissionPolicyBinding {
        let rule = json!({"operations": ["*"], "apiGroups": [group], "apiVersions": ["*"], "resources": ["*"]});
        serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": {
            "policyName": "p", "matchResources": {"resourceRules": [rule]}}}))
        .unwrap()
    };
    assert_eq!(binding("apps").expressions(), None);
    assert_eq!(binding("*").expressions(), Some(0));
    let policy = |group: &str| -> api::ValidatingAdmissionPolicy {
        let rule = json!({"operations": ["*"], "apiGroups": [group], "apiVersions": ["*"], "resources": ["*"]});
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "true", "messageExpression": "'ab'"}],
            "variables": [{"name": "a", "expression": "1"}],
            "matchConditions": [{"name": "a", "expression": "true"}],
            "auditAnnotations": [{"key": "a", "valueExpression": "'a'"}]}}))
        .unwrap()
    };
    assert_eq!(policy("apps").expressions(), None);
    assert_eq!(policy("*").expressions(), Some(4 + 4 + 1 + 4 + 3));
    let ours = Policy::read(policy("*"));
    for (policies, expected) in [
        (BTreeMap::new(), Ok(false)),
        (
            [("p".to_owned(), Arc::new(ours))].into(),
            Err(NotReady::TooMuch),
        ),
    ] {
        let all = PolicySet {
            policies: Source::known(policies),
            bindings: Source::too_much(),
            params: Arc::new(Params::new(None)),
        };
        let asked = Asked::by_user("a");
        let attributes = asked.creation();
        assert_eq!(all.concern(&attributes).await, expected);
    }
}

/// The stack of a worker of the runtime.
fn on_a_small_stack(what: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    thread.spawn(what).unwrap().join().unwrap();
}

/// Each variable is as deep as an expression may be, and asks for the one before it.
#[test]
fn variables_in_variables_are_as_deep_as_one_expression() {
    on_a_small_stack(|| {
        let (open, close) = ("[".repeat(60), "][0]".repeat(60));
        let chain = |length: usize| -> Vec<Value> {
            let expression = |n: usize| match n {
                0 => "true".to_owned(),
                n => format!("{open}variables.v{}{close}", n - 1),
            };
            let variable = |n| json!({"name": format!("v{n}"), "expression": expression(n)});
            (0..length).map(variable).collect()
        };
        let decided = |length: usize, failure: &str| {
            let policy = policy(json!({"variables": chain(length), "failurePolicy": failure,
                "validations": [{"expression": format!("variables.v{}", length - 1)}]}));
            said(&policy, &json!({}), &Value::Null)
        };
        assert!(decided(2, "Fail").is_empty());
        let deep = decided(20, "Fail");
        assert_eq!(deep.len(), 1);
        assert!(
            deep[0].0.ends_with("the expression is nested too deep"),
            "{deep:?}"
        );
        assert!(decided(20, "Ignore").is_empty());
    });
}

/// Values that are nested as deep as there are variables would overflow the stack of
/// whoever compares, prints or drops them.
#[test]
fn values_of_variables_are_not_nested_deeper_than_they_may_be() {
    on_a_small_stack(|| {
        for (open, close) in [("[", "]"), ("{'a': ", "}"), ("optional.of(", ")")] {
            let expression = |n: usize| match n {
                0 => "[1]".to_owned(),
                n => format!("{open}dyn(variables.v{}){close}", n - 1),
            };
            let variable = |n| json!({"name": format!("v{n}"), "expression": expression(n)});
            let variables: Vec<Value> = (0..2_000).map(variable).collect();
            // In rows, so that none is evaluated deep within another.
            let rows = (0..2_000)
                .step_by(20)
                .map(|n| format!("type(variables.v{n}) == list || true"));
            let rows: Vec<String> = rows
                .chain(["variables.v1999 == variables.v1999".to_owned()])
                .collect();
            let rows = rows.iter().map(|row| json!({"expression": row}));
            let policy =
                policy(json!({"variables": variables, "validations": rows.collect::<Vec<_>>()}));
            let told = said(&policy, &json!({}), &Value::Null);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(
                told[0].0.ends_with("the value is nested too deep"),
                "{told:?}"
            );
        }
    });
}

/// The only worker of a runtime goes on with other requests meanwhile.
#[test]
#[allow(clippy::disallowed_methods, reason = "the other task of the test")]
fn an_evaluation_keeps_no_worker_from_others() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    let both = runtime.spawn(async move {
        tokio::spawn(async move { sender.send(()) });
        // Only the other task ends it, and there is no other worker.
        let wait = std::time::Duration::from_secs(20);
        let waits = move || receiver.recv_timeout(wait).is_ok();
        PLACES.run_by(until, "somebody", waits).await
    });
    assert_eq!(runtime.block_on(both).unwrap(), Some(true));
}

/// One policy has only so long, whatever its steps say, and the request no longer.
#[test]
fn an_evaluation_ends_when_the_answer_is_due() {
    let policy = policy(json!({"validations":
        [{"expression": "lists.range(20000).all(i, i >= 0)"}, {"expression": "false"}]}));
    let (null, until) = (Value::Null, std::time::Instant::now());
    let decided = policy.decide(&Values {
        object: &null,
        old: &null,
        request: &null,
        params: &null,
        namespace: &null,
        questions: None,
        until,
    });
    assert_eq!(decided.refusals.len(), 1);
    let out = Unusable::OutOfBudget.to_string();
    assert_eq!(decided.refusals[0].message, out);
}

/// Variables of a long list are found at once.
#[test]
fn the_last_variable_of_a_name_is_the_one() {
    let policy = policy(json!({
        "variables": [{"name": "a", "expression": "1"}, {"name": "b", "expression": "variables.a"},
            {"name": "a", "expression": "2"}],
        "validations": [{"expression": "variables.a == 2 && variables.b == 1"}],
    }));
    assert!(said(&policy, &Value::Null, &Value::Null).is_empty());
}
