//! Objects and lists: R4.6, R4.9.

use serde_json::{Value, json};
use tests::served::GROUP_VERSION;

use crate::pair::{NAMESPACE, PROTOBUF, Pair, full, get, settled, shaped, tenants};

const JSON: &str = "application/json";

/// Each object of the examples, and one with all that metadata can have.
pub fn objects_are_read_alike(pair: &mut Pair) {
    let stores = ["default", "mysql-store", "nats-store", "postgres-store"];
    let stores = stores.map(|name| format!("{GROUP_VERSION}/datastores/{name}"));
    let all = ["tenant-1", "full"].map(tenants).into_iter().chain(stores);
    let mut managers = 0;
    for path in all {
        let said = pair.alike(&get(&path, &shaped(PROTOBUF, "PartialObjectMetadata")));
        assert_eq!(
            (&said["code"], &said["contentType"]),
            (&json!(200), &json!(PROTOBUF)),
            "{said}"
        );
        let json = pair.alike(&get(&path, &shaped(JSON, "PartialObjectMetadata")));
        assert_eq!(said["object"], json["object"], "{path}");
        let metadata = &said["object"]["metadata"];
        managers += metadata["managedFields"].as_array().unwrap().len();
        if path.ends_with("/full") {
            for field in [
                "ownerReferences",
                "finalizers",
                "deletionTimestamp",
                "annotations",
                "labels",
            ] {
                assert!(!metadata[field].is_null(), "{field}: {metadata}");
            }
            assert_eq!(metadata["finalizers"].as_array().unwrap().len(), 3);
        }
    }
    assert!(managers > 6, "{managers}");
    // The older name of the same shape.
    let beta = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1");
    let said = pair.alike(&get(&tenants("full"), &beta));
    assert_eq!(said["object"]["apiVersion"], "meta.k8s.io/v1beta1");
}

/// Whole, in pages, of a revision, of nothing.
pub fn lists_are_read_alike(pair: &mut Pair) {
    let protobuf = shaped(PROTOBUF, "PartialObjectMetadataList");
    for query in [
        "",
        "?limit=1",
        "?resourceVersion=0",
        "?resourceVersion=1&resourceVersionMatch=NotOlderThan",
        "?labelSelector=app%3Dx",
        "?labelSelector=app%3Dnobody",
        "?fieldSelector=metadata.name%3Dfull&limit=5",
    ] {
        let path = format!("{}{query}", tenants(""));
        let said = pair.alike(&get(&path, &protobuf));
        assert_eq!(
            (&said["code"], &said["contentType"]),
            (&json!(200), &json!(PROTOBUF)),
            "{said}"
        );
        let json = pair.alike(&get(&path, &shaped(JSON, "PartialObjectMetadataList")));
        let mut json = json["object"].clone();
        // There items do not say what they are.
        for item in json["items"].as_array_mut().into_iter().flatten() {
            let item = item.as_object_mut().unwrap();
            assert_eq!(item.remove("kind"), Some(json!("PartialObjectMetadata")));
            item.remove("apiVersion");
        }
        assert_eq!(said["object"], json, "{path}");
    }
    // The next page, and what was then: each by what its own server said.
    for side in [&mut pair.theirs, &mut pair.ours] {
        let first = side.ask(&get(&format!("{}?limit=1", tenants("")), &protobuf));
        let meta = &first["object"]["metadata"];
        let token = meta["continue"].as_str().unwrap();
        let next = side.ask(&get(
            &format!("{}?limit=1&continue={token}", tenants("")),
            &protobuf,
        ));
        assert_eq!(next["object"]["items"][0]["metadata"]["name"], "tenant-1");
        let revision = meta["resourceVersion"].as_str().unwrap();
        let exact = format!(
            "{}?resourceVersion={revision}&resourceVersionMatch=Exact",
            tenants("")
        );
        let exact = side.ask(&get(&exact, &protobuf));
        assert_eq!(exact["object"]["metadata"]["resourceVersion"], revision);
        assert_eq!(exact["object"]["items"].as_array().unwrap().len(), 2);
    }
}

/// What is answered to writes.
pub fn writes_are_answered_alike(pair: &mut Pair) {
    let accept = format!("{},{PROTOBUF}", shaped(PROTOBUF, "PartialObjectMetadata"));
    let write = |method: &str, path: &str, media: &str, body: Value| {
        json!({"op": "raw", "method": method, "path": path, "accept": accept,
            "contentType": media, "body": body})
    };
    let mut body = full("written");
    let created = pair.alike(&write("POST", &tenants(""), JSON, body.clone()));
    assert_eq!(
        (&created["code"], &created["contentType"]),
        (&json!(201), &json!(PROTOBUF))
    );
    assert_eq!(created["object"]["kind"], "PartialObjectMetadata");
    let path = tenants("written");
    body["metadata"]["labels"]["app"] = json!("z");
    // Of the version that each has given it.
    let updated = [&mut pair.theirs, &mut pair.ours].map(|side| {
        let stored = side.ask(&get(&path, JSON));
        let meta = &stored["object"]["metadata"];
        body["metadata"]["resourceVersion"] = meta["resourceVersion"].clone();
        settled(side.ask(&write("PUT", &path, JSON, body.clone())))
    });
    assert_eq!(updated[1], updated[0]);
    assert_eq!(updated[1]["object"]["metadata"]["labels"]["app"], "z");
    let patch = json!({"metadata": {"labels": {"app": null}}});
    let patched = pair.alike(&write(
        "PATCH",
        &path,
        "application/merge-patch+json",
        patch,
    ));
    assert_eq!(
        patched["object"]["metadata"]["labels"],
        json!({"empty": ""})
    );
    let applied = json!({"apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "kind": "TenantControlPlane", "metadata": {"name": "written", "labels": {"b": "c"}}});
    let query = format!("{path}?fieldManager=x");
    let applied = pair.alike(&write(
        "PATCH",
        &query,
        "application/apply-patch+yaml",
        applied,
    ));
    assert_eq!(applied["object"]["metadata"]["labels"]["b"], "c");
    // Held by finalizers the object is what is left; without them nothing is.
    let held = pair.alike(&write("DELETE", &path, "", Value::Null));
    assert!(
        !held["object"]["metadata"]["deletionTimestamp"].is_null(),
        "{held}"
    );
    let free = json!({"metadata": {"finalizers": null}});
    pair.alike(&write("PATCH", &path, "application/merge-patch+json", free));
    let small = json!({"apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": "small", "namespace": NAMESPACE}, "spec": full("x")["spec"]});
    pair.alike(&write("POST", &tenants(""), JSON, small));
    let gone = write(
        "DELETE",
        &tenants("small"),
        PROTOBUF,
        json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "propagationPolicy": "Background"}),
    );
    let gone = pair.alike(&gone);
    assert_eq!(
        (&gone["contentType"], &gone["object"]["kind"]),
        (&json!(PROTOBUF), &json!("Status"))
    );
    assert_eq!(gone["object"]["status"], "Success");
}
