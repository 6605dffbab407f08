//! Makes up for clean-ups that were put off.

use std::slice;

use apiservice::v1alpha1::PendingCleanup;
use storage::tenancy::{Stage, Tenancy, TenancyError};

use crate::cluster::concerned::tenants_of;
use crate::cluster::key::Key;
use crate::context::Context;
use crate::datastores::cleanups::{self, CleanUp, Cleaned, Proofs};
use crate::datastores::world::World;
use crate::process::lease::Unfinished;
use crate::process::timing;
use crate::tenant::deletion;

/// `None`: it is not to be done now.
pub async fn clean_up(ctx: &Context, world: &World, planned: &CleanUp) -> Option<Cleaned> {
    let uid = &planned.entry.uid;
    let facts = ctx.facts.tenant(uid);
    // A move that has begun meanwhile brings it here again: asked again while nobody else
    // changes the tenant's rights.
    let _alone = facts.rights.try_lock().ok()?;
    let cleanup = due(ctx, world, &planned.entry)?;
    let done = carried_out(ctx, world, &cleanup).await;
    if done == Cleaned::Whole {
        if !cleanup.lives {
            ctx.facts.left(uid);
        }
        tracing::info!(uid, "cleaned up after a tenant that has left");
        claim_again(ctx, world.name());
    }
    Some(done)
}

/// Whether it is to be done as it is now.
fn due(ctx: &Context, world: &World, entry: &PendingCleanup) -> Option<CleanUp> {
    let seen = ctx.seen();
    let store = ctx.caches.data_store(world.name())?;
    let owners = cleanups::owners(&seen, &store, slice::from_ref(entry));
    let owner = owners.get(&entry.uid)?;
    cleanups::due(entry, owner, world.is_deleted(), seen.now)
}

async fn carried_out(ctx: &Context, world: &World, cleanup: &CleanUp) -> Cleaned {
    let tenancy = match ctx.connections.get(&world.store, &ctx.caches) {
        Ok(tenancy) => tenancy,
        Err(error) => return Cleaned::Not(error.to_string()),
    };
    let work = clean(tenancy.as_ref(), cleanup, &world.proofs);
    match ctx.leadership.within(timing::DROP_DEADLINE, work).await {
        Ok(Ok(cleaned)) => cleaned,
        Ok(Err(TenancyError::SchemaTaken { .. })) => Cleaned::Whole,
        Ok(Err(error)) => Cleaned::Not(error.to_string()),
        Err(Unfinished::Late(_)) => Cleaned::Not("the datastore does not answer".into()),
        Err(ended) => Cleaned::Not(ended.to_string()),
    }
}

/// Why such a clean-up waits, and what ends it.
fn unclaimed() -> String {
    format!(
        "{}; put the right one back or, if that is lost for good, remove the entry from \
         status.pendingCleanups",
        deletion::UNCLAIMED
    )
}

/// Does all of a deletion that was put off; while some of the tenant's pods may run, no more
/// than to revoke. `proofs` tell the right database.
async fn clean(
    tenancy: &dyn Tenancy,
    cleanup: &CleanUp,
    proofs: &Proofs,
) -> Result<Cleaned, TenancyError> {
    let pending = &cleanup.entry;
    // Found by uid: the record on the DataStore is a status like another.
    let mut claims = tenancy.claims(&pending.uid).await?;
    // What a tenant that lives is served from is not what it has left.
    if cleanup.lives {
        claims.retain(|claim| claim.stage != Stage::Serving);
    }
    // A user is named for as long as there has to be a claim.
    if claims.is_empty() && pending.user.is_some() {
        let known = tenancy.claimants().await?;
        if !proofs.hold(&known) {
            return Ok(Cleaned::Not(unclaimed()));
        }
    }
    let mut left = 0;
    for claim in &claims {
        tenancy.revoke(claim).await?;
        if cleanup.running.is_some() {
            continue;
        }
        tenancy.drop_data(claim).await?;
        left += tenancy.remaining(claim).await?;
    }
    if let Some(why) = &cleanup.running {
        return Ok(Cleaned::Not(why.clone()));
    }
    if left > 0 {
        return Ok(Cleaned::Not(format!("{left} keys are still there")));
    }
    if !claims.is_empty() && pending.user.is_some() {
        return Ok(Cleaned::ButClaim);
    }
    for claim in &claims {
        tenancy.release(claim).await?;
    }
    Ok(Cleaned::Whole)
}

/// Names have become free: whoever was refused some may ask again at once.
fn claim_again(ctx: &Context, data_store: &str) {
    for name in tenants_of(&ctx.caches, data_store) {
        let tenant = ctx.caches.tenants.get(&name);
        let Some(uid) = tenant.and_then(|tenant| tenant.metadata.uid.clone()) else {
            continue;
        };
        if ctx.facts.ask_again(&uid) {
            ctx.queue.add(Key::Tenant(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::datastores::testing::Fake;

    fn entry(user: Option<&str>) -> PendingCleanup {
        PendingCleanup {
            not_before: None,
            uid: "gone".into(),
            user: user.map(str::to_owned),
            ..PendingCleanup::default()
        }
    }

    fn all_of(entry: &PendingCleanup, lives: bool) -> CleanUp {
        CleanUp {
            entry: entry.clone(),
            lives,
            running: None,
        }
    }

    async fn cleaned(store: &Fake, entry: &PendingCleanup) -> Cleaned {
        let proofs = Proofs {
            tenants: ["lives".to_owned()].into(),
            left: ["went".to_owned()].into(),
        };
        clean(store, &all_of(entry, false), &proofs).await.unwrap()
    }

    /// Nothing is removed of where a tenant is served from, while it is there; once it has
    /// gone, all is.
    #[tokio::test]
    async fn what_a_tenant_has_left_is_not_what_it_has() {
        let entry = PendingCleanup {
            not_before: Some(Time(Timestamp::UNIX_EPOCH)),
            ..entry(None)
        };
        let proofs = Proofs::default();
        for (stage, lives, expected) in [
            (Stage::Serving, true, 1),
            (Stage::Serving, false, 0),
            (Stage::Left, true, 0),
            (Stage::Frozen, true, 0),
            (Stage::Incoming, true, 0),
        ] {
            let store = Fake::with(&["gone"]);
            store.claims.lock()[0].0.stage = stage;
            let cleanup = all_of(&entry, lives);
            clean(&store, &cleanup, &proofs).await.unwrap();
            assert_eq!(store.uids().len(), expected, "{stage:?}, lives: {lives}");
        }
    }

    /// An etcd that has none of our tenants tells nothing about one that has gone.
    #[tokio::test]
    async fn a_clean_up_waits_for_the_right_database() {
        let owed = entry(Some("u"));
        let waits = Cleaned::Not(unclaimed());
        for wrong in [
            Fake::default(),
            Fake::with(&["of another installation"]),
            // What another left there does not outweigh the lack of one that was Ready.
            Fake::with(&["went"]),
        ] {
            assert_eq!(cleaned(&wrong, &owed).await, waits);
        }
        // The right one without it: an older state, or somebody has tidied up.
        let right = Fake::with(&["lives"]);
        assert_eq!(cleaned(&right, &owed).await, Cleaned::Whole);
        // The right one is back, and has nobody else's.
        let right = Fake::with(&["gone"]);
        assert_eq!(cleaned(&right, &owed).await, Cleaned::ButClaim);
        assert_eq!(right.uids(), ["gone"]);
        assert_eq!(right.claims.lock()[0].1, 0, "its data is removed");
    }

    /// The claim is released after it was noted that nothing else is left. Whoever finds
    /// none after that, because the controller ended in between, is done.
    #[tokio::test]
    async fn a_claim_that_was_released_is_waited_for_by_nobody() {
        let store = Fake::with(&["gone"]);
        let noted = entry(None);
        assert_eq!(cleaned(&store, &noted).await, Cleaned::Whole);
        assert!(store.uids().is_empty());
        assert_eq!(cleaned(&store, &noted).await, Cleaned::Whole);
    }
}
