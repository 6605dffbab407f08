//! The spans of a request, with the names and attributes of kube-apiserver's (R9.13).
//!
//! ```text
//! GET /apis/steward.butlerlabs.dev/v1alpha1/…   the request, until its answer was taken
//!   authorization                               with the question to kube-apiserver, if asked
//!   Get                                         the verb
//!     Get sqlite, Write sqlite                  the store (crate storage)
//!     Call validating webhook                   admission
//!   SerializeObject                             the answer, while it is made and taken
//! ```
//! A watch has no end that anybody would want to wait for: its spans end when its answer
//! begins. What a caller writes is cut, and neither a credential nor a token is in a span.

use std::net::IpAddr;

use axum::body::{Body, HttpBody};
use http::request::Parts;
use http::{HeaderMap, Response, header};
use telemetry::{TEXT, cut};
use tracing::field::Empty;
use tracing::{Span, trace_span};

use crate::audit;
use crate::authn::Identity;
use crate::metrics::RequestLabels;
use crate::target::{ResourcePath, Target, Verb};

/// Bytes of a URL with its query.
const URL: usize = 1024;
/// Groups whose members may say that their request is part of a trace, and have it sampled by
/// that. Kubernetes trusts the same (`notSystemPrivilegedGroup` in its `WithTracing`): whoever
/// else could choose would choose how much is exported.
const TRUSTED: [&str; 2] = ["system:masters", "system:monitoring"];

/// What is known of a request when it has come.
pub struct Seen<'a> {
    pub parts: &'a Parts,
    pub target: &'a Target,
    pub labels: &'a RequestLabels,
    pub audit_id: &'a str,
    /// Where it comes from; empty until that is told.
    pub client: &'a str,
}

/// Whether what a request says of its trace is followed. Others begin one of their own, with a
/// link.
pub fn may_choose(identity: &Identity) -> bool {
    identity
        .groups
        .iter()
        .any(|group| TRUSTED.contains(&group.as_str()))
}

/// The span of a request. Its parent is settled later, when it is known who asks; nothing is
/// made of it before.
pub fn request(seen: &Seen<'_>) -> Span {
    let parts = seen.parts;
    let host = || parts.uri.authority().map(|it| it.to_string());
    let said = || text(&parts.headers, header::HOST.as_str());
    trace_span!(
        "request",
        otel.name = name(seen),
        otel.kind = "server",
        otel.status_code = Empty,
        "audit-id" = seen.audit_id,
        client.address = Empty,
        http.request.method = parts.method.as_str(),
        http.response.body.size = Empty,
        http.response.status_code = Empty,
        http.target = target(parts),
        network.peer.address = Empty,
        network.protocol.version = version(parts),
        server.address = cut(host().unwrap_or_else(said), TEXT),
        url.path = path(parts),
        url.scheme = "https",
        user_agent.original = agent(parts),
    )
}

/// Where a request comes from, as far as it says so itself; it is told to its span. Nothing
/// without a span.
pub fn client(span: &Span, headers: &HeaderMap, source: Option<IpAddr>) -> String {
    if span.is_disabled() {
        return String::new();
    }
    if let Some(source) = source {
        span.record("network.peer.address", source.to_canonical().to_string());
    }
    let chain = audit::addresses(headers, source);
    let client = chain.into_iter().next().unwrap_or_default();
    span.record("client.address", client.as_str());
    client
}

/// What comes before the verb, one after the other.
pub fn step(name: &'static str) -> Span {
    trace_span!("step", otel.name = name)
}

/// The span of a verb, with the attributes of `traceFields`.
pub fn verb(seen: &Seen<'_>) -> Span {
    let Target::Resource(of) = seen.target else {
        return Span::none();
    };
    let parts = seen.parts;
    let short = |text: Option<&str>| cut(text.unwrap_or_default().to_owned(), TEXT);
    trace_span!(
        "verb",
        otel.name = verb_name(of.verb),
        accept = text(&parts.headers, header::ACCEPT.as_str()),
        "api-group" = short(Some(&of.group)),
        "api-version" = short(Some(&of.version)),
        "audit-id" = seen.audit_id,
        client = seen.client,
        name = short(of.name.as_deref()),
        namespace = short(of.namespace.as_deref()),
        protocol = protocol(parts),
        resource = short(Some(&of.plural)),
        scope = scope(of, seen.labels),
        subresource = short(of.subresource.as_deref()),
        url = path(parts),
        "user-agent" = agent(parts),
        verb = seen.labels.verb(),
    )
}

fn encoder(media: &str) -> &'static str {
    let known = ["yaml", "protobuf"];
    let mut known = known.into_iter();
    known.find(|name| media.contains(name)).unwrap_or("json")
}

/// The span of making the answer.
pub fn serialize(of: &Span, seen: &Seen<'_>, response: &Response<Body>) -> Span {
    if of.is_disabled() {
        return Span::none();
    }
    let media = text(response.headers(), header::CONTENT_TYPE.as_str());
    trace_span!(
        parent: of,
        "serialize",
        otel.name = "SerializeObject",
        "audit-id" = seen.audit_id,
        encoder = encoder(&media),
        mediaType = media,
        method = seen.parts.method.as_str(),
        protocol = protocol(seen.parts),
        url = path(seen.parts),
    )
}

/// Records how a request was answered. As by otelhttp, 500 and above is an error of ours.
pub fn answered(span: &Span, response: &Response<Body>) {
    if span.is_disabled() {
        return;
    }
    let code = response.status().as_u16();
    span.record("http.response.status_code", code);
    if code >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    if let Some(size) = response.body().size_hint().exact() {
        span.record("http.response.body.size", size);
    }
}

/// Method and path, with nothing in it that tells one object from another; of what is no
/// resource the method alone.
fn name(seen: &Seen<'_>) -> String {
    let method = seen.parts.method.as_str();
    let Target::Resource(of) = seen.target else {
        return cut(method.to_owned(), TEXT);
    };
    cut(format!("{method} {}", pattern(of)), TEXT)
}

fn pattern(of: &ResourcePath) -> String {
    let namespace = match of.namespace {
        Some(_) => "/namespaces/{:namespace}",
        None => "",
    };
    let name = match of.name {
        Some(_) => "/{:name}",
        None => "",
    };
    let part = of.subresource.as_deref().map(|part| format!("/{part}"));
    let part = part.unwrap_or_default();
    format!(
        "/apis/{}/{}{namespace}/{}{name}{part}",
        of.group, of.version, of.plural
    )
}

/// Of a creation it is the object, as by Kubernetes.
fn scope(of: &ResourcePath, labels: &RequestLabels) -> &'static str {
    match of.verb {
        Verb::Create => "resource",
        _ => labels.scope(),
    }
}

fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Get | Verb::None => "Get",
        Verb::List => "List",
        Verb::Watch => "WatchList",
        Verb::Create => "Create",
        Verb::Update => "Update",
        Verb::Patch => "Patch",
        Verb::Delete | Verb::DeleteCollection => "Delete",
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    cut(text.unwrap_or_default().to_owned(), TEXT)
}

fn agent(parts: &Parts) -> String {
    text(&parts.headers, header::USER_AGENT.as_str())
}

fn path(parts: &Parts) -> String {
    cut(parts.uri.path().to_owned(), TEXT)
}

fn target(parts: &Parts) -> String {
    let uri = parts.uri.path_and_query().map(|it| it.as_str());
    cut(audit::without_token(uri.unwrap_or_default()), URL)
}

fn protocol(parts: &Parts) -> &'static str {
    match parts.version {
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn version(parts: &Parts) -> &'static str {
    match parts.version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}
