//! Writes to our own kinds through our API.

use std::sync::Arc;

use apiservice::{
    names,
    v1alpha1::{
        DataStore, DataStoreStatus, TenantControlPlane, TenantControlPlaneStatus,
        tenant_control_plane,
    },
};
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::apply::objects::{Refusal, call, failed};
use crate::cluster::managers::FIELD_MANAGER;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::report;
use crate::tenant::backing::store as place;
use crate::tenant::pki::authorities;
use crate::tenant::plan::{Claim, Outcome};
use crate::tenant::world::World;

const MERGE: &str = "application/merge-patch+json";

fn tenant_path(namespace: &str, name: &str) -> String {
    format!(
        "/apis/{}/{}/namespaces/{namespace}/{}/{name}",
        apiservice::GROUP,
        apiservice::VERSION,
        tenant_control_plane::RESOURCE.plural
    )
}

/// Changes an object of our own kinds, or its status, in our name: who looks at its
/// `managedFields` sees which fields are ours.
async fn patch(ctx: &Context, path: &str, patch: &Value) -> Result<Value, Refusal> {
    let address = format!("{path}?fieldManager={FIELD_MANAGER}");
    call(ctx, Method::PATCH, &address, MERGE, Some(patch)).await
}

/// Takes note of a tenant that was written.
fn hold(ctx: &Context, tenant: TenantControlPlane) {
    if let Some(tenant) = ctx.caches.kept(tenant) {
        ctx.caches.tenants.put(tenant);
    }
}

/// Takes note of a DataStore that was written.
fn hold_store(ctx: &Context, store: DataStore) {
    if let Some(store) = ctx.caches.kept(store) {
        ctx.caches.data_stores.put(store);
    }
}

fn store_path(name: &str) -> String {
    format!(
        "/apis/{}/{}/datastores/{name}",
        apiservice::GROUP,
        apiservice::VERSION
    )
}

/// Puts our finalizer on the tenant.
pub async fn add_finalizer(ctx: &Context, world: &World) -> Outcome {
    let current = current(ctx, world);
    let mut finalizers = current.metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|held| held == names::FINALIZER) {
        return Outcome::Unchanged;
    }
    finalizers.push(names::FINALIZER.into());
    finalize_tenant(ctx, world, finalizers).await
}

/// Takes our finalizer off the tenant, which lets it go.
pub async fn release_finalizer(ctx: &Context, world: &World) -> Outcome {
    let current = current(ctx, world);
    let mut finalizers = current.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|held| held != names::FINALIZER);
    finalize_tenant(ctx, world, finalizers).await
}

/// The tenant as it is now: a step of this pass may have written it.
fn current(ctx: &Context, world: &World) -> Arc<TenantControlPlane> {
    let name = NamespacedName::of(&world.tenant.metadata);
    let current = ctx.caches.tenants.get(&name);
    let current = current.filter(|it| it.metadata.uid == world.tenant.metadata.uid);
    current.unwrap_or_else(|| world.tenant.clone())
}

/// Notes in the status that nothing of a tenant is left in its datastore but the claim.
pub async fn note_empty(ctx: &Context, world: &World, claim: &Claim) -> Outcome {
    let tenant = current(ctx, world);
    let mut status = tenant.status.clone().unwrap_or_default();
    place::note_empty(&mut status, world.uid(), claim);
    let Some(change) = status_patch(&tenant.metadata, tenant.status.as_ref(), &status) else {
        return Outcome::Unchanged;
    };
    let path = tenant_path(world.namespace(), world.name());
    match patch(ctx, &format!("{path}/status"), &change).await {
        Ok(written) => {
            if let Ok(tenant) = serde_json::from_value::<TenantControlPlane>(written) {
                hold(ctx, tenant);
            }
            Outcome::Done
        }
        Err(refusal) if refusal.code == 404 => Outcome::Unchanged,
        Err(refusal) => failed(refusal),
    }
}

async fn finalize_tenant(ctx: &Context, world: &World, finalizers: Vec<String>) -> Outcome {
    let meta = &current(ctx, world).metadata;
    let path = tenant_path(world.namespace(), world.name());
    match finalize(ctx, &path, meta, finalizers).await {
        Ok(written) => {
            if let Ok(tenant) = serde_json::from_value::<TenantControlPlane>(written) {
                if was_last(&tenant.metadata) {
                    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
                    ctx.caches
                        .tenants
                        .forget(&NamespacedName::of(&tenant.metadata), uid);
                } else {
                    hold(ctx, tenant);
                }
            }
            Outcome::Done
        }
        Err(refusal) if refusal.code == 404 => Outcome::Unchanged,
        Err(refusal) => failed(refusal),
    }
}

/// Takes the names of Secrets whose keys were made anew out of the annotation
/// that asked for it, so that it does not hold for the next loss.
pub async fn replaced(ctx: &Context, world: &World, secrets: &[String]) -> Outcome {
    let meta = &world.tenant.metadata;
    let left: Vec<_> = authorities::asked(world)
        .filter(|asked| !secrets.iter().any(|name| name == asked))
        .collect();
    let left = Some(left.join(",")).filter(|left| !left.is_empty());
    let change = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "annotations": {names::ANNOTATION_REPLACE_LOST_KEYS: left},
    }});
    let path = tenant_path(world.namespace(), world.name());
    match patch(ctx, &path, &change).await {
        Ok(written) => {
            if let Ok(tenant) = serde_json::from_value::<TenantControlPlane>(written) {
                hold(ctx, tenant);
            }
            Outcome::Done
        }
        Err(refusal) if refusal.code == 404 => Outcome::Unchanged,
        Err(refusal) => failed(refusal),
    }
}

async fn finalize(
    ctx: &Context,
    path: &str,
    meta: &ObjectMeta,
    finalizers: Vec<String>,
) -> Result<Value, Refusal> {
    let change = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": finalizers,
    }});
    patch(ctx, path, &change).await
}

/// Sets the finalizers of a DataStore.
pub async fn finalize_store(
    ctx: &Context,
    store: &DataStore,
    finalizers: Vec<String>,
) -> Result<(), Refusal> {
    let name = store.metadata.name.clone().unwrap_or_default();
    let written = finalize(ctx, &store_path(&name), &store.metadata, finalizers).await?;
    if let Ok(store) = serde_json::from_value::<DataStore>(written) {
        if was_last(&store.metadata) {
            let uid = store.metadata.uid.as_deref().unwrap_or_default();
            ctx.caches
                .data_stores
                .forget(&NamespacedName::new("", name), uid);
        } else {
            hold_store(ctx, store);
        }
    }
    Ok(())
}

/// True for an object whose last finalizer has just been taken off: it is gone.
fn was_last(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
}

/// Writes the status of a tenant, unless it is that already. `Err`: it has to
/// be tried again.
pub async fn status(
    ctx: &Context,
    world: &World,
    status: TenantControlPlaneStatus,
) -> Result<(), ()> {
    let name = NamespacedName::of(&world.tenant.metadata);
    // A step of this pass may have written the object since it was observed.
    let Some(current) = ctx.caches.tenants.get(&name) else {
        return Ok(());
    };
    if current.metadata.uid != world.tenant.metadata.uid
        || current.metadata.generation != world.tenant.metadata.generation
    {
        return Ok(());
    }
    // The status was made from the one that was observed. If that has been written
    // since, it is made again: the write is conditional on what is there now.
    if current.status != world.tenant.status {
        return Err(());
    }
    // Nothing is left to say about a tenant that was just let go.
    let finalizers = current.metadata.finalizers.iter().flatten().count();
    if current.metadata.deletion_timestamp.is_some() && finalizers == 0 {
        return Ok(());
    }
    let old = current.status.clone();
    let Some(change) = status_patch(&current.metadata, current.status.as_ref(), &status) else {
        return Ok(());
    };
    let path = format!("{}/status", tenant_path(&name.namespace, &name.name));
    match patch(ctx, &path, &change).await {
        Ok(written) => {
            if let Ok(tenant) = serde_json::from_value::<TenantControlPlane>(written) {
                hold(ctx, tenant);
            }
            let endpoint =
                |status: &TenantControlPlaneStatus| status.control_plane_endpoint.clone();
            if old.as_ref().and_then(endpoint) != endpoint(&status) {
                let wake = ctx.facts.tenant(world.uid()).wake_probe;
                wake.notify_one();
            }
            for event in report::events(old.as_ref(), &status) {
                let about = world.tenant.as_ref();
                ctx.events
                    .tell(about, event.warning, event.reason, &event.message)
                    .await;
            }
            Ok(())
        }
        Err(refusal) if refusal.code == 404 => Ok(()),
        Err(refusal) => {
            let tenant = name.to_string();
            tracing::debug!(tenant, "cannot write the status: {}", refusal.message);
            Err(())
        }
    }
}

/// Writes the status of a DataStore, unless it is that already.
pub async fn store_status(
    ctx: &Context,
    store: &DataStore,
    status: &DataStoreStatus,
) -> Result<(), Refusal> {
    let name = store.metadata.name.clone().unwrap_or_default();
    let Some(change) = status_patch(&store.metadata, store.status.as_ref(), status) else {
        return Ok(());
    };
    let path = format!("{}/status", store_path(&name));
    let written = patch(ctx, &path, &change).await?;
    if let Ok(store) = serde_json::from_value::<DataStore>(written) {
        hold_store(ctx, store);
    }
    Ok(())
}

/// The merge patch from one status to another; `None` if they are equal. It
/// applies only to the version that it was computed from.
fn status_patch<S: Serialize>(meta: &ObjectMeta, old: Option<&S>, new: &S) -> Option<Value> {
    let old = old
        .and_then(|old| serde_json::to_value(old).ok())
        .unwrap_or_else(|| json!({}));
    let new = serde_json::to_value(new).ok()?;
    let patch = merge_patch(&old, &new)?;
    Some(json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": patch,
    }))
}

/// What turns `old` into `new` by RFC 7386; `None` if nothing has to.
fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(before) => {
                if let Some(change) = merge_patch(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::testing::{Asked, context, fill};
    use crate::tenant::testing::Lab;

    #[test]
    fn a_merge_patch_says_only_what_changes() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "gone": true, "list": [1, 2]});
        let new = json!({"a": 1, "b": {"c": 1, "d": 3}, "list": [1], "new": {"x": 1}});
        assert_eq!(
            merge_patch(&old, &new).unwrap(),
            json!({"b": {"d": 3}, "gone": null, "list": [1], "new": {"x": 1}})
        );
        assert!(merge_patch(&old, &old).is_none());
        let mut merged = old.clone();
        json_merge(&mut merged, &merge_patch(&old, &new).unwrap());
        assert_eq!(merged, new);
    }

    fn json_merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        for (key, value) in patch {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(key);
            } else {
                json_merge(&mut target[key], value);
            }
        }
    }

    /// A write that was computed from another version than what is there is refused by
    /// the API.
    #[test]
    fn a_status_is_written_to_the_version_that_it_was_made_of() {
        let meta = ObjectMeta {
            uid: Some("u".into()),
            resource_version: Some("7".into()),
            ..ObjectMeta::default()
        };
        let (old, new) = (json!({"a": 1}), json!({"a": 2}));
        let patch = status_patch(&meta, Some(&old), &new).unwrap();
        let wanted = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "status": {"a": 2}});
        assert_eq!(patch, wanted);
        assert!(status_patch(&meta, Some(&new), &new).is_none());
    }

    /// As the API answers who writes a status.
    fn written(asked: &Asked) -> (u16, Value) {
        let mut tenant = serde_json::to_value(Lab::ready().world.tenant.as_ref()).unwrap();
        json_merge(&mut tenant, &asked.body);
        (200, tenant)
    }

    #[tokio::test]
    async fn a_status_that_was_written_meanwhile_is_made_anew() {
        let mut lab = Lab::ready();
        lab.tenant().metadata.resource_version = Some("41".into());
        let world = lab.world.clone();
        let mut wanted = world.tenant.status.clone().unwrap();
        wanted.control_plane_endpoint = Some("192.0.2.9:6443".into());
        let (ctx, asked) = context(written, true).await;
        fill(&ctx.caches, &lab);
        assert_eq!(status(&ctx, &world, wanted.clone()).await, Ok(()));
        let writes = || -> Vec<Asked> {
            let asked = asked.lock();
            let to_status = asked.iter().filter(|it| it.path.contains("/status"));
            to_status.cloned().collect()
        };
        let all = writes();
        assert_eq!(all.len(), 1, "{all:?}");
        let metadata = json!({"uid": world.uid(), "resourceVersion": "41"});
        assert_eq!(all[0].body["metadata"], metadata);
        assert_eq!(all[0].method, "PATCH");

        // A step of this pass, or an observer, has noted something since.
        let tenant = lab.tenant();
        tenant.metadata.resource_version = Some("42".into());
        tenant.status.as_mut().unwrap().control_plane_endpoint = Some("meanwhile:1".into());
        let (ctx, _) = context(written, true).await;
        fill(&ctx.caches, &lab);
        assert_eq!(status(&ctx, &world, wanted).await, Err(()), "again");
        assert_eq!(writes().len(), 1);
    }
}
