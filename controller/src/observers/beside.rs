//! The same as `access.rs` asks of a tenant's main place, of those beside it: does its user
//! there still hold exactly its own? Where they are, the spec says: nothing has to be searched.

use std::collections::HashMap;
use std::sync::Arc;

use apiservice::v1alpha1::TenantControlPlane;
use k8s_openapi::api::core::v1::Secret;
use tokio::time::Instant;

use crate::cluster::key::Key;
use crate::cluster::kinds::Inventory;
use crate::cluster::name::NamespacedName;
use crate::cluster::overrides;
use crate::context::Context;
use crate::datastores::health;
use crate::observers::access::{self, Checked};
use crate::process::observers::pause;
use crate::process::timing;
use crate::tenant::backing::beside::{self, Beside};
use crate::tenant::backing::facts::{AccessFact, Held};

/// Checks one tenant's rights in these places until the task is ended.
pub async fn run(ctx: Arc<Context>, name: NamespacedName, uid: String) {
    let wake = ctx.facts.tenant(&uid).wake_beside;
    let mut refused: HashMap<String, Option<Instant>> = HashMap::new();
    loop {
        let tenant = ctx.caches.tenants.get(&name);
        let tenant = tenant.filter(|it| {
            it.metadata.uid.as_deref() == Some(&uid) && it.metadata.deletion_timestamp.is_none()
        });
        let places = tenant.as_ref().map_or_else(Vec::new, |tenant| {
            beside::wanted(&tenant.spec.data_store_overrides)
        });
        let claimants: Vec<String> = places.iter().map(|it| it.claimant(&uid)).collect();
        refused.retain(|claimant, _| claimants.contains(claimant));
        for (place, claimant) in places.iter().zip(claimants) {
            let Some(tenant) = &tenant else { continue };
            access::ask_again(
                &ctx,
                &name,
                &claimant,
                refused.entry(claimant.clone()).or_default(),
            );
            let Some(Checked {
                access,
                held,
                with,
                _asking,
            }) = check(&ctx, tenant, place, &claimant).await
            else {
                continue;
            };
            let changed = ctx.facts.update_place(&uid, &claimant, |facts| {
                if access == AccessFact::Granted {
                    facts.password = with;
                }
                facts.learn(access, held)
            });
            if changed {
                ctx.queue.add(Key::Tenant(name.clone()));
            }
        }
        pause(timing::ACCESS_EVERY, &wake).await;
    }
}

/// `None`: nothing was learnt, and what was known stands. Before anything is granted there is
/// nothing to learn: a plan begins with that.
async fn check(
    ctx: &Context,
    tenant: &TenantControlPlane,
    place: &Beside,
    claimant: &str,
) -> Option<Checked> {
    let data_store = place.data_store.clone();
    let store = ctx.caches.data_store(&data_store)?;
    let status = store.status.iter();
    let mut pending = status.flat_map(|status| &status.pending_cleanups);
    // What is there is of before, and about to go.
    if !store.spec.driver.is_built() || pending.any(|it| it.uid == claimant) {
        return None;
    }
    let name = NamespacedName::of(&tenant.metadata);
    let secret = beside::config_secret(&name.name, Some(place));
    let known = ctx.facts.tenant(claimant).held;
    let held = match known {
        Some(held) => held,
        None => {
            let told = overrides::told(tenant);
            let told = told.iter().any(|it| it.data_store_name == data_store);
            let owned = Inventory::gather(&ctx.caches, &name);
            if !told && owned.get::<Secret>(&secret).is_none() {
                return None;
            }
            let tenancy = access::reach(ctx, &data_store)?;
            let found = tokio::time::timeout(timing::STORE_DEADLINE, tenancy.claims(claimant));
            let found = found.await.ok()?.ok()?;
            let Some(first) = found.first() else {
                return Some(Checked {
                    access: AccessFact::Unclaimed,
                    held: None,
                    with: None,
                    _asking: ctx.facts.tenant(claimant).rights.try_lock_owned().ok()?,
                });
            };
            let claim = health::settle(first, &found);
            Held { data_store, claim }
        }
    };
    let in_secret = || access::password_of(ctx, tenant, &secret, store.spec.driver);
    let (claim, data_store) = (held.claim.clone(), held.data_store.clone());
    access::look(ctx, Some(held), claim, data_store, in_secret).await
}
