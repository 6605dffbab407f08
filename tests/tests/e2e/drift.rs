//! Every object of a tenant is edited and deleted, and comes back; key material
//! is not made anew. Afterwards nothing is written at all.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tests::installed::{TENANTS, object_path, tenant_path};

use crate::audit::{self, API_SERVER, CONTROLLER};
use crate::life::seconds;
use crate::stage::{BACK, COMING, Stage};
use crate::story::{Story, is};

/// How long a repair may take. Some make others necessary.
const REPAIRED: Duration = Duration::from_secs(30);
/// Bindings in the tenant are looked at every half minute.
const LOOKED_AT: Duration = Duration::from_secs(45);
/// A tenant with which nobody has fought before.
const NAME: &str = "drift";
const RESOURCES: [&str; 6] = [
    "secrets",
    "configmaps",
    "services",
    "deployments",
    "roles",
    "rolebindings",
];
/// Rule 19.
const KEYS: [&str; 4] = [
    "drift-ca",
    "drift-client-ca",
    "drift-front-proxy-ca-certificate",
    "drift-sa-certificate",
];

pub async fn run(stage: &Stage) {
    let story = stage.tenant(NAME, 1).await;
    edited(stage, &story).await;
    restarted(stage, &story).await;
    deleted(stage, &story).await;
    keys(stage, &story).await;
    replaced(stage, &story).await;
    quiet(stage, &story).await;
    stage.remove(NAME).await;
}

/// The objects that the tenant controls: resource and object.
async fn owned(stage: &Stage) -> Vec<(&'static str, Value)> {
    let tenant = stage.it.get(&tenant_path(NAME)).await.unwrap();
    let uid = &tenant["metadata"]["uid"];
    let mut found = Vec::new();
    for resource in RESOURCES {
        let list = stage
            .it
            .get(&object_path(TENANTS, resource, ""))
            .await
            .unwrap();
        for object in list["items"].as_array().unwrap() {
            let owners = object["metadata"]["ownerReferences"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if owners
                .iter()
                .any(|owner| owner["uid"] == *uid && owner["controller"] == true)
            {
                found.push((resource, object.clone()));
            }
        }
    }
    found
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// A merge patch that spoils an object, and where.
fn damages(resource: &str, object: &Value) -> Vec<(Value, String)> {
    let labels = (
        json!({"metadata": {"labels": null}}),
        "/metadata/labels".to_owned(),
    );
    let mut found = vec![labels];
    match resource {
        "secrets" if KEYS.contains(&name(object)) => {}
        "secrets" | "configmaps" => {
            let key = object["data"].as_object().unwrap().keys().next().unwrap();
            let broken = if resource == "secrets" {
                "YnJva2Vu"
            } else {
                "broken"
            };
            found.push((json!({"data": {key: broken}}), format!("/data/{key}")));
        }
        "services" => {
            let mut ports = object["spec"]["ports"].as_array().unwrap().clone();
            ports[0]["targetPort"] = json!(1);
            ports.push(json!({"name": "more", "port": 22}));
            found.push((json!({"spec": {"ports": ports}}), "/spec/ports".to_owned()));
            let more = json!({"spec": {
                "selector": {"more": "x"}, "externalIPs": ["192.0.2.77"],
            }});
            found.push((more, "/spec".to_owned()));
        }
        "deployments" => {
            let containers = &object["spec"]["template"]["spec"]["containers"];
            let mut spoilt = containers.clone();
            spoilt[0]["args"] = json!(["--spoilt"]);
            let spoilt = json!({"spec": {"template": {"spec": {"containers": spoilt}}}});
            found.push((spoilt, "/spec/template/spec/containers/0/args".to_owned()));
            // What is added, all at once: a fourth repair would be a contest.
            let mut more = containers.clone();
            more[0]["env"] = json!([{"name": "MORE", "value": "x"}]);
            let another = json!({"name": "more", "image": containers[0]["image"]});
            more.as_array_mut().unwrap().push(another);
            let pods = json!({"hostNetwork": true, "containers": more});
            let added =
                json!({"spec": {"replicas": 3, "paused": true, "template": {"spec": pods}}});
            found.push((added, "/spec".to_owned()));
        }
        "roles" => found.push((json!({"rules": []}), "/rules".to_owned())),
        _ => {
            let somebody =
                json!([{"kind": "User", "name": "x", "apiGroup": "rbac.authorization.k8s.io"}]);
            found.push((json!({"subjects": somebody}), "/subjects".to_owned()));
        }
    }
    found
}

/// All at once, each in one way after the other: a repair writes the whole
/// object, and would hide that another field of it is not looked at.
async fn edited(stage: &Stage, story: &Story) {
    let objects = owned(stage).await;
    let began = Instant::now();
    let edits: Vec<_> = objects
        .iter()
        .map(|(resource, object)| (*resource, object, damages(resource, object)))
        .collect();
    let (mut count, mut slowest) = (0, Duration::ZERO);
    for turn in 0.. {
        let edits: Vec<_> = edits
            .iter()
            .filter_map(|(resource, object, damages)| {
                let path = object_path(TENANTS, resource, name(object));
                damages.get(turn).map(|damage| (path, *object, damage))
            })
            .collect();
        if edits.is_empty() {
            break;
        }
        for (path, _, (patch, _)) in &edits {
            stage.it.patch(path, patch).await.unwrap();
        }
        let all = edits.iter();
        let all = all.map(|(path, object, damage)| put_right(stage, path, object, damage));
        slowest = slowest.max(join_all(all).await.into_iter().max().unwrap());
        count += edits.len();
    }
    stage.note(
        format!(
            "{count} edits of {} objects put right, the slowest",
            objects.len()
        ),
        seconds(slowest),
    );
    settled(stage, story, began).await;
}

/// Waits until a damaged object is as it was.
async fn put_right(
    stage: &Stage,
    path: &str,
    object: &Value,
    (patch, at): &(Value, String),
) -> Duration {
    let spoilt = patch.pointer(at).cloned().unwrap_or_default();
    let right = || async {
        let now = part(&stage.it.get(path).await.ok()?, at);
        // A certificate that was spoilt is another one afterwards.
        let well = if at.starts_with("/data") {
            now != spoilt && !now.is_null()
        } else {
            now == part(object, at)
        };
        well.then_some(())
    };
    let started = Instant::now();
    while right().await.is_none() {
        if started.elapsed() > REPAIRED {
            let now = part(&stage.it.get(path).await.unwrap(), at);
            let wanted = part(object, at);
            panic!("{at} of {path} is not put right:\n{now:#}\nwanted:\n{wanted:#}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    started.elapsed()
}

/// What stands in an object at a place. The pod template's checksums are left out:
/// an earlier repair may have made new certificates.
fn part(object: &Value, at: &str) -> Value {
    let mut object = object.clone();
    let checksum = ["component.steward.", "storage.steward."];
    for map in ["labels", "annotations"] {
        if let Some(map) = object.pointer_mut(&format!("/spec/template/metadata/{map}")) {
            let map = map.as_object_mut().unwrap();
            map.retain(|key, _| !checksum.iter().any(|prefix| key.starts_with(prefix)));
        }
    }
    object.pointer(at).cloned().unwrap_or_default()
}

/// Ready, with nothing being rolled out.
async fn settled(stage: &Stage, story: &Story, since: Instant) {
    let well = || async {
        let now = story.last()?;
        let well = is(&now, "Ready", "True", "Ready")
            && is(&now, "ReplicasAvailable", "True", "")
            && is(&now, "CertificatesReady", "True", "")
            && is(&now, "ObjectsOwned", "True", "");
        (well && stage.pods_of(NAME).await.len() == 1).then_some(())
    };
    let started = Instant::now();
    while well().await.is_none() {
        assert!(
            started.elapsed() < COMING,
            "not well again:\n{}",
            story.told(since)
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// `kubectl rollout restart` is no drift.
async fn restarted(stage: &Stage, story: &Story) {
    const AT: &str = "kubectl.kubernetes.io/restartedAt";
    let began = Instant::now();
    let before = stage.pods_of(NAME).await;
    let path = object_path(TENANTS, "deployments", NAME);
    let annotations = json!({"annotations": {AT: "2026-01-01T00:00:00Z"}});
    let patch = json!({"spec": {"template": {"metadata": annotations}}});
    stage.it.patch(&path, &patch).await.unwrap();
    let replaced = || async {
        let now = stage.pods_of(NAME).await;
        let new = now.len() == 1 && now[0]["metadata"]["uid"] != before[0]["metadata"]["uid"];
        new.then_some(())
    };
    stage
        .it
        .until("the pod is replaced", COMING, replaced)
        .await;
    settled(stage, story, began).await;
    let now = stage.it.get(&path).await.unwrap();
    assert_eq!(
        now["spec"]["template"]["metadata"]["annotations"][AT], "2026-01-01T00:00:00Z",
        "a restart was undone"
    );
}

/// All at once, but for the keys.
async fn deleted(stage: &Stage, story: &Story) {
    let mut objects = owned(stage).await;
    objects.retain(|(_, object)| !KEYS.contains(&name(object)));
    let before = stage.pods_of(NAME).await;
    let began = Instant::now();
    for (resource, object) in &objects {
        let path = object_path(TENANTS, resource, name(object));
        stage.it.delete(&path).await.unwrap();
    }
    let slowest = join_all(objects.iter().map(async |(resource, object)| {
        let path = object_path(TENANTS, resource, name(object));
        let back = || async {
            let now = stage.it.get(&path).await.ok()?;
            (now["metadata"]["uid"] != object["metadata"]["uid"]).then_some(())
        };
        stage
            .it
            .until(&format!("{path} is back"), REPAIRED, back)
            .await
            .1
    }));
    let slowest = slowest.await.into_iter().max().unwrap();
    stage.note(
        format!(
            "{} objects deleted and made again, the slowest",
            objects.len()
        ),
        seconds(slowest),
    );
    // The Deployment took its pods with it: what says that all is well may still be of them.
    let replaced = || async {
        let uid = |pod: &Value| pod["metadata"]["uid"].clone();
        let old: Vec<_> = before.iter().map(uid).collect();
        let now = stage.pods_of(NAME).await;
        let new = now.len() == 1 && !old.contains(&uid(&now[0])) && serves(&now[0]);
        new.then_some(())
    };
    stage.it.until("a new pod serves", COMING, replaced).await;
    settled(stage, story, began).await;
    let kubeconfig = stage.it.kubeconfig(NAME);
    let answers = || async {
        let said = stage.it.kubectl_with(&kubeconfig, &["get", "namespaces"]);
        (said.code == 0).then_some(())
    };
    stage.it.until("the tenant answers", COMING, answers).await;
}

/// Whether the kubelet says that a pod is Ready.
fn serves(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// A key that is lost is told of and not made anew; put back, all is well.
async fn keys(stage: &Stage, story: &Story) {
    let pods = stage.pods_of(NAME).await;
    for key in KEYS {
        let path = object_path(TENANTS, "secrets", key);
        let mut secret = stage.it.get(&path).await.unwrap();
        let began = Instant::now();
        stage.it.delete(&path).await.unwrap();
        let took = story
            .says(began, BACK, "CertificatesReady", "False", "KeyMaterialLost")
            .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(stage.absent(&path).await, "{key} was made anew");
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "managedFields",
        ] {
            secret["metadata"].as_object_mut().unwrap().remove(field);
        }
        stage
            .it
            .post(&object_path(TENANTS, "secrets", ""), &secret)
            .await
            .unwrap();
        let restored = began + took;
        story
            .says(restored, BACK, "CertificatesReady", "True", "")
            .await;
        let now = stage.it.get(&path).await.unwrap();
        assert_eq!(now["data"], secret["data"], "{key}");
        if key == KEYS[0] {
            stage.note("told: an authority deleted (not made anew)", seconds(took));
        }
    }
    settled(stage, story, Instant::now()).await;
    let now = stage.pods_of(NAME).await;
    assert_eq!(
        now[0]["metadata"]["uid"], pods[0]["metadata"]["uid"],
        "the pod was replaced"
    );
}

/// Lost keys are made anew when somebody asks for it, once for each time.
async fn replaced(stage: &Stage, story: &Story) {
    const ASKED: &str = "steward.butlerlabs.dev/replace-lost-keys";
    let key = KEYS[2];
    let path = object_path(TENANTS, "secrets", key);
    for _ in 0..2 {
        let began = Instant::now();
        stage.it.delete(&path).await.unwrap();
        story
            .says(began, BACK, "CertificatesReady", "False", "KeyMaterialLost")
            .await;
        let ask = json!({"metadata": {"annotations": {ASKED: key}}});
        stage.it.patch(&tenant_path(NAME), &ask).await.unwrap();
        let done = || async {
            let tenant = stage.it.get(&tenant_path(NAME)).await.ok()?;
            let open = tenant["metadata"]["annotations"][ASKED].is_string();
            (!open && !stage.absent(&path).await).then_some(())
        };
        stage.it.until("new keys are made", BACK, done).await;
        settled(stage, story, Instant::now()).await;
    }
    let told = |event: &[String; 3]| event[1] == "KeysReplaced";
    assert!(
        stage.events(NAME).await.iter().any(told),
        "no event tells of it"
    );
}

/// The bindings inside the tenant (rule 16).
pub async fn inside(stage: &Stage) {
    let story = &stage.tenant(NAME, 1).await;
    let kubeconfig = stage.it.kubeconfig(NAME);
    let user = |arguments: &[&str]| stage.it.kubectl_with(&kubeconfig, arguments);
    let there = |name: &str, role: &str| {
        let get = [
            "get",
            "clusterrolebinding",
            name,
            "-o",
            "jsonpath={.roleRef.name} {.subjects[*].name}",
        ];
        user(&get).stdout == format!("{role} {name}")
    };
    let began = Instant::now();
    let said = user(&["delete", "clusterrolebinding", "kubeadm:cluster-admins"]);
    assert_eq!(said.code, 0, "{}", said.text());
    let patch =
        r#"{"subjects":[{"kind":"Group","name":"x","apiGroup":"rbac.authorization.k8s.io"}]}"#;
    let said = user(&[
        "patch",
        "clusterrolebinding",
        "steward:view",
        "--type=merge",
        "-p",
        patch,
    ]);
    assert_eq!(said.code, 0, "{}", said.text());
    let right = || async {
        (there("kubeadm:cluster-admins", "cluster-admin") && there("steward:view", "view"))
            .then_some(())
    };
    stage
        .it
        .until("both bindings are put right", LOOKED_AT, right)
        .await;
    stage.note("bindings in the tenant put right", seconds(began.elapsed()));

    // All of it is there again: with both bindings missing, nobody of ours may mend it.
    story
        .until(began, LOOKED_AT, "the tenant is configured", |object| {
            is(object, "ClusterConfigured", "True", "AsExpected")
        })
        .await;

    // The one that the probe itself needs.
    let began = Instant::now();
    let said = user(&["delete", "clusterrolebinding", "steward:admin"]);
    assert_eq!(said.code, 0, "{}", said.text());
    let right = || async { there("steward:admin", "cluster-admin").then_some(()) };
    stage
        .it
        .until("users may administer again", LOOKED_AT, right)
        .await;
    stage.note(
        "the users' binding in the tenant put right",
        seconds(began.elapsed()),
    );
    story.stayed_ready(began);
    settled(stage, story, began).await;
}

/// Nothing happens, so nothing is written.
async fn quiet(stage: &Stage, story: &Story) {
    let given = std::env::var("STEWARD_QUIET_SECONDS").ok();
    let seconds = given.and_then(|text| text.parse().ok()).unwrap_or(60);
    // What the last repairs made necessary: a new pod is also looked into, every half
    // minute, and its conditions follow then.
    let repaired = Instant::now();
    while !story.since(Instant::now() - LOOKED_AT).is_empty() {
        assert!(
            repaired.elapsed() < 4 * LOOKED_AT,
            "its status goes on changing:\n{}",
            story.told(repaired)
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let began = Instant::now();
    let Some(log) = stage.audit("drift::quiet") else {
        return;
    };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let all = log.since(&[CONTROLLER, API_SERVER]);
    let lease = |request: &audit::Request| {
        request
            .object_ref
            .as_ref()
            .is_some_and(|it| it.resource == "leases")
    };
    assert!(all.iter().any(lease), "the log is not of now");
    let (mut learnt, mut floors, mut lines) = (0, 0, Vec::new());
    for request in all.iter().filter(|it| it.writes() && !lease(it)) {
        let it = request.object_ref.as_ref().unwrap();
        match (it.resource.as_str(), it.subresource.as_str()) {
            // Who compacts the DataStore is known some minutes after the start.
            ("datastores", "status") => learnt += 1,
            // The floor follows what was written before, once a minute at most.
            ("secrets", "") if it.name == "steward-apiserver-store" => floors += 1,
            _ => lines.push(request.line()),
        }
    }
    assert!(
        lines.is_empty(),
        "writes in {seconds} quiet seconds:\n{}\nthe tenant said:\n{}",
        lines.join("\n"),
        story.told(began)
    );
    assert!(
        learnt <= 1 && floors <= 2,
        "{learnt} writes of the DataStore's status, {floors} of the floor"
    );
    let reads = all.iter().filter(|it| !it.writes()).count();
    stage.note(format!("{seconds} quiet seconds"), format!("no writes of tenants; {} of the Lease, {learnt} of the DataStore's status, {floors} of the store's floor; {reads} reads", all.iter().filter(|it| it.writes() && lease(it)).count()));
}
