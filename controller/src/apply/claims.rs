//! Writes to tenants' datastores, each with a deadline.

use std::{borrow::Cow, future::Future, sync::Arc, time::Duration};

use apiservice::{condition::reason, v1alpha1::DataStore};
use storage::tenancy::{Claim, Data, Stage, Tenancy, TenancyError};

use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::datastores::health::{self, access_of, problem_of};
use crate::process::timing;
use crate::tenant::backing::claim;
use crate::tenant::backing::drivers;
use crate::tenant::backing::facts::{AccessFact, Held, StoreProblem, StoreProblemKind as Kind};
use crate::tenant::backing::overrides;
use crate::tenant::backing::store as place;
use crate::tenant::deletion;
use crate::tenant::plan::{Grant, Outcome};
use crate::tenant::world::World;

/// Claims schema and user and grants the user its keys (rule 17). A tenant that
/// has claimed other names already gets those, and is planned again with them.
pub async fn grant(ctx: &Context, world: &World, grant: &Grant) -> Outcome {
    let Grant { claim, password } = grant;
    let world = &*place_of(world, claim);
    let rights = ctx.facts.tenant(&claim.uid).rights;
    // A look may be giving the rights anew, and ends by its own deadlines.
    let _asking = tokio::time::timeout(timing::ACCESS_DEADLINE, rights.lock()).await;
    let result = async {
        let store = connection(ctx, world)?;
        let mut found = timed(ctx, timing::STORE_DEADLINE, store.claims(&claim.uid)).await?;
        // What is on its way there, or has left, is not what the tenant is served from.
        found.retain(|claim| matches!(claim.stage, Stage::Serving | Stage::Frozen));
        // The DataStore may lead elsewhere since this was planned.
        if found.is_empty() && !place::may_start_empty(world) {
            return Ok(None);
        }
        let claim = health::settle(claim, &found);
        let data = match place::may_start_empty(world) {
            true => Data::New,
            false => Data::Kept,
        };
        timed(
            ctx,
            timing::STORE_WRITE,
            store.prepare(&claim, password.as_ref(), data),
        )
        .await?;
        stored(ctx, store.as_ref(), world, claim).await.map(Some)
    }
    .await;
    let data_store = world
        .data_store
        .as_ref()
        .and_then(|store| store.metadata.name.clone())
        .unwrap_or_default();
    let (access, held) = match &result {
        Ok(None) => (Some(AccessFact::Unclaimed), None),
        Ok(Some(claim)) => {
            let claim = claim.clone();
            let data_store = data_store.clone();
            let held = Held { data_store, claim };
            (Some(AccessFact::Granted), Some(held))
        }
        Err(StoreError::Tenancy(error)) => (access_of(error), None),
        Err(StoreError::Other(_)) => (None, None),
    };
    if let Some(access) = access {
        let changed = ctx.facts.update_place(world.uid(), &claim.uid, |facts| {
            if access == AccessFact::Granted {
                facts.password = password.clone();
            }
            facts.learn(access, held)
        });
        if changed {
            ctx.queue
                .add(Key::Tenant(NamespacedName::of(&world.tenant.metadata)));
        }
    }
    match result {
        Ok(None) => {
            let told = place::data_not_found(world, &data_store);
            Outcome::Failed {
                reason: told.reason.into(),
                message: told.message,
                retry: true,
                finding: None,
            }
        }
        Ok(Some(held)) if !is_planned(&held, claim, world) => Outcome::Failed {
            reason: reason::PROVISIONING.into(),
            message: format!(
                "schema {} and user {} are claimed for this tenant already and stay its own",
                held.schema, held.user
            ),
            retry: true,
            finding: None,
        },
        result => outcome(result.map(|_| ())),
    }
}

/// The world of the place that a claim is of.
fn place_of<'a>(world: &'a World, claim: &Claim) -> Cow<'a, World> {
    let beside = overrides::claimed_by(world, &claim.uid);
    beside.map_or(Cow::Borrowed(world), Cow::Owned)
}

/// What is stored of a claim after its grant, which may be more than was asked for.
async fn stored(
    ctx: &Context,
    store: &dyn Tenancy,
    world: &World,
    claim: Claim,
) -> Result<Claim, StoreError> {
    if drivers::row(claim::driver(world)).stored.is_none() {
        return Ok(claim);
    }
    let found = timed(ctx, timing::STORE_DEADLINE, store.claims(&claim.uid)).await?;
    Ok(health::settle(&claim, &found))
}

/// Whether what is held is what the rest of the plan was made for.
fn is_planned(held: &Claim, planned: &Claim, world: &World) -> bool {
    let driver = claim::driver(world);
    let Some(stored) = drivers::row(driver).stored else {
        return held == planned;
    };
    let endpoints = world
        .data_store
        .as_ref()
        .map_or(0, |store| driver.endpoints(&store.spec.endpoints).len());
    stored(held, endpoints) == stored(planned, endpoints)
}

/// Everything that the store has claimed for the uid of `claim`.
async fn all_of(
    ctx: &Context,
    store: &dyn Tenancy,
    claim: &Claim,
) -> Result<Vec<Claim>, StoreError> {
    timed(ctx, timing::STORE_DEADLINE, store.claims(&claim.uid)).await
}

/// Takes the user's rights away. Like the other steps of a clean-up it goes by
/// the uid: every claim that the store has for it, whatever names were planned.
pub async fn revoke(ctx: &Context, world: &World, claim: &Claim) -> Outcome {
    let world = &*place_of(world, claim);
    let result = async {
        let mut found = 0;
        for store in asked(ctx, world)? {
            for claim in all_of(ctx, store.as_ref(), claim).await? {
                timed(ctx, timing::STORE_WRITE, store.revoke(&claim)).await?;
                found += 1;
            }
        }
        Ok(found)
    }
    .await;
    if matches!(result, Ok(0)) && deletion::misses_claim(world) {
        // The next plan has it done when the right database is back.
        ctx.facts
            .update_place(world.uid(), &claim.uid, |facts| facts.unclaimed = true);
        ctx.queue
            .add(Key::Tenant(NamespacedName::of(&world.tenant.metadata)));
        return Outcome::Failed {
            reason: reason::DATA_NOT_FOUND.into(),
            message: format!(
                "The DataStore is asked for the tenant's claim: {}",
                deletion::UNCLAIMED
            ),
            retry: true,
            finding: None,
        };
    }
    note_cleanup(ctx, world, outcome(result.map(|_: usize| ())))
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
        let (uid, claimant) = (world.uid(), world.claimant());
        ctx.facts.update_place(uid, &claimant, |facts| {
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
    let world = &*place_of(world, claim);
    let result = async {
        let mut left = 0;
        for store in asked(ctx, world)? {
            for claim in all_of(ctx, store.as_ref(), claim).await? {
                timed(ctx, timing::DROP_DEADLINE, store.drop_data(&claim)).await?;
                left += timed(ctx, timing::STORE_DEADLINE, store.remaining(&claim)).await?;
            }
        }
        Ok(left)
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
        finding: None,
    }
}

/// Gives the names back.
pub async fn release(ctx: &Context, world: &World, claim: &Claim) -> Outcome {
    let world = &*place_of(world, claim);
    let result = async {
        for store in asked(ctx, world)? {
            for claim in all_of(ctx, store.as_ref(), claim).await? {
                timed(ctx, timing::STORE_WRITE, store.release(&claim)).await?;
            }
        }
        Ok(())
    }
    .await;
    note_cleanup(ctx, world, outcome(result))
}

/// Why something in a datastore was not done.
enum StoreError {
    Tenancy(TenancyError),
    Other(StoreProblem),
}

fn connection(ctx: &Context, world: &World) -> Result<Arc<dyn Tenancy>, StoreError> {
    connect(ctx, world.data_store.as_deref())
}

/// The datastores of a deletion.
fn asked(ctx: &Context, world: &World) -> Result<Vec<Arc<dyn Tenancy>>, StoreError> {
    let stores = deletion::asked(world).into_iter();
    stores
        .map(|name| {
            let store = ctx.caches.data_store(&name);
            connect(ctx, store.as_deref())
        })
        .collect()
}

fn connect(ctx: &Context, store: Option<&DataStore>) -> Result<Arc<dyn Tenancy>, StoreError> {
    let problem = |kind, message: String| StoreError::Other(StoreProblem { kind, message });
    let Some(store) = store else {
        return Err(problem(
            Kind::Unreachable,
            "the DataStore is not there".into(),
        ));
    };
    ctx.connections
        .get(store, &ctx.caches)
        .map_err(|error| problem(Kind::Unauthenticated, error.to_string()))
}

/// Within the deadline, and no longer than this replica leads.
async fn timed<R>(
    ctx: &Context,
    deadline: Duration,
    work: impl Future<Output = Result<R, TenancyError>>,
) -> Result<R, StoreError> {
    match ctx.leadership.within(deadline, work).await {
        Ok(result) => result.map_err(StoreError::Tenancy),
        Err(unfinished) => Err(StoreError::Other(StoreProblem {
            kind: Kind::Unreachable,
            message: unfinished.to_string(),
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
                    message: format!("{}{by}", place::TAKEN),
                    retry: false,
                    finding: None,
                };
            }
            Some(AccessFact::Refused(why)) => {
                return Outcome::Failed {
                    reason: reason::NAME_REFUSED.into(),
                    message: why,
                    retry: false,
                    finding: None,
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
        finding: None,
    }
}

#[cfg(test)]
mod tests {
    use apiservice::v1alpha1::{DataStoreSpec, Driver};
    use serde_json::json;

    use super::*;
    use crate::context::testing::context;
    use crate::datastores::testing::Fake;
    use crate::tenant::testing::Lab;

    /// A grant has a dozen answers. Given up after a few of them and begun anew, it never ended
    /// in a datastore that takes a second for each.
    #[tokio::test(start_paused = true)]
    async fn a_datastore_that_is_slow_gets_there() {
        let spec = DataStoreSpec {
            endpoints: vec!["a:2379".to_owned()],
            ..DataStoreSpec::default()
        };
        let mut store = DataStore::new("a", spec);
        store.metadata.uid = Some("uid of a".to_owned());
        let mut lab = Lab::new();
        lab.tenant().spec.data_store = Some("a".to_owned());
        lab.world.data_store = Some(Arc::new(store.clone()));
        let (ctx, _) = context(|_| (404, json!({})), true).await;
        let fake = Arc::new(Fake::default());
        ctx.connections.put(&store, &ctx.caches, fake.clone());
        let wanted = Grant {
            claim: claim::wished(&lab.world.tenant, Driver::Etcd),
            password: None,
        };
        for (seconds, expected) in [(12, None), (60, Some("no answer within 20 s"))] {
            *fake.slow.lock() = Duration::from_secs(seconds);
            let told = match grant(&ctx, &lab.world, &wanted).await {
                Outcome::Failed { message, .. } => Some(message),
                _ => None,
            };
            assert_eq!(told.as_deref(), expected, "{seconds} s");
        }
    }
}
