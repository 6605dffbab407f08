//! Spans of the calls that a client makes, and `traceparent` in them.

use std::task::{Context, Poll};

use futures::future::{BoxFuture, Either, FutureExt};
use http::{Request, Response};
use tracing::field::Empty;
use tracing::{Instrument, Span, trace_span};

use crate::{TEXT, cut, propagation};

/// For a stack of services that ends in a connection: what is called within a trace has a span
/// there, from the request to the head of its answer, and tells of it. A watch is not held
/// open by it. What belongs to no trace begins none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls;

impl<S> tower::Layer<S> for Calls {
    type Service = Called<S>;

    fn layer(&self, inner: S) -> Called<S> {
        Called(inner)
    }
}

/// See [`Calls`].
#[derive(Clone, Debug)]
pub struct Called<S>(S);

impl<S, B, R> tower::Service<Request<B>> for Called<S>
where
    S: tower::Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let span = begin(&mut request);
        if span.is_disabled() {
            return Either::Left(self.0.call(request));
        }
        let answer = self.0.call(request).instrument(span.clone());
        Either::Right(answer.map(move |answer| end(&span, answer)).boxed())
    }
}

/// A span for this request, which tells of it. None outside of a trace.
pub fn begin<B>(request: &mut Request<B>) -> Span {
    if !propagation::is_traced() {
        return Span::none();
    }
    let uri = request.uri();
    // Without the query: it may be somebody's secret, and what it asks for is said elsewhere.
    let url = format!(
        "{}://{}{}",
        uri.scheme_str().unwrap_or("https"),
        uri.host().unwrap_or_default(),
        uri.path()
    );
    let span = trace_span!(
        "call",
        otel.name = format!("HTTP {}", request.method()),
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = request.method().as_str(),
        http.response.status_code = Empty,
        server.address = cut(uri.host().unwrap_or_default().to_owned(), TEXT),
        server.port = uri.port_u16().map(i64::from),
        url.full = cut(url, TEXT),
        "error.type" = Empty,
    );
    propagation::tell(&span, request.headers_mut());
    span
}

/// Records how it was answered. As by otelhttp, 400 and above is an error to who asked.
pub fn end<R, E>(span: &Span, answer: Result<Response<R>, E>) -> Result<Response<R>, E> {
    match &answer {
        Ok(answer) => {
            // Other integers become texts on their way.
            let code = i64::from(answer.status().as_u16());
            span.record("http.response.status_code", code);
            if code >= 400 {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", code);
            }
        }
        Err(_) => {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", "_OTHER");
        }
    };
    answer
}
