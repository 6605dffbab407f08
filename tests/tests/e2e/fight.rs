//! Rule 20: somebody who changes a field back again and again is told of, and not
//! fought with.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::installed::{TENANTS, object_path};

use crate::audit::{CONTROLLER, Request};
use crate::isolation::OTHER;
use crate::life::seconds;
use crate::stage::Stage;
use crate::story::is;

const FOR: Duration = Duration::from_secs(60);
/// Three repairs at once, and one for each minute that is begun.
const WRITES: usize = 3 + 2;
/// Of a tenant that nothing else is done to.
const ROLE: &str = "a-b-kubeconfig-signer";

/// For a minute, somebody gives our API server a right that it does not need.
pub async fn run(stage: &Stage) {
    let story = stage.tenant(OTHER, 1).await;
    let path = object_path(TENANTS, "roles", ROLE);
    let role = stage.it.get(&path).await.unwrap();
    let right = role["rules"].clone();
    let mut wrong = right.clone();
    wrong[0]["verbs"] = json!(["get", "list"]);
    let audit = stage.audit("fight::writes");
    let began = Instant::now();
    let mut next = began;
    while began.elapsed() < FOR {
        stage
            .it
            .patch(&path, &json!({"rules": wrong}))
            .await
            .unwrap();
        next += Duration::from_secs(1);
        tokio::time::sleep_until(next.into()).await;
    }
    let took = story
        .says(began, FOR, "ObjectsOwned", "False", "Contested")
        .await;
    story.stayed_ready(began);
    let told = |event: &[String; 3]| event[1] == "Contested" && event[2].contains(ROLE);
    let events = stage.events(OTHER).await;
    assert!(events.iter().any(told), "no event tells of it");
    let counted = match audit {
        Some(audit) => writes(&audit.since(&[CONTROLLER])),
        None => "writes are not counted".to_owned(),
    };
    stage.note(
        "a fight of a minute",
        format!("Contested after {}, {counted}", seconds(took)),
    );
    // They give in: all is well at once.
    let began = Instant::now();
    stage
        .it
        .patch(&path, &json!({"rules": right}))
        .await
        .unwrap();
    let well = |object: &Value| is(object, "ObjectsOwned", "True", "");
    story
        .until(began, Duration::from_secs(15), "no longer contested", well)
        .await;
}

/// Repairs, and what is said of them, are few.
fn writes(requests: &[Request]) -> String {
    let of = |resource: &str, name: &str| {
        let all = requests.iter().filter(|request| {
            let of = request.object_ref.as_ref();
            request.writes() && of.is_some_and(|it| it.resource == resource && it.name == name)
        });
        all.count()
    };
    let (roles, statuses) = (of("roles", ROLE), of("tenantcontrolplanes", OTHER));
    assert!((3..=WRITES).contains(&roles), "{roles} repairs in a minute");
    assert!(
        statuses <= 2 * WRITES,
        "{statuses} writes of the status in a minute"
    );
    format!("{roles} repairs, {statuses} writes of the status")
}
