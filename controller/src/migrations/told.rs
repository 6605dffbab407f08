//! What is said of a move while it is made.

use std::time::Duration;

use apiservice::names;
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

/// What keeps a tenant from writing whose move is to go on, or to be called off.
#[derive(Debug)]
pub enum HeldUp {
    /// Whether the target was put in service is for it to say, and it does not answer.
    Target(String),
    /// Anything else.
    Otherwise(String),
}

impl HeldUp {
    /// In the words of whoever is in the way.
    pub fn why(&self) -> &str {
        match self {
            HeldUp::Target(why) | HeldUp::Otherwise(why) => why,
        }
    }
}

/// One whose source takes no writes until something is known. `deleting`: somebody has
/// deleted the target.
pub fn stuck(
    migration: MigrationStatus,
    target: &str,
    held_up: &HeldUp,
    deleting: bool,
) -> MigrationStatus {
    let why = quote(held_up.why());
    let why = why.trim_end_matches('.');
    // The deletion waits for the tenant, and the finalizer is what an administrator can take
    // away: nobody else's word says that no pod will ever be given this place.
    let finalizer = names::FINALIZER_DATA_STORE;
    let remedy = match deleting {
        true => {
            format!("It is being deleted: if it is gone for good, remove its finalizer {finalizer}")
        }
        false => {
            format!("If it is gone for good, delete it, and remove its finalizer {finalizer} then")
        }
    };
    let message = match held_up {
        HeldUp::Target(_) => format!(
            "Writes are refused until DataStore {target} answers, which may have been put in \
             service: {why}. {remedy}."
        ),
        HeldUp::Otherwise(_) => {
            format!("Writes are refused until it is known where the data is: {why}.")
        }
    };
    // What was in service there is older here, and that is not to be forgotten.
    let phase = match migration.phase {
        MigrationPhase::Switching => MigrationPhase::Switching,
        _ => MigrationPhase::Freezing,
    };
    MigrationStatus {
        phase,
        message: Some(message),
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
