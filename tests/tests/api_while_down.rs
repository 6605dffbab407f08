//! What the cluster notices while our server, its database or its volume is
//! gone (contract 11.1, rules 2, 3, 4). The figures printed are those of
//! docs/src/explanation/namespace-deletion.md.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Connection, Executor};
use tests::lab::control_plane;
use tests::served::{NAMESPACE, Served, contains, eventually};

const TENANT: &str = "
apiVersion: steward.butlerlabs.dev/v1alpha1
kind: TenantControlPlane
metadata: {name: tenant, namespace: tenants}
spec:
  kubernetes: {version: v1.36.3, kubelet: {}}
  controlPlane: {service: {serviceType: ClusterIP}}
";

fn phase(served: &Served, namespace: &str) -> String {
    let said = served.try_kubectl(&["get", "ns", namespace, "-o=jsonpath={.status.phase}"]);
    if said.stderr.contains("NotFound") {
        "gone".to_owned()
    } else {
        said.stdout
    }
}

fn conditions(served: &Served, namespace: &str) -> String {
    let path =
        "-o=jsonpath={range .status.conditions[?(@.status==\"True\")]}{.type}: {.message}\n{end}";
    served.try_kubectl(&["get", "ns", namespace, path]).text()
}

/// R1.7, R1.9, R8.2.
#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_goes_on_without_our_server() {
    let mut served = Served::process().await;
    served.kubectl(&["create", "namespace", "unrelated"]);
    let map = ["-n", "unrelated", "create", "configmap", "content"];
    served.kubectl(&map);
    eventually(
        "the APIService is available",
        Duration::from_secs(30),
        || served.condition() == "True/Passed",
    )
    .await;

    served.kill();
    let killed = Instant::now();
    // At once, and when kube-apiserver has noticed.
    for when in ["at once", "when it is noticed"] {
        let started = Instant::now();
        contains(
            &served.kubectl(&["get", "configmaps", "-n", "unrelated"]),
            "content",
        );
        println!(
            "{when}: an unrelated `kubectl get` takes {:?}",
            started.elapsed()
        );
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{when}: it hangs"
        );
        let ours = served.try_kubectl(&["get", "tcp", "-A"]);
        println!("{when}: kubectl get tcp: {}", ours.stderr.trim());
        assert_eq!(ours.code, 1, "{}", ours.text());
        let resources = served.try_kubectl(&["api-resources", "--cached=false"]);
        contains(&resources.stdout, "configmaps");
        println!(
            "{when}: kubectl api-resources: exit code {}, {} our kinds: {}",
            resources.code,
            if resources.stdout.contains("tenantcontrolplanes") {
                "with"
            } else {
                "without"
            },
            resources.stderr.trim()
        );
        eventually("kube-apiserver notices", Duration::from_secs(60), || {
            served.condition().starts_with("False")
        })
        .await;
        if when == "at once" {
            println!(
                "Available is {} after {:?}",
                served.condition(),
                killed.elapsed()
            );
        }
    }

    let deleted = Instant::now();
    served.kubectl(&["delete", "namespace", "unrelated", "--wait=false"]);
    eventually(
        "the namespace says why it stays",
        Duration::from_secs(60),
        || conditions(&served, "unrelated").contains("NamespaceDeletionDiscoveryFailure"),
    )
    .await;
    println!(
        "after {:?}: {}",
        deleted.elapsed(),
        conditions(&served, "unrelated").trim()
    );
    eventually(
        "what is in it is deleted all the same",
        Duration::from_secs(30),
        || {
            served
                .kubectl(&["get", "configmaps", "-n", "unrelated", "-o", "name"])
                .is_empty()
        },
    )
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(phase(&served, "unrelated"), "Terminating");

    served.start_process().await;
    let back = Instant::now();
    served.wait_until_served().await;
    println!("served again {:?} after its start", back.elapsed());
    eventually("the namespace goes", Duration::from_secs(90), || {
        phase(&served, "unrelated") == "gone"
    })
    .await;
    println!(
        "the namespace is gone {:?} after the server's start",
        back.elapsed()
    );
}

/// R3.87, R8.1, R8.2, R8.3.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_tenants_goes_while_only_the_database_is_gone() {
    let served = Served::here().await;
    for namespace in ["empty", "tenants"] {
        served.kubectl(&["create", "namespace", namespace]);
    }
    served.lab.apply(TENANT).unwrap();
    served
        .get("/apis/steward.butlerlabs.dev/v1alpha1/namespaces/empty/tenantcontrolplanes")
        .await
        .unwrap();

    rename(&served, "store", "elsewhere").await;
    let refused = served.try_kubectl(&["get", "tcp", "-A"]);
    contains(&refused.stderr, "Error from server (ServiceUnavailable)");
    // Neither is a tenant that cannot be read one that is not there.
    let refused = served.try_kubectl(&[
        "-n",
        "tenants",
        "get",
        "tcp",
        "tenant",
        "--request-timeout=5s",
    ]);
    assert!(!refused.text().contains("NotFound"), "{}", refused.text());
    contains(&served.condition(), "True/Passed");

    let started = Instant::now();
    served.kubectl(&["delete", "namespace", "empty", "tenants", "--wait=false"]);
    eventually("the empty namespace goes", Duration::from_secs(60), || {
        phase(&served, "empty") == "gone"
    })
    .await;
    println!("without its database: gone after {:?}", started.elapsed());
    eventually(
        "the other says why it stays",
        Duration::from_secs(30),
        || conditions(&served, "tenants").contains("NamespaceDeletionContentFailure"),
    )
    .await;
    println!("{}", conditions(&served, "tenants").trim());

    rename(&served, "elsewhere", "store").await;
    eventually(
        "the other goes once there is a database",
        Duration::from_secs(90),
        || phase(&served, "tenants") == "gone",
    )
    .await;
}

/// Takes a table from under the server that runs, which fails reads and writes
/// as a broken disk does, and can be undone.
async fn rename(served: &Served, from: &str, to: &str) {
    let url = format!(
        "sqlite://{}",
        served.data().join(storage::sqlite::FILE).display()
    );
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let sql = format!("ALTER TABLE {from} RENAME TO {to}");
    connection
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)))
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// R8.10.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_volume_deletes_nothing_until_it_is_confirmed() {
    let mut served = Served::process().await;
    served.kubectl(&["create", "namespace", "tenants"]);
    served.lab.apply(TENANT).unwrap();
    own_things(&served);

    served.stop().await;
    std::fs::remove_dir_all(served.data()).unwrap();
    served.start_process().await;
    let wiped = Instant::now();
    let get = ["-n", "tenants", "get", "tcp", "tenant", "-o", "name"];
    let refused = || served.try_kubectl(&get).stderr;
    eventually(
        "it says that this is another store",
        Duration::from_secs(60),
        || refused().contains("is not the one on record"),
    )
    .await;
    let text = refused();
    contains(&text, "Error from server (ServiceUnavailable)");

    // A garbage collector that starts now knows no owner and asks for each.
    restart_controller_manager(&served);
    let asked = || {
        let audit = std::fs::read_to_string(served.lab.directory().audit_log()).unwrap();
        let events = audit
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = events.filter(|event| {
            event["user"]["username"]
                == "system:serviceaccount:kube-system:generic-garbage-collector"
                && event["objectRef"]["resource"] == "tenantcontrolplanes"
                && event["objectRef"]["name"] == "tenant"
        });
        ours.map(|event| event["responseStatus"]["code"].as_u64().unwrap_or(0))
            .collect::<Vec<_>>()
    };
    eventually(
        "the garbage collector asks for the owner",
        Duration::from_secs(90),
        || asked().contains(&503),
    )
    .await;
    while wiped.elapsed() < Duration::from_secs(60) {
        assert_eq!(things(&served), 2, "something was deleted");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let answers = asked();
    println!("the garbage collector was answered {answers:?}");
    assert!(answers.iter().all(|code| *code == 503), "{answers:?}");

    // The command that the answer names. Then the tenant is really unknown,
    // and the collector does what it was kept from.
    let (_, command) = text.split_once("kubectl ").unwrap();
    let command: Vec<&str> = command.split_whitespace().collect();
    let end = command
        .iter()
        .position(|word| word.contains("accept-store="))
        .unwrap();
    contains(&command.join(" "), NAMESPACE);
    served.kubectl(&command[..=end]);
    eventually(
        "the confirmed store is served",
        Duration::from_secs(30),
        || refused().contains("NotFound"),
    )
    .await;
    let confirmed = Instant::now();
    eventually(
        "the collector was really at work",
        Duration::from_secs(120),
        || things(&served) == 0,
    )
    .await;
    println!("collected {:?} after the confirmation", confirmed.elapsed());
}

/// A Deployment and a Secret that belong to the tenant.
fn own_things(served: &Served) {
    let uid = [
        "-n",
        "tenants",
        "get",
        "tcp",
        "tenant",
        "-o=jsonpath={.metadata.uid}",
    ];
    let uid = served.kubectl(&uid);
    let metadata = format!(
        "{{name: tenant, namespace: tenants, labels: {{steward.butlerlabs.dev/project: steward}}, ownerReferences: [{{apiVersion: steward.butlerlabs.dev/v1alpha1, kind: TenantControlPlane, name: tenant, uid: {uid}, controller: true}}]}}"
    );
    let things = format!(
        "
apiVersion: v1
kind: Secret
metadata: {metadata}
---
apiVersion: apps/v1
kind: Deployment
metadata: {metadata}
spec:
  replicas: 0
  selector: {{matchLabels: {{a: b}}}}
  template:
    metadata: {{labels: {{a: b}}}}
    spec: {{containers: [{{name: a, image: a}}]}}
"
    );
    served.lab.apply(&things).unwrap();
    assert_eq!(self::things(served), 2);
}

fn things(served: &Served) -> usize {
    let list = "-l=steward.butlerlabs.dev/project=steward";
    let names = served.kubectl(&[
        "-n",
        "tenants",
        "get",
        "deployments,secrets",
        list,
        "-o",
        "name",
    ]);
    names.lines().count()
}

fn restart_controller_manager(served: &Served) {
    let lab = &served.lab;
    lab.process("kube-controller-manager").unwrap().id.kill();
    let program =
        control_plane::controller_manager(lab.directories(), lab.directory(), lab.addresses());
    lab.spawn(program).unwrap();
}
