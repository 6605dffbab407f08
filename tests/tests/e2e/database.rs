//! SQL servers with TLS outside the cluster, as managed ones are, and their DataStores.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Value, json};
use storage::tenancy::Connection;
use tests::installed::{SYSTEM, data_store_path, object_path};
use tests::lab::databases::server::{ADMINISTRATOR, Kind, Programs, Server, Settings};
use tests::lab::{Lab, images};

use crate::life::seconds;
use crate::stage::{COMING, GONE, Stage};
use crate::story::is;

/// What parts with databases need of the lab.
pub const DATABASES: &str = "servers beside the cluster";

/// The kinds of servers that there are.
pub const KINDS: [Kind; 2] = [Kind::PostgreSql, Kind::MariaDb];

const SECRET: &str = "sql-admin";
/// With everything in it that a URL or SQL could trip over.
pub const PASSWORD: &str = "p@ss:w/ö%41 'rd\"\\$(DB_USER)?#";

/// A server, and a DataStore of it.
pub struct Database {
    pub driver: &'static str,
    pub server: Server,
    pub endpoint: String,
}

impl Database {
    /// Starts a server on the lab's host, and makes kine's image known to its nodes.
    pub fn start(lab: &Lab, kind: Kind) -> Self {
        let image = lab.directory().path().join("kine.tar");
        if !image.exists() {
            images::build_kine(lab.directories(), &image).unwrap();
            lab.load_image(&image).unwrap();
        }
        let driver = match kind {
            Kind::PostgreSql => "PostgreSQL",
            Kind::MariaDb => "MySQL",
        };
        let address = lab.host_ip();
        let settings = Settings {
            addresses: vec![IpAddr::V4(address)],
            within: Some(lab.directory().path().to_owned()),
            log_statements: false,
            ..Settings::local(PASSWORD)
        };
        let programs = Programs::in_cache(&lab.directories().cache).unwrap();
        let server = programs.start(kind, &settings).unwrap();
        Database {
            driver,
            endpoint: format!("{address}:{}", server.port),
            server,
        }
    }

    /// Name of the DataStore.
    pub fn store(&self) -> String {
        self.driver.to_lowercase()
    }

    /// The DataStore, as the manual has it.
    pub async fn provide(&self, stage: &Stage) {
        let began = Instant::now();
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.secret(), "namespace": SYSTEM},
            "stringData": {
                "username": ADMINISTRATOR,
                "password": PASSWORD,
                "ca.crt": self.server.authority.cert,
            },
        });
        let within = |key: &str| json!({"secretReference": {"name": self.secret(), "namespace": SYSTEM, "keyPath": key}});
        let store = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": self.store()},
            "spec": {
                "driver": self.driver,
                "endpoints": [self.endpoint],
                "basicAuth": {"username": within("username"), "password": within("password")},
                "tlsConfig": {"certificateAuthority": {"certificate": within("ca.crt")}},
            },
        });
        stage.it.apply(&secret.to_string());
        stage.it.apply(&store.to_string());
        let found = self.is_ready(stage).await;
        assert!(
            is(&found, "VersionSupported", "True", ""),
            "a server as it is installed keeps tenants apart: {}",
            found["status"]["conditions"]
        );
        stage.note(
            format!("{}: DataStore until Ready", self.driver),
            seconds(began.elapsed()),
        );
    }

    /// The DataStore once it is Ready.
    pub async fn is_ready(&self, stage: &Stage) -> Value {
        let ready = || async {
            let found = stage.it.get(&data_store_path(&self.store())).await.unwrap();
            is(&found, "Ready", "True", "Ready").then_some(found)
        };
        let what = format!("DataStore {} is Ready", self.store());
        stage.it.until(&what, COMING, ready).await.0
    }

    /// Takes the DataStore away, which nobody uses any more.
    pub async fn remove(&self, stage: &Stage) {
        let path = data_store_path(&self.store());
        stage.it.delete(&path).await.unwrap();
        let gone = || async { stage.absent(&path).await.then_some(()) };
        stage.it.until("the DataStore is gone", GONE, gone).await;
        let secret = object_path(SYSTEM, "secrets", &self.secret());
        drop(stage.it.delete(&secret).await.unwrap());
    }

    fn secret(&self) -> String {
        format!("{SECRET}-{}", self.store())
    }

    /// As the administrator.
    pub fn connection(&self) -> Connection {
        Connection {
            driver: self.driver.to_owned(),
            endpoints: vec![self.endpoint.clone()],
            ca_pem: Some(self.server.authority.cert.clone().into_bytes()),
            client_cert: None,
            client_key: None,
            username: Some(ADMINISTRATOR.to_owned()),
            password: Some(PASSWORD.to_owned()),
            deadline: Connection::DEADLINE,
        }
    }
}
