//! Rule 8 for a TenantControlPlane: what shapes its pods must be within the
//! requester's own rights.

use serde_json::Value;

use super::TenantControlPlane;
use crate::resource::BorrowedRight;
use crate::rule::at;

/// Fields below `spec.controlPlane.deployment` that decide what runs in the
/// pods or with which rights.
const SHAPES_PODS: &[&[&str]] = &[
    &["additionalContainers"],
    &["additionalInitContainers"],
    &["additionalVolumes"],
    &["additionalVolumeMounts"],
    &["serviceAccountName"],
    &["automountServiceAccountToken"],
    &["runtimeClassName"],
    &["podSecurityContext"],
    &["containerSecurityContexts"],
    &["registrySettings"],
];

/// The rights that are needed for what differs from `old`; on create, from an
/// object that names none of these fields.
pub(super) fn borrowed(new: &Value, old: Option<&Value>) -> Vec<BorrowedRight> {
    let default = default_deployment();
    let part = |object: &Value| {
        let part = at(object, &["spec", "controlPlane", "deployment"]);
        part.cloned().unwrap_or_default()
    };
    let wanted = part(new);
    let before = old.map(part).unwrap_or(default);
    let namespace = new["metadata"]["namespace"].as_str().map(str::to_owned);

    let mut rights = Vec::new();
    for path in SHAPES_PODS {
        let (now, then) = (at(&wanted, path), at(&before, path));
        // What was taken away is not borrowed.
        let Some(now) = now.filter(|_| now != then) else {
            continue;
        };
        let field = format!("spec.controlPlane.deployment.{}", path.join("."));
        rights.push(BorrowedRight {
            verb: "create",
            group: "",
            resource: "pods",
            subresource: "",
            namespace: namespace.clone(),
            name: None,
            field: field.clone(),
        });
        let mut sources = Vec::new();
        mounted(now, &mut sources);
        let mut known = Vec::new();
        if let Some(then) = then {
            mounted(then, &mut known);
        }
        sources.retain(|source| !known.contains(source));
        rights.extend(sources.into_iter().map(|source| BorrowedRight {
            verb: "get",
            group: "",
            resource: source.resource,
            subresource: "",
            namespace: namespace.clone(),
            name: Some(source.name),
            field: field.clone(),
        }));
        if *path == ["serviceAccountName"] {
            rights.push(BorrowedRight {
                verb: "create",
                group: "",
                resource: "serviceaccounts",
                subresource: "token",
                namespace: namespace.clone(),
                name: now.as_str().map(str::to_owned),
                field,
            });
        }
    }
    rights
}

/// A deployment of which nothing is asked.
fn default_deployment() -> Value {
    let default = TenantControlPlane::default().spec.control_plane.deployment;
    // Plain data always serializes.
    serde_json::to_value(default).unwrap_or_default()
}

/// A Secret or ConfigMap whose content gets into a pod.
#[derive(PartialEq, Eq)]
struct Source {
    resource: &'static str,
    name: String,
}

/// Every Secret and ConfigMap that volumes or containers name, wherever it is:
/// the names of the fields are the same in all volume types.
fn mounted(value: &Value, found: &mut Vec<Source>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let resource = match field.as_str() {
                    "secretName" | "secret" => "secrets",
                    "configMap" | "configMapRef" | "configMapKeyRef" => "configmaps",
                    other if other.ends_with("ecretRef") || other.ends_with("ecretKeyRef") => {
                        "secrets"
                    }
                    _ => {
                        mounted(value, found);
                        continue;
                    }
                };
                let name = match value {
                    Value::String(name) => Some(name),
                    _ => match value.get("name").or_else(|| value.get("secretName")) {
                        Some(Value::String(name)) => Some(name),
                        _ => None,
                    },
                };
                if let Some(name) = name {
                    let source = Source {
                        resource,
                        name: name.clone(),
                    };
                    if !found.contains(&source) {
                        found.push(source);
                    }
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|one| mounted(one, found)),
        _ => {}
    }
}
