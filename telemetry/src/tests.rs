//! What comes of spans, without a collector.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span as SdkSpan, SpanData, SpanProcessor};
use tower::{Layer as _, Service, ServiceExt};
use tracing::{Instrument, Span, info, trace_span};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::propagation::{accept, tell};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Kept {
    fn on_start(&self, _: &mut SdkSpan, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Kept {
    /// A subscriber with this rate, for as long as the guard is there.
    fn with(rate: u32) -> (Self, tracing::subscriber::DefaultGuard) {
        let kept = Self::default();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(sampler(rate))))
            .with_span_processor(kept.clone())
            .build();
        let subscriber =
            tracing_subscriber::registry().with(layer(&provider, "test", &["telemetry"]));
        (kept, tracing::subscriber::set_default(subscriber))
    }

    /// Those that are sampled.
    fn take(&self) -> Vec<SpanData> {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap());
        all.retain(|span| span.span_context.is_sampled());
        all
    }
}

fn headers(parent: &str) -> HeaderMap {
    let parent = parent.parse().unwrap();
    HeaderMap::from_iter([("traceparent".parse().unwrap(), parent)])
}

/// R9.13: a parent counts if the caller may choose, and is a link otherwise; what is none is
/// neither.
#[test]
fn a_parent_is_followed_only_from_whom_may_choose() {
    let claimed = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
    let asked = |rate: u32, parent: &str, trusted: bool| {
        let (kept, _guard) = Kept::with(rate);
        let span = trace_span!("request");
        accept(&span, &headers(parent), trusted);
        span.in_scope(|| trace_span!("below").in_scope(|| info!("a line")));
        drop(span);
        kept.take()
    };
    let both = asked(0, PARENT, true);
    let [below, request] = &both[..] else {
        panic!("both");
    };
    assert_eq!(request.span_context.trace_id(), claimed);
    assert_eq!(
        request.parent_span_id,
        SpanId::from_hex("00f067aa0ba902b7").unwrap()
    );
    assert_eq!(below.parent_span_id, request.span_context.span_id());
    assert!(below.events.is_empty(), "lines of the log are not in it");
    assert!(below.attributes.is_empty(), "{:?}", below.attributes);

    assert!(asked(0, PARENT, false).is_empty());
    let unsampled = PARENT.replace("-01", "-00");
    assert!(asked(MILLION, &unsampled, true).is_empty());
    let own = asked(MILLION, PARENT, false);
    assert_eq!(own.len(), 2);
    assert_ne!(own[1].span_context.trace_id(), claimed);
    assert_eq!(
        own[1].links.iter().next().unwrap().span_context.trace_id(),
        claimed
    );
    for none in [
        "",
        "00-0-0-01",
        &"0".repeat(1000),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    ] {
        let own = asked(MILLION, none, true);
        assert_eq!((own.len(), own[1].links.len()), (2, 0), "{none}");
        assert_eq!(own[1].parent_span_id, SpanId::INVALID, "{none}");
    }
}

const MILLION: u32 = config::MILLION;

/// R9.13: who is asked is told of the span of the call, also by a client whose calls are made
/// in a task of its own, as those of `kube` are; what belongs to no trace tells nothing.
#[tokio::test]
async fn calls_tell_of_their_trace() {
    let (kept, _guard) = Kept::with(MILLION);
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let service = tower::service_fn(move |request: Request<()>| {
        let parent = request.headers().get("traceparent").cloned();
        seen.lock().unwrap().push(parent);
        async { Ok::<_, std::io::Error>(Response::builder().status(409).body(()).unwrap()) }
    });
    let mut client = tower::buffer::Buffer::new(client::Calls.layer(service), 4);
    let request = || {
        Request::get("https://a.b:1/c?token=secret")
            .body(())
            .unwrap()
    };
    let mut ask = async || client.ready().await.unwrap().call(request()).await.unwrap();
    ask().await;
    assert_eq!(told.lock().unwrap().pop(), Some(None));
    assert!(kept.take().is_empty());

    ask().instrument(trace_span!("work")).await;
    let both = kept.take();
    let [call, work] = &both[..] else {
        panic!("both");
    };
    assert_eq!(call.parent_span_id, work.span_context.span_id());
    assert_eq!(call.name, "HTTP GET");
    let context = &call.span_context;
    let expected = format!("00-{}-{}-01", context.trace_id(), context.span_id());
    let parent = told.lock().unwrap().pop().flatten().unwrap();
    assert_eq!(parent.to_str().unwrap(), expected);
    let says = |key: &str| {
        let found = call.attributes.iter().find(|it| it.key.as_str() == key);
        found.map(|it| it.value.to_string())
    };
    assert_eq!(says("url.full").as_deref(), Some("https://a.b/c"));
    assert_eq!(says("http.response.status_code").as_deref(), Some("409"));
    assert_eq!(says("error.type").as_deref(), Some("409"));
    assert!(!format!("{call:?}").contains("secret"));
}

/// Without a subscriber that wants them there are no spans, and nobody is told.
#[test]
fn without_tracing_nothing_is_made() {
    let span = trace_span!("request");
    accept(&span, &headers(PARENT), true);
    let mut headers = HeaderMap::new();
    tell(&span, &mut headers);
    assert!(span.is_disabled() && headers.is_empty());
    assert!(client::begin(&mut Request::get("https://a/b").body(()).unwrap()).is_disabled());
    assert!(Span::current().is_none());
}
