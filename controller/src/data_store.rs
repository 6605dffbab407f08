//! One pass over one DataStore: who uses it, whether it can be used, what is
//! still to be cleaned up there.

mod conditions;

use std::collections::BTreeSet;

use apiservice::{
    condition::{self, data_store as types},
    names,
    v1alpha1::{DataStore, PendingCleanup, TenantControlPlane},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use crate::material::references;
use crate::{
    apply, apply_store,
    caches::{Caches, Name},
    context::{Context, Key},
    material::{self, Gap},
    requeue::{self, Next},
    tenant::{store as place, world::AccessFact},
};

/// The DataStores that a change of this tenant may concern.
pub fn stores_of(caches: &Caches, tenant: &TenantControlPlane) -> Vec<String> {
    let named: BTreeSet<String> = tenant
        .spec
        .data_store
        .iter()
        .chain(
            tenant
                .status
                .iter()
                .filter_map(|status| status.storage.as_ref()?.data_store_name.as_ref()),
        )
        .cloned()
        .collect();
    if !named.is_empty() {
        return named.into_iter().collect();
    }
    caches
        .data_stores
        .all()
        .iter()
        .filter_map(|store| store.metadata.name.clone())
        .collect()
}

/// The tenants that a change of this DataStore may concern.
pub fn tenants_of(caches: &Caches, store: &str) -> Vec<Name> {
    caches
        .tenants
        .all()
        .iter()
        .filter(|tenant| stores_of(caches, tenant).iter().any(|name| name == store))
        .map(|tenant| Name::of(&tenant.metadata))
        .collect()
}

/// What is missing of the material, if anything.
pub fn material_gap(store: &DataStore, caches: &Caches) -> Option<Gap> {
    material::resolve(store, caches).err()
}

/// Looks at one DataStore and writes what is to be written. `None`: it is
/// gone, or this replica does not lead.
pub async fn reconcile(name: &str, ctx: &Context) -> Option<Next> {
    if !ctx.caches.synced() || !ctx.leadership.leads() {
        return None;
    }
    let store = ctx.caches.data_stores.get(&Name::new("", name))?;
    let paused = store
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(names::ANNOTATION_PAUSED));
    if paused {
        return Some(Next(requeue::backoff(20, 0.0)));
    }
    let uid = store.metadata.uid.clone().unwrap_or_default();
    let verdict = ctx.facts.store(&uid).verdict;
    let used_by = users(ctx, name);
    let mut pending = store
        .status
        .as_ref()
        .map(|status| status.pending_cleanups.clone())
        .unwrap_or_default();
    let well = verdict
        .as_ref()
        .is_some_and(|verdict| verdict.health.is_ok());
    if well && !pending.is_empty() {
        pending = clean_up(ctx, &store, pending).await;
    }
    let facts = conditions::StoreWorld {
        store: &store,
        gap: material_gap(&store, &ctx.caches),
        verdict: verdict.as_ref(),
        used_by: &used_by,
        pending: &pending,
        now: Time(ctx.now()),
    };
    let status = conditions::status(&facts);
    let key = Key::DataStore(name.to_owned());
    let written = async {
        let wanted = finalizers(&store, !used_by.is_empty() || !pending.is_empty());
        if let Some(wanted) = wanted {
            apply::finalize_store(ctx, &store, wanted).await?;
        }
        let current = ctx.caches.data_stores.get(&Name::new("", name));
        let current = current.filter(|current| current.metadata.uid == store.metadata.uid);
        let gone =
            store.metadata.deletion_timestamp.is_some() && used_by.is_empty() && pending.is_empty();
        match current {
            Some(current) if !gone => apply::store_status(ctx, &current, &status).await,
            _ => Ok(()),
        }
    };
    let result = written.await;
    if let Some(condition) = condition::get(&status.conditions, types::READY) {
        let before = store
            .status
            .as_ref()
            .and_then(|status| condition::get(&status.conditions, types::READY));
        if before.map(|before| (&before.status, &before.reason))
            != Some((&condition.status, &condition.reason))
        {
            ctx.events
                .tell(
                    store.as_ref(),
                    condition.status == "False",
                    &condition.reason,
                    &condition.message,
                )
                .await;
        }
    }
    Some(match result {
        Ok(()) => {
            ctx.failures.none(&key);
            match pending.is_empty() {
                true => requeue::next(
                    &crate::tenant::Plan::default(),
                    &[],
                    0,
                    ctx.now(),
                    Context::spread(&key),
                ),
                false => Next(requeue::CLEANUP_EVERY),
            }
        }
        Err(refusal) if refusal.code == 404 => return None,
        Err(refusal) => {
            tracing::debug!(data_store = name, "cannot write: {}", refusal.message);
            Next(requeue::backoff(
                ctx.failures.more(&key),
                Context::spread(&key),
            ))
        }
    })
}

/// The tenants whose data is there or is to be there.
fn users(ctx: &Context, store: &str) -> Vec<String> {
    let mut names: Vec<String> = ctx
        .caches
        .tenants
        .all()
        .iter()
        .filter(|tenant| place::choose(tenant, &ctx.settings).as_deref() == Some(store))
        .map(|tenant| Name::of(&tenant.metadata).to_string())
        .collect();
    names.sort();
    names
}

async fn clean_up(
    ctx: &Context,
    store: &DataStore,
    pending: Vec<PendingCleanup>,
) -> Vec<PendingCleanup> {
    let mut left = vec![];
    for mut entry in pending {
        // Its tenant may still be there, and may even have been given its
        // finalizer back; then it is the tenant's own deletion that cleans up.
        let lives = ctx
            .caches
            .tenants
            .all()
            .iter()
            .any(|tenant| tenant.metadata.uid.as_deref() == Some(&entry.uid));
        if lives {
            left.push(entry);
            continue;
        }
        match apply_store::clean_up(ctx, store, &entry).await {
            Ok(()) => {
                tracing::info!(uid = entry.uid, "cleaned up after a deleted tenant");
                claim_again(ctx, store);
            }
            Err(message) => {
                entry.message = Some(message);
                left.push(entry);
            }
        }
    }
    left
}

/// Names have become free: whoever was refused some may ask again at once.
fn claim_again(ctx: &Context, store: &DataStore) {
    let name = store.metadata.name.as_deref().unwrap_or_default();
    for tenant in tenants_of(&ctx.caches, name) {
        let Some(uid) = ctx
            .caches
            .tenants
            .get(&tenant)
            .and_then(|tenant| tenant.metadata.uid.clone())
        else {
            continue;
        };
        let refused = ctx.facts.update_tenant(&uid, |facts| {
            let refused = matches!(
                facts.access,
                Some(AccessFact::Taken { .. } | AccessFact::Refused(_))
            );
            if refused {
                facts.access = None;
            }
            refused
        });
        if refused {
            ctx.queue.add(Key::Tenant(tenant));
        }
    }
}

/// The finalizers to set, if they are to be changed: ours is there while a
/// tenant uses the DataStore or has left something in it.
fn finalizers(store: &DataStore, held: bool) -> Option<Vec<String>> {
    let mut all = store.metadata.finalizers.clone().unwrap_or_default();
    let there = all.iter().any(|one| one == names::FINALIZER_DATA_STORE);
    let deleting = store.metadata.deletion_timestamp.is_some();
    if held && !there && !deleting {
        all.push(names::FINALIZER_DATA_STORE.into());
        return Some(all);
    }
    if !held && there {
        all.retain(|one| one != names::FINALIZER_DATA_STORE);
        return Some(all);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_is_there_while_the_data_store_is_used() {
        let mut store: DataStore = serde_json::from_value(serde_json::json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": "default"},
            "spec": {"driver": "etcd", "endpoints": ["etcd:2379"]},
        }))
        .unwrap();
        assert_eq!(
            finalizers(&store, true).unwrap(),
            [names::FINALIZER_DATA_STORE]
        );
        assert!(finalizers(&store, false).is_none());
        store.metadata.finalizers = Some(vec![names::FINALIZER_DATA_STORE.into(), "x".into()]);
        assert!(finalizers(&store, true).is_none());
        assert_eq!(finalizers(&store, false).unwrap(), ["x"]);
        store.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::from_second(5).unwrap()));
        assert!(finalizers(&store, true).is_none(), "held while used");
        assert_eq!(finalizers(&store, false).unwrap(), ["x"]);
    }
}
