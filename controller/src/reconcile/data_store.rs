//! One pass over one DataStore: who uses it, whether it can be used, what is still to be
//! cleaned up there, who is to leave it.

use crate::cluster::key::Key;
use crate::context::Context;
use crate::datastores::plan::Outcome;
use crate::datastores::world::{Done, World};
use crate::datastores::{drain, plan, report};
use crate::process::timing::{self, Next};
use crate::{apply, observe};

/// Observe, plan and apply, until there is nothing to do; then report and write. `None`: it is
/// gone, or this replica does not lead.
pub async fn reconcile(name: &str, ctx: &Context) -> Option<Next> {
    let key = Key::DataStore(name.to_owned());
    if !ctx.leadership.leads() {
        return None;
    }
    let mut done = Done::default();
    let (world, outcomes) = loop {
        let Some(world) = observe::data_store::world(name, &done, ctx) else {
            ctx.failures.none(&key);
            return None;
        };
        if world.is_paused() {
            return Some(Next(timing::backoff(20, 0.0)));
        }
        let plan = plan(&world);
        let outcomes = apply::data_store::apply(ctx, &world, &plan).await;
        if !done.note(&world, &plan, &outcomes) {
            break (world, outcomes);
        }
    };
    let written = match failure(&outcomes) {
        Some(failure) => failure.clone(),
        None => apply::data_store::status(ctx, &world, &report::status(&world)).await,
    };
    match written {
        Outcome::Gone => None,
        Outcome::Failed(why) => {
            tracing::debug!(data_store = name, "cannot write: {why}");
            let failures = ctx.failures.more(&key);
            Some(Next(timing::backoff(failures, key.spread())))
        }
        Outcome::Done | Outcome::Unchanged | Outcome::Cleaned(_) => {
            ctx.failures.none(&key);
            Some(next(&world, key.spread()))
        }
    }
}

/// The step that the API refused, if there is one.
fn failure(outcomes: &[Outcome]) -> Option<&Outcome> {
    let failed = |it: &&Outcome| matches!(it, Outcome::Gone | Outcome::Failed(_));
    outcomes.iter().find(failed)
}

/// When to look at a DataStore again if nothing changes before.
fn next(world: &World, spread: f64) -> Next {
    let next = match world.pending().is_empty() {
        true => timing::resync(spread),
        false if world.done.goes_on() => Next(timing::backoff(0, spread)),
        false => Next(timing::CLEANUP_EVERY),
    };
    let drains = world.drain.as_ref().and_then(drain::next);
    drains.map_or(next, |drains| Next(next.0.min(drains)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apiservice::names;
    use apiservice::v1alpha1::{DataStore, PendingCleanup};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};
    use storage::tenancy::Claim;

    use super::*;
    use crate::cluster::cache::EVERYWHERE;
    use crate::context::testing::{Asked, context, fill};
    use crate::datastores::testing::Fake;
    use crate::tenant::backing::facts::{StoreHealth, StoreReport};
    use crate::tenant::testing::Lab;

    fn store(pending: &[&str]) -> DataStore {
        let mut store: DataStore = serde_json::from_value(json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {
                "name": "leaving", "uid": "store", "resourceVersion": "1",
                "deletionTimestamp": Time(jiff::Timestamp::UNIX_EPOCH),
                "finalizers": [names::FINALIZER_DATA_STORE],
            },
            "spec": {"driver": "etcd", "endpoints": ["etcd:2379"]},
        }))
        .unwrap();
        let entry = |uid: &&str| PendingCleanup {
            uid: (*uid).to_owned(),
            user: Some("u".to_owned()),
            ..PendingCleanup::default()
        };
        store.status.get_or_insert_default().pending_cleanups = pending.iter().map(entry).collect();
        store
    }

    /// As the API answers who writes it: what was patched, and nothing of what was patched
    /// before.
    fn written(asked: &Asked) -> (u16, Value) {
        let mut store = store(&[]);
        let status = &asked.body["status"];
        if let Ok(said) = serde_json::from_value(status.clone()) {
            store.status = Some(said);
        }
        if asked.body["metadata"]["finalizers"].is_array() {
            store.metadata.finalizers = None;
        }
        (200, serde_json::to_value(store).unwrap())
    }

    /// What it was asked to write, pass after pass.
    async fn passes(database: Fake, pending: &[&str], count: usize) -> (Vec<String>, Vec<Claim>) {
        let (ctx, asked) = context(written, true).await;
        let lab = Lab::new();
        fill(&ctx.caches, &lab);
        let store = Arc::new(store(pending));
        let stores = vec![store.clone()];
        ctx.caches.data_stores.replace(EVERYWHERE, stores);
        let database = Arc::new(database);
        ctx.connections.put(&store, &ctx.caches, database.clone());
        ctx.facts.update_store("store", |fact| {
            fact.report = Some(StoreReport {
                health: Ok(StoreHealth::default()),
                separates_tenants: Ok(()),
                compacted: None,
            });
        });
        for _ in 0..count {
            reconcile("leaving", &ctx).await;
        }
        let asked = asked.lock();
        let to_us = asked.iter().filter(|it| it.path.contains("/datastores/"));
        let said = to_us.map(|it| match it.body["metadata"]["finalizers"].is_array() {
            true => "finalizers".to_owned(),
            false => "status".to_owned(),
        });
        let claims = database.claims.lock();
        let claims = claims.iter().map(|(claim, _)| claim.clone()).collect();
        (said.collect(), claims)
    }

    /// What is left in it is removed, that is noted, the claim is released, and it goes.
    #[tokio::test]
    async fn a_data_store_goes_when_nothing_is_left_in_it() {
        let with = || Fake::with(&["gone"]);
        let (said, claims) = passes(with(), &["gone"], 1).await;
        assert_eq!((said, claims.len()), (vec!["status".to_owned()], 1));
        let (said, claims) = passes(with(), &["gone"], 2).await;
        assert_eq!(said, ["status", "finalizers"]);
        assert!(claims.is_empty(), "{claims:?}");
        // Who finds nothing in it lets it go at once.
        let (said, _) = passes(Fake::default(), &[], 1).await;
        assert_eq!(said, ["finalizers"]);
    }

    #[tokio::test]
    async fn a_data_store_stays_while_the_right_database_is_away() {
        let (said, _) = passes(Fake::default(), &["gone"], 3).await;
        assert!(!said.contains(&"finalizers".to_owned()), "{said:?}");
    }
}
