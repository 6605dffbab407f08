//! Owns the observers: one probe and one access check for each tenant, one
//! health check for each DataStore, one watch for each Secret that a DataStore
//! refers to. It starts and ends tasks, and knows nothing of what they find.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::{
    caches::Name,
    context::Context,
    data_store::references,
    observers::{access, probe, store},
    watches::Watches,
};

/// The running observers.
pub struct Supervisor {
    watches: Watches,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    tenants: HashMap<Name, Group>,
    stores: HashMap<String, Group>,
    secrets: HashMap<Name, Task>,
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

fn start(work: impl Future<Output = ()> + Send + 'static) -> Task {
    #[allow(
        clippy::disallowed_methods,
        reason = "the supervisor is one of the places that start tasks"
    )]
    Task(tokio::spawn(work).abort_handle())
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
    pub fn tenant(&self, ctx: &Arc<Context>, name: &Name) {
        let uid = ctx
            .caches
            .tenants
            .get(name)
            .and_then(|tenant| tenant.metadata.uid.clone());
        let mut tasks = self.tasks.lock();
        let running = tasks.tenants.get(name).map(|group| group.uid.clone());
        if running == uid {
            return;
        }
        if let Some(gone) = running {
            tasks.tenants.remove(name);
            ctx.facts.forget_tenant(&gone);
            ctx.writes.forget(&gone);
        }
        if let Some(uid) = uid {
            ctx.facts.enter_tenant(&uid);
            let tasks_of = vec![
                start(probe::run(ctx.clone(), name.clone(), uid.clone())),
                start(access::run(ctx.clone(), name.clone(), uid.clone())),
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
        let store = ctx.caches.data_stores.get(&Name::new("", name));
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
            let task = start(store::run(ctx.clone(), name.to_owned(), uid.clone()));
            let group = Group {
                uid,
                _tasks: vec![task],
            };
            tasks.stores.insert(name.to_owned(), group);
        }
    }

    /// Watches exactly the Secrets that are referred to.
    fn secrets(&self, ctx: &Context, tasks: &mut Tasks) {
        let wanted: BTreeSet<Name> = ctx
            .caches
            .data_stores
            .all()
            .iter()
            .flat_map(|store| references(store))
            .collect();
        tasks.secrets.retain(|name, _| {
            let keep = wanted.contains(name);
            if !keep {
                ctx.caches.material.forget(name);
            }
            keep
        });
        for name in wanted {
            tasks
                .secrets
                .entry(name)
                .or_insert_with_key(|name| start(self.watches.secret(name.clone())));
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
