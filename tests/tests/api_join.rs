//! `tenantcontrolplanes/NAME/jointoken` against a real kube-apiserver as the tenant.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use apiservice::v1alpha1::{JoinTokenRequest, JoinTokenRequestSpec, TenantControlPlane};
use serde_json::{Value, json};
use tests::served::{GROUP_VERSION, Said, Served, contains, eventually, run};

/// The management cluster stands in for the tenant `t`: its authority signs for its users,
/// and it has what the controller keeps in a tenant. At the address of `dead` somebody
/// listens who never answers.
const OBJECTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: signer, namespace: default}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get], resourceNames: [t-client-ca, dead-client-ca]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: signer, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: signer}
subjects: [{kind: ServiceAccount, name: steward-apiserver, namespace: steward-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: helper, namespace: default}
rules: [{apiGroups: [steward.butlerlabs.dev], resources: [tenantcontrolplanes/jointoken], resourceNames: [t], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: helper, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: helper}
subjects: [{kind: ServiceAccount, name: helper, namespace: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: owner, namespace: default}
rules: [{apiGroups: [steward.butlerlabs.dev], resources: [tenantcontrolplanes, tenantcontrolplanes/jointoken], verbs: [get, create, delete]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: owner, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: owner}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: owner}, {kind: ServiceAccount, name: owner, namespace: default}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: helper, namespace: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: owner, namespace: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: default}
---
apiVersion: steward.butlerlabs.dev/v1alpha1
kind: TenantControlPlane
metadata: {name: t, namespace: default}
spec:
  kubernetes: {version: v1.36.3, kubelet: {}}
  controlPlane: {service: {serviceType: ClusterIP}}
---
apiVersion: steward.butlerlabs.dev/v1alpha1
kind: TenantControlPlane
metadata: {name: dead, namespace: default}
spec:
  kubernetes: {version: v1.36.3, kubelet: {}}
  controlPlane: {service: {serviceType: ClusterIP}}
"#;

/// As the controller keeps it in every tenant.
const INSIDE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: "steward:join-tokens", namespace: kube-system}
rules: [{apiGroups: [""], resources: [secrets], verbs: [create, delete, get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: "steward:join-tokens", namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: "steward:join-tokens"}
subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: "steward:join-tokens"}]
"#;

struct World {
    served: Served,
    endpoint: String,
}

impl World {
    fn url(tenant: &str) -> String {
        format!("{GROUP_VERSION}/namespaces/default/tenantcontrolplanes/{tenant}/jointoken")
    }

    fn ready(&self, tenant: &str, endpoint: &str) {
        let pki = self.served.lab.directory().pki();
        let from = |key: &str, file: &str| format!("--from-file={key}={}/{file}", pki.display());
        let name = format!("{tenant}-client-ca");
        let files = [
            from("ca.crt", "ca.crt"),
            from("ca.key", "ca.key"),
            from("server-ca.crt", "ca.crt"),
        ];
        let secret = ["create", "secret", "generic", &name];
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        self.served.kubectl(&[&secret[..], &files].concat());
        let ready = json!({"status": {
            "controlPlaneEndpoint": endpoint,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }});
        let status = [
            "patch",
            "tcp",
            tenant,
            "--subresource=status",
            "--type=merge",
        ];
        self.served
            .kubectl(&[&status[..], &["-p", &ready.to_string()]].concat());
    }

    fn post(&self, url: &str, body: &Value, more: &[&str]) -> Said {
        let file = self.served.files().join("request.json");
        std::fs::write(&file, body.to_string()).unwrap();
        let file = file.display().to_string();
        let create = ["create", "--raw", url, "-f", &file, "--request-timeout=20s"];
        self.served.try_kubectl(&[&create[..], more].concat())
    }

    fn mint(&self, body: &Value) -> Value {
        let said = self.post(&Self::url("t"), body, &[]);
        assert_eq!(said.code, 0, "{}", said.text());
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// curl with the token of a ServiceAccount.
    fn curling(&self, method: &str, account: &str, url: &str, body: &str) -> Command {
        let token = self.served.kubectl(&["create", "token", account]);
        let ca = self.served.lab.directory().pki().join("ca.crt");
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "-i",
            "--max-time",
            "20",
            "--cacert",
            &ca.display().to_string(),
            "-X",
            method,
            "-H",
            &format!("Authorization: Bearer {}", token.trim()),
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
            &format!("https://{}{url}", self.endpoint),
        ]);
        curl
    }

    /// Code, headers and body of its answer.
    fn curl(&self, method: &str, account: &str, query: &str, body: &str) -> (u16, String, String) {
        let url = format!("{}{query}", Self::url("t"));
        let said = run(&mut self.curling(method, account, &url, body));
        assert_eq!(said.code, 0, "{}", said.text());
        let (head, body) = said.stdout.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, head.to_ascii_lowercase(), body.to_owned())
    }

    fn secrets(&self) -> Vec<String> {
        let list = [
            "get",
            "secrets",
            "--namespace=kube-system",
            "--field-selector=type=bootstrap.kubernetes.io/token",
            "-o=jsonpath={.items[*].metadata.name}",
        ];
        let names = self.served.kubectl(&list);
        names.split_whitespace().map(str::to_owned).collect()
    }

    fn whoami(&self, kubeconfig: &str) -> String {
        let file = self.served.files().join("discovery");
        std::fs::write(&file, kubeconfig).unwrap();
        let file = format!("--kubeconfig={}", file.display());
        let groups = "-o=jsonpath={.status.userInfo.username} {.status.userInfo.groups}";
        let whoami = [&file, "auth", "whoami", groups];
        self.served.try_kubectl(&whoami).text()
    }
}

fn id(answer: &Value) -> String {
    let token = answer["status"]["token"].as_str().unwrap();
    token.split_once('.').unwrap().0.to_owned()
}

/// Every file below a directory that holds one of the texts.
fn holding(directory: &Path, texts: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, texts));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let bytes = String::from_utf8_lossy(&bytes);
        if texts.iter().any(|text| bytes.contains(text)) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// R3.75, R3.76, R8.24, R8.25, R8.27.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_minted_listed_and_revoked_in_the_tenant() {
    // A process of its own, so that it has a log.
    let served = Served::process().await;
    served.lab.apply(OBJECTS).unwrap();
    let endpoint = format!("{}:6443", served.lab.addresses().node());
    let world = World { served, endpoint };
    let url = World::url("t");

    // Not before the first Ready, and not in its sleep.
    let (code, head, early) = world.curl("POST", "helper", "", "{}");
    assert_eq!(code, 503, "{early}");
    contains(&head, "retry-after: 2");
    contains(&early, "the tenant is not ready to be used");
    world.ready("t", &world.endpoint);
    world.served.kubectl(&["scale", "tcp", "t", "--replicas=0"]);
    let asleep = world.post(&url, &json!({}), &[]);
    contains(
        &asleep.text(),
        "kubectl scale tcp t --namespace=default --replicas=1",
    );
    world.served.kubectl(&["scale", "tcp", "t", "--replicas=1"]);

    // Without its rights in the tenant it says which are missing, and who gives them.
    let (code, head, refused) = world.curl("POST", "helper", "", "{}");
    assert_eq!(code, 503, "{refused}");
    contains(&head, "retry-after: 2");
    contains(
        &refused,
        r#"User \"steward:apiserver\" cannot create resource \"secrets\""#,
    );
    contains(&refused, "ClusterConfigured");
    world.served.lab.apply(INSIDE).unwrap();

    // A dry run makes nothing.
    let dry = world.post(&format!("{url}?dryRun=All"), &json!({}), &[]);
    assert_eq!(dry.code, 0, "{}", dry.text());
    assert!(!dry.stdout.contains("status"), "{}", dry.stdout);
    assert_eq!(world.secrets(), [""; 0]);
    let none = ["get", "tcp", "t", "--subresource=jointoken"];
    contains(
        &world.served.try_kubectl(&none).text(),
        "No resources found",
    );

    // By the plug-in of kubectl as well (R8.28), which prints what it is asked for.
    let said = world.served.plugin(&["jointoken", "t", "--ttl=10m"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let begins = format!("kubeadm join {} --token ", world.endpoint);
    assert!(said.stdout.starts_with(&begins), "{}", said.stdout);
    for secret in world.secrets() {
        let delete = ["-n", "kube-system", "delete", "secret", &secret];
        world.served.kubectl(&delete);
    }

    // What is minted works as a token, in its groups, and for joining.
    let answer = world.mint(&json!({"spec": {"ttlSeconds": 600, "description": "for rack 7"}}));
    let status = &answer["status"];
    let token = status["token"].as_str().unwrap();
    let hash = status["caCertHashes"][0].as_str().unwrap();
    let endpoint = &world.endpoint;
    assert_eq!(
        status["command"],
        format!("kubeadm join {endpoint} --token {token} --discovery-token-ca-cert-hash {hash}")
    );
    assert_eq!(status["endpoint"], endpoint.as_str());
    let until = |value: &Value| -> jiff::Timestamp { value.as_str().unwrap().parse().unwrap() };
    let life =
        until(&status["expirationTimestamp"]) - until(&answer["metadata"]["creationTimestamp"]);
    assert_eq!(life.total(jiff::Unit::Second).unwrap(), 600.0);
    let who = world.whoami(status["discoveryKubeconfig"].as_str().unwrap());
    contains(&who, &format!("system:bootstrap:{}", id(&answer)));
    contains(&who, "system:bootstrappers:kubeadm:default-node-token");
    let secret = format!("bootstrap-token-{}", id(&answer));
    assert_eq!(world.secrets(), std::slice::from_ref(&secret));
    // kubeadm itself takes it for one, and hashes the key of the authority alike.
    let kubeadm = run(Command::new(world.served.lab.program("kubeadm")).args([
        "token",
        "list",
        "-o=json",
        "--kubeconfig",
        &world.served.lab.kubeconfig().display().to_string(),
    ]));
    contains(&kubeadm.stdout, token);
    contains(&kubeadm.stdout, "for rack 7");
    let line = run(Command::new(world.served.lab.program("kubeadm")).args([
        "token",
        "create",
        "--print-join-command",
        "--kubeconfig",
        &world.served.lab.kubeconfig().display().to_string(),
    ]));
    contains(&line.text(), hash);
    let made = line.stdout.split_whitespace().nth(4).unwrap();
    let of_kubeadm = made.split_once('.').unwrap().0.to_owned();

    // The list has no secrets, in any form.
    let get = ["get", "tcp", "t", "--subresource=jointoken"];
    let yaml = world.served.kubectl(&[&get[..], &["-o", "yaml"]].concat());
    contains(&yaml, "description: for rack 7");
    contains(&yaml, "requestedBy: kubernetes-super-admin");
    contains(&yaml, &format!("id: {}", id(&answer)));
    contains(&yaml, &format!("id: {of_kubeadm}"));
    let table = world.served.kubectl(&get);
    let head = table.lines().next().unwrap();
    let columns: Vec<&str> = head
        .split("  ")
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect();
    assert_eq!(
        columns,
        ["ID", "TTL", "USAGES", "DESCRIPTION", "REQUESTED BY"]
    );
    assert_eq!(table.lines().count(), 3, "{table}");
    contains(&table, "authentication,signing");
    let secrets: Vec<String> = [token, made]
        .iter()
        .map(|token| token.split_once('.').unwrap().1.to_owned())
        .collect();
    for text in [&yaml, &table] {
        assert!(
            !secrets.iter().any(|secret| text.contains(secret)),
            "{text}"
        );
    }

    // Who may do what: the helper mints and nothing else, a stranger nothing, the owner all.
    let (code, head, minted) =
        world.curl("POST", "helper", "", r#"{"spec":{"usages":["signing"]}}"#);
    assert_eq!(code, 201, "{minted}");
    contains(&head, "cache-control: no-store");
    let minted: Value = serde_json::from_str(&minted).unwrap();
    assert_eq!(minted["status"].get("command"), None);
    let of_helper = format!("?token={}", id(&minted));
    for (account, method, code) in [
        ("helper", "GET", 403),
        ("helper", "DELETE", 403),
        ("stranger", "POST", 403),
        ("stranger", "GET", 403),
        ("stranger", "DELETE", 403),
    ] {
        let said = world.curl(method, account, &of_helper, "");
        assert_eq!(said.0, code, "{account} {method}: {}", said.2);
        contains(&said.2, "tenantcontrolplanes/jointoken");
    }
    let table = world.served.kubectl(&[&get[..], &["--as=owner"]].concat());
    contains(&table, "system:serviceaccount:default:helper");

    // A right that is taken away is gone at once, whatever was remembered. Directly: through
    // kube-apiserver it is refused before it comes to us.
    let mut curl = world.curling("POST", "helper", &url, "{}");
    let server = format!("{}:8443", world.served.lab.addresses().node());
    let here = format!("{}:{server}", world.endpoint);
    curl.args(["--insecure", "--connect-to", &here]);
    // One token for all: what is remembered is remembered of a token.
    let mut direct = || {
        let said = run(&mut curl).stdout;
        said.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(direct(), "201");
    world.served.kubectl(&["delete", "rolebinding", "helper"]);
    let taken = Duration::from_secs(4);
    eventually("the right is gone", taken, || direct() == "403").await;

    // DELETE: a dry run leaves it, an id with its secret is an id, and then it is gone.
    let delete = |query: &str, more: &[&str]| {
        let path = format!("{url}{query}");
        let delete = [
            "delete",
            "--raw",
            &path,
            "--as=owner",
            "--request-timeout=20s",
        ];
        world.served.try_kubectl(&[&delete[..], more].concat())
    };
    contains(&delete("", &[]).text(), "which token?");
    contains(
        &delete("?token=zzzzzz", &[]).text(),
        r#"jointokens.steward.butlerlabs.dev "zzzzzz" not found"#,
    );
    let before = world.secrets();
    let dry = delete(&format!("?dryRun=All&token={}", id(&answer)), &[]);
    contains(&dry.stdout, r#""status":"Success""#);
    assert_eq!(world.secrets(), before);
    let gone = delete(&format!("?token={token}"), &[]);
    contains(&gone.stdout, r#""status":"Success""#);
    assert!(!gone.text().contains(&secrets[0]), "{}", gone.text());
    assert!(!world.secrets().contains(&secret));
    // kube-apiserver remembers a token that was valid for ten seconds.
    let discovery = status["discoveryKubeconfig"].as_str().unwrap();
    let ended = || world.whoami(discovery).contains("Unauthorized");
    eventually("the token lets nobody in", Duration::from_secs(20), ended).await;
    // The answer of POST is a body that revokes what it granted.
    let file = world.served.files().join("granted.json");
    std::fs::write(&file, minted.to_string()).unwrap();
    let gone = delete("", &["-f", &file.display().to_string()]);
    contains(&gone.stdout, r#""status":"Success""#);
    // A Secret that is no token is nobody's.
    let other = [
        "create",
        "secret",
        "generic",
        "bootstrap-token-aaaaaa",
        "--namespace=kube-system",
    ];
    world.served.kubectl(&other);
    contains(&delete("?token=aaaaaa", &[]).text(), "not found");

    // What a tenant refuses is told in its words.
    world.served.kubectl(&[
        "create",
        "quota",
        "none",
        "--namespace=kube-system",
        "--hard=count/secrets=0",
    ]);
    let started = Instant::now();
    loop {
        let said = world.post(&url, &json!({}), &[]);
        if said.code != 0 {
            contains(&said.text(), "exceeded quota: none");
            contains(&said.text(), "the tenant refuses it");
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "the quota is not enforced"
        );
    }
    world
        .served
        .kubectl(&["delete", "quota", "none", "--namespace=kube-system"]);

    // Through kube-rs, with the types of the crate.
    let api: kube::Api<TenantControlPlane> =
        kube::Api::namespaced(world.served.lab.client(), "default");
    let asked = JoinTokenRequest {
        spec: JoinTokenRequestSpec {
            ttl_seconds: Some(60),
            ..Default::default()
        },
        ..Default::default()
    };
    let granted: JoinTokenRequest = api
        .create_subresource("jointoken", "t", &Default::default(), &asked)
        .await
        .unwrap();
    let granted = granted.status.unwrap();
    assert_eq!(granted.token.as_ref().unwrap().len(), 23);
    let listed = world.served.get(&url).await.unwrap();
    let listed: JoinTokenRequest = serde_json::from_value(listed).unwrap();
    let listed = listed.status.unwrap().tokens.unwrap();
    assert!(
        listed
            .iter()
            .any(|token| granted.token.as_ref().unwrap().starts_with(&token.id))
    );

    // One that hangs delays nobody else, and is told apart.
    let listener = tokio::net::TcpListener::bind((world.served.lab.host_ip(), 0))
        .await
        .unwrap();
    world.ready("dead", &listener.local_addr().unwrap().to_string());
    // Made before any is begun: making one takes as long as a busy machine takes.
    let mut dead = [(); 8].map(|()| world.curling("GET", "owner", &World::url("dead"), ""));
    let dead = dead.each_mut().map(|curl| {
        let curl = curl.stdout(Stdio::piped()).stderr(Stdio::piped());
        curl.spawn().unwrap()
    });
    let began = Instant::now();
    let answer = world.mint(&json!({}));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for child in dead {
        let said = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let known = ["the tenant cannot be reached", "Too many requests"];
        let known = known.into_iter().find(|known| text.contains(known));
        *told.entry(known.unwrap_or("?")).or_default() += 1;
    }
    let expected = [
        ("Too many requests", 4),
        ("the tenant cannot be reached", 4),
    ];
    assert_eq!(told, BTreeMap::from(expected));

    // No secret is in a log, an audit line or an event; what was done is.
    let mut texts = secrets;
    for answer in [&answer, &minted] {
        let token = answer["status"]["token"].as_str().unwrap();
        texts.push(token.split_once('.').unwrap().1.to_owned());
    }
    let token = granted.token.unwrap();
    texts.push(token.split_once('.').unwrap().1.to_owned());
    let events = world.served.kubectl(&["get", "events", "-A", "-o", "yaml"]);
    assert!(!texts.iter().any(|text| events.contains(text)));
    let log = std::fs::read_to_string(world.served.lab.directory().log("served")).unwrap();
    assert!(!texts.iter().any(|text| log.contains(text)));
    contains(&log, "minted a join token");
    contains(&log, "revoked a join token");
    contains(&log, &id(&answer));
    // kube-apiserver's audit log has the URL that somebody pasted a whole token into.
    let pasted = texts.remove(0);
    let audit = std::fs::read_to_string(world.served.lab.directory().audit_log()).unwrap();
    assert!(!texts.iter().any(|text| audit.contains(text)));
    drop(pasted);
    assert_eq!(holding(&world.served.data(), &texts), [""; 0]);

    let World { mut served, .. } = world;
    served.stop().await;
}
