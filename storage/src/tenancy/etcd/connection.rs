//! The connection to an etcd: one client, a deadline for each request, and what
//! etcd's answers mean.

use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, timeout};

use super::diagnose::Diagnosis;
use crate::tenancy::{Connection, TenancyError};

/// A user that does not exist. Asking for its password tells whether
/// authentication is on; etcd has a call for it that the client lacks.
const NOBODY: &str = "steward.butlerlabs.dev/nobody";
/// The question leaves a line in etcd's log, so it is not asked more often.
const AUTHENTICATION_KNOWN_FOR: Duration = Duration::from_secs(60);

/// How often a request is repeated that met a change of users or roles.
const OLD_REVISION: usize = 5;

pub struct Link {
    connection: Connection,
    diagnosis: Diagnosis,
    client: OnceCell<Client>,
    /// When authentication was last seen to be on.
    authenticates: Mutex<Option<Instant>>,
}

impl Link {
    /// Checks certificates and keys, and connects at the first request.
    pub fn new(connection: Connection) -> Result<Self, TenancyError> {
        if connection.endpoints.is_empty() {
            return Err(TenancyError::Refused(
                "the datastore has no endpoints".to_owned(),
            ));
        }
        Ok(Link {
            diagnosis: Diagnosis::new(&connection)?,
            connection,
            client: OnceCell::new(),
            authenticates: Mutex::new(None),
        })
    }

    /// One request, within the deadline. Repeated only where etcd says that it
    /// did not look at it.
    pub async fn ask<T, F>(
        &self,
        what: &'static str,
        request: impl Fn(Client) -> F,
    ) -> Result<T, TenancyError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = self.connection.deadline;
        let asked = timeout(deadline, async {
            let client = self.client.get_or_try_init(|| self.open()).await?;
            let mut attempt = 1;
            loop {
                match request(client.clone()).await {
                    Err(error) if attempt < OLD_REVISION && is_old_revision(&error) => attempt += 1,
                    outcome => return outcome,
                }
            }
        });
        match asked.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => match classify(what, &error) {
                TenancyError::Unreachable(text) => Err(self.diagnosis.explain(text).await),
                other => Err(other),
            },
            Err(_) => {
                let text = format!("{what}: no answer within {deadline:?}");
                Err(self.diagnosis.explain(text).await)
            }
        }
    }

    /// For one request.
    pub fn deadline(&self) -> Duration {
        self.connection.deadline
    }

    /// Whether the server checks who is asking.
    pub async fn authentication(&self) -> Result<bool, TenancyError> {
        let mut known = self.authenticates.lock().await;
        if known.is_some_and(|since| since.elapsed() < AUTHENTICATION_KNOWN_FOR) {
            return Ok(true);
        }
        let asked = self.ask("authentication", |mut client| async move {
            // The client keeps its own identity when this fails.
            let nobody = (NOBODY.to_owned(), String::new());
            match client.update_user(Some(nobody)).await {
                Err(Error::GRpcStatus(status))
                    if status.message().contains("invalid user ID or password") =>
                {
                    Ok(true)
                }
                Err(Error::GRpcStatus(status))
                    if status.message().contains("authentication is not enabled") =>
                {
                    Ok(false)
                }
                Err(error) => Err(error),
                Ok(()) => Err(Error::Internal(format!("{NOBODY} has a password"))),
            }
        });
        let on = asked.await?;
        *known = on.then(Instant::now);
        Ok(on)
    }

    /// Checks that we are the administrator, who alone may list users. While
    /// authentication is off everybody may.
    pub async fn prove_root(&self) -> Result<(), TenancyError> {
        let users = self.ask("list users", |mut client| async move {
            client.user_list().await
        });
        match absent(users.await)? {
            Some(_) => Ok(()),
            // It is the asker who was not found.
            None => Err(TenancyError::Unauthenticated(
                "etcd has no user with the common name of the client certificate, which must \
                 be root"
                    .to_owned(),
            )),
        }
    }

    async fn open(&self) -> Result<Client, Error> {
        let c = &self.connection;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(c.deadline)
            .with_timeout(c.deadline)
            .with_keep_alive(c.deadline, c.deadline)
            .with_keep_alive_while_idle(true);
        if let Some(ca) = &c.ca_pem {
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
            if let (Some(cert), Some(key)) = (&c.client_cert, &c.client_key) {
                tls = tls.identity(Identity::from_pem(cert, key));
            }
            options = options.with_tls(tls);
        }
        if let (Some(name), Some(password)) = (&c.username, &c.password) {
            options = options
                .with_user(name, password)
                .with_auto_token_refresh(true);
        }
        Client::connect(&c.endpoints, Some(options)).await
    }
}

/// `None` for an answer that says that the user or role does not exist.
pub fn absent<T>(answer: Result<T, TenancyError>) -> Result<Option<T>, TenancyError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(TenancyError::Other(text))
            if text.ends_with("user name not found") || text.ends_with("role name not found") =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub fn is_compacted(error: &TenancyError) -> bool {
    matches!(error, TenancyError::Other(text) if text.contains("revision has been compacted"))
}

fn is_old_revision(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.message().contains("revision of auth store is old"))
}

/// What an answer of etcd means. Codes alone do not tell: etcd uses one code
/// for many things, and its texts are part of its interface.
pub fn classify(what: &'static str, error: &Error) -> TenancyError {
    // gRPC's codes. The client's own time limit says CANCELLED.
    const CANCELLED: i32 = 1;
    const DEADLINE_EXCEEDED: i32 = 4;
    const PERMISSION_DENIED: i32 = 7;
    const UNAVAILABLE: i32 = 14;
    const UNAUTHENTICATED: i32 = 16;

    let text = |message: &str| format!("{what}: {message}");
    let status = match error {
        Error::GRpcStatus(status) => status,
        Error::TransportError(e) => return TenancyError::Unreachable(text(&first_cause(e))),
        Error::IoError(e) => return TenancyError::Unreachable(text(&first_cause(e))),
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::EndpointError(_) => {
            return TenancyError::Refused(text(&error.to_string()));
        }
        other => return TenancyError::Other(text(&other.to_string())),
    };
    // What the server said has no cause on this side.
    if std::error::Error::source(status).is_some() {
        return TenancyError::Unreachable(text(&first_cause(status)));
    }
    let message = status.message();
    if message.contains("user name is empty") {
        return TenancyError::Unauthenticated(text(
            "etcd takes no name from our certificate; start it with --client-cert-auth",
        ));
    }
    if message.contains("invalid user ID or password") || message.contains("invalid auth token") {
        return TenancyError::Unauthenticated(text(message));
    }
    if message.contains("database space exceeded") {
        return TenancyError::NoSpace(text(message));
    }
    match i32::from(status.code()) {
        CANCELLED | UNAVAILABLE | DEADLINE_EXCEEDED => TenancyError::Unreachable(text(message)),
        UNAUTHENTICATED => TenancyError::Unauthenticated(text(message)),
        PERMISSION_DENIED => TenancyError::Refused(text(
            "permission denied; the client certificate of the datastore must have the \
             common name root",
        )),
        _ => TenancyError::Other(text(message)),
    }
}

/// The first cause of an error; those above it repeat it or say less.
fn first_cause(error: &dyn std::error::Error) -> String {
    let mut first = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    first.to_string()
}
