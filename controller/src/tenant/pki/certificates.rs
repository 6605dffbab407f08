//! The certificates that a tenant's authorities sign, and when they are made
//! anew (features 2.3): on request, when changed by hand, when the authority
//! does not sign them, when they carry other names, or when they end soon.

use std::collections::BTreeSet;

use apiservice::condition::reason;
use apiservice::names::{self, key};
use apiservice::pki::{self, CertInfo, Entropy, Leaf, Pair, Subject, Usage, Validity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::tenant::network::exposure::{self, Exposure};
use crate::tenant::network::names::AlternativeNames;
use crate::tenant::objects::{self, Data, Standing};
use crate::tenant::pki::authorities::{self, Authorities};
use crate::tenant::pki::expiry::Expiry;
use crate::tenant::pki::kubeconfig;
use crate::tenant::pki::terms::{Span, Terms};
use crate::tenant::plan::{Object, Plan, Step, Waiting};
use crate::tenant::running;
use crate::tenant::world::World;

/// What the pods mount, as far as it is known in this pass.
#[derive(Clone, Default)]
pub struct Keys {
    /// Checksums by the names of features 1.7, for the pods' labels.
    pub checksums: Vec<(&'static str, String)>,
    /// Every Secret is there or is written before the Deployment.
    pub complete: bool,
    /// Where the tenant is reached, which certificates and kubeconfigs speak of.
    pub exposure: Option<Exposure>,
}

/// Keeps authorities, leaves and kubeconfigs. Leaves that need an address wait
/// for it; the others do not.
pub fn plan(world: &World, entropy: &Entropy, expiry: &Expiry, plan: &mut Plan) -> Keys {
    let authorities = authorities::plan(world, entropy, plan);
    let exposure = match exposure::of(world) {
        Ok(exposure) => Some(exposure),
        Err(waiting) => {
            let service = world.service();
            if let Some(since) = service
                .and_then(exposure::silent_since)
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
        exposure,
    };
    for leaf in leaves(world, &authorities, keys.exposure.as_ref()) {
        let checksum = keep(world, entropy, expiry, plan, &leaf);
        keys.complete &= checksum.is_some();
        let mounted = checksum.filter(|_| leaf.copied_to.is_none());
        keys.checksums
            .extend(mounted.map(|checksum| (leaf.part, checksum)));
    }
    if let (Some(cluster), Some(exposure)) = (&authorities.cluster, &keys.exposure) {
        let made = kubeconfig::plan(world, entropy, expiry, plan, cluster, exposure);
        keys.complete &= made.is_some();
        keys.checksums.extend(made.into_iter().flatten());
    }
    keys.complete &= keys.exposure.is_some();
    keys
}

/// One certificate to keep in one Secret.
pub struct LeafSpec<'a> {
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
    /// The names that it carries: these and no others.
    pub names: AlternativeNames,
    /// Those of them without which nobody gets to the tenant.
    pub needed: AlternativeNames,
    /// A Secret that has the certificate as well: to ask for rotation there is to ask here.
    pub copied_to: Option<String>,
}

fn leaves<'a>(
    world: &World,
    authorities: &'a Authorities,
    exposure: Option<&Exposure>,
) -> Vec<LeafSpec<'a>> {
    let name = world.name();
    let mut wishes = Vec::with_capacity(4);
    if let (Some(authority), Some(exposure)) = (&authorities.cluster, exposure) {
        wishes.push(LeafSpec {
            secret: names::api_server(name),
            component: names::component::API_SERVER,
            part: "api-server-certificate",
            crt: key::API_SERVER_CRT,
            key: key::API_SERVER_KEY,
            beside: Data::new(),
            authority,
            subject: subject("kube-apiserver", &[]),
            usage: Usage::Server,
            names: exposure.names.clone(),
            needed: exposure.needed.clone(),
            copied_to: None,
        });
    }
    if let Some(authority) = &authorities.cluster {
        wishes.push(LeafSpec {
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
            needed: AlternativeNames::default(),
            copied_to: None,
        });
    }
    if let Some(authority) = &authorities.front_proxy {
        wishes.push(LeafSpec {
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
            needed: AlternativeNames::default(),
            copied_to: None,
        });
    }
    if let Some(authority) = &authorities.cluster
        && world.tenant.spec.konnectivity().is_some()
    {
        wishes.push(LeafSpec {
            secret: names::konnectivity_certificate(name),
            component: names::component::KONNECTIVITY_CERTIFICATE,
            part: "konnectivity-certificate",
            crt: key::TLS_CRT,
            key: key::TLS_KEY,
            beside: Data::new(),
            authority,
            // No group: what it may do in the tenant is bound to its name.
            subject: subject(names::KONNECTIVITY_SERVER, &[]),
            usage: Usage::Client,
            names: AlternativeNames::default(),
            needed: AlternativeNames::default(),
            copied_to: Some(names::konnectivity_kubeconfig(name)),
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
pub fn keep(
    world: &World,
    entropy: &Entropy,
    expiry: &Expiry,
    plan: &mut Plan,
    wish: &LeafSpec<'_>,
) -> Option<String> {
    let live = match objects::standing(world, &wish.secret) {
        Standing::Taken(meta) => {
            let key = authorities::object_key(world, &wish.secret);
            plan.push(Step::Wait(objects::taken(world, &key, meta)));
            return None;
        }
        Standing::Ours(secret) => Some(secret),
        Standing::Absent => None,
    };
    if let Some(checksum) = objects::paused_checksum(world, &wish.secret) {
        return Some(checksum);
    }
    let keys = wish.beside.keys().map(String::as_str);
    let keys = keys.chain([wish.crt, wish.key]);
    let copy = wish.copied_to.as_ref().and_then(|name| world.secret(name));
    let edited = live.is_some_and(|live| edited(live, keys)) || asked(live) || asked(copy);
    let held = live.and_then(|secret| held(secret, wish));
    let own_cause = match live {
        Some(live) => edited || held.as_ref().is_none_or(|it| broken(world, wish, live, it)),
        None => running::is_mounted(world, wish.part),
    };
    let kept =
        held.filter(|pair| !edited && !expiry.renews(&wish.secret) && good(world, wish, pair));
    let pair = match kept {
        Some(pair) => pair,
        None => match sign(world, entropy, expiry, wish) {
            Ok(pair) => pair,
            Err(error) => {
                plan.push(Step::Wait(error.told(&wish.secret)));
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
        own_cause,
    ))
}

/// Plans the Secret of a certificate or kubeconfig; its checksum. `own_cause`: these
/// values are made for a reason of this tenant alone.
pub fn write(
    world: &World,
    plan: &mut Plan,
    name: &str,
    component: &str,
    lifecycle: &str,
    data: Data,
    own_cause: bool,
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
    // Noted, because a pass may end before it has written the Deployment.
    let noted = live.is_some_and(|live| has_own_cause(live, &checksum));
    if own_cause || noted {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_OWN_CAUSE.to_owned(), checksum.clone());
    }
    let found = world.owned.get::<Secret>(name).map(AsRef::as_ref);
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

/// Whether the values with this checksum were made for a reason of this tenant alone.
pub fn has_own_cause(secret: &Secret, checksum: &str) -> bool {
    objects::annotation(&secret.metadata, names::ANNOTATION_OWN_CAUSE) == Some(checksum)
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

/// The pair of a Secret of type `kubernetes.io/tls`.
pub fn tls_pair(secret: &Secret) -> Option<Pair> {
    Some(Pair {
        cert: objects::text(secret, key::TLS_CRT)?,
        key: objects::text(secret, key::TLS_KEY)?,
    })
}

fn held(secret: &Secret, wish: &LeafSpec<'_>) -> Option<Pair> {
    let cert = objects::text(secret, wish.crt)?;
    let key = objects::text(secret, wish.key)?;
    Some(Pair { cert, key })
}

/// Whether a pair still serves: signed by the authority for this use and
/// subject, with the names that are wanted and no others. Its age is not asked
/// here.
fn good(world: &World, wish: &LeafSpec<'_>, pair: &Pair) -> bool {
    let Ok(info) = pki::inspect(&pair.cert) else {
        return false;
    };
    info.subject == wish.subject
        && same_set(&info.dns_names, wish.names.dns())
        && same_set(&info.ip_addresses, wish.names.ip())
        && pki::key_matches(pair)
        && signed_by(world, pair, &info, &wish.authority.cert, wish.usage)
}

/// Whether a pair is of no use to this tenant, as opposed to one that a later release
/// would make otherwise: it cannot be read, key and certificate do not belong together,
/// its authority did not sign it, or it lacks a name by which the tenant is reached now.
/// Where the authority is another one, that is not this tenant's doing.
fn broken(world: &World, wish: &LeafSpec<'_>, live: &Secret, pair: &Pair) -> bool {
    let Ok(info) = pki::inspect(&pair.cert) else {
        return true;
    };
    let beside = |(key, value): (&String, &Vec<u8>)| {
        let live = live.data.as_ref().and_then(|data| data.get(key));
        live.is_some_and(|live| live.0 == *value)
    };
    !pki::key_matches(pair)
        || wish.beside.iter().all(beside)
            && !signed_by(world, pair, &info, &wish.authority.cert, wish.usage)
        || !wish
            .needed
            .ip()
            .iter()
            .all(|it| info.ip_addresses.contains(it))
        || !wish
            .needed
            .dns()
            .iter()
            .all(|it| info.dns_names.contains(it))
}

fn same_set<T: Ord>(one: &[T], other: &[T]) -> bool {
    one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
}

/// Whether an authority signed a certificate for this use. When it ends is a
/// question of its own ([`Expiry`]), so this is asked as of a time at which it
/// is valid.
pub fn signed_by(
    world: &World,
    pair: &Pair,
    info: &CertInfo,
    authority: &str,
    usage: Usage,
) -> bool {
    let span = Span {
        not_before: info.not_before,
        not_after: info.not_after,
    };
    pki::verify(&pair.cert, authority, usage, span.moment(world.now)).is_ok()
}

/// Why a certificate cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    /// It cannot be made.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// What it signs would not hold.
    #[error("the authority {0} that signs it ended at {1}; replace that first")]
    Ended(String, Timestamp),
}

impl Unsigned {
    /// In the words of a condition.
    pub fn told(&self, secret: &str) -> Waiting {
        let waiting = authorities::unsigned(secret, &self.to_string());
        match self {
            Unsigned::Pki(_) => waiting,
            Unsigned::Ended(..) => Waiting {
                reason: reason::CERTIFICATE_EXPIRED,
                ..waiting
            },
        }
    }
}

/// The validity of what an authority signs now.
pub fn validity(world: &World, terms: &Terms, authority: &Pair) -> Result<Validity, Unsigned> {
    let signer = pki::inspect(&authority.cert)?;
    let validity = terms.validity(world.now, signer.not_after);
    validity.ok_or(Unsigned::Ended(
        signer.subject.common_name,
        signer.not_after,
    ))
}

/// Signs a wish.
fn sign(
    world: &World,
    entropy: &Entropy,
    expiry: &Expiry,
    wish: &LeafSpec<'_>,
) -> Result<Pair, Unsigned> {
    let leaf = Leaf {
        subject: wish.subject.clone(),
        usage: wish.usage,
        dns_names: wish.names.dns().to_vec(),
        ip_addresses: wish.names.ip().to_vec(),
        validity: validity(world, expiry.terms(), wish.authority)?,
    };
    Ok(pki::sign(wish.authority, &leaf, entropy)?)
}
