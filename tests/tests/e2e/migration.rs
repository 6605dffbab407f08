//! A tenant's data moves between databases of every driver while the tenant is used:
//! nothing that was acknowledged is lost, nothing comes that was not written, clients
//! that watch miss nothing, and a machine that has joined notices nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use apiservice::names;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use storage::tenancy::{self, Stage as ClaimStage};
use tests::installed::{SYSTEM, data_store_path, tenant, tenant_path};
use tests::lab::Worker;

use crate::database::{DATABASES, Database, KINDS};
use crate::life::seconds;
use crate::stage::{BACK, COMING, Stage};
use crate::story::{Story, is};
use crate::workers::{CONFIGURED, Tenant};

const NAME: &str = "moving";
/// How long a move may take in which nothing is in the way.
const MOVED: Duration = Duration::from_secs(150);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

pub async fn run(stage: &Stage) {
    let Some(lab) = stage.lab("migration", DATABASES) else {
        return;
    };
    let databases = KINDS.map(|kind| Database::start(lab, kind));
    let nats = Database::start_nats(lab);
    for database in databases.iter().chain([&nats]) {
        database.provide(stage).await;
    }
    let [first, second] = &databases;
    used(
        stage,
        &lab.worker(1).await.unwrap(),
        [&first.store(), &second.store(), &nats.store()],
    )
    .await;
    called_off(stage, first).await;
    asleep(stage, second).await;
    for database in databases.iter().chain([&nats]) {
        database.remove(stage).await;
    }
}

/// From etcd through both databases and NATS, and back.
async fn used(stage: &Stage, worker: &Worker, stores: [&String; 3]) {
    let mut manifest = tenant(NAME, 1);
    manifest["metadata"]["annotations"] =
        json!({names::ANNOTATION_MIGRATION_SOURCE_RETENTION: "0s"});
    let began = Instant::now();
    stage.create(&manifest).await;
    let story = stage.tenant(NAME, 1).await;
    let told = "ClusterConfigured";
    story
        .says(began, CONFIGURED, told, "True", "AsExpected")
        .await;
    let user = Tenant {
        stage,
        name: NAME,
        kubeconfig: stage.it.kubeconfig(NAME),
    };
    user.joins(worker).await;
    user.done(&[
        "create",
        "deployment",
        "here",
        "--image=busybox:1.35",
        "--",
        "sleep",
        "100000",
    ]);
    user.available("default", "here").await;
    let pod = [
        "get",
        "pods",
        "-l",
        "app=here",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ];
    let before = user.done(&pod);

    let client = client(&user).await;
    let writer = Writer::begin(client.clone());
    let informer = Informer::begin(client.clone());
    let [first, second, nats] = stores.map(String::as_str);
    // Last, since kine of NATS ends no lease that it finds.
    let way = ["default", second, first, nats, "default"];
    for pair in way.windows(2) {
        moves(stage, &story, pair[0], pair[1]).await;
        writer.writes_on().await;
    }
    let book = writer.end().await;
    stage.note(
        "the longest time without a write",
        seconds(book.longest_silence),
    );
    book.is_kept(&client).await;
    informer.knows_all(&client).await;
    assert_eq!(
        user.done(&pod),
        before,
        "pods were made anew:\n{}",
        user.done(&["describe", "pods"])
    );
    let said = user.done(&["exec", "deploy/here", "--", "echo", "here"]);
    assert_eq!(said.trim(), "here");
    stage.remove(NAME).await;
}

/// One move, and what is said of it.
async fn moves(stage: &Stage, story: &Story, from: &str, to: &str) {
    let began = Instant::now();
    let patch = json!({"spec": {"dataStore": to}});
    stage.it.patch(&tenant_path(NAME), &patch).await.unwrap();
    let what = format!("moved from {from} to {to}");
    let took = story
        .until(began, MOVED, &what, |object| {
            let migration = &object["status"]["migration"];
            migration["phase"] == "Completed" && migration["target"] == to
        })
        .await;
    story.ready(began + took, BACK).await;
    let done = story.last().unwrap();
    let migration = &done["status"]["migration"];
    assert_eq!(migration["source"], from);
    assert_eq!(migration["digest"].as_str().map(str::len), Some(64));
    assert_eq!(done["status"]["storage"]["dataStoreName"], to);
    assert!(is(&done, "Migrating", "False", "Migrated"), "{done:#}");
    let phases: Vec<String> = story
        .since(began)
        .iter()
        .filter_map(|it| {
            it.object["status"]["migration"]["phase"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert!(phases.contains(&"Switching".to_owned()), "{phases:?}");
    // Ready does not say that what cannot be written can.
    let lied = story.since(began).into_iter().find(|it| {
        let phase = &it.object["status"]["migration"]["phase"];
        ["Freezing", "Verifying"].iter().any(|it| phase == it)
            && is(&it.object, "Ready", "True", "")
    });
    assert!(lied.is_none(), "{:#}", lied.unwrap().object);
    let unready = unready(story, began);
    stage.note(
        format!("{from} to {to}: asked until the tenant is Ready there"),
        format!(
            "{} (data frozen {} ms, not Ready {}, {} objects)",
            seconds(took),
            migration["frozenMilliseconds"],
            seconds(unready),
            migration["totalKeys"],
        ),
    );
    // Asked for at once, the copy that was left goes.
    let clean = || async {
        let store = stage.it.get(&data_store_path(from)).await.unwrap();
        let pending = store["status"]["pendingCleanups"]
            .as_array()
            .map_or(0, Vec::len);
        (pending == 0).then_some(())
    };
    stage
        .it
        .until(
            &format!("nothing is left in {from}"),
            Duration::from_secs(60),
            clean,
        )
        .await;
}

/// How long the tenant was not Ready since an instant.
fn unready(story: &Story, since: Instant) -> Duration {
    let moments = story.since(since);
    let mut unready = Duration::ZERO;
    for pair in moments.windows(2) {
        if !is(&pair[0].object, "Ready", "True", "") {
            unready += pair[1].at - pair[0].at;
        }
    }
    unready
}

/// A move that waits, and one that is under way while the controller is killed.
async fn called_off(stage: &Stage, database: &Database) {
    let name = "stays";
    let story = stage.tenant(name, 1).await;
    let path = tenant_path(name);
    let uid = story.last().unwrap()["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let to = |store: &str| json!({"spec": {"dataStore": store}});

    let began = Instant::now();
    stage.it.patch(&path, &to("nowhere")).await.unwrap();
    let waits = |object: &Value| {
        let migration = &object["status"]["migration"];
        migration["phase"] == "Pending"
            && migration["message"]
                .as_str()
                .is_some_and(|it| it.contains("does not exist"))
            && is(object, "Migrating", "True", "Migrating")
            && is(object, "Ready", "True", "Ready")
    };
    story.until(began, BACK, "the move waits", waits).await;
    let back = Instant::now();
    stage.it.patch(&path, &to("default")).await.unwrap();
    let aborted = |object: &Value| object["status"]["migration"]["phase"] == "Aborted";
    story
        .until(back, BACK, "the move is called off", aborted)
        .await;
    story.stayed_ready(began);

    // The controller ends in the middle of it: the next one begins anew, or goes on.
    let began = Instant::now();
    stage.it.patch(&path, &to(&database.store())).await.unwrap();
    let underway = |object: &Value| {
        let phase = object["status"]["migration"]["phase"]
            .as_str()
            .unwrap_or_default();
        object["status"]["migration"]["target"] == database.store() && phase != "Pending"
    };
    story
        .until(began, BACK, "the move is under way", underway)
        .await;
    let pods = stage
        .pods(SYSTEM, "app.kubernetes.io/component=controller")
        .await;
    for pod in &pods {
        for process in stage.processes(pod, "steward-control") {
            process.kill();
        }
    }
    let completed = |object: &Value| object["status"]["migration"]["phase"] == "Completed";
    let took = story
        .until(began, MOVED, "moved all the same", completed)
        .await;
    story.ready(began + took, BACK).await;
    stage.note("a move in which the controller is killed", seconds(took));

    // What is left behind is kept for a day, and goes with the DataStore or when the tenant
    // goes.
    let store = stage.it.get(&data_store_path("default")).await.unwrap();
    let kept = &store["status"]["pendingCleanups"];
    let kept = kept
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["uid"] == *uid)
        .unwrap();
    assert!(kept["notBefore"].is_string(), "{kept}");
    assert!(
        is(&store, "CleanupPending", "False", ""),
        "{}",
        store["status"]
    );
    let administrator = tenancy::connect(database.connection()).unwrap();
    let claims = administrator.claims(&uid).await.unwrap();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].stage, ClaimStage::Serving);
    stage.remove(name).await;
    assert_eq!(administrator.claims(&uid).await, Ok(vec![]));
    let gone = || async {
        let store = stage.it.get(&data_store_path("default")).await.unwrap();
        let left = store["status"]["pendingCleanups"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        left.iter().all(|it| it["uid"] != *uid).then_some(())
    };
    stage
        .it
        .until("its former copy goes with it", COMING, gone)
        .await;
}

/// A tenant that sleeps is moved, and wakes with its data.
async fn asleep(stage: &Stage, database: &Database) {
    let name = "sleeper";
    let story = stage.tenant(name, 1).await;
    let kubeconfig = stage.it.kubeconfig(name);
    let user = |arguments: &[&str]| stage.it.kubectl_with(&kubeconfig, arguments);
    let said = user(&["create", "configmap", "kept", "--from-literal=from=before"]);
    assert_eq!(said.code, 0, "{}", said.text());
    let path = tenant_path(name);
    let replicas =
        |count: i32| json!({"spec": {"controlPlane": {"deployment": {"replicas": count}}}});
    let began = Instant::now();
    stage.it.patch(&path, &replicas(0)).await.unwrap();
    story.says(began, BACK, "Ready", "False", "Sleeping").await;
    let began = Instant::now();
    let to = json!({"spec": {"dataStore": database.store()}});
    stage.it.patch(&path, &to).await.unwrap();
    let completed = |object: &Value| object["status"]["migration"]["phase"] == "Completed";
    let took = story
        .until(began, MOVED, "moved while asleep", completed)
        .await;
    stage.note("a tenant that sleeps is moved", seconds(took));
    let began = Instant::now();
    stage.it.patch(&path, &replicas(1)).await.unwrap();
    story.ready(began, COMING).await;
    let kept = || user(&["get", "configmap", "kept", "-o", "jsonpath={.data.from}"]);
    let answered = || async { (kept().stdout == "before").then_some(()) };
    stage.it.until("the data is there", BACK, answered).await;
    let deployment = stage.object("deployments", name).await.unwrap();
    assert!(
        deployment.to_string().contains("kine"),
        "it runs from there"
    );
    stage.remove(name).await;
}

async fn client(tenant: &Tenant<'_>) -> Client {
    let file = Kubeconfig::read_from(&tenant.kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.read_timeout = Some(Duration::from_secs(295));
    Client::try_from(config).unwrap()
}

/// Somebody who writes all the time and keeps a book of what was acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Book>,
    written: tokio::sync::watch::Receiver<u64>,
}

/// What the tenant has to have.
#[derive(Default)]
struct Book {
    /// Objects and their values.
    there: BTreeMap<String, String>,
    /// Those that were deleted.
    gone: BTreeSet<String>,
    /// The newest version that was answered.
    version: u64,
    longest_silence: Duration,
}

impl Writer {
    fn begin(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (count, written) = tokio::sync::watch::channel(0);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let api: Api<ConfigMap> = Api::default_namespaced(client);
            let mut book = Book::default();
            for number in 0.. {
                if stopped.load(SeqCst) {
                    break;
                }
                book.one(&api, number).await;
                count.send_replace(number);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            book
        });
        Writer {
            stop,
            task,
            written,
        }
    }

    /// Waits until some more was written.
    async fn writes_on(&self) {
        let mut written = self.written.clone();
        let now = *written.borrow();
        let more = written.wait_for(|count| *count >= now + 20);
        tokio::time::timeout(BACK, more).await.unwrap().unwrap();
    }

    async fn end(self) -> Book {
        self.stop.store(true, SeqCst);
        self.task.await.unwrap()
    }
}

/// What came of a write that was tried until there was an answer.
enum Done {
    Version(u64),
    /// It had been done by an attempt without an answer.
    Before,
}

impl Book {
    /// Makes one object, changes every third, deletes every fifth.
    async fn one(&mut self, api: &Api<ConfigMap>, number: u64) {
        let name = format!("w-{number}");
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.clone());
        object.data = Some(BTreeMap::from([("is".into(), "new".into())]));
        let create = || async {
            let made = api.create(&PostParams::default(), &object).await?;
            Ok(version(&made))
        };
        self.until_done(create, 409).await;
        self.there.insert(name.clone(), "new".into());
        if number % 3 == 2 {
            let name = format!("w-{}", number - 1);
            if !self.gone.contains(&name) {
                let patch = Patch::Merge(json!({"data": {"is": "changed"}}));
                let change = || async {
                    let made = api.patch(&name, &PatchParams::default(), &patch).await?;
                    Ok(version(&made))
                };
                self.until_done(change, 0).await;
                self.there.insert(name.clone(), "changed".into());
            }
        }
        if number % 5 == 4 {
            let name = format!("w-{}", number - 3);
            let delete = || async {
                api.delete(&name, &DeleteParams::default()).await?;
                Ok(0)
            };
            self.until_done(delete, 404).await;
            self.there.remove(&name);
            self.gone.insert(name);
        }
    }

    /// Tries until it is acknowledged. `done` is the code that says that an earlier attempt
    /// went through whose answer was lost.
    async fn until_done<F>(&mut self, attempt: impl Fn() -> F, done: u16)
    where
        F: Future<Output = kube::Result<u64>>,
    {
        let began = Instant::now();
        let mut failed = false;
        let found = loop {
            match tokio::time::timeout(REQUEST, attempt()).await {
                Ok(Ok(version)) => break Done::Version(version),
                Ok(Err(kube::Error::Api(status))) if failed && status.code == done => {
                    break Done::Before;
                }
                _ => failed = true,
            }
            assert!(began.elapsed() < MOVED, "nothing can be written");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        self.longest_silence = self.longest_silence.max(began.elapsed());
        if let Done::Version(version) = found
            && version > 0
        {
            assert!(
                version > self.version,
                "version {version} was answered after {}",
                self.version
            );
            self.version = version;
        }
    }

    /// Whether the tenant has all of it and nothing else.
    async fn is_kept(&self, client: &Client) {
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let list = api.list(&ListParams::default()).await.unwrap();
        let found: BTreeMap<String, String> = list.items.iter().filter_map(written).collect();
        assert!(self.there.len() > 100, "hardly anything was written");
        let lost: Vec<_> = self
            .there
            .iter()
            .filter(|(name, _)| !found.contains_key(*name))
            .collect();
        let more: Vec<_> = found
            .iter()
            .filter(|(name, _)| !self.there.contains_key(*name))
            .collect();
        assert!(
            lost.is_empty() && more.is_empty(),
            "lost {lost:?}, more {more:?}"
        );
        assert_eq!(found, self.there);
    }
}

fn written(object: &ConfigMap) -> Option<(String, String)> {
    let name = object.name_any();
    let value = object.data.as_ref()?.get("is")?.clone();
    name.starts_with("w-").then_some((name, value))
}

fn version(object: &ConfigMap) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

/// A client with a cache, as every controller has one.
struct Informer {
    store: reflector::Store<ConfigMap>,
    task: tokio::task::JoinHandle<()>,
}

impl Informer {
    fn begin(client: Client) -> Self {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let (store, into) = reflector::store();
        let changes = reflector(
            into,
            watcher(api, watcher::Config::default()).default_backoff(),
        );
        let task = tokio::spawn(changes.for_each(|_| async {}));
        Informer { store, task }
    }

    /// Whether it knows what a list says, without having been started again.
    async fn knows_all(self, client: &Client) {
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let began = Instant::now();
        loop {
            let list = api.list(&ListParams::default()).await.unwrap();
            let listed: BTreeMap<String, u64> = list
                .items
                .iter()
                .map(|it| (it.name_any(), version(it)))
                .collect();
            let known: BTreeMap<String, u64> = self
                .store
                .state()
                .iter()
                .map(|it| (it.name_any(), version(it)))
                .collect();
            if listed == known {
                break;
            }
            assert!(
                began.elapsed() < BACK,
                "a client that watches has missed something: {} listed, {} known",
                listed.len(),
                known.len()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.task.abort();
    }
}
