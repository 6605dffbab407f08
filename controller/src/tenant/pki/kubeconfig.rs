//! The kubeconfigs of a tenant's administrators and of its own controllers
//! (features 2.7), each with a client certificate of the cluster authority.

use apiservice::names::{self, key};
use apiservice::pki::{self, Entropy, KubeconfigInput, Leaf, Pair, Usage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::tenant::network::exposure::Exposure;
use crate::tenant::objects::{self, Data, Standing};
use crate::tenant::pki::authorities;
use crate::tenant::pki::certificates::{self, Unsigned};
use crate::tenant::pki::expiry::Expiry;
use crate::tenant::plan::{Plan, Step};
use crate::tenant::running;
use crate::tenant::world::World;

/// One Secret with kubeconfigs.
struct Kind {
    secret: fn(&str) -> String,
    component: &'static str,
    /// Its name in the pods' labels, where pods mount it.
    part: Option<&'static str>,
    files: &'static [File],
}

/// One kubeconfig.
struct File {
    key: &'static str,
    user: &'static str,
    groups: &'static [&'static str],
    server: Server,
    /// The file of the same Secret whose certificate this one shares.
    same_as: Option<&'static str>,
}

impl Kind {
    /// The Secret whose certificate its files have, as the plan leaves it; `None` if they
    /// have their own.
    fn source<'a>(&self, world: &'a World, plan: &'a Plan) -> Option<&'a Secret> {
        if self.component != names::component::KONNECTIVITY_KUBECONFIG {
            return None;
        }
        let name = names::konnectivity_certificate(world.name());
        plan.secret(&name).or_else(|| world.secret(&name))
    }
}

/// Where a kubeconfig leads.
#[derive(Clone, Copy)]
enum Server {
    /// Where the tenant's users are.
    Published,
    /// Inside the management cluster.
    Service,
    /// The API server of the same pod.
    Local,
}

const MASTERS: &[&str] = &["system:masters"];
const ADMINS: &[&str] = &[names::GROUP_KUBEADM_CLUSTER_ADMINS];

const ADMIN: Kind = Kind {
    secret: names::admin_kubeconfig,
    component: names::component::ADMIN_KUBECONFIG,
    part: None,
    files: &[
        File {
            key: key::ADMIN_CONF,
            user: "kubernetes-admin",
            groups: ADMINS,
            server: Server::Published,
            same_as: None,
        },
        File {
            key: key::ADMIN_SVC,
            user: "kubernetes-admin",
            groups: ADMINS,
            server: Server::Service,
            same_as: Some(key::ADMIN_CONF),
        },
        File {
            key: key::SUPER_ADMIN_CONF,
            user: "kubernetes-super-admin",
            groups: MASTERS,
            server: Server::Published,
            same_as: None,
        },
        File {
            key: key::SUPER_ADMIN_SVC,
            user: "kubernetes-super-admin",
            groups: MASTERS,
            server: Server::Service,
            same_as: Some(key::SUPER_ADMIN_CONF),
        },
    ],
};

const CONTROLLER_MANAGER: Kind = Kind {
    secret: names::controller_manager_kubeconfig,
    component: names::component::CONTROLLER_MANAGER_KUBECONFIG,
    part: Some("controller-manager-kubeconfig"),
    files: &[File {
        key: key::CONTROLLER_MANAGER_CONF,
        user: "system:kube-controller-manager",
        groups: &[],
        server: Server::Local,
        same_as: None,
    }],
};

const SCHEDULER: Kind = Kind {
    secret: names::scheduler_kubeconfig,
    component: names::component::SCHEDULER_KUBECONFIG,
    part: Some("scheduler-kubeconfig"),
    files: &[File {
        key: key::SCHEDULER_CONF,
        user: "system:kube-scheduler",
        groups: &[],
        server: Server::Local,
        same_as: None,
    }],
};

const KONNECTIVITY: Kind = Kind {
    secret: names::konnectivity_kubeconfig,
    component: names::component::KONNECTIVITY_KUBECONFIG,
    part: Some("konnectivity-kubeconfig"),
    files: &[File {
        key: key::KONNECTIVITY_SERVER_CONF,
        user: names::KONNECTIVITY_SERVER,
        groups: &[],
        server: Server::Local,
        same_as: None,
    }],
};

/// Keeps all kubeconfigs; checksums of those that pods mount, or `None` if one
/// cannot be made.
pub fn plan(
    world: &World,
    entropy: &Entropy,
    expiry: &Expiry,
    plan: &mut Plan,
    authority: &Pair,
    exposure: &Exposure,
) -> Option<Vec<(&'static str, String)>> {
    let mut checksums = Vec::with_capacity(2);
    let mut complete = true;
    let tunnel = world.tenant.spec.konnectivity().map(|_| KONNECTIVITY);
    let kinds = [ADMIN, CONTROLLER_MANAGER, SCHEDULER];
    for kind in kinds.into_iter().chain(tunnel) {
        match keep(world, entropy, expiry, plan, &kind, authority, exposure) {
            Some(checksum) => checksums.extend(kind.part.map(|part| (part, checksum))),
            None => complete = false,
        }
    }
    complete.then_some(checksums)
}

fn keep(
    world: &World,
    entropy: &Entropy,
    expiry: &Expiry,
    plan: &mut Plan,
    kind: &Kind,
    authority: &Pair,
    exposure: &Exposure,
) -> Option<String> {
    let name = (kind.secret)(world.name());
    let live = match objects::standing(world, &name) {
        Standing::Taken(meta) => {
            let key = authorities::object_key(world, &name);
            plan.push(Step::Wait(objects::taken(world, &key, meta)));
            return None;
        }
        Standing::Ours(secret) => Some(secret),
        Standing::Absent => None,
    };
    if let Some(checksum) = objects::paused_checksum(world, &name) {
        return Some(checksum);
    }
    let keys = || kind.files.iter().map(|file| file.key);
    let edited =
        |live: &Secret| certificates::edited(live, keys()) || certificates::asked(Some(live));
    let own_cause = match (live, kind.part) {
        (Some(live), _) => edited(live) || is_broken(world, live, kind, authority),
        (None, part) => part.is_some_and(|part| running::is_mounted(world, part)),
    };
    let trusted = live.filter(|live| !edited(live) && !expiry.renews(&name));
    let source = kind.source(world, plan);
    let own_cause = own_cause
        || source.is_some_and(|it| {
            certificates::has_own_cause(it, &objects::checksum(&objects::data(it)))
        });
    let source = source.and_then(certificates::tls_pair);
    let mut data = Data::new();
    let mut pairs: Vec<(&str, Pair)> = Vec::with_capacity(kind.files.len());
    for file in kind.files {
        let shared = file
            .same_as
            .and_then(|key| pairs.iter().find(|(known, _)| *known == key));
        let shared = shared.map(|(_, pair)| pair).or(source.as_ref());
        let pair = match shared {
            Some(pair) => pair.clone(),
            None => match pair(world, entropy, expiry, trusted, file, authority) {
                Ok(pair) => pair,
                Err(error) => {
                    plan.push(Step::Wait(error.told(&name)));
                    return None;
                }
            },
        };
        let text = render(world, file, authority, exposure, &pair);
        data.insert(file.key.to_owned(), text.into_bytes());
        pairs.push((file.key, pair));
    }
    let lifecycle = names::LIFECYCLE_KUBECONFIG;
    Some(certificates::write(
        world,
        plan,
        &name,
        kind.component,
        lifecycle,
        data,
        own_cause,
    ))
}

/// Whether a certificate in a Secret is of no use: it cannot be read, has another key, or
/// was not signed by the tenant's authority.
fn is_broken(world: &World, live: &Secret, kind: &Kind, authority: &Pair) -> bool {
    let serves = |file: &File| {
        let pair = embedded(&objects::text(live, file.key)?)?;
        let info = pki::inspect(&pair.cert).ok()?;
        let signed = certificates::signed_by(world, &pair, &info, &authority.cert, Usage::Client);
        Some(signed && pki::key_matches(&pair))
    };
    kind.files.iter().any(|file| serves(file) != Some(true))
}

/// The client certificate of a file: the one that is there if it still serves,
/// else a new one.
fn pair(
    world: &World,
    entropy: &Entropy,
    expiry: &Expiry,
    live: Option<&Secret>,
    file: &File,
    authority: &Pair,
) -> Result<Pair, Unsigned> {
    let subject = certificates::subject(file.user, file.groups);
    let held = live
        .and_then(|live| objects::text(live, file.key))
        .and_then(|text| embedded(&text));
    if let Some(pair) = held
        && let Ok(info) = pki::inspect(&pair.cert)
        && info.subject == subject
        && pki::key_matches(&pair)
        && certificates::signed_by(world, &pair, &info, &authority.cert, Usage::Client)
    {
        return Ok(pair);
    }
    let leaf = Leaf {
        subject,
        usage: Usage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        validity: certificates::validity(world, expiry.terms(), authority)?,
    };
    Ok(pki::sign(authority, &leaf, entropy)?)
}

/// Bytes, nodes and levels of a kubeconfig that is read: several times what ours have.
const TEXT: usize = 64 * 1024;
const NODES: usize = 1_000;
const LEVELS: usize = 16;

/// A kubeconfig as somebody may have written it: whoever may edit Secrets of the namespace.
/// What merged keys and aliases stand for is kept by the reader, level by level; ours have
/// neither.
fn read(text: &str) -> Option<Value> {
    use serde_saphyr::MergeKeyPolicy::AsOrdinary;
    if text.len() > TEXT {
        return None;
    }
    let options = serde_saphyr::options! {
        merge_keys: AsOrdinary,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_nodes: NODES,
            max_depth: LEVELS,
            max_aliases: 0,
            max_anchors: 0,
        },
    };
    serde_saphyr::from_str_with_options(text, options).ok()
}

/// The client certificate inside a kubeconfig.
pub fn embedded(text: &str) -> Option<Pair> {
    let config = read(text)?;
    let user = config.pointer("/users/0/user")?;
    let field = |name: &str| {
        let bytes = STANDARD.decode(user.get(name)?.as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    Some(Pair {
        cert: field("client-certificate-data")?,
        key: field("client-key-data")?,
    })
}

fn render(
    world: &World,
    file: &File,
    authority: &Pair,
    exposure: &Exposure,
    pair: &Pair,
) -> String {
    let server = match file.server {
        Server::Published => &exposure.clients,
        Server::Service => &exposure.service,
        Server::Local => &exposure.local,
    };
    pki::kubeconfig_yaml(&KubeconfigInput {
        cluster: world.name(),
        server: &server.url(),
        ca_pem: &authority.cert,
        user: Some((file.user, Some(pair))),
        context: &format!("{}@{}", file.user, world.name()),
    })
}
