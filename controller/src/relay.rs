//! Brings connections to an etcd that wants another certificate than their client has: each
//! that is made here is made there over TLS, and bytes go to and fro.
//!
//! It runs in the pods of tenants ([`crate::tenant::backing::relay`]), and knows neither the
//! management cluster nor what it carries. Files are read for each connection, so that renewed
//! certificates need no restart. An endpoint that does not answer is passed over; one that falls
//! silent later is noticed by the two ends, which ask each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::args::RelayArgs;
use crate::process::timing;

/// Connections at a time: kube-apiserver has a few for each resource. Beyond that nobody is
/// accepted until one ends.
const MOST: usize = 512;

/// Bytes of a file that is read: certificates have a few thousand.
const FILE: u64 = 256 * 1024;

/// Where connections go.
pub struct Relay {
    endpoints: Vec<String>,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    /// The endpoint that answered last.
    last: AtomicUsize,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
    #[error("{0} cannot be used: {1}")]
    Unusable(PathBuf, String),
    #[error("{0}")]
    Unreachable(String),
}

impl Relay {
    /// As the arguments say.
    pub fn new(args: &RelayArgs) -> Self {
        Self {
            endpoints: args.endpoints.clone(),
            ca: args.ca.clone(),
            certificate: args.certificate.clone(),
            key: args.key.clone(),
            last: AtomicUsize::new(0),
        }
    }

    /// Relays what comes in until the future is dropped.
    pub async fn serve(&self, listener: TcpListener) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if under_way.len() < MOST => match accepted {
                    Ok((client, _)) => under_way.push(self.carry(client)),
                    Err(error) => {
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(timing::FIRST).await;
                    }
                },
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
            }
        }
    }

    async fn carry(&self, mut client: TcpStream) {
        let mut server = match self.connect().await {
            Ok(server) => server,
            // The client comes again, each time after a longer while.
            Err(error) => return tracing::warn!("{error}"),
        };
        let _ = client.set_nodelay(true);
        // However it ended, both ends know, and the client comes again.
        if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
            tracing::debug!("a connection ended: {error}");
        }
    }

    /// A connection to the first endpoint that answers, from the one on that did last.
    async fn connect(&self) -> Result<TlsStream<TcpStream>, Error> {
        let connector = TlsConnector::from(Arc::new(self.config().await?));
        let count = self.endpoints.len();
        let last = self.last.load(Ordering::Relaxed);
        let mut told = Vec::new();
        for at in (0..count).map(|step| (last + step) % count) {
            let endpoint = &self.endpoints[at];
            let work = reach(&connector, endpoint);
            match tokio::time::timeout(CONNECT, work).await {
                Ok(Ok(server)) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(server);
                }
                Ok(Err(error)) => told.push(format!("{endpoint}: {error}")),
                Err(_) => told.push(format!("{endpoint}: no answer within {CONNECT:?}")),
            }
        }
        Err(Error::Unreachable(told.join("; ")))
    }

    async fn config(&self) -> Result<ClientConfig, Error> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |error: &dyn std::fmt::Display| Error::Unusable(path.clone(), error.to_string())
        };
        let mut roots = RootCertStore::empty();
        let bad = unusable(&self.ca);
        for authority in CertificateDer::pem_slice_iter(&read(&self.ca).await?) {
            let authority = authority.map_err(|e| bad(&e))?;
            roots.add(authority).map_err(|e| bad(&e))?;
        }
        if roots.is_empty() {
            return Err(bad(&"it holds no certificate"));
        }
        let bad = unusable(&self.certificate);
        let chain = read(&self.certificate).await?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|e| bad(&e))?;
        let key = read(&self.key).await?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| unusable(&self.key)(&e))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(&e))?
            .with_root_certificates(roots);
        let mut config = builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| bad(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// One endpoint has as long to answer.
const CONNECT: Duration = timing::RELAY_CONNECT;

async fn reach(connector: &TlsConnector, endpoint: &str) -> Result<TlsStream<TcpStream>, String> {
    let (host, _) = endpoint.rsplit_once(':').ok_or("it has no port")?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    let tcp = TcpStream::connect(endpoint).await;
    let tcp = tcp.map_err(|e| e.to_string())?;
    let _ = tcp.set_nodelay(true);
    let tls = connector.connect(name, tcp).await;
    tls.map_err(|e| e.to_string())
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::File(path.to_owned(), error);
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > FILE {
        return Err(Error::Unusable(
            path.to_owned(),
            format!("it has {size} bytes"),
        ));
    }
    tokio::fs::read(path).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use apiservice::pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity};
    use jiff::{SignedDuration, Timestamp};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::process::clock;

    /// An authority of a database, with a directory of what it has signed.
    struct Place {
        authority: Pair,
        directory: PathBuf,
    }

    fn validity() -> Validity {
        let now = clock::system().now();
        let hour = SignedDuration::from_hours(1);
        Validity {
            not_before: now.checked_sub(hour).unwrap_or(Timestamp::MIN),
            not_after: now.checked_add(hour).unwrap_or(Timestamp::MAX),
        }
    }

    impl Place {
        fn new(name: &str) -> Self {
            let unique = format!("steward-relay-{}-{name}", std::process::id());
            let directory = std::env::temp_dir().join(unique);
            std::fs::create_dir_all(&directory).unwrap();
            let place = Self {
                authority: pki::authority(name, validity(), &Entropy).unwrap(),
                directory,
            };
            place.write();
            place
        }

        fn sign(&self, name: &str, usage: Usage) -> Pair {
            let leaf = Leaf {
                subject: Subject {
                    common_name: name.to_owned(),
                    organizations: Vec::new(),
                },
                usage,
                dns_names: Vec::new(),
                ip_addresses: vec![[127, 0, 0, 1].into()],
                validity: validity(),
            };
            pki::sign(&self.authority, &leaf, &Entropy).unwrap()
        }

        /// What the relay reads.
        fn write(&self) {
            let client = self.sign("tenant", Usage::Client);
            let files = [
                ("ca.crt", &self.authority.cert),
                ("tls.crt", &client.cert),
                ("tls.key", &client.key),
            ];
            for (name, text) in files {
                std::fs::write(self.directory.join(name), text).unwrap();
            }
        }

        fn acceptor(&self) -> TlsAcceptor {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut roots = RootCertStore::empty();
            let authority = CertificateDer::from_pem_slice(self.authority.cert.as_bytes());
            roots.add(authority.unwrap()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let own = self.sign("etcd", Usage::Server);
            let chain = CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_client_cert_verifier(verifier.build().unwrap())
                .with_single_cert(vec![chain], key)
                .unwrap();
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        }

        fn relay(&self, endpoints: &[SocketAddr]) -> Relay {
            Relay::new(&RelayArgs {
                listen: ([127, 0, 0, 1], 0).into(),
                endpoints: endpoints.iter().map(ToString::to_string).collect(),
                ca: self.directory.join("ca.crt"),
                certificate: self.directory.join("tls.crt"),
                key: self.directory.join("tls.key"),
            })
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    /// Answers each connection with a name and what was sent; by turns.
    async fn answer(listener: &TcpListener, acceptor: TlsAcceptor, name: &str) {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
            let mut sent = [0; 4];
            tls.read_exact(&mut sent).await.unwrap();
            let text = format!("{name} {}", String::from_utf8_lossy(&sent));
            tls.write_all(text.as_bytes()).await.unwrap();
            let _ = tls.shutdown().await;
        }
    }

    /// What comes back through the relay: nothing, if nobody lets it in.
    async fn asked(relay: SocketAddr) -> String {
        let mut client = TcpStream::connect(relay).await.unwrap();
        let mut text = String::new();
        let _ = client.write_all(b"ping").await;
        let _ = client.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn connections_are_lent_a_certificate() {
        let place = Place::new("lent");
        let ((database, at), (relay, through)) = (listen().await, listen().await);
        let working = place.relay(&[at]);
        let serving = answer(&database, place.acceptor(), "etcd");
        let client = async {
            for _ in 0..3 {
                assert_eq!(asked(through).await, "etcd ping");
            }
        };
        tokio::select! {
            () = working.serve(relay) => {}
            () = serving => {}
            () = client => {}
        }
    }

    /// One that is away is passed over, and not asked first the next time.
    #[tokio::test]
    async fn another_member_takes_over() {
        let place = Place::new("over");
        let ((away, gone), (database, at)) = (listen().await, listen().await);
        drop(away);
        let (relay, through) = listen().await;
        let working = place.relay(&[gone, at]);
        let serving = answer(&database, place.acceptor(), "other");
        let client = async {
            assert_eq!(asked(through).await, "other ping");
            assert_eq!(working.last.load(Ordering::Relaxed), 1);
        };
        tokio::select! {
            () = working.serve(relay) => {}
            () = serving => {}
            () = client => {}
        }
    }

    /// With certificates of another authority nobody is let in, and neither is a database
    /// believed that has another one; with new files the next connection is.
    #[tokio::test]
    async fn files_are_read_for_each_connection() {
        let (mut place, other) = (Place::new("own"), Place::new("strange"));
        let ((database, at), (relay, through)) = (listen().await, listen().await);
        let working = place.relay(&[at]);
        let serving = answer(&database, other.acceptor(), "etcd");
        let client = async {
            assert_eq!(asked(through).await, "");
            place.authority = other.authority.clone();
            place.write();
            assert_eq!(asked(through).await, "etcd ping");
        };
        tokio::select! {
            () = working.serve(relay) => {}
            () = serving => {}
            () = client => {}
        }
    }
}
