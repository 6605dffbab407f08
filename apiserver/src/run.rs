//! The process: logging, signals, subcommands.

use std::sync::Arc;

use apiservice::clock::Clock;
use telemetry::log::{Lines, Stream};
use telemetry::{Component, Exporting};
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Args, Command, LogFormat};
use crate::metrics::Metrics;
use crate::policy;
use crate::registration::{self, Place, Registration};
use crate::registry::ownership;
use crate::server;
use crate::tls::Serving;

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no threads can be started: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error(transparent)]
    Connect(#[from] crate::args::ConnectError),
    #[error(transparent)]
    Registration(#[from] registration::Error),
    #[error(transparent)]
    Tracing(#[from] telemetry::Error),
    #[error("signals cannot be received: {0}")]
    Signals(#[from] std::io::Error),
}

/// Workers at most that serve requests, however large the machine is: each may have an object
/// as a tree of values at hand, to answer with it in another form than the stored one.
pub(crate) const WORKERS: usize = 8;

/// What everything runs on.
///
/// # Errors
/// When threads cannot be started.
pub fn runtime() -> std::io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    runtime::Builder::new_multi_thread()
        .worker_threads(processors.min(WORKERS))
        .enable_all()
        .build()
}

/// Does what the arguments say, until it is done or a signal ends it.
///
/// # Errors
/// When the server cannot start, or the subcommand fails.
pub async fn run(args: Args, clock: Clock) -> Result<(), Error> {
    apiservice::version::accept_up_to(args.newest_version);
    let exporting = log(&args)?;
    // kube and rustls ask for it; a second installation is refused and harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = args.connect().await?;
    let done = match args.command {
        None => serve(&args, client, clock).await,
        Some(Command::Unregister) => unregister(&args, client, clock).await,
    };
    if let Some(exporting) = exporting {
        exporting.stop().await;
    }
    done
}

async fn serve(args: &Args, client: kube::Client, clock: Clock) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    ownership::prepare();
    policy::mutating::prepare();
    let running = server::start(args, client, clock).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop().await;
    Ok(())
}

async fn unregister(args: &Args, client: kube::Client, clock: Clock) -> Result<(), Error> {
    let registration = Registration::new(
        client,
        Place {
            namespace: args.namespace.clone(),
            service: args.service_name.clone(),
            port: args.service_port,
            secret: args.serving_secret.clone(),
            skip: false,
        },
        Arc::new(Serving::default()),
        Arc::new(Metrics::new()),
        clock,
    );
    if registration.unregister().await? {
        tracing::info!("deleted the APIService");
    } else {
        tracing::info!("there is no APIService that leads here");
    }
    Ok(())
}

/// Lines of the log, and spans if they are asked for.
fn log(args: &Args) -> Result<Option<Exporting>, Error> {
    let lines = Lines {
        filter: &args.log,
        json: matches!(args.log_format, LogFormat::Json),
        to: Stream::Stdout,
    };
    let component = Component {
        service: "steward-apiserver",
        instance: args.identity.clone(),
        crates: &["apiserver", "storage"],
    };
    let spans = args.tracing_config_file.as_deref();
    Ok(telemetry::log::install(lines, spans, component)?)
}
