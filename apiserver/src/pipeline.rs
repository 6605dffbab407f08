//! The path of a request, top to bottom.
//!
//! ```text
//! target -> who (401) -> may they (403) -> is there such a thing (404 405)
//!        -> a place for a watch (429) -> the body (413) -> a place (429)
//!        -> the store (503) -> the verb
//! ```
//! All of it within one deadline, which is counted from when the request came (504); what is
//! asked of others on the way ends with it (R9.6).
//!
//! What is done is recorded on the way (`trail`): when it is known who asks, and when the
//! answer is complete.
//!
//! The order is rule 1: nobody learns from an answer what they may not ask.

mod context;
mod documents;
mod headers;
mod work;

use std::any::Any;
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures::{FutureExt, StreamExt};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use storage::Held;
use tokio::time::Instant;
use tracing::{Instrument, Span};

pub use self::context::Context;
use self::documents::{Asked, Shared};
use self::headers::{audit_id, common_headers, needed, plain};
use self::work::Work;
use crate::audit;
use crate::authn::{Caller, Identity, Peer, Rejected, Via};
use crate::authz::{self, Authorized};
use crate::buckets::block;
use crate::decode;
use crate::health;
use crate::limits::{self, Need, Slot};
use crate::live_bytes::Kept;
use crate::metrics::{Metrics, RequestLabels};
use crate::options;
use crate::policy::late;
use crate::registry::Request;
use crate::respond;
use crate::response_body::ResponseBody;
use crate::sending;
use crate::spans;
use crate::status::{Failure, Subject};
use crate::target::{PARAMETERS, Target, Verb, parse_query};
use crate::warnings::Warnings;

/// The deadline of a watch: never reached, since a watch ends by its own timeout.
const LONG: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);
const PANICKED: &str = "This request caused apiserver to panic. Look in the logs for details.";

/// Answers one request. Never fails: a panic is a 500, everything else a Status.
pub async fn handle<B>(
    context: Arc<Context>,
    peer: Arc<Peer>,
    request: http::Request<B>,
) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let began = Instant::now();
    let (mut parts, body) = request.into_parts();
    let query = parse_query(parts.uri.query());
    let target = Target::parse(&parts.method, parts.uri.path(), &query);
    let applies = decode::content_type(&parts.headers) == decode::APPLY;
    let labels = RequestLabels::of(&target).of_patch(applies);
    let proxied = context.authenticator.is_front_proxy(&peer);
    let audit_id = audit_id(&parts.headers, proxied);
    let seen = spans::Seen {
        parts: &parts,
        target: &target,
        labels: &labels,
        audit_id: &audit_id,
        client: "",
    };
    let span = spans::request(&seen);
    let client = spans::client(&span, &parts.headers, peer.source());
    let dry_run = query.iter().any(|(key, _)| key == "dryRun");
    let mut call = Call {
        context: &context,
        target: &target,
        query: query.into(),
        caller: None,
        source: peer.source().filter(|_| !proxied).map(block),
        labels: &labels,
        client: &client,
        span: span.clone(),
        warnings: Warnings::default(),
        annotations: audit::Annotations::default(),
        trail: audit::Trail::default(),
        began,
        audit_id: &audit_id,
        open: None,
        head: None,
        place: Held::default(),
        under_way: Held::default(),
        counted: Counted::Nowhere,
        left: context.audit.is_none(),
    };

    let answered = AssertUnwindSafe(call.answer(&peer, &mut parts, body)).catch_unwind();
    let mut response = match answered.await {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => {
            call.trail.failed(&failure);
            failure.into_response(&parts.headers)
        }
        Err(panic) => {
            let text = text_of(&*panic);
            call.trail.panicked(text);
            panicked(&context.metrics, text)
        }
    };
    call.warnings.apply(response.headers_mut());
    call.left = false;
    // Who has no place needs one to wait for the log, and does not wait without.
    let waits = call.counted != Counted::UnderWay && call.trail.waits_to_end();
    let _logged = match waits.then(|| call.place_at_log()) {
        Some(Err(_)) => {
            call.trail.hurry();
            None
        }
        Some(Ok(place)) => place,
        None => None,
    };
    let trail = std::mem::take(&mut call.trail);
    let annotations = call.annotations.clone();
    let identity = call.caller.take().map(|caller| caller.identity);
    let open = call.open.take();
    let place = std::mem::take(&mut call.place);
    let streams = labels.is_watch() && response.status() == StatusCode::OK;
    // What is not made while it is sent, and is of this answer alone.
    let shared = response.extensions_mut().remove::<Shared>().is_some();
    let bytes = match shared || parts.method == Method::HEAD {
        true => 0,
        false => response.body().size_hint().lower() as usize,
    };
    let serialize = match (streams, &target) {
        (false, Target::Resource(_)) => spans::serialize(&span, &call.seen(&parts), &response),
        _ => Span::none(),
    };
    let kept = response.extensions_mut().remove::<Kept>();
    response.extensions_mut().insert(sending::About {
        bytes,
        kept: kept.unwrap_or_default(),
        kind: match streams {
            true => sending::Kind::Watch,
            false => sending::Kind::Whole,
        },
        holder: identity.as_deref().map_or("", limits::holder).into(),
        // A watch that does not begin has given its place back.
        placed: call.counted != Counted::Nowhere && (streams || !labels.is_watch()),
    });
    let response = trail.answered(response).await;
    // An event must not wait in a compressor for more of them.
    let packed = match &identity {
        Some(who) if !streams && respond::is_compressed(&parts.headers, &response) => {
            context.limits.pack(who)
        }
        _ => None,
    };
    let mut response = match &packed {
        _ if streams => response.map(|body| until_ended(body, &open)),
        Some(_) => respond::compress(&parts.headers, response).await,
        None => response,
    };

    common_headers(response.headers_mut(), &audit_id);
    if context.audit.is_none() {
        audit::request(
            &audit_id,
            &target,
            identity.as_deref(),
            response.status(),
            &annotations,
        );
    }
    context
        .metrics
        .answered(&labels, dry_run, response.status(), began.elapsed());
    if parts.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    spans::answered(&span, &response);
    let watching = streams.then(|| (context.metrics.watching(&labels), open));
    // Of a watch the spans end here.
    let held = match streams || (span.is_disabled() && packed.is_none()) {
        true => place,
        false => Held::new((place, packed, serialize, span)),
    };
    Ok(response.map(|body| Body::new(ResponseBody::new(body, watching, held))))
}

/// Among which requests one is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// Among none: it has no place yet.
    Nowhere,
    /// Among the watches that are open, and not among what is under way.
    AsOpen,
    /// Among those that are under way.
    UnderWay,
}

/// One request on its way.
struct Call<'a> {
    context: &'a Context,
    target: &'a Target,
    query: Arc<[(String, String)]>,
    caller: Option<Caller>,
    warnings: Warnings,
    /// What admission says for the audit line.
    annotations: audit::Annotations,
    trail: audit::Trail,
    /// Where it comes from, if that is not the front proxy.
    source: Option<IpAddr>,
    began: Instant,
    audit_id: &'a str,
    labels: &'a RequestLabels,
    /// Where it comes from, if it has a span.
    client: &'a str,
    /// Of the whole request.
    span: Span,
    /// Room for a URL and headers that are long, held until the answer begins: what waits has
    /// them.
    head: Slot,
    /// The place of a watch, held until its stream ends.
    open: Slot,
    /// That of any other request, held until its answer was taken; of a watch what its
    /// selectors take.
    place: Held,
    /// The place that a watch has among reads until its answer begins.
    under_way: Held,
    counted: Counted,
    /// Whether it leaves a line without an answer.
    left: bool,
}

/// Whoever leaves before the answer leaves a line nevertheless: what the store has begun
/// stands.
impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let (true, Some(caller)) = (self.left, &self.caller) {
            audit::abandoned(self.audit_id, self.target, &caller.identity);
        }
    }
}

impl Call<'_> {
    async fn answer<B>(
        &mut self,
        peer: &Peer,
        parts: &mut Parts,
        body: B,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let caller = match self.authenticate(peer, parts).await {
            Ok(caller) => caller,
            Err(failure) => {
                self.begin(peer, parts, None);
                let waits = self.trail.waits_to_end();
                let place = waits.then(|| self.place_at_log());
                if let Some(Err(_)) = place {
                    self.trail.hurry();
                }
                self.trail.unrecognised(&failure).await;
                return Err(failure);
            }
        };
        self.begin(peer, parts, Some(&caller.identity));
        telemetry::propagation::accept(
            &self.span,
            &parts.headers,
            spans::may_choose(&caller.identity),
        );
        let span = self.span.clone();
        self.recognised(caller, parts, body).instrument(span).await
    }

    /// What is answered to whom we know.
    async fn recognised<B>(
        &mut self,
        caller: Caller,
        parts: &mut Parts,
        body: B,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let impersonation = refuse_impersonation(&caller, &parts.headers);
        // Before anything is waited for.
        parts.headers = needed(&parts.headers);
        self.received(&caller, parts).await?;
        impersonation?;
        if self.query.len() > PARAMETERS {
            return Err(Failure::BadRequest(format!(
                "the query has more than {PARAMETERS} parameters"
            )));
        }
        let due = self.due();
        let authorized = self.authorize(caller.identity.clone());
        let authorized = authorized.instrument(spans::step("authorization"));
        let authorized = tokio::time::timeout_at(due, authorized).await;
        let authorized = authorized.unwrap_or_else(|_| Err(late()))?;
        match self.target {
            Target::NonResource { path, .. } => {
                // Whoever asks whether we are well is answered in any case.
                if !health::is_check(path) {
                    let identity = authorized.identity();
                    self.place = Held::new(self.context.limits.enter(identity, Need::Read)?);
                    self.counted = Counted::UnderWay;
                }
                let asked = Asked {
                    path,
                    query: &self.query,
                    by_somebody: caller.is_somebody(),
                };
                self.context.document(asked, parts)
            }
            Target::Resource(_) => {
                let verb = spans::verb(&self.seen(parts));
                let carried_out = self.resource(&authorized, parts, body);
                carried_out.instrument(verb).await
            }
        }
    }

    /// Says that the request has come. Whoever waits for that holds a place and room for what
    /// is long; who has its share of them is refused, and of strangers and probes, who go on,
    /// the event is not waited for.
    async fn received(&mut self, caller: &Caller, parts: &Parts) -> Result<(), Failure> {
        let head = self.context.limits.head(&caller.identity, parts).await;
        let head = head.map(|head| self.head = head);
        let place = match self.trail.waits_to_begin() {
            true => self.place_at_log(),
            false => Ok(None),
        };
        let probe =
            matches!(self.target, Target::NonResource { path, .. } if health::is_check(path));
        let refused = match (head, &place) {
            (Err(failure), _) => Err(failure),
            (Ok(()), Err(failure)) if caller.is_somebody() && !probe => Err(failure.clone()),
            (Ok(()), _) => Ok(()),
        };
        if refused.is_err() || place.is_err() {
            self.trail.hurry();
        }
        let recorded = self.trail.received().await;
        refused.and(recorded)
    }

    /// A place among those who wait for the log.
    ///
    /// # Errors
    /// 429 when whoever asks has its share of them.
    fn place_at_log(&self) -> Result<Slot, Failure> {
        let limits = &self.context.limits;
        match self.caller.as_ref().filter(|caller| caller.is_somebody()) {
            Some(caller) => limits.log(&caller.identity),
            None => {
                let source = self.source.map(|source| source.to_string());
                limits.log_from(&source.unwrap_or_default())
            }
        }
    }

    /// When the answer to the request is due, counted from when it came (R9.4): of a watch that
    /// it may begin. A `timeout` that is none is refused later.
    fn due(&self) -> Instant {
        let asked = options::timeout(&self.query).ok().flatten();
        self.began + asked.map_or(limits::REQUEST, |asked| asked.min(limits::REQUEST))
    }

    fn seen<'s>(&'s self, parts: &'s Parts) -> spans::Seen<'s> {
        spans::Seen {
            parts,
            target: self.target,
            labels: self.labels,
            audit_id: self.audit_id,
            client: self.client,
        }
    }

    fn begin(&mut self, peer: &Peer, parts: &Parts, who: Option<&Identity>) {
        let Some(auditor) = &self.context.audit else {
            return;
        };
        let seen = audit::Seen {
            id: self.audit_id,
            parts,
            target: self.target,
            source: peer.source(),
            began: self.began,
        };
        self.trail = audit::Trail::begin(auditor, seen, who, &self.annotations);
    }

    async fn authenticate(&mut self, peer: &Peer, parts: &mut Parts) -> Result<Caller, Failure> {
        if let Some(source) = self.source {
            let limits = &self.context.limits;
            self.head = limits.head_from(&source.to_string(), parts)?;
        }
        let headers = &mut parts.headers;
        let asked = self.context.authenticator.authenticate(peer, headers);
        let Ok(answered) = tokio::time::timeout_at(self.due(), asked).await else {
            // Its token was not valid as far as anybody knows: whoever wants to be counted
            // nowhere would have a deadline that is over before the answer.
            self.context.metrics.authenticated("failure");
            tracing::info!(error = "not recognised in time", "unauthorized");
            return Err(late());
        };
        match answered {
            Ok(caller) => {
                self.context.metrics.authenticated("success");
                self.caller = Some(caller.clone());
                Ok(caller)
            }
            Err(error) => {
                self.context.metrics.authenticated("failure");
                tracing::info!(%error, "unauthorized");
                if let Rejected::Source | Rejected::Waiting = error {
                    return Err(Failure::too_many());
                }
                Err(Failure::Unauthorized)
            }
        }
    }

    async fn authorize(&mut self, identity: Arc<Identity>) -> Result<Authorized, Failure> {
        let (context, trail, asked) = (self.context, &mut self.trail, Instant::now());
        let place = || context.limits.ask(&identity);
        let heard = |decision: &Result<_, _>| trail.authorized(decision, asked.elapsed());
        let result = context
            .authorizer
            .authorize(identity.clone(), self.target.clone(), place, heard)
            .await;
        context.metrics.authorized(match &result {
            Ok(_) => "allowed",
            Err(Failure::Forbidden { .. }) => "denied",
            Err(_) => "error",
        });
        result
    }

    async fn resource<B>(
        &mut self,
        authorized: &Authorized,
        parts: &mut Parts,
        body: B,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let work = Work::of(authorized)?;
        let verb = work.verb();
        let identity = authorized.identity();
        let time = limits::time(verb, options::timeout(&self.query)?);
        let deadline = match time {
            Some(time) => self.due().min(Instant::now() + time),
            None => Instant::now() + LONG,
        };
        let carried_out = async {
            if verb == Verb::Watch {
                self.open = self.context.limits.watch(identity)?;
                let selectors = self.context.limits.selectors(identity, self.target)?;
                self.place = Held::new(selectors);
                self.counted = Counted::AsOpen;
            }
            work.negotiate(&parts.headers, &body)?;
            // The body first: who sends it slowly waits for itself alone.
            let (body, room) = self.body(identity, verb, parts, body).await?;
            let caller = limits::holder(identity);
            self.trail.sent(caller, verb, &parts.headers, &body).await;
            let need = Need::of(verb, self.waits());
            let place = self.context.limits.enter(identity, need)?;
            let place = Held::new((place, self.context.metrics.enter(verb)));
            self.counted = Counted::UnderWay;
            match verb {
                Verb::Watch => self.under_way = place.clone(),
                _ => self.place = place.clone(),
            }
            self.context.store_guard.ready()?;
            let registry = self.context.registry.load_full();
            let registry = registry.ok_or_else(|| self.context.store_guard.not_open())?;
            if verb.is_mutating() {
                self.context
                    .store_guard
                    .writable(registry.cache.revision())?;
            }
            let request = Request {
                headers: std::mem::take(&mut parts.headers),
                query: self.query.clone(),
                body,
                path: parts.uri.path().to_owned(),
                caller: caller.to_owned(),
                deadline,
                warnings: self.warnings.clone(),
                annotations: self.annotations.clone(),
                held: Held::new((room, place)),
            };
            let result = work.run(&registry, self.context, &request).await;
            parts.headers = request.headers;
            result
        };
        match tokio::time::timeout_at(deadline, carried_out).await {
            Ok(result) => result,
            Err(_) => Err(late()),
        }
    }

    /// Whether the request asks for a revision that is not there yet, and will wait.
    fn waits(&self) -> bool {
        let asked = self.query.iter().find(|(key, _)| key == "resourceVersion");
        let asked = asked.and_then(|(_, text)| text.parse::<u64>().ok());
        let registry = self.context.registry.load();
        match (asked, registry.as_ref()) {
            (Some(asked), Some(registry)) => asked > registry.cache.revision(),
            _ => false,
        }
    }

    /// The body, where the method has one (R4.12), and what it takes.
    async fn body<B>(
        &self,
        identity: &Identity,
        verb: Verb,
        parts: &Parts,
        body: B,
    ) -> Result<(Bytes, Slot), Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !verb.is_mutating() || parts.method == Method::HEAD {
            return Ok((Bytes::new(), None));
        }
        let media = decode::weighed_as(&parts.headers);
        self.context.limits.read(identity, media, body).await
    }
}

/// kube-apiserver applies impersonation before it forwards. A direct caller that asks
/// for it would be served with its own rights while it believes otherwise (R1.27).
fn refuse_impersonation(caller: &Caller, headers: &HeaderMap) -> Result<(), Failure> {
    let asked = headers
        .keys()
        .any(|name| name.as_str().starts_with("impersonate-"));
    if asked && caller.via != Via::FrontProxy {
        let why = format!(
            "User {:?} cannot impersonate here: send the request to kube-apiserver",
            caller.identity.user
        );
        return Err(authz::refused(Subject::default(), &why));
    }
    Ok(())
}

/// A watch whose place is needed for another ends as if its time were over.
fn until_ended(body: Body, place: &Slot) -> Body {
    let Some(place) = place else { return body };
    let ended = place.ended().cancelled_owned();
    Body::from_stream(body.into_data_stream().take_until(Box::pin(ended)))
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

fn panicked(metrics: &Metrics, text: &str) -> Response<Body> {
    metrics.panicked();
    tracing::error!(text, "a request panicked");
    plain(StatusCode::INTERNAL_SERVER_ERROR, PANICKED.to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
