use std::sync::Arc;

use apiservice::told;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::admissionregistration::{v1 as api, v1beta1};
use serde_json::json;

use super::policy::Outcome;
use super::*;
use crate::authz::{Authorizer, Decision};
use crate::namespaces::Namespaces;
use crate::policy::asked::Making;
use crate::policy::cel;
use crate::policy::labels::NamespaceLabels;
use crate::policy::questions::{Asking, Questions};
use crate::policy::rules::tests::with_attributes;
use crate::policy::source::Configured;

/// Takes what is made as it is, up to a size.
struct AsItIs(usize);

impl Making for AsItIs {
    fn complete(&self, object: &mut Value) -> Result<(), Failure> {
        match object.to_string().len() <= self.0 {
            true => Ok(()),
            false => Err(Failure::TooLarge("it".to_owned())),
        }
    }

    fn hold<'a>(&'a self, _: &'a Value) -> BoxFuture<'a, Result<(), Failure>> {
        async { Ok(()) }.boxed()
    }
}

fn policy(mut spec: Value) -> Policy {
    spec["matchConstraints"] = json!({"resourceRules": [{"operations": ["*"], "apiGroups": ["*"],
        "apiVersions": ["*"], "resources": ["*"]}]});
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    Policy::read(serde_json::from_value(policy).unwrap())
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

fn tenant() -> Value {
    json!({"apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": "one", "labels": {"a": "b"}},
        "spec": {"dataStore": "default", "controlPlane": {"deployment": {"replicas": 2}}}})
}

/// What becomes of an object of at most so many bytes.
fn changed_within(
    policy: &Policy,
    object: &mut Value,
    most: usize,
    due: bool,
) -> Result<Outcome, Failure> {
    let namespaces = Namespaces::for_test(Vec::new());
    let asking = Asking::new(Authorizer::for_test(|_, _| Decision::allow()));
    let asked = (Operation::Create, "tenantcontrolplanes", "");
    with_attributes(asked, |attributes| {
        let labels = NamespaceLabels::new(&namespaces, None);
        let questions = Questions::new(attributes, &asking);
        let request = Change {
            attributes,
            namespaces: &namespaces,
            labels: &labels,
            old: None,
            questions: &questions,
            making: &AsItIs(most),
        };
        let values = Values {
            object: &Value::Null,
            old: &Value::Null,
            request: &json!({"operation": "CREATE"}),
            params: &json!({"data": {"team": "x"}}),
            namespace: &Value::Null,
            questions: Some(&questions),
            until: attributes.deadline.into_std(),
        };
        let outcome = policy.change(&request, &values, object, due);
        if let Ok(Some(changed)) = outcome.as_ref().map(|outcome| &outcome.changed) {
            *object = changed.clone();
        }
        outcome
    })
}

fn changed(mutations: Value) -> (Value, Outcome) {
    let mut object = tenant();
    let policy = policy(json!({"mutations": mutations}));
    let outcome = changed_within(&policy, &mut object, 100_000, true).unwrap();
    (object, outcome)
}

fn errors(mutation: Value) -> Vec<String> {
    let (object, outcome) = changed(json!([mutation]));
    assert_eq!(object, tenant());
    assert!(outcome.changed.is_none() && !outcome.applied && outcome.ran);
    outcome.errors
}

/// R7.18: what both kinds of patches make.
#[test]
fn objects_are_merged_and_patched() {
    let config = "Object{metadata: Object.metadata{labels: {'c': params.data.team}}, \
                  spec: Object.spec{controlPlane: Object.spec.controlPlane{deployment: \
                  Object.spec.controlPlane.deployment{replicas: object.spec.controlPlane.deployment.replicas + 1}}}}";
    let operations = "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y~z'), value: 'd'}, \
                      JSONPatch{op: 'copy', from: '/metadata/labels/c', path: '/metadata/labels/e'}]";
    let (object, outcome) = changed(json!([apply(config), patch(operations)]));
    let mut expected = tenant();
    expected["metadata"]["labels"] = json!({"a": "b", "c": "x", "x/y~z": "d", "e": "x"});
    expected["spec"]["controlPlane"]["deployment"]["replicas"] = json!(3);
    assert_eq!(object, expected);
    let whole = Outcome {
        ran: true,
        changed: Some(expected),
        applied: true,
        errors: Vec::new(),
    };
    assert_eq!(outcome, whole);
    // Nothing is changed, and yet it is done.
    for nothing in [
        apply("Object{}"),
        patch("[]"),
        patch(
            "[JSONPatch{op: 'remove', path: '/spec'}, JSONPatch{op: 'test', path: '/kind', value: 'x'}]",
        ),
    ] {
        let (object, outcome) = changed(json!([nothing]));
        assert_eq!(object, tenant());
        assert!(outcome.applied && outcome.changed.is_none() && outcome.errors.is_empty());
    }
}

/// R7.18: what is wrong with a mutation; those after it are done all the same.
#[test]
fn what_is_wrong_is_told() {
    let of = |expression: &str| errors(apply(expression));
    assert_eq!(
        of(
            "Object{spec: Object.spec{networkProfile: Object.spec.networkProfile{dnsServiceIPs: ['a']}}}"
        ),
        [
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.networkProfile.dnsServiceIPs"
        ]
    );
    assert_eq!(
        of("Object{spec: Object.wrong{a: Object.wrong.a{}, b: [Object.spec.b{}]}}"),
        [
            "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from root Object type\n\
          unexpected type name \"Object.wrong.a\", expected \"Object.spec.a\", which matches field name path from root Object type"
        ]
    );
    assert_eq!(
        of("Object{spec: Object.spec{dataStore: 5}}"),
        [
            "error applying patch: failed to convert patch object to typed object: .spec.dataStore: expected string, got &value.valueUnstructured{Value:5}"
        ]
    );
    assert_eq!(of("object"), ["must evaluate to Object but got map"]);
    let of = |expression: &str| errors(patch(expression));
    assert_eq!(
        of("[JSONPatch{op: 'remove', path: '/x'}]"),
        [
            "JSON Patch: error in remove for path: '/x': Unable to remove nonexistent key: x: missing value"
        ]
    );
    assert_eq!(
        of("['a']"),
        [
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of string"
        ]
    );
    let compiled = of("[JSONPatch{path: '/x', other: 1}]");
    assert!(
        compiled[0].ends_with("unexpected JSONPatchType field: other"),
        "{compiled:?}"
    );
    let (object, outcome) = changed(json!([
        patch("[JSONPatch{op: 'remove', path: '/x'}]"),
        apply("Object{metadata: Object.metadata{labels: {'c': 'd'}}}"),
    ]));
    assert_eq!(object["metadata"]["labels"], json!({"a": "b", "c": "d"}));
    assert_eq!(outcome.errors.len(), 1);
}

/// Names of types are for mutations alone.
#[test]
fn other_expressions_make_no_objects() {
    let policy = policy(
        json!({"variables": [{"name": "v", "expression": "Object{}"}],
        "mutations": [patch("variables.v == null ? [] : []")]}),
    );
    let outcome = changed_within(&policy, &mut tenant(), 100_000, true).unwrap();
    assert!(
        outcome.errors[0].contains("undeclared reference to 'Object'"),
        "{outcome:?}"
    );
}

#[test]
fn conditions_decide_and_so_does_who_was_asked() {
    let of = |condition: &str, due: bool| {
        let policy = policy(json!({
            "matchConditions": [{"name": "c", "expression": condition}],
            "mutations": [apply("Object{metadata: Object.metadata{labels: {'c': 'd'}}}")]}));
        let outcome = changed_within(&policy, &mut tenant(), 100_000, due).unwrap();
        (outcome.ran, outcome.changed.is_some(), outcome.errors)
    };
    assert_eq!(
        of("object.kind == 'TenantControlPlane'", true),
        (true, true, vec![])
    );
    assert_eq!(
        of("object.kind == 'TenantControlPlane'", false),
        (false, false, vec![])
    );
    assert_eq!(of("object.kind == 'x'", true), (false, false, vec![]));
    let (ran, changed, errors) = of("object.none", true);
    assert!(!ran && !changed);
    assert_eq!(
        errors,
        ["expression 'object.none' resulted in error: no such key: none"]
    );
}

/// What a policy takes is bounded: by bytes, by depth, by time, by operations, by what an
/// object may be, whatever its expressions share.
#[test]
fn what_mutations_take_is_bounded() {
    let over = "operation cancelled: memory limit exceeded";
    // A list that is shared is written each time.
    let twice = |inner: String| format!("[{inner}].map(x, [x, x])[0]");
    let shared = (0..24).fold("['a']".to_owned(), |inner, _| twice(inner));
    let value = format!("[JSONPatch{{op: 'add', path: '/x', value: {shared}}}]");
    let told = errors(patch(&value));
    assert!(told[0].ends_with(over), "{told:?}");
    // So is a text that many operations have.
    for operation in [
        "op: 'test', path: variables.t",
        "op: variables.t, path: ''",
        "op: 'copy', path: '', from: variables.t",
    ] {
        let many = format!("lists.range(10000).map(n, JSONPatch{{{operation}}})");
        let shared = policy(json!({
            "variables": [{"name": "t", "expression": format!("'{}'", "x".repeat(10_000))}],
            "mutations": [patch(&many)]}));
        let outcome = changed_within(&shared, &mut tenant(), 100_000, true).unwrap();
        let told = outcome.errors.first().unwrap();
        assert!(
            told.ends_with("exceeded") || told.contains("Unexpected kind"),
            "{told:?}"
        );
        assert!(told.len() < 2 * told::MAX_TEXT, "{}", told.len());
    }
    // As many objects as the budget has room for are made, and no more.
    let many = format!(
        "[JSONPatch{{op: 'add', path: '/x', value: lists.range(1000).map(a, object)}}].map(p, [p, p, p, p])[0]{}",
        ""
    );
    let large = patch(&many);
    let mut object = tenant();
    object["spec"]["text"] = Value::from("x".repeat(10_000));
    let large = policy(json!({"mutations": [large]}));
    let outcome = changed_within(&large, &mut object, usize::MAX, true).unwrap();
    assert!(outcome.errors[0].ends_with(over), "{outcome:?}");
    // What one mutation makes may not be larger than an object.
    let grow = policy(json!({"mutations": [
        patch("[JSONPatch{op: 'add', path: '/metadata/labels/x', value: 'xxxxxxxxxxxxxxxxxxxx'}]")]}));
    let refused = changed_within(&grow, &mut tenant(), tenant().to_string().len() + 20, true);
    assert!(matches!(refused, Err(Failure::TooLarge(_))), "{refused:?}");
    // Operations.
    let many = "lists.range(10001).map(n, JSONPatch{op: 'remove', path: '/x'})";
    assert_eq!(
        errors(patch(many)),
        ["The allowed maximum operations in a JSON patch is 10000, got 10001"]
    );
    // Depth.
    let deep = format!(
        "Object{{spec: {}{}}}",
        "{'a': ".repeat(70),
        "1".to_owned() + &"}".repeat(70)
    );
    let told = errors(apply(&deep));
    assert!(
        told[0].ends_with("nested deeper than 64 levels"),
        "{told:?}"
    );
}

/// All mutations of a policy share one clock: those after it are not evaluated.
#[test]
fn mutations_end_with_their_time() {
    let busy = "[JSONPatch{op: 'test', path: '/kind', value: object.l.all(a, object.l.all(b, true)) ? 'x' : 'y'}]";
    let mutations: Vec<Value> = (0..200).map(|_| patch(busy)).collect();
    let policy = policy(json!({"mutations": mutations}));
    let mut object = tenant();
    object["l"] = json!(vec![0; 900]);
    let began = std::time::Instant::now();
    let outcome = changed_within(&policy, &mut object, usize::MAX, true).unwrap();
    assert!(began.elapsed() < 4 * cel::TIME, "{:?}", began.elapsed());
    let last = outcome.errors.last().unwrap();
    assert!(last.contains("running out of cost budget"), "{last}");
}

/// What is written here can be merged, each kind of it.
#[test]
fn all_that_is_written_can_be_merged() {
    for resource in apiservice::RESOURCES.iter().copied() {
        let parts = resource.subresources.iter().map(|part| part.name());
        for part in std::iter::once("").chain(parts) {
            let asked = (Operation::Create, resource.plural, part);
            let kind = with_attributes(asked, |attributes| attributes.kind());
            // As by Kubernetes, which knows no type of it.
            let scale = kind.2 == "Scale";
            assert_eq!(patch::is_known(kind), !scale, "{kind:?}");
        }
    }
}

/// v1beta1 says the same in the same words.
#[test]
fn the_version_before_is_read_as_well() {
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["*"],
            "apiVersions": ["*"], "resources": ["*"]}]},
        "matchConditions": [{"name": "c", "expression": "true"}],
        "variables": [{"name": "v", "expression": "1"}],
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "failurePolicy": "Ignore", "reinvocationPolicy": "IfNeeded",
        "mutations": [apply("Object{}"), patch("[]")]}});
    let old: v1beta1::MutatingAdmissionPolicy = serde_json::from_value(policy.clone()).unwrap();
    let new: api::MutatingAdmissionPolicy = serde_json::from_value(policy).unwrap();
    assert_eq!(old.expressions(), Some(4 + 1 + 8 + 2));
    assert_eq!(new.expressions(), old.expressions());
    assert_eq!(format!("{:?}", old.read()), format!("{:?}", new.read()));
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p",
        "paramRef": {"name": "x", "parameterNotFoundAction": "Deny"},
        "matchResources": {"objectSelector": {"matchLabels": {"a": "b"}}}}});
    let old: v1beta1::MutatingAdmissionPolicyBinding =
        serde_json::from_value(binding.clone()).unwrap();
    let new: api::MutatingAdmissionPolicyBinding = serde_json::from_value(binding).unwrap();
    assert_eq!(format!("{:?}", old.read()), format!("{:?}", new.read()));
}

/// An answer has so many causes, and no long ones, whatever policies say.
#[test]
fn refusals_are_bounded() {
    let strict = policy(json!({}));
    let long = "x".repeat(100_000);
    let mut refusals = Refusals::default();
    for number in 0..5_000 {
        let binding = Binding::new(format!("b-{number}"), "p".to_owned(), None, None);
        let binding = Arc::new(binding);
        let errors = [long.clone(), long.clone()];
        refusals.failed(&strict.definition, &binding, &errors);
        let why = Misconfigured::binding(&binding, &long);
        refusals.misconfigured(&strict.definition, &why);
    }
    let asked = (Operation::Create, "tenantcontrolplanes", "");
    let refused = with_attributes(asked, |attributes| refusals.answer(attributes));
    let Err(Failure::Denied(denied)) = refused else {
        panic!("it is refused");
    };
    let details = denied.details.unwrap().read().unwrap();
    assert_eq!(details["causes"].as_array().unwrap().len(), told::MAX_PATHS);
    assert!(Value::from(details).to_string().len() < 200_000);
    assert!(denied.message.len() < 2_000);
}

/// Which answer it is: faults of the configuration first.
#[test]
fn refusals_are_told_together() {
    let of = |refusals: Refusals| {
        let asked = (Operation::Create, "tenantcontrolplanes", "");
        with_attributes(asked, |attributes| refusals.answer(attributes))
    };
    assert!(of(Refusals::default()).is_ok());
    let strict = policy(json!({}));
    let lax = policy(json!({"failurePolicy": "Ignore"}));
    let binding = Arc::new(Binding::new("b".to_owned(), "p".to_owned(), None, None));
    let mut refusals = Refusals::default();
    for policy in [&strict, &lax] {
        let definition = &policy.definition;
        refusals.failed(definition, &binding, &["x".to_owned(), "y".to_owned()]);
    }
    let Err(Failure::Denied(denied)) = of(refusals) else {
        panic!("it is refused");
    };
    let first = "policy 'p' with binding 'b' denied request: x";
    assert_eq!((denied.code, denied.reason.as_str()), (403, "Invalid"));
    assert_eq!(denied.message, first);
    let details = denied.details.unwrap().read().unwrap();
    let causes = &details["causes"];
    let second = "policy 'p' with binding 'b' denied request: y";
    assert_eq!(*causes, json!([{"message": first}, {"message": second}]));
    let mut refusals = Refusals::default();
    refusals.failed(&strict.definition, &binding, &["x".to_owned()]);
    let why = Misconfigured::binding(&binding, "w");
    for policy in [&strict, &lax] {
        refusals.misconfigured(&policy.definition, &why);
    }
    let Err(Failure::Denied(denied)) = of(refusals) else {
        panic!("it is refused");
    };
    assert_eq!((denied.code, denied.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        denied.message,
        "policy 'p' with binding 'b' denied request: failed to configure binding: w"
    );
}
