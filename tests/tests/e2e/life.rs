//! A tenant from its creation to its deletion, and nothing of it afterwards.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::installed::{TENANTS, condition, data_store_path, tenant, tenant_path};

use crate::dump::Dump;
use crate::stage::{BACK, COMING, GONE, Stage};
use crate::story::is;

const NAME: &str = "life";

pub async fn run(stage: &Stage) {
    // What is left there is looked at in the lab only.
    let _ = stage.lab("life::node", "the node's processes, mounts and links");
    let before = Dump::at_rest(stage).await;
    let story = stage.story(NAME);
    let began = Instant::now();
    stage.create(&tenant(NAME, 1)).await;
    let took = story.ready(began, COMING).await;
    stage.note("create until Ready", seconds(took));

    // Who may only look has that right from the first moment on, too.
    let request = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "kind": "KubeconfigRequest",
        "spec": {"role": "view"},
    });
    let path = format!("{}/kubeconfig", tenant_path(NAME));
    let answer = stage.it.post(&path, &request).await.unwrap();
    let view = stage.it.files().join("view.kubeconfig");
    std::fs::write(&view, answer["status"]["kubeconfig"].as_str().unwrap()).unwrap();
    let viewer = |arguments: &[&str]| stage.it.kubectl_with(&view, arguments);
    let said = viewer(&["get", "namespaces,configmaps", "-A"]);
    assert_eq!(said.code, 0, "{}", said.text());
    let said = viewer(&["create", "namespace", "not-allowed"]);
    assert!(said.text().contains("forbidden"), "{}", said.text());

    // A user, from the machine outside.
    let kubeconfig = stage.it.kubeconfig(NAME);
    let user = |arguments: &[&str]| stage.it.kubectl_with(&kubeconfig, arguments);
    let said = user(&["create", "configmap", "kept", "--from-literal=from=before"]);
    assert_eq!(said.code, 0, "{}", said.text());
    let kept = || user(&["get", "configmap", "kept", "-o", "jsonpath={.data.from}"]);
    assert_eq!(kept().stdout, "before");
    let said = user(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}"]);
    assert!(said.stdout.contains("steward:admin"), "{}", said.text());
    assert!(!said.stdout.contains("system:masters"), "{}", said.text());
    // What plain kubectl asks for through another path than the subresource.
    let secret = stage
        .object("secrets", "life-admin-kubeconfig")
        .await
        .unwrap();
    assert!(secret["data"]["admin.conf"].is_string(), "no admin.conf");

    // Two replicas: Ready all the time.
    let began = Instant::now();
    scale(stage, 2);
    let two = |object: &serde_json::Value| {
        is(object, "ReplicasAvailable", "True", "")
            && condition(object, "ReplicasAvailable")
                .is_some_and(|[.., said]| said.contains("2 of 2"))
    };
    let took = story.until(began, COMING, "two replicas", two).await;
    stage.note("one replica more until both serve", seconds(took));
    story.stayed_ready(began);
    assert_eq!(stage.pods_of(NAME).await.len(), 2);

    // Asleep: no pods; names, data and address stay.
    let address = endpoint(stage).await;
    let began = Instant::now();
    scale(stage, 0);
    story.says(began, BACK, "Ready", "False", "Sleeping").await;
    let label = format!("steward.butlerlabs.dev/name={NAME}");
    let pods = || async { stage.pods(TENANTS, &label).await.is_empty().then_some(()) };
    let (_, took) = stage.it.until("no pods are left", GONE, pods).await;
    stage.note("asleep until the last pod is gone", seconds(took));
    let phase = stage
        .it
        .kubectl(&["-n", TENANTS, "get", "tcp", NAME, "--no-headers"]);
    assert!(phase.contains("Sleeping"), "{phase}");
    let asked = || user(&["get", "namespaces", "--request-timeout=1s"]);
    assert_ne!(asked().code, 0, "nobody should answer");

    // And back, with the data and the credentials of before.
    let began = Instant::now();
    scale(stage, 1);
    let took = story.ready(began, COMING).await;
    stage.note("awake from sleep", seconds(took));
    assert_eq!(endpoint(stage).await, address);
    let answered = || async { (kept().stdout == "before").then_some(()) };
    stage
        .it
        .until("the data is still there", BACK, answered)
        .await;

    // A change of the spec rolls the pods; who serves, serves on.
    let pod = stage.pods_of(NAME).await.remove(0);
    let began = Instant::now();
    let patch = json!({"spec": {
        "networkProfile": {"certSANs": ["life.example.com"]},
        "controlPlane": {"deployment": {"extraArgs": {"apiServer": ["--event-ttl=30m"]}}},
    }});
    stage.it.patch(&tenant_path(NAME), &patch).await.unwrap();
    let rolled = || async {
        let pods = stage.pods_of(NAME).await;
        let other = pods.len() == 1 && pods[0]["metadata"]["uid"] != pod["metadata"]["uid"];
        (other && ready(&pods[0])).then(|| pods[0].clone())
    };
    let (pod, took) = stage
        .it
        .until("another pod with the new spec", COMING, rolled)
        .await;
    stage.note(
        "a change of the spec until the new pod serves",
        seconds(took),
    );
    assert!(
        pod["spec"].to_string().contains("--event-ttl=30m"),
        "the argument is missing"
    );
    let name = [
        "--tls-server-name=life.example.com",
        "get",
        "--raw",
        "/readyz",
    ];
    let named = || async { (user(&name).stdout == "ok").then_some(()) };
    stage
        .it
        .until("the certificate has the new name", BACK, named)
        .await;
    story
        .until(began, BACK, "Ready, as of the new generation", |object| {
            let conditions = object["status"]["conditions"].as_array().unwrap();
            let mut ready = conditions.iter().filter(|it| it["type"] == "Ready");
            is(object, "Ready", "True", "Ready")
                && is(object, "Progressing", "False", "")
                && ready.all(|it| it["observedGeneration"] == object["metadata"]["generation"])
        })
        .await;
    story.stayed_ready(began);

    // Deleted, and created again at once, asleep: nothing of the first is in the
    // way, and no version counts as installed before it ran.
    stage.remove(NAME).await;
    stage.create(&tenant(NAME, 0)).await;
    let asleep = |object: &serde_json::Value| is(object, "Ready", "False", "Sleeping");
    story
        .until(Instant::now(), BACK, "born asleep", asleep)
        .await;
    let newborn = stage.it.get(&tenant_path(NAME)).await.unwrap();
    let version = &newborn["status"]["kubernetesResources"]["version"]["version"];
    assert!(version.is_null(), "it never ran: {version}");

    // Awake for the first time.
    let began = Instant::now();
    scale(stage, 1);
    let uid = stage.it.get(&tenant_path(NAME)).await.unwrap()["metadata"]["uid"].clone();
    let again = |object: &serde_json::Value| {
        object["metadata"]["uid"] == uid && is(object, "Ready", "True", "Ready")
    };
    let took = story.until(began, COMING, "Ready again", again).await;
    stage.note("created again asleep, awake until Ready", seconds(took));
    let in_the_way = |event: &[String; 3]| event[1] == "NameTaken";
    let events = stage.events(NAME).await;
    assert!(!events.iter().any(in_the_way), "its name was taken");

    // Deleted: nothing is left anywhere.
    let took = stage.remove(NAME).await;
    stage.note("delete until gone", seconds(took));
    let took = before.comes_back(stage, Duration::from_secs(90)).await;
    stage.note(
        "nothing left of it, compared",
        format!("{} ({})", before.size(), seconds(took)),
    );
    let store = stage.it.get(&data_store_path("default")).await.unwrap();
    let users = store["status"]["usedBy"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(users.is_empty(), "the DataStore still names it: {users:?}");
    assert_ne!(asked().code, 0, "nobody should answer");
}

fn scale(stage: &Stage, replicas: i32) {
    let replicas = format!("--replicas={replicas}");
    stage
        .it
        .kubectl(&["-n", TENANTS, "scale", "tcp", NAME, &replicas]);
}

async fn endpoint(stage: &Stage) -> String {
    let tenant = stage.it.get(&tenant_path(NAME)).await.unwrap();
    tenant["status"]["controlPlaneEndpoint"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn ready(pod: &serde_json::Value) -> bool {
    condition(pod, "Ready").is_some_and(|[status, ..]| status == "True")
}

pub fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
