//! Our kinds through kube-apiserver, from discovery to deletion, with kubectl
//! and the manifests of the examples.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::served::{DATA_STORE, GROUP_VERSION, Served, TENANT, contains, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_live_and_die() {
    let served = Served::here().await;
    eventually(
        "the APIService is available",
        Duration::from_secs(30),
        || served.condition() == "True/Passed",
    )
    .await;
    // kube-apiserver fetches the documents of a new API a moment later.
    eventually("kubectl explains", Duration::from_secs(20), || {
        served.try_kubectl(&["explain", "tcp"]).code == 0
    })
    .await;
    documents(&served);
    life(&served).await;
}

fn documents(served: &Served) {
    let table = served.kubectl(&[
        "api-resources",
        "--api-group=steward.butlerlabs.dev",
        "-o=wide",
    ]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    let version = "steward.butlerlabs.dev/v1alpha1";
    assert_eq!(
        rows[0][..4],
        ["datastores", version, "false", "DataStore"],
        "{table}"
    );
    let tenants = [
        "tenantcontrolplanes",
        "tcp",
        version,
        "true",
        "TenantControlPlane",
    ];
    assert_eq!(rows[1][..5], tenants, "{table}");
    let explained = served.kubectl(&["explain", "tcp.spec.controlPlane"]);
    contains(&explained, "FIELD: controlPlane <Object>");
    contains(&explained, "deployment\t<Object>");
    contains(
        &served.kubectl(&["explain", "datastores.spec.driver"]),
        "<string>",
    );
    assert_eq!(served.kubectl(&["get", "tcp,datastores", "-A"]), "");
}

/// R7.4, R8.33.
async fn life(served: &Served) {
    let object = |arguments: &[&str]| -> Value {
        serde_json::from_str(&served.kubectl(&[arguments, &["-o", "json"]].concat())).unwrap()
    };
    let tenant = ["-n", "tenants", "get", "tcp", "tenant-1"];
    // NamespaceLifecycle: the namespace comes first.
    let early = served.lab.apply(TENANT).unwrap_err().to_string();
    contains(&early, r#"namespaces "tenants" not found"#);
    served.kubectl(&["create", "namespace", "tenants"]);
    let mut watching = served
        .kubectl_command()
        .args([
            "-n",
            "tenants",
            "get",
            "tcp",
            "-w",
            "--output-watch-events",
            "-o",
            r#"jsonpath={.type}{"\n"}"#,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();

    served.lab.apply(DATA_STORE).unwrap();
    let applied = served.lab.apply(TENANT).unwrap();
    contains(
        &applied,
        "tenantcontrolplane.steward.butlerlabs.dev/tenant-1 created",
    );
    contains(&served.lab.apply(DATA_STORE).unwrap(), "unchanged");
    // Its comma string was stored as a list (rule 6), so that kubectl sees a
    // difference and sends it again; it changes nothing.
    served.lab.apply(TENANT).unwrap();
    contains(&served.kubectl(&tenant), "tenant-1");
    let created = object(&tenant);
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["spec"]["controlPlane"]["deployment"]["replicas"], 2);
    let list = served
        .get(&format!("{GROUP_VERSION}/tenantcontrolplanes"))
        .await
        .unwrap();
    assert_eq!(
        list["items"][0]["metadata"]["uid"],
        created["metadata"]["uid"]
    );

    let patch = r#"{"spec":{"kubernetes":{"version":"1.29.1"}}}"#;
    served.kubectl(&[
        "-n",
        "tenants",
        "patch",
        "tcp",
        "tenant-1",
        "--type=merge",
        "-p",
        patch,
    ]);
    served.kubectl(&["-n", "tenants", "scale", "tcp", "tenant-1", "--replicas=3"]);
    let scaled = object(&tenant);
    assert_eq!(scaled["metadata"]["generation"], 3);
    assert_eq!(scaled["spec"]["kubernetes"]["version"], "1.29.1");
    assert_eq!(scaled["spec"]["controlPlane"]["deployment"]["replicas"], 3);

    served.kubectl(&[
        "-n",
        "tenants",
        "delete",
        "tcp",
        "tenant-1",
        "--timeout=20s",
    ]);
    served.kubectl(&["delete", "datastore", "default", "--timeout=20s"]);
    let gone = served.try_kubectl(&tenant);
    assert_eq!(gone.code, 1);
    contains(
        &gone.stderr,
        r#"Error from server (NotFound): tenantcontrolplanes.steward.butlerlabs.dev "tenant-1" not found"#,
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    watching.kill().unwrap();
    let seen = std::io::read_to_string(watching.stdout.take().unwrap()).unwrap();
    watching.wait().unwrap();
    let types: Vec<&str> = seen.lines().collect();
    assert_eq!(
        types,
        ["ADDED", "MODIFIED", "MODIFIED", "DELETED"],
        "{seen}"
    );
}
