//! Kubernetes' own clients, which ask for protobuf first: R4.3, R4.6, R4.9, R8.15.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::served::GROUP_VERSION;

use crate::pair::{NAMESPACE, PROTOBUF, Pair, Side, get, shaped, tenants};

fn of(op: &str, name: &str) -> Value {
    json!({"op": op, "group": "steward.butlerlabs.dev", "version": "v1alpha1",
        "resource": "tenantcontrolplanes", "namespace": NAMESPACE, "name": name})
}

fn small(side: &Side, name: &str) {
    let mut tenant = crate::pair::full(name);
    let metadata = tenant["metadata"].as_object_mut().unwrap();
    metadata.remove("finalizers");
    // The garbage collector finds no such owners.
    metadata.remove("ownerReferences");
    side.write("create", &tenant.to_string());
}

/// The media type of each answer but those whose clients list JSON for it.
#[track_caller]
fn is_protobuf(heard: &Value, wanted: &[&str]) {
    let heard: Vec<&str> = heard
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap())
        .collect();
    let wanted: Vec<String> = wanted
        .iter()
        .map(|it| it.replace("PROTOBUF", PROTOBUF))
        .collect();
    assert_eq!(heard, wanted);
}

/// List in pages, get, patch, a deletion that is refused, one that is not, a collection.
pub fn metadata_clients_are_answered_in_protobuf(pair: &mut Pair) {
    for side in [&mut pair.theirs, &mut pair.ours] {
        small(side, "by-client");
        let said = side.ask(&of("client", "by-client"));
        assert_eq!(said["object"]["metadata"]["labels"]["patched"], "true");
        let names: Vec<_> = said["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["metadata"]["name"].clone())
            .collect();
        assert_eq!(names, ["by-client", "full", "tenant-1"], "{}", side.name);
        is_protobuf(
            &said["heard"],
            &[
                "GET 200 PROTOBUF",
                "GET 200 PROTOBUF",
                "GET 200 PROTOBUF",
                "GET 200 PROTOBUF",
                "PATCH 200 PROTOBUF",
                "DELETE 409 PROTOBUF",
                "DELETE 200 application/json",
                "DELETE 200 application/json",
            ],
        );
    }
}

/// It hears of each change, and holds what a list in JSON says.
pub fn informers_of_metadata_keep_up(pair: &mut Pair) {
    for side in [&mut pair.theirs, &mut pair.ours] {
        let said = side.ask(&of("inform", ""));
        is_protobuf(&said["heard"], &["WATCH 200 PROTOBUF;stream=watch"]);
        for number in 0..5 {
            small(side, &format!("churn-{number}"));
        }
        side.kubectl(&["-n", NAMESPACE, "label", "tcp", "churn-1", "x=y"]);
        side.kubectl(&["-n", NAMESPACE, "delete", "tcp", "churn-2"]);
        let began = Instant::now();
        loop {
            let list = side.ask(&get(
                &tenants(""),
                &shaped("application/json", "PartialObjectMetadataList"),
            ));
            let mut wanted = list["object"]["items"].clone();
            let mut held = side.ask(&json!({"op": "store"}));
            untyped(&mut wanted);
            untyped(&mut held["objects"]);
            if held["objects"] == wanted {
                let told = held["events"].as_array().unwrap();
                let has = |kind: &str, name: &str| {
                    told.iter()
                        .any(|it| it["type"] == kind && it["object"] == name)
                };
                assert!(
                    has("MODIFIED", "churn-1") && has("DELETED", "churn-2"),
                    "{told:?}"
                );
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{held}\n{wanted}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        side.kubectl(&[
            "-n", NAMESPACE, "delete", "tcp", "churn-0", "churn-1", "churn-3", "churn-4",
        ]);
    }
}

fn untyped(items: &mut Value) {
    for item in items.as_array_mut().into_iter().flatten() {
        let item = item.as_object_mut().unwrap();
        item.remove("kind");
        item.remove("apiVersion");
    }
}

/// A typed client that speaks protobuf both ways, and that of autoscalers.
pub fn scales_are_read_and_written(pair: &mut Pair) {
    let mut request = of("scale", "tenant-1");
    request["replicas"] = json!(3);
    // A CRD's own answers nothing but JSON; this is as with built-in kinds.
    let said = pair.ours.ask(&request);
    let replicas: Vec<_> = said["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["spec"]["replicas"].clone())
        .collect();
    assert_eq!(replicas, [3, 4, 4]);
    let heard = said["heard"].as_array().unwrap();
    let of_scales: Vec<&str> = heard.iter().map(|it| it.as_str().unwrap()).collect();
    let scales = [&of_scales[..3], &of_scales[of_scales.len() - 1..]].concat();
    let wanted = ["GET", "PUT", "PATCH", "GET"].map(|verb| format!("{verb} 200 {PROTOBUF}"));
    assert_eq!(scales, wanted);
    // What is said in protobuf is what is said in JSON.
    let path = format!("{}/scale", tenants("tenant-1"));
    let protobuf = pair.ours.ask(&get(&path, PROTOBUF));
    let json = pair.ours.ask(&get(&path, "application/json"));
    assert_eq!(protobuf["object"], json["object"]);
    let metadata = pair.alike(&get(&path, &shaped(PROTOBUF, "PartialObjectMetadata")));
    assert_eq!(metadata["object"]["kind"], "PartialObjectMetadata");
}

/// Documents of the group's version, by those who speak protobuf.
pub fn discovery_is_answered_in_protobuf(pair: &mut Pair) {
    for side in [&mut pair.theirs, &mut pair.ours] {
        let said = side.ask(&get(GROUP_VERSION, PROTOBUF));
        assert_eq!(
            (&said["code"], &said["contentType"]),
            (&json!(200), &json!(PROTOBUF)),
            "{}",
            side.name
        );
        let json = side.ask(&get(GROUP_VERSION, "application/json"));
        assert_eq!(said["object"], json["object"], "{}", side.name);
        let client = side.ask(&of("discovery", ""));
        let heard = client["heard"].as_array().unwrap();
        assert_eq!(*heard, [format!("GET 200 {PROTOBUF}")], "{}", side.name);
        assert_eq!(
            client["object"]["groupVersion"],
            "steward.butlerlabs.dev/v1alpha1"
        );
    }
}
