//! Connections to PostgreSQL: which server, as whom, and a deadline for each statement.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, FromRow, PgConnection};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::failure::Failure;
use super::handshake;
use super::messages::Announced;
use crate::tenancy::contents::kine::Value;
use crate::tenancy::sql;
use crate::tenancy::sql::endpoint::Endpoint;
use crate::tenancy::sql::metered::{Metered, NoHeads};
use crate::tenancy::sql::names::PLACE;
use crate::tenancy::sql::servers::Servers;
use crate::tenancy::{Connection, TenancyError};

const PORT: u16 = 5432;
/// Databases that every server has; one of them has to do until there is ours.
const OTHERS: [&str; 2] = ["postgres", "template1"];
/// Databases in which no tenant makes anything.
const OURS: [&str; 3] = [PLACE, OTHERS[0], OTHERS[1]];
/// Before that `DROP DATABASE` cannot end connections.
const OLDEST: i32 = 130_000;

/// Milliseconds after which the server gives up a connection that is not used. Longer than
/// connections are kept.
const IDLE: u32 = 120_000;

/// Version, whether it is a standby, whether it only reads all the same, and whether a
/// superuser asks. Versions before 14 do not give up what is not used.
const STATE: &str = "\
select current_setting('server_version_num')::int4, pg_is_in_recovery(),
       current_setting('transaction_read_only')::bool,
       current_setting('is_superuser')::bool,
       case when current_setting('server_version_num')::int4 >= 140000
            then set_config('idle_session_timeout', $1, false) end";

/// Who connects where.
pub struct Login<'a> {
    pub user: &'a str,
    pub password: &'a str,
    pub database: &'a str,
    /// Whether it shows the client certificate of the datastore, if there is one.
    pub certificate: bool,
}

/// A connection to one server.
pub struct Session {
    pub endpoint: Endpoint,
    /// Whether it is to the database that holds the claims.
    pub in_place: bool,
    /// Whether it is known to be a superuser's.
    pub superuser: bool,
    connection: Metered<PgConnection>,
    /// For one statement.
    pub deadline: Duration,
    /// Bytes of the answer to one statement.
    pub most: usize,
}

impl Session {
    /// The connection, on which one more answer may come.
    fn server(&mut self) -> &mut PgConnection {
        self.connection.allow(self.most);
        &mut self.connection.connection
    }

    #[allow(clippy::result_large_err, reason = "as of all that ask")]
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

    /// Executes statements that return nothing. Names and values in it are quoted.
    pub async fn run(&mut self, what: &'static str, sql: String) -> Result<(), Failure> {
        let deadline = self.deadline;
        let run = sqlx::raw_sql(AssertSqlSafe(sql)).execute(self.server());
        let done = timeout(deadline, run).await;
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
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let deadline = self.deadline;
        let mut query = sqlx::query_as(sql);
        for parameter in parameters {
            query = query.bind(*parameter);
        }
        let asked = timeout(deadline, query.fetch_all(self.server())).await;
        self.outcome(what, asked)
    }

    /// Whether a question has the answer yes.
    pub async fn holds(
        &mut self,
        what: &'static str,
        sql: &'static str,
        parameters: &[&str],
    ) -> Result<bool, Failure> {
        let rows: Vec<(bool,)> = self.rows(what, sql, parameters).await?;
        Ok(rows.first().is_some_and(|row| row.0))
    }

    /// Asks with values of several kinds.
    pub async fn ask<T>(
        &mut self,
        what: &'static str,
        sql: String,
        values: &[Value<'_>],
    ) -> Result<Vec<T>, Failure>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let deadline = self.deadline;
        let query = sqlx::query_as_with(AssertSqlSafe(sql), arguments(values));
        let asked = query.persistent(values.len() < 3).fetch_all(self.server());
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

    /// Says good-bye.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

fn arguments(values: &[Value<'_>]) -> PgArguments {
    use sqlx::Arguments;
    let mut arguments = PgArguments::default();
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

    fn options(&self, endpoint: &Endpoint, login: &Login<'_>) -> PgConnectOptions {
        let c = &self.servers.connection;
        // In a tenant's database the tenant makes functions; none of them may stand in for
        // one of the server's. And the server does not keep for long the locks of one of us
        // who vanished.
        let deadline = c.deadline.as_millis().to_string();
        let settings = [
            ("search_path", "pg_catalog".to_owned()),
            ("lock_timeout", deadline.clone()),
            ("statement_timeout", deadline),
            ("idle_in_transaction_session_timeout", IDLE.to_string()),
            ("tcp_user_timeout", IDLE.to_string()),
            ("tcp_keepalives_idle", "30".to_owned()),
            ("tcp_keepalives_interval", "10".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ];
        let options = PgConnectOptions::new_without_pgpass()
            .host(&endpoint.host)
            .port(endpoint.port)
            .username(login.user)
            .password(login.password)
            .database(login.database)
            .application_name("steward")
            .options(settings.iter().map(|(name, value)| (name, value)))
            // Statements hold names, and verifiers of passwords.
            .disable_statement_logging();
        // With an authority TLS is ours, see `to_server`: the client trusts public ones too.
        options.ssl_mode(match c.ca_pem {
            Some(_) => PgSslMode::Disable,
            None => PgSslMode::Prefer,
        })
    }

    /// A connection to one server.
    pub async fn login(&self, endpoint: &Endpoint, login: &Login<'_>) -> Result<Session, Failure> {
        let deadline = self.servers.deadline();
        let options = self.options(endpoint, login);
        // As it names a socket in a directory.
        let place = |name: &str| format!("{name}/.s.PGSQL.{}", endpoint.port);
        let connect = |socket| async move { options.socket(socket).connect().await };
        let work = async {
            let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
            let _ = tcp.set_nodelay(true);
            match self.servers.tls(login.certificate) {
                Some(tls) => {
                    let server = handshake::begin(tls, &endpoint.host, tcp).await?;
                    Metered::open(server, Announced::default(), place, connect).await
                }
                None => Metered::open(tcp, NoHeads, place, connect).await,
            }
        };
        match timeout(deadline, work).await {
            Ok(Ok(connection)) => Ok(Session {
                endpoint: endpoint.clone(),
                in_place: login.database == PLACE,
                superuser: false,
                connection,
                deadline,
                most: match OURS.contains(&login.database) {
                    true => sql::ANSWER,
                    false => sql::TENANTS_ANSWER,
                },
            }),
            Ok(Err(error)) => Err(Failure::of(endpoint, "connect", &error)),
            Err(_) => Err(Failure::silence(endpoint, "connect", deadline)),
        }
    }

    /// A connection of the administrator to a database of a server that serves.
    pub async fn enter(&self, endpoint: &Endpoint, database: &str) -> Result<Session, Failure> {
        let login = Login {
            user: &self.servers.administrator,
            password: &self.servers.password,
            database,
            certificate: true,
        };
        self.login(endpoint, &login).await
    }

    /// A connection of the administrator to the first server that writes, in the database
    /// with the claims if that is there.
    pub async fn open(&self) -> Result<Session, TenancyError> {
        self.servers
            .first(async |endpoint| Ok(self.open_at(&endpoint).await?))
            .await
    }

    async fn open_at(&self, endpoint: &Endpoint) -> Result<Session, Failure> {
        let mut found = self.enter(endpoint, PLACE).await;
        // Only absence means that nobody has claimed anything.
        let mut elsewhere: &[&str] = &["3D000"];
        for other in OTHERS {
            match &found {
                Err(failure) if elsewhere.contains(&failure.code.as_str()) => {}
                _ => break,
            }
            found = self.enter(endpoint, other).await;
            elsewhere = &["3D000", "42501"];
        }
        let mut session = found?;
        let idle = IDLE.to_string();
        let state: Vec<(i32, bool, bool, bool, Option<String>)> =
            session.rows("ask the server", STATE, &[&idle]).await?;
        match state.first() {
            Some((_, true, ..)) => Err(Failure::unreachable(
                endpoint,
                "this server is a standby, which only reads",
            )),
            Some((_, _, true, ..)) => Err(Failure::unreachable(
                endpoint,
                "this server only reads (default_transaction_read_only is on, which some set \
                 when the disk is full)",
            )),
            Some((version, ..)) if *version < OLDEST => Err(Failure::refused(
                endpoint,
                "PostgreSQL 13 or later is needed",
            )),
            found => {
                session.superuser = found.is_some_and(|found| found.3);
                Ok(session)
            }
        }
    }

    /// Whether the server shows a certificate of the datastore's authorities.
    pub async fn prove(&self, endpoint: &Endpoint) -> Result<(), TenancyError> {
        self.servers.prove(endpoint, handshake::ask_for_tls).await
    }
}
