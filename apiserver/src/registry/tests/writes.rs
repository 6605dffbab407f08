use std::sync::Arc;
use std::time::Instant;

use http::header;
use serde_json::{Value, json};

use super::harness::{Call, World, tenant};

/// What is short to say and long to do holds up nobody, however often one caller asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_patches_keep_no_worker_from_others() {
    let value = json!({"op": "add", "path": "/x", "value": vec![0; 60_000]});
    keep_no_worker_from_others(vec![value]).await;
    // A few kilobytes that become as long: each list has the one before it twice.
    let mut short = vec![json!({"op": "add", "path": "/x", "value": vec![0; 100]})];
    for _ in 0..9 {
        short.extend([
            json!({"op": "add", "path": "/n", "value": []}),
            json!({"op": "copy", "from": "/x", "path": "/n/-"}),
            json!({"op": "move", "from": "/x", "path": "/n/-"}),
            json!({"op": "move", "from": "/n", "path": "/x"}),
        ]);
    }
    keep_no_worker_from_others(short).await;
    // And one without copies, of which each operation moves a list.
    let shifts = json!({"op": "add", "path": "/x", "value": vec![0; 5_000]});
    let mut shifts = vec![shifts];
    let front = json!({"op": "move", "from": "/x/4999", "path": "/x/0"});
    shifts.extend(std::iter::repeat_n(front, 60));
    keep_no_worker_from_others(shifts).await;
}

/// Of a patch that begins with these operations, and goes on with 300 that move all of it.
async fn keep_no_worker_from_others(mut operations: Vec<Value>) {
    let world = Arc::new(World::memory().await);
    world.tenant("a").await;
    let there = json!({"op": "move", "from": "/x", "path": "/y"});
    let back = json!({"op": "move", "from": "/y", "path": "/x"});
    operations.extend([there, back].into_iter().cycle().take(300));
    operations.push(json!({"op": "remove", "path": "/x"}));
    let patch = Call::tenants("a")
        .header(header::CONTENT_TYPE, "application/json-patch+json")
        .body(json!(operations));
    let (world, patch) = (&world, &patch);
    let patching = || {
        let (world, patch) = (world.clone(), patch.clone());
        tokio::spawn(async move { world.patch(patch).await.code })
    };
    let began = Instant::now();
    assert_eq!(patching().await.unwrap(), 200);
    let one = began.elapsed();
    let under_way: Vec<_> = (0..12).map(|_| patching()).collect();
    let mut took = Vec::new();
    for _ in 0..5 {
        let (world, began) = (world.clone(), Instant::now());
        let read = async move { world.get(Call::tenants("a").by("bob")).await.code };
        assert_eq!(tokio::spawn(read).await.unwrap(), 200);
        took.push(began.elapsed());
    }
    assert!(under_way.iter().any(|patch| !patch.is_finished()));
    took.sort();
    assert!(took[4] < one, "{took:?}, of {one:?}");
}

/// R3.34, R3.37, R3.38, R3.39, R3.40.
#[tokio::test]
async fn create_sets_what_the_server_owns() {
    for world in World::each().await {
        let mut object = tenant("a");
        object["metadata"]["uid"] = json!("mine");
        object["metadata"]["generation"] = json!(9);
        object["metadata"]["managedFields"] = json!([{}]);
        object["status"] = json!({"x": 1});
        let created = world.create(Call::tenants("").body(object)).await;
        assert_eq!(created.code, 201, "{}", created.body);
        let meta = &created.body["metadata"];
        assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
        assert_eq!(meta["generation"], 1);
        assert_eq!(meta["namespace"], "n");
        assert_eq!(meta["creationTimestamp"], "2027-01-15T08:00:00Z");
        // What is reset begins anew (R5.8).
        assert_eq!(meta["managedFields"].as_array().map(Vec::len), Some(1));
        assert_ne!(created.body["status"]["x"], 1);
        let read = world.get(Call::tenants("a")).await;
        assert_eq!(read.body, created.body);

        let again = world.create(Call::tenants("").body(tenant("a"))).await;
        assert_eq!(
            (again.code, again.message()),
            (
                409,
                "tenantcontrolplanes.steward.butlerlabs.dev \"a\" already exists"
            )
        );
        assert_eq!(
            again.body["details"],
            json!({"name": "a", "group": "steward.butlerlabs.dev", "kind": "tenantcontrolplanes"})
        );
    }
}

/// Who brings objects of another operator keeps their uid, with a right of its own.
#[tokio::test]
async fn who_may_import_gives_the_uid() {
    const UID: &str = "7d0c1f9e-3f0b-4c39-9d34-0d5c6f0f1a2b";
    let brought = |name: &str, uid: &str| {
        let mut object = tenant(name);
        object["metadata"]["creationTimestamp"] = json!("2025-02-03T04:05:06Z");
        object["metadata"]["annotations"] =
            json!({"steward.butlerlabs.dev/import-uid": uid, "a": "b"});
        Call::tenants("").body(object)
    };
    let world = World::limited(|asked| !asked.starts_with("import ") || asked.ends_with(" mine"));
    let refused = world.create(brought("other", UID)).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert!(refused.message().contains("import-uid"), "{}", refused.body);
    let kept = world.create(brought("mine", UID)).await;
    assert_eq!(kept.code, 201, "{}", kept.body);
    let meta = &kept.body["metadata"];
    assert_eq!(meta["uid"], UID);
    assert_eq!(meta["creationTimestamp"], "2025-02-03T04:05:06Z");
    // It is not stored, so that a copy of the object is another one.
    assert_eq!(meta["annotations"], json!({"a": "b"}));
    assert!(!meta["managedFields"].to_string().contains("import-uid"));
    for wrong in ["", "mine", "7D0C1F9E-3F0B-4C39-9D34-0D5C6F0F1A2B"] {
        assert_eq!(
            world.create(brought("mine", wrong)).await.code,
            400,
            "{wrong}"
        );
    }
    let mut later = brought("mine", UID);
    later = later.body({
        let mut object = tenant("mine");
        object["metadata"]["creationTimestamp"] = json!("2999-02-03T04:05:06Z");
        object["metadata"]["annotations"] = json!({"steward.butlerlabs.dev/import-uid": UID});
        object
    });
    assert_eq!(world.create(later).await.code, 400);
}

/// R3.3, R3.4, R3.35, R4.4, R4.13, R6.1, R6.5, R6.13.
#[tokio::test]
async fn create_refusals() {
    let world = World::memory().await;
    let mut versioned = tenant("a");
    versioned["metadata"]["resourceVersion"] = json!("1");
    let mut elsewhere = tenant("a");
    elsewhere["metadata"]["namespace"] = json!("m");
    let mut kind = tenant("a");
    kind["kind"] = json!("Pod");
    let mut group = tenant("a");
    group["apiVersion"] = json!("v1");
    let mut nameless = tenant("a");
    nameless["metadata"] = json!({});
    let mut labels = tenant("a");
    labels["metadata"]["labels"] = json!({"a": 1});
    let cases = [
        (
            versioned,
            400,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            elsewhere,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            kind,
            422,
            "TenantControlPlane.steward.butlerlabs.dev \"a\" is invalid: kind: Invalid value: \"Pod\": must be TenantControlPlane",
        ),
        (
            group,
            400,
            "the API version in the data (v1) does not match the expected API version (steward.butlerlabs.dev/v1alpha1)",
        ),
        (
            nameless,
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            labels,
            400,
            "TenantControlPlane in version \"v1alpha1\" cannot be handled as a TenantControlPlane: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
        ),
    ];
    for (object, code, message) in cases {
        let answer = world.create(Call::tenants("").body(object)).await;
        assert_eq!(answer.code, code, "{}", answer.body);
        assert!(answer.message().contains(message), "{}", answer.message());
    }
    let text = world.create(Call::tenants("").text("nonsense")).await;
    assert_eq!(text.code, 400);
    assert!(text.message().starts_with("the object provided is unrecognized (must be of type TenantControlPlane): couldn't get version/kind; json parse error: "));
    let media = Call::tenants("")
        .body(tenant("a"))
        .header(header::CONTENT_TYPE, "text/plain");
    assert_eq!(world.create(media).await.code, 415);
    let packed = Call::tenants("")
        .body(tenant("a"))
        .header(header::CONTENT_ENCODING, "gzip");
    assert_eq!(world.create(packed).await.code, 415);
    let accept = Call::tenants("")
        .body(tenant("a"))
        .header(header::ACCEPT, "text/plain");
    assert_eq!(world.create(accept).await.code, 406);
    assert!(
        world.list(Call::tenants("")).await.body["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

/// R7.4.
#[tokio::test]
async fn namespaces_that_are_missing_or_leaving() {
    let world = World::memory().await;
    let missing = world
        .create(Call::new("tenantcontrolplanes", Some("zz"), "").body(tenant("a")))
        .await;
    assert_eq!(
        (missing.code, missing.message()),
        (404, "namespaces \"zz\" not found")
    );
    let leaving = world
        .create(Call::new("tenantcontrolplanes", Some("leaving"), "").body(tenant("a")))
        .await;
    assert_eq!(leaving.code, 403);
    assert_eq!(
        leaving.message(),
        "tenantcontrolplanes.steward.butlerlabs.dev \"a\" is forbidden: unable to create new content in namespace leaving because it is being terminated"
    );
    assert_eq!(
        leaving.body["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
}

#[tokio::test]
async fn namespaces_that_are_not_served() {
    let world = World::memory().await;
    let m = || Call::new("tenantcontrolplanes", Some("m"), "a");
    assert_eq!(world.create(m().body(tenant("a"))).await.code, 201);

    // What stands there already can be written and deleted.
    let world = world.serving(&["n"]);
    let refused = world.create(m().body(tenant("b"))).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.message().starts_with(
            "tenantcontrolplanes.steward.butlerlabs.dev \"b\" is forbidden: namespace m is not"
        ) && refused.message().contains("tenantNamespaces"),
        "{}",
        refused.message()
    );
    assert_eq!(
        world.create(Call::tenants("").body(tenant("b"))).await.code,
        201
    );
    assert_eq!(world.delete(m()).await.code, 200);
}

/// R3.36, R3.41, R3.68.
#[tokio::test]
async fn generated_names_and_dry_run() {
    let world = World::memory().await;
    let mut object = tenant("a");
    object["metadata"] = json!({"generateName": "t-"});
    let created = world.create(Call::tenants("").body(object.clone())).await;
    let name = created.body["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("t-") && name.len() == 7);
    assert_eq!(created.body["metadata"]["generateName"], "t-");

    let before = world.registry.store.revision().await.unwrap();
    let dry = world
        .create(Call::tenants("").query("dryRun=All").body(tenant("b")))
        .await;
    assert_eq!(dry.code, 201);
    assert!(dry.body["metadata"].get("resourceVersion").is_none());
    assert!(dry.body["metadata"]["uid"].is_string());
    let created = world.tenant("b").await;
    assert_eq!(
        world
            .create(Call::tenants("").query("dryRun=All").body(tenant("b")))
            .await
            .code,
        409
    );
    let after = world.registry.store.revision().await.unwrap();
    assert_eq!(after.0, before.0 + 1);
    assert_eq!(created.version(), after.0);
    for call in [
        world
            .patch(
                Call::tenants("b")
                    .query("dryRun=All")
                    .body(json!({"metadata": {"labels": {"x": "y"}}})),
            )
            .await,
        world.delete(Call::tenants("b").query("dryRun=All")).await,
        world
            .delete_collection(Call::tenants("").query("dryRun=All"))
            .await,
    ] {
        assert_eq!(call.code, 200, "{}", call.body);
    }
    assert_eq!(world.registry.store.revision().await.unwrap(), after);
}

/// R6.2, R6.3, R6.4.
#[tokio::test]
async fn unknown_and_duplicate_fields() {
    let world = World::memory().await;
    let mut object = tenant("a");
    object["spec"]["unknown"] = json!(1);
    object["metadata"]["odd"] = json!(1);
    let text = object
        .to_string()
        .replacen("\"spec\":{", "\"spec\":{\"unknown\":2,", 1);
    let strict = world
        .create(
            Call::tenants("")
                .query("fieldValidation=Strict")
                .text(&text),
        )
        .await;
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.message(),
        "TenantControlPlane in version \"v1alpha1\" cannot be handled as a TenantControlPlane: strict decoding error: duplicate field \"spec.unknown\", unknown field \"metadata.odd\", unknown field \"spec.unknown\""
    );
    let warn = world.create(Call::tenants("").text(&text)).await;
    assert_eq!(warn.code, 201);
    let expected = [
        "duplicate field \"spec.unknown\"",
        "unknown field \"metadata.odd\"",
        "unknown field \"spec.unknown\"",
    ];
    assert_eq!(&warn.warnings[..3], expected);
    assert!(warn.body["spec"].get("unknown").is_none());
    let patch = Call::tenants("a")
        .query("fieldValidation=Strict")
        .body(json!({"spec": {"unknown": 1}}));
    let patch = world.patch(patch).await;
    assert_eq!(patch.code, 422);
    assert!(
        patch
            .message()
            .starts_with(" \"\" is invalid: patch: Invalid value: \"{"),
        "{}",
        patch.message()
    );
    assert!(
        patch
            .message()
            .ends_with("strict decoding error: unknown field \"spec.unknown\"")
    );
    let ignore = Call::tenants("a")
        .query("fieldValidation=Ignore")
        .body(json!({"spec": {"unknown": 1}}));
    let ignore = world.patch(ignore).await;
    assert_eq!(ignore.code, 200);
    assert!(
        !ignore
            .warnings
            .iter()
            .any(|text| text.contains("unknown field"))
    );
}

/// R3.25, R3.47, R3.48, R3.50, R3.52.
#[tokio::test]
async fn updates_and_conflicts() {
    for world in World::each().await {
        let created = world.tenant("a").await;
        let mut object = created.body.clone();
        object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        let missing = world.update(Call::tenants("a").body(object.clone())).await;
        assert_eq!(missing.code, 422);
        assert_eq!(
            missing.message(),
            "tenantcontrolplanes.steward.butlerlabs.dev \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        );
        // Labels do not count as a generation, the spec does, status is not taken.
        object = created.body.clone();
        object["metadata"]["labels"] = json!({"x": "y"});
        object["status"] = json!({"controlPlaneEndpoint": "x"});
        let labelled = world.update(Call::tenants("a").body(object.clone())).await;
        assert_eq!(labelled.code, 200, "{}", labelled.body);
        assert_eq!(labelled.body["metadata"]["generation"], 1);
        assert_ne!(labelled.body["status"]["controlPlaneEndpoint"], "x");
        assert!(labelled.version() > created.version());
        // The same again is stale now.
        let stale = world.update(Call::tenants("a").body(object)).await;
        assert_eq!(stale.code, 409);
        assert_eq!(
            stale.message(),
            "Operation cannot be fulfilled on tenantcontrolplanes.steward.butlerlabs.dev \"a\": the object has been modified; please apply your changes to the latest version and try again"
        );
        let mut object = labelled.body.clone();
        object["spec"]["controlPlane"]["deployment"]["replicas"] = json!(3);
        object["metadata"]["generation"] = json!(77);
        let changed = world.update(Call::tenants("a").body(object)).await;
        assert_eq!(changed.body["metadata"]["generation"], 2);
        // Nothing changes: nothing is written.
        let same = world
            .update(Call::tenants("a").body(changed.body.clone()))
            .await;
        assert_eq!((same.code, same.version()), (200, changed.version()));
        let mut other = changed.body.clone();
        other["metadata"]["uid"] = json!("other");
        let other = world.update(Call::tenants("a").body(other)).await;
        assert_eq!(other.code, 409);
        assert!(
            other
                .message()
                .contains("Precondition failed: UID in precondition: other, UID in object meta: ")
        );
        let mut gone = changed.body.clone();
        gone["metadata"]["name"] = json!("b");
        assert_eq!(
            world
                .update(Call::tenants("b").body(gone.clone()))
                .await
                .code,
            404
        );
        let wrong = world.update(Call::tenants("a").body(gone)).await;
        assert_eq!(
            wrong.message(),
            "the name of the object (b) does not match the name on the URL (a)"
        );
    }
}

/// R3.54, R3.55, R3.56, R4.7, R8.7.
#[tokio::test]
async fn patches() {
    for world in World::each().await {
        let created = world.tenant("a").await;
        let merge = world
            .patch(
                Call::tenants("a").body(json!({"metadata": {"labels": {"app": null, "x": "y"}}})),
            )
            .await;
        assert_eq!(merge.body["metadata"]["labels"], json!({"x": "y"}));
        let same = world
            .patch(Call::tenants("a").body(json!({"metadata": {"labels": {"x": "y"}}})))
            .await;
        assert_eq!(same.version(), merge.version());
        let locked = json!({"metadata": {"resourceVersion": created.body["metadata"]["resourceVersion"], "labels": {"z": "z"}}});
        assert_eq!(world.patch(Call::tenants("a").body(locked)).await.code, 409);
        let json_patch = |body: Value| {
            Call::tenants("a")
                .header(header::CONTENT_TYPE, "application/json-patch+json")
                .body(body)
        };
        let replaced = world.patch(json_patch(json!([{"op": "replace", "path": "/spec/controlPlane/deployment/replicas", "value": 5}]))).await;
        assert_eq!(
            replaced.body["spec"]["controlPlane"]["deployment"]["replicas"],
            5
        );
        assert_eq!(replaced.body["metadata"]["generation"], 2);
        let failed = world
            .patch(json_patch(
                json!([{"op": "test", "path": "/spec/x", "value": 5}]),
            ))
            .await;
        assert_eq!(
            (failed.code, failed.message()),
            (
                422,
                "the server rejected our request due to an error in our request"
            )
        );
        assert_eq!(failed.body["details"], json!({}));
        for media in [
            "application/strategic-merge-patch+json",
            "application/apply-patch+cbor",
            "text/plain",
        ] {
            let call = Call::tenants("a")
                .header(header::CONTENT_TYPE, media)
                .body(json!({}));
            let refused = world.patch(call).await;
            assert_eq!(refused.code, 415);
            assert_eq!(
                refused.message(),
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            );
        }
        assert_eq!(
            world.patch(Call::tenants("zz").body(json!({}))).await.code,
            404
        );
        let renamed = world
            .patch(Call::tenants("a").body(json!({"metadata": {"name": "b"}})))
            .await;
        assert_eq!(renamed.code, 400);
    }
}

/// R3.53.
#[tokio::test]
async fn patches_without_a_version_never_conflict() {
    let world = World::sqlite().await;
    world.tenant("a").await;
    let patches = (0..20).map(|n| {
        let world = &world;
        async move {
            let body = json!({"metadata": {"labels": {format!("l{n}"): "x"}}});
            world.patch(Call::tenants("a").body(body)).await.code
        }
    });
    let codes = futures::future::join_all(patches).await;
    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    let read = world.get(Call::tenants("a")).await;
    assert_eq!(
        read.body["metadata"]["labels"].as_object().unwrap().len(),
        21
    );
}

/// R3.61, R3.62, R3.63.
#[tokio::test]
async fn deletion() {
    for world in World::each().await {
        let created = world.tenant("a").await;
        let uid = &created.body["metadata"]["uid"];
        let wrong =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "x"}});
        let wrong = world.delete(Call::tenants("a").body(wrong)).await;
        assert_eq!(wrong.code, 409);
        assert!(wrong.message().starts_with("Operation cannot be fulfilled on TenantControlPlane.steward.butlerlabs.dev \"a\": the UID in the precondition (x) does not match the UID in record ("));
        let right = json!({"preconditions": {"uid": uid}, "propagationPolicy": "Background"});
        let gone = world.delete(Call::tenants("a").body(right)).await;
        assert_eq!(gone.code, 200);
        assert_eq!(gone.body["status"], "Success");
        assert_eq!(gone.body["details"]["uid"], *uid);
        assert_eq!(gone.body["details"]["kind"], "tenantcontrolplanes");
        let missing = world.delete(Call::tenants("a")).await;
        assert_eq!(
            (missing.code, missing.message()),
            (
                404,
                "tenantcontrolplanes.steward.butlerlabs.dev \"a\" not found"
            )
        );
    }
}

/// R3.37, R3.51, R3.62, R3.65, R3.69.
#[tokio::test]
async fn finalizers_hold_an_object() {
    for world in World::each().await {
        let mut object = tenant("a");
        object["metadata"]["finalizers"] = json!(["x.y/z"]);
        world.create(Call::tenants("").body(object)).await;
        let marked = world
            .delete(Call::tenants("a").query("propagationPolicy=Foreground"))
            .await;
        assert_eq!(marked.code, 200);
        let meta = &marked.body["metadata"];
        assert_eq!(meta["finalizers"], json!(["x.y/z", "foregroundDeletion"]));
        assert_eq!(meta["generation"], 2);
        assert_eq!(meta["deletionGracePeriodSeconds"], 0);
        assert!(meta["deletionTimestamp"].is_string());
        let again = world.delete(Call::tenants("a")).await;
        assert_eq!((again.code, again.version()), (200, marked.version()));
        let taken = world.create(Call::tenants("").body(tenant("a"))).await;
        assert_eq!(
            taken.message(),
            "object is being deleted: tenantcontrolplanes.steward.butlerlabs.dev \"a\" already exists"
        );
        let added = world
            .patch(
                Call::tenants("a").body(json!({"metadata": {"finalizers": ["x.y/z", "new.b/c"]}})),
            )
            .await;
        assert_eq!(added.code, 422, "{}", added.body);
        assert!(added.message().contains("no new finalizers can be added if the object is being deleted, found new finalizers []string{\"new.b/c\"}"));
        let undo = world
            .patch(Call::tenants("a").body(json!({"metadata": {"deletionTimestamp": null}})))
            .await;
        assert_eq!((undo.code, undo.version()), (200, marked.version()));
        let last = world
            .patch(Call::tenants("a").body(json!({"metadata": {"finalizers": null}})))
            .await;
        assert_eq!(last.code, 200);
        assert_eq!(world.get(Call::tenants("a")).await.code, 404);
    }
}

/// R3.10, R3.67.
#[tokio::test]
async fn collections_are_deleted_as_selected() {
    for world in World::each().await {
        for name in ["a", "b", "c", "limited"] {
            world.tenant(name).await;
        }
        // Only the first page, in the order of names.
        let page = world
            .delete_collection(Call::tenants("").query("limit=1&labelSelector=app in (limited,a)"))
            .await;
        assert_eq!(page.code, 200, "{}", page.body);
        let left = world.list(Call::tenants("")).await;
        assert_eq!(left.body["items"].as_array().unwrap().len(), 3);
        if left.body["items"][0]["metadata"]["name"] != "a" {
            world.tenant("a").await;
        }
        let mut held = tenant("d");
        held["metadata"]["finalizers"] = json!(["x.y/z"]);
        world.create(Call::tenants("").body(held)).await;
        let one = world
            .delete_collection(Call::tenants("").query("labelSelector=app in (a)"))
            .await;
        assert_eq!(one.body["kind"], "TenantControlPlaneList");
        assert_eq!(one.body["items"].as_array().unwrap().len(), 1);
        let all = world
            .delete_collection(Call::tenants("").body(json!({"propagationPolicy": "Background"})))
            .await;
        assert_eq!(all.code, 200, "{}", all.body);
        let left = world.list(Call::tenants("")).await;
        assert_eq!(left.body["items"].as_array().unwrap().len(), 1);
        assert!(left.body["items"][0]["metadata"]["deletionTimestamp"].is_string());
    }
}

#[tokio::test]
async fn a_datastore_needs_the_right_to_its_secrets() {
    let store = json!({
        "metadata": {"name": "d"},
        "spec": {
            "driver": "etcd", "endpoints": ["e:2379"],
            "tlsConfig": {
                "certificateAuthority": {"certificate": {"secretReference": {"name": "ca", "namespace": "s", "keyPath": "ca.crt"}}, "privateKey": {"secretReference": {"name": "ca", "namespace": "s", "keyPath": "ca.key"}}},
                "clientCertificate": {"certificate": {"secretReference": {"name": "c", "namespace": "s", "keyPath": "tls.crt"}}, "privateKey": {"secretReference": {"name": "c", "namespace": "s", "keyPath": "tls.key"}}},
            },
        },
    });
    let world = World::limited(|asked| asked != "get secrets c");
    let refused = world.create(Call::stores("").body(store.clone())).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert!(
        refused
            .message()
            .contains("User \"alice\" cannot get resource \"secrets\""),
        "{}",
        refused.message()
    );
    let world = World::limited(|_| true);
    let created = world.create(Call::stores("").body(store)).await;
    assert_eq!(created.code, 201, "{}", created.body);
}

/// For a ServiceAccount either right does; to create pods is needed beside it.
#[tokio::test]
async fn a_service_account_is_borrowed_by_either_right() {
    let token = "create serviceaccounts builder";
    let impersonate = "impersonate serviceaccounts builder";
    for (denied, code) in [
        (vec![], 201),
        (vec![token], 201),
        (vec![impersonate], 201),
        (vec![token, impersonate], 403),
        (vec!["create pods "], 403),
    ] {
        let list = denied.clone();
        let world = World::limited(move |asked| !list.contains(&asked));
        let mut object = tenant("a");
        object["spec"]["controlPlane"]["deployment"]["serviceAccountName"] = "builder".into();
        let answer = world.create(Call::tenants("").body(object)).await;
        assert_eq!(answer.code, code, "{denied:?}: {}", answer.body);
    }
}

/// A list in a list, this many of them.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}

/// A patch that nests deeper than what can be read back was stored, and then no
/// list and no watch of anybody worked.
#[tokio::test]
async fn what_is_nested_too_deep_is_refused_on_every_path() {
    for world in World::each().await {
        world.tenant("a").await;
        let too_deep = "the object is nested deeper than 64 levels";
        let content = |levels: usize| json!([{"op": "add", "path": "/x", "value": nested(levels)}]);
        let field = |levels: usize| json!({"spec": {"kubernetes": {"kubelet": {"configurationJSONPatches": content(levels)}}}});
        let with_field = |levels: usize| {
            let mut object = tenant("b");
            object["spec"]["kubernetes"]["kubelet"]["configurationJSONPatches"] = content(levels);
            object
        };
        // The value stands at level seven: object, spec, kubernetes, kubelet, list,
        // operation, value.
        let json_patch = json!([{
            "op": "add", "path": "/spec/kubernetes/kubelet",
            "value": {"configurationJSONPatches": content(100)},
        }]);
        let patch_type = "application/json-patch+json";
        let typed = |call: Call, media| call.header(header::CONTENT_TYPE, media);
        let a = || Call::tenants("a");
        let mut deep = with_field(59);
        deep["metadata"]["name"] = json!("a");
        let yaml = typed(Call::tenants("").body(with_field(59)), "application/yaml");
        let apply = typed(a().query("fieldManager=me"), "application/apply-patch+yaml");
        // What is no field of a status is nested as well, until it is pruned.
        let mut status = tenant("a");
        status["status"] = json!({"x": nested(70)});
        let status = || a().part("status").body(status.clone());
        let answers = [
            world.create(Call::tenants("").body(with_field(59))).await,
            world.update(a().body(deep.clone())).await,
            world.patch(apply.body(deep)).await,
            world.update(status()).await,
            world.patch(status()).await,
            world.patch(Call::tenants("a").body(field(59))).await,
            world.patch(Call::tenants("a").body(field(120))).await,
            world
                .patch(
                    Call::tenants("a")
                        .header(header::CONTENT_TYPE, patch_type)
                        .body(json_patch),
                )
                .await,
        ];
        for answer in answers {
            assert_eq!((answer.code, answer.message()), (400, too_deep));
        }
        // The reader of YAML stops by itself.
        let read = world.create(yaml).await;
        assert_eq!(read.code, 400, "{}", read.body);
        let depth = "budget breached: Depth { depth: 65 }";
        assert!(read.message().contains(depth), "{}", read.body);
        let fits = world.create(Call::tenants("").body(with_field(58))).await;
        assert_eq!(fits.code, 201, "{}", fits.body);
        assert_eq!(world.get(Call::tenants("b")).await.code, 200);
        assert_eq!(world.list(Call::tenants("")).await.code, 200);
    }
}

/// Short maps take a hundred times their text once they are read: what is stored takes no
/// more memory than one caller can have.
#[tokio::test]
async fn what_takes_too_much_memory_is_refused_on_every_path() {
    for world in World::each().await {
        world.tenant("a").await;
        let content = |count: usize| json!([{"op": "add", "path": "/x", "value": vec![json!({"": 0}); count]}]);
        let mut object = tenant("b");
        object["spec"]["kubernetes"]["kubelet"]["configurationJSONPatches"] = content(40_000);
        let mut same = object.clone();
        same["metadata"]["name"] = "a".into();
        let stored = world.get(Call::tenants("a")).await;
        same["metadata"]["resourceVersion"] = stored.body["metadata"]["resourceVersion"].clone();
        let field = json!({"spec": object["spec"].clone()});
        let patch = json!([
            {"op": "add", "path": "/spec/kubernetes/kubelet", "value": {"configurationJSONPatches": content(20_000)}},
            {"op": "copy", "from": "/spec/kubernetes/kubelet/configurationJSONPatches/0",
             "path": "/spec/kubernetes/kubelet/configurationJSONPatches/-"},
        ]);
        let answers = [
            world.create(Call::tenants("").body(object.clone())).await,
            world.update(Call::tenants("a").body(same)).await,
            world.patch(Call::tenants("a").body(field)).await,
            world
                .patch(
                    Call::tenants("a")
                        .header(header::CONTENT_TYPE, "application/json-patch+json")
                        .body(patch),
                )
                .await,
        ];
        for answer in answers {
            assert_eq!(answer.code, 413, "{}", answer.body);
            assert!(answer.message().contains("too many maps and lists"));
        }
        // Stored by a release of before: it has a status, and can be deleted.
        let mut before = object.clone();
        before["metadata"]["name"] = "before".into();
        before["metadata"]["namespace"] = "n".into();
        before["metadata"]["uid"] = "u".into();
        before["metadata"]["finalizers"] = json!(["example.com/a"]);
        let key = "/tenantcontrolplanes/n/before";
        let value = before.to_string().into();
        let store = &world.registry.store;
        store
            .put(key, value, storage::Expect::Absent)
            .await
            .unwrap();
        let status = json!({"status": {"kubernetesResources": {"version": {"version": "v1"}}}});
        let before = || Call::tenants("before");
        let told = world.patch(before().part("status").body(status)).await;
        assert_eq!(told.code, 200, "{}", told.body["message"]);
        assert_eq!(world.delete(before()).await.code, 200);

        object["spec"]["kubernetes"]["kubelet"]["configurationJSONPatches"] = content(9_000);
        let fits = world.create(Call::tenants("").body(object.clone())).await;
        assert_eq!(fits.code, 422, "as types: {}", fits.body["message"]);
        object["metadata"]["namespace"] = "n".into();
        object["metadata"]["uid"] = "u".into();
        let value = object.to_string().into();
        let key = "/tenantcontrolplanes/n/b";
        store
            .put(key, value, storage::Expect::Absent)
            .await
            .unwrap();
        // Neither the patch is heavy, nor what is there, nor the copy.
        let list = "/spec/kubernetes/kubelet/configurationJSONPatches";
        let from = format!("{list}/0/value");
        let twice = json!([{"op": "copy", "from": from, "path": format!("{list}/0/value/-")}]);
        let call = Call::tenants("b").header(header::CONTENT_TYPE, "application/json-patch+json");
        let answer = world.patch(call.body(twice)).await;
        assert_eq!(answer.code, 413, "{}", answer.body);
    }
}

/// What is not handed over when the answer is due is not stored: nothing that had to be asked
/// about it can have been left out for want of time.
#[tokio::test]
async fn nothing_is_stored_after_its_time() {
    let world = World::memory().await;
    let object = tenant("a");
    let late = world
        .create(Call::tenants("").body(object.clone()).late())
        .await;
    assert_eq!(late.code, 504, "{}", late.body);
    assert_eq!(world.get(Call::tenants("a")).await.code, 404);
    assert_eq!(world.create(Call::tenants("").body(object)).await.code, 201);
    let late = world.delete(Call::tenants("a").late()).await;
    assert_eq!(late.code, 504, "{}", late.body);
    assert_eq!(world.get(Call::tenants("a")).await.code, 200);
}

/// An entry that cannot be read costs nobody else anything, and can be deleted.
/// R3.71.
#[tokio::test]
async fn an_unreadable_entry_is_quarantined() {
    for world in World::each().await {
        world.tenant("a").await;
        let start = world.list(Call::tenants("").query("limit=1")).await;
        let bad = format!(
            r#"{{"metadata":{{"name":"bad","namespace":"n"}},"x":{}{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        let key = "/tenantcontrolplanes/n/bad";
        world
            .registry
            .store
            .put(key, bad.into(), storage::Expect::Absent)
            .await
            .unwrap();
        world.tenant("c").await;
        let from =
            |version: u64| Call::tenants("").query(&format!("watch=1&resourceVersion={version}"));
        let mut events = world.watch(from(start.version())).await;
        assert_eq!(
            events.next().await.unwrap()["object"]["metadata"]["name"],
            "c"
        );
        let list = world.list(Call::tenants("").everywhere()).await;
        let names = list.body["items"].as_array().unwrap().len();
        assert_eq!((list.code, names), (200, 2), "{}", list.body);
        assert_eq!(world.registry.cache.quarantined(), 1);
        let unreadable = world.get(Call::tenants("bad")).await;
        assert_eq!(unreadable.code, 500);
        let any = world
            .get(Call::tenants("bad").query("resourceVersion=0"))
            .await;
        assert_eq!(any.code, 500);
        let cache = &world.registry.cache;
        assert_eq!(cache.empty_at("/tenantcontrolplanes/n/b"), None);
        assert!(cache.empty_at("/tenantcontrolplanes/m/").is_some());
        assert!(
            unreadable
                .message()
                .contains("delete the object by its name")
        );
        assert_eq!(world.delete(Call::tenants("bad")).await.code, 200);
        assert_eq!(world.get(Call::tenants("bad")).await.code, 404);
        let deleted = world.tenant("d").await;
        assert!(
            world
                .registry
                .cache
                .reached(deleted.version(), std::time::Duration::from_secs(5))
                .await
        );
        assert_eq!(world.registry.cache.quarantined(), 0);
        assert_eq!(
            events.next().await.unwrap()["object"]["metadata"]["name"],
            "d"
        );
    }
}

/// Whoever deletes a collection as a whole deletes what cannot be read in it, or its
/// namespace would never be empty.
/// R3.71.
#[tokio::test]
async fn a_collection_is_deleted_with_what_cannot_be_read() {
    for world in World::each().await {
        let mut last = 0;
        for namespace in ["n", "m"] {
            let bad = format!(r#"{{"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
            let key = format!("/tenantcontrolplanes/{namespace}/bad");
            let put = world
                .registry
                .store
                .put(&key, bad.into(), storage::Expect::Absent);
            last = put.await.unwrap().modified.0;
        }
        let cache = &world.registry.cache;
        let patience = std::time::Duration::from_secs(5);
        assert!(cache.reached(last, patience).await);
        assert_eq!(cache.quarantined(), 2);
        for (query, body) in [
            ("labelSelector=app in (a)", json!({})),
            ("fieldSelector=metadata.name=x", json!({})),
            ("dryRun=All", json!({})),
            ("", json!({"preconditions": {"uid": "u"}})),
        ] {
            let call = Call::tenants("").query(query);
            let call = if query.is_empty() {
                call.body(body)
            } else {
                call
            };
            assert_eq!(world.delete_collection(call).await.code, 200, "{query}");
            assert_eq!(world.get(Call::tenants("bad")).await.code, 500, "{query}");
        }
        assert_eq!(world.delete_collection(Call::tenants("")).await.code, 200);
        assert_eq!(world.get(Call::tenants("bad")).await.code, 404);
        let marker = world.tenant("marker").await;
        assert!(cache.reached(marker.version(), patience).await);
        let left = cache.quarantined_below("/tenantcontrolplanes/");
        assert_eq!(left, ["/tenantcontrolplanes/m/bad"]);
    }
}
