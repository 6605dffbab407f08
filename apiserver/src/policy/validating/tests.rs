use super::*;
use serde_json::json;

fn policy(spec: Value) -> Policy {
    let mut spec = spec;
    spec["matchConstraints"] = json!({"resourceRules": [{"operations": ["*"], "apiGroups": ["*"],
        "apiVersions": ["*"], "resources": ["*"]}]});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"}, "spec": spec});
    Policy::read(serde_json::from_value(policy).unwrap()).unwrap()
}

fn decide(policy: &Policy, object: &Value, params: &Value) -> Decided {
    let (null, request) = (Value::Null, json!({"operation": "CREATE"}));
    policy.decide(&Values {
        object,
        old: &null,
        request: &request,
        params,
        namespace: &json!({"metadata": {"labels": {"env": "prod"}}}),
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
        Policy::read(serde_json::from_value(policy).unwrap())
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
    let ours = Policy::read(policy("*")).unwrap();
    for (policies, expected) in [
        (BTreeMap::new(), Ok(false)),
        (
            [("p".to_owned(), Arc::new(ours))].into(),
            Err(NotReady::TooMuch),
        ),
    ] {
        let all = ValidatingPolicies {
            policies: Source::known(policies),
            bindings: Source::too_much(),
            params: Params::new(None),
        };
        let identity = crate::authn::Identity {
            user: "a".to_owned(),
            uid: None,
            groups: Vec::new(),
            extra: Default::default(),
        };
        let attributes = Attributes {
            operation: crate::policy::Operation::Create,
            resource: apiservice::find("tenantcontrolplanes").unwrap(),
            subresource: "",
            namespace: Some("n"),
            name: "one".to_owned(),
            identity: &identity,
            dry_run: false,
            options: json!({}),
            deadline: tokio::time::Instant::now() + std::time::Duration::from_secs(30),
            warnings: &Default::default(),
            annotations: &Default::default(),
        };
        assert_eq!(all.concern(&attributes).await, expected);
    }
}
