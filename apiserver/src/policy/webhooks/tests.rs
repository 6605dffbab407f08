use super::*;
use crate::policy::Operation;
use crate::policy::cel::Program;
use crate::policy::rules::tests::with_attributes;

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
        let held = holds(&conditions, &Named(&variables));
        assert_eq!(held, expected.map_err(str::to_owned), "{sources:?}");
    }
    assert!(holds(&[condition("object.metadata.name")], &Named(&variables)).is_err());
}

#[test]
fn a_request_has_what_kubernetes_says_of_it() {
    let scale = (Operation::Update, "tenantcontrolplanes", "scale");
    let request = with_attributes(scale, |attributes| {
        Value::Object(attributes.to_request("u"))
    });
    let resource = json!({"group": "steward.butlerlabs.dev", "version": "v1alpha1", "resource": "tenantcontrolplanes"});
    let kind = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    let expected = json!({
        "uid": "u", "kind": kind, "requestKind": kind, "resource": resource,
        "requestResource": resource, "subResource": "scale", "requestSubResource": "scale",
        "name": "one", "namespace": "n", "operation": "UPDATE", "dryRun": false,
        "userInfo": {"username": "a", "groups": ["g"]}, "options": {},
    });
    assert_eq!(request, expected);
}
