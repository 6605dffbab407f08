//! Nodes that the control plane cannot reach: worker hosts to which no way leads from
//! the management cluster, and the tunnel that they keep open.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use apiservice::pki::{self, Entropy, Leaf, Subject, Usage, Validity};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tests::installed::{TENANTS, condition, tenant as manifest, tenant_path};
use tests::lab::programs::KONNECTIVITY;
use tests::lab::{Lab, network};

use crate::life::seconds;
use crate::ready::CUT;
use crate::stage::{Stage, processes_below};
use crate::workers::{CONFIGURED, PODS, PUT_RIGHT, Tenant, traces};

const NAME: &str = "tunnelled";
/// How long agents may take on hosts that have just joined.
const CONNECTED: Duration = Duration::from_secs(60);
/// How long a roll may take.
const ROLLED: Duration = Duration::from_secs(90);
/// How long the loss of one of two may be felt, beyond what is in flight.
const FELT: Duration = Duration::from_secs(3);

pub async fn run(stage: &Stage) {
    let lab = stage.it.lab().unwrap();
    let machine_before = traces(lab);
    let mut manifest = manifest(NAME, 2);
    manifest["spec"]["addons"] = json!({"coreDNS": {}, "kubeProxy": {}, "konnectivity": {}});
    let began = Instant::now();
    stage.create(&manifest).await;
    let story = stage.tenant(NAME, 2).await;
    stage.note(
        "with a tunnel: create until Ready",
        seconds(began.elapsed()),
    );
    story
        .says(began, CONFIGURED, "ClusterConfigured", "True", "AsExpected")
        .await;
    let tenant = Tenant {
        stage,
        name: NAME,
        kubeconfig: stage.it.kubeconfig(NAME),
    };
    let hosts = [lab.worker(1).await.unwrap(), lab.worker(2).await.unwrap()];
    cut(lab);
    for host in &hosts {
        tenant.joins(host).await;
    }
    for host in &hosts {
        assert!(!reaches(lab, host.address(), 10250), "the way is cut");
    }
    let began = Instant::now();
    connected(&tenant, "daemonset");
    stage.note("then until agents are connected", seconds(began.elapsed()));
    let file = stage.it.files().join("pods-behind-tunnel.yaml");
    std::fs::write(&file, PODS).unwrap();
    tenant.done(&["apply", "-f", file.to_str().unwrap()]);
    tenant.available("default", "web").await;
    tenant.available("default", "user").await;

    // What the API server asks kubelets, pods and Services for.
    assert_eq!(tenant.done(&["logs", "deploy/user"]).trim(), "here");
    stage.note("kubectl exec through the tunnel", latency(&tenant));
    let page = "/api/v1/namespaces/default/services/web:80/proxy/";
    assert_eq!(tenant.done(&["get", "--raw", page]).trim(), "served");
    webhook(&tenant, &file.with_file_name("webhook.yaml")).await;

    let status = stage.it.get(&tenant_path(NAME)).await.unwrap();
    let told = &status["status"]["addons"]["konnectivity"];
    assert_eq!(told["enabled"], true, "{told}");
    assert_eq!(told["agent"]["mode"], "DaemonSet", "{told}");
    assert_eq!(told["service"]["port"], 8132, "{told}");
    assert!(told["certificate"]["expires"].is_string(), "{told}");

    losses(&tenant, lab).await;
    few_agents(&tenant).await;
    removed(stage, &tenant).await;
    mend(lab);
    for _ in 0..3 {
        tenant.says(&["exec", "deploy/web", "--", "true"]);
    }
    stage.note("kubectl exec without a tunnel", latency(&tenant));

    for host in hosts {
        host.remove().unwrap();
    }
    assert_eq!(traces(lab), machine_before);
    stage.remove(NAME).await;
}

/// One of two is lost: nothing is, but what was in flight.
async fn losses(tenant: &Tenant<'_>, lab: &Lab) {
    let stage = tenant.stage;
    let processes = processes_below(&format!("steward-lab-{}", lab.name()));
    let mut agents = processes.iter().filter(|(_, name)| name == "proxy-agent");
    let began = Instant::now();
    agents.next().unwrap().0.signal("KILL");
    let mut lost = Felt::default();
    while began.elapsed() < Duration::from_secs(6) {
        lost.again(tenant, began);
    }
    assert_eq!(lost.too_early, 0, "the other one is connected");
    lost.note(tenant, "an agent");
    connected(tenant, "daemonset");
    for (what, how) in [
        ("a replica that ends in order", vec![]),
        ("a replica", vec!["--grace-period=0", "--force"]),
    ] {
        let pods = stage.pods_of(NAME).await;
        let names: Vec<_> = pods
            .iter()
            .map(|it| it["metadata"]["name"].clone())
            .collect();
        let gone = names[0].as_str().unwrap();
        let began = Instant::now();
        let delete = ["-n", TENANTS, "delete", "pod", gone, "--wait=false"];
        stage.it.kubectl(&[&delete[..], &how].concat());
        let mut new = New::default();
        let mut lost = Felt::default();
        while began.elapsed() < Duration::from_secs(12) || new.found.is_none() {
            assert!(began.elapsed() < ROLLED, "{what} is replaced");
            lost.again(tenant, began);
            new.look(tenant, &names).await;
        }
        lost.note(tenant, what);
        stage.note(
            format!("{what}: agents have found the new one, after it was ready"),
            seconds(new.found.unwrap()),
        );
    }
}

/// The replica that comes for one that was lost.
#[derive(Default)]
struct New {
    /// Since when it is ready, and its address.
    ready: Option<(Instant, String)>,
    /// How long after that agents were connected to it.
    found: Option<Duration>,
}

impl New {
    async fn look(&mut self, tenant: &Tenant<'_>, before: &[Value]) {
        let ready = async || {
            let pods = tenant.stage.pods_of(NAME).await;
            let new = |pod: &&Value| !before.contains(&pod["metadata"]["name"]);
            let pod = pods.iter().find(new)?;
            let [ready, ..] = condition(pod, "Ready")?;
            let address = pod["status"]["podIP"].as_str()?.to_owned();
            (ready == "True").then(|| (Instant::now(), address))
        };
        if self.ready.is_none() {
            self.ready = ready().await;
        }
        let Some((since, address)) = self.ready.as_ref().filter(|_| self.found.is_none()) else {
            return;
        };
        let server = format!("--server=https://{address}:6443");
        let there = [
            "--tls-server-name=kubernetes",
            "exec",
            "deploy/web",
            "--",
            "true",
        ];
        let said = tenant.says(&[&[&*server], &there[..]].concat());
        if said.code == 0 {
            self.found = Some(since.elapsed());
        }
    }
}

/// What is felt of a loss by somebody who executes something on both hosts, again and
/// again.
#[derive(Default)]
struct Felt {
    tried: usize,
    failed: Vec<String>,
    /// Of those that met a replica which agents have not found yet: they find it when it
    /// is ready, and not before.
    too_early: usize,
    last: Duration,
}

impl Felt {
    fn again(&mut self, tenant: &Tenant<'_>, since: Instant) {
        for pod in ["deploy/web", "deploy/user"] {
            let at = since.elapsed();
            let said = tenant.says(&["exec", pod, "--", "true"]);
            self.tried += 1;
            if said.code == 0 {
                continue;
            }
            match said.stderr.contains("No agent available") {
                true => self.too_early += 1,
                false => self.last = since.elapsed(),
            }
            let line = format!("{} {pod}: {}", seconds(at), said.text().trim());
            println!("    {line}");
            self.failed.push(line);
        }
    }

    fn note(self, tenant: &Tenant<'_>, lost: &str) {
        let figure = format!(
            "{} of {}, {} of them for a new replica",
            self.failed.len(),
            self.tried,
            self.too_early
        );
        let stage = tenant.stage;
        stage.note(format!("{lost} is lost: kubectl exec fails"), figure);
        assert!(
            self.last < FELT,
            "{lost} is lost:\n{}",
            self.failed.join("\n")
        );
    }
}

/// Agents as a Deployment, on the nodes' own network.
async fn few_agents(tenant: &Tenant<'_>) {
    let stage = tenant.stage;
    let path = tenant_path(NAME);
    let before: Vec<_> = uids(stage).await;
    let began = Instant::now();
    let agent = json!({"mode": "Deployment", "hostNetwork": true});
    let patch = json!({"spec": {"addons": {"konnectivity": {"agent": agent}}}});
    stage.it.patch(&path, &patch).await.unwrap();
    let moved = async || {
        let tenant = stage.it.get(&path).await.ok()?;
        let agent = &tenant["status"]["addons"]["konnectivity"]["agent"];
        (agent["mode"] == "Deployment").then_some(())
    };
    stage
        .it
        .until("agents are a Deployment", PUT_RIGHT, moved)
        .await;
    connected(tenant, "deployment");
    stage.note("agents of the other kind", seconds(began.elapsed()));
    let said = tenant.says(&[
        "-n",
        "kube-system",
        "get",
        "daemonset",
        "konnectivity-agent",
    ]);
    assert!(said.stderr.contains("NotFound"), "{}", said.text());
    for pod in ["deploy/web", "deploy/user"] {
        tenant.done(&["exec", pod, "--", "true"]);
    }
    assert_eq!(uids(stage).await, before, "the control plane is not rolled");
}

async fn uids(stage: &Stage) -> Vec<Value> {
    let pods = stage.pods_of(NAME).await.into_iter();
    pods.map(|pod| pod["metadata"]["uid"].clone()).collect()
}

/// Waits until all agents are connected, and of all generations that are wanted.
pub fn connected(tenant: &Tenant<'_>, kind: &str) {
    let agents = format!("{kind}/konnectivity-agent");
    let patience = format!("--timeout={}s", CONNECTED.as_secs());
    tenant.done(&["-n", "kube-system", "rollout", "status", &agents, &patience]);
}

/// The field is taken out, and everything goes with it.
async fn removed(stage: &Stage, tenant: &Tenant<'_>) {
    let path = tenant_path(NAME);
    let began = Instant::now();
    let without = json!({"spec": {"addons": {"konnectivity": null}}});
    stage.it.patch(&path, &without).await.unwrap();
    let objects = [
        ("configmaps", "konnectivity-egress-selector-configuration"),
        ("secrets", "konnectivity-certificate"),
        ("secrets", "konnectivity-kubeconfig"),
    ];
    let gone = async || {
        for (resource, name) in objects {
            if stage
                .object(resource, &format!("{NAME}-{name}"))
                .await
                .is_some()
            {
                return None;
            }
        }
        let service = stage.object("services", NAME).await?;
        let said = tenant.says(&[
            "-n",
            "kube-system",
            "get",
            "daemonset,serviceaccount,role,rolebinding",
            "-o",
            "name",
        ]);
        let inside = said.stdout.contains("konnectivity");
        let pods = stage.pods_of(NAME).await;
        let container = pods
            .iter()
            .any(|pod| pod["spec"].to_string().contains("konnectivity"));
        let ready = stage.it.get(&path).await.ok()?;
        let [ready, ..] = condition(&ready, "Ready")?;
        let gone = !inside && !container && ready == "True" && said.code == 0;
        (gone && service["spec"]["ports"].as_array()?.len() == 1).then_some(())
    };
    stage
        .it
        .until("the tunnel is removed", ROLLED + PUT_RIGHT, gone)
        .await;
    stage.note(
        "a tunnel is removed, with the roll",
        seconds(began.elapsed()),
    );
}

/// A validating webhook behind a Service of the tenant, which the API server asks.
async fn webhook(tenant: &Tenant<'_>, file: &std::path::Path) {
    let now = Timestamp::now();
    let validity = Validity {
        not_before: now,
        not_after: now + SignedDuration::from_hours(1),
    };
    let authority = pki::authority("webhook-ca", validity, &Entropy).unwrap();
    let leaf = Leaf {
        subject: Subject {
            common_name: "webhook".into(),
            organizations: Vec::new(),
        },
        usage: Usage::Server,
        dns_names: vec!["webhook.default.svc".into()],
        ip_addresses: Vec::new(),
        validity,
    };
    let pair = pki::sign(&authority, &leaf, &Entropy).unwrap();
    let version = KONNECTIVITY.version();
    let labels = json!({"app": "webhook"});
    let container = json!({
        "name": "webhook",
        "image": format!("registry.k8s.io/kas-network-proxy/webhook:{version}"),
        "command": ["/webhook"],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "webhook"},
            "stringData": {"tls.crt": pair.cert, "tls.key": pair.key},
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "webhook"},
            "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": 8443}]},
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "webhook"},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [container],
                    "volumes": [{"name": "tls", "secret": {"secretName": "webhook"}}],
                },
            }},
        },
    ]});
    std::fs::write(file, list.to_string()).unwrap();
    let file = file.to_str().unwrap();
    tenant.done(&["apply", "-f", file]);
    tenant.available("default", "webhook").await;
    let hook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "refuse"},
        "webhooks": [{
            "name": "refuse.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 5,
            "clientConfig": {
                "service": {"name": "webhook", "namespace": "default"},
                "caBundle": STANDARD.encode(&authority.cert),
            },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["configmaps"], "scope": "Namespaced",
            }],
            "objectSelector": {"matchExpressions": [
                {"key": "asked", "operator": "Exists"},
            ]},
        }],
    });
    std::fs::write(file, hook.to_string()).unwrap();
    tenant.done(&["apply", "-f", file]);
    let create = |name: &str, labels: Value| {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "labels": labels},
        });
        std::fs::write(file, object.to_string()).unwrap();
        tenant.says(&["create", "-f", file])
    };
    // Both replicas have to know of it.
    let refuses = async || {
        let said = create("refused", json!({"asked": "", "refused": ""}));
        let denied = said.stderr.contains("denied the request");
        drop(tenant.says(&["delete", "configmap", "refused", "--ignore-not-found"]));
        denied.then_some(())
    };
    let what = "the webhook refuses, through the tunnel";
    tenant.stage.it.until(what, CONNECTED, refuses).await;
    let said = create("allowed", json!({"asked": ""}));
    assert_eq!(said.code, 0, "{}", said.text());
    tenant.done(&["delete", "validatingwebhookconfiguration", "refuse"]);
}

/// The median of some, in words.
fn latency(tenant: &Tenant<'_>) -> String {
    let mut all: Vec<Duration> = (0..21)
        .map(|_| {
            let began = Instant::now();
            tenant.done(&["exec", "deploy/web", "--", "true"]);
            began.elapsed()
        })
        .collect();
    all.sort();
    format!(
        "{} ms (slowest of 21: {} ms)",
        all[10].as_millis(),
        all[20].as_millis()
    )
}

/// From here on, connections between management cluster and worker hosts are opened by
/// the hosts.
pub fn cut(lab: &Lab) {
    let hosts = r#"{ "w1", "w2" }"#;
    let rules = format!(
        "add table inet {CUT}
         add chain inet {CUT} out {{ type filter hook output priority 0; }}
         add rule inet {CUT} out oifname {hosts} ct state new drop
         add chain inet {CUT} through {{ type filter hook forward priority 0; }}
         add rule inet {CUT} through iifname != {hosts} oifname {hosts} ct state new drop"
    );
    network::inside(lab.directory(), &["nft", &rules]).unwrap();
}

pub fn mend(lab: &Lab) {
    let delete = ["nft", "delete", "table", "inet", CUT];
    network::inside(lab.directory(), &delete).unwrap();
}

/// Whether the node gets a connection.
fn reaches(lab: &Lab, address: Ipv4Addr, port: u16) -> bool {
    let connect = format!("exec 3<>/dev/tcp/{address}/{port}");
    network::inside(lab.directory(), &["timeout", "2", "bash", "-c", &connect]).is_ok()
}
