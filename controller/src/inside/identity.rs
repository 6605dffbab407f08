//! As whom a tenant's API is asked: certificates that are good for minutes.

use apiservice::names;
use apiservice::pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;

use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::inside::connection::{Credentials, failure};
use crate::tenant::world::{ProbeFailure, ProbeFailureKind as Kind};

/// As whom a tenant is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Beyond RBAC: nobody is bound to anything yet. Only until a control plane of
    /// the tenant's uid was Ready for the first time (rule 16), or where somebody has
    /// annotated the tenant to begin anew.
    First,
    /// As a member of `kubeadm:cluster-admins`, of the tenant's authority.
    ClusterAdmins,
    /// As a member of `steward:admin`, of the authority for users.
    Admins,
}

impl Writer {
    /// In the order in which they are tried: the next where one may not do what has to
    /// be done. As long as one of the two groups is bound, it can bind the other. `anew`:
    /// somebody had the tenant begin with an empty database, where nobody is bound.
    pub fn of(first: bool, anew: bool) -> &'static [Writer] {
        match (first, anew) {
            (true, _) => &[Writer::First],
            (false, true) => &[Writer::ClusterAdmins, Writer::Admins, Writer::First],
            (false, false) => &[Writer::ClusterAdmins, Writer::Admins],
        }
    }

    fn group(self) -> &'static str {
        match self {
            Writer::First => "system:masters",
            Writer::ClusterAdmins => names::GROUP_KUBEADM_CLUSTER_ADMINS,
            Writer::Admins => names::GROUP_ADMIN,
        }
    }

    /// Fresh credentials for this tenant.
    pub fn credentials(
        self,
        ctx: &Context,
        tenant: &NamespacedName,
    ) -> Result<Credentials, ProbeFailure> {
        let authority = |secret: &str| authority(ctx, tenant, secret);
        let cluster = authority(&names::ca(&tenant.name))?;
        let client = match self {
            Writer::First | Writer::ClusterAdmins => self.certificate(ctx, &cluster)?,
            Writer::Admins => {
                let users = authority(&names::client_ca(&tenant.name))?;
                self.certificate(ctx, &users)?
            }
        };
        Credentials::new(&cluster.cert, &client)
    }

    fn certificate(self, ctx: &Context, signer: &Pair) -> Result<Pair, ProbeFailure> {
        client_certificate(
            signer,
            names::USER_BOOTSTRAP,
            self.group(),
            ctx.now(),
            &ctx.entropy,
        )
    }
}

/// Credentials for [`crate::inside::serving_certificates`], good for nothing else.
pub fn serving_certificates(
    ctx: &Context,
    tenant: &NamespacedName,
) -> Result<Credentials, ProbeFailure> {
    let cluster = authority(ctx, tenant, &names::ca(&tenant.name))?;
    let users = authority(ctx, tenant, &names::client_ca(&tenant.name))?;
    let (user, group) = (names::USER_CONTROLLER, names::GROUP_SERVING_CERTIFICATES);
    let client = client_certificate(&users, user, group, ctx.now(), &ctx.entropy)?;
    Credentials::new(&cluster.cert, &client)
}

fn authority(ctx: &Context, tenant: &NamespacedName, secret: &str) -> Result<Pair, ProbeFailure> {
    let pair = pair_of(ctx, tenant, secret);
    pair.ok_or_else(|| failure(Kind::Unasked, "the tenant's authorities are not there"))
}

/// An authority out of one of the tenant's Secrets.
pub fn pair_of(ctx: &Context, tenant: &NamespacedName, secret: &str) -> Option<Pair> {
    let secret = ctx
        .caches
        .secrets
        .get(&NamespacedName::new(&tenant.namespace, secret))?;
    let read = |key: &str, secret: &Secret| {
        let bytes = secret.data.as_ref()?.get(key)?.0.clone();
        String::from_utf8(bytes).ok()
    };
    Some(Pair {
        cert: read(names::key::CA_CRT, &secret)?,
        key: read(names::key::CA_KEY, &secret)?,
    })
}

/// A client certificate that is good for minutes.
pub fn client_certificate(
    signer: &Pair,
    user: &str,
    group: &str,
    now: Timestamp,
    entropy: &Entropy,
) -> Result<Pair, ProbeFailure> {
    let at = |seconds| {
        now.checked_add(SignedDuration::from_secs(seconds))
            .map_err(|error| failure(Kind::Unauthenticated, error.to_string()))
    };
    let leaf = Leaf {
        subject: Subject {
            common_name: user.into(),
            organizations: vec![group.into()],
        },
        usage: Usage::Client,
        dns_names: vec![],
        ip_addresses: vec![],
        validity: Validity {
            // Clocks of nodes differ a little.
            not_before: at(-60)?,
            not_after: at(300)?,
        },
    };
    pki::sign(signer, &leaf, entropy)
        .map_err(|error| failure(Kind::Unauthenticated, format!("cannot sign: {error}")))
}
