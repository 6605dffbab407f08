//! Rules of a TenantControlPlane, each broken once.

use serde_json::{Value, json};

fn tenant() -> Value {
    let mut object = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": "t", "namespace": "n"},
        "spec": {
            "controlPlane": {"service": {"serviceType": "LoadBalancer"}},
            "kubernetes": {"version": "v1.36.3", "kubelet": {}},
        },
    });
    apiservice::find("tenantcontrolplanes")
        .unwrap()
        .default(&mut object);
    object
}

/// `object` with the value at a JSON pointer below `/spec` set, parents made as
/// needed; null removes it.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parents, last) = pointer.rsplit_once('/').unwrap();
    let mut node = &mut object["spec"];
    for name in parents.split('/').filter(|name| !name.is_empty()) {
        node = &mut node[name];
    }
    match value {
        Value::Null => drop(node.as_object_mut().unwrap().remove(last)),
        value => node[last] = value,
    }
    apiservice::find("tenantcontrolplanes")
        .unwrap()
        .default(&mut object);
    object
}

fn errors(new: &Value, old: Option<&Value>) -> Vec<String> {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    resource
        .validate(new, old)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Setting this one field of a good object draws exactly this error.
fn refused(pointer: &str, value: Value, error: &str) {
    let found = errors(&with(tenant(), pointer, value), None);
    assert_eq!(found, [error], "{pointer}");
}

fn installed(version: &str) -> Value {
    let mut object = tenant();
    object["status"] =
        json!({"kubernetesResources": {"version": {"version": version, "status": "Ready"}}});
    object
}

#[test]
fn a_good_object_is_good() {
    assert!(errors(&tenant(), None).is_empty());
    assert!(errors(&tenant(), Some(&tenant())).is_empty());
}

/// R6.19.
#[test]
fn fields_are_judged_one_by_one() {
    refused(
        "/kubernetes/version",
        json!("latest"),
        "spec.kubernetes.version: Invalid value: \"latest\": must be a version of Kubernetes with three numbers, for example v1.36.0",
    );
    refused(
        "/kubernetes/version",
        json!("v1.37.0"),
        "spec.kubernetes.version: Invalid value: \"v1.37.0\": the newest supported version is 1.36; choose one of v1.36.x or older",
    );
    refused(
        "/networkProfile/address",
        json!("lb.example.com"),
        "spec.networkProfile.address: Invalid value: \"lb.example.com\": address must be an IP address, or empty for the one of the Service",
    );
    refused(
        "/networkProfile/certSANs",
        json!(["ok.example.com", "*.example.com", "10.0.0.1", "Not OK"]),
        "spec.networkProfile.certSANs[3]: Invalid value: \"Not OK\": must be an IP address, a DNS name in lower case, or a DNS name with *. before it",
    );
    refused(
        "/networkProfile/podCidr",
        json!("10.96.128.0/17"),
        "spec.networkProfile.podCidr: Invalid value: \"10.96.128.0/17\": overlaps with the range of Service addresses 10.96.0.0/16; choose ranges apart from each other",
    );
    refused(
        "/networkProfile/serviceCidrs",
        json!(["10.96.0.0/16", "10.97.0.0/16"]),
        "spec.networkProfile.serviceCidrs: Invalid value: two ranges must be of different IP families: one IPv4, one IPv6",
    );
    refused(
        "/networkProfile/dnsServiceIPs",
        json!(["10.97.0.10"]),
        "spec.networkProfile.dnsServiceIPs[0]: Invalid value: \"10.97.0.10\": must be inside the range of Service addresses 10.96.0.0/16",
    );
    refused(
        "/networkProfile/loadBalancerSourceRanges",
        json!(["1.2.3.4"]),
        "spec.networkProfile.loadBalancerSourceRanges: Invalid value: each of loadBalancerSourceRanges must be a network such as 192.0.2.0/24",
    );
    refused(
        "/dataStoreUsername",
        json!("root"),
        "spec.dataStoreUsername: Invalid value: \"root\": root is the administrator of the DataStore; choose another name",
    );
    refused(
        "/dataStoreSchema",
        json!("a/b"),
        "spec.dataStoreSchema: Invalid value: \"a/b\": spec.dataStoreSchema in body should match '^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$'",
    );
    refused(
        "/dataStoreOverrides",
        json!([{"resource": "/events", "dataStore": "a"}, {"resource": "/events", "dataStore": "b"}]),
        "spec.dataStoreOverrides[1].resource: Duplicate value: \"/events\"",
    );
    refused(
        "/dataStoreOverrides",
        json!([{"resource": "/events", "dataStore": "a"}, {"resource": "events.k8s.io/events", "dataStore": "b"}]),
        "spec.dataStoreOverrides[1].resource: Duplicate value: \"events.k8s.io/events\"",
    );
    refused(
        "/dataStoreOverrides",
        json!([{"resource": "/events#http://elsewhere", "dataStore": "a"}]),
        "spec.dataStoreOverrides[0].resource: Invalid value: \"/events#http://elsewhere\": must be a group, a slash and a resource, in small letters: /events, or apps/replicasets",
    );
    refused(
        "/controlPlane/deployment/additionalContainers",
        json!([{"name": "kube-apiserver", "image": "x"}]),
        "spec.controlPlane.deployment.additionalContainers[0].name: Invalid value: \"kube-apiserver\": the name is used by the control plane itself; choose another one",
    );
    refused(
        "/controlPlane/deployment/additionalVolumes",
        json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
        "spec.controlPlane.deployment.additionalVolumes[1].name: Duplicate value: \"a\"",
    );
    refused(
        "/controlPlane/deployment/extraArgs",
        json!({"apiServer": ["--v=2", "audit"]}),
        "spec.controlPlane.deployment.extraArgs.apiServer[1]: Invalid value: \"audit\": must be one argument with its flag, as --flag=value",
    );
    refused(
        "/controlPlane/service/additionalPorts",
        json!([{"name": "a", "port": 6443, "targetPort": 1}]),
        "spec.controlPlane.service.additionalPorts[0].port: Invalid value: 6443: the Service already has this port; the one of the API server is networkProfile.port, that of the tunnel addons.konnectivity.server.port",
    );
    refused(
        "/kubernetes/kubelet/configurationJSONPatches",
        json!([{"op": "replace", "path": "/a"}]),
        "spec.kubernetes.kubelet.configurationJSONPatches[0].value: Required value: needed with op add, replace and test",
    );
    refused(
        "/addons/konnectivity",
        json!({"server": {"port": 80}}),
        "spec.addons.konnectivity.server.port: Invalid value: 80: must be between 1024 and 49151, inclusive: the server takes no other",
    );
    for port in [6443, 8134] {
        refused(
            "/addons/konnectivity",
            json!({"server": {"port": port}}),
            &format!(
                "spec.addons.konnectivity.server.port: Invalid value: {port}: the control plane's pods listen on this port for something else"
            ),
        );
    }
    refused(
        "/addons/konnectivity",
        json!({"agent": {"extraArgs": ["v=4"]}}),
        "spec.addons.konnectivity.agent.extraArgs[0]: Invalid value: \"v=4\": must be one argument with its flag, as --flag=value",
    );
    refused(
        "/addons/workerBootstrap",
        json!({"provider": "talos"}),
        "spec.addons.workerBootstrap.talos: Required value: needed with provider talos; it may be {}",
    );
    refused(
        "/kubernetes/kubelet/servingCertificates",
        json!({"allowedSubnets": ["10.0.0.0/8", "10.1"]}),
        "spec.kubernetes.kubelet.servingCertificates.allowedSubnets[1]: Invalid value: \"10.1\": must be a network such as 192.0.2.0/24",
    );
}

/// R6.18.
#[test]
fn broken_shapes_hide_the_rules_and_say_so() {
    let found = errors(
        &with(tenant(), "/controlPlane/service/serviceType", json!("X")),
        None,
    );
    assert_eq!(
        found,
        [
            "spec.controlPlane.service.serviceType: Unsupported value: \"X\": supported values: \"ClusterIP\", \"NodePort\", \"LoadBalancer\"",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ]
    );
}

#[test]
fn versions_go_up_one_minor_at_a_time() {
    let change = |installed_version: &str, spec: &str, wanted: &str| {
        let mut old = installed(installed_version);
        old["spec"]["kubernetes"]["version"] = spec.into();
        let new = with(old.clone(), "/kubernetes/version", wanted.into());
        errors(&new, Some(&old))
    };
    assert!(change("v1.35.1", "v1.35.1", "v1.35.4").is_empty());
    assert!(change("v1.35.1", "v1.35.1", "1.36.3").is_empty());
    assert_eq!(
        change("v1.34.1", "v1.34.1", "v1.36.3"),
        [
            "spec.kubernetes.version: Invalid value: \"v1.36.3\": must not skip a minor version: from v1.34.1 go to v1.35 first"
        ]
    );
    // A patch release can be taken back, a minor version cannot.
    assert!(change("v1.35.1", "v1.35.1", "v1.35.0").is_empty());
    for older in ["v1.34.9", "v1.35.0-rc.1"] {
        assert_eq!(
            change("v1.35.1", "v1.35.1", older),
            [format!(
                "spec.kubernetes.version: Invalid value: \"{older}\": must not be older than the installed version v1.35.1, except for a patch release of the same minor version: Kubernetes does not read its data back after a downgrade"
            )]
        );
    }
    // An upgrade to an image that does not exist can be taken back.
    assert!(change("v1.35.1", "v1.36.99", "v1.35.1").is_empty());
    // Before the first version runs, a wrong one can be put right.
    let old = with(tenant(), "/kubernetes/version", json!("1.29.0"));
    let new = with(old.clone(), "/kubernetes/version", json!("v1.36.3"));
    assert!(errors(&new, Some(&old)).is_empty());
}

/// R6.16.
#[test]
fn what_data_and_nodes_depend_on_cannot_be_changed() {
    let mut old = with(tenant(), "/dataStoreSchema", json!("s"));
    old = with(old, "/dataStore", json!("default"));
    let cases = [
        (
            "/dataStoreSchema",
            json!("x"),
            "spec.dataStoreSchema: Invalid value: \"x\": dataStoreSchema cannot be changed: the data would stay under the old name",
        ),
        (
            "/dataStoreSchema",
            Value::Null,
            "spec: Invalid value: dataStoreSchema cannot be removed once it is set",
        ),
        (
            "/dataStore",
            Value::Null,
            "spec: Invalid value: dataStore cannot be removed once it is set; name the DataStore to use",
        ),
        (
            "/networkProfile/clusterDomain",
            json!("a.b"),
            "spec.networkProfile.clusterDomain: Invalid value: \"a.b\": clusterDomain cannot be changed: nodes, certificates and tokens carry it",
        ),
        (
            "/networkProfile/loadBalancerClass",
            json!("a"),
            "spec: Invalid value: networkProfile.loadBalancerClass can be set or removed only while controlPlane.service.serviceType changes to or from LoadBalancer",
        ),
    ];
    for (pointer, value, error) in cases {
        assert_eq!(
            errors(&with(old.clone(), pointer, value), Some(&old)),
            [error]
        );
    }
    assert!(errors(&with(old.clone(), "/dataStore", json!("other")), Some(&old)).is_empty());

    let old = installed("v1.36.3");
    let new = with(
        old.clone(),
        "/networkProfile/serviceCidr",
        json!("10.97.0.0/16"),
    );
    assert_eq!(
        errors(&new, Some(&old)),
        [
            "spec.networkProfile.serviceCidr: Forbidden: the first range cannot be changed once the tenant runs: addresses of 10.96.0.0/16 are in use"
        ]
    );
    let dual = with(
        old.clone(),
        "/networkProfile/serviceCidrs",
        json!(["10.96.0.0/16", "fd00:1::/108"]),
    );
    assert!(
        errors(&dual, Some(&old)).is_empty(),
        "a second family may join"
    );

    let mut old = tenant();
    old["status"] = json!({"storage": {"setup": {"schema": "n_t", "user": "n_t"}}});
    let new = with(old.clone(), "/dataStoreSchema", json!("x"));
    assert_eq!(
        errors(&new, Some(&old)),
        [
            "spec.dataStoreSchema: Invalid value: \"x\": the tenant already uses n_t; leave the field out or set it to that"
        ]
    );
    assert!(
        errors(
            &with(old.clone(), "/dataStoreSchema", json!("n_t")),
            Some(&old)
        )
        .is_empty()
    );
}

/// R6.14.
#[test]
fn an_old_fault_does_not_stop_another_change() {
    let old = with(tenant(), "/kubernetes/version", json!("v9.0.0"));
    let old = with(old, "/networkProfile/address", json!("not an address"));
    let new = with(old.clone(), "/controlPlane/deployment/replicas", json!(0));
    assert!(errors(&new, Some(&old)).is_empty());
    assert_eq!(errors(&new, None).len(), 2);
}

#[test]
fn admission_controllers_may_be_a_string() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let mut object = with(
        tenant(),
        "/kubernetes/admissionControllers",
        json!("LimitRanger, PodSecurityPolicy,"),
    );
    resource.normalize(&mut object);
    assert_eq!(
        object["spec"]["kubernetes"]["admissionControllers"],
        json!(["LimitRanger", "PodSecurityPolicy"])
    );
    assert!(errors(&object, None).is_empty());
    assert_eq!(
        resource.warnings(&object, None),
        [
            "spec.kubernetes.admissionControllers: Kubernetes v1.36.3 has no PodSecurityPolicy; left out"
        ]
    );
    let mut without = json!({"spec": {}});
    resource.normalize(&mut without);
    assert_eq!(without, json!({"spec": {}}));
}

#[test]
fn what_is_not_built_is_named() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let warned = |object: &Value, old| resource.warnings(object, old).join("\n");
    let object = with(tenant(), "/addons/tcpProxy", json!({}));
    assert_eq!(
        warned(&object, None),
        "spec.addons.tcpProxy: accepted but not acted upon yet"
    );
    let object = with(
        tenant(),
        "/dataStoreOverrides",
        json!([{"resource": "/events", "dataStore": "events"}]),
    );
    assert_eq!(warned(&object, None), "");
}

#[test]
fn a_warning_about_the_data_store_says_where_the_data_goes() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let names = |name: Value| with(tenant(), "/dataStore", name);
    let settled = |mut object: Value| {
        object["status"] = json!({
            "storage": {"dataStoreName": "default", "setup": {"schema": "s"}},
        });
        object
    };
    let (unset, default, other) = (Value::Null, json!("default"), json!("other"));
    for (before, after, warns) in [
        (&unset, &other, true),
        (&default, &other, true),
        // Each write that leaves it so says it again, as with other fields.
        (&other, &other, true),
        (&other, &default, false),
        (&other, &unset, false),
        (&unset, &default, false),
    ] {
        let new = names(after.clone());
        let old = settled(names(before.clone()));
        let texts = resource.warnings(&new, Some(&old));
        assert_eq!(texts.len(), usize::from(warns), "{before} to {after}");
        let told = "spec.dataStore: the tenant's data is moved from DataStore default to other, if there is such a one that takes it; \
                    at the end writes are refused for some seconds and the pods are replaced";
        assert!(texts.iter().all(|text| text == told), "{texts:?}");
        // Nothing is settled yet: the DataStore that it names may not even be there.
        let mut old = names(before.clone());
        assert_eq!(resource.warnings(&new, Some(&old)), [""; 0]);
        old["status"] = json!({"storage": {"dataStoreName": "default"}});
        assert_eq!(resource.warnings(&new, Some(&old)), [""; 0]);
    }
}

/// R6.11: what a Deployment refuses, the tenant refuses.
#[test]
fn the_strategy_is_one_that_a_deployment_takes() {
    let pointer = "/controlPlane/deployment/strategy";
    let found = errors(&with(tenant(), pointer, json!({"type": "Foo"})), None);
    assert_eq!(
        found,
        [
            r#"spec.controlPlane.deployment.strategy.type: Unsupported value: "Foo": supported values: "Recreate", "RollingUpdate""#,
            // As a CRD says after an error of an enumeration.
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ]
    );
    for kind in ["Recreate", "RollingUpdate"] {
        let object = with(tenant(), pointer, json!({"type": kind}));
        assert_eq!(errors(&object, None), [""; 0]);
    }
}

#[test]
fn what_shapes_pods_must_be_within_the_requesters_rights() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let rights = |new: &Value, old: Option<&Value>| -> Vec<String> {
        let text = |right: apiservice::BorrowedRight| {
            assert_eq!(right.namespace.as_deref(), Some("n"));
            let subresource = match right.subresource {
                "" => String::new(),
                name => format!("/{name}"),
            };
            let other = right
                .or
                .map(|or| format!(" or {} {}", or.verb, or.resource));
            format!(
                "{} {}{subresource} {}{}",
                right.verb,
                right.resource,
                right.name.unwrap_or_default(),
                other.unwrap_or_default()
            )
        };
        resource.borrowed(new, old).into_iter().map(text).collect()
    };
    let plain = with(
        tenant(),
        "/controlPlane/service/serviceType",
        json!("ClusterIP"),
    );
    assert!(
        rights(&plain, None).is_empty(),
        "nothing is asked of a plain tenant"
    );
    let tenant = || plain.clone();

    let volumes = json!([
        {"name": "a", "secret": {"secretName": "s1"}},
        {"name": "b", "projected": {"sources": [{"secret": {"name": "s2"}}, {"configMap": {"name": "c1"}}]}},
        {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s3"}}},
        {"name": "d", "secret": {"secretName": "s1"}},
    ]);
    let object = with(
        tenant(),
        "/controlPlane/deployment/additionalVolumes",
        volumes,
    );
    assert_eq!(
        rights(&object, None),
        [
            "create pods ",
            "get secrets s1",
            "get secrets s2",
            "get configmaps c1",
            "get secrets s3",
        ]
    );
    assert!(
        rights(&object, Some(&object)).is_empty(),
        "unchanged fields are not asked again"
    );

    let container = json!([{"name": "a", "image": "i",
        "envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                {"name": "Y", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}}]}]);
    let object = with(
        tenant(),
        "/controlPlane/deployment/additionalContainers",
        container,
    );
    let mut found = rights(&object, None);
    found.sort();
    assert_eq!(
        found,
        [
            "create pods ",
            "get configmaps c1",
            "get configmaps c2",
            "get secrets s1",
            "get secrets s2",
        ]
    );
    let tunnel = |server: Value| with(tenant(), "/addons/konnectivity", json!({"server": server}));
    let ours = tunnel(json!({"extraArgs": ["--v=4"], "resources": {}}));
    assert!(rights(&ours, None).is_empty(), "{:?}", rights(&ours, None));
    let theirs = tunnel(json!({"image": "a", "version": "b", "securityContext": {}}));
    assert_eq!(rights(&theirs, Some(&ours)), ["create pods "]);
    assert_eq!(rights(&theirs, None), ["create pods "]);
    let back = rights(&ours, Some(&theirs));
    assert_eq!(back, ["create pods "], "another image, and what it may do");
    assert!(rights(&tenant(), Some(&theirs)).is_empty());

    let bare = with(
        object.clone(),
        "/controlPlane/deployment/additionalContainers",
        Value::Null,
    );
    assert!(
        rights(&bare, Some(&object)).is_empty(),
        "to give up needs no right"
    );

    let object = with(
        tenant(),
        "/controlPlane/deployment/serviceAccountName",
        json!("builder"),
    );
    assert_eq!(
        rights(&object, None),
        [
            "create pods ",
            "create serviceaccounts/token builder or impersonate serviceaccounts",
        ]
    );
    for (field, value) in [
        ("podAdditionalMetadata", json!({"labels": {"a": "b"}})),
        ("nodeSelector", json!({"a": "b"})),
        ("tolerations", json!([{"operator": "Exists"}])),
        ("affinity", json!({"nodeAffinity": {}})),
        (
            "topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"}]),
        ),
    ] {
        let object = with(
            tenant(),
            &format!("/controlPlane/deployment/{field}"),
            value,
        );
        assert_eq!(rights(&object, None), ["create pods "], "{field}");
    }
    let object = with(
        tenant(),
        "/controlPlane/deployment/runtimeClassName",
        json!("fast"),
    );
    assert_eq!(rights(&object, Some(&tenant())), ["create pods "]);
}

#[test]
fn how_a_tenant_is_published_must_be_within_the_requesters_rights() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let rights = |new: &Value, old: Option<&Value>| -> Vec<String> {
        let rights = resource.borrowed(new, old).into_iter();
        let text = |right: apiservice::BorrowedRight| {
            assert_eq!(right.namespace.as_deref(), Some("n"));
            format!("{} {} {}", right.verb, right.resource, right.field)
        };
        rights.map(text).collect()
    };
    let kind = |kind: &str| with(tenant(), "/controlPlane/service/serviceType", json!(kind));
    let plain = kind("ClusterIP");
    let service = |field: &str| vec![format!("create services spec.{field}")];
    for exposed in ["NodePort", "LoadBalancer"] {
        let expected = service("controlPlane.service.serviceType");
        assert_eq!(rights(&kind(exposed), None), expected);
        assert_eq!(rights(&kind(exposed), Some(&plain)), expected);
        assert!(rights(&kind(exposed), Some(&kind(exposed))).is_empty());
        assert!(rights(&plain, Some(&kind(exposed))).is_empty());
    }
    for (field, value) in [
        (
            "controlPlane/service/additionalMetadata",
            json!({"annotations": {"a": "b"}}),
        ),
        (
            "controlPlane/service/additionalPorts",
            json!([{"name": "a", "port": 1, "targetPort": 1}]),
        ),
        (
            "controlPlane/service/allocateLoadBalancerNodePorts",
            json!(true),
        ),
        ("networkProfile/loadBalancerClass", json!("c")),
        (
            "networkProfile/loadBalancerSourceRanges",
            json!(["192.0.2.0/24"]),
        ),
    ] {
        let object = with(plain.clone(), &format!("/{field}"), value);
        let expected = service(&field.replace('/', "."));
        assert_eq!(rights(&object, Some(&plain)), expected, "{field}");
        assert_eq!(rights(&object, None), expected, "{field}");
        assert!(rights(&plain, Some(&object)).is_empty(), "{field}");
    }
    // What a published one loses may have kept it from the public.
    let metadata = "/controlPlane/service/additionalMetadata";
    let inner = json!({"annotations": {"load-balancer-internal": "true"}});
    let inner = with(kind("LoadBalancer"), metadata, inner);
    let expected = service("controlPlane.service.additionalMetadata");
    assert_eq!(rights(&kind("LoadBalancer"), Some(&inner)), expected);
    assert!(rights(&plain, Some(&inner)).is_empty());
    // And what pods lose may have held them back.
    let deployment = "/controlPlane/deployment";
    for (field, value) in [
        ("runtimeClassName", json!("sandboxed")),
        ("nodeSelector", json!({"pool": "tenants"})),
        ("podSecurityContext", json!({"runAsNonRoot": true})),
    ] {
        let held = with(plain.clone(), &format!("{deployment}/{field}"), value);
        let field = format!("spec.controlPlane.deployment.{field}");
        let expected = vec![format!("create pods {field}")];
        assert_eq!(rights(&plain, Some(&held)), expected);
    }
    let loose = format!("{deployment}/tolerations");
    let loose = with(plain.clone(), &loose, json!([{"key": "a"}]));
    assert!(rights(&plain, Some(&loose)).is_empty());
    // An external address is the two fields together, whichever comes last.
    let address = with(plain.clone(), "/networkProfile/address", json!("192.0.2.1"));
    assert!(rights(&address, Some(&plain)).is_empty());
    let allowed = "/networkProfile/allowAddressAsExternalIP";
    let external = with(address.clone(), allowed, json!(true));
    let expected = service("networkProfile.allowAddressAsExternalIP");
    assert_eq!(rights(&external, Some(&address)), expected);
    assert_eq!(rights(&external, None), expected);
    let balanced = with(
        external.clone(),
        "/controlPlane/service/serviceType",
        json!("LoadBalancer"),
    );
    assert_eq!(rights(&external, Some(&balanced)), expected);
    let other = with(
        external.clone(),
        "/networkProfile/address",
        json!("192.0.2.2"),
    );
    assert_eq!(rights(&other, Some(&external)), expected);
    assert!(rights(&address, Some(&external)).is_empty());
    // It was lent for the ports that it had.
    for (before, path) in [
        (&external, "networkProfile.port"),
        (&external, "addons.konnectivity.server.port"),
        (&kind("LoadBalancer"), "addons.konnectivity.server.port"),
    ] {
        let mut moved = before.clone();
        let addons = moved.as_object_mut().unwrap();
        addons.entry("addons").or_insert_with(|| json!({}));
        let tunnel = "/addons/konnectivity";
        let moved = match path.starts_with("addons") {
            true => with(moved, tunnel, json!({"server": {"port": 10_250}})),
            false => with(moved, "/networkProfile/port", json!(10_250)),
        };
        assert_eq!(rights(&moved, Some(before)), service(path), "{path}");
    }
    // To let everybody in is more than to let some in.
    let ranges = "/networkProfile/loadBalancerSourceRanges";
    let narrow = with(kind("LoadBalancer"), ranges, json!(["192.0.2.0/24"]));
    let expected = service("networkProfile.loadBalancerSourceRanges");
    assert_eq!(rights(&kind("LoadBalancer"), Some(&narrow)), expected);
    let port = with(kind("NodePort"), "/networkProfile/port", json!(30_000));
    assert_eq!(
        rights(&port, Some(&kind("NodePort"))),
        service("networkProfile.port")
    );
    for (field, value, resource) in [
        (
            "deployment/additionalMetadata",
            json!({"labels": {"a": "b"}}),
            "deployments",
        ),
        ("ingress", json!({"hostname": "a.b"}), "ingresses"),
        (
            "ingress",
            json!({"hostname": "a.b", "controllerType": "traefik"}),
            "ingressroutetcps",
        ),
        ("gateway", json!({"hostname": "a.b"}), "tlsroutes"),
    ] {
        let object = with(plain.clone(), &format!("/controlPlane/{field}"), value);
        let field = field.replace('/', ".");
        let expected = [format!("create {resource} spec.controlPlane.{field}")];
        assert_eq!(rights(&object, Some(&plain)), expected);
    }
}

/// Each is a question to the cluster: an object of a megabyte asked 50,000.
#[test]
fn borrowed_rights_are_counted_in_time_and_limited() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let volumes = |count: usize| {
        let volume =
            |n: usize| json!({"name": format!("v{n}"), "secret": {"secretName": format!("s{n}")}});
        let list: Vec<Value> = (0..count).map(volume).collect();
        let plain = with(
            tenant(),
            "/controlPlane/service/serviceType",
            json!("ClusterIP"),
        );
        with(
            plain,
            "/controlPlane/deployment/additionalVolumes",
            json!(list),
        )
    };
    let began = std::time::Instant::now();
    assert_eq!(resource.borrowed(&volumes(20_000), None).len(), 20_001);
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(resource.borrows_too_much(&volumes(63), None), None);
    let error = resource.borrows_too_much(&volumes(64), None).unwrap();
    assert_eq!(
        error.to_string(),
        "spec.controlPlane.deployment.additionalVolumes: Too many: 65: must have at most 64 items"
    );
    // What is there already stays, and can be made less.
    for fewer in [volumes(100), volumes(99), volumes(0)] {
        assert_eq!(resource.borrows_too_much(&fewer, Some(&volumes(100))), None);
    }
    let more = resource.borrows_too_much(&volumes(101), Some(&volumes(100)));
    assert!(more.is_some());
    let others =
        with(
            volumes(0),
            "/controlPlane/deployment/additionalVolumes",
            json!((0..100)
            .map(|n| json!({"name": format!("v{n}"), "secret": {"secretName": format!("t{n}")}}))
            .collect::<Vec<Value>>()),
        );
    let asked = resource.borrows_too_much(&others, Some(&volumes(100)));
    assert!(asked.is_some());
}

/// Lists with keys are as long as a client makes them.
#[test]
fn long_lists_with_keys_are_looked_up() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let object = |value: &str| {
        let env: Vec<Value> = (0..40_000)
            .map(|n| json!({"name": format!("e{n}"), "value": value}))
            .collect();
        let container = json!([{"name": "a", "image": "i", "env": env}]);
        with(
            tenant(),
            "/controlPlane/deployment/additionalContainers",
            container,
        )
    };
    let sans = |prefix: &str| {
        let list: Vec<String> = (0..40_000)
            .map(|n| format!("{prefix}{n}.example"))
            .collect();
        with(tenant(), "/networkProfile/certSANs", json!(list))
    };
    let began = std::time::Instant::now();
    resource.validate(&object("a"), Some(&object("b")));
    assert!(!resource.validate(&sans("-"), Some(&sans("a"))).is_empty());
    assert!(began.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn an_unknown_value_of_another_version_still_decodes() {
    let mut object = with(
        tenant(),
        "/controlPlane/service/serviceType",
        json!("Tunnel"),
    );
    object["status"] = json!({"kubernetesResources": {"version": {"status": "Hibernating"}}});
    let typed: apiservice::v1alpha1::TenantControlPlane = serde_json::from_value(object).unwrap();
    assert_eq!(
        typed.spec.control_plane.service.service_type,
        apiservice::v1alpha1::ServiceType::Unrecognized
    );
    let resources = typed.status.unwrap().kubernetes_resources.unwrap();
    assert_eq!(
        resources.version.unwrap().status,
        apiservice::v1alpha1::Phase::Unknown
    );
}

fn overriding(object: Value, all: &[(&str, &str)]) -> Value {
    let all = all.iter();
    let all: Vec<Value> = all
        .map(|(resource, store)| json!({"resource": resource, "dataStore": store}))
        .collect();
    with(object, "/dataStoreOverrides", all.into())
}

/// What kube-apiserver would read as something else, or would not take, is refused.
#[test]
fn resources_of_overrides_are_groups_and_resources() {
    for good in [
        "/events",
        "events.k8s.io/events",
        "apps/replicasets",
        "/configmaps",
    ] {
        let object = overriding(tenant(), &[(good, "a")]);
        assert_eq!(errors(&object, None), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "events", "/", "a/", "/a/b", "/A", "/a#b", "/a;b", "/a,b", "-a/b", "a./b", "/a b",
    ] {
        let object = overriding(tenant(), &[(bad, "a")]);
        assert_eq!(errors(&object, None).len(), 1, "{bad}");
    }
    let many: Vec<String> = (0..9).map(|it| format!("r{it}")).collect();
    let of = |count| -> Value {
        let all = many
            .iter()
            .take(count)
            .map(|it| json!({"resource": format!("/{it}"), "dataStore": it}));
        with(
            tenant(),
            "/dataStoreOverrides",
            all.collect::<Vec<_>>().into(),
        )
    };
    assert!(errors(&of(8), None).is_empty());
    let told = errors(&of(9), None).join("\n");
    assert!(
        told.contains("names 9 DataStores; must be 8 at most"),
        "{told}"
    );
}

/// Two places of one tenant in one database would be one.
#[test]
fn an_override_is_in_another_datastore_than_the_rest() {
    let placed = with(tenant(), "/dataStore", json!("a"));
    let told = errors(&overriding(placed.clone(), &[("/events", "a")]), None).join("\n");
    assert_eq!(
        told,
        "spec.dataStoreOverrides[0].dataStore: Invalid value: \"a\": must be another DataStore than the tenant's own"
    );
    assert!(errors(&overriding(placed, &[("/events", "b")]), None).is_empty());
    // One that was assigned, and a move to where the events are.
    let mut old = overriding(tenant(), &[("/events", "b")]);
    old["status"]["storage"]["dataStoreName"] = json!("a");
    let onto = overriding(old.clone(), &[("/events", "a")]);
    assert_eq!(errors(&onto, Some(&old)).len(), 1);
    let moved = with(old.clone(), "/dataStore", json!("b"));
    assert_eq!(errors(&moved, Some(&old)).len(), 1);
}

/// Objects that are not in the database where the API server looks are as good as lost.
#[test]
fn once_it_ran_only_events_go_elsewhere() {
    let before = [("/events", "a"), ("/configmaps", "b")];
    let mut old = overriding(tenant(), &before);
    old["status"]["kubernetesResources"]["version"] =
        json!({"version": "v1.36.3", "status": "Ready"});
    let changed = |all: &[(&str, &str)]| errors(&overriding(old.clone(), all), Some(&old));
    for good in [
        &[("/configmaps", "b")][..],
        &[("/configmaps", "b"), ("/events", "c")],
        &[("/configmaps", "b"), ("events.k8s.io/events", "b")],
    ] {
        assert!(changed(good).is_empty(), "{good:?}");
    }
    for bad in [
        &[][..],
        &[("/configmaps", "a")],
        &[("/configmaps", "b"), ("/secrets", "b")],
    ] {
        let told = changed(bad).join("\n");
        let expected = "spec.dataStoreOverrides: Forbidden: only overrides of /events can be added, changed or removed once the tenant has been Ready: existing objects of other resources would stay where they are, and the tenant would not find them";
        assert_eq!(told, expected, "{bad:?}");
    }
    let mut never = old.clone();
    never["status"] = json!({});
    assert!(errors(&overriding(never.clone(), &[]), Some(&never)).is_empty());
}
