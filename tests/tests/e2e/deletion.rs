//! Rule 18: a deletion ends also when the database cannot be asked; what could
//! not be done is done when it can.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::join;
use serde_json::{Value, json};
use tests::installed::{ETCD_SECRET, SYSTEM, data_store_path, object_path, tenant, tenant_path};
use tests::served::GROUP_VERSION;

use crate::dump;
use crate::isolation::OTHER;
use crate::life::seconds;
use crate::ready;
use crate::stage::{COMING, LOST, Stage, absent};
use crate::story::is;

/// "Ends within seconds".
const SOON: Duration = Duration::from_secs(15);
/// When the database is back.
const LATER: Duration = Duration::from_secs(60);
/// How long a database is away: a liveness probe that asked it would have ended pods.
const AWAY: Duration = Duration::from_secs(100);
/// On a DataStore of its own, whose Secret goes.
const KEYLESS: &str = "keyless";
/// Created and deleted in a row.
const AGAIN: &str = "again";
const STORE: &str = "second";
pub const SECRET: &str = "second-certs";

pub async fn run(stage: &Stage) {
    second_store(stage).await;
    let mut manifest = tenant(KEYLESS, 1);
    manifest["spec"]["dataStore"] = json!(STORE);
    let story = stage.story(KEYLESS);
    let began = Instant::now();
    stage.create(&manifest).await;
    let other = stage.tenant(OTHER, 1);
    join!(story.ready(began, COMING), other);
    assert!(!left(stage, "tenants_keyless").await.is_empty());

    again_and_again(stage).await;
    secret_gone(stage, &story).await;
    database_gone(stage).await;
}

async fn secret_gone(stage: &Stage, story: &crate::story::Story) {
    let path = object_path(SYSTEM, "secrets", SECRET);
    let secret = stage.it.get(&path).await.unwrap();
    let began = Instant::now();
    stage.it.delete(&path).await.unwrap();
    let took = story
        .says(began, LOST, "DataStoreReady", "False", "SecretNotFound")
        .await;
    // The tenant has its own credentials and serves on.
    story.stayed_ready(began);
    stage.note(
        "told: the DataStore's Secret deleted (Ready stays)",
        seconds(took),
    );
    let uid = uid(stage, KEYLESS).await;
    let took = stage.remove(KEYLESS).await;
    assert!(took < SOON, "the deletion took {took:?}");
    stage.note("delete without the DataStore's Secret", seconds(took));

    // Recorded, still there, and not to be had by anybody else.
    assert_eq!(pending(stage, STORE).await, [uid], "recorded");
    assert!(!left(stage, "tenants_keyless").await.is_empty());
    let mut heir = tenant("heir", 1);
    heir["spec"]["dataStoreSchema"] = json!("tenants_keyless");
    let heirs = stage.story("heir");
    let began = Instant::now();
    stage.create(&heir).await;
    heirs
        .says(began, SOON, "DataStoreReady", "False", "SchemaTaken")
        .await;
    assert!(
        stage
            .object("secrets", "heir-datastore-certificate")
            .await
            .is_none()
    );
    stage.remove("heir").await;
    assert!(!left(stage, "tenants_keyless").await.is_empty());

    credentials(stage, &secret).await;
    let took = cleaned(stage, "tenants_keyless", STORE).await;
    stage.note("its data gone after the Secret is back", seconds(took));
    stage.it.delete(&data_store_path(STORE)).await.unwrap();
    let gone = || async { stage.absent(&data_store_path(STORE)).await.then_some(()) };
    stage
        .it
        .until("the second DataStore is gone", SOON, gone)
        .await;
    stage.it.delete(&path).await.unwrap();
}

async fn database_gone(stage: &Stage) {
    let first = stage.tenant(ready::NAME, 1).await;
    settled(stage).await;
    let before = restarts(stage).await;
    let story = stage.tenant(OTHER, 1).await;
    let uid = uid(stage, OTHER).await;
    let began = Instant::now();
    stage.scale_etcd(0).await.unwrap();
    let stopped = || async { absent(&stage.etcd_pod().await).then_some(()) };
    let (_, stopping) = stage.it.until("etcd is gone", LATER, stopped).await;
    let took = story
        .says(
            began,
            stopping + LOST,
            "Ready",
            "False",
            "DataStoreUnreachable",
        )
        .await;
    stage.note(
        "Ready lost: etcd gone",
        format!(
            "{} (of which {} to end it)",
            seconds(took),
            seconds(stopping)
        ),
    );
    let took = stage.remove(OTHER).await;
    assert!(took < SOON, "the deletion took {took:?}");
    stage.note("delete without the database", seconds(took));
    assert_eq!(pending(stage, "default").await, [uid], "recorded");

    // Longer than a liveness probe has patience, by far: nothing is restarted for it.
    tokio::time::sleep(AWAY.saturating_sub(began.elapsed())).await;
    let back = Instant::now();
    stage.scale_etcd(1).await.unwrap();
    let ready = || async {
        let pod = stage.etcd_pod().await.ok()?;
        is(&pod, "Ready", "True", "").then_some(())
    };
    stage.it.until("etcd serves", LATER, ready).await;
    let took = cleaned(stage, "tenants_a_b", "default").await;
    stage.note("its data gone after etcd is back", seconds(took));
    first.ready(back, LATER).await;
    assert_eq!(
        restarts(stage).await,
        before,
        "restarts of the tenant's pods"
    );
}

/// An API server ends by itself if it cannot write its own roles within half a minute of
/// its start, and is past that then.
async fn settled(stage: &Stage) {
    let old = || async {
        let pods = stage.pods_of(ready::NAME).await;
        let now = jiff::Timestamp::now().as_second();
        let age = |pod: &Value| {
            let since = pod["metadata"]["creationTimestamp"].as_str()?;
            Some(now - since.parse::<jiff::Timestamp>().ok()?.as_second())
        };
        let all = pods.iter().all(|pod| age(pod).is_some_and(|age| age > 45));
        all.then_some(())
    };
    stage
        .it
        .until("its pods are past their start", LATER, old)
        .await;
}

/// How often each container of a tenant's pods was restarted.
async fn restarts(stage: &Stage) -> Vec<i64> {
    let pods = stage.pods_of(ready::NAME).await;
    let all = pods.iter().flat_map(|pod| {
        let statuses = pod["status"]["containerStatuses"].as_array();
        statuses.into_iter().flatten()
    });
    all.filter(|it| it["name"] == "kube-apiserver")
        .filter_map(|it| it["restartCount"].as_i64())
        .collect()
}

/// The tenants' etcd once more, under another name and with a Secret of its own.
async fn second_store(stage: &Stage) {
    let secret = stage
        .it
        .get(&object_path(SYSTEM, "secrets", ETCD_SECRET))
        .await
        .unwrap();
    credentials(stage, &secret).await;
    let default = stage.it.get(&data_store_path("default")).await.unwrap();
    let spec = default["spec"].to_string().replace(ETCD_SECRET, SECRET);
    let store = json!({
        "apiVersion": default["apiVersion"],
        "kind": "DataStore",
        "metadata": {"name": STORE},
        "spec": serde_json::from_str::<Value>(&spec).unwrap(),
    });
    stage
        .it
        .post(&format!("{GROUP_VERSION}/datastores"), &store)
        .await
        .unwrap();
}

/// Makes the Secret of the second DataStore, with the content of another one.
async fn credentials(stage: &Stage, of: &Value) {
    let copy = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": SYSTEM},
        "data": of["data"],
    });
    let path = object_path(SYSTEM, "secrets", "");
    stage.it.post(&path, &copy).await.unwrap();
}

/// Rules 17 and 18: created again right after its deletion, time after time, a
/// tenant finds nothing of the one before, and the one before nothing of it.
async fn again_and_again(stage: &Stage) {
    let mut users = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..4 {
        let story = stage.story(AGAIN);
        let began = Instant::now();
        stage.create(&tenant(AGAIN, 1)).await;
        story.ready(began, COMING).await;
        let object = stage.it.get(&tenant_path(AGAIN)).await.unwrap();
        let user = object["status"]["storage"]["setup"]["user"].clone();
        assert!(!users.contains(&user), "{user} is that of the one before");
        users.push(user);
        authorities(stage).await;
        drop(story);
        slowest = slowest.max(stage.remove(AGAIN).await);
    }
    stage.note("the slowest of four deletions in a row", seconds(slowest));
    assert!(left(stage, "tenants_again").await.is_empty());
}

/// The API server says whose certificates it takes: those of its own authorities
/// and no other's, also a while later.
async fn authorities(stage: &Stage) {
    let secret = stage.object("secrets", &format!("{AGAIN}-client-ca")).await;
    let secret = secret.unwrap();
    let own = text(&secret["data"]["bundle.crt"]);
    let own = certificates(&own);
    assert_eq!(own.len(), 2, "the cluster's authority and the users'");
    let kubeconfig = stage.it.kubeconfig(AGAIN);
    let arguments = [
        "get",
        "configmap",
        "extension-apiserver-authentication",
        "--namespace=kube-system",
        "--output=jsonpath={.data.client-ca-file}",
    ];
    for _ in 0..5 {
        let said = stage.it.kubectl_with(&kubeconfig, &arguments);
        assert_eq!(said.code, 0, "{}", said.text());
        let found = certificates(&said.stdout);
        assert_eq!(found, own, "authorities of another tenant");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn text(data: &Value) -> String {
    let bytes = STANDARD.decode(data.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The certificates of a bundle, sorted.
fn certificates(bundle: &str) -> Vec<String> {
    let mut all: Vec<_> = bundle
        .split_inclusive("-----END CERTIFICATE-----")
        .map(|one| one.split_whitespace().collect::<String>())
        .filter(|one| !one.is_empty())
        .collect();
    all.sort();
    all
}

/// Keys, users, roles and claims of a schema.
async fn left(stage: &Stage, schema: &str) -> Vec<String> {
    let mut lines = dump::etcd(stage).await;
    let ends = format!("/{schema}");
    // The role is named after schema and uid, the user begins with the schema.
    lines.retain(|line| {
        line.contains(&format!("/{schema}/"))
            || line.ends_with(&ends)
            || line.contains(&format!("/{schema}_"))
            || line.contains(&format!(" {schema}_"))
    });
    lines
}

/// Waits until nothing is left of a schema, and nothing recorded.
async fn cleaned(stage: &Stage, schema: &str, store: &str) -> Duration {
    let began = Instant::now();
    let done = || async {
        (left(stage, schema).await.is_empty() && pending(stage, store).await.is_empty())
            .then_some(())
    };
    stage
        .it
        .until(&format!("nothing is left of {schema}"), LATER, done)
        .await;
    began.elapsed()
}

/// The uids whose clean-up is recorded on a DataStore.
async fn pending(stage: &Stage, store: &str) -> Vec<String> {
    let store = stage.it.get(&data_store_path(store)).await.unwrap();
    let all = store["status"]["pendingCleanups"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    all.iter()
        .map(|entry| entry["uid"].as_str().unwrap().to_owned())
        .collect()
}

async fn uid(stage: &Stage, name: &str) -> String {
    let tenant = stage.it.get(&tenant_path(name)).await.unwrap();
    tenant["metadata"]["uid"].as_str().unwrap().to_owned()
}
