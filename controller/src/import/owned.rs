//! How the objects of a tenant change hands: patches of their metadata. Pure.

use std::collections::BTreeMap;

use apiservice::names;
use serde_json::{Map, Value, json};

use super::old::Old;

/// What the other operator makes for a tenant, by path below a namespace. What is not served is
/// passed over.
pub const KINDS: [&str; 8] = [
    "/api/v1/namespaces/{ns}/secrets",
    "/api/v1/namespaces/{ns}/configmaps",
    "/api/v1/namespaces/{ns}/services",
    "/apis/apps/v1/namespaces/{ns}/deployments",
    "/apis/networking.k8s.io/v1/namespaces/{ns}/ingresses",
    "/apis/gateway.networking.k8s.io/v1/namespaces/{ns}/tlsroutes",
    "/apis/gateway.networking.k8s.io/v1alpha2/namespaces/{ns}/tlsroutes",
    "/apis/traefik.io/v1alpha1/namespaces/{ns}/ingressroutetcps",
];

/// A path of [`KINDS`] in a namespace.
pub fn path(kind: &str, namespace: &str) -> String {
    kind.replace("{ns}", namespace)
}

/// Whether an object refers to a tenant of the other operator as its owner.
pub fn is_theirs(old: &Old, object: &Value, uid: &str) -> bool {
    owners(object).any(|owner| is_old(old, owner, uid))
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten()
}

fn is_old(old: &Old, owner: &Value, uid: &str) -> bool {
    owner["uid"] == uid && owner["kind"] == "TenantControlPlane" && {
        let version = owner["apiVersion"].as_str().unwrap_or_default();
        version.split('/').next() == Some(old.domain)
    }
}

/// Whether an object that has nobody's reference says that it is this tenant's: what is left
/// where its owner was deleted without it.
fn is_orphan(old: &Old, object: &Value, tenant: &str) -> bool {
    let label = |name: &str| object["metadata"]["labels"][old.key(name)].as_str();
    owners(object).next().is_none()
        && label("name") == Some(tenant)
        && label("project") == Some(old.project)
}

/// The tenant, as its objects refer to it.
#[derive(Debug)]
pub struct Tenant<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    /// Of Kubernetes, as it runs.
    pub version: &'a str,
}

/// What makes an object of the other operator's tenant one of ours; `None` if it is, or if it
/// is nothing of the tenant.
pub fn change(old: &Old, object: &Value, tenant: &Tenant) -> Option<Value> {
    let meta = &object["metadata"];
    let theirs = is_theirs(old, object, tenant.uid);
    let ours_already = owners(object).any(|owner| {
        owner["uid"] == tenant.uid && owner["apiVersion"] == apiservice::api_version()
    });
    if !theirs && !ours_already && !is_orphan(old, object, tenant.name) {
        return None;
    }
    let mut references: Vec<Value> = owners(object)
        .filter(|owner| owner["uid"] != tenant.uid)
        .cloned()
        .collect();
    references.push(json!({
        "apiVersion": apiservice::api_version(),
        "kind": "TenantControlPlane",
        "name": tenant.name,
        "uid": tenant.uid,
        "controller": true,
    }));
    let mut changed = Map::new();
    if !ours_already || theirs {
        changed.insert("ownerReferences".to_owned(), json!(references));
    }
    let labels = labels(old, meta, tenant.name);
    let missing = |(key, value): &(&String, &String)| meta["labels"][*key] != **value;
    if labels.iter().any(|it| missing(&it)) {
        changed.insert("labels".to_owned(), json!(labels));
    }
    let ran = &meta["annotations"][names::ANNOTATION_RAN];
    if keys(tenant.name).iter().any(|it| meta["name"] == **it) && *ran != tenant.version {
        let ran = json!({names::ANNOTATION_RAN: tenant.version});
        changed.insert("annotations".to_owned(), ran);
    }
    if changed.is_empty() {
        return None;
    }
    // Whoever writes it meanwhile is not overwritten.
    changed.insert(
        "resourceVersion".to_owned(),
        meta["resourceVersion"].clone(),
    );
    Some(json!({"metadata": changed}))
}

/// The Secrets whose keys say that the tenant ran (rule 19).
pub fn keys(tenant: &str) -> [String; 3] {
    [
        names::ca(tenant),
        names::service_account(tenant),
        names::front_proxy_ca(tenant),
    ]
}

fn labels(old: &Old, meta: &Value, tenant: &str) -> BTreeMap<String, String> {
    let component = &meta["labels"][old.key("component")];
    let mut labels = names::labels(tenant, component.as_str().unwrap_or_default());
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// The label by which our Service and Deployment know a tenant's pods.
pub fn mark(tenant: &str) -> Value {
    json!({"metadata": {"labels": {names::LABEL_NAME: tenant}}})
}

/// The Service leads to the pods with our label, and to no others, if it did not.
pub fn selector(service: &Value, tenant: &str) -> Option<Value> {
    let found = service["spec"]["selector"].as_object()?;
    if found.len() == 1 && found.get(names::LABEL_NAME) == Some(&json!(tenant)) {
        return None;
    }
    let mut selector: Map<String, Value> =
        found.keys().map(|key| (key.clone(), Value::Null)).collect();
    selector.insert(names::LABEL_NAME.to_owned(), json!(tenant));
    let version = &service["metadata"]["resourceVersion"];
    Some(json!({
        "metadata": {"resourceVersion": version},
        "spec": {"selector": selector},
    }))
}

/// Whether a Deployment knows its pods otherwise than ours does: that cannot be changed.
pub fn selects_otherwise(deployment: &Value, tenant: &str) -> bool {
    deployment["spec"]["selector"] != json!({"matchLabels": {names::LABEL_NAME: tenant}})
}
