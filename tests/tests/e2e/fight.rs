//! Rule 20: somebody who changes a field back again and again is told of, and not
//! fought with.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::installed::{TENANTS, object_path};

use crate::audit::{self, CONTROLLER};
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
    let log = stage.it.lab.directory().audit_log();
    let mark = audit::mark(&log);
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
    assert!(stage.events(OTHER).iter().any(told), "no event tells of it");
    let writes = audit::since(&log, mark, &[CONTROLLER]);
    let of_role = |request: &&audit::Request| {
        request.writes()
            && request
                .object_ref
                .as_ref()
                .is_some_and(|it| it.resource == "roles" && it.name == ROLE)
    };
    let of_tenant = |request: &&audit::Request| {
        request.writes()
            && request
                .object_ref
                .as_ref()
                .is_some_and(|it| it.resource == "tenantcontrolplanes" && it.name == OTHER)
    };
    let (roles, statuses) = (
        writes.iter().filter(of_role).count(),
        writes.iter().filter(of_tenant).count(),
    );
    assert!((3..=WRITES).contains(&roles), "{roles} repairs in a minute");
    assert!(
        statuses <= 2 * WRITES,
        "{statuses} writes of the status in a minute"
    );
    stage.note(
        "a fight of a minute",
        format!(
            "Contested after {}, {roles} repairs, {statuses} writes of the status",
            seconds(took)
        ),
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
