//! Speaking HTTPS to a webhook.
//!
//! # Guarantees
//! * An answer has at most [`ANSWER`] bytes. Of all that are on their way, what is more than
//!   [`SMALL`] waits for room: first of its webhook, then that which all share, and has it
//!   until what it says is done. One that stalls holds up its own answers.
//! * A webhook is asked by at most [`CALLS`] requests at a time; more wait for their turn
//!   within their own time, and hold up nobody who asks another.
//! * Nothing is followed that an answer points to.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of an answer (R7.8).
pub const ANSWER: usize = 3 * 1024 * 1024;
/// Bytes of an answer that need no room of those that all share.
pub const SMALL: usize = 16 * 1024;
/// Bytes of large answers on their way.
pub(crate) const LARGE: usize = 24 * 1024 * 1024;
/// Large answers of one webhook on their way.
const ONES: usize = 2;
/// Requests that one webhook is asked by at a time.
const CALLS: usize = 256;
/// Connections to one webhook that wait for the next request, and how long they do.
const IDLE: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(90);
/// Bytes of what an answer without success says that are passed on.
const WORDS: usize = 2048;

static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(LARGE)));

/// What a large answer holds of the room, of its webhook's and of that of all.
#[derive(Debug)]
pub struct Room(#[allow(dead_code, reason = "held")] [OwnedSemaphorePermit; 2]);

type Pieces = stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;
type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

/// Where a webhook is, and how it is recognised.
#[derive(Debug)]
pub struct Endpoint {
    /// Why nobody can be asked there, or who.
    peer: Result<Peer, String>,
    turns: Semaphore,
    large: Arc<Semaphore>,
}

#[derive(Debug)]
struct Peer {
    client: Client<Connector, StreamBody<Pieces>>,
    url: String,
    /// HOST:PORT, for texts.
    address: String,
}

/// Why there is no answer; the text says of whom it was asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// There is nobody to ask.
    NoClient(String),
    /// In the words of a client of Kubernetes.
    Failed(String),
}

impl Endpoint {
    /// Of what a configuration says.
    pub fn new(config: WebhookClientConfig) -> Self {
        Self {
            peer: Peer::new(config),
            turns: Semaphore::new(CALLS),
            large: Arc::new(Semaphore::new(ONES)),
        }
    }

    /// The answer to what is posted, with the room that it takes. It takes at most `time`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn post(
        &self,
        pieces: Vec<Bytes>,
        time: Duration,
    ) -> Result<(Bytes, Option<Room>), Unanswered> {
        let peer = self.peer.as_ref();
        let peer = peer.map_err(|why| Unanswered::NoClient(why.clone()))?;
        // The whole seconds that are left, as Kubernetes tells them.
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let url = format!("{}?timeout={seconds}s", peer.url);
        let failed = |why: String| Unanswered::Failed(format!("Post {url:?}: {why}"));
        let asked = async {
            // It is never closed.
            let _turn = self.turns.acquire().await;
            let answer = peer.ask(&url, pieces).await.map_err(failed)?;
            let status = answer.status();
            let plain = is_text(answer.headers());
            let (body, room) = read(answer.into_body(), &self.large, &ROOM)
                .await
                .map_err(failed)?;
            match status {
                status if status.is_success() => Ok((body, room)),
                status => Err(Unanswered::Failed(refused(status, plain, &body))),
            }
        };
        match tokio::time::timeout(time, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(failed("context deadline exceeded".to_owned())),
        }
    }
}

impl Peer {
    fn new(config: WebhookClientConfig) -> Result<Self, String> {
        let roots = roots(config.ca_bundle.map(|bundle| bundle.0))?;
        let (url, address, name) = match (config.service, config.url) {
            (Some(service), _) => {
                let name = format!("{}.{}.svc", service.name, service.namespace);
                let address = format!("{name}:{}", service.port.unwrap_or(443));
                let path = service.path.unwrap_or_default();
                let path = path.trim_start_matches('/');
                (format!("https://{address}/{path}"), address, Some(name))
            }
            (None, Some(url)) => {
                let parsed: http::Uri = url
                    .parse()
                    .map_err(|why| format!("Unparsable URL: {why}"))?;
                let host = parsed.host().unwrap_or_default();
                let address = format!("{host}:{}", parsed.port_u16().unwrap_or(443));
                let authority = parsed.authority().map_or("", http::uri::Authority::as_str);
                let path = parsed.path().trim_start_matches('/');
                (format!("https://{authority}/{path}"), address, None)
            }
            (None, None) => {
                return Err("webhook configuration must have either service or URL".to_owned());
            }
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let mut connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only();
        if let Some(name) = name {
            let name = ServerName::try_from(name).map_err(|why| why.to_string())?;
            connector = connector
                .with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name));
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE)
            .build(connector.enable_http1().wrap_connector(tcp));
        Ok(Self {
            client,
            url,
            address,
        })
    }

    async fn ask(&self, url: &str, pieces: Vec<Bytes>) -> Result<Response<Incoming>, String> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|piece| Ok(Frame::data(piece)))
            .collect();
        let mut request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "steward-apiserver-admission")
            .header(header::CONTENT_LENGTH, length)
            .body(StreamBody::new(stream::iter(pieces)))
            .map_err(|why| why.to_string())?;
        let span = telemetry::client::begin(&mut request);
        let answered = self.client.request(request).await;
        let answered = telemetry::client::end(&span, answered);
        answered.map_err(|why| self.words(&why))
    }

    /// The words of a client of Kubernetes for the errors that operators know by them.
    fn words(&self, error: &(dyn StdError + 'static)) -> String {
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                match io.kind() {
                    std::io::ErrorKind::ConnectionRefused => {
                        return format!("dial tcp {}: connect: connection refused", self.address);
                    }
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                        return "EOF".to_owned();
                    }
                    _ => {}
                }
                // An error of TLS hides in one of input and output.
                if let Some(tls) = io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                    return untrusted(tls);
                }
            }
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return untrusted(tls);
            }
            next = cause.source();
        }
        apiservice::told::cut(crate::reviews::describe(error), apiservice::told::MAX_TEXT)
    }
}

fn untrusted(error: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    let verify = "tls: failed to verify certificate: x509:";
    match error {
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            format!("{verify} certificate signed by unknown authority")
        }
        rustls::Error::InvalidCertificate(why) => format!("{verify} {why}"),
        other => format!("tls: {other}"),
    }
}

/// The authorities of a configuration, or else those of the system.
fn roots(bundle: Option<Vec<u8>>) -> Result<Arc<RootCertStore>, String> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let Some(bundle) = bundle.filter(|bundle| !bundle.is_empty()) else {
        let system = || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        };
        return Ok(SYSTEM.get_or_init(system).clone());
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&bundle).filter_map(Result::ok);
    roots.add_parsable_certificates(certificates);
    match roots.is_empty() {
        true => {
            Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned())
        }
        false => Ok(Arc::new(roots)),
    }
}

/// The whole answer.
async fn read<B>(
    body: B,
    ones: &Arc<Semaphore>,
    all: &Arc<Semaphore>,
) -> Result<(Bytes, Option<Room>), String>
where
    B: http_body::Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::new();
    let mut room = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "unexpected EOF".to_owned())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = whole.len() + data.len();
        if length > ANSWER {
            return Err(format!("the answer has more than {ANSWER} bytes"));
        }
        if length > SMALL && room.is_none() {
            // For all that it may become: who waits for more while holding some could wait
            // for another that does the same.
            let closed = |_| "there is no room".to_owned();
            let own = ones.clone().acquire_owned().await.map_err(closed)?;
            let shared = all.clone().acquire_many_owned(ANSWER as u32);
            room = Some(Room([own, shared.await.map_err(closed)?]));
        }
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), room))
}

/// Whether an answer is for people.
fn is_text(headers: &http::HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE);
    media.is_none_or(|media| media.as_bytes().starts_with(b"text/"))
}

/// What a client of Kubernetes makes of an answer without success.
fn refused(status: StatusCode, plain: bool, body: &[u8]) -> String {
    let said = String::from_utf8_lossy(&body[..body.len().min(WORDS)]);
    let said = if plain { said.trim() } else { "unknown" };
    match status.as_u16() {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => said.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later"
            .to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned(),
        500.. => format!(
            "an error on the server ({said:?}) has prevented the request from succeeding"
        ),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    /// Ten large answers of one webhook that never end leave room for those of others.
    #[tokio::test(start_paused = true)]
    async fn stalled_answers_stop_nobody_elses() {
        let room = |most| Arc::new(Semaphore::new(most));
        let all = room(4 * ANSWER);
        let (stalled, other) = (room(ONES), room(ONES));
        let piece = || Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 2 * SMALL])));
        let ends = || StreamBody::new(stream::iter([piece()]));
        let never = || StreamBody::new(stream::iter([piece()]).chain(stream::pending()));
        let ten = futures::future::join_all((0..10).map(|_| read(never(), &stalled, &all)));
        let whole = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            read(ends(), &other, &all).await
        };
        let whole = async { tokio::time::timeout(Duration::from_secs(9), whole).await };
        tokio::select! {
            _ = ten => panic!("they never end"),
            whole = whole => {
                let (whole, held) = whole.unwrap().unwrap();
                assert_eq!(whole.len(), 2 * SMALL);
                // It is held for as long as the answer is of use.
                assert_eq!(all.available_permits() % ANSWER, 0);
                assert!(held.is_some());
            }
        }
        // Those that left gave it back.
        assert_eq!(all.available_permits(), 4 * ANSWER);
    }
}
