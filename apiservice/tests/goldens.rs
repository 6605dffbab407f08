//! What clients see of the API, as files in git. `UPDATE_GOLDEN=1 cargo test -p
//! apiservice --test goldens` writes them anew; the diff is the change of the
//! contract.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::path::PathBuf;

use serde_json::Value;

fn compare(name: &str, value: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    let text = format!("{value:#}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    if golden == text {
        return;
    }
    let first = golden
        .lines()
        .zip(text.lines())
        .position(|(old, new)| old != new);
    let line = first.unwrap_or_else(|| golden.lines().count().min(text.lines().count()));
    panic!(
        "{name} differs from line {}: golden {:?}, now {:?}; if that is meant, run with UPDATE_GOLDEN=1",
        line + 1,
        golden.lines().nth(line).unwrap_or_default(),
        text.lines().nth(line).unwrap_or_default(),
    );
}

/// R2.7, R2.8, R2.9, R2.10, R2.15, R8.12, R8.30.
#[test]
fn discovery() {
    compare("apis.json", &apiservice::discovery::api_group_list());
    compare("group.json", &apiservice::discovery::api_group());
    compare(
        "resources.json",
        &apiservice::discovery::api_resource_list(),
    );
    compare("aggregated.json", &apiservice::discovery::aggregated());
}

/// R2.28, R8.30.
#[test]
fn open_api() {
    compare("openapi.json", &apiservice::openapi::v3_group_version());
}

#[test]
fn custom_resource_definitions() {
    for resource in apiservice::RESOURCES {
        let crd = apiservice::crd::crd(resource).unwrap();
        let mut crd = serde_json::to_value(crd).unwrap();
        let schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
        let same = floats(schema) == floats(resource.schema().open_api().clone());
        assert!(
            same,
            "the CRD's types lose a part of the schema of {}",
            resource.kind
        );
        crd["spec"]["versions"][0]["schema"] = "as in openapi.json".into();
        compare(&format!("crd-{}.json", resource.plural), &crd);
    }
}

/// The CRD's types hold every number as a float.
fn floats(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(list) => list.into_iter().map(floats).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, floats(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}

/// R1.2, R1.3.
#[test]
fn registration() {
    let service = apiservice::registration::api_service(
        "steward-system",
        "steward-apiserver",
        443,
        Some(b"PEM"),
    );
    compare("apiservice.json", &serde_json::to_value(service).unwrap());
}
