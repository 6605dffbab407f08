//! Flags of audit, with the names and defaults of kube-apiserver.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction::Set;
use clap::ValueEnum;

use crate::audit::backend::Mode;

/// Bytes of an event and of a batch, where they are truncated.
const EVENT: usize = 100 * 1024;
const BATCH: usize = 10 * 1024 * 1024;
/// Lines that are written to the log at a time; requests wait for no others.
const LINES: usize = 1000;

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Json,
}

/// See the module.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Audit")]
#[group(skip)]
pub struct Args {
    /// File with the audit policy (audit.k8s.io/v1). Read once, at start. Without it no
    /// events are made: requests that change something or are refused are lines of the log.
    #[arg(long)]
    pub audit_policy_file: Option<PathBuf>,

    /// File for audit events; `-` means standard output.
    #[arg(long)]
    pub audit_log_path: Option<String>,
    /// Form of the audit events in the log.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub audit_log_format: Format,
    /// Days for which old files are kept; 0: not limited.
    #[arg(long, default_value_t = 366)]
    pub audit_log_maxage: u32,
    /// Old files that are kept; 0: not limited.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxbackup: u32,
    /// MiB of the file before a new one is begun; 0: not limited.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxsize: u32,
    /// Whether requests wait until their events are written.
    #[arg(long, value_enum, default_value_t = Mode::Blocking)]
    pub audit_log_mode: Mode,
    /// Events that are held until they are written.
    #[arg(long, default_value_t = 10_000)]
    pub audit_log_batch_buffer_size: usize,
    /// Whether large events lose their bodies.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = Set)]
    pub audit_log_truncate_enabled: bool,
    /// Bytes of an event with which it is large.
    #[arg(long, default_value_t = EVENT)]
    pub audit_log_truncate_max_event_size: usize,
    /// Bytes that are written at a time.
    #[arg(long, default_value_t = BATCH)]
    pub audit_log_truncate_max_batch_size: usize,

    /// Kubeconfig that says where the webhook for audit events is.
    #[arg(long)]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// How long until a batch is sent again.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub audit_webhook_initial_backoff: Duration,
    /// Whether requests wait until their events are sent.
    #[arg(long, value_enum, default_value_t = Mode::Batch)]
    pub audit_webhook_mode: Mode,
    /// Events that are held until they are sent; more are dropped and counted.
    #[arg(long, default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,
    /// Events of a batch.
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// How long a batch waits until it is full.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub audit_webhook_batch_max_wait: Duration,
    /// Whether batches are limited by the next two.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = Set)]
    pub audit_webhook_batch_throttle_enable: bool,
    /// Batches a second.
    #[arg(long, default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f64,
    /// Batches at once, if there were few before.
    #[arg(long, default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: u32,
    /// Whether large events lose their bodies.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = Set)]
    pub audit_webhook_truncate_enabled: bool,
    /// Bytes of an event with which it is large.
    #[arg(long, default_value_t = EVENT)]
    pub audit_webhook_truncate_max_event_size: usize,
    /// Bytes of a batch, at most 10 MiB.
    #[arg(long, default_value_t = BATCH)]
    pub audit_webhook_truncate_max_batch_size: usize,
}

/// How events of one backend are put together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch {
    pub mode: Mode,
    pub buffer_size: usize,
    pub max_size: usize,
    pub max_wait: Duration,
    /// Batches a second, and at once.
    pub throttle: Option<(f64, f64)>,
}

/// Bytes beyond which events lose their bodies, and of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    pub event: usize,
    pub batch: usize,
}

impl Args {
    pub fn log_batch(&self) -> Batch {
        Batch {
            mode: self.audit_log_mode,
            buffer_size: self.audit_log_batch_buffer_size,
            max_size: LINES,
            max_wait: Duration::ZERO,
            throttle: None,
        }
    }

    pub fn webhook_batch(&self) -> Batch {
        let throttle = (
            self.audit_webhook_batch_throttle_qps,
            f64::from(self.audit_webhook_batch_throttle_burst),
        );
        Batch {
            mode: self.audit_webhook_mode,
            buffer_size: self.audit_webhook_batch_buffer_size,
            max_size: self.audit_webhook_batch_max_size,
            max_wait: self.audit_webhook_batch_max_wait,
            throttle: self.audit_webhook_batch_throttle_enable.then_some(throttle),
        }
    }

    pub fn log_truncate(&self) -> Option<Truncate> {
        self.audit_log_truncate_enabled.then_some(Truncate {
            event: self.audit_log_truncate_max_event_size,
            batch: self.audit_log_truncate_max_batch_size,
        })
    }

    pub fn webhook_truncate(&self) -> Option<Truncate> {
        self.audit_webhook_truncate_enabled.then_some(Truncate {
            event: self.audit_webhook_truncate_max_event_size,
            batch: self.audit_webhook_truncate_max_batch_size,
        })
    }

    /// Whether the numbers can be used, in the words of kube-apiserver.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), String> {
        if self.audit_log_path.is_some() {
            check("log", &self.log_batch(), self.log_truncate())?;
        }
        if self.audit_webhook_config_file.is_some() {
            check("webhook", &self.webhook_batch(), self.webhook_truncate())?;
        }
        Ok(())
    }
}

fn check(plugin: &str, batch: &Batch, truncate: Option<Truncate>) -> Result<(), String> {
    let positive = |what: &str, is: bool, value: &dyn std::fmt::Display| match is {
        true => Ok(()),
        false => Err(format!(
            "invalid audit {what} {value}, must be a positive number"
        )),
    };
    let of = |what: &str| format!("batch {plugin} {what}");
    let (buffer, most) = (batch.buffer_size, batch.max_size);
    // Here it bounds those that requests wait for as well.
    positive(&of("buffer size"), buffer > 0, &buffer)?;
    positive(&of("max batch size"), most > 0, &most)?;
    if let Some((qps, burst)) = batch.throttle {
        positive(&of("throttle QPS"), qps > 0.0 && qps.is_finite(), &qps)?;
        positive(&of("throttle burst"), burst > 0.0, &burst)?;
    }
    let Some(Truncate { event, batch }) = truncate else {
        return Ok(());
    };
    let what = format!("truncate {plugin} max event size");
    positive(&what, event > 0, &event)?;
    match batch >= event {
        true => Ok(()),
        false => Err(format!(
            "invalid audit truncate {plugin} max batch size {batch}, must be greater than max event size ({event})"
        )),
    }
}

/// A duration as Go's flags have it: `30s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration {text:?}");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| invalid())?;
    Duration::try_from(duration).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    fn parse(flags: &[&str]) -> Result<super::Args, clap::Error> {
        let flags = ["x"].iter().chain(flags);
        Ok(Args::try_parse_from(flags)?.audit)
    }

    /// R9.12: names and defaults are those of kube-apiserver.
    #[test]
    fn flags_are_those_of_kubernetes() {
        let args = parse(&[]).unwrap();
        let log = args.log_batch();
        assert_eq!((log.mode, log.buffer_size), (Mode::Blocking, 10_000));
        let expected = Batch {
            mode: Mode::Batch,
            buffer_size: 10_000,
            max_size: 400,
            max_wait: Duration::from_secs(30),
            throttle: Some((10.0, 15.0)),
        };
        assert_eq!(args.webhook_batch(), expected);
        assert_eq!(args.audit_webhook_initial_backoff, Duration::from_secs(10));
        assert_eq!((args.log_truncate(), args.webhook_truncate()), (None, None));
        let args = parse(&[
            "--audit-log-mode=blocking-strict",
            "--audit-log-truncate-enabled",
            "--audit-webhook-truncate-enabled=true",
            "--audit-webhook-truncate-max-event-size=7",
            "--audit-webhook-batch-throttle-enable=false",
            "--audit-webhook-batch-max-wait=1m30s",
            "--audit-webhook-initial-backoff=500ms",
        ]);
        let args = args.unwrap();
        assert_eq!(args.audit_log_mode, Mode::BlockingStrict);
        let default = Truncate {
            event: 100 * 1024,
            batch: 10 * 1024 * 1024,
        };
        assert_eq!(args.log_truncate(), Some(default));
        assert_eq!(args.webhook_truncate().unwrap().event, 7);
        assert_eq!(args.webhook_batch().throttle, None);
        assert_eq!(args.webhook_batch().max_wait, Duration::from_secs(90));
        assert_eq!(
            args.audit_webhook_initial_backoff,
            Duration::from_millis(500)
        );
        for wrong in [
            "--audit-log-mode=never",
            "--audit-log-format=legacy",
            "--audit-log-maxage=-1",
            "--audit-webhook-batch-max-wait=soon",
            "--audit-webhook-initial-backoff=-1s",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }

    /// R9.12.
    #[test]
    fn numbers_that_cannot_be_used_are_refused() {
        let webhook = "--audit-webhook-config-file=x";
        let truncate = "--audit-log-truncate-enabled";
        for (flags, expected) in [
            (
                [
                    "--audit-log-path=-",
                    "--audit-log-batch-buffer-size=0",
                    truncate,
                ],
                "invalid audit batch log buffer size 0, must be a positive number",
            ),
            (
                [webhook, "--audit-webhook-batch-max-size=0", truncate],
                "invalid audit batch webhook max batch size 0, must be a positive number",
            ),
            (
                [webhook, "--audit-webhook-batch-throttle-qps=0", truncate],
                "invalid audit batch webhook throttle QPS 0, must be a positive number",
            ),
            (
                [
                    "--audit-log-path=-",
                    truncate,
                    "--audit-log-truncate-max-batch-size=5",
                ],
                "invalid audit truncate log max batch size 5, must be greater than max event size (102400)",
            ),
        ] {
            assert_eq!(parse(&flags).unwrap().check(), Err(expected.to_owned()));
        }
        assert_eq!(
            parse(&["--audit-log-batch-buffer-size=0"]).unwrap().check(),
            Ok(())
        );
    }
}
