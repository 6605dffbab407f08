//! Gathers the world of a tenant from caches and facts, without I/O.

pub mod data_store;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use apiservice::v1alpha1::{DataStore, TenantControlPlane};

use crate::cluster::cache::EVERYWHERE;
use crate::cluster::caches::{Caches, Reach};
use crate::cluster::chosen;
use crate::cluster::kinds::Inventory;
use crate::cluster::made::tenant_near;
use crate::cluster::name::NamespacedName;
use crate::cluster::routes::Gateway;
use crate::context::Context;
use crate::datastores::credentials;
use crate::facts::TenantFacts;
use crate::process::contested::Way;
use crate::tenant;
use crate::tenant::backing::beside::{self, Beside, Override};
use crate::tenant::backing::facts::{CredentialsFact, Elsewhere, StoreFacts, StoreProblem};
use crate::tenant::turns::Turn;
use crate::tenant::world::World;

/// Whether the DataStore that was assigned to a tenant takes no new ones any more. One
/// that the tenant names is its own affair.
fn is_to_be_assigned_again(tenant: &TenantControlPlane, store: Option<&DataStore>) -> bool {
    if !chosen::is_assigned(tenant) {
        return false;
    }
    store.is_none_or(|store| store.metadata.deletion_timestamp.is_some())
}

/// The world of the tenant of this name; `None` if there is no such tenant or
/// the caches are not filled yet.
pub fn world(name: &NamespacedName, ctx: &Context) -> Option<World> {
    let caches = &ctx.caches;
    // Where tenants do not stand, pods end when the tenant is gone, and no earlier:
    // there is nothing to wait for. Where the rights are missing, they may be ending,
    // for a namespace that is being deleted loses them among the first.
    let (unreached, pods_known) = match caches.reach(&name.namespace) {
        Reach::NotYet => return None,
        Reach::Here => (None, caches.pods_known(&name.namespace)),
        Reach::NotServed(why) => (Some(why), true),
        Reach::Refused(why) => (Some(why), false),
    };
    let tenant = caches.tenants.get(name)?;
    let uid = tenant.metadata.uid.clone()?;
    let facts = ctx.facts.tenant(&uid);
    let deleting = tenant.metadata.deletion_timestamp.is_some();
    let held = facts.held.as_ref();
    let chosen = facts.data_store_of(&tenant);
    let data_store = chosen.as_ref().and_then(|chosen| caches.data_store(chosen));
    let unplaced = match &chosen {
        None => true,
        // Where nothing is claimed yet, another one will do.
        Some(_) => held.is_none() && is_to_be_assigned_again(&tenant, data_store.as_deref()),
    };
    let gateways_known = caches.gateways_known();
    if !deleting && !gateways_known && awaits_gateways(&tenant, caches) {
        return None;
    }
    // What is held of it, if anything, may be of long ago.
    let (owned, pods, replica_sets) = match unreached {
        None => (
            Inventory::gather(caches, name),
            caches.pods.of(name),
            caches.replica_sets.of(name),
        ),
        Some(_) => Default::default(),
    };
    let may_have_claimed =
        facts.held.is_none() && tenant::backing::store::may_have_claimed(&tenant, &owned);
    // Its data may be somewhere: that is looked for first.
    let unplaced = unplaced && (!may_have_claimed || facts.nowhere);
    let assignment = (unplaced && !deleting && caches.data_stores.synced(EVERYWHERE))
        .then(|| ctx.assignments.decide(&ctx.seen(), &tenant));
    let migration = facts.migration_of(&tenant);
    let elsewhere = match deleting && may_have_claimed {
        true => elsewhere(ctx, &uid, data_store.as_deref(), &facts),
        false => Vec::new(),
    };
    let overrides = overrides(ctx, &tenant, &uid, &owned);
    let deferred = data_store
        .as_deref()
        .is_some_and(|it| is_recorded(it, &uid));
    let (probe, inside, size) = (facts.probe.clone(), facts.inside.clone(), facts.size);
    let (told, observed_since) = (facts.for_nodes.clone(), facts.since);
    let store = of_store(ctx, data_store.as_deref(), facts, deleting);
    let now = ctx.now();
    let events = caches
        .events
        .of(&NamespacedName::new(&name.namespace, ""))
        .into_iter()
        .filter(|event| tenant_near(caches, event).as_ref() == Some(name))
        .collect();
    let deleting_since = deleting.then(|| ctx.facts.leaving_since(&uid, now));
    let contested = ctx.writes.of(&uid, |memory| {
        let held = memory.contest.held(now);
        held.filter(|((_, way), _)| *way == Way::Change)
            .map(|((key, _), until)| (key, until))
            .collect()
    });
    Some(World {
        now,
        settings: ctx.settings.clone(),
        data_store,
        data_stores_known: caches.data_stores.synced(EVERYWHERE),
        data_store_unseen: None,
        assignment,
        store,
        deferred,
        elsewhere,
        beside: None,
        overrides,
        migration,
        owned,
        optional: caches.optional.borrow().clone(),
        gateways: gateways(&tenant, name, ctx),
        gateways_known,
        pods,
        replica_sets,
        pods_known,
        deleting_since,
        events,
        probe,
        inside,
        size,
        told,
        observed_since,
        contested,
        turn: Turn::Unasked,
        unreached,
        tenant,
    })
}

/// What is known of a place in a DataStore.
fn of_store(
    ctx: &Context,
    store: Option<&DataStore>,
    facts: TenantFacts,
    deleting: bool,
) -> StoreFacts {
    let Some(store) = store else {
        return StoreFacts {
            held: facts.held,
            ..StoreFacts::default()
        };
    };
    let credentials = credentials::fact(store, &ctx.caches);
    let uid = store.metadata.uid.as_deref().unwrap_or_default();
    StoreFacts {
        trial: trial(ctx, store, &credentials),
        credentials,
        health: ctx.facts.store(uid).health(),
        cleanup: facts.cleanup_problem.filter(|_| deleting),
        access: facts.access,
        held: facts.held,
        password: facts.password,
        unclaimed: facts.unclaimed,
    }
}

/// Whether a DataStore has recorded that it is to clean up after this claimant.
fn is_recorded(store: &DataStore, claimant: &str) -> bool {
    let status = store.status.iter();
    let mut pending = status.flat_map(|status| &status.pending_cleanups);
    pending.any(|pending| pending.uid == claimant && pending.not_before.is_none())
}

/// The places of a tenant beside its main one.
fn overrides(
    ctx: &Context,
    tenant: &TenantControlPlane,
    uid: &str,
    owned: &Inventory,
) -> Vec<Override> {
    let deleting = tenant.metadata.deletion_timestamp.is_some();
    let of = |(beside, wanted): (Beside, bool)| {
        let claimant = beside.claimant(uid);
        let data_store = ctx.caches.data_store(&beside.data_store);
        let facts = ctx.facts.tenant(&claimant);
        Override {
            store: of_store(ctx, data_store.as_deref(), facts, deleting),
            deferred: data_store
                .as_deref()
                .is_some_and(|it| is_recorded(it, &claimant)),
            data_store,
            unseen: None,
            wanted,
            beside,
        }
    };
    let wanted = beside::wanted(&tenant.spec.data_store_overrides);
    let wanted = wanted.into_iter().map(|it| (it, true));
    let former = tenant::backing::overrides::former_of(tenant, owned).into_iter();
    wanted.chain(former.map(|it| (it, false))).map(of).collect()
}

/// At which port a Gateway listens is not guessed while it is being found out, unless that
/// takes long and clients were sent to a port before: certificates end meanwhile.
fn awaits_gateways(tenant: &TenantControlPlane, caches: &Caches) -> bool {
    let status = tenant.status.as_ref();
    let sent = status.is_some_and(|it| it.control_plane_endpoint.is_some());
    let overdue = caches.gateways_overdue.load(Ordering::Relaxed);
    tenant.spec.control_plane.gateway.is_some() && !(sent && overdue)
}

/// The Gateways that a tenant refers to.
fn gateways(
    tenant: &TenantControlPlane,
    name: &NamespacedName,
    ctx: &Context,
) -> Vec<Arc<Gateway>> {
    let routed = tenant.spec.control_plane.gateway.iter();
    let parents = routed.flat_map(|it| &it.parent_refs);
    let named = parents.map(|it| {
        let namespace = it.namespace.as_ref().unwrap_or(&name.namespace);
        NamespacedName::new(namespace, &it.name)
    });
    named
        .filter_map(|it| ctx.caches.gateways.get(&it))
        .collect()
}

/// What came of trying the settings that the material makes: of these, and not of what
/// the Secrets hold a moment later.
fn trial(
    ctx: &Context,
    store: &DataStore,
    credentials: &CredentialsFact,
) -> Option<Result<(), StoreProblem>> {
    let wanted = tenant::backing::settings::wanted(credentials)?;
    let uid = store.metadata.uid.as_deref().unwrap_or_default();
    ctx.facts.store(uid).tried(&wanted)
}

/// The DataStores besides this one that may have a claim of this uid, without
/// those that are to be cleaned up for it already.
fn elsewhere(
    ctx: &Context,
    uid: &str,
    but: Option<&DataStore>,
    facts: &TenantFacts,
) -> Vec<Elsewhere> {
    let reach = |store: &DataStore| match credentials::fact(store, &ctx.caches) {
        CredentialsFact::Unknown => None,
        CredentialsFact::Missing { what, .. } => Some(Err(what)),
        CredentialsFact::Known(_) => {
            let uid = store.metadata.uid.as_deref().unwrap_or_default();
            let health = ctx.facts.store(uid).health();
            let problem = health.and_then(Result::err);
            let problem = facts.cleanup_problem.clone().or(problem);
            Some(problem.map_or(Ok(()), |problem| Err(problem.message)))
        }
    };
    let recorded = |store: &DataStore| {
        let mut pending = store
            .status
            .iter()
            .flat_map(|status| &status.pending_cleanups);
        pending.any(|pending| pending.uid == uid)
    };
    let mut found: Vec<_> = ctx
        .caches
        .data_stores
        .all()
        .iter()
        .filter(|store| store.spec.driver.is_built() && !recorded(store))
        .filter(|store| Some(&store.metadata.name) != but.map(|but| &but.metadata.name))
        .filter_map(|store| {
            Some(Elsewhere {
                data_store: store.metadata.name.clone()?,
                reach: reach(store),
            })
        })
        .collect();
    found.sort_by(|a, b| a.data_store.cmp(&b.data_store));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::kinds::ObjectKind;
    use crate::tenant::backing::store::may_have_claimed;
    use crate::tenant::testing::Lab;

    #[test]
    fn gateways_that_cannot_be_found_out_hold_up_only_a_first_start() {
        let caches = Caches::default();
        let mut lab = Lab::ready();
        let awaits = |lab: &Lab| awaits_gateways(&lab.world.tenant, &caches);
        assert!(!awaits(&lab), "it has none");
        lab.spec().control_plane.gateway = Some(Default::default());
        assert!(awaits(&lab));
        caches.gateways_overdue.store(true, Ordering::Relaxed);
        assert!(!awaits(&lab));
        lab.tenant().status = None;
        assert!(awaits(&lab));
    }

    /// Else each DataStore that is out of reach kept a record of every tenant that
    /// never had anything.
    #[test]
    fn other_datastores_are_asked_only_for_what_may_have_claimed() {
        let asked = |lab: &Lab| may_have_claimed(&lab.world.tenant, &lab.world.owned);
        let fresh = Lab::new();
        assert!(!asked(&fresh), "it never had a claim");

        let mut lab = Lab::ready();
        assert!(asked(&lab), "status says so");
        lab.tenant().status = None;
        lab.lose_deployment();
        assert!(asked(&lab), "its Secrets are there");

        // Those of a tenant of this name before.
        let mut next = lab.clone();
        next.tenant().metadata.uid = Some("another".to_owned());
        assert!(!asked(&next));

        lab.lose_all(ObjectKind::Secret);
        assert!(!asked(&lab));
    }
}
