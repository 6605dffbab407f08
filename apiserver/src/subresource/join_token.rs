//! `tenantcontrolplanes/NAME/jointoken`: tokens with which nodes join a tenant.
//!
//! POST takes a JoinTokenRequest and makes a bootstrap token in the tenant; GET lists
//! those that there are; DELETE removes one. All of it lives in the tenant alone: nothing
//! is stored here.
//!
//! Guarantees: the tenant is spoken to as a user that may do this and nothing else there;
//! no token without an answer to "may they" that was asked for this request; one audit
//! line for each; a secret stands in the one answer that gives it and nowhere else; a
//! tenant that does not answer costs its own namespace a few places for five seconds.

mod asked;
mod revoked;
mod secret;
mod table;
pub(crate) mod talk;

use std::sync::Arc;

use apiservice::clock::Clock;
use apiservice::names;
use apiservice::pki::{self, Entropy, KubeconfigInput, Leaf, Pair, Usage, Validity};
use apiservice::v1alpha1::{JoinTokenRequest, JoinTokenUsage};
use axum::body::Body;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::accept::{self, Answer, Shape};
use crate::audit;
use crate::authz::{Authorizer, Permit, verb};
use crate::metrics::Metrics;
use crate::object;
use crate::options::{Write, WriteKind};
use crate::registry::{self, Registry, Request};
use crate::respond;
use crate::status::{self, Failure, Subject};
use crate::subresource::admitting::{Admission, How};
use crate::subresource::never_cached;
use crate::subresource::tenant::{self, Signer, Tenant};

use asked::{Asked, KIND};
use secret::Token;
use talk::{Gate, Problem, Secrets, Way};

/// How often an id that is taken is replaced by another.
const IDS: usize = 5;
/// How long the certificate is valid with which a tenant is spoken to.
const CERTIFICATE: SignedDuration = SignedDuration::from_mins(5);

/// Makes, lists and removes tokens in tenants.
pub struct JoinTokens {
    client: kube::Client,
    authorizer: Arc<Authorizer>,
    clock: Clock,
    metrics: Arc<Metrics>,
    longest: u32,
    gate: Gate,
}

/// GET.
///
/// # Errors
/// 404 without the tenant, 503 until it is ready and while it does not answer.
pub async fn get(
    tokens: &JoinTokens,
    registry: &Registry,
    permit: Permit<verb::Get>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Made)?;
    let (mut answer, tenant) = of(registry, &permit).await?;
    let mut secrets = tokens.secrets(&tenant).await?;
    let listed = secrets.list().await;
    let listed = listed.map_err(|problem| tenant.failure(problem, Doing::List))?;
    if listed.more {
        request.warnings.add(format!(
            "the tenant has more than {} tokens: these are the first of them",
            listed.tokens.len()
        ));
    }
    let now = tokens.clock.now();
    if let Shape::Table(version, include) = accept.shape {
        let table = table::of(&listed.tokens, &answer, version, include, now);
        return Ok(never_cached(respond::raw(&table, &accept, StatusCode::OK)));
    }
    answer["status"] = json!({"tokens": listed.tokens});
    let answer = respond::with_columns(&[], &answer, &accept, StatusCode::OK, now);
    Ok(never_cached(answer))
}

/// POST.
///
/// # Errors
/// 403 without the right to this very moment, 404 without the tenant, 422 for a request
/// that cannot be granted, 503 until the tenant is ready and while it does not answer.
pub async fn create(
    tokens: &JoinTokens,
    registry: &Registry,
    permit: Permit<verb::Create>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Made)?;
    let write = Write::parse(request.query(), WriteKind::Create)?;
    let read = || Asked::parse(request, &permit, tokens.longest);
    let asked = request.read(read).await?;
    let object = registry::get::object(registry, &permit).await?;
    let schema = JoinTokenRequest::schema();
    let admission = Admission::new(
        registry,
        &permit,
        request,
        schema,
        How::Sent {
            dry_run: write.dry_run,
        },
    );
    let with = |asked: &Asked| {
        let mut whole = frame(&object.0);
        whole["spec"] = asked.to_value();
        whole
    };
    let changed = admission.mutate(with(&asked)).await?;
    let name = permit.name().unwrap_or_default();
    let asked = Asked::again(&changed, name, tokens.longest)?;
    admission.validate(&with(&asked)).await?;
    tenant::still_allowed(&tokens.authorizer, &permit).await?;
    let now = tokens.clock.now();
    let mut answer = frame(&object.0);
    answer["metadata"]["creationTimestamp"] = object::time(now).into();
    answer["spec"] = asked.to_value();
    if !write.dry_run {
        let tenant = awake(&object.0)?;
        // Not held while the tenant is waited for.
        drop(object);
        answer["status"] = tokens.mint(&tenant, &asked, &permit, request, now).await?;
    }
    let answer = respond::raw(&answer, &accept, StatusCode::CREATED);
    Ok(never_cached(answer))
}

/// DELETE.
///
/// # Errors
/// 400 without an id, 404 without the tenant or the token, 503 until the tenant is ready
/// and while it does not answer.
pub async fn delete(
    tokens: &JoinTokens,
    registry: &Registry,
    permit: Permit<verb::Delete>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Made)?;
    let revoked = request.read(|| revoked::Revoked::parse(request)).await?;
    let (_, tenant) = of(registry, &permit).await?;
    let mut secrets = tokens.secrets(&tenant).await?;
    let failed = |problem| tenant.failure(problem, Doing::Delete);
    let subject = Subject::new(apiservice::GROUP, "jointokens", revoked.id.as_str());
    let found = secrets.find(&revoked.id).await.map_err(failed)?;
    let found = found.ok_or_else(|| Failure::NotFound(subject.clone()))?;
    if !revoked.dry_run {
        let line = audit::Line::begin(|confirmed| {
            audit::join_token_revoked(
                &permit.identity().user,
                &tenant.namespace,
                &tenant.name,
                &revoked.id,
                confirmed,
            );
        });
        let gone = secrets.delete(&revoked.id, &found).await;
        match &gone {
            Ok(true) => line.confirmed(),
            Err(problem) if problem.may_be_done() => drop(line),
            Ok(false) | Err(_) => line.nothing(),
        }
        if !gone.map_err(failed)? {
            return Err(Failure::NotFound(subject));
        }
    }
    let status = status::deleted(&subject, &found.uid);
    Ok(never_cached(respond::raw(&status, &accept, StatusCode::OK)))
}

/// What every answer begins with, and the tenant.
async fn of<V>(registry: &Registry, permit: &Permit<V>) -> Result<(Value, Tenant), Failure> {
    let (object, _room) = registry::get::object(registry, permit).await?;
    Ok((frame(&object), awake(&object)?))
}

fn frame(object: &Value) -> Value {
    json!({
        "apiVersion": object["apiVersion"],
        "kind": KIND,
        "metadata": {
            "name": object["metadata"]["name"],
            "namespace": object["metadata"]["namespace"],
        },
    })
}

/// The tenant, if there is anybody to speak to.
fn awake(object: &Value) -> Result<Tenant, Failure> {
    let tenant = Tenant::of(object)?;
    if tenant.asleep {
        return Err(Failure::Unavailable {
            message: format!(
                "the tenant is asleep, and its tokens are in it: wake it with \
                 \"kubectl scale tcp {} --namespace={} --replicas=1\" and try again",
                tenant.name, tenant.namespace
            ),
            // It does not wake up by itself.
            retry_after: 0,
        });
    }
    Ok(tenant)
}

impl JoinTokens {
    pub fn new(
        client: kube::Client,
        authorizer: Arc<Authorizer>,
        clock: Clock,
        metrics: Arc<Metrics>,
        longest: u32,
    ) -> Self {
        JoinTokens {
            client,
            authorizer,
            clock,
            metrics,
            longest,
            gate: Gate::new(),
        }
    }

    /// The status of the answer, with the one copy of the secret.
    async fn mint(
        &self,
        tenant: &Tenant,
        asked: &Asked,
        permit: &Permit<verb::Create>,
        request: &Request,
        now: Timestamp,
    ) -> Result<Value, Failure> {
        let internal = |error: pki::Error| Failure::Internal(error.to_string());
        let signer = tenant.signer(&self.client).await?;
        let hashes = pki::public_key_hashes(&signer.server_ca)
            .map_err(|_| tenant::not_ready("its authority cannot be read"))?;
        let mut secrets = self.talk(tenant, &signer).await?;
        let expires = object::time(now + SignedDuration::from_secs(i64::from(asked.seconds)));
        let user = &permit.identity().user;
        for _ in 0..IDS {
            let token = Token::new(&Entropy).map_err(internal)?;
            let secret = token.secret(asked, &expires, user);
            let usages = asked.usage_names();
            let line = audit::Line::begin(|confirmed| {
                audit::join_token_minted(&audit::JoinToken {
                    user,
                    namespace: &tenant.namespace,
                    tenant: &tenant.name,
                    id: &token.id,
                    usages: &usages,
                    groups: &asked.groups,
                    expires: &expires,
                    confirmed,
                });
            });
            let made = secrets.create(&secret, &token).await;
            match &made {
                Ok(true) => line.confirmed(),
                Err(problem) if problem.may_be_done() => drop(line),
                Ok(false) | Err(_) => line.nothing(),
            }
            if made.map_err(|problem| tenant.failure(problem, Doing::Create(&token.id)))? {
                self.metrics.join_token_minted();
                if asked.usages.contains(&JoinTokenUsage::Signing) {
                    secrets.signed(&token.id).await;
                }
                if let Some(trouble) = &tenant.trouble {
                    request.warnings.add(format!(
                        "the tenant is not Ready, so nodes may not join now: {trouble}"
                    ));
                }
                return Ok(granted(tenant, &signer, asked, &token, &hashes, &expires));
            }
        }
        Err(Failure::Unavailable {
            message: format!("{IDS} ids of tokens in turn were taken in the tenant"),
            retry_after: tenant::RETRY_AFTER,
        })
    }

    async fn secrets(&self, tenant: &Tenant) -> Result<Secrets, Failure> {
        let signer = tenant.signer(&self.client).await?;
        self.talk(tenant, &signer).await
    }

    /// Reaches the tenant: by its Service, and by where everybody does.
    async fn talk(&self, tenant: &Tenant, signer: &Signer) -> Result<Secrets, Failure> {
        let place = self.gate.enter(&tenant.namespace, &tenant.name)?;
        let client = certificate(signer, self.clock.now());
        let client = client.map_err(|error| Failure::Internal(error.to_string()))?;
        let service = names::service_host(&tenant.name, &tenant.namespace);
        let ways = [
            Way::new(&format!("{service}:{}", tenant.port)),
            Way::new(&tenant.endpoint),
        ];
        let talk = self.gate.talk(place, &ways, &signer.server_ca, &client);
        let talk = talk.await;
        talk.map_err(|problem| tenant.failure(problem, Doing::Connect))
    }
}

/// A certificate of a user that may do this and nothing else.
fn certificate(signer: &Signer, now: Timestamp) -> Result<Pair, pki::Error> {
    let ends = pki::inspect(&signer.authority.cert)?.not_after;
    let leaf = Leaf {
        subject: pki::Subject {
            common_name: names::USER_JOIN_TOKENS.to_owned(),
            organizations: vec![names::GROUP_JOIN_TOKENS.to_owned()],
        },
        usage: Usage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        validity: Validity {
            // For tenants whose clocks are behind ours.
            not_before: now - CERTIFICATE,
            not_after: (now + CERTIFICATE).min(ends),
        },
    };
    pki::sign(&signer.authority, &leaf, &Entropy)
}

/// What is handed out.
fn granted(
    tenant: &Tenant,
    signer: &Signer,
    asked: &Asked,
    token: &Token,
    hashes: &[String],
    expires: &str,
) -> Value {
    let server = format!("https://{}", tenant.for_nodes);
    let lets_in = asked.usages.contains(&JoinTokenUsage::Authentication);
    let input = KubeconfigInput {
        cluster: &tenant.name,
        server: &server,
        ca_pem: &signer.server_ca,
        user: lets_in.then_some(("join-token", None)),
        context: &tenant.name,
    };
    let mut status = json!({
        "token": token.whole(),
        "expirationTimestamp": expires,
        "endpoint": tenant.for_nodes,
        "caCertHashes": hashes,
        "discoveryKubeconfig": pki::discovery_yaml(&input, &token.whole()),
    });
    // Joining takes both usages.
    if asked.usages.len() == JoinTokenUsage::ALL.len() {
        let hashes = hashes.iter();
        let hashes: String = hashes
            .map(|hash| format!(" --discovery-token-ca-cert-hash {hash}"))
            .collect();
        status["command"] = format!(
            "kubeadm join {} --token {}{hashes}",
            tenant.for_nodes,
            token.whole()
        )
        .into();
    }
    status
}

/// What was asked of a tenant when it went wrong.
#[derive(Clone, Copy, Debug)]
enum Doing<'a> {
    Connect,
    List,
    /// With the id.
    Create(&'a str),
    Delete,
}

impl Tenant {
    /// What the caller is told of it, and what to do.
    fn failure(&self, problem: Problem, doing: Doing<'_>) -> Failure {
        let writes = matches!(doing, Doing::Create(_) | Doing::Delete);
        let trouble = match &self.trouble {
            Some(trouble) => format!(" (it is not Ready: {trouble})"),
            None => String::new(),
        };
        let unavailable = |message: String, retry_after| Failure::Unavailable {
            message,
            retry_after,
        };
        match problem {
            Problem::Unreachable(why) => unavailable(
                format!("the tenant cannot be reached{trouble}: {why}"),
                tenant::RETRY_AFTER,
            ),
            Problem::Unanswered(why) => {
                let then = match doing {
                    Doing::Create(id) => format!(
                        "; it may have made the token {id}, whose secret nobody has: GET shows \
                         it, DELETE revokes it"
                    ),
                    Doing::Delete => "; GET shows whether the token is still there".to_owned(),
                    Doing::Connect | Doing::List => String::new(),
                };
                unavailable(
                    format!("the tenant did not answer{trouble}: {why}{then}"),
                    // It may have been done.
                    if writes { 0 } else { tenant::RETRY_AFTER },
                )
            }
            Problem::TooLong => Failure::TooLarge(format!(
                "the tokens of the tenant take more than {} bytes; remove large ones in the \
                 tenant, where they are the Secrets of type {} in {}",
                talk::ANSWER,
                secret::TYPE,
                names::TOKEN_NAMESPACE
            )),
            Problem::Refused { code: 401, message } => unavailable(
                format!(
                    "the tenant does not know the certificate with which it is asked{trouble}: \
                     {message}; its pods take the authority in the Secret {} when they start",
                    names::client_ca(&self.name)
                ),
                tenant::RETRY_AFTER,
            ),
            Problem::Refused { code: 403, message } if is_missing_right(&message) => unavailable(
                format!(
                    "the tenant refuses it: {message}; the controller makes the Role and the \
                     RoleBinding {} in {} of the tenant within half a minute: see the \
                     condition ClusterConfigured",
                    names::GROUP_JOIN_TOKENS,
                    names::TOKEN_NAMESPACE
                ),
                tenant::RETRY_AFTER,
            ),
            Problem::Refused { code, message } if code == 429 || code >= 500 => unavailable(
                format!("the tenant cannot do it now{trouble}: {message}"),
                if writes && code != 429 {
                    0
                } else {
                    tenant::RETRY_AFTER
                },
            ),
            Problem::Refused { message, .. } => Failure::Conflict {
                subject: Subject::new(
                    apiservice::GROUP,
                    apiservice::v1alpha1::tenant_control_plane::RESOURCE.plural,
                    self.name.as_str(),
                ),
                message: format!(
                    "the tenant refuses it: {message}; look in the tenant for what stands in \
                     the way: a quota, a policy or a webhook"
                ),
            },
        }
    }
}

/// Whether RBAC of the tenant said it, in its words about our user.
fn is_missing_right(message: &str) -> bool {
    message.contains(&format!("User {:?} cannot ", names::USER_JOIN_TOKENS))
}

#[cfg(test)]
mod tests;
