//! Starts and ends the server: sockets, tasks, the order of shutdown.
//!
//! Start: listen first, then load what answers need; each part is retried for ever and
//! shows in `/readyz` or as 503 meanwhile, so that nothing depends on the order in which
//! a cluster comes up.
//!
//! End (R9.7): readiness fails and everything goes on for the delay; then watches end,
//! connections finish what they have begun; then what is left of audit events is delivered;
//! then the floor is recorded and the store is closed.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use apiservice::clock::Clock;
use arc_swap::ArcSwapOption;
use axum::body::{Body, Bytes};
use http::Response;
use http_body::{Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use storage::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConnection;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Args, ConnectError};
use crate::audit::{self, Auditor};
use crate::authn::{Authenticator, Peer};
use crate::authz::Authorizer;
use crate::buckets::block;
use crate::cache::Cache;
use crate::documents::Documents;
use crate::encryption::Encryption;
use crate::limits::{self, Limits};
use crate::linger::Lingering;
use crate::live_bytes::Live;
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::pipeline::{self, Context};
use crate::policy::Policies;
use crate::pool::{Hold, Pool};
use crate::quota::Quota;
use crate::registration::{Place, Registration};
use crate::registry::Registry;
use crate::sending::{About, Taken, Taking, Unread};
use crate::store_guard::StoreGuard;
use crate::subresource::join_token::JoinTokens;
use crate::subresource::kubeconfig::Minter;
use crate::subresource::migrate::Chooser;
use crate::tls::{self, Serving};

/// How long a connection may be of no use.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    /// From the connection to the end of the TLS handshake.
    handshake: Duration,
    /// From there to the first request.
    first_request: Duration,
    /// How long it stays open on which nothing is asked.
    idle: Duration,
    /// Between pings.
    ping: Duration,
    /// Within which one is to be answered.
    pong: Duration,
}

const DEADLINES: Deadlines = Deadlines {
    handshake: Duration::from_secs(10),
    first_request: Duration::from_secs(15),
    idle: Duration::from_secs(180),
    ping: Duration::from_secs(30),
    pong: Duration::from_secs(15),
};
/// How long connections may finish after they were told to: a write that has begun
/// may take [`limits::WRITE`]. With the rest of the end it fits in the
/// `terminationGracePeriodSeconds` of the chart.
const GRACE: Duration = Duration::from_secs(35);
/// And then they are cut.
const CUT: Duration = Duration::from_secs(1);
/// How long the store takes to close in order: what the writer has begun, and the write-ahead
/// log.
#[cfg(test)]
const CLOSING: Duration = Duration::from_secs(5);
/// How long a connection may finish whose place another needs.
const DISPLACED: Duration = Duration::from_secs(5);
const OPEN_AGAIN: Duration = Duration::from_secs(2);
/// What a client may send ahead on a stream, and in a frame, on a connection of the front
/// proxy.
const STREAM_WINDOW: u32 = 256 * 1024;
/// For all streams of such a connection together: kube-apiserver sends every user's bodies
/// over one.
pub(crate) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// The same of any other connection, of which strangers may have many.
pub(crate) const OTHERS_WINDOW: u32 = 64 * 1024;
const OTHERS_FRAME: u32 = 16 * 1024;
/// How much hyper buffers of an answer, on a connection of the front proxy and on any
/// other; these bytes are no longer counted.
pub(crate) const SEND_BUFFER: [usize; 2] = [64 * 1024, 16 * 1024];
/// Headers of one request, from the front proxy and from everybody else. They are kept
/// until it is known who asks.
const HEADER_BYTES: [u32; 2] = [256 * 1024, 64 * 1024];
/// Streams of one connection that is not the front proxy's.
const STREAMS: u32 = 100;
/// Answers on connections other than the front proxy's for which no place is held: refusals,
/// and those about health. Beyond them an answer is its headers alone, with which a stream ends.
pub(crate) const UNPLACED: usize = 4_096;
/// Bytes that TLS keeps for a client that does not read.
pub(crate) const TLS_BUFFER: usize = 32 * 1024;
/// Connections of those who presented more certificates than are looked at, which TLS keeps.
pub(crate) const EXCESSIVE: usize = 64;

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
    #[error(transparent)]
    Audit(#[from] audit::Error),
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
    /// Those that deliver audit events, and their end.
    audits: TaskTracker,
    flush: CancellationToken,
    tasks: TaskTracker,
    done: CancellationToken,
    delay: Duration,
}

/// What a connection goes through first.
#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    serving: Arc<Serving>,
    deadlines: Deadlines,
    /// HTTP/2 streams of one connection.
    streams: u32,
    /// Connections that shake hands. A source that has too many of them gives up its
    /// oldest: the front proxy may come from the address of a stranger.
    handshakes: Pool,
    /// Connections after that, by source; those of the front proxy, which are everybody's,
    /// are not counted.
    connections: Pool,
    /// Connections with more certificates than are looked at, by source.
    excessive: Pool,
    /// Answers for which no place is held, by source.
    unplaced: Pool,
    /// Answers that their clients have not taken.
    unread: Unread,
}

/// Starts a server.
///
/// # Errors
/// When it cannot listen, or audit cannot be done as it is asked for. What it cannot reach is
/// retried while it runs.
pub async fn start(args: &Args, client: kube::Client, clock: Clock) -> Result<Running, Error> {
    let metrics = Arc::new(Metrics::new());
    let (auditor, audits) = Auditor::open(&args.audit, metrics.clone(), clock.clone())
        .await?
        .unzip();
    let address = args.listen();
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Error::Listen { address, error })?;
    let address = listener.local_addr().unwrap_or(address);
    let serving = Arc::new(Serving::default());
    let live = Live::default();
    let door = Door {
        acceptor: TlsAcceptor::from(tls::config(serving.clone())?),
        serving: serving.clone(),
        deadlines: DEADLINES,
        streams: args.http2_max_streams_per_connection,
        handshakes: Pool::places(args.max_connections / 4).renewing(),
        connections: Pool::places(args.max_connections),
        excessive: Pool::places(EXCESSIVE),
        unplaced: Pool::places(UNPLACED),
        unread: Unread::new(live.clone()),
    };

    let authorizer = Authorizer::new(client.clone());
    let leaving = CancellationToken::new();
    let namespaces = Namespaces::new(client.clone(), args.tenant_namespaces());
    let context = Arc::new(Context {
        authenticator: Authenticator::new(Some(client.clone()), clock.clone()),
        authorizer: authorizer.clone(),
        documents: Documents::new(clock.now()),
        limits: Limits::new(
            args.max_requests_inflight,
            args.max_mutating_requests_inflight,
            &args.namespace,
        ),
        audit: auditor,
        metrics: metrics.clone(),
        policies: Policies::new(
            client.clone(),
            namespaces.clone(),
            authorizer.clone(),
            metrics.clone(),
        ),
        namespaces,
        store_guard: StoreGuard::new(
            client.clone(),
            &args.namespace,
            &args.store_secret,
            args.tenant_namespaces(),
            metrics.clone(),
        ),
        registry: ArcSwapOption::empty(),
        join_tokens: JoinTokens::new(
            client.clone(),
            authorizer.clone(),
            clock.clone(),
            metrics.clone(),
            args.join_token_max_seconds,
        ),
        minter: Minter::new(
            client.clone(),
            authorizer,
            clock.clone(),
            metrics.clone(),
            args.kubeconfig_max_seconds,
        ),
        chooser: Chooser::default(),
        leaving: leaving.clone(),
    });
    let encryption = Encryption::new(args, metrics.clone(), clock.clone());
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
        audits: TaskTracker::new(),
        flush: CancellationToken::new(),
        tasks: TaskTracker::new(),
        done: CancellationToken::new(),
        delay: args.shutdown_delay(),
    };
    for worker in audits.into_iter().flatten() {
        running.audit(worker);
    }
    let follower = context.clone();
    let of = client.clone();
    running.task(async move { follower.authenticator.follow(of).await });
    let follower = context.clone();
    let of = client.clone();
    running.task(async move { follower.namespaces.follow(of).await });
    let follower = context.clone();
    running.task(async move { follower.policies.follow(client).await });
    let done = running.done.clone();
    running.task(async move { registration.run(done).await });
    running.spawn(keep_store(
        context.clone(),
        Arc::new(Quota::new(args.bounds())),
        live,
        encryption,
        clock,
        running.drain.clone(),
        running.done.clone(),
    ));
    running.task(door.unread.clone().run());
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

    #[allow(clippy::disallowed_methods, reason = "tasks are started here")]
    fn audit(&self, worker: audit::backend::Worker) {
        self.audits.spawn(worker.run(self.flush.clone()));
    }

    /// Ends the server as SIGTERM does, and returns when it has ended.
    pub async fn stop(self) {
        tracing::info!("shutting down");
        self.leaving.cancel();
        tokio::time::sleep(self.delay).await;
        self.drain.cancel();
        self.connections.close();
        if tokio::time::timeout(GRACE + CUT, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!("the grace period is over; closing the remaining connections");
        }
        self.flush.cancel();
        self.audits.close();
        self.audits.wait().await;
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
    quota: Arc<Quota>,
    live: Live,
    encryption: Encryption,
    clock: Clock,
    drain: CancellationToken,
    done: CancellationToken,
) {
    let opening = open(&context, &encryption);
    let Some((store, seen)) = done.run_until_cancelled(opening).await else {
        return;
    };
    if context.store_guard.confirm(&store, &done).await {
        let cache = Cache::new(store.clone(), live);
        let work = TaskTracker::new();
        work.spawn(cache.clone().run(done.clone()));
        let policy = storage::compact::Policy::default();
        work.spawn(storage::compact::run(store.clone(), policy, done.clone()));
        let (sealed, ended) = (encryption.follow(store.clone(), seen), done.clone());
        work.spawn(async move {
            ended.run_until_cancelled(sealed).await;
        });
        context.registry.store(Some(Arc::new(Registry {
            store: store.clone().into(),
            writable: store.clone().into(),
            cache,
            quota: quota.clone(),
            answers: Pool::new(limits::ANSWERS),
            limits: context.limits.clone(),
            replays: Pool::places(limits::REPLAYS),
            authorizer: context.authorizer.clone(),
            namespaces: context.namespaces.clone(),
            policies: context.policies.clone(),
            clock,
            shutdown: drain,
        })));
        context.store_guard.run(&store, done).await;
        context.store_guard.finish(&store).await;
        work.close();
        work.wait().await;
    }
    store.close().await;
}

/// The store, and what the encryption configuration was that it was opened with.
async fn open(context: &Context, encryption: &Encryption) -> (Store, Option<[u8; 32]>) {
    loop {
        match encryption.open().await {
            Ok(opened) => return opened,
            Err(error) => {
                tracing::error!(%error, "cannot open the store");
                context.store_guard.closed(error);
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
            Ok((socket, from)) => {
                let source = block(from.ip()).to_string();
                let Ok(place) = door.handshakes.displace(&source) else {
                    // Closed at once: an answer would cost what there is not.
                    context.metrics.connection_refused();
                    tracing::debug!(%from, "too many connections");
                    continue;
                };
                connections.spawn(serve(
                    socket,
                    from.ip(),
                    place,
                    door.clone(),
                    context.clone(),
                    drain.clone(),
                ));
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
async fn serve(
    socket: TcpStream,
    source: IpAddr,
    place: Hold,
    door: Door,
    context: Arc<Context>,
    drain: CancellationToken,
) {
    // Watch events are small; each must leave at once.
    let _ = socket.set_nodelay(true);
    let handshake = async {
        door.serving.installed().await;
        let bounded = |tls: &mut ServerConnection| tls.set_buffer_limit(Some(TLS_BUFFER));
        door.acceptor.accept_with(socket, bounded).await
    };
    let handshake = tokio::time::timeout(door.deadlines.handshake, handshake);
    let displaced = place.ended();
    let handshake = displaced.run_until_cancelled(handshake);
    let stream = match drain.run_until_cancelled(handshake).await {
        Some(Some(Ok(Ok(stream)))) => stream,
        Some(Some(Ok(Err(error)))) => {
            context.metrics.handshake_failed();
            tracing::debug!(%error, "TLS handshake");
            return;
        }
        Some(Some(Err(_))) => return context.metrics.handshake_failed(),
        Some(None) => return context.metrics.connection_refused(),
        None => return,
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Arc::new(Peer::new(chain).at(source));
    drop(place);
    let place = if context.authenticator.is_front_proxy(&peer) {
        None
    } else {
        let Ok(place) = door.connections.displace(&block(source).to_string()) else {
            context.metrics.connection_refused();
            tracing::debug!(%source, "too many connections");
            return;
        };
        Some(place)
    };
    let shared = place.is_none();
    let from: Arc<str> = block(source).to_string().into();
    let _excessive = match peer.is_excessive() {
        false => None,
        true => match door.excessive.enter(&from) {
            Ok(place) => Some(place),
            Err(_) => return context.metrics.connection_refused(),
        },
    };
    let unplaced = (!shared).then(|| (door.unplaced.clone(), from));
    let displaced = place.as_ref().map(Hold::ended).unwrap_or_default();
    let activity = Activity::new();
    let asked = activity.clone();
    let taking = door.unread.connection();
    let answers = taking.clone();
    let (authenticator, of) = (context.authenticator.clone(), peer.clone());
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let busy = asked.begin();
        let answer = Box::pin(pipeline::handle(context.clone(), peer.clone(), request));
        answered(answer, busy, answers.clone(), unplaced.clone())
    });
    let builder = builder(shared, door.streams, door.deadlines);
    let mut connection =
        std::pin::pin!(builder.serve_connection(TokioIo::new(Lingering::new(stream)), service));
    tokio::select! {
        ended = connection.as_mut() => return log_end(ended),
        () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
        () = taking.stalled(shared, || activity.open()) => {
            tracing::debug!(%source, "closing a connection whose client does not read its answers");
            return;
        }
        () = displaced.cancelled() => {
            tracing::debug!(%source, "closing a connection to make room for another client");
            connection.as_mut().graceful_shutdown();
            if let Ok(ended) = tokio::time::timeout(DISPLACED, connection).await {
                log_end(ended);
            }
            return;
        }
        // All that was settled with the connection would go on for somebody else: without
        // limits for a certificate that is not trusted any more, with a stranger's for the
        // front proxy that was recognised late. It comes again, and is judged anew.
        () = authenticator.changes_sides(&of, shared) => {
            tracing::debug!(%source, "closing a connection whose certificate is judged otherwise now");
            connection.as_mut().graceful_shutdown();
            let rest = if shared { DISPLACED } else { GRACE };
            if let Ok(ended) = tokio::time::timeout(rest, connection).await {
                log_end(ended);
            }
            return;
        }
        () = activity.quiet(door.deadlines) => {
            tracing::debug!(%source, "closing an idle connection");
            // Whoever has not said anything yet would not hear of a graceful end.
            if !activity.began() {
                return;
            }
            connection.as_mut().graceful_shutdown();
        }
    }
    if let Ok(ended) = tokio::time::timeout(GRACE, connection).await {
        log_end(ended);
    }
}

/// A request on its way. What it takes goes when its answer begins, and not when that ends.
type Handling = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// An answer as it is handed to the connection. `unplaced`: where one is counted for which no
/// place is held, and by whom it is asked for.
async fn answered(
    answer: Handling,
    busy: Busy,
    answers: Taking,
    unplaced: Option<(Pool, Arc<str>)>,
) -> Result<Response<Asked>, Infallible> {
    let mut response = answer.await?;
    let about: About = response.extensions_mut().remove().unwrap_or_default();
    let place = unplaced.filter(|_| !about.placed);
    let place = place.map(|(pool, source)| pool.enter(&source)).transpose();
    let place = place.unwrap_or_else(|_| {
        *response.body_mut() = Body::empty();
        None
    });
    // Busy until the last frame of the answer was taken.
    Ok(response.map(|body| Asked {
        body: answers.take(body, about),
        _busy: busy,
        _place: place,
    }))
}

/// Whether anything is asked on a connection.
#[derive(Clone)]
struct Activity(Arc<Mutex<Requests>>);

struct Requests {
    open: usize,
    began: bool,
    /// When the last one ended, or the connection began.
    since: Instant,
}

/// A request under way.
struct Busy(Activity);

impl Activity {
    fn new() -> Self {
        Activity(Arc::new(Mutex::new(Requests {
            open: 0,
            began: false,
            since: Instant::now(),
        })))
    }

    fn begin(&self) -> Busy {
        let mut requests = self.0.lock();
        requests.open += 1;
        requests.began = true;
        Busy(self.clone())
    }

    fn open(&self) -> usize {
        self.0.lock().open
    }

    fn began(&self) -> bool {
        self.0.lock().began
    }

    /// Comes back when the connection has been of no use for too long.
    async fn quiet(&self, deadlines: Deadlines) {
        loop {
            let (open, began, since) = {
                let requests = self.0.lock();
                (requests.open, requests.began, requests.since)
            };
            let limit = match began {
                true => deadlines.idle,
                false => deadlines.first_request,
            };
            let end = since + limit;
            if open > 0 {
                tokio::time::sleep(deadlines.idle).await;
            } else if Instant::now() >= end {
                return;
            } else {
                tokio::time::sleep_until(end).await;
            }
        }
    }
}

/// The body of an answer, which ends what was asked.
struct Asked {
    body: Taken,
    _busy: Busy,
    /// Of an answer for which no other is held.
    _place: Option<Hold>,
}

impl http_body::Body for Asked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut requests = self.0.0.lock();
        requests.open -= 1;
        requests.since = Instant::now();
    }
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection");
    }
}

/// HTTP as R4.11 has it. A connection of the front proxy carries requests of all users:
/// what one of them does must not end it.
fn builder(shared: bool, streams: u32, deadlines: Deadlines) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let headers = HEADER_BYTES[usize::from(!shared)];
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ)
        .max_buf_size(headers as usize);
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .max_header_list_size(headers)
        .max_send_buf_size(SEND_BUFFER[usize::from(!shared)])
        .keep_alive_interval(deadlines.ping)
        .keep_alive_timeout(deadlines.pong);
    match shared {
        true => http2
            .max_concurrent_streams(streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(STREAM_WINDOW)
            // Bodies that were refused while they came, and requests that were cancelled
            // before they began: of all users together.
            .max_local_error_reset_streams(None)
            .max_pending_accept_reset_streams(streams as usize),
        false => http2
            .max_concurrent_streams(streams.min(STREAMS))
            .initial_stream_window_size(OTHERS_WINDOW)
            .initial_connection_window_size(OTHERS_WINDOW)
            .max_frame_size(OTHERS_FRAME),
    };
    builder
}

#[cfg(test)]
mod tests;
