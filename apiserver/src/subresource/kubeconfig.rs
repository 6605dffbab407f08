//! `tenantcontrolplanes/NAME/kubeconfig`: access to a tenant (rules 11 to 14).
//!
//! GET answers a `v1` Config: with a fresh certificate for callers who may have one,
//! with cluster and context alone for other readers. POST takes a KubeconfigRequest. Both
//! ask the management cluster's admission before they make a certificate.
//!
//! Guarantees: no certificate without an answer to "may they" that was asked for this
//! request; none that says `system:` or carries the caller's groups; one audit line for
//! each; keys are in no log, and answers are never cached.

mod asked;

use std::sync::Arc;

use apiservice::clock::Clock;
use apiservice::names;
use apiservice::pki::{self, Entropy, KubeconfigInput, Leaf, Pair, Usage, Validity};
use apiservice::resource::Column;
use apiservice::v1alpha1::{KubeconfigRequest, KubeconfigRole};
use axum::body::Body;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::accept::{self, Answer, Shape};
use crate::audit::{self, Mint};
use crate::authz::{Attributes, Authorizer, Permit, verb};
use crate::metrics::Metrics;
use crate::options::{Write, WriteKind};
use crate::registry::{self, Registry, Request};
use crate::respond;
use crate::status::{Denied, Failure};
use crate::subresource::admitting::{Admission, How};
use crate::subresource::never_cached;
use crate::subresource::tenant::{self, Signer, Tenant, endpoint};
use crate::target::Verb;
use crate::warnings::Warnings;

use asked::{Asked, KIND};

/// The verb that lets a reader have a certificate of role view.
const VIEW: &str = "view";
/// For tenants whose clocks are behind ours.
const EARLIER: SignedDuration = SignedDuration::from_mins(5);

/// What `kubectl get --subresource=kubeconfig` prints after the name; never a key.
static COLUMNS: [Column; 3] = [
    column(
        "Role",
        ".kubeconfig.role",
        "Rights that a kubeconfig for you has",
    ),
    column(
        "User",
        ".kubeconfig.user",
        "User that a kubeconfig for you names",
    ),
    column(
        "Server",
        ".kubeconfig.server",
        "Address of the tenant's API server",
    ),
];

const fn column(name: &'static str, path: &'static str, description: &'static str) -> Column {
    Column {
        name,
        json_path: path,
        kind: "string",
        format: "",
        description,
        priority: 0,
    }
}

/// Makes kubeconfigs.
pub struct Minter {
    client: kube::Client,
    authorizer: Arc<Authorizer>,
    clock: Clock,
    metrics: Arc<Metrics>,
    longest: u32,
}

/// A certificate that was made.
struct Minted {
    user: String,
    pair: Pair,
    expires: Timestamp,
}

/// GET.
///
/// # Errors
/// 404 without the tenant, 503 until it is ready.
pub async fn get(
    minter: &Minter,
    registry: &Registry,
    permit: Permit<verb::Get>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Made)?;
    let (object, _room) = registry::get::object(registry, &permit).await?;
    let role = minter.role(&permit, request).await?;
    if let Shape::Table(..) = accept.shape {
        let value = summary(&object, role, &permit);
        let now = minter.clock.now();
        let table = respond::with_columns(&COLUMNS, &value, &accept, StatusCode::OK, now);
        return Ok(never_cached(table));
    }
    let tenant = usable(&object, &request.warnings)?;
    let signer = tenant.signer(&minter.client).await?;
    let granted = match role {
        Some(role) => minter.admit(registry, &permit, request, role).await?,
        None => None,
    };
    let minted = match granted {
        Some(Asked { role, seconds }) => {
            Some(minter.mint(&tenant, &signer, &permit, role, seconds)?)
        }
        None => None,
    };
    let server = tenant.server();
    let config = config(&tenant, &server, &signer, minted.as_ref());
    let answer = respond::raw(&pki::kubeconfig(&config), &accept, StatusCode::OK);
    Ok(never_cached(answer))
}

/// POST.
///
/// # Errors
/// 403 without the right to this very moment, 404 without the tenant, 422 for a request
/// that cannot be granted, 503 until the tenant is ready.
pub async fn create(
    minter: &Minter,
    registry: &Registry,
    permit: Permit<verb::Create>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Made)?;
    let write = Write::parse(request.query(), WriteKind::Create)?;
    let read = || Asked::parse(request, &permit, minter.longest);
    let asked = request.read(read).await?;
    if let Some(message) = taken(&permit) {
        return Err(Failure::Denied(Box::new(Denied {
            message: format!("kubeconfigs are forbidden: {message}"),
            reason: "Forbidden".to_owned(),
            code: 403,
            details: None,
        })));
    }
    let (object, _room) = registry::get::object(registry, &permit).await?;
    let admission = Admission::new(
        registry,
        &permit,
        request,
        KubeconfigRequest::schema(),
        How::Sent {
            dry_run: write.dry_run,
        },
    );
    let changed = admission.mutate(frame(&permit, &asked)).await?;
    let name = permit.name().unwrap_or_default();
    let asked = Asked::again(&changed, name, minter.longest)?;
    admission.validate(&frame(&permit, &asked)).await?;
    tenant::still_allowed(&minter.authorizer, &permit).await?;
    let mut answer = json!({
        "apiVersion": permit.resource().api_version(),
        "kind": KIND,
        "metadata": {
            "name": object["metadata"]["name"],
            "namespace": object["metadata"]["namespace"],
            "creationTimestamp": minter.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        },
        "spec": {"role": asked.role.as_str(), "expirationSeconds": asked.seconds},
    });
    if !write.dry_run {
        let tenant = usable(&object, &request.warnings)?;
        let signer = tenant.signer(&minter.client).await?;
        let minted = minter.mint(&tenant, &signer, &permit, asked.role, asked.seconds)?;
        answer["status"] = json!({
            "kubeconfig": pki::kubeconfig_yaml(&config(&tenant, &tenant.server(), &signer, Some(&minted))),
            "expirationTimestamp": minted.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
    }
    Ok(never_cached(respond::raw(
        &answer,
        &accept,
        StatusCode::CREATED,
    )))
}

/// What admission sees of a request.
fn frame<V>(permit: &Permit<V>, asked: &Asked) -> Value {
    json!({
        "apiVersion": permit.resource().api_version(),
        "kind": KIND,
        "metadata": {"name": permit.name(), "namespace": permit.namespace()},
        "spec": {"role": asked.role.as_str(), "expirationSeconds": asked.seconds},
    })
}

/// The user in minted certificates.
fn user_of<V>(permit: &Permit<V>) -> String {
    format!("{}{}", names::MINTED_USER_PREFIX, permit.identity().user)
}

/// Why the caller gets no certificate: its user would be one of ours, whom the tenant's
/// policies let through and whose name its audit log has beside what we do.
fn taken<V>(permit: &Permit<V>) -> Option<String> {
    let user = user_of(permit);
    let taken = names::OWN_USERS.contains(&&*user);
    taken.then(|| {
        format!(
            "User {:?} would be {user:?} in the tenant, who is Steward itself; ask as another user",
            permit.identity().user
        )
    })
}

/// Whether somebody decided that there is to be no such credential, rather than could not
/// be asked.
fn is_refusal(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Denied(_) | Failure::Forbidden { .. } | Failure::Invalid { .. }
    )
}

impl Minter {
    /// What the management cluster's admission grants to a reader, who is not given more than
    /// `role`: it is asked as about a POST for that. Where it refuses, a warning says so.
    async fn admit(
        &self,
        registry: &Registry,
        permit: &Permit<verb::Get>,
        request: &Request,
        role: KubeconfigRole,
    ) -> Result<Option<Asked>, Failure> {
        let asked = Asked {
            role,
            seconds: self.longest,
        };
        let schema = KubeconfigRequest::schema();
        let admission = Admission::new(registry, permit, request, schema, How::Read);
        let granted = async {
            if !admission.concerns_any().await? {
                return Ok(Some(asked));
            }
            let changed = admission.mutate(frame(permit, &asked)).await?;
            let name = permit.name().unwrap_or_default();
            let mut granted = Asked::again(&changed, name, self.longest)?;
            if role == KubeconfigRole::View {
                granted.role = role;
            }
            admission.validate(&frame(permit, &granted)).await?;
            // Since the reader's rights were asked for, a while may have passed.
            let still = self.role(permit, request).await?;
            let may = still == Some(KubeconfigRole::Admin) || still == Some(granted.role);
            Ok(may.then_some(granted))
        };
        match granted.await {
            Ok(granted) => Ok(granted),
            Err(why) if is_refusal(&why) => {
                request
                    .warnings
                    .add(format!("this kubeconfig has no user: {why}"));
                Ok(None)
            }
            Err(why) => Err(why),
        }
    }

    pub fn new(
        client: kube::Client,
        authorizer: Arc<Authorizer>,
        clock: Clock,
        metrics: Arc<Metrics>,
        longest: u32,
    ) -> Self {
        Minter {
            client,
            authorizer,
            clock,
            metrics,
            longest,
        }
    }

    /// The rights that a reader gets in the tenant; none comes with a warning that names
    /// the right that is missing.
    async fn role(
        &self,
        permit: &Permit<verb::Get>,
        request: &Request,
    ) -> Result<Option<KubeconfigRole>, Failure> {
        if let Some(message) = taken(permit) {
            request
                .warnings
                .add(format!("this kubeconfig has no user: {message}"));
            return Ok(None);
        }
        let create = permit.attributes(Verb::Create);
        if self.allows(permit, &create).await? {
            return Ok(Some(KubeconfigRole::Admin));
        }
        let view = Attributes {
            verb: VIEW.to_owned(),
            ..create
        };
        if self.allows(permit, &view).await? {
            return Ok(Some(KubeconfigRole::View));
        }
        request.warnings.add(format!(
            "this kubeconfig has no user: you need the verb \"create\" (role admin) or \
             \"view\" (role view) on {}/kubeconfig in API group \"{}\" in the namespace \"{}\"",
            permit.resource().plural,
            apiservice::GROUP,
            permit.namespace().unwrap_or_default()
        ));
        Ok(None)
    }

    async fn allows<V>(&self, permit: &Permit<V>, right: &Attributes) -> Result<bool, Failure> {
        let decision = self.authorizer.allowed_uncached(permit.identity(), right);
        Ok(decision.await?.is_allowed())
    }

    fn mint<V>(
        &self,
        tenant: &Tenant,
        signer: &Signer,
        permit: &Permit<V>,
        role: KubeconfigRole,
        seconds: u32,
    ) -> Result<Minted, Failure> {
        let internal = |error: pki::Error| Failure::Internal(error.to_string());
        let now = self.clock.now();
        let authority_ends = pki::inspect(&signer.authority.cert)
            .map_err(internal)?
            .not_after;
        let expires = (now + SignedDuration::from_secs(i64::from(seconds))).min(authority_ends);
        let user = user_of(permit);
        let leaf = Leaf {
            subject: pki::Subject {
                common_name: user.clone(),
                organizations: vec![role.group().to_owned()],
            },
            usage: Usage::Client,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            validity: Validity {
                not_before: now - EARLIER,
                not_after: expires,
            },
        };
        let pair = pki::sign(&signer.authority, &leaf, &Entropy).map_err(internal)?;
        let made = pki::inspect(&pair.cert).map_err(internal)?;
        audit::minted(&Mint {
            user: &permit.identity().user,
            namespace: &tenant.namespace,
            tenant: &tenant.name,
            role: role.as_str(),
            serial: &made.serial_hex,
            expires: made.not_after,
        });
        self.metrics.minted();
        Ok(Minted {
            user,
            pair,
            expires: made.not_after,
        })
    }
}

/// The tenant, with a warning for one that is not Ready now: whoever mends it needs a
/// kubeconfig for that.
fn usable(object: &Value, warnings: &Warnings) -> Result<Tenant, Failure> {
    let tenant = Tenant::of(object)?;
    if let Some(trouble) = &tenant.trouble {
        warnings.add(format!(
            "the tenant is not Ready, so this kubeconfig may not work now: {trouble}"
        ));
    }
    Ok(tenant)
}

fn config<'a>(
    tenant: &'a Tenant,
    server: &'a str,
    signer: &'a Signer,
    minted: Option<&'a Minted>,
) -> KubeconfigInput<'a> {
    KubeconfigInput {
        cluster: &tenant.name,
        server,
        ca_pem: &signer.server_ca,
        user: minted.map(|minted| (minted.user.as_str(), Some(&minted.pair))),
        context: &tenant.name,
    }
}

/// What the Table is made of: nothing is minted for it.
fn summary<V>(object: &Value, role: Option<KubeconfigRole>, permit: &Permit<V>) -> Value {
    let mut value = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": object["metadata"],
        "kubeconfig": {"role": "<none>", "user": "<none>"},
    });
    if let Some(role) = role {
        value["kubeconfig"]["role"] = role.as_str().into();
        value["kubeconfig"]["user"] = user_of(permit).into();
    }
    if let Some(endpoint) = endpoint(object) {
        value["kubeconfig"]["server"] = format!("https://{endpoint}").into();
    }
    value
}

#[cfg(test)]
mod tests;
