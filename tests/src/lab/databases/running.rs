//! A database that tenants reach through kine, of whichever kind: how it is started, and
//! what its DataStore says.

use std::io::Result;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::directories::Directories;
use super::super::programs::NATS;
use super::nats::{self, Nats};
use super::server::{ADMINISTRATOR, Kind, Programs, Server, Settings};

/// What a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A SQL server.
    Sql(Kind),
    /// NATS with JetStream.
    Nats,
}

impl Driver {
    /// As `DataStore.spec.driver` has it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Sql(Kind::PostgreSql) => "PostgreSQL",
            Driver::Sql(Kind::MariaDb) => "MySQL",
            Driver::Nats => "NATS",
        }
    }
}

/// A database that runs until this value goes.
pub enum Running {
    /// A SQL server.
    Sql(Server),
    /// NATS.
    Nats(Nats),
}

/// Where a database runs, and for whom.
pub struct Place {
    /// Where it listens.
    pub address: IpAddr,
    /// Where its directory is made; without it, where temporary files are.
    pub within: Option<PathBuf>,
    /// Of the administrator, where there are passwords.
    pub password: String,
}

impl Running {
    /// Starts one of those that the cache holds, and waits until it answers. What tenants
    /// write is not logged.
    pub fn start(directories: &Directories, driver: Driver, place: Place) -> Result<Self> {
        let address = place.address;
        match driver {
            Driver::Sql(kind) => {
                let settings = Settings {
                    addresses: vec![address],
                    within: place.within,
                    log_statements: false,
                    ..Settings::local(&place.password)
                };
                let programs = Programs::in_cache(&directories.cache)?;
                programs.start(kind, &settings).map(Running::Sql)
            }
            Driver::Nats => {
                let settings = nats::Settings {
                    address,
                    within: place.within,
                    ..nats::Settings::local()
                };
                let program = NATS.path(directories, NATS.name);
                Nats::start(&program, &settings).map(Running::Nats)
            }
        }
    }

    /// The certificate of who signed its certificate, in PEM.
    pub fn authority(&self) -> &str {
        match self {
            Running::Sql(server) => &server.authority.cert,
            Running::Nats(server) => &server.authority.cert,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        match self {
            Running::Sql(server) => server.port,
            Running::Nats(server) => server.port,
        }
    }

    /// What `basicAuth` of its DataStore has.
    pub fn login(&self) -> (&str, &str) {
        match self {
            Running::Sql(server) => (ADMINISTRATOR, &server.password),
            Running::Nats(server) => (&server.system, &server.operator),
        }
    }

    /// A Secret and a DataStore that refers to it, as the manual has them.
    pub fn objects(&self, driver: Driver, place: &Names<'_>) -> [Value; 2] {
        let (username, password) = self.login();
        let within = |key: &str| {
            json!({"secretReference":
                {"name": place.secret, "namespace": place.namespace, "keyPath": key}})
        };
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": place.secret, "namespace": place.namespace},
            "stringData": {
                "username": username,
                "password": password,
                "ca.crt": self.authority(),
            },
        });
        let store = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": place.data_store},
            "spec": {
                "driver": driver.name(),
                "endpoints": [format!("{}:{}", place.address, self.port())],
                "basicAuth": {"username": within("username"), "password": within("password")},
                "tlsConfig": {"certificateAuthority": {"certificate": within("ca.crt")}},
            },
        });
        [secret, store]
    }
}

/// What the objects of a database are called.
pub struct Names<'a> {
    /// The DataStore.
    pub data_store: &'a str,
    /// Its Secret.
    pub secret: &'a str,
    /// Namespace of the Secret.
    pub namespace: &'a str,
    /// Where the database is reached.
    pub address: IpAddr,
}
