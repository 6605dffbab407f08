//! A tenant's own authorities and its service-account keys: what everything
//! else of it is signed by.
//!
//! They are made once. When one is lost or broken before the tenant was ever
//! Ready it is made again; afterwards only on request, because every node and
//! every client trusts the old one (rule 19).

use apiservice::condition::{reason, tenant as condition};
use apiservice::names::{self, key};
use apiservice::pki::{self, Entropy, Pair, Validity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;

use crate::cluster::kinds::ObjectKind;
use crate::tenant::objects::{self, Data, Standing};
use crate::tenant::pki::terms::{AUTHORITY_LIFE, SKEW};
use crate::tenant::plan::{EventStep, Object, ObjectKey, Plan, Step, Waiting};
use crate::tenant::workload::versions;
use crate::tenant::world::World;

/// What signs a tenant's certificates; `None` where it is lost or not ours.
#[derive(Clone, Default)]
pub struct Authorities {
    /// Signs the API server, its clients and the kubeconfigs.
    pub cluster: Option<Pair>,
    /// Signs the API server as a front proxy.
    pub front_proxy: Option<Pair>,
    /// Checksums of the Secrets that pods mount, by the names of features 1.7.
    pub checksums: Vec<(&'static str, String)>,
    /// Everything is there or being written in this pass.
    pub complete: bool,
}

/// From a little before now until `life` from now.
pub fn validity(now: Timestamp, life: SignedDuration) -> Validity {
    Validity {
        not_before: now.checked_sub(SKEW).unwrap_or(now),
        not_after: now.checked_add(life).unwrap_or(Timestamp::MAX),
    }
}

/// Keeps all four.
pub fn plan(world: &World, entropy: &Entropy, plan: &mut Plan) -> Authorities {
    let mut lost = Vec::new();
    let cluster = authority(world, entropy, plan, &CLUSTER, &mut lost);
    let front_proxy = authority(world, entropy, plan, &FRONT_PROXY, &mut lost);
    let client = authority(world, entropy, plan, &CLIENT, &mut lost);
    let accounts = service_account(world, entropy, plan, &mut lost);
    if !lost.is_empty() {
        plan.push(Step::Wait(told(world, &lost)));
    }

    let mut found = Authorities::default();
    if let Some(pair) = &cluster {
        let data = cluster_data(pair);
        found
            .checksums
            .push(("ca", keep(world, plan, &CLUSTER, data)));
    }
    if let Some(pair) = &front_proxy {
        let data = pair_data(pair, &FRONT_PROXY);
        found.checksums.push((
            "front-proxy-ca-certificate",
            keep(world, plan, &FRONT_PROXY, data),
        ));
    }
    if let Some(data) = accounts.clone() {
        found
            .checksums
            .push(("service-account", keep(world, plan, &ACCOUNTS, data)));
    }
    if let (Some(client), Some(cluster)) = (&client, &cluster) {
        found.checksums.push((
            "client-ca",
            keep(world, plan, &CLIENT, client_data(client, cluster)),
        ));
    }
    found.complete = found.checksums.len() == 4;
    found.cluster = cluster;
    found.front_proxy = front_proxy;
    found
}

/// One kind of key material: its Secret and keys.
struct Kind {
    secret: fn(&str) -> String,
    component: &'static str,
    common_name: &'static str,
    crt: &'static str,
    key: &'static str,
}

const CLUSTER: Kind = Kind {
    secret: names::ca,
    component: names::component::CA,
    common_name: "kubernetes",
    crt: key::CA_CRT,
    key: key::CA_KEY,
};

const FRONT_PROXY: Kind = Kind {
    secret: names::front_proxy_ca,
    component: names::component::FRONT_PROXY_CA,
    common_name: "front-proxy-ca",
    crt: key::FRONT_PROXY_CA_CRT,
    key: key::FRONT_PROXY_CA_KEY,
};

/// rule 13: apart from the cluster authority, so that it can be revoked alone.
const CLIENT: Kind = Kind {
    secret: names::client_ca,
    component: names::component::CLIENT_CA,
    common_name: "steward-client-ca",
    crt: key::CA_CRT,
    key: key::CA_KEY,
};

const ACCOUNTS: Kind = Kind {
    secret: names::service_account,
    component: names::component::SERVICE_ACCOUNT,
    common_name: "",
    crt: key::SA_PUB,
    key: key::SA_KEY,
};

/// A Secret whose key material may not be made anew.
struct Lost {
    name: String,
    /// It is there, but of no use.
    broken: Option<String>,
}

/// The pair in force: the one that is there, or a new one if that is allowed.
fn authority(
    world: &World,
    entropy: &Entropy,
    plan: &mut Plan,
    kind: &Kind,
    lost: &mut Vec<Lost>,
) -> Option<Pair> {
    let name = (kind.secret)(world.name());
    let broken = match objects::standing(world, &name) {
        Standing::Taken(meta) => {
            plan.push(Step::Wait(objects::taken(
                world,
                &object_key(world, &name),
                meta,
            )));
            return None;
        }
        Standing::Ours(secret) => match read(secret, kind) {
            Ok(pair) => {
                carried_out(world, plan, name);
                return Some(pair);
            }
            Err(why) => Some(why),
        },
        Standing::Absent => None,
    };
    if !may_make(world, &name) {
        if broken.is_none() {
            plan.push(Step::Recheck(object_key(world, &name)));
        }
        lost.push(Lost { name, broken });
        return None;
    }
    announce(world, plan, &name);
    match pki::authority(
        kind.common_name,
        validity(world.now, AUTHORITY_LIFE),
        entropy,
    ) {
        Ok(pair) => Some(pair),
        Err(error) => {
            plan.push(Step::Wait(unsigned(&name, &error.to_string())));
            None
        }
    }
}

fn read(secret: &Secret, kind: &Kind) -> Result<Pair, String> {
    let cert = objects::text(secret, kind.crt).ok_or(format!("it has no {}", kind.crt))?;
    let key = objects::text(secret, kind.key).ok_or(format!("it has no {}", kind.key))?;
    let info = pki::inspect(&cert).map_err(|error| format!("{}: {error}", kind.crt))?;
    if !info.is_ca {
        return Err(format!("{} is not an authority", kind.crt));
    }
    let pair = Pair { cert, key };
    if !pki::key_matches(&pair) {
        return Err(format!("{} does not belong to {}", kind.key, kind.crt));
    }
    Ok(pair)
}

/// The service-account keys in force.
fn service_account(
    world: &World,
    entropy: &Entropy,
    plan: &mut Plan,
    lost: &mut Vec<Lost>,
) -> Option<Data> {
    let name = names::service_account(world.name());
    let broken = match objects::standing(world, &name) {
        Standing::Taken(meta) => {
            plan.push(Step::Wait(objects::taken(
                world,
                &object_key(world, &name),
                meta,
            )));
            return None;
        }
        Standing::Ours(secret) => {
            let (public, private) = (
                objects::text(secret, key::SA_PUB),
                objects::text(secret, key::SA_KEY),
            );
            match (public, private) {
                (Some(public), Some(private)) if pki::signing_keys_match(&public, &private) => {
                    carried_out(world, plan, name);
                    return Some(account_data(public, private));
                }
                _ => Some(format!(
                    "{} and {} are not a pair",
                    key::SA_PUB,
                    key::SA_KEY
                )),
            }
        }
        Standing::Absent => None,
    };
    if !may_make(world, &name) {
        if broken.is_none() {
            plan.push(Step::Recheck(object_key(world, &name)));
        }
        lost.push(Lost { name, broken });
        return None;
    }
    announce(world, plan, &name);
    match pki::signing_keys(entropy) {
        Ok((public, private)) => Some(account_data(public, private)),
        Err(error) => {
            plan.push(Step::Wait(unsigned(&name, &error.to_string())));
            None
        }
    }
}

fn account_data(public: String, private: String) -> Data {
    Data::from([
        (key::SA_PUB.to_owned(), public.into_bytes()),
        (key::SA_KEY.to_owned(), private.into_bytes()),
    ])
}

fn pair_data(pair: &Pair, kind: &Kind) -> Data {
    Data::from([
        (kind.crt.to_owned(), pair.cert.clone().into_bytes()),
        (kind.key.to_owned(), pair.key.clone().into_bytes()),
    ])
}

/// With the copies that Cluster API reads.
fn cluster_data(pair: &Pair) -> Data {
    let mut data = pair_data(pair, &CLUSTER);
    data.insert(key::TLS_CRT.to_owned(), pair.cert.clone().into_bytes());
    data.insert(key::TLS_KEY.to_owned(), pair.key.clone().into_bytes());
    data
}

/// With the cluster authority's certificate, so that whoever signs users'
/// certificates needs to read this one Secret only, and with the bundle that
/// the tenant's API server trusts.
fn client_data(client: &Pair, cluster: &Pair) -> Data {
    let mut data = pair_data(client, &CLIENT);
    data.insert(
        key::SERVER_CA_CRT.to_owned(),
        cluster.cert.clone().into_bytes(),
    );
    let bundle = [cluster.cert.trim_end(), "\n", client.cert.trim_end(), "\n"].concat();
    data.insert(key::CLIENT_CA_BUNDLE_CRT.to_owned(), bundle.into_bytes());
    data
}

fn keep(world: &World, plan: &mut Plan, kind: &Kind, data: Data) -> String {
    let name = (kind.secret)(world.name());
    let checksum = objects::checksum(&data);
    let mut wanted = objects::secret(world, &name, kind.component, data);
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_RAN.to_owned(), versions::to_note(world));
    let live = world.owned.get::<Secret>(&name).map(AsRef::as_ref);
    // Keys are written against the version that was read, never blindly.
    wanted.metadata.resource_version = live.and_then(|live| live.metadata.resource_version.clone());
    let live = live.map(|live: &Secret| (&live.metadata, live));
    objects::keep(world, plan, Object::Secret(wanted), live);
    checksum
}

/// Whether key material may be made for this Secret: it never served, or an
/// administrator asked for it by name.
fn may_make(world: &World, name: &str) -> bool {
    !world.was_ready() || asked(world).any(|asked| asked == name)
}

/// The Secrets whose keys an administrator allows to be made anew.
pub fn asked(world: &World) -> impl Iterator<Item = &str> {
    let meta = &world.tenant.metadata;
    let list = objects::annotation(meta, names::ANNOTATION_REPLACE_LOST_KEYS);
    let names = list.into_iter().flat_map(|list| list.split(','));
    names.map(str::trim).filter(|name| !name.is_empty())
}

/// What was asked for is there: it does not hold for the next loss.
fn carried_out(world: &World, plan: &mut Plan, name: String) {
    if asked(world).any(|asked| asked == name) {
        plan.replaced(name);
    }
}

/// New keys for a tenant that ran are worth an Event.
fn announce(world: &World, plan: &mut Plan, name: &str) {
    if world.was_ready() {
        plan.push(Step::Event(EventStep {
            warning: false,
            reason: "KeysReplaced",
            message: format!(
                "New keys are made in Secret {name}, as annotation {} asked",
                names::ANNOTATION_REPLACE_LOST_KEYS
            ),
        }));
    }
}

fn told(world: &World, lost: &[Lost]) -> Waiting {
    let one = |it: &Lost| {
        let what = match &it.broken {
            None => "is gone".to_owned(),
            Some(why) => format!("is unusable: {why}"),
        };
        format!("Secret {}/{} {what}.", world.namespace(), it.name)
    };
    let all: Vec<_> = lost.iter().map(one).collect();
    let names: Vec<_> = lost.iter().map(|it| it.name.as_str()).collect();
    Waiting {
        condition: condition::CERTIFICATES_READY,
        reason: reason::KEY_MATERIAL_LOST,
        message: format!(
            "{} Restore it from a backup, ownerReferences included. To make new keys instead, \
             which cuts off all nodes and clients that trust the old ones, annotate the \
             TenantControlPlane: {}={}.",
            all.join(" "),
            names::ANNOTATION_REPLACE_LOST_KEYS,
            names.join(",")
        ),
        problem: true,
        finding: None,
    }
}

/// The condition for a certificate that could not be made.
pub fn unsigned(name: &str, error: &str) -> Waiting {
    Waiting {
        condition: condition::CERTIFICATES_READY,
        reason: reason::CERTIFICATES_INVALID,
        message: format!("The content of Secret {name} could not be made: {error}"),
        problem: true,
        finding: None,
    }
}

/// The key of a Secret of this tenant.
pub fn object_key(world: &World, name: &str) -> ObjectKey {
    ObjectKey {
        kind: ObjectKind::Secret,
        namespace: world.namespace().to_owned(),
        name: name.to_owned(),
    }
}
