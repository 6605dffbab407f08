//! Why there is no answer. The client's connections are made in the background
//! and keep their failures to themselves, so a handshake of our own finds out.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tenancy::{Connection, TenancyError, tls};

/// How long each endpoint has to answer once the client gave up.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Diagnosis {
    endpoints: Vec<String>,
    /// `None` without TLS.
    tls: Option<TlsConnector>,
}

impl Diagnosis {
    /// Checks that certificates and keys can be used.
    pub fn new(connection: &Connection) -> Result<Self, TenancyError> {
        let tls = match &connection.ca_pem {
            None => None,
            Some(ca) => {
                let mut config = tls::config(connection, ca)?;
                config.alpn_protocols = vec![b"h2".to_vec()];
                Some(TlsConnector::from(Arc::new(config)))
            }
        };
        Ok(Diagnosis {
            endpoints: connection.endpoints.clone(),
            tls,
        })
    }

    /// The error for requests that got no answer: `text`, and what is wrong
    /// with each endpoint.
    pub async fn explain(&self, text: String) -> TenancyError {
        let found = self.endpoints.iter().map(|endpoint| self.examine(endpoint));
        let found = futures::future::join_all(found).await;
        // What is said of an endpoint need not be said of all.
        let told = |fault: &Fault| text.ends_with(&fault.text);
        let mut words = match found.iter().flatten().any(told) {
            true => Vec::new(),
            false => vec![text],
        };
        for (endpoint, found) in self.endpoints.iter().zip(&found) {
            if let Some(fault) = found {
                words.push(format!("{endpoint}: {}", fault.text));
            }
        }
        let words = words.join("; ");
        // Only if every endpoint refuses us is it a matter of identity.
        if found
            .iter()
            .flatten()
            .filter(|fault| fault.identity)
            .count()
            == self.endpoints.len()
        {
            TenancyError::Unauthenticated(words)
        } else {
            TenancyError::Unreachable(words)
        }
    }

    async fn examine(&self, endpoint: &str) -> Option<Fault> {
        match timeout(PATIENCE, self.shake_hands(endpoint)).await {
            Ok(fault) => fault,
            Err(_) => Some(Fault {
                text: format!("no connection within {PATIENCE:?}"),
                identity: false,
            }),
        }
    }

    async fn shake_hands(&self, endpoint: &str) -> Option<Fault> {
        let address = endpoint
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let tcp = match TcpStream::connect(address).await {
            Ok(tcp) => tcp,
            Err(e) => {
                return Some(Fault {
                    text: e.to_string(),
                    identity: false,
                });
            }
        };
        let tls = self.tls.as_ref()?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(e) => {
                return Some(Fault {
                    text: e.to_string(),
                    identity: false,
                });
            }
        };
        let identity = |e: std::io::Error| Fault {
            text: e.to_string(),
            identity: e.get_ref().is_some_and(|e| e.is::<rustls::Error>()),
        };
        let mut stream = match tls.connect(name, tcp).await {
            Ok(stream) => stream,
            Err(e) => return Some(identity(e)),
        };
        // TLS 1.3 has no word on our certificate until the server speaks. HTTP/2
        // servers speak first, so that silence or bytes mean consent.
        let mut byte = [0];
        match timeout(PATIENCE / 2, stream.read(&mut byte)).await {
            Ok(Err(e)) => Some(identity(e)),
            Ok(Ok(_)) | Err(_) => None,
        }
    }
}

struct Fault {
    text: String,
    /// The two sides do not accept each other's certificates.
    identity: bool,
}
