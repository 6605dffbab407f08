//! The certificates that a tenant's authorities sign, and when they are made
//! anew (features 2.3): on request, when changed by hand, when the authority
//! does not sign them, when a name is missing, or when they end soon.

use std::collections::BTreeSet;

use apiservice::names::{self, key};
use apiservice::pki::{self, Entropy, Leaf, Pair, Subject, Usage};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;

use super::address::{self, Address, AlternativeNames};
use super::authorities::{self, Authorities};
use super::kubeconfig;
use super::objects::{self, Data, Standing};
use super::plan::{Object, Plan, Step};
use super::world::World;

/// Leaves live for a year.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);

/// What the pods mount, as far as it is known in this pass.
#[derive(Clone, Default)]
pub struct Keys {
    /// Checksums by the names of features 1.7, for the pods' labels.
    pub checksums: Vec<(&'static str, String)>,
    /// Every Secret is there or is written before the Deployment.
    pub complete: bool,
    /// The address that certificates and kubeconfigs speak of.
    pub address: Option<Address>,
}

/// Keeps authorities, leaves and kubeconfigs. Leaves that need an address wait
/// for it; the others do not.
pub fn plan(world: &World, entropy: &Entropy, plan: &mut Plan) -> Keys {
    let authorities = authorities::plan(world, entropy, plan);
    let address = match address::of(world) {
        Ok(address) => Some(address),
        Err(waiting) => {
            let service = world.owned.service.as_deref();
            if let Some(since) = service
                .and_then(address::silent_since)
                .filter(|_| !waiting.problem)
            {
                let late = since.checked_add(world.settings.address_patience);
                plan.revisit_at(late.unwrap_or(Timestamp::MAX));
            }
            plan.push(Step::Wait(waiting));
            None
        }
    };
    let mut keys = Keys {
        checksums: authorities.checksums.clone(),
        complete: authorities.complete,
        address,
    };
    for leaf in leaves(world, &authorities, keys.address.as_ref()) {
        let checksum = keep(world, entropy, plan, &leaf);
        keys.complete &= checksum.is_some();
        keys.checksums
            .extend(checksum.map(|checksum| (leaf.part, checksum)));
    }
    if let (Some(cluster), Some(address)) = (&authorities.cluster, &keys.address) {
        let made = kubeconfig::plan(world, entropy, plan, cluster, address);
        keys.complete &= made.is_some();
        keys.checksums.extend(made.into_iter().flatten());
    }
    keys.complete &= keys.address.is_some();
    keys
}

/// One certificate to keep in one Secret.
pub struct Wish<'a> {
    /// Name of the Secret.
    pub secret: String,
    /// Its part of the tenant, for its label.
    pub component: &'static str,
    /// Its name in the pods' labels.
    pub part: &'static str,
    /// Key of the certificate in the Secret.
    pub crt: &'static str,
    /// Key of the private key in the Secret.
    pub key: &'static str,
    /// Further values of the Secret.
    pub beside: Data,
    /// Who signs.
    pub authority: &'a Pair,
    /// Whom it is about.
    pub subject: Subject,
    /// What it may be used for.
    pub usage: Usage,
    /// Names that it must carry; it may carry more.
    pub names: AlternativeNames,
}

fn leaves<'a>(
    world: &World,
    authorities: &'a Authorities,
    address: Option<&Address>,
) -> Vec<Wish<'a>> {
    let name = world.name();
    let mut wishes = Vec::with_capacity(3);
    if let (Some(authority), Some(address)) = (&authorities.cluster, address) {
        wishes.push(Wish {
            secret: names::api_server(name),
            component: names::component::API_SERVER,
            part: "api-server-certificate",
            crt: key::API_SERVER_CRT,
            key: key::API_SERVER_KEY,
            beside: Data::new(),
            authority,
            subject: subject("kube-apiserver", &[]),
            usage: Usage::Server,
            names: address::alternative_names(world, address),
        });
    }
    if let Some(authority) = &authorities.cluster {
        wishes.push(Wish {
            secret: names::api_server_kubelet_client(name),
            component: names::component::API_SERVER_KUBELET_CLIENT,
            part: "api-server-kubelet-client-certificate",
            crt: key::API_SERVER_KUBELET_CLIENT_CRT,
            key: key::API_SERVER_KUBELET_CLIENT_KEY,
            beside: Data::new(),
            authority,
            subject: subject(
                "kube-apiserver-kubelet-client",
                &[names::GROUP_KUBEADM_CLUSTER_ADMINS],
            ),
            usage: Usage::Client,
            names: AlternativeNames::default(),
        });
    }
    if let Some(authority) = &authorities.front_proxy {
        wishes.push(Wish {
            secret: names::front_proxy_client(name),
            component: names::component::FRONT_PROXY_CLIENT,
            part: "front-proxy-client-certificate",
            crt: key::FRONT_PROXY_CLIENT_CRT,
            key: key::FRONT_PROXY_CLIENT_KEY,
            beside: Data::new(),
            authority,
            subject: subject("front-proxy-client", &[]),
            usage: Usage::Client,
            names: AlternativeNames::default(),
        });
    }
    wishes
}

/// A subject of a common name and groups.
pub fn subject(common_name: &str, organizations: &[&str]) -> Subject {
    Subject {
        common_name: common_name.to_owned(),
        organizations: organizations.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// Keeps one certificate; its Secret's checksum, unless it cannot be made.
pub fn keep(world: &World, entropy: &Entropy, plan: &mut Plan, wish: &Wish<'_>) -> Option<String> {
    let live = match objects::standing(world, &wish.secret) {
        Standing::Taken(meta) => {
            let key = authorities::object_key(world, &wish.secret);
            plan.push(Step::Wait(objects::taken(world, &key, meta)));
            return None;
        }
        Standing::Ours(secret) => Some(secret),
        Standing::Absent => None,
    };
    let kept = live.and_then(|secret| held(secret, wish)).filter(|pair| {
        let keys = wish
            .beside
            .keys()
            .map(String::as_str)
            .chain([wish.crt, wish.key]);
        let edited = live.is_some_and(|live| edited(live, keys));
        !edited && !asked(live) && good(world, wish, pair)
    });
    let pair = match kept {
        Some(pair) => {
            revisit(world, plan, &pair.cert);
            pair
        }
        None => match sign(world, entropy, wish) {
            Ok(pair) => pair,
            Err(error) => {
                let waiting = authorities::unsigned(&wish.secret, &error.to_string());
                plan.push(Step::Wait(waiting));
                return None;
            }
        },
    };
    let mut data = wish.beside.clone();
    data.insert(wish.crt.to_owned(), pair.cert.into_bytes());
    data.insert(wish.key.to_owned(), pair.key.into_bytes());
    Some(write(
        world,
        plan,
        &wish.secret,
        wish.component,
        names::LIFECYCLE_X509,
        data,
    ))
}

/// Plans the Secret of a certificate or kubeconfig; its checksum.
pub fn write(
    world: &World,
    plan: &mut Plan,
    name: &str,
    component: &str,
    lifecycle: &str,
    data: Data,
) -> String {
    let live = world.secret(name);
    let checksum = objects::checksum(&data);
    let mut wanted = objects::secret(world, name, component, data);
    let labels = wanted.metadata.labels.get_or_insert_default();
    labels.insert(
        names::LABEL_CERTIFICATE_LIFECYCLE.to_owned(),
        lifecycle.to_owned(),
    );
    if let Some(done) = rotation(world, live) {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_ROTATE.to_owned(), done);
    }
    let found = world.owned.secrets.get(name).map(AsRef::as_ref);
    objects::keep(
        world,
        plan,
        Object::Secret(wanted),
        found.map(|live| (&live.metadata, live)),
    );
    checksum
}

/// What the rotation annotation should say: the instant at which a request was
/// met, which stays; nothing where there was no request.
fn rotation(world: &World, live: Option<&Secret>) -> Option<String> {
    match objects::annotation(&live?.metadata, names::ANNOTATION_ROTATE)? {
        "" => Some(world.now.to_string()),
        done => Some(done.to_owned()),
    }
}

/// Whether somebody asks for rotation.
pub fn asked(live: Option<&Secret>) -> bool {
    live.and_then(|live| objects::annotation(&live.metadata, names::ANNOTATION_ROTATE)) == Some("")
}

/// Whether the values of our keys are not the ones that we wrote. Further keys
/// are somebody else's.
pub fn edited<'a>(secret: &Secret, keys: impl Iterator<Item = &'a str>) -> bool {
    let written = objects::annotation(&secret.metadata, names::ANNOTATION_CHECKSUM);
    let mut data = objects::data(secret);
    let keys: BTreeSet<&str> = keys.collect();
    data.retain(|key, _| keys.contains(key.as_str()));
    written != Some(objects::checksum(&data).as_str())
}

fn held(secret: &Secret, wish: &Wish<'_>) -> Option<Pair> {
    let cert = objects::text(secret, wish.crt)?;
    let key = objects::text(secret, wish.key)?;
    Some(Pair { cert, key })
}

/// Whether a pair still serves: signed by the authority for this use and
/// subject, with every name, and not about to end.
fn good(world: &World, wish: &Wish<'_>, pair: &Pair) -> bool {
    let Ok(info) = pki::inspect(&pair.cert) else {
        return false;
    };
    let dns: BTreeSet<_> = info.dns_names.iter().collect();
    let ip: BTreeSet<_> = info.ip_addresses.iter().collect();
    info.subject == wish.subject
        && wish.names.dns.iter().all(|name| dns.contains(name))
        && wish.names.ip.iter().all(|address| ip.contains(address))
        && lasts(world, &pair.cert)
        && pki::key_matches(pair)
        && pki::verify(&pair.cert, &wish.authority.cert, wish.usage, world.now).is_ok()
}

/// Whether a certificate's end is further away than the threshold.
pub fn lasts(world: &World, cert: &str) -> bool {
    renewal(world, cert).is_some_and(|at| world.now < at)
}

/// When a certificate is to be renewed.
fn renewal(world: &World, cert: &str) -> Option<Timestamp> {
    let end = pki::inspect(cert).ok()?.not_after;
    end.checked_sub(world.settings.certificate_threshold).ok()
}

/// Asks to be planned again when this certificate is to be renewed.
pub fn revisit(world: &World, plan: &mut Plan, cert: &str) {
    if let Some(at) = renewal(world, cert) {
        plan.revisit_at(at);
    }
}

/// Signs a wish.
fn sign(world: &World, entropy: &Entropy, wish: &Wish<'_>) -> Result<Pair, pki::Error> {
    let leaf = Leaf {
        subject: wish.subject.clone(),
        usage: wish.usage,
        dns_names: wish.names.dns.clone(),
        ip_addresses: wish.names.ip.clone(),
        validity: authorities::validity(world.now, LEAF_LIFE),
    };
    pki::sign(wish.authority, &leaf, entropy)
}
