//! Tenants in SQL databases and NATS: real servers with TLS outside the cluster, as managed
//! ones are, and kine in the tenants' pods.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use apiservice::names;
use serde_json::{Value, json};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use storage::tenancy::{self, Data, Password};
use tests::installed::{TENANTS, data_store_path, decoded, object_path, tenant, tenant_path};
use tests::lab::databases::server::{ADMINISTRATOR, Kind};

use crate::database::{DATABASES, Database, KINDS, PASSWORD};
use crate::life::seconds;
use crate::stage::{BACK, COMING, GONE, LOST, Stage};
use crate::story::{Story, is};

pub async fn run(stage: &Stage) {
    let Some(lab) = stage.lab("sql", DATABASES) else {
        return;
    };
    let [one, other] = KINDS.map(|kind| Sql {
        database: Database::start(lab, kind),
    });
    // Side by side, for pods take most of the time to come and go. What happens to one is
    // nothing to the other.
    futures::join!(one.run(stage), other.run(stage));
}

/// The same with NATS, but for what is particular to SQL.
pub async fn nats(stage: &Stage) {
    let Some(lab) = stage.lab("nats", DATABASES) else {
        return;
    };
    let database = Database::start_nats(lab);
    Sql { database }.run(stage).await;
}

/// How long a tenant that sleeps may take to another DataStore.
const MOVED: Duration = Duration::from_secs(60);

/// What is done with one server.
struct Sql {
    database: Database,
}

impl Sql {
    /// Name of a tenant.
    fn tenant(&self, of: &str) -> String {
        format!("{of}-{}", self.database.store())
    }

    async fn run(&self, stage: &Stage) {
        self.database.provide(stage).await;
        let story = self.comes(stage).await;
        self.keeps_data(stage, &story).await;
        self.password(stage, &story).await;
        let is_sql = self.database.sql().is_some();
        if is_sql {
            self.is_apart(stage).await;
        }
        self.is_assigned(stage).await;
        self.goes_away(stage, &story).await;
        if is_sql {
            self.loses_its_data(stage).await;
        }
        self.ends(stage).await;
    }

    /// Two tenants at once; how long the first one takes.
    async fn comes(&self, stage: &Stage) -> Story {
        let names = ["one", "two"].map(|of| self.tenant(of));
        let stories = names.each_ref().map(|name| stage.story(name));
        let began = Instant::now();
        for name in &names {
            let mut manifest = tenant(name, 1);
            manifest["spec"]["dataStore"] = json!(self.database.store());
            // The node has room for all of them, and for those that are replaced.
            let little = json!({"requests": {"cpu": "20m"}});
            manifest["spec"]["controlPlane"]["deployment"]["resources"] = json!({
                "apiServer": little, "controllerManager": little, "scheduler": little,
                "kine": little,
            });
            stage.create(&manifest).await;
        }
        let [first, other] = &stories;
        let both = futures::join!(first.ready(began, COMING), other.ready(began, COMING));
        stage.note(
            format!("{}: two tenants created until Ready", self.database.driver),
            format!("{}, {}", seconds(both.0), seconds(both.1)),
        );
        let [first, _] = stories;
        first
    }

    /// What is written is there after a night and after a roll.
    async fn keeps_data(&self, stage: &Stage, story: &Story) {
        let name = self.tenant("one");
        let kubeconfig = stage.it.kubeconfig(&name);
        let user = |arguments: &[&str]| stage.it.kubectl_with(&kubeconfig, arguments);
        let said = user(&["create", "configmap", "kept", "--from-literal=from=before"]);
        assert_eq!(said.code, 0, "{}", said.text());
        for replicas in ["0", "1"] {
            let began = Instant::now();
            let count = format!("--replicas={replicas}");
            stage
                .it
                .kubectl(&["-n", TENANTS, "scale", "tcp", &name, &count]);
            match replicas {
                "0" => {
                    story.says(began, BACK, "Ready", "False", "Sleeping").await;
                    let label = format!("{}={name}", names::LABEL_NAME);
                    let pods =
                        || async { stage.pods(TENANTS, &label).await.is_empty().then_some(()) };
                    stage.it.until("no pods are left", GONE, pods).await;
                }
                _ => {
                    let took = story.ready(began, COMING).await;
                    let what = format!("{}: awake from sleep", self.database.driver);
                    stage.note(what, seconds(took));
                }
            }
        }
        let kept = || user(&["get", "configmap", "kept", "-o", "jsonpath={.data.from}"]);
        let answered = || async { (kept().stdout == "before").then_some(()) };
        stage.it.until("the data is there", BACK, answered).await;
    }

    /// BUG of the original: a password that was made anew locked the tenant out.
    async fn password(&self, stage: &Stage, story: &Story) {
        let name = self.tenant("one");
        let secret = object_path(TENANTS, "secrets", &names::datastore_config(&name));
        let current = async || {
            let found = stage.it.get(&secret).await.unwrap();
            String::from_utf8(decoded(&found["data"]["DB_PASSWORD"])).unwrap()
        };
        let before = current().await;
        for how in ["edited", "deleted"] {
            let pod = stage.pods_of(&name).await.remove(0);
            let began = Instant::now();
            match how {
                "edited" => {
                    let patch = json!({"stringData": {"DB_PASSWORD": "chosen-by-somebody"}});
                    drop(stage.it.patch(&secret, &patch).await.unwrap());
                }
                _ => drop(stage.it.delete(&secret).await.unwrap()),
            }
            let rolled = || async {
                let pods = stage.pods_of(&name).await;
                let other = pods.len() == 1 && pods[0]["metadata"]["uid"] != pod["metadata"]["uid"];
                let tenant = stage.it.get(&tenant_path(&name)).await.unwrap();
                (other && is(&tenant, "Ready", "True", "")).then_some(())
            };
            let what = format!("pods with a password that was {how}");
            let (_, took) = stage.it.until(&what, COMING, rolled).await;
            story.stayed_ready(began);
            let now = current().await;
            match how {
                "edited" => assert_eq!(now, "chosen-by-somebody"),
                _ => assert!(
                    now != before && now != "chosen-by-somebody",
                    "it is a new one"
                ),
            }
            stage.note(
                format!(
                    "{}: password {how}, until pods have the new one (Ready stays)",
                    self.database.driver
                ),
                seconds(took),
            );
        }
    }

    /// What the tenant's own Secret opens of the other's and of the server. (All that a
    /// database has is tried in the tests of the crate `storage`.)
    async fn is_apart(&self, stage: &Stage) {
        let secret = async |of: &str| {
            let name = names::datastore_config(&self.tenant(of));
            let path = object_path(TENANTS, "secrets", &name);
            let found = stage.it.get(&path).await.unwrap();
            ["DB_USER", "DB_PASSWORD", "DB_SCHEMA"].map(|key| {
                let bytes = decoded(&found["data"][key]);
                String::from_utf8(bytes).unwrap()
            })
        };
        let [user, password, schema] = secret("one").await;
        let [other_user, other_password, _] = secret("two").await;
        assert!(user != other_user && password != other_password);
        // As an administrator it finds no claims, and changes nothing.
        let mut as_tenant = self.database.connection();
        as_tenant.username = Some(user);
        as_tenant.password = Some(password.clone());
        let tenancy = tenancy::connect(as_tenant).unwrap();
        // MySQL says of what one may not see that it is not there.
        let answer = tenancy.claimants().await;
        assert!(
            answer.as_ref().map_or(true, BTreeSet::is_empty),
            "a tenant reads the claims of all: {answer:?}"
        );
        let administrator = tenancy::connect(self.database.connection()).unwrap();
        let uid = self.uid(stage, "one").await;
        let claims = administrator.claims(&uid).await.unwrap();
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0].schema, schema);
        drop(tenancy.drop_data(&claims[0]).await);
        let own = Password::new(password);
        let contents = administrator.contents(&claims[0], Some(&own)).await;
        let left = contents.unwrap().count().await.unwrap();
        assert!(left > 0, "a tenant drops databases");
    }

    /// Tenants that name no DataStore and want this driver: as many as there is room for.
    /// They sleep: where their data is does not depend on it.
    async fn is_assigned(&self, stage: &Stage) {
        let path = data_store_path(&self.database.store());
        let room = |tenants: u32| json!({"spec": {"capacity": {"tenants": tenants}}});
        stage.it.patch(&path, &room(4)).await.unwrap();
        let names = ["x", "y", "z"].map(|of| self.tenant(of));
        let stories = names.each_ref().map(|name| stage.story(name));
        for name in &names {
            let mut manifest = tenant(name, 0);
            let spec = manifest["spec"].as_object_mut().unwrap();
            spec.remove("dataStore");
            let wish = json!({"drivers": [self.database.driver]});
            spec.insert("dataStoreAssignment".to_owned(), wish);
            stage.create(&manifest).await;
        }
        let placed = |object: &Value| is(object, "DataStoreReady", "True", "AsExpected");
        let unplaced =
            |object: &Value| is(object, "DataStoreReady", "False", "DataStoreNotAssigned");
        let last = || stories.iter().filter_map(Story::last);
        // All wait as long as a busy server is late to answer.
        let settled = || async {
            let there = last().filter(placed).count();
            let out = last().filter(unplaced).count();
            ((there, out) == (2, 1)).then_some(())
        };
        let what = "there is room for two of three";
        stage.it.until(what, COMING, settled).await;
        let left = last().find(|it| unplaced(it)).unwrap();
        let [_, _, why] = tests::installed::condition(&left, "DataStoreReady").unwrap();
        assert!(
            why.contains("1 has as many tenants as spec.capacity.tenants"),
            "{why}"
        );
        assert!(
            why.contains("another driver than the tenant asks for"),
            "{why}"
        );

        let began = Instant::now();
        stage.it.patch(&path, &room(5)).await.unwrap();
        let name = left["metadata"]["name"].as_str().unwrap();
        let story = stories
            .iter()
            .find(|it| it.last().unwrap()["metadata"]["name"] == name)
            .unwrap();
        let took = story.until(began, BACK, "assigned", placed).await;
        stage.note(
            format!(
                "{}: more room until a tenant that waits has it",
                self.database.driver
            ),
            seconds(took),
        );
        let told = story.last().unwrap();
        assert_eq!(
            told["status"]["storage"]["dataStoreName"],
            self.database.store()
        );
        let said = told["status"]["storage"]["assignment"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(said.contains("4 tenants of 5"), "{said}");
        let events = stage.events(name).await;
        assert!(
            events
                .iter()
                .any(|event| event.contains(&"DataStoreAssigned".to_owned())),
            "{events:?}"
        );
        self.is_emptied(stage, &stories).await;
        for of in ["x", "z"] {
            stage.remove(&self.tenant(of)).await;
        }
    }

    /// A taint with effect NoExecute: one tenant may go to etcd, one nowhere, the others
    /// tolerate it.
    async fn is_emptied(&self, stage: &Stage, stories: &[Story; 3]) {
        let here = self.database.store();
        let [goes, stuck, tolerates] = ["x", "y", "z"].map(|of| self.tenant(of));
        let tolerant = json!({"tolerations": [{"key": "leaving", "operator": "Exists"}]});
        for name in [&self.tenant("one"), &self.tenant("two"), &tolerates] {
            let patch = json!({"spec": {"dataStoreAssignment": tolerant}});
            stage.it.patch(&tenant_path(name), &patch).await.unwrap();
        }
        let patch = json!({
            "metadata": {"annotations": {names::ANNOTATION_MIGRATION_SOURCE_RETENTION: "0s"}},
            "spec": {"dataStoreAssignment": {"drivers": ["etcd"]}},
        });
        stage.it.patch(&tenant_path(&goes), &patch).await.unwrap();

        let began = Instant::now();
        let taint = |taints: Value| json!({"spec": {"taints": taints}});
        let leaving = taint(json!([{"key": "leaving", "effect": "NoExecute"}]));
        let path = data_store_path(&here);
        stage.it.patch(&path, &leaving).await.unwrap();
        let there = |object: &Value| object["status"]["storage"]["dataStoreName"] == "default";
        let took = stories[0].until(began, MOVED, "moved away", there).await;
        stage.note(
            format!(
                "{}: tainted NoExecute until a tenant is elsewhere",
                self.database.driver
            ),
            seconds(took),
        );
        let events = stage.events(&goes).await;
        let told = |event: &[String; 3]| event.contains(&"Draining".to_owned());
        assert!(events.iter().any(told), "{events:?}");
        // Who cannot go anywhere is named, with the reason.
        let said = || async {
            let store = stage.it.get(&path).await.unwrap();
            let [status, reason, message] = tests::installed::condition(&store, "Drained")?;
            let named = message.contains(&format!("{TENANTS}/{stuck}: "));
            let all = !message.contains(&format!("/{goes}"));
            // What is read of the tenants may be older than what is read of the DataStore.
            let own = ["one", "two", "z"].map(|of| self.tenant(of));
            let read = !own
                .iter()
                .any(|name| message.contains(&format!("/{name}:")));
            let told = status == "False" && reason == "DrainHeldUp";
            (told && named && all && read).then_some(message)
        };
        let (message, _) = stage.it.until("held up is told", BACK, said).await;
        let why = "another driver than the tenant asks for";
        assert!(message.contains(why), "{message}");
        for name in [&self.tenant("one"), &self.tenant("two"), &tolerates, &stuck] {
            let tenant = stage.it.get(&tenant_path(name)).await.unwrap();
            assert_eq!(tenant["status"]["storage"]["dataStoreName"], here, "{name}");
        }

        stage.remove(&stuck).await;
        let emptied = || async {
            let store = stage.it.get(&path).await.unwrap();
            is(&store, "Drained", "True", "Drained").then_some(())
        };
        stage.it.until("it is empty", BACK, emptied).await;
        stage.it.patch(&path, &taint(Value::Null)).await.unwrap();
        let forgotten = || async {
            let store = stage.it.get(&path).await.unwrap();
            tests::installed::condition(&store, "Drained")
                .is_none()
                .then_some(())
        };
        stage
            .it
            .until("nothing more is said of it", BACK, forgotten)
            .await;
    }

    /// The database hangs: Ready goes, and comes back.
    async fn goes_away(&self, stage: &Stage, story: &Story) {
        let began = Instant::now();
        self.database.signal("STOP");
        let gone = story
            .until(began, LOST, "Ready lost", |object| {
                is(object, "Ready", "False", "")
            })
            .await;
        let reason = story.last().and_then(|last| {
            let [_, reason, _] = tests::installed::condition(&last, "Ready")?;
            Some(reason)
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mended = Instant::now();
        self.database.signal("CONT");
        let back = story.ready(mended, BACK).await;
        // Until it is known to answer, a deletion does not wait for it.
        self.database.is_ready(stage).await;
        stage.note(
            format!("Ready lost: {} hangs", self.database.driver),
            format!(
                "{} ({}), back after {}",
                seconds(gone),
                reason.unwrap_or_default(),
                seconds(back)
            ),
        );
    }

    /// A database is dropped by mistake, or for a restore: an empty one in its place would
    /// have nodes end what they run. It is made when somebody says so.
    async fn loses_its_data(&self, stage: &Stage) {
        let name = self.tenant("two");
        let story = stage.story(&name);
        let administrator = tenancy::connect(self.database.connection()).unwrap();
        let uid = self.uid(stage, "two").await;
        let claim = administrator.claims(&uid).await.unwrap().remove(0);
        let began = Instant::now();
        self.drop_database(&claim.schema).await;
        let told = story
            .says(began, LOST, "Ready", "False", "DataNotFound")
            .await;
        // Kept for a while: nobody makes it meanwhile.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let found = administrator.check(&claim, None).await.unwrap();
        assert!(matches!(found, tenancy::Access::Lost(_)), "{found:?}");
        let allowed = Instant::now();
        let annotation = json!({"metadata": {"annotations": {names::ANNOTATION_START_EMPTY: uid}}});
        stage
            .it
            .patch(&tenant_path(&name), &annotation)
            .await
            .unwrap();
        let back = story.ready(allowed, COMING).await;
        stage.note(
            format!(
                "Ready lost: a tenant's {} database dropped",
                self.database.driver
            ),
            format!(
                "{} (DataNotFound), empty again as asked after {}",
                seconds(told),
                seconds(back)
            ),
        );
    }

    async fn drop_database(&self, schema: &str) {
        let server = self.database.sql().unwrap();
        let authority = server.authority.cert.clone().into_bytes();
        let (host, port) = self.database.endpoint.rsplit_once(':').unwrap();
        let port = port.parse().unwrap();
        match server.kind {
            Kind::PostgreSql => {
                let options = PgConnectOptions::new_without_pgpass()
                    .host(host)
                    .port(port)
                    .username(ADMINISTRATOR)
                    .password(PASSWORD)
                    .database("postgres")
                    .ssl_mode(PgSslMode::VerifyFull)
                    .ssl_root_cert_from_pem(authority);
                let mut session = PgConnection::connect_with(&options).await.unwrap();
                let sql = format!("drop database \"{schema}\" with (force)");
                session.execute(AssertSqlSafe(sql)).await.unwrap();
            }
            Kind::MariaDb => {
                let options = MySqlConnectOptions::new()
                    .host(host)
                    .port(port)
                    .username(ADMINISTRATOR)
                    .password(PASSWORD)
                    .ssl_mode(MySqlSslMode::VerifyIdentity)
                    .ssl_ca_from_pem(authority);
                let mut session = MySqlConnection::connect_with(&options).await.unwrap();
                let sql = format!("drop database `{schema}`");
                session.execute(AssertSqlSafe(sql)).await.unwrap();
            }
        }
    }

    /// Nothing is left of deleted tenants, and the DataStore can go.
    async fn ends(&self, stage: &Stage) {
        let administrator = tenancy::connect(self.database.connection()).unwrap();
        let mut claims = Vec::new();
        for of in ["one", "two"] {
            let uid = self.uid(stage, of).await;
            claims.extend(administrator.claims(&uid).await.unwrap());
        }
        assert_eq!(claims.len(), 2);
        let mut slowest = Duration::ZERO;
        for of in ["one", "two"] {
            slowest = slowest.max(stage.remove(&self.tenant(of)).await);
        }
        for claim in &claims {
            assert_eq!(administrator.claims(&claim.uid).await, Ok(vec![]));
            // Nobody's names: the next tenant may have them, and nothing of before is there.
            let mut next = claim.clone();
            next.uid = "00000000-0000-4000-8000-000000000000".into();
            let password = tenancy::Password::new("of-the-next-tenant");
            administrator
                .prepare(&next, Some(&password), Data::New)
                .await
                .unwrap();
            administrator.revoke(&next).await.unwrap();
            administrator.drop_data(&next).await.unwrap();
            assert_eq!(administrator.remaining(&next).await, Ok(0));
            administrator.release(&next).await.unwrap();
        }
        stage.note(
            format!("{}: the slower of two deletions", self.database.driver),
            seconds(slowest),
        );
        self.database.remove(stage).await;
    }

    async fn uid(&self, stage: &Stage, of: &str) -> String {
        let found: Value = stage.it.get(&tenant_path(&self.tenant(of))).await.unwrap();
        found["metadata"]["uid"].as_str().unwrap().to_owned()
    }
}
