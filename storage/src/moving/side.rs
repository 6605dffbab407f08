//! The two sides of a move: a datastore each, and the tenant's claim there.

use std::sync::Arc;

use super::error::MoveError;
use crate::tenancy::{Claim, Password, Stage, Tenancy, TenancyError};

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

/// Lets a frozen source serve.
pub(super) async fn thaw(source: &Side) -> Result<(), TenancyError> {
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
pub(super) async fn clear(target: &Side, claim: &Claim) -> Result<(), TenancyError> {
    target.tenancy.revoke(claim).await?;
    target.tenancy.drop_data(claim).await?;
    target.tenancy.release(claim).await
}

/// What is stored of a side's claim.
pub(super) async fn stored(side: &Side) -> Result<Option<Claim>, TenancyError> {
    let found = side.tenancy.claims(&side.claim.uid).await?;
    let mut found = found.into_iter();
    Ok(found.find(|found| found.is_same_hold(&side.claim)))
}

/// At which stages the two sides are.
pub(super) struct Held {
    pub(super) source: Claim,
    pub(super) target: Option<Stage>,
}

impl Held {
    pub(super) async fn find(source: &Side, target: &Side) -> Result<Self, MoveError> {
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
