//! A change of the DataStore reaches many tenants at once: it is tried before any pod is
//! given it, and what works is given to a few at a time (rules 28 and 29).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use etcd_client::GetOptions;
use serde_json::{Value, json};
use tests::installed::{SYSTEM, TENANTS, condition, data_store_path, object_path, of_etcd};

use crate::life::seconds;
use crate::stage::{COMING, LOST, Stage};
use crate::story::{Story, is};
use crate::{etcd_setup, isolation, ready};

/// As many as make it seen that they take turns, with the limit of the chart.
const TENANTS_OF_ONE_STORE: [&str; 3] = [ready::NAME, isolation::OTHER, "third"];
/// Half of the chart's `controller.rollsTogether`.
const OF_ONE_STORE: usize = 2;
/// Long enough for whatever would follow a slip.
const WATCHED: Duration = Duration::from_secs(8);

pub async fn run(stage: &Stage) {
    let mut stories = Vec::new();
    for name in TENANTS_OF_ONE_STORE {
        stories.push(stage.tenant(name, 1).await);
    }
    // All of them are settled: nothing of before is still being rolled.
    settled(stage, &BTreeSet::new()).await;
    slip(stage, &stories).await;
    elsewhere(stage, &stories).await;
    change(stage, &stories).await;
    drop(stories);
    stage.remove("third").await;
}

/// A wrong port: nothing reaches a pod, and it is said. Put right, nothing rolls.
async fn slip(stage: &Stage, stories: &[Story]) {
    let right = endpoints(stage).await;
    let wrong: Vec<String> = right
        .iter()
        .map(|at| at.replace(":2379", ":2380"))
        .collect();
    assert_ne!(right, wrong);
    let before = given(stage).await;
    let began = Instant::now();
    set(stage, &wrong).await;
    let reason = "DataStoreChangeNotVerified";
    let mut slowest = Duration::ZERO;
    for story in stories {
        let took = story
            .says(began, LOST, "DataStoreReady", "False", reason)
            .await;
        slowest = slowest.max(took);
    }
    stage.note("told: a DataStore with a wrong port", seconds(slowest));
    let told = condition(&stories[0].last().unwrap(), "DataStoreReady").unwrap();
    for words in [
        "DataStore default",
        "spec.endpoints",
        "keep the previous ones",
    ] {
        assert!(told[2].contains(words), "{told:?}");
    }
    let told = async || {
        let store = stage.it.get(&data_store_path("default")).await.unwrap();
        let kept = condition(&store, "Ready")?[2].contains("Pods of tenants keep");
        (kept && is(&store, "Ready", "False", "")).then_some(())
    };
    stage.it.until("the DataStore says so", LOST, told).await;
    tokio::time::sleep(WATCHED).await;
    assert_eq!(given(stage).await, before, "a slip reached the pods");

    let mended = Instant::now();
    set(stage, &right).await;
    for story in stories {
        story
            .says(mended, LOST, "DataStoreReady", "True", "AsExpected")
            .await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(given(stage).await, before, "what was put right rolled pods");
    for story in stories {
        story.stayed_ready(began);
    }
}

/// Another etcd that works and is empty: no pod is given it, and nothing is made in it.
async fn elsewhere(stage: &Stage, stories: &[Story]) {
    let right = endpoints(stage).await;
    let host = empty_etcd(stage).await;
    let before = given(stage).await;
    let began = Instant::now();
    set(stage, &[format!("{host}:2379")]).await;
    let mut slowest = Duration::ZERO;
    for story in stories {
        let told = |object: &Value| {
            let [status, _, message] = condition(object, "DataStoreReady").unwrap_or_default();
            status == "False" && message.contains("knows n")
        };
        let took = story.until(began, LOST, "the wrong database is told", told);
        slowest = slowest.max(took.await);
    }
    stage.note("told: a DataStore that is another etcd", seconds(slowest));
    tokio::time::sleep(WATCHED).await;
    assert_eq!(given(stage).await, before, "pods are given another etcd");
    let secret = object_path(SYSTEM, "secrets", "steward-etcd-certs");
    let secret = stage.it.get(&secret).await.unwrap();
    let (address, _forward) = stage.it.way_to(EMPTY, 2379).await;
    let keys = ["ca.crt", "tls.crt", "tls.key"];
    let mut etcd = stage.it.etcd_at(&address, &host, &secret, keys).await;
    let all = GetOptions::new().with_all_keys().with_count_only();
    let all = of_etcd(async || etcd.get("", Some(all.clone())).await).await;
    assert_eq!(all.unwrap().count(), 0);

    let mended = Instant::now();
    set(stage, &right).await;
    for story in stories {
        story
            .says(mended, LOST, "DataStoreReady", "True", "AsExpected")
            .await;
        story.stayed_ready(began);
    }
    assert_eq!(given(stage).await, before, "what was put right rolled pods");
    remove_empty_etcd(stage);
}

/// Name of the Pod and the Service of another etcd.
const EMPTY: &str = "empty-etcd";

/// An etcd like the chart's, with its certificates, its root user and no data; its name.
async fn empty_etcd(stage: &Stage) -> String {
    let host = format!("{EMPTY}.{SYSTEM}.svc.cluster.local");
    let name = format!("--endpoints={host}:2379");
    etcd_setup::run(stage, "name-of-another", |arguments| {
        arguments.push(name.clone());
    })
    .await;
    let path = object_path(SYSTEM, "statefulsets", "steward-etcd");
    let mut set = stage.it.get(&path).await.unwrap();
    let mut spec = set["spec"]["template"]["spec"].take();
    let volumes = spec["volumes"].as_array_mut().unwrap();
    volumes.push(json!({"name": "data", "emptyDir": {}}));
    let labels = json!({"steward-e2e": EMPTY});
    for object in [
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": EMPTY, "namespace": SYSTEM, "labels": labels},
            "spec": spec,
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": EMPTY, "namespace": SYSTEM},
            "spec": {"selector": labels, "ports": [{"port": 2379}]},
        }),
    ] {
        stage.it.apply(&object.to_string());
    }
    let ready = ["-n", SYSTEM, "wait", "pod", EMPTY, "--for=condition=Ready"];
    stage.it.kubectl(&[&ready[..], &["--timeout=60s"]].concat());
    etcd_setup::run(stage, "set-up-of-another", |arguments| {
        arguments.retain(|it| {
            let other = ["--endpoints=", "--data-store=", "--renew-only"];
            !other.iter().any(|start| it.starts_with(start))
        });
        arguments.extend([name.clone(), "--data-store=".to_owned()]);
    })
    .await;
    host
}

fn remove_empty_etcd(stage: &Stage) {
    let what = format!("pod/{EMPTY},service/{EMPTY}");
    let what = what.split(',').collect::<Vec<_>>();
    let delete = ["-n", SYSTEM, "delete", "--ignore-not-found", "--now"];
    stage.it.try_kubectl(&[&delete[..], &what[..]].concat());
}

/// The same etcd by another name: all pods get it, a few tenants at a time.
async fn change(stage: &Stage, stories: &[Story]) {
    let before = endpoints(stage).await;
    let long = ".svc.cluster.local:";
    let other: Vec<String> = before
        .iter()
        .map(|at| match at.contains(long) {
            true => at.replace(long, ".svc:"),
            false => at.replace(".svc:", long),
        })
        .collect();
    assert_ne!(before, other);
    let began = Instant::now();
    set(stage, &other).await;
    let wanted = other.iter().map(|at| format!("https://{at}"));
    let wanted: BTreeSet<String> = wanted.collect();
    settled(stage, &wanted).await;
    let took = began.elapsed();
    stage.note("another endpoint for 3 tenants, in turn", seconds(took));
    let mut waited = 0;
    for story in stories {
        story
            .until(began, COMING, "it is carried out", |object| {
                is(object, "Progressing", "False", "AsExpected")
            })
            .await;
        story.stayed_ready(began);
        let all = story.since(began);
        waited += usize::from(
            all.iter()
                .any(|moment| is(&moment.object, "Progressing", "True", "RollWaiting")),
        );
    }
    assert!(waited > 0, "no tenant waited for its turn");
    let store = stage.it.get(&data_store_path("default")).await.unwrap();
    assert!(is(&store, "Ready", "True", ""), "{store}");
}

/// Waits until all Deployments are rolled out and (unless `servers` is empty) have these
/// servers; never are more being rolled than may be.
async fn settled(stage: &Stage, servers: &BTreeSet<String>) {
    let began = Instant::now();
    loop {
        let all = deployments(stage).await;
        let rolling: Vec<&str> = all.iter().filter(|it| rolls(it)).map(name).collect();
        if !servers.is_empty() {
            assert!(rolling.len() <= OF_ONE_STORE, "all at once: {rolling:?}");
        }
        let have = |it: &Value| servers.is_empty() || servers_of(it) == *servers;
        if rolling.is_empty() && all.iter().all(have) {
            return;
        }
        assert!(began.elapsed() < COMING * 2, "still rolling: {rolling:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn deployments(stage: &Stage) -> Vec<Value> {
    let path = object_path(TENANTS, "deployments", "");
    let list = stage.it.get(&path).await.unwrap();
    let all = list["items"].as_array().cloned().unwrap_or_default();
    let ours = |it: &Value| TENANTS_OF_ONE_STORE.contains(&name(it));
    all.into_iter().filter(ours).collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn rolls(deployment: &Value) -> bool {
    let status = &deployment["status"];
    let wanted = &deployment["spec"]["replicas"];
    let as_wanted = ["replicas", "updatedReplicas", "availableReplicas"];
    status["observedGeneration"] != deployment["metadata"]["generation"]
        || as_wanted.iter().any(|count| status[*count] != *wanted)
}

fn servers_of(deployment: &Value) -> BTreeSet<String> {
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    let containers = containers.as_array().into_iter().flatten();
    let arguments = containers.flat_map(|it| it["args"].as_array().into_iter().flatten());
    let mut arguments = arguments.filter_map(Value::as_str);
    let list = arguments.find_map(|it| it.strip_prefix("--etcd-servers="));
    let list = list.unwrap_or_default().split(',');
    list.map(str::to_owned).collect()
}

/// What the tenants' pods are given: the Deployments' own generations, and the objects
/// that carry the settings of the DataStore.
async fn given(stage: &Stage) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for tenant in TENANTS_OF_ONE_STORE {
        let deployment = stage.object("deployments", tenant).await.unwrap();
        all.insert(
            tenant.to_owned(),
            deployment["metadata"]["generation"].clone(),
        );
        for (kind, name) in [
            ("secrets", format!("{tenant}-datastore-certificate")),
            ("secrets", format!("{tenant}-datastore-config")),
            ("configmaps", format!("{tenant}-kubeadmconfig")),
        ] {
            let object = stage.object(kind, &name).await.unwrap();
            all.insert(name, object["data"].clone());
        }
    }
    all
}

/// Takes a slip back that a part which failed has left.
pub async fn calm(stage: &Stage) {
    let Ok(store) = stage.it.get(&data_store_path("default")).await else {
        return;
    };
    let spec = store["spec"]["endpoints"].to_string();
    remove_empty_etcd(stage);
    let right = spec
        .replace(":2380", ":2379")
        .replace(&format!("{EMPTY}."), "steward-etcd-client.");
    if right != spec {
        let right: Value = serde_json::from_str(&right).unwrap();
        let patch = json!({"spec": {"endpoints": right}});
        let _ = stage.it.patch(&data_store_path("default"), &patch).await;
    }
}

async fn endpoints(stage: &Stage) -> Vec<String> {
    let store = stage.it.get(&data_store_path("default")).await.unwrap();
    serde_json::from_value(store["spec"]["endpoints"].clone()).unwrap()
}

async fn set(stage: &Stage, endpoints: &[String]) {
    let patch = json!({"spec": {"endpoints": endpoints}});
    let path = data_store_path("default");
    stage.it.patch(&path, &patch).await.unwrap();
}
