//! What is accepted does something, or a Warning says that it does not.
#![allow(clippy::disallowed_methods, reason = "tests")]

use serde_json::{Value, json};

fn tenant(spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": "t", "namespace": "n"},
        "spec": {
            "controlPlane": {"service": {"serviceType": "ClusterIP"}},
            "kubernetes": {"version": "v1.36.3", "kubelet": {}},
        },
    });
    merge(&mut object["spec"], &spec);
    apiservice::find("tenantcontrolplanes")
        .unwrap()
        .default(&mut object);
    object
}

fn merge(target: &mut Value, patch: &Value) {
    match (target.as_object_mut(), patch) {
        (Some(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *target = patch.clone(),
    }
}

#[test]
fn what_has_no_effect_draws_a_warning() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let arguments =
        |list: Value| json!({"controlPlane": {"deployment": {"extraArgs": {"apiServer": list}}}});
    let pods = |metadata: Value| json!({"controlPlane": {"deployment": {"podAdditionalMetadata": metadata}}});
    let table = [
        (json!({}), vec![]),
        (
            arguments(json!(["--v=2", "--feature_gates=A=true"])),
            vec![],
        ),
        (
            arguments(json!(["--v=2", "--etcd_prefix=/x", "--secure-port=1"])),
            vec![
                "extraArgs.apiServer[1]: --etcd-prefix is set by Steward",
                "extraArgs.apiServer[2]: --secure-port is set by Steward",
            ],
        ),
        (
            json!({"networkProfile": {"allowAddressAsExternalIP": true}}),
            vec![
                "allowAddressAsExternalIP: has no effect, for spec.networkProfile.address is not set",
            ],
        ),
        (
            json!({"networkProfile": {"allowAddressAsExternalIP": true, "address": "192.0.2.1"}}),
            vec![],
        ),
        (
            json!({
                "networkProfile": {"allowAddressAsExternalIP": true, "address": "192.0.2.1"},
                "controlPlane": {"service": {"serviceType": "LoadBalancer"}},
            }),
            vec!["allowAddressAsExternalIP: has no effect, for the load balancer"],
        ),
        (
            json!({"networkProfile": {"dnsServiceIPs": ["10.96.0.20"]}}),
            vec!["dnsServiceIPs: kubelets are told to ask these addresses"],
        ),
        (
            json!({"networkProfile": {"clusterDomain": "a.b"}}),
            vec!["clusterDomain: kubelets, certificates and tokens have a.b"],
        ),
        (
            json!({
                "networkProfile": {"clusterDomain": "a.b", "dnsServiceIPs": ["10.96.0.20"]},
                "addons": {"coreDNS": {}},
            }),
            vec![],
        ),
        (
            json!({
                "networkProfile": {"address": "192.0.2.1", "port": 30443},
                "controlPlane": {
                    "service": {"serviceType": "NodePort"},
                    "deployment": {"extraArgs": {"apiServer": ["--egress-selector-config-file=/a"]}},
                },
                "addons": {"konnectivity": {"server": {"port": 8132, "extraArgs": ["--v=4", "--agent_port=1"]}}},
            }),
            vec![
                "konnectivity.server.port: with serviceType NodePort it is a node port too; 8132",
                "konnectivity.server.extraArgs[1]: --agent-port is set by Steward",
                "extraArgs.apiServer[0]: --egress-selector-config-file is set by Steward",
            ],
        ),
        (
            json!({
                "controlPlane": {"deployment": {"extraArgs": {"apiServer": ["--egress-selector-config-file=/a"]}}},
            }),
            vec![],
        ),
        (
            json!({"networkProfile": {"podCidr": ""}}),
            vec!["podCidr: without a range"],
        ),
        (
            json!({"controlPlane": {"deployment": {"resources": {"scheduler": {"claims": [{"name": "a"}]}}}}}),
            vec!["resources.scheduler.claims: the pods have no resource claims"],
        ),
        (
            pods(json!({"labels": {"example.com/a": "b", "notsteward.butlerlabs.dev/a": "b"}})),
            vec![],
        ),
        (
            pods(json!({"labels": {"component.steward.butlerlabs.dev/ca": "b"}})),
            vec![
                "podAdditionalMetadata.labels[component.steward.butlerlabs.dev/ca]: keys of this prefix are Steward's own; left out",
            ],
        ),
        (
            json!({"controlPlane": {"service": {"additionalMetadata": {"annotations": {"steward.butlerlabs.dev/applied": "b"}}}}}),
            vec!["service.additionalMetadata.annotations[steward.butlerlabs.dev/applied]: keys"],
        ),
        (
            json!({"controlPlane": {"deployment": {"additionalMetadata": {"annotations": {"steward.butlerlabs.dev/roll": "b"}}}}}),
            vec!["deployment.additionalMetadata.annotations[steward.butlerlabs.dev/roll]: keys"],
        ),
    ];
    for (spec, wanted) in table {
        let object = tenant(spec.clone());
        let errors = resource.validate(&object, None);
        assert!(errors.is_empty(), "{spec}: {errors:?}");
        let found = resource.warnings(&object, None);
        assert_eq!(found.len(), wanted.len(), "{spec}: {found:?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.contains(wanted), "{spec}: {found}");
        }
    }
}

#[test]
fn modes_of_files_are_octal_numbers() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let volumes = |source: Value| {
        let mut volume = json!({"name": "v"});
        merge(&mut volume, &source);
        tenant(
            json!({"controlPlane": {"deployment": {"replicas": 0, "additionalVolumes": [volume]}}}),
        )
    };
    let right = volumes(json!({"secret": {"secretName": "s", "defaultMode": 0o640}}));
    assert!(resource.validate(&right, None).is_empty());
    let table = [
        (
            json!({"secret": {"secretName": "s", "defaultMode": 640}}),
            "secret.defaultMode",
        ),
        (
            json!({"projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p", "mode": 777}]}}]}}),
            "projected.sources[0].secret.items[0].mode",
        ),
    ];
    for (source, field) in table {
        let object = volumes(source);
        let found: Vec<String> = resource
            .validate(&object, None)
            .iter()
            .map(ToString::to_string)
            .collect();
        let path =
            format!("spec.controlPlane.deployment.additionalVolumes[0].{field}: Invalid value");
        assert!(found.len() == 1 && found[0].starts_with(&path), "{found:?}");
        // What was stored before does not stand in the way of other changes.
        let mut changed = object.clone();
        changed["spec"]["controlPlane"]["deployment"]["replicas"] = 1.into();
        assert!(resource.validate(&changed, Some(&object)).is_empty());
    }
}
