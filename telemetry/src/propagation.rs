//! W3C's trace context, in and out (R9.13).
//!
//! Kubernetes passes `baggage` on as well. Here it is not read: it is anybody's text, and
//! nobody here has a use for it.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
/// Bytes of a `tracestate`; vendors have to pass on as many. A longer one is left out.
const STATE_BYTES: usize = 512;

/// Makes what a request says of its trace the parent of its span, if the caller may choose
/// that; otherwise the span begins a trace of its own, and has a link to the other.
///
/// It must be called before the span is entered or has children.
pub fn accept(span: &Span, headers: &HeaderMap, trusted: bool) {
    if span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &In(headers));
    let remote = context.span().span_context().clone();
    match (remote.is_valid(), trusted) {
        (false, _) => {}
        // It has no parent yet: nothing has looked at it.
        (true, true) => drop(span.set_parent(context)),
        (true, false) => span.add_link(remote),
    }
}

/// Tells whom we ask of this span.
pub fn tell(span: &Span, headers: &mut HeaderMap) {
    if !span.is_disabled() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut Out(headers));
    }
}

/// Whether what happens now is part of a trace, sampled or not.
pub fn is_traced() -> bool {
    let span = Span::current();
    !span.is_none() && span.context().span().span_context().is_valid()
}

struct In<'a>(&'a HeaderMap);

impl Extractor for In<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let most = match key {
            PARENT => 64,
            STATE => STATE_BYTES,
            _ => return None,
        };
        let mut values = self.0.get_all(key).iter();
        match (values.next(), values.next()) {
            (Some(one), None) if one.len() <= most => one.to_str().ok(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT, STATE]
    }
}

struct Out<'a>(&'a mut HeaderMap);

impl Injector for Out<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty state says nothing.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
