//! Why there is no answer. The client's connections are made in the background
//! and keep their failures to themselves, so a handshake of our own finds out.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tenancy::{Connection, TenancyError};

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
            Some(ca) => Some(TlsConnector::from(Arc::new(config(connection, ca)?))),
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

fn config(connection: &Connection, ca: &[u8]) -> Result<ClientConfig, TenancyError> {
    let refused = |what: &str, e: &dyn std::fmt::Display| {
        TenancyError::Refused(format!("the {what} of the datastore cannot be used: {e}"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|e| refused("certificate authority", &e))?;
        roots
            .add(certificate)
            .map_err(|e| refused("certificate authority", &e))?;
    }
    if roots.is_empty() {
        return Err(refused("certificate authority", &"it holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TenancyError::Other(e.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&connection.client_cert, &connection.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| refused("client certificate", &e))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| refused("client key", &e))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| refused("client certificate", &e))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => {
            return Err(refused(
                "client certificate",
                &"certificate and key go together",
            ));
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
