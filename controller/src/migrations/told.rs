//! What is said of a move while it is made.

use std::time::Duration;

use apiservice::v1alpha1::{MigrationPhase, MigrationStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use storage::moving::{Phase, Progress, Report};

use crate::report::diagnose::quote;

/// A time as objects carry it, in whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// One that waits, and why.
pub fn pending(
    source: &str,
    target: &str,
    before: Option<MigrationStatus>,
    why: String,
) -> MigrationStatus {
    // What failed before is not forgotten because something else is in the way now.
    let before = before.filter(|it| it.target.as_deref() == Some(target) && !it.phase.has_ended());
    MigrationStatus {
        phase: MigrationPhase::Pending,
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        failures: before.and_then(|it| it.failures),
        message: Some(quote(&why)),
        ..MigrationStatus::default()
    }
}

/// Whether writes are refused in this phase.
pub fn is_stopped(phase: MigrationPhase) -> bool {
    matches!(phase, MigrationPhase::Freezing | MigrationPhase::Verifying)
}

/// One of which nobody knows whether the target was put in service: until it answers, the
/// source takes no writes.
pub fn stuck(migration: MigrationStatus, target: &str, why: &str) -> MigrationStatus {
    MigrationStatus {
        phase: MigrationPhase::Freezing,
        message: Some(format!(
            "Writes are refused until DataStore {target} answers, which may have been put in \
             service: {}. If it is gone for good, delete it.",
            quote(why).trim_end_matches('.')
        )),
        ..migration
    }
}

/// Takes in how far it is.
pub fn progress(migration: &mut MigrationStatus, progress: &Progress) {
    migration.phase = match progress.phase {
        Phase::Preparing => MigrationPhase::Preparing,
        Phase::Copying => MigrationPhase::Copying,
        Phase::Following => MigrationPhase::Following,
        Phase::Freezing => MigrationPhase::Freezing,
        Phase::Verifying => MigrationPhase::Verifying,
        // The claim is being put in service: that it is, is known when all is over.
        Phase::Switching => MigrationPhase::Verifying,
    };
    migration.message = None;
    migration.total_keys = progress.total_keys.map(number);
    migration.copied_keys = Some(number(progress.copied_keys));
    migration.copied_bytes = Some(number(progress.copied_bytes));
    migration.frozen_milliseconds = progress.frozen_for.map(milliseconds);
}

/// The data is in service in the target.
pub fn switching(migration: &mut MigrationStatus, report: &Report) {
    migration.phase = MigrationPhase::Switching;
    migration.message = None;
    if report.done_before {
        return;
    }
    migration.total_keys = Some(number(report.keys));
    migration.copied_bytes = Some(number(report.bytes));
    migration.frozen_milliseconds = Some(milliseconds(report.frozen));
    migration.digest = Some(report.digest.clone());
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
