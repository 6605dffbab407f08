//! Starts everything and stops it again.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use apiservice::{condition, pki::Entropy};
use futures::FutureExt;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use telemetry::log::{Lines, Stream};
use telemetry::{Component, Exporting};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::args::{Command, CommonArgs, LogFormat, RunArgs};
use crate::assignments::Assignments;
use crate::cluster::caches::{Caches, Namespaces};
use crate::cluster::events::Events;
use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::cluster::watches::Watches;
use crate::context::Context;
use crate::datastores::credentials::Connections;
use crate::datastores::drain::Drains;
use crate::datastores::setup;
use crate::facts::Facts;
use crate::fleet::Fleet;
use crate::process::clock::{self, Uptime};
use crate::process::lease::{Election, Leadership};
use crate::process::metrics::Metrics;
use crate::process::queue::Queue;
use crate::process::shares::Shares;
use crate::process::{health, spans, timing};
use crate::supervisor::Supervisor;
use crate::tenant::pki::terms::BadTerms;
use crate::tenant::world::Settings;
use crate::write_history::Writes;
use crate::{apply, import, reconcile, report, tenant};

/// How long work under way may take after a signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the process ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    #[error("import: {0}")]
    Import(#[from] import::Error),
    #[error(transparent)]
    Tracing(#[from] telemetry::Error),
    #[error("certificates: {0}")]
    Certificates(#[from] BadTerms),
}

/// Runs a command to its end.
pub fn main(command: Command) -> Result<(), Error> {
    let (common, instance) = match &command {
        Command::Run(args) => (args.common.clone(), args.identity.clone()),
        Command::SetupEtcd(args) => (args.common.clone(), args.service.clone()),
        Command::Import(args) => (args.common.clone(), "import".to_owned()),
    };
    // A second installation in one process (tests) is the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let exporting = log(&common, instance)?;
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
                        done = setup::etcd(*args, client, clock::system()) => Ok(done?),
                        () = stop.cancelled() => Ok(()),
                    }
                }
                Command::Import(args) => {
                    let client = client(&args.common).await?;
                    tokio::select! {
                        done = import::run(*args, client, clock::system()) => Ok(done?),
                        () = stop.cancelled() => Ok(()),
                    }
                }
            }
        };
        let result = tokio::select! {
            result = work => result,
            () = signals => Ok(()),
        };
        if let Some(exporting) = exporting {
            exporting.stop().await;
        }
        result
    })
}

/// Lines of the log, and spans if they are asked for.
fn log(args: &CommonArgs, instance: String) -> Result<Option<Exporting>, Error> {
    // Each of its connections is worth a line to it, and every few seconds there is one.
    let filter = format!("async_nats=warn,{}", args.log);
    let lines = Lines {
        filter: &filter,
        json: matches!(args.log_format, LogFormat::Json),
        to: Stream::Stderr,
    };
    let component = Component {
        service: "steward-controller",
        instance,
        crates: &["controller", "storage"],
    };
    let spans = args.tracing_config_file.as_deref();
    Ok(telemetry::log::install(lines, spans, component)?)
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

/// Without the decoder's words: they quote the file, which has tokens and keys.
fn unread(error: &KubeconfigError) -> Error {
    let KubeconfigError::Parse(error) = error else {
        return Error::Kubeconfig(error.to_string());
    };
    let place = error.location();
    let (line, column) = place.map_or((0, 0), |place| (place.line(), place.column()));
    Error::Kubeconfig(format!("it is no kubeconfig: line {line}, column {column}"))
}

/// A client of the management cluster.
pub async fn client(args: &CommonArgs) -> Result<Client, Error> {
    let trouble = |error: &dyn std::fmt::Display| Error::Kubeconfig(error.to_string());
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unread(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| trouble(&error))?
        }
        None => Config::infer().await.map_err(|error| {
            let source = std::error::Error::source(&error);
            match source.and_then(|source| source.downcast_ref()) {
                Some(unreadable @ KubeconfigError::Parse(_)) => unread(unreadable),
                _ => trouble(&error),
            }
        })?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    // process/timing.rs decides when something is tried again; a worker does not wait.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).map_err(|error| trouble(&error))?;
    Ok(builder.with_layer(&telemetry::client::Calls).build())
}

/// Runs the controller until `stop`, then lets work under way end and gives
/// the Lease back.
pub async fn run(args: RunArgs, client: Client, stop: CancellationToken) -> Result<(), Error> {
    let settings = Arc::new(settings(&args)?);
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|source| Error::Listen {
            address: args.listen,
            source,
        })?;
    let clock = clock::system();
    let (election, leadership) = if args.leader_elect {
        let (election, leadership) = Election::new(
            client.clone(),
            &args.common.namespace,
            &args.lease,
            &args.identity,
            clock.clone(),
            Uptime::system(),
        );
        (Some(election), leadership)
    } else {
        (None, Leadership::always())
    };
    let namespaces = Namespaces::listed(&args.tenant_namespaces);
    let watches = Watches {
        client: client.clone(),
        caches: Arc::new(Caches::of(namespaces.clone())),
        queue: Arc::new(Queue::new()),
    };
    let ctx = Arc::new(Context {
        events: Events::new(client.clone(), &args.identity, namespaces),
        client,
        caches: watches.caches.clone(),
        queue: watches.queue.clone(),
        shares: Arc::new(Shares::of(args.workers.into())),
        facts: Arc::new(Facts::default()),
        fleet: Fleet::default(),
        assignments: Assignments::default(),
        drains: Drains::default(),
        connections: Connections::default(),
        settings,
        leadership,
        clock,
        entropy: Entropy,
        writes: Writes::default(),
        failures: timing::Failures::default(),
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
    spawn(
        &mut background,
        "ages",
        follow_ages(ctx.clone(), stop.clone()),
    );
    for _ in 0..args.workers {
        let work = worker(ctx.clone(), supervisor.clone(), stop.clone());
        #[allow(clippy::disallowed_methods, reason = "run.rs starts the workers")]
        workers.spawn(work);
    }
    let namespace = &args.common.namespace;
    match &ctx.caches.namespaces {
        Namespaces::All => tracing::info!(namespace, "started"),
        Namespaces::Listed(tenants) => tracing::info!(namespace, ?tenants, "started"),
    }

    let ended = end(&stop, &mut background, &mut workers, &mut elections).await;
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

/// Waits until the process has to end: because it is told to, or because something has
/// ended, or panicked, that lives as long as it. Then the name of that.
async fn end(
    stop: &CancellationToken,
    background: &mut JoinSet<&'static str>,
    workers: &mut JoinSet<()>,
    elections: &mut JoinSet<&'static str>,
) -> Option<&'static str> {
    tokio::select! {
        // Everything else ends with it, and would be told as the reason.
        biased;
        () = stop.cancelled() => None,
        ended = background.join_next() => Some(ended.and_then(Result::ok).unwrap_or("a task")),
        Some(_) = workers.join_next() => Some("worker"),
        Some(_) = elections.join_next() => Some("election"),
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

fn settings(args: &RunArgs) -> Result<Settings, Error> {
    Ok(Settings {
        operator_namespace: args.common.namespace.clone(),
        api_server_service_account: args.apiserver_service_account.clone(),
        default_data_store: Some(args.default_data_store.clone()).filter(|name| !name.is_empty()),
        registry: args.image_registry.clone(),
        kine_image: args.kine_image.clone(),
        management_domain: args.cluster_domain.clone(),
        certificates: args.certificates.terms()?,
        rolls: crate::tenant::turns::Limits {
            together: args.rolls_together.into(),
        },
        ..Settings::default()
    })
}

/// Takes keys from the queue, one after the other.
async fn worker(ctx: Arc<Context>, supervisor: Arc<Supervisor>, stop: CancellationToken) {
    loop {
        let key = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            key = ctx.queue.next() => key,
        };
        // Who finds no share is called when one is free.
        let queue = &ctx.queue;
        let share = ctx
            .shares
            .begin(ctx.group(&key), &key, |key| queue.add(key));
        let Some(_share) = share else {
            queue.done(key);
            continue;
        };
        let started = Instant::now();
        let kind = match key {
            Key::Tenant(_) => "tenant",
            Key::DataStore(_) => "datastore",
        };
        let pass = pass(&ctx, &supervisor, &key);
        if hold(&ctx.queue, &ctx.failures, key.clone(), pass).await == Held::Panicked {
            tracing::error!("the reconciliation of {key} panicked; it is tried again");
            ctx.metrics.panic("pass");
        }
        ctx.metrics.pass(kind, started.elapsed().as_secs_f64());
    }
}

/// One pass over what a key names.
async fn pass(ctx: &Arc<Context>, supervisor: &Supervisor, key: &Key) -> Option<timing::Next> {
    let leads = ctx.leadership.leads();
    match key {
        Key::Tenant(name) => {
            if leads {
                supervisor.tenant(ctx, name);
            }
            let (namespace, name_alone) = (&name.namespace, &name.name);
            let span = spans::round("Reconcile", spans::TENANTS, namespace, name_alone);
            reconcile::reconcile(name, ctx).instrument(span).await
        }
        Key::DataStore(name) => {
            if leads {
                supervisor.data_store(ctx, name);
            }
            let span = spans::round("Reconcile", spans::STORES, "", name);
            reconcile::data_store::reconcile(name, ctx)
                .instrument(span)
                .await
        }
    }
}

/// How a pass over a held key ended.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    Ended,
    Panicked,
}

/// Gives the key back whatever becomes of the pass, so that no panic takes a key
/// or a worker away.
async fn hold<K: Clone + std::hash::Hash + Ord>(
    queue: &Queue<K>,
    failures: &timing::Failures<K>,
    key: K,
    pass: impl Future<Output = Option<timing::Next>>,
) -> Held {
    let ended = AssertUnwindSafe(pass).catch_unwind().await;
    queue.done(key.clone());
    match ended {
        Ok(None) => Held::Ended,
        Ok(Some(timing::Next(wait))) => {
            queue.add_after(key, wait);
            Held::Ended
        }
        Err(_) => {
            let wait = timing::backoff(failures.more(&key), 0.0);
            queue.add_after(key, wait);
            Held::Panicked
        }
    }
}

/// A Ready that nobody has confirmed for too long is looked at again: a probe that
/// hangs tells nothing, and nothing else would happen. A tenant that is paused is
/// not probed.
async fn follow_ages(ctx: Arc<Context>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(timing::AGES_EVERY) => {}
        }
        // Places come free by time as well.
        apply::turns::call(&ctx).await;
        for tenant in ctx.caches.tenants.all() {
            let conditions = tenant.status.as_ref().map(|status| &status.conditions);
            let ready =
                conditions.is_some_and(|all| condition::is_true(all, condition::tenant::READY));
            let facts = ctx
                .facts
                .tenant(tenant.metadata.uid.as_deref().unwrap_or_default());
            let paused = tenant::objects::is_paused(&tenant.metadata);
            if ready && !paused && report::ready::is_overdue(&facts.probe, facts.since, ctx.now()) {
                ctx.queue
                    .add(Key::Tenant(NamespacedName::of(&tenant.metadata)));
            }
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
                .add(Key::Tenant(NamespacedName::of(&tenant.metadata)));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = ctx.leadership.lost() => {}
        }
        supervisor.stop(&ctx);
        ctx.fleet.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;

    #[test]
    fn the_settings_of_certificates_are_used_or_refused() {
        let settings = |window: &str| {
            let window = format!("--certificate-renewal-window={window}");
            settings(&Args::parse_from(["steward-controller", &window]).run)
        };
        let day = jiff::SignedDuration::from_hours(24);
        assert_eq!(settings("24h").unwrap().certificates.window(), day);
        let refused = settings("200d").unwrap_err().to_string();
        assert!(
            refused.starts_with("certificates: a lifetime of 8760h is too short"),
            "{refused}"
        );
    }

    #[test]
    fn nothing_of_a_kubeconfig_is_told() {
        for user in ["[hunter2]", "{token: *hunter2}", "{token: [hunter2]}"] {
            let text = format!("users:\n- name: a\n  user: {user}\n");
            let told = unread(&Kubeconfig::from_yaml(&text).unwrap_err()).to_string();
            assert!(
                told.contains("it is no kubeconfig: line 3, column "),
                "{told}"
            );
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_panics_gives_its_key_back_and_comes_again() {
        let (queue, failures) = (Queue::new(), timing::Failures::default());
        queue.add("a");
        for _ in 0..3 {
            let next = tokio::time::timeout(Duration::from_secs(60), queue.next());
            let key = next.await.unwrap();
            let pass = async { panic!("a fault of ours") };
            let held = hold(&queue, &failures, key, pass).await;
            assert_eq!(held, Held::Panicked);
        }
        let key = queue.next().await;
        assert_eq!(
            hold(&queue, &failures, key, async { None }).await,
            Held::Ended
        );
    }

    /// What came of a process in which all goes on but for these.
    async fn ended_by(
        background: Option<fn()>,
        worker: Option<fn()>,
        election: Option<fn()>,
        stopped: bool,
    ) -> Option<Option<&'static str>> {
        async fn part(ends: Option<fn()>) {
            match ends {
                Some(ends) => ends(),
                None => std::future::pending().await,
            }
        }
        let stop = CancellationToken::new();
        let (mut all, mut workers, mut elections) =
            (JoinSet::new(), JoinSet::new(), JoinSet::new());
        spawn(&mut all, "health", part(None));
        spawn(&mut all, "watch", part(background));
        spawn(&mut elections, "election", part(election));
        #[allow(clippy::disallowed_methods, reason = "tests")]
        for ends in [None, worker] {
            workers.spawn(part(ends));
        }
        if stopped {
            stop.cancel();
        }
        let end = end(&stop, &mut all, &mut workers, &mut elections);
        tokio::time::timeout(Duration::from_secs(3600), end)
            .await
            .ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_process_ends_with_any_of_its_parts() {
        let ends: fn() = || {};
        let panics: fn() = || panic!("a fault of ours");
        assert_eq!(ended_by(None, None, None, false).await, None, "it goes on");
        assert_eq!(ended_by(None, None, None, true).await, Some(None));
        for (part, said) in [(ends, "watch"), (panics, "a task")] {
            assert_eq!(
                ended_by(Some(part), None, None, false).await,
                Some(Some(said))
            );
            assert_eq!(
                ended_by(None, Some(part), None, false).await,
                Some(Some("worker"))
            );
            let election = ended_by(None, None, Some(part), false).await;
            assert_eq!(election, Some(Some("election")));
        }
        let told = ended_by(Some(ends), Some(ends), Some(ends), true).await;
        assert_eq!(told, Some(None), "whatever ends with it is no reason");
    }
}
