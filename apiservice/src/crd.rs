//! A kind as a CustomResourceDefinition, from the same row and schema.
//!
//! Steward serves its kinds itself and installs no such object; tests put one
//! beside ours to compare, and tools that read CRDs can be given it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::resource::{Part, Resource, Scope};
use crate::{GROUP, VERSION};

/// The definition of a kind.
///
/// Subresources that a CRD cannot have are left out.
///
/// # Errors
/// When the schema holds what a CRD's cannot; a test excludes it.
pub fn crd(resource: &Resource) -> Result<CustomResourceDefinition, serde_json::Error> {
    let columns: Vec<Value> = resource
        .columns
        .iter()
        .map(|column| {
            let mut value = json!({
                "name": column.name, "type": column.kind, "jsonPath": column.json_path,
            });
            for (field, text) in [
                ("format", column.format),
                ("description", column.description),
            ] {
                if !text.is_empty() {
                    value[field] = text.into();
                }
            }
            if column.priority != 0 {
                value["priority"] = column.priority.into();
            }
            value
        })
        .collect();
    let mut subresources = json!({});
    for subresource in resource.subresources {
        let path = |path: &[&str]| format!(".{}", path.join("."));
        match subresource.part {
            Part::Status => subresources["status"] = json!({}),
            Part::Scale(scale) => {
                subresources["scale"] = json!({
                    "specReplicasPath": path(scale.spec_replicas),
                    "statusReplicasPath": path(scale.status_replicas),
                    "labelSelectorPath": path(scale.label_selector),
                });
            }
            // A CRD has no others.
            Part::Kubeconfig | Part::JoinToken | Part::Migrate => {}
        }
    }
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.qualified()},
        "spec": {
            "group": GROUP,
            "scope": match resource.scope {
                Scope::Cluster => "Cluster",
                Scope::Namespaced => "Namespaced",
            },
            "names": {
                "plural": resource.plural, "singular": resource.singular,
                "kind": resource.kind, "listKind": resource.list_kind,
                "shortNames": resource.short_names, "categories": resource.categories,
            },
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": resource.schema().open_api()},
                "subresources": subresources,
                "additionalPrinterColumns": columns,
            }],
        },
    }))
}
