//! Watches: R3.22, R3.23, R4.6.

use serde_json::{Value, json};
use tests::served::GROUP_VERSION;

use crate::pair::{PROTOBUF, Pair, get, settled, shaped, tenants};

fn watch(path: &str, query: &str, media: &str, events: usize) -> Value {
    let mut request = get(
        &format!("{path}?watch=1&{query}"),
        &shaped(media, "PartialObjectMetadata"),
    );
    request["op"] = json!("watch");
    request["events"] = json!(events);
    request
}

const INITIAL: &str = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=3";

pub fn watches_are_alike(pair: &mut Pair) {
    // What is there, and where it ends.
    for (path, count) in [(tenants(""), 3), (format!("{GROUP_VERSION}/datastores"), 5)] {
        let said = pair.alike(&watch(&path, INITIAL, PROTOBUF, count));
        assert_eq!(said["contentType"], format!("{PROTOBUF};stream=watch"));
        let events = said["events"].as_array().unwrap();
        let types: Vec<_> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        assert_eq!(types.len(), count, "{types:?}");
        assert!(
            types[..count - 1].iter().all(|kind| *kind == "ADDED"),
            "{types:?}"
        );
        let (last, marker) = (types[count - 1], &events[count - 1]["object"]["metadata"]);
        assert_eq!(
            (last, &marker["annotations"]),
            ("BOOKMARK", &json!({"k8s.io/initial-events-end": "true"}))
        );
        let json = pair.alike(&watch(&path, INITIAL, "application/json", count));
        assert_eq!(said["events"], json["events"], "{path}");
    }
    changes(pair);
    failures(pair);
}

/// What happens is said as it is in JSON; whoever watches a selection is told as well that
/// something has left it.
fn changes(pair: &mut Pair) {
    for side in [&mut pair.theirs, &mut pair.ours] {
        let list = side.ask(&get(&tenants(""), "application/json"));
        let revision = list["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned();
        for colour in ["red", "blue"] {
            let label = format!("colour={colour}");
            side.kubectl(&[
                "-n",
                "tenants",
                "label",
                "tcp",
                "tenant-1",
                &label,
                "--overwrite",
            ]);
        }
        let query = format!("resourceVersion={revision}&timeoutSeconds=5");
        let all = watch(&tenants(""), &query, PROTOBUF, 2);
        let red = watch(
            &tenants(""),
            &format!("{query}&labelSelector=colour%3Dred"),
            PROTOBUF,
            2,
        );
        for (request, types) in [(all, ["MODIFIED", "MODIFIED"]), (red, ["ADDED", "DELETED"])] {
            let said = side.ask(&request);
            let mut json = request.clone();
            json["accept"] = json!(shaped("application/json", "PartialObjectMetadata"));
            let json = side.ask(&json);
            assert_eq!(said["events"], json["events"]);
            let is: Vec<_> = said["events"]
                .as_array()
                .unwrap()
                .iter()
                .map(|event| event["type"].clone())
                .collect();
            assert_eq!(is, types, "{}", side.name);
        }
        side.kubectl(&["-n", "tenants", "label", "tcp", "tenant-1", "colour-"]);
    }
}

/// A revision that is yet to come is an ERROR, with a Status.
fn failures(pair: &mut Pair) {
    let query = format!("{INITIAL}0&resourceVersion=1000000000");
    let said = pair.ours.ask(&watch(&tenants(""), &query, PROTOBUF, 1));
    let event = &settled(said)["events"][0];
    assert_eq!(event["type"], "ERROR", "{event}");
    let status = &event["object"];
    assert_eq!(
        (&status["kind"], &status["apiVersion"]),
        (&json!("Status"), &json!("v1"))
    );
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(504), &json!("Timeout"))
    );
}
