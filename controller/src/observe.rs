//! Gathers the world of a tenant from caches and facts, without I/O.

use std::sync::Arc;

use crate::{
    caches::Name,
    contest::Way,
    context::Context,
    material,
    tenant::{
        self,
        world::{Owned, StoreFacts, World},
    },
    watches::tenant_near,
};
use kube::ResourceExt;

/// The world of the tenant of this name; `None` if there is no such tenant or
/// the caches are not filled yet.
pub fn world(name: &Name, ctx: &Context) -> Option<World> {
    let caches = &ctx.caches;
    if !caches.synced() {
        return None;
    }
    let tenant = caches.tenants.get(name)?;
    let uid = tenant.metadata.uid.clone()?;
    let facts = ctx.facts.tenant(&uid);
    let data_store = tenant::store::choose(&tenant, &ctx.settings)
        .and_then(|chosen| caches.data_stores.get(&Name::new("", chosen)));
    let store = match &data_store {
        None => StoreFacts::default(),
        Some(store) => StoreFacts {
            material: material::fact(store, caches),
            health: match facts.cleanup_problem {
                Some(problem) if tenant.metadata.deletion_timestamp.is_some() => Some(Err(problem)),
                _ => {
                    let uid = store.metadata.uid.as_deref().unwrap_or_default();
                    ctx.facts.store(uid).health
                }
            },
            access: facts.access,
        },
    };
    let deferred = data_store.as_ref().is_some_and(|store| {
        store.status.as_ref().is_some_and(|status| {
            status
                .pending_cleanups
                .iter()
                .any(|pending| pending.uid == uid)
        })
    });
    let now = ctx.now();
    let owned = Owned {
        service: named(caches.services.of(name), &name.name),
        deployment: named(caches.deployments.of(name), &name.name),
        secrets: by_name(caches.secrets.of(name)),
        config_maps: by_name(caches.config_maps.of(name)),
        role: caches.roles.get(&Name::new(
            &name.namespace,
            apiservice::names::kubeconfig_signer(&name.name),
        )),
        role_binding: caches.role_bindings.get(&Name::new(
            &name.namespace,
            apiservice::names::kubeconfig_signer(&name.name),
        )),
    };
    let events = caches
        .events
        .of(&Name::new(&name.namespace, ""))
        .into_iter()
        .filter(|event| tenant_near(caches, event).as_ref() == Some(name))
        .collect();
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
        data_stores_known: caches.data_stores.synced(),
        store,
        deferred,
        owned,
        pods: caches.pods.of(name),
        replica_sets: caches.replica_sets.of(name),
        events,
        probe: facts.probe,
        contested,
        tenant,
    })
}

fn named<K: ResourceExt>(objects: Vec<Arc<K>>, name: &str) -> Option<Arc<K>> {
    objects
        .into_iter()
        .find(|object| object.meta().name.as_deref() == Some(name))
}

fn by_name<K: ResourceExt>(objects: Vec<Arc<K>>) -> std::collections::BTreeMap<String, Arc<K>> {
    objects
        .into_iter()
        .map(|object| (object.name_any(), object))
        .collect()
}
