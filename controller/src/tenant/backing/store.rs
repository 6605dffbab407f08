//! The tenant's place in a DataStore: which one, under which names, with which
//! credentials (features 4, rule 17, rule 21).

use std::collections::BTreeMap;

use apiservice::assignment::{Assigned, Unassigned};
use apiservice::condition::{reason, tenant as condition};
use apiservice::names::{self, key};
use apiservice::pki::{Entropy, Pair, Usage};
use apiservice::v1alpha1::{DataStore, Driver, TenantControlPlane, TenantControlPlaneStatus};

use crate::cluster::chosen;
use crate::cluster::kinds::Inventory;
use crate::cluster::overrides::claimant;
use crate::tenant::backing::backed::{Backing, Files};
use crate::tenant::backing::beside::Beside;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::{
    AccessFact, CredentialsFact, StoreCredentials, StoreProblem, StoreProblemKind,
};
use crate::tenant::backing::{drivers, moving, password, settings};
use crate::tenant::network::names::AlternativeNames;
use crate::tenant::objects::{self, Data};
use crate::tenant::pki::certificates::{self, LeafSpec};
use crate::tenant::pki::expiry::Expiry;
use crate::tenant::plan::{Claim, EventStep, Grant, Plan, Step, Waiting};
use crate::tenant::ran;
use crate::tenant::world::World;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use storage::tenancy::{Password, Stage};

/// Whether there is a trace of a claim: status says so, or what is made right after
/// the grant is there. A tenant without one has nothing in any database but the one
/// where it would have begun.
pub fn may_have_claimed(tenant: &TenantControlPlane, owned: &Inventory) -> bool {
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    let ours = |meta: &ObjectMeta| objects::is_controlled_by(meta, uid);
    let secrets = [
        names::datastore_config(name),
        names::datastore_certificate(name),
    ];
    let mut found = secrets.iter().filter_map(|name| owned.get::<Secret>(name));
    // Secrets are removed first, and the Deployment is only ever made after them.
    let deployment = owned.get::<Deployment>(&names::workload(name));
    chosen::settled(tenant)
        || ran::was_ready(tenant, owned)
        || found.any(|secret| ours(&secret.metadata))
        || deployment.is_some_and(|deployment| ours(&deployment.metadata))
}

/// Whether a database has something of this tenant, as far as that is known: its claim
/// was found, or status names the user that was made there. Where there is no claim then,
/// it is not because it was released: [`note_empty`] comes before that.
pub fn has_data(world: &World) -> bool {
    let setup = chosen::storage(&world.tenant).and_then(|storage| storage.setup.as_ref());
    match setup {
        Some(setup) if setup.schema.is_some() => setup.user.is_some(),
        _ => claim::held(world).is_some(),
    }
}

/// Notes in the status of a tenant that nothing is left of the user and its data; the schema is
/// claimed for as long as the status goes on to name it.
pub fn note_empty(status: &mut TenantControlPlaneStatus, uid: &str, claim: &Claim) {
    let storage = status.storage.get_or_insert_default();
    if claim.uid != uid {
        for place in &mut storage.overrides {
            if claimant(uid, &place.data_store_name) == claim.uid
                && let Some(setup) = &mut place.setup
            {
                setup.user = None;
            }
        }
        return;
    }
    let setup = storage.setup.get_or_insert_default();
    setup.schema.get_or_insert_with(|| claim.schema.clone());
    setup.user = None;
}

/// Plans claim, grant, credentials and client certificate.
pub fn plan(world: &World, entropy: &Entropy, expiry: &Expiry, plan: &mut Plan) -> Backing {
    let claim = claim::claim(world);
    let mut place = Backing {
        data_store: claim::data_store(world),
        schema: claim.schema.clone(),
        user: claim.user.clone(),
        ..Backing::default()
    };
    if let Some(decided) = &world.assignment {
        assigned(world, decided, plan);
        return place;
    }
    let data_store = match usable(world, place.data_store.as_deref()) {
        Ok(data_store) => data_store,
        Err(waiting) => {
            plan.push(Step::Wait(waiting));
            return place;
        }
    };
    let name = place.data_store.clone().unwrap_or_default();
    let settings = settings::choose(
        world,
        &name,
        data_store.spec.driver.endpoints(&data_store.spec.endpoints),
        plan,
    );
    place.driver = data_store.spec.driver;
    place.prefix = claim.prefix(place.driver.is_through_kine());
    place.files = match settings.kept {
        true => files_there(world),
        false => files(data_store),
    };
    let password = password::of(world, place.driver, entropy);
    if password.is_none() && place.driver.has_passwords() {
        plan.push(Step::Wait(unusable_password(world)));
        place.endpoints = settings.endpoints;
        place.granted = claim::held(world).is_some();
        return place;
    }
    place.granted = grant(world, plan, &claim, password.as_ref());
    place.anew = place.granted && matches!(world.store.access, Some(AccessFact::Lost(_)));
    if place.granted {
        if place.driver.has_passwords() && password::is_replaced(world) {
            plan.push(Step::Event(password_replaced(world)));
        }
        let first = settings.endpoints.first();
        place.config_checksum = Some(config(world, plan, &claim, password.as_ref(), first));
        place.certificate_checksum =
            certificate(world, entropy, expiry, plan, &claim, settings.kept);
    }
    place.endpoints = settings.endpoints;
    place.settings = settings.fingerprint;
    place
}

/// A pass that assigns a DataStore does nothing else with it: nothing is claimed before
/// the status says where.
fn assigned(world: &World, decided: &Result<Assigned, Unassigned>, plan: &mut Plan) {
    match decided {
        Ok(decided) => {
            plan.push(Step::Event(EventStep {
                warning: false,
                reason: reason::DATA_STORE_ASSIGNED,
                message: decided.message.clone(),
            }));
            let message = decided.message.clone();
            plan.push(Step::Wait(waiting(reason::PROVISIONING, message, false)));
        }
        Err(Unassigned(why)) => {
            let message = format!(
                "{why} Provide a DataStore that can take the tenant, or name one in \
                 spec.dataStore."
            );
            // Room is also made by what no DataStore tells of.
            let again = jiff::SignedDuration::from_secs(30);
            plan.revisit_at(world.now.checked_add(again).unwrap_or(world.now));
            plan.push(Step::Wait(waiting(
                reason::DATA_STORE_NOT_ASSIGNED,
                message,
                true,
            )));
        }
    }
}

/// The DataStore, if a tenant can be placed there.
fn usable<'a>(world: &'a World, name: Option<&str>) -> Result<&'a DataStore, Waiting> {
    let Some(name) = name else {
        return Err(waiting(
            reason::PROVISIONING,
            "The DataStores are asked which of them has the tenant's data".to_owned(),
            false,
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
    // Whose data is there, or may be, stays until its deletion.
    let is_new = claim::held(world).is_none() && !chosen::settled(&world.tenant);
    if data_store.metadata.deletion_timestamp.is_some() && is_new {
        let message = format!(
            "DataStore {name} is being deleted and takes no new tenants. Set spec.dataStore to \
             another one."
        );
        return Err(waiting(reason::DATA_STORE_NOT_READY, message, true));
    }
    let driver = data_store.spec.driver;
    if driver.is_built() {
        return Ok(data_store);
    }
    Err(waiting(
        reason::DRIVER_NOT_SUPPORTED,
        format!(
            "DataStore {name} has driver {}, which this version does not run yet. Use one of \
             driver {}.",
            driver.as_str(),
            Driver::BUILT
        ),
        true,
    ))
}

/// What the pods of a tenant are given to reach the database safely. A client
/// certificate is signed for the tenant where there is a key of the authority, and else
/// it is a copy of ours.
fn files(data_store: &DataStore) -> Files {
    let tls = data_store.spec.tls_config.as_ref();
    Files {
        authority: tls.is_some(),
        client: tls.is_some_and(|tls| {
            tls.client_certificate.is_some() || tls.certificate_authority.private_key.is_some()
        }),
    }
}

/// What the pods of a tenant were given, while they keep the settings of before.
fn files_there(world: &World) -> Files {
    let secret = world.secret(&world.certificate_secret());
    let data = secret.and_then(|secret| secret.data.as_ref());
    let has = |key: &str| data.is_some_and(|data| data.contains_key(key));
    Files {
        authority: has(key::CA_CRT),
        client: has(key::DATASTORE_CRT),
    }
}

/// Plans what is missing of claim and grant; whether the tenant will hold its
/// rights once the plan is carried out.
fn grant(world: &World, plan: &mut Plan, claim: &Claim, password: Option<&Password>) -> bool {
    let confirmed = claim::held(world).is_some();
    // Whoever moves the data has taken the right to write, and gives it back.
    if confirmed && (moving::is_frozen(world) || claim.stage == Stage::Frozen) {
        return true;
    }
    // Whether a claim of ours is somewhere that has not been found yet: the
    // observer finds it. Until then no names are known, and what is there keeps
    // what it has.
    let mut unknown = false;
    let missing = match &world.store.access {
        Some(AccessFact::Taken { by }) => {
            plan.push(Step::Wait(taken(world, by)));
            return false;
        }
        Some(AccessFact::Refused(why)) => {
            plan.push(Step::Wait(waiting(reason::NAME_REFUSED, why.clone(), true)));
            return false;
        }
        Some(AccessFact::Revoked(_)) => true,
        Some(AccessFact::Unclaimed) if may_start_empty(world) => true,
        Some(AccessFact::Unclaimed) => {
            let name = claim::data_store(world).unwrap_or_default();
            plan.push(Step::Wait(data_not_found(world, &name)));
            return false;
        }
        Some(AccessFact::Lost(_)) if may_start_empty(world) => true,
        Some(AccessFact::Lost(what)) => {
            plan.push(Step::Wait(data_lost(world, what)));
            return false;
        }
        // Its Secret has another password than the one with which it was let in.
        Some(AccessFact::Granted) if confirmed => password::is_another(world, password),
        None if confirmed => password.is_some() && password::is_new(world),
        Some(AccessFact::Granted) => {
            unknown = true;
            false
        }
        None => {
            unknown = chosen::settled(&world.tenant);
            !unknown
        }
    };
    if let Some(trouble) = trouble(world) {
        plan.push(Step::Wait(trouble));
        return !missing && !unknown;
    }
    if missing {
        if matches!(world.store.credentials, CredentialsFact::Unknown) {
            plan.push(Step::Wait(waiting(
                reason::PROVISIONING,
                "The DataStore's Secrets are being read".to_owned(),
                false,
            )));
            return false;
        }
        plan.push(Step::Grant(Grant {
            claim: claim.clone(),
            password: password.cloned(),
        }));
    }
    !unknown
}

/// Whether a claim may be made where there is none. A tenant that was Ready has data
/// somewhere: in an empty database its API server would find no objects, and the nodes
/// would end what runs there.
///
/// Where nothing but events are kept, nobody misses them.
pub fn may_start_empty(world: &World) -> bool {
    let of_events = world.beside.as_ref().is_some_and(Beside::is_of_events);
    of_events || !world.was_ready() || is_to_start_empty(&world.tenant)
}

/// Whether somebody had a tenant begin anew.
pub fn is_to_start_empty(tenant: &TenantControlPlane) -> bool {
    let asked = objects::annotation(&tenant.metadata, names::ANNOTATION_START_EMPTY);
    asked.is_some() && asked == tenant.metadata.uid.as_deref()
}

/// The database is not the one with this tenant's data.
pub fn data_not_found(world: &World, name: &str) -> Waiting {
    let message = format!(
        "DataStore {name} knows nothing of this tenant, which was Ready: it leads to another \
         database than the one with its data, or to an older state of it. Nothing is made there. \
         Correct the DataStore or restore its database; to begin with an empty one, annotate \
         the tenant with {}={}.",
        names::ANNOTATION_START_EMPTY,
        world.uid()
    );
    waiting(reason::DATA_NOT_FOUND, message, true)
}

/// The claim is there, and the data is not.
pub fn data_lost(world: &World, what: &str) -> Waiting {
    let name = claim::data_store(world).unwrap_or_default();
    let message = format!(
        "DataStore {name} has lost the data of this tenant, which was Ready: {what}. Nothing is \
         made in its place. Restore it; to begin with an empty one, annotate the tenant with \
         {}={}.",
        names::ANNOTATION_START_EMPTY,
        world.uid()
    );
    waiting(reason::DATA_NOT_FOUND, message, true)
}

/// Why nothing can be done in the database now.
fn trouble(world: &World) -> Option<Waiting> {
    if let CredentialsFact::Missing { what, remedy } = &world.store.credentials {
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

/// Who a tenant of the same name was.
fn former(world: &World) -> String {
    let meta = &world.tenant.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&meta.namespace), text(&meta.name))
}

/// How a step in the database says that names are another tenant's; then by whom
/// (`NAMESPACE/NAME (UID)`).
pub const TAKEN: &str = "schema or user belongs to ";

/// Names that `by` (`NAMESPACE/NAME (UID)`) holds. Who may see this tenant need not be told
/// of those in other namespaces: the controller's log names them.
pub fn taken(world: &World, by: &str) -> Waiting {
    let claim = claim::claim(world);
    let (holder, remedy) = if by.starts_with(&format!("{} (", former(world))) {
        match by.ends_with(&format!("({})", world.uid())) || world.beside.is_some() {
            true => (by, SAME_DATABASE),
            false => (by, FORMER_GOES),
        }
    } else if by.starts_with(&format!("{}/", world.namespace())) {
        (by, OTHER_NAMES)
    } else {
        ("a tenant control plane of another namespace", OTHER_NAMES)
    };
    let message = format!(
        "Schema {} or user {} belongs to {holder}. {remedy}",
        claim.schema, claim.user
    );
    waiting(reason::SCHEMA_TAKEN, message, true)
}

/// The former tenant of the name is being cleaned up after, which may wait for its
/// DataStore; other names would stay.
const FORMER_GOES: &str = "That was the tenant of this name before: it is given back when what \
                           was its is removed, for which status.pendingCleanups of the \
                           DataStore may still wait. There is nothing to set.";

/// A tenant has its places under one name in all databases.
const SAME_DATABASE: &str = "DataStores of spec.dataStoreOverrides may not lead to the database of \
                             another of them, or of the tenant's own DataStore. A tenant of this \
                             name before may also not be cleaned up after yet, as \
                             status.pendingCleanups of the DataStore says.";

/// What to do about a schema that somebody else holds. The user, which has the uid in
/// it, is nobody else's.
const OTHER_NAMES: &str = "Set spec.dataStoreSchema to another name; where it is set already, in \
                           a new TenantControlPlane.";

/// A step in the database that failed, in the words that the next pass will
/// have for it, so that the first event about it says what to do.
pub fn explain_failure(world: &World, reason: &str, message: &str) -> Option<Waiting> {
    if reason == reason::SCHEMA_TAKEN {
        let by = message.strip_prefix(TAKEN).unwrap_or_default();
        return Some(taken(world, by.trim_end_matches('.')));
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
    let name = claim::data_store(world).unwrap_or_default();
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
            drivers::row(claim::driver(world)).remedy_of_full,
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

/// Whoever typed it would believe that it is in use.
fn password_replaced(world: &World) -> EventStep {
    EventStep {
        warning: true,
        reason: reason::PASSWORD_REPLACED,
        message: format!(
            "DB_PASSWORD in Secret {} could not be used (12 to 128 letters, digits and -._~): \
             another one was made.",
            world.config_secret()
        ),
    }
}

/// What somebody paused is not put right.
fn unusable_password(world: &World) -> Waiting {
    let message = format!(
        "Secret {} has no password that can be used (12 to 128 letters, digits and -._~), and is \
         paused, so that none is made. Set DB_PASSWORD in it, or take its annotation {} away.",
        world.config_secret(),
        names::ANNOTATION_PAUSED
    );
    waiting(reason::SECRET_NOT_FOUND, message, true)
}

/// The credentials Secret. etcd knows the user by its certificate, so there is
/// neither an address nor a password in it.
fn config(
    world: &World,
    plan: &mut Plan,
    claim: &Claim,
    password: Option<&Password>,
    first: Option<&String>,
) -> String {
    let address = first.filter(|_| password.is_some()).cloned();
    let secret = password.map(|it| it.expose().as_bytes().to_vec());
    let mut data: Data = BTreeMap::from([
        (
            key::DB_CONNECTION_STRING.to_owned(),
            address.unwrap_or_default().into_bytes(),
        ),
        (key::DB_SCHEMA.to_owned(), claim.schema.clone().into_bytes()),
        (key::DB_USER.to_owned(), claim.user.clone().into_bytes()),
        (key::DB_PASSWORD.to_owned(), secret.unwrap_or_default()),
    ]);
    let kine = drivers::row(claim::driver(world)).kine.as_ref();
    let file = kine.and_then(|kine| kine.credentials);
    if let (Some(file), Some(password)) = (file, password)
        && let Some(content) = (file.make)(claim, password)
    {
        data.insert(file.key.to_owned(), content.into_bytes());
    }
    let name = world.config_secret();
    if let Some(checksum) = crate::tenant::objects::paused_checksum(world, &name) {
        return checksum;
    }
    let checksum = crate::tenant::objects::checksum(&data);
    let mut wanted =
        crate::tenant::objects::secret(world, &name, names::component::DATASTORE_CONFIG, data);
    if let Some(beside) = &world.beside {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        let name = beside.data_store.clone();
        annotations.insert(names::ANNOTATION_DATA_STORE_NAME.to_owned(), name);
    }
    let live = world.owned.get::<Secret>(&name).map(AsRef::as_ref);
    let live = live.map(|live: &Secret| (&live.metadata, live));
    crate::tenant::objects::keep(
        world,
        plan,
        crate::tenant::plan::Object::Secret(wanted),
        live,
    );
    checksum
}

/// The client certificate: the user's name, no organization, no use but that
/// of a client (rule 21).
///
/// Where the settings are those of before (`kept`), a certificate of another authority and
/// another copy of ours are among the things that wait.
fn certificate(
    world: &World,
    entropy: &Entropy,
    expiry: &Expiry,
    plan: &mut Plan,
    claim: &Claim,
    kept: bool,
) -> Option<String> {
    let name = world.certificate_secret();
    let there = || {
        let live = world.secret(&name);
        live.map(|live| crate::tenant::objects::checksum(&crate::tenant::objects::data(live)))
    };
    // Names in status or spec do not outrank a claim (rule 17): a certificate is
    // signed only for a user that is known to be this tenant's.
    let claimed = world.store.access == Some(AccessFact::Granted)
        || plan.steps.iter().any(|step| matches!(step, Step::Grant(_)));
    let (CredentialsFact::Known(credentials), true) = (&world.store.credentials, claimed) else {
        // What is there keeps serving until that is known.
        return there();
    };
    let trusted = world
        .secret(&name)
        .and_then(|live| crate::tenant::objects::text(live, key::CA_CRT));
    let is_copy = claim::driver(world).has_passwords() && credentials.authority_key.is_none();
    let waits = kept && (is_copy || trusted.as_ref() != Some(&credentials.authority));
    // If nothing is there, what is known now is better than nothing.
    if waits && let Some(checksum) = there() {
        return Some(checksum);
    }
    if is_copy {
        return Some(copied(world, plan, &name, credentials));
    }
    let Some(authority_key) = &credentials.authority_key else {
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
        cert: credentials.authority.clone(),
        key: authority_key.clone(),
    };
    let wish = LeafSpec {
        secret: name,
        component: names::component::DATASTORE_CERTIFICATE,
        part: "datastore-certificate",
        crt: key::DATASTORE_CRT,
        key: key::DATASTORE_KEY,
        beside: Data::from([(
            key::CA_CRT.to_owned(),
            credentials.authority.clone().into_bytes(),
        )]),
        authority: &authority,
        subject: certificates::subject(&claim.user, &[]),
        usage: Usage::Client,
        names: AlternativeNames::default(),
        needed: AlternativeNames::default(),
        copied_to: None,
    };
    certificates::keep(world, entropy, expiry, plan, &wish)
}

/// The Secret where nobody is signed for: the authority, and a copy of our own client
/// certificate. It opens nothing without a password; a database where it does is one that
/// does not keep tenants apart (`storage::tenancy`).
fn copied(world: &World, plan: &mut Plan, name: &str, credentials: &StoreCredentials) -> String {
    if let Some(checksum) = crate::tenant::objects::paused_checksum(world, name) {
        return checksum;
    }
    let mut data = Data::new();
    if !credentials.authority.is_empty() {
        let authority = credentials.authority.clone().into_bytes();
        data.insert(key::CA_CRT.to_owned(), authority);
    }
    if let Some(client) = &credentials.client {
        let pair = [
            (key::DATASTORE_CRT, &client.cert),
            (key::DATASTORE_KEY, &client.key),
        ];
        data.extend(pair.map(|(key, pem)| (key.to_owned(), pem.clone().into_bytes())));
    }
    let checksum = crate::tenant::objects::checksum(&data);
    let component = names::component::DATASTORE_CERTIFICATE;
    let wanted = crate::tenant::objects::secret(world, name, component, data);
    let live = world.owned.get::<Secret>(name).map(AsRef::as_ref);
    let live = live.map(|live: &Secret| (&live.metadata, live));
    let wanted = crate::tenant::plan::Object::Secret(wanted);
    crate::tenant::objects::keep(world, plan, wanted, live);
    checksum
}

fn waiting(reason: &'static str, message: String, problem: bool) -> Waiting {
    Waiting {
        condition: condition::DATA_STORE_READY,
        reason,
        message,
        problem,
        finding: None,
    }
}
