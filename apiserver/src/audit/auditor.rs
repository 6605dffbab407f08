//! The policy and the backends of a process.

use std::sync::Arc;

use apiservice::clock::Clock;
use futures::future::join_all;
use jiff::Timestamp;

use super::args::{Args, Batch, Truncate};
use super::backend::{Backend, Delivered, Forms, Mode, Worker};
use super::batch::Pace;
use super::body::Room;
use super::event::{Event, Level};
use super::log::{Log, Out};
use super::policy::{Policy, Verdict, file};
use super::rotation::{Keep, Rotation};
use super::webhook::{self, Webhook};
use super::{backend, queue};
use crate::authn::Identity;
use crate::authz::Attributes;
use crate::metrics::Metrics;

/// Bytes of a batch where nothing else is said.
const BATCH: usize = 10 * 1024 * 1024;
const _: () = assert!(BATCH <= queue::BYTES);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Policy(#[from] file::Error),
    #[error("{0}")]
    Flags(String),
    #[error("ensureLogFile: {path}: {error}")]
    Log { path: String, error: std::io::Error },
    #[error(transparent)]
    Webhook(#[from] webhook::Error),
}

/// See the module.
pub struct Auditor {
    policy: Policy,
    backends: Vec<Arc<Backend>>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// For bodies of requests that are under way.
    pub room: Room,
}

/// What an event is handed over with.
#[must_use = "blocking backends are waited for"]
pub struct Handed<'a>(Vec<Delivered<'a>>);

impl Auditor {
    /// What the flags ask for, and the tasks behind it; nothing without a policy or without
    /// a backend.
    ///
    /// # Errors
    /// When a flag, the policy or a backend cannot be used.
    pub async fn open(
        args: &Args,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Option<(Arc<Self>, Vec<Worker>)>, Error> {
        args.check().map_err(Error::Flags)?;
        let policy = args
            .audit_policy_file
            .as_deref()
            .map(file::load)
            .transpose()?;
        let mut made = Vec::new();
        if let Some(path) = &args.audit_log_path {
            made.push(log(args, path, &metrics, &clock)?);
        }
        if let Some(path) = &args.audit_webhook_config_file {
            let target = Webhook::open(path, args.audit_webhook_initial_backoff).await?;
            let target = backend::Target::Webhook(target);
            made.push(of(
                args.webhook_batch(),
                args.webhook_truncate(),
                target,
                &metrics,
            ));
        }
        let Some(policy) = policy.filter(|_| !made.is_empty()) else {
            if args.audit_policy_file.is_some() || args.audit_log_path.is_some() {
                tracing::warn!("no audit events are recorded: that takes a policy and a backend");
            }
            return Ok(None);
        };
        let (backends, workers) = made.into_iter().unzip();
        let auditor = Auditor {
            policy,
            backends,
            metrics,
            clock,
            room: Room::default(),
        };
        Ok(Some((Arc::new(auditor), workers)))
    }

    /// One with given parts.
    #[cfg(test)]
    pub(crate) fn for_test(
        policy: Policy,
        backends: Vec<Arc<Backend>>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Auditor {
            policy,
            backends,
            metrics,
            clock,
            room: Room::default(),
        })
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How much is said of a request.
    pub fn verdict(&self, who: Option<&Identity>, what: &Attributes) -> Verdict {
        let verdict = self.policy.verdict(who, what);
        self.metrics.audited(verdict.level.as_str());
        verdict
    }

    /// Whether requests wait for their events.
    pub fn is_blocking(&self) -> bool {
        self.backends.iter().any(|to| to.is_blocking())
    }

    /// Hands an event to all backends.
    pub fn hand<'e>(&self, event: &'e Event) -> Handed<'e> {
        debug_assert_ne!(event.level, Level::None);
        self.metrics.audit_event();
        let mut forms = Forms::of(event);
        let backends = self.backends.iter();
        Handed(backends.filter_map(|to| to.offer(&mut forms)).collect())
    }

    /// Hands over an event for which nobody waits. False: one must not be gone past.
    pub fn let_go(&self, event: &Event) -> bool {
        self.metrics.audit_event();
        let mut forms = Forms::of(event);
        let backends = self.backends.iter();
        let lost = backends.filter(|to| !to.let_go(&mut forms));
        lost.count() == 0
    }

    /// Counts a request that was refused because it could not be recorded.
    pub fn refused(&self) {
        self.metrics.audit_rejected();
    }
}

impl Handed<'_> {
    /// Waits for the backends that are waited for. False: one must not be gone past.
    pub async fn delivered(self) -> bool {
        join_all(self.0)
            .await
            .into_iter()
            .all(|delivered| delivered)
    }
}

fn log(
    args: &Args,
    path: &str,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Result<(Arc<Backend>, Worker), Error> {
    let out = match path {
        "-" => Out::Stdout,
        path => {
            let keep = Keep {
                size: u64::from(args.audit_log_maxsize) * 1024 * 1024,
                backups: args.audit_log_maxbackup as usize,
                days: args.audit_log_maxage,
            };
            let file = Rotation::open(path.as_ref(), keep, clock.clone());
            Out::File(file.map_err(|error| Error::Log {
                path: path.to_owned(),
                error,
            })?)
        }
    };
    let target = backend::Target::Log(Log::new(out));
    Ok(of(args.log_batch(), args.log_truncate(), target, metrics))
}

fn of(
    batch: Batch,
    truncate: Option<Truncate>,
    target: backend::Target,
    metrics: &Arc<Metrics>,
) -> (Arc<Backend>, Worker) {
    let pace = Pace {
        most: batch.max_size,
        bytes: truncate.map_or(BATCH, |truncate| truncate.batch.min(BATCH)),
        wait: batch.max_wait,
        throttle: batch.throttle,
    };
    // Who waits for its event waits for no others.
    let pace = match batch.mode {
        Mode::Batch => pace,
        Mode::Blocking | Mode::BlockingStrict => Pace {
            wait: std::time::Duration::ZERO,
            throttle: None,
            ..pace
        },
    };
    let how = (batch.mode, truncate.map(|truncate| truncate.event));
    Backend::new(how, batch.buffer_size, pace, target, metrics.clone())
}
