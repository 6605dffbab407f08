//! Connections to a NATS, and what its silence means.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::timeout;
use uuid::Uuid;

use crate::tenancy::sql::endpoint::Endpoint;
use crate::tenancy::{Connection, TenancyError, tls};

/// NATS' own.
const PORT: u16 = 4222;

/// The servers of a datastore.
pub struct Link {
    servers: Vec<String>,
    tls: Option<ClientConfig>,
    pub deadline: Duration,
}

impl Link {
    /// # Errors
    /// [`TenancyError::Refused`] for endpoints, certificates and keys that cannot be used.
    pub fn new(connection: &Connection) -> Result<Self, TenancyError> {
        let endpoints = Endpoint::all(connection, PORT)?;
        let ca = connection.ca_pem.as_deref();
        Ok(Link {
            servers: endpoints.iter().map(|at| format!("nats://{at}")).collect(),
            tls: ca.map(|ca| tls::config(connection, ca)).transpose()?,
            deadline: connection.deadline,
        })
    }

    /// Copies of data: a list of three servers is a cluster.
    pub fn replicas(&self) -> usize {
        super::copies::replicas(self.servers.len())
    }

    /// A connection with these credentials (a file's text).
    pub async fn enter(&self, credentials: &str) -> Result<Client, TenancyError> {
        self.connect(self.options(credentials)?).await
    }

    /// The same into an account with others in it, who must not guess where answers go: they
    /// could answer in the server's place.
    pub async fn enter_beside_others(&self, credentials: &str) -> Result<Client, TenancyError> {
        let inbox = format!("_STEWARD.{}", Uuid::new_v4().simple());
        let options = self.options(credentials)?.custom_inbox_prefix(inbox);
        self.connect(options).await
    }

    fn options(&self, credentials: &str) -> Result<ConnectOptions, TenancyError> {
        let mut options = ConnectOptions::with_credentials(credentials)
            .map_err(|e| TenancyError::Refused(format!("the credentials cannot be read: {e}")))?
            .name("steward")
            .connection_timeout(self.deadline)
            .request_timeout(Some(self.deadline))
            // What servers say of each other is for their own network.
            .ignore_discovered_servers()
            .ping_interval(self.deadline);
        if let Some(tls) = &self.tls {
            options = options.tls_client_config(tls.clone()).require_tls(true);
        }
        Ok(options)
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Client, TenancyError> {
        match timeout(self.deadline, options.connect(self.servers.clone())).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(self.refusal(&error)),
            Err(_) => Err(TenancyError::Unreachable(format!(
                "{}: no connection within {:?}",
                self.servers.join(", "),
                self.deadline
            ))),
        }
    }

    fn refusal(&self, error: &ConnectError) -> TenancyError {
        let text = format!("{}: {}", self.servers.join(", "), causes(error));
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                TenancyError::Unauthenticated(text)
            }
            ConnectErrorKind::Tls => TenancyError::Unauthenticated(text),
            _ if text.contains("certificate") => TenancyError::Unauthenticated(text),
            _ => TenancyError::Unreachable(text),
        }
    }
}

/// An error with what caused it.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// A connection that is kept. While the server is away the client would only be silent: so it
/// is given up after a silence, and the next one finds out why.
#[derive(Default)]
pub struct Kept(Mutex<Option<Arc<Client>>>);

impl Kept {
    pub fn get(&self) -> Option<Arc<Client>> {
        self.0.lock().clone()
    }

    pub fn keep(&self, client: Client) -> Arc<Client> {
        let client = Arc::new(client);
        *self.0.lock() = Some(Arc::clone(&client));
        client
    }

    /// Hands a result on.
    pub fn unless_silent<T>(&self, result: Result<T, TenancyError>) -> Result<T, TenancyError> {
        if let Err(TenancyError::Unreachable(_)) = &result {
            *self.0.lock() = None;
        }
        result
    }
}
