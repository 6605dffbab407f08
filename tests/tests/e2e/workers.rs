//! Machines join a tenant with kubeadm as it is, and run pods: what the whole is
//! for. Worker hosts are those of the lab.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::installed::{condition, tenant as manifest, tenant_path};
use tests::lab::{Lab, Worker, network};
use tests::served::Said;

use crate::dump::Dump;
use crate::life::seconds;
use crate::serving;
use crate::stage::Stage;
use crate::story::Story;

/// What the part needs of ours.
pub const HOSTS: &str = "worker hosts";

const NAME: &str = "joined";
/// How long after its creation nodes can join a tenant.
pub const CONFIGURED: Duration = Duration::from_secs(60);
/// How long what is changed in a tenant stays so: it is looked at each half minute.
pub const PUT_RIGHT: Duration = Duration::from_secs(40);
/// How long a host may take from `kubeadm join` to a Node that is Ready.
const JOINED: Duration = Duration::from_secs(60);
/// How long pods on a host that has just joined may take.
const RUNS: Duration = Duration::from_secs(90);

/// Each pod on another host: between them are both networks, and DNS.
pub const PODS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {kubernetes.io/hostname: worker-1}
      containers:
      - name: web
        image: busybox:1.35
        args: [-c, "mkdir /tmp/w; echo served > /tmp/w/index.html; exec httpd -f -v -p 8080 -h /tmp/w"]
        readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: user}
spec:
  selector: {matchLabels: {app: user}}
  template:
    metadata: {labels: {app: user}}
    spec:
      nodeSelector: {kubernetes.io/hostname: worker-2}
      terminationGracePeriodSeconds: 0
      containers:
      - {name: user, image: "busybox:1.35", args: [-c, "echo here; exec sleep 100000"]}
"#;

pub async fn run(stage: &Stage) {
    let lab = stage.it.lab().unwrap();
    let before = Dump::at_rest(stage).await;
    let machine_before = traces(lab);
    let mut manifest = manifest(NAME, 1);
    manifest["spec"]["addons"] = json!({"coreDNS": {}, "kubeProxy": {}});
    serving::ask(&mut manifest);
    let began = Instant::now();
    stage.create(&manifest).await;
    let story = stage.tenant(NAME, 1).await;
    stage.note("create until Ready", seconds(began.elapsed()));
    let took = story
        .says(began, CONFIGURED, "ClusterConfigured", "True", "AsExpected")
        .await;
    stage.note("create until nodes can join", seconds(took));
    let tenant = Tenant {
        stage,
        name: NAME,
        kubeconfig: stage.it.kubeconfig(NAME),
    };

    // One host, from nothing to a Node that is Ready.
    let began = Instant::now();
    let first = lab.worker(1).await.unwrap();
    stage.note("a worker host starts", seconds(began.elapsed()));
    let took = tenant.joins(&first).await;
    stage.note("kubeadm join until the Node is Ready", seconds(took));
    serving::approved(&tenant, &first).await;
    let took = tenant.available("kube-system", "coredns").await;
    stage.note("then until CoreDNS is available", seconds(took));

    // Another one beside it; pods on both reach each other by name.
    let second = lab.worker(2).await.unwrap();
    let took = tenant.joins(&second).await;
    stage.note("the second host joins", seconds(took));
    let file = stage.it.files().join("pods.yaml");
    std::fs::write(&file, PODS).unwrap();
    tenant.done(&["apply", "-f", file.to_str().unwrap()]);
    tenant.available("default", "web").await;
    tenant.available("default", "user").await;
    let took = tenant
        .reaches("http://web.default.svc.cluster.local/")
        .await;
    stage.note("until a pod reaches another by name", seconds(took));

    serving::approved(&tenant, &second).await;
    serving::refused(&tenant, &first, &second).await;

    // What the API server asks the kubelets for.
    let said = tenant.done(&["logs", "deploy/user"]);
    assert_eq!(said.trim(), "here");
    let said = tenant.done(&["exec", "deploy/web", "--", "cat", "/tmp/w/index.html"]);
    assert_eq!(said.trim(), "served");

    // Nothing but the tenant is in reach: neither what it runs in nor beyond.
    let node = lab.addresses().node().to_string();
    let service = lab.addresses().kubernetes_service().to_string();
    for (address, port, reached) in [
        (node.as_str(), "6443", true),
        (service.as_str(), "443", false),
        ("192.0.2.1", "9", false),
    ] {
        let try_it = ["nc", "-w", "2", address, port];
        let host = second.run(&[&["busybox"], &try_it[..]].concat()).is_ok();
        let pod = tenant.says(&[&["exec", "deploy/user", "--"], &try_it[..]].concat());
        assert_eq!(
            (host, pod.code == 0),
            (reached, reached),
            "{address}:{port}"
        );
    }

    add_ons(&tenant, &story).await;

    // The host leaves, and nothing of the tenant is on it; and joins again.
    tenant.done(&["delete", "node", &first.name()]);
    let began = Instant::now();
    first.reset().unwrap();
    stage.note("kubeadm reset", seconds(began.elapsed()));
    let left = first.run(&["ctr", "-n", "k8s.io", "containers", "ls", "-q"]);
    assert_eq!(left.unwrap(), "", "containers are left");
    let files = "ls -A /etc/kubernetes/pki /var/lib/kubelet 2>/dev/null || true";
    let left = first.run(&["sh", "-c", files]).unwrap();
    assert!(!left.contains(".crt") && !left.contains("config"), "{left}");
    let took = tenant.joins(&first).await;
    stage.note("it joins again", seconds(took));
    tenant.available("default", "web").await;
    tenant.reaches("http://web/").await;

    // Nothing is left, of the hosts nor of the tenant.
    let began = Instant::now();
    first.remove().unwrap();
    drop(second);
    stage.note("two worker hosts are removed", seconds(began.elapsed()));
    assert_eq!(traces(lab), machine_before);
    stage.remove(NAME).await;
    before.comes_back(stage, Duration::from_secs(90)).await;
}

/// What is changed is put right but for what is the tenant's, and what is taken out of the
/// spec is removed.
async fn add_ons(tenant: &Tenant<'_>, story: &Story) {
    let stage = tenant.stage;
    let system = ["-n", "kube-system"];
    let done = |arguments: &[&str]| tenant.done(&[&system[..], arguments].concat());
    let field = |kind: &str, name: &str, path: &str| {
        done(&["get", kind, name, "-o", &format!("jsonpath={{{path}}}")])
    };
    let began = Instant::now();
    done(&["set", "image", "deployment/coredns", "coredns=none:1"]);
    done(&["scale", "deployment/coredns", "--replicas=1"]);
    done(&["delete", "role", "kubeadm:kubelet-config"]);
    let kept = r#"{"data":{"Corefile":".:53 {\n  ready\n  whoami\n}\n"}}"#;
    done(&["patch", "configmap", "coredns", "--type=merge", "-p", kept]);
    let image = ".spec.template.spec.containers[0].image";
    let right = || async {
        let there =
            tenant.says(&[&system[..], &["get", "role", "kubeadm:kubelet-config"]].concat());
        (field("deployment", "coredns", image) != "none:1" && there.code == 0).then_some(())
    };
    stage
        .it
        .until("CoreDNS is put right", PUT_RIGHT, right)
        .await;
    stage.note("an add-on is put right", seconds(began.elapsed()));
    assert_eq!(field("deployment", "coredns", ".spec.replicas"), "1");
    assert!(field("configmap", "coredns", ".data.Corefile").contains("whoami"));

    // Nothing is written without a cause.
    let version = |kind, name| field(kind, name, ".metadata.resourceVersion");
    let objects = [
        ("configmap", "kubeadm-config"),
        ("configmap", "kubelet-config"),
        ("configmap", "kube-proxy"),
        ("service", "kube-dns"),
        ("serviceaccount", "coredns"),
        ("role", "kubeadm:kubelet-config"),
        ("rolebinding", "kube-proxy"),
    ];
    let versions = || objects.map(|(kind, name)| version(kind, name));
    let before = versions();
    let generations = || {
        let of = |kind, name| field(kind, name, ".metadata.generation");
        [of("deployment", "coredns"), of("daemonset", "kube-proxy")]
    };
    let spec = generations();
    // A status that lies is no cause: nodes are not sent elsewhere, nothing is rolled.
    let lie = json!({"status": {
        "controlPlaneEndpoint": "192.0.2.66:6443",
        "kubernetesResources": {"version": {"version": "v1.36.99"}},
    }});
    let status = format!("{}/status", tenant_path(NAME));
    stage.it.patch(&status, &lie).await.unwrap();
    // All of it is looked at each half minute.
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(versions(), before, "written without a cause");
    assert_eq!(generations(), spec, "written without a cause");
    let info = [
        "-n",
        "kube-public",
        "get",
        "configmap",
        "cluster-info",
        "-o",
        "yaml",
    ];
    assert!(
        !tenant.done(&info).contains("192.0.2.66"),
        "nodes are sent elsewhere"
    );
    let said = stage.it.get(&tenant_path(NAME)).await.unwrap();
    assert_ne!(said["status"]["controlPlaneEndpoint"], "192.0.2.66:6443");

    let path = tenant_path(NAME);
    let began = Instant::now();
    let without = json!({"spec": {"addons": {"coreDNS": null}}});
    stage.it.patch(&path, &without).await.unwrap();
    let all = ["deployment", "service", "configmap", "serviceaccount"];
    let names = ["coredns", "kube-dns", "coredns", "coredns"];
    let gone = || async {
        let gone = all.iter().zip(names).all(|(kind, name)| {
            let said = tenant.says(&[&system[..], &["get", kind, name]].concat());
            said.stderr.contains("NotFound")
        });
        gone.then_some(())
    };
    stage.it.until("CoreDNS is removed", PUT_RIGHT, gone).await;
    stage.note("an add-on is removed", seconds(began.elapsed()));
    let status = stage.it.get(&path).await.unwrap();
    assert_eq!(status["status"]["addons"]["kubeProxy"]["enabled"], true);
    let with = json!({"spec": {"addons": {"coreDNS": {}}}});
    let began = Instant::now();
    stage.it.patch(&path, &with).await.unwrap();
    story
        .until(began, PUT_RIGHT, "CoreDNS is there again", |object| {
            object["status"]["addons"]["coreDNS"]["enabled"] == true
        })
        .await;
    tenant.available("kube-system", "coredns").await;
}

/// A tenant as its user sees it.
pub struct Tenant<'a> {
    pub stage: &'a Stage,
    pub name: &'a str,
    pub kubeconfig: PathBuf,
}

impl Tenant<'_> {
    pub fn says(&self, arguments: &[&str]) -> Said {
        self.stage.it.kubectl_with(&self.kubeconfig, arguments)
    }

    /// What kubectl says, which succeeds.
    pub fn done(&self, arguments: &[&str]) -> String {
        let said = self.says(arguments);
        assert_eq!(said.code, 0, "kubectl {arguments:?}: {}", said.text());
        said.stdout
    }

    /// Lets a host join, and waits until its Node is Ready.
    pub async fn joins(&self, worker: &Worker) -> Duration {
        let path = format!("{}/jointoken", tenant_path(self.name));
        let minting = Instant::now();
        let minted = self.stage.it.post(&path, &json!({})).await.unwrap();
        self.stage
            .note("a token is minted", seconds(minting.elapsed()));
        let command = minted["status"]["command"].as_str().unwrap();
        let began = Instant::now();
        worker.join(command).unwrap();
        let name = worker.name();
        let ready = async || {
            let said = self.says(&["get", "node", &name, "-o", "json"]);
            let node: Value = serde_json::from_str(&said.stdout).ok()?;
            let [status, ..] = condition(&node, "Ready")?;
            (status == "True").then_some(())
        };
        let what = format!(
            "{name} is Ready; its kubelet says\n{}",
            worker.log("kubelet")
        );
        self.stage.it.until(&what, JOINED, ready).await;
        began.elapsed()
    }

    /// Waits until a Deployment is available.
    pub async fn available(&self, namespace: &str, name: &str) -> Duration {
        let began = Instant::now();
        let arguments = ["-n", namespace, "rollout", "status"];
        let name = format!("deployment/{name}");
        let patience = format!("--timeout={}s", RUNS.as_secs());
        let said = self.says(&[&arguments[..], &[&name, &patience]].concat());
        let pods = ["describe", "pods", "-A"];
        assert_eq!(said.code, 0, "{}\n{}", said.text(), self.says(&pods).text());
        began.elapsed()
    }

    /// Waits until the user's pod gets an answer.
    async fn reaches(&self, url: &str) -> Duration {
        // Debian's busybox crashes at `wget -T`.
        let wget = [
            "exec",
            "deploy/user",
            "--",
            "timeout",
            "3",
            "wget",
            "-qO-",
            url,
        ];
        let answered = async || (self.says(&wget).stdout.trim() == "served").then_some(());
        let what = format!("{url} answers");
        let (_, took) = self.stage.it.until(&what, RUNS, answered).await;
        took
    }
}

/// What hosts leave where a [`Dump`] does not look.
pub fn traces(lab: &Lab) -> Vec<String> {
    let inside = |arguments: &[&str]| network::inside(lab.directory(), arguments).unwrap();
    let mut found: Vec<String> = ["/etc/kubernetes", "/etc/cni", "/var/lib/kubelet"]
        .iter()
        .filter(|path| Path::new(path).exists())
        .map(|path| (*path).to_owned())
        .collect();
    let rules = inside(&["ip", "rule"]);
    found.extend(rules.lines().map(str::to_owned));
    let tables = inside(&["nft", "list", "tables"]);
    let cables = tables.lines().filter(|line| line.contains("ip w"));
    found.extend(cables.map(str::to_owned));
    for place in [lab.directory().workers(), lab.directory().processes()] {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        found.extend(entries.map(|it| it.path().display().to_string()));
    }
    found.sort();
    found
}
