//! A controller that somebody writes for our kind with controller-runtime.

use serde_json::{Value, json};
use tests::lab::programs::CONTROLLER_RUNTIME;
use tests::served::Served;

use crate::cluster::{data_store, edit, get, managers, namespace, tenant, until};
use crate::tool::Tool;

const NAMESPACE: &str = "controller";

/// What it has noted in its ConfigMap; null if it has none.
fn note(served: &Served, name: &str) -> Value {
    let arguments = ["-n", NAMESPACE, "get", "configmap", name, "-o=json"];
    let said = served.try_kubectl(&arguments);
    serde_json::from_str(&said.stdout).unwrap_or_default()
}

fn until_noted(served: &Served, name: &str, generation: &str, colour: &str) {
    let wanted = json!({"generation": generation, "dataStore": colour});
    until(&format!("{name} is noted"), || {
        let data = note(served, name)["data"].clone();
        (data == wanted).then_some(()).ok_or(data.to_string())
    });
}

/// R8.35.
pub fn a_controller_works_on_our_kind(served: &Served) {
    namespace(served, NAMESPACE);
    let mut first = Tool::go(&CONTROLLER_RUNTIME, served);
    assert_eq!(first.hear(), json!({"event": "leads"}));
    // In the background: it does not lead.
    let mut second = Tool::go(&CONTROLLER_RUNTIME, served);
    let store = data_store(NAMESPACE);
    let all = ["one", "two"]
        .map(|name| tenant(NAMESPACE, name, 1, ""))
        .concat();
    served.lab.apply(&format!("{store}{all}")).unwrap();
    for name in ["one", "two"] {
        until_noted(served, name, "1", "");
        is_complete(served, name, 1);
    }
    // An informer of metadata hears of a DataStore; an index finds its tenants.
    served.kubectl(&["label", "datastore", NAMESPACE, "colour=blue"]);
    until_noted(served, "one", "1", "blue");
    until_noted(served, "two", "1", "blue");
    // A change of the spec, and of what it owns.
    edit(
        served,
        NAMESPACE,
        "one",
        r#"{"spec":{"controlPlane":{"deployment":{"replicas":3}}}}"#,
    );
    until_noted(served, "one", "2", "blue");
    is_complete(served, "one", 2);
    served.kubectl(&["-n", NAMESPACE, "delete", "configmap", "two"]);
    until_noted(served, "two", "1", "blue");

    // When all is as it should be, nobody writes.
    let before = get(served, NAMESPACE, "two");
    assert_eq!(
        before["metadata"]["generation"], 1,
        "its writes changed no spec"
    );
    // Another leads, which removes the finalizer.
    first.end();
    assert_eq!(second.hear(), json!({"event": "leads"}));
    served.kubectl(&["-n", NAMESPACE, "delete", "tcp", "one", "--timeout=30s"]);
    assert_eq!(get(served, NAMESPACE, "one"), Value::Null);
    assert_eq!(
        get(served, NAMESPACE, "two"),
        before,
        "nothing was to be done"
    );
    served.kubectl(&["-n", NAMESPACE, "delete", "tcp", "two", "--timeout=30s"]);
    second.end();
}

/// Finalizer, applied label, both writes of status, and who wrote what.
fn is_complete(served: &Served, name: &str, generation: i64) {
    until(&format!("{name} is complete"), || {
        let object = get(served, NAMESPACE, name);
        let (meta, status) = (&object["metadata"], &object["status"]);
        let wanted = meta["finalizers"] == json!(["example.com/controller"])
            && meta["labels"] == json!({"example.com/labelled": "true"})
            && status["observedGeneration"] == generation
            && status["conditions"][0]["type"] == "Noted"
            && status["conditions"][0]["observedGeneration"] == generation;
        let managers = managers(&object);
        let wrote = [
            "controllerruntime/Apply/",
            "controllerruntime/Update/",
            "controllerruntime/Update/status",
        ];
        let wanted = wanted && wrote.iter().all(|one| managers.iter().any(|it| it == one));
        wanted.then_some(()).ok_or(object.to_string())
    });
    let owner = note(served, name)["metadata"]["ownerReferences"][0].clone();
    let tenant = get(served, NAMESPACE, name);
    assert_eq!(owner["uid"], tenant["metadata"]["uid"]);
    assert_eq!(owner["kind"], "TenantControlPlane");
}
