//! Names by which a proxy leads clients to a control plane.
#![allow(clippy::disallowed_methods, reason = "tests")]

use apiservice::v1alpha1::{ControlPlane, unsupported};
use serde_json::{Value, json};

/// A tenant with these fields of `controlPlane`.
fn tenant(fields: &str, tunnel: bool) -> Value {
    let mut object = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": "t", "namespace": "n"},
        "spec": {
            "controlPlane": {"service": {"serviceType": "ClusterIP"}},
            "kubernetes": {"version": "v1.36.3", "kubelet": {}},
        },
    });
    let fields: Value = serde_saphyr::from_str(fields).unwrap();
    let plane = object["spec"]["controlPlane"].as_object_mut().unwrap();
    plane.extend(fields.as_object().unwrap().clone());
    if tunnel {
        object["spec"]["addons"]["konnectivity"] = json!({});
    }
    resource().default(&mut object);
    object
}

fn resource() -> &'static apiservice::Resource {
    apiservice::find("tenantcontrolplanes").unwrap()
}

fn errors(new: &Value, old: Option<&Value>) -> Vec<String> {
    let errors = resource().validate(new, old);
    errors.iter().map(ToString::to_string).collect()
}

const GATEWAY: &str = "parentRefs: [{name: g, namespace: edge}]";

#[test]
fn a_name_is_one_that_clients_can_dial() {
    let long = format!("{}.example.com", "a".repeat(64));
    let just = format!("{}.example.com", "a".repeat(63));
    let ingress = "spec.controlPlane.ingress.hostname: ";
    let gateway = "spec.controlPlane.gateway.hostname: ";
    let table: Vec<(String, Vec<String>)> = vec![
        ("ingress: {hostname: a.example.com}".into(), vec![]),
        ("ingress: {hostname: 'a.example.com:8443'}".into(), vec![]),
        (format!("ingress: {{hostname: {just}}}"), vec![]),
        (
            format!("gateway: {{hostname: a.example.com, {GATEWAY}}}"),
            vec![],
        ),
        ("ingress: {}".into(), vec![]),
        ("gateway: {}".into(), vec![]),
        (
            "ingress: {hostname: '*.example.com'}".into(),
            vec![format!(
                "{ingress}Invalid value: \"*.example.com\": must be a name that clients can dial, not a wildcard"
            )],
        ),
        (
            "ingress: {hostname: 'a.example.com:0'}".into(),
            vec![format!(
                "{ingress}Invalid value: \"a.example.com:0\": the port must be between 1 and 65535, inclusive"
            )],
        ),
        (
            "ingress: {hostname: 192.0.2.1}".into(),
            vec![format!(
                "{ingress}Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address"
            )],
        ),
        (
            "ingress: {hostname: '2001:db8::1'}".into(),
            vec![
                format!(
                    "{ingress}Invalid value: \"2001:db8::1\": must be a DNS name, not an IP address"
                ),
                format!(
                    "{ingress}Invalid value: \"2001:db8::1\": the port must be between 1 and 65535, inclusive"
                ),
            ],
        ),
        (
            format!("ingress: {{hostname: {long}}}"),
            vec![format!(
                "{ingress}Invalid value: \"{long}\": must be no more than 63 bytes"
            )],
        ),
        (
            format!("gateway: {{hostname: '*.example.com', {GATEWAY}}}"),
            vec![format!(
                "{gateway}Invalid value: \"*.example.com\": must be a name that clients can dial, not a wildcard"
            )],
        ),
        ("gateway: {hostname: a.example.com}".into(), vec![]),
        (
            "gateway: {hostname: a.example.com, parentRefs: [{name: g}, {name: h}, {name: g}]}"
                .into(),
            vec!["spec.controlPlane.gateway.parentRefs[2]: Duplicate value: \"g\"".into()],
        ),
    ];
    for (fields, wanted) in table {
        let object = tenant(&fields, false);
        assert_eq!(errors(&object, None), wanted, "{fields}");
        // What an older version has stored does not hinder other changes.
        let mut changed = object.clone();
        changed["spec"]["controlPlane"]["deployment"]["replicas"] = 0.into();
        assert_eq!(errors(&changed, Some(&object)), [""; 0], "{fields}");
    }
}

#[test]
fn the_name_for_agents_is_a_dns_name_too() {
    let long = format!("{}.example.com", "a".repeat(60));
    let fields = format!("ingress: {{hostname: {long}}}");
    assert_eq!(errors(&tenant(&fields, false), None), [""; 0]);
    let found = errors(&tenant(&fields, true), None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("konnectivity's agents would use"),
        "{found:?}"
    );
    // Also where the tunnel comes later.
    let found = errors(&tenant(&fields, true), Some(&tenant(&fields, false)));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn the_way_can_be_changed_but_is_one() {
    let plain = tenant("{}", false);
    let ingress = tenant("ingress: {hostname: a.example.com}", false);
    let gateway = tenant(
        &format!("gateway: {{hostname: a.example.com, {GATEWAY}}}"),
        false,
    );
    for (old, new) in [
        (&plain, &ingress),
        (&ingress, &gateway),
        (&gateway, &plain),
        (&gateway, &ingress),
    ] {
        assert_eq!(errors(new, Some(old)), [""; 0]);
    }
    let both = format!(
        "{{ingress: {{hostname: a.example.com}}, gateway: {{hostname: b.example.com, {GATEWAY}}}}}"
    );
    let found = errors(&tenant(&both, false), None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("cannot be used together"), "{found:?}");
}

#[test]
fn names_and_ports() {
    let of = |fields: &str| -> ControlPlane {
        let object = tenant(fields, false);
        serde_json::from_value(object["spec"]["controlPlane"].clone()).unwrap()
    };
    let table = [
        (
            "ingress: {hostname: t.example.com}",
            "t.example.com",
            "t-konnectivity.example.com",
        ),
        (
            "ingress: {hostname: 't.example.com:8443'}",
            "t.example.com",
            "t-konnectivity.example.com",
        ),
        ("ingress: {hostname: t}", "t", "t-konnectivity"),
        (
            "ingress: {hostname: t.k8s.example.com}",
            "t.k8s.example.com",
            "t.konnectivity.example.com",
        ),
        // A Gateway has a listener of its own for agents.
        (
            "gateway: {hostname: t.example.com}",
            "t.example.com",
            "t.example.com",
        ),
        (
            "gateway: {hostname: t.k8s.example.com}",
            "t.k8s.example.com",
            "t.konnectivity.example.com",
        ),
    ];
    for (fields, host, tunnel) in table {
        let plane = of(fields);
        let way = plane.by_name().unwrap();
        assert_eq!(way.host().as_deref(), Some(host), "{fields}");
        assert_eq!(way.tunnel_host().as_deref(), Some(tunnel), "{fields}");
    }
    let port = |text| of(text).ingress.unwrap().endpoint().unwrap().port;
    assert_eq!(port("ingress: {hostname: t.example.com}"), 443);
    assert_eq!(port("ingress: {hostname: 't.example.com:8443'}"), 8443);
    for unusable in [
        "gateway: {hostname: '*.example.com'}",
        "ingress: {}",
        "gateway: {}",
    ] {
        assert_eq!(of(unusable).by_name().unwrap().host(), None, "{unusable}");
    }
}

#[test]
fn what_is_missing_beside_it_is_warned_of() {
    let warnings = |fields: &str| resource().warnings(&tenant(fields, false), None);
    let told = |fields: &str| warnings(fields).join("\n");
    let plain = "ingress: {hostname: a.example.com}";
    assert!(
        told(plain).contains("nothing asks the Ingress controller"),
        "{}",
        told(plain)
    );
    assert!(
        told(plain).contains("Service kubernetes"),
        "{}",
        told(plain)
    );
    let known = "{ingress: {hostname: a.example.com, controllerType: haproxy}, service: {serviceType: NodePort}}";
    // A node port cannot be 6443.
    let port = "spec.networkProfile.port: with serviceType NodePort it is a node port too; 6443";
    assert!(told(known).starts_with(port), "{}", told(known));
    assert_eq!(warnings(known).len(), 1);
    let own = "ingress: {hostname: a.example.com, additionalMetadata: {annotations: {a: b, steward.butlerlabs.dev/name: x}}}";
    assert!(!told(own).contains("nothing asks"), "{}", told(own));
    assert!(
        told(own).contains("ingress.additionalMetadata.annotations[steward"),
        "{}",
        told(own)
    );
    for (empty, field) in [("ingress: {}", "ingress"), ("gateway: {}", "gateway")] {
        let wanted = format!(
            "spec.controlPlane.{field}: has no effect without a hostname, the name that clients dial"
        );
        assert_eq!(warnings(empty), [wanted]);
    }
    let nowhere = "{gateway: {hostname: a.example.com}, service: {serviceType: NodePort}}";
    assert!(
        told(nowhere).contains("names no Gateway"),
        "{}",
        told(nowhere)
    );
    let spec = tenant(plain, false)["spec"].clone();
    assert_eq!(unsupported(&serde_json::from_value(spec).unwrap()), [""; 0]);
}
