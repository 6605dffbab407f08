//! The lab itself: what a level promises, and that nothing is left of it.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::lab::process::{ProcessId, Program};
use tests::lab::record::Record;
use tests::lab::{Directories, Lab, Level};

/// Interfaces, routes, mounts, control groups, files and processes that carry
/// the run's name.
fn traces(name: &str) -> Vec<String> {
    let directories = Directories::from_environment().unwrap();
    let run = directories.run(name).path().display().to_string();
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let mut lines = String::new();
    lines += &output("ip", &["-o", "link"]);
    lines += &output("ip", &["route"]);
    lines += &std::fs::read_to_string("/proc/self/mounts").unwrap();
    lines += &output("find", &["/sys/fs/cgroup", "-type", "d"]);
    lines += &output("ps", &["-eo", "args"]);
    if Path::new(&run).exists() {
        lines += &run;
    }
    lines
        .lines()
        .filter(|line| {
            line.contains(&format!("stl-{name}"))
                || line.contains(&format!("steward-lab-{name}"))
                || line.contains(&run)
        })
        .map(str::to_owned)
        .collect()
}

fn unique(prefix: char) -> String {
    format!(
        "{prefix}{}",
        &uuid::Uuid::new_v4().simple().to_string()[..7]
    )
}

async fn eventually(what: &str, patience: Duration, mut test: impl FnMut() -> bool) {
    let started = Instant::now();
    while !test() {
        assert!(started.elapsed() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_level_aggregates_a_server_of_this_machine_and_leaves_nothing() {
    let lab = Lab::start(Level::Api).await.unwrap();
    let name = lab.name().to_owned();
    assert!(
        !traces(&name).is_empty(),
        "the search finds a run that is up"
    );
    assert_eq!(
        lab.kubectl(&["auth", "can-i", "*", "*"]).unwrap().trim(),
        "yes"
    );

    // The aggregator reaches for a server that listens on the machine.
    let listener = std::net::TcpListener::bind((lab.host_ip(), 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    lab.register_local_service("elsewhere", "server", port)
        .await
        .unwrap();
    lab.apply(
        "apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.lab.example.com}
spec:
  group: lab.example.com
  version: v1
  groupPriorityMinimum: 1000
  versionPriority: 15
  insecureSkipTLSVerify: true
  service: {namespace: elsewhere, name: server, port: 443}
",
    )
    .unwrap();
    eventually(
        "the aggregator does not connect",
        Duration::from_secs(20),
        || listener.accept().is_ok(),
    )
    .await;

    let audit = std::fs::read_to_string(lab.directory().audit_log()).unwrap();
    assert!(audit.contains("v1.lab.example.com"), "the audit log has it");
    drop(lab);
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_api_server_has_a_keyspace_of_its_own() {
    let lab = Lab::start(Level::Api).await.unwrap();
    lab.kubectl(&["create", "namespace", "only-here"]).unwrap();
    let second = lab.further_api_server("second", "/second", 7443).unwrap();
    let second = lab.spawn(second).unwrap();
    let server = format!("https://{}:7443", lab.addresses().node());
    eventually("it is ready", Duration::from_secs(30), || {
        second.check().unwrap();
        lab.kubectl(&["--server", &server, "get", "--raw", "/readyz"])
            .is_ok()
    })
    .await;
    let names = lab
        .kubectl(&["--server", &server, "get", "namespaces"])
        .unwrap();
    assert!(names.contains("kube-system"), "{names}");
    assert!(!names.contains("only-here"), "{names}");
}

const WORKLOAD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsUser: 65532, runAsNonRoot: true}
      containers:
      - name: web
        image: busybox:1.35
        args: [-c, "echo served > /data/index.html; exec httpd -f -p 8080 -h /data"]
        volumeMounts: [{name: data, mountPath: /data}]
        readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_level_runs_pods_and_leaves_nothing() {
    let lab = Lab::start(Level::Pods).await.unwrap();
    let name = lab.name().to_owned();
    lab.apply(WORKLOAD).unwrap();
    lab.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/web",
        "--timeout=60s",
    ])
    .unwrap();

    let address = |path: &str| {
        lab.kubectl(&[
            "get",
            "service",
            "web",
            "-o",
            &format!("jsonpath={{{path}}}"),
        ])
        .unwrap()
    };
    for path in [".status.loadBalancer.ingress[0].ip", ".spec.clusterIP"] {
        let socket: SocketAddr = format!("{}:80", address(path)).parse().unwrap();
        // kube-proxy gathers changes for up to a second.
        eventually(
            &format!("{path} answers on this machine"),
            Duration::from_secs(10),
            || TcpStream::connect_timeout(&socket, Duration::from_secs(1)).is_ok(),
        )
        .await;
    }
    let balancer = address(".status.loadBalancer.ingress[0].ip");
    for url in ["http://web.default.svc/", &format!("http://{balancer}/")] {
        // One of the pods gets itself for an answer: the way back works too.
        for _ in 0..4 {
            let answer = lab
                .kubectl(&["exec", "deployment/web", "--", "wget", "-qO-", url])
                .unwrap();
            assert_eq!(answer.trim(), "served", "{url}");
        }
    }
    let outside = [
        "exec",
        "deployment/web",
        "--",
        "nc",
        "-w",
        "2",
        "192.0.2.1",
        "9",
    ];
    assert!(lab.kubectl(&outside).is_err(), "no way beyond the machine");

    let volumes = || {
        std::fs::read_dir(lab.directory().volumes())
            .unwrap()
            .count()
    };
    assert_eq!(volumes(), 1);
    lab.kubectl(&["delete", "deployment/web", "pvc/data"])
        .unwrap();
    eventually("the volume is removed", Duration::from_secs(60), || {
        volumes() == 0
    })
    .await;
    drop(lab);
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_with_its_owner_however_that_ends() {
    let name = unique('o');
    let mut owner = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["up", "--level", "api", "--name", &name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let directories = Directories::from_environment().unwrap();
    let record = || Record::read(&directories.run(&name)).ok();
    eventually("the run has an agent", Duration::from_secs(60), || {
        record().is_some_and(|record| record.agent.is_some() || record.ready)
    })
    .await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    if record().is_some_and(|record| record.ready) {
        // It was done in the meantime, and stands on its own.
        run(&["down", "--name", &name]);
    }
    eventually("the agent removes the run", Duration::from_secs(30), || {
        traces(&name).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_sweeps_what_was_killed_whole() {
    let name = unique('k');
    run(&["up", "--level", "api", "--name", &name]);
    let lab = Lab::attach(&name).await.unwrap();
    lab.spawn(Program::new("bystander", "sleep").args(["1000"]))
        .unwrap();
    let directories = Directories::from_environment().unwrap();
    let agent: ProcessId = Record::read(&directories.run(&name))
        .unwrap()
        .agent
        .unwrap();
    agent.kill();
    // One program is killed, the others are orphans.
    lab.signal("etcd", "KILL").unwrap();
    drop(lab);
    assert!(!traces(&name).is_empty(), "who attached removes nothing");
    run(&["sweep"]);
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_hosts_stand_side_by_side_and_go_with_a_run_that_is_killed_whole() {
    let name = unique('h');
    run(&["up", "--level", "pods", "--name", &name]);
    let lab = Lab::attach(&name).await.unwrap();
    let of_first = |lines: &[String]| lines.iter().filter(|it| it.contains("/w1")).count();
    let first = lab.worker(1).await.unwrap();
    assert_ne!(of_first(&traces(&name)), 0, "the search finds a host");
    let second = lab.worker(2).await.unwrap();
    assert!(lab.worker(2).await.is_err(), "the number is taken");
    assert_eq!(second.run(&["hostname"]).unwrap().trim(), "worker-2");

    // A host of its own: of the machine's files it changes none.
    let mine = "echo mine > /etc/hostname; mkdir /usr/mine /opt/mine /var/lib/mine /tmp/mine";
    second.run(&["sh", "-ec", mine]).unwrap();
    for place in ["/usr", "/opt", "/var/lib", "/tmp"] {
        assert!(!Path::new(place).join("mine").exists(), "{place}");
    }
    let host_name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    assert_ne!(host_name.trim(), "mine");
    assert_eq!(
        first.run(&["cat", "/etc/hostname"]).unwrap().trim(),
        "worker-1"
    );

    // It reaches the node and other hosts, and neither the machine nor beyond;
    // the machine reaches it.
    let listens = |host: &str, port: &str| second.run(&["busybox", "nc", "-w", "2", host, port]);
    let node = lab.addresses().node().to_string();
    listens(&node, "6443").unwrap();
    first
        .run(&["sh", "-c", "busybox nc -ll -p 7 -e true >/dev/null 2>&1 &"])
        .unwrap();
    eventually("hosts reach each other", Duration::from_secs(5), || {
        listens(&first.address().to_string(), "7").is_ok()
    })
    .await;
    TcpStream::connect((first.address(), 7)).unwrap();
    let listener = std::net::TcpListener::bind((lab.host_ip(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    assert!(listens(&lab.host_ip().to_string(), &port).is_err());
    assert!(listens("192.0.2.1", "9").is_err());

    drop(first);
    assert_eq!(of_first(&traces(&name)), 0);
    second.leave();
    let directories = Directories::from_environment().unwrap();
    let record = Record::read(&directories.run(&name)).unwrap();
    record.agent.unwrap().kill();
    lab.signal("containerd", "KILL").unwrap();
    drop(lab);
    run(&["sweep"]);
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_names_the_program_and_keeps_its_log() {
    let lab = Lab::start(Level::Api).await.unwrap();
    let program = Program::new("broken", "sh").args(["-c", "echo it is broken; sleep 0.1; exit 3"]);
    let broken = lab.spawn(program).unwrap();
    eventually("it ends", Duration::from_secs(5), || {
        broken.check().is_err()
    })
    .await;
    let text = broken.check().unwrap_err().to_string();
    assert!(text.starts_with("broken ended unexpectedly"), "{text}");
    assert!(text.contains("it is broken"), "{text}");
    assert!(
        text.contains(&lab.directory().logs().display().to_string()),
        "{text}"
    );
}

fn run(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "lab {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
