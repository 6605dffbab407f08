//! Looks for what others have made for a tenant before it was known here.
//!
//! Pods, ReplicaSets and Events without a tenant are not held (`made.rs`). The watches of
//! different kinds are not in step, so an object may be seen before its tenant is, and nothing
//! would tell of it again.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Resource, api::ListParams};
use serde::de::DeserializeOwned;

use crate::cluster::caches::{Cache, Cached, NamespacedName};
use crate::cluster::watches::{LISTS_OF_OTHERS, PAGE, Watches};
use crate::context::Key;
use crate::process::timing;

/// Pages that are read of one kind: what is beyond them is seen when it changes.
const PAGES: u32 = 50;

impl Watches {
    /// Looks for one new tenant after the other, for as long as the process runs.
    pub(super) async fn look_for_new(self) {
        loop {
            let name = self.caches.looks.next().await;
            let found = match self.caches.namespaces.has(&name.namespace) {
                true => self.look_for(&name).await,
                false => Ok(false),
            };
            let is_there = self.caches.tenants.get(&name).is_some();
            self.caches.looks.done(name.clone());
            match found {
                Ok(true) => self.queue.add(Key::Tenant(name)),
                Ok(false) => {}
                // A namespace in which we may not is listed anew once we may.
                Err(kube::Error::Api(status)) if status.code == 403 => {}
                Err(error) if is_there => {
                    tracing::debug!(tenant = %name, "cannot look for its pods: {error}");
                    self.caches.looks.add_after(name, timing::LOOK_AGAIN);
                }
                Err(_) => {}
            }
        }
    }

    /// Whether there is anything of a tenant that was not held.
    async fn look_for(&self, name: &NamespacedName) -> Result<bool, kube::Error> {
        let label = format!("{}={}", apiservice::names::LABEL_NAME, name.name);
        let labelled = ListParams::default().labels(&label);
        let warnings = ListParams::default().fields("type=Warning");
        let caches = &self.caches;
        let place = &name.namespace;
        let sets = self.pass_on(place, &labelled, &caches.replica_sets).await?;
        let pods = self.pass_on(place, &labelled, &caches.pods).await?;
        let events = self.pass_on(place, &warnings, &caches.events).await?;
        Ok(sets || pods || events)
    }

    /// Puts into the cache what a list of a namespace says.
    async fn pass_on<K>(
        &self,
        place: &str,
        params: &ListParams,
        cache: &Cache<K>,
    ) -> Result<bool, kube::Error>
    where
        K: Cached
            + Resource<Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), place);
        let mut params = params.clone().limit(PAGE);
        let mut news = false;
        for _ in 0..PAGES {
            // The same turns as of the watches: a page may have 30 MiB.
            let _turn = LISTS_OF_OTHERS.acquire().await;
            let page = api.list(&params);
            let Ok(page) = tokio::time::timeout(timing::CALL_DEADLINE, page).await else {
                return Err(kube::Error::Service("no answer in time".into()));
            };
            let page = page?;
            for object in page.items {
                if let Some(object) = self.caches.kept(object) {
                    news |= cache.put(object);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        Ok(news)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::context::testing::{Asked, context, fill};
    use crate::tenant::testing::Lab;

    /// Two pages of pods, and nothing else.
    fn pages(asked: &Asked) -> (u16, Value) {
        let pod = |name: &str| {
            json!({"metadata": {
                "name": name, "namespace": "tenants", "uid": name, "resourceVersion": "1",
                "labels": {apiservice::names::LABEL_NAME: "tenant-1"},
            }})
        };
        let (items, next) = match asked.path.contains("/pods?") {
            false => (vec![], ""),
            true if asked.path.contains("continue=more") => (vec![pod("second")], ""),
            true => (vec![pod("first")], "more"),
        };
        let meta = json!({"resourceVersion": "9", "continue": next});
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items});
        (200, list)
    }

    #[tokio::test]
    async fn what_a_new_tenant_has_already_is_found() {
        let lab = Lab::new();
        let (ctx, asked) = context(pages, true).await;
        fill(&ctx.caches, &lab);
        let watches = Watches {
            client: ctx.client.clone(),
            caches: ctx.caches.clone(),
            queue: ctx.queue.clone(),
        };
        let name = NamespacedName::of(&lab.world.tenant.metadata);
        assert!(ctx.caches.pods.of(&name).is_empty());
        ctx.caches.looks.add(name.clone());
        let told = async {
            tokio::select! {
                () = watches.look_for_new() => None,
                key = ctx.queue.next() => Some(key),
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(60), told).await;
        assert_eq!(told.unwrap(), Some(Key::Tenant(name.clone())));
        assert_eq!(ctx.caches.pods.of(&name).len(), 2);
        let asked = asked.lock();
        let pods = asked.iter().filter(|it| it.path.contains("/pods?"));
        assert!(pods.clone().all(|it| it.path.contains("labelSelector=")));
        assert_eq!((pods.count(), asked.len()), (2, 4), "and sets, and Events");
    }
}
