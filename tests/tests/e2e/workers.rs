//! Machines join a tenant with kubeadm as it is, and run pods: what the whole is
//! for. Worker hosts are those of the lab.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::installed::{condition, decoded, tenant_path};
use tests::lab::{Lab, Worker, network};
use tests::served::{Said, run as output};

use crate::dump::Dump;
use crate::life::seconds;
use crate::stage::Stage;

/// What the part needs of ours.
pub const HOSTS: &str = "worker hosts";

const NAME: &str = "joined";
/// How long a host may take from `kubeadm join` to a Node that is Ready.
const JOINED: Duration = Duration::from_secs(60);
/// How long pods on a host that has just joined may take.
const RUNS: Duration = Duration::from_secs(90);

/// Each pod on another host: between them are both networks, and DNS.
const PODS: &str = r#"
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
    let before = Dump::of(stage).await;
    let machine_before = traces(lab);
    stage.tenant(NAME, 1).await;
    let joins = prepared(stage, lab).await;
    let tenant = Tenant {
        stage,
        kubeconfig: stage.it.kubeconfig(NAME),
    };

    // One host, from nothing to a Node that is Ready.
    let began = Instant::now();
    let first = lab.worker(1).await.unwrap();
    stage.note("a worker host starts", seconds(began.elapsed()));
    let took = tenant.joins(&first, &joins()).await;
    stage.note("kubeadm join until the Node is Ready", seconds(took));
    let took = tenant.available("kube-system", "coredns").await;
    stage.note("then until CoreDNS is available", seconds(took));

    // Another one beside it; pods on both reach each other by name.
    let second = lab.worker(2).await.unwrap();
    let took = tenant.joins(&second, &joins()).await;
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
    let took = tenant.joins(&first, &joins()).await;
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

/// Until the controller does it: what `kubeadm join` needs in the tenant, made by
/// kubeadm itself. Returns what prints a command to join with.
async fn prepared(stage: &Stage, lab: &Lab) -> impl Fn() -> String {
    let tenant = stage.it.get(&tenant_path(NAME)).await.unwrap();
    let network = &tenant["spec"]["networkProfile"];
    let endpoint = tenant["status"]["controlPlaneEndpoint"].as_str().unwrap();
    let (host, port) = endpoint.rsplit_once(':').unwrap();
    let api = "kubeadm.k8s.io/v1beta4";
    let cluster = json!({
        "apiVersion": api,
        "kind": "ClusterConfiguration",
        "clusterName": NAME,
        "kubernetesVersion": tenant["spec"]["kubernetes"]["version"],
        "controlPlaneEndpoint": endpoint,
        "networking": {
            "serviceSubnet": network["serviceCidr"],
            "podSubnet": network["podCidr"],
            "dnsDomain": network["clusterDomain"],
        },
    });
    let port: u16 = port.parse().unwrap();
    let init = json!({
        "apiVersion": api,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": host, "bindPort": port},
        "nodeRegistration": {"name": "none", "criSocket": "unix:///run/none.sock"},
    });
    let configuration = stage.it.files().join("kubeadm.yaml");
    std::fs::write(&configuration, format!("{init}\n---\n{cluster}\n")).unwrap();
    let secret = format!("{NAME}-admin-kubeconfig");
    let secret = stage.object("secrets", &secret).await.unwrap();
    let kubeconfig = stage.it.files().join("super-admin.conf");
    std::fs::write(&kubeconfig, decoded(&secret["data"]["super-admin.conf"])).unwrap();
    let kubeadm = lab.program("kubeadm");
    let ask = move |arguments: &[&str]| {
        let mut command = Command::new(&kubeadm);
        let command = command.args(arguments).arg("--kubeconfig").arg(&kubeconfig);
        let said = output(command);
        assert_eq!(said.code, 0, "kubeadm {arguments:?}: {}", said.text());
        said.stdout
    };
    let with = ["--config", configuration.to_str().unwrap()];
    for phase in [
        &["upload-config", "all"][..],
        &["bootstrap-token"],
        &["addon", "all"],
    ] {
        ask(&[&["init", "phase"], phase, &with].concat());
    }
    move || ask(&["token", "create", "--print-join-command"])
}

/// A tenant as its user sees it.
struct Tenant<'a> {
    stage: &'a Stage,
    kubeconfig: PathBuf,
}

impl Tenant<'_> {
    fn says(&self, arguments: &[&str]) -> Said {
        self.stage.it.kubectl_with(&self.kubeconfig, arguments)
    }

    /// What kubectl says, which succeeds.
    fn done(&self, arguments: &[&str]) -> String {
        let said = self.says(arguments);
        assert_eq!(said.code, 0, "kubectl {arguments:?}: {}", said.text());
        said.stdout
    }

    /// Lets a host join, and waits until its Node is Ready.
    async fn joins(&self, worker: &Worker, command: &str) -> Duration {
        self.signed(command).await;
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

    /// Waits until what kubeadm looks at first is signed with the command's token.
    /// kubeadm would do that too, looking every five seconds.
    async fn signed(&self, command: &str) {
        let mut words = command.split_whitespace();
        let token = words.find(|it| *it == "--token").and(words.next()).unwrap();
        let (id, _) = token.split_once('.').unwrap();
        let get = ["-n", "kube-public", "get", "cm", "cluster-info", "-o"];
        let path = format!("jsonpath={{.data.jws-kubeconfig-{id}}}");
        let get = [&get[..], &[&path]].concat();
        let signed = async || (!self.says(&get).stdout.is_empty()).then_some(());
        let what = "cluster-info is signed with the token";
        let (_, took) = self.stage.it.until(what, JOINED, signed).await;
        self.stage.note("until a token is signed", seconds(took));
    }

    /// Waits until a Deployment is available.
    async fn available(&self, namespace: &str, name: &str) -> Duration {
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
fn traces(lab: &Lab) -> Vec<String> {
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
