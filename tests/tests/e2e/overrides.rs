//! Resources of a tenant in other DataStores: events in PostgreSQL, through a kine, and in an
//! etcd with an authority of its own, through a relay.

use std::time::Instant;

use apiservice::pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity};
use controller::cluster::overrides::claimant;
use etcd_client::{Client, GetOptions, UserAddOptions};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use storage::tenancy::{self, Tenancy};
use tests::installed::{
    SYSTEM, TENANTS, data_store_path, object_path, of_etcd, tenant, tenant_path,
};
use tests::lab::databases::server::Kind;

use crate::database::{DATABASES, Database};
use crate::life::seconds;
use crate::stage::{BACK, COMING, GONE, Stage};
use crate::story::is;

/// The other etcd: Pod, Service, Secrets and DataStore.
const OTHER: &str = "other-etcd";
/// Its Secret with the root user's certificate.
const ROOT: &str = "other-etcd-root";
/// With events in PostgreSQL.
const IN_SQL: &str = "events-in-sql";
/// With events in the other etcd.
const IN_ETCD: &str = "events-in-etcd";

pub async fn run(stage: &Stage) {
    let Some(lab) = stage.lab("overrides", DATABASES) else {
        return;
    };
    let sql = Database::start(lab, Kind::PostgreSql);
    sql.provide(stage).await;
    provide_etcd(stage).await;
    let administrator = tenancy::connect(sql.connection()).unwrap();
    come(stage, &sql.store()).await;
    lie_where_they_should(stage, &sql.store(), administrator.as_ref()).await;
    are_held(stage, &sql.store()).await;
    move_on(stage, &sql.store(), administrator.as_ref()).await;
    go(stage, &sql, administrator.as_ref()).await;
}

async fn come(stage: &Stage, sql: &str) {
    let stories = [IN_SQL, IN_ETCD].map(|name| stage.story(name));
    let began = Instant::now();
    for (name, store) in [(IN_SQL, sql), (IN_ETCD, OTHER)] {
        let mut manifest = tenant(name, 1);
        let little = json!({"requests": {"cpu": "20m"}});
        manifest["spec"]["controlPlane"]["deployment"]["resources"] = json!({
            "apiServer": little, "controllerManager": little, "scheduler": little, "kine": little,
        });
        manifest["spec"]["dataStoreOverrides"] =
            json!([{"resource": "/events", "dataStore": store}]);
        stage.create(&manifest).await;
    }
    let [one, other] = &stories;
    let both = futures::join!(one.ready(began, COMING), other.ready(began, COMING));
    stage.note(
        "overrides: two tenants with events elsewhere created until Ready",
        format!("{}, {}", seconds(both.0), seconds(both.1)),
    );
    for name in [IN_SQL, IN_ETCD] {
        tell(stage, name, "first").await;
    }
}

/// An event in a tenant, which is read back by both of its groups.
async fn tell(stage: &Stage, name: &str, event: &str) {
    let kubeconfig = stage.it.kubeconfig(name);
    let object = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": event, "namespace": "default"},
        "involvedObject": {"kind": "Namespace", "name": "default", "namespace": "default"},
        "reason": "Told", "message": event, "type": "Normal",
    });
    let file = std::env::temp_dir().join(format!("{name}-{event}.json"));
    std::fs::write(&file, object.to_string()).unwrap();
    let path = file.to_string_lossy().into_owned();
    let apply = || stage.it.kubectl_with(&kubeconfig, &["create", "-f", &path]);
    let told = || async {
        let said = apply();
        (said.code == 0 || said.text().contains("AlreadyExists")).then_some(())
    };
    stage.it.until("an event is told", BACK, told).await;
    for group in ["events", "events.events.k8s.io"] {
        let said = stage
            .it
            .kubectl_with(&kubeconfig, &["get", group, event, "-o", "name"]);
        assert_eq!(said.code, 0, "{}", said.text());
    }
    drop(std::fs::remove_file(&file));
}

/// What each database has of a tenant's events.
async fn lie_where_they_should(stage: &Stage, sql: &str, administrator: &dyn Tenancy) {
    let (mut main, mut other) = (stage.it.etcd().await, other(stage).await);
    for name in [IN_SQL, IN_ETCD] {
        let schema = schema(stage, name).await;
        assert_eq!(keys(&mut main, &format!("/{schema}/events/")).await, 0);
        assert!(keys(&mut main, &format!("/{schema}/configmaps/")).await > 0);
        let beside = keys(&mut other, &format!("/{schema}/events/")).await;
        let all = keys(&mut other, &format!("/{schema}/")).await;
        match name {
            IN_ETCD => assert!(beside > 0 && all == beside, "{beside} of {all}"),
            _ => assert_eq!(all, 0),
        }
    }
    let claimed = claimant(&uid(stage, IN_SQL).await, sql);
    let claim = administrator.claims(&claimed).await.unwrap().remove(0);
    // What the tenant itself is served from is not there.
    let own = uid(stage, IN_SQL).await;
    assert_eq!(administrator.claims(&own).await, Ok(vec![]));
    let mark = apiservice::names::override_mark(sql);
    let secret = apiservice::names::override_config(IN_SQL, &mark);
    let secret = stage
        .it
        .get(&object_path(TENANTS, "secrets", &secret))
        .await
        .unwrap();
    let password = tests::installed::decoded(&secret["data"]["DB_PASSWORD"]);
    let password = tenancy::Password::new(String::from_utf8(password).unwrap());
    let contents = administrator.contents(&claim, Some(&password)).await;
    assert!(contents.unwrap().count().await.unwrap() > 0);
}

/// DataStores say who uses them, status says where resources are, and what is not an event's
/// stays where it is.
async fn are_held(stage: &Stage, sql: &str) {
    for (name, store) in [(IN_SQL, sql), (IN_ETCD, OTHER)] {
        let found = stage.it.get(&tenant_path(name)).await.unwrap();
        let told = &found["status"]["storage"]["overrides"];
        assert_eq!(told[0]["dataStoreName"], store, "{told}");
        assert_eq!(told[0]["resources"], json!(["/events"]), "{told}");
        assert!(told[0]["setup"]["user"].is_string(), "{told}");
        let used = || async {
            let found = stage.it.get(&data_store_path(store)).await.unwrap();
            let name = json!(format!("{TENANTS}/{name}"));
            let users = found["status"]["usedBy"].as_array()?.clone();
            users.contains(&name).then_some(())
        };
        stage.it.until("usedBy names it", BACK, used).await;
    }
    let other = json!([
        {"resource": "/events", "dataStore": OTHER}, {"resource": "/secrets", "dataStore": OTHER}
    ]);
    let patch = json!({"spec": {"dataStoreOverrides": other}});
    let refused = stage.it.patch(&tenant_path(IN_ETCD), &patch).await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("only overrides of /events"), "{why}");
}

/// Events of a living tenant from one database to another: it stays Ready, and what is left
/// behind goes.
async fn move_on(stage: &Stage, sql: &str, administrator: &dyn Tenancy) {
    let story = stage.story(IN_SQL);
    let began = Instant::now();
    let other = json!([{"resource": "/events", "dataStore": OTHER}]);
    let patch = json!({"spec": {"dataStoreOverrides": other}});
    stage.it.patch(&tenant_path(IN_SQL), &patch).await.unwrap();
    let claimed = claimant(&uid(stage, IN_SQL).await, sql);
    let left = || async {
        let found = stage.it.get(&tenant_path(IN_SQL)).await.unwrap();
        let told = found["status"]["storage"]["overrides"].as_array()?.clone();
        let there = told.len() == 1 && told[0]["dataStoreName"] == OTHER;
        let empty = administrator.claims(&claimed).await.ok()?.is_empty();
        (there && empty).then_some(())
    };
    let (_, took) = stage.it.until("events are elsewhere", COMING, left).await;
    story.stayed_ready(began);
    stage.note(
        "overrides: events sent to another DataStore until nothing is left of them",
        seconds(took),
    );
    tell(stage, IN_SQL, "second").await;
    let mut other = self::other(stage).await;
    let schema = schema(stage, IN_SQL).await;
    let there = format!("/{schema}/events/default/second");
    assert_eq!(keys(&mut other, &there).await, 1);
}

/// Nothing is left in any of the databases.
async fn go(stage: &Stage, sql: &Database, administrator: &dyn Tenancy) {
    let (mut main, mut other) = (stage.it.etcd().await, other(stage).await);
    for name in [IN_SQL, IN_ETCD] {
        let (schema, uid) = (schema(stage, name).await, uid(stage, name).await);
        let took = stage.remove(name).await;
        stage.note(format!("overrides: {name} deleted"), seconds(took));
        for etcd in [&mut main, &mut other] {
            assert_eq!(keys(etcd, &format!("/{schema}/")).await, 0);
        }
        let claimed = claimant(&uid, &sql.store());
        assert_eq!(administrator.claims(&claimed).await, Ok(vec![]));
    }
    // Neither a claim, nor a user, nor a role: it has nobody else's.
    assert_eq!(keys(&mut other, "").await, 0);
    let users = other.user_list().await.unwrap();
    assert_eq!(users.users(), ["root"]);
    let roles = other.role_list().await.unwrap();
    assert_eq!(roles.roles(), ["root"]);
    sql.remove(stage).await;
    let path = data_store_path(OTHER);
    stage.it.delete(&path).await.unwrap();
    let gone = || async { stage.absent(&path).await.then_some(()) };
    stage.it.until("the DataStore is gone", GONE, gone).await;
    let delete = ["-n", SYSTEM, "delete", "--ignore-not-found", "--now"];
    for what in [
        format!("pod/{OTHER}"),
        format!("service/{OTHER}"),
        format!("secret/{OTHER}"),
        format!("secret/{ROOT}"),
    ] {
        stage
            .it
            .try_kubectl(&[&delete[..], &[what.as_str()]].concat());
    }
}

async fn keys(etcd: &mut Client, prefix: &str) -> i64 {
    let options = match prefix {
        "" => GetOptions::new().with_all_keys(),
        _ => GetOptions::new().with_prefix(),
    };
    let options = options.with_count_only();
    let mut own = etcd.clone();
    let found = of_etcd(async || own.get(prefix, Some(options.clone())).await);
    found.await.unwrap().count()
}

async fn uid(stage: &Stage, name: &str) -> String {
    let found = stage.it.get(&tenant_path(name)).await.unwrap();
    found["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn schema(stage: &Stage, name: &str) -> String {
    let found = stage.it.get(&tenant_path(name)).await.unwrap();
    let setup = &found["status"]["storage"]["setup"];
    setup["schema"].as_str().unwrap().to_owned()
}

fn host() -> String {
    format!("{OTHER}.{SYSTEM}.svc.cluster.local")
}

/// The other etcd, as root.
async fn other(stage: &Stage) -> Client {
    let secret = object_path(SYSTEM, "secrets", ROOT);
    let secret = stage.it.get(&secret).await.unwrap();
    // In the lab, services are reached from the host.
    let (address, _) = stage.it.way_to(OTHER, 2379).await;
    let keys = ["ca.crt", "tls.crt", "tls.key"];
    stage.it.etcd_at(&address, &host(), &secret, keys).await
}

/// An etcd like the chart's, with an authority of its own, and its DataStore.
async fn provide_etcd(stage: &Stage) {
    let now = Timestamp::now();
    let day = SignedDuration::from_hours(24);
    let validity = Validity {
        not_before: now.checked_sub(day).unwrap(),
        not_after: now.checked_add(day * 30).unwrap(),
    };
    let authority = pki::authority("another-etcd", validity, &Entropy).unwrap();
    let sign = |name: &str, usage| -> Pair {
        let leaf = Leaf {
            subject: Subject {
                common_name: name.to_owned(),
                organizations: Vec::new(),
            },
            usage,
            dns_names: vec![host(), "localhost".to_owned()],
            ip_addresses: vec![[127, 0, 0, 1].into()],
            validity,
        };
        pki::sign(&authority, &leaf, &Entropy).unwrap()
    };
    let server = sign("etcd", Usage::Both);
    let root = sign("root", Usage::Client);
    let secret = |name: &str, pair: &Pair| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": SYSTEM},
            "stringData": {
                "ca.crt": authority.cert, "ca.key": authority.key,
                "tls.crt": pair.cert, "tls.key": pair.key,
            },
        })
    };
    let path = object_path(SYSTEM, "statefulsets", "steward-etcd");
    let mut set = stage.it.get(&path).await.unwrap();
    let spec = set["spec"]["template"]["spec"].take().to_string();
    let spec = spec.replace("\"steward-etcd-server\"", &format!("\"{OTHER}\""));
    let mut spec: Value = serde_json::from_str(&spec).unwrap();
    let volumes = spec["volumes"].as_array_mut().unwrap();
    volumes.push(json!({"name": "data", "emptyDir": {}}));
    let labels = json!({"steward-e2e": OTHER});
    let file =
        |key: &str| json!({"secretReference": {"name": ROOT, "namespace": SYSTEM, "keyPath": key}});
    for object in [
        secret(OTHER, &server),
        secret(ROOT, &root),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": OTHER, "namespace": SYSTEM, "labels": labels},
            "spec": spec,
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": OTHER, "namespace": SYSTEM},
            "spec": {"selector": labels, "ports": [{"port": 2379}]},
        }),
    ] {
        stage.it.apply(&object.to_string());
    }
    let ready = ["-n", SYSTEM, "wait", "pod", OTHER, "--for=condition=Ready"];
    stage.it.kubectl(&[&ready[..], &["--timeout=60s"]].concat());
    let mut etcd = other(stage).await;
    let no_password = UserAddOptions::new().with_no_pwd();
    etcd.user_add("root", "", Some(no_password)).await.unwrap();
    etcd.role_add("root").await.unwrap();
    etcd.user_grant_role("root", "root").await.unwrap();
    etcd.auth_enable().await.unwrap();
    let store = json!({
        "apiVersion": apiservice::api_version(), "kind": "DataStore",
        "metadata": {"name": OTHER},
        "spec": {
            "driver": "etcd", "endpoints": [format!("{}:2379", host())],
            "tlsConfig": {
                "certificateAuthority": {
                    "certificate": file("ca.crt"), "privateKey": file("ca.key"),
                },
                "clientCertificate": {
                    "certificate": file("tls.crt"), "privateKey": file("tls.key"),
                },
            },
        },
    });
    stage.it.apply(&store.to_string());
    let ready = || async {
        let found = stage.it.get(&data_store_path(OTHER)).await.unwrap();
        is(&found, "Ready", "True", "").then_some(())
    };
    stage
        .it
        .until("the other DataStore is Ready", COMING, ready)
        .await;
}
