//! A proxy at the edge of the management cluster that leads connections by the name that
//! their client asks for, as Ingress controllers and Gateways do: Debian's HAProxy, and
//! what configures it from Ingresses and TLSRoutes.
//!
//! Its [names](names) lead to it, for pods of the cluster and for worker hosts.
//! It has one Gateway of two listeners and takes Ingresses of the class [`CLASS`]; those
//! and the first listener are one address and one port. TLS is passed through: it reads
//! the name in a client's greeting and nothing else.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::cluster::Lab;
use super::directories;
use super::error::{Doing, Error, Result};
use super::process::{Process, Program};

/// The domain of its names.
pub const DOMAIN: &str = "edge.test";
/// Names in it that lead to the proxy, each also with `-konnectivity` at its end.
const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
/// The names that lead to the proxy, whole.
pub fn names() -> Vec<String> {
    let all = NAMES.iter();
    let all = all.flat_map(|name| [name.to_string(), format!("{name}-konnectivity")]);
    all.map(|name| format!("{name}.{DOMAIN}")).collect()
}

/// The class of Ingresses that it takes.
pub const CLASS: &str = "edge";
/// Its Gateway is `edge/public`.
pub const GATEWAY: (&str, &str) = ("edge", "public");
/// Ports of the listeners for API servers and for tunnels' agents.
pub const PORTS: [(&str, u16); 2] = [("kube-apiserver", 9443), ("konnectivity-server", 9132)];

const CONTROLLER: &str = "steward.butlerlabs.dev/lab";
/// Between looks at what there is to lead to.
const LOOK: Duration = Duration::from_millis(500);

/// The proxy of a run. What configures it ends with this value, the proxy with the run.
pub struct Edge {
    address: Ipv4Addr,
    task: tokio::task::JoinHandle<()>,
    process: Process,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.task.abort();
        self.process.id.signal("KILL");
    }
}

impl Edge {
    /// Starts the proxy in the network of a run. The kinds of the Gateway API need not be
    /// there yet.
    ///
    /// # Errors
    /// HAProxy is not there, or ends at once.
    pub fn start(lab: &Lab) -> Result<Self> {
        let address = lab.addresses().node();
        let file = lab.directory().configuration().join("edge.cfg");
        directories::write(&file, configuration(address, &[]))?;
        let program = Program::new("haproxy", "/usr/sbin/haproxy").args([
            "-W".into(),
            "-db".into(),
            "-f".into(),
            file.clone().into_os_string(),
        ]);
        let process = lab.spawn(program)?;
        let (client, running) = (lab.client(), process.clone());
        let task = tokio::spawn(async move {
            let mut before = Vec::new();
            loop {
                match look(&client, address).await {
                    Ok(targets) if targets != before => {
                        let written = directories::write(&file, configuration(address, &targets));
                        match written {
                            Ok(()) => running.id.signal("USR2"),
                            Err(error) => eprintln!("edge: {error}"),
                        }
                        before = targets;
                    }
                    Ok(_) => {}
                    Err(error) => eprintln!("edge: {error}"),
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Self {
            address,
            task,
            process,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The proxy.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// What leads where: listener, name, and `address:port` behind it.
type Target = (usize, String, String);

/// Looks at everything, says what became of it, and returns where to lead.
async fn look(client: &kube::Client, address: Ipv4Addr) -> Result<Vec<Target>> {
    let services: BTreeMap<(String, String), String> = Api::<Service>::all(client.clone())
        .list(&Default::default())
        .await
        .doing(|| "list Services".into())?
        .into_iter()
        .filter_map(|service| {
            let ip = service.spec.as_ref()?.cluster_ip.clone()?;
            Some(((service.namespace()?, service.name_any()), ip))
        })
        .collect();
    let mut targets = of_ingresses(client, address, &services).await?;
    if gateway(client, address).await? {
        targets.extend(of_routes(client, &services).await?);
    }
    targets.sort();
    targets.dedup();
    Ok(targets)
}

async fn of_ingresses(
    client: &kube::Client,
    address: Ipv4Addr,
    services: &BTreeMap<(String, String), String>,
) -> Result<Vec<Target>> {
    let all: Api<Ingress> = Api::all(client.clone());
    let all = all.list(&Default::default()).await;
    let mut targets = Vec::new();
    for ingress in all.doing(|| "list Ingresses".into())? {
        let value =
            serde_json::to_value(&ingress).map_err(|error| Error::Refused(error.to_string()))?;
        let passes = &value["metadata"]["annotations"]["haproxy.org/ssl-passthrough"];
        if value["spec"]["ingressClassName"] != CLASS || passes != "true" {
            continue;
        }
        let (namespace, name) = (ingress.namespace().unwrap_or_default(), ingress.name_any());
        for rule in value["spec"]["rules"].as_array().into_iter().flatten() {
            let backend = &rule["http"]["paths"][0]["backend"]["service"];
            let service = backend["name"].as_str().unwrap_or_default().to_owned();
            let ip = services.get(&(namespace.clone(), service));
            if let (Some(host), Some(ip)) = (rule["host"].as_str(), ip) {
                targets.push((
                    0,
                    host.to_owned(),
                    format!("{ip}:{}", backend["port"]["number"]),
                ));
            }
        }
        if value["status"]["loadBalancer"]["ingress"].is_null() {
            let entry = json!([{"ip": address.to_string()}]);
            let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": entry}}}));
            let api: Api<Ingress> = Api::namespaced(client.clone(), &namespace);
            api.patch_status(&name, &PatchParams::default(), &patch)
                .await
                .doing(|| format!("answer Ingress {namespace}/{name}"))?;
        }
    }
    Ok(targets)
}

fn kind(kind: &str, plural: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind);
    ApiResource::from_gvk_with_plural(&kind, plural)
}

/// Keeps the Gateway; whether there are such kinds.
async fn gateway(client: &kube::Client, address: Ipv4Addr) -> Result<bool> {
    let (namespace, name) = GATEWAY;
    let gateways = kind("Gateway", "gateways");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &gateways);
    let found = match api.get_opt(name).await {
        Ok(Some(found)) => found,
        // The list tells whether the kind is missing or the object.
        Ok(None) if api.list(&Default::default()).await.is_err() => return Ok(false),
        Ok(None) => {
            let listeners = PORTS.map(|(name, port)| {
                json!({
                    "name": name, "port": port, "protocol": "TLS",
                    "hostname": format!("*.{DOMAIN}"),
                    "tls": {"mode": "Passthrough"},
                    "allowedRoutes": {"namespaces": {"from": "All"}},
                })
            });
            let mut wanted = DynamicObject::new(name, &gateways);
            wanted.data = json!({"spec": {"gatewayClassName": "edge", "listeners": listeners}});
            api.create(&PostParams::default(), &wanted)
                .await
                .doing(|| "create the Gateway".into())?
        }
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
        Err(error) => return Err(error).doing(|| "look for the Gateway".into()),
    };
    if !says(&found.data["status"], "Programmed", "True") {
        let status = json!({
            "addresses": [{"type": "IPAddress", "value": address.to_string()}],
            "conditions": [
                condition("Accepted", true, "Accepted"),
                condition("Programmed", true, "Programmed"),
            ],
        });
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &patch)
            .await
            .doing(|| "answer the Gateway".into())?;
    }
    Ok(true)
}

async fn of_routes(
    client: &kube::Client,
    services: &BTreeMap<(String, String), String>,
) -> Result<Vec<Target>> {
    let routes = kind("TLSRoute", "tlsroutes");
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &routes);
    let all = all.list(&Default::default()).await;
    let mut targets = Vec::new();
    for route in all.doing(|| "list TLSRoutes".into())? {
        let (namespace, name) = (route.namespace().unwrap_or_default(), route.name_any());
        let mut said = Vec::new();
        for parent in route.data["spec"]["parentRefs"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if parent["namespace"] != GATEWAY.0 || parent["name"] != GATEWAY.1 {
                continue;
            }
            let listener = PORTS.iter().position(|(name, port)| {
                parent["sectionName"] == *name
                    && (parent["port"].is_null() || parent["port"] == *port)
            });
            let reason = if listener.is_some() {
                "Accepted"
            } else {
                "NoMatchingParent"
            };
            said.push(json!({
                "parentRef": parent, "controllerName": CONTROLLER,
                "conditions": [
                    condition("Accepted", listener.is_some(), reason),
                    condition("ResolvedRefs", true, "ResolvedRefs"),
                ],
            }));
            let Some(listener) = listener else { continue };
            let backend = &route.data["spec"]["rules"][0]["backendRefs"][0];
            let service = backend["name"].as_str().unwrap_or_default().to_owned();
            let Some(ip) = services.get(&(namespace.clone(), service)) else {
                continue;
            };
            for host in route.data["spec"]["hostnames"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let host = host.as_str().unwrap_or_default().to_owned();
                targets.push((listener, host, format!("{ip}:{}", backend["port"])));
            }
        }
        if !same(&route.data["status"]["parents"], &said) {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &routes);
            let patch = Patch::Merge(json!({"status": {"parents": said}}));
            api.patch_status(&name, &PatchParams::default(), &patch)
                .await
                .doing(|| format!("answer TLSRoute {namespace}/{name}"))?;
        }
    }
    Ok(targets)
}

fn condition(kind: &str, holds: bool, reason: &str) -> Value {
    json!({
        "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason,
        "message": "", "lastTransitionTime": Timestamp::now().to_string(),
    })
}

fn says(status: &Value, kind: &str, wanted: &str) -> bool {
    let mut all = status["conditions"].as_array().into_iter().flatten();
    all.any(|it| it["type"] == kind && it["status"] == wanted)
}

/// The same but for times.
fn same(said: &Value, wanted: &[Value]) -> bool {
    let of = |parent: &Value| {
        let conditions = parent["conditions"].as_array().cloned().unwrap_or_default();
        let reasons: Vec<Value> = conditions.iter().map(|it| it["reason"].clone()).collect();
        (parent["parentRef"].clone(), reasons)
    };
    let said = said.as_array().cloned().unwrap_or_default();
    said.len() == wanted.len()
        && said
            .iter()
            .zip(wanted)
            .all(|(one, other)| of(one) == of(other))
}

/// The whole configuration of the proxy.
fn configuration(address: Ipv4Addr, targets: &[Target]) -> String {
    let mut text = "global\n    log stderr format raw local0 warning\ndefaults\n    mode tcp\n    \
                    log global\n    timeout connect 3s\n    timeout client 1h\n    \
                    timeout server 1h\n"
        .to_owned();
    for (listener, (name, port)) in PORTS.iter().enumerate() {
        text += &format!(
            "frontend {name}\n    bind {address}:{port}\n    tcp-request inspect-delay 5s\n    \
             tcp-request content accept if {{ req.ssl_hello_type 1 }}\n"
        );
        for (number, (_, host, _)) in targets
            .iter()
            .enumerate()
            .filter(|(_, it)| it.0 == listener)
        {
            text += &format!("    use_backend b{number} if {{ req.ssl_sni -i {host} }}\n");
        }
    }
    for (number, (_, _, server)) in targets.iter().enumerate() {
        text += &format!("backend b{number}\n    server s {server}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_listener_lead_to_what_is_behind_it() {
        let targets = [
            (0, "a.edge.test".to_owned(), "10.0.0.1:6443".to_owned()),
            (1, "b.edge.test".to_owned(), "10.0.0.2:8132".to_owned()),
        ];
        let text = configuration(Ipv4Addr::new(198, 18, 0, 2), &targets);
        let (first, second) = text.split_once("frontend konnectivity-server").unwrap();
        assert!(first.contains("bind 198.18.0.2:9443"));
        assert!(first.contains("use_backend b0 if { req.ssl_sni -i a.edge.test }"));
        assert!(!first.contains("b.edge.test") && second.contains("b1 if"));
        assert!(second.contains("backend b1\n    server s 10.0.0.2:8132"));
    }
}
