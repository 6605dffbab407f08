//! How a datastore is reached.

use std::fmt;
use std::time::Duration;

/// How a datastore is reached. PEM texts are as in a `DataStore`.
#[derive(Clone)]
pub struct Connection {
    /// As in `DataStore.spec.driver`: `etcd`, `MySQL`, `NATS` or `PostgreSQL`.
    pub driver: String,
    /// `host:port` each.
    pub endpoints: Vec<String>,
    /// Authorities that the server's certificate may come from.
    pub ca_pem: Option<Vec<u8>>,
    /// Certificate of the administrator; for etcd its common name is `root`.
    pub client_cert: Option<Vec<u8>>,
    /// The key of `client_cert`.
    pub client_key: Option<Vec<u8>>,
    /// Administrator's name, where the driver authenticates by password.
    pub username: Option<String>,
    /// Administrator's password.
    pub password: Option<String>,
    /// How long one request to the server may take.
    pub deadline: Duration,
}

impl Connection {
    /// What suits a controller: five seconds for one request.
    pub const DEADLINE: Duration = Duration::from_secs(5);
}

impl fmt::Debug for Connection {
    /// Without key and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("driver", &self.driver)
            .field("endpoints", &self.endpoints)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
