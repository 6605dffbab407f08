//! ResourceQuotas that count tenants.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Pair;
use crate::side::{Side, difference};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const KEY: &str = "count/tenantcontrolplanes.steward.butlerlabs.dev";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// A tenant that is as it should be.
pub fn tenant(name: &str) -> String {
    json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {"name": name},
        "spec": {"dataStore": "default", "kubernetes": {"version": "v1.36.3", "kubelet": {"preferredAddressTypes": ["InternalIP"]}},
            "controlPlane": {"deployment": {"replicas": 2}, "service": {"serviceType": "ClusterIP"}}},
    })
    .to_string()
}

/// Waits until the cluster's quota controller says so many.
async fn used(side: &Side, wanted: u64) {
    let began = Instant::now();
    loop {
        let quota = side
            .call(("GET", &format!("{QUOTAS}/q"), "", ""))
            .await
            .body;
        let used = quota["status"]["used"][KEY].as_str().unwrap_or("");
        if used == wanted.to_string() {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{}: {wanted} are used, says {}",
            side.name,
            quota["status"]
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Makes a quota that the quota controller can count: it looks for new kinds every half
/// minute, and at a quota that it could not count after five.
async fn known(side: &Side, quota: &str) {
    let began = Instant::now();
    let path = format!("{QUOTAS}/q");
    loop {
        side.call(("POST", QUOTAS, JSON, quota)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let made = side.call(("GET", &path, "", "")).await.body;
        if made["status"]["used"].get(KEY).is_some() {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{}: {made}",
            side.name
        );
        side.call(("DELETE", &path, "", "")).await;
    }
}

/// The same answers as by kube-apiserver, and never more than there is room for: R7.20,
/// R7.21; the cluster's quota controller counts tenants: R8.11.
pub async fn run(pair: &Pair) {
    let sides = [&pair.theirs, &pair.ours];
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {KEY: "2"}}});
    for side in sides {
        side.call(("DELETE", "", "", "")).await;
        known(side, &quota.to_string()).await;
    }
    let mut wrong = Vec::new();
    for (path, name) in [
        ("?dryRun=All", "a"),
        ("", "a"),
        ("", "b"),
        ("?dryRun=All", "c"),
        ("", "c"),
    ] {
        let body = tenant(name);
        let mut answers = Vec::new();
        for side in sides {
            let answer = side.call(("POST", path, JSON, &body)).await;
            let body = match answer.code {
                201 => Value::Null,
                _ => answer.body,
            };
            answers.push(side.normal(json!({"code": answer.code, "body": body})));
        }
        wrong.extend(difference(
            &format!("{path} {name}"),
            &answers[0],
            &answers[1],
        ));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What is there already is not counted again, which kube-apiserver does.
    let ours = &pair.ours;
    assert_eq!(ours.call(("POST", "", JSON, &tenant("a"))).await.code, 409);
    used(ours, 2).await;
    // Updates go on in a full namespace, and what is deleted is counted off.
    let label = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    assert_eq!(ours.call(("PATCH", "/a", MERGE, label)).await.code, 200);
    assert_eq!(ours.call(("DELETE", "/a", "", "")).await.code, 200);
    used(ours, 1).await;
    assert_eq!(ours.call(("POST", "", JSON, &tenant("c"))).await.code, 201);
    let said = ours.call(("POST", "", JSON, &tenant("d"))).await;
    assert_eq!(said.code, 403, "{}", said.body);

    // Fifty at a time.
    ours.call(("DELETE", "", "", "")).await;
    used(ours, 0).await;
    let twenty = json!({"spec": {"hard": {KEY: "20"}}}).to_string();
    ours.call(("PATCH", &format!("{QUOTAS}/q"), MERGE, &twenty))
        .await;
    let began = Instant::now();
    loop {
        let quota = ours
            .call(("GET", &format!("{QUOTAS}/q"), "", ""))
            .await
            .body;
        if quota["status"]["hard"][KEY] == "20" {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{quota}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let created = (0..50).map(|n| async move {
        let body = tenant(&format!("t{n}"));
        let answer = ours.call(("POST", "", JSON, &body)).await;
        (
            answer.code,
            answer.body["message"].as_str().unwrap_or("").to_owned(),
        )
    });
    let created = futures::future::join_all(created).await;
    let passed = created.iter().filter(|(code, _)| *code == 201).count();
    let refused: Vec<_> = created.iter().filter(|(code, _)| *code != 201).collect();
    assert_eq!(passed, 20, "{refused:#?}");
    let words = format!("exceeded quota: q, requested: {KEY}=1, used: {KEY}=20, limited: {KEY}=20");
    for (code, message) in refused {
        assert!(
            *code == 403 && message.ends_with(&words),
            "{code} {message}"
        );
    }
    used(ours, 20).await;
    for side in sides {
        side.call(("DELETE", &format!("{QUOTAS}/q"), "", "")).await;
        side.call(("DELETE", "", "", "")).await;
    }
}
