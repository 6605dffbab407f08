//! Python's client library: its dynamic client, its calls for custom objects, its watches.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::served::{Served, contains};

use crate::cluster::{edit, get, namespace};
use crate::tool::Tool;

const NAMESPACE: &str = "python";
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/python/main.py");
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";

struct Python(Tool);

impl Python {
    fn start(served: &Served, interpreter: &Path) -> Self {
        let mut command = Command::new(interpreter);
        // What it finds in discovery it keeps there.
        command
            .arg(PROGRAM)
            .arg(served.lab.kubeconfig())
            .env("TMPDIR", served.files());
        Self(Tool::start(&mut command))
    }

    /// What a call returns.
    #[track_caller]
    fn gets(&mut self, request: &Value) -> Value {
        let answer = self.0.ask(request);
        assert!(answer.get("answer").is_some(), "{request}: {answer}");
        answer["answer"].clone()
    }

    /// A call that fails: the exception's class and code, and the Status that it carries.
    #[track_caller]
    fn fails(&mut self, request: &Value, class: &str, code: u16, reason: &str) -> Value {
        let answer = self.0.ask(request);
        assert_eq!(answer["exception"], class, "{request}: {answer}");
        let status = &answer["status"];
        assert_eq!(
            (&answer["code"], &status["code"]),
            (&json!(code), &json!(code))
        );
        assert_eq!(
            (&status["kind"], &status["reason"]),
            (&json!("Status"), &json!(reason))
        );
        status.clone()
    }
}

fn body(name: &str) -> Value {
    json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"kubernetes": {"version": "v1.36.3", "kubelet": {}},
            "controlPlane": {"service": {"serviceType": "ClusterIP"}}},
    })
}

/// A call of the dynamic client about our kind.
fn dynamic(verb: &str, more: Value) -> Value {
    let mut request = json!({
        "do": "dynamic", "verb": verb, "kind": "TenantControlPlane", "namespace": NAMESPACE,
    });
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

fn custom(method: &str, more: Value) -> Value {
    let mut request = json!({"do": "custom", "method": method, "namespace": NAMESPACE});
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

/// R8.38.
pub fn python_reads_and_writes(served: &Served, interpreter: &Path) {
    namespace(served, NAMESPACE);
    let mut python = Python::start(served, interpreter);
    the_dynamic_client(served, &mut python);
    custom_objects(&mut python);
    errors_are_statuses(&mut python);
    python.0.end();
}

/// R8.38.
fn the_dynamic_client(served: &Served, python: &mut Python) {
    let made = python.gets(&dynamic("create", json!({"body": body("one")})));
    assert_eq!(
        made["metadata"]["uid"],
        get(served, NAMESPACE, "one")["metadata"]["uid"]
    );
    python.gets(&dynamic("create", json!({"body": body("two")})));
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let patch = json!({"name": "one", "body": labels, "content_type": MERGE});
    python.gets(&dynamic("patch", patch));
    let got = python.gets(&dynamic("get", json!({"name": "one"})));
    assert_eq!(got["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(got["kind"], "TenantControlPlane");
    let list = python.gets(&dynamic("get", json!({"label_selector": "a=b"})));
    assert_eq!(list["kind"], "TenantControlPlaneList");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["metadata"]["name"], "one");
    let mut whole = got.clone();
    whole["spec"]["controlPlane"]["deployment"]["replicas"] = json!(0);
    let replaced = python.gets(&dynamic("replace", json!({"body": whole})));
    assert_eq!(
        replaced["spec"]["controlPlane"]["deployment"]["replicas"],
        0
    );
    let stale = json!({"body": got});
    python.fails(&dynamic("replace", stale), "ConflictError", 409, "Conflict");
    let applied = json!({"body": body("three"), "field_manager": "python"});
    let applied = python.gets(&dynamic("server_side_apply", applied));
    assert_eq!(applied["metadata"]["managedFields"][0]["manager"], "python");
    // A watch that the server ends is no error.
    let watched = json!({"do": "followDynamically", "namespace": NAMESPACE, "timeout": 1});
    let events = python.gets(&watched);
    let wanted = ["one", "three", "two"].map(|name| json!(["ADDED", "TenantControlPlane", name]));
    assert_eq!(events, json!(wanted));
    let deleted = python.gets(&dynamic("delete", json!({"name": "three"})));
    assert_eq!(deleted["status"], "Success");
    assert_eq!(deleted["details"]["name"], "three");
}

/// R8.38.
fn custom_objects(python: &mut Python) {
    let call =
        |method: &str, more: Value| custom(&format!("{method}_namespaced_custom_object"), more);
    let one = json!({"name": "one"});
    let got = python.gets(&call("get", one.clone()));
    assert_eq!(got["metadata"]["name"], "one");
    // It sends merge patches, of lists as well.
    let label = json!({"metadata": {"labels": {"a": "c"}}});
    let patched = python.gets(&call("patch", json!({"name": "one", "body": label})));
    assert_eq!(patched["metadata"]["labels"], json!({"a": "c"}));
    let operations = json!([{"op": "replace", "path": "/metadata/labels/a", "value": "d"}]);
    let mistaken = call("patch", json!({"name": "one", "body": operations}));
    python.fails(&mistaken, "ApiException", 400, "BadRequest");
    let patch = json!({"name": "one", "body": operations, "content_type": JSON_PATCH});
    let patched = python.gets(&dynamic("patch", patch));
    assert_eq!(patched["metadata"]["labels"], json!({"a": "d"}));
    let status = json!({"status": {"controlPlaneEndpoint": "10.0.0.1:6443"}});
    let arguments = json!({"name": "one", "body": status});
    let reported = python.gets(&custom("patch_namespaced_custom_object_status", arguments));
    assert_eq!(reported["status"], status["status"]);
    let page = python.gets(&call("list", json!({"limit": 1})));
    let token = page["metadata"]["continue"].clone();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let rest = python.gets(&call("list", json!({"limit": 1, "_continue": token})));
    assert_eq!(rest["items"][0]["metadata"]["name"], "two");
    let scale = python.gets(&custom("get_namespaced_custom_object_scale", one));
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        // It sleeps: 0 is not written, as in every Scale.
        (&json!("Scale"), &Value::Null)
    );
}

/// R8.38: bodies of errors are JSON, whoever refuses.
fn errors_are_statuses(python: &mut Python) {
    let none = dynamic("get", json!({"name": "none"}));
    let status = python.fails(&none, "NotFoundError", 404, "NotFound");
    contains(status["message"].as_str().unwrap(), "\"none\" not found");
    let again = dynamic("create", json!({"body": body("one")}));
    python.fails(&again, "ConflictError", 409, "AlreadyExists");
    let mut bad = body("bad");
    bad["spec"]["kubernetes"]["version"] = json!("x");
    let bad = dynamic("create", json!({"body": bad}));
    let status = python.fails(&bad, "UnprocessibleEntityError", 422, "Invalid");
    let causes = status["details"]["causes"].to_string();
    contains(&causes, "spec.kubernetes.version");
    // Its default is a strategic merge patch.
    let patch = json!({"name": "one", "body": {"metadata": {"labels": {"a": "d"}}}});
    let patch = dynamic("patch", patch);
    let status = python.fails(&patch, "DynamicApiError", 415, "UnsupportedMediaType");
    contains(status["message"].as_str().unwrap(), MERGE);
    let old = dynamic("get", json!({"_continue": "x"}));
    python.fails(&old, "BadRequestError", 400, "BadRequest");
}

/// R8.38: a watch goes on where it was when the server ended it, and is told 410 when it
/// cannot.
pub async fn python_goes_on_watching(served: &mut Served, interpreter: &Path) {
    let mut python = Python::start(served, interpreter);
    let list = python.gets(&custom("list_namespaced_custom_object", json!({})));
    let began = list["metadata"]["resourceVersion"].clone();
    let follow = json!({
        "do": "follow", "namespace": NAMESPACE, "count": 3, "ends": 1, "resource_version": began,
    });
    python.0.send(&follow);
    let mut wanted = Vec::new();
    for step in 0..3 {
        edit(
            served,
            NAMESPACE,
            "two",
            &format!(r#"{{"metadata":{{"labels":{{"step":"{step}"}}}}}}"#),
        );
        let version = get(served, NAMESPACE, "two")["metadata"]["resourceVersion"].clone();
        wanted.push(json!(["MODIFIED", "two", version]));
        assert_eq!(python.0.hear()["event"], wanted[step]);
        // Longer than a request of the watch lasts.
        std::thread::sleep(std::time::Duration::from_millis(1_500));
    }
    let followed = python.0.hear()["answer"].clone();
    assert_eq!(followed["events"], json!(wanted), "each once");
    let requests = followed["requests"].as_array().unwrap();
    assert!(requests.len() >= 3, "the server ended it: {requests:?}");
    assert_eq!(requests[0], began);
    assert!(
        requests.contains(&wanted[1][2]),
        "it went on from what it saw: {requests:?}"
    );

    // A server that was killed knows no older revision (rule 4).
    served.kill();
    served.start_process().await;
    served.wait_until_served().await;
    let follow = json!({
        "do": "follow", "namespace": NAMESPACE, "count": 1, "resource_version": began,
    });
    let gone = python.0.ask(&follow);
    assert_eq!(
        (&gone["exception"], &gone["code"]),
        (&json!("ApiException"), &json!(410))
    );
    contains(gone["reason"].as_str().unwrap(), "Expired: ");
    // As the library says: list, and watch from there.
    let list = python.gets(&custom("list_namespaced_custom_object", json!({})));
    let follow = json!({
        "do": "follow", "namespace": NAMESPACE, "count": 1,
        "resource_version": list["metadata"]["resourceVersion"],
    });
    python.0.send(&follow);
    edit(
        served,
        NAMESPACE,
        "two",
        r#"{"metadata":{"labels":{"step":"last"}}}"#,
    );
    assert_eq!(python.0.hear()["event"][1], "two");
    assert_eq!(
        python.0.hear()["answer"]["events"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    python.0.end();
}
