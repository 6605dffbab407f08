//! MutatingAdmissionPolicies that both servers go through (R7.18).

use serde_json::{Value, json};

use crate::scenarios::{
    CONFIG_MAPS, CREATE_AND_CHANGE, DRY, EVERYTHING, JSON, LABELLED, MERGE, SCALES, SELECTED,
    WHOLE, hook,
};
use crate::side::{Call, Scenario};

const DRY_CREATE: &[Call] = &[
    ("POST", "?dryRun=All", JSON, WHOLE),
    ("POST", "?dryRun=All", JSON, LABELLED),
];

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// One policy about the objects themselves.
fn policy(mutations: &[Value]) -> Value {
    json!({"mutations": mutations, "matchConstraints": {"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": ["steward.butlerlabs.dev"],
            "apiVersions": ["*"], "resources": ["tenantcontrolplanes"]}]}})
}

fn with(mut policy: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        policy[key] = value.clone();
    }
    policy
}

fn scenario(name: &'static str, changing: Vec<Value>, calls: &'static [Call]) -> Scenario {
    Scenario {
        name,
        changing,
        setup: CONFIG_MAPS,
        calls,
        ..Scenario::default()
    }
}

/// Longer each time.
const COUNT: &str = r#"[JSONPatch{op: 'add', path: '/metadata/labels', value: {'n': has(object.metadata.labels) && 'n' in object.metadata.labels ? object.metadata.labels['n'] + 'i' : 'i'}}]"#;

/// What has been counted.
const SEEN: &str = "Object{metadata: Object.metadata{annotations: {'seen': object.metadata.?labels['n'].orValue('none')}}}";

pub fn all() -> Vec<Scenario> {
    let mut all = configurations();
    all.extend(patches());
    all.extend(around());
    all.extend(reinvoked());
    all
}

fn configurations() -> Vec<Scenario> {
    let one = |name, expression, calls| scenario(name, vec![policy(&[apply(expression)])], calls);
    let invalid = Scenario {
        differ: &[
            ("answer.body.details.causes", "a CRD says the same twice"),
            ("answer.body.message", "the same"),
        ],
        ..one(
            "map: an invalid value",
            "Object{spec: Object.spec{controlPlane: Object.spec.controlPlane{deployment: Object.spec.controlPlane.deployment{replicas: -1}}}}",
            DRY_CREATE,
        )
    };
    vec![
        invalid,
        one(
            "map: labels and replicas",
            "Object{metadata: Object.metadata{labels: {'hooked': 'yes', 'of': string(object.metadata.name)}}, spec: Object.spec{controlPlane: Object.spec.controlPlane{deployment: Object.spec.controlPlane.deployment{replicas: 1}}}}",
            CREATE_AND_CHANGE,
        ),
        one("map: nothing", "Object{}", CREATE_AND_CHANGE),
        one(
            "map: everything",
            "Object{metadata: Object.metadata{annotations: {'a/b': request.operation}}}",
            EVERYTHING,
        ),
        one(
            "map: an atomic list",
            "Object{spec: Object.spec{kubernetes: Object.spec.kubernetes{kubelet: Object.spec.kubernetes.kubelet{preferredAddressTypes: ['Hostname']}}}}",
            DRY,
        ),
        one(
            "map: a set",
            "Object{metadata: Object.metadata{finalizers: ['a.example/b']}}",
            DRY_CREATE,
        ),
        one(
            "map: owners",
            "Object{metadata: Object.metadata{ownerReferences: [Object.metadata.ownerReferences{apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: 'u'}]}}",
            DRY_CREATE,
        ),
        one(
            "map: a wrong type",
            "Object{spec: Object.spec{dataStore: 5}}",
            DRY_CREATE,
        ),
        one(
            "map: an unknown field",
            "Object{spec: Object.spec{nonsense: 'x'}}",
            DRY_CREATE,
        ),
        one(
            "map: a wrong name",
            "Object{spec: Object.spec{kubernetes: Object.spec.wrong{version: 'v1.36.2'}}}",
            DRY_CREATE,
        ),
        one(
            "map: an error",
            "Object{metadata: Object.metadata{labels: {'a': object.metadata.labels['none']}}}",
            DRY,
        ),
        one(
            "map: what is optional",
            "Object{metadata: Object.metadata{?labels: object.metadata.?labels.optMap(l, {'had': 'some'}), ?annotations: optional.none()}}",
            DRY_CREATE,
        ),
        one(
            "map: metadata of the server",
            "Object{metadata: Object.metadata{uid: '00000000-0000-0000-0000-000000000000', generation: 70, name: 'other'}}",
            DRY_CREATE,
        ),
        one(
            "map: another kind",
            "Object{apiVersion: 'v1', kind: 'Pod'}",
            DRY_CREATE,
        ),
        one(
            "map: values of the object",
            "Object{metadata: Object.metadata{labels: object.metadata.?labels.orValue({'none': 'had'}), annotations: {'version': object.spec.kubernetes.version}}, spec: Object.spec{controlPlane: object.spec.controlPlane}}",
            DRY_CREATE,
        ),
    ]
}

fn patches() -> Vec<Scenario> {
    let one = |name, expression, calls| scenario(name, vec![policy(&[patch(expression)])], calls);
    vec![
        one(
            "map: a patch",
            r#"[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'a/b~c': 'd'}},
                JSONPatch{op: 'replace', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b~c'), value: 'e'},
                JSONPatch{op: 'replace', path: '/spec/controlPlane/deployment/replicas', value: 3},
                JSONPatch{op: 'copy', from: '/metadata/annotations/a~1b~0c', path: '/metadata/annotations/copied'},
                JSONPatch{op: 'move', from: '/metadata/annotations/copied', path: '/metadata/annotations/moved'},
                JSONPatch{op: 'test', path: '/metadata/annotations/moved', value: 'e'}]"#,
            CREATE_AND_CHANGE,
        ),
        one(
            "map: a test that fails",
            r#"[JSONPatch{op: 'replace', path: '/spec/controlPlane/deployment/replicas', value: 3}, JSONPatch{op: 'test', path: '/metadata/name', value: 'x'}]"#,
            DRY,
        ),
        one(
            "map: a patch that does not apply",
            "[JSONPatch{op: 'remove', path: '/metadata/nope'}]",
            DRY,
        ),
        one(
            "map: a patch of what is not there",
            "[JSONPatch{op: 'add', path: '/metadata/nope/x', value: 1}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch that replaces what is not there",
            "[JSONPatch{op: 'replace', path: '/metadata/labels', value: {'a': 'b'}}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch that replaces nothing at all",
            "[JSONPatch{op: 'replace', path: '/metadata/nope/x', value: {'a': 'b'}}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch of a place in a list",
            "[JSONPatch{op: 'add', path: '/spec/kubernetes/kubelet/preferredAddressTypes/7', value: 'Hostname'}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch of no place in a list",
            "[JSONPatch{op: 'add', path: '/spec/kubernetes/kubelet/preferredAddressTypes/x', value: 'Hostname'}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch that takes from a list",
            "[JSONPatch{op: 'remove', path: '/spec/kubernetes/kubelet/preferredAddressTypes/3'}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch that moves nothing",
            "[JSONPatch{op: 'move', from: '/metadata/nope', path: '/metadata/labels'}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch that copies nothing",
            "[JSONPatch{op: 'copy', from: '/metadata/nope', path: '/metadata/labels'}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch of a list",
            r#"[JSONPatch{op: 'add', path: '/spec/kubernetes/kubelet/preferredAddressTypes/-', value: 'Hostname'}, JSONPatch{op: 'add', path: '/spec/kubernetes/kubelet/preferredAddressTypes/0', value: 'ExternalIP'}]"#,
            DRY_CREATE,
        ),
        one(
            "map: an unknown operation",
            "[JSONPatch{op: 'jump', path: '/metadata'}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch with a typed value",
            r#"[JSONPatch{op: 'replace', path: '/spec/controlPlane/deployment', value: Object.spec.controlPlane.deployment{replicas: 4}}]"#,
            DRY_CREATE,
        ),
        one(
            "map: a patch with a wrong name",
            r#"[JSONPatch{op: 'replace', path: '/spec/controlPlane/deployment', value: Object.spec.controlPlane{deployment: Object.spec.wrong{replicas: 4}}}]"#,
            DRY_CREATE,
        ),
        one(
            "map: an empty patch",
            "has(object.spec.none) ? [JSONPatch{op: 'remove', path: '/spec'}] : []",
            CREATE_AND_CHANGE,
        ),
        one(
            "map: a patch with a wrong type",
            "[JSONPatch{op: 'replace', path: '/spec/dataStore', value: 5}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch with an unknown field",
            "[JSONPatch{op: 'add', path: '/spec/nonsense', value: {'a': 1}}]",
            DRY_CREATE,
        ),
        one(
            "map: a patch of defaults",
            "[JSONPatch{op: 'remove', path: '/spec/controlPlane/deployment/replicas'}]",
            DRY_CREATE,
        ),
        one(
            "map: numbers",
            "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'a': string(1.0 + 2.0), 'b': string(7)}}, JSONPatch{op: 'replace', path: '/spec/controlPlane/deployment/replicas', value: 2.0}]",
            DRY_CREATE,
        ),
    ]
}

/// What is around mutations: conditions, parameters, failures, other parts.
fn around() -> Vec<Scenario> {
    let label = policy(&[apply(
        "Object{metadata: Object.metadata{labels: {'most': string(params.data.most)}}}",
    )]);
    let label = with(
        label,
        json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}),
    );
    let bound = |by: Value| with(label.clone(), json!({"binding": {"paramRef": by}}));
    let marked = "Object{metadata: Object.metadata{labels: {'marked': 'yes'}}}";
    vec![
        scenario(
            "map: parameters",
            vec![bound(
                json!({"name": "limits", "parameterNotFoundAction": "Deny"}),
            )],
            DRY,
        ),
        scenario(
            "map: parameters that are missing",
            vec![bound(
                json!({"name": "none", "parameterNotFoundAction": "Deny"}),
            )],
            DRY,
        ),
        scenario(
            "map: parameters that may be missing",
            vec![bound(
                json!({"name": "none", "parameterNotFoundAction": "Allow"}),
            )],
            DRY,
        ),
        scenario(
            "map: parameters that are missing, ignored",
            vec![with(
                bound(json!({"name": "none", "parameterNotFoundAction": "Deny"})),
                json!({"failurePolicy": "Ignore"}),
            )],
            DRY,
        ),
        scenario(
            "map: conditions",
            vec![with(
                policy(&[apply(marked)]),
                json!({"matchConditions": [{"name": "c", "expression": "object.metadata.name == 'h' && request.operation == 'UPDATE'"}]}),
            )],
            SELECTED,
        ),
        scenario(
            "map: conditions that fail",
            vec![with(
                policy(&[apply(marked)]),
                json!({"matchConditions": [{"name": "c", "expression": "object.metadata.labels['team'] == 'a'"}]}),
            )],
            SELECTED,
        ),
        scenario(
            "map: conditions that fail, ignored",
            vec![with(
                policy(&[apply(marked)]),
                json!({"failurePolicy": "Ignore", "matchConditions": [{"name": "c", "expression": "object.metadata.labels['team'] == 'a'"}]}),
            )],
            SELECTED,
        ),
        scenario(
            "map: a condition about the namespace",
            vec![with(
                policy(&[apply(
                    "Object{metadata: Object.metadata{labels: {'in': namespaceObject.metadata.name}}}",
                )]),
                json!({"matchConditions": [{"name": "c", "expression": "namespaceObject.metadata.name == 'default'"}]}),
            )],
            DRY_CREATE,
        ),
        scenario(
            "map: a binding that is about less",
            vec![with(
                policy(&[apply(marked)]),
                json!({"binding": {"matchResources": {"objectSelector": {"matchLabels": {"team": "a"}}}}}),
            )],
            SELECTED,
        ),
        scenario(
            "map: variables, which see what was changed",
            vec![with(
                policy(&[
                    patch(
                        "[JSONPatch{op: 'replace', path: '/spec/controlPlane/deployment/replicas', value: variables.replicas + 1}]",
                    ),
                    apply(
                        "Object{metadata: Object.metadata{annotations: {'replicas': string(variables.replicas)}}}",
                    ),
                ]),
                json!({"variables": [{"name": "replicas", "expression": "object.spec.controlPlane.deployment.replicas"}]}),
            )],
            DRY,
        ),
        scenario(
            "map: several that fail",
            vec![policy(&[
                patch("[JSONPatch{op: 'remove', path: '/metadata/nope'}]"),
                apply("Object{metadata: Object.metadata{labels: {'a': object.none}}}"),
                apply(marked),
            ])],
            DRY,
        ),
        scenario(
            "map: several that fail, ignored",
            vec![with(
                policy(&[
                    patch("[JSONPatch{op: 'remove', path: '/metadata/nope'}]"),
                    apply(marked),
                ]),
                json!({"failurePolicy": "Ignore"}),
            )],
            DRY,
        ),
        scenario(
            "map: a scale",
            vec![
                json!({"mutations": [apply("Object{spec: Object.spec{replicas: 4}}")],
                "matchConstraints": {"resourceRules": [{"operations": ["UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/scale"]}]}}),
            ],
            SCALES,
        ),
        scenario(
            "map: a status",
            vec![
                json!({"mutations": [apply("Object{metadata: Object.metadata{labels: {'a': 'b'}}, status: Object.status{kubernetesResources: Object.status.kubernetesResources{version: Object.status.kubernetesResources.version{status: 'NotReady'}}}}")],
                "matchConstraints": {"resourceRules": [{"operations": ["UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/status"]}]}}),
            ],
            CREATE_AND_CHANGE,
        ),
        Scenario {
            policies: vec![
                json!({"validations": [{"expression": "object == null || 'marked' in object.metadata.labels", "message": "not marked"},
                    {"expression": "object == null || object.metadata.name != 'h'", "message": "it is h"}]}),
            ],
            ..scenario(
                "map: with a policy that validates",
                vec![policy(&[apply(marked)])],
                DRY,
            )
        },
    ]
}

/// Who is asked once more, and after whom.
fn reinvoked() -> Vec<Scenario> {
    let needed = json!({"reinvocationPolicy": "IfNeeded"});
    let reinvoked = |path: &str| json!({"name": format!("{path}.example.com"), "path": path, "reinvocationPolicy": "IfNeeded"});
    let of_status = r#"[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'n': 'x'}}]"#;
    vec![
        scenario("map: once", vec![policy(&[patch(COUNT)])], DRY_CREATE),
        scenario(
            "map: as often as needed",
            vec![with(policy(&[patch(COUNT)]), needed.clone())],
            DRY_CREATE,
        ),
        scenario(
            "map: as often as needed, with nothing to do",
            vec![with(policy(&[apply("Object{}")]), needed.clone())],
            DRY_CREATE,
        ),
        scenario(
            "map: one after the other",
            vec![policy(&[patch(COUNT)]), policy(&[apply(SEEN)])],
            DRY_CREATE,
        ),
        scenario(
            "map: the first again after the second",
            vec![
                with(policy(&[apply(SEEN)]), needed.clone()),
                policy(&[patch(COUNT)]),
            ],
            DRY_CREATE,
        ),
        scenario(
            "map: two as often as needed",
            vec![
                with(policy(&[patch(COUNT)]), needed.clone()),
                with(policy(&[apply(SEEN)]), needed.clone()),
            ],
            DRY_CREATE,
        ),
        Scenario {
            mutating: vec![hook("count")],
            ..scenario(
                "map: before webhooks",
                vec![policy(&[patch(COUNT)])],
                DRY_CREATE,
            )
        },
        Scenario {
            mutating: vec![hook("count")],
            ..scenario(
                "map: again after webhooks",
                vec![with(policy(&[patch(COUNT)]), needed.clone())],
                DRY_CREATE,
            )
        },
        Scenario {
            mutating: vec![reinvoked("count")],
            ..scenario(
                "map: webhooks again after policies",
                vec![with(policy(&[patch(COUNT)]), needed.clone())],
                DRY_CREATE,
            )
        },
        Scenario {
            mutating: vec![reinvoked("count")],
            ..scenario(
                "map: webhooks not again",
                vec![policy(&[patch(of_status)])],
                DRY_CREATE,
            )
        },
        Scenario {
            mutating: vec![hook("label")],
            ..scenario(
                "map: what a webhook made is seen the second time",
                vec![with(
                    policy(&[apply(
                        "Object{metadata: Object.metadata{annotations: {'hooked': string(has(object.metadata.labels) && 'hooked' in object.metadata.labels)}}}",
                    )]),
                    needed,
                )],
                &[
                    ("POST", "", JSON, WHOLE),
                    ("PATCH", "/h", MERGE, r#"{"metadata":{"labels":null}}"#),
                    ("GET", "/h", "", ""),
                    ("DELETE", "/h", "", ""),
                ],
            )
        },
    ]
}
