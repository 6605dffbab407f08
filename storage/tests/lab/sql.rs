//! A real SQL server with TLS, for one test.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, MySqlConnection, PgConnection};
use storage::tenancy::{Claim, Connection, Password};

use super::cache;

#[path = "../../../tests/src/lab/databases/server.rs"]
pub mod server;

#[path = "../../../tests/src/lab/databases/nats.rs"]
pub mod nats;

pub use server::{ADMINISTRATOR, Kind, Server, Settings};

/// Of every administrator here, with what quoting has to bear.
pub const PASSWORD: &str = "it's \"a\\b\" $$1 %s";

pub fn start(kind: Kind) -> Server {
    start_with(kind, Settings::local(PASSWORD))
}

pub fn start_with(kind: Kind, settings: Settings) -> Server {
    let programs = server::Programs::in_cache(&cache()).unwrap();
    programs.start(kind, &settings).unwrap()
}

/// As the administrator of a `DataStore` connects.
pub fn connection(server: &Server) -> Connection {
    Connection {
        driver: match server.kind {
            Kind::PostgreSql => "PostgreSQL".to_owned(),
            Kind::MariaDb => "MySQL".to_owned(),
        },
        endpoints: vec![server.endpoint()],
        ca_pem: Some(server.authority.cert.clone().into_bytes()),
        client_cert: None,
        client_key: None,
        username: Some(ADMINISTRATOR.to_owned()),
        password: Some(server.password.clone()),
        deadline: Connection::DEADLINE,
    }
}

/// The password of the tenants' users.
pub fn secret() -> Password {
    Password::new("c0ffee00-1111-4222-8333-444455556666")
}

/// PostgreSQL as a user of it.
pub async fn enter(
    server: &Server,
    user: &str,
    password: &str,
    database: &str,
) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port)
        .username(user)
        .password(password)
        .database(database)
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert_from_pem(server.authority.cert.clone().into_bytes())
        .connect()
        .await
}

/// PostgreSQL as its administrator.
pub async fn administrator(server: &Server, database: &str) -> PgConnection {
    enter(server, ADMINISTRATOR, &server.password, database)
        .await
        .unwrap()
}

/// PostgreSQL as a tenant.
pub async fn tenant(server: &Server, claim: &Claim) -> Result<PgConnection, sqlx::Error> {
    enter(server, &claim.user, secret().expose(), &claim.schema).await
}

pub async fn run(connection: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// MariaDB as a user of it.
pub async fn enter_mysql(
    server: &Server,
    user: &str,
    password: &str,
    database: Option<&str>,
) -> Result<MySqlConnection, sqlx::Error> {
    let mut options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(server.port)
        .username(user)
        .password(password)
        .ssl_mode(MySqlSslMode::VerifyIdentity)
        .ssl_ca_from_pem(server.authority.cert.clone().into_bytes());
    if let Some(database) = database {
        options = options.database(database);
    }
    options.connect().await
}

/// MariaDB as its administrator.
pub async fn mysql_administrator(server: &Server) -> MySqlConnection {
    enter_mysql(server, ADMINISTRATOR, &server.password, None)
        .await
        .unwrap()
}

/// MariaDB as a tenant.
pub async fn mysql_tenant(server: &Server, claim: &Claim) -> Result<MySqlConnection, sqlx::Error> {
    enter_mysql(server, &claim.user, secret().expose(), Some(&claim.schema)).await
}

pub async fn try_mysql(connection: &mut MySqlConnection, sql: &str) -> Result<(), sqlx::Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    done.execute(connection).await.map(drop)
}

pub async fn run_mysql(connection: &mut MySqlConnection, sql: &str) {
    let done = try_mysql(connection, sql).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// kine, as it runs beside the API server of a tenant, with nothing but the tenant's own
/// password and the authority of the datastore.
pub struct Kine {
    child: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl Kine {
    pub fn start(server: &Server, endpoint: &str) -> Self {
        Kine::start_with(&server.directory().join("ca.crt"), endpoint)
    }

    /// With the authority in a file.
    pub fn start_with(authority: &Path, endpoint: &str) -> Self {
        Kine::start_flags(authority, endpoint, &[])
    }

    /// With further flags.
    pub fn start_flags(authority: &Path, endpoint: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let address = format!("127.0.0.1:{}", super::free_port());
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(super::newest("kine", "STEWARD_KINE"))
            .arg(format!("--listen-address=http://{address}"))
            .arg("--metrics-bind-address=0")
            .arg(format!("--ca-file={}", authority.display()))
            .args(flags)
            .env("KINE_ENDPOINT", endpoint)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Kine {
            child,
            address,
            directory,
        }
    }

    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory.path().join("log")).unwrap();
        // It has keys of NATS in it as they are.
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// It refuses a server whose certificate comes from somebody else.
    pub fn refuses_strangers(endpoint: &str) {
        let other = server::Authority::new("other");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), other.cert).unwrap();
        let mut kine = Kine::start_with(file.path(), endpoint);
        let begin = Instant::now();
        while !kine.log().contains("certificate") {
            assert!(begin.elapsed() < Duration::from_secs(30), "{}", kine.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(
            kine.ended() || !kine.log().contains("Kine available"),
            "{}",
            kine.log()
        );
    }

    /// As an API server uses it, once it serves.
    pub async fn client(&mut self) -> Client {
        let begin = Instant::now();
        loop {
            let options = ConnectOptions::new().with_timeout(Duration::from_secs(5));
            let endpoint = format!("http://{}", self.address);
            if let Ok(mut client) = Client::connect([endpoint], Some(options)).await
                && client.get("/", None).await.is_ok()
            {
                return client;
            }
            assert!(!self.ended(), "kine ended: {}", self.log());
            assert!(begin.elapsed() < Duration::from_secs(60), "{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates a key as an API server does.
    pub async fn create(client: &mut Client, key: &str) -> Result<bool, etcd_client::Error> {
        use etcd_client::{Compare, CompareOp, Txn, TxnOp};
        let absent = Compare::mod_revision(key, CompareOp::Equal, 0);
        let put = TxnOp::put(key, "1", None);
        let done = client.txn(Txn::new().when([absent]).and_then([put]));
        Ok(done.await?.succeeded())
    }

    /// What an API server does: create, update on a condition, list, watch, delete.
    pub async fn work(&mut self) {
        use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, WatchOptions};
        let mut client = self.client().await;
        let prefix = WatchOptions::new().with_prefix();
        let mut events = client.watch("/registry/pods/", Some(prefix)).await.unwrap();
        let mut revision = 0;
        for value in ["1", "2"] {
            let key = "/registry/pods/x";
            let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
            let put = TxnOp::put(key, value, None);
            let get = TxnOp::get(key, None);
            let txn = Txn::new().when([unchanged]).and_then([put]).or_else([get]);
            let done = client.txn(txn).await.unwrap();
            assert!(done.succeeded(), "{value}: {}", self.log());
            revision = done.header().unwrap().revision();
        }
        let all = GetOptions::new().with_prefix();
        let found = client.get("/registry/pods/", Some(all)).await.unwrap();
        assert_eq!(found.kvs()[0].value(), b"2");
        let heard = tokio::time::timeout(Duration::from_secs(10), async {
            let mut heard = 0;
            while heard < 2 {
                heard += events.message().await.unwrap().unwrap().events().len();
            }
        });
        heard.await.expect("the watch hears of both");
    }
}

impl Drop for Kine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
