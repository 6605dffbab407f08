//! A tenant of Kamaji's is brought here while somebody works in it: its data, its authority and
//! the kubeconfigs that people have stay as they are.
//!
//! Kamaji itself is not at hand. Its kinds are CRDs with any fields, and its tenant is one of
//! ours that is given the labels, owners and names that Kamaji gives, without our claim.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use etcd_client::{Permission, RoleRevokePermissionOptions};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tests::installed::{
    SYSTEM, TENANTS, data_store_path, decoded, object_path, of_etcd, tenant_path,
};

use crate::life::seconds;
use crate::stage::{COMING, GONE, Stage};

const NAME: &str = "brought";
const STORE: &str = "theirs";
const KAMAJI: &str = "/apis/kamaji.clastix.io/v1alpha1";
/// No request may be without an answer for longer: a roll of one replica, on a busy machine.
const SILENCE: Duration = Duration::from_secs(10);
const JOB: Duration = Duration::from_secs(90);

pub async fn run(stage: &Stage) {
    drop(stage.tenant(NAME, 1).await);
    let kamaji = give_away(stage).await;
    let uid = kamaji["metadata"]["uid"].as_str().unwrap().to_owned();
    let ca = secret(stage, "ca").await["data"].clone();
    let worker = Worker::begin(client(stage).await);

    // What is not meant is not done, and nothing is done unasked.
    let said = import(
        stage,
        "check",
        &["--from=kamaji", "--operator=kamaji/kamaji"],
    )
    .await;
    assert!(said.contains("would import"), "{said}");
    assert!(stage.absent(&tenant_path(NAME)).await);
    let services = stage.object("services", NAME).await.unwrap();
    assert_eq!(
        services["spec"]["selector"],
        json!({"kamaji.clastix.io/name": NAME})
    );

    let began = Instant::now();
    let write = ["--from=kamaji", "--operator=kamaji/kamaji", "--write"];
    kill(stage, &write).await;
    let said = import(stage, "write", &write).await;
    let done = ["brought: imported", "brought: already there"];
    assert!(done.iter().any(|it| said.contains(it)), "{said}");
    let story = stage.story(NAME);
    let took = story.ready(began, COMING).await;
    stage.note("a tenant of Kamaji's is imported and Ready", seconds(took));
    let ours = stage.it.get(&tenant_path(NAME)).await.unwrap();
    assert_eq!(ours["metadata"]["uid"], uid.as_str());
    let rolled = async || {
        let pods = stage.pods_of(NAME).await;
        let new = |pod: &Value| pod["metadata"]["labels"]["kamaji.clastix.io/name"].is_null();
        (pods.len() == 1 && pods.iter().all(new)).then_some(())
    };
    stage.it.until("its pods are ours", COMING, rolled).await;

    let before = versions(stage).await;
    let said = import(stage, "again", &write).await;
    assert!(said.contains("brought: already there"), "{said}");
    assert_eq!(
        versions(stage).await,
        before,
        "the second time changes nothing"
    );

    let finish = [&write[..], &["--finish"]].concat();
    let said = import(stage, "finish", &finish).await;
    assert!(said.contains("brought: removed"), "{said}");
    let theirs = format!("{KAMAJI}/namespaces/{TENANTS}/tenantcontrolplanes/{NAME}");
    let gone = async || stage.absent(&theirs).await.then_some(());
    stage
        .it
        .until("the object of Kamaji's is gone", GONE, gone)
        .await;
    // The garbage collector has had its time.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        secret(stage, "ca").await["data"],
        ca,
        "the authority is the same"
    );
    let (written, silence) = worker.end(client(stage).await).await;
    stage.note("requests answered in it meanwhile", written.to_string());
    stage.note("longest time without an answer", seconds(silence));
    assert!(silence < SILENCE, "{silence:?}");

    drop(story);
    stage.remove(NAME).await;
    stage.it.delete(&data_store_path(STORE)).await.unwrap();
    for kind in ["tenantcontrolplanes", "datastores"] {
        let crd = format!("{kind}.kamaji.clastix.io");
        stage.it.kubectl(&["delete", "crd", &crd]);
    }
    stage
        .it
        .kubectl(&["delete", "clusterrolebinding", "import"]);
    stage
        .it
        .kubectl(&["-n", SYSTEM, "delete", "serviceaccount", "import"]);
}

async fn secret(stage: &Stage, part: &str) -> Value {
    stage
        .object("secrets", &format!("{NAME}-{part}"))
        .await
        .unwrap()
}

/// Versions of what the tenant is made of.
async fn versions(stage: &Stage) -> Vec<Value> {
    let mut all = Vec::new();
    for (resource, name) in [
        ("secrets", format!("{NAME}-ca")),
        ("secrets", format!("{NAME}-datastore-config")),
        ("services", NAME.to_owned()),
    ] {
        let object = stage.object(resource, &name).await.unwrap();
        all.push(object["metadata"]["resourceVersion"].clone());
    }
    all
}

/// The kubeconfig that Kamaji's administrators have.
async fn client(stage: &Stage) -> Client {
    let text = decoded(&secret(stage, "admin-kubeconfig").await["data"]["admin.conf"]);
    let file = Kubeconfig::from_yaml(&String::from_utf8(text).unwrap()).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.read_timeout = Some(Duration::from_secs(2));
    config.connect_timeout = Some(Duration::from_secs(1));
    Client::try_from(config).unwrap()
}

/// Makes one of our tenants one of Kamaji's; the object that Kamaji has of it.
async fn give_away(stage: &Stage) -> Value {
    let it = &stage.it;
    let crd = |kind: &str, plural: &str, scope: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.kamaji.clastix.io")},
            "spec": {
                "group": "kamaji.clastix.io", "scope": scope,
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    },
                }}],
            },
        })
    };
    for manifest in [
        crd("TenantControlPlane", "tenantcontrolplanes", "Namespaced"),
        crd("DataStore", "datastores", "Cluster"),
    ] {
        it.apply(&manifest.to_string());
    }
    let waiting = [
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd",
    ];
    for plural in ["tenantcontrolplanes", "datastores"] {
        it.kubectl(&[&waiting[..], &[&format!("{plural}.kamaji.clastix.io")]].concat());
    }
    it.kubectl(&["-n", SYSTEM, "create", "serviceaccount", "import"]);
    let account = format!("--serviceaccount={SYSTEM}:import");
    let binding = [
        "create",
        "clusterrolebinding",
        "import",
        "--clusterrole=cluster-admin",
    ];
    it.kubectl(&[&binding[..], &[&account]].concat());

    let default = it.get(&data_store_path("default")).await.unwrap();
    let store = json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore",
        "metadata": {"name": STORE, "finalizers": ["kamaji.clastix.io/TenantControlPlane"]},
        "spec": default["spec"],
    });
    it.post(&format!("{KAMAJI}/datastores"), &store)
        .await
        .unwrap();
    let controller = object_path(SYSTEM, "deployments", "steward-controller");
    let before = it.get(&controller).await.unwrap()["spec"]["replicas"].clone();
    let replicas = |count: &Value| json!({"spec": {"replicas": count}});
    it.patch(&controller, &replicas(&json!(0))).await.unwrap();
    let pods = async || {
        let pods = stage
            .pods(SYSTEM, "app.kubernetes.io/component=controller")
            .await;
        pods.is_empty().then_some(())
    };
    it.until("the controller has stopped", GONE, pods).await;

    let ours = it.get(&tenant_path(NAME)).await.unwrap();
    let setup = &ours["status"]["storage"]["setup"];
    let (schema, user) = (
        setup["schema"].as_str().unwrap(),
        setup["user"].as_str().unwrap(),
    );
    let mut spec = ours["spec"].clone();
    spec["dataStore"] = json!(STORE);
    let theirs = json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {
            "name": NAME, "namespace": TENANTS,
            "finalizers": ["finalizer.kamaji.clastix.io", "finalizer.kamaji.clastix.io/soot"],
        },
        "spec": spec,
        "status": {"storage": {
            "dataStoreName": STORE, "setup": {"schema": schema, "user": user},
        }},
    });
    let path = format!("{KAMAJI}/namespaces/{TENANTS}/tenantcontrolplanes");
    let theirs = it.post(&path, &theirs).await.unwrap();
    owned(stage, &theirs).await;
    let leave = json!({"metadata": {"finalizers": []}});
    it.patch(&tenant_path(NAME), &leave).await.unwrap();
    it.delete(&tenant_path(NAME)).await.unwrap();

    // Its place in etcd: the role has the schema's name, and nobody has claimed anything.
    let mut root = it.etcd().await;
    let role = format!("{schema}/{}", ours["metadata"]["uid"].as_str().unwrap());
    let (from, to) = (format!("/{schema}/"), format!("/{schema}0"));
    let grant = Permission::read_write(from.as_str()).with_range_end(to.as_str());
    of_etcd(async || root.role_add(schema).await).await.unwrap();
    of_etcd(async || root.role_grant_permission(schema, grant.clone()).await)
        .await
        .unwrap();
    of_etcd(async || root.user_grant_role(user, schema).await)
        .await
        .unwrap();
    of_etcd(async || root.user_revoke_role(user, role.as_str()).await)
        .await
        .unwrap();
    let whole = RoleRevokePermissionOptions::new().with_range_end(to.as_str());
    of_etcd(async || {
        let (role, from) = (role.as_str(), from.as_str());
        root.role_revoke_permission(role, from, Some(whole.clone()))
            .await
    })
    .await
    .unwrap();
    of_etcd(async || root.role_delete(role.as_str()).await)
        .await
        .unwrap();
    for (kind, name) in [("schema", schema), ("user", user)] {
        let key = format!("/steward.butlerlabs.dev/claims/{kind}/{name}");
        of_etcd(async || root.delete(key.as_str(), None).await)
            .await
            .unwrap();
    }
    it.patch(&controller, &replicas(&before)).await.unwrap();
    let ready = [
        "-n",
        SYSTEM,
        "rollout",
        "status",
        "deployment/steward-controller",
    ];
    it.kubectl(&[&ready[..], &["--timeout=60s"]].concat());
    theirs
}

/// The objects as Kamaji labels them, and its own Deployment.
async fn owned(stage: &Stage, theirs: &Value) {
    let it = &stage.it;
    let owner = json!([{
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane", "name": NAME,
        "uid": theirs["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }]);
    let list = |resource: &str| object_path(TENANTS, resource, "");
    let label = format!("labelSelector=steward.butlerlabs.dev%2Fname%3D{NAME}");
    for resource in ["secrets", "configmaps", "services", "deployments"] {
        let found = it
            .get(&format!("{}?{label}", list(resource)))
            .await
            .unwrap();
        for object in found["items"].as_array().unwrap() {
            let meta = &object["metadata"];
            let name = meta["name"].as_str().unwrap();
            let component = &meta["labels"]["steward.butlerlabs.dev/component"];
            let patch = json!({"metadata": {
                "ownerReferences": owner,
                "labels": {
                    "steward.butlerlabs.dev/name": null,
                    "steward.butlerlabs.dev/project": null,
                    "steward.butlerlabs.dev/component": null,
                    "kamaji.clastix.io/name": NAME,
                    "kamaji.clastix.io/project": "kamaji",
                    "kamaji.clastix.io/component": component,
                },
                "annotations": {
                    "steward.butlerlabs.dev/ran": null,
                    "steward.butlerlabs.dev/applied": null,
                },
            }});
            it.patch(&object_path(TENANTS, resource, name), &patch)
                .await
                .unwrap();
        }
    }
    let config = object_path(TENANTS, "secrets", &format!("{NAME}-datastore-config"));
    let kept = json!({"metadata": {
        "finalizers": ["finalizer.kamaji.clastix.io/datastore-secret"],
    }});
    it.patch(&config, &kept).await.unwrap();
    // Kamaji has no authority for minted kubeconfigs; what runs has a copy of it.
    let mut copy = secret(stage, "client-ca").await;
    copy["metadata"] = json!({"name": "their-client-ca", "namespace": TENANTS});
    it.post(&list("secrets"), &copy).await.unwrap();
    let path = object_path(TENANTS, "deployments", NAME);
    let running = it.get(&path).await.unwrap();
    let mut template = running["spec"]["template"].clone();
    template["metadata"] = json!({"labels": {"kamaji.clastix.io/name": NAME}});
    let template = template
        .to_string()
        .replace(&format!("{NAME}-client-ca"), "their-client-ca")
        .replace("steward.butlerlabs.dev/name", "kamaji.clastix.io/name");
    let template: Value = serde_json::from_str(&template).unwrap();
    let delete = [
        "-n",
        TENANTS,
        "delete",
        "deployment",
        NAME,
        "--cascade=foreground",
    ];
    it.kubectl(&delete);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": NAME, "namespace": TENANTS, "ownerReferences": owner,
            "labels": {"kamaji.clastix.io/name": NAME, "kamaji.clastix.io/project": "kamaji"},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"kamaji.clastix.io/name": NAME}},
            "template": template,
        },
    });
    it.post(&list("deployments"), &deployment).await.unwrap();
    let gone = object_path(TENANTS, "secrets", &format!("{NAME}-client-ca"));
    it.delete(&gone).await.unwrap();
    let selector = json!({"spec": {"selector": {
        "steward.butlerlabs.dev/name": null, "kamaji.clastix.io/name": NAME,
    }}});
    it.patch(&object_path(TENANTS, "services", NAME), &selector)
        .await
        .unwrap();
    let up = [
        "-n",
        TENANTS,
        "rollout",
        "status",
        &format!("deployment/{NAME}"),
        "--timeout=90s",
    ];
    it.kubectl(&up);
}

/// A pod that runs `import`, as an administrator's; its path.
async fn begin(stage: &Stage, name: &str, arguments: &[&str]) -> String {
    let controller = object_path(SYSTEM, "deployments", "steward-controller");
    let controller = stage.it.get(&controller).await.unwrap();
    let image = &controller["spec"]["template"]["spec"]["containers"][0]["image"];
    let arguments = [&["import"], arguments].concat();
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "serviceAccountName": "import", "restartPolicy": "Never",
            "containers": [{"name": "import", "image": image, "args": arguments}],
        },
    });
    let all = object_path(SYSTEM, "pods", "");
    stage.it.post(&all, &manifest).await.unwrap();
    format!("{all}/{name}")
}

async fn phase(stage: &Stage, path: &str, wanted: &[&str]) -> String {
    let reached = async || {
        let pod = stage.it.get(path).await.ok()?;
        let phase = pod["status"]["phase"].as_str()?.to_owned();
        wanted.contains(&&*phase).then_some(phase)
    };
    stage.it.until("the pod of import", JOB, reached).await.0
}

/// Kills one soon after it began, wherever it is. By its process: deleting the pod would leave it
/// time to go on beside the next one.
async fn kill(stage: &Stage, arguments: &[&str]) {
    let path = begin(stage, "import-killed", arguments).await;
    phase(stage, &path, &["Running", "Succeeded", "Failed"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pod = stage.it.get(&path).await.unwrap();
    for process in stage.processes(&pod, "steward-control") {
        process.kill();
    }
    let ended = phase(stage, &path, &["Succeeded", "Failed"]).await;
    stage.note("the import that is killed has by then", ended);
    stage.it.delete(&path).await.unwrap();
}

/// Runs `import` to its end; what it said.
async fn import(stage: &Stage, name: &str, arguments: &[&str]) -> String {
    let name = format!("import-{name}");
    let path = begin(stage, &name, arguments).await;
    let phase = phase(stage, &path, &["Succeeded", "Failed"]).await;
    let said = stage.it.kubectl(&["-n", SYSTEM, "logs", &name]);
    println!("    import {}:\n{said}", arguments.join(" "));
    stage.it.delete(&path).await.unwrap();
    assert_eq!(phase, "Succeeded", "{said}");
    said
}

/// Somebody who writes and reads in the tenant all the time.
struct Worker {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(u64, Duration)>,
}

impl Worker {
    fn begin(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let api: Api<ConfigMap> = Api::default_namespaced(client);
            let (mut written, mut silence, mut last) = (0, Duration::ZERO, Instant::now());
            while !stopped.load(SeqCst) {
                let next = (written + 1).to_string();
                let patch = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"},
                    "data": {"count": next},
                });
                let params = PatchParams::apply("e2e");
                let done = api.patch("kept", &params, &Patch::Apply(&patch)).await;
                let read = api.get("kept").await;
                let is_read = |it: ConfigMap| it.data.is_some_and(|it| it["count"] == next);
                if done.is_ok() && read.is_ok_and(is_read) {
                    written += 1;
                    silence = silence.max(last.elapsed());
                    last = Instant::now();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (written, silence.max(last.elapsed()))
        });
        Self { stop, task }
    }

    /// How much was written, which is there, and the longest time without an answer.
    async fn end(self, client: Client) -> (u64, Duration) {
        self.stop.store(true, SeqCst);
        let (written, silence) = self.task.await.unwrap();
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let kept = api.get("kept").await.unwrap();
        let count: u64 = kept.data.unwrap()["count"].parse().unwrap();
        // One may have been written whose answer was lost.
        assert!(written > 0 && count >= written, "{count} of {written}");
        (written, silence)
    }
}
