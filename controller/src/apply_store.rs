//! Writes to tenants' datastores, each with a deadline.

use std::{future::Future, sync::Arc, time::Duration};

use apiservice::{
    condition::reason,
    v1alpha1::{DataStore, PendingCleanup},
};
use storage::tenancy::{Claim, Tenancy, TenancyError};

use crate::{
    apply,
    apply_objects::failed,
    caches::Name,
    context::{Context, Key},
    requeue,
    stores::{access_of, problem_of},
    tenant::{
        plan::Outcome,
        world::{AccessFact, StoreProblem, StoreProblemKind as Kind, World},
    },
};

/// Claims schema and user and grants the user its keys (rule 17).
pub async fn grant(ctx: &Context, world: &World, claim: &Claim) -> Outcome {
    let result = async {
        let store = connection(ctx, world)?;
        timed(requeue::STORE_DEADLINE, store.prepare(claim)).await
    }
    .await;
    let access = match &result {
        Ok(()) => Some(AccessFact::Granted),
        Err(StoreError::Tenancy(error)) => access_of(error),
        Err(StoreError::Other(_)) => None,
    };
    if let Some(access) = access {
        let changed = ctx.facts.update_tenant(world.uid(), |facts| {
            let changed = facts.access.as_ref() != Some(&access);
            facts.access = Some(access);
            changed
        });
        if changed {
            ctx.queue.add(Key::Tenant(Name::of(&world.tenant.metadata)));
        }
    }
    outcome(result)
}

/// Takes the user's rights away.
pub async fn revoke(ctx: &Context, world: &World, claim: &Claim) -> Outcome {
    let result = async {
        let store = connection(ctx, world)?;
        timed(requeue::STORE_DEADLINE, store.revoke(claim)).await
    }
    .await;
    note_cleanup(ctx, world, outcome(result))
}

/// A clean-up that does not go through is put off by the next plan: the
/// tenant's finalizer does not wait for a datastore (rule 18).
///
/// What another tenant holds is nothing of this one's.
fn note_cleanup(ctx: &Context, world: &World, outcome: Outcome) -> Outcome {
    if matches!(&outcome, Outcome::Failed { reason, .. } if reason == reason::SCHEMA_TAKEN) {
        return Outcome::Unchanged;
    }
    if let Outcome::Failed { message, .. } = &outcome {
        let problem = StoreProblem {
            kind: Kind::Unhealthy,
            message: message.clone(),
        };
        ctx.facts.update_tenant(world.uid(), |facts| {
            facts.cleanup_failures += 1;
            // The first failure may be a passing one.
            if facts.cleanup_failures > 1 {
                facts.cleanup_problem = Some(problem);
            }
        });
    }
    outcome
}

/// Deletes the data and counts that nothing is left.
pub async fn drop_data(ctx: &Context, world: &World, claim: &Claim) -> Outcome {
    let result = async {
        let store = connection(ctx, world)?;
        timed(requeue::DROP_DEADLINE, store.drop_data(claim)).await?;
        timed(requeue::STORE_DEADLINE, store.remaining(claim)).await
    }
    .await;
    let outcome = match result {
        Ok(0) => Outcome::Done,
        Ok(left) => still_there(left),
        Err(error) => outcome(Err(error)),
    };
    note_cleanup(ctx, world, outcome)
}

fn still_there(left: u64) -> Outcome {
    Outcome::Failed {
        reason: reason::CLEANUP_PENDING.into(),
        message: format!("{left} keys of the tenant are still in the datastore"),
        retry: true,
    }
}

/// Gives the names back.
pub async fn release(ctx: &Context, world: &World, claim: &Claim) -> Outcome {
    let result = async {
        let store = connection(ctx, world)?;
        timed(requeue::STORE_DEADLINE, store.release(claim)).await
    }
    .await;
    note_cleanup(ctx, world, outcome(result))
}

/// Records on the DataStore what is to be cleaned up later (rule 18).
pub async fn defer(ctx: &Context, claim: &Claim, data_store: &str, why: &str) -> Outcome {
    let Some(store) = ctx.caches.data_stores.get(&Name::new("", data_store)) else {
        return Outcome::Failed {
            reason: reason::DATA_STORE_NOT_FOUND.into(),
            message: format!("DataStore {data_store} is not there to record the clean-up on"),
            retry: true,
        };
    };
    let mut status = store.status.clone().unwrap_or_default();
    if status
        .pending_cleanups
        .iter()
        .any(|pending| pending.uid == claim.uid)
    {
        return Outcome::Unchanged;
    }
    status.pending_cleanups.push(PendingCleanup {
        uid: claim.uid.clone(),
        namespace: Some(claim.namespace.clone()),
        name: Some(claim.name.clone()),
        schema: Some(claim.schema.clone()),
        user: Some(claim.user.clone()),
        message: Some(why.to_owned()),
    });
    match apply::store_status(ctx, &store, &status).await {
        Ok(()) => {
            ctx.queue.add(Key::DataStore(data_store.to_owned()));
            Outcome::Done
        }
        Err(refusal) => failed(refusal),
    }
}

/// Does all of a deletion that was put off. `Ok`: nothing is left, and the
/// names are free again.
pub async fn clean_up(
    ctx: &Context,
    store: &DataStore,
    pending: &PendingCleanup,
) -> Result<(), String> {
    let claim = Claim {
        uid: pending.uid.clone(),
        namespace: pending.namespace.clone().unwrap_or_default(),
        name: pending.name.clone().unwrap_or_default(),
        schema: pending.schema.clone().unwrap_or_default(),
        user: pending.user.clone().unwrap_or_default(),
    };
    if !ctx.leadership.leads() {
        return Err("another replica leads".into());
    }
    let tenancy = ctx
        .connections
        .get(store, &ctx.caches)
        .map_err(|error| error.to_string())?;
    let work = async {
        tenancy.revoke(&claim).await?;
        tenancy.drop_data(&claim).await?;
        let left = tenancy.remaining(&claim).await?;
        if left == 0 {
            tenancy.release(&claim).await?;
        }
        Ok::<u64, TenancyError>(left)
    };
    match tokio::time::timeout(requeue::DROP_DEADLINE, work).await {
        Ok(Ok(0) | Err(TenancyError::SchemaTaken { .. })) => Ok(()),
        Ok(Ok(left)) => Err(format!("{left} keys are still there")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the datastore does not answer".into()),
    }
}

/// Why something in a datastore was not done.
enum StoreError {
    Tenancy(TenancyError),
    Other(StoreProblem),
}

fn connection(ctx: &Context, world: &World) -> Result<Arc<dyn Tenancy>, StoreError> {
    let problem = |kind, message: String| StoreError::Other(StoreProblem { kind, message });
    let Some(data_store) = &world.data_store else {
        return Err(problem(
            Kind::Unreachable,
            "the DataStore is not there".into(),
        ));
    };
    ctx.connections
        .get(data_store, &ctx.caches)
        .map_err(|error| problem(Kind::Unauthenticated, error.to_string()))
}

async fn timed<R>(
    deadline: Duration,
    work: impl Future<Output = Result<R, TenancyError>>,
) -> Result<R, StoreError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result.map_err(StoreError::Tenancy),
        Err(_) => Err(StoreError::Other(StoreProblem {
            kind: Kind::Unreachable,
            message: format!("no answer within {} s", deadline.as_secs()),
        })),
    }
}

fn outcome(result: Result<(), StoreError>) -> Outcome {
    let problem = match result {
        Ok(()) => return Outcome::Done,
        Err(StoreError::Other(problem)) => problem,
        Err(StoreError::Tenancy(error)) => match access_of(&error) {
            Some(AccessFact::Taken { by }) => {
                return Outcome::Failed {
                    reason: reason::SCHEMA_TAKEN.into(),
                    message: format!("schema or user belongs to {by}"),
                    retry: false,
                };
            }
            Some(AccessFact::Refused(why)) => {
                return Outcome::Failed {
                    reason: reason::NAME_REFUSED.into(),
                    message: why,
                    retry: false,
                };
            }
            _ => problem_of(&error),
        },
    };
    let reason = match problem.kind {
        Kind::Unreachable => reason::DATA_STORE_UNREACHABLE,
        Kind::Unauthenticated => reason::DATA_STORE_UNAUTHORIZED,
        Kind::Full => reason::DATA_STORE_FULL,
        Kind::Insecure => reason::AUTHENTICATION_DISABLED,
        Kind::Unhealthy => reason::DATA_STORE_NOT_READY,
    };
    Outcome::Failed {
        reason: reason.into(),
        message: problem.message,
        retry: true,
    }
}
