//! Looks for what others have made for a tenant before it was known here.
//!
//! Pods, ReplicaSets and Events without a tenant are not held (`made.rs`). The watches of
//! different kinds are not in step, so an object may be seen before its tenant is, and nothing
//! would tell of it again.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, api::ListParams, core::Request};
use serde::de::DeserializeOwned;

use crate::cluster::cache::{Cache, Cached};
use crate::cluster::follow::path;
use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::cluster::pieces::{Bounds, Page};
use crate::cluster::watches::{LISTS_OF_OTHERS, PAGE, Watches};
use crate::process::timing;

/// Pages that are read of one kind: what is beyond them is seen when it changes.
const PAGES: u32 = 50;

/// Tenants that wait for their look, by their uid, for which the Events of their namespace
/// were judged since. An Event does not name its tenant so that a list could be made for one
/// alone, and a list of all for each new tenant of a namespace would cost the square of their
/// number.
type Judged = BTreeMap<NamespacedName, String>;

impl Watches {
    /// Looks for one new tenant after the other, for as long as the process runs.
    pub(super) async fn look_for_new(self) {
        let mut judged = Judged::default();
        loop {
            let name = self.caches.looks.next().await;
            let found = match self.caches.namespaces.has(&name.namespace) {
                true => self.look_for(&name, &mut judged).await,
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
    async fn look_for(
        &self,
        name: &NamespacedName,
        judged: &mut Judged,
    ) -> Result<bool, kube::Error> {
        let label = format!("{}={}", apiservice::names::LABEL_NAME, name.name);
        let labelled = ListParams::default().labels(&label);
        let caches = &self.caches;
        let place = &name.namespace;
        let sets = self.pass_on(place, &labelled, &caches.replica_sets).await?;
        let pods = self.pass_on(place, &labelled, &caches.pods).await?;
        let events = self.look_at_events(name, judged).await?;
        Ok(sets || pods || events)
    }

    /// Lists the Events of a tenant's namespace, for all in it that wait for their look. Those
    /// are told what is news for them.
    async fn look_at_events(
        &self,
        name: &NamespacedName,
        judged: &mut Judged,
    ) -> Result<bool, kube::Error> {
        let uid_of = |name: &NamespacedName| self.caches.tenants.get(name)?.metadata.uid.clone();
        let before = judged.remove(name);
        if before.is_some() && before == uid_of(name) {
            return Ok(false);
        }
        let mut others = self.caches.looks.waiting();
        others.retain(|other| other.namespace == name.namespace);
        let others: Judged = others
            .into_iter()
            .filter_map(|other| Some((other.clone(), uid_of(&other)?)))
            .collect();
        let warnings = ListParams::default().fields("type=Warning");
        let events = self.pass_on(&name.namespace, &warnings, &self.caches.events);
        let news = events.await?;
        for (other, uid) in others {
            if news {
                self.queue.add(Key::Tenant(other.clone()));
            }
            judged.insert(other, uid);
        }
        Ok(news)
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
        let mut params = params.clone().limit(PAGE);
        let mut news = false;
        for _ in 0..PAGES {
            // The same turns as of the watches.
            let _turn = LISTS_OF_OTHERS.acquire().await;
            let request = Request::new(path::<K>(place)).list(&params);
            let request = request.map_err(kube::Error::BuildRequest)?;
            let read = async {
                let (client, bounds) = (&self.client, Bounds::STRANGERS);
                let mut page = Page::open(client, request, bounds, timing::LIST_PATIENCE).await?;
                while let Some(object) = page.next::<K>().await? {
                    if let Some(object) = object.ok().and_then(|it| self.caches.kept(it)) {
                        news |= cache.put(object);
                    }
                }
                Ok::<_, kube::Error>(page.next_page())
            };
            let Ok(next) = tokio::time::timeout(timing::CALL_DEADLINE, read).await else {
                return Err(kube::Error::Service("no answer in time".into()));
            };
            match next? {
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
    use crate::cluster::cache::EVERYWHERE;
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

    /// Those of one namespace are judged for all of its tenants at once.
    #[tokio::test]
    async fn events_of_a_namespace_are_listed_once_for_all_new_tenants() {
        fn one_event(asked: &Asked) -> (u16, Value) {
            let event = json!({
                "metadata": {"name": "e", "namespace": "tenants", "uid": "e", "resourceVersion": "1"},
                "type": "Warning", "reason": "FailedMount", "message": "no",
                "involvedObject": {"kind": "Pod", "namespace": "tenants", "name": "t-7-abc"},
            });
            let items = match asked.path.contains("/events?") {
                true => vec![event],
                false => vec![],
            };
            let meta = json!({"resourceVersion": "9"});
            let list =
                json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items});
            (200, list)
        }
        let (ctx, asked) = context(one_event, true).await;
        let tenant = |number: usize, uid: &str| {
            let mut lab = Lab::new();
            lab.tenant().metadata.name = Some(format!("t-{number}"));
            lab.tenant().metadata.uid = Some(format!("{uid}{number}"));
            lab.world.tenant
        };
        fill(&ctx.caches, &Lab::new());
        let tenants: Vec<_> = (0..20).map(|number| tenant(number, "u")).collect();
        ctx.caches.tenants.replace(EVERYWHERE, tenants.clone());
        let watches = Watches {
            client: ctx.client.clone(),
            caches: ctx.caches.clone(),
            queue: ctx.queue.clone(),
        };
        let count = |kind: &str| {
            let asked = asked.lock();
            let its = asked.iter().filter(|it| it.path.contains(kind));
            its.count()
        };
        let looked = async |pods: usize| {
            while count("/pods?") < pods || ctx.caches.looks.depth() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let all = async {
            for tenant in &tenants {
                ctx.caches.looks.add(NamespacedName::of(&tenant.metadata));
            }
            looked(20).await;
            assert_eq!(count("/events?"), 1);
            // Whom it is about is told, whoever was looked for.
            let told = async {
                while ctx.queue.next().await != Key::Tenant(NamespacedName::new("tenants", "t-7")) {
                }
            };
            let told = tokio::time::timeout(Duration::from_secs(60), told).await;
            told.unwrap();

            // Another of the same name was not there when they were listed.
            let heir = tenant(7, "v");
            ctx.caches.tenants.replace(EVERYWHERE, vec![heir.clone()]);
            ctx.caches.looks.add(NamespacedName::of(&heir.metadata));
            looked(21).await;
            assert_eq!(count("/events?"), 2);
        };
        tokio::select! {
            () = watches.look_for_new() => panic!("it looks for as long as the process runs"),
            () = all => {}
        }
    }
}
