//! The chart in a cluster without nodes: an upgrade from the first chart, an etcd that
//! does not come up, and what its policies leave to somebody who has the controller's token.
#![allow(clippy::disallowed_methods, reason = "tests")]

mod sets;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::chart::{Access, SYSTEM};
use tests::lab::programs::HELM;
use tests::lab::{Lab, Level};
use tests::served::{Said, contains, eventually, run};

mod etcd;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/steward");
/// The first chart as it was rendered with its own etcd, and its values.
const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/upgrade");

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_a_stolen_token() {
    let lab = Lab::start(Level::Api).await.unwrap();
    HELM.build(lab.directories(), &mut |line: &str| eprintln!("{line}"))
        .unwrap();
    let access = Access::of(&lab);
    sets::are_taken(&access);
    upgrade(&access);
    etcd::a_pod_that_is_not_ready_is_replaced(&access).await;
    let files = tempfile::tempdir().unwrap();
    let thief = Thief::new(&access, files.path());
    stolen(&access, &thief).await;
}

fn with_input(command: &mut Command, input: &str) -> Said {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // What it says does not wait for what it is told.
    let told = std::thread::spawn(move || {
        std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
    });
    let output = child.wait_with_output().unwrap();
    told.join().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    }
}

fn helm(access: &Access, arguments: &[&str]) {
    let said = run(Command::new(&access.helm)
        .arg("--kubeconfig")
        .arg(&access.kubeconfig)
        .args(arguments));
    assert_eq!(said.code, 0, "{}", said.text());
}

// --- upgrade -----------------------------------------------------------------

fn object(access: &Access, arguments: &[&str]) -> Value {
    let get = [&["-n", SYSTEM, "get", "-o", "json"], arguments].concat();
    serde_json::from_str(&access.kubectl(&get).unwrap()).unwrap()
}

/// The set-up's Jobs: name and uid.
fn setups(access: &Access) -> Vec<[String; 2]> {
    let label = "app.kubernetes.io/component=etcd-setup";
    let jobs = object(access, &["jobs", "-l", label]);
    let text = |job: &Value, key: &str| job["metadata"][key].as_str().unwrap().to_owned();
    let jobs = jobs["items"].as_array().unwrap().iter();
    jobs.map(|job| [text(job, "name"), text(job, "uid")])
        .collect()
}

fn upgrade(access: &Access) {
    let namespaced = ["--namespace", SYSTEM];
    let first = ["install", "steward", FIRST, "--create-namespace"];
    helm(access, &[&first[..], &namespaced].concat());
    // What holds data, and what clients have the address of.
    let kept = [
        "pvc/steward-apiserver",
        "statefulset/steward-etcd",
        "service/steward-apiserver",
        "service/steward-etcd-client",
    ];
    let before = kept.map(|name| object(access, &[name]));

    // The values of the first chart know nothing of what came later.
    let upgrade = ["upgrade", "steward", CHART];
    helm(
        access,
        &[&upgrade[..], &namespaced, &["--reuse-values"]].concat(),
    );
    for (name, before) in kept.iter().zip(before) {
        let after = object(access, &[name]);
        // The same object with the same specification: no database restarts.
        for part in ["/metadata/uid", "/metadata/generation", "/spec"] {
            assert_eq!(before.pointer(part), after.pointer(part), "{name} {part}");
        }
    }
    // The set-up of the first chart is gone, and there is one of the new.
    let made = setups(access);
    assert_eq!(made.len(), 1, "{made:?}");

    // A sync that renders the same again changes no Job, whatever the release's
    // revision is; other arguments are another Job.
    let etcd = ["--set", "etcd.enabled=true"];
    let reset = [&upgrade[..], &namespaced, &["--reset-values"], &etcd].concat();
    helm(access, &reset);
    assert_eq!(setups(access), made);
    helm(access, &[&reset[..], &["--set", "logFormat=text"]].concat());
    let other = setups(access);
    assert!(other.len() == 1 && other != made, "{made:?} {other:?}");
    let policies = object(access, &["networkpolicies"]);
    assert_eq!(policies["items"].as_array().unwrap().len(), 3);
}

// --- the controller's token in other hands --------------------------------------

/// Somebody with the token of steward-controller.
struct Thief {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Thief {
    fn new(access: &Access, files: &Path) -> Self {
        let token = ["-n", SYSTEM, "create", "token", "steward-controller"];
        let token = access.kubectl(&token).unwrap();
        let view = ["config", "view", "--raw", "--minify", "-o", "json"];
        let mut config: Value = serde_json::from_str(&access.kubectl(&view).unwrap()).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = files.join("thief");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self {
            kubectl: access.kubectl.clone(),
            kubeconfig,
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> Said {
        run(Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments))
    }

    fn create(&self, object: &Value) -> Said {
        let mut create = Command::new(&self.kubectl);
        create.arg("--kubeconfig").arg(&self.kubeconfig);
        with_input(create.args(["create", "-f", "-"]), &object.to_string())
    }

    fn refused(&self, object: &Value, why: &str) {
        let said = self.create(object);
        assert_ne!(said.code, 0, "{object}");
        contains(&said.stderr, why);
    }
}

/// An object of a tenant, as the controller makes it.
fn of_tenant(api_version: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"steward.butlerlabs.dev/name": "tenant"},
            "ownerReferences": [{
                "apiVersion": "steward.butlerlabs.dev/v1alpha1",
                "kind": "TenantControlPlane",
                "name": "tenant",
                "uid": "3d0c0a5e-0000-4000-8000-000000000001",
                "controller": true,
            }],
        },
    });
    for (key, value) in rest.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

/// A Deployment of a tenant with these fields in its pods' specification.
fn deployment(name: &str, more: Value) -> Value {
    let mut pod = json!({"containers": [{
        "name": "kube-apiserver",
        "image": "i",
        "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
    }]});
    for (key, value) in more.as_object().unwrap() {
        pod[key] = value.clone();
    }
    let labels = json!({"steward.butlerlabs.dev/name": "tenant"});
    let template = json!({"metadata": {"labels": labels}, "spec": pod});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
    of_tenant("apps/v1", "Deployment", name, json!({"spec": spec}))
}

fn secret(name: &str, more: Value) -> Value {
    of_tenant("v1", "Secret", name, more)
}

fn role(name: &str, resources: Value, verbs: Value, names: Value) -> Value {
    let rule = json!({
        "apiGroups": [""], "resources": resources, "verbs": verbs, "resourceNames": names,
    });
    let rules = json!({"rules": [rule]});
    of_tenant("rbac.authorization.k8s.io/v1", "Role", name, rules)
}

fn binding(name: &str, role: Value, account: [&str; 2]) -> Value {
    let [namespace, account] = account;
    let subject = json!({"kind": "ServiceAccount", "namespace": namespace, "name": account});
    let content = json!({"roleRef": role, "subjects": [subject]});
    of_tenant("rbac.authorization.k8s.io/v1", "RoleBinding", name, content)
}

/// What somebody else has spoilt can be put right, in the steps in which the
/// controller does it: the first takes over fields and leaves the content.
fn spoilt(access: &Access, thief: &Thief) {
    let patch = |what: &str, content: &str| {
        let fixed = [
            "-n",
            "default",
            "patch",
            "--type=merge",
            what,
            "-p",
            content,
        ];
        fixed.map(str::to_owned)
    };
    let rules = |verbs: &str| {
        format!(
            r#"{{"rules":[{{"apiGroups":[""],"resources":["secrets"],"verbs":[{verbs}],"resourceNames":["tenant-client-ca"]}}]}}"#
        )
    };
    let network =
        |host: bool| format!(r#"{{"spec":{{"template":{{"spec":{{"hostNetwork":{host}}}}}}}}}"#);
    let role = "role/tenant-kubeconfig-signer";
    for (what, wrong, worse, right) in [
        (
            role,
            rules(r#""get","list""#),
            rules(r#""*""#),
            rules(r#""get""#),
        ),
        (
            "deployment/tenant",
            network(true),
            r#"{"spec":{"template":{"spec":{"hostPID":true}}}}"#.to_owned(),
            network(false),
        ),
    ] {
        let spoil = patch(what, &wrong);
        access
            .kubectl(&spoil.each_ref().map(String::as_str))
            .unwrap();
        for (content, passes) in [
            (r#"{"metadata":{"labels":{"touched":"1"}}}"#, true),
            (worse.as_str(), false),
            (right.as_str(), true),
        ] {
            let step = patch(what, content);
            let said = thief.kubectl(&step.each_ref().map(String::as_str));
            assert_eq!(said.code == 0, passes, "{what} {content}: {}", said.text());
        }
    }
}

async fn stolen(access: &Access, thief: &Thief) {
    // The Secret of somebody else, and one that belongs to another controller.
    let theirs = ["-n", "default", "create", "secret", "generic", "theirs"];
    access.kubectl(&theirs).unwrap();
    let unowned = |name: &str| {
        let mut object = secret(name, json!({}));
        object["metadata"]["ownerReferences"] = json!(null);
        object
    };
    // Policies act some moments after they are there.
    let not_ours = "writes only objects that a TenantControlPlane controls";
    let mut tries = 0;
    eventually("the policies act", Duration::from_secs(60), || {
        tries += 1;
        let said = thief.create(&unowned(&format!("try-{tries}")));
        said.code != 0 && said.stderr.contains(not_ours)
    })
    .await;
    eventually("the other policies act", Duration::from_secs(60), || {
        tries += 1;
        let host = json!({"hostNetwork": true});
        thief
            .create(&deployment(&format!("try-{tries}"), host))
            .code
            != 0
    })
    .await;

    // Nobody else's host names are led anywhere.
    let mut ingress = of_tenant(
        "networking.k8s.io/v1",
        "Ingress",
        "tenant",
        json!({"spec": {"rules": [{"host": "tenant.example.com"}]}}),
    );
    let owners = ingress["metadata"]["ownerReferences"].take();
    let said = thief.create(&ingress);
    assert!(
        said.code != 0 && said.stderr.contains(not_ours),
        "{}",
        said.text()
    );
    ingress["metadata"]["ownerReferences"] = owners;

    // What the controller does passes.
    let signing = json!({
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant-kubeconfig-signer",
    });
    let signer = [SYSTEM, "steward-apiserver"];
    for object in [
        secret("tenant-client-ca", json!({"type": "Opaque", "data": {}})),
        secret("untyped", json!({})),
        of_tenant("v1", "ConfigMap", "tenant", json!({"data": {}})),
        of_tenant(
            "v1",
            "Service",
            "tenant",
            json!({"spec": {"ports": [{"port": 6443}]}}),
        ),
        deployment(
            "tenant",
            json!({
                "serviceAccountName": "default",
                "hostNetwork": false,
                "volumes": [
                    {"name": "s", "secret": {"secretName": "tenant-client-ca"}},
                    {"name": "c", "configMap": {"name": "tenant"}},
                    {"name": "p", "projected": {"sources": [{"secret": {"name": "tenant-client-ca"}}]}},
                    {"name": "e", "emptyDir": {}},
                    {"name": "unnamed"},
                    {"name": "d", "downwardAPI": {"items": []}},
                    {"name": "v", "persistentVolumeClaim": {"claimName": "mine"}},
                ],
            }),
        ),
        role(
            "tenant-kubeconfig-signer",
            json!(["secrets"]),
            json!(["get"]),
            json!(["tenant-client-ca"]),
        ),
        binding("tenant-kubeconfig-signer", signing.clone(), signer),
        ingress,
    ] {
        let said = thief.create(&object);
        assert_eq!(said.code, 0, "{object}: {}", said.text());
    }
    let patch = ["-n", "default", "patch", "--type=merge"];
    let replicas = ["deployment/tenant", "-p", r#"{"spec":{"replicas":1}}"#];
    let said = thief.kubectl(&[&patch[..], &replicas].concat());
    assert_eq!(said.code, 0, "{}", said.text());
    let delete = ["-n", "default", "delete", "secret"];
    assert_eq!(thief.kubectl(&[&delete[..], &["untyped"]].concat()).code, 0);

    spoilt(access, thief);

    // What is not a tenant's stays as it is, and does not become a tenant's.
    let owner = secret("x", json!({}))["metadata"]["ownerReferences"].take();
    let adopt = json!({"metadata": {"ownerReferences": owner}}).to_string();
    for attack in [
        [&delete[..], &["theirs"]].concat(),
        [
            &patch[..],
            &["secret/theirs", "-p", r#"{"stringData":{"a":"b"}}"#],
        ]
        .concat(),
        [&patch[..], &["secret/theirs", "-p", &adopt]].concat(),
        [
            &patch[..],
            &[
                "deployment/tenant",
                "-p",
                r#"{"metadata":{"ownerReferences":null}}"#,
            ],
        ]
        .concat(),
    ] {
        let said = thief.kubectl(&attack);
        assert_ne!(said.code, 0, "{attack:?}");
        contains(&said.stderr, not_ours);
    }

    // Pods as somebody else, or with the node.
    let accounts = "not as steward-etcd-setup";
    let nodes = "share no namespace with their node";
    let windows = "no processes of a Windows node";
    let ports = "take no port of their node";
    let volumes = "emptyDir, downwardAPI and persistentVolumeClaim alone";
    for (more, why) in [
        (
            json!({"serviceAccountName": "steward-etcd-setup"}),
            accounts,
        ),
        (json!({"serviceAccount": "steward-etcd-setup"}), accounts),
        (json!({"hostNetwork": true}), nodes),
        (json!({"hostPID": true}), nodes),
        (json!({"hostIPC": true}), nodes),
        (
            json!({"hostNetwork": true, "securityContext": {"windowsOptions": {"hostProcess": true}}}),
            windows,
        ),
        (
            json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "securityContext": {"windowsOptions": {"hostProcess": true}}}]}),
            windows,
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            volumes,
        ),
        (
            json!({"volumes": [{"name": "v", "csi": {"driver": "d.example.com"}}]}),
            volumes,
        ),
        (
            json!({"volumes": [{"name": "v", "flexVolume": {"driver": "example.com/d"}}]}),
            volumes,
        ),
        (
            json!({"volumes": [{"name": "w", "emptyDir": {}}, {"name": "v", "nfs": {"server": "s", "path": "/"}}]}),
            volumes,
        ),
        (
            json!({"initContainers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}),
            "not privileged",
        ),
        (
            json!({"containers": [{"name": "c", "image": "i", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}),
            "add no capability",
        ),
        (
            json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}, {"containerPort": 443, "hostPort": 443, "hostIP": "127.0.0.1"}]}]}),
            ports,
        ),
        (
            json!({"initContainers": [{"name": "c", "image": "i", "restartPolicy": "Always", "ports": [{"containerPort": 443, "hostPort": 443}]}]}),
            ports,
        ),
    ] {
        thief.refused(&deployment("attack", more), why);
    }
    // The same by a change of what is there.
    let account = r#"{"spec":{"template":{"spec":{"serviceAccountName":"steward-etcd-setup"}}}}"#;
    let said = thief.kubectl(&[&patch[..], &["deployment/tenant", "-p", account]].concat());
    contains(&said.stderr, accounts);

    // Addresses of others, and names.
    let addressed = json!({"spec": {"ports": [{"port": 443}], "externalIPs": ["192.0.2.1"]}});
    let service = |spec| of_tenant("v1", "Service", "attack", spec);
    thief.refused(&service(addressed), "have no externalIPs");
    let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    thief.refused(&service(named), "have no externalName");
    let address = r#"{"spec":{"externalIPs":["192.0.2.1"]}}"#;
    let said = thief.kubectl(&[&patch[..], &["service/tenant", "-p", address]].concat());
    contains(&said.stderr, "have no externalIPs");
    // What has one already is the controller's to keep.
    access
        .kubectl(&[&patch[..], &["service/tenant", "-p", address]].concat())
        .unwrap();
    let touched = r#"{"metadata":{"labels":{"touched":"1"}}}"#;
    let said = thief.kubectl(&[&patch[..], &["service/tenant", "-p", touched]].concat());
    assert_eq!(said.code, 0, "{}", said.text());

    // Secrets that are, or become, a token.
    let mut token = secret(
        "token",
        json!({"type": "kubernetes.io/service-account-token"}),
    );
    token["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": "default"});
    thief.refused(&token, "Secrets of tenants are of type Opaque");
    let bootstrap = json!({"type": "bootstrap.kubernetes.io/token"});
    thief.refused(&secret("bootstrap-token-abcdef", bootstrap), "Opaque");

    // Rights given on: more than one Secret, or to somebody else.
    let only = "is the right to read its signing Secret";
    let one = json!(["tenant-client-ca"]);
    for (resources, verbs, names) in [
        (json!(["secrets"]), json!(["get", "delete"]), one.clone()),
        (json!(["secrets"]), json!(["get"]), json!([])),
        (json!(["secrets"]), json!(["get"]), json!(["theirs"])),
        (json!(["configmaps"]), json!(["get"]), one),
    ] {
        thief.refused(&role("attack", resources, verbs, names), only);
    }
    let stranger = ["default", "default"];
    thief.refused(
        &binding("attack", signing, stranger),
        "is for steward-apiserver",
    );

    // Nobody else is concerned.
    access
        .kubectl(&["-n", "default", "delete", "secret", "theirs"])
        .unwrap();
}
