//! A tenant as its subresources need it: where it is, whether it can be used, and the one
//! Secret of it that we may read (rule 13).

use std::time::Duration;

use apiservice::endpoint::Endpoint;
use apiservice::names::{self, key};
use apiservice::pki::Pair;
use apiservice::v1alpha1::{TenantControlPlane, TenantControlPlaneSpec};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use serde_json::Value;

use crate::authz::{Authorizer, Decision, Permit, forbidden, verb};
use crate::reviews;
use crate::status::Failure;
use crate::target::Verb;

const LOOKUP: Duration = Duration::from_secs(5);
pub(super) const RETRY_AFTER: u32 = 2;

/// Where a tenant is.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) namespace: String,
    pub(super) name: String,
    /// HOST:PORT, for everybody.
    pub(super) endpoint: String,
    /// HOST:PORT for its nodes: the same, unless the tenant names an address for them.
    pub(super) for_nodes: String,
    /// The port of its Service.
    pub(super) port: u16,
    /// It has no pods, because it is to have none.
    pub(super) asleep: bool,
    /// Why it is not Ready now, although it was before.
    pub(super) trouble: Option<String>,
}

/// What the Secret holds.
pub(super) struct Signer {
    pub(super) authority: Pair,
    pub(super) server_ca: String,
}

impl Tenant {
    /// # Errors
    /// 503 until the tenant is Ready for the first time: before, nothing that is made for
    /// it works (rule 14).
    pub(super) fn of(object: &Value) -> Result<Tenant, Failure> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ready = ready(object);
        let mut trouble = None;
        if ready.is_none_or(|ready| ready["status"] != "True") {
            if !was_ready(object) {
                return Err(not_ready("its condition Ready is not True"));
            }
            trouble = Some(why(ready));
        }
        let endpoint = endpoint(object).ok_or_else(|| not_ready("it has no endpoint"))?;
        let spec = &object["spec"];
        let network = &spec["networkProfile"];
        let port = network["port"].as_u64();
        let port = port.and_then(|port| port.try_into().ok()).unwrap_or(6443);
        Ok(Tenant {
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
            endpoint: endpoint.to_owned(),
            for_nodes: for_nodes(spec, endpoint),
            port,
            asleep: spec["controlPlane"]["deployment"]["replicas"] == 0,
            trouble,
        })
    }

    /// The URL of its API server.
    pub(super) fn server(&self) -> String {
        format!("https://{}", self.endpoint)
    }

    /// The authorities.
    ///
    /// # Errors
    /// 503 while they cannot be read.
    pub(super) async fn signer(&self, client: &kube::Client) -> Result<Signer, Failure> {
        let api: Api<Secret> = Api::namespaced(client.clone(), &self.namespace);
        let name = names::client_ca(&self.name);
        let secret = match tokio::time::timeout(LOOKUP, api.get(&name)).await {
            Ok(Ok(secret)) => secret,
            Ok(Err(error)) => {
                let error = reviews::describe(&error);
                tracing::warn!(self.namespace, secret = name, error, "cannot sign");
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
}

/// What is minted asks for the right anew, whatever was remembered.
///
/// # Errors
/// 403.
pub(super) async fn still_allowed(
    authorizer: &Authorizer,
    permit: &Permit<verb::Create>,
) -> Result<(), Failure> {
    let right = permit.attributes(Verb::Create);
    let decision = authorizer.allowed_uncached(permit.identity(), &right);
    match decision.await? {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } => Err(forbidden(permit.identity(), &right, &reason)),
    }
}

/// HOST:PORT for the tenant's nodes.
fn for_nodes(spec: &Value, published: &str) -> String {
    let decoded: Option<TenantControlPlaneSpec> = serde_json::from_value(spec.clone()).ok();
    match decoded.zip(published.parse::<Endpoint>().ok()) {
        Some((spec, published)) => spec.for_nodes(&published).to_string(),
        None => published.to_owned(),
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

fn why(ready: Option<&Value>) -> String {
    let said = |field: &str| ready.and_then(|ready| ready[field].as_str());
    let reason = said("reason").unwrap_or("Unknown");
    let message = said("message").unwrap_or_default();
    format!("{reason}: {message}")
}

pub(super) fn endpoint(object: &Value) -> Option<&str> {
    object["status"]["controlPlaneEndpoint"]
        .as_str()
        .filter(|endpoint| !endpoint.is_empty())
}

pub(super) fn not_ready(why: &str) -> Failure {
    Failure::Unavailable {
        message: format!("the tenant is not ready to be used: {why}"),
        retry_after: RETRY_AFTER,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tenant_can_be_used_from_its_first_ready_on() {
        let mut object = json!({
            "metadata": {"name": "t", "namespace": "n"},
            "spec": {
                "kubernetes": {"version": "v1.36.3"},
                "networkProfile": {"port": 7443},
                "controlPlane": {"deployment": {"replicas": 0}},
            },
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
        let tenant = Tenant::of(&object).unwrap();
        assert_eq!(tenant.server(), "https://10.0.0.1:6443");
        assert_eq!((tenant.port, tenant.asleep), (7443, true));
        assert_eq!(tenant.for_nodes, tenant.endpoint);
        let nodes = |address: &str| {
            let mut object = object.clone();
            object["spec"]["networkProfile"]["advertiseAddress"] = address.into();
            Tenant::of(&object).unwrap().for_nodes
        };
        assert_eq!(nodes(""), "10.0.0.1:6443");
        assert_eq!(nodes("203.0.113.7"), "203.0.113.7:7443");
        assert_eq!(nodes("2001:db8::7"), "[2001:db8::7]:7443");
        assert_eq!(tenant.trouble, None);
        for status in ["False", "Unknown"] {
            object["status"]["conditions"][0]["status"] = status.into();
            let failure = Tenant::of(&object).unwrap_err();
            assert_eq!(
                (failure.code().as_u16(), failure.retry_after()),
                (503, Some(2))
            );
        }

        // Not Ready any more: who mends it needs access, and is told.
        object["status"]["kubernetesResources"] = json!({"version": {"version": "v1.36.3"}});
        let tenant = Tenant::of(&object).unwrap();
        assert_eq!(
            tenant.trouble.as_deref(),
            Some("ProbeFailed: it does not write")
        );
        object["status"] = json!({"conditions": [
            {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": null},
        ]});
        assert!(Tenant::of(&object).is_err());
    }
}
