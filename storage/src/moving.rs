//! A tenant's data moves from one datastore to another without loss, while the tenant works.
//!
//! # How
//! 1. The target is claimed as [`Stage::Incoming`]: nobody but us gets at it. Its newest
//!    revision is raised above all that the source has, with a margin: whoever asks for
//!    changes after a revision that he knows from the source must never wait for one that is
//!    still to come.
//! 2. All keys are copied, page by page, and the changes that come meanwhile are followed.
//! 3. The source is [`Stage::Frozen`]: its datastore refuses the tenant's writes. What had
//!    been written is followed to the end.
//! 4. Both sides are read whole, in the order of keys, and compared by hashes. What differs
//!    is mended and compared again.
//! 5. The target is [`Stage::Serving`]. That is the moment from which it counts.
//!
//! What goes wrong before the fifth step ends with a source that serves and a target with
//! nothing in it.
//!
//! # What is not kept
//! Revisions of keys (each is as if it was just created) and history. Behind kine a lease has
//! its whole time again, since kine does not note when a key was written.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::tenancy::{Claim, Password, Stage, Tenancy, TenancyError};

mod compare;
mod copy;
mod job;

/// A datastore, and the tenant's claim there.
#[derive(Clone)]
pub struct Side {
    /// The datastore.
    pub tenancy: Arc<dyn Tenancy>,
    /// The names. Its stage is of no account: the stored one is.
    pub claim: Claim,
    /// Of the tenant's user, where the driver authenticates by password.
    pub password: Option<Password>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The target is claimed, emptied and raised.
    Preparing,
    /// All keys are copied.
    Copying,
    /// What was written meanwhile is.
    Following,
    /// Writes end; what had been written is copied.
    Freezing,
    /// Both sides are compared.
    Verifying,
    /// The target is put in service.
    Switching,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Keys of the source when they were counted, if they were.
    pub total_keys: Option<u64>,
    /// Keys that were written to the target, some of them more than once.
    pub copied_keys: u64,
    /// Bytes of them.
    pub copied_bytes: u64,
    /// How long the tenant has not been able to write.
    pub frozen_for: Option<Duration>,
}

/// How long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long the tenant may not be able to write.
    pub freeze: Duration,
    /// How long all of it may take.
    pub whole: Option<Duration>,
    /// How many revisions the target is ahead at the beginning. `None`: a few
    /// thousand, and more when the source overtakes them. A SQL database is raised for
    /// nothing, etcd by a write for each.
    pub margin: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            freeze: Duration::from_secs(30),
            whole: None,
            margin: None,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// It had been done before: the target serves, and nothing else is known.
    pub done_before: bool,
    /// Keys on both sides.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// SHA-256 over all keys in their order, each with the SHA-256 of its value and whether
    /// it has a lease, in hexadecimal digits.
    pub digest: String,
    /// From the beginning to the freeze.
    pub copying: Duration,
    /// How long the tenant could not write, up to where the target served.
    pub frozen: Duration,
    /// The newest of the source when it was frozen.
    pub source_revision: u64,
    /// What the target was raised to: all its keys have greater ones.
    pub target_revision: u64,
    /// Keys that were found different in the comparison, and mended.
    pub mended: u64,
    /// How often the copy was begun anew.
    pub begun_anew: u32,
}

/// Why nothing was moved. Unless it says so, the source serves as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// It was told to stop.
    #[error("the move was stopped")]
    Aborted,
    /// The source failed.
    #[error("the datastore that the tenant is to leave: {0}")]
    Source(TenancyError),
    /// The target failed. If that was in [`Phase::Switching`], or before the target was claimed
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

/// Moves the tenant's data from `source` to `target`. `told` is called for each step, and
/// often while keys are copied; it must not block. `stop` ends it up to where the target is
/// put in service.
///
/// The source is at [`Stage::Frozen`] afterwards, and becomes [`Stage::Left`] once nothing
/// uses it any more.
///
/// # Errors
/// See [`MoveError`]. What is left of the target is taken away as far as it can be reached;
/// [`undo`] does the rest.
pub async fn run(
    source: &Side,
    target: &Side,
    limits: &Limits,
    told: &(dyn Fn(Progress) + Send + Sync),
    stop: &CancellationToken,
) -> Result<Report, MoveError> {
    let held = Held::find(source, target).await?;
    if held.target == Some(Stage::Serving) {
        return finished(source, target, held).await;
    }
    job::Job::new(source, target, limits, told, stop)
        .run(held)
        .await
}

/// Lets the source serve and takes away what there is of the target: data, rights and claim.
/// Can be repeated.
///
/// # Errors
/// [`TenancyError::Refused`] if the target serves, for then the source is what is to be
/// taken away; and what either datastore answers.
pub async fn undo(source: &Side, target: &Side) -> Result<(), TenancyError> {
    let incoming = stored(target).await?;
    let incoming = match incoming.map(|claim| (claim.stage, claim)) {
        Some((Stage::Serving | Stage::Frozen, _)) => {
            return Err(TenancyError::Refused(format!(
                "the data of tenant control plane {}/{} serves where it was moved to: the move \
                 is done, and can only be made in the other direction",
                target.claim.namespace, target.claim.name
            )));
        }
        Some((Stage::Incoming, claim)) => Some(claim),
        Some((Stage::Left, _)) | None => None,
    };
    if let Some(claim) = &incoming {
        // Before the source serves: what is on its way to put the target in service fails.
        let password = target.password.as_ref();
        match target.tenancy.turn(claim, Stage::Incoming, password).await {
            Ok(_) => {}
            // Nothing can be written there. What is taken away cannot be put in service either.
            Err(TenancyError::NoSpace(_)) => {
                clear(target, claim).await?;
                return thaw(source).await;
            }
            Err(error) => return Err(error),
        }
    }
    thaw(source).await?;
    match &incoming {
        Some(claim) => clear(target, claim).await,
        None => Ok(()),
    }
}

/// Lets a frozen source serve.
async fn thaw(source: &Side) -> Result<(), TenancyError> {
    match stored(source).await? {
        Some(claim) if claim.stage == Stage::Frozen => {
            let password = source.password.as_ref();
            let turned = source.tenancy.turn(&claim, Stage::Serving, password);
            turned.await.map(drop)
        }
        _ => Ok(()),
    }
}

/// Takes an incoming target away.
async fn clear(target: &Side, claim: &Claim) -> Result<(), TenancyError> {
    target.tenancy.revoke(claim).await?;
    target.tenancy.drop_data(claim).await?;
    target.tenancy.release(claim).await
}

/// What is stored of a side's claim.
async fn stored(side: &Side) -> Result<Option<Claim>, TenancyError> {
    let found = side.tenancy.claims(&side.claim.uid).await?;
    let mut found = found.into_iter();
    Ok(found.find(|found| found.is_same_hold(&side.claim)))
}

/// At which stages the two sides are.
struct Held {
    source: Claim,
    target: Option<Stage>,
}

impl Held {
    async fn find(source: &Side, target: &Side) -> Result<Self, MoveError> {
        let held = stored(source).await.map_err(MoveError::Source)?;
        let Some(held) = held else {
            return Err(MoveError::Refused(format!(
                "the datastore that the tenant is to leave has no claim of it on schema {:?}",
                source.claim.schema
            )));
        };
        let found = stored(target).await.map_err(MoveError::Target)?;
        Ok(Held {
            source: held,
            target: found.map(|claim| claim.stage),
        })
    }
}

/// What is to be done where the tenant's data serves in both datastores. Of one that was moved
/// before, the names are the same in both; so are they where there is one database.
fn both_serve(source: &str, target: &str) -> String {
    let only = "only a person can tell which is to be kept; release the claim of the other";
    match source == target {
        true => format!(
            "the tenant's data serves through both DataStores, as schema {source:?}. If both lead \
             to the same database, nothing is to be moved and no claim to be released: name the \
             former DataStore again. If not, {only}"
        ),
        false => format!(
            "the tenant's data serves in both datastores, as schema {source:?} and {target:?}: \
             {only}"
        ),
    }
}

/// The target serves. Its rights are made sure of: who put it in service may have been ended
/// in between.
async fn finished(source: &Side, target: &Side, held: Held) -> Result<Report, MoveError> {
    if !matches!(held.source.stage, Stage::Frozen | Stage::Left) {
        return Err(MoveError::Refused(both_serve(
            &source.claim.schema,
            &target.claim.schema,
        )));
    }
    let claim = target.claim.at(Stage::Serving);
    let password = target.password.as_ref();
    let turned = target.tenancy.turn(&claim, Stage::Serving, password);
    turned.await.map_err(MoveError::Target)?;
    Ok(Report {
        done_before: true,
        ..Report::default()
    })
}
