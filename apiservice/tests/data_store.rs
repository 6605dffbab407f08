//! Rules of a DataStore, each broken once.

use serde_json::{Value, json};

fn secret(name: &str) -> Value {
    json!({"secretReference": {"name": name, "namespace": "s", "keyPath": "k"}})
}

fn etcd() -> Value {
    json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "DataStore",
        "metadata": {"name": "default"},
        "spec": {
            "driver": "etcd", "endpoints": ["etcd.s.svc:2379"],
            "tlsConfig": {
                "certificateAuthority": {"certificate": secret("ca"), "privateKey": secret("ca")},
                "clientCertificate": {"certificate": secret("client"), "privateKey": secret("client")},
            },
        },
    })
}

fn postgres() -> Value {
    let mut object = etcd();
    object["spec"]["driver"] = "PostgreSQL".into();
    object["spec"]["tlsConfig"] = Value::Null;
    object["spec"]["basicAuth"] = json!({"username": secret("db"), "password": secret("db")});
    apiservice::find("datastores").unwrap().default(&mut object);
    object
}

fn errors(new: &Value, old: Option<&Value>) -> Vec<String> {
    let resource = apiservice::find("datastores").unwrap();
    resource
        .validate(new, old)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn refused(mut object: Value, pointer: &str, value: Value, error: &str) {
    *object.pointer_mut(pointer).unwrap() = value;
    assert_eq!(errors(&object, None), [error]);
}

#[test]
fn good_objects_are_good() {
    assert!(errors(&etcd(), None).is_empty());
    assert!(errors(&postgres(), None).is_empty());
}

#[test]
fn each_driver_has_its_needs() {
    let tls = "/spec/tlsConfig";
    refused(
        etcd(),
        &format!("{tls}/certificateAuthority/privateKey"),
        json!({}),
        "spec.tlsConfig: Invalid value: with driver etcd, certificateAuthority.privateKey needs content or secretReference: it signs the tenants' client certificates",
    );
    refused(
        etcd(),
        &format!("{tls}/clientCertificate/certificate"),
        json!({}),
        "spec.tlsConfig: Invalid value: with driver etcd, clientCertificate.certificate needs content or secretReference",
    );
    refused(
        etcd(),
        &format!("{tls}/clientCertificate/privateKey"),
        json!({}),
        "spec.tlsConfig: Invalid value: with driver etcd, clientCertificate.privateKey needs content or secretReference",
    );
    refused(
        postgres(),
        "/spec/basicAuth/username",
        json!({}),
        "spec.basicAuth: Invalid value: basicAuth.username needs content or secretReference",
    );
    refused(
        postgres(),
        "/spec/basicAuth/password",
        json!({}),
        "spec.basicAuth: Invalid value: basicAuth.password needs content or secretReference",
    );
    let mut open = postgres();
    open["spec"].as_object_mut().unwrap().remove("basicAuth");
    assert_eq!(
        errors(&open, None),
        [
            "spec: Invalid value: set basicAuth, tlsConfig or both: a database without either would be open to everyone"
        ]
    );
}

#[test]
fn endpoints_and_references_are_complete() {
    refused(
        etcd(),
        "/spec/endpoints/0",
        json!("https://etcd:2379"),
        "spec.endpoints[0]: Invalid value: \"https://etcd:2379\": must be host:port without a scheme, for example etcd.example.com:2379",
    );
    refused(
        etcd(),
        "/spec/endpoints/0",
        json!("etcd"),
        "spec.endpoints[0]: Invalid value: \"etcd\": must be host:port, for example etcd.example.com:2379",
    );
    refused(
        etcd(),
        "/spec/tlsConfig/clientCertificate/privateKey/secretReference/namespace",
        json!(""),
        "spec.tlsConfig.clientCertificate.privateKey.secretReference.namespace: Required value: a Secret is found by name and namespace",
    );
}

#[test]
fn limits_of_tenants_limit_something() {
    let with = |limits: Value| {
        let mut object = etcd();
        object["spec"]["tenantLimits"] = limits;
        errors(&object, None)
    };
    for good in [
        json!({"bytes": 1}),
        json!({"objects": 5000, "warnAtPercent": 100}),
        json!({"bytes": 1_i64 << 40, "objects": 1, "warnAtPercent": 1}),
    ] {
        assert_eq!(with(good.clone()), [""; 0], "{good}");
    }
    let at = "spec.tenantLimits";
    for (limits, told) in [
        (
            json!({}),
            "spec.tenantLimits: Invalid value: set bytes, objects or both".to_owned(),
        ),
        (
            json!({"warnAtPercent": 90}),
            "spec.tenantLimits: Invalid value: set bytes, objects or both".to_owned(),
        ),
        (
            json!({"bytes": 0}),
            format!(
                "{at}.bytes: Invalid value: 0: {at}.bytes in body should be greater than or equal to 1"
            ),
        ),
        (
            json!({"objects": -1}),
            format!(
                "{at}.objects: Invalid value: -1: {at}.objects in body should be greater than or equal to 1"
            ),
        ),
        (
            json!({"bytes": 5, "warnAtPercent": 101}),
            format!(
                "{at}.warnAtPercent: Invalid value: 101: {at}.warnAtPercent in body should be less than or equal to 100"
            ),
        ),
        (
            json!({"bytes": 5, "warnAtPercent": 0}),
            format!(
                "{at}.warnAtPercent: Invalid value: 0: {at}.warnAtPercent in body should be greater than or equal to 1"
            ),
        ),
    ] {
        assert_eq!(with(limits.clone()), [told], "{limits}");
    }
}

#[test]
fn the_driver_stays() {
    let mut new = etcd();
    new["spec"]["driver"] = "NATS".into();
    assert_eq!(
        errors(&new, Some(&etcd())),
        [
            "spec.driver: Invalid value: \"NATS\": the driver cannot be changed; create another DataStore and move the tenants"
        ]
    );
}

#[test]
fn inline_secrets_draw_a_warning() {
    let resource = apiservice::find("datastores").unwrap();
    let mut object = etcd();
    assert!(resource.warnings(&object, None).is_empty());
    object["spec"]["tlsConfig"]["clientCertificate"]["privateKey"] = json!({"content": "a2V5"});
    object["spec"]["tlsConfig"]["certificateAuthority"]["certificate"] = json!({"content": "Y2E="});
    assert!(errors(&object, None).is_empty());
    assert_eq!(
        resource.warnings(&object, None),
        [
            "spec.tlsConfig.clientCertificate.privateKey.content: everyone who may read this DataStore may read the secret in it; use secretReference instead"
        ]
    );
}

#[test]
fn reading_a_secret_takes_the_right_to_read_it() {
    let resource = apiservice::find("datastores").unwrap();
    let mut changed = etcd();
    changed["spec"]["tlsConfig"]["clientCertificate"]["privateKey"] = secret("stolen");
    let names = |new: &Value, old: Option<&Value>| -> Vec<String> {
        resource
            .borrowed(new, old)
            .into_iter()
            .map(|right| right.name.unwrap())
            .collect()
    };
    assert_eq!(names(&etcd(), None), ["ca", "client"]);
    assert_eq!(names(&changed, Some(&etcd())), ["stolen"]);
    let mut diverted = etcd();
    diverted["spec"]["endpoints"] = json!(["elsewhere.example.com:2379"]);
    assert_eq!(
        names(&diverted, Some(&etcd())),
        ["ca", "client"],
        "their content would go elsewhere"
    );
}
