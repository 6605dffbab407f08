//! Records on a DataStore what it has to clean up later.

use std::sync::Arc;

use apiservice::condition::reason;
use apiservice::v1alpha1::{DataStore, DataStoreStatus};
use jiff::Timestamp;
use storage::tenancy::Claim;

use crate::apply;
use crate::apply::objects::failed;
use crate::cluster::key::Key;
use crate::context::Context;
use crate::datastores::cleanups::{self, Recorded};
use crate::tenant::plan::Outcome;
use crate::tenant::world::World;

/// Records on the DataStore what is to be cleaned up later (rule 18). `known`: the tenant
/// has data there, so that its absence is not believed at once. An entry without a user
/// stands for what may not be there. Where there is no room for it, an Event says what
/// stays in the database, and the deletion goes on.
pub async fn defer(
    ctx: &Context,
    world: &World,
    claim: &Claim,
    data_store: &str,
    known: bool,
    why: &str,
) -> Outcome {
    let Some(store) = ctx.caches.data_store(data_store) else {
        return Outcome::Failed {
            reason: reason::DATA_STORE_NOT_FOUND.into(),
            message: format!("DataStore {data_store} is not there to record the clean-up on"),
            retry: true,
            finding: None,
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
    let entry = cleanups::entry(claim, known, None, why);
    let too_many = format!("DataStore {data_store} has too many clean-ups to make up for");
    let displaced = match cleanups::record(&mut status.pending_cleanups, entry) {
        Recorded::InPlaceOf(displaced) => displaced,
        Recorded::NoRoom => {
            let message = format!(
                "{too_many}, so this one is not recorded: schema {} and user {} stay in its \
                 database, if they are there. Remove them there when it is back.",
                claim.schema, claim.user
            );
            tracing::warn!(tenant = world.tenant_name(), "{message}");
            let tenant = world.tenant.as_ref();
            ctx.events
                .tell(tenant, true, reason::CLEANUP_DEFERRED, &message)
                .await;
            return Outcome::Done;
        }
    };
    match apply::store_status(ctx, &store, &status).await {
        Ok(()) => {
            if let Some(it) = displaced {
                let text = |it: &Option<String>| it.clone().unwrap_or_default();
                let message = format!(
                    "{too_many}, so one of namespace {} is no longer recorded: schema {} of \
                     tenant {} stays in its database, with its user, if they are there. Remove \
                     them there when it is back.",
                    text(&it.namespace),
                    text(&it.schema),
                    text(&it.name)
                );
                tracing::warn!(data_store, "{message}");
                ctx.events
                    .tell(store.as_ref(), true, reason::CLEANUP_DEFERRED, &message)
                    .await;
            }
            ctx.queue.add(Key::DataStore(data_store.to_owned()));
            if claim.uid != world.uid() && !world.is_leaving() {
                // What comes there again begins anew.
                ctx.facts.forget_tenant(&claim.uid);
            }
            Outcome::Done
        }
        Err(refusal) => failed(refusal),
    }
}

/// What a tenant that lives has left in a DataStore, or may have.
pub struct Left<'a> {
    /// The tenant's names, there or where it is now.
    pub claim: &'a Claim,
    /// It is removed then.
    pub until: Timestamp,
    /// There has to be something.
    pub known: bool,
    /// A sentence about it.
    pub why: &'a str,
}

/// Records on a DataStore what a tenant has left there whose data is elsewhere.
///
/// # Errors
/// A sentence: the DataStore is not there, or cannot be written now.
pub async fn keep_until(ctx: &Context, data_store: &str, left: &Left<'_>) -> Result<(), String> {
    let claim = left.claim;
    let store = current(ctx, data_store)?;
    let mut status = store.status.clone().unwrap_or_default();
    let pending = &mut status.pending_cleanups;
    pending.retain(|it| it.uid != claim.uid);
    let entry = cleanups::entry(claim, left.known, Some(left.until), left.why);
    if cleanups::record(pending, entry) == Recorded::NoRoom {
        return Err(format!(
            "DataStore {data_store} has too many clean-ups to make up for"
        ));
    }
    write_pending(ctx, &store, &status).await
}

/// Takes back what [`keep_until`] has recorded, before data comes to this DataStore again.
///
/// # Errors
/// As there.
pub async fn keep_no_more(ctx: &Context, uid: &str, data_store: &str) -> Result<(), String> {
    let store = current(ctx, data_store)?;
    let mut status = store.status.clone().unwrap_or_default();
    status.pending_cleanups.retain(|it| it.uid != uid);
    write_pending(ctx, &store, &status).await
}

fn current(ctx: &Context, data_store: &str) -> Result<Arc<DataStore>, String> {
    let store = ctx.caches.data_store(data_store);
    store.ok_or_else(|| format!("DataStore {data_store} does not exist"))
}

async fn write_pending(
    ctx: &Context,
    store: &DataStore,
    status: &DataStoreStatus,
) -> Result<(), String> {
    let written = apply::store_status(ctx, store, status).await;
    let name = store.metadata.name.clone().unwrap_or_default();
    ctx.queue.add(Key::DataStore(name));
    written.map_err(|refusal| refusal.message)
}
