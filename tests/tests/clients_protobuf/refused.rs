//! Refusals: in the encoding that is accepted, in Kubernetes' words (R4.2, R4.4, R4.6).

use serde_json::{Value, json};
use tests::served::GROUP_VERSION;

use crate::pair::{PROTOBUF, Pair, get, shaped, tenants};

/// As metadata clients ask.
const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

pub fn refusals_are_alike(pair: &mut Pair) {
    let both = format!("{},{PROTOBUF}", shaped(PROTOBUF, "PartialObjectMetadata"));
    let cases = [
        // What there is not, and how it is said.
        (get(&tenants("none"), &both), 404, PROTOBUF),
        (get(&tenants("none"), METADATA), 404, "application/json"),
        (
            get(&tenants("none"), &shaped(PROTOBUF, "PartialObjectMetadata")),
            404,
            "application/json",
        ),
        (
            get(&format!("{GROUP_VERSION}/datastores/none"), &both),
            404,
            PROTOBUF,
        ),
        // The resource itself has no such form, nor has a Table.
        (get(&tenants("full"), PROTOBUF), 406, PROTOBUF),
        (get(&tenants(""), PROTOBUF), 406, PROTOBUF),
        (
            get(&tenants("full"), &shaped(PROTOBUF, "Table")),
            406,
            "application/json",
        ),
        (get(&tenants(""), &both), 406, PROTOBUF),
        (
            get(&format!("{}?watch=1", tenants("")), PROTOBUF),
            406,
            PROTOBUF,
        ),
        (
            get(&tenants("full"), &format!("{PROTOBUF};stream=other")),
            406,
            "application/json",
        ),
    ];
    for (request, code, media) in cases {
        let said = pair.alike(&request);
        assert_eq!(
            (&said["code"], &said["contentType"]),
            (&json!(code), &json!(media)),
            "{request}: {said}"
        );
        assert_eq!(said["object"]["kind"], "Status");
    }
    // What is passed over leaves the next one.
    let json = get(&tenants("full"), &format!("{PROTOBUF},application/json"));
    assert_eq!(pair.alike(&json)["contentType"], "application/json");
    bodies(pair);
}

/// Bodies in protobuf.
fn bodies(pair: &mut Pair) {
    let send = |method: &str, path: &str, body: Value| {
        json!({"op": "raw", "method": method, "path": path, "accept": format!("{},{PROTOBUF}", shaped(PROTOBUF, "PartialObjectMetadata")),
            "contentType": PROTOBUF, "body": body})
    };
    let options = |more: Value| {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        options
    };
    let scale = format!("{}/scale", tenants("tenant-1"));
    let scaled = |replicas: i64| {
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "tenant-1"}, "spec": {"replicas": replicas}})
    };
    for (request, code) in [
        (send("PATCH", &tenants("tenant-1"), json!("{}")), 415),
        (
            send(
                "DELETE",
                &tenants("tenant-1"),
                options(json!({"preconditions": {"uid": "other"}})),
            ),
            409,
        ),
        (
            send(
                "DELETE",
                &tenants("tenant-1"),
                options(json!({"dryRun": ["Some"]})),
            ),
            422,
        ),
        (
            send(
                "DELETE",
                &tenants("tenant-1"),
                options(json!({"propagationPolicy": "Nothing"})),
            ),
            422,
        ),
        (
            send("DELETE", &tenants("tenant-1"), json!("no protobuf")),
            400,
        ),
        (send("DELETE", &tenants("tenant-1"), json!("k8s\u{0}")), 400),
    ] {
        let said = pair.alike(&request);
        assert_eq!(
            (&said["code"], &said["contentType"]),
            (&json!(code), &json!(PROTOBUF)),
            "{request}: {said}"
        );
    }
    // In words of our own; of a Scale they are those of built-in kinds.
    for (request, code) in [
        (send("PUT", &scale, json!("no protobuf")), 400),
        (send("PUT", &scale, options(json!({}))), 400),
        (send("PUT", &scale, scaled(-1)), 422),
    ] {
        for said in pair.both(&request) {
            assert_eq!(
                (&said["code"], &said["contentType"]),
                (&json!(code), &json!(PROTOBUF)),
                "{request}: {said}"
            );
        }
    }
    // Such an object is a panic of kube-apiserver's own handler, after which nothing is
    // answered; of ours it is an answer.
    let tenant =
        json!({"apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane"});
    for (method, path) in [("POST", tenants("")), ("PUT", tenants("tenant-1"))] {
        let said = pair.ours.ask(&send(method, &path, tenant.clone()));
        assert_eq!(
            (&said["code"], &said["object"]["reason"]),
            (&json!(415), &json!("UnsupportedMediaType")),
            "{said}"
        );
    }
}
