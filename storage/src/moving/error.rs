//! Why nothing was moved, or a copy was not finished.

use std::time::Duration;

use crate::tenancy::TenancyError;
use crate::tenancy::contents::ContentsError;

/// Why nothing was moved. Unless it says so, the source serves as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// It was told to stop.
    #[error("the move was stopped")]
    Aborted,
    /// The source failed.
    #[error("the datastore that the tenant is to leave: {0}")]
    Source(TenancyError),
    /// The target failed. If that was in [`super::Phase::Switching`], or before the target was claimed
    /// and an attempt before has frozen the source, whether the target serves cannot be known:
    /// the source stays frozen, and the next attempt finds out.
    #[error("the datastore that the tenant is to move to: {0}")]
    Target(TenancyError),
    /// It cannot be done, unless somebody changes something. The sentence says what.
    #[error("{0}")]
    Refused(String),
    /// The tenant could write again before it was done.
    #[error(
        "the tenant could not write for {0:?}, which is as long as it may last, and writes again; \
         move it when it does less, or allow more time"
    )]
    FrozenTooLong(Duration),
    /// It took longer than it may.
    #[error("the move was not done within {0:?}; allow more time, or move when less is written")]
    TookTooLong(Duration),
    /// The two sides were not the same at last.
    #[error("{0}")]
    Differs(String),
}

/// Why a copy was not finished.
pub enum Stop {
    /// The source has forgotten changes that were still to be followed.
    Compacted,
    /// The source has come to revisions that the copy has.
    Overtaken,
    Failed(MoveError),
}

impl From<MoveError> for Stop {
    fn from(error: MoveError) -> Self {
        Stop::Failed(error)
    }
}

/// What the source failed with.
pub fn of_source(error: ContentsError) -> Stop {
    match error {
        ContentsError::Compacted => Stop::Compacted,
        ContentsError::Failed(TenancyError::Refused(why)) => MoveError::Refused(why).into(),
        ContentsError::Failed(error) => MoveError::Source(error).into(),
    }
}

/// What the target failed with.
pub fn of_target(error: ContentsError) -> Stop {
    match error {
        ContentsError::Compacted => Stop::Compacted,
        ContentsError::Failed(TenancyError::Refused(why)) => MoveError::Refused(why).into(),
        ContentsError::Failed(error) => MoveError::Target(error).into(),
    }
}
