//! Starts and ends the server: sockets, tasks, the order of shutdown.
//!
//! Start: listen first, then load what answers need; each part is retried for ever and
//! shows in `/readyz` or as 503 meanwhile, so that nothing depends on the order in which
//! a cluster comes up.
//!
//! End (R9.7): readiness fails and everything goes on for the delay; then watches end,
//! connections finish what they have begun; then the floor is recorded and the store is
//! closed.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use storage::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Args, ConnectError};
use crate::authn::{Authenticator, Peer};
use crate::authz::Authorizer;
use crate::cache::Cache;
use crate::documents::Documents;
use crate::floor::Floor;
use crate::limits::{self, Limits};
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::pipeline::{self, Context};
use crate::registration::{Place, Registration};
use crate::registry::{Clock, Registry};
use crate::subresource::kubeconfig::Minter;
use crate::tls::{self, Serving};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long connections may finish after they were told to.
const GRACE: Duration = Duration::from_secs(60);
const OPEN_AGAIN: Duration = Duration::from_secs(2);
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(15);
const STREAM_WINDOW: u32 = 256 * 1024;
/// For all streams of one connection together: kube-apiserver sends every user's bodies
/// over one.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const HEADER_BYTES: u32 = 1024 * 1024;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// A server that runs.
pub struct Running {
    /// Where it listens; the port is a real one, also if 0 was asked for.
    pub address: SocketAddr,
    pub context: Arc<Context>,
    leaving: CancellationToken,
    /// Connections, then the tasks behind them.
    connections: TaskTracker,
    drain: CancellationToken,
    tasks: TaskTracker,
    done: CancellationToken,
    delay: Duration,
}

/// What a connection goes through first.
#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    serving: Arc<Serving>,
    /// HTTP/2 streams of one connection.
    streams: u32,
}

/// Starts a server.
///
/// # Errors
/// When it cannot listen. What it cannot reach is retried while it runs.
pub async fn start(args: &Args, client: kube::Client, clock: Clock) -> Result<Running, Error> {
    let address = args.listen();
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Error::Listen { address, error })?;
    let address = listener.local_addr().unwrap_or(address);
    let serving = Arc::new(Serving::default());
    let door = Door {
        acceptor: TlsAcceptor::from(tls::config(serving.clone())?),
        serving: serving.clone(),
        streams: args.http2_max_streams_per_connection,
    };

    let metrics = Arc::new(Metrics::new());
    let authorizer = Authorizer::new(client.clone());
    let leaving = CancellationToken::new();
    let context = Arc::new(Context {
        authenticator: Authenticator::new(Some(client.clone()), clock.clone()),
        authorizer: authorizer.clone(),
        documents: Documents::new(),
        limits: Limits::new(
            args.max_requests_inflight,
            args.max_mutating_requests_inflight,
        ),
        metrics: metrics.clone(),
        namespaces: Namespaces::new(client.clone()),
        floor: Floor::new(
            client.clone(),
            &args.namespace,
            &args.store_secret,
            metrics.clone(),
        ),
        registry: ArcSwapOption::empty(),
        minter: Minter::new(
            client.clone(),
            authorizer,
            clock.clone(),
            metrics.clone(),
            args.kubeconfig_max_seconds,
        ),
        leaving: leaving.clone(),
    });
    let registration = Registration::new(
        client.clone(),
        Place {
            namespace: args.namespace.clone(),
            service: args.service_name.clone(),
            port: args.service_port,
            secret: args.serving_secret.clone(),
            skip: args.skip_registration,
        },
        serving,
        metrics,
        clock.clone(),
    );

    let running = Running {
        address,
        context: context.clone(),
        leaving,
        connections: TaskTracker::new(),
        drain: CancellationToken::new(),
        tasks: TaskTracker::new(),
        done: CancellationToken::new(),
        delay: args.shutdown_delay(),
    };
    let follower = context.clone();
    let of = client.clone();
    running.task(async move { follower.authenticator.follow(of).await });
    let follower = context.clone();
    running.task(async move { follower.namespaces.follow(client).await });
    let done = running.done.clone();
    running.task(async move { registration.run(done).await });
    running.spawn(keep_store(
        context.clone(),
        args.data_dir.clone(),
        clock,
        running.drain.clone(),
        running.done.clone(),
    ));
    let (connections, drain) = (running.connections.clone(), running.drain.clone());
    running.task(accept(listener, door, context, connections, drain));
    tracing::info!(%address, "listening");
    Ok(running)
}

impl Running {
    /// Runs until everything else is done, and is ended with it.
    fn task(&self, work: impl Future<Output = ()> + Send + 'static) {
        let done = self.done.clone();
        self.spawn(async move {
            done.run_until_cancelled(work).await;
        });
    }

    #[allow(clippy::disallowed_methods, reason = "tasks are started here")]
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Ends the server as SIGTERM does, and returns when it has ended.
    pub async fn stop(self) {
        tracing::info!("shutting down");
        self.leaving.cancel();
        tokio::time::sleep(self.delay).await;
        self.drain.cancel();
        self.connections.close();
        if tokio::time::timeout(GRACE + HANDSHAKE, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!("connections are cut off");
        }
        self.done.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        tracing::info!("shut down");
    }
}

/// Opens the store, waits until it may be served, serves it, and closes it last.
#[allow(clippy::disallowed_methods, reason = "tasks are started here")]
async fn keep_store(
    context: Arc<Context>,
    directory: std::path::PathBuf,
    clock: Clock,
    drain: CancellationToken,
    done: CancellationToken,
) {
    let Some(store) = done.run_until_cancelled(open(&context, &directory)).await else {
        return;
    };
    if context.floor.confirm(&store, &done).await {
        let cache = Cache::new(store.clone());
        let work = TaskTracker::new();
        work.spawn(cache.clone().run(done.clone()));
        let policy = storage::compact::Policy::default();
        work.spawn(storage::compact::run(store.clone(), policy, done.clone()));
        context.registry.store(Some(Arc::new(Registry {
            store: store.clone(),
            cache,
            authorizer: context.authorizer.clone(),
            namespaces: context.namespaces.clone(),
            clock,
            shutdown: drain,
        })));
        context.floor.run(&store, done).await;
        context.floor.finish(&store).await;
        work.close();
        work.wait().await;
    }
    store.close().await;
}

async fn open(context: &Context, directory: &std::path::Path) -> Store {
    loop {
        match storage::sqlite::open(directory).await {
            Ok(store) => return store,
            Err(error) => {
                tracing::error!(%error, directory = %directory.display(), "cannot open the store");
                context.floor.closed(error.to_string());
                tokio::time::sleep(OPEN_AGAIN).await;
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "tasks are started here")]
async fn accept(
    listener: TcpListener,
    door: Door,
    context: Arc<Context>,
    connections: TaskTracker,
    drain: CancellationToken,
) {
    while let Some(accepted) = drain.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, _)) => {
                connections.spawn(serve(socket, door.clone(), context.clone(), drain.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must be closed first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection, from its handshake to its end.
async fn serve(socket: TcpStream, door: Door, context: Arc<Context>, drain: CancellationToken) {
    // Watch events are small; each must leave at once.
    let _ = socket.set_nodelay(true);
    let handshake = async {
        door.serving.installed().await;
        door.acceptor.accept(socket).await
    };
    let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            context.metrics.handshake_failed();
            tracing::debug!(%error, "TLS handshake");
            return;
        }
        Err(_) => return context.metrics.handshake_failed(),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Arc::new(Peer::new(
        chain.iter().map(|c| c.clone().into_owned()).collect(),
    ));
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let answer = pipeline::handle(context.clone(), peer.clone(), request);
        async move { answer.await.map_err(|never: Infallible| never) }
    });
    let builder = builder(door.streams);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    if let Ok(ended) = tokio::time::timeout(GRACE, connection).await {
        log_end(ended);
    }
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection");
    }
}

/// HTTP as R4.11 has it.
fn builder(streams: u32) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(STREAM_WINDOW)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    builder
}
