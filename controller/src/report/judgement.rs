//! What a condition says, and what its reasons are: causes or stages on the way.

use apiservice::condition::{self, Status, reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::tenant::World;

/// A condition before it is put among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it holds.
    pub status: Status,
    /// One word for machines.
    pub reason: &'static str,
    /// A sentence for people; may be empty.
    pub message: String,
}

impl Judgement {
    /// It holds.
    pub fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Judgement {
            status: Status::True,
            reason,
            message: message.into(),
        }
    }

    /// It does not hold.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Judgement {
            status: Status::False,
            reason,
            message: message.into(),
        }
    }

    /// Nobody can tell at the moment.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Judgement {
            status: Status::Unknown,
            reason,
            message: message.into(),
        }
    }
}

/// Reasons that need nothing but time, or nothing at all.
const CALM: [&str; 18] = [
    reason::READY,
    reason::AS_EXPECTED,
    reason::PROVISIONING,
    reason::UPGRADING,
    reason::ROLLING_OUT,
    reason::ROLL_WAITING,
    reason::ROLLS_HALTED,
    reason::SLEEPING,
    reason::DELETING,
    reason::PAUSED,
    reason::UNKNOWN,
    reason::ADDRESS_PENDING,
    reason::ROUTE_PENDING,
    reason::REPLICAS_MISSING,
    reason::NO_REPLICA_AVAILABLE,
    reason::MIGRATING,
    reason::MIGRATED,
    reason::MIGRATION_ABORTED,
];

/// Whether a reason names a cause, as opposed to a stage on the way.
pub fn is_cause(reason: &str) -> bool {
    !CALM.contains(&reason)
}

/// A reason as a constant, so that events only ever carry known ones.
pub fn known_reason(text: &str) -> Option<&'static str> {
    condition::reason::ALL
        .iter()
        .copied()
        .find(|known| *known == text)
}

/// The instant of this pass as conditions carry it, in whole seconds.
pub fn now(world: &World) -> Time {
    let second = jiff::Timestamp::from_second(world.now.as_second());
    Time(second.unwrap_or(world.now))
}
