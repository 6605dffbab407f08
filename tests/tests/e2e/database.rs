//! SQL servers and a NATS with TLS outside the cluster, as managed ones are, and their
//! DataStores.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::Value;
use storage::tenancy::Connection;
use tests::installed::{SYSTEM, data_store_path, object_path};
use tests::lab::databases::running::{Driver, Names, Place, Running};
use tests::lab::databases::server::{Kind, Server};
use tests::lab::programs::NATS;
use tests::lab::{Lab, images};

use crate::life::seconds;
use crate::stage::{COMING, GONE, Stage};
use crate::story::is;

/// What parts with databases need of the lab.
pub const DATABASES: &str = "servers beside the cluster";

/// The kinds of SQL servers that there are.
pub const KINDS: [Kind; 2] = [Kind::PostgreSql, Kind::MariaDb];

const SECRET: &str = "sql-admin";
/// With everything in it that a URL or SQL could trip over.
pub const PASSWORD: &str = "p@ss:w/ö%41 'rd\"\\$(DB_USER)?#";

/// A server, and a DataStore of it.
pub struct Database {
    pub driver: &'static str,
    kind: Driver,
    server: Running,
    address: IpAddr,
    pub endpoint: String,
}

impl Database {
    /// Starts a server on the lab's host, and makes kine's image known to its nodes.
    pub fn start(lab: &Lab, kind: Kind) -> Self {
        Self::start_one(lab, Driver::Sql(kind))
    }

    /// The same with NATS.
    pub fn start_nats(lab: &Lab) -> Self {
        let program = NATS.path(lab.directories(), NATS.name);
        assert!(
            program.is_file(),
            "there is no NATS to test with; run: make lab-build"
        );
        Self::start_one(lab, Driver::Nats)
    }

    fn start_one(lab: &Lab, kind: Driver) -> Self {
        provide_kine(lab);
        let address = IpAddr::V4(lab.host_ip());
        let place = Place {
            address,
            within: Some(lab.directory().path().to_owned()),
            password: PASSWORD.to_owned(),
        };
        let server = Running::start(lab.directories(), kind, place).unwrap();
        Database {
            driver: kind.name(),
            kind,
            endpoint: format!("{address}:{}", server.port()),
            address,
            server,
        }
    }

    /// The server, if it speaks SQL.
    pub fn sql(&self) -> Option<&Server> {
        match &self.server {
            Running::Sql(server) => Some(server),
            Running::Nats(_) => None,
        }
    }

    /// `STOP` or `CONT`, to all of its processes.
    pub fn signal(&self, signal: &str) {
        match &self.server {
            Running::Sql(server) => server.signal_all(signal).unwrap(),
            Running::Nats(server) => server.signal(signal).unwrap(),
        }
    }

    /// Name of the DataStore.
    pub fn store(&self) -> String {
        self.driver.to_lowercase()
    }

    /// The DataStore, as the manual has it.
    pub async fn provide(&self, stage: &Stage) {
        let began = Instant::now();
        let name = self.secret();
        let [secret, store] = self.server.objects(
            self.kind,
            &Names {
                data_store: &self.store(),
                secret: &name,
                namespace: SYSTEM,
                address: self.address,
            },
        );
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
        let (username, password) = self.server.login();
        Connection {
            driver: self.driver.to_owned(),
            endpoints: vec![self.endpoint.clone()],
            ca_pem: Some(self.server.authority().as_bytes().to_vec()),
            client_cert: None,
            client_key: None,
            username: Some(username.to_owned()),
            password: Some(password.to_owned()),
            deadline: Connection::DEADLINE,
        }
    }
}

/// Makes kine's image known to the nodes.
fn provide_kine(lab: &Lab) {
    let image = lab.directory().path().join("kine.tar");
    if !image.exists() {
        images::build_kine(lab.directories(), &image).unwrap();
        lab.load_image(&image).unwrap();
    }
}
