//! Starts everything and stops it again.

use std::{io::IsTerminal, sync::Arc, time::Duration};

use apiservice::pki::Entropy;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Command, CommonArgs, LogFormat, RunArgs},
    caches::Caches,
    clock::Clock,
    context::{Context, Key},
    data_store,
    events::Events,
    facts::Facts,
    health,
    lease::{Election, Leadership},
    material::Connections,
    metrics::Metrics,
    queue::Queue,
    reconcile, requeue, setup,
    supervisor::Supervisor,
    tenant::world::Settings,
    watches::Watches,
    writes::Writes,
};

/// How long work under way may take after a signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the process ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the log filter: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
    #[error("no way to reach the management cluster: {0}")]
    Kubeconfig(String),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
    #[error("a part of the controller ended: {0}")]
    Ended(&'static str),
    #[error(transparent)]
    Setup(#[from] setup::Error),
}

/// Runs a command to its end.
pub fn main(command: Command) -> Result<(), Error> {
    let common = match &command {
        Command::Run(args) => &args.common,
        Command::SetupEtcd(args) => &args.common,
    };
    log(common)?;
    // A second installation in one process (tests) is the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = signals(stop.clone())?;
        let work = async {
            match command {
                Command::Run(args) => {
                    let client = client(&args.common).await?;
                    run(*args, client, stop.clone()).await
                }
                Command::SetupEtcd(args) => {
                    let client = client(&args.common).await?;
                    tokio::select! {
                        done = setup::etcd(*args, client, Clock::system()) => Ok(done?),
                        () = stop.cancelled() => Ok(()),
                    }
                }
            }
        };
        tokio::select! {
            result = work => result,
            () = signals => Ok(()),
        }
    })
}

fn log(args: &CommonArgs) -> Result<(), Error> {
    let filter = EnvFilter::builder().parse(&args.log)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Another subscriber may be there already when tests start us in process.
    let _ = match args.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(())
}

/// Cancels `stop` at the first signal; ends at the second.
fn signals(stop: CancellationToken) -> Result<impl Future<Output = ()>, std::io::Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for signals in 1.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if signals > 1 {
                return;
            }
            tracing::info!("stopping");
            stop.cancel();
        }
    })
}

/// A client of the management cluster.
pub async fn client(args: &CommonArgs) -> Result<Client, Error> {
    let trouble = |error: &dyn std::fmt::Display| Error::Kubeconfig(error.to_string());
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| trouble(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| trouble(&error))?
        }
        None => Config::infer().await.map_err(|error| trouble(&error))?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    // requeue.rs decides when something is tried again; a worker does not wait.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| trouble(&error))
}

/// Runs the controller until `stop`, then lets work under way end and gives
/// the Lease back.
pub async fn run(args: RunArgs, client: Client, stop: CancellationToken) -> Result<(), Error> {
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|source| Error::Listen {
            address: args.listen,
            source,
        })?;
    let clock = Clock::system();
    let (election, leadership) = if args.leader_elect {
        let (election, leadership) = Election::new(
            client.clone(),
            &args.common.namespace,
            &args.lease,
            &args.identity,
            clock.clone(),
        );
        (Some(election), leadership)
    } else {
        (None, Leadership::always())
    };
    let watches = Watches {
        client: client.clone(),
        caches: Arc::new(Caches::default()),
        queue: Arc::new(Queue::new()),
    };
    let ctx = Arc::new(Context {
        events: Events::new(client.clone(), &args.identity),
        client,
        caches: watches.caches.clone(),
        queue: watches.queue.clone(),
        facts: Arc::new(Facts::default()),
        connections: Connections::default(),
        settings: Arc::new(settings(&args)),
        leadership,
        clock,
        entropy: Entropy,
        writes: Writes::default(),
        failures: requeue::Failures::default(),
        metrics: Arc::new(Metrics::new()),
    });
    let supervisor = Arc::new(Supervisor::new(watches.clone()));

    // The Lease is held until the workers have ended.
    let release = CancellationToken::new();
    let mut background: JoinSet<&'static str> = JoinSet::new();
    let mut workers: JoinSet<()> = JoinSet::new();
    spawn(
        &mut background,
        "health",
        health::serve(listener, ctx.clone(), stop.clone()),
    );
    for watch in watches.all() {
        spawn(&mut background, "watch", watch);
    }
    let mut elections: JoinSet<&'static str> = JoinSet::new();
    if let Some(election) = election {
        spawn(&mut elections, "election", election.run(release.clone()));
    }
    spawn(
        &mut background,
        "leadership",
        follow_leadership(ctx.clone(), supervisor.clone(), stop.clone()),
    );
    for _ in 0..args.workers {
        let work = worker(ctx.clone(), supervisor.clone(), stop.clone());
        #[allow(clippy::disallowed_methods, reason = "run.rs starts the workers")]
        workers.spawn(work);
    }
    tracing::info!(namespace = args.common.namespace, "started");

    let ended = tokio::select! {
        () = stop.cancelled() => None,
        ended = background.join_next() => Some(ended.and_then(Result::ok).unwrap_or("a task")),
    };
    stop.cancel();
    let drained = tokio::time::timeout(DRAIN, async {
        while workers.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!("work under way did not end in time");
        workers.shutdown().await;
    }
    supervisor.stop(&ctx);
    background.shutdown().await;
    release.cancel();
    while elections.join_next().await.is_some() {}
    match ended {
        None => Ok(()),
        Some(part) => Err(Error::Ended(part)),
    }
}

fn spawn(
    set: &mut JoinSet<&'static str>,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    #[allow(
        clippy::disallowed_methods,
        reason = "run.rs starts what lives as long as the process"
    )]
    set.spawn(async move {
        work.await;
        name
    });
}

fn settings(args: &RunArgs) -> Settings {
    Settings {
        operator_namespace: args.common.namespace.clone(),
        api_server_service_account: args.apiserver_service_account.clone(),
        default_data_store: Some(args.default_data_store.clone()).filter(|name| !name.is_empty()),
        registry: args.image_registry.clone(),
        management_domain: args.cluster_domain.clone(),
        ..Settings::default()
    }
}

/// Takes keys from the queue, one after the other.
async fn worker(ctx: Arc<Context>, supervisor: Arc<Supervisor>, stop: CancellationToken) {
    loop {
        let key = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            key = ctx.queue.next() => key,
        };
        let started = Instant::now();
        let leads = ctx.leadership.leads();
        let next = match &key {
            Key::Tenant(name) => {
                if leads {
                    supervisor.tenant(&ctx, name);
                }
                reconcile::reconcile(name, &ctx).await
            }
            Key::DataStore(name) => {
                if leads {
                    supervisor.data_store(&ctx, name);
                }
                data_store::reconcile(name, &ctx).await
            }
        };
        let kind = match key {
            Key::Tenant(_) => "tenant",
            Key::DataStore(_) => "datastore",
        };
        ctx.metrics.pass(kind, started.elapsed().as_secs_f64());
        ctx.queue.done(key.clone());
        if let Some(requeue::Next(wait)) = next {
            ctx.queue.add_after(key, wait);
        }
    }
}

/// A replica that begins to lead looks at everything once, and one that does
/// not lead any more observes nothing.
async fn follow_leadership(
    ctx: Arc<Context>,
    supervisor: Arc<Supervisor>,
    stop: CancellationToken,
) {
    let mut leadership = ctx.leadership.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = leadership.gained() => {}
        }
        // What was listed before the last kind was complete was passed over.
        while !ctx.caches.synced() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        for store in ctx.caches.data_stores.all() {
            ctx.queue.add(Key::DataStore(
                store.metadata.name.clone().unwrap_or_default(),
            ));
        }
        for tenant in ctx.caches.tenants.all() {
            ctx.queue
                .add(Key::Tenant(crate::caches::Name::of(&tenant.metadata)));
        }
        while ctx.leadership.leads() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
        supervisor.stop(&ctx);
    }
}
