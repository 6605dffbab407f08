//! Tenants that are reached by their name: two by routes of the Gateway API and one by an
//! Ingress, behind one address and one port; and a tenant that moves from a load balancer
//! to a name and back while somebody uses it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::installed::{TENANTS, condition, tenant as manifest, tenant_path};
use tests::lab::edge::{self, Edge};
use tests::lab::gateway_api;
use tests::served::Said;

use crate::life::seconds;
use crate::stage::Stage;
use crate::story::is;
use crate::tunnel::{cut, mend};
use crate::workers::{CONFIGURED, Tenant};

/// What the part needs of ours.
pub const EDGE: &str = "a proxy in the cluster's network";

/// How long a tenant may take to come up and to be led to.
const COMING: Duration = Duration::from_secs(120);
/// How long a kind that is installed may go unnoticed, and a route unanswered.
const NOTICED: Duration = Duration::from_secs(40);
/// How long a change of exposure may take, with a roll in it.
const MOVED: Duration = Duration::from_secs(150);

pub async fn run(stage: &Stage) {
    let lab = stage.it.lab().unwrap();
    let edge = Edge::start(lab).unwrap();
    let place = format!("{}:{}", edge.address(), edge::PORTS[0].1);

    // Nobody waits for the Gateway API: the tenant comes up, and says what is missing.
    let began = Instant::now();
    stage.create(&routed("one", true)).await;
    let story = stage.story("one");
    story
        .until(began, COMING, "it says what is missing", |object| {
            is(object, "WorkloadAvailable", "True", "")
                && is(object, "Exposed", "False", "KindNotServed")
                && is(object, "Ready", "False", "KindNotServed")
        })
        .await;
    install_gateway_api(stage);
    let began = Instant::now();
    story
        .until(began, NOTICED, "the route is made and taken", |object| {
            is(object, "Exposed", "True", "AsExpected") && is(object, "Ready", "True", "Ready")
        })
        .await;
    stage.note(
        "the Gateway API is installed: until a tenant that waits for it is Ready",
        seconds(began.elapsed()),
    );

    for manifest in [routed("two", false), by_ingress("three")] {
        stage.create(&manifest).await;
    }
    futures::join!(stage.tenant("two", 1), stage.tenant("three", 1));
    led_by_names(stage, &place).await;
    statuses(stage).await;
    worker_joins(stage).await;
    repairs(stage).await;
    for name in ["one", "two", "three"] {
        stage.remove(name).await;
    }
    moves(stage, &place).await;
    let left = stage
        .it
        .kubectl(&["-n", TENANTS, "get", "ingresses,tlsroutes", "-o", "name"]);
    assert_eq!(left.trim(), "", "left behind");
    stage.it.kubectl(&["delete", "namespace", edge::GATEWAY.0]);
    drop(edge);
    for file in gateway_api::definitions(lab.directories()).unwrap() {
        stage.it.kubectl(&["delete", "-f", file.to_str().unwrap()]);
    }
}

fn install_gateway_api(stage: &Stage) {
    let lab = stage.it.lab().unwrap();
    stage.it.kubectl(&["create", "namespace", edge::GATEWAY.0]);
    for file in gateway_api::definitions(lab.directories()).unwrap() {
        let file = file.to_str().unwrap();
        stage.it.kubectl(&["apply", "--server-side", "-f", file]);
    }
}

fn host(name: &str) -> String {
    format!("{name}.{}", edge::DOMAIN)
}

fn gateway(name: &str) -> Value {
    let (namespace, gateway) = edge::GATEWAY;
    json!({"hostname": host(name), "parentRefs": [{"name": gateway, "namespace": namespace}]})
}

fn ingress(name: &str) -> Value {
    json!({
        "hostname": format!("{}:{}", host(name), edge::PORTS[0].1),
        "ingressClassName": edge::CLASS,
        "controllerType": "haproxy",
    })
}

fn routed(name: &str, tunnel: bool) -> Value {
    let mut manifest = manifest(name, 1);
    manifest["spec"]["controlPlane"]["service"]["serviceType"] = json!("ClusterIP");
    manifest["spec"]["controlPlane"]["gateway"] = gateway(name);
    if tunnel {
        manifest["spec"]["addons"] = json!({"coreDNS": {}, "kubeProxy": {}, "konnectivity": {}});
    }
    manifest
}

fn by_ingress(name: &str) -> Value {
    let mut manifest = manifest(name, 1);
    manifest["spec"]["controlPlane"]["service"]["serviceType"] = json!("ClusterIP");
    manifest["spec"]["controlPlane"]["ingress"] = ingress(name);
    manifest
}

/// kubectl with a kubeconfig, by way of the proxy: this machine resolves none of the
/// names, so that the address is given beside the name.
fn through(stage: &Stage, kubeconfig: &Path, place: &str, name: &str, what: &[&str]) -> Said {
    let (server, name) = (
        format!("--server=https://{place}"),
        format!("--tls-server-name={}", host(name)),
    );
    let arguments = [&[&*server, &*name, "--request-timeout=10s"][..], what].concat();
    stage.it.kubectl_with(kubeconfig, &arguments)
}

/// One address and one port: the name alone tells who answers.
async fn led_by_names(stage: &Stage, place: &str) {
    let names = ["one", "two", "three"];
    let files = names.map(|name| stage.it.kubeconfig(name));
    for (name, file) in names.iter().zip(&files) {
        let text = std::fs::read_to_string(file).unwrap();
        let server = format!("https://{}:{}", host(name), edge::PORTS[0].1);
        assert!(text.contains(&server), "{text}");
        let create = ["create", "configmap", &format!("mark-{name}")];
        let said = through(stage, file, place, name, &create);
        assert_eq!(said.code, 0, "{}", said.text());
    }
    for (name, file) in names.iter().zip(&files) {
        let list = ["get", "configmaps", "-o", "name"];
        let said = through(stage, file, place, name, &list);
        let marks: Vec<&str> = said
            .stdout
            .lines()
            .filter(|it| it.contains("mark-"))
            .collect();
        assert_eq!(marks, [format!("configmap/mark-{name}")], "{}", said.text());
    }
    // Of another tenant's name, the certificate is not this one's authority's.
    let said = through(stage, &files[0], place, "two", &["get", "configmaps"]);
    assert!(
        said.code != 0 && said.stderr.contains("certificate"),
        "{}",
        said.text()
    );
}

async fn statuses(stage: &Stage) {
    let port = edge::PORTS[0].1;
    for name in ["one", "two"] {
        let object = stage.it.get(&tenant_path(name)).await.unwrap();
        let told = &object["status"];
        assert_eq!(
            told["controlPlaneEndpoint"],
            format!("{}:{port}", host(name))
        );
        let route = &told["kubernetesResources"]["gateway"];
        assert_eq!(route["routeRef"]["name"], name, "{route}");
        assert_eq!(
            route["parents"][0]["conditions"][0]["reason"], "Accepted",
            "{route}"
        );
        let url = format!("https://{}:{port}", host(name));
        assert_eq!(route["accessPoints"][0]["urls"], json!([url]), "{route}");
    }
    let one = stage.it.get(&tenant_path("one")).await.unwrap();
    let tunnel = &one["status"]["addons"]["konnectivity"]["gateway"];
    assert_eq!(tunnel["routeRef"]["name"], "one-konnectivity", "{tunnel}");
    assert_eq!(
        tunnel["accessPoints"][0]["port"],
        edge::PORTS[1].1,
        "{tunnel}"
    );
    let three = stage.it.get(&tenant_path("three")).await.unwrap();
    let told = &three["status"]["kubernetesResources"]["ingress"];
    assert_eq!(told["name"], "three", "{told}");
    assert!(
        told["loadBalancer"]["ingress"][0]["ip"].is_string(),
        "{told}"
    );
}

/// A machine that reaches the proxy and nothing behind it.
async fn worker_joins(stage: &Stage) {
    let lab = stage.it.lab().unwrap();
    let tenant = Tenant {
        stage,
        name: "one",
        kubeconfig: by_address(stage, "one"),
    };
    let began = Instant::now();
    stage
        .story("one")
        .says(began, CONFIGURED, "ClusterConfigured", "True", "AsExpected")
        .await;
    let worker = lab.worker(1).await.unwrap();
    cut(lab);
    let took = tenant.joins(&worker).await;
    stage.note(
        "by a name: kubeadm join until the Node is Ready",
        seconds(took),
    );
    let took = tenant.available("kube-system", "coredns").await;
    stage.note("then until CoreDNS is available", seconds(took));
    let began = Instant::now();
    let ready = [
        "-n",
        "kube-system",
        "rollout",
        "status",
        "daemonset/konnectivity-agent",
        "--timeout=60s",
    ];
    tenant.done(&ready);
    stage.note(
        "then until the tunnel's agents are connected",
        seconds(began.elapsed()),
    );
    let logs = [
        "-n",
        "kube-system",
        "logs",
        "deployment/coredns",
        "--tail=1",
    ];
    stage
        .it
        .until("logs come through the tunnel", NOTICED, async || {
            (tenant.says(&logs).code == 0).then_some(())
        })
        .await;
    // As it is, without anything beside it: names lead somewhere there.
    let plain = stage.it.kubeconfig("one");
    let text = std::fs::read_to_string(plain).unwrap();
    let file = worker_file(&worker, &text);
    let said = worker.run(&[
        "kubectl",
        "--kubeconfig",
        &file,
        "get",
        "nodes",
        "-o",
        "name",
    ]);
    assert_eq!(said.unwrap().trim(), format!("node/{}", worker.name()));
    mend(lab);
    worker.remove().unwrap();
    tenant.done(&["delete", "nodes", "--all"]);
}

/// Writes a file on a worker host.
fn worker_file(worker: &tests::lab::Worker, text: &str) -> String {
    let path = "/etc/kubernetes/user.kubeconfig";
    let script = format!("mkdir -p /etc/kubernetes; cat > {path} <<'END'\n{text}\nEND");
    worker.run(&["sh", "-c", &script]).unwrap();
    path.to_owned()
}

/// A kubeconfig with the proxy's address beside the name.
fn by_address(stage: &Stage, name: &str) -> PathBuf {
    let lab = stage.it.lab().unwrap();
    let file = stage.it.kubeconfig(name);
    let text = std::fs::read_to_string(&file).unwrap();
    let server = format!("server: https://{}:{}", host(name), edge::PORTS[0].1);
    let place = format!(
        "server: https://{}:{}",
        lab.addresses().node(),
        edge::PORTS[0].1
    );
    let quoted = |text: &str| text.replace("server: ", "server: \"") + "\"";
    let with = format!("{place}\n    tls-server-name: {}", host(name));
    let text = text.replace(&quoted(&server), &server);
    assert!(text.contains(&server), "{text}");
    let path = file.with_extension("by-address");
    std::fs::write(&path, text.replace(&server, &with)).unwrap();
    path
}

/// What somebody changes is put right, and what somebody deletes is made anew.
async fn repairs(stage: &Stage) {
    let field = |kind: &str, name: &str, path: &str| {
        let path = format!("jsonpath={{{path}}}");
        let said = stage
            .it
            .try_kubectl(&["-n", TENANTS, "get", kind, name, "-o", &path]);
        said.stdout
    };
    let right = async || {
        let route = field("tlsroute", "two", ".spec.hostnames[0]") == host("two");
        let ingress = field("ingress", "three", ".spec.rules[0].host") == host("three");
        (route && ingress).then_some(())
    };
    let objects = [
        ("tlsroute", "two", "/spec/hostnames/0"),
        ("ingress", "three", "/spec/rules/0/host"),
    ];
    for (kind, name, path) in objects {
        let change = json!([{"op": "replace", "path": path, "value": "x.example.com"}]);
        let patch = ["-n", TENANTS, "patch", kind, name, "--type=json", "-p"];
        let change = change.to_string();
        stage.it.kubectl(&[&patch[..], &[change.as_str()]].concat());
    }
    let began = Instant::now();
    let what = "the route and the Ingress are put right";
    stage.it.until(what, NOTICED, right).await;
    stage.note(what, seconds(began.elapsed()));
    for (kind, name, _) in objects {
        stage.it.kubectl(&["-n", TENANTS, "delete", kind, name]);
    }
    let began = Instant::now();
    let what = "the route and the Ingress are made anew";
    stage.it.until(what, NOTICED, right).await;
    stage.note(what, seconds(began.elapsed()));
}

/// From a load balancer to a name and back, while somebody asks on the way of before.
async fn moves(stage: &Stage, place: &str) {
    let name = "four";
    let story = stage.tenant(name, 1).await;
    let file = stage.it.kubeconfig(name);
    let patch = |plane: Value| json!({"spec": {"controlPlane": plane}});

    let asked = Asked::begin(stage, &file, &[]);
    let began = Instant::now();
    let to_name = json!({"service": {"serviceType": "ClusterIP"}, "ingress": ingress(name)});
    stage
        .it
        .patch(&tenant_path(name), &patch(to_name))
        .await
        .unwrap();
    let new = format!("{}:{}", host(name), edge::PORTS[0].1);
    story
        .until(began, MOVED, "it answers by its name", |object| {
            answers(object) && object["status"]["controlPlaneEndpoint"] == *new
        })
        .await;
    let (count, failed) = asked.end();
    stage.note(
        "from a load balancer to a name: requests on the former way, until the new one answers",
        format!("{count}, {} failed", failed.len()),
    );
    assert_eq!(failed, [""; 0], "on the way of before");
    stage.note("it answers by its name after", seconds(began.elapsed()));
    stage
        .it
        .until("the load balancer goes then", NOTICED, async || {
            let service = stage.object("services", name).await?;
            (service["spec"]["type"] == "ClusterIP").then_some(())
        })
        .await;

    // And back, by the name while there is no address.
    let (server, sni) = (
        format!("--server=https://{place}"),
        format!("--tls-server-name={}", host(name)),
    );
    let asked = Asked::begin(stage, &file, &[server, sni]);
    let began = Instant::now();
    let back = json!({"service": {"serviceType": "LoadBalancer"}, "ingress": null});
    stage
        .it
        .patch(&tenant_path(name), &patch(back))
        .await
        .unwrap();
    story
        .until(began, MOVED, "it answers at the load balancer", |object| {
            let endpoint = &object["status"]["controlPlaneEndpoint"];
            let endpoint = endpoint.as_str().unwrap_or_default();
            answers(object) && endpoint.ends_with(":6443")
        })
        .await;
    let (count, failed) = asked.end();
    stage.note(
        "from a name to a load balancer: requests on the former way, until the new one answers",
        format!("{count}, {} failed", failed.len()),
    );
    assert_eq!(failed, [""; 0], "on the way of before");
    stage
        .it
        .until("the Ingress goes then", NOTICED, async || {
            stage
                .object("ingresses", name)
                .await
                .is_none()
                .then_some(())
        })
        .await;
    // Another port, while somebody asks at the one of before.
    let asked = Asked::begin(stage, &stage.it.kubeconfig(name), &[]);
    let began = Instant::now();
    let port = json!({"spec": {"networkProfile": {"port": 7443}}});
    stage.it.patch(&tenant_path(name), &port).await.unwrap();
    story
        .until(began, MOVED, "it answers at the other port", |object| {
            let endpoint = &object["status"]["controlPlaneEndpoint"];
            let endpoint = endpoint.as_str().unwrap_or_default();
            answers(object)
                && endpoint.ends_with(":7443")
                && is(object, "Progressing", "False", "AsExpected")
        })
        .await;
    let (count, failed) = asked.end();
    stage.note(
        "from one port to another: requests at the former one, until all pods have the new one",
        format!("{count}, {} failed", failed.len()),
    );
    assert_eq!(failed, [""; 0], "at the port of before");
    stage
        .it
        .until("the port of before goes then", NOTICED, async || {
            let service = stage.object("services", name).await?;
            let ports = service["spec"]["ports"].as_array()?;
            (ports.len() == 1 && ports[0]["targetPort"] == 7443).then_some(())
        })
        .await;
    stage.remove(name).await;
}

/// The probe has got through to what the status names.
fn answers(object: &Value) -> bool {
    let endpoint = object["status"]["controlPlaneEndpoint"].as_str();
    let reached = condition(object, "EndpointReachable");
    let reached = reached.is_some_and(|[_, _, said]| endpoint.is_some_and(|it| said.contains(it)));
    reached
        && is(object, "EndpointReachable", "True", "AsExpected")
        && is(object, "Ready", "True", "Ready")
        && object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

/// Somebody who asks again and again.
struct Asked {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Vec<String>)>,
}

impl Asked {
    fn begin(stage: &Stage, kubeconfig: &Path, more: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut command = stage.it.command_with(kubeconfig);
        command
            .args(more)
            .args(["--request-timeout=5s", "get", "--raw", "/version"]);
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut count, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let said = tests::served::run(&mut command);
                // What was under way when the new way answered does not count.
                if said.code != 0 && !stopped.load(Ordering::Relaxed) {
                    failed.push(said.text());
                }
                count += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            (count, failed)
        });
        Self { stop, thread }
    }

    /// How often, and what failed.
    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
