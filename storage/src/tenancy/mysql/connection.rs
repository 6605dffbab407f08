//! Connections to MySQL and MariaDB: which server, as whom, and a deadline for each
//! statement.

use std::time::Duration;

use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlRow, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, FromRow, MySqlConnection, Row};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::failure::Failure;
use super::handshake;
use crate::tenancy::contents::kine::Value;
use crate::tenancy::sql;
use crate::tenancy::sql::endpoint::Endpoint;
use crate::tenancy::sql::metered::{Metered, NoHeads};
use crate::tenancy::sql::servers::Servers;
use crate::tenancy::{Connection, TenancyError};

const PORT: u16 = 3306;
/// Before these there are no locked accounts and no passwords that never expire.
const OLDEST_MARIADB: (u32, u32) = (10, 4);
const OLDEST_MYSQL: (u32, u32) = (5, 7);

/// Seconds after which the server gives up a connection that is not used. Longer than
/// connections are kept.
const IDLE: u64 = 120;

/// Who connects where.
pub struct Login<'a> {
    pub user: &'a str,
    pub password: &'a str,
    pub database: Option<&'a str>,
    /// Whether it shows the client certificate of the datastore, if there is one.
    pub certificate: bool,
}

/// A connection to one server.
pub struct Session {
    pub endpoint: Endpoint,
    /// For example `10.11.14-MariaDB`.
    pub version: String,
    pub mariadb: bool,
    connection: Metered<MySqlConnection>,
    /// For one statement.
    pub deadline: Duration,
    /// Bytes of the answer to one statement.
    pub most: usize,
}

impl Session {
    /// The connection, on which one more answer may come.
    fn server(&mut self) -> &mut MySqlConnection {
        self.connection.allow(self.most);
        &mut self.connection.connection
    }

    fn outcome<T>(
        &self,
        what: &'static str,
        asked: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<T, Failure> {
        match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) if self.connection.is_beyond() => {
                Err(Failure::too_long(&self.endpoint, what, self.most))
            }
            Ok(Err(error)) => Err(Failure::of(&self.endpoint, what, &error)),
            Err(_) => Err(Failure::silence(&self.endpoint, what, self.deadline)),
        }
    }

    /// Executes one statement that returns nothing. Names and values in it are quoted.
    pub async fn run(&mut self, what: &'static str, sql: String) -> Result<(), Failure> {
        let deadline = self.deadline;
        let run = sqlx::raw_sql(AssertSqlSafe(sql)).execute(self.server());
        let done = timeout(deadline, run).await;
        self.outcome(what, done).map(drop)
    }

    /// Executes a statement with texts as parameters.
    pub async fn write(
        &mut self,
        what: &'static str,
        sql: &'static str,
        parameters: &[Option<&str>],
    ) -> Result<(), Failure> {
        let deadline = self.deadline;
        let mut query = sqlx::query(sql);
        for parameter in parameters {
            query = query.bind(*parameter);
        }
        let done = timeout(deadline, query.execute(self.server())).await;
        self.outcome(what, done).map(drop)
    }

    /// Asks with texts as parameters.
    pub async fn rows<T>(
        &mut self,
        what: &'static str,
        sql: &'static str,
        parameters: &[&str],
    ) -> Result<Vec<T>, Failure>
    where
        T: for<'r> FromRow<'r, MySqlRow> + Send + Unpin,
    {
        let deadline = self.deadline;
        let mut query = sqlx::query_as(sql);
        for parameter in parameters {
            query = query.bind(*parameter);
        }
        let asked = timeout(deadline, query.fetch_all(self.server())).await;
        self.outcome(what, asked)
    }

    /// The first column of what a `SHOW` statement says.
    pub async fn show(&mut self, what: &'static str, sql: String) -> Result<Vec<String>, Failure> {
        let rows = self.ask(what, sql).await?;
        let columns = rows.iter().map(|row| row.try_get::<String, _>(0));
        columns
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::of(&self.endpoint, what, &error))
    }

    /// How many rows a statement gives that cannot be prepared.
    pub async fn count(&mut self, what: &'static str, sql: String) -> Result<usize, Failure> {
        Ok(self.ask(what, sql).await?.len())
    }

    async fn ask(&mut self, what: &'static str, sql: String) -> Result<Vec<MySqlRow>, Failure> {
        use sqlx::Executor;
        let deadline = self.deadline;
        let asked = self.server().fetch_all(AssertSqlSafe(sql));
        let asked = timeout(deadline, asked).await;
        self.outcome(what, asked)
    }

    /// Asks with values of several kinds.
    pub async fn ask_with<T>(
        &mut self,
        what: &'static str,
        sql: String,
        values: &[Value<'_>],
    ) -> Result<Vec<T>, Failure>
    where
        T: for<'r> FromRow<'r, MySqlRow> + Send + Unpin,
    {
        let deadline = self.deadline;
        let query = sqlx::query_as_with(AssertSqlSafe(sql), arguments(values));
        let asked = query.persistent(false).fetch_all(self.server());
        let asked = timeout(deadline, asked).await;
        self.outcome(what, asked)
    }

    /// Executes one statement with values.
    pub async fn change(
        &mut self,
        what: &'static str,
        sql: String,
        values: &[Value<'_>],
    ) -> Result<(), Failure> {
        let deadline = self.deadline;
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments(values));
        let done = query.persistent(false).execute(self.server());
        let done = timeout(deadline, done).await;
        self.outcome(what, done).map(drop)
    }

    /// How long a lock may be waited for, in seconds.
    pub fn patience(&self) -> u64 {
        self.deadline.as_secs().max(1)
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

fn arguments(values: &[Value<'_>]) -> MySqlArguments {
    use sqlx::Arguments;
    let mut arguments = MySqlArguments::default();
    for value in values {
        // None of these can fail to be encoded.
        let _ = match *value {
            Value::Text(text) => arguments.add(text),
            Value::Integer(number) => arguments.add(number),
            Value::Bytes(bytes) => arguments.add(bytes),
        };
    }
    arguments
}

/// The servers of one datastore.
pub struct Link {
    pub servers: Servers,
}

impl Link {
    /// Checks settings; does not connect.
    pub fn new(connection: Connection) -> Result<Self, TenancyError> {
        Ok(Link {
            servers: Servers::new(connection, PORT)?,
        })
    }

    fn options(&self, endpoint: &Endpoint, login: &Login) -> MySqlConnectOptions {
        let c = &self.servers.connection;
        let mut options = MySqlConnectOptions::new()
            .host(&endpoint.host)
            .port(endpoint.port)
            .username(login.user)
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            // Statements hold names and passwords.
            .disable_statement_logging();
        // An empty one is none.
        if !login.password.is_empty() {
            options = options.password(login.password);
        }
        if let Some(database) = login.database {
            options = options.database(database);
        }
        options = match &c.ca_pem {
            Some(ca) => options
                .ssl_mode(MySqlSslMode::VerifyIdentity)
                .ssl_ca_from_pem(ca.clone()),
            None => options.ssl_mode(MySqlSslMode::Preferred),
        };
        if let (Some((cert, key)), true) = (self.servers.certificate(), login.certificate) {
            options = options
                .ssl_client_cert_from_pem(cert)
                .ssl_client_key_from_pem(key);
        }
        options
    }

    /// A connection to one server.
    pub async fn login(
        &self,
        endpoint: &Endpoint,
        login: &Login<'_>,
    ) -> Result<Metered<MySqlConnection>, Failure> {
        let deadline = self.servers.deadline();
        let options = self.options(endpoint, login);
        let connect = |socket| async move { options.socket(socket).connect().await };
        let work = async {
            let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
            let _ = tcp.set_nodelay(true);
            // A packet announces 16 MiB at most, and nothing that a tenant makes makes errors long.
            Metered::open(tcp, NoHeads, str::to_owned, connect).await
        };
        match timeout(deadline, work).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Failure::of(endpoint, "connect", &error)),
            Err(_) => Err(Failure::silence(endpoint, "connect", deadline)),
        }
    }

    /// Whether the server carries out a statement that does nothing. Ends the connection.
    pub async fn use_once(
        &self,
        endpoint: &Endpoint,
        mut connection: Metered<MySqlConnection>,
    ) -> Result<(), Failure> {
        let deadline = self.servers.deadline();
        let nothing = sqlx::raw_sql("do 0").execute(&mut connection.connection);
        let used = match timeout(deadline, nothing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::of(endpoint, "use the connection", &error)),
            Err(_) => Err(Failure::silence(endpoint, "use the connection", deadline)),
        };
        connection.close().await;
        used
    }

    /// As the administrator, with this password.
    pub fn as_administrator<'a>(&'a self, password: &'a str, certificate: bool) -> Login<'a> {
        Login {
            user: &self.servers.administrator,
            password,
            database: None,
            certificate,
        }
    }

    /// A connection of the administrator to the first server that writes.
    pub async fn open(&self) -> Result<Session, TenancyError> {
        self.servers
            .first(async |endpoint| Ok(self.open_at(&endpoint).await?))
            .await
    }

    async fn open_at(&self, endpoint: &Endpoint) -> Result<Session, Failure> {
        let login = self.as_administrator(&self.servers.password, true);
        self.session(endpoint, &login).await
    }

    /// A connection that is set up, to a server that writes.
    pub async fn session(
        &self,
        endpoint: &Endpoint,
        login: &Login<'_>,
    ) -> Result<Session, Failure> {
        let mut session = Session {
            endpoint: endpoint.clone(),
            version: String::new(),
            mariadb: false,
            connection: self.login(endpoint, login).await?,
            deadline: self.servers.deadline(),
            most: sql::ANSWER,
        };
        // How texts are quoted, that what is written stays, how long is waited, and how long
        // the server keeps the locks of one of us who vanished. Only MySQL reads the comment: it would remember the sizes of tables for a day.
        let settings = format!(
            "set session sql_mode = '', autocommit = 1, lock_wait_timeout = {0}, \
             innodb_lock_wait_timeout = {0}, wait_timeout = {IDLE} /*!80000 , information_schema_stats_expiry = 0 */",
            session.patience()
        );
        session.run("set up the session", settings).await?;
        let question = "select version(), cast(@@global.read_only as char)";
        let state: Vec<(String, String)> = session.rows("ask the server", question, &[]).await?;
        let (version, read_only) = state.into_iter().next().unwrap_or_default();
        if !matches!(read_only.as_str(), "0" | "OFF") {
            return Err(Failure::unreachable(
                endpoint,
                "this server is a replica, which only reads",
            ));
        }
        session.mariadb = version.contains("MariaDB");
        session.version = short(&version);
        let (name, oldest) = match session.mariadb {
            true => ("MariaDB", OLDEST_MARIADB),
            false => ("MySQL", OLDEST_MYSQL),
        };
        if numbers(&version) < oldest {
            let text = format!("{name} {}.{} or later is needed", oldest.0, oldest.1);
            return Err(Failure::refused(endpoint, &text));
        }
        Ok(session)
    }

    /// Whether the server shows a certificate of the datastore's authorities.
    pub async fn prove(&self, endpoint: &Endpoint) -> Result<(), TenancyError> {
        self.servers.prove(endpoint, handshake::ask_for_tls).await
    }
}

/// Without what distributions add.
fn short(version: &str) -> String {
    const MARIADB: &str = "-MariaDB";
    match version.find(MARIADB) {
        Some(at) => version[..at + MARIADB.len()].to_owned(),
        None => version.split('-').next().unwrap_or(version).to_owned(),
    }
}

/// Major and minor.
fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|it| it.parse().ok()).unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (said, meant, pair) in [
            ("10.11.14-MariaDB-0+deb12u2", "10.11.14-MariaDB", (10, 11)),
            ("8.0.36-0ubuntu0.22.04.1", "8.0.36", (8, 0)),
            ("9.1.0", "9.1.0", (9, 1)),
        ] {
            assert_eq!(short(said), meant);
            assert_eq!(numbers(said), pair);
        }
    }
}
