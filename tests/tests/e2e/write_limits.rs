//! A tenant whose users may not write, verb by verb (`spec.writePermissions`), or not create
//! because it has as much as it may (`DataStore.spec.tenantLimits`), while the cluster itself
//! goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::installed::{condition, data_store_path, tenant_path};
use tests::served::Said;

use crate::life::seconds;
use crate::stage::Stage;
use crate::story::Story;

const NAME: &str = "limited";
/// A change of the spec is written in the tenant within seconds, and its API server takes a
/// policy in within as many.
const SOON: Duration = Duration::from_secs(30);
/// What somebody removes inside is looked at every half minute.
const LOOKED_AT: Duration = Duration::from_secs(60);
/// One that has a limit is measured each minute, and more often near it.
const MEASURED: Duration = Duration::from_secs(90);
const MIB: u64 = 1 << 20;
const POLICY: &str = "steward-write-permissions";
const KIND: &str = "validatingadmissionpolicy";
const BINDING: &str = "validatingadmissionpolicybinding";
/// A creation that stores nothing.
const PROBE: &str = "create configmap probe --dry-run=server";

struct Users<'a> {
    stage: &'a Stage,
    kubeconfig: &'a Path,
}

impl Users<'_> {
    fn ask(&self, command: &str) -> Said {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        self.stage.it.kubectl_with(self.kubeconfig, &arguments)
    }

    fn may(&self, command: &str) {
        let said = self.ask(command);
        assert_eq!(said.code, 0, "{command}: {}", said.text());
    }

    fn may_not(&self, command: &str, verb: &str) {
        let said = self.ask(command);
        let words = format!("{verb} are blocked in this cluster by spec.writePermissions");
        assert_ne!(said.code, 0, "{command} passed");
        assert!(said.stderr.contains(&words), "{command}: {}", said.text());
    }

    /// A policy is in force a moment after it was written.
    async fn until_refused(&self, command: &str) {
        let refused = async || {
            let said = self.ask(command);
            let told = said.stderr.contains("are blocked in this cluster");
            (said.code != 0 && told).then_some(())
        };
        self.stage.it.until(command, SOON, refused).await;
    }
}

fn word(object: &Value) -> &Value {
    &object["status"]["kubernetesResources"]["version"]["status"]
}

/// Asks for it and waits until the tenant says so.
async fn limit(stage: &Stage, story: &Story, blocked: Value, says: &str) -> Duration {
    let began = Instant::now();
    let patch = json!({"spec": {"writePermissions": blocked}});
    stage.it.patch(&tenant_path(NAME), &patch).await.unwrap();
    let said = |object: &Value| {
        word(object) == says
            && object["status"]["observedGeneration"] == object["metadata"]["generation"]
    };
    story.until(began, SOON, says, said).await
}

/// An eviction is a creation by its verb, and a deletion by what it does.
fn evicted(users: &Users) {
    let pod = users.ask("get pods -l app=web -o jsonpath={.items[0].metadata.name}");
    let pod = pod.stdout;
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "default"},
    });
    let file = users.stage.it.files().join("eviction.json");
    std::fs::write(&file, eviction.to_string()).unwrap();
    let path = format!("/api/v1/namespaces/default/pods/{pod}/eviction");
    let command = format!("create --raw {path} -f {}", file.display());
    users.may_not(&command, "deletions");
}

/// Who may remove the policy can, and it is there again.
async fn removed(users: &Users<'_>) {
    let uid = format!("get {BINDING} {POLICY} -o jsonpath={{.metadata.uid}}");
    let before = users.ask(&uid).stdout;
    users.may(&format!("delete {BINDING} {POLICY}"));
    let began = Instant::now();
    let again = async || {
        let said = users.ask(&uid);
        (said.code == 0 && said.stdout != before).then_some(())
    };
    let it = &users.stage.it;
    it.until("the binding is made anew", LOOKED_AT, again).await;
    users.until_refused(PROBE).await;
    let took = seconds(began.elapsed());
    users
        .stage
        .note("a policy that was removed is in force again", took);
}

/// A binding with a parameter that is not there would let everything pass, and so would a
/// condition that is never met, or a refusal that only warns. Apply cannot take away what
/// somebody else has put there, neither a field nor an element of a list.
async fn narrowed(users: &Users<'_>) {
    let kind = r#"{"spec":{"paramKind":{"apiVersion":"v1","kind":"ConfigMap"}}}"#;
    let none = r#"{"spec":{"paramRef":{"name":"none","namespace":"default","parameterNotFoundAction":"Allow"}}}"#;
    let never = r#"[{"op":"add","path":"/spec/matchConditions/-","value":{"name":"x","expression":"false"}}]"#;
    let warns = r#"{"spec":{"validationActions":["Warn"]}}"#;
    let patch = |what: &str, how: &str, patch: &str| {
        users.may(&format!("patch {what} {POLICY} --type={how} -p {patch}"));
    };
    patch(KIND, "merge", kind);
    patch(KIND, "json", never);
    patch(BINDING, "merge", none);
    patch(BINDING, "merge", warns);
    let began = Instant::now();
    let whole = async || {
        let said = |what: &str, field: &str| {
            users.ask(&format!(
                "get {what} {POLICY} -o jsonpath={{.spec.{field}}}"
            ))
        };
        let whole = [
            (said(KIND, "paramKind"), ""),
            (said(KIND, "matchConditions[1:].name"), ""),
            (said(BINDING, "paramRef"), ""),
            (said(BINDING, "validationActions[*]"), "Deny"),
        ];
        let all = whole
            .iter()
            .all(|(it, wanted)| it.code == 0 && it.stdout == *wanted);
        all.then_some(())
    };
    let it = &users.stage.it;
    it.until("the policy is whole", LOOKED_AT, whole).await;
    users.until_refused(PROBE).await;
    let took = seconds(began.elapsed());
    users
        .stage
        .note("a policy that was narrowed is in force again", took);
}

/// Waits until the tenant, as it is, satisfies `test`.
async fn until(
    stage: &Stage,
    what: &str,
    patience: Duration,
    test: impl Fn(&Value) -> bool,
) -> Value {
    let began = Instant::now();
    let look = async || {
        let object = stage.it.get(&tenant_path(NAME)).await.ok()?;
        test(&object).then_some(object)
    };
    let (object, _) = stage.it.until(what, patience, look).await;
    stage.note(format!("tenant {NAME}: {what}"), seconds(began.elapsed()));
    object
}

/// Waits until the condition about the limits has this reason; what it says.
async fn stands(stage: &Stage, reason: &str) -> String {
    let said = |object: &Value| condition(object, "StorageWithinLimits");
    let is = |object: &Value| said(object).is_some_and(|it| it[1] == reason);
    let object = until(stage, reason, MEASURED, is).await;
    said(&object).unwrap()[2].clone()
}

/// It is warned, then refuses to create, and does so no more once enough was deleted.
async fn filled(stage: &Stage, users: &Users<'_>) {
    let usage = |object: &Value| object["status"]["storage"]["usage"]["bytes"].as_u64();
    let measured = |object: &Value| usage(object).is_some();
    let object = until(stage, "measured", MEASURED, measured).await;
    let before = usage(&object).unwrap();
    stage.note(
        "bytes of a tenant with next to nothing in it",
        before.to_string(),
    );
    let store = data_store_path("default");
    // Nobody else has nearly as much.
    let limits = json!({"spec": {"tenantLimits": {"bytes": before + 10 * MIB}}});
    stage.it.patch(&store, &limits).await.unwrap();
    let said = stands(stage, "AsExpected").await;
    assert!(said.contains(" MiB (") && said.contains(" %)"), "{said}");

    let file = stage.it.files().join("megabyte");
    std::fs::write(&file, "x".repeat(1_000_000)).unwrap();
    let file = file.display();
    let create = |number: usize| format!("create configmap big-{number} --from-file={file}");
    for number in 0..9 {
        users.may(&create(number));
    }
    let said = stands(stage, "NearLimit").await;
    assert!(said.contains("raise spec.tenantLimits"), "{said}");
    users.may(&create(9));
    users.may(&create(10));
    let said = stands(stage, "LimitExceeded").await;
    assert!(said.contains("Delete objects"), "{said}");
    for reason in ["NearLimit", "LimitExceeded"] {
        let told = async || {
            let events = stage.events(NAME).await;
            let is = |event: &&[String; 3]| event[0] == "Warning" && event[1] == reason;
            events.iter().find(is).map(drop)
        };
        stage
            .it
            .until(&format!("an Event {reason}"), SOON, told)
            .await;
    }
    users.until_refused(PROBE).await;
    let limited = |object: &Value| word(object) == "WriteLimited";
    until(stage, "WriteLimited", SOON, limited).await;
    let refused = users.ask("create configmap more");
    assert_ne!(refused.code, 0);
    let words = "because its storage limit is exceeded: delete objects";
    assert!(refused.stderr.contains(words), "{}", refused.text());
    // All else goes on.
    users.may("get configmap big-0");
    users.may("annotate configmap big-0 note=x");
    users.may("create token default");
    users.may("-n kube-system create configmap of-the-cluster");
    users.may("-n kube-system delete configmap of-the-cluster");
    for number in 0..5 {
        users.may(&format!("delete configmap big-{number}"));
    }
    stands(stage, "AsExpected").await;
    let lifted = async || (users.ask(PROBE).code == 0).then_some(());
    stage.it.until("creations pass again", SOON, lifted).await;
    let ready = |object: &Value| word(object) == "Ready";
    until(stage, "Ready", SOON, ready).await;

    let none = json!({"spec": {"tenantLimits": null}});
    stage.it.patch(&store, &none).await.unwrap();
    let absent = |object: &Value| condition(object, "StorageWithinLimits").is_none();
    until(stage, "no condition", SOON, absent).await;
}

pub async fn run(stage: &Stage) {
    let story = &stage.tenant(NAME, 1).await;
    let kubeconfig = &stage.it.kubeconfig(NAME);
    let users = Users { stage, kubeconfig };
    // The tenant's controllers have begun.
    let begun = async || (users.ask("get serviceaccount default").code == 0).then_some(());
    let what = "the tenant has its first ServiceAccount";
    stage.it.until(what, SOON, begun).await;
    users.may("create namespace room");
    users.may("create configmap before --from-literal=a=b");
    users.may("create deployment web --image=registry.k8s.io/pause:3.10");

    let began = Instant::now();
    limit(stage, story, json!({"blockCreation": true}), "WriteLimited").await;
    users.until_refused(PROBE).await;
    stage.note("a tenant refuses creations", seconds(began.elapsed()));
    users.may_not("create configmap more", "creations");
    users.may_not("create namespace more", "creations");
    users.may("annotate configmap before note=x");
    users.may("auth can-i create configmaps");
    users.may("create token default");
    users.may("-n kube-system create configmap of-the-cluster");
    // What the controllers of the cluster make goes on.
    users.may("delete pods -l app=web --wait=false");
    let made = async || {
        let get = "get pods -l app=web -o jsonpath={.items[*].metadata.deletionTimestamp}/{.items[*].metadata.name}";
        let said = users.ask(get).stdout;
        said.starts_with('/')
            .then_some(())
            .filter(|()| said.len() > 1)
    };
    stage
        .it
        .until("a pod in place of the deleted one", SOON, made)
        .await;

    removed(&users).await;
    narrowed(&users).await;

    let all = json!({"blockUpdate": true, "blockDeletion": true});
    limit(stage, story, all, "WriteLimited").await;
    users
        .until_refused("delete configmap before --dry-run=server")
        .await;
    users.may_not("create configmap more", "creations");
    users.may_not("annotate configmap before note=y --overwrite", "updates");
    users.may_not("scale deployment web --replicas=2", "updates");
    users.may_not("delete configmap before", "deletions");
    evicted(&users);
    users.may_not("delete namespace room", "deletions");
    users.may("-n kube-system delete configmap of-the-cluster");

    let none = json!({"blockCreation": false, "blockUpdate": false, "blockDeletion": false});
    limit(stage, story, none, "Ready").await;
    let lifted = async || (users.ask("create configmap after").code == 0).then_some(());
    stage.it.until("writes pass again", SOON, lifted).await;
    assert_eq!(
        users
            .ask(&format!("get validatingadmissionpolicy {POLICY}"))
            .code,
        1
    );
    filled(stage, &users).await;
    stage.remove(NAME).await;
}
