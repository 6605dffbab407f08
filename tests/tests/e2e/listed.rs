//! An installation that is limited to listed namespaces: what becomes of tenants in
//! them and elsewhere, and what somebody can do who has the controller's token.
//! Each of these is an upgrade of the installation of all parts, there and back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::join;
use serde_json::{Value, json};
use tests::chart::MADE;
use tests::installed::{SYSTEM, TENANTS, condition, object_path, tenant, tenant_path};
use tests::served::{GROUP_VERSION, Said};

use crate::audit::{API_SERVER, CONTROLLER};
use crate::dump;
use crate::life::seconds;
use crate::stage::{BACK, COMING, GONE, Stage, absent};

/// The only namespace with tenants.
const LISTED: &str = "listed";
/// A tenant there.
const INSIDE: &str = "inside";
/// Two that stand elsewhere already: one is deleted meanwhile, one is not.
const DELETED: &str = "outside-1";
const KEPT: &str = "outside-2";

pub async fn run(stage: &Stage) {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": LISTED, "labels": {MADE: "true"}},
    });
    stage.it.apply(&namespace.to_string());
    let (_, kept) = join!(stage.tenant(DELETED, 1), stage.tenant(KEPT, 1));
    let pods = uids(stage, KEPT).await;
    let kubeconfig = stage.it.kubeconfig(KEPT);

    let began = Instant::now();
    stage
        .it
        .upgrade(&format!("tenantNamespaces=[\"{LISTED}\"]"));
    only_one_controller(stage).await;
    stage.note("upgrade to listed namespaces", seconds(began.elapsed()));
    let audit = stage.audit("listed::forbidden");

    // What stands elsewhere is told so, and goes on.
    let took = kept
        .says(began, COMING, "Ready", "Unknown", "NamespaceNotServed")
        .await;
    stage.note("told: out of the list (from the upgrade on)", seconds(took));
    let asked = || stage.it.kubectl_with(&kubeconfig, &["get", "namespaces"]);
    assert_eq!(asked().code, 0, "{}", asked().text());

    refused_elsewhere(stage).await;
    Thief::new(stage).tries();
    assert!(!in_etcd(stage, TENANTS, DELETED).await.is_empty());
    let began = Instant::now();
    stage.it.delete(&tenant_path(DELETED)).await.unwrap();
    join!(inside(stage), deleted(stage, began));

    if let Some(audit) = audit {
        let requests = audit.since(&[CONTROLLER, API_SERVER]);
        // The thief has the same name and another program.
        let own = requests
            .iter()
            .filter(|it| !it.user_agent.starts_with("kubectl"));
        let forbidden: Vec<_> = own
            .filter(|it| it.response_status.code == 403)
            .map(|it| format!("{}: {}", it.user.username, it.line()))
            .collect();
        assert!(forbidden.is_empty(), "forbidden to us:\n{forbidden:#?}");
    }

    come(stage).await;
    without_role(stage).await;
    ending(stage).await;

    // Back, and nothing has happened to the one that stood elsewhere.
    assert_eq!(uids(stage, KEPT).await, pods);
    let began = Instant::now();
    stage.it.upgrade("tenantNamespaces=[]");
    only_one_controller(stage).await;
    let took = kept.ready(began, COMING).await;
    stage.note(
        "Ready again: back on the list (from the upgrade on)",
        seconds(took),
    );
    assert_eq!(uids(stage, KEPT).await, pods);
    assert_eq!(asked().code, 0, "{}", asked().text());
    stage.remove(KEPT).await;
}

/// The pods of a tenant.
async fn uids(stage: &Stage, tenant: &str) -> Vec<Value> {
    let pods = stage.pods_of(tenant).await;
    assert!(!pods.is_empty(), "{tenant} has no pods");
    pods.into_iter()
        .map(|mut pod| pod["metadata"]["uid"].take())
        .collect()
}

/// The one of before had its watches for a moment without the rights.
async fn only_one_controller(stage: &Stage) {
    let label = "app.kubernetes.io/component=controller";
    let one = || async { (stage.pods(SYSTEM, label).await.len() == 1).then_some(()) };
    stage
        .it
        .until("the old controller has ended", GONE, one)
        .await;
    let path = tenant_path(KEPT);
    let served = || async { stage.it.get(&path).await.ok() };
    stage.it.until("the API answers", BACK, served).await;
}

fn inside_path() -> String {
    format!("{GROUP_VERSION}/namespaces/{LISTED}/tenantcontrolplanes/{INSIDE}")
}

/// Makes the tenant in the listed namespace; how long it took until it was Ready.
async fn come(stage: &Stage) -> Duration {
    let mut manifest = tenant(INSIDE, 1);
    manifest["metadata"]["namespace"] = json!(LISTED);
    let began = Instant::now();
    stage.it.apply(&manifest.to_string());
    let ready = || async {
        let object = stage.it.get(&inside_path()).await.ok()?;
        let [status, ..] = condition(&object, "Ready")?;
        (status == "True").then_some(())
    };
    stage
        .it
        .until("the tenant in the listed namespace is Ready", COMING, ready)
        .await;
    began.elapsed()
}

/// A controller that starts where the Role of a listed namespace is not bound says so of
/// the tenants there, and is ready for the others; with the binding it goes on.
async fn without_role(stage: &Stage) {
    let path = object_path(LISTED, "rolebindings", "steward-controller-tenants");
    let mut binding = stage.it.get(&path).await.unwrap();
    binding["metadata"] = json!({
        "name": binding["metadata"]["name"],
        "namespace": LISTED,
        "labels": binding["metadata"]["labels"],
        "annotations": binding["metadata"]["annotations"],
    });
    let before = deployment(stage).await;
    stage.it.delete(&path).await.unwrap();
    let restart = [
        "-n",
        SYSTEM,
        "rollout",
        "restart",
        "deploy/steward-controller",
    ];
    stage.it.kubectl(&restart);
    let says = |status: &'static str, reason: &'static str| async move {
        let object = stage.it.get(&inside_path()).await.ok()?;
        let ready = condition(&object, "Ready")?;
        (ready[0] == status && ready[1] == reason).then_some(())
    };
    let told = async || says("Unknown", "NamespaceNotServed").await;
    let what = "it is told that the rights are missing";
    let (_, took) = stage.it.until(what, COMING, told).await;
    stage.note(
        "told: no rights in a listed namespace (from a restart on)",
        seconds(took),
    );
    let status = [
        "-n",
        SYSTEM,
        "rollout",
        "status",
        "deploy/steward-controller",
    ];
    stage
        .it
        .kubectl(&[&status[..], &["--timeout=60s"]].concat());

    let given = Instant::now();
    stage.it.apply(&binding.to_string());
    let ready = async || says("True", "Ready").await;
    stage.it.until("it is Ready again", COMING, ready).await;
    stage.note("Ready again: the rights are back", seconds(given.elapsed()));
    assert_eq!(deployment(stage).await, before);
}

/// Uid and generation of the Deployment of the tenant in the listed namespace.
async fn deployment(stage: &Stage) -> [Value; 2] {
    let path = object_path(LISTED, "deployments", INSIDE);
    let mut object = stage.it.get(&path).await.unwrap();
    ["uid", "generation"].map(|key| object["metadata"][key].take())
}

/// A namespace that is deleted loses its Roles among the first. Its tenant goes all
/// the same, and with it the namespace.
/// R8.4, R8.5.
async fn ending(stage: &Stage) {
    let began = Instant::now();
    let namespace = format!("/api/v1/namespaces/{LISTED}");
    stage.it.delete(&namespace).await.unwrap();
    let gone = || async { stage.absent(&namespace).await.then_some(()) };
    let patience = 2 * GONE;
    stage
        .it
        .until("the listed namespace is gone", patience, gone)
        .await;
    stage.note(
        "deletion of a listed namespace with a tenant",
        seconds(began.elapsed()),
    );
    let left = in_etcd(stage, LISTED, INSIDE).await;
    assert!(left.is_empty(), "{left:?}");
}

/// What etcd has of a tenant.
async fn in_etcd(stage: &Stage, namespace: &str, name: &str) -> Vec<String> {
    let schema = format!("{namespace}_{}", name.replace('-', "_"));
    let mut lines = dump::etcd(stage).await;
    lines.retain(|line| line.contains(&schema));
    lines
}

/// The life of a tenant in the listed namespace.
async fn inside(stage: &Stage) {
    let took = come(stage).await;
    stage.note("a tenant in a listed namespace until Ready", seconds(took));
    assert!(!in_etcd(stage, LISTED, INSIDE).await.is_empty());
    let get = [
        "-n",
        LISTED,
        "get",
        "tcp",
        INSIDE,
        "--subresource=kubeconfig",
    ];
    let minted = stage.it.kubectl(&[&get[..], &["-o", "yaml"]].concat());
    let kubeconfig = stage.it.files().join("inside.kubeconfig");
    std::fs::write(&kubeconfig, minted).unwrap();
    let make = ["create", "configmap", "it-works"];
    let said = stage.it.kubectl_with(&kubeconfig, &make);
    assert_eq!(said.code, 0, "{}", said.text());

    let began = Instant::now();
    stage.it.delete(&inside_path()).await.unwrap();
    let gone = || async { absent(&stage.it.get(&inside_path()).await).then_some(()) };
    stage
        .it
        .until("the tenant in the listed namespace is gone", GONE, gone)
        .await;
    stage.note("its deletion", seconds(began.elapsed()));
    for resource in ["deployments", "secrets", "services", "roles", "pods"] {
        let path = format!(
            "{}?labelSelector=steward.butlerlabs.dev%2Fname%3D{INSIDE}",
            object_path(LISTED, resource, "")
        );
        let none = || async {
            let list = stage.it.get(&path).await.ok()?;
            list["items"].as_array()?.is_empty().then_some(())
        };
        let what = format!("no {resource} are left of {INSIDE}");
        stage.it.until(&what, GONE, none).await;
    }
}

/// A tenant that stands elsewhere can be deleted: its data by the controller, its
/// objects by the garbage collector.
async fn deleted(stage: &Stage, began: Instant) {
    let path = tenant_path(DELETED);
    let gone = || async { stage.absent(&path).await.then_some(()) };
    let what = format!("tenant {DELETED} is gone");
    stage.it.until(&what, GONE, gone).await;
    stage.note(
        "deletion of a tenant out of the list",
        seconds(began.elapsed()),
    );
    let collected = || async {
        let pods = stage.pods_of(DELETED).await.is_empty();
        let deployment = stage.object("deployments", DELETED).await.is_none();
        (pods && deployment).then_some(())
    };
    let patience = GONE + Duration::from_secs(30);
    stage
        .it
        .until("its objects are collected", patience, collected)
        .await;
    stage.note("its objects collected", seconds(began.elapsed()));
    // Its names are kept while pods may still run that nobody sees.
    let clean = || async {
        let left = in_etcd(stage, TENANTS, DELETED).await;
        left.is_empty().then_some(())
    };
    let patience = Duration::from_secs(180);
    stage
        .it
        .until("nothing of it is in etcd", patience, clean)
        .await;
    stage.note("its data and claim gone", seconds(began.elapsed()));
}

/// No tenant is made where the controller could do nothing for it.
async fn refused_elsewhere(stage: &Stage) {
    let made = stage
        .it
        .post(tenant_path("").trim_end_matches('/'), &tenant("another", 1))
        .await;
    let Err(kube::Error::Api(status)) = made else {
        panic!("a tenant out of the list was not refused: {made:?}");
    };
    assert_eq!(status.code, 403, "{status:?}");
    assert!(status.message.contains("tenantNamespaces"), "{status:?}");
}

/// Somebody with the token of steward-controller.
struct Thief<'a> {
    stage: &'a Stage,
    kubeconfig: PathBuf,
}

impl<'a> Thief<'a> {
    fn new(stage: &'a Stage) -> Self {
        let token = ["-n", SYSTEM, "create", "token", "steward-controller"];
        let token = stage.it.kubectl(&token);
        let view = ["config", "view", "--raw", "--minify", "-o", "json"];
        let mut config: Value = serde_json::from_str(&stage.it.kubectl(&view)).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = stage.it.files().join("thief.kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self { stage, kubeconfig }
    }

    fn says(&self, arguments: &str) -> Said {
        let words: Vec<&str> = arguments.split(' ').collect();
        let kubeconfig: &Path = &self.kubeconfig;
        self.stage.it.kubectl_with(kubeconfig, &words)
    }

    fn tries(&self) {
        let forbidden = [
            // Secrets of the cluster, of the installation, of tenants elsewhere.
            "get secrets -A".to_owned(),
            "get secrets -n kube-system".to_owned(),
            format!("get secrets -n {SYSTEM}"),
            format!(
                "get secrets -n {SYSTEM} --field-selector=metadata.name=steward-apiserver-serving"
            ),
            format!("get secret steward-etcd-certs -n {SYSTEM}"),
            format!("get secrets -n {TENANTS}"),
            format!("get secret {KEPT}-ca -n {TENANTS}"),
            format!("get secret {KEPT}-admin-kubeconfig -n {TENANTS}"),
            format!("get configmaps,services,deployments,pods,events -n {TENANTS}"),
            // Pods, and what makes pods.
            format!("run attack --image=i -n {TENANTS}"),
            format!("run attack --image=i -n {SYSTEM}"),
            format!("run attack --image=i -n {LISTED}"),
            format!("create deployment attack --image=i -n {TENANTS}"),
            format!("create deployment attack --image=i -n {SYSTEM}"),
            format!("scale deployment {KEPT} --replicas=0 -n {TENANTS}"),
            format!("delete deployment {KEPT} -n {TENANTS}"),
            format!("delete secret {KEPT}-ca -n {TENANTS}"),
            // Ways to more rights.
            format!("create token default -n {TENANTS}"),
            format!("create role attack --verb=get --resource=secrets -n {TENANTS}"),
            "create clusterrolebinding attack --clusterrole=cluster-admin --user=me".to_owned(),
        ];
        for attack in &forbidden {
            let said = self.says(attack);
            assert_ne!(said.code, 0, "{attack}: {}", said.text());
            assert!(
                said.stderr.contains("orbidden"),
                "{attack}: {}",
                said.text()
            );
            assert!(said.stdout.is_empty(), "{attack}: {}", said.text());
        }
        // What is left, so that it is known: the listed namespace, and the Secret by
        // which the controller reaches the datastore.
        for left in [
            format!("get secrets,deployments,pods -n {LISTED}"),
            format!("get secrets -n {SYSTEM} --field-selector=metadata.name=steward-etcd-certs"),
        ] {
            let said = self.says(&left);
            assert_eq!(said.code, 0, "{left}: {}", said.text());
        }
        let said = self.says(&format!("create deployment attack --image=i -n {LISTED}"));
        assert!(
            said.stderr
                .contains("only objects that a TenantControlPlane controls"),
            "{}",
            said.text()
        );
        let count = forbidden.len() + 1;
        self.stage.note(
            "with the controller's token",
            format!("{count} attacks, all refused"),
        );
    }
}
