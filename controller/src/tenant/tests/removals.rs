//! What is taken out of the spec is gone: for every field, the world after it
//! was set and removed is the world of a tenant that never had it.

use std::sync::LazyLock;

use apiservice::Resource;
use apiservice::v1alpha1::{TenantControlPlane, tenant_control_plane};
use serde_json::{Map, Value, json};

use crate::cluster::kinds::Found;
use crate::tenant::network::exposure;
use crate::tenant::plan::Object;
use crate::tenant::testing::{Lab, masked};

/// What may become of a field once it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Set, changed, removed.
    Free,
    /// Set and changed; the API refuses to be without it again.
    Stays,
    /// Set once.
    Fixed,
}
use Life::{Fixed, Free, Stays};

/// A field below `spec`, two values of it, and what it needs beside it.
struct Row {
    path: &'static str,
    values: [Value; 2],
    beside: Value,
    life: Life,
}

fn row(path: &'static str, one: Value, other: Value) -> Row {
    Row {
        path,
        values: [one, other],
        beside: json!({}),
        life: Free,
    }
}

impl Row {
    fn beside(self, beside: Value) -> Self {
        Row { beside, ..self }
    }

    fn life(self, life: Life) -> Self {
        Row { life, ..self }
    }
}

fn metadata(path: &'static str) -> Row {
    row(
        path,
        json!({"labels": {"a": "b"}, "annotations": {"c": "d", "e": "f"}}),
        json!({"labels": {"g": "h"}, "annotations": {"c": "i"}}),
    )
}

fn arguments(path: &'static str) -> Row {
    row(
        path,
        json!(["--v=4", "--profiling=false"]),
        json!(["--v=2"]),
    )
}

fn mounts(path: &'static str) -> Row {
    row(
        path,
        json!([{"name": "more", "mountPath": "/more"}]),
        json!([{"name": "more", "mountPath": "/other"}]),
    )
    .beside(json!({"controlPlane": {"deployment": {
        "additionalVolumes": [{"name": "more", "emptyDir": {}}],
    }}}))
}

fn amounts(path: &'static str) -> Row {
    row(
        path,
        json!({"requests": {"cpu": "300m"}, "limits": {"memory": "1Gi"}}),
        json!({"requests": {"memory": "300Mi"}}),
    )
}

fn timing(path: &'static str) -> Row {
    row(
        path,
        json!({"periodSeconds": 7, "failureThreshold": 9}),
        json!({"timeoutSeconds": 3}),
    )
}

fn timings(path: &'static str) -> Row {
    row(
        path,
        json!({"liveness": {"periodSeconds": 7}, "startup": {"failureThreshold": 9}}),
        json!({"readiness": {"timeoutSeconds": 3}}),
    )
}

fn security(path: &'static str) -> Row {
    row(path, json!({"privileged": true}), json!({"runAsUser": 1}))
}

fn text(path: &'static str) -> Row {
    row(path, json!("one"), json!("other"))
}

fn balanced() -> Value {
    json!({"controlPlane": {"service": {"serviceType": "LoadBalancer"}}, "networkProfile": {"address": "192.0.2.9"}})
}

/// Every field of the spec; a test holds it against the schema.
fn table() -> Vec<Row> {
    vec![
        // Another one is a move of the data, which a plan does not make: see `moves.rs`.
        row("/dataStore", json!("default"), json!("default")).life(Stays),
        row(
            "/dataStoreAssignment",
            json!({"drivers": ["etcd"]}),
            json!({"selector": {"matchLabels": {"a": "b"}}}),
        ),
        text("/dataStoreSchema").life(Fixed),
        text("/dataStoreUsername").life(Fixed),
        row(
            "/dataStoreOverrides",
            json!([{"resource": "/events", "dataStore": "a"}]),
            json!([{"resource": "/events", "dataStore": "b"}]),
        ),
        row(
            "/writePermissions",
            json!({"blockCreation": true}),
            json!({"blockUpdate": true}),
        ),
        text("/controlPlane/deployment/registrySettings/registry"),
        text("/controlPlane/deployment/registrySettings/tagSuffix"),
        text("/controlPlane/deployment/registrySettings/apiServerImage"),
        text("/controlPlane/deployment/registrySettings/controllerManagerImage"),
        text("/controlPlane/deployment/registrySettings/schedulerImage"),
        row("/controlPlane/deployment/replicas", json!(3), json!(0)),
        row(
            "/controlPlane/deployment/nodeSelector",
            json!({"a": "b"}),
            json!({"c": "d"}),
        ),
        text("/controlPlane/deployment/runtimeClassName"),
        row(
            "/controlPlane/deployment/strategy",
            json!({"type": "Recreate"}),
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}),
        ),
        row(
            "/controlPlane/deployment/tolerations",
            json!([{"key": "a", "operator": "Exists"}]),
            json!([{"key": "b", "operator": "Exists"}]),
        ),
        row(
            "/controlPlane/deployment/affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}),
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]}}),
        ),
        row(
            "/controlPlane/deployment/topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]),
            json!([{"maxSkew": 1, "topologyKey": "b", "whenUnsatisfiable": "ScheduleAnyway"}]),
        ),
        amounts("/controlPlane/deployment/resources/apiServer"),
        amounts("/controlPlane/deployment/resources/controllerManager"),
        amounts("/controlPlane/deployment/resources/scheduler"),
        amounts("/controlPlane/deployment/resources/kine"),
        row(
            "/controlPlane/deployment/resources/claims",
            json!([{"name": "a"}]),
            json!([{"name": "b"}]),
        ),
        row(
            "/controlPlane/deployment/resources/limits",
            json!({"cpu": "1"}),
            json!({"memory": "1Gi"}),
        ),
        row(
            "/controlPlane/deployment/resources/requests",
            json!({"cpu": "1"}),
            json!({"memory": "1Gi"}),
        ),
        arguments("/controlPlane/deployment/extraArgs/apiServer"),
        arguments("/controlPlane/deployment/extraArgs/controllerManager"),
        arguments("/controlPlane/deployment/extraArgs/scheduler"),
        arguments("/controlPlane/deployment/extraArgs/kine"),
        metadata("/controlPlane/deployment/additionalMetadata"),
        metadata("/controlPlane/deployment/podAdditionalMetadata"),
        row(
            "/controlPlane/deployment/additionalInitContainers",
            json!([{"name": "one", "image": "i"}]),
            json!([{"name": "other", "image": "i"}]),
        ),
        row(
            "/controlPlane/deployment/additionalContainers",
            json!([{"name": "one", "image": "i", "env": [{"name": "a", "value": "b"}]}]),
            json!([{"name": "one", "image": "i"}]),
        ),
        row(
            "/controlPlane/deployment/additionalVolumes",
            json!([{"name": "one", "emptyDir": {}}]),
            json!([{"name": "other", "emptyDir": {}}]),
        ),
        mounts("/controlPlane/deployment/additionalVolumeMounts/apiServer"),
        mounts("/controlPlane/deployment/additionalVolumeMounts/controllerManager"),
        mounts("/controlPlane/deployment/additionalVolumeMounts/scheduler"),
        text("/controlPlane/deployment/serviceAccountName"),
        row(
            "/controlPlane/deployment/automountServiceAccountToken",
            json!(true),
            json!(false),
        ),
        row(
            "/controlPlane/deployment/podSecurityContext",
            json!({"runAsUser": 1}),
            json!({"fsGroup": 1}),
        ),
        security("/controlPlane/deployment/containerSecurityContexts/apiServer"),
        security("/controlPlane/deployment/containerSecurityContexts/controllerManager"),
        security("/controlPlane/deployment/containerSecurityContexts/scheduler"),
        timing("/controlPlane/deployment/probes/liveness"),
        timing("/controlPlane/deployment/probes/readiness"),
        timing("/controlPlane/deployment/probes/startup"),
        timings("/controlPlane/deployment/probes/apiServer"),
        timings("/controlPlane/deployment/probes/controllerManager"),
        timings("/controlPlane/deployment/probes/scheduler"),
        row(
            "/controlPlane/service/serviceType",
            json!("NodePort"),
            json!("LoadBalancer"),
        )
        .beside(json!({"networkProfile": {"address": "192.0.2.9", "port": 30443}}))
        .life(Stays),
        metadata("/controlPlane/service/additionalMetadata"),
        row(
            "/controlPlane/service/additionalPorts",
            json!([{"name": "one", "port": 1, "targetPort": 1}]),
            json!([{"name": "other", "port": 2, "targetPort": "b", "protocol": "UDP", "appProtocol": "x"}]),
        ),
        row(
            "/controlPlane/service/allocateLoadBalancerNodePorts",
            json!(false),
            json!(true),
        )
        .beside(balanced()),
        row(
            "/controlPlane/ingress",
            json!({"hostname": "a.b"}),
            json!({"hostname": "c.d"}),
        ),
        row(
            "/controlPlane/gateway",
            json!({"hostname": "a.b"}),
            json!({"hostname": "c.d"}),
        ),
        row("/kubernetes/version", json!("v1.36.4"), json!("v1.36.5")).life(Stays),
        row(
            "/kubernetes/kubelet/preferredAddressTypes",
            json!(["Hostname"]),
            json!(["ExternalIP", "InternalIP"]),
        ),
        row(
            "/kubernetes/kubelet/cgroupfs",
            json!("systemd"),
            json!("cgroupfs"),
        ),
        row(
            "/kubernetes/kubelet/configurationJSONPatches",
            json!([{"op": "add", "path": "/a", "value": 1}]),
            json!([{"op": "remove", "path": "/b"}]),
        ),
        row(
            "/kubernetes/admissionControllers",
            json!(["AlwaysPullImages"]),
            json!(["ResourceQuota"]),
        ),
        row(
            "/networkProfile/address",
            json!("192.0.2.1"),
            json!("192.0.2.2"),
        ),
        row(
            "/networkProfile/advertiseAddress",
            json!("198.51.100.1"),
            json!("198.51.100.2"),
        ),
        row(
            "/networkProfile/allowAddressAsExternalIP",
            json!(true),
            json!(false),
        )
        .beside(json!({"networkProfile": {"address": "192.0.2.9"}})),
        row("/networkProfile/port", json!(7443), json!(8443)),
        row(
            "/networkProfile/certSANs",
            json!(["one.example.com", "192.0.2.7", "*.a.example.com"]),
            json!(["other.example.com"]),
        ),
        row(
            "/networkProfile/serviceCidr",
            json!("10.7.0.0/16"),
            json!("10.8.0.0/16"),
        )
        .life(Fixed),
        row(
            "/networkProfile/podCidr",
            json!("10.7.0.0/16"),
            json!("10.8.0.0/16"),
        )
        .life(Fixed),
        row(
            "/networkProfile/serviceCidrs",
            json!(["10.96.0.0/16", "fd00:1::/108"]),
            json!(["10.96.0.0/16", "fd00:2::/108"]),
        ),
        row(
            "/networkProfile/podCidrs",
            json!(["10.244.0.0/16", "fd00:1::/56"]),
            json!(["10.244.0.0/16", "fd00:2::/56"]),
        ),
        row(
            "/networkProfile/dnsServiceIPs",
            json!(["10.96.0.20"]),
            json!(["10.96.0.30"]),
        ),
        text("/networkProfile/clusterDomain").life(Fixed),
        row(
            "/networkProfile/loadBalancerClass",
            json!("a.b/c"),
            json!("a.b/d"),
        )
        .beside(balanced())
        .life(Fixed),
        row(
            "/networkProfile/loadBalancerSourceRanges",
            json!(["192.0.2.0/24"]),
            json!(["198.51.100.0/24"]),
        )
        .beside(balanced()),
        row("/addons/coreDNS", json!({}), json!({"imageTag": "a"})),
        row("/addons/kubeProxy", json!({}), json!({"imageTag": "a"})),
        row(
            "/addons/konnectivity",
            json!({}),
            json!({"server": {"port": 9000}}),
        ),
        row(
            "/kubernetes/kubelet/servingCertificates",
            json!({}),
            json!({"allowedSubnets": ["10.0.0.0/8"]}),
        ),
        row("/addons/tcpProxy", json!({}), json!({"image": "a"})),
        row(
            "/addons/workerBootstrap",
            json!({"provider": "talos", "talos": {}}),
            json!({"provider": "talos", "talos": {"port": 50002}}),
        ),
    ]
}

/// Every property below `schema` that no row covers.
fn uncovered(schema: &Value, path: &str, rows: &[Row], missing: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        return missing.push(path.to_owned());
    };
    for (name, property) in properties {
        let path = format!("{path}/{name}");
        if !rows.iter().any(|row| row.path == path) {
            uncovered(property, &path, rows, missing);
        }
    }
}

#[test]
fn every_field_has_its_row() {
    let schema = tenant_control_plane::RESOURCE.schema().at(&["spec"]);
    let mut missing = Vec::new();
    uncovered(schema.unwrap(), "", &table(), &mut missing);
    assert!(missing.is_empty(), "no row for {missing:?}");
}

/// Writes the spec as the API would, if it takes the change.
fn write(lab: &mut Lab, change: impl FnOnce(&mut Value)) -> Result<(), Vec<String>> {
    let resource: &Resource = &tenant_control_plane::RESOURCE;
    let old = serde_json::to_value(lab.world.tenant.as_ref()).unwrap();
    let mut new = old.clone();
    change(&mut new["spec"]);
    resource.normalize(&mut new);
    resource.default(&mut new);
    let errors = resource.validate(&new, Some(&old));
    if !errors.is_empty() {
        return Err(errors.iter().map(ToString::to_string).collect());
    }
    let new: TenantControlPlane = serde_json::from_value(new).unwrap();
    *lab.spec() = new.spec;
    Ok(())
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

pub(crate) fn set(spec: &mut Value, path: &str, value: &Value) {
    let mut at = spec;
    for key in path.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = at
            .as_object_mut()
            .unwrap()
            .entry(key.to_owned())
            .or_insert(Value::Null);
    }
    *at = value.clone();
}

pub(crate) fn remove(spec: &mut Value, path: &str) {
    let (parent, name) = path.rsplit_once('/').unwrap();
    if let Some(parent) = spec.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.remove(name);
    }
}

/// Passes until nothing changes any more, with pods and probes that follow.
pub(crate) fn settle(lab: &mut Lab) {
    for _ in 0..8 {
        let before = lab.world.tenant.status.clone();
        let plan = lab.pass();
        lab.run_pods();
        // Ways of before stay for some seconds.
        lab.later(11);
        lab.probe(Ok(()));
        let exposure = exposure::of(&lab.world).unwrap();
        let endpoint = lab.world.probe.endpoint.as_mut().unwrap();
        endpoint.address = exposure.published.to_string();
        if plan.is_quiet() && before == lab.world.tenant.status {
            return;
        }
    }
    panic!("it does not come to rest:\n{}", lab.plan());
}

/// Everything in the management cluster and in status, without what differs
/// between two histories of one spec: versions, times, keys.
pub(crate) fn fingerprint(lab: &Lab) -> String {
    let owned = &lab.world.owned;
    let mut text = String::new();
    let mut say = |held: &Found| {
        let object = Object::from(held.clone());
        let described = match &object {
            // Key material is told by what certificates say.
            Object::Secret(_) => json!({"metadata": object.meta(), "data": object.to_string()}),
            other => other.value().unwrap(),
        };
        text.push_str(&format!("{}\n", object.key()));
        print(&scrubbed(described), 1, &mut text);
    };
    for held in owned.iter() {
        say(held);
    }
    text.push_str("status\n");
    let status = serde_json::to_value(&lab.world.tenant.status).unwrap();
    print(&scrubbed(status), 1, &mut text);
    masked(&text)
}

fn print(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                text.push_str(&format!("{indent}{key}:\n"));
                print(value, depth + 1, text);
            }
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                text.push_str(&format!("{indent}{number}\n"));
                print(value, depth + 1, text);
            }
        }
        Value::String(said) => {
            for line in said.lines() {
                let line = line.split(", until ").next().unwrap_or_default();
                text.push_str(&format!("{indent}{line}\n"));
            }
        }
        other => text.push_str(&format!("{indent}{other}\n")),
    }
}

fn scrubbed(value: Value) -> Value {
    const HISTORY: [&str; 12] = [
        apiservice::names::ANNOTATION_GENERATION,
        // Why certificates were made, and when pods were rolled for it.
        apiservice::names::ANNOTATION_OWN_CAUSE,
        apiservice::names::ANNOTATION_ROLL,
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "generation",
        "observedGeneration",
        "lastUpdate",
        "lastTransitionTime",
        "expires",
        "startedAt",
    ];
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let kept = fields.filter(|(key, _)| !HISTORY.contains(&key.as_str()));
            Value::Object(
                kept.map(|(key, value)| (key, scrubbed(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(list) => Value::Array(list.into_iter().map(scrubbed).collect()),
        other => other,
    }
}

fn same(case: &str, found: &Lab, wanted: &Lab) {
    let (found, wanted) = (fingerprint(found), fingerprint(wanted));
    for (number, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "{case}, line {number} of what there is");
    }
    assert_eq!(found.lines().count(), wanted.lines().count(), "{case}");
}

/// A settled tenant without the field, and with what the field needs beside it.
fn without(row: &Row) -> Lab {
    static PLAIN: LazyLock<Lab> = LazyLock::new(|| {
        let mut lab = Lab::ready();
        settle(&mut lab);
        lab
    });
    let mut lab = PLAIN.clone();
    let before = lab.world.tenant.spec.clone();
    write(&mut lab, |spec| merge(spec, &row.beside)).unwrap();
    // The lab itself names some fields that need not be named; what has to be
    // there stays.
    drop(write(&mut lab, |spec| remove(spec, row.path)));
    if lab.world.tenant.spec != before {
        settle(&mut lab);
    }
    lab
}

fn follow(row: &Row) {
    let [one, other] = &row.values;
    let path = row.path;
    let without = without(row);
    let given = |lab: &Lab, value: &Value| {
        let mut lab = lab.clone();
        let written = write(&mut lab, |spec| set(spec, path, value));
        written.map(|()| {
            settle(&mut lab);
            lab
        })
    };
    let with_one = match given(&without, one) {
        Ok(lab) => lab,
        // What is fixed at birth is not even set later.
        Err(_) if row.life == Fixed => return,
        Err(errors) => panic!("{path}: {errors:?}"),
    };
    let changed = given(&with_one, other);
    assert_eq!(changed.is_ok(), row.life != Fixed, "{path} changed");
    let Ok(mut changed) = changed else { return };
    let case = format!("{path} changed");
    same(&case, &changed, &given(&without, other).unwrap());

    let mut emptied = changed.clone();
    let null = write(&mut emptied, |spec| set(spec, path, &Value::Null));
    let removed = write(&mut changed, |spec| remove(spec, path));
    for answer in [&null, &removed] {
        assert_eq!(answer.is_ok(), row.life == Free, "{path}: {answer:?}");
    }
    assert_eq!(
        emptied.world.tenant.spec, changed.world.tenant.spec,
        "{path}: null is another word for its removal"
    );
    if removed.is_ok() {
        settle(&mut changed);
        same(&format!("{path} removed"), &changed, &without);
    }
}

/// One part of the table, so that the parts run side by side.
fn follow_part(part: usize) {
    for row in table().iter().skip(part).step_by(PARTS) {
        follow(row);
    }
}

const PARTS: usize = 3;

#[test]
fn what_is_taken_out_of_the_spec_is_gone_part_1() {
    follow_part(0);
}

#[test]
fn what_is_taken_out_of_the_spec_is_gone_part_2() {
    follow_part(1);
}

#[test]
fn what_is_taken_out_of_the_spec_is_gone_part_3() {
    follow_part(2);
}
