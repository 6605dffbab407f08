//! A tenant's places in the DataStores of its overrides. Each is looked at as a world of its
//! own, in which the DataStore, and what is known of it, are those of the place: so everything
//! that is done for the main place is done for these by the same code.

use std::collections::BTreeMap;
use std::sync::Arc;

use apiservice::condition::{reason, tenant as condition};
use apiservice::names;
use apiservice::pki::Entropy;
use apiservice::v1alpha1::{MOST_OVERRIDING, StorageStatus, TenantControlPlane};
use k8s_openapi::api::core::v1::Secret;

use crate::cluster::kinds::{Inventory, ObjectKind};
use crate::cluster::overrides::told;
use crate::tenant::backing::backed::Backing;
use crate::tenant::backing::beside::{self, Beside, Override};
use crate::tenant::backing::{claim, store, wiring};
use crate::tenant::pki::expiry::Expiry;
use crate::tenant::plan::{ObjectKey, Plan, Step, Waiting};
use crate::tenant::world::World;
use crate::tenant::{objects, running};

/// The world as it is for one of these places.
pub fn at(world: &World, of: &Override) -> World {
    let main = claim::claim(world);
    let mut all = told(&world.tenant).iter();
    let told = all.find(|it| it.data_store_name == of.beside.data_store);
    let mut tenant = (*world.tenant).clone();
    tenant.spec.data_store = Some(of.beside.data_store.clone());
    tenant.spec.data_store_assignment = None;
    if let Some(status) = &mut tenant.status {
        status.migration = None;
        status.storage = told.map(|told| StorageStatus {
            driver: told.driver.clone(),
            data_store_name: Some(told.data_store_name.clone()),
            setup: told.setup.clone(),
            config: told.config.clone(),
            certificate: told.certificate.clone(),
            ..StorageStatus::default()
        });
    }
    World {
        beside: Some(Beside {
            prefix: main.prefix(claim::driver(world).is_through_kine()),
            ..of.beside.clone()
        }),
        tenant: Arc::new(tenant),
        assignment: None,
        data_store: of.data_store.clone(),
        data_store_unseen: of.unseen.clone(),
        store: of.store.clone(),
        deferred: of.deferred,
        elsewhere: Vec::new(),
        migration: None,
        overrides: Vec::new(),
        ..world.clone()
    }
}

/// The worlds of all of these places.
pub fn worlds(world: &World) -> Vec<World> {
    world.overrides.iter().map(|of| at(world, of)).collect()
}

/// Which of these places a deletion would take for gone, because their DataStores are not seen.
pub fn taken_for_gone(world: &World) -> Vec<usize> {
    if world.tenant.metadata.deletion_timestamp.is_none() {
        return Vec::new();
    }
    let all = world.overrides.iter().enumerate();
    all.filter(|(_, it)| it.data_store.is_none() && world.data_stores_known)
        .map(|(at, _)| at)
        .collect()
}

/// The world of the place that is claimed by this uid, if it is one of these.
pub fn claimed_by(world: &World, claimant: &str) -> Option<World> {
    let uid = world.uid();
    let mut all = world.overrides.iter();
    let of = all.find(|of| of.beside.claimant(uid) == claimant)?;
    Some(at(world, of))
}

/// Plans what each of these places needs, once the main one is granted: the keys in all of them
/// begin as there.
pub fn plan(world: &World, entropy: &Entropy, main: &mut Backing, plan: &mut Plan) {
    for of in &world.overrides {
        if !of.wanted {
            former(world, of, plan);
        } else if main.granted {
            main.overrides.push(wanted(world, of, entropy, plan));
        }
    }
}

fn wanted(world: &World, of: &Override, entropy: &Entropy, plan: &mut Plan) -> Backing {
    let view = at(world, of);
    let mut own = Plan::default();
    let mut place = match trouble(&view, of) {
        Some(waiting) => {
            own.push(Step::Wait(waiting));
            Backing::default()
        }
        None => {
            let expiry = Expiry::beside(&view);
            let place = store::plan(&view, entropy, &expiry, &mut own);
            expiry.tell(&view, &mut own, false);
            place
        }
    };
    place.beside = view.beside;
    plan.absorb(own);
    place
}

/// Why nothing can be made there.
fn trouble(view: &World, of: &Override) -> Option<Waiting> {
    let name = &of.beside.data_store;
    let waiting = |reason, message, problem| Waiting {
        condition: condition::DATA_STORE_READY,
        reason,
        message,
        problem,
        finding: None,
    };
    if of.deferred {
        let message = format!(
            "What the tenant had in DataStore {name} before is still to be removed there, as \
             status.pendingCleanups of the DataStore says"
        );
        return Some(waiting(reason::PROVISIONING, message, false));
    }
    let driver = of.data_store.as_ref()?.spec.driver;
    let needs_relay = driver.is_built() && !driver.is_through_kine();
    if needs_relay && view.settings.relay_image.is_none() {
        let message = format!(
            "DataStore {name} of an override is an etcd, which is reached through a relay, and \
             steward-controller was not told the image of that. Start it with --relay-image."
        );
        return Some(waiting(reason::DRIVER_NOT_SUPPORTED, message, true));
    }
    if needs_relay && of.data_store.as_ref()?.spec.tls_config.is_none() {
        let message = format!("DataStore {name} of an override has no tlsConfig");
        return Some(waiting(reason::TLS_CONFIGURATION_INVALID, message, true));
    }
    None
}

/// A place that the spec does not ask for any more: once no pod uses it, the DataStore has to
/// remove what is there, and the Secrets go.
fn former(world: &World, of: &Override, plan: &mut Plan) {
    if is_in_use(world, &of.beside) || of.data_store.is_none() {
        return;
    }
    let view = at(world, of);
    if !of.deferred {
        plan.push(Step::DeferDeletion {
            claim: claim::claim(&view),
            data_store: of.beside.data_store.clone(),
            known: true,
            why: NOT_WANTED.to_owned(),
        });
    }
    for name in [view.config_secret(), view.certificate_secret()] {
        let Some(secret) = world.owned.get::<Secret>(&name) else {
            continue;
        };
        let meta = &secret.metadata;
        let uid = meta.uid.clone().filter(|_| world.ours(meta));
        if let Some(uid) = uid.filter(|_| meta.deletion_timestamp.is_none()) {
            let key = ObjectKey {
                kind: ObjectKind::Secret,
                namespace: world.namespace().to_owned(),
                name,
            };
            plan.push(Step::DeleteFormer { key, uid });
        }
    }
}

/// Why a DataStore is to clean up after a tenant that lives.
const NOT_WANTED: &str = "spec.dataStoreOverrides does not name it any more";

/// Whether pods may use a place: the Deployment names it, or pods of before may be left.
fn is_in_use(world: &World, of: &Beside) -> bool {
    let Some(live) = running::live(world) else {
        return false;
    };
    if wiring::endpoints_beside(live, of).is_some() {
        return true;
    }
    let spec = live.spec.as_ref();
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let status = live.status.clone().unwrap_or_default();
    let is_seen = status.observed_generation >= live.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0);
    !is_seen || updated < replicas || status.replicas.unwrap_or(0) > updated
}

/// The places that a tenant had, and whose end was not seen to yet: its status names them, or
/// it has credentials for them.
pub fn former_of(tenant: &TenantControlPlane, owned: &Inventory) -> Vec<Beside> {
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    let wanted = beside::wanted(&tenant.spec.data_store_overrides);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for it in told(tenant) {
        found.insert(it.data_store_name.clone(), it.resources.clone());
    }
    let secrets = owned.of::<Secret>().filter(|secret| {
        let secret = &secret.metadata;
        let is_named = |of: &String| names::is_of_override(name, of);
        secret.name.as_ref().is_some_and(is_named) && objects::is_controlled_by(secret, uid)
    });
    for secret in secrets {
        let named = objects::annotation(&secret.metadata, names::ANNOTATION_DATA_STORE_NAME);
        found.extend(named.map(|named| (named.to_owned(), Vec::new())));
    }
    let former = found
        .into_iter()
        .filter(|(store, _)| !store.is_empty() && wanted.iter().all(|it| it.data_store != *store));
    let place = |(store, resources): (String, Vec<String>)| Beside {
        resources,
        ..Beside::in_store(&store, MOST_OVERRIDING)
    };
    former.map(place).take(FORMER).collect()
}

/// As many places of before are seen to at a time.
const FORMER: usize = 32;
