//! Does a tenant's user still hold exactly its own keys? Asked every few
//! seconds, because rights can be taken away in the datastore itself.

use std::sync::Arc;

use tokio::time::Instant;

use super::{CHECKS, pause};
use crate::{
    caches::Name,
    context::{Context, Key},
    requeue, stores,
    tenant::{store as place, world::AccessFact},
};

/// Checks one tenant's rights until the task is ended.
pub async fn run(ctx: Arc<Context>, name: Name, uid: String) {
    let wake = ctx.facts.tenant(&uid).wake_access;
    let mut refused: Option<Instant> = None;
    loop {
        ask_again(&ctx, &name, &uid, &mut refused);
        if let Some(access) = check(&ctx, &name, &uid).await {
            let changed = ctx.facts.update_tenant(&uid, |facts| {
                let changed = facts.access.as_ref() != Some(&access);
                facts.access = Some(access);
                changed
            });
            if changed {
                ctx.queue.add(Key::Tenant(name.clone()));
            }
        }
        pause(requeue::ACCESS_EVERY, &wake).await;
    }
}

/// A claim that was refused is tried again after a while: its holder may have
/// gone. The plan does so when nothing is known.
fn ask_again(ctx: &Context, name: &Name, uid: &str, refused: &mut Option<Instant>) {
    let known = ctx.facts.tenant(uid).access;
    if !matches!(
        known,
        Some(AccessFact::Taken { .. } | AccessFact::Refused(_))
    ) {
        *refused = None;
        return;
    }
    let since = *refused.get_or_insert_with(Instant::now);
    if since.elapsed() >= requeue::CLAIM_AGAIN {
        *refused = None;
        ctx.facts.update_tenant(uid, |facts| facts.access = None);
        ctx.queue.add(Key::Tenant(name.clone()));
    }
}

/// `None`: nothing was learnt, and what was known stands.
async fn check(ctx: &Context, name: &Name, uid: &str) -> Option<AccessFact> {
    let tenant = ctx.caches.tenants.get(name)?;
    if tenant.metadata.uid.as_deref() != Some(uid)
        || tenant.metadata.deletion_timestamp.is_some()
        || !place::settled(&tenant)
    {
        return None;
    }
    let chosen = place::choose(&tenant, &ctx.settings)?;
    let store = ctx.caches.data_stores.get(&Name::new("", chosen))?;
    // The breaker: a datastore that does not answer is asked by one task only.
    let health = ctx
        .facts
        .store(store.metadata.uid.as_deref().unwrap_or_default())
        .health;
    if !matches!(health, Some(Ok(_))) {
        return None;
    }
    let tenancy = ctx.connections.get(&store, &ctx.caches).ok()?;
    let claim = place::claim(&tenant);
    let work = async {
        let _permit = CHECKS.acquire().await;
        tenancy.check(&claim).await
    };
    match tokio::time::timeout(requeue::STORE_DEADLINE, work).await {
        Ok(Ok(access)) => Some(stores::access(access)),
        Ok(Err(error)) => stores::access_of(&error),
        Err(_) => None,
    }
}
