//! One HTTP/2 connection to a tenant's API, made for a purpose and then
//! dropped. A new connection a purpose is what lets a probe see a swapped
//! certificate, a broken selector or a cut route, which a connection that is
//! kept alive would outlive.

use std::{
    fmt::Display,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use apiservice::endpoint::Endpoint;
use apiservice::pki::Pair;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::process::lanes::Lanes;
use crate::process::observers::{ANSWERS, LOOKUPS};
use crate::process::timing;
use crate::process::turns::Turn;
use crate::tenant::world::{ProbeFailure, ProbeFailureKind as Kind};

/// Bytes of an answer of a tenant, or of an event. What is asked for has a few thousand;
/// whoever serves at a tenant's address may send more, for as long as one listens.
const ANSWER: usize = 256 * 1024;

/// Marks that an answer may have of which a tree is made: each value has one of its own, and
/// takes up to 700 bytes, of which the text need have three. The largest object that is kept
/// in a tenant has some hundreds.
const MARKS: usize = 8 * 1024;
/// Bytes of a longer answer for each of its marks, on average.
const SPARSE: usize = 8;

/// Bytes of an answer, or of an event, that anybody may send; for more of them there are turns:
/// whoever sends slowly has us hold what came for as long as we wait.
const SHORT: usize = 16 * 1024;

/// Bytes of what a tenant says that are kept. Failures are remembered.
const SAID: usize = 4 * 1024;

/// Bytes that a tenant may send before they are read: the least that HTTP/2 begins with.
const WINDOW: u32 = 65_535;

/// With what to speak to a tenant: its authority, and who we are.
#[derive(Clone)]
pub struct Credentials {
    config: Arc<ClientConfig>,
}

impl Credentials {
    /// From the tenant's authority (PEM) and a client certificate signed for
    /// one of its client authorities.
    pub fn new(authority: &str, client: &Pair) -> Result<Self, ProbeFailure> {
        let invalid = |message: String| failure(Kind::Untrusted, message);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            let certificate =
                certificate.map_err(|error| invalid(format!("the tenant's authority: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| invalid(format!("the tenant's authority: {error}")))?;
        }
        let chain = CertificateDer::pem_slice_iter(client.cert.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| invalid(format!("client certificate: {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes())
            .map_err(|error| invalid(format!("client key: {error}")))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| invalid(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would not show the certificate again.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
        })
    }
}

/// An open connection. Dropping it closes it.
pub struct Tenant {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    /// Where the tenant is, whose tenants share turns.
    namespace: String,
    /// Subject of the certificate that the server presented, in DER.
    pub serving_certificate: Option<Vec<u8>>,
    driver: tokio::task::JoinHandle<()>,
    /// Why the connection ended.
    ended: Arc<Mutex<Option<String>>>,
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What [`Tenant::read`] has read.
#[derive(Debug)]
pub enum Read<T> {
    /// It is there.
    There(T),
    /// It is longer than was asked for.
    TooLarge,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    /// The words of a Kubernetes Status, or the code.
    pub fn message(&self) -> String {
        match self.body.get("message").and_then(Value::as_str) {
            Some(message) => message[..message.floor_char_boundary(SAID)].to_owned(),
            None => format!("HTTP {}", self.status),
        }
    }
}

/// `host:port` of a tenant, with a turn to look the host up if it is a name. The turn is
/// waited for here, before any clock runs: a wait for others is no silence of the tenant.
pub struct Address {
    text: String,
    namespace: String,
    turn: Option<Turn<'static>>,
}

impl Address {
    /// Of a tenant in `namespace`.
    pub async fn of(namespace: &str, text: &str) -> Self {
        let turn = match text.parse::<SocketAddr>() {
            Ok(_) => None,
            Err(_) => LOOKUPS.take(namespace).await,
        };
        Self {
            text: text.to_owned(),
            namespace: namespace.to_owned(),
            turn,
        }
    }

    /// Where that is. The system cannot be told to stop looking for a name, which takes a
    /// thread: the turn is held until it has, whoever waits.
    async fn resolve(self) -> std::io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.text.parse() {
            return Ok(vec![address]);
        }
        let found = tokio::task::spawn_blocking(move || {
            let _turn = self.turn;
            Ok(self.text.to_socket_addrs()?.collect())
        });
        found.await?
    }
}

impl Tenant {
    /// Connects to a tenant and checks that the server's certificate is of the tenant's
    /// authority and for `name` (default: the host).
    pub async fn connect(
        to: Address,
        name: Option<&str>,
        credentials: &Credentials,
        lanes: &Lanes,
    ) -> Result<Self, ProbeFailure> {
        let (address, namespace) = (to.text.clone(), to.namespace.clone());
        let address = address.as_str();
        let endpoint: Endpoint = address
            .parse()
            .map_err(|error| failure(Kind::Unresolvable, format!("{address}: {error}")))?;
        let host = endpoint.host.as_str();
        let addresses = to
            .resolve()
            .await
            .map_err(|error| failure(Kind::Unresolvable, format!("{host}: {error}")))?;
        let server = ServerName::try_from(name.unwrap_or(host).to_owned())
            .map_err(|error| failure(Kind::Unresolvable, format!("{host}: {error}")))?;
        let addresses = addresses.as_slice();
        let stream = race(lanes, |number| {
            let server = server.clone();
            async move {
                let stream = dial(host, addresses, number).await?;
                // Small requests, answers awaited: nothing to gather.
                let _ = stream.set_nodelay(true);
                tokio_rustls::TlsConnector::from(credentials.config.clone())
                    .connect(server, stream)
                    .await
                    .map_err(|error| tls_failure(address, &error))
            }
        })
        .await?;
        let serving_certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|certificate| certificate.to_vec());
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Of what nobody has read yet, each frame is kept, of one byte each if the tenant
            // likes.
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(Duration::from_secs(5))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure(Kind::Refused, format!("{address}: {error}")))?;
        let ended = Arc::new(Mutex::new(None));
        let note = ended.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "drives this one connection and ends with it"
        )]
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                *note.lock() = Some(chain(&error));
            }
        });
        Ok(Self {
            sender,
            authority: address.to_owned(),
            namespace,
            serving_certificate,
            driver,
            ended,
        })
    }

    /// One request and its whole answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Answer, ProbeFailure> {
        let response = self.send(method, path, content_type, body).await?;
        let status = response.status();
        let mut room = Room::of(&self.namespace);
        let body = whole(response.into_body(), ANSWER, Some(&mut room)).await;
        let body =
            body.map_err(|error| failure(Kind::Silent, format!("the answer to {path}: {error}")))?;
        let body = body.ok_or_else(|| {
            let message = format!("the answer to {path} has more than {ANSWER} bytes");
            failure(Kind::Read, message)
        })?;
        if marks(&body) > MARKS {
            let message = format!("the answer to {path} has too many values");
            return Err(failure(Kind::Read, message));
        }
        Ok(Answer {
            status,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    }

    /// Reads as much of an answer as `T` takes of it, unless it is longer than `limit`
    /// bytes or has more values than such an answer has. What `T` does not take costs no
    /// memory. Whoever asks has a turn for it.
    pub async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: usize,
    ) -> Result<Read<T>, ProbeFailure> {
        let response = self.send(Method::GET, path, "", None).await?;
        let status = response.status();
        let bytes = match whole(response.into_body(), limit, None).await {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(Read::TooLarge),
            Err(error) => {
                let message = format!("the answer to {path}: {error}");
                return Err(failure(Kind::Silent, message));
            }
        };
        let marks = marks(&bytes);
        if !status.is_success() {
            let told = (marks <= MARKS).then(|| serde_json::from_slice(&bytes).ok());
            let answer = Answer {
                status,
                body: told.flatten().unwrap_or_default(),
            };
            let kind = match status {
                StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
                StatusCode::FORBIDDEN => Kind::Forbidden,
                _ => Kind::Read,
            };
            return Err(failure(kind, answer.message()));
        }
        if marks > limit / SPARSE {
            return Ok(Read::TooLarge);
        }
        serde_json::from_slice(&bytes)
            .map(Read::There)
            .map_err(|error| failure(Kind::Read, format!("the answer to {path}: {error}")))
    }

    /// Opens a watch; lines of JSON come out of it.
    pub async fn watch(&self, path: &str) -> Result<Watch, ProbeFailure> {
        let response = self.send(Method::GET, path, "", None).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(failure(
                Kind::Watch,
                format!("the watch answers HTTP {status}"),
            ));
        }
        Ok(Watch {
            body: response.into_body(),
            lines: Lines::default(),
            room: Room::of(&self.namespace),
            ends: None,
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<http::Response<hyper::body::Incoming>, ProbeFailure> {
        let bytes = body.map(|body| Bytes::from(body.to_string()));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "steward-controller");
        if bytes.is_some() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let mut request = request
            .body(Full::new(bytes.unwrap_or_default()))
            .map_err(|error| failure(Kind::Read, error.to_string()))?;
        let span = telemetry::client::begin(&mut request);
        let answer = self.sender.clone().send_request(request).await;
        telemetry::client::end(&span, answer).map_err(|error| {
            let why = self.ended.lock().take();
            let message = why.unwrap_or_else(|| chain(&error));
            // With TLS 1.3 a refused client certificate shows only here.
            if message.contains("fatal alert") {
                failure(Kind::Unauthenticated, message)
            } else {
                failure(Kind::Silent, message)
            }
        })
    }
}

/// An error with all of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}

/// Makes an attempt, and further ones beside it, one after the other, as long as
/// there is a free lane; the first that ends is taken. The first attempt is given
/// all the time there is, for a server may be slow.
///
/// Those beside it are for two cases. Packets to a Service without pods are often
/// dropped, and the system would send the next one only after a second. And one
/// replica of several that hangs takes its share of the connections and answers
/// none, until its readiness probe has failed; who asks again is served.
async fn race<T, F>(lanes: &Lanes, attempt: impl Fn(usize) -> F) -> Result<T, ProbeFailure>
where
    F: Future<Output = Result<T, ProbeFailure>>,
{
    let Some(_lane) = lanes.wait().await else {
        return Err(failure(Kind::TimedOut, "connections to the tenant ended"));
    };
    let mut first = std::pin::pin!(attempt(0));
    for number in 1.. {
        let beside = async {
            if number == 1 {
                return std::future::pending().await;
            }
            match lanes.free() {
                Some(_lane) => attempt(number - 1).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut first => return ended,
            ended = beside => return ended,
            () = tokio::time::sleep(timing::CONNECT_AGAIN) => {}
        }
    }
    first.await
}

/// Opens a TCP connection to one of the addresses, beginning with that of this
/// number.
async fn dial(
    host: &str,
    addresses: &[SocketAddr],
    number: usize,
) -> Result<TcpStream, ProbeFailure> {
    let mut last = failure(Kind::Unresolvable, format!("{host} has no address"));
    for place in 0..addresses.len() {
        let address = addresses[(number + place) % addresses.len()];
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = connect_failure(address, &error),
        }
    }
    Err(last)
}

/// All of a body in one piece; `None` if it has more than `most` bytes.
///
/// Frames are as small as the other side likes, one byte each: kept one by one, they take many
/// times what is in them.
async fn whole<B>(
    mut body: B,
    most: usize,
    mut room: Option<&mut Room>,
) -> Result<Option<Vec<u8>>, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if all.len() + data.len() > most {
            return Ok(None);
        }
        if let Some(room) = &mut room {
            room.make(all.len() + data.len()).await;
        }
        all.extend_from_slice(&data);
    }
    Ok(Some(all))
}

/// The room for an answer that is not short, as long as it is there.
struct Room {
    namespace: String,
    turn: Option<Turn<'static>>,
}

impl Room {
    fn of(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            turn: None,
        }
    }

    /// Waits for it, if there are so many bytes.
    async fn make(&mut self, bytes: usize) {
        if bytes > SHORT && self.turn.is_none() {
            self.turn = ANSWERS.take(&self.namespace).await;
        }
    }
}

/// How many values JSON may have, at most: each but the first follows one of these. What is in
/// texts, as a long Corefile is, does not count.
fn marks(json: &[u8]) -> usize {
    let (mut marks, mut in_text, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' | b',' | b':' if !in_text => marks += 1,
            _ => {}
        }
    }
    marks
}

/// What has come of a watch and was not read yet.
#[derive(Default)]
struct Lines {
    rest: BytesMut,
    /// So much of it has no end of a line.
    searched: usize,
}

impl Lines {
    /// Takes in what comes next, unless a line has more than [`ANSWER`] bytes then.
    fn add(&mut self, data: &[u8]) -> Result<(), ProbeFailure> {
        if self.rest.len() + data.len() > ANSWER {
            let message = format!("an event of more than {ANSWER} bytes");
            return Err(failure(Kind::Watch, message));
        }
        self.rest.extend_from_slice(data);
        Ok(())
    }

    /// The next line, if all of it is there.
    fn next(&mut self) -> Option<BytesMut> {
        let new = &self.rest[self.searched..];
        let Some(end) = new.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.rest.len();
            return None;
        };
        let line = self.rest.split_to(self.searched + end + 1);
        self.searched = 0;
        if line.len() > SHORT {
            // Or the room of the line stays, as long as there is anything behind it.
            self.rest = BytesMut::from(&self.rest[..]);
        }
        Some(line)
    }

    fn is_short(&self) -> bool {
        self.rest.len() <= SHORT
    }
}

/// The lines of a watch.
pub struct Watch<B = hyper::body::Incoming> {
    body: B,
    lines: Lines,
    room: Room,
    /// Until when the line that has begun is waited for: it may hold a turn.
    ends: Option<Instant>,
}

impl<B> Watch<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    /// The next event; `None` at its end.
    pub async fn next(&mut self) -> Result<Option<Value>, ProbeFailure> {
        loop {
            if let Some(line) = self.lines.next() {
                self.ends = None;
                if self.lines.is_short() {
                    self.room.turn = None;
                }
                if marks(&line) > MARKS {
                    return Err(failure(Kind::Watch, "an event has too many values"));
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| failure(Kind::Watch, format!("not JSON: {error}")));
            }
            let frame = match self.line_ends() {
                None => self.body.frame().await,
                Some(end) => timeout_at(end, self.body.frame())
                    .await
                    .map_err(|_| failure(Kind::Watch, "an event does not come to its end"))?,
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(failure(Kind::Watch, error.to_string())),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    let asked = Instant::now();
                    self.room.make(self.lines.rest.len() + data.len()).await;
                    // A wait for others is no silence of the tenant.
                    self.ends = self.ends.map(|end| end + asked.elapsed());
                    self.lines.add(&data)?;
                }
            }
        }
    }

    /// Until when the line that has begun is waited for.
    fn line_ends(&mut self) -> Option<Instant> {
        if !self.lines.rest.is_empty() && self.ends.is_none() {
            self.ends = Some(Instant::now() + timing::LOOK_DEADLINE);
        }
        self.ends
    }
}

/// A failure in one's own words.
pub fn failure(kind: Kind, message: impl Into<String>) -> ProbeFailure {
    let mut message = message.into();
    if message.len() > SAID {
        message.truncate(message.floor_char_boundary(SAID));
        message.shrink_to_fit();
    }
    ProbeFailure { kind, message }
}

fn connect_failure(address: SocketAddr, error: &std::io::Error) -> ProbeFailure {
    use std::io::ErrorKind;
    let kind = match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Kind::Refused,
        _ => Kind::TimedOut,
    };
    failure(kind, format!("{address}: {error}"))
}

fn tls_failure(address: &str, error: &std::io::Error) -> ProbeFailure {
    use std::io::ErrorKind;
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let kind = match tls {
        Some(rustls::Error::InvalidCertificate(_)) => Kind::Untrusted,
        Some(rustls::Error::AlertReceived(_)) => Kind::Unauthenticated,
        Some(_) => Kind::Untrusted,
        None => match error.kind() {
            ErrorKind::TimedOut => Kind::TimedOut,
            _ => Kind::Refused,
        },
    };
    failure(kind, format!("{address}: {error}"))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests")]

    use super::*;
    use apiservice::pki::{self, Entropy, Leaf, Subject, Usage, Validity};
    use futures::{FutureExt, StreamExt};
    use rustls::ServerConfig;
    use std::convert::Infallible;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::net::TcpListener;

    fn validity() -> Validity {
        let now = jiff::Timestamp::now();
        Validity {
            not_before: now - jiff::SignedDuration::from_mins(5),
            not_after: now + jiff::SignedDuration::from_mins(5),
        }
    }

    fn authority() -> Pair {
        pki::authority("test", validity(), &Entropy).unwrap()
    }

    fn leaf(authority: &Pair, usage: Usage) -> Pair {
        let leaf = Leaf {
            subject: Subject {
                common_name: "leaf".into(),
                organizations: vec![],
            },
            usage,
            dns_names: vec!["tenant.example".into()],
            ip_addresses: vec!["127.0.0.1".parse().unwrap()],
            validity: validity(),
        };
        pki::sign(authority, &leaf, &Entropy).unwrap()
    }

    /// The code of an answer that never comes.
    pub(crate) const SILENT: u16 = 299;

    /// What a server answers to a method and a path with its query.
    pub(crate) type Answers = fn(&Method, &str) -> (u16, &'static str);

    async fn to(address: &str) -> Address {
        Address::of("n", address).await
    }

    /// Who may be known to some tenant.
    pub(crate) fn somebody() -> Credentials {
        let authority = authority();
        Credentials::new(&authority.cert, &leaf(&authority, Usage::Client)).unwrap()
    }

    /// Held by tests that take all turns to look names up.
    pub(crate) static NAMES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// A connection to a tenant that answers so.
    pub(crate) async fn tenant(answers: Answers) -> Tenant {
        let (servers, clients) = (authority(), authority());
        let address = serve_with(&servers, &clients, answers).await;
        let me = Credentials::new(&servers.cert, &leaf(&clients, Usage::Client)).unwrap();
        let connected = Tenant::connect(to(&address).await, None, &me, &Lanes::default()).await;
        connected.unwrap()
    }

    async fn serve(servers: &Pair, clients: &Pair) -> String {
        serve_with(servers, clients, |_, _| {
            (
                200,
                "{\"kind\":\"Status\",\"message\":\"hello\"}\n{\"n\":2}\n",
            )
        })
        .await
    }

    /// A server that wants certificates of `clients` and shows one of `servers`.
    async fn serve_with(servers: &Pair, clients: &Pair, answers: Answers) -> String {
        let pair = leaf(servers, Usage::Server);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(clients.cert.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            provider.clone(),
        )
        .build()
        .unwrap();
        let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes())
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service =
                        hyper::service::service_fn(move |request: Request<_>| async move {
                            let uri = request.uri().path_and_query().map(ToString::to_string);
                            let (code, body) = answers(request.method(), &uri.unwrap_or_default());
                            let _: hyper::body::Incoming = request.into_body();
                            if code == SILENT {
                                std::future::pending::<()>().await;
                            }
                            let mut response =
                                http::Response::new(Full::new(Bytes::from_static(body.as_bytes())));
                            *response.status_mut() = StatusCode::from_u16(code).unwrap();
                            Ok::<_, Infallible>(response)
                        });
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        address
    }

    async fn kind_of(address: &str, name: Option<&str>, credentials: &Credentials) -> Option<Kind> {
        match Tenant::connect(to(address).await, name, credentials, &Lanes::default()).await {
            Err(failure) => Some(failure.kind),
            Ok(tenant) => tenant
                .call(Method::GET, "/version", "", None)
                .await
                .err()
                .map(|failure| failure.kind),
        }
    }

    #[tokio::test]
    async fn a_certificate_of_another_authority_is_told_from_a_dead_server() {
        let (ours, others, clients) = (authority(), authority(), authority());
        let good = serve(&ours, &clients).await;
        let swapped = serve(&others, &clients).await;
        let me = Credentials::new(&ours.cert, &leaf(&clients, Usage::Client)).unwrap();
        assert_eq!(kind_of(&good, None, &me).await, None);
        assert_eq!(kind_of(&good, Some("tenant.example"), &me).await, None);
        assert_eq!(kind_of(&swapped, None, &me).await, Some(Kind::Untrusted));
        let wrong = Some("other.example");
        assert_eq!(kind_of(&good, wrong, &me).await, Some(Kind::Untrusted));
        let stranger = Credentials::new(&ours.cert, &leaf(&others, Usage::Client)).unwrap();
        assert_eq!(
            kind_of(&good, None, &stranger).await,
            Some(Kind::Unauthenticated)
        );
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = closed.local_addr().unwrap().to_string();
        drop(closed);
        assert_eq!(kind_of(&nobody, None, &me).await, Some(Kind::Refused));
    }

    /// With DNS away, each of a thousand names held a thread for longer than its probe lasts.
    #[tokio::test]
    async fn a_name_waits_for_its_turn_and_an_address_does_not() {
        let _names = NAMES.lock().await;
        let turns: Vec<_> = std::iter::repeat_with(|| LOOKUPS.take("busy").now_or_never())
            .map_while(Option::flatten)
            .collect();
        assert_eq!(turns.len(), 32);
        let name = Address::of("busy", "localhost:6443");
        assert!(name.now_or_never().is_none());
        for (namespace, address) in [
            ("busy", "127.0.0.1:6443"),
            ("busy", "[::1]:6443"),
            ("other", "localhost:6443"),
        ] {
            let address = Address::of(namespace, address).await;
            let found = address.resolve().await.unwrap();
            assert!(found.iter().all(|it| it.port() == 6443), "{found:?}");
        }
        drop(turns);
        let name = Address::of("busy", "localhost:6443").await;
        assert!(name.resolve().await.is_ok());
    }

    #[tokio::test]
    async fn a_replica_that_hangs_is_passed_over() {
        let (ours, clients) = (authority(), authority());
        let good = serve(&ours, &clients).await;
        let me = Credentials::new(&ours.cert, &leaf(&clients, Usage::Client)).unwrap();
        // A load balancer that leads the first three to one that never answers.
        let balancer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = balancer.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut hanging = Vec::new();
            while let Ok((mut stream, _)) = balancer.accept().await {
                if hanging.len() < 3 {
                    hanging.push(stream);
                    continue;
                }
                let mut server = TcpStream::connect(&good).await.unwrap();
                tokio::spawn(async move {
                    tokio::io::copy_bidirectional(&mut stream, &mut server).await
                });
            }
        });
        let lanes = Lanes::default();
        let connect = Tenant::connect(to(&address).await, None, &me, &lanes);
        let connected = tokio::time::timeout(timing::CONNECT_DEADLINE, connect).await;
        assert!(connected.unwrap().is_ok());
    }

    /// Two paths of one tenant, neither of which answers.
    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_does_not_answer_is_sent_two_connections_at_a_time() {
        struct Running<'a>(&'a AtomicUsize);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        let (running, most, all) = <(AtomicUsize, AtomicUsize, AtomicUsize)>::default();
        let attempt = |_| async {
            all.fetch_add(1, SeqCst);
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            let _running = Running(&running);
            std::future::pending::<Result<(), ProbeFailure>>().await
        };
        let lanes = Lanes::default();
        let path = || tokio::time::timeout(timing::CONNECT_DEADLINE, race(&lanes, attempt));
        let (one, other) = tokio::join!(path(), path());
        assert!(one.is_err() && other.is_err());
        assert_eq!(most.load(SeqCst), 2);
        assert!(all.load(SeqCst) <= 4, "{all:?}");
        assert!(path().await.is_err());
        assert_eq!(most.load(SeqCst), 2);
        assert!((4..12).contains(&all.load(SeqCst)), "{all:?}");
        assert_eq!(running.load(SeqCst), 0);
    }

    #[tokio::test]
    async fn watches_come_line_by_line() {
        let (ours, clients) = (authority(), authority());
        let address = serve(&ours, &clients).await;
        let me = Credentials::new(&ours.cert, &leaf(&clients, Usage::Client)).unwrap();
        let tenant = Tenant::connect(to(&address).await, None, &me, &Lanes::default())
            .await
            .unwrap();
        assert!(tenant.serving_certificate.is_some());
        let mut watch = tenant.watch("/w").await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap()["message"], "hello");
        assert_eq!(watch.next().await.unwrap().unwrap()["n"], 2);
        assert!(watch.next().await.unwrap().is_none());
    }

    /// Whoever serves at a tenant's address may be anybody.
    #[tokio::test]
    async fn answers_and_events_of_tenants_are_bounded() {
        let tenant = tenant(|_, path| {
            static LONG: LazyLock<String> = LazyLock::new(|| "x".repeat(8 * ANSWER));
            match path {
                "/short" => (200, "{}"),
                _ => (200, LONG.as_str()),
            }
        });
        let tenant = tenant.await;
        let call = |path| tenant.call(Method::GET, path, "", None);
        assert_eq!(call("/short").await.unwrap().status, StatusCode::OK);
        let refused = call("/long").await.err().unwrap();
        assert_eq!(refused.kind, Kind::Read, "{refused:?}");
        let mut watch = tenant.watch("/long").await.unwrap();
        let refused = watch.next().await.unwrap_err();
        assert_eq!(refused.kind, Kind::Watch, "{refused:?}");
        assert!(watch.lines.rest.len() <= ANSWER);
    }

    /// Whoever sends slowly has us hold what came: 256 tenants of one namespace, each with two
    /// answers of 256 KiB along two ways.
    #[tokio::test]
    async fn long_answers_have_turns_and_short_ones_need_none() {
        static LONG: LazyLock<String> =
            LazyLock::new(|| format!("{{\"a\":\"{}\"}}\n", "x".repeat(2 * SHORT)));
        let tenant = tenant(|_, path| match path {
            "/short" => (200, "{\"n\":1}\n"),
            _ => (200, LONG.as_str()),
        });
        let tenant = tenant.await;
        let turns: Vec<_> = std::iter::repeat_with(|| ANSWERS.take("n").now_or_never())
            .map_while(Option::flatten)
            .collect();
        assert!(turns.len() <= 16, "{}", turns.len());
        let call = |path| tenant.call(Method::GET, path, "", None);
        let patience = Duration::from_millis(300);
        assert!(call("/short").await.is_ok());
        assert!(tenant.watch("/short").await.unwrap().next().await.is_ok());
        let waits = tokio::time::timeout(patience, call("/long")).await;
        assert!(waits.is_err());
        let mut watch = tenant.watch("/long").await.unwrap();
        assert!(tokio::time::timeout(patience, watch.next()).await.is_err());
        drop(turns);
        assert!(call("/long").await.is_ok());
        let mut watch = tenant.watch("/long").await.unwrap();
        assert!(watch.next().await.unwrap().is_some());
        assert!(watch.room.turn.is_none() && watch.lines.rest.capacity() < SHORT);
        // What is said of a failure is short.
        let said = failure(Kind::Read, "ä".repeat(ANSWER)).message;
        assert!(said.len() <= SAID && said.capacity() <= SAID);
    }

    /// It held one of the turns for long events for as long as the watch lasted.
    #[tokio::test(start_paused = true)]
    async fn an_event_that_does_not_end_is_waited_for_for_seconds() {
        type Frames =
            futures::stream::BoxStream<'static, Result<hyper::body::Frame<Bytes>, Infallible>>;
        let watch = |frames: Frames| Watch {
            body: http_body_util::StreamBody::new(frames),
            lines: Lines::default(),
            room: Room::of("unended"),
            ends: None,
        };
        let frame = |data: Vec<u8>| Ok(hyper::body::Frame::data(Bytes::from(data)));
        let begun =
            || futures::stream::iter([frame(b"{}\n".to_vec()), frame(vec![b'x'; SHORT + 1])]);
        let silent = begun().chain(futures::stream::pending()).boxed();
        let drop_by_drop = futures::stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((frame(b"x".to_vec()), ()))
        });
        for frames in [silent, begun().chain(drop_by_drop).boxed()] {
            let mut watch = watch(frames);
            assert!(watch.next().await.unwrap().is_some());
            let asked = Instant::now();
            let ended = tokio::time::timeout(timing::APPROVAL_SESSION, watch.next()).await;
            assert_eq!(ended.unwrap().unwrap_err().kind, Kind::Watch);
            assert!(asked.elapsed() <= timing::LOOK_DEADLINE);
        }
        // Between events there is time.
        let quiet = futures::stream::once(async move { frame(b"{}\n".to_vec()) });
        let mut quiet = watch(quiet.chain(futures::stream::pending()).boxed());
        assert!(quiet.next().await.unwrap().is_some());
        let waits = tokio::time::timeout(timing::APPROVAL_SESSION, quiet.next());
        assert!(waits.await.is_err());
    }

    /// Of the bytes that it may have, each could become a hundred in a tree.
    #[tokio::test]
    async fn an_answer_of_nothing_but_values_is_not_made_a_tree() {
        static MANY: LazyLock<String> = LazyLock::new(|| {
            let values = vec!["{}"; MARKS / 2].join(",");
            format!("{{\"items\":[{values}]}}\n")
        });
        let tenant = tenant(|_, path| match path.contains("fails") {
            true => (403, &MANY),
            false => (200, &MANY),
        });
        let tenant = tenant.await;
        let refused = tenant.call(Method::GET, "/", "", None).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Read, "{refused:?}");
        let mut watch = tenant.watch("/").await.unwrap();
        assert_eq!(watch.next().await.unwrap_err().kind, Kind::Watch);
        let long = MANY.len() * SPARSE;
        let read = |path: &'static str, limit| tenant.read::<Value>(path, limit);
        assert!(matches!(read("/", MANY.len()).await, Ok(Read::TooLarge)));
        assert!(matches!(read("/", long).await, Ok(Read::There(_))));
        let failed = read("/fails", long).await.err().unwrap();
        assert_eq!(failed.message, "HTTP 403 Forbidden");
    }

    #[test]
    fn values_are_counted_and_not_what_is_in_texts() {
        for (json, expected) in [
            (r#"{"a":[1,{}],"b":"c"}"#, 7),
            (r#"{"Corefile":"a:[{,:\"b:{\\"}"#, 2),
            (r#""\\",1"#, 1),
            ("", 0),
        ] {
            assert_eq!(marks(json.as_bytes()), expected, "{json}");
        }
    }

    /// A frame of a body of which it is known when it is given up.
    struct Frame(Arc<AtomicUsize>);

    impl Frame {
        fn of(living: &Arc<AtomicUsize>) -> Bytes {
            living.fetch_add(1, SeqCst);
            Bytes::from_owner(Frame(living.clone()))
        }
    }

    impl AsRef<[u8]> for Frame {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }

    impl Drop for Frame {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }

    /// A frame of one byte takes forty times that, as long as it is kept.
    #[tokio::test]
    async fn an_answer_in_small_frames_takes_no_more_than_its_bytes() {
        let living = Arc::new(AtomicUsize::new(0));
        for (count, fits) in [(ANSWER, true), (ANSWER + 1, false)] {
            let frames = futures::stream::iter(0..count).map(|_| {
                assert!(living.load(SeqCst) < 2, "those before are kept");
                Ok::<_, Infallible>(hyper::body::Frame::data(Frame::of(&living)))
            });
            let read = whole(http_body_util::StreamBody::new(frames), ANSWER, None).await;
            let read = read.unwrap().map(|all| all.len());
            assert_eq!(read, fits.then_some(ANSWER));
        }
        assert_eq!(living.load(SeqCst), 0);
    }

    /// Searched from its beginning after each frame, such a line took minutes.
    #[test]
    fn a_line_in_small_frames_is_searched_once() {
        let begun = std::time::Instant::now();
        let mut lines = Lines::default();
        for _ in 1..ANSWER {
            lines.add(b"x").unwrap();
            assert!(lines.next().is_none());
        }
        lines.add(b"\n").unwrap();
        assert_eq!(lines.next().map(|line| line.len()), Some(ANSWER));
        assert!(lines.next().is_none());
        lines.add(b"{}\n{}\n{").unwrap();
        assert_eq!(lines.next().as_deref(), Some(b"{}\n".as_slice()));
        assert_eq!(lines.next().as_deref(), Some(b"{}\n".as_slice()));
        assert!(lines.next().is_none());
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    }
}
