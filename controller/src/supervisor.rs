//! Owns the observers: for each tenant one probe, one that keeps what is inside it, one
//! that approves its nodes' certificates, access checks, one that moves its data and one
//! that measures it; one health check for each DataStore, one watch for each Secret
//! that a DataStore refers to. It starts and ends tasks, and knows nothing of what they
//! find.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::cluster::concerned::references;
use crate::cluster::name::NamespacedName;
use crate::cluster::watches::Watches;
use crate::context::Context;
use crate::inside::{keep, probe, serving_certificates};
use crate::migrations;
use crate::observers::{access, beside, health};
use crate::process::metrics::Metrics;
use crate::process::timing;
use crate::sizes;

/// The running observers.
pub struct Supervisor {
    watches: Watches,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    tenants: HashMap<NamespacedName, Group>,
    stores: HashMap<String, Group>,
    secrets: HashMap<NamespacedName, Task>,
}

/// The tasks about one object.
struct Group {
    uid: String,
    /// Dropping them ends the tasks.
    _tasks: Vec<Task>,
}

/// Ends its task when dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a task that is started again when it panics.
fn start<F>(metrics: &Arc<Metrics>, work: impl Fn() -> F + Send + 'static) -> Task
where
    F: Future<Output = ()> + Send + 'static,
{
    let metrics = metrics.clone();
    let again = async move {
        for failures in 1.. {
            if AssertUnwindSafe(work()).catch_unwind().await.is_ok() {
                return;
            }
            tracing::error!("an observer panicked; it is started again");
            metrics.panic("observer");
            let (first, slowest) = timing::OBSERVER_AGAIN;
            tokio::time::sleep(timing::observer_backoff(first, slowest, failures)).await;
        }
    };
    #[allow(
        clippy::disallowed_methods,
        reason = "the supervisor is one of the places that start tasks"
    )]
    Task(tokio::spawn(again).abort_handle())
}

impl Supervisor {
    /// Without any observers.
    pub fn new(watches: Watches) -> Self {
        Self {
            watches,
            tasks: Mutex::default(),
        }
    }

    /// Brings a tenant's observers in line with the cache.
    pub fn tenant(&self, ctx: &Arc<Context>, name: &NamespacedName) {
        let uid = ctx
            .caches
            .tenants
            .get(name)
            .and_then(|tenant| tenant.metadata.uid.clone());
        let mut tasks = self.tasks.lock();
        let running = tasks.tenants.get(name).map(|group| group.uid.clone());
        if running == uid {
            // What belongs into it may have changed, which costs little to find out.
            if let Some(uid) = uid {
                let facts = ctx.facts.tenant(&uid);
                facts.wake_inside.notify_one();
                facts.wake_migration.notify_one();
            }
            return;
        }
        if let Some(gone) = running {
            tasks.tenants.remove(name);
            ctx.facts.forget_tenant(&gone);
            ctx.writes.forget(&gone);
            ctx.fleet.leave(&gone);
        }
        if let Some(uid) = uid {
            ctx.facts.enter_tenant(&uid, ctx.now());
            macro_rules! observer {
                ($run:path) => {{
                    let about = (ctx.clone(), name.clone(), uid.clone());
                    start(&ctx.metrics, move || {
                        let (ctx, name, uid) = about.clone();
                        $run(ctx, name, uid)
                    })
                }};
            }
            let tasks_of = vec![
                observer!(probe::run),
                observer!(keep::run),
                observer!(serving_certificates::run),
                observer!(access::run),
                observer!(beside::run),
                observer!(migrations::run),
                observer!(sizes::run),
            ];
            let group = Group {
                uid,
                _tasks: tasks_of,
            };
            tasks.tenants.insert(name.clone(), group);
        }
    }

    /// Brings a DataStore's observers in line with the cache.
    pub fn data_store(&self, ctx: &Arc<Context>, name: &str) {
        let store = ctx.caches.data_store(name);
        let uid = store.and_then(|store| store.metadata.uid.clone());
        let mut tasks = self.tasks.lock();
        self.secrets(ctx, &mut tasks);
        let running = tasks.stores.get(name).map(|group| group.uid.clone());
        if running == uid {
            return;
        }
        if let Some(gone) = running {
            tasks.stores.remove(name);
            ctx.facts.forget_store(&gone);
            ctx.connections.drop(&gone);
        }
        if let Some(uid) = uid {
            ctx.facts.enter_store(&uid);
            let about = (ctx.clone(), name.to_owned(), uid.clone());
            let task = start(&ctx.metrics, move || {
                let (ctx, name, uid) = about.clone();
                health::run(ctx, name, uid)
            });
            let group = Group {
                uid,
                _tasks: vec![task],
            };
            tasks.stores.insert(name.to_owned(), group);
        }
    }

    /// Watches exactly the Secrets that are referred to.
    fn secrets(&self, ctx: &Context, tasks: &mut Tasks) {
        let wanted: BTreeSet<NamespacedName> = ctx
            .caches
            .data_stores
            .all()
            .iter()
            .flat_map(|store| references(store))
            .collect();
        tasks.secrets.retain(|name, _| {
            let keep = wanted.contains(name);
            if !keep {
                ctx.caches.referenced_secrets.forget(name);
            }
            keep
        });
        for name in wanted {
            tasks.secrets.entry(name).or_insert_with_key(|name| {
                let (watches, name) = (self.watches.clone(), name.clone());
                start(&ctx.metrics, move || watches.secret(name.clone()))
            });
        }
    }

    /// Ends everything, as when another replica leads now.
    pub fn stop(&self, ctx: &Context) {
        let mut tasks = self.tasks.lock();
        for group in tasks.tenants.values() {
            ctx.facts.forget_tenant(&group.uid);
        }
        for group in tasks.stores.values() {
            ctx.facts.forget_store(&group.uid);
        }
        *tasks = Tasks::default();
    }

    /// Tenants and DataStores that are observed.
    pub fn count(&self) -> (usize, usize) {
        let tasks = self.tasks.lock();
        (tasks.tenants.len(), tasks.stores.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_observer_that_panics_is_started_again() {
        let metrics = Arc::new(Metrics::new());
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        let task = start(&metrics, move || {
            let run = counted.fetch_add(1, SeqCst);
            async move { assert!(run > 1, "a fault of ours") }
        });
        tokio::time::sleep(timing::OBSERVER_AGAIN.1).await;
        assert_eq!(runs.load(SeqCst), 3, "twice, then it ended by itself");
        assert!(
            metrics
                .encode()
                .contains("panics_total{kind=\"observer\"} 2")
        );
        drop(task);
    }
}
