//! Tenants move between real datastores while they are written to: every pair of drivers,
//! freezes, faults, and callers that are late.

#![allow(
    clippy::disallowed_methods,
    reason = "the tests own the tasks that they start"
)]

#[path = "../lab/mod.rs"]
mod lab;

mod faults;
mod figures;
mod freeze;
mod late;
mod nats;
mod pairs;
mod tenant;
mod usage;
mod writer;

use std::sync::{Arc, Mutex, Weak, mpsc};

use lab::Etcd;
use lab::nats::Nats;
use lab::sql::{Kind, Server, Settings, connection, server};
use storage::tenancy::etcd::bootstrap;
use storage::tenancy::{Tenancy, connect};

/// Which datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Etcd,
    /// A second etcd.
    OtherEtcd,
    /// One for a test of its own: whoever compacts an etcd, as a move does at its end, does
    /// that for all that is in it.
    OwnEtcd(usize),
    PostgreSql,
    MariaDb,
    Nats,
    /// A second NATS.
    OtherNats,
}

impl Driver {
    pub fn is_etcd(self) -> bool {
        matches!(self, Driver::Etcd | Driver::OtherEtcd | Driver::OwnEtcd(_))
    }

    pub fn is_nats(self) -> bool {
        matches!(self, Driver::Nats | Driver::OtherNats)
    }
}

/// Etcds of tests of their own.
const OWN: usize = 5;

/// Servers that all tests share.
pub struct Servers {
    etcds: [Etcd; 2 + OWN],
    postgresql: Server,
    mariadb: Server,
    nats: [Nats; 2],
}

static BOOTSTRAP: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static SHARED: Mutex<Weak<Servers>> = Mutex::new(Weak::new());

impl Servers {
    /// Those that are running, or new ones. They end with the last test that has them.
    pub async fn shared() -> Arc<Servers> {
        let servers = tokio::task::spawn_blocking(|| {
            let mut shared = SHARED.lock().unwrap();
            if let Some(servers) = shared.upgrade() {
                return servers;
            }
            let servers = Arc::new(Servers::start());
            *shared = Arc::downgrade(&servers);
            servers
        });
        let servers = servers.await.unwrap();
        // One after the other: whoever comes second finds it done.
        let _one = BOOTSTRAP.lock().await;
        for etcd in &servers.etcds {
            let root = etcd.authority.client("root");
            bootstrap(etcd.connection(&root)).await.unwrap();
        }
        servers
    }

    /// By a thread that stays: the kernel ends them with the thread that started them.
    fn start() -> Self {
        let (tell, hear) = mpsc::channel();
        std::thread::spawn(move || {
            let quiet = || Settings {
                log_statements: false,
                ..Settings::local(lab::sql::PASSWORD)
            };
            let programs = server::Programs::in_cache(&lab::cache()).unwrap();
            let servers = Servers {
                etcds: std::array::from_fn(|_| Etcd::start()),
                postgresql: programs.start(Kind::PostgreSql, &quiet()).unwrap(),
                mariadb: programs.start(Kind::MariaDb, &quiet()).unwrap(),
                nats: std::array::from_fn(|_| lab::nats::start()),
            };
            tell.send(servers).unwrap();
            loop {
                std::thread::park();
            }
        });
        hear.recv().unwrap()
    }

    pub fn etcd(&self, driver: Driver) -> &Etcd {
        match driver {
            Driver::OtherEtcd => &self.etcds[1],
            Driver::OwnEtcd(number) => &self.etcds[2 + number],
            _ => &self.etcds[0],
        }
    }

    pub fn nats(&self, driver: Driver) -> &Nats {
        match driver {
            Driver::OtherNats => &self.nats[1],
            _ => &self.nats[0],
        }
    }

    pub fn sql(&self, driver: Driver) -> &Server {
        match driver {
            Driver::PostgreSql => &self.postgresql,
            Driver::MariaDb => &self.mariadb,
            other => panic!("{other:?} is no SQL server"),
        }
    }

    pub fn tenancy(&self, driver: Driver) -> Arc<dyn Tenancy> {
        let connection = match driver {
            _ if driver.is_etcd() => {
                let etcd = self.etcd(driver);
                etcd.connection(&etcd.authority.client("root"))
            }
            _ if driver.is_nats() => lab::nats::connection(self.nats(driver)),
            _ => connection(self.sql(driver)),
        };
        connect(connection).unwrap().into()
    }
}
