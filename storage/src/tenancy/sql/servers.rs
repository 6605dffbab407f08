//! The servers of one datastore: settings, which of them serves, and whom we trust.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::endpoint::{Endpoint, administrator, together};
use crate::tenancy::{Connection, TenancyError, tls};

/// The servers of one datastore.
pub struct Servers {
    /// The administrator's name.
    pub administrator: String,
    /// And its password.
    pub password: String,
    pub connection: Connection,
    endpoints: Vec<Endpoint>,
    /// The one that served last.
    good: AtomicUsize,
    /// With the client certificate, if there is one, and without.
    tls: Option<[TlsConnector; 2]>,
}

impl Servers {
    /// Checks settings; does not connect.
    pub fn new(connection: Connection, default_port: u16) -> Result<Self, TenancyError> {
        let endpoints = Endpoint::all(&connection, default_port)?;
        let (administrator, password) = administrator(&connection)?;
        let tls = match &connection.ca_pem {
            None => None,
            Some(ca) => {
                let nobody = Connection {
                    client_cert: None,
                    client_key: None,
                    ..connection.clone()
                };
                let tls = [&connection, &nobody].map(|of| tls::config(of, ca));
                let [own, nobodys] = tls.map(|tls| tls.map(|it| TlsConnector::from(Arc::new(it))));
                Some([own?, nobodys?])
            }
        };
        Ok(Servers {
            administrator,
            password,
            connection,
            endpoints,
            good: AtomicUsize::new(0),
            tls,
        })
    }

    /// For one request.
    pub fn deadline(&self) -> Duration {
        self.connection.deadline
    }

    /// How the server is to be spoken to over TLS, if it is: showing the client certificate, or
    /// none.
    pub fn tls(&self, certificate: bool) -> Option<&TlsConnector> {
        let [own, nobodys] = self.tls.as_ref()?;
        Some(if certificate { own } else { nobodys })
    }

    /// The client certificate and its key, if there are any.
    pub fn certificate(&self) -> Option<(&[u8], &[u8])> {
        let certificate = self.connection.client_cert.as_deref()?;
        Some((certificate, self.connection.client_key.as_deref()?))
    }

    /// What the first server that can be opened gives, in order, beginning with the one
    /// that served last.
    pub async fn first<T, F>(&self, open: impl Fn(Endpoint) -> F) -> Result<T, TenancyError>
    where
        F: Future<Output = Result<T, TenancyError>>,
    {
        let count = self.endpoints.len();
        let first = self.good.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for index in (first..first + count).map(|index| index % count) {
            match open(self.endpoints[index].clone()).await {
                Ok(opened) => {
                    self.good.store(index, Ordering::Relaxed);
                    return Ok(opened);
                }
                Err(failure) => failures.push(failure),
            }
        }
        Err(together(failures))
    }

    /// Whether a server shows a certificate of the datastore's authorities: the client
    /// library does not tell, for it trusts public ones too. `ask` brings a connection to
    /// where the handshake begins.
    pub async fn prove<F>(
        &self,
        endpoint: &Endpoint,
        ask: impl FnOnce(TcpStream) -> F,
    ) -> Result<(), TenancyError>
    where
        F: Future<Output = io::Result<TcpStream>>,
    {
        let Some(tls) = self.tls(true) else {
            return Ok(());
        };
        let handshake = async {
            let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
            let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
            tls.connect(name, ask(tcp).await?).await
        };
        let text = |what: &str| format!("{endpoint}: connect: {what}");
        match timeout(self.deadline(), handshake).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(super::without_answer(&error.into(), text)),
            Err(_) => Err(TenancyError::Unreachable(text(&format!(
                "no answer within {:?}",
                self.deadline()
            )))),
        }
    }
}
