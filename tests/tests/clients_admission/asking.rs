//! Policies, and conditions of webhooks, that ask the authorizer about who calls: one who has
//! the right that they ask for, and one who has not.

use serde_json::{Value, json};

use crate::scenarios::{JSON, MERGE, WHOLE, hook};
use crate::side::{Call, Scenario};

/// Both may write tenants. One may open a gate, of whatever kind that is, in this namespace.
const RIGHTS: &[Call] = &[
    (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        JSON,
        r#"{"metadata":{"name":"writers"},"rules":[{"apiGroups":["steward.butlerlabs.dev"],
        "resources":["tenantcontrolplanes","tenantcontrolplanes/scale"],"verbs":["*"]}]}"#,
    ),
    (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        JSON,
        r#"{"metadata":{"name":"writers"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"writers"},
        "subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"anna"},{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"bob"}]}"#,
    ),
    (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
        JSON,
        r#"{"metadata":{"name":"gates"},"rules":[{"apiGroups":["example.com"],"resources":["gates"],"resourceNames":["h"],"verbs":["open"]},
        {"apiGroups":["example.com"],"resources":["gates/lock"],"verbs":["turn"]}]}"#,
    ),
    (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
        JSON,
        r#"{"metadata":{"name":"gates"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"gates"},
        "subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"anna"}]}"#,
    ),
];

const CALLS: &[Call] = &[
    ("POST", "", JSON, WHOLE),
    ("GET", "/h", "", ""),
    (
        "PATCH",
        "/h",
        MERGE,
        r#"{"metadata":{"annotations":{"x":"y"}}}"#,
    ),
    ("PATCH", "/h/scale", MERGE, r#"{"spec":{"replicas":3}}"#),
    ("GET", "/h", "", ""),
    ("DELETE", "/h", "", ""),
];

const OPEN: &str = "authorizer.group('example.com').resource('gates').namespace('default').name('h').check('open')";
const TURN: &str = "authorizer.group('example.com').resource('gates').subresource('lock').namespace('default').check('turn')";

const ALL_PASS: [u16; 6] = [201, 200, 200, 200, 200, 200];
const UPDATES_403: [u16; 6] = [201, 200, 403, 403, 200, 200];
/// The webhook that labels is asked about the deletion as well, which has no object.
const DELETION_500: [u16; 6] = [201, 200, 200, 200, 200, 500];
const UPDATES_422: [u16; 6] = [201, 200, 422, 422, 200, 200];

fn asking(name: &'static str, user: &'static str) -> Scenario {
    Scenario {
        name,
        setup: RIGHTS,
        calls: CALLS,
        user,
        ..Scenario::default()
    }
}

/// What validates, and asks.
fn validating() -> Vec<Value> {
    vec![json!({
        "variables": [
            {"name": "created", "expression": "request.operation != 'UPDATE'"},
            {"name": "may", "expression": format!("{OPEN}.allowed()")},
        ],
        "validations": [
            {"expression": format!("variables.created || variables.may && {TURN}.allowed()"),
                "message": "the gate is shut", "reason": "Forbidden"},
            {"expression": format!("!variables.may || {OPEN}.reason().contains('RBAC: allowed by RoleBinding \"gates/default\"')")},
            {"expression": format!("!{OPEN}.errored() && {OPEN}.error() == ''")},
            {"expression": "authorizer.requestResource.check('update').allowed() && !authorizer.requestResource.name('other').subresource('none').check('update').allowed()"},
            {"expression": "authorizer.path('/version').check('get').allowed() && !authorizer.path('/metrics').check('get').allowed()"},
            {"expression": "!authorizer.serviceAccount('default', 'default').group('').resource('pods').check('get').allowed()"},
            {"expression": "!authorizer.group('').resource('pods').labelSelector('a in (b)').fieldSelector('x=y').check('list').allowed()"},
        ],
    })]
}

/// What both go through.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (user, named) in [("anna", 0), ("bob", 1)] {
        let name = |names: [&'static str; 2]| names[named];
        all.push(Scenario {
            policies: validating(),
            codes: [&ALL_PASS, &UPDATES_403][named],
            ..asking(name(["asking: a right", "asking: no right"]), user)
        });
        let opens = json!([{"name": "may", "expression": format!("{OPEN}.allowed()")}]);
        let shut = json!([{"name": "may", "expression": format!("!{OPEN}.allowed()")}]);
        let with = |path: &str, conditions: &Value| {
            let mut hook = hook(path);
            hook["matchConditions"] = conditions.clone();
            hook
        };
        all.push(Scenario {
            mutating: vec![with("label", &shut)],
            validating: vec![with("warn", &opens)],
            policies: vec![json!({"matchConditions": opens,
                "validations": [{"expression": "request.operation != 'UPDATE'", "message": "not for those who may"}]})],
            codes: [&UPDATES_422, &DELETION_500][named],
            ..asking(
                name(["asking: conditions and a right", "asking: conditions and no right"]),
                user,
            )
        });
        let gate = format!(
            "Object{{metadata: Object.metadata{{labels: {{'gate': {OPEN}.allowed() ? 'open' : 'shut'}}}}}}"
        );
        let lock = format!(
            "object.metadata.labels['gate'] == 'open' && {TURN}.allowed() ? [JSONPatch{{op: 'add', path: '/metadata/labels/lock', value: 'turned'}}] : []"
        );
        all.push(Scenario {
            changing: vec![json!({
                "matchConditions": [{"name": "writes", "expression": "object.kind == 'TenantControlPlane' && authorizer.requestResource.check('update').allowed()"}],
                "mutations": [
                    {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": gate}},
                    {"patchType": "JSONPatch", "jsonPatch": {"expression": lock}},
                ],
            })],
            ..asking(
                name(["asking: mutations and a right", "asking: mutations and no right"]),
                user,
            )
        });
    }
    let wrong = [
        (
            "asking: messages",
            json!({
                "variables": [{"name": "may", "expression": format!("{OPEN}.allowed()")}],
                "validations": [{"expression": "variables.may", "messageExpression": "variables.may ? 'a' : 'b'", "message": "said plainly"}],
            }),
        ),
        (
            "asking: annotations",
            json!({
                "validations": [{"expression": "true"}],
                "auditAnnotations": [{"key": "why", "valueExpression": format!("{OPEN}.reason()")}],
            }),
        ),
        (
            "asking: no path",
            json!({"validations": [{"expression": "authorizer.path('').check('get').allowed()"}]}),
        ),
        (
            "asking: no account",
            json!({"validations": [{"expression": "authorizer.serviceAccount('n', 'A').path('/a').check('get').allowed()"}]}),
        ),
        (
            "asking: too often",
            json!({"validations": [{"expression":
            "[1, 2, 3].all(i, !authorizer.path('/' + string(i)).check('get').allowed())"}]}),
        ),
        (
            "asking: errors that are ignored",
            json!({"failurePolicy": "Ignore",
            "validations": [{"expression": "authorizer.path('').check('get').allowed()"}]}),
        ),
    ];
    for (name, policy) in wrong {
        all.push(Scenario {
            policies: vec![policy],
            ..asking(name, "bob")
        });
    }
    all.push(Scenario {
        policies: vec![libraries()],
        ..asking("libraries of versions, URLs and formats", "")
    });
    all
}

/// What an expression of each library says, in a policy that is stored.
fn libraries() -> Value {
    let expressions = [
        "isURL('https://a.b:80/c?d=e') && url('https://a.b:80/c%20d?d=e').getQuery()['d'] == ['e'] && url('https://a:1').getPort() == '1'",
        "semver(object.spec.kubernetes.version, true).isGreaterThan(semver('1.9.10')) && semver('1.2.3').minor() == 2",
        "!format.dns1123Label().validate(object.metadata.name).hasValue() && format.named('uuid').value().validate('x').hasValue()",
        "[3, 1, 2].sortBy(i, -i) == [3, 2, 1] && {'a': 1}.transformMapEntry(k, v, {v: k}) == {1: 'a'} && [1].first().value() == 1",
        "google.protobuf.StringValue{value: 'a'} == 'a' && timestamp('2026-07-04T00:04:05Z').getHours('Local') == 0",
        "type(ip('::1')) == net.IP && optional.unwrap([optional.of(1)]) == [1]",
        "object.metadata.name == 'none'",
    ];
    let expressions = expressions.map(|one| json!({"expression": format!("object == null || !has(object.spec) || !has(object.spec.kubernetes) || {one}")}));
    json!({"validations": expressions})
}
