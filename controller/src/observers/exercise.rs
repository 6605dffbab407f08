//! What a probe does in a tenant once it is connected: read, write, watch, and
//! look at the bindings.

use apiservice::names;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    tenant::{
        drift,
        plan::Bindings,
        world::{ProbeFailure, ProbeFailureKind as Kind},
    },
    tenant_client::{Answer, Tenant, failure},
};

/// Name of the Lease that the probe writes in the tenant.
const LEASE: &str = "steward-probe";
const MERGE: &str = "application/merge-patch+json";

/// Reads, writes, and waits for a watch to tell of the write.
pub async fn exercise(
    tenant: &Tenant,
    now: Timestamp,
    stage: &mut Kind,
) -> Result<(), ProbeFailure> {
    let namespace = names::PROBE_NAMESPACE;
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let selector = format!("fieldSelector=metadata.name%3D{LEASE}");
    let list = tenant
        .call(Method::GET, &format!("{leases}?{selector}"), "", None)
        .await?;
    expect(&list, Kind::Read)?;
    *stage = Kind::Write;
    let version = list.body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or("0");
    let exists = list.body["items"]
        .as_array()
        .is_some_and(|items| !items.is_empty());
    let watch =
        format!("{leases}?{selector}&watch=true&resourceVersion={version}&timeoutSeconds=10");
    let mark = json!({"renewTime": format!("{now:.6}"), "holderIdentity": "steward-controller"});
    let write = async {
        let answer = if exists {
            let path = format!("{leases}/{LEASE}");
            tenant
                .call(Method::PATCH, &path, MERGE, Some(&json!({"spec": mark})))
                .await?
        } else {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": LEASE},
                "spec": mark,
            });
            tenant
                .call(Method::POST, &leases, "application/json", Some(&lease))
                .await?
        };
        if answer.status == StatusCode::NOT_FOUND || answer.status == StatusCode::FORBIDDEN {
            // The namespace is one of the things that bootstrap brings.
            return Err(failure(Kind::Forbidden, answer.message()));
        }
        expect(&answer, Kind::Write)?;
        Ok(answer)
    };
    let (mut events, written) = tokio::try_join!(tenant.watch(&watch), write)?;
    *stage = Kind::Watch;
    let ours = &written.body["metadata"]["resourceVersion"];
    while let Some(event) = events.next().await? {
        if event["type"] == "ERROR" {
            let message = event["object"]["message"].as_str().unwrap_or("unknown");
            return Err(failure(Kind::Watch, format!("the watch ends: {message}")));
        }
        if &event["object"]["metadata"]["resourceVersion"] == ours {
            return Ok(());
        }
    }
    Err(failure(Kind::Watch, "the watch ended without our write"))
}

/// Turns an answer that is not a success into its cause.
fn expect(answer: &Answer, stage: Kind) -> Result<(), ProbeFailure> {
    let status = answer.status;
    if status.is_success() {
        return Ok(());
    }
    let message = answer.message();
    let kind = match status {
        StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        _ if storage_speaks(&message) => Kind::Storage,
        _ => stage,
    };
    Err(failure(kind, message))
}

/// The API server hands on what etcd says.
fn storage_speaks(message: &str) -> bool {
    [
        "etcdserver",
        "etcd",
        "context deadline exceeded",
        "storage is (re)initializing",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// Whether the objects of rule 16 are in the tenant as we want them.
pub async fn has(tenant: &Tenant, wanted: &Bindings) -> Result<bool, ProbeFailure> {
    for object in &wanted.objects {
        let Some(path) = path_of(object) else {
            continue;
        };
        let answer = tenant.call(Method::GET, &path, "", None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        expect(&answer, Kind::Read)?;
        if drift::first(object, &answer.body).is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The path of an object of a kind that bootstrap writes.
pub fn path_of(object: &Value) -> Option<String> {
    let version = object["apiVersion"].as_str()?;
    let name = object["metadata"]["name"].as_str()?;
    let plural = match object["kind"].as_str()? {
        "Namespace" => "namespaces",
        "ClusterRole" => "clusterroles",
        "ClusterRoleBinding" => "clusterrolebindings",
        "Role" => "roles",
        "RoleBinding" => "rolebindings",
        "ConfigMap" => "configmaps",
        "ServiceAccount" => "serviceaccounts",
        _ => return None,
    };
    let root = if version.contains('/') { "apis" } else { "api" };
    Some(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("/{root}/{version}/{plural}/{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_apart() {
        let answer = |code: u16, message: &str| Answer {
            status: StatusCode::from_u16(code).unwrap(),
            body: json!({"message": message}),
        };
        let kind = |code, message| {
            expect(&answer(code, message), Kind::Write)
                .unwrap_err()
                .kind
        };
        assert!(expect(&answer(201, ""), Kind::Write).is_ok());
        assert_eq!(kind(401, "Unauthorized"), Kind::Unauthenticated);
        assert_eq!(kind(403, "leases is forbidden"), Kind::Forbidden);
        assert_eq!(
            kind(500, "etcdserver: mvcc: database space exceeded"),
            Kind::Storage
        );
        assert_eq!(kind(500, "etcdserver: permission denied"), Kind::Storage);
        assert_eq!(kind(422, "is invalid"), Kind::Write);
    }

    #[test]
    fn paths_of_what_bootstrap_writes() {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "steward:admin"},
        });
        assert_eq!(
            path_of(&binding).unwrap(),
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/steward:admin"
        );
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
        assert_eq!(path_of(&namespace).unwrap(), "/api/v1/namespaces/a");
    }
}
