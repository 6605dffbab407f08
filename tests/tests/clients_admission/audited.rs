//! What admission leaves in the audit log: in that of our server and in that of the
//! kube-apiserver with the CustomResourceDefinition.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use tests::served::eventually;

use crate::side::{COLLECTION, Scenario, Side};
use crate::{Pair, quotas};

type Annotations = BTreeMap<String, String>;

/// R7.14: of each request the same annotations, with the same values.
pub async fn run(pair: &Pair) {
    let scenario = Scenario {
        name: "audited",
        mutating: vec![
            json!({"name": "a.example.com", "path": "label"}),
            json!({"name": "b.example.com", "path": "allow"}),
            json!({"name": "c.example.com", "path": "dead", "failurePolicy": "Ignore"}),
            // Asked again, since what comes after it changes the object.
            json!({"name": "d.example.com", "path": "allow", "reinvocationPolicy": "IfNeeded"}),
            json!({"name": "e.example.com", "path": "replicas"}),
        ],
        validating: vec![
            json!({"name": "f.example.com", "path": "warn"}),
            json!({"name": "g.example.com", "path": "dead", "failurePolicy": "Ignore"}),
            json!({"name": "h.example.com", "path": "deny",
                "objectSelector": {"matchLabels": {"denied": "yes"}}}),
        ],
        policies: vec![json!({
            "validations": [{"expression": "object.metadata.name != 'noted'", "message": "a name"}],
            "auditAnnotations": [{"key": "named", "valueExpression": "string(object.metadata.name)"}],
            "binding": {"validationActions": ["Audit"]},
        })],
        ..Scenario::default()
    };
    let labelled = |name: &str, label: &str| {
        let mut tenant: Value = serde_json::from_str(&quotas::tenant(name)).unwrap();
        tenant["metadata"]["labels"] = json!({label: "yes"});
        tenant.to_string()
    };
    // What goes through, what a policy notes, and what a webhook refuses.
    let bodies = [
        quotas::tenant("plain"),
        labelled("noted", "x"),
        labelled("refused", "denied"),
    ];
    for side in [&pair.theirs, &pair.ours] {
        side.configure(&pair.webhook, &scenario).await.unwrap();
    }
    for body in &bodies {
        let id = uuid::Uuid::new_v4().to_string();
        let (theirs, ours) = tokio::join!(
            create(&pair.theirs, body, &id),
            create(&pair.ours, body, &id)
        );
        assert_eq!(theirs, ours, "{body}");
        let theirs = found("theirs", || {
            of_kube_apiserver(&pair.other.directory().audit_log(), &id)
        });
        let theirs = theirs.await;
        let ours = found("ours", || {
            of_ours(&pair.served.lab.directory().log("served"), &id)
        });
        assert_eq!(ours.await, theirs, "{body}");
        // The first webhook of each kind says whether they are in force.
        for key in [
            "mutation.webhook.admission.k8s.io/round_0_index_1",
            "mutation.webhook.admission.k8s.io/round_1_index_4",
            "failed-open.mutation.webhook.admission.k8s.io/round_0_index_3",
        ] {
            assert!(theirs.contains_key(key), "{key}: {theirs:?}");
        }
    }
    for side in [&pair.theirs, &pair.ours] {
        side.clear(&scenario).await;
        side.call(("DELETE", "", "", "")).await;
        side.asked(&pair.webhook);
    }
}

/// The code of the answer.
async fn create(side: &Side, body: &str, id: &str) -> u16 {
    let request = Request::post(COLLECTION)
        .header("content-type", "application/json")
        .header("audit-id", id)
        .body(Body::from(body.as_bytes().to_vec()));
    let answer = side.client.send(request.unwrap()).await.unwrap();
    answer.status().as_u16()
}

/// Logs are written a little later than answers.
async fn found(whose: &str, mut look: impl FnMut() -> Option<Annotations>) -> Annotations {
    let mut seen = None;
    eventually(
        &format!("the line of {whose}"),
        Duration::from_secs(10),
        || {
            seen = look();
            seen.is_some()
        },
    )
    .await;
    seen.unwrap()
}

/// Without those that are not admission's.
fn of_kube_apiserver(log: &PathBuf, id: &str) -> Option<Annotations> {
    let text = std::fs::read_to_string(log).ok()?;
    let events = text.lines().filter(|line| line.contains(id));
    let mut events = events.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let event = events.find(|event| event["stage"] == "ResponseComplete")?;
    let mut all: Annotations = serde_json::from_value(event["annotations"].clone()).ok()?;
    all.retain(|key, _| {
        !["authorization.k8s.io/", "apiserver.latency.k8s.io/"]
            .iter()
            .any(|other| key.starts_with(other))
    });
    Some(all)
}

fn of_ours(log: &PathBuf, id: &str) -> Option<Annotations> {
    let text = std::fs::read_to_string(log).ok()?;
    let mut lines = text.lines();
    let line = lines.find(|line| line.contains("audit: request") && line.contains(id))?;
    let (_, quoted) = line.split_once(" annotations=")?;
    // A text as Rust quotes it; what stands in it is plain, so that JSON reads it, too.
    let mut quoted = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
    serde_json::from_str(&quoted.next()?.ok()?).ok()
}
