//! What keeps a tenant from coming up is said within seconds, in its conditions
//! and in its events, with what to do about it.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tests::installed::{
    ETCD_SECRET, SYSTEM, TENANTS, condition, data_store_path, object_path, tenant, tenant_path,
};
use tests::served::GROUP_VERSION;

use crate::life::seconds;
use crate::stage::{COMING, GONE, Stage};
use crate::story::{Story, is};

/// "Within seconds".
const TOLD: Duration = Duration::from_secs(15);
/// A load balancer's silence is trouble only after its own 15 seconds.
const SILENT: Duration = Duration::from_secs(25);

struct Case {
    name: &'static str,
    /// What is put into the manifest, as a merge patch.
    change: Value,
    /// The condition that tells of it.
    kind: &'static str,
    reasons: &'static [&'static str],
    /// Words that say what is wrong and what to do.
    words: &'static [&'static str],
    patience: Duration,
}

fn cases() -> Vec<Case> {
    let deployment = |content: Value| json!({"spec": {"controlPlane": {"deployment": content}}});
    let case = |name, change, kind, reasons, words| Case {
        name,
        change,
        kind,
        reasons,
        words,
        patience: TOLD,
    };
    vec![
        case(
            "no-database",
            json!({"spec": {"dataStore": "nowhere"}}),
            "DataStoreReady",
            &["DataStoreUnreachable"],
            &["DataStore nowhere", "spec.endpoints"],
        ),
        case(
            "no-secret",
            json!({"spec": {"dataStore": "keyless"}}),
            "DataStoreReady",
            &["SecretNotFound"],
            &["Secret steward-system/none does not exist: create it"],
        ),
        case(
            "no-store",
            json!({"spec": {"dataStore": "nobody"}}),
            "DataStoreReady",
            &["DataStoreNotFound"],
            &["DataStore nobody", "Create it or set spec.dataStore"],
        ),
        case(
            "no-image",
            json!({"spec": {"kubernetes": {"version": "v1.35.99"}}}),
            "WorkloadAvailable",
            &["ImageNotFound", "ImagePullFailed"],
            &["v1.35.99", "registrySettings"],
        ),
        case(
            "no-room",
            deployment(json!({"resources": {"requests": {"cpu": "1000"}}})),
            "WorkloadAvailable",
            &["Unschedulable"],
            &["Insufficient cpu", "Add nodes"],
        ),
        Case {
            patience: SILENT,
            ..case(
                "no-address",
                json!({"spec": {
                    "networkProfile": {"loadBalancerClass": "example.com/nobody"},
                    "controlPlane": {"service": {"serviceType": "LoadBalancer"}},
                }}),
                "AddressAssigned",
                &["NoAddress"],
                &["example.com/nobody", "Install or check one"],
            )
        },
        case(
            "taken",
            json!({}),
            "ObjectsOwned",
            &["NameTaken"],
            &["Service tenants/taken", "another name"],
        ),
    ]
}

/// An address that only clients reach, the everyday case of split networks, is no trouble:
/// the tenant is Ready, as fast as any other, and says that nobody could look from here.
pub async fn split(stage: &Stage) {
    const NAME: &str = "split";
    let story = stage.story(NAME);
    let mut manifest = tenant(NAME, 1);
    manifest["spec"]["networkProfile"]["address"] = json!("192.0.2.10");
    let began = Instant::now();
    stage.create(&manifest).await;
    let took = story
        .says(
            began,
            COMING,
            "Ready",
            "True",
            "EndpointNotReachableFromController",
        )
        .await;
    stage.note("Ready at an address that only clients reach", seconds(took));
    story
        .says(
            began,
            COMING,
            "EndpointReachable",
            "Unknown",
            "EndpointNotReachableFromController",
        )
        .await;
    stage.remove(NAME).await;
}

pub async fn run(stage: &Stage) {
    stores(stage).await;
    let foreign = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken", "namespace": TENANTS},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "somebody"}},
    });
    let foreign = stage
        .it
        .post(&object_path(TENANTS, "services", ""), &foreign)
        .await
        .unwrap();

    let all = cases();
    join_all(all.iter().map(|case| told(stage, case))).await;

    let now = stage.object("services", "taken").await.unwrap();
    assert_eq!(now, foreign, "somebody else's Service was touched");
    // All of it can be deleted, one and all at once.
    let removed = join_all(all.iter().map(|case| stage.remove(case.name))).await;
    let slowest = removed.into_iter().max().unwrap();
    stage.note("tenants in trouble deleted, the slowest", seconds(slowest));
    let now = stage.object("services", "taken").await.unwrap();
    assert_eq!(now, foreign, "somebody else's Service was touched");
    stage
        .it
        .delete(&object_path(TENANTS, "services", "taken"))
        .await
        .unwrap();
    // What could not be looked at is not forgotten (rule 18): they go once they
    // can be asked.
    let default = stage.it.get(&data_store_path("default")).await.unwrap();
    for name in ["nowhere", "keyless"] {
        stage.it.delete(&data_store_path(name)).await.unwrap();
        let told = || async {
            let store = stage.it.get(&data_store_path(name)).await.unwrap();
            let why = is(
                &store,
                "DataStoreAllowedDeletion",
                "False",
                "CleanupPending",
            );
            (why && condition(&store, "Ready")?[2].contains("remove its finalizer")).then_some(())
        };
        stage
            .it
            .until(
                &format!("DataStore {name} says what it waits for"),
                TOLD,
                told,
            )
            .await;
        let right = json!({"spec": default["spec"]});
        stage
            .it
            .patch(&data_store_path(name), &right)
            .await
            .unwrap();
        let gone = || async { stage.absent(&data_store_path(name)).await.then_some(()) };
        stage
            .it
            .until(&format!("DataStore {name} is gone"), GONE, gone)
            .await;
    }
}

/// One DataStore at whose address nobody is, and one without its Secret.
async fn stores(stage: &Stage) {
    let default = stage.it.get(&data_store_path("default")).await.unwrap();
    let path = format!("{GROUP_VERSION}/datastores");
    for (name, change) in [
        ("nowhere", ("endpoints", json!(["198.51.100.1:2379"]))),
        ("keyless", ("tlsConfig", Value::Null)),
    ] {
        let mut store = json!({
            "apiVersion": default["apiVersion"],
            "kind": "DataStore",
            "metadata": {"name": name},
            "spec": default["spec"],
        });
        if change.1.is_null() {
            let text = store.to_string().replace(ETCD_SECRET, "none");
            store = serde_json::from_str(&text).unwrap();
            assert!(text.contains(SYSTEM));
        } else {
            store["spec"][change.0] = change.1;
        }
        stage.it.post(&path, &store).await.unwrap();
    }
}

async fn told(stage: &Stage, case: &Case) {
    let mut manifest = tenant(case.name, 1);
    merge(&mut manifest, &case.change);
    let story = stage.story(case.name);
    let began = Instant::now();
    stage.create(&manifest).await;
    let found = |object: &Value| {
        case.reasons
            .iter()
            .any(|reason| is(object, case.kind, "False", reason))
    };
    let what = format!("{}=False {}", case.kind, case.reasons.join(" or "));
    let took = story.until(began, case.patience, &what, found).await;
    // The summary names the same cause.
    let summed = |object: &Value| {
        found(object)
            && case
                .reasons
                .iter()
                .any(|reason| is(object, "Ready", "False", reason))
    };
    story
        .until(began, case.patience, &format!("Ready says {what}"), summed)
        .await;
    let [_, reason, said] = condition(&last_with(&story, began, summed), case.kind).unwrap();
    for word in case.words {
        assert!(
            said.contains(word),
            "{}: {word:?} is not in: {said}",
            case.name
        );
    }
    // And an event of the tenant says so, in the same words.
    let event = || async {
        let all = stage.events(case.name).await;
        all.into_iter()
            .find(|[kind, why, _]| kind == "Warning" && case.reasons.contains(&why.as_str()))
    };
    let what = format!("an event of tenant {} with {reason}", case.name);
    let ([_, _, told], _) = stage.it.until(&what, case.patience, event).await;
    for word in case.words {
        assert!(
            told.contains(word),
            "{}: {word:?} is not in the event: {told}",
            case.name
        );
    }
    stage.note(
        format!("told: {}", case.name),
        format!("{} ({reason})", seconds(took)),
    );
    let tenant = stage.it.get(&tenant_path(case.name)).await.unwrap();
    assert!(!is(&tenant, "Ready", "True", ""), "{tenant}");
}

fn last_with(story: &Story, since: Instant, test: impl Fn(&Value) -> bool) -> Value {
    let mut all = story.since(since);
    all.retain(|moment| test(&moment.object));
    all.pop().unwrap().object
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        merge(&mut target[key], value);
    }
}
