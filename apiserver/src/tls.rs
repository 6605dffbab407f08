//! TLS of the server: versions, protocols, the serving certificate of the moment, and
//! client certificates that are asked for and never required (R1.21, R9.15-R9.18).
//!
//! A client certificate is only proven to be in the hands of its owner here; whom it
//! speaks for is decided in [`crate::authn`], so that a stranger's certificate gives
//! 401 and no TLS alert.

use std::sync::Arc;

use apiservice::pki;
use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio::sync::Notify;

/// Why a serving certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the certificate holds no PEM block")]
    Empty,
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// The serving certificate that new connections get. Open ones live on (R9.16).
#[derive(Debug, Default)]
pub struct Serving {
    current: ArcSwapOption<CertifiedKey>,
    news: Notify,
}

impl Serving {
    /// Puts a certificate, with its chain, in place.
    ///
    /// # Errors
    /// When it cannot be read, or the key is not the certificate's.
    pub fn install(&self, pair: &pki::Pair) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect::<Result<_, _>>()?;
        if chain.is_empty() {
            return Err(Error::Empty);
        }
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?;
        self.current.store(Some(Arc::new(certified)));
        self.news.notify_waiters();
        Ok(())
    }

    /// Waits for the first certificate, so that who connects early is not turned away.
    pub async fn installed(&self) {
        loop {
            let news = self.news.notified();
            if self.is_installed() {
                return;
            }
            news.await;
        }
    }

    /// Whether there is a certificate: without one, handshakes fail.
    pub fn is_installed(&self) -> bool {
        self.current.load().is_some()
    }
}

impl ResolvesServerCert for Serving {
    /// The same for every server name (R9.18).
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// The configuration of every connection: TLS 1.2 and 1.3, h2 and http/1.1.
///
/// # Errors
/// When the cryptography cannot do TLS 1.2 and 1.3.
pub fn config(serving: Arc<Serving>) -> Result<Arc<ServerConfig>, Error> {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let possession = Arc::new(Possession {
        algorithms: provider.signature_verification_algorithms,
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(possession)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Asks for a client certificate, requires none, and checks only that whoever presents
/// it holds its key.
#[derive(Debug)]
struct Possession {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
