//! The tenant's place in a DataStore: which one, under which names, with which
//! credentials (features 4, rule 17, rule 21).

use std::collections::BTreeMap;

use apiservice::condition::{reason, tenant as condition};
use apiservice::names::{self, key};
use apiservice::pki::{Entropy, Pair, Usage};
use apiservice::v1alpha1::{DataStore, Driver, StorageStatus, TenantControlPlane};

use super::address::AlternativeNames;
use super::certificates::{self, Wish};
use super::objects::Data;
use super::plan::{Claim, Plan, Step, Waiting};
use super::world::{AccessFact, MaterialFact, Settings, StoreProblem, StoreProblemKind, World};

/// What the workload needs to know about the tenant's data.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Name of the DataStore.
    pub data_store: Option<String>,
    /// `host:port` of the database; empty if the DataStore is not there.
    pub endpoints: Vec<String>,
    /// Database, bucket or key prefix.
    pub schema: String,
    /// The tenant's user in the database.
    pub user: String,
    /// Checksums of the two Secrets, if they are there or planned.
    pub config_checksum: Option<String>,
    /// The second of them.
    pub certificate_checksum: Option<String>,
    /// The tenant has its rights in the database, or gets them before the
    /// Deployment is written.
    pub granted: bool,
}

/// The DataStore of a tenant: the one where its data is, else the one that the
/// spec names, else the default.
pub fn choose(tenant: &TenantControlPlane, settings: &Settings) -> Option<String> {
    let settled = storage(tenant).filter(|storage| {
        storage
            .setup
            .as_ref()
            .is_some_and(|setup| setup.schema.is_some())
    });
    settled
        .and_then(|storage| storage.data_store_name.clone())
        .or_else(|| {
            tenant
                .spec
                .data_store
                .clone()
                .filter(|name| !name.is_empty())
        })
        .or_else(|| settings.default_data_store.clone())
}

/// The names in the database: from status first, because that is where the
/// data is, then from the spec, then made from namespace and name. A claim in
/// the database outranks them all (rule 17).
pub fn claim(tenant: &TenantControlPlane) -> Claim {
    let meta = &tenant.metadata;
    let namespace = meta.namespace.clone().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    let setup = storage(tenant).and_then(|storage| storage.setup.as_ref());
    let schema = setup
        .and_then(|setup| setup.schema.clone())
        .or_else(|| {
            tenant
                .spec
                .data_store_schema
                .clone()
                .filter(|name| !name.is_empty())
        })
        .unwrap_or_else(|| names::default_schema(&namespace, &name));
    let user = setup
        .and_then(|setup| setup.user.clone())
        .or_else(|| {
            tenant
                .spec
                .data_store_username
                .clone()
                .filter(|name| !name.is_empty())
        })
        .unwrap_or_else(|| names::default_user(&namespace, &name));
    Claim {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace,
        name,
        schema,
        user,
    }
}

fn storage(tenant: &TenantControlPlane) -> Option<&StorageStatus> {
    tenant.status.as_ref()?.storage.as_ref()
}

/// Whether the grant was ever recorded for this tenant.
pub fn settled(tenant: &TenantControlPlane) -> bool {
    let setup = storage(tenant).and_then(|storage| storage.setup.as_ref());
    setup.is_some_and(|setup| setup.schema.is_some())
}

/// Plans claim, grant, credentials and client certificate.
pub fn plan(world: &World, entropy: &Entropy, plan: &mut Plan) -> Place {
    let claim = claim(&world.tenant);
    let mut place = Place {
        data_store: choose(&world.tenant, &world.settings),
        schema: claim.schema.clone(),
        user: claim.user.clone(),
        ..Place::default()
    };
    let data_store = match usable(world, place.data_store.as_deref()) {
        Ok(data_store) => data_store,
        Err(waiting) => {
            plan.push(Step::Wait(waiting));
            return place;
        }
    };
    place.endpoints = data_store.spec.endpoints.clone();
    place.granted = grant(world, plan, claim.clone());
    if place.granted {
        place.config_checksum = Some(config(world, plan, &claim));
        place.certificate_checksum = certificate(world, entropy, plan, &claim);
    }
    place
}

/// The DataStore, if a tenant can be placed there.
fn usable<'a>(world: &'a World, name: Option<&str>) -> Result<&'a DataStore, Waiting> {
    let Some(name) = name else {
        return Err(waiting(
            reason::DATA_STORE_NOT_SET,
            "No DataStore is named and the operator has no default. Set spec.dataStore.".to_owned(),
            true,
        ));
    };
    let Some(data_store) = world.data_store.as_deref() else {
        let (message, problem) = if world.data_stores_known {
            (
                format!("DataStore {name} does not exist. Create it or set spec.dataStore."),
                true,
            )
        } else {
            ("DataStores are being read".to_owned(), false)
        };
        let reason = if problem {
            reason::DATA_STORE_NOT_FOUND
        } else {
            reason::PROVISIONING
        };
        return Err(waiting(reason, message, problem));
    };
    match data_store.spec.driver {
        Driver::Etcd => Ok(data_store),
        other => Err(waiting(
            reason::DRIVER_NOT_SUPPORTED,
            format!(
                "DataStore {name} has driver {}, which this version does not run yet. Use one of \
                 driver etcd.",
                other.as_str()
            ),
            true,
        )),
    }
}

/// Plans what is missing of claim and grant; whether the tenant will hold its
/// rights once the plan is carried out.
fn grant(world: &World, plan: &mut Plan, claim: Claim) -> bool {
    let missing = match &world.store.access {
        Some(AccessFact::Granted) => false,
        Some(AccessFact::Taken { by }) => {
            plan.push(Step::Wait(waiting(
                reason::SCHEMA_TAKEN,
                format!(
                    "Schema {} or user {} belongs to {by}. {OTHER_NAMES}",
                    claim.schema, claim.user
                ),
                true,
            )));
            return false;
        }
        Some(AccessFact::Refused(why)) => {
            plan.push(Step::Wait(waiting(reason::NAME_REFUSED, why.clone(), true)));
            return false;
        }
        Some(AccessFact::Revoked(_)) => true,
        // The observer will say; until then the record is believed.
        None => !settled(&world.tenant),
    };
    if let Some(trouble) = trouble(world) {
        plan.push(Step::Wait(trouble));
        return !missing;
    }
    if missing {
        if matches!(world.store.material, MaterialFact::Unknown) {
            plan.push(Step::Wait(waiting(
                reason::PROVISIONING,
                "The DataStore's Secrets are being read".to_owned(),
                false,
            )));
            return false;
        }
        plan.push(Step::Grant(claim));
    }
    true
}

/// Why nothing can be done in the database now.
fn trouble(world: &World) -> Option<Waiting> {
    if let MaterialFact::Missing { what, remedy } = &world.store.material {
        return Some(waiting(
            reason::SECRET_NOT_FOUND,
            format!("{what}: {remedy}."),
            true,
        ));
    }
    match &world.store.health {
        Some(Err(problem)) => Some(explain(world, problem)),
        _ => None,
    }
}

/// What to do about names that somebody else holds.
const OTHER_NAMES: &str = "Set spec.dataStoreSchema and spec.dataStoreUsername to other names; \
                           where they are set already, in a new TenantControlPlane.";

/// A step in the database that failed, in the words that the next pass will
/// have for it, so that the first event about it says what to do.
pub fn explain_failure(world: &World, reason: &str, message: &str) -> Option<Waiting> {
    if reason == reason::SCHEMA_TAKEN {
        let message = format!("{}. {OTHER_NAMES}", message.trim_end_matches('.'));
        return Some(waiting(reason::SCHEMA_TAKEN, message, true));
    }
    let kinds = [
        StoreProblemKind::Unreachable,
        StoreProblemKind::Unauthenticated,
        StoreProblemKind::Full,
        StoreProblemKind::Insecure,
    ];
    kinds
        .map(|kind| StoreProblem {
            kind,
            message: message.to_owned(),
        })
        .iter()
        .map(|problem| explain(world, problem))
        .find(|told| told.reason == reason)
}

/// A database's trouble in the words of a condition.
pub fn explain(world: &World, problem: &StoreProblem) -> Waiting {
    let name = choose(&world.tenant, &world.settings).unwrap_or_default();
    let (reason, remedy) = match problem.kind {
        StoreProblemKind::Unreachable => (
            reason::DATA_STORE_UNREACHABLE,
            "Check that it runs and that spec.endpoints of the DataStore lead to it",
        ),
        StoreProblemKind::Unauthenticated => (
            reason::DATA_STORE_UNAUTHORIZED,
            "Check the credentials that the DataStore refers to",
        ),
        StoreProblemKind::Full => (
            reason::DATA_STORE_FULL,
            "Compact and defragment it or raise its quota, then disarm the alarm",
        ),
        StoreProblemKind::Insecure => (
            reason::AUTHENTICATION_DISABLED,
            "Turn authentication on: without it, tenants could read each other",
        ),
        StoreProblemKind::Unhealthy => (reason::DATA_STORE_NOT_READY, "Look at its log"),
    };
    waiting(
        reason,
        format!(
            "DataStore {name}: {}. {remedy}.",
            problem.message.trim_end_matches('.')
        ),
        true,
    )
}

/// The credentials Secret. etcd knows the user by its certificate, so there is
/// neither an address nor a password in it.
fn config(world: &World, plan: &mut Plan, claim: &Claim) -> String {
    let data: Data = BTreeMap::from([
        (key::DB_CONNECTION_STRING.to_owned(), Vec::new()),
        (key::DB_SCHEMA.to_owned(), claim.schema.clone().into_bytes()),
        (key::DB_USER.to_owned(), claim.user.clone().into_bytes()),
        (key::DB_PASSWORD.to_owned(), Vec::new()),
    ]);
    let name = names::datastore_config(world.name());
    let checksum = super::objects::checksum(&data);
    let wanted = super::objects::secret(world, &name, names::component::DATASTORE_CONFIG, data);
    let live = world.owned.secrets.get(&name).map(AsRef::as_ref);
    let live = live.map(|live| (&live.metadata, live));
    super::objects::keep(world, plan, super::plan::Object::Secret(wanted), live);
    checksum
}

/// The client certificate: the user's name, no organization, no use but that
/// of a client (rule 21).
fn certificate(world: &World, entropy: &Entropy, plan: &mut Plan, claim: &Claim) -> Option<String> {
    let name = names::datastore_certificate(world.name());
    // Names in status or spec do not outrank a claim (rule 17): a certificate is
    // signed only for a user that is known to be this tenant's.
    let claimed = world.store.access == Some(AccessFact::Granted)
        || plan.steps.iter().any(|step| matches!(step, Step::Grant(_)));
    let (MaterialFact::Known(material), true) = (&world.store.material, claimed) else {
        // What is there keeps serving until that is known.
        return world
            .secret(&name)
            .map(|live| super::objects::checksum(&super::objects::data(live)));
    };
    let Some(authority_key) = &material.authority_key else {
        plan.push(Step::Wait(waiting(
            reason::TLS_CONFIGURATION_INVALID,
            "The DataStore has no key of its authority, so no client certificate can be signed. \
             Set spec.tlsConfig.certificateAuthority.privateKey."
                .to_owned(),
            true,
        )));
        return None;
    };
    let authority = Pair {
        cert: material.authority.clone(),
        key: authority_key.clone(),
    };
    let wish = Wish {
        secret: name,
        component: names::component::DATASTORE_CERTIFICATE,
        part: "datastore-certificate",
        crt: key::DATASTORE_CRT,
        key: key::DATASTORE_KEY,
        beside: Data::from([(
            key::CA_CRT.to_owned(),
            material.authority.clone().into_bytes(),
        )]),
        authority: &authority,
        subject: certificates::subject(&claim.user, &[]),
        usage: Usage::Client,
        names: AlternativeNames::default(),
    };
    certificates::keep(world, entropy, plan, &wish)
}

fn waiting(reason: &'static str, message: String, problem: bool) -> Waiting {
    Waiting {
        condition: condition::DATA_STORE_READY,
        reason,
        message,
        problem,
    }
}
