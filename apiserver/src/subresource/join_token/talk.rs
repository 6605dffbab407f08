//! Speaking to a tenant's API: one connection for one purpose, with a deadline, a bound
//! for every answer, and few of them at a time.
//!
//! # Guarantees
//! * Nobody but who has a certificate of the tenant's authority is asked anything.
//! * We connect to no address of our own machine, whatever a name resolves to.
//! * Of what a tenant says, no more is held than [`ANSWER`], and of a list no more
//!   entries than were asked for.

use std::fmt;
use std::future::pending;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use apiservice::names;
use apiservice::pki::Pair;
use apiservice::told;
use apiservice::v1alpha1::JoinToken;
use bytes::Bytes;
use futures::future::{Either, select};
use http::{Method, Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::{Value, json};
use storage::Held;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::secret::{self, Found, Stored, Token};
use crate::pool::Pool;
use crate::status::Failure;
use crate::whole_body::whole;

/// Bytes of an answer. A token has about a thousand.
pub(crate) const ANSWER: usize = 256 * 1024;
/// For one way to the tenant, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// From the first packet to the last answer.
const WHOLE: Duration = Duration::from_secs(5);
/// How long a new token's signature is waited for; a second or two in a young tenant.
const SIGNED: Duration = Duration::from_secs(3);
const SIGNED_EVERY: Duration = Duration::from_millis(150);
/// How long the Service is tried alone.
const HEAD_START: Duration = Duration::from_millis(500);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;
/// Conversations at a time: in all, of which the tenants of one namespace have half of
/// what is free, and with one tenant.
pub(crate) const PLACES: usize = 32;
const OF_ONE: usize = 4;
/// Tokens in one answer, and answers that are asked for.
const PAGE: usize = 50;
const PAGES: usize = 4;
/// Bytes of the tenant's words that are passed on.
const WORDS: usize = 512;
const BUFFER: usize = 64 * 1024;

/// What went wrong with a tenant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// Nothing was asked.
    #[error("{0}")]
    Unreachable(String),
    /// Something was asked; whether it was done is not known.
    #[error("{0}")]
    Unanswered(String),
    /// The answer has more than [`ANSWER`] bytes.
    #[error("the answer is too long")]
    TooLong,
    /// The tenant's own words.
    #[error("{message} ({code})")]
    Refused { code: u16, message: String },
}

impl Problem {
    /// Whether a write may have been carried out nevertheless: the answer is lost, or the
    /// tenant's own store did not answer it in time.
    pub(super) fn may_be_done(&self) -> bool {
        match self {
            Problem::Unanswered(_) | Problem::TooLong => true,
            Problem::Refused { code, .. } => *code >= 500,
            Problem::Unreachable(_) => false,
        }
    }
}

/// One way to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// HOST:PORT.
    address: String,
}

impl Way {
    pub(super) fn new(address: &str) -> Way {
        Way {
            address: address.to_owned(),
        }
    }

    /// Host, without brackets, and port.
    fn parts(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let inside = host.strip_prefix('[');
        let host = inside
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        (!host.is_empty()).then_some((host, port.parse().ok()?))
    }
}

/// Who may speak to tenants now.
pub(super) struct Gate {
    of_namespaces: Pool,
    of_tenants: Pool,
    /// Addresses that are nobody's tenant.
    refused: fn(IpAddr) -> bool,
}

impl Gate {
    pub(super) fn new() -> Gate {
        Gate {
            of_namespaces: Pool::new(PLACES),
            of_tenants: Pool::capped(PLACES, OF_ONE),
            refused: is_local,
        }
    }

    /// One that goes everywhere.
    #[cfg(test)]
    pub(super) fn for_test() -> Gate {
        Gate {
            refused: |_| false,
            ..Gate::new()
        }
    }

    /// A place; it is held until the conversation has ended.
    ///
    /// # Errors
    /// 429; nothing waits.
    pub(super) fn enter(&self, namespace: &str, tenant: &str) -> Result<Held, Failure> {
        let of_tenant = self.of_tenants.enter(&format!("{namespace}/{tenant}"))?;
        let of_namespace = self.of_namespaces.enter(namespace)?;
        Ok(Held::new((of_tenant, of_namespace)))
    }

    /// Connects by the first way, and by the second beside it where the first is slow or
    /// leads nowhere.
    pub(super) async fn talk(
        &self,
        place: Held,
        ways: &[Way; 2],
        authority: &str,
        client: &Pair,
    ) -> Result<Secrets, Problem> {
        let until = Instant::now() + WHOLE;
        let tls = config(authority, client).map_err(Problem::Unreachable)?;
        let tls = TlsConnector::from(Arc::new(tls));
        let (stream, way) = self
            .reach(ways, &tls, &place)
            .await
            .map_err(Problem::Unreachable)?;
        let shaken = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) =
            shaken.map_err(|error| Problem::Unreachable(error.to_string()))?;
        Ok(Secrets {
            sender,
            connection: Some(connection),
            host: way.address.clone(),
            until,
            _place: place,
        })
    }

    async fn reach<'a>(
        &self,
        ways: &'a [Way; 2],
        tls: &TlsConnector,
        place: &Held,
    ) -> Result<(TlsStream<TcpStream>, &'a Way), String> {
        let [first, second] = ways;
        let mut by_first = pin!(self.connect(first, tls, place));
        let by_second = self.connect(second, tls, place);
        let neither = |one: String, other: String| match one == other {
            true => one,
            false => format!("{one}; {other}"),
        };
        match timeout(HEAD_START, &mut by_first).await {
            Ok(Ok(stream)) => Ok((stream, first)),
            Ok(Err(one)) => match by_second.await {
                Ok(stream) => Ok((stream, second)),
                Err(other) => Err(neither(one, other)),
            },
            Err(_) => match select(by_first, pin!(by_second)).await {
                Either::Left((Ok(stream), _)) => Ok((stream, first)),
                Either::Right((Ok(stream), _)) => Ok((stream, second)),
                Either::Left((Err(one), rest)) => match rest.await {
                    Ok(stream) => Ok((stream, second)),
                    Err(other) => Err(neither(one, other)),
                },
                Either::Right((Err(other), rest)) => match rest.await {
                    Ok(stream) => Ok((stream, first)),
                    Err(one) => Err(neither(one, other)),
                },
            },
        }
    }

    /// A TLS connection to whoever has a certificate for this way.
    async fn connect(
        &self,
        way: &Way,
        tls: &TlsConnector,
        place: &Held,
    ) -> Result<TlsStream<TcpStream>, String> {
        let address = &way.address;
        let connecting = async {
            let (host, port) = way.parts().ok_or("it is not HOST:PORT")?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let mut last = "no address is found".to_owned();
            for found in resolve(host, port, place.clone()).await? {
                if (self.refused)(found.ip()) {
                    last = format!("{} is no address of a tenant", found.ip());
                    continue;
                }
                match TcpStream::connect(found).await {
                    Ok(stream) => {
                        // Small requests, answers awaited: nothing to gather.
                        let _ = stream.set_nodelay(true);
                        let shaken = tls.connect(name, stream).await;
                        return shaken.map_err(|error| error.to_string());
                    }
                    Err(error) => last = error.to_string(),
                }
            }
            Err::<_, String>(last)
        };
        match timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(why)) => Err(format!("{address}: {why}")),
            Err(_) => Err(format!("{address}: no answer within {CONNECT:?}")),
        }
    }
}

/// The addresses of a host. The system cannot be told to stop looking: the place is held
/// until it has.
async fn resolve(host: &str, port: u16, place: Held) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let _place = place;
        let found = (host.as_str(), port).to_socket_addrs()?;
        Ok::<_, std::io::Error>(found.take(ADDRESSES).collect())
    });
    let found = found.await.map_err(|error| error.to_string())?;
    found.map_err(|error| error.to_string())
}

/// Addresses of this machine, or that name no machine. kube-apiserver's proxy refuses the
/// same.
fn is_local(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    link || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()
}

fn config(authority: &str, client: &Pair) -> Result<ClientConfig, String> {
    let invalid = |what: &str, error: &dyn fmt::Display| format!("{what}: {error}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        let certificate = certificate.map_err(|error| invalid("its authority", &error))?;
        let added = roots.add(certificate);
        added.map_err(|error| invalid("its authority", &error))?;
    }
    let chain = CertificateDer::pem_slice_iter(client.cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid("our certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes())
        .map_err(|error| invalid("our key", &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

type Connection = http1::Connection<TokioIo<TlsStream<TcpStream>>, Full<Bytes>>;

/// The tokens of a tenant, over one connection.
pub(super) struct Secrets {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Driven while something is asked; gone once it has ended.
    connection: Option<Connection>,
    host: String,
    until: Instant,
    _place: Held,
}

impl Secrets {
    /// The tokens, in the order of their ids.
    pub(super) async fn list(&mut self) -> Result<Listed, Problem> {
        let mut listed = Listed::default();
        let mut next = String::new();
        for _ in 0..PAGES {
            let query = format!(
                "?fieldSelector=type%3D{}&limit={PAGE}&continue={}",
                escaped(secret::TYPE),
                escaped(&next)
            );
            let page = self.call(Method::GET, &query, None).await?.good()?;
            let page: Page = page.read()?;
            let tokens = page.items.0.into_iter().filter_map(Stored::token);
            listed.tokens.extend(tokens);
            next = page.metadata.r#continue;
            if next.is_empty() {
                return Ok(listed);
            }
        }
        listed.more = true;
        Ok(listed)
    }

    /// Makes a token; false if its id is taken.
    pub(super) async fn create(&mut self, secret: &Value, token: &Token) -> Result<bool, Problem> {
        let answer = self.call(Method::POST, "", Some(secret)).await?;
        if answer.code == 409 && answer.says("AlreadyExists") {
            return Ok(false);
        }
        // A webhook may repeat what it was shown.
        let answer = answer.good_in(|words| token.redact(&words));
        answer.map(|_| true)
    }

    /// The Secret of a token, if it is one.
    pub(super) async fn find(&mut self, id: &str) -> Result<Option<Found>, Problem> {
        let path = format!("/{}", secret::name(id));
        let answer = self.call(Method::GET, &path, None).await?;
        if answer.is_missing() {
            return Ok(None);
        }
        let stored: Stored = answer.good()?.read()?;
        Ok(stored.found())
    }

    /// Removes this one; false if it was gone.
    pub(super) async fn delete(&mut self, id: &str, found: &Found) -> Result<bool, Problem> {
        let path = format!("/{}", secret::name(id));
        // Not another one that was made under its name since.
        let options = json!({
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": found.uid, "resourceVersion": found.resource_version},
        });
        let answer = self.call(Method::DELETE, &path, Some(&options)).await?;
        if answer.is_missing() {
            return Ok(false);
        }
        answer.good().map(|_| true)
    }

    /// Waits until the tenant has signed for a new token in what machines read first: one
    /// that comes before that waits five seconds more. Not for long, and a tenant that does
    /// not let us look is not waited for.
    pub(super) async fn signed(&mut self, id: &str) -> bool {
        let until = Instant::now() + SIGNED;
        let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
        // As text: a tree of what a tenant says may have a hundred times its bytes, and
        // this is a hint and no more.
        let key = format!("\"jws-kubeconfig-{id}\"");
        let is_there = |info: Said| {
            let mut parts = info.body.windows(key.len());
            parts.any(|part| part == key.as_bytes())
        };
        loop {
            let answer = self.ask(Method::GET, path, None).await;
            let Ok(there) = answer.and_then(Said::good).map(is_there) else {
                return false;
            };
            if there {
                return true;
            }
            if Instant::now() + SIGNED_EVERY > until {
                return false;
            }
            tokio::time::sleep(SIGNED_EVERY).await;
        }
    }

    /// One request about the tokens and its whole answer.
    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Said, Problem> {
        let namespace = names::TOKEN_NAMESPACE;
        let path = format!("/api/v1/namespaces/{namespace}/secrets{path}");
        self.ask(method, &path, body).await
    }

    /// One request and its whole answer.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Said, Problem> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "steward-apiserver");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(body.unwrap_or_default()));
        let request = request.map_err(|error| Problem::Unreachable(error.to_string()))?;
        let (sender, connection) = (&mut self.sender, &mut self.connection);
        let asking = async {
            let unanswered = |error: hyper::Error| Problem::Unanswered(chain(&error));
            let response = sender.send_request(request).await.map_err(unanswered)?;
            let code = response.status().as_u16();
            let body = whole(response.into_body(), ANSWER).await;
            let body = body.map_err(unanswered)?.ok_or(Problem::TooLong)?;
            Ok(Said { code, body })
        };
        let driving = async {
            if let Some(open) = connection {
                // Whoever waits for an answer is told how it ended.
                let _ = open.await;
                *connection = None;
            }
            pending().await
        };
        let answered = async {
            tokio::select! {
                biased;
                said = asking => said,
                said = driving => said,
            }
        };
        let late = || Problem::Unanswered(format!("no answer within {WHOLE:?}"));
        timeout_at(self.until, answered)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

/// An answer.
struct Said {
    code: u16,
    body: Vec<u8>,
}

/// What is read of a Status.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
}

impl Said {
    fn says(&self, reason: &str) -> bool {
        self.status().reason == reason
    }

    fn status(&self) -> Status {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The object that was asked for is not there, rather than where it would be.
    fn is_missing(&self) -> bool {
        self.code == 404 && self.says("NotFound")
    }

    /// Anything but a success is a refusal.
    fn good(self) -> Result<Said, Problem> {
        self.good_in(|words| words)
    }

    /// The same, in words that are not the tenant's as they are.
    fn good_in(self, words: impl FnOnce(String) -> String) -> Result<Said, Problem> {
        if (200..300).contains(&self.code) {
            return Ok(self);
        }
        let message = match self.status().message {
            said if said.is_empty() => format!("HTTP {}", self.code),
            said => said,
        };
        Err(Problem::Refused {
            code: self.code,
            // Cut last: the beginning of a secret is one as well.
            message: told::cut(words(message), WORDS),
        })
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        // The decoder's text would quote what stands there.
        serde_json::from_slice(&self.body)
            .map_err(|_| Problem::Unanswered("its answer cannot be read".to_owned()))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    metadata: PageMeta,
    items: Few,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PageMeta {
    r#continue: String,
}

/// No more entries than were asked for: each takes more memory than its bytes.
#[derive(Debug, Default)]
struct Few(Vec<Stored>);

impl<'de> Deserialize<'de> for Few {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Few;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Few, A::Error> {
                let mut few = Vec::new();
                while let Some(entry) = entries.next_element()? {
                    if few.len() == PAGE {
                        return Err(A::Error::custom("too many"));
                    }
                    few.push(entry);
                }
                Ok(Few(few))
            }

            // As Go writes an empty list.
            fn visit_unit<E>(self) -> Result<Few, E> {
                Ok(Few::default())
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// A value of a query.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// A list as it is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) tokens: Vec<JoinToken>,
    /// There are others.
    pub(super) more: bool,
}

#[cfg(test)]
mod tests;
