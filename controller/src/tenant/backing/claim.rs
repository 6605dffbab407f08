//! What a tenant has claimed in a database, and what it would claim: the only names that pods
//! are given (rule 17).

use apiservice::names;
use apiservice::v1alpha1::{Driver, TenantControlPlane};
use storage::tenancy::{Claim, Stage};

use crate::cluster::chosen;
use crate::tenant::backing::beside::Beside;
use crate::tenant::backing::facts::Held;
use crate::tenant::world::World;

/// The DataStore of a tenant: the one that has its claim; until that is known,
/// what [`chosen::choose`] says.
pub fn data_store(world: &World) -> Option<String> {
    if let Some(held) = held(world) {
        return Some(held.data_store.clone());
    }
    if let Some(beside) = &world.beside {
        return Some(beside.data_store.clone());
    }
    match &world.assignment {
        Some(decided) => decided.as_ref().ok().map(|it| it.data_store.clone()),
        None => chosen::choose(&world.tenant),
    }
}

/// The claim that a database has confirmed for this uid.
pub fn held(world: &World) -> Option<&Held> {
    let held = world.store.held.as_ref();
    held.filter(|held| held.claim.uid == world.claimant())
}

/// The names in the database: those of the confirmed claim, else those that
/// the tenant wishes for. Never those in status: whoever writes it could
/// choose another tenant's (rule 17).
pub fn claim(world: &World) -> Claim {
    match (held(world), &world.beside) {
        (Some(held), _) => held.claim.clone(),
        (None, None) => wished(&world.tenant, driver(world)),
        (None, Some(beside)) => overriding(&world.tenant, beside, driver(world)),
    }
}

/// The driver of the tenant's DataStore; etcd's where there is none.
pub fn driver(world: &World) -> Driver {
    let data_store = world.data_store.as_deref();
    data_store.map_or_else(Driver::default, |store| store.spec.driver)
}

/// The names that a tenant without a claim asks for: from the spec, else made
/// from namespace and name. The user always has the uid in it: whoever had the same
/// name given before may have kept a certificate for it (rule 17).
pub fn wished(tenant: &TenantControlPlane, driver: Driver) -> Claim {
    let uid = tenant.metadata.uid.clone().unwrap_or_default();
    wished_by(tenant, uid, driver)
}

/// The names that it asks for in the DataStore of an override. All keys begin as in its main
/// place, which in etcd is the schema.
pub fn overriding(tenant: &TenantControlPlane, beside: &Beside, driver: Driver) -> Claim {
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    let wished = wished_by(tenant, beside.claimant(uid), driver);
    if driver.is_through_kine() {
        return Claim {
            prefix: Some(beside.prefix.clone()),
            ..wished
        };
    }
    let schema = beside.prefix.trim_start_matches('/');
    Claim {
        role: Some(Claim::role_of(schema, &wished.uid)),
        schema: schema.to_owned(),
        ..wished
    }
}

fn wished_by(tenant: &TenantControlPlane, uid: String, driver: Driver) -> Claim {
    let limits = driver.name_limits();
    let meta = &tenant.metadata;
    let namespace = meta.namespace.clone().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let schema = given(&tenant.spec.data_store_schema)
        .unwrap_or_else(|| names::schema_within(&namespace, &name, limits));
    Claim {
        stage: Stage::Serving,
        // In etcd it follows from the schema. Behind kine it could be any; with this one,
        // values that are encrypted for their keys can be moved to etcd as they are.
        prefix: driver.is_through_kine().then(|| format!("/{schema}")),
        user: match given(&tenant.spec.data_store_username) {
            Some(given) => names::user(&given, &uid, limits),
            None => names::default_user(&namespace, &name, &uid, limits),
        },
        role: Some(Claim::role_of(&schema, &uid)),
        replicas: None,
        uid,
        schema,
        namespace,
        name,
    }
}

/// The names under which the data of a tenant is brought from where it has `claim` to a
/// DataStore of another driver, or the same: those that it wishes for there, with the keys
/// as they are.
pub fn moved(tenant: &TenantControlPlane, claim: &Claim, from: Driver, to: Driver) -> Claim {
    let prefix = claim.prefix(from.is_through_kine());
    let wished = Claim {
        stage: Stage::Incoming,
        ..wished(tenant, to)
    };
    if to.is_through_kine() {
        return Claim {
            prefix: Some(prefix),
            ..wished
        };
    }
    // The prefix of all who have none of their own.
    let own = prefix.strip_prefix('/');
    let own = own.filter(|own| !own.is_empty() && !own.contains('/') && *own != "registry");
    match own {
        Some(schema) => Claim {
            role: Some(Claim::role_of(schema, &wished.uid)),
            schema: schema.to_owned(),
            ..wished
        },
        None => wished,
    }
}
