//! Rule 8 for a TenantControlPlane: what shapes its pods, and how it is published in
//! the management cluster, must be within the requester's own rights.

use std::collections::HashSet;

use serde_json::Value;

use crate::resource::{BorrowedRight, OtherRight};
use crate::rule::at;
use crate::v1alpha1::{KonnectivityServer, TenantControlPlane};

/// Fields below `spec.controlPlane.deployment` that decide what runs in the pods, with
/// which rights, where, and what the cluster makes of them: labels and annotations
/// steer network policies, injectors and admission.
const SHAPES_PODS: &[&[&str]] = &[
    &["podAdditionalMetadata"],
    &["nodeSelector"],
    &["tolerations"],
    &["affinity"],
    &["topologySpreadConstraints"],
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

/// Of these, what keeps pods where they are, and from what they may not do.
const RESTRICTS_PODS: &[&[&str]] = &[
    &["nodeSelector"],
    &["affinity"],
    &["runtimeClassName"],
    &["podSecurityContext"],
    &["containerSecurityContexts"],
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

    let mut rights = publishes(new, old, namespace.as_deref());
    rights.extend(tunnel(new, old, namespace.as_deref()));
    for path in SHAPES_PODS {
        let (now, then) = (at(&wanted, path), at(&before, path));
        let none = Value::Null;
        let now = match now {
            Some(now) if Some(now) != then => now,
            // What was taken away is not borrowed, except what held the pods back.
            None if then.is_some_and(|then| !is_empty(then)) && RESTRICTS_PODS.contains(path) => {
                &none
            }
            _ => continue,
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
            or: None,
        });
        let mut sources = Sources::default();
        sources.mounted(now);
        let mut known = Sources::default();
        if let Some(then) = then {
            known.mounted(then);
        }
        let added = sources.list.into_iter();
        let added = added.filter(|source| !known.seen.contains(source));
        rights.extend(added.map(|source| BorrowedRight {
            verb: "get",
            group: "",
            resource: source.resource,
            subresource: "",
            namespace: namespace.clone(),
            name: Some(source.name),
            field: field.clone(),
            or: None,
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
                or: Some(OtherRight {
                    verb: "impersonate",
                    resource: "serviceaccounts",
                    subresource: "",
                }),
            });
        }
    }
    rights
}

/// The rights for the container of the tunnel, for fields that differ from those of one
/// that is ours alone.
fn tunnel(new: &Value, old: Option<&Value>, namespace: Option<&str>) -> Vec<BorrowedRight> {
    let part = ["spec", "addons", "konnectivity", "server"];
    let Some(wanted) = at(new, &part) else {
        return Vec::new();
    };
    // Plain data always serializes.
    let default = serde_json::to_value(KonnectivityServer::default()).unwrap_or_default();
    let before = old.and_then(|old| at(old, &part)).unwrap_or(&default);
    let fields = ["image", "version", "securityContext"].into_iter();
    let differing = fields.filter(|field| at(wanted, &[field]) != at(before, &[field]));
    let right = |field| BorrowedRight {
        verb: "create",
        group: "",
        resource: "pods",
        subresource: "",
        namespace: namespace.map(str::to_owned),
        name: None,
        field: format!("{}.{field}", part.join(".")),
        or: None,
    };
    differing.map(right).collect()
}

/// A deployment of which nothing is asked.
fn default_deployment() -> Value {
    let default = TenantControlPlane::default().spec.control_plane.deployment;
    // Plain data always serializes.
    serde_json::to_value(default).unwrap_or_default()
}

/// Fields that decide how the Service of the control plane is published, with the right
/// that an author of such a Service has. What the field does without the others is of no
/// concern: it does it as soon as they are there.
const SHAPES_SERVICE: &[&[&str]] = &[
    &["controlPlane", "service", "additionalMetadata"],
    &["controlPlane", "service", "additionalPorts"],
    &["controlPlane", "service", "allocateLoadBalancerNodePorts"],
    &["networkProfile", "loadBalancerClass"],
];

/// The rights for objects that are made in the management cluster beside the pods. Asked
/// for fields that are not acted upon yet, too: nobody is asked again on the day they are.
///
/// An external address is asked for as the cluster does, which is with the Service; where
/// DenyServiceExternalIPs is on it refuses them to everybody, and to us.
fn publishes(new: &Value, old: Option<&Value>, namespace: Option<&str>) -> Vec<BorrowedRight> {
    let none = Value::Null;
    let (wanted, before) = (&new["spec"], old.map_or(&none, |old| &old["spec"]));
    let create = |group: &'static str, resource: &'static str, path: &[&str]| BorrowedRight {
        verb: "create",
        group,
        resource,
        subresource: "",
        namespace: namespace.map(str::to_owned),
        name: None,
        field: format!("spec.{}", path.join(".")),
        or: None,
    };
    // What was taken away is not borrowed.
    let added = |path: &[&str]| {
        let now = at(wanted, path);
        now.is_some_and(|now| !is_empty(now)) && now != at(before, path)
    };
    let mut rights = Vec::new();
    let service_type: &[&str] = &["controlPlane", "service", "serviceType"];
    let kind = |spec: &Value| match at(spec, service_type).and_then(Value::as_str) {
        None | Some("ClusterIP") => None,
        Some(other) => Some(other.to_owned()),
    };
    let (published, was) = (kind(wanted), kind(before));
    if published.is_some() && published != was {
        rights.push(create("", "services", service_type));
    }
    let differ = |path: &[&str]| at(wanted, path) != at(before, path);
    // Of one that is published, what is taken away may have kept it from the public: an
    // annotation says that a load balancer is an internal one.
    let stays = published.is_some() && was.is_some();
    let shapes = SHAPES_SERVICE.iter();
    let shapes = shapes.filter(|path| added(path) || (stays && differ(path)));
    rights.extend(shapes.map(|path| create("", "services", path)));
    // Fewer ranges are more callers.
    let ranges: &[&str] = &["networkProfile", "loadBalancerSourceRanges"];
    if added(ranges) || (differ(ranges) && published.as_deref() == Some("LoadBalancer")) {
        rights.push(create("", "services", ranges));
    }
    // The port of every node, or of an address that was lent for another port; and a
    // further one of a load balancer, as additionalPorts would open it.
    let lent = external_address(wanted);
    let lent = lent.is_some() && lent == external_address(before);
    let stays = |kind| published.as_deref() == Some(kind) && was.is_some();
    let ports: [(&[&str], bool); 2] = [
        (&["networkProfile", "port"], stays("NodePort") || lent),
        (
            &["addons", "konnectivity", "server", "port"],
            stays("NodePort") || stays("LoadBalancer") || lent,
        ),
    ];
    let opened = ports.iter().filter(|(path, asks)| *asks && added(path));
    rights.extend(opened.map(|(path, _)| create("", "services", path)));
    let external = external_address(wanted);
    if external.is_some() && external != external_address(before) {
        let path = &["networkProfile", "allowAddressAsExternalIP"];
        rights.push(create("", "services", path));
    }
    let deployment: &[&str] = &["controlPlane", "deployment", "additionalMetadata"];
    if added(deployment) {
        rights.push(create("apps", "deployments", deployment));
    }
    let ingress: &[&str] = &["controlPlane", "ingress"];
    if added(ingress) {
        let of_traefik = at(wanted, &["controlPlane", "ingress", "controllerType"]);
        rights.push(match of_traefik.is_some_and(|it| it == "traefik") {
            true => create("traefik.io", "ingressroutetcps", ingress),
            false => create("networking.k8s.io", "ingresses", ingress),
        });
    }
    let gateway: &[&str] = &["controlPlane", "gateway"];
    if added(gateway) {
        rights.push(create("gateway.networking.k8s.io", "tlsroutes", gateway));
    }
    rights
}

/// The address that the Service would take traffic for.
fn external_address(spec: &Value) -> Option<&str> {
    let network = &spec["networkProfile"];
    let asked = network["allowAddressAsExternalIP"] == true;
    let balanced = spec["controlPlane"]["service"]["serviceType"] == "LoadBalancer";
    let address = network["address"].as_str()?;
    (asked && !balanced && !address.is_empty()).then_some(address)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// A Secret or ConfigMap whose content gets into a pod.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Source {
    resource: &'static str,
    name: String,
}

/// Each once, in the order in which they were found.
#[derive(Default)]
struct Sources {
    list: Vec<Source>,
    seen: HashSet<Source>,
}

impl Sources {
    /// Adds every Secret and ConfigMap that volumes or containers name, wherever it is:
    /// the names of the fields are the same in all volume types.
    fn mounted(&mut self, value: &Value) {
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
                            self.mounted(value);
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
                        self.add(Source {
                            resource,
                            name: name.clone(),
                        });
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|one| self.mounted(one)),
            _ => {}
        }
    }

    fn add(&mut self, source: Source) {
        if self.seen.insert(source.clone()) {
            self.list.push(source);
        }
    }
}

#[cfg(test)]
mod tests;
