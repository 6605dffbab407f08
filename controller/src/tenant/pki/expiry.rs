//! The certificates that a tenant has: when each ends, which are made anew for
//! their age in this pass, and what people are told of those that are not.
//!
//! # Guarantees
//! What pods mount is made anew together: when one is due, so is every other that
//! was made before that one fell due. So a tenant's pods roll once for all of them,
//! however far apart they were made.

use std::collections::BTreeSet;
use std::sync::Arc;

use apiservice::condition::{reason, tenant as condition};
use apiservice::names::{self, component, key};
use apiservice::pki;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};

use crate::cluster::kinds::ObjectKind;
use crate::tenant::backing::facts::CredentialsFact;
use crate::tenant::objects;
use crate::tenant::pki::kubeconfig;
use crate::tenant::pki::terms::{self, AGAIN, Span, Terms};
use crate::tenant::plan::{Plan, Step, Waiting};
use crate::tenant::running;
use crate::tenant::world::World;

/// An authority that ends within this is reported.
const WARNING: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A kind of certificate that a tenant has.
struct Kind {
    component: &'static str,
    secret: fn(&str) -> String,
    held: Held,
    signer: Signer,
}

/// Where in its Secret a certificate stands.
enum Held {
    Pem(&'static str),
    /// In kubeconfigs, with a certificate each.
    Kubeconfigs(&'static [&'static str]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signer {
    /// It is an authority.
    Itself,
    Cluster,
    FrontProxy,
    DataStore,
}

const KINDS: [Kind; 12] = [
    Kind {
        component: component::CA,
        secret: names::ca,
        held: Held::Pem(key::CA_CRT),
        signer: Signer::Itself,
    },
    Kind {
        component: component::CLIENT_CA,
        secret: names::client_ca,
        held: Held::Pem(key::CA_CRT),
        signer: Signer::Itself,
    },
    Kind {
        component: component::FRONT_PROXY_CA,
        secret: names::front_proxy_ca,
        held: Held::Pem(key::FRONT_PROXY_CA_CRT),
        signer: Signer::Itself,
    },
    Kind {
        component: component::API_SERVER,
        secret: names::api_server,
        held: Held::Pem(key::API_SERVER_CRT),
        signer: Signer::Cluster,
    },
    Kind {
        component: component::API_SERVER_KUBELET_CLIENT,
        secret: names::api_server_kubelet_client,
        held: Held::Pem(key::API_SERVER_KUBELET_CLIENT_CRT),
        signer: Signer::Cluster,
    },
    Kind {
        component: component::FRONT_PROXY_CLIENT,
        secret: names::front_proxy_client,
        held: Held::Pem(key::FRONT_PROXY_CLIENT_CRT),
        signer: Signer::FrontProxy,
    },
    Kind {
        component: component::DATASTORE_CERTIFICATE,
        secret: names::datastore_certificate,
        held: Held::Pem(key::DATASTORE_CRT),
        signer: Signer::DataStore,
    },
    Kind {
        component: component::ADMIN_KUBECONFIG,
        secret: names::admin_kubeconfig,
        held: Held::Kubeconfigs(&[key::ADMIN_CONF, key::SUPER_ADMIN_CONF]),
        signer: Signer::Cluster,
    },
    Kind {
        component: component::CONTROLLER_MANAGER_KUBECONFIG,
        secret: names::controller_manager_kubeconfig,
        held: Held::Kubeconfigs(&[key::CONTROLLER_MANAGER_CONF]),
        signer: Signer::Cluster,
    },
    Kind {
        component: component::SCHEDULER_KUBECONFIG,
        secret: names::scheduler_kubeconfig,
        held: Held::Kubeconfigs(&[key::SCHEDULER_CONF]),
        signer: Signer::Cluster,
    },
    Kind {
        component: component::KONNECTIVITY_CERTIFICATE,
        secret: names::konnectivity_certificate,
        held: Held::Pem(key::TLS_CRT),
        signer: Signer::Cluster,
    },
    Kind {
        component: component::KONNECTIVITY_KUBECONFIG,
        secret: names::konnectivity_kubeconfig,
        held: Held::Kubeconfigs(&[key::KONNECTIVITY_SERVER_CONF]),
        signer: Signer::Cluster,
    },
];

impl Kind {
    /// People use it from outside; no pod mounts it, and nothing rolls for it.
    fn is_for_people(&self) -> bool {
        self.component == component::ADMIN_KUBECONFIG
    }

    /// Validity of the certificate in a Secret; of several, what they have in common.
    fn span(&self, secret: &Secret) -> Option<Span> {
        let spans = |cert: String| {
            let info = pki::inspect(&cert).ok()?;
            Some(Span {
                not_before: info.not_before,
                not_after: info.not_after,
            })
        };
        match self.held {
            Held::Pem(key) => spans(objects::text(secret, key)?),
            Held::Kubeconfigs(keys) => keys
                .iter()
                .filter_map(|key| {
                    let text = objects::text(secret, key)?;
                    spans(kubeconfig::embedded(&text)?.cert)
                })
                .reduce(|one, other| Span {
                    not_before: one.not_before.max(other.not_before),
                    not_after: one.not_after.min(other.not_after),
                }),
        }
    }
}

/// When the certificate in a Secret of a tenant ends; `None` for Secrets without.
pub fn ends(tenant: &str, name: &str, secret: &Secret) -> Option<Timestamp> {
    let kind = KINDS.iter().find(|kind| (kind.secret)(tenant) == name)?;
    Some(kind.span(secret)?.not_after)
}

/// When the first ends of what a Secret holds and what pods run with instead: that may
/// be what it held before.
pub fn ends_in_use(world: &World, name: &str, secret: &Secret) -> Option<Timestamp> {
    let end = ends(world.name(), name, secret)?;
    let part = mounted(world.name()).find(|(_, mounted)| mounted == name);
    let held = part.and_then(|(part, _)| held_until(world, part, name, secret));
    Some(held.map_or(end, |held| held.min(end)))
}

/// When the first ends of what pods run with in place of what a Secret holds, if any do.
/// Pods that are younger than that have it, whatever their labels say: somebody may
/// have restarted them while the tenant was paused.
fn held_until(world: &World, part: &str, name: &str, secret: &Secret) -> Option<Timestamp> {
    let end = running::held_until(world, part, secret)?;
    let tenant = world.name();
    let kind = KINDS.iter().find(|kind| (kind.secret)(tenant) == name)?;
    let issued = kind.span(secret)?.issued();
    let younger = |pod: &Arc<Pod>| {
        let created = pod.metadata.creation_timestamp.as_ref();
        created.is_some_and(|created| issued < created.0)
    };
    let have_it = !world.pods.is_empty() && world.pods.iter().all(younger);
    (!have_it).then_some(end)
}

/// The parts of a tenant whose certificates pods mount and we renew, with their Secrets.
/// All other parts hold authorities and keys, which are made anew when somebody asks.
pub fn mounted(tenant: &str) -> impl Iterator<Item = (&'static str, String)> {
    let leaf = |kind: &&Kind| kind.signer != Signer::Itself && !kind.is_for_people();
    let leaves = KINDS.iter().filter(leaf);
    leaves.map(move |kind| (kind.component, (kind.secret)(tenant)))
}

/// When the first of the certificates ends that pods have which are made by this plan.
pub fn first_end(world: &World, plan: &Plan) -> Option<Timestamp> {
    let ends = mounted(world.name()).filter_map(|(_, secret)| {
        let there = plan.secret(&secret).or_else(|| world.secret(&secret))?;
        ends(world.name(), &secret, there)
    });
    ends.min()
}

/// One certificate as it stands in its Secret.
struct Certificate {
    secret: String,
    span: Span,
    /// Somebody has asked that the Secret be left as it is.
    paused: bool,
    for_people: bool,
    /// The end of the authority that would sign it now, where that is known; `None`
    /// also for authorities themselves.
    signer_ends: Option<Timestamp>,
    is_authority: bool,
}

/// The certificates of a tenant in one pass.
pub struct Expiry {
    now: Timestamp,
    terms: Terms,
    spread: f64,
    all: Vec<Certificate>,
    /// Names of the Secrets that are made anew for the age of what they hold.
    renewed: BTreeSet<String>,
}

/// When the authority ends that signs for the DataStore.
fn signer_ends(world: &World) -> Option<Timestamp> {
    let CredentialsFact::Known(credentials) = &world.store.credentials else {
        return None;
    };
    let info = pki::inspect(&credentials.authority).ok()?;
    Some(info.not_after)
}

impl Expiry {
    /// Looks at all of them and decides.
    pub fn of(world: &World) -> Self {
        let tenant = world.name();
        let found = |kind: &Kind| {
            let secret = world.secret(&(kind.secret)(tenant))?;
            Some((secret, kind.span(secret)?))
        };
        let authority = |component: &str| {
            let kind = KINDS.iter().find(|kind| kind.component == component)?;
            Some(found(kind)?.1.not_after)
        };
        let cluster = authority(component::CA);
        let front_proxy = authority(component::FRONT_PROXY_CA);
        let data_store = signer_ends(world);
        let certificate = |kind: &Kind| {
            let (secret, span) = found(kind)?;
            Some(Certificate {
                secret: (kind.secret)(tenant),
                span,
                paused: objects::is_paused(&secret.metadata),
                for_people: kind.is_for_people(),
                signer_ends: match kind.signer {
                    Signer::Itself => None,
                    Signer::Cluster => cluster,
                    Signer::FrontProxy => front_proxy,
                    Signer::DataStore => data_store,
                },
                is_authority: kind.signer == Signer::Itself,
            })
        };
        let mut expiry = Expiry {
            now: world.now,
            terms: world.settings.certificates,
            spread: terms::spread(world.uid()),
            all: KINDS.iter().filter_map(certificate).collect(),
            renewed: BTreeSet::new(),
        };
        expiry.renewed = expiry.decide();
        expiry
    }

    /// Looks at the one certificate of a place beside the main one.
    pub fn beside(world: &World) -> Self {
        let name = world.certificate_secret();
        let found = world.secret(&name).and_then(|secret| {
            let kind = KINDS
                .iter()
                .find(|kind| kind.component == component::DATASTORE_CERTIFICATE)?;
            Some(Certificate {
                span: kind.span(secret)?,
                paused: objects::is_paused(&secret.metadata),
                secret: name,
                for_people: false,
                signer_ends: signer_ends(world),
                is_authority: false,
            })
        });
        let mut expiry = Expiry {
            now: world.now,
            terms: world.settings.certificates,
            spread: terms::spread(world.uid()),
            all: found.into_iter().collect(),
            renewed: BTreeSet::new(),
        };
        expiry.renewed = expiry.decide();
        expiry
    }

    /// What is due, and of what pods mount also what was made before any of it fell
    /// due. What was renewed then is younger than that, so a pass that was cut off in
    /// the middle is followed by one that renews the rest and nothing twice.
    fn decide(&self) -> BTreeSet<String> {
        let (now, spread) = (self.now, self.spread);
        let signed = |one: &Certificate| one.signer_ends.filter(|_| !one.paused);
        let due = |one: &Certificate| {
            signed(one).is_some_and(|end| self.terms.renews(now, &one.span, end, spread))
        };
        let mounted = || self.all.iter().filter(|one| !one.for_people);
        let fell_due = mounted()
            .filter(|one| due(one))
            .map(|one| self.terms.due(&one.span, spread).min(now))
            .min();
        let goes_along = |one: &Certificate| {
            !one.for_people
                && fell_due.is_some_and(|at| one.span.issued() < at)
                && signed(one).is_some_and(|end| now < end)
        };
        let renewed = self.all.iter().filter(|one| due(one) || goes_along(one));
        renewed.map(|one| one.secret.clone()).collect()
    }

    /// Whether what this Secret holds is made anew for its age.
    pub fn renews(&self, secret: &str) -> bool {
        self.renewed.contains(secret)
    }

    /// The terms on which certificates are signed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Says in the plan, in one condition, which certificates end soon and are not
    /// being replaced, and asks to be made again when that changes. `paused`: the
    /// whole tenant is to be left as it is.
    pub fn tell(&self, world: &World, plan: &mut Plan, paused: bool) {
        let behind = self.behind(world, plan);
        let mut told: Vec<(Why, &Certificate)> = Vec::new();
        for one in &behind {
            let end = one.span.not_after;
            let late = if paused {
                self.terms.opens(&one.span)
            } else {
                self.terms.late(end)
            };
            for at in [late, end] {
                if self.now < at {
                    plan.revisit_at(at);
                }
            }
            if late <= self.now {
                told.push((Why::PodsBehind, one));
            }
        }
        for one in &self.all {
            if plan.secret(&one.secret).is_some() {
                continue;
            }
            let why = self.why(one, paused);
            for at in self.turns(one, why) {
                if self.now < at {
                    plan.revisit_at(at);
                }
            }
            if self.warns(one, why) <= self.now {
                told.push((why, one));
            }
        }
        if told.is_empty() {
            return;
        }
        let ended = told.iter().any(|(_, one)| one.span.not_after <= self.now);
        let reasons = BTreeSet::from_iter(told.iter().map(|(why, _)| *why));
        let sentences = reasons.into_iter().map(|why| {
            let these = told.iter().filter(|(one, _)| *one == why);
            let these: Vec<_> = these.map(|(_, one)| self.named(world, one)).collect();
            why.said(&these.join(", "))
        });
        plan.push(Step::Wait(Waiting {
            condition: condition::CERTIFICATES_READY,
            reason: if ended {
                reason::CERTIFICATE_EXPIRED
            } else {
                reason::CERTIFICATE_EXPIRING
            },
            message: sentences.collect::<Vec<_>>().join(" "),
            problem: ended,
            finding: None,
        }));
    }

    /// What pods run with in place of what Secrets hold, where they are not being rolled
    /// in this pass. Of each it is known when the first of all ends that they have.
    fn behind(&self, world: &World, plan: &Plan) -> Vec<Certificate> {
        let rolls = |step: &Step| match step {
            Step::Create(object) | Step::Apply(object) => object.kind() == ObjectKind::Deployment,
            _ => false,
        };
        // What leads to a place beside the main one reads its files by itself.
        if world.beside.is_some() || plan.steps.iter().any(rolls) {
            return Vec::new();
        }
        let behind = mounted(world.name()).filter_map(|(part, secret)| {
            let there = plan.secret(&secret).or_else(|| world.secret(&secret))?;
            let end = held_until(world, part, &secret, there)?;
            // Told of what is in the Secret, if that ends no later.
            let newer = ends(world.name(), &secret, there).is_some_and(|it| end < it);
            newer.then_some(Certificate {
                secret,
                span: Span {
                    not_before: end,
                    not_after: end,
                },
                paused: false,
                for_people: false,
                signer_ends: None,
                is_authority: false,
            })
        });
        behind.collect()
    }

    /// The moments at which something changes for a certificate.
    fn turns(&self, one: &Certificate, why: Why) -> [Timestamp; 3] {
        let end = one.span.not_after;
        let renewed = match why {
            Why::Authority | Why::TenantPaused | Why::SecretPaused | Why::PodsBehind => end,
            Why::AuthorityEnds | Why::Overdue => {
                let again = one.span.issued().checked_add(AGAIN).unwrap_or(end);
                self.terms.due(&one.span, self.spread).max(again)
            }
        };
        [self.warns(one, why), renewed, end]
    }

    fn why(&self, one: &Certificate, paused: bool) -> Why {
        if one.is_authority {
            return Why::Authority;
        }
        if paused {
            return Why::TenantPaused;
        }
        if one.paused {
            return Why::SecretPaused;
        }
        let gains = |end| self.terms.gains(self.now, &one.span, end);
        match one.signer_ends {
            Some(end) if !gains(end) => Why::AuthorityEnds,
            _ => Why::Overdue,
        }
    }

    /// From when on it is told.
    fn warns(&self, one: &Certificate, why: Why) -> Timestamp {
        match why {
            Why::Authority => {
                let before = WARNING.max(self.terms.window());
                let end = one.span.not_after;
                end.checked_sub(before).unwrap_or(end)
            }
            // Nobody renews it: the window is the owner's.
            Why::TenantPaused | Why::SecretPaused => self.terms.opens(&one.span),
            Why::AuthorityEnds | Why::Overdue => self.terms.overdue(&one.span),
            Why::PodsBehind => self.terms.late(one.span.not_after),
        }
    }

    fn named(&self, world: &World, one: &Certificate) -> String {
        let end = one.span.not_after;
        let verb = if end <= self.now { "ended" } else { "ends" };
        format!("{}/{} ({verb} at {end})", world.namespace(), one.secret)
    }
}

/// Why a certificate is not made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Authority,
    AuthorityEnds,
    TenantPaused,
    SecretPaused,
    Overdue,
    /// It was, and pods have the one of before.
    PodsBehind,
}

impl Why {
    fn said(self, secrets: &str) -> String {
        let paused = names::ANNOTATION_PAUSED;
        match self {
            Why::Authority => format!(
                "Authorities are not replaced unasked: {secrets}. Replace them at a time that \
                 suits the tenant's nodes: they have to trust the new ones."
            ),
            Why::AuthorityEnds => format!(
                "Certificates cannot outlive the authority that signs them: {secrets}. They are \
                 renewed when that is replaced."
            ),
            Why::TenantPaused => format!(
                "Nothing is renewed while the TenantControlPlane has annotation {paused}: \
                 {secrets}. Take the annotation off before."
            ),
            Why::SecretPaused => format!(
                "Secrets with annotation {paused} are not renewed: {secrets}. Take the \
                 annotation off, or replace the certificate yourself."
            ),
            Why::PodsBehind => format!(
                "Pods run with certificates from before their renewal: {secrets}. The other \
                 conditions and the controller's log tell why they are not being replaced."
            ),
            Why::Overdue => format!(
                "Certificates are overdue for renewal: {secrets}. The other conditions and the \
                 controller's log tell what is in the way."
            ),
        }
    }
}
