//! `tenantcontrolplanes/NAME/kubeconfig`: access to a tenant (rules 11 to 14).
//!
//! GET answers a `v1` Config: with a fresh certificate for callers who may have one,
//! with cluster and context alone for other readers. POST takes a KubeconfigRequest.
//!
//! Guarantees: no certificate without an answer to "may they" that was asked for this
//! request; none that says `system:` or carries the caller's groups; one audit line for
//! each; keys are in no log, and answers are never cached.

mod asked;

use std::sync::Arc;
use std::time::Duration;

use apiservice::names::{self, key};
use apiservice::pki::{self, Entropy, KubeconfigInput, Leaf, Pair, Usage, Validity};
use apiservice::resource::Column;
use apiservice::v1alpha1::{KubeconfigRole, TenantControlPlane};
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use serde_json::{Value, json};

use crate::accept::{self, Answer, Shape};
use crate::audit::{self, Mint};
use crate::authz::{Attributes, Authorizer, Decision, Permit, forbidden, verb};
use crate::metrics::Metrics;
use crate::options::{Write, WriteKind};
use crate::registry::{self, Clock, Registry, Request};
use crate::respond::Warnings;
use crate::status::Failure;
use crate::target::Verb;
use crate::{delegate, respond};

use asked::Asked;

const KIND: &str = "KubeconfigRequest";
/// The verb that lets a reader have a certificate of role view.
const VIEW: &str = "view";
/// For tenants whose clocks are behind ours.
const EARLIER: SignedDuration = SignedDuration::from_mins(5);
const LOOKUP: Duration = Duration::from_secs(5);
const RETRY_AFTER: u32 = 2;

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

/// A tenant, as far as a kubeconfig needs it.
struct Tenant {
    namespace: String,
    name: String,
    server: String,
}

/// What the one Secret holds that we may read of a tenant (rule 13).
struct Signer {
    authority: Pair,
    server_ca: String,
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
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Object)?;
    let (object, _room) = registry::get::object(registry, &permit).await?;
    let role = minter.role(&permit, request).await?;
    if let Shape::Table(..) = accept.shape {
        let value = summary(&object, role, &permit);
        let now = minter.clock.now();
        let table = respond::with_columns(&COLUMNS, &value, &accept, StatusCode::OK, now);
        return Ok(never_cached(table));
    }
    let tenant = Tenant::of(&object, &request.warnings)?;
    let signer = minter.signer(&tenant).await?;
    let minted = match role {
        Some(role) => Some(minter.mint(&tenant, &signer, &permit, role, minter.longest)?),
        None => None,
    };
    let config = config(&tenant, &signer, minted.as_ref());
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
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Object)?;
    let write = Write::parse(request.query(), WriteKind::Create)?;
    let asked = Asked::parse(request, &permit, minter.longest)?;
    let (object, _room) = registry::get::object(registry, &permit).await?;
    minter.still_allowed(&permit).await?;
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
        let tenant = Tenant::of(&object, &request.warnings)?;
        let signer = minter.signer(&tenant).await?;
        let minted = minter.mint(&tenant, &signer, &permit, asked.role, asked.seconds)?;
        answer["status"] = json!({
            "kubeconfig": pki::kubeconfig_yaml(&config(&tenant, &signer, Some(&minted))),
            "expirationTimestamp": minted.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
    }
    Ok(never_cached(respond::raw(
        &answer,
        &accept,
        StatusCode::CREATED,
    )))
}

impl Minter {
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
        Ok(decision.await? == Decision::Allow)
    }

    async fn still_allowed(&self, permit: &Permit<verb::Create>) -> Result<(), Failure> {
        let right = permit.attributes(Verb::Create);
        let decision = self.authorizer.allowed_uncached(permit.identity(), &right);
        match decision.await? {
            Decision::Allow => Ok(()),
            Decision::Deny { reason } => Err(forbidden(permit.identity(), &right, &reason)),
        }
    }

    async fn signer(&self, tenant: &Tenant) -> Result<Signer, Failure> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &tenant.namespace);
        let name = names::client_ca(&tenant.name);
        let secret = match tokio::time::timeout(LOOKUP, api.get(&name)).await {
            Ok(Ok(secret)) => secret,
            Ok(Err(error)) => {
                let error = delegate::describe(&error);
                tracing::warn!(tenant.namespace, secret = name, error, "cannot sign");
                return Err(not_ready(&format!("the Secret {name} cannot be read")));
            }
            Err(_) => return Err(not_ready(&format!("reading the Secret {name} timed out"))),
        };
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| {
            data.get(key)
                .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
                .ok_or_else(|| not_ready(&format!("the Secret {name} has no {key}")))
        };
        Ok(Signer {
            authority: Pair {
                cert: text(key::CA_CRT)?,
                key: text(key::CA_KEY)?,
            },
            server_ca: text(key::SERVER_CA_CRT)?,
        })
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
        let user = format!("{}{}", names::MINTED_USER_PREFIX, permit.identity().user);
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

impl Tenant {
    /// Adds a warning for a tenant that is not Ready now: whoever mends it needs a
    /// kubeconfig for that.
    ///
    /// # Errors
    /// 503 until the tenant is Ready for the first time: before, none works (rule 14).
    fn of(object: &Value, warnings: &Warnings) -> Result<Tenant, Failure> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ready = ready(object);
        if ready.is_none_or(|ready| ready["status"] != "True") {
            if !was_ready(object) {
                return Err(not_ready("its condition Ready is not True"));
            }
            warnings.add(not_ready_now(ready));
        }
        let endpoint = endpoint(object).ok_or_else(|| not_ready("it has no endpoint"))?;
        Ok(Tenant {
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
            server: format!("https://{endpoint}"),
        })
    }
}

fn ready(object: &Value) -> Option<&Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    let mut found = conditions.iter();
    found.find(|it| it["type"] == apiservice::condition::tenant::READY)
}

/// The tenant was Ready once. What does not decode is of no known version.
fn was_ready(object: &Value) -> bool {
    let tenant = serde_json::from_value::<TenantControlPlane>(object.clone());
    tenant.is_ok_and(|tenant| tenant.was_ready())
}

fn not_ready_now(ready: Option<&Value>) -> String {
    let said = |field: &str| ready.and_then(|ready| ready[field].as_str());
    let reason = said("reason").unwrap_or("Unknown");
    let message = said("message").unwrap_or_default();
    format!("the tenant is not Ready, so this kubeconfig may not work now: {reason}: {message}")
}

fn endpoint(object: &Value) -> Option<&str> {
    object["status"]["controlPlaneEndpoint"]
        .as_str()
        .filter(|endpoint| !endpoint.is_empty())
}

fn not_ready(why: &str) -> Failure {
    Failure::Unavailable {
        message: format!("the tenant is not ready to be used: {why}"),
        retry_after: RETRY_AFTER,
    }
}

fn config<'a>(
    tenant: &'a Tenant,
    signer: &'a Signer,
    minted: Option<&'a Minted>,
) -> KubeconfigInput<'a> {
    KubeconfigInput {
        cluster: &tenant.name,
        server: &tenant.server,
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
        value["kubeconfig"]["user"] =
            format!("{}{}", names::MINTED_USER_PREFIX, permit.identity().user).into();
    }
    if let Some(endpoint) = endpoint(object) {
        value["kubeconfig"]["server"] = format!("https://{endpoint}").into();
    }
    value
}

fn never_cached(mut response: Response<Body>) -> Response<Body> {
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_kubeconfigs_from_its_first_ready_on() {
        let warnings = Warnings::default();
        let mut object = json!({
            "metadata": {"name": "t", "namespace": "n"},
            "spec": {"kubernetes": {"version": "v1.36.3"}},
            "status": {"controlPlaneEndpoint": "10.0.0.1:6443", "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "ProbeFailed",
                    "message": "it does not write",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                },
            ]},
        });
        assert_eq!(
            Tenant::of(&object, &warnings).ok().unwrap().server,
            "https://10.0.0.1:6443"
        );
        for status in ["False", "Unknown"] {
            object["status"]["conditions"][0]["status"] = status.into();
            let failure = Tenant::of(&object, &warnings).err().unwrap();
            assert_eq!(
                (failure.code().as_u16(), failure.retry_after()),
                (503, Some(2))
            );
        }
        assert!(warnings.texts().is_empty());

        // Not Ready any more: who mends it needs access, and is told.
        object["status"]["kubernetesResources"] = json!({"version": {"version": "v1.36.3"}});
        assert!(Tenant::of(&object, &warnings).is_ok());
        assert_eq!(
            warnings.texts(),
            [
                "the tenant is not Ready, so this kubeconfig may not work now: ProbeFailed: it does \
                 not write"
            ]
        );
        object["status"] = json!({"conditions": [
            {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": null},
        ]});
        assert!(Tenant::of(&object, &warnings).is_err());
    }
}
