//! `/livez`, `/readyz` and `/metrics`, in plain HTTP, for the kubelet and for
//! Prometheus. Of tenants, metrics tell the names and when their certificates end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Connections at a time. Kubelets and scrapers are few.
const CONNECTIONS: usize = 64;

/// What is asked at the port.
pub trait Probed: Send + Sync + 'static {
    /// What was not read yet: whoever lacks anything is not ready.
    fn unsynced(&self) -> Vec<&'static str>;
    /// All metrics as they are now, as text.
    fn text(&self) -> String;
}

/// Serves until `stop`. The kubelet ends the controller if it gets no answer, and anybody on
/// the network of pods may connect: so nobody is waited for. Where connections are too many,
/// the oldest of whoever has most is closed.
pub async fn serve(listener: TcpListener, probed: Arc<impl Probed>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut open = Open::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = accepted else {
            // Out of file descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.make_room();
        let probed = probed.clone();
        let stop = stop.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "one task a connection; they end with this server"
        )]
        let connection = connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let probed = probed.clone();
                let stopping = stop.is_cancelled();
                async move { Ok::<_, Infallible>(answer(&request, &*probed, stopping)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::trace!("health connection: {error}");
            }
        });
        open.0.push_back((from.ip(), connection));
    }
}

/// Connections that are open, the oldest first, and where they come from.
#[derive(Default)]
struct Open(VecDeque<(IpAddr, AbortHandle)>);

impl Open {
    /// Room for one more.
    fn make_room(&mut self) {
        self.0.retain(|(_, connection)| !connection.is_finished());
        while self.0.len() >= CONNECTIONS {
            let of = |source: &IpAddr| self.0.iter().filter(|(from, _)| from == source).count();
            let most = self.0.iter().map(|(from, _)| of(from)).max();
            let oldest = self.0.iter().position(|(from, _)| Some(of(from)) == most);
            let Some((_, connection)) = oldest.and_then(|at| self.0.remove(at)) else {
                break;
            };
            connection.abort();
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    probed: &impl Probed,
    stopping: bool,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/livez" | "/healthz" => text(StatusCode::OK, "ok".into()),
        "/readyz" => {
            let missing = probed.unsynced();
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
        "/metrics" => text(StatusCode::OK, probed.text()),
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

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a server that the test waits for, and connections that are to be ended"
)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Has read everything.
    struct Ready;

    impl Probed for Ready {
        fn unsynced(&self) -> Vec<&'static str> {
            Vec::new()
        }

        fn text(&self) -> String {
            String::new()
        }
    }

    const ASK: &[u8] = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";

    async fn answered(connection: &mut TcpStream) -> bool {
        let mut begin = [0; 12];
        let read = connection.read_exact(&mut begin);
        let read = tokio::time::timeout(Duration::from_secs(10), read).await;
        matches!(read, Ok(Ok(_))) && &begin == b"HTTP/1.1 200"
    }

    /// Whoever keeps connections open, or does not read what was asked for, holds up no probe
    /// of the kubelet.
    #[tokio::test]
    async fn a_probe_is_answered_whoever_keeps_connections_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Arc::new(Ready), stop.clone()));
        let mut kept = Vec::new();
        for _ in 0..CONNECTIONS + 10 {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(ASK).await.unwrap();
            assert!(answered(&mut connection).await);
            // The next request has begun.
            connection.write_all(&ASK[..10]).await.unwrap();
            kept.push(connection);
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(ASK).await.unwrap();
        assert!(answered(&mut probe).await);
        // The oldest were closed, the others go on.
        let mut rest = Vec::new();
        let closed = kept[0].read_to_end(&mut rest);
        let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
        assert!(closed.is_ok());
        let last = kept.last_mut().unwrap();
        last.write_all(&ASK[10..]).await.unwrap();
        let mut begin = [0; 12];
        last.read_exact(&mut begin).await.unwrap();
        stop.cancel();
        serving.await.unwrap();
    }

    /// Of many who have few, and one who has most, it is that one's oldest that goes.
    #[tokio::test]
    async fn who_has_most_gives_way() {
        let mut open = Open::default();
        let source = |last: u8| IpAddr::from([10, 0, 0, last]);
        let task = || tokio::spawn(std::future::pending::<()>()).abort_handle();
        for last in 1..=10 {
            open.0.push_back((source(last), task()));
        }
        while open.0.len() < CONNECTIONS {
            open.0.push_back((source(99), task()));
        }
        let first = open.0[10].1.clone();
        open.make_room();
        assert_eq!(open.0.len(), CONNECTIONS - 1);
        assert!((0..10).all(|at| open.0[at].0 == source(at as u8 + 1)));
        tokio::task::yield_now().await;
        assert!(first.is_finished());
    }
}
