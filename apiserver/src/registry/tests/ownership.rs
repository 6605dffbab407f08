//! Field ownership and server-side apply over the verbs (contract 5). What the merge makes
//! of objects is compared with Kubernetes' library in `tests/tests/managed_fields`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header;
use serde_json::{Value, json};

use super::harness::{Answer, Call, World};

const VERSION: &str = "steward.butlerlabs.dev/v1alpha1";
const REPLICAS: &str = "/spec/controlPlane/deployment/replicas";

/// A configuration of a tenant.
fn config(spec: Value) -> Value {
    json!({
        "apiVersion": VERSION, "kind": "TenantControlPlane",
        "metadata": {"name": "a", "namespace": "n"}, "spec": spec,
    })
}

fn replicas(count: i64) -> Value {
    json!({"controlPlane": {"deployment": {"replicas": count}}})
}

fn addresses(types: &[&str]) -> Value {
    json!({"kubernetes": {"kubelet": {"preferredAddressTypes": types}}})
}

fn applied(call: Call, manager: &str, config: Value) -> Call {
    call.header(header::CONTENT_TYPE, "application/apply-patch+yaml")
        .query(&format!("fieldManager={manager}"))
        .body(config)
}

async fn apply(world: &World, manager: &str, spec: Value) -> Answer {
    let call = applied(Call::tenants("a"), manager, config(spec));
    world.patch(call).await
}

/// `MANAGER OPERATION[/SUBRESOURCE]`.
fn managers(answer: &Answer) -> Vec<String> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("").to_owned();
    let list = answer.body["metadata"]["managedFields"].as_array();
    let list = list.into_iter().flatten();
    let name = |entry: &Value| {
        let (manager, operation) = (text(entry, "manager"), text(entry, "operation"));
        match text(entry, "subresource").as_str() {
            "" => format!("{manager} {operation}"),
            subresource => format!("{manager} {operation}/{subresource}"),
        }
    };
    list.map(name).collect()
}

fn fields<'a>(answer: &'a Answer, manager: &str) -> &'a Value {
    let list = answer.body["metadata"]["managedFields"].as_array().unwrap();
    let entry = list.iter().find(|entry| entry["manager"] == manager);
    &entry.unwrap_or_else(|| panic!("no {manager} in {list:#?}"))["fieldsV1"]
}

/// What a tenant must have, and no more.
fn least() -> Value {
    json!({"kubernetes": {"version": "1.36.3", "kubelet": {}},
        "controlPlane": {"deployment": {}, "service": {"serviceType": "ClusterIP"}}})
}

/// The same with other fields.
fn whole(mut spec: Value) -> Value {
    for (part, fields) in least().as_object().unwrap() {
        for (name, value) in fields.as_object().unwrap() {
            if spec[part].get(name).is_none() {
                spec[part][name] = value.clone();
            }
        }
    }
    config(spec)
}

/// A tenant of which its manager, `base`, owns what it must have.
async fn base(world: &World) -> Answer {
    let answer = world
        .patch(applied(Call::tenants("a"), "base", whole(json!({}))))
        .await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    assert_eq!(managers(&answer), ["base Apply"]);
    answer
}

fn created_by(agent: &str) -> Call {
    let object = whole(replicas(2));
    let call = Call::tenants("").header(header::USER_AGENT, agent);
    call.body(object)
}

/// R5.1, R5.9, R5.13, R5.20, R5.31, E1, E2.
#[tokio::test]
async fn who_applies_what_others_own_is_in_conflict() {
    for world in World::each().await {
        let created = world.create(created_by("curl/8.0 (x)")).await;
        assert_eq!(created.code, 201, "{}", created.body);
        assert_eq!(managers(&created), ["curl Update"]);
        let entry = &created.body["metadata"]["managedFields"][0];
        assert_eq!(entry["apiVersion"], VERSION);
        assert_eq!(entry["fieldsType"], "FieldsV1");
        assert_eq!(entry["time"], "2027-01-15T08:00:00Z");
        let deployment = &entry["fieldsV1"]["f:spec"]["f:controlPlane"]["f:deployment"];
        assert_eq!(deployment["."], json!({}));
        assert_eq!(deployment["f:replicas"], json!({}));
        assert!(entry["fieldsV1"].get("f:metadata").is_none(), "{entry}");

        let refused = apply(&world, "flux", replicas(3)).await;
        assert_eq!(refused.code, 409);
        let path = ".spec.controlPlane.deployment.replicas";
        assert_eq!(
            refused.message(),
            format!("Apply failed with 1 conflict: conflict with \"curl\" using {VERSION}: {path}")
        );
        assert_eq!(refused.body["reason"], "Conflict");
        assert_eq!(
            refused.body["details"],
            json!({"causes": [{"reason": "FieldManagerConflict", "field": path,
                "message": format!("conflict with \"curl\" using {VERSION}")}]})
        );
        let call = applied(Call::tenants("a"), "flux", config(replicas(3)));
        let forced = world.patch(call.query("force=true")).await;
        assert_eq!(forced.code, 200, "{}", forced.body);
        assert_eq!(forced.body.pointer(REPLICAS), Some(&json!(3)));
        assert_eq!(forced.body["metadata"]["generation"], 2);
        assert_eq!(
            fields(&forced, "flux"),
            &json!({"f:spec": {"f:controlPlane": {"f:deployment": {"f:replicas": {}}}}})
        );
        let curl = fields(&forced, "curl");
        let deployment = &curl["f:spec"]["f:controlPlane"]["f:deployment"];
        assert!(deployment.get("f:replicas").is_none(), "{deployment}");
        let read = world.get(Call::tenants("a")).await;
        assert_eq!(read.body, forced.body);
    }
}

/// R5.12, R5.15, R5.18, R5.19, E3, E4, E8.
#[tokio::test]
async fn what_is_applied_no_more_goes_unless_somebody_owns_it() {
    let world = World::memory().await;
    base(&world).await;
    let first = apply(&world, "flux", addresses(&["Hostname", "InternalIP"])).await;
    assert_eq!(first.code, 200, "{}", first.body);
    let types = "/spec/kubernetes/kubelet/preferredAddressTypes";
    let same = apply(&world, "helm", addresses(&["InternalIP"])).await;
    assert_eq!(same.code, 200, "{}", same.body);
    // Upstream gives who only joins in no time.
    assert_eq!(managers(&same), ["helm Apply", "base Apply", "flux Apply"]);
    let less = apply(&world, "flux", replicas(4)).await;
    assert_eq!(less.code, 200, "{}", less.body);
    // ExternalIP is a default: nobody's, and so nobody removes it.
    let left = json!(["ExternalIP", "InternalIP"]);
    assert_eq!(less.body.pointer(types), Some(&left));
    assert_eq!(less.body.pointer(REPLICAS), Some(&json!(4)));
    // The default comes back, and whoever applies nothing owns nothing.
    let nothing = apply(&world, "flux", json!({})).await;
    assert_eq!(nothing.code, 200, "{}", nothing.body);
    assert_eq!(nothing.body.pointer(REPLICAS), Some(&json!(2)));
    assert_eq!(nothing.body.pointer(types), Some(&left));
    assert_eq!(
        managers(&nothing),
        ["helm Apply", "base Apply", "flux Apply"]
    );
    assert_eq!(fields(&nothing, "flux"), &json!({"f:spec": {}}));
    let mut none = config(json!({}));
    none.as_object_mut().unwrap().remove("spec");
    let none = world.patch(applied(Call::tenants("a"), "flux", none)).await;
    assert_eq!(managers(&none), ["helm Apply", "base Apply"]);
}

/// R5.26, R3.52, R8.12: time alone is no change.
#[tokio::test]
async fn what_changes_nothing_is_not_written() {
    for world in World::each().await {
        base(&world).await;
        let created = apply(&world, "flux", replicas(2)).await;
        let created = match created.code {
            200 => apply(&world, "flux", replicas(3)).await,
            _ => created,
        };
        assert_eq!(created.code, 200, "{}", created.body);
        world.seconds.fetch_add(60, Ordering::SeqCst);
        let again = apply(&world, "flux", replicas(3)).await;
        assert_eq!((again.code, &again.body), (200, &created.body));
        let put = world
            .update(Call::tenants("a").body(created.body.clone()))
            .await;
        assert_eq!((put.code, &put.body), (200, &created.body));
        let status = json!({"status": {"controlPlaneEndpoint": "1.2.3.4:6443"}});
        let call = || Call::tenants("a").part("status").body(status.clone());
        let status = world.patch(call()).await;
        assert!(status.version() > created.version());
        world.seconds.fetch_add(60, Ordering::SeqCst);
        assert_eq!(world.patch(call()).await.body, status.body);
        // Who is new owns it as well.
        let other = apply(&world, "helm", replicas(3)).await;
        assert!(other.version() > status.version());
        assert!(managers(&other).contains(&"helm Apply".to_owned()));
        world.seconds.fetch_add(60, Ordering::SeqCst);
        let again = apply(&world, "helm", replicas(3)).await;
        assert_eq!(again.body, other.body);
    }
}

/// R5.22, R5.27, R1.33, R3.59, R3.60, R3.72.
#[tokio::test]
async fn an_object_that_is_not_there_is_created() {
    let world = World::limited(|asked| !asked.starts_with("create"));
    let call = || applied(Call::tenants("a"), "flux", whole(replicas(1)));
    let refused = world.patch(call()).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert!(refused.message().contains("cannot create resource"));

    let world = World::memory().await;
    let dry = world.patch(call().query("dryRun=All")).await;
    assert_eq!(dry.code, 201, "{}", dry.body);
    assert_eq!(managers(&dry), ["flux Apply"]);
    assert_eq!(world.get(Call::tenants("a")).await.code, 404);
    for part in ["status", "scale"] {
        let answer = world.patch(call().part(part)).await;
        assert_eq!(answer.code, 404, "{}", answer.body);
    }
    let mut named = whole(replicas(1));
    named["metadata"]["uid"] = json!("u");
    let answer = world
        .patch(applied(Call::tenants("a"), "flux", named))
        .await;
    assert_eq!(answer.code, 409);
    assert!(answer.message().ends_with(
        "uid mismatch: the provided object specified uid u, and no existing object was found"
    ));
    let mut other = whole(replicas(1));
    other["metadata"]["name"] = json!("b");
    let answer = world
        .patch(applied(Call::tenants("a"), "flux", other))
        .await;
    assert_eq!(answer.code, 400, "{}", answer.body);
    let created = world.patch(call()).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert_eq!(created.body["metadata"]["generation"], 1);
    assert_eq!(world.get(Call::tenants("a")).await.body, created.body);
    let mut stale = whole(replicas(5));
    stale["metadata"]["resourceVersion"] = json!("1");
    let answer = world
        .patch(applied(Call::tenants("a"), "flux", stale))
        .await;
    assert_eq!(answer.code, 409, "{}", answer.body);
    let dry = applied(Call::tenants("a"), "flux", whole(replicas(6)));
    let dry = world.patch(dry.query("dryRun=All")).await;
    assert_eq!(dry.body.pointer(REPLICAS), Some(&json!(6)));
    assert_eq!(world.get(Call::tenants("a")).await.body, created.body);
}

/// R5.24, R3.73, E6: each endpoint has its own fields and its own entries.
#[tokio::test]
async fn status_is_owned_apart_from_the_rest() {
    let world = World::memory().await;
    world.create(created_by("curl/8")).await;
    let condition = json!({"type": "Ready", "status": "True", "reason": "R", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut both = config(replicas(9));
    both["metadata"]["labels"] = json!({"a": "b"});
    both["status"] = json!({"conditions": [condition]});
    let call = || Call::tenants("a").part("status");
    let written = world.patch(applied(call(), "ctrl", both.clone())).await;
    assert_eq!(written.code, 200, "{}", written.body);
    assert_eq!(managers(&written), ["ctrl Apply/status", "curl Update"]);
    let key = "k:{\"type\":\"Ready\"}";
    assert_eq!(
        fields(&written, "ctrl"),
        &json!({"f:status": {"f:conditions": {key: {".": {}, "f:type": {}, "f:status": {},
            "f:reason": {}, "f:message": {}, "f:lastTransitionTime": {}}}}})
    );
    assert_eq!(written.body.pointer(REPLICAS), Some(&json!(2)));
    assert!(written.body["metadata"].get("labels").is_none());
    assert_eq!(written.body["metadata"]["generation"], 1);
    let lies = json!({"status": {"conditions": [
        {"type": "Ready", "status": "False", "reason": "R", "message": "",
         "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let lies = world
        .patch(call().query("fieldManager=other").body(lies))
        .await;
    assert_eq!(lies.code, 200, "{}", lies.body);
    assert!(managers(&lies).contains(&"other Update/status".to_owned()));
    let refused = world.patch(applied(call(), "ctrl", both.clone())).await;
    assert_eq!(
        refused.message(),
        format!(
            "Apply failed with 1 conflict: conflict with \"other\" with subresource \"status\" using {VERSION}: .status.conditions[type=\"Ready\"].status"
        )
    );
    // At the object, its status is nobody's concern.
    both["metadata"].as_object_mut().unwrap().remove("labels");
    both["spec"] = json!({});
    let main = world.patch(applied(Call::tenants("a"), "main", both)).await;
    assert_eq!(main.code, 200, "{}", main.body);
    assert_eq!(main.body["status"], lies.body["status"]);
}

/// R5.25.
#[tokio::test]
async fn replicas_are_owned_through_the_scale_as_well() {
    let world = World::memory().await;
    base(&world).await;
    assert_eq!(apply(&world, "flux", replicas(2)).await.code, 200);
    world.seconds.fetch_add(5, Ordering::SeqCst);
    let call = Call::tenants("a").part("scale").query("fieldManager=hpa");
    let scaled = world
        .patch(call.body(json!({"spec": {"replicas": 5}})))
        .await;
    assert_eq!(scaled.code, 200, "{}", scaled.body);
    assert!(scaled.body["metadata"].get("managedFields").is_none());
    let read = world.get(Call::tenants("a")).await;
    assert_eq!(managers(&read), ["base Apply", "hpa Update/scale"]);
    let owned = json!({"f:spec": {"f:controlPlane": {"f:deployment": {"f:replicas": {}}}}});
    assert_eq!(fields(&read, "hpa"), &owned);
    let entry = &read.body["metadata"]["managedFields"][1];
    assert_eq!(entry["apiVersion"], VERSION);
    assert_eq!(entry["time"], "2027-01-15T08:00:05Z");
    let again = apply(&world, "flux", replicas(2)).await;
    assert_eq!(
        again.message(),
        format!(
            "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using {VERSION}: .spec.controlPlane.deployment.replicas"
        )
    );
    let scale = |count: i64| {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "a", "namespace": "n"}, "spec": {"replicas": count}})
    };
    let call = |count| applied(Call::tenants("a").part("scale"), "me", scale(count));
    let refused = world.patch(call(7)).await;
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
    );
    let forced = world.patch(call(7).query("force=true")).await;
    assert_eq!(forced.body["spec"]["replicas"], 7, "{}", forced.body);
    let read = world.get(Call::tenants("a")).await;
    assert_eq!(managers(&read), ["base Apply", "me Apply/scale"]);
    assert_eq!(fields(&read, "me"), &owned);
    let again = world.patch(call(7)).await;
    assert_eq!(again.version(), read.version());
    // Who scales to what is there takes nothing from anybody.
    let call = Call::tenants("a").part("scale").query("fieldManager=hpa");
    world
        .patch(call.body(json!({"spec": {"replicas": 7}})))
        .await;
    assert_eq!(world.get(Call::tenants("a")).await.body, read.body);
}

/// R5.8, R5.17 (1), E9: objects without managers, as those of before.
#[tokio::test]
async fn what_was_there_before_the_first_apply_has_an_owner() {
    let world = World::memory().await;
    world.create(created_by("curl/8")).await;
    for reset in [json!([{}]), json!([])] {
        let body = json!({"metadata": {"managedFields": reset}});
        let cleared = world.patch(Call::tenants("a").body(body)).await;
        assert_eq!(cleared.code, 200, "{}", cleared.body);
        assert!(managers(&cleared).is_empty());
    }
    // Nobody is recorded until somebody applies.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let labelled = world.patch(Call::tenants("a").body(label)).await;
    assert!(managers(&labelled).is_empty());
    let refused = apply(&world, "flux", replicas(3)).await;
    assert_eq!(
        refused.message(),
        format!(
            "Apply failed with 1 conflict: conflict with \"before-first-apply\" using {VERSION}: .spec.controlPlane.deployment.replicas"
        )
    );
    let same = apply(&world, "flux", replicas(2)).await;
    assert_eq!(managers(&same), ["flux Apply", "before-first-apply Update"]);
    assert_eq!(
        fields(&same, "before-first-apply")["f:metadata"],
        json!({"f:labels": {".": {}, "f:a": {}}})
    );
    // What clients say about managers counts, and nonsense does not (R5.8).
    let nonsense = json!({"metadata": {"managedFields": [{"manager": "x"}]}});
    let answer = world.patch(Call::tenants("a").body(nonsense)).await;
    assert_eq!(answer.body, same.body);
    let mut body = same.body.clone();
    let list = body["metadata"]["managedFields"].as_array_mut().unwrap();
    list.remove(1);
    let put = world.update(Call::tenants("a").body(body)).await;
    assert_eq!(managers(&put), ["flux Apply"]);
}

/// R3.5, R5.16, R5.23.
#[tokio::test]
async fn what_cannot_be_applied_is_told() {
    let world = World::memory().await;
    world.create(created_by("curl/8")).await;
    let plain = || Call::tenants("a").header(header::CONTENT_TYPE, "application/apply-patch+yaml");
    let unnamed = world.patch(plain().body(config(json!({})))).await;
    assert_eq!(
        (unnamed.code, unnamed.message()),
        (
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        )
    );
    let named = || plain().query("fieldManager=x");
    let typed =
        format!("failed to create typed patch object (n/a; {VERSION}, Kind=TenantControlPlane): ");
    let mut managed = config(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    let mut kind = config(json!({}));
    kind["kind"] = json!("Pod");
    for (body, code, message) in [
        (config(json!({"x": 1})), 500, format!("{typed}.spec.x: field not declared in schema")),
        (
            config(json!({"controlPlane": {"deployment": {"replicas": "1"}}})),
            500,
            format!("{typed}.spec.controlPlane.deployment.replicas: expected numeric (int or float), got string"),
        ),
        (
            config(addresses(&["Hostname", "Hostname"])),
            500,
            format!("{typed}.spec.kubernetes.kubelet.preferredAddressTypes: duplicate entries for key [=\"Hostname\"]"),
        ),
        (managed, 400, "metadata.managedFields must be nil".to_owned()),
        (kind, 400, format!("invalid object type: {VERSION}, Kind=Pod")),
        (json!({}), 400, "invalid object type: /, Kind=".to_owned()),
        (
            json!([]),
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}".to_owned(),
        ),
        (
            config(json!({"controlPlane": {"deployment": {"replicas": -1}}})),
            409,
            format!("Apply failed with 1 conflict: conflict with \"curl\" using {VERSION}: .spec.controlPlane.deployment.replicas"),
        ),
    ] {
        let answer = world.patch(named().body(body)).await;
        assert_eq!((answer.code, answer.message()), (code, message.as_str()));
        let reason = answer.body.get("reason").is_some();
        assert_eq!(reason, code != 500, "{}", answer.body);
    }
    let twice = format!(
        "apiVersion: {VERSION}\nkind: TenantControlPlane\nmetadata:\n  name: a\nspec:\n  dataStore: x\n  dataStore: default\n"
    );
    let text = "error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"dataStore\" already set in map";
    let strict = named()
        .query("fieldValidation=Strict&force=true")
        .text(&twice);
    let strict = world.patch(strict).await;
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.message(),
        format!("error strict decoding YAML: {text}")
    );
    let warned = world.patch(named().query("force=true").text(&twice)).await;
    assert_eq!(warned.code, 200, "{}", warned.body);
    assert!(
        warned
            .warnings
            .contains(&"line 7: key \"dataStore\" already set in map".to_owned()),
        "{:?}",
        warned.warnings
    );
    let force = Call::tenants("a").query("force=true").body(json!({}));
    assert_eq!(world.patch(force).await.code, 422);
}

/// Rule 6: a spelling of the original's users is taken in what is applied as well; and
/// aliases that multiply a body are not read.
#[tokio::test]
async fn configurations_are_read_as_any_other_body() {
    let world = World::memory().await;
    let mut spec = whole(json!({}));
    spec["spec"]["kubernetes"]["admissionControllers"] = json!("NodeRestriction, PodSecurity");
    let created = world.patch(applied(Call::tenants("a"), "flux", spec)).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert_eq!(
        created.body["spec"]["kubernetes"]["admissionControllers"],
        json!(["NodeRestriction", "PodSecurity"])
    );
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (before, name) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        let many = vec![format!("*{before}"); 10].join(", ");
        bomb += &format!("{name}: &{name} [{many}]\n");
    }
    let call = applied(Call::tenants("a"), "flux", json!({})).text(&bomb);
    let began = Instant::now();
    let refused = world.patch(call).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    assert!(began.elapsed() < Duration::from_secs(2));
    let mut deep = json!({});
    (0..70).for_each(|_| deep = json!({"a": deep}));
    let refused = world.patch(applied(Call::tenants("a"), "flux", deep)).await;
    assert_eq!(
        refused.message(),
        "the object is nested deeper than 64 levels"
    );
    // R3.80, R4.9.
    let long = json!({"metadata": {"managedFields": [{"manager": "m".repeat(129),
        "operation": "Apply", "apiVersion": VERSION, "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {}}}]}});
    let refused = world.patch(Call::tenants("a").body(long)).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.message().ends_with(
            "metadata.managedFields[0].manager: Too long: may not be more than 128 bytes"
        ),
        "{}",
        refused.message()
    );
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let partial = world
        .get(Call::tenants("a").header(header::ACCEPT, partial))
        .await;
    assert_eq!(partial.body["kind"], "PartialObjectMetadata");
    assert_eq!(managers(&partial), ["flux Apply"]);
}

/// R5.21: from client-side to server-side apply.
#[tokio::test]
async fn kubectl_moves_from_client_side_apply() {
    let world = World::memory().await;
    let last = "kubectl.kubernetes.io/last-applied-configuration";
    let mut object = whole(replicas(2));
    object["metadata"]["annotations"] = json!({last: whole(replicas(2)).to_string()});
    let call = Call::tenants("").query("fieldManager=kubectl-client-side-apply");
    let created = world.create(call.body(object)).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert_eq!(apply(&world, "flux", replicas(3)).await.code, 409);
    let moved = apply(&world, "kubectl", replicas(3)).await;
    assert_eq!(moved.code, 200, "{}", moved.body);
    assert_eq!(moved.body.pointer(REPLICAS), Some(&json!(3)));
    let text = moved.body["metadata"]["annotations"][last]
        .as_str()
        .unwrap();
    assert!(text.ends_with("}\n"));
    assert_eq!(
        serde_json::from_str::<Value>(text).unwrap(),
        config(replicas(3))
    );
}

/// R3.88, R5.28: who only updates loses the managers, who applies is told.
#[tokio::test]
async fn managers_do_not_make_an_object_too_large() {
    let bounds = crate::quota::Bounds {
        object_bytes: 4_500,
        ..crate::quota::Bounds::default()
    };
    let world = World::memory().await.bounded(bounds);
    let mut object = whole(replicas(2));
    let small = world
        .create(Call::tenants("").query("dryRun=All").body(object.clone()))
        .await;
    let without = {
        let mut body = small.body.clone();
        body["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        body.to_string().len()
    };
    object["metadata"]["annotations"] = json!({"a": "x".repeat(4_400 - without)});
    let call = applied(Call::tenants("a"), "flux", object.clone());
    // What is applied is little: its manager is small.
    let applied_too = world.patch(call.query("dryRun=All")).await;
    assert_eq!(applied_too.code, 413, "{}", applied_too.body);
    let created = world.create(Call::tenants("").body(object)).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert!(managers(&created).is_empty());
    let read = world.get(Call::tenants("a")).await;
    assert_eq!(read.body, created.body);
}

/// R5.8: what the body of a write of the status says of managers is not looked at.
#[tokio::test]
async fn who_writes_the_status_takes_no_ownership() {
    let world = World::memory().await;
    let created = base(&world).await;
    let entry = json!([{"manager": "base", "operation": "Apply", "apiVersion": VERSION,
        "fieldsType": "FieldsV1", "fieldsV1": vec![vec![0; 30_000]; 3]}]);
    for list in [entry, json!([]), json!([{}])] {
        let body = json!({"metadata": {"managedFields": list}, "status": {}});
        let call = Call::tenants("a").part("status").body(body);
        let answer = world.patch(call).await;
        assert_eq!(answer.code, 200, "{}", answer.body["message"]);
        let read = world.get(Call::tenants("a")).await;
        assert_eq!(fields(&read, "base"), fields(&created, "base"));
    }
}

/// Bodies that are nothing but managers, as large as they may be.
#[tokio::test]
async fn hostile_managers_take_little_time() {
    let world = World::memory().await;
    let created = world.create(created_by("curl/8")).await;
    let entry = |n: usize, operation: &str, fields: Value| {
        json!({"manager": format!("m{n}"), "operation": operation, "apiVersion": VERSION,
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    let field = |n: usize| json!({"f:spec": {format!("f:{n}"): {}}});
    let deep = (0..58).fold(json!({}), |inner, _| json!({"f:a": inner}));
    let long = format!("v:[{}1]", "1,".repeat(200_000));
    let bomb = format!(
        "k:{{\"a\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let wide: serde_json::Map<String, Value> = (0..60_000)
        .rev()
        .map(|n| (format!("f:{n}"), json!({})))
        .collect();
    let bodies = [
        (0..5_000)
            .map(|n| entry(n, "Update", field(n)))
            .collect::<Vec<_>>(),
        (0..5_000).map(|n| entry(n, "Apply", field(n))).collect(),
        vec![entry(0, "Update", deep)],
        vec![entry(0, "Update", json!({long: {}}))],
        vec![entry(0, "Apply", json!({bomb: {}}))],
        vec![entry(0, "Apply", json!({"f:spec": wide}))],
        vec![entry(0, "Apply", json!({"f:spec": ["x"]}))],
    ];
    for list in bodies {
        let mut body = created.body.clone();
        body["metadata"]["managedFields"] = Value::from(list);
        body["metadata"]["labels"] = json!({"a": "b"});
        body["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        let version = world.get(Call::tenants("a")).await.version();
        body["metadata"]["resourceVersion"] = json!(version.to_string());
        let began = Instant::now();
        let put = world.update(Call::tenants("a").body(body.clone())).await;
        assert!([200, 413].contains(&put.code), "{}", put.body);
        // Whoever comes next does not pay for it.
        let next = apply(&world, "flux", replicas(2)).await;
        assert!([200, 413].contains(&next.code), "{}", next.body);
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "{:?}",
            began.elapsed()
        );
        let list = json!({"metadata": {"managedFields": [], "labels": null}});
        assert_eq!(world.patch(Call::tenants("a").body(list)).await.code, 200);
    }
}
