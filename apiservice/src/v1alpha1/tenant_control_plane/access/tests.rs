use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::borrowed;
use crate::v1alpha1::Deployment;

/// What a field of `spec.controlPlane.deployment` is to rule 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Whoever sets it needs the right to create pods.
    Shapes,
    /// So does whoever takes it away.
    Restricts,
    /// It says nothing of a pod that its author could not have: how many and how they are
    /// replaced, what our own components are given (of which `extraArgs` are judged by
    /// rules of their own), and what stands on the Deployment.
    Ours,
}
use Kind::{Ours, Restricts, Shapes};

/// Every field, with something that it may say.
fn fields() -> Vec<(&'static str, Kind, Value)> {
    let container = json!([{"name": "c", "image": "i"}]);
    let per_component = json!({"apiServer": [{"name": "v", "mountPath": "/v"}]});
    vec![
        (
            "registrySettings",
            Shapes,
            json!({"registry": "example.org"}),
        ),
        ("replicas", Ours, json!(3)),
        ("nodeSelector", Restricts, json!({"a": "b"})),
        ("runtimeClassName", Restricts, json!("kata")),
        ("strategy", Ours, json!({"type": "Recreate"})),
        ("tolerations", Shapes, json!([{"operator": "Exists"}])),
        ("affinity", Restricts, json!({"nodeAffinity": {"a": 1}})),
        ("topologySpreadConstraints", Shapes, json!([{"maxSkew": 1}])),
        ("resources", Ours, json!({"limits": {"cpu": "1"}})),
        ("extraArgs", Ours, json!({"apiServer": ["--v=2"]})),
        ("additionalMetadata", Ours, json!({"labels": {"a": "b"}})),
        (
            "podAdditionalMetadata",
            Shapes,
            json!({"labels": {"a": "b"}}),
        ),
        ("additionalInitContainers", Shapes, container.clone()),
        ("additionalContainers", Shapes, container),
        (
            "additionalVolumes",
            Shapes,
            json!([{"name": "v", "emptyDir": {}}]),
        ),
        ("additionalVolumeMounts", Shapes, per_component),
        ("serviceAccountName", Shapes, json!("admin")),
        ("automountServiceAccountToken", Shapes, json!(true)),
        (
            "podSecurityContext",
            Restricts,
            json!({"runAsNonRoot": true}),
        ),
        (
            "containerSecurityContexts",
            Restricts,
            json!({"apiServer": {"privileged": true}}),
        ),
        ("probes", Ours, json!({"liveness": {"periodSeconds": 5}})),
    ]
}

fn tenant(deployment: Value) -> Value {
    json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {"controlPlane": {"deployment": deployment}}})
}

/// Whether the right to create pods is borrowed for this field.
fn asks(name: &str, new: &Value, old: Option<&Value>) -> bool {
    let field = format!("spec.controlPlane.deployment.{name}");
    borrowed(new, old).iter().any(|right| {
        right.field == field
            && (right.verb, right.group, right.resource, right.subresource)
                == ("create", "", "pods", "")
            && right.namespace.as_deref() == Some("n")
    })
}

/// A field that is new must be classified, above, before it can be merged.
#[test]
fn every_field_of_the_deployment_is_classified() {
    let schema = schemars::schema_for!(Deployment).to_value();
    let known: BTreeSet<String> = fields()
        .iter()
        .map(|(name, ..)| (*name).to_owned())
        .collect();
    let there = schema["properties"].as_object().unwrap();
    assert_eq!(there.keys().cloned().collect::<BTreeSet<_>>(), known);
}

/// Rule 8: on create, on a change, and when what holds pods back is taken away.
#[test]
fn what_shapes_pods_is_covered_by_the_right_to_create_them() {
    for (name, kind, value) in fields() {
        let (with, without) = (tenant(json!({name: value})), tenant(json!({})));
        assert_eq!(asks(name, &with, None), kind != Ours, "create with {name}");
        assert_eq!(
            asks(name, &with, Some(&without)),
            kind != Ours,
            "update sets {name}"
        );
        assert!(!asks(name, &with, Some(&with)), "update leaves {name}");
        let asked = asks(name, &without, Some(&with));
        assert_eq!(asked, kind == Restricts, "update takes {name} away");
    }
}
