//! Which kinds there are, in the two forms that clients ask for (contract 2.2
//! and 2.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::resource::{Resource, Scope, Subresource, VERBS};
use crate::{GROUP, RESOURCES, VERSION, api_version};

/// `/apis` for clients of old (R2.7).
pub fn api_group_list() -> Value {
    let mut group = api_group();
    if let Value::Object(group) = &mut group {
        group.remove("kind");
        group.remove("apiVersion");
    }
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
}

/// `/apis/GROUP` (R2.8).
pub fn api_group() -> Value {
    let version = json!({"groupVersion": api_version(), "version": VERSION});
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [version],
        "preferredVersion": version,
    })
}

/// `/apis/GROUP/VERSION` (R2.9).
pub fn api_resource_list() -> Value {
    let mut resources = Vec::new();
    for resource in sorted() {
        let mut row = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.scope == Scope::Namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
            "storageVersionHash": storage_version_hash(resource),
        });
        if !resource.short_names.is_empty() {
            row["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            row["categories"] = json!(resource.categories);
        }
        resources.push(row);
        for subresource in resource.subresources {
            let mut row = json!({
                "name": format!("{}/{}", resource.plural, subresource.name()),
                "singularName": "",
                "namespaced": resource.scope == Scope::Namespaced,
                "kind": subresource.kind,
                "verbs": subresource.verbs,
            });
            if !subresource.group.is_empty() {
                row["group"] = subresource.group.into();
                row["version"] = subresource.version.into();
            }
            resources.push(row);
        }
    }
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version(),
        "resources": resources,
    })
}

/// `/apis` for clients that take all groups at once: `APIGroupDiscoveryList` of
/// `apidiscovery.k8s.io/v2` (R2.15).
pub fn aggregated() -> Value {
    let resources: Vec<Value> = sorted()
        .into_iter()
        .map(|resource| {
            let subresources: Vec<Value> = resource
                .subresources
                .iter()
                .map(aggregated_subresource)
                .collect();
            let mut row = json!({
                "resource": resource.plural,
                "responseKind": {"group": GROUP, "version": VERSION, "kind": resource.kind},
                "scope": match resource.scope {
                    Scope::Cluster => "Cluster",
                    Scope::Namespaced => "Namespaced",
                },
                "singularResource": resource.singular,
                "verbs": VERBS,
                "subresources": subresources,
            });
            if !resource.short_names.is_empty() {
                row["shortNames"] = json!(resource.short_names);
            }
            if !resource.categories.is_empty() {
                row["categories"] = json!(resource.categories);
            }
            row
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [{
            "metadata": {"name": GROUP, "creationTimestamp": null},
            "versions": [{"version": VERSION, "resources": resources, "freshness": "Current"}],
        }],
    })
}

fn aggregated_subresource(subresource: &Subresource) -> Value {
    let (group, version) = match subresource.group {
        "" => (GROUP, VERSION),
        group => (group, subresource.version),
    };
    json!({
        "subresource": subresource.name(),
        "responseKind": {"group": group, "version": version, "kind": subresource.kind},
        "verbs": subresource.verbs,
    })
}

fn sorted() -> Vec<&'static Resource> {
    let mut all = RESOURCES.to_vec();
    all.sort_by_key(|resource| resource.plural);
    all
}

/// What the storage-version migrator compares (R2.9).
fn storage_version_hash(resource: &Resource) -> String {
    let text = format!("{}/{}", api_version(), resource.kind);
    STANDARD.encode(&Sha256::digest(text.as_bytes())[..8])
}
