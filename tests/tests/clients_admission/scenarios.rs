//! What both servers go through.

use serde_json::{Value, json};

use crate::mutations;
use crate::side::{Call, Scenario};

pub const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
pub const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

pub const WHOLE: &str = r#"{"apiVersion":"steward.butlerlabs.dev/v1alpha1","kind":"TenantControlPlane",
"metadata":{"name":"h"},"spec":{"dataStore":"default","kubernetes":{"version":"v1.36.3",
"kubelet":{"preferredAddressTypes":["InternalIP"]}},"controlPlane":{"deployment":{"replicas":2},
"service":{"serviceType":"ClusterIP"}}}}"#;
const GENERATED: &str = r#"{"apiVersion":"steward.butlerlabs.dev/v1alpha1","kind":"TenantControlPlane",
"metadata":{"generateName":"g-"},"spec":{"dataStore":"default","kubernetes":{"version":"v1.36.3","kubelet":{"preferredAddressTypes":["InternalIP"]}},"controlPlane":{"deployment":{"replicas":2},
"service":{"serviceType":"ClusterIP"}}}}"#;
pub const LABELLED: &str = r#"{"apiVersion":"steward.butlerlabs.dev/v1alpha1","kind":"TenantControlPlane",
"metadata":{"name":"l","labels":{"team":"a"}},"spec":{"dataStore":"default","kubernetes":{"version":"v1.36.3","kubelet":{"preferredAddressTypes":["InternalIP"]}},"controlPlane":{"deployment":{"replicas":2},
"service":{"serviceType":"ClusterIP"}}}}"#;

/// One of every way to write.
pub const EVERYTHING: &[Call] = &[
    (
        "POST",
        "?fieldManager=first&fieldValidation=Strict",
        JSON,
        WHOLE,
    ),
    ("POST", "?dryRun=All", JSON, LABELLED),
    ("POST", "", JSON, WHOLE),
    ("POST", "", JSON, GENERATED),
    ("PATCH", "/h", MERGE, r#"{"metadata":{"labels":{"x":"y"}}}"#),
    (
        "PATCH",
        "/h?dryRun=All&fieldManager=x",
        JSON_PATCH,
        r#"[{"op":"add","path":"/metadata/annotations","value":{"a":"b"}}]"#,
    ),
    // Nothing changes.
    ("PATCH", "/h", MERGE, "{}"),
    ("PATCH", "/h?fieldManager=flux&force=true", APPLY, WHOLE),
    (
        "PATCH",
        "/new?fieldManager=flux",
        APPLY,
        "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\nmetadata:\n  name: new\nspec:\n  dataStore: default\n  kubernetes: {version: v1.36.3, kubelet: {preferredAddressTypes: [InternalIP]}}\n  controlPlane: {deployment: {replicas: 1}, service: {serviceType: ClusterIP}}\n",
    ),
    ("PATCH", "/h/scale", MERGE, r#"{"spec":{"replicas":5}}"#),
    (
        "PATCH",
        "/h/status",
        MERGE,
        r#"{"status":{"kubernetesResources":{"version":{"status":"Ready"}}}}"#,
    ),
    (
        "PATCH",
        "/h/status?fieldManager=s&force=true",
        APPLY,
        "apiVersion: steward.butlerlabs.dev/v1alpha1\nkind: TenantControlPlane\nmetadata: {name: h}\nstatus: {kubernetesResources: {version: {status: NotReady}}}\n",
    ),
    ("PATCH", "/none", MERGE, "{}"),
    ("GET", "/h", "", ""),
    ("DELETE", "/none", "", ""),
    ("DELETE", "/new?dryRun=All", "", ""),
    (
        "DELETE",
        "/new?gracePeriodSeconds=3&propagationPolicy=Background",
        "",
        "",
    ),
    (
        "PATCH",
        "/h",
        MERGE,
        r#"{"metadata":{"finalizers":["a.example/b"]}}"#,
    ),
    (
        "DELETE",
        "/h",
        JSON,
        r#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Foreground","preconditions":{}}"#,
    ),
    ("PATCH", "/h", MERGE, r#"{"metadata":{"finalizers":null}}"#),
    ("DELETE", "", "", ""),
    ("GET", "/h", "", ""),
];

pub const CREATE_AND_CHANGE: &[Call] = &[
    ("POST", "", JSON, WHOLE),
    ("GET", "/h", "", ""),
    (
        "PATCH",
        "/h",
        MERGE,
        r#"{"metadata":{"annotations":{"x":"y"}}}"#,
    ),
    ("PATCH", "/h?fieldManager=flux&force=true", APPLY, WHOLE),
    (
        "PATCH",
        "/h/status",
        MERGE,
        r#"{"status":{"kubernetesResources":{"version":{"status":"Ready"}}}}"#,
    ),
    ("GET", "/h", "", ""),
    ("DELETE", "/h", "", ""),
];

pub const SCALES: &[Call] = &[
    ("POST", "", JSON, WHOLE),
    ("PATCH", "/h/scale", MERGE, r#"{"spec":{"replicas":5}}"#),
    ("GET", "/h", "", ""),
    ("PATCH", "/h/scale", MERGE, r#"{"spec":{"replicas":2}}"#),
    ("DELETE", "/h", "", ""),
];

pub const DRY: &[Call] = &[
    ("POST", "?dryRun=All", JSON, WHOLE),
    ("POST", "", JSON, WHOLE),
    (
        "PATCH",
        "/h?dryRun=All",
        MERGE,
        r#"{"metadata":{"annotations":{"x":"y"}}}"#,
    ),
    ("DELETE", "/h?dryRun=All", "", ""),
    ("DELETE", "/h", "", ""),
];

pub const SELECTED: &[Call] = &[
    ("POST", "", JSON, LABELLED),
    ("POST", "", JSON, WHOLE),
    ("PATCH", "/l", MERGE, r#"{"metadata":{"labels":null}}"#),
    (
        "PATCH",
        "/h",
        MERGE,
        r#"{"metadata":{"labels":{"team":"a"}}}"#,
    ),
    (
        "PATCH",
        "/h",
        MERGE,
        r#"{"metadata":{"annotations":{"x":"y"}}}"#,
    ),
    ("DELETE", "/h", "", ""),
    ("DELETE", "/l", "", ""),
];

pub fn hook(path: &str) -> Value {
    json!({"name": format!("{path}.example.com"), "path": path})
}

fn with(path: &str, more: Value) -> Value {
    let mut hook = hook(path);
    for (key, value) in more.as_object().unwrap() {
        hook[key] = value.clone();
    }
    hook
}

fn one(name: &'static str, mutating: bool, hook: Value, calls: &'static [Call]) -> Scenario {
    let (mutating, validating) = match mutating {
        true => (vec![hook], vec![]),
        false => (vec![], vec![hook]),
    };
    Scenario {
        name,
        mutating,
        validating,
        calls,
        ..Scenario::default()
    }
}

fn rule(operations: &[&str], resources: &[&str]) -> Value {
    json!([{"operations": operations, "apiGroups": ["*"], "apiVersions": ["v1alpha1"], "resources": resources}])
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    let mut all = vec![
        one("validating, everything", false, hook("allow"), EVERYTHING),
        one("mutating, everything", true, hook("allow"), EVERYTHING),
        one(
            "v1beta1",
            false,
            with(
                "allow",
                json!({"admissionReviewVersions": ["v9", "v1beta1", "v1"]}),
            ),
            DRY,
        ),
        one(
            "patched in v1beta1",
            true,
            with("label", json!({"admissionReviewVersions": ["v1beta1"]})),
            CREATE_AND_CHANGE,
        ),
        one("warnings", false, hook("warn"), CREATE_AND_CHANGE),
        one(
            "warnings of a mutating one",
            true,
            hook("warn"),
            CREATE_AND_CHANGE,
        ),
        one(
            "rules",
            false,
            with(
                "deny",
                json!({"rules": rule(&["UPDATE"], &["tenantcontrolplanes/status"])}),
            ),
            CREATE_AND_CHANGE,
        ),
        one(
            "rules, any subresource",
            false,
            with("deny", json!({"rules": rule(&["UPDATE"], &["*/*"])})),
            CREATE_AND_CHANGE,
        ),
        one(
            "rules, any resource",
            false,
            with("deny", json!({"rules": rule(&["*"], &["*"])})),
            CREATE_AND_CHANGE,
        ),
        one(
            "rules, scale",
            false,
            with("deny", json!({"rules": rule(&["UPDATE"], &["*/scale"])})),
            SCALES,
        ),
        one(
            "rules, other scope",
            false,
            with(
                "deny",
                json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "Cluster"}]}),
            ),
            DRY,
        ),
        one(
            "rules, own scope",
            false,
            with(
                "deny",
                json!({"rules": [{"operations": ["DELETE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "Namespaced"}]}),
            ),
            DRY,
        ),
        one(
            "objectSelector",
            false,
            with(
                "deny",
                json!({"objectSelector": {"matchLabels": {"team": "a"}}}),
            ),
            SELECTED,
        ),
        one(
            "objectSelector, expressions",
            true,
            with(
                "label",
                json!({"objectSelector": {"matchExpressions": [
            {"key": "team", "operator": "NotIn", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}]}}),
            ),
            SELECTED,
        ),
        one(
            "namespaceSelector",
            false,
            with(
                "deny",
                json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}),
            ),
            DRY,
        ),
        one(
            "namespaceSelector of others",
            false,
            with(
                "deny",
                json!({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["default"]}]}}),
            ),
            DRY,
        ),
        one(
            "matchConditions",
            false,
            with(
                "deny",
                json!({"matchConditions": [
            {"name": "a", "expression": "has(object.metadata.labels) && object.metadata.labels['team'] == 'a'"},
            {"name": "b", "expression": "request.operation == 'CREATE' && request.userInfo.username != 'nobody' && !has(request.dryRun) || request.dryRun == false"}]}),
            ),
            SELECTED,
        ),
        one(
            "matchConditions that fail",
            false,
            with(
                "deny",
                json!({"matchConditions": [
            {"name": "a", "expression": "object.metadata.labels['team'] == 'a'"}]}),
            ),
            SELECTED,
        ),
        one(
            "matchConditions that fail and are ignored",
            false,
            with(
                "deny",
                json!({"failurePolicy": "Ignore", "matchConditions": [
            {"name": "a", "expression": "object.metadata.labels['team'] == 'a'"}]}),
            ),
            SELECTED,
        ),
        one(
            "matchConditions, false and failing",
            true,
            with(
                "label",
                json!({"matchConditions": [
            {"name": "a", "expression": "object.metadata.labels['team'] == 'a'"},
            {"name": "b", "expression": "oldObject != null"}]}),
            ),
            SELECTED,
        ),
        one(
            "a patch of a Scale",
            true,
            with(
                "scale",
                json!({"rules": rule(&["UPDATE"], &["tenantcontrolplanes/scale"])}),
            ),
            SCALES,
        ),
        one(
            "a time limit",
            false,
            with(
                "slow",
                json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"}),
            ),
            &DRY_SHORT,
        ),
        one(
            "a time limit that fails",
            false,
            with("slow", json!({"timeoutSeconds": 1})),
            &DRY_SHORT,
        ),
        one(
            "a slow one",
            true,
            with("slow", json!({"timeoutSeconds": 10})),
            &DRY_SHORT,
        ),
        Scenario {
            name: "several that change, in order",
            mutating: vec![
                with(
                    "count",
                    json!({"name": "c.example.com", "reinvocationPolicy": "IfNeeded"}),
                ),
                with("label", json!({"name": "b.example.com"})),
                with("count", json!({"name": "a.example.com"})),
            ],
            validating: vec![hook("allow")],
            calls: CREATE_AND_CHANGE,
            ..Scenario::default()
        },
        Scenario {
            name: "asked again when it was the last, or nothing changed",
            mutating: vec![
                with(
                    "allow",
                    json!({"name": "a.example.com", "reinvocationPolicy": "IfNeeded"}),
                ),
                with(
                    "label",
                    json!({"name": "b.example.com", "reinvocationPolicy": "IfNeeded"}),
                ),
                with(
                    "nothing",
                    json!({"name": "c.example.com", "reinvocationPolicy": "IfNeeded"}),
                ),
            ],
            validating: vec![],
            calls: CREATE_AND_CHANGE,
            ..Scenario::default()
        },
        Scenario {
            name: "several that judge",
            mutating: vec![],
            validating: vec![
                with("allow", json!({"name": "a.example.com"})),
                with("deny", json!({"name": "b.example.com"})),
                with("warn", json!({"name": "c.example.com"})),
            ],
            calls: DRY,
            unordered: true,
            ..Scenario::default()
        },
    ];
    for path in [
        "deny",
        "deny-reason",
        "deny-bare",
        "deny-whole",
        "deny-code",
        "garbage",
        "empty",
        "absent",
        "kindless",
        "error",
        "missing",
        "other-uid",
        "dead",
    ] {
        for mutating in [false, true] {
            all.push(one(path, mutating, hook(path), DRY));
            if matches!(path, "deny" | "garbage" | "other-uid" | "error" | "dead") {
                all.push(one(
                    path,
                    mutating,
                    with(path, json!({"failurePolicy": "Ignore"})),
                    DRY,
                ));
            }
        }
    }
    for path in [
        "label",
        "replicas",
        "invalid",
        "unknown",
        "default",
        "status",
        "meta",
        "managers",
        "bad",
        "undecodable",
        "untyped",
        "merge",
        "nothing",
    ] {
        let main = json!({"rules": rule(&["CREATE", "UPDATE"], &["tenantcontrolplanes"])});
        let mut scenario = one(path, true, with(path, main), CREATE_AND_CHANGE);
        scenario.differ = match path {
            "unknown" => &[(
                ".metadata.generation",
                "a CRD counts what it prunes afterwards",
            )],
            "meta" => &[("answer.body.details.causes", "a CRD says the same twice")],
            "undecodable" => &[(".message", "the words of the library that reads patches")],
            _ => &[],
        };
        all.push(scenario);
    }
    all.extend(policies());
    all.extend(mutations::all());
    let on_status = json!({"rules": rule(&["UPDATE"], &["tenantcontrolplanes/status"])});
    all.push(one(
        "label on status",
        true,
        with("label", on_status.clone()),
        CREATE_AND_CHANGE,
    ));
    all.push(one(
        "status on status",
        true,
        with("status", on_status),
        CREATE_AND_CHANGE,
    ));
    all.push(one(
        "a patch of a deletion",
        true,
        with("label", json!({"rules": rule(&["DELETE"], &["*"])})),
        DRY,
    ));
    all.push(one("a patch of a judge", false, hook("label"), DRY));
    all
}

const DRY_SHORT: [Call; 2] = [("POST", "?dryRun=All", JSON, WHOLE), ("GET", "/h", "", "")];

pub const CONFIG_MAPS: &[Call] = &[
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        JSON,
        r#"{"metadata":{"name":"limits","labels":{"a":"b"}},"data":{"most":"1"}}"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/kube-system/configmaps",
        JSON,
        r#"{"metadata":{"name":"limits"},"data":{"most":"9"}}"#,
    ),
    // Our server reads them with rights of its own.
    (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        JSON,
        r#"{"metadata":{"name":"params"},"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["get","list"]}]}"#,
    ),
    (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        JSON,
        r#"{"metadata":{"name":"params"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"params"},
        "subjects":[{"kind":"ServiceAccount","name":"steward-apiserver","namespace":"steward-system"}]}"#,
    ),
];

fn judged(name: &'static str, policies: Vec<Value>, calls: &'static [Call]) -> Scenario {
    Scenario {
        name,
        policies,
        setup: CONFIG_MAPS,
        calls,
        ..Scenario::default()
    }
}

fn policies() -> Vec<Scenario> {
    let few = json!({"validations": [{"expression": "object == null || !has(object.spec) || !has(object.spec.controlPlane) || object.spec.controlPlane.deployment.replicas < 2"}]});
    let with_binding = |spec: &Value, binding: Value| {
        let mut spec = spec.clone();
        spec["binding"] = binding;
        spec
    };
    let params = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.controlPlane.deployment.replicas <= int(params.data.most)",
            "messageExpression": "'at most ' + params.data.most + ' of ' + params.metadata.name + ' ' + params.kind"}],
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["tenantcontrolplanes"]}]},
    });
    vec![
        judged("a policy", vec![few.clone()], EVERYTHING),
        judged(
            "a policy that refuses deletions",
            vec![
                json!({"validations": [{"expression": "request.operation != 'DELETE'", "message": "it stays", "reason": "Forbidden"}]}),
            ],
            DRY,
        ),
        judged(
            "reasons",
            vec![
                json!({"validations": [{"expression": "request.operation == 'X'", "reason": "Forbidden"}]}),
            ],
            DRY,
        ),
        judged(
            "reasons, too large",
            vec![
                json!({"validations": [{"expression": "false", "reason": "RequestEntityTooLarge", "messageExpression": "'no ' + request.name"}]}),
            ],
            DRY,
        ),
        judged(
            "warnings of a policy",
            vec![with_binding(
                &few,
                json!({"validationActions": ["Warn", "Audit"]}),
            )],
            CREATE_AND_CHANGE,
        ),
        judged(
            "errors of a policy",
            vec![json!({"validations": [{"expression": "object.metadata.labels['x'] == 'y'"}]})],
            CREATE_AND_CHANGE,
        ),
        judged(
            "errors that are ignored",
            vec![
                json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.metadata.labels['x'] == 'y'"}]}),
            ],
            CREATE_AND_CHANGE,
        ),
        judged(
            "variables",
            vec![json!({
            "variables": [{"name": "replicas", "expression": "has(object.spec) && has(object.spec.controlPlane) ? object.spec.controlPlane.deployment.replicas : 0"},
                {"name": "many", "expression": "variables.replicas > 1"}],
            "validations": [{"expression": "!variables.many", "messageExpression": "'too many: ' + string(variables.replicas)"}]})],
            SCALES,
        ),
        judged(
            "variables that fail",
            vec![json!({
            "variables": [{"name": "broken", "expression": "object.spec.nothing"}],
            "validations": [{"expression": "variables.broken == 1"}]})],
            DRY,
        ),
        judged(
            "matchConditions of a policy",
            vec![json!({
            "matchConditions": [{"name": "c", "expression": "request.operation == 'CREATE' && object.metadata.name == 'h'"}],
            "validations": [{"expression": "false", "message": "not this one"}]})],
            SELECTED,
        ),
        judged(
            "matchConditions of a policy that fail",
            vec![json!({
            "matchConditions": [{"name": "c", "expression": "object.metadata.labels['team'] == 'a'"}],
            "validations": [{"expression": "false", "message": "not this one"}]})],
            SELECTED,
        ),
        judged(
            "old objects",
            vec![json!({"validations": [
            {"expression": "oldObject == null || object == null || oldObject.metadata.generation == object.metadata.generation", "message": "the spec stays"}]})],
            SCALES,
        ),
        judged(
            "the namespace",
            vec![json!({"validations": [
            {"expression": "namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == 'default' && namespaceObject.status.phase == 'Active' && has(namespaceObject.spec)"},
            {"expression": "namespaceObject.metadata.name == 'other'", "messageExpression": "'not in ' + namespaceObject.metadata.name"}]})],
            DRY,
        ),
        judged(
            "resourceNames and exclusions",
            vec![json!({
            "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "resourceNames": ["h", "l"]}],
                "excludeResourceRules": [{"operations": ["UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
            "validations": [{"expression": "request.operation != 'UPDATE'", "message": "no updates"}]})],
            EVERYTHING,
        ),
        judged(
            "a binding that is about less",
            vec![with_binding(
                &json!({"validations": [{"expression": "false", "message": "no"}]}),
                json!({"validationActions": ["Deny"],
            "matchResources": {"objectSelector": {"matchLabels": {"team": "a"}},
                "namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["default"]}]}}}),
            )],
            SELECTED,
        ),
        judged(
            "parameters",
            vec![with_binding(
                &params,
                json!({"validationActions": ["Deny"], "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}}),
            )],
            DRY,
        ),
        judged(
            "parameters of another namespace",
            vec![with_binding(
                &params,
                json!({"validationActions": ["Deny"], "paramRef": {"name": "limits", "namespace": "kube-system", "parameterNotFoundAction": "Deny"}}),
            )],
            DRY,
        ),
        judged(
            "parameters that are selected",
            vec![with_binding(
                &params,
                json!({"validationActions": ["Deny"], "paramRef": {"selector": {"matchLabels": {"a": "b"}}, "parameterNotFoundAction": "Deny"}}),
            )],
            DRY,
        ),
        judged(
            "parameters that are missing",
            vec![with_binding(
                &params,
                json!({"validationActions": ["Deny"], "paramRef": {"name": "none", "parameterNotFoundAction": "Deny"}}),
            )],
            DRY,
        ),
        judged(
            "parameters that may be missing",
            vec![with_binding(
                &params,
                json!({"validationActions": ["Deny"], "paramRef": {"name": "none", "parameterNotFoundAction": "Allow"}}),
            )],
            DRY,
        ),
        judged(
            "libraries",
            vec![
                json!({"validations": [{"expression": "object == null || object.spec.kubernetes.version.matches('^v1[.][0-9]+[.][0-9]+$') && quantity('1Gi').isGreaterThan(quantity('1M')) && object.spec.kubernetes.version.split('.').size() == 3 && ip('10.0.0.1').family() == 4 && cidr(object.spec.networkProfile.podCidr).prefixLength() > 30 && [1,2].sum() == 3",
            "messageExpression": "'%s has %d'.format([object.spec.kubernetes.version, object.spec.controlPlane.deployment.replicas])"}]}),
            ],
            DRY,
        ),
        judged(
            "regular expressions",
            vec![json!({"validations": [
                    {"expression": r"object == null || object.spec.kubernetes.version.matches('^v\\d+[.]\\d+[.]\\d+$') && !'\u0664'.matches('^\\d$')"},
                    {"expression": r"object == null || '\u00e9'.matches('\\W') && 'a\u00e9_1 b'.findAll('\\w+') == ['a', '_1', 'b'] && '&'.matches('[!@&&#]')"},
                    {"expression": r"object == null || 'a.b'.matches('^\\Qa.b\\E$') && 'b\u00e9'.lastIndexOf('b', 1) == 0 && 'ab'.indexOf('b', 7) == -1"},
                    {"expression": "object == null || duration('61s').getMilliseconds() == 61000 && timestamp('2026-01-04T23:04:05Z').getHours('+05:30') == 4"},
                    {"expression": "object == null || ip.isCanonical('10.0.0.1') && ip('10.0.0.1').isGlobalUnicast() && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && [[[1]], [[2, 3]]].flatten(2).reverse() == [3, 2, 1] && [[1], [2]].flatten() == [1, 2]"}]})],
            DRY,
        ),
        Scenario {
            mutating: vec![hook("label")],
            validating: vec![hook("warn")],
            ..judged(
                "with webhooks",
                vec![
                    json!({"validations": [{"expression": "object == null || 'hooked' in object.metadata.labels", "message": "not labelled"},
                {"expression": "object == null || object.metadata.name != 'h'", "message": "it is h"}]}),
                ],
                DRY,
            )
        },
    ]
}
