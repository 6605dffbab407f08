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

mod compare;
mod copy;
mod error;
mod job;
mod progress;
mod side;

use tokio_util::sync::CancellationToken;

use crate::tenancy::{Stage, TenancyError};
pub use error::MoveError;
pub use progress::{Limits, Phase, Progress, Report};
pub use side::Side;
use side::{Held, clear, stored, thaw};

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
