//! `/livez`, `/readyz` and `/metrics`, in plain HTTP, for the kubelet and for
//! Prometheus. Of tenants, metrics tell the names and when their certificates end.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, ctx: Arc<Context>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        // Kubelets and scrapers are few: whatever is beyond that waits.
        if connections.len() >= 64 {
            connections.join_next().await;
        }
        let Ok((stream, _)) = accepted else {
            continue;
        };
        let ctx = ctx.clone();
        let stop = stop.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "one task a connection; they end with this server"
        )]
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let ctx = ctx.clone();
                let stopping = stop.is_cancelled();
                async move { Ok::<_, Infallible>(answer(&request, &ctx, stopping)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::trace!("health connection: {error}");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, ctx: &Context, stopping: bool) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/livez" | "/healthz" => text(StatusCode::OK, "ok".into()),
        "/readyz" => {
            let missing = ctx.caches.unsynced();
            if stopping {
                text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into())
            } else if missing.is_empty() {
                text(StatusCode::OK, "ok".into())
            } else {
                let missing = missing.join(", ");
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not read yet: {missing}\n"),
                )
            }
        }
        "/metrics" => {
            ctx.metrics.refresh(ctx);
            text(StatusCode::OK, ctx.metrics.encode())
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
