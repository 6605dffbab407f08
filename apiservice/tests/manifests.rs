//! The manifests that users of earlier versions have apply unchanged.

use apiservice::v1alpha1::{Component, DataStore, Driver, ServiceType, TenantControlPlane};
use serde_json::{Value, json};

/// Takes a manifest through what the API server does with it.
fn admitted(plural: &str, yaml: &str) -> (Value, Vec<String>) {
    let resource = apiservice::find(plural).unwrap();
    let mut object: Value = serde_saphyr::from_str(yaml).unwrap();
    resource.normalize(&mut object);
    assert_eq!(resource.schema().prune(&mut object), Vec::<String>::new());
    resource.default(&mut object);
    let errors = resource.validate(&object, None);
    assert!(errors.is_empty(), "{}", errors.summary());
    let metadata = apiservice::meta::validate_metadata(&object["metadata"], None, resource);
    assert!(metadata.is_empty(), "{}", metadata.summary());
    let mut again = object.clone();
    resource.normalize(&mut again);
    resource.default(&mut again);
    assert_eq!(again, object, "defaulting twice is defaulting once");
    let warnings = resource.warnings(&object, None);
    (object, warnings)
}

#[test]
fn the_tenant_control_plane() {
    let (object, warnings) = admitted(
        "tenantcontrolplanes",
        include_str!("manifests/tenantcontrolplane.yaml"),
    );
    let spec = &object["spec"];
    assert_eq!(
        spec["kubernetes"]["admissionControllers"]
            .as_array()
            .unwrap()
            .len(),
        17
    );
    assert_eq!(spec["kubernetes"]["version"], "1.29.0", "stored as written");
    assert_eq!(
        spec["controlPlane"]["deployment"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "100%"}})
    );
    assert_eq!(
        spec["controlPlane"]["deployment"]["serviceAccountName"],
        "default"
    );
    assert_eq!(
        spec["controlPlane"]["deployment"]["registrySettings"],
        json!({
            "registry": "registry.k8s.io", "apiServerImage": "kube-apiserver",
            "controllerManagerImage": "kube-controller-manager", "schedulerImage": "kube-scheduler",
        })
    );
    assert_eq!(spec["networkProfile"]["clusterDomain"], "cluster.local");
    assert_eq!(
        spec["addons"]["konnectivity"]["server"],
        json!({"port": 8132, "image": "registry.k8s.io/kas-network-proxy/proxy-server"})
    );
    assert_eq!(spec["addons"]["konnectivity"]["agent"]["mode"], "DaemonSet");
    assert_eq!(warnings, [""; 0]);

    let typed: TenantControlPlane = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(
        typed.spec.control_plane.service.service_type,
        ServiceType::LoadBalancer
    );
    assert_eq!(typed.spec.network_profile.fixed_address(), None);
    let resources = typed
        .spec
        .control_plane
        .deployment
        .resources
        .as_ref()
        .unwrap();
    let limits = resources.of(Component::Scheduler).limits.as_ref().unwrap();
    assert_eq!(
        limits["cpu"].0, "500m",
        "flat resources hold for each component"
    );
    assert_eq!(apiservice::v1alpha1::unsupported(&typed.spec), [""; 0]);
}

#[test]
fn the_data_stores() {
    for (yaml, driver) in [
        (include_str!("manifests/datastore-etcd.yaml"), Driver::Etcd),
        (
            include_str!("manifests/datastore-mysql.yaml"),
            Driver::MySQL,
        ),
        (
            include_str!("manifests/datastore-postgresql.yaml"),
            Driver::PostgreSQL,
        ),
        (include_str!("manifests/datastore-nats.yaml"), Driver::NATS),
    ] {
        let (object, warnings) = admitted("datastores", yaml);
        // The others have no tlsConfig.
        let untrusting = usize::from(driver != Driver::Etcd);
        assert_eq!(warnings.len(), untrusting, "{warnings:?}");
        let typed: DataStore = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(typed.spec.driver, driver);
        let resource = apiservice::find("datastores").unwrap();
        let rights = resource.borrowed(&object, None);
        assert!(
            rights
                .iter()
                .all(|right| right.verb == "get" && right.resource == "secrets")
        );
        assert_eq!(rights.len(), 1, "one Secret, asked once");
        assert!(resource.borrowed(&object, Some(&object)).is_empty());
    }
}

/// What a minimal object becomes is what the types' own defaults are.
#[test]
fn the_defaults_of_schema_and_types_agree() {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let mut object = json!({
        "apiVersion": resource.api_version(), "kind": resource.kind,
        "metadata": {"name": "t", "namespace": "n"},
        "spec": {
            "controlPlane": {"service": {"serviceType": "ClusterIP"}},
            "kubernetes": {"version": "v1.36.3", "kubelet": {}},
        },
    });
    resource.default(&mut object);
    assert!(resource.validate(&object, None).is_empty());
    let typed: TenantControlPlane = serde_json::from_value(object.clone()).unwrap();
    let mut default = TenantControlPlane::default();
    default.spec.kubernetes.version = "v1.36.3".to_owned();
    assert_eq!(typed.spec, default.spec);
    assert_eq!(
        serde_json::to_value(&typed).unwrap()["spec"],
        object["spec"]
    );
}
